"""Bringing a VEX repository up to date: its manifest, and every archive the manifest's locations name.

The manifest is kept as it came; whoever serves it fills in its own URLs. An archive is asked for with the ETag of the
last time, opened, and its index.json read before it counts.
"""

import json
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from mirrors import connections, wording
from mirrors.digests import digest_of, short
from mirrors.fetch_oci import SOURCE_FAULTS
from mirrors.job import Fetched, Job, KeptBlob, Outcome, Refused
from mirrors.models import SnapshotBlob, Source
from mirrors.registry.errors import RegistryError
from mirrors.registry.http import fetch_url
from mirrors.registry.transport import Connection
from mirrors.trivy.archives import ArchiveError
from mirrors.trivy.vex import (
    ArchiveFacts,
    Location,
    VexError,
    VexRepository,
    VexSource,
    VexVersion,
    archive_urls,
    parse_repository,
    parse_source,
    read_archive,
    served_name,
)

Role = SnapshotBlob.Role
MANIFEST_LIMIT = 1024 * 1024
# The only version Trivy reads (pkg/vex/repo: schema version 0.1).
SPEC = "0.1"
POINTERS_NAMED = 20

FAULTS = (*SOURCE_FAULTS, VexError, ArchiveError)


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
        if job.mirror.is_held and intact:
            return Outcome(note=f"{source.host} offers other content, but this mirror is held: nothing was switched.")
        return Outcome(fetched=fetched)
    raise job.give_up()


@dataclass
class _Small:
    """A sink for a document that is kept in memory."""

    data: bytearray = field(default_factory=bytearray)

    @property
    def offset(self) -> int:
        return len(self.data)

    def write(self, chunk: bytes) -> None:
        self.data += chunk

    def restart(self) -> None:
        self.data.clear()


