"""Whether what lies in a bundle is what bundle.json says of it, and what bundle.json leaves to be read there."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from mirrors.bundle import contents
from mirrors.bundle.documents import INDEX_MEDIA_TYPE, OCI_LAYOUT
from mirrors.bundle.inspecting import Findings
from mirrors.bundle.membership import INDEX, LAYOUT
from mirrors.bundle.parsed import ParsedBlob, ParsedBundle, ParsedSnapshot
from mirrors.bundle.parsing import MOST_CONTAINERS
from mirrors.digests import short
from mirrors.registry.errors import clean
from mirrors.registry.manifests import Descriptor, Manifest, ManifestError, parse_manifest
from mirrors.trivy.catalogue import KINDS, Kind
from mirrors.trivy.release import (
    BUNDLE_ENDING,
    OLD_ENDINGS,
    ReleaseError,
    parse_checksums,
    read_bundle,
)
from mirrors.trivy.rules import RuleError, check_manifest
from mirrors.trivy.vex import VexError, VexVersion, parse_repository, served_name
from mirrors.wording import rfc3339

Tell = Callable[[str], object]
Part = tuple[str, str, int, str]  # role, digest, size, media type


def agree(bundle: ParsedBundle, found: Findings, inlined: frozenset[str], tell: Tell) -> ParsedBundle:
    """The bundle with the details of its blobs filled in; `tell` hears every contradiction."""
    snapshots: list[ParsedSnapshot] = []
    used: set[str] = set()
    for snapshot in bundle.snapshots:
        if not snapshot.known:
            snapshots.append(replace(snapshot, blobs=()))
        elif snapshot.is_vex:
            snapshots.append(_vex(snapshot, found, tell))
        elif snapshot.is_release:
            snapshots.append(_release(snapshot, found, tell))
        else:
            image = _Image(snapshot, found, tell)
            snapshots.append(image.checked())
            used |= image.inlined
    for name in sorted(inlined - {f"blobs/sha256/{digest[7:]}" for digest in used}):
        tell(f"{name} belongs to nothing that bundle.json names.")
    _layout(bundle, found, tell)
    return replace(bundle, snapshots=tuple(snapshots))


class _Image:
    """A snapshot in the image layout: its manifests must name exactly its other blobs."""

    def __init__(self, snapshot: ParsedSnapshot, found: Findings, tell: Tell) -> None:
        self.snapshot = snapshot
        self.kind: Kind = KINDS[snapshot.kind]
        self.found = found
        self.inlined: set[str] = set()
        self._tell = tell
        self._manifests: dict[str, Manifest] = {}
        self._details: dict[str, dict[str, Any]] = {}
        self._missing = False

    def checked(self) -> ParsedSnapshot:
        snapshot = self.snapshot
        if not self._parse() or (root := self._manifests.get(snapshot.manifest_digest)) is None:
            return snapshot
        reached = self._walk(root)
        self._compare_parts()
        if self._missing == snapshot.complete:
            self.tell("bundle.json says wrongly whether all its platforms are carried.")
        for digest in self._manifests.keys() - reached:
            self._details[digest]["subject"] = root.digest
        stated = (snapshot.version, snapshot.artifact_type)
        if stated != (clean(root.version or "", 100), root.artifact_type[:200]):
            self.tell("bundle.json and its manifest differ about version or artifact type.")
        layer = self._one_layer(root) if self.kind.one_layer else None
        blobs = tuple(replace(blob, details=self._details.get(blob.digest, {})) for blob in snapshot.blobs)
        return replace(snapshot, blobs=blobs, content_media_type=layer.media_type if layer else root.media_type)

    def tell(self, what: str) -> None:
        self._tell(f"{self.snapshot.label}: {what}")

    def _parse(self) -> bool:
        for blob in self.snapshot.with_role(contents.MANIFEST, contents.INDEX):
            raw = self.found.documents.get(blob.digest)
            if raw is None:
                return False  # told already
            try:
                manifest = parse_manifest(raw, blob.media_type, blob.digest)
            except ManifestError as error:
                self.tell(f"{blob.file} is no manifest. {error}")
                return False
            if manifest.is_index != (blob.role == contents.INDEX) or manifest.media_type != blob.media_type:
                self.tell(f"{blob.file} is not of the type that bundle.json says.")
            self._manifests[blob.digest] = manifest
            self._details[blob.digest] = {"subject": manifest.subject.digest} if manifest.subject else {}
        return True

    def _walk(self, root: Manifest) -> set[str]:
        """What the root leads to, itself included; a child of an index may be left out, a part of a manifest not."""
        reached, waiting = {root.digest}, [root]
        while waiting:
            for child in waiting.pop().manifests:
                if child.digest not in self._manifests:
                    self._missing = True
                elif child.digest not in reached:
                    reached.add(child.digest)
                    waiting.append(self._manifests[child.digest])
                    self._details[child.digest]["platform"] = child.platform_parts
        if root.is_index:
            chosen = {child.platform_name for child in root.manifests if child.digest in self._manifests}
            self._details[root.digest]["platforms"] = sorted(chosen - {""}) if self._missing else []
        return reached

    def _compare_parts(self) -> None:
        named: set[Part] = set()
        for manifest in self._manifests.values():
            named |= {_part(contents.LAYER, layer) for layer in manifest.layers}
            if manifest.config:
                named.add(_part(contents.CONFIG, manifest.config))
        held = {
            (blob.role, blob.digest, blob.size, blob.media_type)
            for blob in self.snapshot.with_role(contents.CONFIG, contents.LAYER)
        }
        for role, digest, size, _ in sorted(named - held):
            if role == contents.CONFIG and digest not in {part[1] for part in held} and size < 2**22:
                self.inlined.add(digest)
            else:
                self.tell(f"its manifest names the {role} {short(digest)}, which bundle.json describes otherwise.")
        for role, digest, _, _ in sorted(held - named):
            self.tell(f"bundle.json names the {role} {short(digest)}, which no manifest names so.")

    def _one_layer(self, root: Manifest) -> Descriptor | None:
        snapshot = self.snapshot
        try:
            layer = check_manifest(self.kind, root)
        except RuleError as error:
            self.tell(str(error))
            return None
        if layer.digest != snapshot.layer_digest:
            self.tell("bundle.json names another layer than its manifest.")
        elif self.kind.has_metadata and (facts := self.found.layers.get(layer.digest)) is not None:
            for key, said, inside in (
                ("updated_at", snapshot.updated_at, facts.updated_at),
                ("next_update", snapshot.next_update, facts.next_update),
            ):
                if said != inside:
                    self.tell(f"bundle.json says {key} {_when(said)}, but the data itself says {_when(inside)}.")
        elif not self.kind.has_metadata and snapshot.updated_at != root.created:
            self.tell(f"bundle.json says updated_at {_when(snapshot.updated_at)}, but the manifest says otherwise.")
        return layer


def _part(role: str, descriptor: Descriptor) -> Part:
    return role, descriptor.digest, descriptor.size, descriptor.media_type


def _when(moment: Any) -> str:
    return rfc3339(moment) if moment else "nothing"


def _vex(snapshot: ParsedSnapshot, found: Findings, tell: Tell) -> ParsedSnapshot:
    raw = found.documents.get(snapshot.manifest_digest)
    archives = snapshot.with_role(contents.VEX_ARCHIVE)
    if raw is None:
        return snapshot
    try:
        repository = parse_repository(raw)
    except VexError as error:
        tell(f"{snapshot.label}: {error}")
        return snapshot
    if not archives or archives[0].role != contents.VEX_ARCHIVE:
        tell(f"{snapshot.label}: bundle.json names no archive of it.")
        return snapshot
    blobs = []
    for blob in snapshot.blobs:
        if blob.role == contents.VEX_ARCHIVE:
            version = repository.version(str(blob.details["spec_version"]))
            described = _described(blob, version)
            if described is None:
                tell(f"{snapshot.label}: its manifest does not name the location of {blob.file}.")
            opened = found.archives.get(blob.file)
            if opened is not None and opened.top != blob.details["subdir"]:
                tell(f"{snapshot.label}: its index lies in the folder {opened.top[:80]!r}, bundle.json says otherwise.")
            blobs.append(described or blob)
        else:
            blobs.append(replace(blob, name=blob.name or "vex-repository.json"))
    first = next((blob for blob in archives if blob.details["spec_version"] == snapshot.tag), archives[0])
    facts = found.archives.get(first.file)
    if first.digest != snapshot.layer_digest:
        tell(f"{snapshot.label}: bundle.json names another archive as its first.")
    if facts is not None and facts.updated_at != snapshot.updated_at:
        said, inside = _when(snapshot.updated_at), _when(facts.updated_at)
        tell(f"{snapshot.label}: bundle.json says updated_at {said}, but its index says {inside}.")
    items = facts.packages if facts else None
    return replace(snapshot, blobs=tuple(blobs), item_count=items, content_media_type="application/json")


def _described(blob: ParsedBlob, version: VexVersion | None) -> ParsedBlob | None:
    """The archive with the name a sync would have given it: made of its place in the manifest."""
    details = blob.details
    for place, location in enumerate(version.locations if version else ()):
        if location.original == details["location"]:
            name = served_name(str(details["spec_version"]), place, replace(location, format=details["format"]))
            top = str(details["subdir"])
            served = name if fnmatchcase(top, location.subdir) else f"{name}//{top}"
            return replace(blob, name=name, details={**details, "served": served})
    return None


def _release(snapshot: ParsedSnapshot, found: Findings, tell: Tell) -> ParsedSnapshot:
    raw = found.documents.get(snapshot.manifest_digest)
    if raw is None:
        return snapshot
    files = {blob.name: blob.digest for blob in snapshot.with_role(contents.FILE)}
    try:
        sums = parse_checksums(raw, f"The checksum file of {snapshot.label}")
    except ReleaseError as error:
        tell(str(error))
        return snapshot
    for name, digest in files.items():
        if sums.get(name) != digest:
            tell(f"{snapshot.label}: {name} is not what the release's own checksum file says.")
    return replace(
        snapshot,
        blobs=tuple(_signature(blob, snapshot, files, found, tell) for blob in snapshot.blobs),
        content_media_type=snapshot.media_type,
        item_count=len(files),
    )


def _signature(
    blob: ParsedBlob, snapshot: ParsedSnapshot, files: dict[str, str], found: Findings, tell: Tell
) -> ParsedBlob:
    if blob.role != contents.SIGNATURE:
        return blob
    ending = next((each for each in (BUNDLE_ENDING, *OLD_ENDINGS) if blob.name.endswith(each)), "")
    of = blob.name.removesuffix(ending)
    details: dict[str, Any] = {"file": of}
    digest = files.get(of, snapshot.manifest_digest)
    if ending == BUNDLE_ENDING and blob.digest in found.documents:
        try:
            stated = read_bundle(found.documents[blob.digest])
        except ReleaseError:
            return replace(blob, details=details)
        if stated.digest != digest:
            tell(f"{snapshot.label}: {blob.name} signs other bytes than {of} has.")
        details |= {"identity": stated.identity, "issuer": stated.issuer}
    return replace(blob, details=details)


def _layout(bundle: ParsedBundle, found: Findings, tell: Tell) -> None:
    """oci-layout and index.json, which other programs read, say the same as bundle.json."""
    if LAYOUT in found.documents and found.documents[LAYOUT] != OCI_LAYOUT:
        tell("oci-layout is not as Airgap writes it.")
    raw = found.documents.get(INDEX)
    if raw is None:
        return
    rest = _entries(raw)[len(tagged := list(_tagged(bundle))) :]
    carried = {
        (blob.media_type, blob.digest, blob.size)
        for snapshot in bundle.snapshots
        for blob in snapshot.with_role(contents.MANIFEST, contents.INDEX)
    }
    referrers = [
        {"mediaType": media_type, "digest": digest, "size": size}
        for media_type, digest, size in (
            (str(entry.get("mediaType")), str(entry.get("digest")), entry.get("size"))
            for entry in rest
            if isinstance(entry, dict) and isinstance(entry.get("size"), int)
        )
        if (media_type, digest, size) in carried
    ]
    expected = {"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": [*tagged, *referrers]}
    if json.dumps(expected, indent=2).encode() + b"\n" != raw:
        tell("index.json is not what follows from bundle.json.")


def _entries(raw: bytes) -> list[Any]:
    if raw.count(b"{") + raw.count(b"[") > MOST_CONTAINERS:
        return []
    try:
        index = json.loads(raw)
    except (ValueError, RecursionError):
        return []
    entries = index.get("manifests") if isinstance(index, dict) else None
    return entries if isinstance(entries, list) else []


def _tagged(bundle: ParsedBundle) -> Iterator[dict[str, Any]]:
    for snapshot in bundle.snapshots:
        if snapshot.is_image:
            descriptor: dict[str, Any] = {
                "mediaType": snapshot.media_type,
                "digest": snapshot.manifest_digest,
                "size": snapshot.manifest_size,
            }
            if snapshot.artifact_type:
                descriptor["artifactType"] = snapshot.artifact_type
            yield {**descriptor, "annotations": {"org.opencontainers.image.ref.name": snapshot.ref_name}}
