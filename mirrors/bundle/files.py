"""The files profile: the same content as single files with telling names, for gateways that look into what crosses.

Composed like a bundle, but no member stands in a folder, there is no image layout and no script, and the cover sheet
says what is inside of each archive. docs/bundle-format.md has the names and their order.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from mirrors.blobs import BlobStore, StoreError
from mirrors.bundle import contents, documents
from mirrors.bundle.compose import SIGNATURE, SUMS, Maker, check_present, image_members
from mirrors.bundle.composition import FORMAT, Member, Recipe
from mirrors.bundle.contents import BundledBlob, BundledSnapshot, BundleError, Crossing, Signer
from mirrors.bundle.documents import Entry
from mirrors.bundle.filesheet import files_sheet
from mirrors.bundle.listing import Listing, format_of, list_archive
from mirrors.bundle.names import plain
from mirrors.stopping import StopSignal

PROFILE = "files"
RESERVED = ("bundle.json", SUMS, SIGNATURE, "README.txt")
LONGEST = 100


def files_folder_name(bundle_id: str, created_at: datetime) -> str:
    """What the file is called, without `.tar`; no member names it."""
    return f"airgap-files-{created_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{plain(bundle_id)[:8]}"


def compose_files(
    bundle_id: str,
    created_at: datetime,
    program_version: str,
    snapshots: Sequence[BundledSnapshot],
    store: BlobStore,
    *,
    crossing: Crossing | None = None,
    signer: Signer | None = None,
    progress: Callable[[int], object] = lambda size: None,
    stop: StopSignal | None = None,
) -> Recipe:
    """The recipe of the files profile. Reads every archive to list it, so it takes minutes: for a worker.

    `progress` is told the bytes read. Raises BundleError, StoreError, whatever `signer` raises, and Stopped when
    `stop` is set.
    """
    if not snapshots:
        raise BundleError("A bundle needs at least one database. Sync one first.")
    check_present(snapshots, store)
    maker = Maker(store)
    entries = maker.entries(snapshots)
    lying = {
        member.name: member for member in (*image_members(snapshots, ()), *maker.vex_members, *maker.release_members)
    }
    names = _name_all(entries)
    members = [replace(lying[path], name=name) for path, name in names.items()]
    flat = [_flattened(entry, names) for entry in entries]
    listings = _list_all(members, store, progress, stop or StopSignal())
    rendered: list[str] = []

    def render(name: str, data: bytes) -> Member:
        rendered.append(store.put(data))
        return Member(name, len(data), rendered[-1])

    facts = bundle_id, created_at, program_version
    document = documents.bundle_json(*facts, flat, scripts=False, profile=PROFILE, crossing=crossing)
    first = render("bundle.json", document)
    folder = files_folder_name(bundle_id, created_at)
    key = signer.fingerprint if signer else ""
    sheet = render("README.txt", files_sheet(*facts, folder, flat, members, listings, crossing=crossing, key=key))
    listed = documents.sha256sums([first, sheet, *members])
    sums = [render(SUMS, listed)]
    if signer and signer.sign:
        sums.append(render(SIGNATURE, signer.sign(listed)))
    held = {blob.digest for snapshot in snapshots for blob in snapshot.blobs}
    used = {member.digest for member in members}
    made = (*rendered, *(digest for digest in maker.rendered if digest in used))
    return Recipe(
        FORMAT,
        folder,
        int(created_at.timestamp()),
        (first, *sums, sheet, *members),
        tuple(dict.fromkeys(digest for digest in made if digest not in held)),
        flat=True,
    )


def _flattened(entry: Entry, names: dict[str, str]) -> Entry:
    return replace(
        entry,
        files={key: names[path] for key, path in entry.files.items()},
        archives=tuple(
            replace(archive, file=names[archive.file], tar_gz=names[archive.tar_gz]) for archive in entry.archives
        ),
        folder="",
    )


def _name_all(entries: Sequence[Entry]) -> dict[str, str]:
    """The flat name of each file, by the path it has in a bundle with folders, in the order of the members."""
    taken = _Taken()
    names: dict[str, str] = {}
    for entry in entries:
        snapshot = entry.snapshot
        if snapshot.is_vex:
            repository = plain(snapshot.mirror)
            for blob in snapshot.with_role(contents.VEX_MANIFEST):
                names[entry.file_of(blob)] = taken.take(repository, ".vex-repository.json")
            for archive in entry.archives:
                for path in dict.fromkeys((archive.file, archive.tar_gz)):
                    names[path] = taken.take(repository, "." + path.rpartition("/")[2])
        elif snapshot.is_release:
            for blob in snapshot.with_role(*contents.RELEASE_ROLES):
                path = entry.file_of(blob)
                if path not in names:
                    names[path] = taken.take_own(blob.name, plain(snapshot.mirror))
        else:
            for blob in _in_order(snapshot):
                path = entry.file_of(blob)
                if path not in names:
                    names[path] = taken.take(entry.names.ref_name, _ending(blob))
    return names


def _in_order(snapshot: BundledSnapshot) -> list[BundledBlob]:
    """The snapshot's own manifest, other manifests and indexes, configs, layers."""
    manifests = snapshot.with_role(contents.MANIFEST, contents.INDEX)
    own = [blob for blob in manifests if blob.digest == snapshot.manifest_digest]
    rest = [blob for blob in manifests if blob.digest != snapshot.manifest_digest]
    return [*own, *rest, *snapshot.with_role(contents.CONFIG), *snapshot.with_role(contents.LAYER)]


