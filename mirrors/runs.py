"""Runs that sync a mirror: asked for, remembered on the mirror, tried again, opened by the schedule.

How any run is claimed, kept alive, stopped and given up stands in leases.py; `SYNCS` is that life for sync runs.
"""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from mirrors.leases import CLOSED, Heart, Lease, LeaseLost, Life, Pulse
from mirrors.models import Mirror, SyncRun
from mirrors.schedule import Schedule

__all__ = [
    "CLOSED", "SYNCS", "Heart", "Lease", "LeaseLost", "Pulse", "RunError", "claim", "close", "close_lost",
    "oldest_queued", "open_due", "put_back", "refuse_on_the_isolated_side", "request_sync", "stop_open_runs",
    "stop_run", "unsent",
]  # fmt: skip

FIRST_RETRY = timedelta(minutes=5)


class RunError(Exception):
    """A run cannot be asked for; the sentence says why."""


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


# Remembering


def remember(run: SyncRun, *, now: datetime, retry_at: datetime | None = None) -> None:
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


# Living


class Syncs(Life[SyncRun]):
    model = SyncRun
    stopped = "sync stopped"

    def lock_subject(self, run_id: int) -> None:
        mirror = SyncRun.objects.filter(pk=run_id).values("mirror_id")
        list(Mirror.objects.select_for_update().filter(pk__in=mirror).values_list("pk", flat=True))

    def remember(self, run: SyncRun, *, now: datetime, retry_at: datetime | None = None) -> None:
        remember(run, now=now, retry_at=retry_at)

    def ask_again(self, run: SyncRun, *, now: datetime) -> SyncRun | None:
        if not run.mirror.enabled or settings.AIRGAP_SIDE == "isolated":
            return None
        fresh, created = request_sync(
            run.mirror, trigger=SyncRun.Trigger.RETRY, by=run.requested_by, now=now, losses=run.losses + 1
        )
        return fresh if created else None

    def named(self, run: SyncRun) -> str:
        return run.mirror.name

    def related(self) -> Any:
        return SyncRun.objects.select_related("mirror")


SYNCS = Syncs()
claim, close, put_back, stop_run = SYNCS.claim, SYNCS.close, SYNCS.put_back, SYNCS.stop
close_lost, unsent, oldest_queued = SYNCS.close_lost, SYNCS.unsent, SYNCS.oldest_queued


def stop_open_runs(mirror: Mirror, *, by: str, now: datetime, reason: str) -> int:
    """Stop what is under way for a mirror, as when its settings change."""
    return sum(stop_run(run, by=by, now=now, reason=reason) for run in SyncRun.objects.open().filter(mirror=mirror))


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
