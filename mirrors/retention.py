"""What is kept and what goes: bundles, snapshots, blobs, interrupted downloads, old runs; and who holds the space.

Rows decide, files follow: a blob goes only when no row names it, and only while nobody is putting blobs in place that
no row names yet (`BlobStore.in_use`). Whoever adds a row that names a blob holds that until the row is committed.

Order of locks: the store's (`in_use` or `alone`), references (`lock_references`), mirrors, snapshots, bundles.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.db.models import Count, F, Max, Q, QuerySet, Sum

from mirrors import consumers, content, wording
from mirrors.blobs import BlobStore, StoreError
from mirrors.models import (
    Bundle,
    BundleBlob,
    BundleSnapshot,
    Import,
    ImportBlob,
    ImportStep,
    Mirror,
    PushRule,
    PushRun,
    PushStep,
    Run,
    RunStep,
    Snapshot,
    SnapshotBlob,
    Step,
    SyncRun,
    Upload,
)
from mirrors.trivy.catalogue import MIB

logger = logging.getLogger(__name__)

# Where the store is shared by a file system without working locks, this alone protects what a sync just put in place.
YOUNG = timedelta(hours=1)
PARTIALS_KEPT = timedelta(days=7)
DAMAGED_KEPT = timedelta(days=7)
# Whoever took the manifest just before a switch still gets its blobs, though only one snapshot is kept.
REPLACED_KEPT = timedelta(hours=3)
# Failed logins that lock nobody any more.
ATTEMPTS_KEPT = timedelta(days=1)

# Rows and files that go in one transaction, and the most transactions of one kind in one pass: housekeeping must not
# keep writers waiting, and what is left goes with the next pass.
BATCH = 500
FILES_AT_ONCE = 50
MOST_BATCHES = 100
ALONE_WITHIN_SECONDS = 5.0

# Any number, as long as nobody else in this database uses it.
LOCK_KEY = 0x41495247

Item = TypeVar("Item")


class NoRoomError(Exception):
    """The disk has no room for what is about to be written; names what holds the space and what to do."""


class Holder(NamedTuple):
    """Something that takes space: what it is in words, and how many bytes."""

    what: str
    size_bytes: int


@dataclass
class Space:
    """Bytes used by the store and free beside it, and how many of the free ones syncs leave alone."""

    used: int
    free: int
    reserve: int
    now: datetime

    @property
    def is_short(self) -> bool:
        """The next sync would be refused."""
        return self.free <= self.reserve

    @cached_property
    def holders(self) -> list[Holder]:
        """What takes the space, largest first. Asked for only where it is shown: it reads a row a blob."""
        return sorted(_holders(self.now), key=lambda holder: -holder.size_bytes)


@dataclass
class Pruned:
    """What one pass removed."""

    bundles: int = 0
    snapshots: int = 0
    blobs: int = 0
    bytes_freed: int = 0
    runs: int = 0
    steps: int = 0
    consumers: int = 0
    sessions: int = 0
    imports: int = 0
    postponed: bool = False

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self) if field.name != "postponed")

    def sentence(self) -> str:
        later = (
            " A sync or an import is under way; files that nothing refers to go with the next pass."
            if self.postponed
            else ""
        )
        if not self:
            return f"Nothing had to go.{later}"
        counts = [
            wording.counted(count, noun)
            for count, noun in (
                (self.bundles, "expired bundle"),
                (self.snapshots, "snapshot"),
                (self.blobs, "file"),
                (self.runs, "old run"),
                (self.steps, "step"),
                (self.consumers, "silent consumer"),
                (self.sessions, "ended session"),
                (self.imports, "overdue import"),
            )
            if count
        ]
        what = f"Removed {wording.joined(counts)}; " if counts else ""
        return wording.capitalized(f"{what}{wording.size_text(self.bytes_freed)} were freed.{later}")


# Space


def space(now: datetime, store: BlobStore | None = None) -> Space:
    """Used and free bytes, from one query and one look at the file system; no walk over the files."""
    store = store or content.store()
    return Space(used_bytes(store), store.free_bytes(), settings.AIRGAP_RESERVE_MB * MIB, now)


def used_bytes(store: BlobStore) -> int:
    """Held by rows (a blob counts once), coming in, interrupted downloads, files set aside. No cover sheets."""
    each = SnapshotBlob.objects.order_by().values("digest").annotate(size=Max("size_bytes"))
    snapshots = each.aggregate(total=Sum("size"))["total"] or 0
    archives = _archives().aggregate(total=Sum("size_bytes"))["total"] or 0
    return snapshots + archives + sum(_coming_in(store)) + _partial_bytes(store) + store.damaged_bytes()


def require_room(size_bytes: int, *, run_id: int | None = None, store: BlobStore | None = None) -> None:
    """Raise NoRoomError if writing `size_bytes` would leave less than the reserve.

    With `run_id`, the caller's own run, what the other running syncs have still to write is taken as used. What a
    killed process left and nobody can go on with is removed first: the next try begins before any housekeeping.
    """
    store = store or content.store()
    reserve = settings.AIRGAP_RESERVE_MB * MIB
    free = store.free_bytes()
    promised = promised_bytes(run_id) if run_id is not None else 0
    if size_bytes <= free - promised - reserve:
        return
    if store.remove_abandoned() and size_bytes <= (free := store.free_bytes()) - promised - reserve:
        return
    claims = [f"{wording.size_text(free)} are free"]
    if promised:
        claims.append(f"{wording.size_text(promised)} of them are for runs under way")
    if reserve:
        claims.append(f"{wording.size_text(reserve)} stay in reserve (AIRGAP_RESERVE_MB)")
    largest = sorted(_holders(None, store), key=lambda holder: -holder.size_bytes)[:3]
    held = [f"{holder.what}: {wording.size_text(holder.size_bytes)}" for holder in largest]
    raise NoRoomError(
        f"There is no room for {wording.size_text(size_bytes)}: {wording.joined(claims)}. "
        + (f"Most is held by {'; '.join(held)}. " if held else "")
        + "Keep fewer snapshots, unpin some, delete bundles, or make the disk larger; then try again."
    )


def promised_bytes(run_id: int) -> int:
    """What running syncs, other than this one, have still to write."""
    running = SyncRun.objects.open().filter(state=SyncRun.State.RUNNING, bytes_total__gt=F("bytes_done"))
    totals = running.exclude(pk=run_id).aggregate(total=Sum("bytes_total"), done=Sum("bytes_done"))
    return (totals["total"] or 0) - (totals["done"] or 0)


def _holders(now: datetime | None, store: BlobStore | None = None) -> Iterator[Holder]:
    store = store or content.store()
    seen: set[str] = set()
    sizes: dict[int, int] = {}
    rows = SnapshotBlob.objects.order_by("snapshot__mirror_id").values_list(
        "snapshot__mirror_id", "digest", "size_bytes"
    )
    for mirror_id, digest, size in rows.iterator():
        if digest not in seen:
            seen.add(digest)
            sizes[mirror_id] = sizes.get(mirror_id, 0) + size
    in_bundle = Q(snapshots__bundled__in=BundleSnapshot.objects.filter(bundle__expired_at=None))
    counts = Mirror.objects.filter(pk__in=sizes).annotate(
        held=Count("snapshots", distinct=True),
        pinned=Count("snapshots", filter=Q(snapshots__pinned=True), distinct=True),
        bundled=Count("snapshots", filter=in_bundle, distinct=True),
    )
    for pk, label, held, pinned, bundled in counts.values_list("pk", "label", "held", "pinned", "bundled"):
        parts = [wording.counted(held, "snapshot")]
        if pinned:
            parts.append(f"{pinned} pinned")
        if bundled:
            parts.append(f"{bundled} in bundles")
        yield Holder(f"{label} ({', '.join(parts)})", sizes[pk])
    archives = _archives().aggregate(total=Sum("size_bytes"), count=Count("pk"))
    if archives["total"]:
        upcoming = _archives().order_by("expires_at").values_list("expires_at", flat=True).first()
        until = f", the next expires {wording.in_text(upcoming, now)}" if now and upcoming else ""
        yield Holder(
            f"{wording.capitalized(wording.counted(archives['count'], 'cache archive'))}{until}", archives["total"]
        )
    uploaded, undecided = _coming_in(store)
    if uploaded:
        yield Holder("Uploaded bundles, on the page Import", uploaded)
    if undecided:
        yield Holder("Bundles that wait for a decision, on the page Import", undecided)
    if partial := _partial_bytes(store):
        sides = {"connected": "downloads", "isolated": "imports"}
        yield Holder(f"Interrupted {sides.get(settings.AIRGAP_SIDE, 'downloads and imports')}", partial)
    if damaged := store.damaged_bytes():
        yield Holder("Damaged files set aside", damaged)


def _archives() -> QuerySet[Bundle]:
    """Cache archives that are on disk; while one is being made, its size is only a guess."""
    made = Bundle.objects.kept().filter(profile=Bundle.Profile.CACHE)
    return made.filter(state__in=[Bundle.State.READY, Bundle.State.DAMAGED])


def _coming_in(store: BlobStore) -> tuple[int, int]:
    """Bytes that were uploaded, and bytes that only undecided imports hold. None on the connected side."""
    if settings.AIRGAP_SIDE == "connected":
        return 0, 0
    uploaded = Upload.objects.aggregate(there=Sum("offset"))["there"] or 0
    undecided = 0
    kept = SnapshotBlob.objects.values("digest")
    for digest in ImportBlob.objects.exclude(digest__in=kept).values_list("digest", flat=True).distinct():
        with suppress(StoreError):
            undecided += store.size(digest)
    return uploaded, undecided


def _partial_bytes(store: BlobStore) -> int:
    return sum(partial.size for partial in store.partials())


# References


def lock_references() -> None:
    """Until this transaction ends, nobody else adds or drops a reference to a blob.

    SQLite's transactions begin IMMEDIATE, which says it already; PostgreSQL gets an advisory lock.
    """
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("lock_references needs a transaction.")
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])


def referenced(digests: Iterable[str]) -> set[str]:
    """Those of these digests that a row names."""
    wanted = list(digests)
    named: set[str] = set()
    for model in (SnapshotBlob, BundleBlob, ImportBlob):
        rows: QuerySet[Any, Any] = model._default_manager.filter(digest__in=wanted)
        named.update(rows.values_list("digest", flat=True))
    return named


# Pruning


def prune(now: datetime, store: BlobStore | None = None) -> Pruned:
    """Remove what no longer has to be kept.

    1. Bundles past their date: their own files go, the row stays.
    2. Snapshots that are neither current, nor among the mirror's newest, nor pinned, in a bundle or being pushed, nor
       replaced a short while ago.
    3. Old runs, the steps of less old ones, consumers long silent, ended sessions.
    4. Blobs that no row names, interrupted downloads nobody came back for, old damaged files. Last, because a store
       that refuses (StoreError) must not keep rows from going.
    """
    store = store or content.store()
    pruned = Pruned()
    pruned.bundles = expire_bundles(now)
    pruned.snapshots = prune_snapshots(now)
    pruned.runs = prune_runs(now)
    pruned.steps = prune_steps(now)
    AccessAttempt.objects.filter(attempt_time__lt=now - ATTEMPTS_KEPT).delete()
    pruned.consumers = consumers.forget_old(now)
    pruned.sessions = Session.objects.filter(expire_date__lt=now).delete()[0]
    remove_unreferenced(store, now, pruned)
    pruned.bytes_freed += store.remove_partials(now - PARTIALS_KEPT, now - YOUNG) + store.remove_damaged(
        now - DAMAGED_KEPT
    )
    if pruned:
        logger.info("%s", pruned.sentence())
    return pruned


def expire_bundles(now: datetime) -> int:
    """Let go of bundles past their date. The row, its contents list and its exports stay readable."""
    count = 0
    for bundle in Bundle.objects.overdue(now):
        with transaction.atomic():
            lock_references()
            count += forget_bundle(bundle, now)
    return count


def forget_bundle(bundle: Bundle, now: datetime) -> int:
    """Drop a bundle's hold on blobs and snapshots; 1 if it was still held. Callers hold `lock_references`."""
    BundleBlob.objects.filter(bundle=bundle).delete()
    return Bundle.objects.kept().filter(pk=bundle.pk).update(expired_at=now, recipe={}, work_started_at=None)


