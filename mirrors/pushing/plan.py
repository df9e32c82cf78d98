"""What has to be at a destination for one snapshot to be whole there: blobs first, then manifests in the order of their
puts. Read from our own store and checked while it is read; what is missing or damaged here is never begun."""

from collections.abc import Iterator
from dataclasses import dataclass

from mirrors.blobs import BlobStore, StoreError
from mirrors.digests import short
from mirrors.models import Snapshot, SnapshotBlob
from mirrors.registry.manifests import Descriptor, Manifest, ManifestError, parse_manifest

Role = SnapshotBlob.Role


class PlanError(Exception):
    """What we hold cannot be pushed; the sentence says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """`parts` are the manifests an index names that we hold, `referrers` those whose subject is another one.

    `is_partial`: the index names manifests that we do not hold, because platforms were chosen.
    """

    root: Manifest
    parts: tuple[Manifest, ...]
    referrers: tuple[Manifest, ...]
    blobs: tuple[Descriptor, ...]
    is_partial: bool

    @property
    def size(self) -> int:
        return sum(blob.size for blob in self.blobs)


def plan_of(snapshot: Snapshot, store: BlobStore) -> Plan:
    """Raises PlanError; StoreError where a manifest is missing or damaged here."""
    rows = list(snapshot.blobs.filter(role__in=(Role.MANIFEST, Role.INDEX)).order_by("position"))
    if not rows:
        raise PlanError("There is no manifest in what is held; only OCI artifacts can be pushed to a registry.")
    manifests = [_read(row, store) for row in rows]
    found = {manifest.digest: manifest for manifest in manifests}
    root = found.get(snapshot.manifest_digest)
    if root is None:
        raise PlanError("The manifest of what is held is not among its parts. Sync this mirror again.")
    named = [child.digest for child in root.manifests]
    parts = tuple(found[digest] for digest in named if digest in found)
    inside = {root.digest, *(part.digest for part in parts)}
    referrers = tuple(manifest for manifest in manifests if manifest.digest not in inside)
    return Plan(root, parts, referrers, tuple(_blobs(manifests)), any(digest not in found for digest in named))


def _read(row: SnapshotBlob, store: BlobStore) -> Manifest:
    try:
        return parse_manifest(store.read(row.digest), row.media_type, row.digest)
    except ManifestError as error:
        raise PlanError(f"The manifest {short(row.digest)} cannot be read: {error}") from error


def _blobs(manifests: list[Manifest]) -> Iterator[Descriptor]:
    """Each blob once, configs before layers: what is small is refused early."""
    seen: set[str] = set()
    configs = [manifest.config for manifest in manifests if manifest.config is not None]
    for blob in (*configs, *(layer for manifest in manifests for layer in manifest.layers)):
        if blob.digest not in seen:
            seen.add(blob.digest)
            yield blob


def require_there(blob: Descriptor, store: BlobStore) -> None:
    """Raise StoreError where our copy of a blob is missing or cut. Its bytes are hashed while they are sent."""
    if not store.has(blob.digest) or store.size(blob.digest) != blob.size:
        is_cut = store.has(blob.digest)
        raise StoreError(
            "damaged" if is_cut else "missing",
            f"Our copy of blob {short(blob.digest)} is {'damaged' if is_cut else 'missing'}, so nothing was pushed. "
            "Check the store (Settings → Store), which fetches it again, then push again.",
        )
