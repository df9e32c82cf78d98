"""The list of what refers to a manifest: an image index made on request (distribution-spec, "Listing Referrers")."""

import json
from collections.abc import Iterable
from typing import Any

from mirrors.blobs import BlobStore
from mirrors.registry.manifests import OCI_INDEX, Manifest, parse_manifest
from mirrors.serving import Held

# Clients stop reading an index at 4 MiB; what does not fit comes on another page.
LARGEST_PAGE = 3 * 1024 * 1024


def index_of(
    found: Iterable[Held], subject: str, store: BlobStore, *, artifact_type: str = "", after: str = ""
) -> tuple[bytes, str]:
    """The index as JSON and, where there is more, the digest after which the next page begins (else "").

    `found` is in order of digest. Raises StoreError if one of them is missing or damaged.
    """
    entries: list[dict[str, Any]] = []
    size, more = 0, ""
    for held in found:
        if held.digest <= after:
            continue
        entry = _entry(held, subject, store)
        if entry is None or (artifact_type and entry.get("artifactType") != artifact_type):
            continue
        size += len(json.dumps(entry))
        if entries and size > LARGEST_PAGE:
            more = entries[-1]["digest"]
            break
        entries.append(entry)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json.dumps(index).encode(), more


def _entry(held: Held, subject: str, store: BlobStore) -> dict[str, Any] | None:
    """Its descriptor; None for one whose own bytes name another subject than upstream's list said."""
    manifest = parse_manifest(store.read(held.digest), held.media_type)
    if manifest.subject is None or manifest.subject.digest != subject:
        return None
    entry: dict[str, Any] = {"mediaType": manifest.media_type, "digest": held.digest, "size": held.size}
    if kind := _artifact_type(manifest):
        entry["artifactType"] = kind
    if manifest.annotations:
        entry["annotations"] = dict(manifest.annotations)
    return entry


def _artifact_type(manifest: Manifest) -> str:
    return manifest.artifact_type or (manifest.config.media_type if manifest.config else "")
