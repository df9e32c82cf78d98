"""Keys: the one this instance signs with, those before it, and the ones of others that are trusted here."""

from typing import Self

from django.db import models


class SigningKeyQuerySet(models.QuerySet["SigningKey"]):
    def current(self) -> Self:
        """The one that signs, or none yet."""
        return self.filter(retired_at=None)


class SigningKey(models.Model):
    """A key that signs what this instance sends. One is current; retired ones stay, for bundles name them.

    `private_sealed` is the OpenSSH private key, encrypted with the key outside the database; "" where the private key
    is kept elsewhere, and once the key is retired.
    """

    class Kept(models.TextChoices):
        OWN = "own", "in this instance"
        AGENT = "agent", "in an ssh-agent"
        OUTSIDE = "outside", "outside"

    kept = models.CharField(max_length=10, choices=Kept.choices)
    public_line = models.TextField()
    fingerprint = models.CharField(max_length=60, db_index=True)
    private_sealed = models.TextField(blank=True)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=150)
    retired_at = models.DateTimeField(null=True, blank=True)
    retired_by = models.CharField(max_length=150, blank=True)

    objects = SigningKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                models.Value(1), condition=models.Q(retired_at=None), name="one_current_signing_key"
            )
        ]

    def __str__(self) -> str:
        return self.fingerprint

    @property
    def is_own(self) -> bool:
        return self.kept == self.Kept.OWN

    @property
    def is_outside(self) -> bool:
        """Whether a person brings every signature."""
        return self.kept == self.Kept.OUTSIDE


class TrustedKeyQuerySet(models.QuerySet["TrustedKey"]):
    def standing(self) -> Self:
        return self.filter(revoked_at=None)


class TrustedKey(models.Model):
    """Somebody else's key whose signatures are believed here. Revoked ones stay, to be refused by name."""

    name = models.SlugField(max_length=80)
    public_line = models.TextField()
    fingerprint = models.CharField(max_length=60, db_index=True)
    note = models.CharField(max_length=200, blank=True)
    added_at = models.DateTimeField()
    added_by = models.CharField(max_length=150)
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.CharField(max_length=150, blank=True)

    objects = TrustedKeyQuerySet.as_manager()

    class Meta:
        ordering = ["name", "-added_at"]
        constraints = [
            # A name is free again, and a key may be trusted again, once it is revoked.
            models.UniqueConstraint(
                fields=["name"], condition=models.Q(revoked_at=None), name="one_trusted_key_of_a_name"
            ),
            models.UniqueConstraint(
                fields=["fingerprint"], condition=models.Q(revoked_at=None), name="one_name_of_a_trusted_key"
            ),
        ]

    def __str__(self) -> str:
        return self.name
