"""The dashboard: a sentence, a row a database, and what moves. One view for the page and its live parts."""

from collections.abc import Sequence
from typing import TypedDict

from django.conf import settings
from django.db.models import Count, Sum
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_safe

from mirrors import clock, retention, site_standing, standing
from mirrors.blobs import StoreError
from mirrors.models import Mirror, Site, Snapshot
from mirrors.views.page import PageRequest, live_page
from mirrors.views.rows import drawn, drawn_rows, row_of

# Running rows ask for themselves; the whole looks again for what the schedule began and ended. A look costs time with
# each row, so a long dashboard is looked at less often.
LOOK_AGAIN_SECONDS = 5
LOOK_AGAIN_SECONDS_WHEN_LONG = 20
LONG = 50
# The worst of them; the page of sites has all.
SITES_SHOWN = 24


@require_safe
def dashboard(request: PageRequest) -> HttpResponse:
    """How everything stands; `?row=NAME` is one row, for htmx."""
    if name := request.GET.get("row"):
        return row(request, name) if request.htmx else redirect("mirrors:dashboard")
    reading = clock.trusted_now()
    overview = standing.overview(reading)
    over_there = _over_there(reading, [found.mirror for found in overview.standings])
    rows = len(overview.standings) + over_there["site_count"]
    return live_page(
        request,
        "dashboard/dashboard.html",
        "dashboard/_board.html",
        {**_context(request, overview), **over_there},
        every=LOOK_AGAIN_SECONDS if rows <= LONG else LOOK_AGAIN_SECONDS_WHEN_LONG,
    )


def row(request: PageRequest, name: str) -> HttpResponse:
    """One row alone. When its run has ended, the page is told to look at the rest again."""
    mirror = get_object_or_404(Mirror.objects.select_related("current"), name=name)
    reading = clock.trusted_now()
    found = standing.standings([mirror], reading)[0]
    response = HttpResponse(drawn(row_of(found, reading.now, request.user.may_operate)))
    if found.open_run is None:
        response["HX-Trigger-After-Settle"] = "look-again"
    return response


def _context(request: PageRequest, overview: standing.Overview) -> dict[str, object]:
    user = request.user
    try:
        space = retention.space(overview.now)
    except StoreError:
        space = None
    return {
        "overview": overview,
        "rows": drawn_rows(overview.standings, overview.now, user),
        "now": overview.now,
        "may_operate": user.may_operate,
        "may_administer": user.may_administer,
        "schedule_on": settings.AIRGAP_SCHEDULE,
        "courier_days": settings.AIRGAP_COURIER_DAYS,
        "space": space,
        "holders": _holders(overview),
        # The board shows it itself, so that it comes and goes with the rest.
        "clock_banner": "",
    }


class OverThere(TypedDict):
    """What the board shows of sites."""

    sites: list[site_standing.SiteStanding]
    site_count: int
    more_sites: int


def _over_there(reading: clock.Reading, mirrors: Sequence[Mirror]) -> OverThere:
    """How old it is at each site, the worst first."""
    found = list(Site.objects.in_order())
    if not found:
        return {"sites": [], "site_count": 0, "more_sites": 0}
    standings = site_standing.worst_first(site_standing.standings(found, reading, mirrors))
    more = max(0, len(standings) - SITES_SHOWN)
    return {"sites": standings[:SITES_SHOWN], "site_count": len(standings), "more_sites": more}


def _holders(overview: standing.Overview) -> list[dict[str, object]]:
    """The mirrors whose snapshots weigh most, from one grouped query."""
    labels = {found.mirror.pk: found.mirror.label for found in overview.standings}
    rows = Snapshot.objects.order_by().values("mirror_id").annotate(bytes=Sum("size_bytes"), count=Count("pk"))
    heaviest = sorted(rows, key=lambda row: -row["bytes"])[:2]
    return [
        {"label": labels.get(row["mirror_id"], "a deleted mirror"), "bytes": row["bytes"], "count": row["count"]}
        for row in heaviest
        if row["bytes"]
    ]
