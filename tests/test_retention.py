"""What is kept, what goes, and what is said when there is no room."""

import os
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from mirrors import retention
from mirrors.blobs import StoreError
from mirrors.digests import digest_of
from mirrors.models import Bundle, BundleBlob, BundleSnapshot, RunStep, Snapshot, SyncRun
from tests.kept import keep_build

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def later():
    """A moment at which everything a test has just written is no longer new."""
    return timezone.now() + timedelta(hours=2)


def make_bundle(snapshot, *, expires_at, blob="", pk="b1", **fields):
    fields.setdefault("state", Bundle.State.READY)
    bundle = Bundle.objects.create(
        id=pk, filename=f"{pk}.tar", created_at=expires_at - timedelta(days=30), expires_at=expires_at, **fields
    )
    BundleSnapshot.objects.create(
        bundle=bundle, snapshot=snapshot, mirror_name=snapshot.mirror.name, label="x", digest=snapshot.digest
    )
    if blob:
        BundleBlob.objects.create(bundle=bundle, digest=blob)
    return bundle


def make_run(mirror, finished_at, **fields):
    return SyncRun.objects.create(
        mirror=mirror,
        trigger=SyncRun.Trigger.SCHEDULE,
        settings_version=1,
        state=SyncRun.State.UNCHANGED,
        queued_at=finished_at,
        started_at=finished_at,
        finished_at=finished_at,
        **fields,
    )


def builds(store, mirror, count, now):
    """Oldest first; the last one is current."""
    return [keep_build(store, mirror, now - (count - index) * 6 * HOUR) for index in range(count)]


def test_it_keeps_the_newest_and_removes_the_rest(store, make_mirror, later):
    mirror = make_mirror(keep=2)
    made = builds(store, mirror, 4, later)
    layers = [snapshot.layer_digest for snapshot in made]

    pruned = retention.prune(later)

    assert list(Snapshot.objects.values_list("pk", flat=True)) == [made[3].pk, made[2].pk]
    assert [store.has(layer) for layer in layers] == [False, False, True, True]
    # A layer and a manifest each; the config is the same two bytes in every build.
    assert (pruned.snapshots, pruned.blobs) == (2, 4)
    assert pruned.bytes_freed > 0
    assert "Removed 2 snapshots and 4 files" in pruned.sentence()


def test_what_was_replaced_a_short_while_ago_stays_for_clients_that_have_its_manifest(store, make_mirror, now):
    mirror = make_mirror(keep=1)
    before = keep_build(store, mirror, now - 12 * HOUR)
    keep_build(store, mirror, now - 6 * HOUR, fetched=now)

    retention.prune(now + retention.REPLACED_KEPT - timedelta(seconds=1))
    assert Snapshot.objects.filter(pk=before.pk).exists()
    assert store.has(before.layer_digest)
    retention.prune(now + retention.REPLACED_KEPT)
    assert not Snapshot.objects.filter(pk=before.pk).exists()


def test_what_a_release_of_a_hold_replaced_stays_a_while_too(store, make_mirror, now):
    mirror = make_mirror(keep=1)
    old = keep_build(store, mirror, now - 48 * HOUR)
    new = keep_build(store, mirror, now - 24 * HOUR)
    mirror.switch_to(old, now - 20 * HOUR)
    mirror.switch_to(new, now)
    retention.prune(now + HOUR)
    assert set(Snapshot.objects.values_list("pk", flat=True)) == {old.pk, new.pk}
    retention.prune(now + 4 * HOUR)
    assert set(Snapshot.objects.values_list("pk", flat=True)) == {new.pk}


def test_it_keeps_what_is_current_pinned_or_bundled_however_old(store, make_mirror, later):
    mirror = make_mirror(keep=1)
    made = builds(store, mirror, 5, later)
    mirror.switch_to(made[0])
    Snapshot.objects.filter(pk=made[1].pk).update(pinned=True)
    make_bundle(made[2], expires_at=later + HOUR)

    retention.prune(later)

    kept = set(Snapshot.objects.values_list("pk", flat=True))
    assert kept == {made[0].pk, made[1].pk, made[2].pk, made[4].pk}
    assert not store.has(made[3].layer_digest)
    assert all(store.has(made[index].layer_digest) for index in (0, 1, 2, 4))


def test_a_pin_or_a_roll_back_that_comes_first_is_seen(store, make_mirror, later, monkeypatch):
    mirror = make_mirror(keep=1)
    made = builds(store, mirror, 4, later)

    def pinned_meanwhile():
        Snapshot.objects.filter(pk=made[0].pk).update(pinned=True)
        type(mirror).objects.update(current=made[1])

    monkeypatch.setattr(retention, "lock_references", pinned_meanwhile)
    assert retention.prune_snapshots(later) == 1
    assert set(Snapshot.objects.values_list("pk", flat=True)) == {made[0].pk, made[1].pk, made[3].pk}


