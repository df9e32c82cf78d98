"""Runs: one row an attempt. An open row is also the lock of what it is about.

What syncs and pushes have in common stands in `Run` and `RunQuerySet`; how such a row lives, in mirrors/leases.py.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, Self, TypeVar

from django.db import models
from django.db.models import F, Q

from mirrors.models.mirror import Mirror
from mirrors.models.snapshot import Snapshot

AnyRun = TypeVar("AnyRun", bound="Run")


class RunQuerySet(models.QuerySet[AnyRun]):
    def open(self) -> Self:
        return self.filter(finished_at=None)

    def queued(self) -> Self:
        return self.open().filter(state=Run.State.QUEUED)

    def running(self) -> Self:
        return self.open().filter(state=Run.State.RUNNING)

    def held_by(self, pk: int, lease: str) -> Self:
        """The run, if it is still open and this lease still holds it: every write of a worker goes through here."""
        return self.running().filter(pk=pk, lease=lease)

    def newest_first(self) -> Self:
        return self.order_by("-pk")


class Run(models.Model):
    """One attempt, of whatever kind.

    queued -> running -> succeeded | unchanged | failed | cancelled | lost; queued -> cancelled. `unchanged` is a
    success. `lost` means that whoever ran it went away. Only the holder of `lease` may write while it runs, and
    nobody writes after `finished_at` is set. Its steps are `steps`, rows of `step_model`.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        SUCCEEDED = "succeeded", "Succeeded"
        UNCHANGED = "unchanged", "Unchanged"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Stopped"
        LOST = "lost", "Lost"

    SUCCESSES = (State.SUCCEEDED, State.UNCHANGED)

    state = models.CharField(max_length=12, choices=State.choices, default=State.QUEUED)
    requested_by = models.CharField(max_length=150, blank=True)
    lease = models.CharField(max_length=40, blank=True)
    worker = models.CharField(max_length=120, blank=True)
    queued_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    losses = models.PositiveIntegerField(default=0)
    stage = models.CharField(max_length=80, blank=True)
    bytes_total = models.PositiveBigIntegerField(null=True, blank=True)
    bytes_done = models.PositiveBigIntegerField(default=0)
    rate_bytes = models.PositiveBigIntegerField(default=0)
    requests = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    note = models.TextField(blank=True)

    kind: ClassVar[str]
    step_model: ClassVar[Any]

    class Meta:
        abstract = True

    @property
    def is_open(self) -> bool:
        return self.finished_at is None

    @property
    def is_success(self) -> bool:
        return self.state in self.SUCCESSES

    @property
    def duration(self) -> timedelta | None:
        if self.started_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.started_at


class Step(models.Model):
    """One line of a run's story. `source` is the reference it is about, if it is about one."""

    class Level(models.TextChoices):
        INFO = "info"
        WARNING = "warning"
        ERROR = "error"

    at = models.DateTimeField()
    level = models.CharField(max_length=8, choices=Level.choices, default=Level.INFO)
    source = models.CharField(max_length=500, blank=True)
    text = models.TextField()

    class Meta:
        abstract = True
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.text[:80]


class SyncRunQuerySet(RunQuerySet["SyncRun"]):
    """Named queries on sync runs."""


class SyncRun(Run):
    """One attempt to bring a mirror up to date."""

    kind = "sync"

    class Trigger(models.TextChoices):
        SCHEDULE = "schedule", "schedule"
        HAND = "hand", "by hand"
        COMMAND = "command", "command line"
        RETRY = "retry", "retry after a lost run"
        REPAIR = "repair", "repair"

    mirror = models.ForeignKey(Mirror, on_delete=models.CASCADE, related_name="runs")
    trigger = models.CharField(max_length=12, choices=Trigger.choices)
    settings_version = models.PositiveIntegerField()
    source_reference = models.CharField(max_length=500, blank=True)
    bytes_downloaded = models.PositiveBigIntegerField(default=0)
    snapshot = models.ForeignKey(Snapshot, null=True, blank=True, on_delete=models.SET_NULL, related_name="runs")

    objects = SyncRunQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(F("mirror"), condition=Q(finished_at=None), name="one_open_run_per_mirror"),
        ]
        indexes = [
            models.Index(fields=["mirror", "-id"]),
            models.Index(fields=["state", "-id"]),
            models.Index(fields=["finished_at"]),
            models.Index(fields=["state", "heartbeat_at"], condition=Q(finished_at=None), name="open_runs"),
        ]

    def __str__(self) -> str:
        return f"run {self.pk} of {self.mirror.name}"

    @property
    def bytes_moved(self) -> int:
        return self.bytes_downloaded


class RunStep(Step):
    """One line of a sync's story."""

    run = models.ForeignKey(SyncRun, on_delete=models.CASCADE, related_name="steps")

    class Meta(Step.Meta):
        pass


SyncRun.step_model = RunStep
