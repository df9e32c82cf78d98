"""Puts snapshots of small real assets into the store and the database, as a sync would have left them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache

from mirrors.blobs import BlobStore
from mirrors.demo import assets
from mirrors.demo.releases import build_release
from mirrors.digests import digest_of
from mirrors.fetch_release import media_type_of
from mirrors.models import Mirror, Snapshot, SnapshotBlob
from mirrors.trivy.release import BUNDLE_ENDING, identity_of

Role = SnapshotBlob.Role


@lru_cache(maxsize=64)
def built_once(build: Callable[..., bytes], **how: object) -> bytes:
    return build(**how)


def layer_of(kind: str, built: datetime, padding: int) -> bytes:
    if kind == "trivy-checks":
        return built_once(assets.build_checks, revision=built.isoformat())
    build = {"trivy-db": assets.build_trivy_db, "trivy-java-db": assets.build_java_db}[kind]
    return built_once(build, updated_at=built, padding=padding, seed=built)


def keep_build(
    store: BlobStore,
    mirror: Mirror,
    built: datetime,
    *,
    fetched: datetime | None = None,
    current: bool = True,
    padding: int = 0,
) -> Snapshot:
    """A build of a mirror of one of the three Trivy kinds; made current unless told otherwise."""
    layer = layer_of(mirror.kind, built, padding)
    annotations = {"org.opencontainers.image.version": "2.2.0"} if mirror.kind == "trivy-checks" else None
    manifest = assets.build_manifest(mirror.kind, layer, built, annotations=annotations)
    has_metadata = mirror.asset.has_metadata
    return keep(
        store,
        mirror,
        [
            (Role.MANIFEST, manifest, assets.MANIFEST_TYPE, "", {}),
            (Role.CONFIG, assets.EMPTY_CONFIG, assets.EMPTY_TYPE, "", {}),
            (Role.LAYER, layer, mirror.asset.layer_media_type, mirror.asset.title, {}),
        ],
        fetched=fetched or built + timedelta(hours=1),
        current=current,
        identity=digest_of(manifest),
        manifest_digest=digest_of(manifest),
        layer_digest=digest_of(layer),
        media_type=mirror.asset.layer_media_type,
        artifact_type=assets.ARTIFACT_TYPES[mirror.kind],
        tag=mirror.asset.default_tag,
        source_reference=f"ghcr.io/aquasecurity/{mirror.kind}:{mirror.asset.default_tag}",
        version="2.2.0" if mirror.kind == "trivy-checks" else "",
        updated_at=built,
        next_update=built + assets.NEXT_UPDATE[mirror.kind] if has_metadata else None,
        published_at=built,
    )


def keep_vex(store: BlobStore, mirror: Mirror, updated: datetime, *, current: bool = True) -> Snapshot:
    """A build of a VEX repository with one archive."""
    manifest = assets.build_vex_manifest("https://vex.example")
    archive = assets.build_vex_archive(updated, manifest=manifest)
    details = {
        "location": "https://vex.example/vexhub.tar.gz//vexhub-main",
        "subdir": "vexhub-main",
        "format": "tar.gz",
        "spec_version": "0.1",
        "served": "v0.1-0.tar.gz",
    }
    return keep(
        store,
        mirror,
        [
            (Role.VEX_MANIFEST, manifest, "application/json", "vex-repository.json", {}),
            (Role.VEX_ARCHIVE, archive, "application/gzip", "v0.1-0.tar.gz", details),
        ],
        fetched=updated + timedelta(hours=1),
        current=current,
        identity=digest_of(manifest + archive),
        manifest_digest=digest_of(manifest),
        layer_digest=digest_of(archive),
        source_reference="https://vex.example",
        updated_at=updated,
    )


def keep_release(
    store: BlobStore,
    mirror: Mirror,
    fetched: datetime,
    version: str = "0.74.0",
    platforms: tuple[str, ...] = ("Linux-64bit",),
    *,
    current: bool = True,
    **options: int,
) -> Snapshot:
    """A release with its checksum file and signatures."""
    files = build_release(version, platforms, **options)
    roles = {name: Role.SIGNATURE if name.endswith(".json") else Role.FILE for name in files}
    checksums = next(iter(files))
    roles[checksums] = Role.CHECKSUMS
    details = {name: {"file": name.removesuffix(BUNDLE_ENDING), "identity": identity_of(version)} for name in files}
    return keep(
        store,
        mirror,
        [
            (role, files[name], media_type_of(name), name, details[name] if role == Role.SIGNATURE else {})
            for name, role in roles.items()
        ],
        fetched=fetched,
        current=current,
        identity=digest_of(repr(sorted(files.items())).encode()),
        manifest_digest=digest_of(files[checksums]),
        source_reference="https://github.com/aquasecurity/trivy",
        version=version,
        item_count=len(platforms),
        published_at=fetched - timedelta(hours=5),
    )


def keep(
    store: BlobStore,
    mirror: Mirror,
    blobs: list[tuple[str, bytes, str, str, dict[str, object]]],
    *,
    fetched: datetime,
    current: bool = True,
    **fields: object,
) -> Snapshot:
    """`blobs` are role, bytes, media type, name and details, in order."""
    snapshot = Snapshot.objects.create(
        mirror=mirror,
        size_bytes=sum(len(data) for _, data, *_ in blobs),
        fetched_at=fetched,
        confirmed_at=fetched,
        **fields,
    )
    SnapshotBlob.objects.bulk_create(
        SnapshotBlob(
            snapshot=snapshot,
            position=position,
            digest=store.put(data),
            size_bytes=len(data),
            role=role,
            media_type=media_type,
            name=name,
            details=details,
        )
        for position, (role, data, media_type, name, details) in enumerate(blobs)
    )
    if current:
        mirror.switch_to(snapshot, fetched)
    return snapshot
