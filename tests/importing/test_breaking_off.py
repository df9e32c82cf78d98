"""Killed, stopped or without room at any moment: nothing is switched, nothing stays for ever, and it can go on."""

import errno
import io
import os
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from mirrors import retention
from mirrors.blobs import writing
from mirrors.bundle.joining import VolumeFile
from mirrors.bundle.reader import read_bundle
from mirrors.importing import asking, perform, staging, switching, verifying
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
    assert "The disk became full" in run.error and "begin it again" in run.error
    assert Report.from_dict(run.report).refusal == "room"
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


def test_a_volume_that_the_drive_cannot_read_is_named(carrier, store, now, monkeypatch):
    paths = volumes_of(carrier.bundle(ALL), 3)

    class Scratched(io.FileIO):
        def read(self, count=-1):
            if self.name == str(paths[1]) and self.tell():
                raise OSError(errno.EIO, "Input/output error")
            return super().read(count)

    def scratched(name, path, size):
        return VolumeFile(name, size, lambda: Scratched(str(path)))

    monkeypatch.setattr(perform, "volume", scratched)
    run = request_import(at_paths(paths), origin="directory", by="otto", now=now, wishes=UNSIGNED)
    perform.perform(run.pk, store=store, heart=False)
    run.refresh_from_db()
    assert run.error == (f"{paths[1].name} cannot be read: Input/output error. Try another drive, or copy it again.")
    nothing_happened(store, now)


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
    assert "Type the command again" in run.error
    assert asking.successor(run) is None


def typed(carrier, now):
    return request_import(at_paths([carrier.bundle()]), origin="command", by="otto", now=now, wishes=UNSIGNED)


def test_no_worker_makes_what_a_command_waits_for(carrier, store, now):
    """The command may read what the worker cannot: another mount namespace, another account."""
    run = typed(carrier, now)
    assert IMPORTS.oldest_queued() is None
    assert IMPORTS.unsent(now) == []
    assert perform.perform(run.pk, store=store, heart=False)


def test_a_command_that_ends_before_its_turn_leaves_nothing_queued(carrier, store, now):
    run = typed(carrier, now)
    IMPORTS.wait_here(run, now=now)
    IMPORTS.close_lost(now + timedelta(seconds=29))
    run.refresh_from_db()
    assert run.state == "queued"
    IMPORTS.close_lost(now + timedelta(seconds=31))
    run.refresh_from_db()
    assert run.state == "cancelled"
    assert "The command ended before its turn came" in run.error
    nothing_happened(store, now)


def test_what_a_command_asked_for_can_be_gone_on_with_by_a_worker(carrier, store, now):
    run = typed(carrier, now)
    IMPORTS.claim(run.pk, now=now)
    Import.objects.update(heartbeat_at=now - timedelta(minutes=5), worker="")
    IMPORTS.close_lost(timezone.now())
    again = asking.again(run, by="otto", now=now, wishes=UNSIGNED)
    assert again.origin == "directory"
    assert IMPORTS.oldest_queued() == again.pk


def test_a_lost_import_names_the_one_in_its_place_until_it_was_lost_too_often(carrier, now):
    run = ask(carrier.bundle(), now)
    for _ in range(4):
        IMPORTS.claim(run.pk, now=now)
        Import.objects.filter(pk=run.pk).update(heartbeat_at=now - timedelta(minutes=5), worker="elsewhere:1:2")
        (again,) = IMPORTS.close_lost(now)
        run.refresh_from_db()
        assert run.error.endswith("Nothing was switched. The import is begun again.")
        assert asking.successor(run) == again
        run = again
    IMPORTS.claim(run.pk, now=now)
    Import.objects.filter(pk=run.pk).update(heartbeat_at=now - timedelta(minutes=5), worker="elsewhere:1:2")
    assert IMPORTS.close_lost(now) == []
    run.refresh_from_db()
    assert "5 times in a row" in run.error
    assert asking.successor(run) is None


def test_what_is_coming_in_is_counted_and_named_where_room_is_short(carrier, store, now, settings):
    path = carrier.bundle(padding=50_000)
    run = ask(path, now, Wishes(allow_unsigned=True))
    assert perform.perform(run.pk, store=store, heart=False)
    upload = staging.begin(path.name, path.stat().st_size, by="otto", now=now)
    with path.open("rb") as file:
        staging.append(upload, 0, file.read, 4000, now=lambda: now)
    held = {holder.what: holder.size_bytes for holder in retention.space(now, store).holders}
    assert held == {
        "Uploaded bundles, on the page Import": 4000,
        "Bundles that wait for a decision, on the page Import": sum(size for _, size in store.digests()),
    }
    assert retention.space(now, store).used == sum(held.values())
    settings.AIRGAP_RESERVE_MB = 10**9
    with pytest.raises(retention.NoRoomError, match=r"held by Bundles that wait for a decision, on the page Import: "):
        retention.require_room(1, store=store)


def test_prune_by_command_gives_up_what_nobody_decided_in_time(carrier, store, now, capsys):
    run = ask(carrier.bundle(), now, Wishes(allow_unsigned=True))
    perform.perform(run.pk, store=store, heart=False)
    Import.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    call_command("prune")
    run.refresh_from_db()
    assert run.state == "cancelled"
    assert "Removed 1 overdue import; " in capsys.readouterr().out
    nothing_happened(store, now)


def in_volumes(paths, now):
    return request_import(at_paths(paths), origin="directory", by="otto", now=now, wishes=UNSIGNED)


def test_a_medium_that_is_taken_out_between_two_volumes_is_asked_for(carrier, store, now):
    paths = volumes_of(carrier.bundle(padding=50_000), 3)
    run = in_volumes(paths, now)
    paths[2].unlink()
    perform.perform(run.pk, store=store, heart=False)
    run.refresh_from_db()
    assert run.error.startswith(f"{paths[2].name} cannot be read: No such file or directory.")
    assert run.error.endswith("Put the medium it lies on back in, then try again.")
    nothing_happened(store, now)


def test_volumes_with_names_in_capitals_are_imported(carrier, store, now):
    paths = [path.rename(path.with_name(path.name.upper())) for path in volumes_of(carrier.bundle(), 2)]
    run = in_volumes(paths, now)
    assert perform.perform(run.pk, store=store, heart=False)
    run.refresh_from_db()
    assert run.state == "succeeded"
