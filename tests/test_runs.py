"""The life of a run: one open run a mirror, leases, losses, stops and the schedule."""

import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.db import DatabaseError, connection, transaction

from mirrors import leases, runs, work_here
from mirrors.models import AuditEntry, Mirror, RunStep, SyncRun
from mirrors.stopping import StopSignal
from mirrors.story import SourceListener, Story

pytestmark = pytest.mark.django_db

State = SyncRun.State


@pytest.fixture
def mirror(make_mirror):
    return make_mirror("trivy-db", sources=["127.0.0.1:1/aquasecurity/trivy-db:2"])


def ask(mirror, now, trigger="hand", by="otto"):
    return runs.request_sync(mirror, trigger=trigger, by=by, now=now)


def test_a_mirror_has_at_most_one_open_run(mirror, now):
    first, made = ask(mirror, now)
    second, made_again = ask(mirror, now)
    assert (made, made_again) == (True, False)
    assert first.pk == second.pk


def test_an_ended_run_makes_room_for_the_next(mirror, now):
    first, _ = ask(mirror, now)
    runs.stop_run(first, by="otto", now=now)
    second, made = ask(mirror, now)
    assert made and second.pk != first.pk


def test_a_disabled_mirror_is_not_synced(mirror, now):
    mirror.enabled = False
    mirror.save()
    with pytest.raises(runs.RunError, match="is disabled"):
        ask(mirror, now)


def test_an_isolated_instance_asks_nobody(mirror, now, settings):
    settings.AIRGAP_SIDE = "isolated"
    with pytest.raises(runs.RunError, match="isolated"):
        ask(mirror, now)
    mirror.next_sync_at = now
    mirror.save()
    assert runs.open_due(now) == []


def test_only_one_worker_can_claim_a_run(mirror, now):
    run, _ = ask(mirror, now)
    assert runs.claim(run.pk, now=now) is not None
    assert runs.claim(run.pk, now=now) is None


def test_a_closed_run_can_no_longer_be_written(mirror, now):
    run, _ = ask(mirror, now)
    lease = runs.claim(run.pk, now=now)
    runs.stop_run(run, by="otto", now=now)
    assert lease.write(bytes_done=5) is False
    with pytest.raises(runs.LeaseLost):
        runs.close(lease, State.SUCCEEDED, now=now)
    run.refresh_from_db()
    assert (run.state, run.bytes_done) == (State.CANCELLED, 0)


def test_a_lease_holds_no_longer_once_another_worker_has_the_run(mirror, now):
    run, _ = ask(mirror, now)
    former = runs.claim(run.pk, now=now)
    runs.put_back(former)
    present = runs.claim(run.pk, now=now)
    assert former.write(bytes_done=5) is False
    with pytest.raises(runs.LeaseLost):
        runs.close(former, State.SUCCEEDED, now=now)
    assert present.write(bytes_done=7) is True
    run.refresh_from_db()
    assert (run.state, run.bytes_done) == (State.RUNNING, 7)


def test_stopping_aborts_the_transfer_of_this_process_at_once(mirror, now):
    run, _ = ask(mirror, now)
    runs.claim(run.pk, now=now)
    stop = StopSignal()
    aborted = []
    with work_here.entered(stop, leases.work_key(SyncRun, run.pk)), stop.attach(lambda: aborted.append(True)):
        assert runs.stop_run(run, by="otto", now=now)
    assert aborted and stop.reason == runs.CLOSED
    assert AuditEntry.objects.get(action="sync stopped").actor == "otto"
    assert RunStep.objects.get(run=run).text == "Stopped by otto."


def test_a_long_host_name_does_not_keep_the_heart_from_beating(mirror, now):
    run, _ = ask(mirror, now)
    story = Story(runs.claim(run.pk, now=now))
    # PostgreSQL refuses what SQLite takes, and a run whose heart cannot beat is lost.
    story.stage = f"downloading from {'a' * 63}.{'b' * 63}.example"
    assert len(story.values()["stage"]) <= SyncRun._meta.get_field("stage").max_length


