"""The page of one run, sync or push: its story step by step, and the button that stops it."""

from datetime import UTC, datetime, timedelta

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from mirrors import runs, wording
from mirrors.models import Import, PushRun, Run, Step, SyncRun
from mirrors.pushing.asking import PUSHES
from mirrors.registry.references import host_of
from mirrors.views.access import operator_required
from mirrors.views.dashboard import row
from mirrors.views.page import PageRequest, live_page
from mirrors.views.rows import moving

RUNNING_SECONDS = 2

State = Run.State


@require_safe
def run_detail(request: PageRequest, pk: int) -> HttpResponse:
    """The story of one run; while it is open, it goes on by itself."""
    run = get_object_or_404(SyncRun.objects.select_related("mirror", "snapshot"), pk=pk)
    if run.snapshot is not None:
        run.snapshot.mirror = run.mirror
    now = timezone.now()
    headline, explanation = told(run, now)
    return _page(request, run, headline, explanation, now)


@require_safe
def push_detail(request: PageRequest, pk: int) -> HttpResponse:
    """The story of one push."""
    run = get_object_or_404(PUSHES.related().select_related("snapshot"), pk=pk)
    if run.snapshot is not None:
        run.snapshot.mirror = run.mirror
    now = timezone.now()
    headline, explanation = told_push(run, now)
    return _page(request, run, headline, explanation, now)


def _page(request: PageRequest, run: SyncRun | PushRun, headline: str, explanation: str, now: datetime) -> HttpResponse:
    context: dict[str, object] = {
        "now": now,
        "run": run,
        "mirror": run.mirror,
        "headline": headline,
        "explanation": explanation,
        "moving": moving(run, now) if run.is_open else None,
        "steps": step_rows(run),
        "pace": _pace(run),
        "worker": run.worker.split(":")[0],
        "may_operate": request.user.may_operate,
        "may_administer": request.user.may_administer,
    }
    every = RUNNING_SECONDS if run.is_open else None
    return live_page(request, "history/run.html", "history/_run.html", context, every=every)


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


def told_push(run: PushRun, now: datetime) -> tuple[str, str]:
    """The push in a sentence, and what stands under it."""
    what = f"{wording.with_article(run.mirror.label)} to {run.destination.label}"
    rule = run.rule
    is_last = rule is not None and rule.last_run_id == run.pk
    upcoming = rule.next_try_at if rule is not None and is_last else None
    then = f" {wording.plan_text('Next try', upcoming, now)}." if upcoming else ""
    if run.state == State.QUEUED:
        waits = "It begins when a worker is free and nothing else is being pushed there."
        return f"The push of {what} waits.", f"Queued {wording.ago_text(run.queued_at, now)}. {waits}"
    if run.state == State.RUNNING:
        return f"{wording.capitalized(what)}: being pushed.", wording.capitalized(run.stage + ".") if run.stage else ""
    if run.state == State.SUCCEEDED:
        return f"{run.destination.label} has what we serve of {wording.with_article(run.mirror.label)}.", run.note
    if run.state == State.UNCHANGED:
        return f"Nothing to push of {what}.", run.note
    if run.state == State.FAILED:
        return f"The push of {what} failed.", f"{run.error}{then}"
    if run.state == State.CANCELLED:
        there = "What arrived there is not sent again."
        return f"The push of {what} was stopped.", f"{run.error} {there}{then}"
    return f"The push of {what} was lost.", run.error


def step_rows(run: SyncRun | PushRun | Import) -> list[dict[str, object]]:
    """A run's story, line by line."""
    return [_step(step, run) for step in run.steps.all()]


def _step(step: Step, run: Run) -> dict[str, object]:
    start = run.started_at or run.queued_at
    return {
        "row": step,
        "clock": f"{step.at.astimezone(UTC):%H:%M:%S}",
        "after": f"+{wording.duration_text(max(step.at - start, timedelta()))}",
        "host": host_of(step.source) if step.source else "",
    }


def _pace(run: SyncRun | PushRun) -> float | None:
    """Bytes a second over the whole run; None where it says nothing."""
    took = run.duration
    if took is None or took.total_seconds() < 0.5 or run.bytes_moved < 1024:
        return None
    return run.bytes_moved / took.total_seconds()


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


@require_POST
@operator_required
def push_stop(request: PageRequest, pk: int) -> HttpResponse:
    run = get_object_or_404(PUSHES.related(), pk=pk)
    what = f"The push of {run.mirror.label} to {run.destination.label}"
    if PUSHES.stop(run, by=request.user.username, now=timezone.now()):
        messages.success(request, f"{what} is stopped. What arrived there is not sent again.")
    else:
        messages.info(request, f"{what} had ended already.")
    back = request.POST.get("back", "")
    if back == "database":
        return redirect("mirrors:mirror-detail", name=run.mirror.name)
    if back == "destination" and request.user.may_administer:
        return redirect("mirrors:destination-detail", name=run.destination.name)
    return redirect("mirrors:push-detail", pk=run.pk)
