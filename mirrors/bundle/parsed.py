"""What was read from a bundle, as plain values: whoever imports one makes rows of these and looks at no byte again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO, Protocol

from mirrors.bundle import contents
from mirrors.bundle.composition import Member
from mirrors.trivy.layers import LayerFacts


class BundleReadError(Exception):
    """A bundle is not to be taken. `problems`: a sentence each, all that were found; `contents`: what was understood.

    `contents` is None where nothing could be read; it never says that anything is right.
    """

    def __init__(self, problems: "list[str] | tuple[str, ...]", contents: "Contents | None" = None) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
        self.contents = contents


class SignatureRefused(Exception):
    """What `check_signature` raises: the sentence says which signature is not accepted, and why."""


class Sink(Protocol):
    """Takes the bytes of one blob in order. Either `commit` ends it or `discard`."""

    def write(self, chunk: bytes, /) -> object: ...

    def commit(self) -> object:
        """Keep what was written. Raises DigestError unless it has the member's digest: nobody else hashes it."""

    def discard(self) -> None:
        """Forget what was written. Also allowed after `commit`, where it does nothing."""

    def reading(self) -> BinaryIO:
        """What was written, from its beginning, after `commit`; whoever asked closes it."""


OnBlob = Callable[[Member], Sink | None]
# Gets SHA256SUMS and its signature (None without one). What it returns means "accepted" and stands in
# `Contents.signed_by`; it raises SignatureRefused otherwise.
CheckSignature = Callable[[bytes, bytes | None], object]


@dataclass(frozen=True)
class ParsedBlob:
    """One blob of a snapshot, as a sync would have kept it: `name` and `details` are those of its row.

    `file` is where it lies in the bundle.
    """

    role: str
    digest: str
    size: int
    media_type: str
    name: str
    file: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ParsedSnapshot:
    """One mirror's content. Times are aware UTC, None where the bundle does not say; texts are "" then.

    `blobs` are all that a snapshot needs, in the order of the rows, VEX archives among them. `media_type` is the
    manifest's, `content_media_type` the one layer's where there is one. `known` is false for a kind that this version
    does not know: it is verified like the others and otherwise left alone, without blobs. `repacked`: VEX archives that
    lie in the bundle a second time as tar.gz, for scripts only. `item_count`: packages of a VEX repository, files of a
    release.
    """

    mirror: str
    label: str
    kind: str
    reference: str
    tag: str
    version: str
    manifest_digest: str
    manifest_size: int
    media_type: str
    artifact_type: str
    layer_digest: str
    layer_size: int | None
    size: int
    updated_at: datetime | None
    next_update: datetime | None
    published_at: datetime | None
    fetched_at: datetime
    confirmed_at: datetime
    tls_verified: bool
    same_layer_sources: int
    complete: bool
    ref_name: str
    files_path: str
    blobs: tuple[ParsedBlob, ...]
    repacked: tuple[str, ...] = ()
    known: bool = True
    content_media_type: str = ""
    item_count: int | None = None

    def with_role(self, *roles: str) -> tuple[ParsedBlob, ...]:
        return tuple(blob for blob in self.blobs if blob.role in roles)

    @property
    def is_vex(self) -> bool:
        return self.kind == "vex"

    @property
    def is_release(self) -> bool:
        return self.kind == "release"

    @property
    def is_image(self) -> bool:
        """Whether it stands in the image layout."""
        return bool(self.ref_name)

    @property
    def layers(self) -> tuple[ParsedBlob, ...]:
        return self.with_role(contents.LAYER)


@dataclass(frozen=True)
class AssumedSnapshot:
    """What the receiving site is believed to hold already, so that it was left out of this bundle."""

    mirror: str
    label: str
    kind: str
    manifest_digest: str
    layer_digest: str
    updated_at: datetime | None
    confirmed_at: datetime | None


@dataclass(frozen=True)
class ParsedBundle:
    """bundle.json. `profile` is "files" where the members stand in no folder, else "".

    `site`, `transfer` and `receipt_secret` (hex) are "" in a bundle for no certain site.
    """

    format: int
    id: str
    created_at: datetime
    program: str
    scripts: bool
    snapshots: tuple[ParsedSnapshot, ...]
    profile: str = ""
    site: str = ""
    transfer: str = ""
    receipt_secret: str = ""
    assumed: tuple[AssumedSnapshot, ...] = ()


@dataclass(frozen=True)
class Contents:
    """What one reading found out. `bundle` is None where bundle.json could not be read.

    `folder` is the bundle's name without `.tar`; `size` the bytes read; `sums_digest` the SHA-256 of SHA256SUMS, which
    stands for the whole bundle; `signed_by` what `check_signature` returned, None if it refused; `taken` the digests
    that `on_blob` gave a sink for, in order. `notes` are not problems. `layers` is what stands inside the databases, by
    layer digest, those that `facts_of` knew among them.
    """

    bundle: ParsedBundle | None
    folder: str
    members: tuple[Member, ...]
    size: int
    sums_digest: str
    signed_by: Any
    taken: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    layers: Mapping[str, LayerFacts] = field(default_factory=dict)
