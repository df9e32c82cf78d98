"""Bringing an OCI mirror up to date: ask the sources in order, take what is new and not older than what we hold.

The story of one run:
1. HEAD at the source. The digest we hold, or one known to be the same layer: nothing to do.
2. GET the manifest, check it by the kind's rules. The same layer under another manifest digest: remember it, done.
3. A layer that is known to be older than ours marks the source as lagging; no blob is fetched, the next is asked.
4. Fetch what is missing. A DB layer is inflated on the way, once in its life, to read when it was built.
5. Hand the content back; sync.py switches.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from mirrors import connections, wording
from mirrors.blobs import PartialBlob
from mirrors.digests import DigestError, digest_of, short
from mirrors.job import Fetched, Job, KeptBlob, Outcome, Refused
from mirrors.models import LayerFacts, SnapshotBlob, Source
from mirrors.registry.client import RegistryClient
from mirrors.registry.errors import RegistryError
from mirrors.registry.manifests import Descriptor, Manifest, ManifestError
from mirrors.registry.references import Reference, ReferenceError
from mirrors.secrets import SecretError
from mirrors.trivy.layers import LayerError, LayerInspector
from mirrors.trivy.metadata import MetadataError
from mirrors.trivy.rules import RuleError, check_checks_bundle, check_manifest

Role = SnapshotBlob.Role
MOST_CHILDREN = 200
# Of one content, all its manifests together: they are held in memory, and every blob is a row.
MOST_MANIFEST_BYTES = 64 * 1024 * 1024
MOST_BLOBS = 20_000
# The blobs that need no request: an OCI artifact's empty config, and the 0-byte config of before May 2023.
WELL_KNOWN = {digest_of(data): data for data in (b"{}", b"")}

SOURCE_FAULTS = (
    RegistryError, ManifestError, RuleError, LayerError, MetadataError, DigestError, ReferenceError, SecretError,
    Refused,
)  # fmt: skip


@dataclass(frozen=True)
class Held:
    """The best content known so far: what we serve, or what a source just gave."""

    manifest_digest: str
    layer_digest: str
    media_type: str
    updated_at: datetime | None
    snapshot_id: int | None = None
    intact: bool = True
    fetched: Fetched | None = None


def sync_oci(job: Job) -> Outcome:
    """Ask sources in order until one confirms or renews what we hold; all of them once our data is due.

    Raises SyncFailed when no source was any good, StoreError and NoRoomError for trouble of our own.
    """
    current = job.mirror.current
    held = None
    if current is not None:
        held = Held(
            current.manifest_digest,
            current.layer_digest,
            current.media_type,
            current.updated_at,
            current.pk,
            intact=job.is_intact(current),
        )
    ask_all = current is not None and job.is_due(current.updated_at, current.confirmed_at)
    confirmed, giver, lagging, withheld = False, "", [], []
    for source in job.sources_to_ask():
        if (confirmed or (held and held.fetched)) and not ask_all:
            break
        asking = _Asking(job, source, held)
        try:
            found = asking.ask()
        except SOURCE_FAULTS as error:
            asking.remember()
            job.failed(source, error, asking.listener)
            continue
        asking.remember()
        job.answered(source, asking.listener)
        if found == _SAME:
            confirmed, giver = True, giver or source.reference
            ask_all = ask_all and job.kind.judged_by == "updated_at"
        elif found == _LAGGING:
            lagging.append(source.host)
        elif found == _WITHHELD:
            withheld.append(source.host)
            break
        elif isinstance(found, Held):
            held, confirmed, giver = found, False, source.reference
            ask_all = job.is_due(found.updated_at, job.now)
    if held and held.fetched:
        return Outcome(fetched=held.fetched, source=giver)
    if confirmed or lagging or withheld:
        return Outcome(confirmed=confirmed, note=_note(lagging, withheld), source=giver)
    raise job.give_up()


_SAME, _LAGGING, _WITHHELD = "same", "lagging", "withheld"


def _note(lagging: list[str], withheld: list[str]) -> str:
    if withheld:
        return f"{withheld[0]} offers other content, but this mirror is held: nothing was switched."
    if lagging:
        verb = "offers" if len(lagging) == 1 else "offer"
        return f"{' and '.join(lagging)} {verb} an older build than ours; ours was kept."
    return ""


class _Asking:
    """One source being asked. Keeps what the source is remembered by, also when it fails half-way."""

    def __init__(self, job: Job, source: Source, held: Held | None) -> None:
        self.job, self.source, self.held = job, source, held
        self.listener = job.listener(source)
        self._client: RegistryClient | None = None

    def ask(self) -> str | Held:
        job, source = self.job, self.source
        reference = connections.reference_of(source, job.mirror)
        self._client = client = connections.client_for(
            source, job.mirror, stop=job.stop, listener=self.listener, timeouts=job.timeouts
        )
        job.story.stage = f"asking {source.host}"
        digest, _ = client.head_manifest(reference)
        if digest and self.held and self._is_held(self.held, digest):
            return self._same(self.held, digest)
        if digest and self._still_lags(digest):
            job.story.warn(f"{source.host} still offers the older build {short(digest)}.", source=source.reference)
            return _LAGGING
        manifest = client.fetch_manifest(reference)
        layer = check_manifest(job.kind, manifest) if job.kind.one_layer else None
        if self.held and self._is_same_layer(self.held, manifest, layer):
            return self._same(self.held, manifest.digest)
        source.manifest_digest = manifest.digest
        source.layer_digest = layer.digest if layer else ""
        source.lagging, source.updated_at = False, None
        if layer and self.held and self._is_older_unseen(self.held, manifest, layer):
            return self._lags(self.held)
        if job.mirror.is_held and self.held and not self._is_repair(self.held, manifest, layer):
            job.story.warn(
                f"{source.host} offers {short(manifest.digest)}; the mirror is held.", source=source.reference
            )
            return _WITHHELD
        return self._take(client, reference, manifest, layer)

    def remember(self) -> None:
        """What the client learned of this registry spares requests next time."""
        if self._client is not None:
            self.source.memory = dict(self._client.memory)
            self._client.close()

    # Is it what we hold?

    def _is_held(self, held: Held, digest: str) -> bool:
        if not held.intact or self.job.mirror.with_referrers:
            return False
        matching = self.source.matching_snapshot_id
        known = matching is not None and matching == held.snapshot_id
        return digest == held.manifest_digest or (known and digest == self.source.matching_digest)

    def _is_same_layer(self, held: Held, manifest: Manifest, layer: Descriptor | None) -> bool:
        if not held.intact:
            return False
        if layer is not None:
            return (layer.digest, layer.media_type) == (held.layer_digest, held.media_type)
        return manifest.digest == held.manifest_digest and not self.job.mirror.with_referrers

    def _is_repair(self, held: Held, manifest: Manifest, layer: Descriptor | None) -> bool:
        """The same content as ours, of which something is missing here: a held mirror takes that, and nothing else."""
        same = layer.digest == held.layer_digest if layer else manifest.digest == held.manifest_digest
        return same and not held.intact

    def _same(self, held: Held, digest: str) -> str:
        source = self.source
        source.manifest_digest, source.layer_digest, source.lagging = digest, held.layer_digest, False
        source.updated_at = held.updated_at
        if digest != held.manifest_digest:
            source.matching_digest, source.matching_snapshot_id = digest, held.snapshot_id
        self.job.story.tell(f"{source.host} offers what we hold.", source=source.reference)
        return _SAME

    # Is it older?

    def _still_lags(self, digest: str) -> bool:
        source, held = self.source, self.held
        return bool(
            source.lagging and digest == source.manifest_digest and held and held.updated_at
            and source.updated_at and source.updated_at < held.updated_at
        )  # fmt: skip

    def _is_older_unseen(self, held: Held, manifest: Manifest, layer: Descriptor) -> bool:
        """Older by what is known without its bytes: read before, or pushed before ours was built."""
        if not self.job.kind.has_metadata or held.updated_at is None:
            return False
        facts = LayerFacts.objects.filter(layer_digest=layer.digest, kind=self.job.kind.name).first()
        known = facts.updated_at if facts else manifest.created
        self.source.updated_at = known
        return known is not None and known < held.updated_at

    def _lags(self, held: Held) -> str:
        source = self.source
        source.lagging = True
        built = f" (built {wording.utc_text(source.updated_at)})" if source.updated_at else ""
        ours = f" of {wording.utc_text(held.updated_at)}" if held.updated_at else ""
        self.job.story.warn(
            f"{source.host} offers an older build{built} than ours{ours}; not taken.",
            source=source.reference,
        )
        return _LAGGING

    # Taking it

    def _take(
        self, client: RegistryClient, reference: Reference, manifest: Manifest, layer: Descriptor | None
    ) -> str | Held:
        job, source = self.job, self.source
        blobs, raws = _everything(job, client, reference, manifest)
        missing = [
            blob for blob in _distinct(blobs) if blob.role not in _MANIFEST_ROLES and blob.digest not in WELL_KNOWN
        ]
        job.require_room(_bytes_to_fetch(job, missing))
        job.story.expect(sum(blob.size for blob in missing))
        facts = None
        for blob in missing:
            inspect = layer is not None and blob.digest == layer.digest and job.kind.has_metadata
            found = _fetch(job, client, reference, blob, source.host, inspect=inspect)
            facts = found or facts
        for data in (*raws, *(WELL_KNOWN[blob.digest] for blob in blobs if blob.digest in WELL_KNOWN)):
            job.store.put(data)
        if layer and job.kind.name == "trivy-checks":
            # With an empty bundle Trivy evaluates nothing and says nothing about it.
            with job.store.open(layer.digest) as file:
                check_checks_bundle(file)
        updated_at = manifest.created if job.kind.one_layer else None
        if facts is not None:
            updated_at = facts.updated_at
        job.refuse_future(source, updated_at)
        source.updated_at = updated_at
        if facts and self.held and self.held.updated_at and facts.updated_at < self.held.updated_at:
            return self._lags(self.held)
        fetched = Fetched(
            identity=_identity(manifest, raws),
            manifest_digest=manifest.digest,
            layer_digest=layer.digest if layer else "",
            media_type=layer.media_type if layer else manifest.media_type,
            artifact_type=manifest.artifact_type or "",
            source=source,
            blobs=tuple(blobs),
            tag=reference.tag or "",
            version=manifest.version or "",
            updated_at=updated_at,
            next_update=facts.next_update if facts else None,
            published_at=manifest.created,
        )
        return Held(fetched.manifest_digest, fetched.layer_digest, fetched.media_type, updated_at, fetched=fetched)


_MANIFEST_ROLES = (Role.MANIFEST, Role.INDEX)


def _everything(
    job: Job, client: RegistryClient, reference: Reference, manifest: Manifest
) -> tuple[list[KeptBlob], list[bytes]]:
    """Every blob the content needs, manifests first, and the manifests' own bytes."""
    raws = [manifest.raw]
    if not manifest.is_index:
        blobs = [_kept(manifest, Role.MANIFEST), *_parts(manifest)]
    else:
        blobs = [_kept(manifest, Role.INDEX, {"platforms": sorted(job.mirror.platforms)})]
        for child in _chosen(job, manifest):
            part = client.fetch_manifest(replace(reference, tag=None, digest=child.digest))
            if part.is_index:
                raise Refused(f"{reference} is an index of indexes, which is not mirrored. Name one of them by digest.")
            raws.append(part.raw)
            blobs += [_kept(part, Role.MANIFEST, {"platform": child.platform_parts}), *_parts(part)]
            _refuse_too_much(reference, blobs, raws)
    if job.mirror.with_referrers:
        for part in _referrers(client, reference, manifest):
            raws.append(part.raw)
            blobs += [_kept(part, Role.MANIFEST, {"subject": manifest.digest}), *_parts(part)]
            _refuse_too_much(reference, blobs, raws)
    return blobs, raws


