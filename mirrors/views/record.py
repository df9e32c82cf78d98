"""The record: who did what, when and from where. It only grows, and is read here and as CSV."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from mirrors.models import AuditEntry
from mirrors.views.access import administrator_required
from mirrors.views.tables import csv_answer

PAGE = 50
PERIODS = {
    "day": ("24 hours", timedelta(days=1)),
    "week": ("7 days", timedelta(days=7)),
    "month": ("30 days", timedelta(days=30)),
}
# Longer numbers than a key can have; SQLite and PostgreSQL refuse them in words of their own.
LARGEST_KEY = 2**63 - 1


def _chosen(request: HttpRequest) -> dict[str, str]:
    """The filters in the URL, only those that are set."""
    wanted = {name: request.GET.get(name, "").replace("\0", "").strip()[:200] for name in ("q", "action", "period")}
    return {name: value for name, value in wanted.items() if value}


def _entries(chosen: dict[str, str], now: datetime) -> QuerySet[AuditEntry]:
    entries = AuditEntry.objects.order_by("-pk")
    if words := chosen.get("q"):
        entries = entries.filter(
            Q(actor__icontains=words)
            | Q(subject__icontains=words)
            | Q(detail__icontains=words)
            | Q(address__icontains=words)
        )
    if action := chosen.get("action"):
        entries = entries.filter(action=action)
    if chosen.get("period") in PERIODS:
        entries = entries.filter(at__gte=now - PERIODS[chosen["period"]][1])
    return entries


def _link(chosen: dict[str, str], **changes: str) -> str:
    """The page with other filters: `?…`, without those that are empty."""
    kept = {name: value for name, value in {**chosen, **changes}.items() if value}
    return "?" + urlencode(kept)


@require_safe
@administrator_required
def record(request: HttpRequest) -> HttpResponse:
    now, chosen = timezone.now(), _chosen(request)
    before = request.GET.get("before", "")
    entries = _entries(chosen, now)
    is_older = before.isascii() and before.isdigit() and int(before) <= LARGEST_KEY
    if is_older:
        entries = entries.filter(pk__lt=int(before))
    page = list(entries[: PAGE + 1])
    older = _link(chosen, before=str(page[PAGE - 1].pk)) if len(page) > PAGE else ""
    actions = AuditEntry.objects.order_by("action").values_list("action", flat=True).distinct()
    context = {
        "entries": page[:PAGE],
        "chosen": chosen,
        "now": now,
        "older": older,
        "newest": _link(chosen) if is_older else "",
        "all_actions": _link(chosen, action=""),
        "actions": [(action, _link(chosen, action=action)) for action in actions],
        "all_periods": _link(chosen, period=""),
        "periods": [(key, label, _link(chosen, period=key)) for key, (label, _) in PERIODS.items()],
        "csv": _link(chosen),
    }
    return render(request, "record/record.html", context)


@require_safe
@administrator_required
def record_csv(request: HttpRequest) -> StreamingHttpResponse:
    now = timezone.now()
    columns = ("at", "who", "what", "subject", "detail", "address")
    return csv_answer(f"airgap-record-{now:%Y%m%dT%H%M%SZ}.csv", columns, _rows(_entries(_chosen(request), now)))


def _rows(entries: QuerySet[AuditEntry]) -> Iterator[Sequence[object]]:
    for entry in entries.iterator(chunk_size=500):
        yield entry.at, entry.actor, entry.action, entry.subject, entry.detail, entry.address
