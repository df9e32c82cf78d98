"""Reads gzip and tar while they stream by: bounded, hostile-safe, nothing on disk, nothing decoded twice.

`Inflater` turns compressed bytes into bounded blocks, `TarParser` turns blocks into members and pieces of their
bodies. Both are fed in order and know neither files nor networks. Measured: isal inflates twice as fast as zlib, and
tarfile's own stream mode is thirteen times slower than this loop.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from isal import igzip_lib

from mirrors.trivy.catalogue import MIB

BLOCK = 512
# How much one call inflates. Small enough to stop between calls and to stay in the cache, large enough to be cheap.
INFLATE_AT_ONCE = 128 * 1024
# A layer that inflates past BOMB_FROM at more than BOMB_RATIO is a bomb: real builds reach about 30:1, and deflate
# itself ends at 1032:1. Below BOMB_FROM any ratio passes: a nearly empty database compresses to nothing.
BOMB_FROM = 64 * MIB
BOMB_RATIO = 200
# Members of a gzip stream (RFC 1952 allows any number): enough for block-wise compressors, too few to burn hours.
GZIP_MEMBERS = 100_000
EXTENDED_HEADER_LIMIT = 64 * 1024

# isal's stub declares the exception as an instance.
ISAL_ERROR: type[Exception] = cast("type[Exception]", igzip_lib.IsalError)

ArchiveCode = Literal[
    "not-gzip", "not-tar", "not-zip", "truncated", "damaged", "bomb", "too-many", "name", "unsupported"
]


class ArchiveError(Exception):
    """Bytes that are not the archive they should be. `code` says which way."""

    def __init__(self, code: ArchiveCode, message: str) -> None:
        super().__init__(message)
        self.code: ArchiveCode = code


@dataclass(frozen=True)
class Member:
    """One entry of a tar: its clean relative name, the bytes of its body, and what it is."""

    name: str
    size: int
    kind: Literal["file", "directory", "link", "other"]
    target: str = ""


class Inflater:
    """Gzip, one or several members, inflated in blocks of at most 128 KiB. `what` begins its error sentences."""

    def __init__(self, what: str, limit: int) -> None:
        self.what = what
        self.limit = limit
        self.taken = 0
        self.inflated = 0
        self._members = 0
        self._stream: igzip_lib.IgzipDecompressor | None = None
        self._head = b""
        self._padding = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The blocks that `data` (the next compressed bytes) makes. ArchiveError as soon as something is wrong."""
        self.taken += len(data)
        while data:
            if self._stream is None:
                data = self._begin(data)
                if self._stream is None:
                    return
            block = self._inflate(self._stream, data)
            while True:
                if block:
                    self.inflated += len(block)
                    self._check_size()
                    yield block
                if self._stream.eof or self._stream.needs_input:
                    break
                block = self._inflate(self._stream, b"")
            if not self._stream.eof:
                return
            data, self._stream = self._stream.unused_data, None

    def finish(self) -> None:
        """ArchiveError unless the stream ended where a member ends."""
        if self._members == 0:
            raise ArchiveError("truncated", f"{self.what} is empty, or too short to be gzip.")
        if self._stream is not None or self._head:
            raise ArchiveError("truncated", f"{self.what} ends in the middle of its gzip data.")

    def _begin(self, data: bytes) -> bytes:
        """Start the gzip member that `data` begins; the data to feed it (zero padding at the end is passed over)."""
        data, self._head = self._head + data, b""
        if self._members and not self._padding and data[:1] == b"\0":
            self._padding = True
        if self._padding:
            if data.strip(b"\0"):
                raise ArchiveError("damaged", f"{self.what} has other bytes after the end of its gzip data.")
            return b""
        if len(data) < 2:
            self._head = data
            return b""
        if data[:2] != b"\x1f\x8b":
            if self._members:
                raise ArchiveError("damaged", f"{self.what} has other bytes after the end of its gzip data.")
            raise ArchiveError("not-gzip", f"{self.what} is not gzip: it begins with {_shown(data)}.")
        self._members += 1
        if self._members > GZIP_MEMBERS:
            raise ArchiveError(
                "too-many", f"{self.what} has more than {GZIP_MEMBERS} gzip members; that is no real one."
            )
        self._stream = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        return data

    def _inflate(self, stream: "igzip_lib.IgzipDecompressor", data: bytes) -> bytes:
        try:
            block: bytes = stream.decompress(data, INFLATE_AT_ONCE)
        except ISAL_ERROR as error:
            at = f"after {self.inflated} inflated bytes" if self.inflated else "in its first bytes"
            raise ArchiveError("damaged", f"{self.what} has damaged gzip data {at} ({error}).") from error
        return block

    def _check_size(self) -> None:
        if self.inflated > self.limit:
            raise ArchiveError(
                "bomb", f"{self.what} inflates to more than {self.limit // MIB} MiB; that is no real one."
            )
        if self.inflated > BOMB_FROM and self.inflated > BOMB_RATIO * self.taken:
            raise ArchiveError(
                "bomb",
                f"{self.what} inflates to more than {BOMB_RATIO} times its size ({self.inflated // MIB} MiB so far); "
                "real builds reach about 30:1.",
            )