def _refuse_too_much(reference: Reference, blobs: list[KeptBlob], raws: list[bytes]) -> None:
    if len(blobs) > MOST_BLOBS or sum(map(len, raws)) > MOST_MANIFEST_BYTES:
        raise Refused(
            f"{reference} is made of too many parts: at most {MOST_BLOBS} blobs, in manifests of "
            f"{wording.size_text(MOST_MANIFEST_BYTES)} together, are mirrored. Choose platforms."
        )


def _chosen(job: Job, index: Manifest) -> list[Descriptor]:
    wanted = {str(name) for name in job.mirror.platforms}
    chosen = [child for child in index.manifests if not wanted or child.platform_name in wanted]
    if not chosen:
        offered = ", ".join(sorted({child.platform_name for child in index.manifests})) or "none"
        raise Refused(f"None of the platforms chosen ({', '.join(sorted(wanted))}) is offered; there are: {offered}.")
    if len(chosen) > MOST_CHILDREN:
        raise Refused(
            f"The index names {len(chosen)} manifests; at most {MOST_CHILDREN} are mirrored. Choose platforms."
        )
    return chosen


def _referrers(client: RegistryClient, reference: Reference, manifest: Manifest) -> Iterator[Manifest]:
    index = client.referrers(reference, manifest.digest)
    for child in (index.manifests if index else ())[:MOST_CHILDREN]:
        part = client.fetch_manifest(replace(reference, tag=None, digest=child.digest))
        if not part.is_index:
            yield part


