"""History: every run, filtered by links in the URL, and the page that tells one run's story."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import Q, QuerySet
from django.http import HttpResponse, QueryDict, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from mirrors import runs, wording
from mirrors.models import Mirror, RunStep, SyncRun
from mirrors.models.run import SyncRunQuerySet
from mirrors.registry.references import host_of
from mirrors.views.access import operator_required
from mirrors.views.dashboard import row
from mirrors.views.page import PageRequest, live_page
from mirrors.views.rows import moving
from mirrors.views.tables import csv_answer

PAGE = 50
CSV_CHUNK = 2000
LINKED_MIRRORS = 10
RUNNING_SECONDS = 2
DAYS = (("today", 0), ("yesterday", 1))

State, Trigger = SyncRun.State, SyncRun.Trigger
EVERYTHING = "all"
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
    """What the URL asks for. Unknown values are as if absent; `before` is the last run's key of the page before."""

    database: str = ""
    outcome: str = ""
    who: str = ""
    day: date | None = None
    before: int | None = None

    @classmethod
    def read(cls, asked: QueryDict) -> "Filters":
        outcome = asked.get("outcome", "")
        before = asked.get("before", "")
        return cls(
            database=asked.get("database", "")[:80],
            outcome=outcome if outcome in dict(OUTCOMES) else "",
            who=asked.get("who", "")[:150],
            day=_day(asked.get("day", "")),
            before=int(before) if before.isascii() and before.isdigit() and len(before) < 18 else None,
        )

    def url(self, view: str = "mirrors:history", **changes: object) -> str:
        """The same page with some filters changed, from its newest run on."""
        values = {"database": self.database, "outcome": self.outcome, "who": self.who, "day": self.day, **changes}
        chosen = {name: str(value) for name, value in values.items() if value}
        return f"{reverse(view)}?{urlencode(chosen)}" if chosen else reverse(view)

    def runs(self) -> SyncRunQuerySet:
        """Newest first. Everything is found by an index or by walking the key, never by counting."""
        rows = SyncRun.objects.newest_first()
        if self.database:
            wanted = Mirror.objects.filter(name=self.database).values_list("pk", flat=True).first()
            rows = rows.filter(mirror_id=wanted or 0)
        if self.outcome == "open":
            rows = rows.open()
        elif not self.outcome:
            rows = rows.exclude(state=State.UNCHANGED)
        elif self.outcome != EVERYTHING:
            rows = rows.filter(state=self.outcome)
        if self.who:
            triggers = dict(Trigger.choices)
            rows = rows.filter(trigger=self.who) if self.who in triggers else rows.filter(requested_by=self.who)
        if self.day is not None:
            rows = rows.filter(_ended_on(self.day))
        if self.before is not None:
            rows = rows.filter(pk__lt=self.before)
        return rows


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
    found = list(filters.runs().select_related("mirror")[: PAGE + 1])
    shown = found[:PAGE]
    now = timezone.now()
    mirrors = list(Mirror.objects.values_list("name", "label"))
    labels = dict(mirrors)
    context = {
        "now": now,
        "filters": filters,
        "headline": _headline(filters, labels),
        "runs": shown,
        "older": filters.url() + ("&" if "?" in filters.url() else "?") + f"before={shown[-1].pk}"
        if found[PAGE:]
        else "",
        "newest": filters.url() if filters.before is not None else "",
        "csv": filters.url("mirrors:history-csv"),
        "mirrors": mirrors,
        "choices": _choices(filters, mirrors, now),
        "has_any": bool(shown) or SyncRun.objects.exists(),
        "with_unchanged": filters.url(outcome=EVERYTHING),
        "everything": reverse("mirrors:history") + "?outcome=all",
    }
    return render(request, "history/history.html", context)


def _choices(filters: Filters, mirrors: list[tuple[str, str]], now: datetime) -> list[dict[str, object]]:
    """The filter lines: name, and links with the chosen one marked. Mirrors beyond a few are searched for instead."""
    linked = mirrors if len(mirrors) <= LINKED_MIRRORS else [m for m in mirrors if m[0] == filters.database]
    today = now.date()
    days = [(str(today - timedelta(days=back)), name) for name, back in DAYS]
    if filters.day is not None and str(filters.day) not in dict(days):
        days.append((str(filters.day), f"{filters.day.day} {filters.day:%b %Y}"))
    people = list(Trigger.choices)
    if filters.who and filters.who not in dict(people):
        people.append((filters.who, filters.who))

    def line(name: str, field: str, options: list[tuple[str, str]], chosen: str) -> dict[str, object]:
        links = [
            {"url": filters.url(**{field: value}), "text": text, "chosen": value == chosen} for value, text in options
        ]
        return {"name": name, "field": field, "links": links}

    return [
        line("Database", "database", [("", "all"), *linked], filters.database),
        line("Outcome", "outcome", [(str(value), text) for value, text in OUTCOMES], filters.outcome),
        line("Started by", "who", [("", "anybody"), *people], filters.who),
        line("Ended", "day", [("", "any day"), *days], str(filters.day or "")),
    ]


def _headline(filters: Filters, labels: dict[str, str]) -> str:
    """The page's sentence: what is shown here."""
    kind = {
        "": "Runs that changed something or failed",
        EVERYTHING: "Every run",
        State.SUCCEEDED: "Runs that brought something new",
        State.UNCHANGED: "Runs that found nothing new",
        State.FAILED: "Runs that failed",
        State.CANCELLED: "Runs that were stopped",
        State.LOST: "Runs whose worker went away",
        "open": "Runs under way",
    }[filters.outcome]
    of = f" of {wording.with_article(labels.get(filters.database, filters.database))}" if filters.database else ""
    return f"{kind}{of}, newest first."