def test_it_expires_a_bundle_and_lets_go_of_what_it_held(store, make_mirror, later):
    mirror = make_mirror(keep=1)
    old, _ = builds(store, mirror, 2, later)
    sheet = store.put(b"cover sheet")
    bundle = make_bundle(old, expires_at=later, blob=sheet, recipe={"members": []})

    pruned = retention.prune(later)

    bundle.refresh_from_db()
    assert (bundle.expired_at, bundle.recipe, bundle.rendered.count()) == (later, {}, 0)
    assert bundle.contents.get().snapshot is None
    assert bundle.contents.get().digest == old.digest
    assert not store.has(sheet)
    assert pruned.bundles == 1


def test_it_keeps_the_blobs_of_a_bundle_that_has_not_expired(store, make_mirror, later):
    mirror = make_mirror()
    (snapshot,) = builds(store, mirror, 1, later)
    sheet = store.put(b"cover sheet")
    make_bundle(snapshot, expires_at=later + HOUR, blob=sheet)
    retention.prune(later)
    assert store.has(sheet)


def test_it_keeps_a_blob_that_only_just_came(store, db, now):
    digest = store.put(b"belongs to a sync that has not switched yet")
    retention.prune(timezone.now())
    assert store.has(digest)
    retention.prune(timezone.now() + 2 * HOUR)
    assert not store.has(digest)


def test_it_keeps_a_blob_that_another_mirror_still_needs(store, make_mirror, later):
    one, two = make_mirror("one", "trivy-db", keep=1), make_mirror("two", "trivy-db", keep=5)
    built = later - 12 * HOUR
    shared = keep_build(store, one, built)
    keep_build(store, one, built + HOUR)
    keep_build(store, two, built)
    retention.prune(later)
    assert not Snapshot.objects.filter(pk=shared.pk).exists()
    assert store.has(shared.layer_digest)


def test_it_leaves_files_alone_while_a_sync_puts_blobs_in_place(store, db, monkeypatch):
    monkeypatch.setattr(retention, "ALONE_WITHIN_SECONDS", 0)
    digest = store.put(b"nothing refers to this yet")
    with store.in_use():
        pruned = retention.prune(timezone.now() + 2 * HOUR)
    assert store.has(digest)
    assert pruned.sentence() == (
        "Nothing had to go. A sync or an import is under way; files that nothing refers to go with the next pass."
    )


def test_it_keeps_a_blob_that_got_a_row_after_it_was_chosen(store, make_mirror, later, monkeypatch):
    mirror = make_mirror()
    (snapshot,) = builds(store, mirror, 1, later)
    digest = store.put(b"chosen, and then part of a bundle")

    @contextmanager
    def a_bundle_comes_first(store):
        make_bundle(snapshot, expires_at=later + HOUR, blob=digest)
        yield True

    monkeypatch.setattr(retention, "_alone", a_bundle_comes_first)
    assert retention.prune(later).blobs == 0
    assert store.has(digest)


def test_nothing_to_prune_is_said(store, db):
    pruned = retention.prune(timezone.now())
    assert not pruned
    assert pruned.sentence() == "Nothing had to go."


def test_it_removes_interrupted_downloads_and_damaged_files_after_a_week(store, db):
    data = b"x" * 100
    with store.partial(digest_of(data), 100) as partial:
        partial.write(data[:60])
    digest = store.put(b"will be damaged")
    store.quarantine(digest)

    retention.prune(timezone.now() + timedelta(days=6))
    assert len(list(store.partials())) == 1
    assert len(os.listdir(store.root / "damaged")) == 1
    pruned = retention.prune(timezone.now() + timedelta(days=8))
    assert list(store.partials()) == []
    assert os.listdir(store.root / "damaged") == []
    assert pruned.bytes_freed == 60 + len(b"will be damaged")


def test_it_removes_old_runs_but_the_last_of_a_mirror(store, make_mirror, now, settings):
    settings.AIRGAP_HISTORY_DAYS = 100
    mirror = make_mirror()
    old = make_run(mirror, now - timedelta(days=101))
    last = make_run(mirror, now - timedelta(days=100, seconds=1))
    young = make_run(mirror, now - timedelta(days=99))
    mirror.last_run = last
    mirror.save()
    assert retention.prune(now).runs == 1
    assert set(SyncRun.objects.values_list("pk", flat=True)) == {last.pk, young.pk}
    assert not SyncRun.objects.filter(pk=old.pk).exists()


def test_a_store_that_refuses_does_not_keep_old_runs(store, make_mirror, now, settings, monkeypatch):
    def refuse(*_):
        raise StoreError("read-only", "The store cannot be written.")

    mirror = make_mirror()
    SyncRun.objects.create(
        mirror=mirror, trigger="hand", settings_version=1, queued_at=now, finished_at=now - timedelta(days=4000)
    )
    monkeypatch.setattr(store, "remove_partials", refuse)
    with pytest.raises(StoreError):
        retention.prune(now, store)
    assert not SyncRun.objects.exists()


