"""A sync for the command line: queued for a worker, or made in this process under the same lease as any other.

With `sync_here` neither broker nor worker is needed. What it reports is a run made with the mirror's present settings.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from mirrors import runs, sync
from mirrors.blobs import BlobStore
from mirrors.models import Mirror, SyncRun
from mirrors.stopping import StopSignal

Watcher = Callable[[SyncRun], AbstractContextManager[object]]


@dataclass(frozen=True)
class Report:
    """How a named mirror's sync went, for people (`sentence`) and for programs (`as_json`).

    `error` and `outcome` say what the run cannot: why there is none, or that nobody waits for its end.
    """

    mirror: str
    run: SyncRun | None
    error: str = ""
    outcome: str = SyncRun.State.FAILED

    @property
    def is_good(self) -> bool:
        return self.run is not None and (self.run.is_success or (self.run.is_open and not self.error))

    @property
    def sentence(self) -> str:
        run = self.run
        if run is None or self.error:
            return f"{self.mirror}: {self.error}"
        if run.is_open:
            return f"{self.mirror}: run {run.pk} is queued."
        tail = run.error or run.note
        return f"{self.mirror}: {run.get_state_display().lower()}. {tail}".rstrip()

    def as_json(self) -> dict[str, Any]:
        run = self.run
        if run is None:
            return {
                "mirror": self.mirror, "run": None, "outcome": str(self.outcome), "error": self.error,
                "note": "", "digest": None, "source": None, "bytes_downloaded": 0, "requests": 0, "seconds": 0.0,
            }  # fmt: skip
        seconds = run.duration.total_seconds() if run.duration else 0.0
        return {
            "mirror": self.mirror,
            "run": run.pk,
            "outcome": str(self.outcome) if self.error else run.state,
            "error": self.error or run.error,
            "note": run.note,
            "digest": run.snapshot.digest if run.snapshot else None,
            "source": run.source_reference or None,
            "bytes_downloaded": run.bytes_downloaded,
            "requests": run.requests,
            "seconds": seconds,
        }


def queue(mirror: Mirror, *, by: str, send: Callable[[SyncRun], None]) -> Report:
    """Ask for a run and leave it to a worker."""
    try:
        with transaction.atomic():
            run, _ = runs.request_sync(mirror, trigger=SyncRun.Trigger.COMMAND, by=by, now=timezone.now())
            send(run)
    except runs.RunError as error:
        return Report(mirror.name, None, str(error))
    return Report(mirror.name, run)


def sync_here(
    mirror: Mirror,
    *,
    by: str,
    stop: StopSignal | None = None,
    watch: Watcher = lambda run: nullcontext(),
    store: BlobStore | None = None,
) -> Report:
    """Make a run here and report it. A run under way with the same settings is waited for and reported instead.

    A run that ended because the settings were edited meanwhile is not reported: another is made with the new ones.
    """
    stop = stop or StopSignal()
    try:
        while not stop.is_set():
            runs.close_lost(timezone.now())
            mirror.refresh_from_db()
            run, _ = runs.request_sync(mirror, trigger=SyncRun.Trigger.COMMAND, by=by, now=timezone.now())
            if run.settings_version != mirror.settings_version:
                runs.stop_run(run, by=by, now=timezone.now(), reason="Stopped: the settings changed since it began.")
                continue
            with watch(run), _own_signal(stop) as signal:
                if not sync.perform(run.pk, stop=signal, store=store):
                    _wait_for(run, signal)
            run = SyncRun.objects.select_related("snapshot__mirror", "mirror").get(pk=run.pk)
            if run.state in (SyncRun.State.QUEUED, SyncRun.State.LOST) or _was_overtaken(run):
                continue
            if run.is_open:
                given_up = f"Stopped waiting; run {run.pk} goes on elsewhere."
                return Report(mirror.name, run, given_up, SyncRun.State.CANCELLED)
            return Report(mirror.name, run)
    except runs.RunError as error:
        return Report(mirror.name, None, str(error))
    except (Mirror.DoesNotExist, SyncRun.DoesNotExist):
        return Report(mirror.name, None, f"{mirror.name} was removed meanwhile.")
    return Report(mirror.name, None, "Stopped before it began.", SyncRun.State.CANCELLED)


@contextmanager
def _own_signal(stop: StopSignal) -> Iterator[StopSignal]:
    """One run's signal: stopping the command stops the run, but stopping the run leaves the command's other mirrors."""
    own = StopSignal()
    with stop.attach(lambda: own.set(stop.reason)):
        yield own


def _was_overtaken(run: SyncRun) -> bool:
    return run.state == SyncRun.State.CANCELLED and run.settings_version != run.mirror.settings_version


def _wait_for(run: SyncRun, stop: StopSignal) -> None:
    """Somebody else makes this run: wait until it is closed or found lost."""
    while not stop.wait(0.5):
        runs.close_lost(timezone.now())
        run.refresh_from_db()
        if not run.is_open or run.state == SyncRun.State.QUEUED:
            return
