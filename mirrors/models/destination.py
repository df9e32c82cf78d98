"""Destinations: registries that mirrors are pushed to; the rules that say which, and one row an attempt."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import F, Q

from mirrors.models.login import WithLogin
from mirrors.models.mirror import Mirror
from mirrors.models.run import Run, RunQuerySet, Step
from mirrors.models.snapshot import Snapshot


class DestinationQuerySet(models.QuerySet["Destination"]):
    def in_order(self) -> DestinationQuerySet:
        return self.order_by("label", "name")


class Destination(WithLogin):
    """One registry, or one project of it, that content is pushed to.

    `registry` is host[:port], `prefix` what every repository there begins with (a Harbor project, an Artifactory
    repository key), "" for none. `memory` is what the registry client remembers (scheme, challenge). `answered_at` and
    `error` are its last answer, to a push or a test.
    """

    name = models.SlugField(max_length=80, unique=True)
    label = models.CharField(max_length=80)
    registry = models.CharField(max_length=255)
    prefix = models.CharField(max_length=200, blank=True)
    insecure = models.BooleanField(default=False)
    ca_pem = models.TextField(blank=True)
    proxy = models.CharField(max_length=300, blank=True)
    enabled = models.BooleanField(default=True)
    memory = models.JSONField(default=dict, blank=True)
    asked_at = models.DateTimeField(null=True, blank=True)
    answered_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField()

    objects = DestinationQuerySet.as_manager()

    class Meta:
        ordering = ["label", "name"]

    def __str__(self) -> str:
        return self.name

    @property
    def address(self) -> str:
        """`harbor.example/security`, as people write it."""
        return f"{self.registry}/{self.prefix}" if self.prefix else self.registry


class PushRuleQuerySet(models.QuerySet["PushRule"]):
    def due(self, now: datetime) -> PushRuleQuerySet:
        """Rules with no push under way whose time has come.

        A rule that pushes by itself, when its destination has something else than the mirror, or when a sync has
        succeeded since the destination was last looked at. After a failure any rule, and not before `next_try_at`.
        """
        can = self.filter(destination__enabled=True, mirror__current__isnull=False)
        can = can.exclude(pk__in=PushRun.objects.open().filter(rule__isnull=False).values("rule_id"))
        behind = Q(pushed_snapshot=None) | ~Q(pushed_snapshot=F("mirror__current"))
        unseen = Q(checked_at=None) | Q(mirror__last_success_at__gt=F("checked_at"))
        first = Q(next_try_at=None, automatic=True) & (behind | unseen)
        return can.filter(first | Q(next_try_at__lte=now))

    def for_pages(self) -> PushRuleQuerySet:
        """With everything a row on a page shows, in one query."""
        return self.select_related("mirror__current", "destination").order_by("mirror__position", "mirror__name")


class PushRule(models.Model):
    """A mirror goes to a destination.

    `target` and `extra_tags` are templates (pushing/targets.py); `target` is below the destination's prefix.
    `automatic`: after each successful sync of the mirror, else by hand only. `pushed_*` is the last success;
    `checked_at` when the destination was last seen to have it. `next_try_at` is set while it fails, and after a stop.
    """

    mirror = models.ForeignKey(Mirror, on_delete=models.CASCADE, related_name="push_rules")
    destination = models.ForeignKey(Destination, on_delete=models.CASCADE, related_name="rules")
    target = models.CharField(max_length=300)
    extra_tags = models.CharField(max_length=600, blank=True)
    automatic = models.BooleanField(default=True)
    created_at = models.DateTimeField()
    pushed_snapshot = models.ForeignKey(
        Snapshot, null=True, blank=True, on_delete=models.SET_NULL, related_name="pushed_by"
    )
    pushed_digest = models.CharField(max_length=71, blank=True)
    pushed_reference = models.CharField(max_length=500, blank=True)
    pushed_at = models.DateTimeField(null=True, blank=True)
    checked_at = models.DateTimeField(null=True, blank=True)
    failures = models.PositiveIntegerField(default=0)
    failing_since = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(blank=True)
    next_try_at = models.DateTimeField(null=True, blank=True)
    last_run = models.ForeignKey("mirrors.PushRun", null=True, blank=True, on_delete=models.SET_NULL, related_name="+")

    objects = PushRuleQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(F("mirror"), F("destination"), name="one_rule_per_destination")]

    def __str__(self) -> str:
        return f"{self.mirror.name} to {self.destination.name}"

    @property
    def is_level(self) -> bool:
        """The destination was left with what the mirror serves now."""
        return self.pushed_snapshot_id is not None and self.pushed_snapshot_id == self.mirror.current_id


class PushRunQuerySet(RunQuerySet["PushRun"]):
    def claimable(self) -> PushRunQuerySet:
        """Queued runs of destinations that nothing is being pushed to now."""
        return self.queued().exclude(destination__in=PushRun.objects.running().values("destination_id"))


class PushRun(Run):
    """One attempt to bring a destination what a mirror serves.

    `rule` may have been removed since; mirror and destination stay for the history. `reference` is where it goes.
    """

    kind = "push"

    class Trigger(models.TextChoices):
        SYNC = "sync", "after a sync"
        HAND = "hand", "by hand"
        COMMAND = "command", "command line"
        RETRY = "retry", "retry"

    rule = models.ForeignKey(PushRule, null=True, blank=True, on_delete=models.SET_NULL, related_name="runs")
    mirror = models.ForeignKey(Mirror, on_delete=models.CASCADE, related_name="pushes")
    destination = models.ForeignKey(Destination, on_delete=models.CASCADE, related_name="runs")
    trigger = models.CharField(max_length=12, choices=Trigger.choices)
    reference = models.CharField(max_length=500, blank=True)
    bytes_uploaded = models.PositiveBigIntegerField(default=0)
    snapshot = models.ForeignKey(Snapshot, null=True, blank=True, on_delete=models.SET_NULL, related_name="pushes")

    objects = PushRunQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                F("rule"), condition=Q(finished_at=None, rule__isnull=False), name="one_open_push_per_rule"
            ),
            # What makes a destination that hangs hold up its own pushes only.
            models.UniqueConstraint(
                F("destination"), condition=Q(finished_at=None, state="running"), name="one_running_push_per_place"
            ),
        ]
        indexes = [
            models.Index(fields=["mirror", "-id"]),
            models.Index(fields=["destination", "-id"]),
            models.Index(fields=["state", "-id"]),
            models.Index(fields=["finished_at"]),
            models.Index(fields=["state", "heartbeat_at"], condition=Q(finished_at=None), name="open_pushes"),
        ]

    def __str__(self) -> str:
        return f"push {self.pk} of {self.mirror.name} to {self.destination.name}"

    @property
    def bytes_moved(self) -> int:
        return self.bytes_uploaded


class PushStep(Step):
    """One line of a push's story."""

    run = models.ForeignKey(PushRun, on_delete=models.CASCADE, related_name="steps")

    class Meta(Step.Meta):
        pass


PushRun.step_model = PushStep
