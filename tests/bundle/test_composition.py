"""A bundle's bytes: always the same, any range of them, and never a wrong one."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace

import pytest

from mirrors.blobs import STAMP_NS
from mirrors.bundle import BundleError, Composition, Recipe
from mirrors.stopping import Stopped, StopSignal
from tests.bundle import samples

DATABASE = 700_000


@pytest.fixture
def composition(maker) -> Composition:
    big = os.urandom(DATABASE)
    return maker.composition([samples.database(maker.store, content=big), samples.vex(maker.store)])


def layer_of(composition: Composition):
    return max(composition.recipe.members, key=lambda member: member.size)


def offset_of(composition: Composition, name: str) -> int:
    data = b"".join(composition.read())
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmember(f"{composition.recipe.folder}/{name}").offset_data


def spoil(composition: Composition, *, at: int = 100, restamp: bool = False, size: int | None = None) -> None:
    path = composition.store.path(layer_of(composition).digest)
    path.chmod(0o644)
    if size is not None:
        os.truncate(path, size)
    else:
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1]))
    if restamp:
        os.utime(path, ns=(STAMP_NS, STAMP_NS))


def sent(composition: Composition, *span: int) -> tuple[int, str]:
    """Bytes that left before it broke, and the error."""
    count = 0
    with pytest.raises(BundleError) as caught:
        for piece in composition.read(*span):
            count += len(piece)
    return count, str(caught.value)


class TestBytes:
    def test_its_size_is_known_before(self, composition: Composition) -> None:
        assert composition.size == len(b"".join(composition.read()))

    def test_it_ends_with_two_zero_blocks_and_nothing_after(self, composition: Composition) -> None:
        data = b"".join(composition.read())
        assert len(data) % 512 == 0
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            last = archive.getmembers()[-1]
        assert data[last.offset_data + last.size :].strip(b"\0") == b""
        assert len(data) - last.offset_data - last.size == -last.size % 512 + 1024

    def test_every_header_is_canonical(self, composition: Composition) -> None:
        with tarfile.open(fileobj=io.BytesIO(b"".join(composition.read()))) as archive:
            members = archive.getmembers()
        assert [(m.uid, m.gid, m.uname, m.gname, m.type, m.mtime) for m in members] == [
            (0, 0, "", "", b"0", int(samples.NOW.timestamp()))
        ] * len(members)
        assert {m.name.split("/")[0] for m in members} == {composition.recipe.folder}
        assert {m.name.rpartition("/")[2] for m in members if m.mode != 0o644} == {"install.sh", "push.sh"}

    def test_the_same_recipe_gives_the_same_bytes_in_another_process(self, composition: Composition) -> None:
        program = (
            "import hashlib, json, pathlib, sys\n"
            "from mirrors.blobs import BlobStore\n"
            "from mirrors.bundle import Composition, Recipe\n"
            "recipe = Recipe.from_dict(json.load(sys.stdin))\n"
            "print(Composition(recipe, BlobStore(pathlib.Path(sys.argv[1]))).sha256())"
        )
        answer = subprocess.run(
            [sys.executable, "-c", program, str(composition.store.root)],
            input=json.dumps(composition.recipe.as_dict()),
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout.strip() == hashlib.sha256(b"".join(composition.read())).hexdigest()

    def test_any_range_is_that_part_of_the_whole(self, composition: Composition) -> None:
        whole = b"".join(composition.read())
        edges = sorted(
            {0, 1, 511, 512, 513, len(whole) - 1, len(whole)}
            | {segment.start + d for segment in composition._segments for d in (-1, 0, 1) if segment.start}
        )
        for start in edges:
            for stop in edges:
                if start <= stop:
                    assert b"".join(composition.read(start, stop)) == whole[start:stop]

    def test_a_single_byte_anywhere(self, composition: Composition) -> None:
        whole = b"".join(composition.read())
        for position in range(0, len(whole), 997):
            assert b"".join(composition.read(position, position + 1)) == whole[position : position + 1]

    def test_pieces_are_never_larger_than_asked(self, composition: Composition) -> None:
        assert max(len(piece) for piece in composition.read(chunk=65536)) <= 65536

    @pytest.mark.parametrize("span", [(-1, 5), (5, 4), (0, 10**9), (10**9, None)])
    def test_a_range_outside_is_refused(self, composition: Composition, span) -> None:
        with pytest.raises(BundleError, match="were asked of a bundle of"):
            composition.read(*span)

    def test_it_opens_no_file_before_the_first_byte_is_asked(self, composition: Composition) -> None:
        composition.store.remove(layer_of(composition).digest)
        assert next(composition.read())


class TestDamage:
    def test_a_missing_blob_breaks_the_sending(self, composition: Composition) -> None:
        member = layer_of(composition)
        start = offset_of(composition, member.name)
        composition.store.remove(member.digest)
        count, words = sent(composition)
        assert count == start
        assert f"{member.name} is missing from the content store" in words
        assert "Run the store check" in words
        assert composition.problems() != []

    @pytest.mark.parametrize("size", [0, 1000])
    def test_a_blob_of_another_size_breaks_the_sending(self, composition: Composition, size: int) -> None:
        start = offset_of(composition, layer_of(composition).name)
        spoil(composition, size=size, restamp=True)
        count, words = sent(composition)
        assert count == start
        assert "is damaged in the content store" in words
        assert "instead of" in composition.problems()[0]

    @pytest.mark.parametrize("at", [0, 100, DATABASE - 10])
    def test_a_flipped_byte_breaks_it_before_the_member_is_whole(self, composition: Composition, at: int) -> None:
        member = layer_of(composition)
        start = offset_of(composition, member.name)
        spoil(composition, at=at)
        count, words = sent(composition)
        assert start <= count < start + member.size
        assert "is damaged" in words

    def test_a_range_in_the_middle_of_a_damaged_blob_sends_nothing_of_it(self, composition: Composition) -> None:
        start = offset_of(composition, layer_of(composition).name)
        spoil(composition, at=5)
        assert sent(composition, start + 1000, start + 2000)[0] == 0
        assert sent(composition, start, start + 2000)[0] == 0

    def test_a_touched_but_right_blob_is_sent(self, composition: Composition) -> None:
        whole = b"".join(composition.read())
        path = composition.store.path(layer_of(composition).digest)
        path.touch()
        assert b"".join(composition.read()) == whole
        path.touch()
        start = offset_of(composition, layer_of(composition).name)
        assert b"".join(composition.read(start + 9, start + 99)) == whole[start + 9 : start + 99]

    def test_a_blob_written_to_while_it_is_sent_breaks_the_sending(self, composition: Composition) -> None:
        member = layer_of(composition)
        end = offset_of(composition, member.name) + member.size
        pieces = composition.read(chunk=65536)
        count = len(next(pieces))
        while count < end - member.size // 2:
            count += len(next(pieces))
        spoil(composition, at=member.size - 1)
        with pytest.raises(BundleError, match="is damaged"):
            for piece in pieces:
                count += len(piece)
        assert count < end

    def test_the_whole_files_hash_verifies_every_member(self, composition: Composition) -> None:
        assert composition.sha256() == hashlib.sha256(b"".join(composition.read())).hexdigest()
        spoil(composition, restamp=True)  # rot that left no trace in the file's times
        with pytest.raises(BundleError, match="is damaged"):
            composition.sha256()

    def test_hashing_tells_its_progress_and_can_be_stopped(self, composition: Composition) -> None:
        done: list[int] = []
        composition.sha256(done.append)
        assert sum(done) == composition.size
        stop = StopSignal()
        stop.set()
        with pytest.raises(Stopped):
            composition.sha256(stop=stop)


class TestRecipe:
    def test_it_survives_json(self, composition: Composition) -> None:
        recipe = composition.recipe
        again = Recipe.from_dict(json.loads(json.dumps(recipe.as_dict())))
        assert again == recipe
        assert Composition(again, composition.store).etag == composition.etag

    def test_the_etag_is_strong_and_follows_the_contents(self, composition: Composition) -> None:
        assert composition.etag.startswith('"') and composition.etag.endswith('"')
        other = replace(composition.recipe, mtime=composition.recipe.mtime + 1)
        assert Composition(other, composition.store).etag != composition.etag

    def test_another_format_is_refused(self) -> None:
        with pytest.raises(BundleError, match="has format 2; this version of Airgap knows format 1"):
            Recipe.from_dict({"format": 2})

    @pytest.mark.parametrize("members", [[["a", 1, "sha256:x", 420]], [["a"]], 7])
    def test_a_spoilt_recipe_is_refused(self, members: object) -> None:
        with pytest.raises(BundleError, match="cannot be read"):
            Recipe.from_dict({"format": 1, "folder": "x", "mtime": 1, "members": members})