def prune_snapshots(now: datetime) -> int:
    """Remove snapshots beyond what each mirror keeps; returns how many."""
    keep = {mirror.pk: mirror.kept_snapshots for mirror in Mirror.objects.only("pk", "keep", "kind")}
    surplus: list[int] = []
    counted: dict[int, int] = {}
    for pk, mirror_id in Snapshot.objects.newest_first().values_list("pk", "mirror_id").iterator():
        counted[mirror_id] = counted.get(mirror_id, 0) + 1
        if counted[mirror_id] > keep[mirror_id]:
            surplus.append(pk)
    removed = 0
    for batch in batches(surplus, BATCH):
        with transaction.atomic():
            lock_references()
            # What protects a snapshot is read after its row is locked: a pin or a roll-back that came first is seen.
            locked = list(Snapshot.objects.select_for_update().filter(pk__in=batch).values_list("pk", flat=True))
            going = Snapshot.objects.filter(pk__in=locked, pinned=False).exclude(mirror__current_id=F("pk"))
            going = going.exclude(replaced_at__gt=now - REPLACED_KEPT)
            going = going.exclude(bundled__in=BundleSnapshot.objects.filter(bundle__expired_at=None))
            going = going.exclude(pk__in=PushRun.objects.open().filter(snapshot__isnull=False).values("snapshot_id"))
            removed += going.delete()[1].get("mirrors.Snapshot", 0)
    return removed


