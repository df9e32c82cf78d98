"""A copy of the database before a newer version changes it: what the way back begins with."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from airgap.running.preconditions import CannotStart

FOLDER = "backups"
KEPT = 5
_LONGEST_SECONDS = 6 * 3600


def back_up(database: Mapping[str, Any], data: Path, label: str, now: datetime) -> Path:
    """Write a whole copy below `data`/backups and keep the newest few; its path. CannotStart where that fails.

    `database` is Django's settings of it, `label` the migration it stands at. A copy of SQLite is a database file,
    one of PostgreSQL an archive for pg_restore.
    """
    folder = data / FOLDER
    is_sqlite = database["ENGINE"].endswith("sqlite3")
    name = f"{now:%Y%m%dT%H%M%SZ}-{label}.{'sqlite3' if is_sqlite else 'pgdump'}"
    target, aside = folder / name, folder / f".{name}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (_copy_sqlite if is_sqlite else _dump_postgresql)(database, aside)
        aside.rename(target)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise CannotStart(
            f"The database could not be copied to {folder} before its upgrade ({reason}), so nothing was changed. "
            "Make room there, or back it up yourself and start with AIRGAP_BACKUP=off."
        ) from None
    finally:
        with suppress(OSError):
            aside.unlink()
    for old in sorted(path for path in folder.iterdir() if path.suffix == target.suffix)[:-KEPT]:
        old.unlink()
    return target


def _copy_sqlite(database: Mapping[str, Any], target: Path) -> None:
    with (
        closing(sqlite3.connect(f"file:{database['NAME']}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)
        (verdict,) = copy.execute("PRAGMA quick_check").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"the copy is not whole: {verdict}")
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _dump_postgresql(database: Mapping[str, Any], target: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise CannotStart(
            "A newer version changes the database, and pg_dump is not here to copy it first. Install PostgreSQL's "
            "client programs (apt install postgresql-client), or back it up yourself and start with AIRGAP_BACKUP=off."
        )
    environment = {**os.environ, "PGPASSWORD": str(database.get("PASSWORD") or "")}
    command = [program, "--format=custom", f"--file={target}", "--no-password", f"--dbname={database['NAME']}"]
    for option, key in (("--host", "HOST"), ("--port", "PORT"), ("--username", "USER")):
        if database.get(key):
            command.append(f"{option}={database[key]}")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_LONGEST_SECONDS)
    if done.returncode:
        raise OSError(0, f"pg_dump: {' '.join(done.stderr.split())[:300]}")