def test_it_removes_the_steps_of_older_runs_in_batches(store, make_mirror, now, settings, monkeypatch):
    settings.AIRGAP_STEPS_DAYS = 90
    monkeypatch.setattr(retention, "BATCH", 10)
    mirror = make_mirror()
    for age, count in ((200, 25), (80, 5)):
        moment = now - timedelta(days=age)
        run = make_run(mirror, moment)
        RunStep.objects.bulk_create(RunStep(run=run, at=moment, text="asked") for _ in range(count))
    assert retention.prune(now).steps == 25
    assert RunStep.objects.count() == 5
    assert SyncRun.objects.count() == 2


def test_space_counts_a_blob_once_and_names_the_largest_holder_first(store, make_mirror, now):
    one = make_mirror("one", "trivy-db", label="Vulnerability DB")
    two = make_mirror("two", "trivy-java-db", label="Java DB")
    small = keep_build(store, one, now - HOUR)
    large = keep_build(store, two, now - HOUR, padding=200_000)
    pinned = keep_build(store, two, now - 2 * HOUR, padding=200_000, current=False)
    Snapshot.objects.filter(pk=pinned.pk).update(pinned=True)
    make_bundle(large, expires_at=now + HOUR)
    make_bundle(small, pk="c1", expires_at=now + 3 * timedelta(days=1), profile=Bundle.Profile.CACHE, size_bytes=50)

    space = retention.space(now)

    on_disk = sum(size for _, size in store.digests())
    assert space.used == on_disk + 50
    assert space.free > 0
    assert [holder.what for holder in space.holders] == [
        "Java DB (2 snapshots, 1 pinned, 1 in bundles)",
        "Vulnerability DB (1 snapshot, 1 in bundles)",
        "1 cache archive, the next expires in 3 days",
    ]
    assert sum(size for _, size in space.holders) == space.used


def test_space_asks_as_often_for_many_mirrors_as_for_one(store, make_mirror, now, django_assert_num_queries):
    for index in range(5):
        keep_build(store, make_mirror(f"m{index}", "trivy-db"), now - index * HOUR)
    with django_assert_num_queries(2):
        space = retention.space(now)
    with django_assert_num_queries(3):
        assert len(space.holders) == 5


def test_it_refuses_what_would_eat_the_reserve_and_says_who_holds_the_space(
    store, make_mirror, now, settings, monkeypatch
):
    keep_build(store, make_mirror(label="Vulnerability DB"), now - HOUR, padding=30_000)
    settings.AIRGAP_RESERVE_MB = 1024
    monkeypatch.setattr(type(store), "free_bytes", lambda self: 2 * 1024**3)
    retention.require_room(1024**3)
    with pytest.raises(retention.NoRoomError) as caught:
        retention.require_room(1024**3 + 1)
    assert str(caught.value) == (
        "There is no room for 1.0 GiB: 2.0 GiB are free and 1.0 GiB stay in reserve (AIRGAP_RESERVE_MB). "
        "Most is held by Vulnerability DB (1 snapshot): 32 KiB. "
        "Keep fewer snapshots, unpin some, delete bundles, or make the disk larger; then try again."
    )


def test_what_a_killed_process_left_makes_room_before_anything_is_refused(store, settings, monkeypatch):
    settings.AIRGAP_RESERVE_MB = 0
    left = store.root / "partial" / "incoming-0123456789abcdef"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(bytes(700))
    monkeypatch.setattr(type(store), "free_bytes", lambda self: 1000 - sum(each.size for each in self.partials()))
    retention.require_room(300)
    assert left.exists()
    retention.require_room(301)
    assert not left.exists()


def test_it_counts_what_other_runs_have_still_to_write(store, make_mirror, now, monkeypatch):
    busy, other = make_mirror("a", "trivy-db"), make_mirror("b", "trivy-db")
    runs = [
        SyncRun.objects.create(
            mirror=mirror,
            trigger="hand",
            settings_version=1,
            state="running",
            queued_at=now,
            bytes_total=900,
            bytes_done=100,
        )
        for mirror in (busy, other)
    ]
    monkeypatch.setattr(type(store), "free_bytes", lambda self: 1000)
    retention.require_room(200, run_id=runs[0].pk)
    with pytest.raises(retention.NoRoomError, match="800 B of them are for runs under way"):
        retention.require_room(201, run_id=runs[0].pk)


@pytest.mark.django_db(transaction=True)
def test_references_are_locked_only_within_a_transaction():
    with pytest.raises(transaction.TransactionManagementError, match="needs a transaction"):
        retention.lock_references()
    with transaction.atomic():
        retention.lock_references()
