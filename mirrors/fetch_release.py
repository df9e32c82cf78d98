"""Bringing release files up to date: the version, its checksum file, and each chosen file with its signature.

The story of one run:
1. Which version: the pinned one, or what the source calls its latest. One that is refused, or older than ours, is told.
2. The checksum file, asked with the ETag of the last time. The same lines for the files we hold: nothing to do.
3. Another checksum than before for a file of the same version is an alarm. Nothing is taken until a person decides.
4. Each file streams into the store under the digest its line states; the signature beside it is kept as it came.
5. Hand the content back; sync.py switches.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from mirrors import connections, wording
from mirrors.digests import DigestError, digest_of, short
from mirrors.fetch_oci import SOURCE_FAULTS
from mirrors.job import Fetched, Job, KeptBlob, Outcome, Refused
from mirrors.models import Snapshot, SnapshotBlob, Source
from mirrors.registry.errors import RegistryError
from mirrors.registry.http import fetch_file, fetch_url, read_url, size_of
from mirrors.registry.manifests import Descriptor
from mirrors.registry.transport import Connection
from mirrors.trivy import release
from mirrors.trivy.release import ReleaseError, ReleaseSource, Wanted

Role = SnapshotBlob.Role
FAULTS = (*SOURCE_FAULTS, ReleaseError)
SAME, LAGGING, WITHHELD = "same", "lagging", "withheld"
MEDIA_TYPES = {
    ".tar.gz": "application/gzip",
    ".zip": "application/zip",
    ".deb": "application/vnd.debian.binary-package",
    ".rpm": "application/x-rpm",
    ".json": "application/json",
    ".txt": "text/plain",
}


def sync_release(job: Job) -> Outcome:
    """Ask sources in order until one confirms or renews what we hold.

    Raises SyncFailed when no source was any good, StoreError and NoRoomError for trouble of our own.
    """
    lagging: list[str] = []
    for source in job.sources_to_ask():
        asking = _Asking(job, source)
        try:
            found = asking.ask()
        except FAULTS as error:
            asking.remember()
            job.failed(source, error, asking.listener)
            continue
        asking.remember()
        job.answered(source, asking.listener)
        if found == LAGGING:
            lagging.append(source.host)
        elif found == SAME:
            return Outcome(confirmed=True)
        elif found == WITHHELD:
            return Outcome(note=f"{source.host} offers other files, but this mirror is held: nothing was switched.")
        elif isinstance(found, Fetched):
            return Outcome(fetched=found)
    if lagging:
        verb = "calls" if len(lagging) == 1 else "call"
        return Outcome(note=f"{wording.joined(lagging)} {verb} an older version the latest than ours; ours was kept.")
    raise job.give_up()


@dataclass(frozen=True)
class _Checksums:
    """The checksum file of one version. `name` is what it is called, `lines` file to digest."""

    version: str
    name: str
    raw: bytes
    digest: str
    lines: dict[str, str]
    modified: datetime | None


class _Asking:
    """One source being asked, with what it remembers: the address of its checksum file, ETag, digest and date."""

    def __init__(self, job: Job, source: Source) -> None:
        self.job, self.source = job, source
        self.listener = job.listener(source)
        self.current = job.mirror.current
        self.known: dict[str, str] = dict(source.memory.get("checksums", {}))

    def remember(self) -> None:
        self.source.memory = {**self.source.memory, "checksums": self.known}

    def ask(self) -> str | Fetched:
        job, source, current = self.job, self.source, self.current
        place = release.parse_source(source.reference)
        wanted = release.parse_wanted(job.mirror.version)
        job.story.stage = f"asking {source.host}"
        version = self._latest(place) if wanted.is_latest else wanted.version
        if reason := job.kind.refused_versions.get(version):
            raise Refused(f"{source.host} offers version {version}, which is not mirrored: {reason}.")
        source.lagging = bool(wanted.is_latest and current is not None and self._is_older(version, current))
        if source.lagging and current is not None:
            job.story.warn(
                f"{source.host} calls {version} the latest, which is older than our {current.version}; not taken. "
                "Pin the version to go back on purpose.",
                source=source.reference,
            )
            return LAGGING
        with connections.naming_version(version, is_latest=wanted.is_latest):
            checksums = self._checksums(place, version)
        self._alarm(checksums, wanted)
        names = [place.file_name(version, str(platform)) for platform in job.mirror.platforms]
        chosen = release.chosen(checksums.lines, names, checksums.name)
        identity = digest_of(json.dumps([checksums.digest, *chosen.items()]).encode())
        source.manifest_digest, source.layer_digest, source.updated_at = checksums.digest, "", None
        intact = current is not None and job.is_intact(current)
        if intact and current is not None and current.identity == identity:
            job.story.tell(f"{source.host} offers what we hold: version {version}.", source=source.reference)
            return SAME
        if job.mirror.is_held and current is not None and current.identity != identity:
            job.story.warn(f"{source.host} offers version {version}; the mirror is held.", source=source.reference)
            return WITHHELD
        return self._take(place, checksums, chosen, identity)

    # Which version

    def _latest(self, place: ReleaseSource) -> str:
        version, _ = connections.latest_version(
            place,
            self._connection(place.latest_url),
            stop=self.job.stop,
            listener=self.listener,
            timeouts=self.job.timeouts,
        )
        return version

    def _is_older(self, version: str, current: Snapshot) -> bool:
        """What we should not hold either is nothing to go forward from."""
        ours = release.parse_version(current.version)
        return ours is not None and ours not in self.job.kind.refused_versions and release.is_older(version, ours)

    # The checksum file

    def _checksums(self, place: ReleaseSource, version: str) -> _Checksums:
        job, name = self.job, place.checksums_name(version)
        url = self._address(place, version, name)
        known = self.known if self.known.get("url") == url else {}
        held = str(known.get("digest", ""))
        etag = str(known.get("etag", "")) if held and job.store.is_pristine(held) else ""
        raw, answer = read_url(
            url,
            self._connection(url),
            stop=job.stop,
            listener=self.listener,
            timeouts=job.timeouts,
            limit=release.CHECKSUMS_LIMIT,
            etag=etag,
        )
        modified = answer.modified
        if answer.status == 304:
            raw = job.store.read(held)
            modified = datetime.fromisoformat(known["modified"]) if known.get("modified") else None
        lines = release.parse_checksums(raw, name)
        digest = digest_of(raw)
        self.known = {"url": url, "etag": answer.etag or etag, "digest": digest}
        if modified is not None and modified <= job.now:
            self.known["modified"] = modified.isoformat()
        else:
            modified = None
        return _Checksums(version, name, raw, digest, lines, modified)

    def _alarm(self, checksums: _Checksums, wanted: Wanted) -> None:
        """Raise Refused where a published version is no longer what it was, or not the one that was decided for."""
        accept = f"--version {checksums.version}@{checksums.digest}"
        if wanted.checksums:
            if wanted.checksums != checksums.digest:
                raise Refused(
                    f"{self.source.host} offers {checksums.name} with the digest {checksums.digest}, but only "
                    f"{wanted.checksums} is allowed. Nothing was taken."
                )
            return
        kept = self.job.mirror.snapshots.filter(version=checksums.version).newest_first().first()
        if kept is None:
            return
        before = {blob.name: blob.digest for blob in kept.blobs.filter(role=Role.FILE)}
        if changed := release.replaced(before, checksums.lines):
            raise Refused(
                f"{self.source.host} has replaced files of version {checksums.version} after we took them "
                f"(another checksum now: {', '.join(changed)}). What is published once should not change, so nothing "
                "was taken and what we hold stays. Find out why; to accept the new files, edit this mirror with "
                f"{accept}."
            )

    # Taking it

    def _take(self, place: ReleaseSource, checksums: _Checksums, chosen: dict[str, str], identity: str) -> Fetched:
        job, version = self.job, checksums.version
        addresses = {name: self._address(place, version, name) for name in chosen}
        sizes = {name: self._size(name, digest, addresses[name]) for name, digest in chosen.items()}
        to_fetch = [name for name in chosen if not job.store.has(chosen[name])]
        job.require_room(sum(sizes[name] or 0 for name in to_fetch))
        job.story.expect(sum(size or 0 for size in sizes.values()))
        blobs = [
            KeptBlob(job.store.put(checksums.raw), len(checksums.raw), Role.CHECKSUMS, "text/plain", checksums.name)
        ]
        blobs += self._signatures(place, version, checksums.name, checksums.digest)
        for name, digest in chosen.items():
            size = self._fetch(name, digest, sizes[name], addresses[name], checksums.name)
            blobs.append(KeptBlob(digest, size, Role.FILE, media_type_of(name), name))
            blobs += self._signatures(place, version, name, digest)
        return Fetched(
            identity=identity,
            manifest_digest=checksums.digest,
            layer_digest="",
            media_type="text/plain",
            source=self.source,
            blobs=tuple(blobs),
            version=version,
            item_count=len(chosen),
            published_at=checksums.modified,
        )

    def _size(self, name: str, digest: str, url: str) -> int | None:
        """Bytes to come; refused before the first of them if they are too many."""
        job, limit = self.job, self.job.kind.layer_limit
        if job.store.has(digest):
            return job.store.size(digest)
        size = size_of(url, self._connection(url), stop=job.stop, listener=self.listener, timeouts=job.timeouts)
        if size is not None and not 0 < size <= limit:
            raise Refused(
                f"{self.source.host} offers {name} with {wording.size_text(size)}; from 1 byte to "
                f"{wording.size_text(limit)} are taken."
            )
        return size

    def _fetch(self, name: str, digest: str, size: int | None, url: str, listed: str) -> int:
        """Have one file complete in the store under the digest its line states; its size in bytes."""
        job = self.job
        job.story.stage = f"downloading {name}"
        before = job.story.bytes_downloaded
        try:
            if size is None:
                size = self._fetch_unsized(digest, url)
            else:
                self._fetch_sized(name, digest, size, url)
        except DigestError as error:
            if error.code != "digest":
                raise
            raise Refused(
                f"{name} from {self.source.host} does not have the checksum that {listed} states ({error}) "
                "It was thrown away. If it happens again, something on the way changes what is downloaded."
            ) from error
        if received := job.story.bytes_downloaded - before:
            job.story.tell(f"Received {wording.size_text(received)}: {name}; its checksum is right.")
        return size

    def _fetch_sized(self, name: str, digest: str, size: int, url: str) -> None:
        job = self.job
        with job.store.partial(digest, size, stop=job.stop) as partial:
            job.story.held(partial.offset)
            if partial.complete:
                job.story.tell(f"{name} ({wording.size_text(size)}) is in the store already.")
                return
            if partial.offset:
                job.story.tell(
                    f"Going on at {wording.size_text(partial.offset)} of {wording.size_text(size)}, kept from an "
                    "earlier try."
                )
            fetch_file(
                url,
                self._connection(url),
                Descriptor(media_type_of(name), digest, size),
                partial,
                stop=job.stop,
                listener=self.listener,
                timeouts=job.timeouts,
            )
            partial.commit()

    def _fetch_unsized(self, digest: str, url: str) -> int:
        """Of a host that does not say how long a file is: it cannot be resumed, and is hashed before it gets a name."""
        job = self.job
        with job.store.incoming(job.kind.layer_limit) as incoming:
            fetch_url(
                url,
                self._connection(url),
                incoming,
                stop=job.stop,
                listener=self.listener,
                timeouts=job.timeouts,
                limit=job.kind.layer_limit,
            )
            job.require_room(incoming.offset)
            incoming.require(digest)
            return incoming.commit()[1]

    # Signatures

    def _signatures(self, place: ReleaseSource, version: str, name: str, digest: str) -> list[KeptBlob]:
        """The sigstore bundle of a file, or what there was before those; empty where none is published."""
        raw = self._signature(place, version, name + release.BUNDLE_ENDING)
        if raw is not None:
            return [self._bundle(name, digest, version, raw)]
        found = []
        for ending in release.OLD_ENDINGS:
            raw = self._signature(place, version, name + ending)
            if raw is None:
                break
            kept = self.job.store.put(raw)
            found.append(KeptBlob(kept, len(raw), Role.SIGNATURE, "text/plain", name + ending, {"file": name}))
        if not found:
            self.job.story.warn(f"{self.source.host} has no signature for {name}.", source=self.source.reference)
        return found

    def _signature(self, place: ReleaseSource, version: str, name: str) -> bytes | None:
        url = self._address(place, version, name)
        try:
            raw, _ = read_url(
                url,
                self._connection(url),
                stop=self.job.stop,
                listener=self.listener,
                timeouts=self.job.timeouts,
                limit=release.SIGNATURE_LIMIT,
            )
        except RegistryError as error:
            if error.code != "not-found":
                raise
            return None
        return raw

    def _bundle(self, name: str, digest: str, version: str, raw: bytes) -> KeptBlob:
        """Kept as it came, with what it states. One that states another file is no signature of ours: refused."""
        details: dict[str, object] = {"file": name}
        bundle = name + release.BUNDLE_ENDING
        try:
            stated = release.read_bundle(raw)
        except ReleaseError as error:
            self.job.story.warn(f"{bundle} is kept, but cannot be read. {error}", source=self.source.reference)
        else:
            if stated.digest != digest:
                raise Refused(
                    f"{bundle} from {self.source.host} signs other bytes ({short(stated.digest)}) than {name} has "
                    f"({short(digest)}). Nothing was taken."
                )
            details |= {"identity": stated.identity, "issuer": stated.issuer}
            if stated.identity != release.identity_of(version) or stated.issuer != release.ISSUER:
                self.job.story.warn(
                    f"{bundle} states the signer {stated.identity or 'nobody'}, not the one that Trivy documents.",
                    source=self.source.reference,
                )
        return KeptBlob(self.job.store.put(raw), len(raw), Role.SIGNATURE, "application/json", bundle, details)

    # Addresses

    def _address(self, place: ReleaseSource, version: str, name: str) -> str:
        return place.address(version, quote(name))

    def _connection(self, url: str) -> Connection:
        own = connections.connection_for(self.source, self.job.mirror)
        return connections.for_url(own, self.source.reference, url)


def media_type_of(name: str) -> str:
    return next((kind for ending, kind in MEDIA_TYPES.items() if name.endswith(ending)), "application/octet-stream")