def _kept(manifest: Manifest, role: str, details: dict[str, object] | None = None) -> KeptBlob:
    subject = {"subject": manifest.subject.digest} if manifest.subject else {}
    details = {**subject, **(details or {})}
    return KeptBlob(manifest.digest, len(manifest.raw), role, manifest.media_type, "", details)


def _parts(manifest: Manifest) -> list[KeptBlob]:
    parts = [_blob(manifest.config, Role.CONFIG)] if manifest.config else []
    return parts + [_blob(layer, Role.LAYER) for layer in manifest.layers]


def _blob(descriptor: Descriptor, role: str) -> KeptBlob:
    return KeptBlob(descriptor.digest, descriptor.size, role, descriptor.media_type, descriptor.title[:255])


def _distinct(blobs: list[KeptBlob]) -> list[KeptBlob]:
    return list({blob.digest: blob for blob in blobs}.values())


def _identity(manifest: Manifest, raws: list[bytes]) -> str:
    """The manifest digest; with referrers or chosen platforms a digest over all manifests."""
    if len(raws) == 1:
        return manifest.digest
    return digest_of("\n".join([manifest.digest, *sorted(digest_of(raw) for raw in raws[1:])]).encode())


def _bytes_to_fetch(job: Job, blobs: list[KeptBlob]) -> int:
    partial = {part.digest: part.size for part in job.store.partials()}
    return sum(max(0, blob.size - partial.get(blob.digest, 0)) for blob in blobs if not job.store.has(blob.digest))


