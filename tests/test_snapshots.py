"""Pin, unpin, roll back, release."""

from datetime import timedelta

import pytest

from mirrors import retention, runs, snapshots
from mirrors.models import AuditEntry, Mirror, Snapshot, SyncRun
from mirrors.snapshots import SnapshotError
from tests.kept import keep_build

HOUR = timedelta(hours=1)
pytestmark = pytest.mark.django_db


@pytest.fixture
def mirror(make_mirror) -> Mirror:
    return make_mirror("trivy-db", sources=["ghcr.io/aquasecurity/trivy-db:2"], keep=1)


@pytest.fixture
def old(store, mirror, now) -> Snapshot:
    return keep_build(store, mirror, now - 12 * HOUR)


@pytest.fixture
def new(store, mirror, now, old) -> Snapshot:
    return keep_build(store, mirror, now - 5 * HOUR)


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("pk").values_list("action", flat=True))


def test_a_pinned_snapshot_survives_retention(old, new, now):
    snapshots.pin(old, by="otto", now=now, reason=" used in\n an audit\0 ")
    retention.prune_snapshots(now)
    old.refresh_from_db()
    assert (old.pinned, old.pin_reason) == (True, "used in an audit")
    snapshots.unpin(old, by="otto", now=now)
    retention.prune_snapshots(now)
    assert not Snapshot.objects.filter(pk=old.pk).exists()
    assert actions() == ["snapshot pinned", "snapshot unpinned"]


def test_it_says_when_retention_was_faster(old, new, now):
    retention.prune_snapshots(now)
    with pytest.raises(SnapshotError, match="has just been removed by retention"):
        snapshots.pin(old, by="otto", now=now)


def test_it_rolls_back_and_holds(mirror, old, new, now):
    snapshots.roll_back(old, by="otto", now=now, reason="false positives", address="10.0.0.7")
    mirror.refresh_from_db()
    assert mirror.current == old
    assert (mirror.held_at, mirror.held_reason) == (now, "false positives")
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.subject, entry.address) == ("otto", "rolled back", "trivy-db", "10.0.0.7")
    assert "false positives" in entry.detail


def test_it_stops_a_run_that_could_still_switch(mirror, old, new, now):
    run, _ = runs.request_sync(mirror, trigger="schedule", by="", now=now)
    assert runs.claim(run.pk, now=now)
    snapshots.roll_back(old, by="otto", now=now)
    run.refresh_from_db()
    assert run.state == SyncRun.State.CANCELLED
    assert "otto rolled back" in run.error


def test_it_does_not_roll_back_to_what_is_current(mirror, old, new, now):
    with pytest.raises(SnapshotError, match="is the current one already"):
        snapshots.roll_back(new, by="otto", now=now)
    assert not Mirror.objects.get().is_held


def test_it_does_not_roll_back_to_what_is_missing_from_the_store(store, mirror, old, new, now):
    store.remove(old.layer_digest)
    with pytest.raises(SnapshotError, match="The store lacks 1 file of this snapshot"):
        snapshots.roll_back(old, by="otto", now=now)
    assert Mirror.objects.get().current == new


def test_a_release_lets_the_schedule_look_at_once(mirror, old, new, now):
    mirror.next_sync_at = now + HOUR
    mirror.save()
    snapshots.roll_back(old, by="otto", now=now)
    assert snapshots.release(mirror, by="otto", now=now)
    mirror.refresh_from_db()
    assert not mirror.is_held
    assert mirror.next_sync_at == now
    assert not snapshots.release(mirror, by="otto", now=now)
    assert actions() == ["rolled back", "hold released"]


def test_a_release_plans_nothing_for_a_mirror_synced_by_hand(mirror, old, new, now):
    snapshots.roll_back(old, by="otto", now=now)
    snapshots.release(mirror, by="otto", now=now)
    assert Mirror.objects.get().next_sync_at is None
