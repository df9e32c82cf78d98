"""The append-only record of logins, exports and changes. Triggers (migration 0002) refuse updates and deletes."""

from django.db import models


class AuditEntry(models.Model):
    """Who did what, when and from where. `subject` names the thing, `detail` says what changed; never a secret."""

    at = models.DateTimeField(db_index=True)
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=40, db_index=True)
    subject = models.CharField(max_length=200, blank=True)
    detail = models.TextField(blank=True)
    address = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering = ["-at", "-pk"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {self.actor} {self.action} {self.subject}"
