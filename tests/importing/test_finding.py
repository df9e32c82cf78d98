"""Which files are one bundle: as they are named by people, by patterns, and by export_bundle's --output."""

from pathlib import Path

import pytest

from mirrors.importing import finding
from mirrors.importing.finding import FindingError


@pytest.fixture
def files(tmp_path):
    """files("a.tar.001of002", …) makes them and gives their paths."""

    def made(*names: str) -> list[Path]:
        for name in names:
            (tmp_path / name).write_bytes(b"x")
        return [tmp_path / name for name in names]

    return made


@pytest.mark.parametrize("stem", ["airgap-20261120T214500Z-k3j9x2a1.tar", "monday.tar", "carry", "b1-x.y"])
def test_volumes_are_known_by_their_number_whatever_they_are_called(files, stem):
    found = finding.at_paths(files(f"{stem}.002of002", f"{stem}.001of002"))
    assert [part.name for part in found.parts] == [f"{stem}.001of002", f"{stem}.002of002"]
    assert found.name == stem


def test_names_in_capitals_are_taken_as_old_media_make_them(files):
    found = finding.at_paths(files("AIRGAP-X.TAR.002OF002", "AIRGAP-X.TAR.001OF002", "AIRGAP-X.TAR.SHA256"))
    assert [part.name for part in found.parts] == ["AIRGAP-X.TAR.001OF002", "AIRGAP-X.TAR.002OF002"]
    (path,) = files("AIRGAP-Y.TAR")
    assert [each.name for each in finding.in_directory(path.parent)] == ["AIRGAP-Y.TAR", "AIRGAP-X.TAR"]


def test_a_file_that_is_named_twice_is_read_once(files):
    paths = files("m.tar.001of002", "m.tar.002of002")
    assert len(finding.at_paths([*paths, paths[0]]).parts) == 2


def test_what_is_written_beside_volumes_may_be_named_with_them(files):
    found = finding.at_paths(files("m.tar.001of002", "m.tar.002of002", "m.tar.sha256", "m.tar.join.txt"))
    assert len(found.parts) == 2


def test_any_other_file_among_them_is_named(files):
    with pytest.raises(FindingError, match=r"not the volumes of one bundle: .*notes\.txt"):
        finding.at_paths(files("m.tar.001of002", "m.tar.002of002", "notes.txt"))


def test_a_volume_that_is_missing_is_named(files):
    with pytest.raises(FindingError, match="volume 2 of 3 is missing"):
        finding.at_paths(files("m.tar.001of003", "m.tar.003of003"))


def test_one_file_may_be_called_anything(files):
    assert finding.at_paths(files("renamed.bin")).name == "renamed.bin"
