"""The list of checksums beside volumes: a stranger's file that is read, bounded, and asked which volume is damaged."""

import hashlib
import io

import pytest

from mirrors.bundle.checking import LIST_LIMIT, ListError, damaged, read_list
from mirrors.bundle.joining import VolumeFile
from mirrors.bundle.volumes import checksum_list, cut
from mirrors.stopping import Stopped, StopSignal

DATA = [b"a" * 3000, b"b" * 3000, b"c" * 10]
SUMS = [hashlib.sha256(data).hexdigest() for data in DATA]
NAME = "airgap-x.tar"
LINES = [f"{own}  {NAME}.{number:03}of003\n".encode() for number, own in enumerate(SUMS, 1)]


def a_file(name, data, size=None):
    return VolumeFile(name, len(data) if size is None else size, lambda: io.BytesIO(data))


def a_list(data, size=None):
    return a_file(f"{NAME}.sha256", data, size)


def volumes(*data):
    return [a_file(f"{NAME}.{number:03}of{len(data):03}", each) for number, each in enumerate(data, 1)]


def test_it_reads_what_an_export_writes():
    parts = cut(3 << 20, 1 << 20)
    written = checksum_list(NAME, "f" * 64, list(zip(parts, SUMS, strict=True)))
    assert read_list(a_list(written), 3) == dict(enumerate(SUMS, 1))


def test_and_what_sha256sum_and_windows_make_of_it():
    made = b"".join(LINES).replace(b"  ", b" *").replace(b"\n", b"\r\n").upper()
    assert read_list(a_list(made), 3) == dict(enumerate(SUMS, 1))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "other lines"),
        (b"\xff\xfe\x00" * 50, "other lines"),
        (b"".join(LINES)[:-30], "other lines"),
        (b"".join(LINES[:2]), "names 2 of the 3 volumes"),
        (b"".join([*LINES, LINES[1]]), "names volume 2 twice"),
        (b"".join(LINES).replace(b"of003", b"of004"), "names 0 of the 3"),
        (b"".join(LINES).replace(b"airgap", b"../../x"), "other lines"),
        (b"".join(LINES) + b"x" * LIST_LIMIT, "at most"),
    ],
)
def test_a_list_that_is_none_is_not_used(data, why):
    with pytest.raises(ListError, match=why):
        read_list(a_list(data), 3)


def test_a_list_that_grows_while_it_is_read_is_not_used():
    with pytest.raises(ListError, match="to its end"):
        read_list(a_list(b"".join(LINES), size=40), 3)


def test_it_names_what_differs_is_cut_off_or_cannot_be_read():
    sums = dict(enumerate(SUMS, 1))
    assert damaged(volumes(*DATA), sums) == []
    good, other, _ = volumes(DATA[0], b"B" * 3000, DATA[2])
    short = a_file(f"{NAME}.003of003", b"c", size=10)
    assert damaged([good, other, short], sums) == [other, short]

    class Scratched(io.BytesIO):
        def read(self, count=-1):
            raise OSError(5, "Input/output error")

    scratched = VolumeFile(f"{NAME}.002of003", 3000, Scratched)
    assert damaged([good, scratched], sums) == [scratched]


def test_it_tells_how_far_it_is_and_can_be_stopped():
    told = []
    damaged(volumes(*DATA), {}, progress=lambda done, name: told.append(done))
    assert told == [3000, 6000, 6010]
    stop = StopSignal()
    stop.set("enough")
    with pytest.raises(Stopped):
        damaged(volumes(*DATA), {}, stop=stop)
