"""Decides what a bundle is made of: every member, in the order of the format, with its size and digest.

Whatever is not a blob already is rendered here once and put into the store, so that the bundle's bytes are settled
the moment it is created. Sending them is composition.py's business.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from mirrors.blobs import BlobStore, StoreError
from mirrors.bundle import contents, documents
from mirrors.bundle.composition import FORMAT, Member, Recipe
from mirrors.bundle.contents import BundledBlob, BundledSnapshot, BundleError, Crossing, Signer
from mirrors.bundle.coversheet import cover_sheet
from mirrors.bundle.documents import Archive, Entry, Push
from mirrors.bundle.names import Names, name_all, plain, unique
from mirrors.digests import digest_of
from mirrors.registry.errors import clean
from mirrors.trivy.archives import ArchiveError
from mirrors.trivy.catalogue import GIB
from mirrors.trivy.vex import VexError, repack_as_tar_gz

SCRIPTS = Path(__file__).parent / "scripts"
REPACKED_LIMIT = 8 * GIB
MANIFEST_ROLES = (contents.MANIFEST, contents.INDEX)
SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"
VERSION_ANNOTATION = "org.opencontainers.image.version"


def folder_name(bundle_id: str, created_at: datetime) -> str:
    """The top folder; the file is called the same with `.tar`."""
    return f"airgap-{created_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{plain(bundle_id)[:8]}"


def compose(
    bundle_id: str,
    created_at: datetime,
    program_version: str,
    snapshots: Sequence[BundledSnapshot],
    store: BlobStore,
    *,
    scripts: bool = True,
    crossing: Crossing | None = None,
    signer: Signer | None = None,
) -> Recipe:
    """The recipe of a bundle of `snapshots`, one of each mirror; renders its documents into `store`.

    `scripts` false leaves out install.sh and push.sh (data only). `crossing` says for which site it is. A signature
    that is brought afterwards is put in by `with_signature`. Raises BundleError when a blob is missing or has another
    size than its snapshot says, StoreError when the store cannot take the documents, and whatever `signer` raises.
    """
    if not snapshots:
        raise BundleError("A bundle needs at least one database. Sync one first.")
    check_present(snapshots, store)
    maker = Maker(store)
    entries = maker.entries(snapshots)
    folder = folder_name(bundle_id, created_at)

    def render(name: str, data: bytes, mode: int = 0o644) -> Member:
        maker.rendered.append(store.put(data))
        return Member(name, len(data), maker.rendered[-1], mode)

    about = (bundle_id, created_at, program_version)
    first = render("bundle.json", documents.bundle_json(*about, entries, scripts=scripts, crossing=crossing))
    key = signer.fingerprint if signer else ""
    rest = [render("README.txt", cover_sheet(*about, folder, entries, scripts=scripts, crossing=crossing, key=key))]
    if scripts:
        rest += [render(name, (SCRIPTS / name).read_bytes(), 0o755) for name in ("install.sh", "push.sh")]
    rest += [
        render("oci-layout", documents.OCI_LAYOUT),
        render("index.json", documents.index_json(entries, maker.referrers)),
        *image_members(snapshots, maker.extra),
        *maker.vex_members,
        *maker.release_members,
    ]
    listed = documents.sha256sums([first, *rest])
    sums = [render(SUMS, listed)]
    if signer and signer.sign:
        sums.append(render(SIGNATURE, signer.sign(listed)))
    held = {blob.digest for snapshot in snapshots for blob in snapshot.blobs}
    rendered = tuple(dict.fromkeys(digest for digest in maker.rendered if digest not in held))
    return Recipe(FORMAT, folder, int(created_at.timestamp()), (first, *sums, *rest), rendered)


def with_signature(recipe: Recipe, signature: bytes, store: BlobStore) -> Recipe:
    """The recipe with this signature in its place. Raises BundleError where there is one already, StoreError."""
    names = [member.name for member in recipe.members]
    if SIGNATURE in names:
        raise BundleError("This bundle is signed already.")
    digest, at = store.put(signature), names.index(SUMS) + 1
    member = Member(SIGNATURE, len(signature), digest)
    members = (*recipe.members[:at], member, *recipe.members[at:])
    return replace(recipe, members=members, rendered=tuple(dict.fromkeys((*recipe.rendered, digest))))


class Maker:
    """Gathers, snapshot by snapshot, what bundle.json says about each and the members outside of the image layout."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self.rendered: list[str] = []
        self.extra: list[BundledBlob] = []
        self.referrers: list[Push] = []
        self.vex_members: list[Member] = []
        self.release_members: list[Member] = []
        self._vex_folders: set[str] = set()
        self._release_folders: set[str] = set()

    def entries(self, snapshots: Sequence[BundledSnapshot]) -> list[Entry]:
        versions = [_version(self._parsed(snapshot)) for snapshot in snapshots]
        names = name_all(snapshots, versions)
        return [
            self._entry(snapshot, name, version)
            for snapshot, name, version in zip(snapshots, names, versions, strict=True)
        ]

    def _entry(self, snapshot: BundledSnapshot, names: Names, version: str) -> Entry:
        if snapshot.is_vex:
            return self._vex(snapshot, names)
        return self._release(snapshot, names) if snapshot.is_release else self._oci(snapshot, names, version)

    def _parsed(self, snapshot: BundledSnapshot) -> dict[str, Any]:
        return self._manifest(snapshot.manifest_digest) if snapshot.is_image else {}

    def _manifest(self, digest: str) -> dict[str, Any]:
        try:
            parsed = json.loads(self.store.read(digest))
        except (ValueError, RecursionError, StoreError) as error:
            raise BundleError(f"The manifest {digest} cannot be read: {error}") from error
        return parsed if isinstance(parsed, dict) else {}

    def _oci(self, snapshot: BundledSnapshot, names: Names, version: str) -> Entry:
        tree = _Tree(self._manifest, {blob.digest: blob for blob in snapshot.blobs})
        tree.walk(snapshot.manifest_digest)
        for blob, data in tree.inlined:
            self.rendered.append(self.store.put(data))
            self.extra.append(blob)
        repository = names.push_as.rpartition(":")[0]
        pushes = [Push(snapshot.manifest_digest, snapshot.manifest_size, snapshot.manifest_media_type, names.push_as)]
        if tree.missing:
            taken: list[str] = []
            for child, platform in tree.children:
                taken.append(unique(f"{names.push_as}-{platform}", taken))
                pushes.append(Push(child.digest, child.size, child.media_type, taken[-1]))
            del pushes[0]
        referrers = [
            Push(blob.digest, blob.size, blob.media_type, f"{repository}@{blob.digest}")
            for blob in snapshot.with_role(*MANIFEST_ROLES)
            if blob.digest not in tree.reached
        ]
        self.referrers += [push for push in referrers if push not in self.referrers]
        files = {blob.digest: blob_path(blob.digest) for blob in snapshot.blobs}
        return Entry(snapshot, names, version, files, (*pushes, *referrers), complete=not tree.missing)

    def _release(self, snapshot: BundledSnapshot, names: Names) -> Entry:
        """As it is served: a folder for the mirror and one for the version, files under their own names."""
        mirror = unique(plain(snapshot.mirror), self._release_folders)
        self._release_folders.add(mirror)
        folder = f"files/{mirror}/{plain(snapshot.version)}"
        files: dict[str, str] = {}
        for blob in snapshot.with_role(*contents.RELEASE_ROLES):
            if blob.name in files:
                continue
            if plain(blob.name) != blob.name:
                raise BundleError(
                    f"{snapshot.label} holds a file called {blob.name[:80]!r}, which no bundle can carry."
                )
            files[blob.name] = f"{folder}/{blob.name}"
            self.release_members.append(Member(files[blob.name], blob.size, blob.digest))
        return Entry(snapshot, names, snapshot.version, files, folder=folder)

    def _vex(self, snapshot: BundledSnapshot, names: Names) -> Entry:
        folder = f"vex/{unique(plain(snapshot.mirror), self._vex_folders)}"
        self._vex_folders.add(folder.rpartition("/")[2])
        taken = {"vex-repository.json"}
        files: dict[str, str] = {}
        archives: list[Archive] = []
        for blob in snapshot.with_role(contents.VEX_MANIFEST):
            files[blob.digest] = f"{folder}/vex-repository.json"
            self.vex_members.append(Member(files[blob.digest], blob.size, blob.digest))
        for blob in snapshot.with_role(contents.VEX_ARCHIVE):
            name = unique(plain(str(blob.details.get("served") or blob.name or "archive.tar.gz")), taken)
            taken.add(name)
            file = tar_gz = f"{folder}/{name}"
            self.vex_members.append(Member(file, blob.size, blob.digest))
            if str(blob.details.get("format") or "tar.gz") != "tar.gz":
                stem = re.sub(r"\.(zip|t[a-z0-9]*|tar\.[a-z0-9]+)$", "", name)
                again = unique(f"{stem}.tar.gz", taken)
                taken.add(again)
                tar_gz = f"{folder}/{again}"
                self.vex_members.append(self._repacked(blob, tar_gz))
            files.setdefault(blob.digest, file)
            archives.append(Archive(blob, file, tar_gz, name))
        return Entry(snapshot, names, "", files, archives=tuple(archives))

    def _repacked(self, blob: BundledBlob, name: str) -> Member:
        with self.store.open(blob.digest) as file, self.store.incoming(REPACKED_LIMIT) as incoming:
            for chunk in _repacked(file, str(blob.details["format"])):
                incoming.write(chunk)
            digest, size = incoming.commit()
        self.rendered.append(digest)
        return Member(name, size, digest)


