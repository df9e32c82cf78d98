"""Tasks are shells; what they own is how many threads long work may take."""

import threading

import pytest
from celery.signals import worker_shutting_down

from mirrors import tasks, work_here
from mirrors.models import Destination, PushRule, PushRun, SyncRun
from mirrors.stopping import StopSignal
from tests.kept import keep_build

pytestmark = pytest.mark.django_db


@pytest.fixture
def queued(make_mirror, now):
    def queue(name):
        mirror = make_mirror(name, "oci", sources=["127.0.0.1:1/a/b:1"])
        return SyncRun.objects.create(mirror=mirror, trigger="hand", settings_version=1, queued_at=now).pk

    return queue


@pytest.fixture
def made(monkeypatch):
    """The runs that were made, in order; making one takes it out of the queue."""
    seen = []

    def perform(run_id):
        seen.append(run_id)
        SyncRun.objects.filter(pk=run_id).update(state="failed", finished_at="2026-11-20T12:00Z")

    monkeypatch.setattr(tasks.sync, "perform", perform)
    return seen


def test_a_worker_that_got_free_goes_on_with_what_waits(queued, made):
    first, second, third = queued("one"), queued("two"), queued("three")
    tasks.sync_mirror(second)
    assert made == [second, first, third]


def test_with_no_slot_free_a_message_takes_no_thread_and_the_row_waits(queued, made, monkeypatch):
    monkeypatch.setattr(tasks, "_syncs", threading.BoundedSemaphore(1))
    run = queued("one")
    with tasks._syncs:
        tasks.sync_mirror(run)
        assert made == []
    assert SyncRun.objects.get(pk=run).state == "queued"
    tasks.sync_mirror(run)
    assert made == [run]


def test_a_slot_is_free_again_after_a_fault(queued, monkeypatch):
    monkeypatch.setattr(tasks, "_syncs", threading.BoundedSemaphore(1))

    def broken(run_id):
        raise ZeroDivisionError

    monkeypatch.setattr(tasks.sync, "perform", broken)
    with pytest.raises(ZeroDivisionError):
        tasks.sync_mirror(queued("one"))
    assert tasks._syncs.acquire(blocking=False)


@pytest.fixture
def queued_push(make_mirror, now):
    def queue(name):
        there = Destination.objects.create(name=name, label=name, registry="127.0.0.1:1", created_at=now)
        mirror = make_mirror(name, "oci", sources=["127.0.0.1:1/a/b:1"])
        return PushRun.objects.create(mirror=mirror, destination=there, trigger="hand", queued_at=now).pk

    return queue


def test_pushes_have_slots_of_their_own_and_go_on_with_what_waits(queued_push, monkeypatch):
    seen = []

    def perform(run_id):
        seen.append(run_id)
        PushRun.objects.filter(pk=run_id).update(state="failed", finished_at="2026-11-20T12:00Z")

    monkeypatch.setattr(tasks.pushing, "perform", perform)
    monkeypatch.setattr(tasks, "_syncs", threading.BoundedSemaphore(1))
    monkeypatch.setattr(tasks, "_pushes", threading.BoundedSemaphore(1))
    first, second = queued_push("one"), queued_push("two")
    with tasks._syncs:
        tasks.push_mirror(second)
    assert seen == [second, first]
    third = queued_push("three")
    with tasks._pushes:
        tasks.push_mirror(third)
    assert third not in seen


def test_the_tick_opens_sends_and_closes_pushes_too(make_mirror, store, now, monkeypatch):
    sent = []
    monkeypatch.setattr(tasks, "send", lambda task, *args: sent.append((task.name, *args)))
    mirror = make_mirror("trivy-db", schedule="manual")
    keep_build(store, mirror, now)
    there = Destination.objects.create(name="plant", label="plant", registry="127.0.0.1:1", created_at=now)
    PushRule.objects.create(mirror=mirror, destination=there, target="db:{tag}", created_at=now)
    tasks.tick()
    run = PushRun.objects.get()
    assert sent == [("mirrors.push_mirror", run.pk)]


def test_long_work_of_every_kind_leaves_the_tick_a_thread(settings):
    others = (
        "an import", "the drop folder", "databases", "a bundle", "a store check", "housekeeping", "the log", "the tick"
    )  # fmt: skip
    assert settings.AIRGAP_WORKERS + settings.AIRGAP_PUSHES + len(others) <= settings.CELERY_WORKER_CONCURRENCY


def test_bundles_are_prepared_one_after_the_other_and_each_once(monkeypatch):
    prepared = []
    monkeypatch.setattr(tasks.exporting, "prepare", prepared.append)
    monkeypatch.setattr(tasks.exporting, "unprepared", lambda now: ["aaaa", "bbbb"])
    tasks.prepare_bundle("aaaa")
    assert prepared == ["aaaa", "bbbb"]
    with tasks._bundles:
        tasks.prepare_bundle("cccc")
    assert "cccc" not in prepared


def test_a_broker_that_is_away_is_no_error(settings):
    class Away:
        name = "mirrors.tick"

        def apply_async(self, **_):
            raise ConnectionRefusedError

    assert tasks.send(Away()) is False


def test_a_worker_that_is_told_to_stop_lets_go_of_what_it_works_at(monkeypatch):
    monkeypatch.setattr(work_here, "_shutting_down", threading.Event())
    stop = StopSignal()
    with work_here.entered(stop):
        worker_shutting_down.send(sender=None, sig="SIGTERM", how="Warm", exitcode=0)
    assert stop.reason == work_here.SHUTDOWN
