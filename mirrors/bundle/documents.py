"""The small documents of a bundle, rendered once when it is created: bundle.json, SHA256SUMS and the image layout's.

`bundle.json` is written one fact a line with fixed indentation, because install.sh and push.sh read it with awk.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mirrors.bundle import contents
from mirrors.bundle.composition import FORMAT, Member
from mirrors.bundle.contents import Assumed, BundledBlob, BundledSnapshot, Crossing
from mirrors.bundle.names import Names, checks_major
from mirrors.trivy.cache import version_major
from mirrors.wording import rfc3339

INDEX_MEDIA_TYPE = "application/vnd.oci.image.index.v1+json"
# In the order in which bundle.json lists them; VEX archives have a list of their own.
BLOB_ROLES = (
    contents.MANIFEST, contents.INDEX, contents.CONFIG, contents.LAYER, contents.VEX_MANIFEST, *contents.RELEASE_ROLES,
)  # fmt: skip
OCI_LAYOUT = b'{"imageLayoutVersion": "1.0.0"}\n'


@dataclass(frozen=True)
class Push:
    """A manifest that push.sh sends, and the name it gets below HOST/PREFIX."""

    digest: str
    size: int
    media_type: str
    push_as: str


@dataclass(frozen=True)
class Archive:
    """A VEX archive in the bundle: `file` as it came, `tar_gz` the one to unpack (the same if it came as that)."""

    blob: BundledBlob
    file: str
    tar_gz: str
    served_name: str


@dataclass(frozen=True)
class Entry:
    """A snapshot with everything decided about it. `files`: where each blob lies, by digest, of release files by name.

    `folder` is theirs, `files/trivy/0.74.0`, else "".
    """

    snapshot: BundledSnapshot
    names: Names
    version: str
    files: dict[str, str]
    pushes: tuple[Push, ...] = ()
    archives: tuple[Archive, ...] = ()
    complete: bool = True
    folder: str = ""

    def file_of(self, blob: BundledBlob) -> str:
        return self.files[blob.name if blob.role in contents.RELEASE_ROLES else blob.digest]


def bundle_json(
    bundle_id: str,
    created_at: datetime,
    program_version: str,
    entries: Sequence[Entry],
    *,
    scripts: bool,
    profile: str = "",
    crossing: Crossing | None = None,
) -> bytes:
    """`profile` is named only where it is not the usual one, so that the lines that scripts read stay what they are."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "bundle": bundle_id,
        "created_at": rfc3339(created_at),
        "program": f"airgap {program_version}",
        "scripts": scripts,
        **({"profile": profile} if profile else {}),
    }
    if crossing is not None:
        document["site"] = crossing.site
        document["transfer"] = crossing.transfer
        document["receipt_secret"] = crossing.receipt_secret
        document["assumed"] = [_assumed(each) for each in crossing.assumed]
    document["snapshots"] = [_snapshot(entry) for entry in entries]
    return (json.dumps(document, indent=2, ensure_ascii=True) + "\n").encode("ascii")


def _assumed(assumed: Assumed) -> dict[str, Any]:
    return {
        "mirror": assumed.mirror,
        "label": assumed.label,
        "kind": assumed.kind,
        "manifest_digest": assumed.manifest_digest,
        "layer_digest": assumed.layer_digest or None,
        "updated_at": _time(assumed.updated_at),
        "confirmed_at": _time(assumed.confirmed_at),
    }


