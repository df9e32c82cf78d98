"""What keeps a command from running, as a script sees it: a sentence, a status, and a list where it asked for one."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from django.db import connection

MANAGE = Path(__file__).parent.parent / "manage.py"


def long(*values):
    """One more of the same: each of these starts a process, which takes most of a second."""
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.fixture
def shell(tmp_path):
    """shell("sync", "--json", AIRGAP_SIDE="odd") -> (status, stdout, stderr) of a process of its own."""

    def call(*words, python=(sys.executable,), stdout=subprocess.PIPE, **environment):
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("AIRGAP_", "DATABASE", "DJANGO"))
        }
        done = subprocess.run(
            [*python, str(MANAGE), *words],
            env=kept | {"AIRGAP_DATA_DIR": str(tmp_path / "data")} | environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.fixture
def prepared(shell, tmp_path, db):
    """The database is there: a copy of this run's, which takes a moment, where that is a file."""
    if connection.vendor != "sqlite":
        shell("migrate")
        return
    (tmp_path / "data").mkdir()
    with closing(sqlite3.connect(connection.settings_dict["NAME"])) as ours:
        ours.execute("VACUUM INTO ?", (str(tmp_path / "data" / "airgap.sqlite3"),))


@pytest.mark.parametrize(("command", "expected"), [("freshness", 3), ("sync", 1), long("export_bundle", 1)])
def test_a_wrong_setting_is_a_sentence_and_still_a_list(shell, command, expected):
    status, out, err = shell(command, "--json", AIRGAP_SIDE="bogus")
    assert (status, json.loads(out)) == (expected, [])
    assert err == "AIRGAP_SIDE is 'bogus'; it must be one of: connected, isolated, both.\n"


@pytest.mark.parametrize("words", [("sync", "--bogus"), long(("export_bundle",)), long(("mirror", "list", "--bogus"))])
def test_wrong_usage_is_status_2_and_still_a_list(shell, words):
    status, out, err = shell(*words, "--json")
    assert (status, json.loads(out)) == (2, [])
    assert "error:" in err


def test_a_failed_system_check_is_still_a_list(shell):
    status, out, err = shell("sync", "--json", REDIS_URL="garbage")
    assert (status, json.loads(out)) == (1, [])
    assert err.startswith("REDIS_URL must start with one of: redis://")
    assert len(err.splitlines()) == 1


def test_warnings_are_not_repeated_by_every_command(shell):
    _, _, err = shell("mirror", "list", AIRGAP_BASE_URL="https://mirror.example")
    assert "WARNINGS" not in err and "AIRGAP_BASE_URL" not in err


@pytest.mark.parametrize(("command", "expected"), [("freshness", 3), long("sync", 1)])
def test_a_database_not_yet_made_is_named_as_such(shell, command, expected):
    status, out, err = shell(command, "--json")
    assert (status, json.loads(out)) == (expected, [])
    assert "was not prepared by this version (no such table" in err
    assert "make up" in err


@pytest.mark.parametrize(("command", "expected"), [("freshness", 3), ("sync", 1)])
def test_a_python_without_the_requirements_is_told_what_to_do(shell, command, expected):
    status, out, err = shell(command, "--json", python=(sys.executable, "-I", "-S"))
    assert (status, json.loads(out)) == (expected, [])
    assert "make setup" in err


def test_monitoring_never_reads_a_crash_as_an_age(shell):
    status, out, err = shell("freshness", "--json", DJANGO_SETTINGS_MODULE="nowhere")
    assert (status, json.loads(out)) == (3, [])
    assert "Could not tell" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("command", "expected"), [("freshness", 3), long("mirror", 1)])
def test_an_output_that_cannot_be_written_is_a_sentence(shell, prepared, command, expected):
    with open("/dev/full", "w") as full:
        status, _, err = shell(command, *(["list"] if command == "mirror" else []), "--json", stdout=full)
    assert status == expected
    assert "No space left on device" in err
