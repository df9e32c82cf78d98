"""Small snapshots in Trivy's real formats, put into a store."""

import gzip
import io
import json
import tarfile
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from mirrors.blobs import BlobStore
from mirrors.bundle import BundledBlob, BundledSnapshot
from mirrors.digests import digest_of
from mirrors.trivy.catalogue import KINDS

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
NOW = datetime(2026, 11, 20, 21, 45, 0, 123456, UTC)
BUILT = datetime(2026, 11, 20, 6, 31, 52, 104857, UTC)
PUBLISHED = BUILT + timedelta(minutes=2)


def tar_gz(files: dict[str, bytes], folders: tuple[str, ...] = ()) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name in folders:
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o700
            archive.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid = len(data), 0o600, 12345
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(raw.getvalue(), mtime=0)


def zip_of(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return raw.getvalue()


def database_layer(name: str, content: bytes, version: int) -> bytes:
    metadata = {
        "Version": version,
        "NextUpdate": "2026-11-21T06:31:52.1048576Z",
        "UpdatedAt": "2026-11-20T06:31:52.1048576Z",
        "DownloadedAt": "0001-01-01T00:00:00Z",
    }
    return tar_gz({name: content, "metadata.json": json.dumps(metadata, separators=(",", ":")).encode() + b"\n"})


def one_layer(
    store: BlobStore, kind: str, mirror: str, tag: str, layer: bytes, *, version: str = "", **changes: Any
) -> BundledSnapshot:
    """A snapshot as upstream publishes them: one layer, an empty config inside the manifest."""
    asset = KINDS[kind]
    layer_type, title = asset.layer_media_type, {"org.opencontainers.image.title": asset.title}
    annotations = {"org.opencontainers.image.created": PUBLISHED.isoformat()}
    if version:
        annotations["org.opencontainers.image.version"] = version
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "application/vnd.aquasec.trivy.config.v1+json",
            "config": {"mediaType": EMPTY, "digest": digest_of(b"{}"), "size": 2, "data": "e30="},
            "layers": [{"mediaType": layer_type, "digest": digest_of(layer), "size": len(layer), "annotations": title}],
            "annotations": annotations,
        }
    ).encode()
    snapshot = BundledSnapshot(
        mirror=mirror,
        label=kind.replace("-", " "),
        kind=kind,
        tag=tag,
        reference=f"mirror.gcr.io/aquasec/{kind}:{tag}",
        manifest_digest=store.put(manifest),
        manifest_size=len(manifest),
        manifest_media_type=MANIFEST,
        layer_digest=store.put(layer),
        updated_at=BUILT,
        next_update=BUILT + timedelta(days=1),
        published_at=PUBLISHED,
        fetched_at=BUILT + timedelta(hours=3),
        confirmed_at=BUILT + timedelta(hours=12),
        tls_verified=True,
        same_layer_sources=2,
        version=version,
        artifact_type="application/vnd.aquasec.trivy.config.v1+json",
        blobs=(
            BundledBlob(digest_of(manifest), len(manifest), MANIFEST, "manifest"),
            BundledBlob(store.put(b"{}"), 2, EMPTY, "config"),
            BundledBlob(digest_of(layer), len(layer), layer_type, "layer", asset.title),
        ),
    )
    return replace(snapshot, **changes)


def database(store: BlobStore, mirror: str = "trivy-db", content: bytes = b"bolt", **changes: Any) -> BundledSnapshot:
    return one_layer(store, "trivy-db", mirror, "2", database_layer("trivy.db", content, 2), **changes)


def java_database(store: BlobStore) -> BundledSnapshot:
    return one_layer(store, "trivy-java-db", "trivy-java-db", "1", database_layer("trivy-java.db", b"sqlite", 1))


def checks(store: BlobStore, major: int = 2, version: str = "2.2.0") -> BundledSnapshot:
    mirror = "trivy-checks" if major == 2 else f"trivy-checks-{major}"
    layer = tar_gz({"policies/a.rego": b"package a%d" % major, "commands/c.yaml": b"c"}, ("./", "./policies"))
    return one_layer(
        store, "trivy-checks", mirror, str(major), layer, version=version, next_update=None, updated_at=PUBLISHED
    )


