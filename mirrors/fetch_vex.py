"""Bringing a VEX repository up to date: its manifest, and every archive the manifest's locations name.

The manifest is kept as it came; whoever serves it fills in its own URLs. An archive is asked for with the ETag of the
last time, opened, and its index.json read before it counts.
"""

import json
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from mirrors import connections, pack_vex, wording
from mirrors.digests import digest_of, short
from mirrors.fetch_oci import SOURCE_FAULTS
from mirrors.git import GitAddress, GitError
from mirrors.job import Fetched, Job, KeptBlob, Outcome, Refused
from mirrors.models import SnapshotBlob, Source
from mirrors.registry.exchange import is_inner
from mirrors.registry.http import fetch_url, read_url
from mirrors.registry.transport import Connection
from mirrors.trivy.archives import ArchiveError
from mirrors.trivy.entries import Format
from mirrors.trivy.vex import (
    MANIFEST_LIMIT,
    SPEC_VERSION,
    ArchiveFacts,
    Location,
    VexError,
    VexRepository,
    VexSource,
    VexVersion,
    check_checksum,
    parse_repository,
    parse_source,
    read_archive,
    served_name,
)

Role = SnapshotBlob.Role
DOCUMENTS_NAMED = 20

FAULTS = (*SOURCE_FAULTS, VexError, ArchiveError, GitError)


def sync_vex(job: Job) -> Outcome:
    """Ask sources in order; the first that gives a whole repository decides.

    Raises SyncFailed when none does, StoreError and NoRoomError for trouble of our own.
    """
    current = job.mirror.current
    intact = current is not None and job.is_intact(current)
    for source in job.sources_to_ask():
        asking = _Asking(job, source)
        try:
            fetched = asking.ask()
            job.refuse_future(source, fetched.updated_at)
        except FAULTS as error:
            asking.remember()
            job.failed(source, error, asking.listener)
            continue
        asking.remember()
        source.manifest_digest, source.layer_digest = fetched.manifest_digest, fetched.layer_digest
        source.updated_at, source.lagging = fetched.updated_at, False
        job.answered(source, asking.listener)
        if intact and current is not None and fetched.identity == current.identity:
            return Outcome(confirmed=True)
        if job.mirror.is_held and current is not None and fetched.identity != current.identity:
            return Outcome(note=f"{source.host} offers other content, but this mirror is held: nothing was switched.")
        return Outcome(fetched=fetched)
    raise job.give_up()


@dataclass(frozen=True)
class _Archive:
    """In the store. `top` is the folder of the index where the archive was made here, else ""."""

    digest: str
    size: int
    top: str = ""


@dataclass(frozen=True)
class _Mirrored:
    """A location whose archive is in the store and was read to its end."""

    version: VexVersion
    location: Location
    archive: _Archive
    facts: ArchiveFacts
    format: Format


