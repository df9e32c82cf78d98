"""A pack from a stranger (Documentation/gitformat-pack): every object found, hashed and bounded before it is used.

A few kilobytes can claim to be terabytes: by zlib, by deltas that copy, by chains of deltas, by sizes that are only
stated. So the size of each object, the number of them and all the bytes ever inflated have limits, and no object is
held that is not being worked on, but for a small cache.
"""

import hashlib
import mmap
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from mirrors.git.faults import GitError

KINDS = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}
_OFFSET_DELTA, _ID_DELTA = 6, 7
_PIECE = 64 * 1024
_CACHE_BYTES = 32 * 1024 * 1024
DEEPEST_CHAIN = 4095  # git's own bound on --depth
MIB = 1024 * 1024


@dataclass(frozen=True)
class Bounds:
    """What is taken of a repository: `pack_bytes` received, `objects` in it, bytes of one object, bytes inflated in all
    (some more than once), and of the tree its `entries`, `depth` and bytes."""

    pack_bytes: int = 512 * MIB
    objects: int = 300_000
    object_bytes: int = 64 * MIB
    inflated_bytes: int = 8 * 1024 * MIB
    entries: int = 200_000
    depth: int = 64
    tree_bytes: int = 2 * 1024 * MIB


@dataclass(slots=True)
class _Entry:
    """`start` is where its zlib stream begins; `size` of what is inflated there, `whole` of the object itself."""

    start: int
    size: int
    kind: str
    base: int = 0
    depth: int = 0
    whole: int = 0


@dataclass(slots=True)
class _Waiting:
    by_offset: dict[int, list[int]] = field(default_factory=dict)
    by_id: dict[bytes, list[int]] = field(default_factory=dict)


