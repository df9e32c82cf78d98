"""One database: its verdict, its age over time, its snapshots and sources, and what can be done with them."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.db.models import Exists, OuterRef, Q
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from mirrors import clock, demand, mirroring, plot, runs, serving, snapshots, standing, tasks
from mirrors.freshness import BUILT, FAILING
from mirrors.models import BundleSnapshot, ImportedSnapshot, Mirror, Site, SiteHolding, Snapshot, SyncRun
from mirrors.schedule import Schedule, ScheduleError
from mirrors.snapshots import SnapshotError
from mirrors.standing import Standing
from mirrors.transfers import holds
from mirrors.views.access import address_of, operator_required
from mirrors.views.dashboard import row
from mirrors.views.page import PageRequest, live_page
from mirrors.views.rows import about, moving, ruler_drawing

SNAPSHOTS_SHOWN = 100
SITES_SHOWN = 12
RUNS_SHOWN = 6
PLOTTED = timedelta(days=14)
SHORTEST_PLOT = timedelta(minutes=10)
CONFIRMATIONS_PLOTTED = 200
SKEW_WORTH_TELLING = 60
RUNNING_SECONDS, RESTING_SECONDS = 2, 20


@require_safe
def mirror_detail(request: PageRequest, name: str) -> HttpResponse:
    mirror = get_object_or_404(Mirror.objects.select_related("current"), name=name)
    reading = clock.trusted_now()
    found = standing.standings([mirror], reading)[0]
    return live_page(
        request,
        "mirror/mirror.html",
        "mirror/_body.html",
        _context(request, found, reading.now),
        every=RUNNING_SECONDS if _is_moving(found) else RESTING_SECONDS,
    )


def _is_moving(found: Standing) -> bool:
    return found.open_run is not None or any(push.open_run is not None for push in found.pushes)


def _context(request: PageRequest, found: Standing, now: datetime) -> dict[str, object]:
    mirror, verdict, run = found.mirror, found.verdict, found.open_run
    user = request.user
    kept, came = list(_kept(mirror)), list(_came(mirror))
    # A failure then has a box of its own, with all its words.
    told_below = bool(mirror.failures and mirror.last_error) and run is None
    return {
        "now": now,
        "mirror": mirror,
        "verdict": verdict,
        "current": found.current,
        "about": about(mirror, found.current, found),
        "judged_built": verdict.judged_from == BUILT,
        "ruler": ruler_drawing(verdict.limits, _minutes(verdict.age), True),
        "ruler_text": plot.ruler_text(verdict.limits, verdict.age, verdict.judged_from, mirror.asset.rhythm),
        "last_export_at": found.last_export_at,
        "sites": _sites(mirror, found),
        "run": run,
        "moving": moving(run, now) if run is not None else None,
        "told_below": told_below,
        "reason": "" if told_below and verdict.cause == FAILING else verdict.reason,
        **_plots(mirror, kept, came, found, now),
        "snapshots": kept,
        **_served(mirror),
        "takers": demand.takers_of(mirror, now),
        "sources": [_source(source, now) for source in mirror.sources.all()],
        # A proxy's URL may carry a password.
        "proxy_host": urlsplit(mirror.proxy).hostname or "",
        "pushes": _pushes(found, now),
        "runs": mirror.runs.exclude(state=SyncRun.State.UNCHANGED).newest_first()[:RUNS_SHOWN],
        "schedule": _schedule(mirror, now),
        "may_operate": user.may_operate,
        "may_administer": user.may_administer,
        "may_sync": user.may_operate and mirror.enabled and settings.AIRGAP_SIDE != "isolated",
        "by_courier": found.by_courier,
        "brought": found.brought,
        "came": came,
    }


def _sites(mirror: Mirror, found: Standing) -> list[dict[str, object]]:
    """Where this database is besides here, which build, since when, and how that is known."""
    there = Q(is_assumed=False) | Q(site__receipts=Site.Receipts.NONE)
    rows = SiteHolding.objects.filter(there, mirror_name=mirror.name).select_related("site").order_by("is_assumed")
    latest = {row.site_id: row for row in rows}
    shown = sorted(latest.values(), key=lambda row: (row.since, row.pk), reverse=True)
    return [
        {"holding": row, "is_current": found.current is not None and holds(row, found.current)}
        for row in shown[:SITES_SHOWN]
    ]


def _served(mirror: Mirror) -> dict[str, object]:
    """Under which names and tags scanners get it here."""
    names, tags = serving.names_of(mirror), serving.tags_of(mirror)
    return {
        "served_names": names,
        "served_tags": [tag for tag in tags if not serving.is_dated(tag)],
        "dated_tag": next(filter(serving.is_dated, tags), ""),
    }


def _pushes(found: Standing, now: datetime) -> list[dict[str, object]]:
    """Where it is pushed to, and how that stands."""
    return [
        {"standing": each, "moving": moving(each.open_run, now) if each.open_run else None} for each in found.pushes
    ]


def _minutes(age: timedelta | None) -> int | None:
    return None if age is None else age // timedelta(minutes=1)


def _kept(mirror: Mirror) -> Any:
    """The kept snapshots, newest first, each with `in_bundle`."""
    held = BundleSnapshot.objects.filter(snapshot=OuterRef("pk"), bundle__expired_at=None)
    rows = mirror.snapshots.newest_first().annotate(in_bundle=Exists(held))[:SNAPSHOTS_SHOWN]
    for snapshot in rows:
        snapshot.mirror = mirror
        yield snapshot


def _came(mirror: Mirror) -> Iterable[ImportedSnapshot]:
    """What bundles carried of it, the newest first; nothing is looked for on the connected side."""
    if settings.AIRGAP_SIDE == "connected":
        return ()
    rows = ImportedSnapshot.objects.filter(mirror=mirror).exclude(run__finished_at=None).select_related("run")
    return rows.order_by("-run__finished_at", "-pk")[:RUNS_SHOWN]


def _plots(
    mirror: Mirror, kept: list[Snapshot], came: list[ImportedSnapshot], found: Standing, now: datetime
) -> dict[str, plot.Sawtooth | None]:
    """The saw-tooth in two widths, for a desk and for a phone: letters in a stretched picture cannot be read."""
    points = [point for point in _points(mirror, kept, came, found.verdict.judged_from, now) if point[0] <= now]
    if not points:
        return {"plot": None, "slim_plot": None}
    start = max(min(fetched for fetched, _ in points), now - PLOTTED)
    start = min(start, now - SHORTEST_PLOT)
    limits = found.verdict.limits
    wide = plot.sawtooth(points, limits, start, now, width=1160, height=220)
    slim = plot.sawtooth(points, limits, start, now, width=360, height=200)
    # As many labels as for the desk would run into each other.
    return {"plot": wide, "slim_plot": replace(slim, x_ticks=slim.x_ticks[::2])}


def _points(
    mirror: Mirror, kept: list[Snapshot], came: list[ImportedSnapshot], judged_from: str, now: datetime
) -> Iterable[tuple[datetime, datetime]]:
    """When the age fell and to what date. A database falls to a newer build, everything else to a confirmation."""
    if came:
        # What a courier carries makes us younger when it arrives, not when it was fetched.
        dates = [(row.run.finished_at, row.updated_at if judged_from == BUILT else row.confirmed_at) for row in came]
        return [(at, date) for at, date in dates if at is not None and date is not None]
    if judged_from == BUILT:
        return [(snapshot.fetched_at, snapshot.updated_at) for snapshot in kept if snapshot.updated_at is not None]
    ended = mirror.runs.filter(state__in=SyncRun.SUCCESSES, finished_at__gte=now - PLOTTED).order_by("-finished_at")
    moments = [at for at in ended.values_list("finished_at", flat=True)[:CONFIRMATIONS_PLOTTED] if at is not None]
    moments += [moment for snapshot in kept for moment in (snapshot.fetched_at, snapshot.confirmed_at)]
    return {(moment, moment) for moment in moments}


def _source(source: Any, now: datetime) -> dict[str, object]:
    """A source's row, with what is noteworthy about how it is reached and what it answered."""
    skew = source.clock_skew_seconds or 0
    return {
        "row": source,
        "waits": source.retry_at if source.retry_at is not None and source.retry_at > now else None,
        "skew": timedelta(seconds=abs(skew)) if abs(skew) >= SKEW_WORTH_TELLING else None,
        "skew_ahead": skew > 0,
        "login": source.login_means,
        "has_ca": bool(source.ca_pem),
    }


