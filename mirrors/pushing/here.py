"""A push for the command line: queued for a worker, or made in this process under the same lease as any other."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from mirrors.blobs import BlobStore
from mirrors.models import PushRule, PushRun
from mirrors.pushing.asking import PUSHES, PushRefused, request_push
from mirrors.pushing.perform import perform
from mirrors.stopping import StopSignal

Watcher = Callable[[PushRun], AbstractContextManager[object]]


@dataclass(frozen=True)
class Report:
    """How one push went, for people (`sentence`) and for programs (`as_json`).

    `error` and `outcome` say what the run cannot: why there is none, or that nobody waits for its end.
    """

    mirror: str
    destination: str
    run: PushRun | None
    error: str = ""
    outcome: str = PushRun.State.FAILED

    @property
    def is_good(self) -> bool:
        return self.run is not None and not self.error and (self.run.is_success or self.run.is_open)

    @property
    def sentence(self) -> str:
        what, run = f"{self.mirror} to {self.destination}", self.run
        if run is None or self.error:
            return f"{what}: {self.error}"
        if run.is_open:
            return f"{what}: push {run.pk} is queued."
        return f"{what}: {run.get_state_display().lower()}. {run.error or run.note}".rstrip()

    def as_json(self) -> dict[str, Any]:
        run = self.run
        ended = run is not None and not run.is_open
        return {
            "mirror": self.mirror,
            "destination": self.destination,
            "run": run.pk if run else None,
            "outcome": str(self.outcome) if self.error or run is None else run.state,
            "error": self.error or (run.error if run else ""),
            "note": run.note if run else "",
            "reference": (run.reference or None) if run else None,
            "digest": run.snapshot.manifest_digest if run and ended and run.snapshot and run.is_success else None,
            "bytes_uploaded": run.bytes_uploaded if run else 0,
            "requests": run.requests if run else 0,
            "seconds": run.duration.total_seconds() if run and run.duration else 0.0,
        }


def queue(rule: PushRule, *, by: str, send: Callable[[PushRun], None]) -> Report:
    """Ask for a push and leave it to a worker."""
    names = rule.mirror.name, rule.destination.name
    try:
        with transaction.atomic():
            run, _ = request_push(rule, trigger=PushRun.Trigger.COMMAND, by=by, now=timezone.now())
            send(run)
    except PushRefused as refusal:
        return Report(*names, None, str(refusal))
    return Report(*names, run)


def push_here(
    rule: PushRule,
    *,
    by: str,
    stop: StopSignal,
    watch: Watcher = lambda run: nullcontext(),
    store: BlobStore | None = None,
) -> Report:
    """Make a push here and report it. One under way is waited for and reported instead; a lost one is made again."""
    names = rule.mirror.name, rule.destination.name
    try:
        while not stop.is_set():
            PUSHES.close_lost(timezone.now())
            run, _ = request_push(rule, trigger=PushRun.Trigger.COMMAND, by=by, now=timezone.now())
            own = StopSignal()
            with stop.attach(lambda own=own: own.set(stop.reason)), watch(run):  # type: ignore[misc]
                if not perform(run.pk, stop=own, store=store):
                    _wait_for(run, own)
            run = PushRun.objects.select_related("snapshot").get(pk=run.pk)
            if run.state in (PushRun.State.QUEUED, PushRun.State.LOST):
                continue
            if run.is_open:
                given_up = f"Stopped waiting; push {run.pk} goes on elsewhere."
                return Report(*names, run, given_up, PushRun.State.CANCELLED)
            return Report(*names, run)
    except PushRefused as refusal:
        return Report(*names, None, str(refusal))
    except (PushRule.DoesNotExist, PushRun.DoesNotExist):
        return Report(*names, None, f"The rule for {names[0]} to {names[1]} was removed meanwhile.")
    return Report(*names, None, "Stopped before it began.", PushRun.State.CANCELLED)


def _wait_for(run: PushRun, stop: StopSignal) -> None:
    """Somebody else makes this push, or another one to the same destination is under way: wait until that changes."""
    while not stop.wait(0.5):
        PUSHES.close_lost(timezone.now())
        run.refresh_from_db()
        if not run.is_open or PushRun.objects.claimable().filter(pk=run.pk).exists():
            return