class _Asking:
    """One source being asked, with what it remembers of its archives: URL to ETag and digest."""

    def __init__(self, job: Job, source: Source) -> None:
        self.job, self.source = job, source
        self.listener = job.listener(source)
        self.known: dict[str, dict[str, str]] = dict(source.memory.get("archives", {}))
        self.fetched: dict[str, _Archive] = {}
        self.problems: list[str] = []

    def remember(self) -> None:
        kept = {url: facts for url, facts in self.known.items() if url in self.fetched}
        self.source.memory = {**self.source.memory, "archives": kept or self.known}

    def ask(self) -> Fetched:
        form = parse_source(self.source.reference)
        self.job.story.stage = f"asking {self.source.host}"
        if form.form == "base":
            raw = self._document(form.manifest_url)
            return self._assemble(raw, self._mirrored(parse_repository(raw)))
        if form.form in ("git", "directory"):
            return self._packed_here(form)
        place, archive, raw = self._from_archive(form)
        repository = parse_repository(raw)
        if form.form == "archive":
            return self._assemble(raw, self._as_given(place, repository, archive))
        return self._assemble(raw, self._mirrored(repository))

    # The manifest

    def _document(self, url: str) -> bytes:
        raw, _ = read_url(
            url,
            self._connection(url),
            stop=self.job.stop,
            listener=self.listener,
            timeouts=self.job.timeouts,
            limit=MANIFEST_LIMIT,
        )
        return raw

    def _from_archive(self, form: VexSource) -> tuple[Location, _Archive, bytes]:
        """The archive a GitHub repository or archive source is, and the manifest inside it."""

        def fetch(place: Location) -> tuple[Location, _Archive]:
            return place, self._archive(place)

        place, archive = connections.first_found(form.candidates, fetch, self.source.reference)
        facts = self._open(archive, place.format, place.subdir)
        if facts.repository_manifest is None:
            raise Refused(
                f"The archive {place.fetch_url} has no vex-repository.json beside its index.json; "
                "it is not a VEX repository."
            )
        return place, archive, facts.repository_manifest

    def _packed_here(self, form: VexSource) -> Fetched:
        """A git repository or directory is its own first location of version 0.1, whatever its manifest names."""
        if form.git is not None:
            archive = self._from_git(form.git, as_source=True)
        else:
            made = pack_vex.packed_directory(self.job, form.url, form.subdir)
            archive = _Archive(made.digest, made.size, made.top)
        place = Location(self.source.reference, form.url, archive.top, "tar.gz")
        facts = self._open(archive, place.format, place.subdir)
        if facts.repository_manifest is None:
            raise Refused(f"There is no vex-repository.json in {self.source.reference}; it is not a VEX repository.")
        raw = facts.repository_manifest
        return self._assemble(raw, self._as_given(place, parse_repository(raw), archive))

    # The archives

    def _from_git(self, address: GitAddress, *, as_source: bool = False) -> _Archive:
        key = f"git+{address.url}@{address.ref}//{address.subdir}"
        if key not in self.fetched:
            known = self.known.get(key, {})
            asked = pack_vex.GitSource(self.job, address, self._connection(address.url), self.listener, known)
            made = asked.packed(as_source=as_source)
            self.known[key] = asked.known
            self.fetched[key] = _Archive(made.digest, made.size, made.top)
        return self.fetched[key]

    def _archive(self, place: Location) -> _Archive:
        """The bytes of a location, in the store; not fetched when the server says they are unchanged."""
        url, job = place.fetch_url, self.job
        if place.git is None and url in self.fetched:
            return self.fetched[url]
        self._refuse_inner(url)
        if place.git is not None:
            return self._from_git(place.git)
        known = self.known.get(url, {})
        digest = str(known.get("digest", ""))
        etag = str(known.get("etag", "")) if digest and job.store.is_pristine(digest) else ""
        before = job.story.bytes_downloaded
        job.story.stage = f"downloading from {urlsplit(url).hostname}"
        with job.store.incoming(job.kind.layer_limit) as incoming:
            answer = fetch_url(
                url,
                self._connection(url),
                incoming,
                stop=job.stop,
                listener=self.listener,
                timeouts=job.timeouts,
                limit=job.kind.layer_limit,
                etag=etag,
            )
            if answer.status == 304:
                archive = _Archive(digest, job.store.size(digest))
            else:
                job.require_room(incoming.offset)
                archive = _Archive(*incoming.commit())
        if remark := check_checksum(place, archive.digest):
            job.story.warn(remark, source=self.source.reference)
        self.known[url] = {"etag": answer.etag or "", "digest": archive.digest}
        self.fetched[url] = archive
        if received := job.story.bytes_downloaded - before:
            job.story.tell(f"Received {wording.size_text(received)}: archive {short(archive.digest)}.")
        return archive

    def _refuse_inner(self, url: str) -> None:
        """What a stranger's manifest names is no way into our own network, as a redirect is none (exchange.py)."""
        host, home = (urlsplit(address).hostname or "" for address in (url, self.source.reference.removeprefix("git+")))
        if is_inner(host) and not is_inner(home) and not self.source.insecure:
            raise Refused(
                f"{self.source.host} names an archive at the private address {host}. That is refused; allow it for "
                "this source with --insecure if it must be."
            )

    def _open(self, archive: _Archive, format: Format, subdir: str) -> ArchiveFacts:
        with self.job.store.open(archive.digest) as file:
            return read_archive(file, format, subdir)

    def _as_given(self, place: Location, repository: VexRepository, archive: _Archive) -> list[_Mirrored]:
        """An archive source is its own first location of version 0.1, whatever host its manifest names."""
        version = repository.version(SPEC_VERSION)
        if version is None or not version.locations:
            raise Refused(
                f"The manifest inside {self.source.reference} has no location of version {SPEC_VERSION}, "
                "the one Trivy reads."
            )
        facts = self._open(archive, place.format, place.subdir)
        return [_Mirrored(version, version.locations[0], archive, facts, place.format)]

    def _mirrored(self, repository: VexRepository) -> list[_Mirrored]:
        """Every location that could be fetched and opened; a bad one is told and left out."""
        mirrored: list[_Mirrored] = []
        for version in repository.versions:
            before = len(mirrored)
            for location in version.locations:
                try:
                    if not location.supported:
                        raise Refused(f"{location.original} is not mirrored: {location.reason}.")
                    archive = self._archive(location)
                    facts = self._open(archive, location.format, archive.top or location.subdir)
                except FAULTS as error:
                    self.problems.append(str(error))
                    self.job.story.warn(str(error), source=self.source.reference)
                    continue
                mirrored.append(_Mirrored(version, location, archive, facts, location.format))
            if len(mirrored) == before and version.spec_version == SPEC_VERSION:
                reasons = " ".join(self.problems) or "it names none."
                raise Refused(
                    f"No location of version {SPEC_VERSION} of this VEX repository could be mirrored: {reasons}"
                )
        if not mirrored:
            raise Refused("This VEX repository's manifest names no version that could be mirrored.")
        return mirrored

    def _assemble(self, raw: bytes, mirrored: list[_Mirrored]) -> Fetched:
        store = self.job.store
        blobs = [KeptBlob(store.put(raw), len(raw), Role.VEX_MANIFEST, "application/json", "vex-repository.json")]
        for entry in mirrored:
            self._tell_unusable(entry.facts)
            place = entry.version.locations.index(entry.location)
            name = served_name(entry.version.spec_version, place, replace(entry.location, format=entry.format))
            details: dict[str, object] = {
                "location": entry.location.original,
                "subdir": entry.facts.top,
                "format": entry.format,
                "spec_version": entry.version.spec_version,
                "served": name if fnmatchcase(entry.facts.top, entry.location.subdir) else f"{name}//{entry.facts.top}",
            }
            media_type = "application/zip" if entry.format == "zip" else "application/gzip"
            blobs.append(
                KeptBlob(entry.archive.digest, entry.archive.size, Role.VEX_ARCHIVE, media_type, name, details)
            )
        first = next((entry for entry in mirrored if entry.version.spec_version == SPEC_VERSION), mirrored[0])
        listed = [[blob.digest, blob.details.get("location", "")] for blob in blobs]
        return Fetched(
            identity=digest_of(json.dumps(listed).encode()),
            manifest_digest=blobs[0].digest,
            layer_digest=first.archive.digest,
            media_type="application/json",
            source=self.source,
            blobs=tuple(blobs),
            tag=SPEC_VERSION,
            item_count=first.facts.packages,
            updated_at=first.facts.updated_at,
        )

    def _tell_unusable(self, facts: ArchiveFacts) -> None:
        """Documents that Trivy will warn about and pass over, keeping the finding."""
        for documents, what in ((facts.pointers, "only git LFS pointers"), (facts.missing, "named but not there")):
            if documents:
                named = ", ".join(documents[:DOCUMENTS_NAMED])
                more = len(documents) - DOCUMENTS_NAMED
                count = wording.counted(len(documents), "document")
                tail = f" and {more} more" if more > 0 else ""
                self.job.story.warn(
                    f"Of what the archive's index names, {what}: {count} ({named}{tail}). Trivy keeps their findings.",
                    source=self.source.reference,
                )

    def _connection(self, url: str) -> Connection:
        own = connections.connection_for(self.source, self.job.mirror)
        return connections.for_url(own, self.source.reference, url)