def test_what_could_not_be_written_is_written_at_the_next_beat(mirror, now, monkeypatch):
    run, _ = ask(mirror, now)
    story = Story(runs.claim(run.pk, now=now))
    story.tell("first")
    with monkeypatch.context() as patched:
        patched.setattr(RunStep.objects, "bulk_create", refuse_to_write)
        with pytest.raises(DatabaseError):
            story.flush()
    story.tell("second")
    story.flush()
    assert [step.text for step in run.steps.all()] == ["first", "second"]


def refuse_to_write(rows):
    raise DatabaseError("database is locked")


def test_a_registry_whose_clock_is_far_off_fits_its_column(mirror, now):
    listener = SourceListener(Story(runs.Lease(0, "")), "registry.example/a:1")
    listener.clock("registry.example", datetime(9999, 12, 31, tzinfo=UTC))
    assert listener.clock_skew_seconds == 2**31 - 1


@pytest.mark.skipif("postgresql" not in settings.DATABASES["default"]["ENGINE"], reason="SQLite has one writer at once")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("ending", ["stop", "close", "lost"])
def test_whoever_ends_a_run_takes_its_mirror_first_as_an_edit_does(mirror, now, ending):
    run, _ = ask(mirror, now)
    lease = runs.claim(run.pk, now=now)
    endings = {
        "stop": lambda: runs.stop_run(run, by="otto", now=now),
        "close": lambda: runs.close(lease, State.FAILED, now=now),
        "lost": lambda: runs.close_lost(now + timedelta(hours=1)),
    }

    def end() -> None:
        endings[ending]()
        connection.close()

    thread = threading.Thread(target=end)
    with transaction.atomic():
        Mirror.objects.select_for_update().get(pk=mirror.pk)
        thread.start()
        with connection.cursor() as cursor:
            for _ in range(200):
                cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                if cursor.fetchone()[0]:
                    break
                time.sleep(0.05)
        # Taken by the other one already, each would wait for the other.
        SyncRun.objects.select_for_update(nowait=True).get(pk=run.pk)
    thread.join()
    run.refresh_from_db()
    assert not run.is_open


def test_stopping_an_ended_run_does_nothing(mirror, now):
    run, _ = ask(mirror, now)
    assert runs.stop_run(run, by="otto", now=now)
    assert not runs.stop_run(run, by="otto", now=now)


def test_a_run_whose_heart_stopped_is_lost_and_asked_for_again(mirror, now):
    run, _ = ask(mirror, now)
    runs.claim(run.pk, now=now)
    SyncRun.objects.filter(pk=run.pk).update(worker="elsewhere:12:34")
    assert runs.close_lost(now + timedelta(seconds=29)) == []
    (again,) = runs.close_lost(now + timedelta(seconds=31))
    run.refresh_from_db()
    assert run.state == State.LOST and "went away" in run.error
    assert (again.trigger, again.losses, again.state) == ("retry", 1, State.QUEUED)


def test_a_run_whose_process_is_gone_is_lost_without_waiting(mirror, now):
    run, _ = ask(mirror, now)
    runs.claim(run.pk, now=now)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        host = leases.worker_name().rsplit(":", 2)[0]
        alive = f"{host}:{child.pid}:{leases._life(child.pid)}"
        SyncRun.objects.filter(pk=run.pk).update(worker=alive)
        assert runs.close_lost(now) == []
        child.kill()
        child.wait()
    assert len(runs.close_lost(now)) == 1


def test_a_process_that_took_over_the_pid_of_a_dead_worker_is_not_mistaken_for_it():
    host = leases.worker_name().rsplit(":", 2)[0]
    assert leases.is_gone(f"{host}:{os.getpid()}:1")
    assert not leases.is_gone(leases.worker_name())


def test_a_run_that_is_lost_again_and_again_is_left_to_the_schedule(mirror, now):
    run, _ = ask(mirror, now)
    for _ in range(leases.MOST_LOSSES):
        assert runs.claim(run.pk, now=now)
        SyncRun.objects.filter(pk=run.pk).update(worker="elsewhere:12:34")
        again = runs.close_lost(now + timedelta(minutes=1))
        if not again:
            break
        run = again[0]
    assert run.losses == leases.MOST_LOSSES - 1
    assert not SyncRun.objects.open().exists()


def test_an_overdue_schedule_is_one_run(mirror, now):
    mirror.next_sync_at = now - timedelta(days=3)
    mirror.save()
    assert len(runs.open_due(now)) == 1
    mirror.refresh_from_db()
    assert mirror.next_sync_at > now
    assert runs.open_due(now) == []


