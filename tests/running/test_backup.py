"""A copy of the database before a newer version changes it."""

import os
import re
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import connection as django_connection
from django.db.migrations.recorder import MigrationRecorder

from airgap.running import backup
from airgap.running.preconditions import CannotStart
from mirrors.management.commands.up import Command

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "airgap.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE things (name TEXT)")
        connection.execute("INSERT INTO things VALUES ('kept')")
        connection.commit()
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)}


def test_the_copy_is_a_whole_database_also_while_somebody_has_it_open(database, tmp_path):
    with closing(sqlite3.connect(database["NAME"])) as writer:
        writer.execute("INSERT INTO things VALUES ('in the log')")
        writer.commit()
        copy = backup.back_up(database, tmp_path, "0007_x", NOW)
    assert copy.name == "20261120T120000Z-0007_x.sqlite3"
    assert copy.parent.stat().st_mode & 0o777 == 0o700
    with closing(sqlite3.connect(copy)) as connection:
        assert [row[0] for row in connection.execute("SELECT name FROM things")] == ["kept", "in the log"]


def test_only_the_newest_few_are_kept(database, tmp_path):
    for day in range(backup.KEPT + 3):
        newest = backup.back_up(database, tmp_path, "0007_x", NOW + timedelta(days=day))
    kept = sorted((tmp_path / "backups").iterdir())
    assert len(kept) == backup.KEPT and kept[-1] == newest


def test_a_copy_that_cannot_be_made_stops_the_start_and_leaves_nothing(database, tmp_path):
    (tmp_path / "backups").write_text("in the way")
    with pytest.raises(CannotStart, match=r"could not be copied to .*so nothing was changed.*AIRGAP_BACKUP=off"):
        backup.back_up(database, tmp_path, "0007_x", NOW)


def test_postgresql_without_its_dump_program_stops_the_start(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotStart, match=r"pg_dump is not here"):
        backup.back_up({"ENGINE": "django.db.backends.postgresql", "NAME": "x"}, tmp_path, "0007_x", NOW)


def test_a_database_that_a_newer_version_changed_stops_the_start_of_an_older_one(db):
    Command().back_up()
    MigrationRecorder(django_connection).record_applied("mirrors", "9999_add_what_is_not_known_here")
    with pytest.raises(CannotStart, match=r"newer version of Airgap changed this database \(9999_.*put back the copy"):
        Command().back_up()


@pytest.fixture
def scratch(db):
    """A PostgreSQL database of its own on the server that the suite runs on: Django's settings of it."""
    if django_connection.vendor != "postgresql":
        pytest.skip("PostgreSQL alone; make test-servers has one")
    psycopg = pytest.importorskip("psycopg")
    default, name = django_connection.settings_dict, "airgap_way_back"
    about = {"host": default["HOST"], "port": default["PORT"], "user": default["USER"], "password": default["PASSWORD"]}
    with psycopg.connect(dbname="postgres", autocommit=True, **about) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name}")
        server.execute(f"CREATE DATABASE {name}")
        yield {**default, "NAME": name}
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_way_back_on_postgresql_works_as_printed(scratch, tmp_path):
    """The lines of docs/offline-kit.md, when the newer version added a table that refers to an older one."""
    import psycopg

    keys = (("host", "HOST"), ("port", "PORT"), ("user", "USER"), ("password", "PASSWORD"), ("dbname", "NAME"))
    about = psycopg.conninfo.make_conninfo("", **{key: scratch[of] for key, of in keys if scratch[of]})
    with psycopg.connect(about, autocommit=True) as upgraded:
        upgraded.execute("CREATE TABLE older (id integer PRIMARY KEY)")
        upgraded.execute("INSERT INTO older VALUES (1)")
        copy = backup.back_up(scratch, tmp_path, "0011_add_destinations", NOW)
        upgraded.execute("CREATE TABLE newer (older_id integer REFERENCES older)")
        upgraded.execute("INSERT INTO older VALUES (2)")
    page = Path(__file__).parents[2] / "docs" / "offline-kit.md"
    lines = re.findall(r"^(?:psql|pg_restore) .*$", page.read_text(), re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["psql", "pg_restore"]
    script = "set -e\n" + "\n".join(lines).replace(
        "DATA/backups/20261120T120000Z-0011_add_destinations.pgdump", str(copy)
    )
    assert str(copy) in script
    subprocess.run(["sh", "-c", script], check=True, env={**os.environ, "DATABASE_URL": about}, capture_output=True)
    with psycopg.connect(about) as restored:
        assert restored.execute("SELECT id FROM older").fetchall() == [(1,)]
        assert restored.execute("SELECT to_regclass('newer')").fetchone() == (None,)
