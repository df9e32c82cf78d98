"""The store check: what it finds, what it does about it, and what it says."""

import errno
import os
from datetime import timedelta

import pytest
from django.utils import timezone

from mirrors import exporting, scrubbing
from mirrors.models import AuditEntry, Snapshot, SyncRun
from mirrors.stopping import StopSignal
from tests.kept import keep_build

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def current(store, make_mirror, now):
    return keep_build(store, make_mirror(label="Vulnerability DB"), now - 5 * HOUR)


def damage(store, digest):
    path = store.path(digest)
    os.chmod(path, 0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def found():
    check = scrubbing.last_check()
    assert check is not None
    return check


def test_a_sound_store_is_said_to_be_sound(store, current):
    assert scrubbing.scrub(by="ada", store=store) == []
    check = found()
    assert check.is_clean
    assert check.headline() == "All 3 files in the store are what their names say."
    assert check.bytes_done == check.bytes_total == sum(size for _, size in store.digests())
    assert list(scrubbing.sentences(check)) == []


def test_an_empty_store_is_no_fault(store, db):
    scrubbing.scrub(store=store)
    assert found().headline() == "The store is empty, so nothing in it is wrong."


def test_it_knows_nothing_before_the_first_check(data_dir):
    assert scrubbing.last_check() is None


def test_a_damaged_blob_of_what_is_current_is_set_aside_and_fetched_again(store, current):
    damage(store, current.layer_digest)
    (run,) = scrubbing.scrub(by="ada", store=store)
    assert (run.mirror, run.trigger, run.requested_by) == (current.mirror, SyncRun.Trigger.REPAIR, "ada")
    assert not store.has(current.layer_digest)
    assert len(os.listdir(store.root / "damaged")) == 1
    check = found()
    assert check.headline() == "Of 3 files in the store, 1 damaged."
    said = " ".join(scrubbing.sentences(check))
    assert "is not what its name says; set aside." in said
    assert f"Vulnerability DB: what is current is damaged; it is fetched again in run {run.pk}." in said
    assert Snapshot.objects.filter(pk=current.pk).exists()


def test_a_missing_blob_of_what_is_current_is_fetched_again(store, current):
    store.remove(current.layer_digest)
    (run,) = scrubbing.scrub(store=store)
    assert run.mirror == current.mirror
    assert found().headline() == "Of 2 files in the store, 1 missing."


def test_an_open_run_is_not_sent_again(store, current, now):
    scrubbing.runs.request_sync(current.mirror, trigger="hand", by="otto", now=now)
    store.remove(current.layer_digest)
    assert scrubbing.scrub(store=store) == []
    assert "it is fetched again in run" in " ".join(found().actions)


def test_what_cannot_be_fetched_again_is_said(store, current):
    type(current.mirror).objects.update(enabled=False)
    store.remove(current.layer_digest)
    assert scrubbing.scrub(store=store) == []
    (action,) = found().actions
    assert action.startswith("Vulnerability DB: what is current is damaged and cannot be fetched again. ")
    assert "is disabled" in action


def test_an_older_build_that_is_damaged_is_removed_and_that_is_said(store, current, now):
    older = keep_build(store, current.mirror, now - 11 * HOUR, current=False)
    damage(store, older.layer_digest)
    assert scrubbing.scrub(by="ada", store=store) == []
    assert not Snapshot.objects.filter(pk=older.pk).exists()
    (action,) = found().actions
    assert action.startswith("Vulnerability DB: the older build ")
    assert action.endswith("of 2026-11-20 01:00 UTC was removed. No source offers it any more.")
    assert AuditEntry.objects.filter(action="damaged snapshot removed", actor="ada").exists()


def test_an_older_build_stays_when_the_repair_brings_its_blob_back(store, current, now):
    older = keep_build(store, current.mirror, now - 11 * HOUR, current=False)
    config = next(blob.digest for blob in current.blobs.all() if blob.role == "config")
    damage(store, config)
    assert len(scrubbing.scrub(store=store)) == 1
    assert Snapshot.objects.filter(pk=older.pk).exists()


def test_a_bundle_with_a_damaged_part_is_marked(store, current, now):
    bundle = exporting.create_bundle([current], profile="full", now=now, by="otto", store=store)
    damage(store, current.layer_digest)
    scrubbing.scrub(store=store)
    bundle.refresh_from_db()
    assert bundle.state == "damaged"
    assert bundle.problem.endswith("It can be sent again once its parts are here again.")


def test_a_bundle_whose_own_file_is_damaged_cannot_be_repaired(store, current, now):
    bundle = exporting.create_bundle([current], profile="full", now=now, by="otto", store=store)
    damage(store, bundle.rendered.first().digest)
    scrubbing.scrub(store=store)
    bundle.refresh_from_db()
    assert bundle.problem.endswith("Make a new bundle.")
    assert SyncRun.objects.count() == 0


def test_files_out_of_place_are_reported_and_left_alone(store, current):
    stray = store.root / "blobs" / "sha256" / "ab" / "notes.txt"
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("mine")
    digest = store.path(current.layer_digest)
    misplaced = store.root / "blobs" / "sha256" / "zz" / digest.name
    misplaced.parent.mkdir()
    misplaced.write_bytes(b"")
    scrubbing.scrub(store=store)
    check = found()
    assert check.headline() == "Of 3 files in the store, 2 out of place."
    assert check.strays[0] == "blobs/sha256/ab/notes.txt does not belong into the store."
    assert stray.exists()


def test_files_that_nothing_refers_to_are_counted(store, current):
    store.put(b"left over")
    scrubbing.scrub(store=store)
    assert list(scrubbing.sentences(found())) == ["1 file (9 B) that nothing refers to will be cleared away by itself."]


def test_a_check_that_is_told_to_stop_says_so(store, current):
    stop = StopSignal()
    stop.set()
    assert scrubbing.scrub(store=store, stop=stop) == []
    assert found().headline() == "The last check of the store was interrupted."


def test_only_one_check_runs_at_a_time(store, current, monkeypatch):
    monkeypatch.setattr(scrubbing.time, "sleep", lambda seconds: None)
    damage(store, current.layer_digest)
    with scrubbing._only_one() as alone:
        assert alone
        assert scrubbing.scrub(store=store) == []
        assert not scrubbing.ask(by="ada", now=timezone.now())
    assert store.has(current.layer_digest)


def test_a_check_whose_process_went_away_reads_as_interrupted(data_dir):
    scrubbing._save(scrubbing.Check(scrubbing.RUNNING, started_at=timezone.now()))
    assert found().state == "stopped"


def test_asking_is_noted_until_a_worker_takes_it(store, current, now):
    assert scrubbing.ask(by="ada", now=now)
    assert found().headline() == "The check of the store waits for a worker."
    scrubbing.scrub(by="ada", store=store)
    check = found()
    assert (check.state, check.asked_at, check.by) == ("done", now, "ada")


def test_a_long_list_is_cut_but_counted(data_dir):
    check = scrubbing.Check(
        scrubbing.DONE, files=80, missing=[f"{number} is not in the store." for number in range(70)]
    )
    scrubbing._save(check)
    read = found()
    assert len(read.missing) == 51
    assert read.missing[-1] == "… and 20 more."
    assert read.headline() == "Of 80 files in the store, 70 missing."


def test_a_full_disk_does_not_keep_the_check_from_finding_what_is_damaged(store, current, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    damage(store, current.layer_digest)
    monkeypatch.setattr("mirrors.scrubbing.Path.write_text", full)
    (run,) = scrubbing.scrub(by="ada", store=store)
    assert run.trigger == "repair"


def test_a_store_that_cannot_be_read_ends_the_check_with_a_sentence(store, current, monkeypatch):
    def refused(self, digest, **_):
        raise scrubbing.StoreError("read-only", "Reading blob 0123 failed: it may not be written or read.")

    monkeypatch.setattr(type(store), "verify", refused)
    scrubbing.scrub(store=store)
    check = found()
    assert check.headline() == "The last check of the store could not be finished."
    assert list(scrubbing.sentences(check)) == ["Reading blob 0123 failed: it may not be written or read."]
