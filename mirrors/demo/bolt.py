"""Writes a bbolt file in one go: enough of the format for a `trivy.db` that Trivy itself opens.

Buckets within buckets, big values, any number of keys. Never reads or changes a file. The format is bbolt's own
(go.etcd.io/bbolt, internal/common/page.go, meta.go, bucket.go); every number in it is little endian.
"""

import struct
from collections.abc import Mapping
from itertools import pairwise
from typing import TypeAlias

PAGE = 4096
MAGIC = 0xED0CDAED
VERSION = 2

BRANCH, LEAF, META, FREELIST = 0x01, 0x02, 0x04, 0x10
IS_BUCKET = 0x01

PAGE_HEADER = struct.Struct("<QHHI")  # id, flags, count, overflow
LEAF_ELEMENT = struct.Struct("<IIII")  # flags, position from this element, key bytes, value bytes
BRANCH_ELEMENT = struct.Struct("<IIQ")  # position from this element, key bytes, page id
BUCKET_HEADER = struct.Struct("<QQ")  # root page (0: inline), sequence
META_BODY = struct.Struct("<IIIIQQQQQ")  # magic, version, page size, flags, root, sequence, freelist, pages, txid

# What bbolt keeps inline in its parent (bucket.go, maxInlineBucketSize).
INLINE_LIMIT = PAGE // 4
FANOUT = 64

Tree: TypeAlias = "Mapping[bytes, bytes | Tree]"


class BoltError(Exception):
    """The tree cannot be written as a bbolt file."""


def write_bolt(tree: "Tree") -> bytes:
    """The bytes of a bbolt database that holds `tree`: bytes are values, mappings are buckets; only buckets at the top.

    The same tree always gives the same bytes. BoltError for an empty key or a value at the top.
    """
    if any(isinstance(value, bytes) for value in tree.values()):
        raise BoltError("A bbolt database holds only buckets at its top; put the value into one.")
    writer = _Writer()
    root = writer.write_bucket(tree)
    freelist = writer.add(FREELIST, 0, b"")
    return b"".join([_meta(0, root, freelist, writer.next_id), _meta(1, root, freelist, writer.next_id), *writer.pages])


class _Writer:
    def __init__(self) -> None:
        self.pages: list[bytes] = []
        self.next_id = 2  # 0 and 1 are the two meta pages

    def add(self, flags: int, count: int, body: bytes) -> int:
        """One page with as many overflow pages as the body needs; its id."""
        length = PAGE_HEADER.size + len(body)
        whole = -(-length // PAGE)
        page_id = self.next_id
        self.pages.append(PAGE_HEADER.pack(page_id, flags, count, whole - 1) + body + bytes(whole * PAGE - length))
        self.next_id += whole
        return page_id

    def write_bucket(self, tree: "Tree") -> int:
        """Write a bucket's pages, its sub-buckets first; the id of its root page."""
        elements = [self._element(key, tree[key]) for key in sorted(tree)]
        level = [
            (keys[0][1] if keys else b"", self.add(LEAF, len(keys), _leaf_body(keys))) for keys in _leaves(elements)
        ]
        while len(level) > 1:
            level = [(nodes[0][0], self.add(BRANCH, len(nodes), _branch_body(nodes))) for nodes in _branches(level)]
        return level[0][1]

    def _element(self, key: bytes, value: "bytes | Tree") -> tuple[int, bytes, bytes]:
        if not key:
            raise BoltError("A key in a bbolt bucket may not be empty.")
        if isinstance(value, bytes):
            return 0, key, value
        inline = _inline(value)
        if inline is not None:
            return IS_BUCKET, key, BUCKET_HEADER.pack(0, 0) + inline
        return IS_BUCKET, key, BUCKET_HEADER.pack(self.write_bucket(value), 0)


def _inline(tree: "Tree") -> bytes | None:
    """A small bucket's only page, to stand in its parent; None when it needs pages of its own."""
    elements: list[tuple[int, bytes, bytes]] = []
    room = INLINE_LIMIT - PAGE_HEADER.size
    for key in sorted(tree):
        value = tree[key]
        if not isinstance(value, bytes):
            return None
        room -= LEAF_ELEMENT.size + len(key) + len(value)
        if room < 0 or not key:
            return None
        elements.append((0, key, value))
    return PAGE_HEADER.pack(0, LEAF, len(elements), 0) + _leaf_body(elements)


def _branches(level: list[tuple[bytes, int]]) -> list[list[tuple[bytes, int]]]:
    """Nodes in groups of about equal size: a branch page with a single child is nothing bbolt itself would write."""
    groups = -(-len(level) // FANOUT)
    cuts = [len(level) * index // groups for index in range(groups + 1)]
    return [level[start:stop] for start, stop in pairwise(cuts)]


def _leaves(elements: list[tuple[int, bytes, bytes]]) -> list[list[tuple[int, bytes, bytes]]]:
    """Elements in leaf pages of about one page; a page holds at least one, however big its value."""
    groups: list[list[tuple[int, bytes, bytes]]] = [[]]
    room = PAGE - PAGE_HEADER.size
    for element in elements:
        need = LEAF_ELEMENT.size + len(element[1]) + len(element[2])
        if groups[-1] and need > room:
            groups.append([])
            room = PAGE - PAGE_HEADER.size
        groups[-1].append(element)
        room -= need
    return groups


def _leaf_body(elements: list[tuple[int, bytes, bytes]]) -> bytes:
    heads, data = [], []
    position = LEAF_ELEMENT.size * len(elements)
    for index, (flags, key, value) in enumerate(elements):
        heads.append(LEAF_ELEMENT.pack(flags, position - LEAF_ELEMENT.size * index, len(key), len(value)))
        data += [key, value]
        position += len(key) + len(value)
    return b"".join(heads + data)


def _branch_body(children: list[tuple[bytes, int]]) -> bytes:
    heads, data = [], []
    position = BRANCH_ELEMENT.size * len(children)
    for index, (key, page_id) in enumerate(children):
        heads.append(BRANCH_ELEMENT.pack(position - BRANCH_ELEMENT.size * index, len(key), page_id))
        data.append(key)
        position += len(key)
    return b"".join(heads + data)


def _meta(page_id: int, root: int, freelist: int, pages: int) -> bytes:
    body = META_BODY.pack(MAGIC, VERSION, PAGE, 0, root, 0, freelist, pages, page_id)
    page = PAGE_HEADER.pack(page_id, META, 0, 0) + body + struct.pack("<Q", _fnv64a(body))
    return page + bytes(PAGE - len(page))


def _fnv64a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return value