@dataclass(frozen=True)
class _Archive:
    digest: str
    size: int


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
            raw = self._document(f"{form.url.rstrip('/')}/.well-known/vex-repository.json")
            repository = parse_repository(raw)
            given: dict[str, _Archive] = {}
        else:
            url, archive, raw = self._from_archive(form)
            repository = parse_repository(raw)
            given = {url: archive}
            if form.form == "archive":
                return self._assemble(raw, repository, self._as_given(form, repository, archive))
        self.fetched.update(given)
        return self._assemble(raw, repository, self._mirrored(repository))

    # The manifest

    def _document(self, url: str) -> bytes:
        sink = _Small()
        fetch_url(
            url, self._connection(url), sink, stop=self.job.stop, listener=self.listener, limit=MANIFEST_LIMIT
        )
        return bytes(sink.data)

    def _from_archive(self, form: VexSource) -> tuple[str, _Archive, bytes]:
        """The archive a GitHub repository or archive source is, and the manifest inside it."""
        refusal: RegistryError | None = None
        for url in archive_urls(form):
            try:
                archive = self._archive(url)
            except RegistryError as error:
                if error.code != "not-found":
                    raise
                refusal = error
                continue
            facts = self._open(archive, form.format, form.subdir)
            if facts.repository_manifest is None:
                raise Refused(
                    f"The archive {url} has no vex-repository.json beside its index.json; it is not a VEX repository."
                )
            return url, archive, facts.repository_manifest
        raise refusal or Refused(f"{self.source.reference} names no archive.")

    # The archives

    def _archive(self, url: str) -> _Archive:
        """The bytes behind a URL, in the store; not fetched when the server says they are unchanged."""
        if url in self.fetched:
            return self.fetched[url]
        job = self.job
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
                limit=job.kind.layer_limit,
                etag=etag,
            )
            if answer.status == 304:
                archive = _Archive(digest, job.store.size(digest))
            else:
                job.require_room(incoming.offset)
                archive = _Archive(*incoming.commit())
        self.known[url] = {"etag": answer.etag or "", "digest": archive.digest}
        self.fetched[url] = archive
        if received := job.story.bytes_downloaded - before:
            job.story.tell(f"Received {wording.size_text(received)}: archive {short(archive.digest)}.")
        return archive

    def _open(self, archive: _Archive, format: str, subdir: str) -> ArchiveFacts:
        with self.job.store.open(archive.digest) as file:
            return read_archive(file, format, subdir)

    def _as_given(
        self, form: VexSource, repository: VexRepository, archive: _Archive
    ) -> list[tuple[VexVersion, int, Location, _Archive, ArchiveFacts]]:
        """An archive source is its own first location of version 0.1, whatever host its manifest names."""
        for number, version in enumerate(repository.versions):
            if version.spec_version == SPEC and version.locations:
                facts = self._open(archive, form.format, form.subdir)
                return [(version, number, version.locations[0], archive, facts)]
        raise Refused(f"The manifest inside {self.source.reference} has no location of version {SPEC}, the one Trivy reads.")

    def _mirrored(self, repository: VexRepository) -> list[tuple[VexVersion, int, Location, _Archive, ArchiveFacts]]:
        """Every location that could be fetched and opened; a bad one is told and left out."""
        mirrored = []
        for number, version in enumerate(repository.versions):
            before = len(mirrored)
            for location in version.locations:
                try:
                    if not location.supported:
                        raise Refused(f"{location.original} is of a form that is not mirrored (only http and https are).")
                    archive = self._archive(location.fetch_url)
                    facts = self._open(archive, location.format, location.subdir)
                except FAULTS as error:
                    self.problems.append(str(error))
                    self.job.story.warn(str(error), source=self.source.reference)
                    continue
                mirrored.append((version, number, location, archive, facts))
            if len(mirrored) == before and version.spec_version == SPEC:
                reasons = " ".join(self.problems) or "it names none."
                raise Refused(f"No location of version {SPEC} of this VEX repository could be mirrored: {reasons}")
        if not mirrored:
            raise Refused("This VEX repository's manifest names no version that could be mirrored.")
        return mirrored

    def _assemble(
        self,
        raw: bytes,
        repository: VexRepository,
        mirrored: list[tuple[VexVersion, int, Location, _Archive, ArchiveFacts]],
    ) -> Fetched:
        store = self.job.store
        blobs = [KeptBlob(store.put(raw), len(raw), Role.VEX_MANIFEST, "application/json", "vex-repository.json")]
        for version, number, location, archive, facts in mirrored:
            self._tell_pointers(facts)
            place = version.locations.index(location)
            name = served_name(number, place, location)
            details: dict[str, object] = {
                "location": location.original,
                "subdir": facts.subdir,
                "format": facts.format,
                "spec_version": version.spec_version,
                "served": name,
            }
            blobs.append(KeptBlob(archive.digest, archive.size, Role.VEX_ARCHIVE, "application/gzip", name, details))
        first = next((entry for entry in mirrored if entry[0].spec_version == SPEC), mirrored[0])
        facts = first[4]
        updated_at: datetime | None = facts.updated_at
        listed = [[blob.digest, blob.details.get("location", "")] for blob in blobs]
        return Fetched(
            identity=digest_of(json.dumps(listed).encode()),
            manifest_digest=blobs[0].digest,
            layer_digest=first[3].digest,
            media_type="application/json",
            source=self.source,
            blobs=tuple(blobs),
            tag=SPEC,
            item_count=facts.packages,
            updated_at=updated_at,
        )

    def _tell_pointers(self, facts: ArchiveFacts) -> None:
        if facts.pointers:
            named = ", ".join(facts.pointers[:POINTERS_NAMED])
            more = len(facts.pointers) - POINTERS_NAMED
            tail = f" and {more} more" if more > 0 else ""
            self.job.story.warn(
                f"{wording.counted(len(facts.pointers), 'document')} of the archive only point to git LFS and hold no "
                f"statement; Trivy warns and keeps the finding: {named}{tail}.",
                source=self.source.reference,
            )

    def _connection(self, url: str) -> Connection:
        """The source's own credentials, CA and leniency hold for its host only; the proxy for every host."""
        own = connections.connection_for(self.source, self.job.mirror)
        if urlsplit(url).hostname == urlsplit(self.source.reference).hostname:
            return own
        return Connection(proxy=own.proxy)
