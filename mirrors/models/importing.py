"""Imports: bundles that came in, what each brought, and the files that browsers are still uploading."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import F, Q

from mirrors.bundle.volumes import LIST_ENDING
from mirrors.models.mirror import Mirror
from mirrors.models.run import Run, RunQuerySet, Step
from mirrors.models.snapshot import Snapshot


class ImportQuerySet(RunQuerySet["Import"]):
    def claimable(self) -> ImportQuerySet:
        """Queued imports that a worker may make, while none is running: one at a time.

        What was asked for by command is made by that command: its files may lie where only it can read.
        """
        if Import.objects.running().exists():
            return self.none()
        return self.queued().exclude(origin=Import.Origin.COMMAND)

    def waiting(self) -> ImportQuerySet:
        """Verified, and waiting for somebody to say whether to switch."""
        return self.open().filter(state=Import.WAITING)

    def done(self) -> ImportQuerySet:
        """Those whose bundle is in."""
        return self.filter(state__in=Run.SUCCESSES)


class Import(Run):
    """One attempt to take a bundle in.

    queued -> running -> waiting -> succeeded | unchanged | cancelled, or from running straight to the end. `waiting`
    means: everything was verified and lies in the store, nothing is switched, and somebody has to decide.

    `files` is what is read, in order: `{"name", "size"}` and either `"path"` and `"modified"`, or `"upload"` (an
    Upload's id). `report` is what was found out and what was done (mirrors/importing/report.py). `parsed` is
    bundle.json while the import waits, else empty. `told_at` is when the result was laid beside a dropped bundle.
    `receipt_secret` is kept for the receipt and shown to nobody.
    """

    kind = "import"
    WAITING = "waiting"
    STATES = (*Run.State.choices, (WAITING, "To be decided"))

    class Origin(models.TextChoices):
        UPLOAD = "upload", "uploaded"
        DIRECTORY = "directory", "from a directory"
        DROP = "drop", "from the drop folder"
        COMMAND = "command", "command line"

    state = models.CharField(max_length=12, choices=STATES, default=Run.State.QUEUED)
    origin = models.CharField(max_length=12, choices=Origin.choices)
    name = models.CharField(max_length=200)
    files = models.JSONField(default=list)
    size_bytes = models.PositiveBigIntegerField(default=0)
    new_bytes = models.PositiveBigIntegerField(default=0)

    at_once = models.BooleanField(default=False)
    switch_older = models.BooleanField(default=False)
    allow_unsigned = models.BooleanField(default=False)
    allow_other_site = models.BooleanField(default=False)
    allowed_by = models.CharField(max_length=150, blank=True)
    allowed_reason = models.CharField(max_length=200, blank=True)

    bundle = models.CharField(max_length=40, blank=True, db_index=True)
    bundle_created_at = models.DateTimeField(null=True, blank=True)
    sums_digest = models.CharField(max_length=71, blank=True)
    signed_by = models.CharField(max_length=200, blank=True)
    fingerprint = models.CharField(max_length=100, blank=True)
    site = models.CharField(max_length=40, blank=True)
    transfer = models.CharField(max_length=40, blank=True)
    receipt_secret = models.CharField(max_length=128, blank=True)
    parsed = models.JSONField(default=dict, blank=True)
    report = models.JSONField(default=dict, blank=True)
    decided_by = models.CharField(max_length=150, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    told_at = models.DateTimeField(null=True, blank=True)

    objects = ImportQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                F("state"), condition=Q(finished_at=None, state="running"), name="one_running_import"
            ),
        ]
        indexes = [
            models.Index(fields=["state", "-id"], name="imports_by_state"),
            models.Index(fields=["finished_at"], name="imports_by_end"),
        ]

    def __str__(self) -> str:
        return f"import {self.pk} of {self.name}"

    @property
    def is_waiting(self) -> bool:
        return self.is_open and self.state == self.WAITING

    @property
    def problems(self) -> list[str]:
        return list(self.report.get("problems", []))

    @property
    def bytes_moved(self) -> int:
        return self.new_bytes


class ImportStep(Step):
    """One line of an import's story."""

    run = models.ForeignKey(Import, on_delete=models.CASCADE, related_name="steps")

    class Meta(Step.Meta):
        pass


Import.step_model = ImportStep


class ImportBlob(models.Model):
    """A blob of a verified bundle that waits for a decision: this row keeps it in the store meanwhile."""

    run = models.ForeignKey(Import, on_delete=models.CASCADE, related_name="held")
    digest = models.CharField(max_length=71, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(F("run"), F("digest"), name="one_held_blob")]

    def __str__(self) -> str:
        return self.digest


class ImportedSnapshot(models.Model):
    """What became of one snapshot of a bundle. The row survives the snapshot, so that history stays readable."""

    class Outcome(models.TextChoices):
        SWITCHED = "switched", "switched to"
        CONFIRMED = "confirmed", "already current"
        OLDER = "older", "older than what is served: kept, not switched"
        HELD = "held", "held here: kept, not switched"
        LEFT = "left", "of a kind that this version does not know"

    run = models.ForeignKey(Import, on_delete=models.CASCADE, related_name="contents")
    mirror = models.ForeignKey(Mirror, null=True, on_delete=models.SET_NULL, related_name="imports")
    snapshot = models.ForeignKey(Snapshot, null=True, on_delete=models.SET_NULL, related_name="imports")
    mirror_name = models.CharField(max_length=80)
    label = models.CharField(max_length=80)
    kind = models.CharField(max_length=20)
    digest = models.CharField(max_length=71, blank=True)
    updated_at = models.DateTimeField(null=True, blank=True)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=10, choices=Outcome.choices)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.mirror_name} by import {self.run_id}"


class UploadQuerySet(models.QuerySet["Upload"]):
    def overdue(self, now: datetime) -> UploadQuerySet:
        return self.filter(expires_at__lte=now)


class Upload(models.Model):
    """One file that a browser sends in pieces (tus). Its bytes are `staging/<id>` in the data directory.

    `name` is the bundle's or the volume's, or that of the volumes' list of checksums; of a single file of a bundle
    without folders, `SET/NAME`.
    `offset` is how many bytes are on the disk for certain. `run` is the import that reads it, once there is one.
    """

    id = models.CharField(max_length=32, primary_key=True)
    name = models.CharField(max_length=200)
    size_bytes = models.PositiveBigIntegerField()
    offset = models.PositiveBigIntegerField(default=0)
    by = models.CharField(max_length=150)
    created_at = models.DateTimeField()
    touched_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    run = models.ForeignKey(Import, null=True, blank=True, on_delete=models.SET_NULL, related_name="uploads")

    objects = UploadQuerySet.as_manager()

    class Meta:
        ordering = ["created_at", "pk"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_list(self) -> bool:
        """The list of checksums of a bundle's volumes: not read as the bundle, but asked when that is damaged."""
        return "/" not in self.name and self.name.lower().endswith(LIST_ENDING)

    @property
    def is_complete(self) -> bool:
        return self.offset == self.size_bytes