def _schedule(mirror: Mirror, now: datetime) -> dict[str, object]:
    """The schedule in words, and when it comes next."""
    try:
        schedule = Schedule.parse(mirror.schedule_text)
    except ScheduleError as problem:
        return {"sentence": str(problem), "upcoming": [], "times": ""}
    upcoming: list[datetime] = []
    moment = mirror.next_sync_at
    active = mirror.enabled and settings.AIRGAP_SCHEDULE and settings.AIRGAP_SIDE != "isolated"
    while active and moment is not None and len(upcoming) < 3:
        upcoming.append(moment)
        later = max(moment, now)
        moment = schedule.next_after(later, later, mirror.name)
    times = ", ".join(f"{moment.astimezone(UTC):%a %H:%M}" for moment in upcoming)
    return {"sentence": schedule.sentence(), "upcoming": upcoming, "times": times}


@require_POST
@operator_required
def mirror_sync(request: PageRequest, name: str) -> HttpResponse:
    """Ask for a run now. With htmx from the dashboard, the answer is the row with its run."""
    mirror = get_object_or_404(Mirror, name=name)
    try:
        run, created = runs.request_sync(
            mirror, trigger=SyncRun.Trigger.HAND, by=request.user.username, now=timezone.now()
        )
    except runs.RunError as refusal:
        messages.error(request, str(refusal))
        return _back(request, mirror)
    if created:
        tasks.send_run(run)
    if request.htmx and (request.htmx.target or "").startswith("row-"):
        return row(request, name)
    if not created:
        messages.info(request, f"{mirror.label} is being synced already.")
    return _back(request, mirror)


