"""Manifests and indexes: parsed from their raw bytes, which stay as they came.

Bounded and suspicious: a manifest is text from the network that names paths (digests), sizes and types. What is
accepted: OCI image manifest and index 1.0 and 1.1, Docker schema 2 manifest and list (image-spec manifest.md,
image-index.md; distribution manifest-v2-2.md).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mirrors.digests import DigestError, digest_of, parse_digest
from mirrors.registry.errors import clean

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPT = ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST))

MANIFEST_LIMIT = 4 * 1024 * 1024
_SIZE_LIMIT = 2**50
_ENTRIES_LIMIT = 5000
_TEXT_LIMIT = 64 * 1024

_MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
_INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
# What servers say when they do not know; then the document itself decides.
_VAGUE_TYPES = frozenset({"", "application/json", "application/octet-stream", "text/plain", "binary/octet-stream"})


class ManifestError(ValueError):
    """These bytes are no manifest we can take. `code`: too-large, malformed, digest or unsupported."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Descriptor:
    """One thing a manifest names. `size` in bytes; `platform` as it stands in an index, else None."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Mapping[str, Any] | None = field(default=None, hash=False)
    artifact_type: str = ""

    @property
    def title(self) -> str:
        return self.annotations.get("org.opencontainers.image.title", "")

    @property
    def platform_parts(self) -> dict[str, str]:
        """What tells platforms apart (os, architecture, variant, where stated), fit to be kept and shown."""
        stated = self.platform or {}
        return {key: clean(str(stated[key]), 60) for key in ("os", "architecture", "variant") if stated.get(key)}

    @property
    def platform_name(self) -> str:
        """`linux/arm/v7`; "" where no platform is stated."""
        return "/".join(self.platform_parts.values())


@dataclass(frozen=True)
class Manifest:
    """A manifest (`config`, `layers`) or an index (`manifests`) and its bytes exactly as received."""

    raw: bytes
    media_type: str
    digest: str
    is_index: bool
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""
    subject: Descriptor | None = None
    created: datetime | None = None
    version: str | None = None


def kind_of(media_type: str) -> str:
    """`manifest`, `index`, or "" where the type does not say."""
    plain = plain_type(media_type)
    return "manifest" if plain in _MANIFEST_TYPES else "index" if plain in _INDEX_TYPES else ""


def plain_type(content_type: str) -> str:
    """A Content-Type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def parse_manifest(raw: bytes, media_type: str, digest: str | None = None) -> Manifest:
    """Parse the bytes of a manifest or index.

    `media_type` is the Content-Type they came with, or "" if unknown; it must not contradict the document. With
    `digest`, the bytes must have it. ManifestError otherwise.
    """
    if len(raw) > MANIFEST_LIMIT:
        raise ManifestError("too-large", f"The manifest has {len(raw)} bytes; the limit is {MANIFEST_LIMIT}.")
    actual = digest_of(raw)
    if digest is not None and digest != actual:
        raise ManifestError("digest", f"The manifest has the digest {actual}, not {digest[:80]}.")
    document = _load(raw, media_type)
    is_index, own_type = _kind(document, plain_type(media_type))
    annotations = _annotations(document.get("annotations"))
    subject = document.get("subject")
    common: dict[str, Any] = {
        "raw": raw,
        "media_type": own_type,
        "digest": actual,
        "is_index": is_index,
        "annotations": annotations,
        "artifact_type": _text(document.get("artifactType", "") or "", "artifactType"),
        "subject": None if subject is None else _descriptor(subject, "subject"),
        "created": _time(annotations.get("org.opencontainers.image.created")),
        "version": annotations.get("org.opencontainers.image.version"),
    }
    if is_index:
        return Manifest(**common, manifests=_descriptors(document, "manifests"))
    if "config" not in document:
        raise ManifestError("malformed", "The manifest has no config.")
    config = _descriptor(document["config"], "config")
    return Manifest(**common, config=config, layers=_descriptors(document, "layers"))


