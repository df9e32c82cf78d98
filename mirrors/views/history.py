"""History: every run, syncs, pushes and imports together, filtered by links in the URL."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.db.models import Q, QuerySet
from django.http import HttpResponse, QueryDict, StreamingHttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from mirrors import wording
from mirrors.models import Destination, Import, ImportedSnapshot, Mirror, PushRun, Run, SyncRun
from mirrors.views.page import PageRequest
from mirrors.views.tables import csv_answer

PAGE = 50
CSV_CHUNK = 2000
LINKED_MIRRORS = 10
DAYS = (("today", 0), ("yesterday", 1))

State = Run.State
TRIGGERS = {**dict(SyncRun.Trigger.choices), **dict(PushRun.Trigger.choices)}
ORIGINS = dict(Import.Origin.choices)
EVERYTHING = "all"
SYNCS, PUSHES, IMPORTS = PLACES = ("sync", "push", "import")
KIND_WORDS = {SYNCS: "syncs", PUSHES: "pushes", IMPORTS: "imports"}
# Outcomes as people filter them; by default what found nothing new is left out.
OUTCOMES = (
    ("", "all but unchanged"),
    (EVERYTHING, "all"),
    (State.SUCCEEDED, "succeeded"),
    (State.UNCHANGED, "unchanged"),
    (State.FAILED, "failed"),
    (State.CANCELLED, "stopped"),
    (State.LOST, "lost"),
    ("open", "open"),
)


@dataclass(frozen=True)
class Filters:
    """What the URL asks for. Unknown values are as if absent.

    `before` are the keys of the last sync, the last push and the last import of the page before; None for one that it
    had none of.
    """

    database: str = ""
    outcome: str = ""
    who: str = ""
    day: date | None = None
    kind: str = ""
    destination: str = ""
    before: tuple[int | None, ...] | None = None

    @classmethod
    def read(cls, asked: QueryDict) -> "Filters":
        outcome, kind = asked.get("outcome", ""), asked.get("kind", "")
        return cls(
            database=asked.get("database", "")[:80],
            outcome=outcome if outcome in dict(OUTCOMES) else "",
            who=asked.get("who", "")[:150],
            day=_day(asked.get("day", "")),
            kind=kind if kind in KIND_WORDS else "",
            destination=asked.get("destination", "")[:80],
            before=_place(asked.get("before", "")),
        )

    def url(self, view: str = "mirrors:history", **changes: object) -> str:
        """The same page with some filters changed, from its newest run on."""
        names = ("database", "outcome", "who", "day", "kind", "destination")
        values = {name: getattr(self, name) for name in names} | changes
        chosen = {name: str(value) for name, value in values.items() if value}
        return f"{reverse(view)}?{urlencode(chosen)}" if chosen else reverse(view)

    def newest(self, count: int) -> list[Any]:
        """The newest runs that it lets through, of every kind, by when they were queued."""
        found = [list(runs[:count]) for runs in self.tables() if runs is not None]
        return list(islice(together(found), count))

    def tables(self) -> tuple[QuerySet[Any] | None, ...]:
        """Syncs, pushes and imports, each newest first; None where they are not asked for."""
        return self.syncs(), self.pushes(), self.imports()

    def syncs(self) -> QuerySet[Any] | None:
        if self.kind not in ("", SYNCS) or self.destination:
            return None
        rows: QuerySet[SyncRun] = self._through(SyncRun.objects.newest_first()).select_related("mirror")
        return self._beyond(SYNCS, rows)

    def pushes(self) -> QuerySet[Any] | None:
        if self.kind not in ("", PUSHES):
            return None
        rows: QuerySet[PushRun] = self._through(PushRun.objects.newest_first()).select_related("mirror", "destination")
        if self.destination:
            wanted = Destination.objects.filter(name=self.destination).values_list("pk", flat=True).first()
            rows = rows.filter(destination_id=wanted or 0)
        return self._beyond(PUSHES, rows)

    def imports(self) -> QuerySet[Any] | None:
        """There are none where nothing is imported."""
        if self.kind not in ("", IMPORTS) or self.destination or settings.AIRGAP_SIDE == "connected":
            return None
        rows: QuerySet[Import] = self._through(Import.objects.newest_first(), trigger="origin")
        # Files and report of an import may be long, and are not shown here.
        return self._beyond(IMPORTS, rows).defer("files", "parsed", "report")

    def _beyond(self, kind: str, rows: QuerySet[Any]) -> QuerySet[Any]:
        last = self.before[PLACES.index(kind)] if self.before else None
        return rows if last is None else rows.filter(pk__lt=last)

    def _through(self, rows: Any, trigger: str = "trigger") -> Any:
        """Everything is found by an index or by walking the key, never by counting."""
        if self.database:
            wanted = Mirror.objects.filter(name=self.database).values_list("pk", flat=True).first()
            if trigger == "origin":
                rows = rows.filter(pk__in=ImportedSnapshot.objects.filter(mirror_id=wanted or 0).values("run_id"))
            else:
                rows = rows.filter(mirror_id=wanted or 0)
        if self.outcome == "open":
            rows = rows.open()
        elif not self.outcome:
            rows = rows.exclude(state=State.UNCHANGED)
        elif self.outcome != EVERYTHING:
            rows = rows.filter(state=self.outcome)
        if self.who:
            is_person = self.who not in TRIGGERS and self.who not in ORIGINS
            rows = rows.filter(**{"requested_by" if is_person else trigger: self.who})
        if self.day is not None:
            rows = rows.filter(_ended_on(self.day))
        return rows

    def after(self, shown: Sequence[Run]) -> str:
        """The URL of the page that goes on after these."""
        before = list(self.before or [None] * len(PLACES))
        for run in shown:
            before[PLACES.index(run.kind)] = run.pk
        url = self.url()
        return f"{url}{'&' if '?' in url else '?'}before={'.'.join(str(key or '') for key in before)}"


def together(sorted_runs: Iterable[Iterable[Any]]) -> Iterator[Any]:
    """Runs of several tables, each newest first, as one list."""
    return heapq.merge(*sorted_runs, key=lambda run: run.queued_at, reverse=True)


def _place(text: str) -> tuple[int | None, ...] | None:
    """`123.45.6`: a sync's, a push's and an import's key, any of which may be missing."""
    parts = [*text.split("."), "", ""][: len(PLACES)]
    if not text or len(text) > 60 or not all(part == "" or (part.isascii() and part.isdigit()) for part in parts):
        return None
    if any(len(part) >= 18 for part in parts):
        return None
    return tuple(int(part) if part else None for part in parts)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _ended_on(day: date) -> Q:
    """Runs that ended on a day (UTC); today, also those that are still open."""
    start = datetime.combine(day, time(), UTC)
    ended = Q(finished_at__gte=start, finished_at__lt=start + timedelta(days=1))
    return ended | Q(finished_at=None) if day == timezone.now().date() else ended


