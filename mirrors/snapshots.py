"""What people do with kept snapshots: pin and unpin, go back to an older one, let syncs go on."""

from datetime import datetime

from django.conf import settings
from django.db import transaction

from mirrors import content, record, runs, wording
from mirrors.digests import short
from mirrors.models import Mirror, Snapshot
from mirrors.registry.errors import clean


class SnapshotError(Exception):
    """It cannot be done with this snapshot; the sentence says why and what to do."""


def pin(snapshot: Snapshot, *, by: str, now: datetime, reason: str = "", address: str = "") -> None:
    """Keep it, however many newer ones come."""
    with transaction.atomic():
        # The row is locked, so that a pruner that already chose it finds it pinned or has removed it.
        locked = Snapshot.objects.select_for_update().filter(pk=snapshot.pk).first()
        if locked is None:
            raise SnapshotError("This snapshot has just been removed by retention; pin another one.")
        locked.pinned, locked.pin_reason = True, clean(reason, 200)
        locked.save(update_fields=["pinned", "pin_reason"])
        record.write(by, "snapshot pinned", _name(snapshot), locked.pin_reason, address, at=now)


def unpin(snapshot: Snapshot, *, by: str, now: datetime, address: str = "") -> None:
    """Leave it to retention again."""
    with transaction.atomic():
        Snapshot.objects.filter(pk=snapshot.pk).update(pinned=False, pin_reason="")
        record.write(by, "snapshot unpinned", _name(snapshot), "", address, at=now)


def roll_back(snapshot: Snapshot, *, by: str, now: datetime, reason: str = "", address: str = "") -> Mirror:
    """Make a kept snapshot the current one again and hold the mirror, so that the next sync does not undo it.

    1. All of its blobs must be in the store. 2. In one transaction: stop an open run, which began before the hold and
    could still switch; then switch and hold. Raises SnapshotError.
    """
    reason = clean(reason, 200)
    if missing := missing_blobs(snapshot):
        raise SnapshotError(
            f"The store lacks {wording.counted(len(missing), 'file')} of this snapshot ({short(missing[0])}). "
            "Check the store under Settings, then try again."
        )
    with transaction.atomic():
        mirror = Mirror.objects.select_for_update(of=("self",)).select_related("current").get(pk=snapshot.mirror_id)
        target = Snapshot.objects.select_for_update().filter(pk=snapshot.pk).first()
        if target is None:
            raise SnapshotError("This snapshot has just been removed by retention; choose another one.")
        if mirror.current_id == target.pk:
            raise SnapshotError("This snapshot is the current one already; nothing was changed.")
        runs.stop_open_runs(mirror, by=by, now=now, reason=f"Stopped: {by} rolled back to {short(target.digest)}.")
        was = short(mirror.current.digest) if mirror.current is not None else "nothing"
        mirror.switch_to(target, now)
        mirror.hold(now, reason or f"Rolled back by {by}")
        detail = f"from {was} to {short(target.digest)}" + (f": {reason}" if reason else "")
        record.write(by, "rolled back", mirror.name, detail, address, at=now)
    return mirror


def release(mirror: Mirror, *, by: str, now: datetime, address: str = "") -> bool:
    """Let syncs switch it again, and have the schedule look soon. False if it was not held."""
    with transaction.atomic():
        locked = Mirror.objects.select_for_update().get(pk=mirror.pk)
        if not locked.is_held:
            return False
        locked.release()
        if locked.next_sync_at is not None and settings.AIRGAP_SIDE != "isolated":
            # What was withheld is fetched now, not one interval later.
            locked.next_sync_at = min(locked.next_sync_at, now)
            locked.save(update_fields=["next_sync_at"])
        record.write(by, "hold released", mirror.name, "", address, at=now)
    return True


def missing_blobs(snapshot: Snapshot) -> list[str]:
    """The digests of its blobs that the store does not hold in full size."""
    store = content.store()
    return [
        digest
        for digest, size in snapshot.blobs.values_list("digest", "size_bytes")
        if not store.has(digest) or store.size(digest) != size
    ]


def _name(snapshot: Snapshot) -> str:
    return f"{snapshot.mirror.name}@{short(snapshot.digest)}"
