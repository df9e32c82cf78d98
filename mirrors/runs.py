"""The life of a run: asked for, claimed, kept alive, stopped, given up as lost, sent again.

The row is the truth and the lock; the broker only wakes workers up. Whoever runs a run holds its lease: every write
of a worker is an UPDATE on run, lease and state, so a run that was closed by somebody else can no longer write.
"""

import logging
import os
import secrets
import socket
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import IntegrityError, connections, transaction
from django.db.models import Q
from django.utils import timezone

from mirrors import record, work_here
from mirrors.models import Mirror, RunStep, SyncRun
from mirrors.schedule import Schedule
from mirrors.stopping import StopSignal

logger = logging.getLogger(__name__)

SILENT_AFTER = timedelta(seconds=30)
SEND_AGAIN_AFTER = timedelta(seconds=30)
MOST_LOSSES = 5
FIRST_RETRY = timedelta(minutes=5)

CLOSED = "closed"


class RunError(Exception):
    """A run cannot be asked for; the sentence says why."""


class LeaseLost(Exception):
    """The run was closed by somebody else; nothing may be written for it any more."""


@dataclass(frozen=True)
class Lease:
    """The right to write for one run, held by the process that claimed it."""

    run_id: int
    key: str

    def write(self, **values: object) -> bool:
        """Update the run if this lease still holds it."""
        return bool(SyncRun.objects.held_by(self.run_id, self.key).update(**values))


# Asking


def refuse_on_the_isolated_side() -> None:
    if settings.AIRGAP_SIDE == "isolated":
        raise RunError("This is an isolated instance: it takes data from bundles and asks no source.")


def request_sync(mirror: Mirror, *, trigger: str, by: str, now: datetime, losses: int = 0) -> tuple[SyncRun, bool]:
    """The mirror's open run, made now if there is none; and whether it was made."""
    refuse_on_the_isolated_side()
    if not mirror.enabled:
        raise RunError(f"{mirror.name} is disabled. Enable it in its settings first.")
    for _ in range(3):
        try:
            with transaction.atomic():
                run = SyncRun.objects.create(
                    mirror=mirror,
                    trigger=trigger,
                    requested_by=by[:150],
                    settings_version=Mirror.objects.values_list("settings_version", flat=True).get(pk=mirror.pk),
                    queued_at=now,
                    losses=losses,
                )
            return run, True
        except IntegrityError:
            existing = SyncRun.objects.open().filter(mirror=mirror).first()
            if existing is not None:
                return existing, False
    raise RunError(f"A run of {mirror.name} could not be opened; try again.")


# Running


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


def claim(run_id: int, *, now: datetime) -> Lease | None:
    """Take a queued run, or None when somebody else has it or it is closed."""
    key = secrets.token_hex(16)
    taken = (
        SyncRun.objects.queued()
        .filter(pk=run_id)
        .update(state=SyncRun.State.RUNNING, lease=key, worker=worker_name(), started_at=now, heartbeat_at=now)
    )
    return Lease(run_id, key) if taken else None


def oldest_queued() -> int | None:
    """The run that waits longest, for a worker that has got free; none for one that is shutting down."""
    if work_here.is_shutting_down():
        return None
    return SyncRun.objects.queued().order_by("pk").values_list("pk", flat=True).first()


def put_back(lease: Lease) -> None:
    """Queue the run again, as when the worker is shut down on purpose."""
    lease.write(state=SyncRun.State.QUEUED, lease="", worker="", heartbeat_at=None, sent_at=None, stage="")


def close(
    lease: Lease,
    state: str,
    *,
    now: datetime,
    error: str = "",
    note: str = "",
    retry_at: datetime | None = None,
    **values: object,
) -> None:
    """End the run as its holder: outcome, what the mirror remembers of it, and when it is tried next.

    Raises LeaseLost when the run was closed by somebody else meanwhile.
    """
    with transaction.atomic():
        _lock_mirror_of(lease.run_id)
        written = lease.write(state=state, finished_at=now, error=error, note=note, stage="", **values)
        if not written:
            raise LeaseLost
        run = SyncRun.objects.select_related("mirror").get(pk=lease.run_id)
        remember(run, now=now, retry_at=retry_at)


def _lock_mirror_of(run_id: int) -> None:
    """Whoever changes both locks the mirror first, as an edit does: in two orders they would wait for each other."""
    mirror = SyncRun.objects.filter(pk=run_id).values("mirror_id")
    list(Mirror.objects.select_for_update().filter(pk__in=mirror).values_list("pk", flat=True))


def remember(run: SyncRun, *, now: datetime, retry_at: datetime | None = None) -> None:
    """Write onto the mirror what pages and the schedule need to know of its newest ended run."""
    mirror = Mirror.objects.select_for_update().get(pk=run.mirror_id)
    mirror.last_attempt_at, mirror.last_run = now, run
    if run.is_success:
        mirror.last_success_at, mirror.failures, mirror.last_error, mirror.failing_since = now, 0, "", None
    elif run.state == SyncRun.State.FAILED:
        mirror.failures += 1
        mirror.last_error = run.error
        mirror.failing_since = mirror.failing_since or run.started_at or now
    if run.settings_version == mirror.settings_version:
        mirror.next_sync_at = next_try(mirror, run, now=now, retry_at=retry_at)
    mirror.save(
        update_fields=[
            "last_attempt_at", "last_run", "last_success_at", "failures", "last_error", "failing_since", "next_sync_at",
        ]
    )  # fmt: skip


