"""`manage.py sync --wait`, as a script sees it: which run is reported when others stop, edit or remove meanwhile."""

import json
import os
import signal
import sys
import threading

import pytest
from django.core.management import ManagementUtility
from django.db import connections
from django.utils import timezone

from mirrors import mirroring, runs, sync, syncing_here
from mirrors.management.terminal import stopped_by_signals
from mirrors.mirror_rules import SourceSpec
from mirrors.mirroring import Settings
from mirrors.models import Mirror, SyncRun
from mirrors.stopping import StopSignal

KEYS = {"mirror", "run", "outcome", "error", "digest", "source", "bytes_downloaded", "requests", "seconds"}


@pytest.fixture(autouse=True)
def own_data(data_dir, db):
    return data_dir


@pytest.fixture
def databases(make_mirror):
    """Two mirrors with one source each."""
    return [make_mirror(name, kind="trivy-db", sources=["ghcr.io/x/y:2"]) for name in ("first", "second")]


@pytest.fixture
def during_the_run(monkeypatch):
    """during_the_run(action): `action(run)` happens to every run once it is claimed; it succeeds if it still can."""

    def arrange(action):
        def perform(run_id, *, stop, store=None):
            lease = runs.claim(run_id, now=timezone.now())
            action(SyncRun.objects.select_related("mirror").get(pk=run_id))
            if SyncRun.objects.held_by(run_id, lease.key).exists():
                runs.close(lease, SyncRun.State.UNCHANGED, now=timezone.now())
            else:
                stop.set(runs.CLOSED)  # as the heart does
            return True

        monkeypatch.setattr(sync, "perform", perform)

    return arrange


@pytest.fixture
def wait(capsys, monkeypatch):
    """wait("first") -> (exit status, the list, stderr) of `sync first --wait --json`."""

    def call(*names):
        monkeypatch.setattr(connections, "close_all", lambda: None)
        try:
            ManagementUtility(["manage.py", "sync", *names, "--wait", "--json"]).execute()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, err = capsys.readouterr()
        return status, json.loads(out), err

    return call


def edited(mirror):
    settings = Settings(sources=[SourceSpec("quay.io/x/y:2", False, "")])
    mirroring.edit_mirror(mirror.name, settings, by="otto", now=timezone.now())


def test_it_reports_every_mirror_in_the_order_named(wait, databases, during_the_run):
    during_the_run(lambda run: None)
    status, rows, _ = wait("second", "first")
    assert status == 0
    assert [(row["mirror"], row["outcome"]) for row in rows] == [("second", "unchanged"), ("first", "unchanged")]
    assert all(set(row) >= KEYS and row["error"] == "" and isinstance(row["seconds"], float) for row in rows)


def test_stopping_one_run_leaves_the_other_mirrors(wait, databases, during_the_run):
    def stop_the_first(run):
        if run.mirror.name == "first":
            runs.stop_run(run, by="anna", now=timezone.now())

    during_the_run(stop_the_first)
    status, rows, _ = wait()
    assert status == 1
    assert [(row["outcome"], row["error"]) for row in rows] == [("cancelled", "Stopped by anna."), ("unchanged", "")]


def test_an_edit_meanwhile_leads_to_a_run_with_the_new_settings(wait, databases, during_the_run):
    done = []

    def edit_once(run):
        if not done:
            done.append(run.pk)
            edited(run.mirror)

    during_the_run(edit_once)
    status, rows, _ = wait("first")
    reported = SyncRun.objects.get(pk=rows[0]["run"])
    assert (status, rows[0]["outcome"]) == (0, "unchanged")
    assert reported.pk != done[0]
    assert reported.settings_version == Mirror.objects.get(name="first").settings_version


def test_a_mirror_removed_meanwhile_is_a_sentence(wait, databases, during_the_run):
    def remove(run):
        if run.mirror.name == "first":
            run.mirror.delete()

    during_the_run(remove)
    status, rows, err = wait()
    assert status == 1
    assert (rows[0]["outcome"], rows[0]["error"]) == ("failed", "first was removed meanwhile.")
    assert rows[1]["outcome"] == "unchanged"
    assert err == ""


def test_an_isolated_instance_refuses_in_a_sentence(wait, settings):
    settings.AIRGAP_SIDE = "isolated"
    status, rows, err = wait()
    assert (status, rows) == (1, [])
    assert err == "This is an isolated instance: it takes data from bundles and asks no source.\n"


def test_ctrl_c_while_another_process_makes_the_run_says_that_it_goes_on(databases):
    run, _ = runs.request_sync(databases[0], trigger="hand", by="anna", now=timezone.now())
    runs.claim(run.pk, now=timezone.now())
    stop = StopSignal()
    timer = threading.Timer(0.05, stop.set, ("otto",))
    timer.start()
    report = syncing_here.sync_here(databases[0], by="otto", stop=stop)
    timer.join()
    row = report.as_json()
    assert (row["run"], row["outcome"], report.is_good) == (run.pk, "cancelled", False)
    assert row["error"] == f"Stopped waiting; run {run.pk} goes on elsewhere."


def test_what_had_not_begun_at_ctrl_c_is_cancelled(databases):
    stop = StopSignal()
    stop.set("otto")
    row = syncing_here.sync_here(databases[0], by="otto", stop=stop).as_json()
    assert (row["run"], row["outcome"], row["error"]) == (None, "cancelled", "Stopped before it began.")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_in_the_middle_of_attaching_does_not_hang():
    stop = StopSignal()
    with stopped_by_signals(stop, "otto"):
        with stop._lock:
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(10)
    assert stop.reason == "otto"