def _snapshot(entry: Entry) -> dict[str, Any]:
    snapshot = entry.snapshot
    one_layer = snapshot.with_role(contents.LAYER) if entry.names.cache_path and snapshot.is_image else ()
    facts: dict[str, Any] = {
        "mirror": snapshot.mirror,
        "label": snapshot.label,
        "kind": snapshot.kind,
        "reference": without_credentials(snapshot.reference),
        "tag": snapshot.tag or None,
        "version": entry.version or None,
        "manifest_digest": snapshot.manifest_digest,
        "manifest_size": snapshot.manifest_size,
        "media_type": snapshot.manifest_media_type,
        "artifact_type": snapshot.artifact_type or None,
        "layer_digest": snapshot.layer_digest or None,
        "layer_size": next((blob.size for blob in snapshot.blobs if blob.digest == snapshot.layer_digest), None),
        "size": snapshot.size,
        "updated_at": _time(snapshot.updated_at),
        "next_update": _time(snapshot.next_update),
        "published_at": _time(snapshot.published_at),
        "fetched_at": rfc3339(snapshot.fetched_at),
        "confirmed_at": rfc3339(snapshot.confirmed_at),
        "tls_verified": snapshot.tls_verified,
        "same_layer_sources": snapshot.same_layer_sources,
        "complete": entry.complete,
        "ref_name": entry.names.ref_name or None,
        "push_as": entry.names.push_as or None,
        "cache_path": entry.names.cache_path or None,
        "cache_layer": entry.files[one_layer[0].digest] if one_layer else None,
        "files_path": entry.folder or None,
    }
    if snapshot.kind == "trivy-checks":
        facts["checks_major"] = checks_major(entry.version, snapshot.tag)
        facts["version_major"] = version_major(entry.version) or 0
    facts["blobs"] = [_blob(entry, blob) for blob in snapshot.with_role(*BLOB_ROLES)]
    facts["push"] = [
        {"digest": push.digest, "size": push.size, "media_type": push.media_type, "as": push.push_as}
        for push in entry.pushes
    ]
    facts["archives"] = [_archive(archive) for archive in entry.archives]
    return facts


def _blob(entry: Entry, blob: BundledBlob) -> dict[str, Any]:
    return {
        "role": blob.role,
        "digest": blob.digest,
        "size": blob.size,
        "media_type": blob.media_type,
        "name": blob.name or None,
        "file": entry.file_of(blob),
    }


def _archive(archive: Archive) -> dict[str, Any]:
    details = archive.blob.details
    return {
        "spec_version": details.get("spec_version"),
        "location": details.get("location"),
        "subdir": details.get("subdir") or "",
        "archive_format": details.get("format"),
        "served_name": archive.served_name,
        "digest": archive.blob.digest,
        "size": archive.blob.size,
        "file": archive.file,
        "tar_gz": archive.tar_gz,
    }


def _time(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment else None


def without_credentials(reference: str) -> str:
    """A source as people may read it: no user, password or query (queries carry tokens)."""
    return re.sub(r"^([a-z][a-z0-9+.:-]*://)?[^/@]*@(?!sha256:)", r"\1", reference.partition("?")[0])


def sha256sums(members: Iterable[Member]) -> bytes:
    """In the form `sha256sum -c` reads, in the order of the members."""
    return "".join(f"{member.digest.removeprefix('sha256:')}  {member.name}\n" for member in members).encode("ascii")


def index_json(entries: Sequence[Entry], referrers: Sequence[Push]) -> bytes:
    """The image layout's entry point: a tagged descriptor a snapshot, an untagged one for each referrer."""
    manifests: list[dict[str, Any]] = []
    for entry in entries:
        snapshot = entry.snapshot
        if not snapshot.is_image:
            continue
        descriptor: dict[str, Any] = {
            "mediaType": snapshot.manifest_media_type,
            "digest": snapshot.manifest_digest,
            "size": snapshot.manifest_size,
        }
        if snapshot.artifact_type:
            descriptor["artifactType"] = snapshot.artifact_type
        descriptor["annotations"] = {"org.opencontainers.image.ref.name": entry.names.ref_name}
        manifests.append(descriptor)
    for push in referrers:
        manifests.append({"mediaType": push.media_type, "digest": push.digest, "size": push.size})
    document = {"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": manifests}
    return (json.dumps(document, indent=2) + "\n").encode("ascii")
