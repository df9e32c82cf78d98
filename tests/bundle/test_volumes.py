"""Volumes: ranges that join to the file, names that sort, lists that sha256sum reads."""

import hashlib
import os
import subprocess
from itertools import pairwise

import pytest

from mirrors.bundle import volumes
from mirrors.bundle.volumes import PRESETS, Part, VolumeError, VolumeSums, cut, parse_name, size_named
from tests.bundle import samples

MIB = 1024 * 1024


@pytest.fixture
def composition(maker):
    return maker.composition([samples.database(maker.store, content=os.urandom(3 * MIB + 4321))])


def test_joined_they_are_the_file(composition):
    parts = cut(composition.size, MIB)
    assert len(parts) == 4
    whole = b"".join(composition.read())
    assert b"".join(b"".join(composition.read(part.start, part.stop)) for part in parts) == whole
    assert [part.size for part in parts[:-1]] == [MIB] * 3
    assert 0 < parts[-1].size <= MIB


@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 2 * MIB, 999 * MIB])
def test_every_byte_is_in_one_volume(size):
    parts = cut(size, MIB)
    assert parts[0].start == 0
    assert parts[-1].stop == size
    assert all(left.stop == right.start and left.size == MIB for left, right in pairwise(parts))
    assert {part.count for part in parts} == {len(parts)}


def test_names_sort_in_order_and_are_read_again():
    parts = cut(12 * MIB, MIB)
    names = [part.name("airgap-x.tar") for part in parts]
    assert names[0] == "airgap-x.tar.001of012"
    assert sorted(names) == names
    assert [parse_name(name) for name in names] == [("airgap-x.tar", n, 12) for n in range(1, 13)]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.000of003", "a.tar.004of003", "a.tar.1of3", ".001of001", "a.sha256"])
def test_other_names_are_no_volumes(name):
    assert parse_name(name) is None


def test_the_presets_fit_their_media_with_a_file_system():
    assert PRESETS["cd"] < 360_000 * 2048
    assert PRESETS["dvd"] < 2_295_104 * 2048  # a DVD+R, the smaller one
    assert PRESETS["fat32"] == 2**32 - 1
    assert [size_named(name) for name in (" CD", "dvd", "FAT32", "1048576")] == [*PRESETS.values(), MIB]


@pytest.mark.parametrize("text", ["", "floppy", "-5", "1e9", "4.7", "٣"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(VolumeError, match="cd, dvd, fat32 or a number of bytes"):
        size_named(text)


def test_sizes_that_cannot_be_are_refused_with_what_can():
    with pytest.raises(VolumeError, match=r"at least 1,048,576 bytes"):
        cut(5 * MIB, MIB - 1)
    with pytest.raises(VolumeError, match=r"1,000 volumes, and 999 is the most.*at least 1,049,626 bytes"):
        cut(1000 * MIB, MIB)
    assert len(cut(1000 * MIB, 1_049_626)) == 999


@pytest.mark.parametrize("at_once", [1000, MIB, 5 * MIB])
def test_sums_are_those_of_the_volumes_however_the_pieces_fall(composition, at_once):
    parts = cut(composition.size, MIB)
    sums = VolumeSums(parts)
    whole = b"".join(composition.read())
    for start in range(0, len(whole), at_once):
        sums.update(whole[start : start + at_once])
    assert sums.hexdigests() == [hashlib.sha256(whole[part.start : part.stop]).hexdigest() for part in parts]


def test_they_are_computed_in_the_pass_that_sums_the_whole(composition):
    sums = VolumeSums(cut(composition.size, MIB))
    whole = b"".join(composition.read())
    assert composition.sha256(also=sums.update) == hashlib.sha256(whole).hexdigest()
    assert sums.hexdigests()[0] == hashlib.sha256(whole[:MIB]).hexdigest()


def test_a_part_is_a_file_of_its_own(composition):
    part = Part(composition, 512, 3000, '"x"')
    whole = b"".join(composition.read())
    assert part.size == 2488
    assert b"".join(part.read(0, part.size)) == whole[512:3000]
    assert b"".join(part.read(10, 20)) == whole[522:532]


def test_the_courier_checks_and_joins_with_what_is_written(composition, tmp_path):
    """The commands of the text, run as they stand there."""
    filename = composition.filename
    parts = cut(composition.size, MIB)
    whole = b"".join(composition.read())
    pairs = []
    for part in parts:
        data = whole[part.start : part.stop]
        (tmp_path / part.name(filename)).write_bytes(data)
        pairs.append((part, hashlib.sha256(data).hexdigest()))
    listed = volumes.checksum_list(filename, hashlib.sha256(whole).hexdigest(), pairs)
    (tmp_path / f"{filename}.sha256").write_bytes(listed)
    text = volumes.join_text(filename, len(parts)).decode("ascii")
    commands = [line.strip() for line in text.splitlines() if line.strip().startswith(("sha256sum -c", "cat "))]
    assert [line.split()[0] for line in commands] == ["sha256sum", "cat", "sha256sum"]
    done = [subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True) for line in commands]
    assert [one.returncode for one in done] == [0, 0, 0], done
    assert done[0].stdout.count(": OK") == 4
    assert done[2].stdout.count(": OK") == 5
    assert (tmp_path / filename).read_bytes() == whole
    assert f"copy /b {filename}.001of004+{filename}.002of004+" in text
