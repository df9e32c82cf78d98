"""Consumers: whoever pulls from this instance, and what it last took of each mirror. Written in batches."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models
from django.db.models import F, Q

from mirrors import consumption
from mirrors.models.mirror import Mirror
from mirrors.models.snapshot import Snapshot


class Consumer(models.Model):
    """One scanner, registry or script, told apart by address, login and program.

    `address` is the network alone where addresses are made anonymous. `reader_name` is the token's or person's name.
    `product` is the program without its version, `agent` its whole User-Agent when it last asked.
    """

    address = models.CharField(max_length=64, blank=True)
    reader_kind = models.CharField(max_length=10)
    reader_name = models.CharField(max_length=150, blank=True)
    product = models.CharField(max_length=60, blank=True)
    agent = models.CharField(max_length=200, blank=True)
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["-last_seen_at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                F("address"), F("reader_kind"), F("reader_name"), F("product"), name="one_row_per_consumer"
            )
        ]

    def __str__(self) -> str:
        return f"{self.reader_name or self.address} ({self.product})"


class TakingQuerySet(models.QuerySet["Taking"]):
    def newest_first(self) -> TakingQuerySet:
        return self.order_by("-taken_at", "-pk")

    def in_state(self, state: str, now: datetime) -> TakingQuerySet:
        """Those in one of consumption.STATES."""
        return self.filter(
            {
                consumption.WAITING: Q(again_at__gt=now),
                consumption.EXPECTED: Q(again_at__lte=now, late_at__gt=now),
                consumption.LATE: Q(late_at__lte=now),
                consumption.UNKNOWN: Q(again_at=None),
            }[state]
        )


class Taking(models.Model):
    """What one consumer last took of one mirror: the snapshot, and its dates as they outlive it.

    `taken_at` is when the last byte had left; `asked_at` when it last asked what is current and still held that.
    `again_at` and `late_at` (mirrors/consumption.py) are kept so that states are found by an index; null where no rule
    says when it asks again.
    """

    consumer = models.ForeignKey(Consumer, on_delete=models.CASCADE, related_name="takings")
    mirror = models.ForeignKey(Mirror, on_delete=models.CASCADE, related_name="takings")
    snapshot = models.ForeignKey(Snapshot, null=True, on_delete=models.SET_NULL, related_name="takings")
    digest = models.CharField(max_length=71)
    updated_at = models.DateTimeField(null=True, blank=True)
    next_update = models.DateTimeField(null=True, blank=True)
    taken_at = models.DateTimeField()
    asked_at = models.DateTimeField(null=True, blank=True)
    usual_seconds = models.PositiveBigIntegerField(null=True, blank=True)
    again_at = models.DateTimeField(null=True, blank=True)
    late_at = models.DateTimeField(null=True, blank=True)
    count = models.PositiveBigIntegerField(default=0)
    bytes_total = models.PositiveBigIntegerField(default=0)

    objects = TakingQuerySet.as_manager()

    class Meta:
        ordering = ["-taken_at", "-pk"]
        constraints = [models.UniqueConstraint(F("consumer"), F("mirror"), name="one_taking_of_a_mirror")]
        indexes = [
            models.Index(fields=["-taken_at", "-id"]),
            models.Index(fields=["mirror", "-taken_at"]),
            models.Index(fields=["mirror", "late_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.consumer} took {self.digest[:17]}"

    @property
    def usual(self) -> timedelta | None:
        return None if self.usual_seconds is None else timedelta(seconds=self.usual_seconds)

    def state(self, now: datetime) -> str:
        """One of consumption.STATES."""
        if self.again_at is None or self.late_at is None:
            return consumption.UNKNOWN
        if now < self.again_at:
            return consumption.WAITING
        return consumption.EXPECTED if now < self.late_at else consumption.LATE


class LogPlace(models.Model):
    """How far one host has read nginx's log of files it sent (mirrors/taken_log.py). `offset` is in bytes.

    `tried_at` is when it last tried; `problem` says why that failed, "" if it did not, `failing_since` from when on.
    """

    host = models.CharField(max_length=100)
    path = models.CharField(max_length=400)
    inode = models.PositiveBigIntegerField(default=0)
    offset = models.PositiveBigIntegerField(default=0)
    tried_at = models.DateTimeField(null=True, blank=True)
    problem = models.TextField(blank=True)
    failing_since = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(F("host"), F("path"), name="one_place_per_log")]

    def __str__(self) -> str:
        return f"{self.host}:{self.path} at {self.offset}"
