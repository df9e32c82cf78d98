import shutil
import struct
import subprocess

import pytest

from mirrors.demo.bolt import PAGE, BoltError, write_bolt

LEAF_ELEMENT = struct.Struct("<IIII")
BRANCH_ELEMENT = struct.Struct("<IIQ")


def read_bolt(data):
    """Reads a bbolt file back with nothing of the writer's code: meta, pages, nested and inline buckets."""
    magic, version, page_size = struct.unpack_from("<III", data, 16)
    assert (magic, version, page_size) == (0xED0CDAED, 2, PAGE)
    (root,) = struct.unpack_from("<Q", data, 16 + 16)
    return read_bucket(data, root)


def read_bucket(data, page_id):
    return read_page(data, data[page_id * PAGE :], page_id)


def read_page(data, page, expected_id):
    page_id, flags, count, _ = struct.unpack_from("<QHHI", page)
    assert page_id == expected_id
    found = {}
    for index in range(count):
        at = 16 + index * 16
        if flags == 1:
            position, key_size, child = BRANCH_ELEMENT.unpack_from(page, at)
            part = read_bucket(data, child)
            assert next(iter(part)) == page[at + position : at + position + key_size]
            found.update(part)
            continue
        assert flags == 2
        kind, position, key_size, value_size = LEAF_ELEMENT.unpack_from(page, at)
        key = page[at + position : at + position + key_size]
        value = page[at + position + key_size : at + position + key_size + value_size]
        if kind == 1:
            (child,) = struct.unpack_from("<Q", value)
            value = read_bucket(data, child) if child else read_page(data, value[16:], 0)
        found[key] = value
    assert list(found) == sorted(found)
    return found


TREES = {
    "empty": {},
    "one": {b"bucket": {b"key": b"value", b"empty": b""}},
    "nested": {b"a": {b"b": {b"c": {b"d": b"e"}}, b"plain": b"x"}, b"z": {}},
    "big values": {b"blobs": {b"%03d" % at: bytes([at]) * 20_000 for at in range(30)}},
    "many keys": {b"many": {b"%06d" % at: b"v" * (at % 50) for at in range(70_000)}},
    "many buckets": {b"sub": {b"%04d" % at: {b"k": {b"x": b"y" * 3000}} for at in range(300)}},
}


@pytest.mark.parametrize("name", TREES)
def test_what_is_written_can_be_read_back(name):
    data = write_bolt(TREES[name])

    assert len(data) % PAGE == 0
    assert read_bolt(data) == TREES[name]
    assert write_bolt(TREES[name]) == data


def test_it_refuses_what_the_format_cannot_hold():
    with pytest.raises(BoltError, match="only buckets at its top"):
        write_bolt({b"key": b"value"})
    with pytest.raises(BoltError, match="may not be empty"):
        write_bolt({b"bucket": {b"": b"value"}})
    with pytest.raises(BoltError, match="may not be empty"):
        write_bolt({b"": {}})


@pytest.mark.peers
@pytest.mark.parametrize("name", TREES)
def test_bbolt_itself_finds_nothing_to_complain_about(name, tmp_path):
    if not shutil.which("bbolt"):
        pytest.skip("bbolt is not installed")
    path = tmp_path / "trivy.db"
    path.write_bytes(write_bolt(TREES[name]))
    checked = subprocess.run(["bbolt", "check", path], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout.strip()) == (0, "OK"), checked.stderr
