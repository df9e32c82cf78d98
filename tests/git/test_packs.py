"""Packs and trees from strangers: real ones are read whole, hostile ones are bounded."""

import hashlib
import io
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from mirrors.git import Bounds, GitError, Pack, Tree
from mirrors.git.packs import DEEPEST_CHAIN

COMMIT, TREE, BLOB, TAG, OFFSET, NAMED = 1, 2, 3, 4, 6, 7
SMALL = Bounds(objects=50, object_bytes=10_000, inflated_bytes=100_000, entries=100, depth=5, tree_bytes=50_000)


def name_of(kind: bytes, data: bytes) -> str:
    return hashlib.sha1(b"%s %d\0" % (kind, len(data)) + data, usedforsecurity=False).hexdigest()


def entry(kind: int, data: bytes, size: int | None = None, base: bytes = b"") -> bytes:
    size = len(data) if size is None else size
    head = bytearray([kind << 4 | size & 15])
    size >>= 4
    while size:
        head[-1] |= 128
        head.append(size & 127)
        size >>= 7
    return bytes(head) + base + zlib.compress(data)


def pack_of(*entries: bytes, count: int | None = None) -> bytes:
    body = b"PACK" + struct.pack(">II", 2, len(entries) if count is None else count) + b"".join(entries)
    return body + hashlib.sha1(body, usedforsecurity=False).digest()


def opened(tmp_path: Path, data: bytes, bounds: Bounds = SMALL) -> Pack:
    file = tmp_path / "pack"
    file.write_bytes(data)
    with file.open("rb") as reading:
        return Pack(reading, bounds)


def varint(value: int) -> bytes:
    out = bytearray([value & 127])
    while value := value >> 7:
        out[-1] |= 128
        out.append(value & 127)
    return bytes(out)


def delta(source: int, size: int, *orders: bytes) -> bytes:
    return varint(source) + varint(size) + b"".join(orders)


def copy(start: int, count: int) -> bytes:
    return bytes([0b11110011]) + struct.pack("<H", start) + count.to_bytes(3, "little")


def insert(data: bytes) -> bytes:
    return bytes([len(data)]) + data


def distance(value: int) -> bytes:
    out = [value & 127]
    while value := value >> 7:
        value -= 1
        out.insert(0, 128 | value & 127)
    return bytes(out)


# Real ones