@dataclass(frozen=True)
class _Child:
    digest: str
    size: int
    media_type: str


class _Tree:
    """Which of a snapshot's manifests belong to its root, and which the root's indexes name but it does not carry."""

    def __init__(self, read: Callable[[str], dict[str, Any]], carried: dict[str, BundledBlob]) -> None:
        self._read = read
        self._carried = carried
        self.reached: set[str] = set()
        self.missing: set[str] = set()
        self.children: list[tuple[_Child, str]] = []
        self.inlined: list[tuple[BundledBlob, bytes]] = []

    def walk(self, digest: str) -> None:
        if digest in self.reached:
            return
        self.reached.add(digest)
        manifest = self._read(digest)
        self._take_config(manifest.get("config"))
        for child in _dicts(manifest.get("manifests")):
            wanted = str(child.get("digest", ""))
            if wanted not in self._carried:
                self.missing.add(wanted)
                continue
            blob = self._carried[wanted]
            if platform := _platform(child):
                self.children.append((_Child(wanted, blob.size, blob.media_type), platform))
            self.walk(wanted)

    def _take_config(self, config: Any) -> None:
        """A config that stands inside its manifest (`data`, OCI 1.1) need not have been fetched; copy tools want it."""
        if not isinstance(config, dict) or config.get("digest") in self._carried:
            return
        try:
            data = base64.b64decode(str(config.get("data", "")), validate=True)
        except ValueError:
            return
        digest = digest_of(data)
        if digest == config.get("digest"):
            self.inlined.append((BundledBlob(digest, len(data), str(config.get("mediaType")), contents.CONFIG), data))


