"""How things stand: rows gathered into facts, and the verdicts on them. The same few queries for five mirrors or 200.

Pages, the `freshness` command and whoever else asks get their answer here; judging itself is mirrors/freshness.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from django.conf import settings
from django.db.models import Count, Max, Min, Q
from django.utils import timezone

from mirrors import freshness
from mirrors.clock import Reading
from mirrors.freshness import Facts, SourceFacts, Summary, Verdict
from mirrors.models import (
    BundleSnapshot,
    Export,
    Import,
    ImportedSnapshot,
    Mirror,
    PushRule,
    Site,
    SiteHolding,
    Snapshot,
    Source,
    SyncRun,
    with_rows,
)
from mirrors.pushing import standing as pushing
from mirrors.registry.references import host_of
from mirrors.schedule import Schedule, ScheduleError
from mirrors.trivy.catalogue import Limits

JUST_ENDED = timedelta(seconds=45)


class SourceLook(NamedTuple):
    """What the verdict needs of a source. Read as values: 800 rows of them are a good part of a dashboard's time."""

    mirror_id: int
    reference: str
    answered_at: datetime | None
    error: str
    lagging: bool
    updated_at: datetime | None
    layer_digest: str

    @property
    def host(self) -> str:
        return host_of(self.reference)


class Arrival(NamedTuple):
    """The current snapshot at sites: how many have it, since when the last of them, what the (first) one is called."""

    sites: int
    last_at: datetime
    label: str


class Brought(NamedTuple):
    """The import that brought something: its row, the bundle's id, who signed that, and when it was done."""

    run_id: int
    bundle: str
    signed_by: str
    at: datetime


BROUGHT = ("pk", "bundle", "signed_by", "finished_at")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one mirror stands.

    `last_export_at` is when the current snapshot was last exported: an export of an older build says nothing about
    this one. `last_run` is set only while it is news, for `JUST_ENDED` after its end. `brought` is the import that the
    current snapshot came with first.
    """

    mirror: Mirror
    verdict: Verdict
    current: Snapshot | None
    open_run: SyncRun | None
    last_run: SyncRun | None
    last_export_at: datetime | None
    sources: tuple[SourceLook, ...]
    pushes: tuple[pushing.Standing, ...] = ()
    at_sites: Arrival | None = None
    brought: Brought | None = None

    @property
    def by_courier(self) -> bool:
        """Whether bundles, not sources, bring what it holds."""
        return by_courier(bool(self.sources))


def by_courier(has_sources: bool) -> bool:
    """Whether bundles bring what a mirror holds that has sources, or none."""
    return bool(settings.AIRGAP_SIDE == "isolated" or (settings.AIRGAP_SIDE == "both" and not has_sources))


@dataclass(frozen=True, slots=True)
class Overview:
    """All the dashboard says. `export_bytes` is what "everything current" weighs, `exportable` how many it is."""

    standings: tuple[Standing, ...]
    summary: Summary
    now: datetime
    exportable: int
    export_bytes: int
    next_sync_at: datetime | None
    last_attempt_at: datetime | None
    running: bool
    last_import: Brought | None = None


def overview(reading: Reading) -> Overview:
    """How all mirrors stand, and the sentence about them."""
    last = last_import()
    found = _standings(list(Mirror.objects.select_related("current")), reading, last)
    currents = [s.current for s in found if s.current is not None and s.mirror.asset.in_everything]
    planned = [s.mirror.next_sync_at for s in found if s.mirror.next_sync_at is not None and s.mirror.enabled]
    attempts = [s.mirror.last_attempt_at for s in found if s.mirror.last_attempt_at is not None]
    return Overview(
        standings=tuple(found),
        summary=freshness.summarize(
            [standing.verdict for standing in found if counts(standing)], settings.AIRGAP_SIDE, clock_banner(reading)
        ),
        now=reading.now,
        exportable=len(currents),
        export_bytes=sum(current.size_bytes for current in currents),
        next_sync_at=min(planned, default=None),
        last_attempt_at=max(attempts, default=None),
        running=any(standing.open_run is not None for standing in found),
        last_import=last,
    )


def counts(standing: Standing) -> bool:
    """Whether the sentence on top speaks of it: switched off before it ever held anything, it is nobody's worry."""
    return standing.mirror.enabled or standing.current is not None


