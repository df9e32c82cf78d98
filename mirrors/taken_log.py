"""nginx's log of files it sent for us, read so that what it sent counts as taken (deploy/nginx.conf, `airgap_taken`).

With AIRGAP_SEND_WITH=nginx only nginx knows whether the last byte left. Where we stopped reading is a row for each host
and file, so that nothing is counted twice but what was read just before a kill.
"""

import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from mirrors import consumers
from mirrors.consumers import Note, Who
from mirrors.models import LogPlace

logger = logging.getLogger(__name__)

# One pass reads no more, and no line may be longer: nginx cuts a request's headers at 8 KiB each.
MOST_AT_ONCE = 16 * 1024 * 1024
LONGEST_LINE = 32 * 1024
# It is read twice a minute. What a host said before that says nothing of today.
LATELY = timedelta(minutes=10)
FIELDS = ("time", "note", "status", "completed", "content_range", "address", "agent")
_RANGE = re.compile(r"bytes \d{1,18}-(\d{1,18})/(\d{1,18})", re.ASCII)


class LogError(Exception):
    """The log cannot be read; the sentence says which and why."""


@dataclass(frozen=True)
class Sent:
    """One download that nginx completed."""

    note: Note
    address: str
    agent: str
    at: datetime


def read(path: Path, now: datetime) -> int:
    """Count what was completed since the last time; how many. Raises LogError.

    After a rotation the rest of the old file (`NAME.1`) is read first, where it is still the one we were reading.
    """
    place, _ = LogPlace.objects.get_or_create(host=socket.gethostname()[:100], path=str(path)[:400])
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            counted = 0
            if place.inode and place.inode != status.st_ino:
                counted += _rest_of_rotated(path, place, now)
                place.offset = 0
            if status.st_size < place.offset:
                # Emptied in place, as logrotate's copytruncate does.
                place.offset = 0
            place.inode = status.st_ino
            counted += _count(file, place, now)
    except OSError as error:
        place.tried_at, place.failing_since = now, place.failing_since or now
        place.problem = f"AIRGAP_TAKEN_LOG, {path}, cannot be read: {error.strerror}. {_advice(error)}"
        place.save(update_fields=["tried_at", "problem", "failing_since"])
        raise LogError(place.problem) from error
    consumers.write(now)
    place.tried_at, place.problem, place.failing_since = now, "", None
    place.save()
    return counted


def _advice(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return (
            "See that nginx runs with the log airgap_taken of deploy/nginx.conf under that name, on the host of the "
            "worker."
        )
    return "Let the user who runs the worker read it (on Debian: add it to the group adm), and restart the worker."


def trouble(path: Path, now: datetime) -> LogPlace | None:
    """The host that cannot read the log, if none can: one is enough, the one nginx runs on."""
    tried = list(LogPlace.objects.filter(path=str(path)[:400], tried_at__gte=now - LATELY).order_by("-tried_at"))
    return tried[0] if tried and all(place.problem for place in tried) else None


def _rest_of_rotated(path: Path, place: LogPlace, now: datetime) -> int:
    try:
        with path.with_name(f"{path.name}.1").open("rb") as old:
            if os.fstat(old.fileno()).st_ino != place.inode:
                return 0
            return _count(old, place, now)
    except FileNotFoundError:
        return 0


def _count(file: BinaryIO, place: LogPlace, now: datetime) -> int:
    """Note every completed download from `place.offset` on, and move that on to the end of the last whole line."""
    file.seek(place.offset)
    counted = 0
    for line in _whole_lines(file, place):
        sent = parse(line, now)
        if sent is not None:
            counted += 1
            who = Who(sent.address, sent.note.reader_kind, sent.note.reader_name, sent.agent)
            note = sent.note
            consumers.note_taken(
                who, mirror_id=note.mirror_id, snapshot_id=note.snapshot_id, size=note.size, at=sent.at
            )
    return counted


def _whole_lines(file: BinaryIO, place: LogPlace) -> Iterator[bytes]:
    end = place.offset + MOST_AT_ONCE
    while place.offset < end:
        line = file.readline(LONGEST_LINE)
        if not line.endswith(b"\n") and len(line) < LONGEST_LINE:
            # Still being written; it is read whole the next time.
            return
        place.offset += len(line)
        yield line


def parse(line: bytes, now: datetime) -> Sent | None:
    """A line of the log, if it is a download that was completed; None for anything else, however odd."""
    try:
        said = json.loads(line)
        fields = {
            key: said[key] for key in ("time", "note", "status", "completed", "content_range", "address", "agent")
        }
        if not all(isinstance(value, str) for value in fields.values()):
            return None
        at = datetime.fromisoformat(fields["time"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    note = Note.parse(fields["note"])
    if note is None or at.tzinfo is None or fields["completed"] != "OK":
        return None
    if fields["status"] == "206":
        span = _RANGE.fullmatch(fields["content_range"])
        if span is None or int(span[1]) + 1 != int(span[2]):
            return None
    elif fields["status"] != "200":
        return None
    return Sent(note, fields["address"][:64], fields["agent"], min(at, now))