@pytest.mark.peers
def test_it_reads_what_git_itself_packs_with_its_longest_chains(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("the git program is not installed")

    def git(*words: str, data: bytes = b"") -> bytes:
        call = ["git", "-c", "user.name=v", "-c", "user.email=v@x", *words]
        return subprocess.run(call, cwd=tmp_path, input=data, capture_output=True, check=True).stdout

    git("init", "-q", "-b", "main")
    expected = {}
    for number in range(60):
        text = b"".join(b"%d line of a document\n" % line for line in range(400)) + b"%d\n" % number * number
        (tmp_path / f"{number}.json").write_bytes(text)
        expected[f"{number}.json"] = text
    git("add", "-A")
    git("commit", "-qm", "x")
    names = git("rev-list", "--objects", "HEAD")
    for offsets in ("--delta-base-offset", "--no-reuse-delta"):
        packed = git("pack-objects", "--stdout", "--depth=40", "--window=60", offsets, data=b"\n".join(
            line.split()[0] for line in names.splitlines()) + b"\n")  # fmt: skip
        pack = opened(tmp_path, packed, Bounds())
        tree = Tree(pack, git("rev-parse", "HEAD").decode().strip())
        assert {file.path: tree.read(file) for file in tree.files} == expected
        assert len(packed) < 40_000


def test_deltas_by_offset_and_by_name_are_applied_in_any_order(tmp_path: Path) -> None:
    base, second, third = b"0123456789" * 20, b"0123456789" * 20 + b"more", b"more" + b"0123456789" * 2
    by_name = entry(NAMED, delta(204, 24, copy(200, 4), copy(0, 20)), base=bytes.fromhex(name_of(b"blob", second)))
    plain = entry(BLOB, base)
    by_offset = entry(OFFSET, delta(200, 204, copy(0, 200), insert(b"more")), base=distance(len(plain)))
    pack = opened(tmp_path, pack_of(by_name, plain, by_offset))
    for content in (base, second, third):
        assert pack.content(name_of(b"blob", content), "blob") == content
        assert pack.size(name_of(b"blob", content)) == len(content)


# Hostile packs

EMPTY = entry(BLOB, b"x")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty pack"),
        (b"PACK" + bytes(40), "no pack"),
        (b"<html>" * 10, "no pack"),
        (pack_of(EMPTY)[:-1] + b"\0", "checksum is wrong"),
        (pack_of(EMPTY, count=2), "ends in the middle"),
        (pack_of(EMPTY, b"rubbish", count=1), "other bytes after"),
        (pack_of(EMPTY, count=51), "51 objects"),
        (pack_of(entry(BLOB, b"x" * 100, size=5)), "longer or shorter"),
        (pack_of(entry(BLOB, b"x" * 5, size=100)), "shorter than it says"),
        (pack_of(entry(BLOB, b"x", size=20_000)), "object of 20,000 bytes"),
        (pack_of(entry(BLOB, bytes(5_000_000), size=9_000)), "longer or shorter"),
        (pack_of(bytes([BLOB << 4 | 128]) + b"\xff" * 20), "beyond all bounds"),
        (pack_of(bytes([BLOB << 4 | 1]) + b"no zlib"), "is damaged"),
        (pack_of(entry(5, b"x")), "unknown kind 5"),
        (pack_of(entry(0, b"x")), "unknown kind 0"),
        (pack_of(EMPTY, entry(OFFSET, b"x", base=distance(1))), "delta to nowhere"),
        (pack_of(entry(OFFSET, b"x", base=distance(5000))), "delta to nowhere"),
        (pack_of(entry(NAMED, delta(1, 1, copy(0, 1)), base=bytes(20))), "not in it"),
        (pack_of(*[entry(BLOB, bytes([n]) * 9_000) for n in range(20)]), "inflates to more than"),
    ],
)  # fmt: skip
def test_a_hostile_pack_is_a_sentence(data: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(GitError, match=said):
        opened(tmp_path, data)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (delta(7, 1, copy(0, 1)), "does not fit"),
        (delta(1, 20_000, copy(0, 1)), "grows beyond bounds"),
        (delta(1, 5, copy(0, 9)), "copies beyond its base"),
        (delta(1, 5, copy(70_000 % 65536, 1)), "copies beyond its base"),
        (delta(1, 5, copy(0, 1)), "another size"),
        (delta(1, 1, copy(0, 1), copy(0, 1), copy(0, 1)), "another size"),
        (delta(1, 5, b"\x00"), "unknown order"),
        (delta(1, 5, b"\x09ab"), "ends too soon"),
        (delta(1, 5, b"\xff\x00"), "ends too soon"),
        (b"\xff" * 3, "without a size"),
    ],
)
def test_a_hostile_delta_is_a_sentence(order: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(GitError, match=said):
        opened(tmp_path, pack_of(EMPTY, entry(OFFSET, order, base=distance(len(EMPTY)))))


def test_deltas_that_copy_their_base_again_and_again_meet_the_limit_on_all_inflated_bytes(tmp_path: Path) -> None:
    base = entry(BLOB, bytes(5_000))
    entries = [base]
    for number in range(40):
        far = sum(map(len, entries))
        entries.append(
            entry(
                OFFSET, delta(5_000, 9_000, copy(0, 4_999), copy(0, 4_000), insert(b"%c" % number)), base=distance(far)
            )
        )
    with pytest.raises(GitError, match="inflates to more than"):
        opened(tmp_path, pack_of(*entries))


def test_a_chain_of_deltas_without_end_is_refused(tmp_path: Path) -> None:
    entries = [entry(BLOB, b"0" * 4)]
    for number in range(DEEPEST_CHAIN + 1):
        order = delta(4, 4, insert(struct.pack(">I", number)))
        entries.append(entry(OFFSET, order, base=distance(len(entries[-1]))))
    with pytest.raises(GitError, match="chain of deltas without end"):
        opened(tmp_path, pack_of(*entries), Bounds(objects=10_000))


def test_a_stop_is_heard_while_a_pack_is_read(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def check() -> None:
        raise Stop

    with pytest.raises(Stop):
        Pack(io.FileIO(opened_file(tmp_path, pack_of(EMPTY))), SMALL, check)  # type: ignore[arg-type]


def opened_file(tmp_path: Path, data: bytes) -> str:
    file = tmp_path / "pack"
    file.write_bytes(data)
    return str(file)


# Hostile trees


def tree(*entries: tuple[str, bytes, str]) -> bytes:
    return b"".join(b"%s %s\0" % (mode.encode(), name) + bytes.fromhex(child) for mode, name, child in entries)


def committed(tmp_path: Path, *trees: bytes, blobs: tuple[bytes, ...] = (b"x",), head: bytes = b"") -> Tree:
    """A commit of the last of these trees."""
    root = name_of(b"tree", trees[-1]).encode()
    commit = head or b"tree %s\nauthor a <a> 1 +0000\ncommitter a <a> 1763600000 +0000\n\nx\n" % root
    objects = [*(entry(TREE, each) for each in trees), *(entry(BLOB, each) for each in blobs), entry(COMMIT, commit)]
    return Tree(opened(tmp_path, pack_of(*objects)), name_of(b"commit", commit))


X = name_of(b"blob", b"x")


def test_files_are_sorted_and_links_and_submodules_left_out(tmp_path: Path) -> None:
    inner = tree(("100755", b"b.json", X))
    outer = tree(
        ("100644", b"z", X), ("40000", b"a", name_of(b"tree", inner)), ("120000", b"l", X), ("160000", b"s", X)
    )
    found = committed(tmp_path, inner, outer)
    assert [file.path for file in found.files] == ["a/b.json", "z"]
    assert (found.left_out, found.committed_at) == (["l", "s"], 1763600000)


@pytest.mark.parametrize(
    "name", [b"..", b".", b"", b"a/b", b"a\\b", b"a\nb", b".git", b".GIT", b"git~1", b"\xff", "\u202e".encode()]
)
def test_a_hostile_name_is_refused(name: bytes, tmp_path: Path) -> None:
    with pytest.raises(GitError, match=r"hostile file name|no honest one|not UTF-8|is damaged"):
        committed(tmp_path, tree(("100644", name, X)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tree(("100644", b"a", X), ("100644", b"a", X)), "twice"),
        (tree(("100644", b"a", "ab" * 20)), "did not send it"),
        (tree(("40000", b"a", X)), "where a tree is named"),
        (tree(("777", b"a", X)), "unknown kind"),
        (tree(("100644", b"a", X))[:-1], "is damaged"),
        (b"rubbish", "is damaged"),
    ],
)
def test_a_hostile_tree_is_a_sentence(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(GitError, match=said):
        committed(tmp_path, content)


def test_a_tree_of_ten_objects_that_is_a_billion_files_is_refused(tmp_path: Path) -> None:
    trees = [tree(*[("100644", b"%d" % number, X) for number in range(9)])]
    for _ in range(4):
        trees.append(tree(*[("40000", b"%d" % number, name_of(b"tree", trees[-1])) for number in range(9)]))
    with pytest.raises(GitError, match="more than 100 files and folders"):
        committed(tmp_path, *trees)


def test_folders_that_go_too_deep_and_files_that_are_too_large_together_are_refused(tmp_path: Path) -> None:
    trees = [tree(("100644", b"x", X))]
    for _ in range(8):
        trees.append(tree(("40000", b"d", name_of(b"tree", trees[-1]))))
    with pytest.raises(GitError, match="nested deeper than 5"):
        committed(tmp_path, *trees)
    large = b"y" * 9_000
    many = tree(*[("100644", b"%d" % number, name_of(b"blob", large)) for number in range(9)])
    with pytest.raises(GitError, match="larger than 50,000 bytes together"):
        committed(tmp_path, many, blobs=(large,))


@pytest.mark.parametrize("head", [b"rubbish", b"tree zzz\n\n", b"parent x\ntree " + b"a" * 40])
def test_a_commit_without_a_tree_is_refused(head: bytes, tmp_path: Path) -> None:
    with pytest.raises(GitError, match="names no tree"):
        committed(tmp_path, tree(("100644", b"a", X)), head=head)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    content = tree(("100644", b"a", X))
    commit = b"tree %s\n" % name_of(b"tree", content).encode()
    pack = opened(tmp_path, pack_of(entry(TREE, content), entry(BLOB, b"x"), entry(COMMIT, commit)))
    with pytest.raises(GitError, match="no folder 'b/c'"):
        Tree(pack, name_of(b"commit", commit), "b/c")
