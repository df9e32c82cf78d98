"""Mirrors and their ordered sources."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from mirrors.models.login import WithLogin
from mirrors.registry.references import host_of
from mirrors.trivy.catalogue import KINDS, Kind, Limits
from mirrors.trivy.vex import is_directory

if TYPE_CHECKING:
    from mirrors.models.snapshot import Snapshot


class MirrorQuerySet(models.QuerySet["Mirror"]):
    def enabled(self) -> MirrorQuerySet:
        return self.filter(enabled=True)

    def due(self, now: datetime) -> MirrorQuerySet:
        """Enabled mirrors whose next sync has come."""
        return self.enabled().filter(next_sync_at__lte=now)

    def for_pages(self) -> MirrorQuerySet:
        """With everything a row on a page shows, in a fixed number of queries."""
        return self.select_related("current").prefetch_related("sources").order_by("position", "name")


class Mirror(models.Model):
    """One upstream asset we keep.

    `schedule` is an interval (6h), a cron expression or `manual`; empty means the kind's own rhythm. Limits and `keep`
    are the kind's unless set. `version` is what a mirror of release files is asked for: `latest`, or one that is
    pinned; empty for other kinds. `held_at` keeps syncs from switching. `settings_version` counts edits: a run made
    with older settings may not switch. The attempt fields are written when a run ends.

    `served_repository` and `served_tag` are what it is called under /v2/, empty for kinds that are not served there;
    of the organisation Trivy's assets have two names for, the canonical one is kept (mirrors/served_names.py).
    `served_tag_follows`: the tag is that of the first source.
    """

    name = models.SlugField(max_length=80, unique=True)
    label = models.CharField(max_length=80)
    kind = models.CharField(max_length=20, choices=[(kind.name, kind.label) for kind in KINDS.values()])
    position = models.PositiveIntegerField(default=100)
    schedule = models.CharField(max_length=80, blank=True)
    enabled = models.BooleanField(default=True)
    proxy = models.CharField(max_length=300, blank=True)
    platforms = models.JSONField(default=list, blank=True)
    with_referrers = models.BooleanField(default=False)
    served_repository = models.CharField(max_length=200, blank=True)
    served_tag = models.CharField(max_length=128, blank=True)
    served_tag_follows = models.BooleanField(default=True)
    version = models.CharField(max_length=120, blank=True)
    due_seconds = models.PositiveBigIntegerField(null=True, blank=True)
    stale_seconds = models.PositiveBigIntegerField(null=True, blank=True)
    expired_seconds = models.PositiveBigIntegerField(null=True, blank=True)
    keep = models.PositiveIntegerField(null=True, blank=True)
    held_at = models.DateTimeField(null=True, blank=True)
    held_reason = models.CharField(max_length=200, blank=True)
    settings_version = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField()
    current = models.ForeignKey("mirrors.Snapshot", null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    next_sync_at = models.DateTimeField(null=True, blank=True, db_index=True)
    last_attempt_at = models.DateTimeField(null=True, blank=True)
    last_success_at = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(blank=True)
    last_run = models.ForeignKey("mirrors.SyncRun", null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    failures = models.PositiveIntegerField(default=0)
    failing_since = models.DateTimeField(null=True, blank=True)

    objects = MirrorQuerySet.as_manager()

    class Meta:
        ordering = ["position", "name"]
        constraints = [
            models.UniqueConstraint(
                F("served_repository"),
                F("served_tag"),
                condition=~Q(served_repository=""),
                name="one_mirror_per_served_tag",
            ),
        ]
        indexes = [models.Index(fields=["served_repository"])]

    def __str__(self) -> str:
        return self.name

    @property
    def asset(self) -> Kind:
        """The catalogue entry of this mirror's kind."""
        return KINDS[self.kind]

    @property
    def limits(self) -> Limits:
        own = self.asset.limits
        return Limits(
            timedelta(seconds=self.due_seconds) if self.due_seconds else own.due,
            timedelta(seconds=self.stale_seconds) if self.stale_seconds else own.stale,
            timedelta(seconds=self.expired_seconds) if self.expired_seconds else own.expired,
        )

    @property
    def kept_snapshots(self) -> int:
        return self.keep or self.asset.keep

    @property
    def schedule_text(self) -> str:
        """The schedule in force: the mirror's own, else the kind's check interval."""
        if self.schedule:
            return self.schedule
        return f"{int(self.asset.check_every.total_seconds() // 3600)}h"

    @property
    def is_held(self) -> bool:
        return self.held_at is not None

    def hold(self, now: datetime, reason: str) -> None:
        self.held_at, self.held_reason = now, reason[:200]
        self.save(update_fields=["held_at", "held_reason"])

    def release(self) -> None:
        self.held_at, self.held_reason = None, ""
        self.save(update_fields=["held_at", "held_reason"])

    def switch_to(self, snapshot: Snapshot, now: datetime | None = None) -> None:
        """Make a snapshot of this mirror the current one. Callers hold the transaction."""
        if self.current_id is not None and self.current_id != snapshot.pk:
            self.snapshots.filter(pk=self.current_id).update(replaced_at=now or timezone.now())
        self.current = snapshot
        self.save(update_fields=["current"])


class Source(WithLogin):
    """One place a mirror is fetched from, with what it last answered.

    `memory` is what the registry client remembers (scheme, challenge). `matching_digest` is the manifest digest this
    source gives to the content of `matching_snapshot`: the same layer is pushed to every registry under a manifest
    digest of its own.
    """

    mirror = models.ForeignKey(Mirror, on_delete=models.CASCADE, related_name="sources")
    position = models.PositiveIntegerField()
    reference = models.CharField(max_length=500)
    insecure = models.BooleanField(default=False)
    ca_pem = models.TextField(blank=True)
    memory = models.JSONField(default=dict, blank=True)
    asked_at = models.DateTimeField(null=True, blank=True)
    answered_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)
    retry_at = models.DateTimeField(null=True, blank=True)
    manifest_digest = models.CharField(max_length=71, blank=True)
    layer_digest = models.CharField(max_length=71, blank=True)
    updated_at = models.DateTimeField(null=True, blank=True)
    lagging = models.BooleanField(default=False)
    matching_digest = models.CharField(max_length=71, blank=True)
    matching_snapshot = models.ForeignKey(
        "mirrors.Snapshot", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    clock_skew_seconds = models.IntegerField(null=True, blank=True)

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(F("mirror"), F("position"), name="one_source_per_position")]

    def __str__(self) -> str:
        return self.reference

    @property
    def host(self) -> str:
        return host_of(self.reference)

    @property
    def is_directory(self) -> bool:
        """Read from the disk of the machine that syncs, and not over a connection."""
        return is_directory(self.reference)
