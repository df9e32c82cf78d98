"""The signed text as a QR code: the same bytes, so that whatever reads QR codes gives what the file holds."""

import base64
import io

import segno
from segno.encoder import DataOverflowError

# Four fifths of what the largest symbol holds; beyond that no camera reads it from a screen.
MOST = 2300


class TooLong(Exception):
    """The text does not fit into a symbol that a camera reads; `str()` is a sentence."""


def svg(text: bytes) -> str:
    """A drawing without any style of its own, black on white with the quiet zone, as wide as its place. Raises TooLong.

    About 520 bytes, what an Ed25519 key signs, make 85 modules a side.
    """
    if len(text) > MOST:
        raise TooLong("The receipt is too long for a QR code, because of the key it is signed with. Take the file.")
    try:
        symbol = segno.make_qr(text, error="m", mode="byte", boost_error=False)
    except DataOverflowError:
        raise TooLong("The receipt is too long for a QR code. Take the file.") from None
    drawn = io.BytesIO()
    symbol.save(drawn, kind="svg", border=4, dark="#000", light="#fff", xmldecl=False, omitsize=True, nl=False)
    return drawn.getvalue().decode("ascii")


def data_uri(text: bytes) -> str:
    """The drawing as the source of an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg(text).encode()).decode()
