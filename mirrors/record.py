"""Writing the append-only record. Who did what, when, from where; never a secret."""

from datetime import datetime

from django.utils import timezone

from mirrors.models import AuditEntry


def write(
    actor: str, action: str, subject: str = "", detail: str = "", address: str = "", *, at: datetime | None = None
) -> None:
    """One line of the record. `action` is a short verb phrase such as `mirror changed`."""
    AuditEntry.objects.create(
        at=at or timezone.now(),
        actor=actor[:150] or "system",
        action=action,
        subject=subject[:200],
        detail=detail,
        address=address[:64],
    )
