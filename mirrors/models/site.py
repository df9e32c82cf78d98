"""Sites: the isolated networks that bundles are carried to, each bundle's crossing, and what a site holds by it."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import F

from mirrors.models.bundle import Bundle
from mirrors.models.snapshot import Snapshot


class SiteQuerySet(models.QuerySet["Site"]):
    def in_order(self) -> SiteQuerySet:
        return self.order_by("label", "name")


class Site(models.Model):
    """One isolated network.

    `code` is what bundles and receipts call it, in the clear. `receipts` says whether anything comes back from there;
    if not, what was carried is what it is taken to hold. `courier_days`: how often a courier goes there; null takes the
    instance's own.
    """

    class Receipts(models.TextChoices):
        EXPECTED = "expected", "Receipts come back"
        NONE = "none", "Nothing comes back"

    name = models.SlugField(max_length=80, unique=True)
    code = models.CharField(max_length=12, unique=True)
    label = models.CharField(max_length=80)
    receipts = models.CharField(max_length=8, choices=Receipts.choices, default=Receipts.EXPECTED)
    courier_days = models.PositiveSmallIntegerField(null=True, blank=True)
    notes = models.TextField(blank=True)
    created_at = models.DateTimeField()

    objects = SiteQuerySet.as_manager()

    class Meta:
        ordering = ["label", "name"]

    def __str__(self) -> str:
        return self.name

    @property
    def expects_receipts(self) -> bool:
        return self.receipts == self.Receipts.EXPECTED


class TransferQuerySet(models.QuerySet["Transfer"]):
    def newest_first(self) -> TransferQuerySet:
        return self.order_by("-prepared_at", "-pk")

    def open(self) -> TransferQuerySet:
        return self.filter(state__in=Transfer.OPEN)


class Transfer(models.Model):
    """One bundle's crossing to one site: prepared -> carried -> received | rejected.

    A crossing may be received or rejected without ever having been marked as carried. `site_code` is what the bundle
    calls the site, which may be called otherwise by now. `evidence` says how the end is
    known: a signed receipt, a typed code, or somebody's word here; `receipt_key` is the key of the receipt,
    `receipt_at` the date in it. `receipt_secret` (hex) lies in the bundle, "" for a cache archive, which has no place
    for it; whoever has it can make typed codes, so it is on no page, in no log and in no record. `left_out`: what the
    site was taken to hold already, as in bundle.json's `assumed`.
    """

    class State(models.TextChoices):
        PREPARED = "prepared", "Prepared"
        CARRIED = "carried", "Carried"
        RECEIVED = "received", "Received"
        REJECTED = "rejected", "Rejected"

    class Evidence(models.TextChoices):
        RECEIPT = "receipt", "signed receipt"
        CODE = "code", "typed code"
        HAND = "hand", "marked by hand"

    OPEN = (State.PREPARED, State.CARRIED)

    id = models.CharField(max_length=16, primary_key=True)
    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="transfers")
    bundle = models.OneToOneField(Bundle, on_delete=models.CASCADE, related_name="transfer")
    state = models.CharField(max_length=10, choices=State.choices, default=State.PREPARED)
    site_code = models.CharField(max_length=12, blank=True)
    reference = models.CharField(max_length=200, blank=True)
    receipt_secret = models.CharField(max_length=64, blank=True)
    left_out = models.JSONField(default=list, blank=True)
    prepared_at = models.DateTimeField()
    prepared_by_name = models.CharField(max_length=150)
    carried_at = models.DateTimeField(null=True, blank=True)
    carried_by_name = models.CharField(max_length=150, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    closed_by_name = models.CharField(max_length=150, blank=True)
    evidence = models.CharField(max_length=8, choices=Evidence.choices, blank=True)
    receipt_key = models.CharField(max_length=100, blank=True)
    receipt_at = models.DateTimeField(null=True, blank=True)
    reason = models.TextField(blank=True)

    objects = TransferQuerySet.as_manager()

    class Meta:
        ordering = ["-prepared_at", "-pk"]
        indexes = [models.Index(fields=["site", "-prepared_at"]), models.Index(fields=["site", "state"])]

    def __str__(self) -> str:
        return f"{self.bundle_id} to {self.site.name}"

    @property
    def is_open(self) -> bool:
        return self.state in self.OPEN

    @property
    def arrived_at(self) -> datetime | None:
        """When its content was there: the receipt's own date where it can be true, else when we were told."""
        if self.receipt_at is not None and self.closed_at is not None and self.receipt_at >= self.prepared_at:
            return min(self.receipt_at, self.closed_at)
        return self.closed_at


class SiteHolding(models.Model):
    """What a site holds of one mirror, worked out from its transfers whenever one of them changes.

    Up to two rows for each mirror: what is known to be there (`evidence` receipt, code or hand), and what was only
    carried after it (`assumed`), kept for sites that send no receipts. `confirmed_at` is when it was last
    confirmed at its source, as far as the site was told; `since` when it arrived, or left here.
    """

    ASSUMED = "assumed"

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="holdings")
    transfer = models.ForeignKey(Transfer, on_delete=models.CASCADE, related_name="holdings")
    snapshot = models.ForeignKey(Snapshot, null=True, on_delete=models.SET_NULL, related_name="held_by_sites")
    mirror_name = models.CharField(max_length=80)
    label = models.CharField(max_length=80)
    kind = models.CharField(max_length=20)
    digest = models.CharField(max_length=71)
    identity = models.CharField(max_length=71, blank=True)
    updated_at = models.DateTimeField(null=True, blank=True)
    next_update = models.DateTimeField(null=True, blank=True)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    since = models.DateTimeField()
    evidence = models.CharField(max_length=8)
    is_assumed = models.BooleanField(default=False)

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(F("site"), F("mirror_name"), F("is_assumed"), name="one_holding")]

    def __str__(self) -> str:
        return f"{self.mirror_name} at {self.site.name}"