def remove_unreferenced(store: BlobStore, now: datetime, pruned: Pruned) -> None:
    """Remove blobs that no row names and that are not new; what was removed is added to `pruned`.

    Few at a time, so that no sync or export waits long for the store.
    """
    for batch in batches(store.digests(), BATCH):
        sizes = dict(batch)
        loose = sorted(set(sizes) - referenced(sizes))
        for few in batches((digest for digest in loose if _is_settled(store, digest, now)), FILES_AT_ONCE):
            with _alone(store) as alone:
                if not alone:
                    pruned.postponed = True
                    return
                with transaction.atomic():
                    lock_references()
                    for digest in sorted(set(few) - referenced(few)):
                        store.remove(digest)
                        pruned.blobs += 1
                        pruned.bytes_freed += sizes[digest]


@contextmanager
def _alone(store: BlobStore) -> Iterator[bool]:
    """The store to ourselves, waiting a little for a moment in which nobody puts blobs in place."""
    deadline = time.monotonic() + ALONE_WITHIN_SECONDS
    while True:
        with store.alone() as alone:
            if alone or time.monotonic() >= deadline:
                yield alone
                return
        time.sleep(0.1)


def _is_settled(store: BlobStore, digest: str, now: datetime) -> bool:
    """The blob came into the store more than an hour ago. By its inode's time: the other one is a fixed stamp."""
    try:
        changed = store.path(digest).stat().st_ctime
    except FileNotFoundError:
        return False
    return datetime.fromtimestamp(changed, UTC) < now - YOUNG