@require_safe
def history_csv(request: PageRequest) -> StreamingHttpResponse:
    """Everything the filters let through, as it is read; the page's place (`before`) does not count."""
    chosen = Filters.read(request.GET)
    everything = Filters(chosen.database, chosen.outcome, chosen.who, chosen.day)
    name = f"airgap-runs-{timezone.now():%Y%m%dT%H%M%SZ}.csv"
    return csv_answer(name, CSV_COLUMNS, csv_rows(everything.runs().select_related("mirror")))


CSV_COLUMNS = (
    "run", "mirror", "outcome", "trigger", "requested_by", "queued_at", "started_at", "finished_at", "seconds",
    "source", "bytes_downloaded", "requests", "error", "note",
)  # fmt: skip


def csv_rows(found: QuerySet[SyncRun]) -> Iterator[Sequence[object]]:
    """Read in chunks by key, so that no transaction stays open while somebody downloads slowly."""
    last: int | None = None
    while chunk := list((found if last is None else found.filter(pk__lt=last))[:CSV_CHUNK]):
        last = chunk[-1].pk
        for run in chunk:
            took = run.duration
            yield (
                run.pk, run.mirror.name, run.state, run.trigger, run.requested_by, run.queued_at, run.started_at,
                run.finished_at, None if took is None else f"{took.total_seconds():.1f}", run.source_reference,
                run.bytes_downloaded, run.requests, run.error, run.note,
            )  # fmt: skip


@require_safe
def run_detail(request: PageRequest, pk: int) -> HttpResponse:
    """The story of one run; while it is open, it goes on by itself."""
    run = get_object_or_404(SyncRun.objects.select_related("mirror", "snapshot"), pk=pk)
    if run.snapshot is not None:
        run.snapshot.mirror = run.mirror
    now = timezone.now()
    headline, explanation = told(run, now)
    steps = list(run.steps.all())
    context = {
        "now": now,
        "run": run,
        "mirror": run.mirror,
        "headline": headline,
        "explanation": explanation,
        "moving": moving(run, now) if run.is_open else None,
        "steps": [_step(step, run) for step in steps],
        "pace": _pace(run),
        "worker": run.worker.split(":")[0],
        "may_operate": request.user.may_operate,
    }
    return live_page(
        request, "history/run.html", "history/_run.html", context, every=RUNNING_SECONDS if run.is_open else None
    )


def told(run: SyncRun, now: datetime) -> tuple[str, str]:
    """The run in a sentence, and what stands under it: what was found, or what went wrong and what happens next."""
    what = wording.with_article(run.mirror.label)
    upcoming = run.mirror.next_sync_at
    is_last = run.mirror.last_run_id == run.pk
    then = f" {wording.plan_text('Next try', upcoming, now)}." if upcoming and is_last else ""
    kept = " What was served before is still served." if run.mirror.current_id is not None else ""
    if run.state == State.QUEUED:
        return f"{wording.capitalized(what)} waits for a worker.", f"Queued {wording.ago_text(run.queued_at, now)}."
    if run.state == State.RUNNING:
        return f"{wording.capitalized(what)} is being synced.", wording.capitalized(
            run.stage + "."
        ) if run.stage else ""
    if run.state == State.SUCCEEDED:
        return f"{wording.capitalized(what)} has new content.", run.note
    if run.state == State.UNCHANGED:
        return f"Nothing new for {what}.", run.note or "A source still offers exactly what we hold."
    if run.state == State.FAILED:
        return f"The sync of {what} failed.", f"{run.error}{kept}{then}"
    if run.state == State.CANCELLED:
        return (
            f"The sync of {what} was stopped.",
            f"{run.error} What was downloaded is kept; the next run goes on from there.",
        )
    return f"The run of {what} was lost.", run.error


def _step(step: RunStep, run: SyncRun) -> dict[str, object]:
    start = run.started_at or run.queued_at
    return {
        "row": step,
        "clock": f"{step.at.astimezone(UTC):%H:%M:%S}",
        "after": f"+{wording.duration_text(max(step.at - start, timedelta()))}",
        "host": host_of(step.source) if step.source else "",
    }


def _pace(run: SyncRun) -> float | None:
    """Bytes a second over the whole run; None where it says nothing."""
    took = run.duration
    if took is None or took.total_seconds() < 0.5 or run.bytes_downloaded < 1024:
        return None
    return run.bytes_downloaded / took.total_seconds()


@require_POST
@operator_required
def run_stop(request: PageRequest, pk: int) -> HttpResponse:
    run = get_object_or_404(SyncRun.objects.select_related("mirror"), pk=pk)
    stopped = runs.stop_run(run, by=request.user.username, now=timezone.now())
    if request.htmx and (request.htmx.target or "").startswith("row-"):
        return row(request, run.mirror.name)
    if stopped:
        messages.success(
            request, f"The sync of {run.mirror.label} is stopped. What was downloaded is kept for the next one."
        )
    else:
        messages.info(request, f"The sync of {run.mirror.label} had ended already.")
    back = request.POST.get("back", "")
    if back == "dashboard":
        return redirect("mirrors:dashboard")
    if back == "database":
        return redirect("mirrors:mirror-detail", name=run.mirror.name)
    return redirect("mirrors:run-detail", pk=run.pk)