def vex(
    store: BlobStore,
    mirror: str = "vexhub",
    *,
    format: str = "tar.gz",
    subdir: str = "vexhub-main",
    top: str = "vexhub-main",
) -> BundledSnapshot:
    inside = f"{top}/" if top else ""
    index = json.dumps({"updated_at": BUILT.isoformat(), "packages": []}).encode()
    files = {f"{inside}index.json": index, f"{inside}pkg/a/b.json": b"{}"}
    archive = tar_gz(files) if format == "tar.gz" else zip_of(files)
    location = f"https://example.org/{mirror}/main.{format}" + (f"//{subdir}" if subdir else "")
    manifest = json.dumps(
        {
            "name": "VEX Hub",
            "versions": [{"spec_version": "0.1", "locations": [{"url": location}], "update_interval": "24h"}],
        }
    ).encode()
    served = f"v0.1-0.{format}"
    return BundledSnapshot(
        mirror=mirror,
        label='VEX "Hub" ü',
        kind="vex",
        tag="0.1",
        reference=f"https://user:secret@example.org/{mirror}?token=secret",
        manifest_digest=store.put(manifest),
        manifest_size=len(manifest),
        manifest_media_type="application/json",
        layer_digest=store.put(archive),
        updated_at=BUILT,
        next_update=None,
        published_at=None,
        fetched_at=BUILT,
        confirmed_at=BUILT,
        tls_verified=True,
        same_layer_sources=0,
        version="",
        artifact_type="",
        blobs=(
            BundledBlob(digest_of(manifest), len(manifest), "application/json", "vex-manifest"),
            BundledBlob(
                digest_of(archive),
                len(archive),
                "application/gzip",
                "vex-archive",
                served,
                {
                    "location": location,
                    "subdir": subdir,
                    "format": format,
                    "spec_version": "0.1",
                    "served": served,
                },
            ),
        ),
    )


def image_index(
    store: BlobStore, *, carried: tuple[str, ...] = ("amd64", "arm64"), referrer: bool = False
) -> BundledSnapshot:
    """An image for two platforms; `carried` are the ones that were chosen."""
    blobs: dict[str, BundledBlob] = {}
    children = []
    for architecture in ("amd64", "arm64"):
        config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
        layer = tar_gz({f"bin/{architecture}": architecture.encode() * 100})
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": digest_of(config.encode()),
                    "size": len(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                        "digest": digest_of(layer),
                        "size": len(layer),
                    }
                ],
            }
        ).encode()
        children.append(
            {
                "mediaType": MANIFEST,
                "digest": digest_of(manifest),
                "size": len(manifest),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
        if architecture in carried:
            for data, role, media_type in (
                (manifest, "manifest", MANIFEST),
                (config.encode(), "config", "application/vnd.oci.image.config.v1+json"),
                (layer, "layer", "application/vnd.oci.image.layer.v1.tar+gzip"),
            ):
                blobs[store.put(data)] = BundledBlob(digest_of(data), len(data), media_type, role)
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).encode()
    root = BundledBlob(store.put(index), len(index), INDEX, "index")
    if referrer:
        signature = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": "application/vnd.test.signature",
                "config": {"mediaType": EMPTY, "digest": digest_of(b"{}"), "size": 2, "data": "e30="},
                "layers": [{"mediaType": EMPTY, "digest": digest_of(b"signed"), "size": 6}],
                "subject": {"mediaType": INDEX, "digest": root.digest, "size": root.size},
            }
        ).encode()
        blobs[store.put(signature)] = BundledBlob(digest_of(signature), len(signature), MANIFEST, "manifest")
        blobs["config"] = BundledBlob(store.put(b"{}"), 2, EMPTY, "config")
        blobs["layer"] = BundledBlob(store.put(b"signed"), 6, EMPTY, "layer")
    return BundledSnapshot(
        mirror="tool",
        label="Tool image",
        kind="oci",
        tag="1.25",
        reference="docker.io/library/tool:1.25",
        manifest_digest=root.digest,
        manifest_size=root.size,
        manifest_media_type=INDEX,
        layer_digest="",
        updated_at=None,
        next_update=None,
        published_at=None,
        fetched_at=BUILT,
        confirmed_at=BUILT,
        tls_verified=False,
        same_layer_sources=1,
        version="",
        artifact_type="",
        blobs=(root, *blobs.values()),
    )


def everything(store: BlobStore) -> list[BundledSnapshot]:
    return [
        database(store),
        java_database(store),
        checks(store),
        checks(store, 1, ""),
        vex(store),
        vex(store, "other-vex", format="zip", subdir="", top=""),
        image_index(store, referrer=True),
    ]
