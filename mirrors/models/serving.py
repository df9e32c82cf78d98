"""How this instance serves: one row of settings, and the tokens that scanners read with."""

from datetime import datetime
from typing import Self

from django.db import models


class Serving(models.Model):
    """Settings of everything scanners fetch. There is one row, made at the first change; until then defaults hold."""

    ONLY = 1

    login_required = models.BooleanField(default=False)
    count_consumers = models.BooleanField(default=True)
    anonymise_addresses = models.BooleanField(default=False)
    consumers_days = models.PositiveIntegerField(default=90)

    class Meta:
        verbose_name_plural = "serving"
        constraints = [models.CheckConstraint(condition=models.Q(pk=1), name="serving_has_one_row")]

    def __str__(self) -> str:
        return "readers log in" if self.login_required else "anybody reads"

    @classmethod
    def now(cls) -> "Serving":
        """The settings as they are kept, or the defaults."""
        return cls.objects.filter(pk=cls.ONLY).first() or cls(pk=cls.ONLY)

    @classmethod
    def locked(cls) -> "Serving":
        """The row, for whoever changes it in a transaction."""
        cls.objects.get_or_create(pk=cls.ONLY)
        return cls.objects.select_for_update().get(pk=cls.ONLY)


class AccessTokenQuerySet(models.QuerySet["AccessToken"]):
    def standing(self) -> Self:
        """Those that were not revoked; they may have expired."""
        return self.filter(revoked_at=None)

    def usable(self, now: datetime) -> Self:
        return self.standing().filter(models.Q(expires_at=None) | models.Q(expires_at__gt=now))


class AccessToken(models.Model):
    """A secret that a scanner reads with; only its SHA-256 is kept. Revoked ones stay, for the record names them.

    The secret is 256 random bits, so that a plain hash cannot be searched through.
    """

    name = models.SlugField(max_length=80)
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=150)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = AccessTokenQuerySet.as_manager()

    class Meta:
        ordering = ["name", "-created_at"]
        constraints = [
            # A token is replaced by one of the same name once it is revoked.
            models.UniqueConstraint(
                fields=["name"], condition=models.Q(revoked_at=None), name="one_standing_token_of_a_name"
            )
        ]

    def __str__(self) -> str:
        return self.name

    def is_usable(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)

    def state(self, now: datetime) -> str:
        """`usable`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "usable" if self.is_usable(now) else "expired"
