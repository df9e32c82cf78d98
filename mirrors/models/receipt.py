"""Receipts: whether this side hands any out, those it has signed, and those that were loaded here."""

from __future__ import annotations

from django.db import models

from mirrors.models.importing import Import
from mirrors.models.site import Transfer


class Receipting(models.Model):
    """Whether receipts leave this instance. There is one row, made at the first change; until then none do."""

    ONLY = 1

    is_on = models.BooleanField(default=False)
    changed_at = models.DateTimeField(null=True, blank=True)
    changed_by = models.CharField(max_length=150, blank=True)

    class Meta:
        verbose_name_plural = "receipting"
        constraints = [models.CheckConstraint(condition=models.Q(pk=1), name="receipting_has_one_row")]

    def __str__(self) -> str:
        return "receipts are handed out" if self.is_on else "no receipts"

    @classmethod
    def now(cls) -> Receipting:
        """The switch as it is kept, or as it is at first."""
        return cls.objects.filter(pk=cls.ONLY).first() or cls(pk=cls.ONLY)

    @classmethod
    def locked(cls) -> Receipting:
        """The row, for whoever changes it in a transaction."""
        cls.objects.get_or_create(pk=cls.ONLY)
        return cls.objects.select_for_update().get(pk=cls.ONLY)


class IssuedReceipt(models.Model):
    """A receipt of an import here, as it was signed. It stays what it is; after another key or another site code there
    may be a second one. `text` is the file, `key` the fingerprint and `site` the code that it names.
    """

    run = models.ForeignKey(Import, on_delete=models.CASCADE, related_name="receipts")
    key = models.CharField(max_length=100)
    site = models.CharField(max_length=40)
    text = models.TextField()
    signed_at = models.DateTimeField()
    signed_by = models.CharField(max_length=150)

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(fields=["run", "key", "site"], name="one_issued_receipt_by_a_key"),
        ]

    def __str__(self) -> str:
        return f"receipt of import {self.run_id} by {self.key}"


class Receipt(models.Model):
    """A receipt that was loaded and believed; `digest` is that of its content, so that none counts twice.

    `key` is the fingerprint it names (of a typed code the trusted key that it begins like, or ""), `key_name` what that
    key is called here. `way` is how it came. What was refused is a line of the record and no row.
    """

    class Way(models.TextChoices):
        FILE = "file", "signed file"
        QR = "qr", "QR code"
        TEXT = "text", "pasted text"
        CODE = "code", "typed code"

    transfer = models.ForeignKey(Transfer, on_delete=models.CASCADE, related_name="receipts")
    digest = models.CharField(max_length=71, unique=True)
    way = models.CharField(max_length=8, choices=Way.choices)
    bundle = models.CharField(max_length=16)
    site = models.CharField(max_length=12)
    outcome = models.CharField(max_length=10)
    date = models.DateField()
    key = models.CharField(max_length=100, blank=True)
    key_name = models.CharField(max_length=80, blank=True)
    loaded_at = models.DateTimeField(db_index=True)
    loaded_by = models.CharField(max_length=150)

    class Meta:
        ordering = ["-loaded_at", "-pk"]

    def __str__(self) -> str:
        return f"{self.bundle} {self.outcome} at {self.site}"

    @property
    def is_signed(self) -> bool:
        return self.way != self.Way.CODE
