"""Which members a bundle must have, and in which order: decided by bundle.json, compared with SHA256SUMS."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mirrors.bundle import contents
from mirrors.bundle.parsed import ParsedBlob, ParsedBundle
from mirrors.bundle.parsing import FILES, JSON_LIMIT, REPACKED_LIMIT, SIGNED_LIMIT
from mirrors.registry.manifests import MANIFEST_LIMIT
from mirrors.trivy.catalogue import MIB

BUNDLE, SUMS, SIGNATURE = "bundle.json", "SHA256SUMS", "SHA256SUMS.sig"
SCRIPTS = ("install.sh", "push.sh")
LAYOUT, INDEX = "oci-layout", "index.json"
DOCUMENTS = {
    BUNDLE: JSON_LIMIT, SUMS: 16 * MIB, SIGNATURE: SIGNED_LIMIT, "README.txt": 4 * MIB, "install.sh": MIB,
    "push.sh": MIB, LAYOUT: 4096, INDEX: JSON_LIMIT,
}  # fmt: skip
BLOB = re.compile(r"blobs/sha256/[0-9a-f]{64}", re.ASCII)


# Which of an image's blobs come first where the members stand in no folders; its own manifest comes before all.
FLAT_ORDER = {contents.MANIFEST: 0, contents.INDEX: 0, contents.CONFIG: 1, contents.LAYER: 2}


def mode_of(name: str) -> int:
    return 0o755 if name in SCRIPTS else 0o644


@dataclass(frozen=True)
class Membership:
    """By file: the blobs that bundle.json says lie there, and what is only there for scripts.

    `inlined` are the configs that stand inside their manifests and are carried although no snapshot names them.
    """

    blobs: dict[str, ParsedBlob]
    repacked: frozenset[str]
    inlined: frozenset[str]

    def limit(self, name: str) -> int:
        """The most bytes the member may have."""
        if name in self.blobs:
            return self.blobs[name].size
        return DOCUMENTS.get(name) or (REPACKED_LIMIT if name in self.repacked else MANIFEST_LIMIT)


def membership(bundle: ParsedBundle, sums: Sequence[tuple[str, str]]) -> tuple[Membership, list[str]]:
    """What every listed file is, and a problem for each that is missing, too much or out of order."""
    problems: list[str] = []
    blobs: dict[str, ParsedBlob] = {}
    for blob in (blob for snapshot in bundle.snapshots for blob in snapshot.blobs):
        first = blobs.setdefault(blob.file, blob)
        if (first.digest, first.size) != (blob.digest, blob.size):
            problems.append(f"bundle.json says that two different things lie at {blob.file}.")
    head = [BUNDLE, "README.txt", *(SCRIPTS if bundle.scripts else ())]
    small, layers, others, repacked = _flat_places(bundle) if bundle.profile == FILES else _places(bundle)
    head += [] if bundle.profile == FILES else [LAYOUT, INDEX]
    named = {*head, *small, *layers, *others}
    listed = dict(sums)
    inlined = [name for name in listed if name not in named and BLOB.fullmatch(name) and not bundle.profile]
    strange = [name for name in listed if name not in named and name not in inlined]
    problems += [f"SHA256SUMS lists {name}, which bundle.json does not name." for name in strange]
    for name in [*head, *small, *layers, *others]:
        if name not in listed:
            problems.append(f"bundle.json names {name}, which SHA256SUMS does not list.")
        elif name in blobs and blobs[name].digest != listed[name]:
            problems.append(f"bundle.json and SHA256SUMS give {name} different digests.")
    for name in inlined:
        if listed[name] != f"sha256:{name.rpartition('/')[2]}":
            problems.append(f"SHA256SUMS gives {name} another digest than its name.")
    if not problems and list(listed) != [*head, *small, *inlined, *layers, *others]:
        problems.append("SHA256SUMS lists the members in another order than the format has.")
    return Membership(blobs, frozenset(repacked), frozenset(inlined)), problems


def _places(bundle: ParsedBundle) -> tuple[list[str], list[str], list[str], set[str]]:
    """Files in the order of the format: what is small, layers, VEX and then release files; and the repacked ones."""
    small: dict[str, None] = {}
    layers: dict[str, None] = {}
    vex: list[str] = []
    release: dict[str, None] = {}
    repacked: set[str] = set()
    for snapshot in bundle.snapshots:
        twins = iter(snapshot.repacked)
        for blob in snapshot.blobs:
            if blob.file.startswith("blobs/"):
                (layers if blob.role == contents.LAYER else small)[blob.file] = None
            elif blob.file.startswith("vex/"):
                vex.append(blob.file)
                if blob.details.get("format", "tar.gz") != "tar.gz":
                    vex.append(next(twins))
                    repacked.add(vex[-1])
            else:
                release[blob.file] = None
    return list(small), [file for file in layers if file not in small], [*vex, *release], repacked


def _flat_places(bundle: ParsedBundle) -> tuple[list[str], list[str], list[str], set[str]]:
    """The same without folders: snapshot by snapshot, nothing apart (`others`)."""
    files: dict[str, None] = {}
    repacked: set[str] = set()
    for snapshot in bundle.snapshots:
        twins = iter(snapshot.repacked)
        in_order = sorted(
            snapshot.blobs,
            key=lambda blob: -1 if blob.digest == snapshot.manifest_digest else FLAT_ORDER.get(blob.role, 0),
        )
        for blob in in_order if snapshot.is_image else snapshot.blobs:
            files[blob.file] = None
            if blob.details.get("format", "tar.gz") != "tar.gz":
                repacked.add(twin := next(twins))
                files[twin] = None
    return [], [], list(files), repacked