class Pack:
    """The objects of a pack file, by id (40 hexadecimal digits). Raises GitError for whatever is wrong with it.

    `check` is called often, and may raise to stop.
    """

    def __init__(self, file: BinaryIO, bounds: Bounds, check: Callable[[], object] = lambda: None) -> None:
        self.bounds = bounds
        self._check = check
        self._spent = 0
        self._entries: dict[int, _Entry] = {}
        self._offsets: dict[bytes, int] = {}
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._cached = 0
        try:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise GitError("The git server sent an empty pack.") from None
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._data.close()

    def kind(self, name: str) -> str:
        """What an object is; "" for one that is not here."""
        offset = self._offsets.get(bytes.fromhex(name))
        return "" if offset is None else self._entries[offset].kind

    def size(self, name: str) -> int:
        return self._entries[self._offset(name)].whole

    def content(self, name: str, kind: str) -> bytes:
        """The bytes of an object of this kind."""
        offset = self._offset(name)
        if self._entries[offset].kind != kind:
            raise GitError(f"The git object {name[:12]} is a {self._entries[offset].kind}, where a {kind} is named.")
        return self._content(offset)

    def _offset(self, name: str) -> int:
        offset = self._offsets.get(bytes.fromhex(name))
        if offset is None:
            raise GitError(f"The git object {name[:12]} is named, but the server did not send it.")
        return offset

    # Finding the objects

    def _read(self) -> None:
        data = self._data
        if len(data) < 32 or data[:4] != b"PACK" or int.from_bytes(data[4:8]) not in (2, 3):
            raise GitError(f"The git server sent no pack: it begins with {data[:8]!r}.")
        count = int.from_bytes(data[8:12])
        if count > self.bounds.objects:
            raise GitError(
                f"The git repository has {count:,} objects in one commit; at most {self.bounds.objects:,} are taken."
            )
        self._verify_checksum()
        waiting = _Waiting()
        known: list[tuple[int, bytes]] = []
        at = 12
        for _ in range(count):
            self._check()
            offset = at
            at = self._scan(offset, waiting, known)
        if at != len(data) - 20:
            raise GitError("The pack that the git server sent has other bytes after its last object.")
        self._resolve(known, waiting)

    def _verify_checksum(self) -> None:
        digest = hashlib.sha1(usedforsecurity=False)
        end = len(self._data) - 20
        for start in range(0, end, MIB):
            self._check()
            digest.update(self._data[start : min(start + MIB, end)])
        if digest.digest() != self._data[end:]:
            raise GitError("The pack that the git server sent is damaged: its checksum is wrong.")

    def _scan(self, offset: int, waiting: _Waiting, known: list[tuple[int, bytes]]) -> int:
        """One object as it lies there; where the next one begins."""
        number, size, at = self._header(offset)
        if size > self.bounds.object_bytes:
            raise GitError(
                f"The git repository holds an object of {size:,} bytes; at most {self.bounds.object_bytes:,} are taken."
            )
        if number in KINDS:
            digest = hashlib.sha1(b"%s %d\0" % (KINDS[number].encode(), size), usedforsecurity=False)
            self._entries[offset] = _Entry(at, size, KINDS[number], whole=size)
            end = self._inflate(at, size, digest.update)
            known.append((offset, digest.digest()))
            return end
        if number == _OFFSET_DELTA:
            distance, at = self._distance(at)
            if offset - distance not in self._entries:
                raise GitError("The pack that the git server sent has a delta to nowhere.")
            waiting.by_offset.setdefault(offset - distance, []).append(offset)
        elif number == _ID_DELTA:
            waiting.by_id.setdefault(bytes(self._data[at : at + 20]), []).append(offset)
            at += 20
        else:
            raise GitError(f"The pack that the git server sent has an object of the unknown kind {number}.")
        self._entries[offset] = _Entry(at, size, "")
        return self._inflate(at, size, lambda piece: None)

    def _header(self, offset: int) -> tuple[int, int, int]:
        """Kind number, size, and where what follows begins."""
        byte = self._byte(offset)
        number, size, shift, at = byte >> 4 & 7, byte & 15, 4, offset + 1
        while byte & 128:
            byte = self._byte(at)
            size |= (byte & 127) << shift
            shift, at = shift + 7, at + 1
            if shift > 60:
                raise GitError("The pack that the git server sent states a size beyond all bounds.")
        return number, size, at

    def _distance(self, at: int) -> tuple[int, int]:
        byte = self._byte(at)
        distance, at = byte & 127, at + 1
        while byte & 128 and distance < 1 << 50:
            byte = self._byte(at)
            distance, at = (distance + 1) << 7 | byte & 127, at + 1
        return distance, at

    def _byte(self, at: int) -> int:
        if at >= len(self._data) - 20:
            raise GitError("The pack that the git server sent ends in the middle of an object.")
        return self._data[at]

    def _resolve(self, known: list[tuple[int, bytes]], waiting: _Waiting) -> None:
        """Give every delta its kind and id, each after the object it is made from."""
        while known:
            self._check()
            offset, name = known.pop()
            self._offsets.setdefault(name, offset)
            base = self._entries[offset]
            for child in waiting.by_offset.pop(offset, []) + waiting.by_id.pop(name, []):
                entry = self._entries[child]
                entry.base, entry.kind, entry.depth = offset, base.kind, base.depth + 1
                if entry.depth > DEEPEST_CHAIN:
                    raise GitError("The pack that the git server sent has a chain of deltas without end.")
                content = self._content(child)
                entry.whole = len(content)
                head = b"%s %d\0" % (entry.kind.encode(), entry.whole)
                known.append((child, hashlib.sha1(head + content, usedforsecurity=False).digest()))
        if waiting.by_offset or waiting.by_id:
            raise GitError("The pack that the git server sent builds on objects that are not in it.")

    # Reading them

    def _content(self, offset: int) -> bytes:
        chain: list[int] = []
        at = offset
        while (found := self._cache.get(at)) is None and self._entries[at].depth:
            chain.append(at)
            at = self._entries[at].base
        if found is None:
            found = self._inflated(at)
            self._remember(at, found)
        else:
            self._cache.move_to_end(at)
        for at in reversed(chain):
            self._check()
            found = self._applied(found, self._inflated(at))
            self._remember(at, found)
        return found

    def _inflated(self, offset: int) -> bytes:
        entry = self._entries[offset]
        pieces: list[bytes] = []
        self._inflate(entry.start, entry.size, pieces.append)
        return b"".join(pieces)

    def _inflate(self, at: int, size: int, take: Callable[[bytes], object]) -> int:
        """Inflate exactly `size` bytes from `at`; where the stream ends."""
        self._spend(size)
        stream = zlib.decompressobj()
        left = size
        while not stream.eof:
            piece = self._data[at : min(at + _PIECE, len(self._data) - 20)]
            try:
                # One byte more than is due shows a stream that is longer than it says.
                inflated = stream.decompress(piece, left + 1)
            except zlib.error as error:
                raise GitError(f"The pack that the git server sent is damaged ({error}).") from None
            taken = len(piece) - len(stream.unconsumed_tail) - len(stream.unused_data)
            at, left = at + taken, left - len(inflated)
            if left < 0 or (not taken and not inflated and not stream.eof):
                raise GitError(
                    "The pack that the git server sent is damaged: an object is longer or shorter than it says."
                )
            take(inflated)
        if left:
            raise GitError("The pack that the git server sent is damaged: an object is shorter than it says.")
        return at

    def _applied(self, base: bytes, delta: bytes) -> bytes:
        """What a delta makes of its base."""
        source, at = _varint(delta, 0)
        size, at = _varint(delta, at)
        if source != len(base) or size > self.bounds.object_bytes:
            raise GitError("The pack that the git server sent has a delta that does not fit, or grows beyond bounds.")
        self._spend(size)
        result = bytearray()
        for piece in _pieces(base, delta, at):
            result += piece
            if len(result) > size:
                break
        if len(result) != size:
            raise GitError("The pack that the git server sent has a delta of another size than it says.")
        return bytes(result)

    def _spend(self, count: int) -> None:
        self._spent += count
        if self._spent > self.bounds.inflated_bytes:
            raise GitError(
                f"The git repository inflates to more than {self.bounds.inflated_bytes // MIB:,} MiB: too much."
            )

    def _remember(self, offset: int, content: bytes) -> None:
        if len(content) > _CACHE_BYTES or offset in self._cache:
            return
        self._cache[offset] = content
        self._cached += len(content)
        while self._cached > _CACHE_BYTES:
            self._cached -= len(self._cache.popitem(last=False)[1])


def _pieces(base: bytes, delta: bytes, at: int) -> Iterator[bytes]:
    """The copies and insertions of a delta, in order."""
    end = len(delta)
    while at < end:
        order = delta[at]
        at += 1
        if not order:
            raise GitError("The pack that the git server sent has a delta with an unknown order.")
        if order < 128:
            if at + order > end:
                raise GitError("The pack that the git server sent has a delta that ends too soon.")
            yield delta[at : at + order]
            at += order
            continue
        start = count = 0
        for bit in range(7):
            if order & 1 << bit:
                if at >= end:
                    raise GitError("The pack that the git server sent has a delta that ends too soon.")
                if bit < 4:
                    start |= delta[at] << 8 * bit
                else:
                    count |= delta[at] << 8 * (bit - 4)
                at += 1
        count = count or 0x10000
        if start + count > len(base):
            raise GitError("The pack that the git server sent has a delta that copies beyond its base.")
        yield base[start : start + count]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if not byte & 128:
            return value, at
    raise GitError("The pack that the git server sent has a delta without a size.")