def prune_runs(now: datetime) -> int:
    """Remove runs older than AIRGAP_HISTORY_DAYS, but for the last one of a mirror, and of a rule that pushes.

    A look that found everything there comes after every sync for each destination: those go with the steps.
    """
    before = now - timedelta(days=settings.AIRGAP_HISTORY_DAYS)
    last_syncs = Mirror.objects.exclude(last_run=None).values("last_run")
    last_pushes = PushRule.objects.exclude(last_run=None).values("last_run")
    removed = _prune_runs(SyncRun, last_syncs, before) + _prune_runs(PushRun, last_pushes, before)
    # The last bundle that came in is what freshness counts from.
    last_import = Import.objects.all().done().order_by("-pk").values("pk")[:1]
    removed += _prune_runs(Import, last_import, before)
    return removed + _prune_looks(last_pushes, now - timedelta(days=settings.AIRGAP_STEPS_DAYS))


def _prune_looks(last: QuerySet[Any, Any], before: datetime) -> int:
    removed = 0
    looks = PushRun.objects.filter(state=PushRun.State.UNCHANGED)
    for _ in range(MOST_BATCHES):
        # By key, which grows with time: nothing is searched.
        oldest = list(looks.exclude(pk__in=last).order_by("pk").values_list("pk", "finished_at")[:BATCH])
        batch = [pk for pk, at in oldest if at is not None and at < before]
        if batch:
            removed += PushRun.objects.filter(pk__in=batch).delete()[1].get(PushRun._meta.label, 0)
        if len(batch) < BATCH:
            break
    return removed


def _prune_runs(model: type[Run], last: QuerySet[Any, Any], before: datetime) -> int:
    removed = 0
    runs = model._default_manager
    for _ in range(MOST_BATCHES):
        old = runs.filter(finished_at__lt=before).exclude(pk__in=last)
        batch = list(old.order_by("finished_at").values_list("pk", flat=True)[:BATCH])
        if not batch:
            break
        removed += runs.filter(pk__in=batch).delete()[1].get(model._meta.label, 0)
    return removed


def prune_steps(now: datetime) -> int:
    """Remove the step-by-step log of runs older than AIRGAP_STEPS_DAYS; the run and its outcome stay.

    Steps are written in order of time, so the oldest have the lowest keys: nothing is searched.
    """
    before = now - timedelta(days=settings.AIRGAP_STEPS_DAYS)
    return sum(_prune_steps(model, before) for model in (RunStep, PushStep, ImportStep))


def _prune_steps(model: type[Step], before: datetime) -> int:
    removed = 0
    steps = model._default_manager
    for _ in range(MOST_BATCHES):
        oldest = steps.order_by("pk").values_list("pk", "at")[:BATCH]
        batch = [pk for pk, at in oldest if at < before]
        if batch:
            removed += steps.filter(pk__in=batch).delete()[0]
        if len(batch) < BATCH:
            break
    return removed


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