def clock_banner(reading: Reading) -> str:
    """The sentence for every page while the clock cannot be believed, else empty."""
    return freshness.clock_banner(timezone.now(), reading.now) if reading.behind else ""


def standings(mirrors: Sequence[Mirror], reading: Reading) -> list[Standing]:
    """How these mirrors stand, in their order. Best given with `current` selected; a few queries beyond that."""
    return _standings(mirrors, reading, last_import())


def _standings(mirrors: Sequence[Mirror], reading: Reading, last: Brought | None) -> list[Standing]:
    open_runs, ended = _runs(mirrors, reading.now)
    sources_of = _sources(mirrors)
    there = with_rows(PushRule, Export, SiteHolding)
    pushes_of = _pushes(mirrors, reading.now) if PushRule in there else {}
    current_ids = [mirror.current_id for mirror in mirrors if mirror.current_id is not None]
    exports = _exports(current_ids) if Export in there else {}
    arrivals = _arrivals(current_ids) if SiteHolding in there else {}
    brought = _brought(current_ids)
    found = []
    for mirror in mirrors:
        sources = sources_of.get(mirror.pk, ())
        current, run = mirror.current, open_runs.get(mirror.pk)
        if current is not None:
            # The snapshot's own `mirror` would be a query for each: it is this one.
            current.mirror = mirror
        facts = facts_of(mirror, current, sources, run, last_import=last, clock_behind=reading.behind)
        found.append(
            Standing(
                mirror=mirror,
                verdict=freshness.judge(facts, reading.now),
                current=current,
                open_run=run,
                last_run=ended.get(mirror.pk),
                last_export_at=exports.get(mirror.current_id) if mirror.current_id is not None else None,
                sources=sources,
                pushes=tuple(pushes_of.get(mirror.pk, ())),
                at_sites=arrivals.get(mirror.current_id) if mirror.current_id is not None else None,
                brought=brought.get(mirror.current_id) if mirror.current_id is not None else None,
            )
        )
    return found


def facts_of(
    mirror: Mirror,
    current: Snapshot | None,
    sources: Sequence[SourceLook],
    run: SyncRun | None,
    *,
    last_import: Brought | None = None,
    clock_behind: bool = False,
) -> Facts:
    """What the verdict depends on, taken from the rows."""
    queued = run is not None and run.state == SyncRun.State.QUEUED
    facts = Facts(
        label=mirror.label,
        kind=mirror.asset,
        side=settings.AIRGAP_SIDE,
        has_sources=bool(sources),
        expected_interval=timedelta(days=settings.AIRGAP_COURIER_DAYS),
        has_data=current is not None,
        updated_at=current.updated_at if current else None,
        next_update=current.next_update if current else None,
        published_at=current.published_at if current else None,
        confirmed_at=current.confirmed_at if current else None,
        fetched_at=current.fetched_at if current else None,
        held=mirror.is_held,
        enabled=mirror.enabled,
        schedule_interval=_interval(mirror.schedule_text) if settings.AIRGAP_SCHEDULE else None,
        next_sync_at=mirror.next_sync_at if settings.AIRGAP_SCHEDULE else None,
        waiting_since=run.queued_at if run is not None and queued else None,
        last_attempt_at=mirror.last_attempt_at,
        last_success_at=mirror.last_success_at,
        failures=mirror.failures,
        last_error=mirror.last_error,
        running=run is not None and not queued,
        sources=tuple(_source_facts(source, current) for source in sources),
        last_import_at=last_import.at if last_import is not None else None,
        last_bundle=last_import.bundle if last_import is not None else "",
        clock_behind=clock_behind,
    )
    own = (mirror.due_seconds, mirror.stale_seconds, mirror.expired_seconds)
    if not any(own):
        return facts
    usual = facts.judged_limits
    chosen = [
        timedelta(seconds=seconds) if seconds else limit
        for seconds, limit in zip(own, (usual.due, usual.stale, usual.expired), strict=True)
    ]
    return replace(facts, limits=Limits(*chosen))


def _source_facts(source: SourceLook, current: Snapshot | None) -> SourceFacts:
    return SourceFacts(
        name=source.host,
        last_ok_at=source.answered_at,
        last_error=source.error,
        lagging=source.lagging,
        newer_at=_newer_at(source, current),
    )


