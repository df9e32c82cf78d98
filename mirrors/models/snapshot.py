"""Snapshots: a mirror's verified content at one digest, immutable but for when it was last confirmed."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import F, Q

from mirrors.models.mirror import Mirror
from mirrors.trivy import layers
from mirrors.trivy.vex import is_directory


class SnapshotQuerySet(models.QuerySet["Snapshot"]):
    def newest_first(self) -> SnapshotQuerySet:
        return self.order_by("-fetched_at", "-pk")

    def confirm(self, pk: int, now: datetime) -> int:
        """Upstream was just seen still offering this one."""
        return self.filter(pk=pk).update(confirmed_at=now)


class Snapshot(models.Model):
    """What a mirror held at one digest.

    `identity` tells contents apart: the manifest digest, for VEX a digest over manifest and archives, for release files
    one over their checksum file, which stands for a manifest there, and the chosen files. `layer_digest` is the one
    layer of a Trivy kind or the (first) VEX archive, else empty. `updated_at` is the content's own date: UpdatedAt of
    a DB, index.json's updated_at for VEX, `created` of checks, null for oci and release. `replaced_at` is when it last
    ceased to be the current one.
    """

    mirror = models.ForeignKey(Mirror, on_delete=models.CASCADE, related_name="snapshots")
    identity = models.CharField(max_length=71)
    manifest_digest = models.CharField(max_length=71)
    layer_digest = models.CharField(max_length=71, blank=True, db_index=True)
    media_type = models.CharField(max_length=200, blank=True)
    artifact_type = models.CharField(max_length=200, blank=True)
    tag = models.CharField(max_length=128, blank=True)
    source_reference = models.CharField(max_length=500)
    tls_verified = models.BooleanField(default=True)
    version = models.CharField(max_length=100, blank=True)
    size_bytes = models.PositiveBigIntegerField()
    item_count = models.PositiveIntegerField(null=True, blank=True)
    updated_at = models.DateTimeField(null=True, blank=True)
    next_update = models.DateTimeField(null=True, blank=True)
    published_at = models.DateTimeField(null=True, blank=True)
    fetched_at = models.DateTimeField()
    confirmed_at = models.DateTimeField()
    replaced_at = models.DateTimeField(null=True, blank=True)
    pinned = models.BooleanField(default=False)
    pin_reason = models.CharField(max_length=200, blank=True)

    objects = SnapshotQuerySet.as_manager()

    class Meta:
        ordering = ["-fetched_at", "-pk"]
        constraints = [models.UniqueConstraint(F("mirror"), F("identity"), name="one_snapshot_per_content")]
        indexes = [models.Index(fields=["mirror", "-fetched_at"])]

    def __str__(self) -> str:
        return f"{self.mirror.name}@{self.digest[:17]}"

    @property
    def digest(self) -> str:
        """What clients and courier papers call it: the manifest digest, for VEX the archive's."""
        return self.layer_digest if self.mirror.kind == "vex" else self.manifest_digest

    @property
    def is_from_disk(self) -> bool:
        """It came from a directory of the machine that synced, or of the connected side's; no connection was used."""
        return is_directory(self.source_reference)

    @property
    def is_current(self) -> bool:
        return self.mirror.current_id == self.pk


class SnapshotBlob(models.Model):
    """One blob a snapshot needs; these rows are what keeps a blob in the store.

    `details` holds what only one role needs: for `vex-archive` the location as upstream wrote it, subdir, format,
    spec_version and served name; for children of an index their platform; for what refers to another manifest the
    digest of that `subject`; for a `signature` which file it is of and what it states.
    """

    class Role(models.TextChoices):
        MANIFEST = "manifest"
        INDEX = "index"
        CONFIG = "config"
        LAYER = "layer"
        VEX_MANIFEST = "vex-manifest"
        VEX_ARCHIVE = "vex-archive"
        CHECKSUMS = "checksums"
        FILE = "file"
        SIGNATURE = "signature"

    snapshot = models.ForeignKey(Snapshot, on_delete=models.CASCADE, related_name="blobs")
    position = models.PositiveIntegerField()
    digest = models.CharField(max_length=71, db_index=True)
    size_bytes = models.PositiveBigIntegerField()
    role = models.CharField(max_length=20, choices=Role.choices)
    media_type = models.CharField(max_length=200, blank=True)
    name = models.CharField(max_length=255, blank=True)
    details = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(F("snapshot"), F("position"), name="one_blob_per_position"),
            models.CheckConstraint(condition=Q(digest__startswith="sha256:"), name="blob_digest_is_sha256"),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.digest}"


class LayerFacts(models.Model):
    """What was read inside a layer once; a layer digest known here is never inflated again."""

    layer_digest = models.CharField(max_length=71, primary_key=True)
    kind = models.CharField(max_length=20)
    size_bytes = models.PositiveBigIntegerField()
    inflated_bytes = models.PositiveBigIntegerField()
    schema = models.PositiveIntegerField()
    updated_at = models.DateTimeField()
    next_update = models.DateTimeField(null=True, blank=True)
    read_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "layer facts"

    def __str__(self) -> str:
        return self.layer_digest

    @classmethod
    def of(cls, layer_digest: str, kind: str, size_bytes: int, found: layers.LayerFacts, now: datetime) -> LayerFacts:
        """The row, not saved yet, of what was found in this layer."""
        return cls(
            layer_digest=layer_digest,
            kind=kind,
            size_bytes=size_bytes,
            inflated_bytes=found.inflated_bytes,
            schema=found.version,
            updated_at=found.updated_at,
            next_update=found.next_update,
            read_at=now,
        )