def test_a_schedule_that_comes_while_a_run_is_open_opens_no_second(mirror, now):
    ask(mirror, now)
    mirror.next_sync_at = now
    mirror.save()
    assert runs.open_due(now) == []
    assert SyncRun.objects.count() == 1


def test_a_schedule_that_is_switched_off_opens_nothing(mirror, now, settings):
    settings.AIRGAP_SCHEDULE = False
    mirror.next_sync_at = now
    mirror.save()
    assert runs.open_due(now) == []


def test_a_message_that_was_lost_is_sent_again(mirror, now):
    run, _ = ask(mirror, now)
    assert [sent.pk for sent in runs.unsent(now)] == [run.pk]
    assert runs.unsent(now + timedelta(seconds=20)) == []
    assert [sent.pk for sent in runs.unsent(now + timedelta(seconds=40))] == [run.pk]


def test_a_failure_is_tried_again_sooner_than_the_schedule_and_then_less_often(mirror, now):
    waits = []
    for _ in range(6):
        run, _ = ask(mirror, now)
        lease = runs.claim(run.pk, now=now)
        runs.close(lease, State.FAILED, now=now, error="It broke.")
        mirror.refresh_from_db()
        waits.append(mirror.next_sync_at - now)
    assert waits[0] == timedelta(minutes=5) and waits[1] == timedelta(minutes=10)
    assert waits == sorted(waits) and waits[-1] <= timedelta(hours=1, minutes=10)
    assert mirror.failures == 6 and mirror.last_error == "It broke." and mirror.failing_since == now


def test_a_source_that_asks_for_patience_sets_the_next_try(mirror, now):
    run, _ = ask(mirror, now)
    lease = runs.claim(run.pk, now=now)
    later = now + timedelta(seconds=900)
    runs.close(lease, State.FAILED, now=now, error="429", retry_at=later)
    mirror.refresh_from_db()
    assert mirror.next_sync_at == later


def test_a_success_forgets_the_failures(mirror, now):
    for state in (State.FAILED, State.UNCHANGED):
        run, _ = ask(mirror, now)
        runs.close(runs.claim(run.pk, now=now), state, now=now, error="x" if state == State.FAILED else "")
    mirror.refresh_from_db()
    assert (mirror.failures, mirror.last_error, mirror.failing_since) == (0, "", None)


def test_a_manual_mirror_has_no_next_sync(mirror, now):
    mirror.schedule = "manual"
    mirror.save()
    run, _ = ask(mirror, now)
    runs.close(runs.claim(run.pk, now=now), State.UNCHANGED, now=now)
    mirror.refresh_from_db()
    assert mirror.next_sync_at is None


def test_a_worker_that_is_shut_down_puts_its_run_back(mirror, now):
    run, _ = ask(mirror, now)
    lease = runs.claim(run.pk, now=now)
    runs.put_back(lease)
    run.refresh_from_db()
    assert (run.state, run.sent_at, run.is_open) == (State.QUEUED, None, True)
    assert runs.claim(run.pk, now=now) is not None


def test_a_worker_of_a_clone_of_this_host_is_not_taken_for_gone(mirror, now):
    host, boot, pid, _life = leases.worker_name().split(":")
    assert leases.is_gone(f"{host}:{boot}:{pid}:1")
    assert not leases.is_gone(f"{host}:00000000-1:{pid}:1")


def test_whoever_gets_free_takes_the_run_that_waits_longest(mirror, make_mirror, now):
    second = make_mirror("trivy-java-db", sources=["127.0.0.1:1/aquasecurity/trivy-java-db:1"])
    first_run, _ = ask(mirror, now)
    ask(second, now)
    assert runs.oldest_queued() == first_run.pk
    runs.claim(first_run.pk, now=now)
    assert runs.oldest_queued() != first_run.pk


def test_a_process_that_shuts_down_begins_nothing_new(mirror, now, monkeypatch):
    monkeypatch.setattr(work_here, "_shutting_down", threading.Event())
    ask(mirror, now)
    work_here.stop_all_here()
    assert runs.oldest_queued() is None
    late = StopSignal()
    with work_here.entered(late):
        assert late.reason == work_here.SHUTDOWN
