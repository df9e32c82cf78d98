"""What time it is: the later of the system clock and the newest time in any verified snapshot or bundle.

An isolated machine's clock is often wrong. A clock that is behind would make old data look fresh.
"""

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db.models import Max
from django.utils import timezone

from mirrors import freshness
from mirrors.models import Import, Snapshot


@dataclass(frozen=True)
class Reading:
    """`now` is what ages are judged by; `behind` says that the system clock cannot be believed."""

    now: datetime
    behind: bool


def trusted_now() -> Reading:
    newest = Snapshot.objects.aggregate(built=Max("updated_at"), confirmed=Max("confirmed_at"))
    if settings.AIRGAP_SIDE != "connected":
        newest |= Import.objects.all().done().aggregate(made=Max("bundle_created_at"))
    seen = [moment for moment in newest.values() if moment is not None]
    now, behind = freshness.trusted_now(timezone.now(), max(seen, default=None))
    return Reading(now, behind)