def _fetch(
    job: Job, client: RegistryClient, reference: Reference, blob: KeptBlob, host: str, *, inspect: bool
) -> LayerFacts | None:
    """Have one blob complete in the store; for a DB layer also know when it was built."""
    if job.kind.layer_limit and blob.size > job.kind.layer_limit:
        raise Refused(
            f"{host} offers a layer of {wording.size_text(blob.size)}; at most "
            f"{wording.size_text(job.kind.layer_limit)} are taken for {job.kind.label}."
        )
    facts = None
    if inspect:
        facts = LayerFacts.objects.filter(layer_digest=blob.digest, kind=job.kind.name).first()
    inspector = LayerInspector(job.kind, blob.size) if inspect and facts is None else None
    try:
        began, before = time.monotonic(), job.story.bytes_downloaded
        with job.store.partial(blob.digest, blob.size, [inspector] if inspector else [], stop=job.stop) as partial:
            job.story.held(partial.offset)
            if partial.complete:
                job.story.tell(f"Blob {short(blob.digest)} ({wording.size_text(blob.size)}) is in the store already.")
            else:
                if partial.offset:
                    job.story.tell(
                        f"Going on at {wording.size_text(partial.offset)} of {wording.size_text(blob.size)}, "
                        "kept from an earlier try."
                    )
                job.story.stage = f"downloading from {host}"
                client.fetch_blob(reference.repository, Descriptor(blob.media_type, blob.digest, blob.size), partial)
                if inspector is None:
                    partial.commit()
            if inspector is not None:
                job.story.stage = "reading its age"
                facts = _read_facts(job, blob, inspector, partial)
        _tell_speed(job, blob, time.monotonic() - began, job.story.bytes_downloaded - before)
    finally:
        if inspector is not None:
            inspector.close()
    return facts


def _read_facts(job: Job, blob: KeptBlob, inspector: LayerInspector, partial: PartialBlob) -> LayerFacts:
    """Bytes that fail their digest are named as such before what is inside them is judged."""
    partial.commit()
    found = inspector.finish()
    facts = LayerFacts.of(blob.digest, job.kind.name, blob.size, found, job.now)
    LayerFacts.objects.bulk_create([facts], ignore_conflicts=True)
    job.story.tell(
        f"Read metadata.json: built {wording.utc_text(found.updated_at)}; "
        f"{wording.size_text(found.inflated_bytes)} when unpacked."
    )
    return facts


def _tell_speed(job: Job, blob: KeptBlob, seconds: float, received: int) -> None:
    if received:
        job.story.tell(
            f"Received {wording.size_text(received)} of layer {short(blob.digest)} in "
            f"{wording.duration_text(seconds)} ({wording.rate_text(received / max(seconds, 0.001))}); "
            "size and digest are right."
        )
