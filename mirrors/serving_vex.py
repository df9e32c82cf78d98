"""Serving a mirrored VEX repository: the manifest rewritten for our URL at request time, and its archives."""

from mirrors.blobs import BlobStore
from mirrors.models import Mirror, Snapshot, SnapshotBlob
from mirrors.trivy.vex import rewrite_manifest

Role = SnapshotBlob.Role


def current_repository(name: str) -> Snapshot | None:
    """The snapshot served under this mirror's name, if it is a VEX mirror that has one."""
    mirror = Mirror.objects.filter(name=name, kind="vex").select_related("current").first()
    return mirror.current if mirror else None


def manifest_for(snapshot: Snapshot, store: BlobStore, base_url: str) -> bytes:
    """vex-repository.json with every mirrored location under `base_url`; everything else as upstream wrote it."""
    blobs = list(snapshot.blobs.all())
    raw = store.read(next(blob.digest for blob in blobs if blob.role == Role.VEX_MANIFEST))
    served = {
        str(blob.details["location"]): str(blob.details["served"]) for blob in blobs if blob.role == Role.VEX_ARCHIVE
    }
    return rewrite_manifest(raw, base_url, served)


def archive_named(snapshot: Snapshot, file: str) -> SnapshotBlob | None:
    for blob in snapshot.blobs.filter(role=Role.VEX_ARCHIVE):
        # What is served may name a folder of its own inside the archive: name//folder.
        if str(blob.details.get("served", "")).partition("//")[0] == file:
            return blob
    return None
