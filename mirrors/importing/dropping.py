"""The drop folder: what is copied there is imported by itself, left untouched, and gets its result beside it.

A bundle is complete when all of its volumes are there and nothing of it changed between two looks. So is one of single
files when all that its SHA256SUMS lists is there; it lies in the folder itself or in one below. None is taken a second
time unless its files change. Of a medium that cannot be written to, the result stands on the page only.
"""

import json
import os
import secrets
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings

from mirrors import wording
from mirrors.importing import finding
from mirrors.importing.asking import ImportRefused, Origin, Wishes, files_of, request_import
from mirrors.importing.finding import Candidate, FindingError
from mirrors.importing.here import Done
from mirrors.importing.report import Report
from mirrors.models import Import, Step

STILL_FOR = timedelta(seconds=10)
BY = "drop folder"
# So many of the last imports of one name are compared: a folder keeps its name when other files are laid into it.
LAST = 20

# What each bundle looked like, and since when. A process that forgets it waits a little longer.
_seen: dict[str, tuple[list[dict[str, Any]], datetime]] = {}


def folder() -> Path | None:
    named = settings.AIRGAP_DROP_DIRECTORY
    return Path(named) if named and settings.AIRGAP_SIDE != "connected" else None


def look(now: datetime) -> list[Import]:
    """Ask for what has become complete, and lay down the results of what has ended; the imports asked for.

    Raises FindingError where the folder cannot be read.
    """
    place = folder()
    if place is None:
        return []
    lay_down(now)
    asked = []
    candidates = finding.in_directory(place)
    for below in finding.folders_of(place):
        with suppress(FindingError):
            candidates += [candidate for candidate in finding.in_directory(below) if candidate.loose]
    for key in set(_seen) - {_key(candidate) for candidate in candidates}:
        del _seen[key]
    for candidate in candidates:
        if candidate.is_complete and not _is_known(candidate) and _is_still(candidate, now):
            with suppress(ImportRefused):
                asked.append(request_import(candidate, origin=Origin.DROP, by=BY, now=now, wishes=Wishes(at_once=True)))
                _seen.pop(_key(candidate), None)
    return asked


def _key(candidate: Candidate) -> str:
    return str(candidate.parts[0].path.with_name(candidate.name))


def _is_still(candidate: Candidate, now: datetime) -> bool:
    files = files_of(candidate)
    before, since = _seen.get(_key(candidate), (None, now))
    if before != files:
        _seen[_key(candidate)] = (files, now)
        return False
    return now - since >= STILL_FOR


def _is_known(candidate: Candidate) -> bool:
    last = Import.objects.filter(origin=Origin.DROP, name=candidate.name).order_by("-pk")[:LAST]
    return files_of(candidate) in last.values_list("files", flat=True)


# Results


def lay_down(now: datetime) -> None:
    """Write `NAME.result.txt` and `NAME.result.json` beside every dropped bundle whose import has ended."""
    for run in Import.objects.filter(origin=Origin.DROP, told_at=None).exclude(finished_at=None):
        place = Path(run.files[0]["path"]).parent
        done = Done(Report.from_dict(run.report), run.state, run.error, run.note, run.pk)
        try:
            _write(place / f"{run.name}.result.json", json.dumps([done.as_json()], indent=2) + "\n")
            _write(place / f"{run.name}.result.txt", text_of(run, done.report))
        except OSError as error:
            sentence = f"The result could not be laid beside the bundle ({error.strerror}); it stands here only."
            run.step_model.objects.create(run=run, at=now, level=Step.Level.WARNING, text=sentence)
        Import.objects.filter(pk=run.pk).update(told_at=now)


def text_of(run: Import, report: Report) -> str:
    """The report in plain text."""
    ended = wording.utc_text(run.finished_at) if run.finished_at else ""
    signed = f"{report.signed_by} ({report.fingerprint})" if report.signed_by else report.signature or "not checked"
    lines = [
        f"{run.name}: {run.get_state_display().lower()}, {ended}",
        "",
        f"bundle     {report.bundle or 'unknown'}",
        f"signed by  {signed}",
        f"size       {wording.size_text(run.size_bytes)}, {wording.size_text(report.new_bytes)} of it new here",
        "",
        *(f"PROBLEM  {problem}" for problem in report.problems),
        *(f"NOTE     {warning}" for warning in report.warnings),
        *(
            ["It says of itself, and nothing of it is done:"]
            if report.snapshots and run.state == run.State.FAILED
            else []
        ),
        *(f"{snapshot.mirror}: {snapshot.sentence}" for snapshot in report.snapshots),
        "",
        run.note or "Nothing was switched.",
    ]
    return "\n".join(lines) + "\n"


def _write(target: Path, text: str) -> None:
    """Beside it and renamed, so that a link somebody put there is replaced and not followed."""
    aside = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "w") as file:
            # Whoever dropped the bundle is another account; the program's own files are closed to it by its umask.
            os.fchmod(descriptor, 0o644)
            file.write(text)
        aside.replace(target)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
