"""Walks a whole tar.gz or zip that is already on disk: one entry after the other, bodies in pieces, nothing unpacked.

The same limits hold for both formats: number of members, inflated bytes, the ratio of a bomb, and names that stay in
their folder.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from mirrors.trivy.archives import (
    BOMB_FROM,
    BOMB_RATIO,
    INFLATE_AT_ONCE,
    ArchiveError,
    Inflater,
    Member,
    TarParser,
    clean_name,
)
from mirrors.trivy.catalogue import MIB

Format = Literal["tar.gz", "zip"]
MEMBER_LIMIT = 200_000
# A zip's table of contents is read into memory whole; this is 200,000 members with names of a hundred bytes.
ZIP_DIRECTORY_LIMIT = 32 * MIB
ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error, ValueError, RuntimeError)


@dataclass(frozen=True)
class Walk:
    """What to walk and how far: `what` begins error sentences, `inflated_limit` is in bytes."""

    file: BinaryIO
    format: Format
    what: str
    inflated_limit: int
    member_limit: int = MEMBER_LIMIT

    def entries(self) -> Iterator[tuple[Member, Iterator[bytes | memoryview]]]:
        """Every member and its body. A body is read before the next member is asked for, or not at all.

        Reads the file from its beginning to its last byte; ArchiveError where it is not what it should be.
        """
        self.file.seek(0)
        return _zip_entries(self) if self.format == "zip" else _tar_entries(self)


def _tar_entries(walk: Walk) -> Iterator[tuple[Member, Iterator[bytes | memoryview]]]:
    parser = TarParser(walk.what, walk.member_limit)
    events = _tar_events(walk, parser)
    following: list[Member] = []

    def body() -> Iterator[memoryview]:
        for event in events:
            if isinstance(event, Member):
                following.append(event)
                return
            yield event

    for _ in body():
        pass
    while following:
        pieces = body()
        yield following.pop(), pieces
        if not following:
            parser.skip()
            for _ in pieces:
                pass


def _tar_events(walk: Walk, parser: TarParser) -> Iterator[Member | memoryview]:
    inflater = Inflater(walk.what, walk.inflated_limit)
    while data := walk.file.read(INFLATE_AT_ONCE):
        for block in inflater.feed(data):
            yield from parser.feed(block)
    inflater.finish()
    parser.finish()


def _zip_entries(walk: Walk) -> Iterator[tuple[Member, Iterator[bytes | memoryview]]]:
    size = _check_zip_directory(walk)
    try:
        archive = zipfile.ZipFile(walk.file)
    except ZIP_FAULTS as error:
        raise ArchiveError("damaged", f"{walk.what} is a damaged zip ({error}).") from error
    with archive:
        members = archive.infolist()
        _check_zip_sizes(walk, members, size)
        for info in members:
            member = _zip_member(walk, info)
            yield member, _zip_body(walk, archive, info)


def _check_zip_directory(walk: Walk) -> int:
    """The archive's size, after making sure that its table of contents is no larger than it may be."""
    size = walk.file.seek(0, 2)
    tail_at = max(0, size - 65_535 - 22 - 20)
    walk.file.seek(tail_at)
    tail = walk.file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        walk.file.seek(0)
        if walk.file.read(4) == b"PK\x03\x04":
            raise ArchiveError("truncated", f"{walk.what} ends before its zip table of contents.")
        raise ArchiveError("not-zip", f"{walk.what} is not a zip: it has no table of contents.")
    count, directory = struct.unpack_from("<HI", tail, end + 10)
    locator = tail.rfind(b"PK\x06\x07", 0, end)
    if locator >= 0 and (count == 0xFFFF or directory == 0xFFFFFFFF):
        (record_at,) = struct.unpack_from("<Q", tail, locator + 8)
        if record_at >= size:
            raise ArchiveError("damaged", f"{walk.what} is a damaged zip (its table of contents lies outside).")
        walk.file.seek(record_at)
        record = walk.file.read(56)
        if len(record) < 56 or record[:4] != b"PK\x06\x06":
            raise ArchiveError("damaged", f"{walk.what} is a damaged zip (its table of contents is malformed).")
        count, directory = struct.unpack_from("<QQ", record, 32)
    if directory > ZIP_DIRECTORY_LIMIT:
        raise ArchiveError(
            "too-many", f"{walk.what} has a table of contents of {directory // MIB} MiB; that is no real one."
        )
    walk.file.seek(0)
    return size


def _check_zip_sizes(walk: Walk, members: list[zipfile.ZipInfo], size: int) -> None:
    """What the members say is what zipfile lets them inflate to, so their sum bounds everything."""
    if len(members) > walk.member_limit:
        raise ArchiveError("too-many", f"{walk.what} has more than {walk.member_limit} members; that is no real one.")
    inflated = sum(info.file_size for info in members)
    if inflated > walk.inflated_limit:
        raise ArchiveError("bomb", f"{walk.what} inflates to more than {walk.inflated_limit // MIB} MiB.")
    if inflated > BOMB_FROM and inflated > BOMB_RATIO * size:
        raise ArchiveError(
            "bomb", f"{walk.what} inflates to more than {BOMB_RATIO} times its size; that is no real one."
        )


def _zip_member(walk: Walk, info: zipfile.ZipInfo) -> Member:
    if info.flag_bits & 1:
        raise ArchiveError("unsupported", f"{walk.what} is encrypted.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(
            "unsupported", f"{walk.what} uses zip compression {info.compress_type}; only deflate is read."
        )
    name = clean_name(walk.what, info.orig_filename)
    kind: Literal["file", "directory", "link", "other"] = "directory" if info.is_dir() else "file"
    if (info.external_attr >> 16) & 0o170000 == 0o120000:
        kind = "link"
    return Member(name, info.file_size, kind)


def _zip_body(walk: Walk, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with archive.open(info) as body:
            while piece := body.read(INFLATE_AT_ONCE):
                yield piece
    except ZIP_FAULTS as error:
        raise ArchiveError(
            "damaged", f"{walk.what} holds {info.filename[:80]!r}, which is damaged ({error})."
        ) from error