def blob_path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def image_members(snapshots: Sequence[BundledSnapshot], extra: Sequence[BundledBlob]) -> Iterator[Member]:
    """Manifests and configs of all snapshots, then all layers; what several share comes once."""
    carried = [blob for snapshot in snapshots if snapshot.is_image for blob in snapshot.blobs]
    small = [blob for blob in [*carried, *extra] if blob.role != contents.LAYER]
    seen: set[str] = set()
    for blob in [*small, *carried]:
        if blob.digest not in seen:
            seen.add(blob.digest)
            yield Member(blob_path(blob.digest), blob.size, blob.digest)


def check_present(snapshots: Sequence[BundledSnapshot], store: BlobStore) -> None:
    for snapshot in snapshots:
        for blob in snapshot.blobs:
            try:
                size = store.size(blob.digest)
            except StoreError as error:
                raise BundleError(f"{snapshot.label} cannot be bundled. {error}") from error
            if size != blob.size:
                raise BundleError(
                    f"{snapshot.label} cannot be bundled: blob {blob.digest} has {size} bytes instead of {blob.size}. "
                    "Run the store check; it fetches the blob again."
                )


def _version(manifest: dict[str, Any]) -> str:
    annotations = manifest.get("annotations")
    return clean(str(annotations.get(VERSION_ANNOTATION, "")), 100) if isinstance(annotations, dict) else ""


def _platform(descriptor: dict[str, Any]) -> str:
    """`linux-arm-v7`; empty for attestations, which call themselves unknown."""
    platform = descriptor.get("platform")
    if not isinstance(platform, dict) or platform.get("os") in (None, "", "unknown"):
        return ""
    parts = (platform.get("os"), platform.get("architecture"), platform.get("variant"))
    return plain("-".join(str(part) for part in parts if part))


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _repacked(file: BinaryIO, format: str) -> Iterator[bytes]:
    """A VEX archive as tar.gz, in pieces."""
    if format not in ("tar.gz", "zip"):
        raise BundleError(f"A VEX archive of the format {format[:20]!r} cannot be bundled, only tar.gz and zip.")
    try:
        yield from repack_as_tar_gz(file, "zip" if format == "zip" else "tar.gz")
    except (ArchiveError, VexError) as error:
        raise BundleError(f"A VEX archive cannot be packed again as tar.gz. {error}") from error
