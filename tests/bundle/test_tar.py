"""Tar headers: the same bytes for ever, and every reader understands them."""

import io
import tarfile

import pytest

from mirrors.bundle import tar
from mirrors.digests import digest_of

LONG = "airgap-20261120T214500Z-k3j9x2a1/blobs/sha256/" + "ab" * 32


def test_its_bytes_never_change() -> None:
    """A format that was released keeps its bytes: a change here breaks every download under way."""
    headers = tar.header("a/b.txt", 5, 0o644, 1_795_000_000) + tar.header(LONG, 2**40, 0o755, 1_795_000_000)
    assert digest_of(headers) == "sha256:0e94a2bd7defabccb1861a68ecf600b6b5cb9896a9e14f9b56941232288597ad"


@pytest.mark.parametrize("name", ["a/b.txt", LONG, "d/" + "x" * 98, "p" * 150 + "/" + "x" * 100])
def test_it_differs_from_the_standard_library_only_in_the_device_numbers(name: str) -> None:
    """Python leaves them empty, GNU tar and we write zeros as POSIX says; so the sums differ, too."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = 12345, 1_795_000_000, 0o755
    theirs, ours = info.tobuf(tarfile.USTAR_FORMAT), tar.header(name, 12345, 0o755, 1_795_000_000)
    assert (ours[:148], ours[156:329], ours[345:]) == (theirs[:148], theirs[156:329], theirs[345:])
    assert tarfile.TarInfo.frombuf(ours, "ascii", "strict").name == name


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_padding_fills_the_block(size: int) -> None:
    assert (size + len(tar.padding(size))) % 512 == 0
    assert set(tar.padding(size)) <= {0}


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 10**12])
def test_sizes_beyond_ustar_are_read_right(size: int) -> None:
    header = tar.header(LONG, size, 0o644, 1_795_000_000)
    assert len(header) == (512 if size < 8**11 else 3 * 512)
    with tarfile.open(fileobj=io.BytesIO(header), mode="r|") as archive:
        found = archive.next()
    assert found is not None
    assert (found.name, found.size, found.mode) == (LONG, size, 0o644)


def test_a_name_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(tar.NameTooLong, match="too long for a tar header"):
        tar.header("x" * 101, 1, 0o644, 0)