@require_safe
def history(request: PageRequest) -> HttpResponse:
    filters = Filters.read(request.GET)
    found = filters.newest(PAGE + 1)
    shown = found[:PAGE]
    now = timezone.now()
    mirrors = list(Mirror.objects.values_list("name", "label"))
    destinations = list(Destination.objects.in_order().values_list("name", "label"))
    labels = dict(mirrors)
    context = {
        "now": now,
        "filters": filters,
        "headline": _headline(filters, labels, dict(destinations)),
        "runs": shown,
        "older": filters.after(shown) if found[PAGE:] else "",
        "newest": filters.url() if filters.before is not None else "",
        "csv": filters.url("mirrors:history-csv"),
        "mirrors": mirrors,
        "choices": _choices(filters, mirrors, destinations, now),
        "has_any": bool(shown) or any(model.objects.exists() for model in (SyncRun, PushRun, Import)),
        "with_unchanged": filters.url(outcome=EVERYTHING),
        "everything": reverse("mirrors:history") + "?outcome=all",
    }
    return render(request, "history/history.html", context)


def _choices(
    filters: Filters, mirrors: list[tuple[str, str]], destinations: list[tuple[str, str]], now: datetime
) -> list[dict[str, object]]:
    """The filter lines: name, and links with the chosen one marked. Mirrors beyond a few are searched for instead."""
    linked = mirrors if len(mirrors) <= LINKED_MIRRORS else [m for m in mirrors if m[0] == filters.database]
    today = now.date()
    days = [(str(today - timedelta(days=back)), name) for name, back in DAYS]
    if filters.day is not None and str(filters.day) not in dict(days):
        days.append((str(filters.day), f"{filters.day.day} {filters.day:%b %Y}"))
    imports = settings.AIRGAP_SIDE != "connected"
    people = list(TRIGGERS.items()) if destinations else list(SyncRun.Trigger.choices)
    if imports:
        people += [(value, text) for value, text in ORIGINS.items() if value not in dict(people)]
    if filters.who and filters.who not in dict(people):
        people.append((filters.who, filters.who))

    def line(name: str, field: str, options: list[tuple[str, str]], chosen: str) -> dict[str, object]:
        links = [
            {"url": filters.url(**{field: value}), "text": text, "chosen": value == chosen} for value, text in options
        ]
        return {"name": name, "field": field, "links": links}

    kinds = [kind for kind in PLACES if kind != IMPORTS or imports]
    what = [("", "all"), *((kind, KIND_WORDS[kind]) for kind in kinds)]
    lines = [line("What", "kind", what, filters.kind)] if destinations or imports else []
    if destinations and filters.kind in ("", PUSHES):
        # Beyond a few, each destination's own page leads to its pushes.
        few = destinations if len(destinations) <= LINKED_MIRRORS else []
        shown = few or [each for each in destinations if each[0] == filters.destination]
        lines.append(line("Destination", "destination", [("", "all"), *shown], filters.destination))
    return [
        *lines,
        line("Database", "database", [("", "all"), *linked], filters.database),
        line("Outcome", "outcome", [(str(value), text) for value, text in OUTCOMES], filters.outcome),
        line("Started by", "who", [("", "anybody"), *people], filters.who),
        line("Ended", "day", [("", "any day"), *days], str(filters.day or "")),
    ]


