"""The archive of a VEX repository: its index, its documents, and the way from zip to tar.gz.

Nothing is unpacked to disk. What the index may say stands in aquasecurity/vex-repo-spec (README 3.2, index.schema);
a document that is missing or a git+LFS pointer only costs its own package, a broken index costs all of them.
"""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, BinaryIO

from mirrors.trivy.archives import ArchiveError, Member
from mirrors.trivy.catalogue import KINDS
from mirrors.trivy.entries import Format, Walk
from mirrors.trivy.metadata import MetadataError, is_zero, parse_time
from mirrors.trivy.vex.manifests import MANIFEST_LIMIT, REPOSITORY_FILE
from mirrors.trivy.vex.sources import VexError

INDEX_FILE = "index.json"
INDEX_LIMIT = 32 * 1024 * 1024
INFLATED_LIMIT = KINDS["vex"].inflated_limit
POINTER = b"version https://git-lfs"
POINTER_LIMIT = 1024  # git-lfs's own bound on a pointer file
CANDIDATES = 16
GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time, unknown system: the same bytes everywhere


@dataclass(frozen=True)
class ArchiveFacts:
    """What an archive holds. `top` is the folder of the index with any glob resolved ("" for the archive's root);
    `pointers` and `missing` are documents, relative to it, that Trivy will not be able to use."""

    updated_at: datetime | None
    packages: int
    pointers: tuple[str, ...]
    missing: tuple[str, ...]
    top: str
    repository_manifest: bytes | None
    inflated_bytes: int


def read_archive(file: BinaryIO, format: Format, subdir: str) -> ArchiveFacts:
    """Check an archive from its first byte to its last and read its index.

    `subdir` may be a glob that matches exactly one folder. VexError `archive` for one that is no such archive,
    `index` for an index that Trivy could not use, `pointer` for one that is a git+LFS pointer.
    """
    with _as_vex_error():
        found = _Findings(subdir)
        for member, body in _walk(file, format).entries():
            found.take(member, body)
    top = found.resolve()
    raw = found.kept.get(_join(top, INDEX_FILE))
    if raw is None:
        where = f"the folder {top!r} of the archive" if top else "the archive"
        raise VexError("index", f"There is no {INDEX_FILE} at the top of {where}, so Trivy would find no VEX in it.")
    updated_at, locations = read_index(raw)
    return ArchiveFacts(
        updated_at,
        len(locations),
        tuple(location for location in locations if _join(top, location) in found.pointers),
        tuple(location for location in locations if _join(top, location) not in found.files),
        top,
        found.kept.get(_join(top, REPOSITORY_FILE)),
        found.inflated,
    )


def subdir_entries(
    file: BinaryIO, format: Format, top: str
) -> Iterator[tuple[Member, str, Iterator[bytes | memoryview]]]:
    """Every regular file below `top` with its path relative to it, and its body (read before the next, or not)."""
    prefix = top + "/" if top else ""
    with _as_vex_error():
        for member, body in _walk(file, format).entries():
            if member.kind == "file" and member.name.startswith(prefix):
                yield member, member.name.removeprefix(prefix), _guarded(body)


