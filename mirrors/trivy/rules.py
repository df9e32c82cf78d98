"""What Trivy demands of its own artifacts, asked before a byte of a layer is fetched, and of a checks bundle after.

The demands are Trivy's pkg/oci/artifact.go; a manifest that passes here is one that every Trivy takes.
"""

from typing import BinaryIO

from mirrors.registry.manifests import Descriptor, Manifest
from mirrors.trivy.archives import ArchiveError
from mirrors.trivy.catalogue import KINDS, MIB, Kind
from mirrors.trivy.entries import Walk

# go-getter decides by the title's ending whether Trivy unpacks the layer; anything else is copied as it is.
UNPACKED_ENDINGS = (".tar.gz", ".tgz")


class RuleError(Exception):
    """An artifact is whole, but Trivy would not use it. `code`: index, layers, media-type, title, size or contents."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check_manifest(kind: Kind, manifest: Manifest) -> Descriptor:
    """The one layer of a Trivy artifact. RuleError says which of Trivy's demands is not met."""
    if not kind.one_layer:
        raise ValueError(f"A {kind.label} has no rules of Trivy's to meet.")
    if manifest.is_index:
        raise RuleError(
            "index", f"The manifest is an index; Trivy takes a {kind.label} only as a single image manifest."
        )
    if len(manifest.layers) != 1:
        raise RuleError("layers", f"The manifest has {len(manifest.layers)} layers; Trivy takes exactly one.")
    layer = manifest.layers[0]
    if layer.media_type != kind.layer_media_type:
        raise RuleError(
            "media-type",
            f"The layer has the media type {layer.media_type[:120]!r}; a {kind.label} has {kind.layer_media_type!r}. "
            "Check that the source is of this kind.",
        )
    _check_title(kind, layer.title)
    if not 0 < layer.size <= kind.layer_limit:
        raise RuleError(
            "size", f"The layer is {layer.size} bytes; a {kind.label} may have up to {kind.layer_limit // MIB} MiB."
        )
    return layer


def _check_title(kind: Kind, title: str) -> None:
    if not title:
        raise RuleError(
            "title", f"The layer has no title (org.opencontainers.image.title); Trivy wants one such as {kind.title}."
        )
    if "/" in title or "\\" in title or title.startswith(".") or not title.isprintable():
        raise RuleError("title", f"The layer's title {title[:80]!r} is not a plain file name.")
    if not title.endswith(UNPACKED_ENDINGS):
        raise RuleError(
            "title", f"The layer's title {title[:80]!r} does not end in .tar.gz, so Trivy would not unpack it."
        )


def check_checks_bundle(file: BinaryIO) -> int:
    """The number of Rego files in a checks bundle (a tar.gz, read from its beginning).

    RuleError for what is no bundle, also for one without a check: with an empty `policy/content` Trivy evaluates
    nothing at all, not even its embedded checks (pkg/commands/artifact/run.go).
    """
    checks = 0
    try:
        for member, _ in Walk(file, "tar.gz", "The checks bundle", KINDS["trivy-checks"].inflated_limit).entries():
            checks += member.kind == "file" and member.name.startswith("policies/") and member.name.endswith(".rego")
    except ArchiveError as error:
        raise RuleError("contents", str(error)) from error
    if not checks:
        raise RuleError("contents", "The checks bundle holds no check (no policies/….rego); Trivy would check nothing.")
    return checks
