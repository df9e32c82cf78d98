"""Serving release files: which mirrors, versions and files there are under /files/, by what is kept.

A version that several kept snapshots hold (other platforms were chosen meanwhile) is one folder: the files of all that
have the checksum file of the newest. What the catalogue refuses is no longer served, however it came here.
"""

from dataclasses import dataclass

from mirrors.models import Mirror, Snapshot, SnapshotBlob
from mirrors.trivy.catalogue import KINDS
from mirrors.trivy.release import BUNDLE_ENDING, LATEST, parse_version, verify_command

Role = SnapshotBlob.Role


@dataclass(frozen=True)
class Release:
    """One version of a mirror. `files` by name, the checksum file first; `refused` says why none is served, or ""."""

    version: str
    snapshot: Snapshot
    is_current: bool
    files: dict[str, SnapshotBlob]
    refused: str = ""

    @property
    def checksums(self) -> str:
        return next((name for name, blob in self.files.items() if blob.role == Role.CHECKSUMS), "")

    @property
    def programs(self) -> list[SnapshotBlob]:
        return [blob for blob in self.files.values() if blob.role == Role.FILE]

    @property
    def verifications(self) -> list[str]:
        """The commands with which a person finds out who signed each file."""
        signed = [blob.name for blob in self.programs if blob.name + BUNDLE_ENDING in self.files]
        return [verify_command(name, self.version) for name in signed]


def mirrors_with_files() -> list[Mirror]:
    """Those that hold a release, in the order of the lists."""
    kinds = [kind.name for kind in KINDS.values() if kind.transport == "release"]
    found = Mirror.objects.filter(kind__in=kinds).exclude(current=None)
    return list(found.select_related("current").order_by("position", "name"))


def find(name: str) -> Mirror | None:
    return next((mirror for mirror in mirrors_with_files() if mirror.name == name), None)


def releases_of(mirror: Mirror) -> list[Release]:
    """Every kept version, the current one first, then the newest; in two queries."""
    kept = list(mirror.snapshots.newest_first().prefetch_related("blobs"))
    kept.sort(key=lambda snapshot: snapshot.pk != mirror.current_id)
    by_version: dict[str, list[Snapshot]] = {}
    for snapshot in kept:
        by_version.setdefault(snapshot.version, []).append(snapshot)
    return [_release(mirror, version, snapshots) for version, snapshots in by_version.items()]


def _release(mirror: Mirror, version: str, snapshots: list[Snapshot]) -> Release:
    first = snapshots[0]
    files: dict[str, SnapshotBlob] = {}
    for snapshot in snapshots:
        if snapshot.manifest_digest == first.manifest_digest:
            for blob in snapshot.blobs.all():
                files.setdefault(blob.name, blob)
    refused = mirror.asset.refused_versions.get(version, "")
    return Release(version, first, first.pk == mirror.current_id, {} if refused else files, refused)


def release_named(mirror: Mirror, version: str) -> Release | None:
    """`latest`, `0.74.0` or, as a tag is written, `v0.74.0`; None for what is not kept or refused."""
    releases = [release for release in releases_of(mirror) if not release.refused]
    if version == LATEST:
        return next((release for release in releases if release.is_current), None)
    wanted = parse_version(version)
    return next((release for release in releases if release.version == wanted), None)


def file_named(release: Release, name: str) -> SnapshotBlob | None:
    """A file by its name, or with `latest` in it where the version stands: `trivy_latest_Linux-64bit.tar.gz`."""
    return release.files.get(name) or release.files.get(name.replace(f"_{LATEST}_", f"_{release.version}_"))