@require_POST
@operator_required
def mirror_release(request: PageRequest, name: str) -> HttpResponse:
    mirror = get_object_or_404(Mirror, name=name)
    released = snapshots.release(mirror, by=request.user.username, now=timezone.now(), address=address_of(request))
    if released:
        messages.success(request, f"{mirror.label} is released. {_switchers(mirror)} switch it again.")
    else:
        messages.info(request, f"{mirror.label} was not held.")
    return _back(request, mirror)


@require_POST
@operator_required
def snapshot_pin(request: PageRequest, pk: int) -> HttpResponse:
    """Pin, or with `unpin` in the form, leave it to retention again."""
    snapshot = get_object_or_404(Snapshot.objects.select_related("mirror"), pk=pk)
    by, now, address = request.user.username, timezone.now(), address_of(request)
    try:
        if "unpin" in request.POST:
            snapshots.unpin(snapshot, by=by, now=now, address=address)
            messages.success(request, "Unpinned. Retention decides about it again.")
        else:
            snapshots.pin(snapshot, by=by, now=now, reason=request.POST.get("reason", ""), address=address)
            messages.success(request, "Pinned. It is kept, however many newer ones come.")
    except SnapshotError as refusal:
        messages.error(request, str(refusal))
    return _back(request, snapshot.mirror)


@require_http_methods(["GET", "HEAD", "POST"])
@operator_required
def snapshot_roll_back(request: PageRequest, pk: int) -> HttpResponse:
    """GET asks whether it is meant, POST does it."""
    snapshot = get_object_or_404(Snapshot.objects.select_related("mirror__current"), pk=pk)
    mirror = snapshot.mirror
    if request.method == "POST":
        try:
            snapshots.roll_back(
                snapshot,
                by=request.user.username,
                now=timezone.now(),
                reason=request.POST.get("reason", ""),
                address=address_of(request),
            )
        except SnapshotError as refusal:
            messages.error(request, str(refusal))
        else:
            messages.success(
                request,
                f"{mirror.label} is rolled back and held. {_switchers(mirror)} do not switch it until you release it.",
            )
        return _back(request, mirror)
    context = {"snapshot": snapshot, "mirror": mirror, "now": timezone.now()}
    return render(request, "mirror/roll_back.html", {**context, "by_courier": mirroring.comes_in_bundles(mirror)})


def _switchers(mirror: Mirror) -> str:
    return "Imports" if mirroring.comes_in_bundles(mirror) else "Syncs"


def _back(request: PageRequest, mirror: Mirror) -> HttpResponse:
    """Where the button was; htmx is told to load it, so that the message is seen."""
    target = "mirrors:dashboard" if request.POST.get("back") == "dashboard" else "mirrors:mirror-detail"
    response = redirect(target) if target == "mirrors:dashboard" else redirect(target, name=mirror.name)
    if request.htmx:
        return HttpResponse(headers={"HX-Redirect": response["Location"]})
    return response
