"""The cache archive: one tar.gz that unpacks to a ready Trivy cache directory, for people who want just that.

Unlike a bundle it is written once, by a worker, and kept as a blob: what Trivy's cache holds lies unpacked, so every
byte has to be inflated and packed again.
"""

import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from isal import isal_zlib

from mirrors import content
from mirrors.blobs import BlobStore, StoreError
from mirrors.bundle.contents import VEX_ARCHIVE, BundledSnapshot, BundleError
from mirrors.bundle.names import DEFAULT_CHECKS_MAJOR, checks_major, name_all
from mirrors.digests import short
from mirrors.stopping import StopSignal
from mirrors.trivy.cache import CacheArchive, CacheFacts, CacheMember, cache_members
from mirrors.trivy.catalogue import GIB, KINDS, MIB
from mirrors.trivy.vex import SPEC_VERSION

ARCHIVE_LIMIT = 64 * GIB
# isal's strongest level: about zlib's level 2, several times as fast.
LEVEL = 3
GZIP = 31


@dataclass(frozen=True)
class Placed:
    """A snapshot and its folder in the cache: `db`, `java-db`, `policy` or `vex/repositories/NAME`."""

    snapshot: BundledSnapshot
    folder: str


def place_all(snapshots: Sequence[BundledSnapshot]) -> list[Placed]:
    """Which of these go into a cache, and where. One of a kind has its place; of the checks, 2 if it is there."""
    versions = [snapshot.version for snapshot in snapshots]
    named = zip(snapshots, name_all(snapshots, versions), strict=True)
    placed = [Placed(snapshot, names.cache_path) for snapshot, names in named if names.cache_path]
    checks = [place for place in placed if place.snapshot.kind == "trivy-checks"]
    if len(checks) > 1:
        chosen = max(checks, key=lambda place: (_major(place) == DEFAULT_CHECKS_MAJOR, _major(place)))
        placed = [place for place in placed if place not in checks or place is chosen]
    return placed


def _major(place: Placed) -> int:
    return checks_major(place.snapshot.version, place.snapshot.tag)


def write(
    placed: Sequence[Placed],
    store: BlobStore,
    made_at: datetime,
    *,
    progress: Callable[[int], object],
    stop: StopSignal,
) -> tuple[str, int]:
    """Write the archive into the store; its digest and size in bytes. The same arguments give the same bytes.

    `progress` is told the compressed bytes of each step. Raises BundleError where content is damaged, CacheError where
    it is not what a cache needs, StoreError where the store refuses.
    """
    packer = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, GZIP)
    mtime = int(made_at.timestamp())
    with store.incoming(ARCHIVE_LIMIT) as incoming:

        def add(data: bytes | memoryview) -> None:
            stop.check()
            if packed := packer.compress(data):
                incoming.write(packed)
                progress(len(packed))

        for member in _members(placed, store, made_at):
            add(_header(member, mtime))
            written = 0
            for chunk in member.chunks:
                add(chunk)
                written += len(chunk)
            if written != member.size:
                raise BundleError(f"{member.path} has {written} bytes instead of the {member.size} stated before it.")
            add(bytes(-written % tarfile.BLOCKSIZE))
        add(bytes(2 * tarfile.BLOCKSIZE))
        incoming.write(packer.flush())
        return incoming.commit()


def _header(member: CacheMember, mtime: int) -> bytes:
    info = tarfile.TarInfo(member.path)
    info.size, info.mode, info.mtime = member.size, member.mode, mtime
    return info.tobuf(tarfile.PAX_FORMAT)


def _members(placed: Sequence[Placed], store: BlobStore, made_at: datetime) -> Iterator[CacheMember]:
    def open_blob(digest: str) -> BinaryIO:
        if not store.is_pristine(digest) and store.verify(digest) != "ok":
            raise BundleError(
                f"Blob {short(digest)} is missing or damaged. Run the store check; it fetches the blob again."
            )
        return store.open(digest)

    for place in placed:
        yield from cache_members(KINDS[place.snapshot.kind], _facts(place, store, made_at), open_blob)


def _facts(place: Placed, store: BlobStore, made_at: datetime) -> CacheFacts:
    snapshot = place.snapshot
    if not snapshot.is_vex:
        return CacheFacts(
            downloaded_at=made_at,
            layer_digest=snapshot.layer_digest,
            manifest_digest=snapshot.manifest_digest,
            version=snapshot.version or None,
        )
    archives: dict[str, CacheArchive] = {}
    for blob in snapshot.with_role(VEX_ARCHIVE):
        version = str(blob.details.get("spec_version") or SPEC_VERSION)
        archives.setdefault(
            version,
            CacheArchive(
                spec_version=version,
                digest=blob.digest,
                format=blob.details.get("format") or "tar.gz",
                top=str(blob.details.get("subdir") or ""),
            ),
        )
    return CacheFacts(
        downloaded_at=made_at,
        vex_name=place.folder.rpartition("/")[2],
        repository_manifest=store.read(snapshot.manifest_digest),
        archives=tuple(archives.values()),
    )


class StoredFile:
    """A finished archive, to be sent: the same questions answered as a bundle's Composition."""

    def __init__(self, digest: str, store: BlobStore | None = None) -> None:
        self.digest = digest
        self.store = store or content.store()
        self.etag = f'"{digest.removeprefix("sha256:")}"'

    @property
    def size(self) -> int:
        return self.store.size(self.digest)

    def problems(self) -> list[str]:
        """A sentence if the file is not there."""
        try:
            self.store.size(self.digest)
        except StoreError as error:
            return [str(error)]
        return []

    def read(self, start: int, stop: int, chunk: int = MIB) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`. BundleError before the first byte if the file was damaged."""
        if not self.store.is_pristine(self.digest) and self.store.verify(self.digest) != "ok":
            raise BundleError("The archive is missing or damaged in the content store. Make a new one.")
        with self.store.open(self.digest) as file:
            file.seek(start)
            while start < stop:
                piece = file.read(min(chunk, stop - start))
                if not piece:
                    raise BundleError("The archive is shorter than it was. Make a new one.")
                start += len(piece)
                yield piece
