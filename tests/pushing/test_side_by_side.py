"""Pushes while bytes flow, with real threads and processes: one that hangs, one that is stopped, one that is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import pytest
from django.db import connection, connections

from mirrors import content, tasks, work_here
from mirrors.models import PushRule, PushRun
from mirrors.pushing import perform as pushing
from mirrors.pushing.asking import PUSHES, request_push
from mirrors.registry.transport import Timeouts
from tests.fakes.push_registry import PushRegistry

pytestmark = pytest.mark.django_db(transaction=True)
State = PushRun.State


@pytest.fixture(autouse=True)
def patience(monkeypatch, data_dir):
    """The real patience: whatever ends quickly here was stopped, it did not time out."""
    monkeypatch.setattr("mirrors.pushing.connecting.TIMEOUTS", Timeouts())


def ask(rule):
    return request_push(PushRule.objects.for_pages().get(pk=rule.pk), trigger="hand", by="otto", now=datetime.now(UTC))[
        0
    ]


def in_thread(work, *args):
    def run():
        try:
            work(*args)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def wait_until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def state_of(run):
    return PushRun.objects.get(pk=run.pk).state


def test_a_destination_that_hangs_holds_up_nobody_else(database, image, make_destination, make_rule, fake):
    with PushRegistry() as silent:
        silent.fault("", stall=True, times=None)
        hanging = make_destination("hanging", silent.host)
        stuck, behind = ask(make_rule(database, hanging)), ask(make_rule(image[0], hanging))
        elsewhere = ask(make_rule(database, make_destination("fine", fake.host), target="db:{tag}"))
        thread = in_thread(tasks.push_mirror, stuck.pk)
        try:
            wait_until(lambda: silent.requests and state_of(stuck) == State.RUNNING)
            tasks.push_mirror(behind.pk)
            assert state_of(elsewhere) == State.SUCCEEDED, "whoever is free takes what can be pushed"
            assert (state_of(stuck), state_of(behind)) == (State.RUNNING, State.QUEUED)
        finally:
            for run in (behind, stuck):
                PUSHES.stop(run, by="otto", now=datetime.now(UTC))
            thread.join(timeout=15)
        assert not thread.is_alive() and state_of(stuck) == State.CANCELLED


@pytest.mark.parametrize("where", ["here", pytest.param("elsewhere", marks=pytest.mark.long)])
def test_stop_ends_an_upload_that_the_registry_does_not_read(where, database, make_destination, make_rule, fake):
    fake.trouble("PUT", "/uploads/", stuck=100, times=None)
    fake.trouble("PATCH", "/uploads/", stuck=100, times=None)
    rule = make_rule(database, make_destination("plant", fake.host), target="db:{tag}")
    run = ask(rule)
    thread = in_thread(pushing.perform, run.pk)
    wait_until(lambda: fake.count("PUT") + fake.count("PATCH"))
    if where == "here":
        assert PUSHES.stop(run, by="otto", now=datetime.now(UTC))
    else:
        PushRun.objects.filter(pk=run.pk).update(state=State.CANCELLED, finished_at=datetime.now(UTC))
    thread.join(timeout=15)
    assert not thread.is_alive() and state_of(run) == State.CANCELLED
    rule.refresh_from_db()
    assert rule.pushed_digest == ""


def test_a_shutdown_puts_the_push_back_and_it_goes_on_later(database, make_destination, make_rule, fake, monkeypatch):
    monkeypatch.setattr(work_here, "_shutting_down", threading.Event())
    stuck = fake.trouble("PUT", "/uploads/", stuck=100, times=None)
    run = ask(make_rule(database, make_destination("plant", fake.host), target="db:{tag}"))
    thread = in_thread(pushing.perform, run.pk)
    wait_until(lambda: fake.count("PUT"))
    work_here.stop_all_here()
    thread.join(timeout=15)
    assert not thread.is_alive() and state_of(run) == State.QUEUED
    monkeypatch.setattr(work_here, "_shutting_down", threading.Event())
    stuck.times = 0
    assert pushing.perform(run.pk, heart=False)
    assert state_of(run) == State.SUCCEEDED


WORKER = """
import os, django
django.setup()
from mirrors import content
from mirrors.pushing import perform
perform.perform(int(os.environ["RUN"]), store=content.store())
"""


def test_after_a_killed_worker_only_what_is_missing_is_sent(image, make_destination, make_rule, fake, data_dir):
    mirror, _, _ = image
    first, second = mirror.current.blobs.filter(role="layer").order_by("position")
    run = ask(make_rule(mirror, make_destination("plant", fake.host), target="tool:{tag}"))
    # The empty config and the first layer pass; the registry stops reading the second.
    for _ in range(2):
        fake.trouble("PUT", "/uploads/")
    stuck = fake.trouble("PUT", "/uploads/", stuck=1000, times=None)
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
        "TEST_DATABASE": str(connection.settings_dict["NAME"]),
        "AIRGAP_DATA_DIR": str(data_dir),
        "RUN": str(run.pk),
    }
    worker = subprocess.Popen([sys.executable, "-c", WORKER], env=environment)
    try:
        wait_until(lambda: fake.count("PUT", "/uploads/") == 3, 60)
        wait_until(lambda: PushRun.objects.get(pk=run.pk).bytes_done >= first.size_bytes)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    stuck.times = 0
    (again,) = PUSHES.close_lost(datetime.now(UTC))
    assert state_of(run) == State.LOST
    assert pushing.perform(again.pk, heart=False, store=content.store())
    again.refresh_from_db()
    assert (again.state, again.error) == (State.SUCCEEDED, "")
    assert again.bytes_uploaded == second.size_bytes
    assert fake.took("tool", second.digest) is not None


def test_progress_is_written_while_bytes_flow(database, make_destination, make_rule, fake):
    fake.trouble("PUT", "/uploads/", times=1)
    fake.trouble("PUT", "/uploads/", stuck=20_000, times=None)
    run = ask(make_rule(database, make_destination("plant", fake.host), target="db:{tag}"))
    thread = in_thread(pushing.perform, run.pk)
    try:
        wait_until(lambda: PushRun.objects.get(pk=run.pk).bytes_total)
        shown = PushRun.objects.get(pk=run.pk)
        assert shown.stage.startswith("uploading to") and shown.requests >= 3 and shown.snapshot == database.current
        wait_until(shown.steps.exists)
    finally:
        PUSHES.stop(run, by="otto", now=datetime.now(UTC))
        thread.join(timeout=15)