def _headline(filters: Filters, labels: dict[str, str], destinations: dict[str, str]) -> str:
    """The page's sentence: what is shown here."""
    noun = wording.capitalized(KIND_WORDS.get(PUSHES if filters.destination else filters.kind, "runs"))
    shown = {
        "": f"{noun} that changed something or failed",
        EVERYTHING: f"Every {noun.lower().removesuffix('s').replace('pushe', 'push')}",
        State.SUCCEEDED: f"{noun} that brought something new",
        State.UNCHANGED: f"{noun} that found nothing new",
        State.FAILED: f"{noun} that failed",
        State.CANCELLED: f"{noun} that were stopped",
        State.LOST: f"{noun} whose worker went away",
        "open": f"{noun} under way",
    }[filters.outcome]
    of = f" of {wording.with_article(labels.get(filters.database, filters.database))}" if filters.database else ""
    to = f" to {destinations.get(filters.destination, filters.destination)}" if filters.destination else ""
    return f"{shown}{of}{to}, newest first."


@require_safe
def history_csv(request: PageRequest) -> StreamingHttpResponse:
    """Everything the filters let through, as it is read; the page's place (`before`) does not count."""
    chosen = Filters.read(request.GET)
    everything = replace(chosen, before=None)
    name = f"airgap-runs-{timezone.now():%Y%m%dT%H%M%SZ}.csv"
    syncs, pushes, imports = everything.tables()
    if imports is not None:
        imports = imports.prefetch_related("contents")
    return csv_answer(name, CSV_COLUMNS, csv_rows(syncs, pushes, imports))


# What came later stands last: scripts read by position, too.
CSV_COLUMNS = (
    "run", "mirror", "outcome", "trigger", "requested_by", "queued_at", "started_at", "finished_at", "seconds",
    "source", "bytes_downloaded", "requests", "error", "note", "kind", "destination", "target", "bytes_uploaded",
)  # fmt: skip


def csv_rows(*found: QuerySet[Any] | None) -> Iterator[Sequence[object]]:
    for run in together(_in_chunks(rows) for rows in found if rows is not None):
        took = run.duration
        is_push, is_import = run.kind == PUSHES, run.kind == IMPORTS
        yield (
            run.pk, _brought(run) if is_import else run.mirror.name, run.state,
            run.origin if is_import else run.trigger, run.requested_by, run.queued_at, run.started_at,
            run.finished_at, None if took is None else f"{took.total_seconds():.1f}",
            "" if is_push else (run.bundle or run.name) if is_import else run.source_reference,
            run.bytes_downloaded if run.kind == SYNCS else 0, 0 if is_import else run.requests, run.error,
            run.note, run.kind, run.destination.name if is_push else "", run.reference if is_push else "",
            run.bytes_uploaded if is_push else 0,
        )  # fmt: skip


def _brought(run: Import) -> str:
    """The mirrors of the bundle, in its order; no name has a space. Kinds that this version does not know stay out."""
    left = ImportedSnapshot.Outcome.LEFT
    return " ".join(row.mirror_name for row in run.contents.all() if row.outcome != left)


def _in_chunks(found: QuerySet[Any]) -> Iterator[Any]:
    """Read in chunks by key, so that no transaction stays open while somebody downloads slowly."""
    last: int | None = None
    while chunk := list((found if last is None else found.filter(pk__lt=last))[:CSV_CHUNK]):
        last = chunk[-1].pk
        yield from chunk
