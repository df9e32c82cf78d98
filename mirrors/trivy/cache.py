"""Trivy's cache directory: which file goes where, and the small files that Trivy itself would have written.

Plain data and a stream of members, so that the cache archive and `install.sh` fill a cache the same way. The layout
and its files stand in Trivy's pkg/db, pkg/javadb, pkg/policy/policy.go and pkg/vex/repo/repo.go.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

from mirrors import wording
from mirrors.trivy.archives import ArchiveError
from mirrors.trivy.catalogue import Kind
from mirrors.trivy.entries import Format, Walk
from mirrors.trivy.metadata import METADATA_LIMIT, MetadataError, parse_metadata
from mirrors.trivy.vex import REPOSITORY_FILE, VexError, offline_manifest, subdir_entries

# A scanner runs as another user than whoever filled its cache (Harbor: 10000, Trivy's charts: 65534).
FILE_MODE = 0o644
CHECKS_CONTENT = "policy/content"
CHECKS_METADATA = "policy/metadata.json"
VEX_REPOSITORIES = "vex/repositories"
# The name under which Trivy looks for VEX Hub when there is no repository.yaml (pkg/vex/repo/manager.go).
VEX_DEFAULT_NAME = "default"
REPOSITORY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
SEMVER = re.compile(
    r"v?(0|[1-9]\d{0,5})\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?", re.ASCII
)

FAULTS = (ArchiveError, VexError, MetadataError)
ADVICE = "Scrub the store and sync again."

Chunks = Iterable[bytes | memoryview]


class CacheError(Exception):
    """What is stored cannot be turned into cache files."""


@dataclass(frozen=True)
class CacheMember:
    """One file below the cache directory. `chunks` make `size` bytes and are read before the next member is taken."""

    path: str
    mode: int
    size: int
    chunks: Chunks


@dataclass(frozen=True)
class CacheArchive:
    """One stored VEX archive: `top` is the folder of its index."""

    spec_version: str
    digest: str
    format: Format
    top: str


@dataclass(frozen=True)
class CacheFacts:
    """What is known of a snapshot. Layers need the first four, VEX the rest."""

    downloaded_at: datetime
    layer_digest: str = ""
    manifest_digest: str = ""
    version: str | None = None
    vex_name: str = VEX_DEFAULT_NAME
    repository_manifest: bytes = b""
    archives: tuple[CacheArchive, ...] = ()


def cache_members(kind: Kind, facts: CacheFacts, open_blob: Callable[[str], BinaryIO]) -> Iterator[CacheMember]:
    """The files of one snapshot in a cache, in the order to write them: what makes Trivy believe in them comes last.

    Layers are inflated as the chunks are read and never held. CacheError when the content is not what it was.
    """
    try:
        if kind.has_metadata:
            yield from _database_members(kind, facts, open_blob)
        elif kind.name == "trivy-checks":
            yield from _checks_members(kind, facts, open_blob)
        elif kind.transport == "vex":
            yield from _vex_members(facts, open_blob)
        else:
            raise CacheError(f"An {kind.label} has no place in Trivy's cache.")
    except FAULTS as error:
        raise CacheError(f"{error} {ADVICE}") from error


def _guarded(body: Chunks) -> Iterator[bytes | memoryview]:
    """The chunks are read by whoever writes the archive; a fault in them is a CacheError there too."""
    try:
        yield from body
    except FAULTS as error:
        raise CacheError(f"{error} {ADVICE}") from error


def _database_members(kind: Kind, facts: CacheFacts, open_blob: Callable[[str], BinaryIO]) -> Iterator[CacheMember]:
    metadata = b""
    with open_blob(facts.layer_digest) as file:
        for member, body in Walk(file, "tar.gz", "The layer", kind.inflated_limit, 10_000).entries():
            if member.name == kind.database_file:
                yield CacheMember(f"{kind.cache_directory}/{member.name}", FILE_MODE, member.size, _guarded(body))
            elif member.name == "metadata.json" and member.size <= METADATA_LIMIT:
                metadata = b"".join(bytes(piece) for piece in body)
    parse_metadata(metadata, kind)
    yield _small(f"{kind.cache_directory}/metadata.json", set_downloaded_at(metadata, facts.downloaded_at))


def _checks_members(kind: Kind, facts: CacheFacts, open_blob: Callable[[str], BinaryIO]) -> Iterator[CacheMember]:
    with open_blob(facts.layer_digest) as file:
        for member, body in Walk(file, "tar.gz", "The checks bundle", kind.inflated_limit).entries():
            if member.kind == "file":
                yield CacheMember(f"{CHECKS_CONTENT}/{member.name}", FILE_MODE, member.size, _guarded(body))
    yield _small(CHECKS_METADATA, checks_metadata(facts.manifest_digest, facts.downloaded_at, facts.version))


def _vex_members(facts: CacheFacts, open_blob: Callable[[str], BinaryIO]) -> Iterator[CacheMember]:
    directory = vex_directory(facts.vex_name)
    for archive in facts.archives:
        with open_blob(archive.digest) as file:
            for member, path, body in subdir_entries(file, archive.format, archive.top):
                yield CacheMember(f"{directory}/{archive.spec_version}/{path}", FILE_MODE, member.size, _guarded(body))
    manifest = offline_manifest(facts.repository_manifest)
    yield _small(f"{directory}/cache.json", vex_cache(facts.downloaded_at))
    yield _small(f"{directory}/{REPOSITORY_FILE}", manifest)


def vex_directory(name: str) -> str:
    """Where a VEX repository stands in the cache; Trivy takes only a plain local name since 0.73."""
    if not REPOSITORY_NAME.fullmatch(name):
        raise CacheError(f"{name[:80]!r} is not a name for a VEX repository in Trivy's cache.")
    return f"{VEX_REPOSITORIES}/{name}"


def set_downloaded_at(raw: bytes, downloaded_at: datetime) -> bytes:
    """`metadata.json` with its DownloadedAt set and all else as it was.

    Published builds have a zero there, with which Trivy downloads again at once; a time ahead of now would keep it
    from updating (pkg/db/db.go).
    """
    document = json.loads(raw)
    document["DownloadedAt"] = wording.rfc3339(downloaded_at)
    return _line(document)


def checks_metadata(manifest_digest: str, downloaded_at: datetime, version: str | None) -> bytes:
    """`policy/metadata.json`. `version` is the manifest's org.opencontainers.image.version, where it has one."""
    major = version_major(version or "")
    document: dict[str, Any] = {
        "Digest": manifest_digest,
        "DownloadedAt": wording.rfc3339(downloaded_at),
        "MajorVersion": major or 0,
    }
    if major is None:
        document["CustomBuild"] = True
    return _line(document)


def version_major(version: str) -> int | None:
    """The major version Trivy reads in a checks bundle's version; None where that is no semver. Trivy then takes the
    bundle for a custom build of major 0 and skips its check of the major version (pkg/policy/policy.go)."""
    match = SEMVER.fullmatch(version)
    return int(match[1]) if match else None


def vex_cache(updated_at: datetime) -> bytes:
    """`cache.json` of a VEX repository; no ETag, since a 304 makes Trivy before 0.73 delete the repository."""
    return _line({"UpdatedAt": wording.rfc3339(updated_at), "ETags": {}})


def _small(path: str, data: bytes) -> CacheMember:
    return CacheMember(path, FILE_MODE, len(data), (data,))


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"
