"""A copy of the database before a newer version changes it."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from airgap.running import backup
from airgap.running.preconditions import CannotStart

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
