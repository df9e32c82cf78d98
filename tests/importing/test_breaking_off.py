"""Killed, stopped or without room at any moment: nothing is switched, nothing stays for ever, and it can go on."""

import errno
import os
from datetime import timedelta

import pytest
from django.utils import timezone

from mirrors import retention
from mirrors.blobs import writing
from mirrors.bundle.reader import read_bundle
from mirrors.importing import asking, perform, switching, verifying
from mirrors.importing.asking import IMPORTS, Wishes, request_import
from mirrors.importing.finding import at_paths
from mirrors.importing.report import Report
from mirrors.models import Import, ImportBlob, Mirror, Snapshot
from mirrors.stopping import StopSignal
from tests.carrying import UNSIGNED, volumes_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("isolated")]
ALL = {"trivy-db": 5, "trivy-java-db": 12, "trivy-checks": 900, "vexhub": 30}
LATER = timedelta(days=4000)


class Killed(BaseException):
    """As a SIGKILL: nobody handles it, nothing is tidied up in the database."""


def ask(path, now, wishes=UNSIGNED):
    return request_import(at_paths([path]), origin="directory", by="otto", now=now, wishes=wishes)


def nothing_happened(store, now):
    assert not Snapshot.objects.exists()
    assert not Mirror.objects.exists()
    assert not ImportBlob.objects.exists()
    retention.prune(now + LATER, store)
    assert not list(store.digests())
    assert not list(store.partials())


@pytest.mark.parametrize("after", [0, 1, 3, 6, 8])
def test_killed_while_blobs_are_taken_nothing_is_switched_and_it_can_go_on(carrier, store, now, monkeypatch, after):
    path = carrier.bundle(ALL)
    count = 0
    finish = type(store)._finish

    def dying(self, *args):
        nonlocal count
        if count == after:
            raise Killed
        count += 1
        finish(self, *args)

    run = ask(path, now)
    with monkeypatch.context() as patch:
        patch.setattr(type(store), "_finish", dying)
        with pytest.raises(Killed):
            perform.perform(run.pk, store=store, heart=False)
    assert not Snapshot.objects.exists()
    Import.objects.update(heartbeat_at=timezone.now() - timedelta(minutes=5))
    (again,) = IMPORTS.close_lost(timezone.now())
    assert perform.perform(again.pk, store=store, heart=False)
    again.refresh_from_db()
    assert again.state == "succeeded"
    assert Mirror.objects.exclude(current=None).count() == 4


@pytest.mark.parametrize("place", ["plan", "_make_mirror", "_keep", "_note"])
def test_killed_inside_the_transaction_nothing_of_it_stays(carrier, store, now, monkeypatch, place):
    run = ask(carrier.bundle(ALL), now)
    own, count = getattr(switching, place), 0

    def dying(*args, **kwargs):
        nonlocal count
        count += 1
        if count == (1 if place == "plan" else 3):
            raise Killed
        return own(*args, **kwargs)

    monkeypatch.setattr(switching, place, dying)
    with pytest.raises(Killed):
        perform.perform(run.pk, store=store, heart=False)
    nothing_happened(store, now)


def test_a_disk_that_is_too_small_is_found_before_the_first_byte(carrier, store, now, settings):
    path = carrier.bundle(padding=300_000)
    settings.AIRGAP_RESERVE_MB = store.free_bytes() // 2**20 + 1
    run = ask(path, now)
    perform.perform(run.pk, store=store, heart=False)
    run.refresh_from_db()
    assert run.state == "failed"
    assert "There is no room for" in run.error
    assert Report.from_dict(run.report).refusal == "room"
    nothing_happened(store, now)


def test_a_disk_that_gets_full_meanwhile_ends_it_cleanly(carrier, store, now, monkeypatch):
    path = carrier.bundle(ALL, padding=300_000)
    count = 0

    def full(descriptor, chunk, offset):
        nonlocal count
        count += len(chunk)
        if count > 50_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.pwrite(descriptor, chunk, offset)

    run = ask(path, now)
    with monkeypatch.context() as patch:
        patch.setattr(writing, "_write_all", full)
        perform.perform(run.pk, store=store, heart=False)
    run.refresh_from_db()
    assert run.state == "failed"
    assert "full" in run.error
    nothing_happened(store, now)


def test_a_stop_switches_nothing(carrier, store, now):
    run = ask(carrier.bundle(ALL), now)
    stop = StopSignal()
    stop.set("otto")
    perform.perform(run.pk, store=store, heart=False, stop=stop)
    run.refresh_from_db()
    assert run.state == "cancelled"
    nothing_happened(store, now)


def test_a_shutdown_queues_it_again(carrier, store, now):
    run = ask(carrier.bundle(), now)
    stop = StopSignal()
    stop.set("shutdown")
    perform.perform(run.pk, store=store, heart=False, stop=stop)
    run.refresh_from_db()
    assert run.state == "queued"
    assert perform.perform(run.pk, store=store, heart=False)


def test_one_runs_at_a_time(carrier, store, now):
    first, second = ask(carrier.bundle(), now), ask(carrier.bundle({"trivy-java-db": 3}), now)
    assert IMPORTS.claim(first.pk, now=now)
    assert IMPORTS.claim(second.pk, now=now) is None
    assert IMPORTS.oldest_queued() is None
    assert not perform.perform(second.pk, store=store, heart=False)


def test_a_file_that_was_changed_since_it_was_found_is_not_read(carrier, store, now):
    path = carrier.bundle()
    run = ask(path, now)
    with path.open("ab") as file:
        file.write(b"more")
    perform.perform(run.pk, store=store, heart=False)
    run.refresh_from_db()
    assert "no longer the file that was found" in run.error
    nothing_happened(store, now)


def test_a_volume_that_is_missing_is_named(carrier, now):
    first, _, third = volumes_of(carrier.bundle(), 3)
    with pytest.raises(Exception, match="volume 2 of 3 is missing"):
        at_paths([third, first])


def test_a_link_put_in_place_of_the_file_is_not_followed(carrier, store, now, tmp_path):
    path = carrier.bundle()
    run = ask(path, now)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    perform.perform(run.pk, store=store, heart=False)
    run.refresh_from_db()
    assert run.state == "failed"
    nothing_happened(store, now)


def test_the_truth_is_looked_for_again_in_the_transaction(carrier, store, now, monkeypatch, make_mirror):
    """A mirror of the same name and another kind that was made while the bundle was read."""
    run = ask(carrier.bundle(), now)

    def late(*args, **kwargs):
        found = read_bundle(*args, **kwargs)
        make_mirror("trivy-db", "oci", served_repository="mirrors/trivy-db")
        return found

    monkeypatch.setattr(verifying, "read_bundle", late)
    perform.perform(run.pk, store=store, heart=False)
    run.refresh_from_db()
    assert run.state == "failed"
    assert not Snapshot.objects.exists()


def test_a_lost_import_by_command_is_not_begun_again_by_itself(carrier, store, now):
    run = request_import(at_paths([carrier.bundle()]), origin="command", by="otto", now=now, wishes=Wishes())
    IMPORTS.claim(run.pk, now=now)
    Import.objects.update(heartbeat_at=now - timedelta(minutes=5), worker="")
    assert asking.IMPORTS.close_lost(timezone.now()) == []
    run.refresh_from_db()
    assert run.state == "lost"
