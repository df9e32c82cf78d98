"""The QR code: the same bytes, drawn without a style that the pages would have to allow."""

import re

import pytest

from mirrors.receipts import TooLong, data_uri, svg


def test_it_is_a_drawing_without_styles_and_scripts(signed):
    drawn = svg(signed)
    assert 'viewBox="0 0 89 89"' in drawn
    assert set(re.findall(r"<(\w+)", drawn)) == {"svg", "path"}
    assert "style" not in drawn
    assert data_uri(signed).startswith("data:image/svg+xml;base64,")


def test_it_refuses_what_no_camera_reads():
    with pytest.raises(TooLong, match="Take the file"):
        svg(b"x" * 2400)