def _ending(blob: BundledBlob) -> str:
    kind = blob.media_type.lower()
    if blob.role != contents.LAYER:
        return f".{blob.role}.json"
    if kind.endswith(("tar+gzip", "tar.gzip")):
        return ".layer.tar.gz"
    if kind.endswith(("tar+zstd", "tar.zstd")):
        return ".layer.tar.zst"
    endings = {".tar": ".layer.tar", "+gzip": ".layer.gz", "/gzip": ".layer.gz", "json": ".layer.json"}
    return next((ending for last, ending in endings.items() if kind.endswith(last)), ".layer.bin")


class _Taken:
    """Names given so far. They differ in more than case: the other side may be a file system that does not tell."""

    def __init__(self) -> None:
        self._names = {name.lower() for name in RESERVED}

    def take(self, stem: str, ending: str) -> str:
        """`stem` + `ending`, the second one numbered: `nginx-1.25.layer-2.tar.gz`."""
        kind, dot, rest = ending[-60:].lstrip(".").partition(".")
        stem = stem[: LONGEST - len(ending[-60:]) - 8]
        return self._first_free(lambda number: f"{stem}.{kind}{f'-{number}' if number > 1 else ''}{dot}{rest}")

    def take_own(self, name: str, mirror: str) -> str:
        """A release file's own name, else `mirror.name`, else that with a number before it."""
        if name.lower() not in self._names and len(name) <= LONGEST:
            self._names.add(name.lower())
            return name
        own = name[-60:].lstrip(".-") or "file"
        return self._first_free(lambda number: f"{mirror[:30]}{f'-{number}' if number > 1 else ''}.{own}")

    def _first_free(self, made: Callable[[int], str]) -> str:
        number = 1
        while made(number).lower() in self._names:
            number += 1
        self._names.add(made(number).lower())
        return made(number)


def _list_all(
    members: Sequence[Member], store: BlobStore, progress: Callable[[int], object], stop: StopSignal
) -> dict[str, Listing]:
    """What is inside each archive that can be read, by the name of its file."""
    found = {}
    for member in members:
        format = format_of(member.name)
        if format is None:
            continue
        try:
            with store.open(member.digest) as file:
                found[member.name] = list_archive(file, member.name, format, progress=progress, stop=stop)
            if found[member.name].problem and store.verify(member.digest) != "ok":
                raise BundleError(
                    f"{member.name} is damaged in the content store, so it cannot be bundled. "
                    "Run the store check; it fetches the blob again."
                )
        except StoreError as error:
            raise BundleError(f"{member.name} cannot be bundled. {error}") from error
    return found
