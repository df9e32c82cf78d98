"""An import for the command line: made in this process under the same lease as any other, or only looked at."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.utils import timezone

from mirrors.blobs import BlobStore
from mirrors.importing import finding
from mirrors.importing.asking import IMPORTS, Origin, Wishes, request_import
from mirrors.importing.perform import perform
from mirrors.importing.report import Report
from mirrors.importing.verifying import Allowed, verify
from mirrors.models import Import, Run
from mirrors.stopping import StopSignal

Watcher = Callable[[Import], AbstractContextManager[object]]


@dataclass(frozen=True)
class Done:
    """How an import went, for people and for programs. `run` is None for a dry run."""

    report: Report
    outcome: str
    error: str = ""
    note: str = ""
    run: int | None = None

    @property
    def is_good(self) -> bool:
        return self.outcome in ("succeeded", "unchanged", "ok")

    def as_json(self) -> dict[str, Any]:
        report = self.report
        return {
            "bundle": report.bundle or None,
            "outcome": self.outcome,
            "error": self.error,
            "note": self.note,
            "signed_by": report.signed_by or None,
            "fingerprint": report.fingerprint or None,
            "signature": report.signature or None,
            "created_at": report.created_at or None,
            "site": report.site or None,
            "problems": report.problems or ([self.error] if self.error else []),
            "warnings": report.warnings,
            "damaged_volumes": report.damaged,
            "snapshots": [
                {
                    "mirror": each.mirror,
                    "kind": each.kind,
                    "digest": each.digest or None,
                    "updated_at": each.updated_at or None,
                    "confirmed_at": each.confirmed_at or None,
                    "size": each.size,
                    # What would have become of it is no outcome where nothing was switched.
                    "outcome": each.outcome if self.is_good else None,
                    "sentence": each.sentence,
                    "new_mirror": each.new_mirror,
                }
                for each in report.snapshots
            ],
            "size": report.size,
            "new_bytes": report.new_bytes,
            "seconds": report.seconds,
            "import": self.run,
        }


def dry_run(
    paths: Sequence[Path],
    *,
    allowed: Allowed,
    stop: StopSignal,
    progress: Callable[[int, str], object] | None = None,
) -> Done:
    """Verify all of it and say what would happen; nothing is written anywhere. Raises FindingError, Stopped."""
    candidate = finding.at_paths(paths)
    files = finding.volumes_of(candidate)
    listed = finding.list_beside([part.path.resolve() for part in candidate.parts])
    report = verify(
        files, now=timezone.now(), allowed=allowed, store=None, stop=stop, progress=progress, listed=listed
    ).report
    if report.problems:
        return Done(report, "failed", " ".join(report.problems))
    return Done(report, "ok", note=report.sentence(done=False))


def import_here(
    paths: Sequence[Path],
    *,
    wishes: Wishes,
    by: str,
    stop: StopSignal,
    watch: Watcher = lambda run: nullcontext(),
    store: BlobStore | None = None,
) -> Done:
    """Import it here. Waits while another import is running. Raises FindingError, ImportRefused.

    A bundle dated days ahead is left open, waiting for a person.
    """
    candidate = finding.at_paths(paths)
    run = request_import(candidate, origin=Origin.COMMAND, by=by, now=timezone.now(), wishes=wishes)
    with watch(run):
        while not perform(run.pk, stop=stop, store=store):
            IMPORTS.wait_here(run, now=timezone.now())
            IMPORTS.close_lost(timezone.now())
            run.refresh_from_db()
            if not run.is_open or stop.wait(0.5):
                break
    run.refresh_from_db()
    if run.is_open and not run.is_waiting:
        IMPORTS.stop(run, by=by, now=timezone.now(), reason="Stopped before it began.")
        run.refresh_from_db()
    report = Report.from_dict(run.report)
    outcome = run.state if run.is_waiting or not run.is_open else Run.State.CANCELLED
    return Done(report, str(outcome), run.error, run.note, run.pk)
