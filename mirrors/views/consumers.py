"""Consumers: who last took what, who is late, the oldest data in use, and the downloads to come."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.db.models import Q
from django.http import HttpResponse, QueryDict, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from mirrors import consumers as consuming
from mirrors import consumption, demand, reading, taken_log
from mirrors.forms.consumers import ConsumersForm
from mirrors.models import Mirror, Taking
from mirrors.models.consumer import TakingQuerySet
from mirrors.views.access import address_of, administrator_required
from mirrors.views.page import PageRequest
from mirrors.views.tables import csv_answer

PAGE = 50
CSV_CHUNK = 2000
LARGEST_PAGE = 10_000


@dataclass(frozen=True)
class Filters:
    """What the URL asks for. Unknown values are as if absent; `q` is part of an address, name or program."""

    database: str = ""
    state: str = ""
    q: str = ""
    page: int = 1

    @classmethod
    def read(cls, asked: QueryDict) -> "Filters":
        state, page = asked.get("state", ""), asked.get("page", "")
        number = int(page) if page.isascii() and page.isdigit() and len(page) < 7 else 1
        return cls(
            database=asked.get("database", "")[:80],
            state=state if state in consumption.STATES else "",
            q=asked.get("q", "").strip()[:80],
            page=min(max(number, 1), LARGEST_PAGE),
        )

    def url(self, view: str = "mirrors:consumers", **changes: object) -> str:
        """The same page with some filters changed, from its beginning."""
        values = {"database": self.database, "state": self.state, "q": self.q, **changes}
        chosen = {name: str(value) for name, value in values.items() if value}
        return f"{reverse(view)}?{urlencode(chosen)}" if chosen else reverse(view)

    def rows(self, now: datetime) -> TakingQuerySet:
        rows = Taking.objects.newest_first()
        if self.database:
            wanted = Mirror.objects.filter(name=self.database).values_list("pk", flat=True).first()
            rows = rows.filter(mirror_id=wanted or 0)
        if self.state:
            rows = rows.in_state(self.state, now)
        if self.q:
            rows = rows.filter(
                Q(consumer__address__icontains=self.q)
                | Q(consumer__reader_name__icontains=self.q)
                | Q(consumer__agent__icontains=self.q)
            )
        return rows


@require_safe
def consumers(request: PageRequest) -> HttpResponse:
    now = timezone.now()
    filters = Filters.read(request.GET)
    found = demand.of_all(now)
    start = (filters.page - 1) * PAGE
    rows = list(filters.rows(now).select_related("consumer", "mirror")[start : start + PAGE + 1])
    log = settings.AIRGAP_TAKEN_LOG
    context = {
        "now": now,
        "filters": filters,
        "demand": found,
        "headline": found.headline(),
        "databases": [{"row": each, "load": each.load(now)} for each in found.databases],
        "rows": [{"taking": row, "state": row.state(now)} for row in rows[:PAGE]],
        "choices": _choices(filters, found),
        "newer": filters.url(page=filters.page - 1 if filters.page > 2 else "") if filters.page > 1 else "",
        "older": filters.url(page=filters.page + 1) if rows[PAGE:] else "",
        "csv": filters.url("mirrors:consumers-csv"),
        "kept": reading.serving(),
        "is_blind": settings.AIRGAP_SEND_WITH == "nginx" and log is None,
        "log_trouble": taken_log.trouble(log, now) if log is not None else None,
        "everything": reverse("mirrors:consumers"),
    }
    return render(request, "consumers/consumers.html", context)


def _choices(filters: Filters, found: demand.Demand) -> list[dict[str, object]]:
    def line(name: str, field: str, options: list[tuple[str, str]], chosen: str) -> dict[str, object]:
        links = [
            {"url": filters.url(**{field: value}), "text": text, "chosen": value == chosen} for value, text in options
        ]
        return {"name": name, "field": field, "links": links}

    labels = [(each.mirror.name, each.mirror.label) for each in found.databases]
    states = [(state, state) for state in consumption.STATES]
    return [
        line("Database", "database", [("", "all"), *labels], filters.database),
        line("State", "state", [("", "all"), *states], filters.state),
    ]


@require_safe
def consumers_csv(request: PageRequest) -> StreamingHttpResponse:
    """Everything the filters let through; the page's place does not count."""
    now = timezone.now()
    rows = Filters.read(request.GET).rows(now).select_related("consumer", "mirror")
    return csv_answer(f"airgap-consumers-{now:%Y%m%dT%H%M%SZ}.csv", CSV_COLUMNS, csv_rows(rows, now))


CSV_COLUMNS = (
    "address", "reader", "reader_name", "agent", "mirror", "state", "taken_at", "asked_at", "digest", "updated_at",
    "next_update", "asks_again_at", "late_at", "usual_seconds", "times", "bytes",
)  # fmt: skip


def csv_rows(found: TakingQuerySet, now: datetime) -> Iterator[Sequence[object]]:
    """Read in chunks by key, so that no transaction stays open while somebody downloads slowly."""
    last: int | None = None
    ordered = found.order_by("-pk")
    while chunk := list((ordered if last is None else ordered.filter(pk__lt=last))[:CSV_CHUNK]):
        last = chunk[-1].pk
        for row in chunk:
            who = row.consumer
            yield (
                who.address, who.reader_kind, who.reader_name, who.agent, row.mirror.name, row.state(now),
                row.taken_at, row.asked_at, row.digest, row.updated_at, row.next_update, row.again_at, row.late_at,
                row.usual_seconds, row.count, row.bytes_total,
            )  # fmt: skip


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def consumers_settings(request: PageRequest) -> HttpResponse:
    """Whether consumers are counted at all, how their addresses are kept, and for how long."""
    kept = reading.serving()
    form = ConsumersForm(
        request.POST if request.method == "POST" else None,
        initial={"count": kept.count_consumers, "anonymise": kept.anonymise_addresses, "days": kept.consumers_days},
    )
    if request.method == "POST" and form.is_valid():
        removed = consuming.change_settings(
            count=form.cleaned_data["count"],
            anonymise=form.cleaned_data["anonymise"],
            days=form.cleaned_data["days"],
            by=request.user.get_username(),
            now=timezone.now(),
            address=address_of(request),
        )
        gone = " What was known of consumers was removed." if removed else ""
        messages.success(request, f"Saved.{gone}")
        return redirect("mirrors:consumers")
    return render(request, "consumers/settings.html", {"form": form}, status=422 if request.method == "POST" else 200)