class TarParser:
    """A tar (ustar, pax, GNU long names, v7) parsed while it streams.

    `feed` yields a `Member` where one begins and then the pieces of its body as `memoryview`s. Whoever does not want
    a body calls `skip()` before taking the next event, and no piece of it is made.
    """

    def __init__(self, what: str, member_limit: int) -> None:
        self.what = what
        self.member_limit = member_limit
        self.members = 0
        self.ended = False
        self._left = 0  # bytes of the present body
        self._padding = 0  # bytes to pass over after it
        self._skipping = False
        self._header = bytearray()
        self._extended: bytearray | None = None  # the body of a pax or GNU header while it comes in
        self._extended_type = b""
        self._next_name: str | None = None
        self._next_size: int | None = None
        self._next_link: str | None = None

    def skip(self) -> None:
        """Pass over the rest of the present member's body."""
        self._skipping = True

    def feed(self, block: bytes) -> Iterator["Member | memoryview"]:
        view = memoryview(block)
        at, size = 0, len(view)
        while at < size:
            if self._left:
                piece = view[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                if self._extended is not None:
                    self._extended += piece
                elif not self._skipping:
                    yield piece
            elif self._padding:
                step = min(self._padding, size - at)
                at += step
                self._padding -= step
            else:
                if self._extended is not None:
                    self._take_extended(bytes(self._extended))
                step = min(BLOCK - len(self._header), size - at)
                self._header += view[at : at + step]
                at += step
                if len(self._header) < BLOCK:
                    return
                header, self._header = bytes(self._header), bytearray()
                member = self._take_header(header)
                if member is not None:
                    yield member

    def finish(self) -> None:
        """ArchiveError unless the tar ended between members (an end marker is not insisted on, as in Go's reader)."""
        if self._left or self._padding or self._header or self._extended is not None:
            raise ArchiveError("truncated", f"{self.what} ends in the middle of its tar.")
        if self.members == 0:
            raise ArchiveError("not-tar", f"{self.what} is an empty tar.")

    def _take_header(self, header: bytes) -> Member | None:
        if not header.strip(b"\0"):
            self.ended = True
            return None
        if self.ended:
            raise ArchiveError("damaged", f"{self.what} has other bytes after the end of its tar.")
        if not _checksum_holds(header):
            if self.members:
                raise ArchiveError("damaged", f"{self.what} has a damaged tar header after {self.members} members.")
            raise ArchiveError("not-tar", f"{self.what} is not a tar inside its gzip: it begins with {_shown(header)}.")
        self.members += 1
        if self.members > self.member_limit:
            raise ArchiveError(
                "too-many", f"{self.what} has more than {self.member_limit} members; that is no real one."
            )
        size, flag = self._number(header[124:136]), header[156:157]
        if flag in b"xgLK":
            self._begin_extended(flag, size)
            return None
        if flag == b"S":
            raise ArchiveError("unsupported", f"{self.what} holds a sparse file, which no Trivy asset does.")
        return self._begin_member(header, flag, size)

    def _begin_member(self, header: bytes, flag: bytes, size: int) -> Member:
        name, size = self._next_name, size if self._next_size is None else self._next_size
        target = self._next_link or _text(header[157:257])
        self._next_name = self._next_size = self._next_link = None
        if name is None:
            name = _text(header[:100])
            if header[257:263] == b"ustar\0" and header[345] != 0:
                name = _text(header[345:500]) + "/" + name
        kind: Literal["file", "directory", "link", "other"] = "other"
        if flag in (b"0", b"\0", b"7"):
            kind = "directory" if name.endswith("/") else "file"
        elif flag == b"5":
            kind = "directory"
        elif flag in b"12":
            kind = "link"
        # Links, devices, directories and pipes have no body whatever their size says (Go's archive/tar does the same).
        self._left = size if flag not in (b"1", b"2", b"3", b"4", b"5", b"6") else 0
        self._padding = -self._left % BLOCK
        self._skipping = kind != "file"
        return Member(clean_name(self.what, name), self._left, kind, target if kind == "link" else "")

    def _begin_extended(self, flag: bytes, size: int) -> None:
        if size > EXTENDED_HEADER_LIMIT:
            raise ArchiveError("name", f"{self.what} has a tar header of {size} bytes; that is no real one.")
        self._left, self._padding = size, -size % BLOCK
        self._extended, self._extended_type = bytearray(), flag

    def _take_extended(self, body: bytes) -> None:
        flag, self._extended = self._extended_type, None
        if flag == b"L":
            self._next_name = _text(body)
        elif flag == b"K":
            self._next_link = _text(body)
        elif flag == b"x":
            for key, value in self._pax_records(body):
                if key == "path":
                    self._next_name = value
                elif key == "linkpath":
                    self._next_link = value
                elif key == "size":
                    if not value.isascii() or not value.isdigit() or len(value) > 18:
                        raise ArchiveError("damaged", f"{self.what} has a tar header with the size {value[:40]!r}.")
                    self._next_size = int(value)
                elif key.startswith("GNU.sparse."):
                    raise ArchiveError("unsupported", f"{self.what} holds a sparse file, which no Trivy asset does.")

    def _pax_records(self, body: bytes) -> Iterator[tuple[str, str]]:
        """`LENGTH KEY=VALUE\\n`, where LENGTH counts the whole record (POSIX pax)."""
        while body.strip(b"\0"):
            length_text, space, _ = body.partition(b" ")
            length = int(length_text) if length_text.isdigit() and len(length_text) < 8 else 0
            record = body[len(length_text) + 1 : length - 1]
            key, equals, value = record.partition(b"=")
            if not space or not equals or b"\0" in record or body[length - 1 : length] != b"\n":
                raise ArchiveError("damaged", f"{self.what} has a malformed extended tar header.")
            yield _text(key), _text(value)
            body = body[length:]

    def _number(self, field: bytes) -> int:
        """Octal text, or GNU's base 256 for sizes from 8 GiB."""
        if field[0] == 0x80:
            value = int.from_bytes(field[1:], "big")
            if value < 1 << 62:
                return value
        digits = field.strip(b" \0")
        if not digits:
            return 0
        if digits.strip(b"01234567"):
            raise ArchiveError("damaged", f"{self.what} has a tar header with a malformed size.")
        return int(digits, 8)


def clean_name(what: str, name: str) -> str:
    """A member's name without `./` and trailing slash. ArchiveError (`name`) for one that leaves its folder."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name or "\\" in name or len(name) > 4096:
        raise ArchiveError("name", f"{what} has a member with the hostile name {name[:80]!r}.")
    return "/".join(part for part in parts if part not in ("", "."))


def _checksum_holds(header: bytes) -> bool:
    """The header's own sum, unsigned as POSIX says or signed as old tars computed it."""
    digits = header[148:156].strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        return False
    stated = int(digits, 8)
    counted = header[:148] + b" " * 8 + header[156:]
    unsigned = sum(counted)
    return stated in (unsigned, unsigned - 256 * sum(byte > 127 for byte in counted))


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


def _shown(data: bytes) -> str:
    return repr(bytes(data[:16]))[1:]