def next_try(mirror: Mirror, run: SyncRun, *, now: datetime, retry_at: datetime | None) -> datetime | None:
    """When the schedule comes next; after a failure sooner, growing; never before a source's Retry-After."""
    schedule = Schedule.parse(mirror.schedule_text)
    regular = schedule.next_after(now, now, mirror.name)
    if regular is None:
        return None
    if retry_at is not None and retry_at > now:
        return retry_at
    if run.state == SyncRun.State.FAILED:
        soon: timedelta = FIRST_RETRY * 2 ** min(mirror.failures - 1, 10)
        return min(regular, now + soon)
    return regular


# Stopping


def stop_run(run: SyncRun, *, by: str, now: datetime, reason: str = "") -> bool:
    """Close an open run as stopped. Its worker notices within a second, and its partial file stays for resume."""
    sentence = reason or f"Stopped by {by}."
    with transaction.atomic():
        _lock_mirror_of(run.pk)
        stopped = (
            SyncRun.objects.open()
            .filter(pk=run.pk)
            .update(state=SyncRun.State.CANCELLED, finished_at=now, error=sentence, stage="")
        )
        if not stopped:
            return False
        run.refresh_from_db()
        RunStep.objects.create(run=run, at=now, level=RunStep.Level.WARNING, text=sentence)
        remember(run, now=now)
        record.write(by, "sync stopped", run.mirror.name, f"run {run.pk}", at=now)
    signal = work_here.signal_of(run.pk)
    if signal is not None:
        signal.set(CLOSED)
    return True


def stop_open_runs(mirror: Mirror, *, by: str, now: datetime, reason: str) -> int:
    """Stop what is under way for a mirror, as when its settings change."""
    return sum(stop_run(run, by=by, now=now, reason=reason) for run in SyncRun.objects.open().filter(mirror=mirror))


# Keeping the promise that nothing is lost


def close_lost(now: datetime) -> list[SyncRun]:
    """Close runs whose worker went away, and ask for each again. Returns the new runs."""
    again = []
    silent = Q(heartbeat_at__lt=now - SILENT_AFTER)
    running = SyncRun.objects.open().filter(state=SyncRun.State.RUNNING).select_related("mirror")
    known_gone = [run.pk for run in running if is_gone(run.worker)]
    for run in running.filter(silent | Q(pk__in=known_gone)):
        host = run.worker.split(":")[0]
        sentence = f"The worker on {host} went away while it was running this. A new run goes on where it stopped."
        with transaction.atomic():
            _lock_mirror_of(run.pk)
            closed = (
                SyncRun.objects.held_by(run.pk, run.lease)
                .filter(silent | Q(pk__in=known_gone))
                .update(state=SyncRun.State.LOST, finished_at=now, error=sentence, stage="")
            )
            if not closed:
                continue
            run.refresh_from_db()
            RunStep.objects.create(run=run, at=now, level=RunStep.Level.ERROR, text=sentence)
            remember(run, now=now)
        logger.warning("Run %s of %s is lost", run.pk, run.mirror.name)
        if run.losses + 1 < MOST_LOSSES and run.mirror.enabled and settings.AIRGAP_SIDE != "isolated":
            fresh, created = request_sync(
                run.mirror, trigger=SyncRun.Trigger.RETRY, by=run.requested_by, now=now, losses=run.losses + 1
            )
            if created:
                again.append(fresh)
    return again


def open_due(now: datetime) -> list[SyncRun]:
    """A run for every mirror whose time has come; however long overdue, it is one run."""
    if not settings.AIRGAP_SCHEDULE or settings.AIRGAP_SIDE == "isolated":
        return []
    opened = []
    for mirror in Mirror.objects.due(now):
        run, created = request_sync(mirror, trigger=SyncRun.Trigger.SCHEDULE, by="", now=now)
        upcoming = Schedule.parse(mirror.schedule_text).next_after(now, now, mirror.name)
        Mirror.objects.filter(pk=mirror.pk, next_sync_at=mirror.next_sync_at).update(next_sync_at=upcoming)
        if created:
            opened.append(run)
    return opened


def unsent(now: datetime) -> list[SyncRun]:
    """Queued runs whose message was never sent or may be lost. Sending twice is harmless: only one can claim."""
    waiting = SyncRun.objects.queued().filter(Q(sent_at=None) | Q(sent_at__lt=now - SEND_AGAIN_AFTER))
    runs = list(waiting)
    SyncRun.objects.filter(pk__in=[run.pk for run in runs], sent_at=None).update(sent_at=now)
    SyncRun.objects.filter(pk__in=[run.pk for run in runs], sent_at__lt=now).update(sent_at=now)
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
