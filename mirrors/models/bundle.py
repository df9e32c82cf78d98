"""Bundles: the recipe of one transfer file, and who took it."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import F

from mirrors.bundle.volumes import Volume, cut
from mirrors.models.snapshot import Snapshot


class BundleQuerySet(models.QuerySet["Bundle"]):
    def kept(self) -> BundleQuerySet:
        """Those whose file can still be had (or is being made)."""
        return self.filter(expired_at=None)

    def overdue(self, now: datetime) -> BundleQuerySet:
        return self.kept().filter(expires_at__lte=now)


class Bundle(models.Model):
    """One transfer file, composed from `recipe` while it is sent.

    `profile`: `full` has install.sh and push.sh, `data` leaves them out, `files` is single files without folders and
    `cache` one tar.gz that unpacks to a ready Trivy cache; a worker makes these two. `volume_size` is in bytes, 0 for
    one file. preparing -> ready | failed; unsigned -> ready when its signature was brought; ready -> damaged when a
    member no longer is what the recipe says. `sha256` is of the whole file, empty until a worker has computed it.
    `signer` is the fingerprint of the key that signs it, "" for none. After
    `expired_at` only this row is left.
    """

    class Profile(models.TextChoices):
        FULL = "full", "Transfer bundle"
        DATA = "data", "Data only"
        FILES = "files", "Bundle of single files"
        CACHE = "cache", "Cache archive"

    class State(models.TextChoices):
        PREPARING = "preparing", "Preparing"
        UNSIGNED = "unsigned", "Waits for its signature"
        READY = "ready", "Ready"
        FAILED = "failed", "Failed"
        DAMAGED = "damaged", "Damaged"

    id = models.CharField(max_length=16, primary_key=True)
    filename = models.CharField(max_length=120)
    profile = models.CharField(max_length=8, choices=Profile.choices, default=Profile.FULL)
    state = models.CharField(max_length=10, choices=State.choices)
    problem = models.TextField(blank=True)
    recipe = models.JSONField(default=dict)
    size_bytes = models.PositiveBigIntegerField(default=0)
    volume_size = models.PositiveBigIntegerField(default=0)
    etag = models.CharField(max_length=80, blank=True)
    sha256 = models.CharField(max_length=64, blank=True)
    signer = models.CharField(max_length=60, blank=True)
    work_started_at = models.DateTimeField(null=True, blank=True)
    bytes_done = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField()
    created_by_name = models.CharField(max_length=150, blank=True)
    expires_at = models.DateTimeField()
    expired_at = models.DateTimeField(null=True, blank=True)
    first_exported_at = models.DateTimeField(null=True, blank=True)

    objects = BundleQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return self.filename

    @property
    def is_ready(self) -> bool:
        return self.state == self.State.READY and self.expired_at is None

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """What it is cut into; empty for one file."""
        return cut(self.size_bytes, self.volume_size) if self.volume_size else ()


class BundleSnapshot(models.Model):
    """A snapshot in a bundle. The row survives the snapshot, so that the list of contents stays readable.

    `confirmed_at` is the snapshot's when the bundle was made. With `kind` and `identity` it is empty in rows from
    before there were sites.
    """

    bundle = models.ForeignKey(Bundle, on_delete=models.CASCADE, related_name="contents")
    snapshot = models.ForeignKey(Snapshot, null=True, on_delete=models.SET_NULL, related_name="bundled")
    mirror_name = models.CharField(max_length=80)
    label = models.CharField(max_length=80)
    digest = models.CharField(max_length=71)
    updated_at = models.DateTimeField(null=True, blank=True)
    size_bytes = models.PositiveBigIntegerField(default=0)
    kind = models.CharField(max_length=20, blank=True)
    identity = models.CharField(max_length=71, blank=True)
    next_update = models.DateTimeField(null=True, blank=True)
    confirmed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(F("bundle"), F("mirror_name"), name="one_snapshot_of_a_mirror")]

    def __str__(self) -> str:
        return f"{self.mirror_name} in {self.bundle_id}"


class BundleBlob(models.Model):
    """A blob made for one bundle (cover sheet, checksums, scripts); snapshots hold the rest."""

    bundle = models.ForeignKey(Bundle, on_delete=models.CASCADE, related_name="rendered")
    digest = models.CharField(max_length=71, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(F("bundle"), F("digest"), name="one_rendered_blob")]

    def __str__(self) -> str:
        return self.digest


class BundlePart(models.Model):
    """A volume of a bundle, or a single file of the files profile: its sum, and how often it was taken whole.

    Every volume has a row, its `sha256` empty until a worker computed it; a file has one once it was taken.
    """

    class Kind(models.TextChoices):
        VOLUME = "volume", "Volume"
        FILE = "file", "File"

    bundle = models.ForeignKey(Bundle, on_delete=models.CASCADE, related_name="parts")
    kind = models.CharField(max_length=6, choices=Kind.choices)
    name = models.CharField(max_length=140)
    sha256 = models.CharField(max_length=64, blank=True)
    times = models.PositiveIntegerField(default=0)
    taken_at = models.DateTimeField(null=True, blank=True)
    taken_by = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(F("bundle"), F("kind"), F("name"), name="one_part_of_a_name")]

    def __str__(self) -> str:
        return self.name


class Export(models.Model):
    """The last byte of a bundle was sent to somebody."""

    bundle = models.ForeignKey(Bundle, on_delete=models.CASCADE, related_name="exports")
    at = models.DateTimeField(db_index=True)
    by = models.CharField(max_length=150)
    address = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering = ["-at"]

    def __str__(self) -> str:
        return f"{self.bundle_id} to {self.by}"
