"""Stopping, killing and shutting down while bytes flow, with real threads and processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import pytest
from django.db import connection, connections

from mirrors import content, runs, sync, work_here
from mirrors.models import SyncRun
from tests.operations.conftest import REPOSITORY, hours_ago

pytestmark = pytest.mark.django_db(transaction=True)

State = SyncRun.State
BLOBS = "/blobs/"


@pytest.fixture
def mirror(make_mirror, fake, push_db, data_dir):
    mirror = make_mirror("trivy-db", sources=[fake.reference(REPOSITORY, "2")])
    push_db(fake, hours_ago(1), padding=2_000_000)
    return mirror


@pytest.fixture
def patience():
    """The real timeouts: whatever ends quickly here was stopped, it did not time out."""


def start(mirror):
    """A run made in a thread, as a worker does. Returns the run and the thread."""
    run, _ = runs.request_sync(mirror, trigger="hand", by="otto", now=datetime.now(UTC))

    def work():
        try:
            sync.perform(run.pk, store=content.store())
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    return run, thread


def wait_until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def partial_sizes():
    return [partial.size for partial in content.store().partials()]


@pytest.mark.parametrize("fault", [{"stall_after": 300_000}, {"trickle": (1000, 0.05)}])
def test_stop_ends_a_transfer_though_the_server_is_silent_or_slow(fault, mirror, fake):
    fake.fault(BLOBS, times=None, **fault)
    run, thread = start(mirror)
    wait_until(lambda: sum(partial_sizes()) >= 1000)
    assert runs.stop_run(run, by="otto", now=datetime.now(UTC))
    thread.join(timeout=10)
    assert not thread.is_alive()
    run.refresh_from_db()
    assert (run.state, run.error) == (State.CANCELLED, "Stopped by otto.")
    assert sum(partial_sizes()) >= 1000, "the partial file stays for resume"


def test_stop_from_another_process_is_noticed_by_the_heart(mirror, fake):
    fake.fault(BLOBS, times=None, stall_after=300_000)
    run, thread = start(mirror)
    wait_until(lambda: sum(partial_sizes()) >= 300_000)
    SyncRun.objects.filter(pk=run.pk).update(state=State.CANCELLED, finished_at=datetime.now(UTC))
    thread.join(timeout=15)
    assert not thread.is_alive()


def test_after_a_stop_the_next_run_fetches_only_what_is_missing(mirror, fake):
    fake.fault(BLOBS, times=1, stall_after=300_000)
    run, thread = start(mirror)
    wait_until(lambda: sum(partial_sizes()) >= 300_000)
    runs.stop_run(run, by="otto", now=datetime.now(UTC))
    thread.join(timeout=10)
    held = sum(partial_sizes())
    again, thread = start(mirror)
    thread.join(timeout=30)
    again.refresh_from_db()
    mirror.refresh_from_db()
    size = mirror.current.blobs.get(role="layer").size_bytes
    assert again.state == State.SUCCEEDED
    assert again.bytes_downloaded == size - held


def test_progress_is_written_while_bytes_flow(mirror, fake):
    fake.fault(BLOBS, times=None, stall_after=300_000)
    run, thread = start(mirror)
    try:
        wait_until(lambda: SyncRun.objects.get(pk=run.pk).bytes_done >= 300_000)
        shown = SyncRun.objects.get(pk=run.pk)
        assert shown.bytes_total > shown.bytes_done and shown.stage.startswith("downloading")
        assert shown.requests >= 3
        wait_until(shown.steps.exists)
    finally:
        runs.stop_run(run, by="otto", now=datetime.now(UTC))
        thread.join(timeout=10)


def test_a_shutdown_puts_the_run_back_and_it_goes_on_later(mirror, fake, monkeypatch):
    monkeypatch.setattr(work_here, "_shutting_down", threading.Event())
    fake.fault(BLOBS, times=1, stall_after=300_000)
    run, thread = start(mirror)
    wait_until(lambda: sum(partial_sizes()) >= 300_000)
    work_here.stop_all_here()
    thread.join(timeout=10)
    run.refresh_from_db()
    assert (run.state, run.is_open) == (State.QUEUED, True)
    monkeypatch.setattr(work_here, "_shutting_down", threading.Event())
    assert sync.perform(run.pk, heart=False)
    run.refresh_from_db()
    assert run.state == State.SUCCEEDED


WORKER = """
import os, django
django.setup()
from mirrors import content, runs, sync
sync.perform(int(os.environ["RUN"]), store=content.store())
"""


def test_a_killed_worker_loses_no_byte(mirror, fake, data_dir):
    fake.fault(BLOBS, times=1, stall_after=1_000_000)
    run, _ = runs.request_sync(mirror, trigger="hand", by="otto", now=datetime.now(UTC))
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
        "TEST_DATABASE": str(connection.settings_dict["NAME"]),
        "AIRGAP_DATA_DIR": str(data_dir),
        "RUN": str(run.pk),
    }
    worker = subprocess.Popen([sys.executable, "-c", WORKER], env=environment)
    try:
        wait_until(lambda: sum(partial_sizes()) >= 1_000_000, 60)
        wait_until(lambda: SyncRun.objects.get(pk=run.pk).bytes_done >= 1_000_000)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    (again,) = runs.close_lost(datetime.now(UTC))
    run.refresh_from_db()
    assert run.state == State.LOST
    fake.forget_requests()
    assert sync.perform(again.pk, heart=False)
    again.refresh_from_db()
    mirror.refresh_from_db()
    size = mirror.current.blobs.get(role="layer").size_bytes
    assert again.state == State.SUCCEEDED
    assert again.bytes_downloaded == size - 1_000_000
    assert fake.seen("GET", BLOBS)[-1].headers["Range"] == f"bytes=1000000-{size - 1}"