def _guarded(body: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """A body is read by whoever asked for it; a fault in it is a VexError there too."""
    with _as_vex_error():
        yield from body


def repack_as_tar_gz(file: BinaryIO, format: Format) -> Iterator[bytes]:
    """The same files as a tar.gz, folders kept, in pieces; the same archive always gives the same bytes.

    Times, owners and modes are fixed, links are left out. A tar.gz is passed through as it is.
    """
    if format == "tar.gz":
        file.seek(0)
        while piece := file.read(1024 * 1024):
            yield piece
        return
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    checksum, size = 0, 0
    yield GZIP_HEADER
    for part in _tar_pieces(file, format):
        checksum, size = zlib.crc32(part, checksum), size + len(part)
        if packed := deflate.compress(part):
            yield packed
    yield deflate.flush() + struct.pack("<II", checksum, size & 0xFFFFFFFF)


def _tar_pieces(file: BinaryIO, format: Format) -> Iterator[bytes | memoryview]:
    for member, path, body in subdir_entries(file, format, ""):
        info = tarfile.TarInfo(path)
        info.size, info.mode = member.size, 0o644
        yield info.tobuf(tarfile.PAX_FORMAT)
        yield from body
        yield bytes(-member.size % 512)
    yield bytes(1024)


class _Findings:
    """What one walk over an archive keeps: names, possible indexes and manifests, pointers."""

    def __init__(self, subdir: str) -> None:
        self.pattern = [part for part in subdir.split("/") if part not in ("", ".")]
        self.kept: dict[str, bytes] = {}
        self.files: set[str] = set()
        self.pointers: set[str] = set()
        self.folders: set[str] = set()
        self.inflated = 0

    def take(self, member: Member, body: Iterator[bytes | memoryview]) -> None:
        self._check_link(member)
        folder, _, name = member.name.rpartition("/")
        self._add_folders(member.name if member.kind == "directory" else folder)
        if member.kind != "file":
            return
        self.inflated += member.size
        self.files.add(member.name)
        limit = {INDEX_FILE: INDEX_LIMIT, REPOSITORY_FILE: MANIFEST_LIMIT}.get(name)
        if limit is not None and self._matches(folder.split("/") if folder else []):
            if member.name in self.kept:
                raise VexError("archive", f"The archive holds {member.name[:120]!r} twice.")
            # One byte more than the limit is kept, so that whoever parses it says that it is too large.
            self.kept[member.name] = _first(body, limit + 1)
        if 0 < member.size <= POINTER_LIMIT and self._is_pointer(member, body):
            self.pointers.add(member.name)

    def resolve(self) -> str:
        if not self.pattern:
            return ""
        if len(self.folders) != 1:
            shown = "/".join(self.pattern)
            found = f"{len(self.folders)} folders in the archive" if self.folders else "no folder in the archive"
            raise VexError("archive", f"The address names the folder {shown!r}, which matches {found}.")
        return next(iter(self.folders))

    def _is_pointer(self, member: Member, body: Iterator[bytes | memoryview]) -> bool:
        head = self.kept.get(member.name)
        return (_first(body, len(POINTER)) if head is None else head).startswith(POINTER)

    def _matches(self, folder: list[str]) -> bool:
        return len(folder) == len(self.pattern) and all(map(fnmatchcase, folder, self.pattern))

    def _add_folders(self, name: str) -> None:
        parts = name.split("/") if name else []
        if self.pattern and self._matches(parts[: len(self.pattern)]):
            self.folders.add("/".join(parts[: len(self.pattern)]))
            if len(self.folders) > CANDIDATES:
                raise VexError("archive", f"More than {CANDIDATES} folders in the archive match the address.")

    @staticmethod
    def _check_link(member: Member) -> None:
        depth = member.name.count("/")
        parts = member.target.split("/")
        if member.kind == "link" and (member.target.startswith("/") or parts.count("..") > depth):
            raise VexError("archive", f"The archive holds the link {member.name[:80]!r} to a place outside it.")


def read_index(raw: bytes) -> tuple[datetime | None, list[str]]:
    """`updated_at` and the documents' locations of an index.json. VexError (`index` or `pointer`)."""
    if raw.startswith(POINTER):
        raise VexError(
            "pointer",
            f"The archive's {INDEX_FILE} is a git+LFS pointer, not the index: its host packs archives without LFS "
            "files. Ask its maintainers to keep the index out of LFS, or mirror another source.",
        )
    if len(raw) > INDEX_LIMIT:
        raise VexError("index", f"The archive's {INDEX_FILE} is larger than {INDEX_LIMIT // 1024 // 1024} MiB.")
    try:
        document = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise VexError("index", f"The archive's {INDEX_FILE} is not JSON: it begins with {raw[:40]!r}.") from error
    packages = document.get("packages") if isinstance(document, dict) else None
    if not isinstance(packages, list):
        raise VexError("index", f"The archive's {INDEX_FILE} has no list of packages.")
    return _updated_at(document), [_location(package, index) for index, package in enumerate(packages)]


def _updated_at(document: dict[str, Any]) -> datetime | None:
    value = document.get("updated_at")
    if value is None:
        return None
    try:
        if not isinstance(value, str):
            raise MetadataError(f"{str(value)[:60]!r} is not a time.")
        moment = parse_time(value)
    except MetadataError as error:
        raise VexError("index", f"The archive's {INDEX_FILE} has a wrong updated_at: {error}") from error
    return None if is_zero(moment) else moment


def _location(package: Any, index: int) -> str:
    place = f"packages[{index}] of the archive's {INDEX_FILE}"
    location = package.get("location") if isinstance(package, dict) else None
    if not isinstance(location, str) or not isinstance(package.get("id"), str):
        raise VexError("index", f"{place} has no id or no location.")
    parts = [part for part in location.split("/") if part not in ("", ".")]
    if location.startswith("/") or ".." in parts or "\\" in location or "\0" in location or not parts:
        raise VexError("index", f"{place} has the location {location[:80]!r}, which leaves the index's folder.")
    return "/".join(parts)


def _first(body: Iterator[bytes | memoryview], count: int) -> bytes:
    kept = io.BytesIO()
    for piece in body:
        kept.write(piece[: count - kept.tell()])
        if kept.tell() >= count:
            break
    return kept.getvalue()


def _join(top: str, path: str) -> str:
    return f"{top}/{path}" if top else path


def _walk(file: BinaryIO, format: Format) -> Walk:
    return Walk(file, format, "The archive", INFLATED_LIMIT)


@contextmanager
def _as_vex_error() -> Iterator[None]:
    try:
        yield
    except ArchiveError as error:
        raise VexError("archive", str(error)) from error