def _newer_at(source: SourceLook, current: Snapshot | None) -> datetime | None:
    """The date of something newer than ours that this source was seen to offer and that we do not hold."""
    if current is None or current.updated_at is None or source.updated_at is None or source.lagging:
        return None
    if source.layer_digest and source.layer_digest == current.layer_digest:
        return None
    return source.updated_at if source.updated_at > current.updated_at else None


@lru_cache(maxsize=512)
def _interval(schedule: str) -> timedelta | None:
    """The interval of a schedule's text; None by hand, and for a text that an older version may have let through."""
    try:
        return Schedule.parse(schedule).interval()
    except ScheduleError:
        return None


def _sources(mirrors: Sequence[Mirror]) -> dict[int, tuple[SourceLook, ...]]:
    """Every mirror's sources in their order."""
    rows = Source.objects.order_by("position")
    if len(mirrors) == 1:
        rows = rows.filter(mirror_id=mirrors[0].pk)
    found: dict[int, list[SourceLook]] = {}
    for values in rows.values_list(*SourceLook._fields):
        found.setdefault(values[0], []).append(SourceLook(*values))
    return {mirror_id: tuple(looks) for mirror_id, looks in found.items()}


def _pushes(mirrors: Sequence[Mirror], now: datetime) -> dict[int, list[pushing.Standing]]:
    """How each mirror's push rules stand; one query where there is none."""
    rules = PushRule.objects.for_pages().order_by("destination__label", "pk")
    if len(mirrors) == 1:
        rows = rules.filter(mirror_id=mirrors[0].pk)
        return pushing.by_mirror(rows, now)
    return pushing.by_mirror(rules, now)


def _runs(mirrors: Sequence[Mirror], now: datetime) -> tuple[dict[int, SyncRun], dict[int, SyncRun]]:
    """Open runs, and those that ended just now, by mirror."""
    wanted = [mirror.last_run_id for mirror in mirrors if mirror.last_run_id is not None and _is_news(mirror, now)]
    rows = SyncRun.objects.open()
    if len(mirrors) == 1:
        rows = rows.filter(mirror_id=mirrors[0].pk)
    opened = {run.mirror_id: run for run in rows}
    return opened, {run.mirror_id: run for run in SyncRun.objects.filter(pk__in=wanted)} if wanted else {}


def _is_news(mirror: Mirror, now: datetime) -> bool:
    return mirror.last_attempt_at is not None and now - mirror.last_attempt_at < JUST_ENDED


def _exports(snapshot_ids: list[int]) -> dict[int, datetime]:
    """When each of these snapshots was last exported."""
    rows = (
        BundleSnapshot.objects.filter(snapshot_id__in=snapshot_ids, bundle__first_exported_at__isnull=False)
        .order_by()
        .values("snapshot_id")
        .annotate(at=Max("bundle__exports__at"))
    )
    return {row["snapshot_id"]: row["at"] for row in rows if row["at"] is not None}


def last_import() -> Brought | None:
    """The last bundle that came in, whatever it held; None on the connected side."""
    if settings.AIRGAP_SIDE == "connected":
        return None
    done = Import.objects.all().done().exclude(finished_at=None).order_by("-finished_at", "-pk")
    row = done.values_list(*BROUGHT).first()
    return Brought._make(row) if row is not None else None


def _brought(snapshot_ids: list[int]) -> dict[int, Brought]:
    """With which import each of these snapshots came here first."""
    if settings.AIRGAP_SIDE == "connected" or not snapshot_ids:
        return {}
    rows = (
        ImportedSnapshot.objects.filter(snapshot_id__in=snapshot_ids)
        .exclude(run__finished_at=None)
        .order_by("-run__finished_at", "-pk")
        .values_list("snapshot_id", *(f"run__{column}" for column in BROUGHT))
    )
    # The first of them last, so that it stays.
    return {row[0]: Brought._make(row[1:]) for row in rows}


def _arrivals(snapshot_ids: list[int]) -> dict[int, Arrival]:
    """Which of these snapshots are at sites: known to be, or assumed where nothing comes back."""
    there = Q(is_assumed=False) | Q(site__receipts=Site.Receipts.NONE)
    rows = (
        SiteHolding.objects.filter(there, snapshot_id__in=snapshot_ids)
        .order_by()
        .values("snapshot_id")
        .annotate(count=Count("site_id", distinct=True), last=Max("since"), label=Min("site__label"))
    )
    return {row["snapshot_id"]: Arrival(row["count"], row["last"], row["label"]) for row in rows}
