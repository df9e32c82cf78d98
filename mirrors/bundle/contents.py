"""What goes into a bundle, as plain values: the caller fills these from its rows."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

MANIFEST, INDEX, CONFIG, LAYER = "manifest", "index", "config", "layer"
VEX_MANIFEST, VEX_ARCHIVE = "vex-manifest", "vex-archive"
CHECKSUMS, FILE, SIGNATURE = "checksums", "file", "signature"
RELEASE_ROLES = (CHECKSUMS, FILE, SIGNATURE)


class BundleError(Exception):
    """A bundle cannot be made or sent; the text says which part and what to do."""


@dataclass(frozen=True)
class Signer:
    """Whose key signs a bundle. `sign` signs SHA256SUMS (armored); None: somebody brings that afterwards."""

    fingerprint: str
    sign: Callable[[bytes], bytes] | None


@dataclass(frozen=True)
class BundledBlob:
    """One blob of a snapshot; `role` is one of the constants above.

    A `vex-archive` has in `details`: `location` (the URL as upstream wrote it), `subdir` (the folder of
    its index, or empty), `format` (`tar.gz`, `zip`, …), `spec_version` and `served` (its stable file name). A
    `signature` has `file` (what it is of) and, where they could be read, `identity` and `issuer`.
    """

    digest: str
    size: int
    media_type: str
    role: str
    name: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BundledSnapshot:
    """One mirror's content. Times are aware; `same_layer_sources` counts the other sources seen with this layer."""

    mirror: str
    label: str
    kind: str
    tag: str
    reference: str
    manifest_digest: str
    manifest_size: int
    manifest_media_type: str
    layer_digest: str
    updated_at: datetime | None
    next_update: datetime | None
    published_at: datetime | None
    fetched_at: datetime
    confirmed_at: datetime
    tls_verified: bool
    same_layer_sources: int
    version: str
    artifact_type: str
    blobs: tuple[BundledBlob, ...]

    @property
    def is_vex(self) -> bool:
        return self.kind == "vex"

    @property
    def is_release(self) -> bool:
        return self.kind == "release"

    @property
    def is_image(self) -> bool:
        """Whether it belongs into the image layout."""
        return not self.is_vex and not self.is_release

    @property
    def size(self) -> int:
        """Bytes of its distinct blobs."""
        return sum({blob.digest: blob.size for blob in self.blobs}.values())

    def with_role(self, *roles: str) -> tuple[BundledBlob, ...]:
        return tuple(blob for blob in self.blobs if blob.role in roles)


@dataclass(frozen=True)
class Assumed:
    """What the site is taken to hold already, so that it was left out. Times are aware."""

    mirror: str
    label: str
    kind: str
    manifest_digest: str
    layer_digest: str
    updated_at: datetime | None
    confirmed_at: datetime | None

    @property
    def digest(self) -> str:
        """What courier papers call it: the manifest digest, for VEX the archive's."""
        return self.layer_digest if self.kind == "vex" else self.manifest_digest


@dataclass(frozen=True)
class Crossing:
    """For whom a bundle is made. `site` is the site's code, `receipt_secret` hex of 128 or more random bits.

    It stands in bundle.json, so whoever has the bundle has the secret: it tells one crossing from another, not more.
    """

    site: str
    site_label: str
    transfer: str
    receipt_secret: str
    reference: str = ""
    assumed: tuple[Assumed, ...] = ()
