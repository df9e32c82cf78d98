"""Bringing one mirror up to date: claim the run, fetch what is new, switch in one transaction, write down how it went.

A failed or partial sync never changes what is served: content is complete and verified in the store before the
transaction that makes it current, and that transaction also ends the run, under the run's lease.
"""

import logging
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from mirrors import content, retention, runs, wording, work_here
from mirrors.blobs import BlobStore, StoreError
from mirrors.digests import short
from mirrors.fetch_oci import sync_oci
from mirrors.fetch_release import sync_release
from mirrors.fetch_vex import sync_vex
from mirrors.job import Fetched, Job, Outcome, SyncFailed
from mirrors.leases import work_key
from mirrors.models import Mirror, Snapshot, SnapshotBlob, Source, SyncRun
from mirrors.registry.errors import clean
from mirrors.secrets import SecretError
from mirrors.stopping import Stopped, StopSignal
from mirrors.story import Story

logger = logging.getLogger(__name__)

State = SyncRun.State


def perform(run_id: int, *, stop: StopSignal | None = None, store: BlobStore | None = None, heart: bool = True) -> bool:
    """Make a queued run. False when somebody else has it or it is closed; a duplicate message is no harm.

    1. Take the lease. 2. Beat for it from a thread of its own. 3. Fetch. 4. Switch and close in one transaction.
    """
    lease = runs.claim(run_id, now=timezone.now())
    if lease is None:
        return False
    stop = stop or StopSignal()
    story = Story(lease)
    try:
        with (
            work_here.entered(stop, work_key(SyncRun, run_id)),
            runs.Heart(lease, stop, story) if heart else nullcontext(),
        ):
            _make(lease, story, stop, store or content.store())
    except runs.LeaseLost:
        logger.info("Run %s was closed by somebody else; nothing was switched", run_id)
        return True
    story.flush()
    return True


def _make(lease: runs.Lease, story: Story, stop: StopSignal, store: BlobStore) -> None:
    run = SyncRun.objects.select_related("mirror__current").get(pk=lease.run_id)
    story.source = run.source_reference
    try:
        # Until the switch is committed no row names what was fetched; the pruner stays away meanwhile.
        with store.in_use():
            _conclude(lease, run, story, _fetch(run, story, stop, store), stop)
    except Stopped:
        if stop.reason == work_here.SHUTDOWN:
            story.warn("The worker is shut down; the run goes on where it stopped when one starts again.")
            runs.put_back(lease)
        elif stop.reason != runs.CLOSED:
            runs.stop_run(run, by=stop.reason, now=timezone.now())
    except SyncFailed as failure:
        _fail(lease, story, str(failure), retry_at=failure.retry_at)
    except (StoreError, SecretError, retention.NoRoomError) as trouble:
        story.fail(str(trouble))
        _fail(lease, story, str(trouble))
    except runs.LeaseLost:
        raise
    except Exception as fault:
        if stop.is_set():
            logger.info("Run %s ended while it was being stopped", lease.run_id, exc_info=True)
            return
        fault_name = type(fault).__name__
        sentence = f"A fault in Airgap itself ended this run ({fault_name}). The worker's log has the details."
        story.fail(sentence)
        _fail(lease, story, sentence)
        raise


def _fetch(run: SyncRun, story: Story, stop: StopSignal, store: BlobStore) -> Outcome:
    mirror = run.mirror
    job = Job(
        run=run,
        mirror=mirror,
        sources=list(mirror.sources.order_by("position")),
        store=store,
        story=story,
        stop=stop,
        now=timezone.now(),
    )
    fetch = {"oci": sync_oci, "vex": sync_vex, "release": sync_release}[mirror.asset.transport]
    return fetch(job)


def _fail(lease: runs.Lease, story: Story, sentence: str, *, retry_at: datetime | None = None) -> None:
    runs.close(lease, State.FAILED, now=timezone.now(), error=sentence, retry_at=retry_at, **story.totals())


def _conclude(lease: runs.Lease, run: SyncRun, story: Story, outcome: Outcome, stop: StopSignal) -> None:
    """Switch if there is something to switch to, and close the run, both or neither."""
    now = timezone.now()
    stop.check()
    with transaction.atomic():
        mirror = Mirror.objects.select_for_update(of=("self",)).select_related("current").get(pk=run.mirror_id)
        state, note, snapshot = State.UNCHANGED, outcome.note, mirror.current
        if outcome.fetched is not None:
            before = mirror.current
            snapshot = keep(mirror, outcome.fetched, now=now)
            if before is None or before.pk != snapshot.pk:
                mirror.switch_to(snapshot, now)
                state, note = State.SUCCEEDED, note or _switched(before, snapshot)
            elif story.bytes_downloaded:
                state, note = State.SUCCEEDED, "What was missing or damaged of it was fetched again."
        elif outcome.confirmed and mirror.current_id is not None:
            Snapshot.objects.confirm(mirror.current_id, now)
        story.tell(note or "Nothing new.")
        values: dict[str, Any] = {
            "snapshot": snapshot,
            "source_reference": outcome.source or story.source,
            "rate_bytes": 0,
            **story.totals(),
        }
        runs.close(lease, state, now=now, note=note, **values)


def keep(mirror: Mirror, fetched: Fetched, *, now: datetime) -> Snapshot:
    """The snapshot row of fetched content: a new one, or the kept one of the same content, confirmed now."""
    existing = Snapshot.objects.filter(mirror=mirror, identity=fetched.identity).first()
    if existing is not None:
        Snapshot.objects.confirm(existing.pk, now)
        existing.confirmed_at = now
        return existing
    snapshot = Snapshot.objects.create(
        mirror=mirror,
        identity=fetched.identity,
        manifest_digest=fetched.manifest_digest,
        layer_digest=fetched.layer_digest,
        media_type=fetched.media_type[:200],
        artifact_type=fetched.artifact_type[:200],
        tag=fetched.tag,
        source_reference=fetched.source.reference,
        # Of a directory, whoever filled it knows; no TLS brought it here.
        tls_verified=not (fetched.source.insecure or fetched.source.is_directory),
        version=clean(fetched.version, 100),
        size_bytes=fetched.size,
        item_count=fetched.item_count,
        updated_at=fetched.updated_at,
        next_update=fetched.next_update,
        published_at=fetched.published_at,
        fetched_at=now,
        confirmed_at=now,
    )
    SnapshotBlob.objects.bulk_create(
        SnapshotBlob(
            snapshot=snapshot,
            position=position,
            digest=blob.digest,
            size_bytes=blob.size,
            role=blob.role,
            media_type=blob.media_type[:200],
            name=clean(blob.name, 255),
            details=blob.details,
        )
        for position, blob in enumerate(fetched.blobs)
    )
    Source.objects.filter(pk=fetched.source.pk).update(
        matching_digest=fetched.manifest_digest, matching_snapshot=snapshot
    )
    return snapshot


def _switched(before: Snapshot | None, after: Snapshot) -> str:
    if after.mirror.asset.transport == "release":
        version = f"version {after.version}"
        return f"The first copy: {version}." if before is None else f"Switched from {before.version} to {version}."
    built = f", built {wording.utc_text(after.updated_at)}" if after.updated_at and after.next_update else ""
    if before is None:
        return f"The first copy: {short(after.digest)}{built}."
    gained = ""
    if before.updated_at and after.updated_at and after.updated_at - before.updated_at >= timedelta(minutes=1):
        gained = f", {wording.long_age(after.updated_at - before.updated_at)} newer than the one before"
    return f"Switched to {short(after.digest)}{built}{gained}."
