"""The life of a run, whatever it is about: claimed, kept alive, stopped, given up as lost, sent again.

The row is the truth and the lock; the broker only wakes workers up. Whoever runs a run holds its lease: every write
of a worker is an UPDATE on run, lease and state, so a run that was closed by somebody else can no longer write.
What is special about syncs stands in runs.py, about pushes in pushing/asking.py.
"""

import logging
import os
import secrets
import socket
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from django.db import IntegrityError, connections, transaction
from django.db.models import Q
from django.utils import timezone

from mirrors import record, work_here
from mirrors.models import Run, Step, SyncRun
from mirrors.models.run import RunQuerySet
from mirrors.stopping import StopSignal

logger = logging.getLogger(__name__)

SILENT_AFTER = timedelta(seconds=30)
SEND_AGAIN_AFTER = timedelta(seconds=30)
MOST_LOSSES = 5

CLOSED = "closed"

AnyRun = TypeVar("AnyRun", bound=Run)


class LeaseLost(Exception):
    """The run was closed by somebody else; nothing may be written for it any more."""


@dataclass(frozen=True)
class Lease:
    """The right to write for one run, held by the process that claimed it."""

    run_id: int
    key: str
    model: type[Run] = SyncRun

    def write(self, **values: object) -> bool:
        """Update the run if this lease still holds it."""
        runs: Any = self.model._default_manager.all()
        return bool(runs.held_by(self.run_id, self.key).update(**values))


def work_key(model: type[Run], run_id: int) -> tuple[str, int]:
    """Under which a run's work is entered in `work_here`."""
    return (model.__name__, run_id)


def worker_name() -> str:
    """host:pid:life, so that another process of this host can tell whether it is still alive."""
    return f"{_host()}:{os.getpid()}:{_life(os.getpid())}"


def _host() -> str:
    """This host's name and what only this boot of it shares, containers apart: a clone may have the same name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        space = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        boot = space = ""
    return f"{socket.gethostname()[:60]}:{boot}-{space}"


def _life(pid: int) -> str:
    """The process's start time in clock ticks (proc(5), field 22), empty where /proc is absent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def is_gone(worker: str) -> bool:
    """The worker ran on this host and its process no longer exists. Another host's is unknown, so not gone."""
    host, _, life = worker.rpartition(":")
    host, _, pid = host.rpartition(":")
    if host != _host() or not pid.isdigit() or not life:
        return False
    return _life(int(pid)) != life