def _load(raw: bytes, media_type: str) -> dict[str, Any]:
    start = raw[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")) or plain_type(media_type) == "text/html":
        raise ManifestError(
            "malformed", "A web page came instead of a manifest; a login page or proxy may be in between."
        )
    try:
        document = json.loads(raw)
    except RecursionError:
        raise ManifestError("malformed", "The manifest is nested too deeply.") from None
    except ValueError:
        raise ManifestError("malformed", "The manifest is not JSON.") from None
    if not isinstance(document, dict):
        raise ManifestError("malformed", "The manifest is not a JSON object.")
    return document


def _kind(document: dict[str, Any], content_type: str) -> tuple[bool, str]:
    """Whether it is an index, and its media type: Content-Type, mediaType and shape must agree."""
    version = document.get("schemaVersion")
    if version == 1 and not isinstance(version, bool):
        raise ManifestError("unsupported", "The manifest is of Docker's schema 1, which has no sizes; push it again.")
    if version != 2:
        raise ManifestError("malformed", "The manifest does not say schemaVersion 2.")
    inside = document.get("mediaType", "")
    if not isinstance(inside, str):
        raise ManifestError("malformed", "The manifest's mediaType is not text.")
    inside = inside.lower()
    # Both shapes in one document are read differently by different clients (GHSA-qq97-vm5h-rrhg).
    if "manifests" in document and ("layers" in document or "config" in document):
        raise ManifestError("malformed", "The document is a manifest and an index at once.")
    shape = "index" if "manifests" in document else "manifest" if "layers" in document else ""
    for name, stated in (("Content-Type", content_type), ("mediaType", inside)):
        if stated in _VAGUE_TYPES:
            continue
        kind = kind_of(stated)
        if not kind:
            raise ManifestError("unsupported", f"Its {name} is {stated[:100]!r}, which is no manifest type known here.")
        if shape and kind != shape:
            raise ManifestError("malformed", f"Its {name} says {kind}, but the document is {_a(shape)}.")
        shape = shape or kind
    if not shape:
        raise ManifestError("malformed", "The manifest names neither layers nor manifests.")
    fallback = OCI_INDEX if shape == "index" else OCI_MANIFEST
    known = [stated for stated in (inside, content_type) if kind_of(stated)]
    return shape == "index", known[0] if known else fallback


def _a(kind: str) -> str:
    return "an index" if kind == "index" else "a manifest"


def _descriptors(document: dict[str, Any], key: str) -> tuple[Descriptor, ...]:
    entries = document.get(key)
    if not isinstance(entries, list):
        raise ManifestError("malformed", f"The manifest's {key} are missing or not a list.")
    if len(entries) > _ENTRIES_LIMIT:
        raise ManifestError("malformed", f"The manifest names {len(entries)} {key}; the limit is {_ENTRIES_LIMIT}.")
    return tuple(_descriptor(entry, f"{key}[{position}]") for position, entry in enumerate(entries))


def _descriptor(entry: object, where: str) -> Descriptor:
    if not isinstance(entry, dict):
        raise ManifestError("malformed", f"{where} is not an object.")
    media_type = _text(entry.get("mediaType"), f"{where}.mediaType")
    if not media_type:
        raise ManifestError("malformed", f"{where} has no mediaType.")
    try:
        digest = parse_digest(entry.get("digest"))
    except DigestError as error:
        raise ManifestError("malformed", f"{where}: {error}") from None
    size = entry.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _SIZE_LIMIT:
        raise ManifestError("malformed", f"{where} has no usable size.")
    platform = entry.get("platform")
    if platform is not None and not isinstance(platform, dict):
        raise ManifestError("malformed", f"{where}.platform is not an object.")
    return Descriptor(
        media_type=media_type,
        digest=digest,
        size=size,
        annotations=_annotations(entry.get("annotations"), where),
        platform=platform,
        artifact_type=_text(entry.get("artifactType", "") or "", f"{where}.artifactType"),
    )


def _annotations(value: object, where: str = "the manifest") -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ManifestError("malformed", f"The annotations of {where} are not an object.")
    for text in value.values():
        if not isinstance(text, str) or len(text) > _TEXT_LIMIT:
            raise ManifestError("malformed", f"An annotation of {where} is not text of a sane length.")
    return dict(value)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or len(value) > 255 or not value.isprintable():
        raise ManifestError("malformed", f"{where} is missing or not a short text.")
    return value


def _time(text: str | None) -> datetime | None:
    """RFC 3339 as an aware datetime in UTC; None for anything else."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None