class Life(Generic[AnyRun]):
    """What one kind of runs shares with the others; what differs are the methods that a subclass gives.

    `stopped` is what the record says when somebody stops one.
    """

    model: type[AnyRun]
    stopped: str

    # What differs

    def lock_subject(self, run_id: int) -> None:
        """Lock the row the run is about. Whoever changes both locks it first, as an edit does: in two orders they
        would wait for each other."""
        raise NotImplementedError

    def remember(self, run: AnyRun, *, now: datetime, retry_at: datetime | None = None) -> None:
        """Write onto that row what pages and the schedule need to know of its newest ended run."""
        raise NotImplementedError

    def ask_again(self, run: AnyRun, *, now: datetime) -> AnyRun | None:
        """A new run in place of a lost one; None where there is one already or none is wanted."""
        raise NotImplementedError

    def sequel(self, run: AnyRun) -> str:
        """What happens after this run was lost, as a sentence."""
        if run.losses + 1 < MOST_LOSSES:
            return "A new run goes on where it stopped."
        return f"That was {MOST_LOSSES} times in a row, so it is not begun again at once; look at the worker's log."

    def named(self, run: AnyRun) -> str:
        """What the run is about, by its name."""
        raise NotImplementedError

    def related(self) -> Any:
        """Runs with the rows that the methods above look at."""
        raise NotImplementedError

    @property
    def _runs(self) -> RunQuerySet[AnyRun]:
        runs: RunQuerySet[AnyRun] = self.model._default_manager.all()  # type: ignore[assignment]
        return runs

    # Running

    def claim(self, run_id: int, *, now: datetime) -> Lease | None:
        """Take a queued run, or None when somebody else has it, it is closed, or its turn has not come."""
        key = secrets.token_hex(16)
        mine = {"lease": key, "worker": worker_name(), "started_at": now, "heartbeat_at": now}
        try:
            with transaction.atomic():
                taken = self._runs.queued().filter(pk=run_id).update(state=Run.State.RUNNING, **mine)
        except IntegrityError:
            # A constraint lets only so many run at once.
            return None
        return Lease(run_id, key, self.model) if taken else None

    def claimable(self) -> Any:
        """Queued runs that could be claimed now."""
        return self._runs.queued()

    def oldest_queued(self) -> int | None:
        """The run that waits longest, for a worker that has got free; none for one that is shutting down."""
        if work_here.is_shutting_down():
            return None
        found: int | None = self.claimable().order_by("pk").values_list("pk", flat=True).first()
        return found

    def put_back(self, lease: Lease) -> None:
        """Queue the run again, as when the worker is shut down on purpose."""
        lease.write(state=Run.State.QUEUED, lease="", worker="", heartbeat_at=None, sent_at=None, stage="")

    def close(
        self,
        lease: Lease,
        state: str,
        *,
        now: datetime,
        error: str = "",
        note: str = "",
        retry_at: datetime | None = None,
        **values: object,
    ) -> None:
        """End the run as its holder: outcome, what its subject remembers of it, and when it is tried next.

        Raises LeaseLost when the run was closed by somebody else meanwhile.
        """
        with transaction.atomic():
            self.lock_subject(lease.run_id)
            written = lease.write(state=state, finished_at=now, error=error, note=note, stage="", **values)
            if not written:
                raise LeaseLost
            self.remember(self.related().get(pk=lease.run_id), now=now, retry_at=retry_at)

    # Stopping

    def stop(self, run: AnyRun, *, by: str, now: datetime, reason: str = "") -> bool:
        """Close an open run as stopped. Its worker notices within a second; what was transferred stays for resume."""
        sentence = reason or f"Stopped by {by}."
        with transaction.atomic():
            self.lock_subject(run.pk)
            ended = {"state": Run.State.CANCELLED, "finished_at": now, "error": sentence, "stage": ""}
            if not self._runs.open().filter(pk=run.pk).update(**ended):
                return False
            run = self._tell_end(run.pk, Step.Level.WARNING, sentence, now)
            record.write(by, self.stopped, self.named(run), f"run {run.pk}", at=now)
        signal = work_here.signal_of(work_key(self.model, run.pk))
        if signal is not None:
            signal.set(CLOSED)
        return True

    def _tell_end(self, pk: int, level: str, sentence: str, now: datetime) -> AnyRun:
        run: AnyRun = self.related().get(pk=pk)
        run.step_model._default_manager.create(run=run, at=now, level=level, text=sentence)
        self.remember(run, now=now)
        return run

    # Keeping the promise that nothing is lost

    def close_lost(self, now: datetime) -> list[AnyRun]:
        """Close runs whose worker went away, and ask for each again. Returns the new runs."""
        again = []
        silent = Q(heartbeat_at__lt=now - SILENT_AFTER)
        running = self.related().running()
        known_gone = [run.pk for run in running if is_gone(run.worker)]
        for run in running.filter(silent | Q(pk__in=known_gone)):
            host = run.worker.split(":")[0]
            sentence = f"The worker on {host} went away while it was running this. {self.sequel(run)}"
            with transaction.atomic():
                self.lock_subject(run.pk)
                lost = {"state": Run.State.LOST, "finished_at": now, "error": sentence, "stage": ""}
                held = self._runs.held_by(run.pk, run.lease)
                if not held.filter(silent | Q(pk__in=known_gone)).update(**lost):
                    continue
                run = self._tell_end(run.pk, Step.Level.ERROR, sentence, now)
            logger.warning("%s %s of %s is lost", self.model.__name__, run.pk, self.named(run))
            if run.losses + 1 < MOST_LOSSES:
                fresh = self.ask_again(run, now=now)
                if fresh is not None:
                    again.append(fresh)
        return again

    def unsent(self, now: datetime) -> list[AnyRun]:
        """Queued runs whose message was never sent or may be lost. Sending twice is harmless: only one can claim."""
        runs = list(self.claimable().filter(Q(sent_at=None) | Q(sent_at__lt=now - SEND_AGAIN_AFTER)))
        sent = self._runs.filter(pk__in=[run.pk for run in runs])
        sent.filter(Q(sent_at=None) | Q(sent_at__lt=now)).update(sent_at=now)
        return runs


class Heart:
    """Beats for one run from a thread of its own: writes progress once a second, and learns whether the run is ours."""

    def __init__(self, lease: Lease, stop: StopSignal, pulse: "Pulse", every: float = 1.0) -> None:
        self._lease, self._stop, self._pulse, self._every = lease, stop, pulse, every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heart-{lease.run_id}", daemon=True)

    def __enter__(self) -> "Heart":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(timeout=30)

    def _beat(self) -> None:
        try:
            while not self._done.wait(self._every):
                try:
                    if not self._lease.write(heartbeat_at=timezone.now(), **self._pulse.values()):
                        self._stop.set(CLOSED)
                        return
                    self._pulse.flush()
                except Exception:  # a database that is away for a moment must not end the transfer
                    logger.warning("The heartbeat of run %s could not be written", self._lease.run_id, exc_info=True)
                    connections.close_all()
        finally:
            connections.close_all()


class Pulse:
    """What a heart writes: progress as column values, and the steps told since the last beat."""

    def values(self) -> dict[str, object]:
        return {}

    def flush(self) -> None:
        """Write the steps told so far."""
