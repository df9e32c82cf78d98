"""`manage.py scrub`: check every blob against its name and every row against its blob, here and now."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors import scrubbing, tasks, wording
from mirrors.blobs import StoreError
from mirrors.management.commanding import PlainCommand, Problem
from mirrors.management.terminal import redrawn, stopped_by_signals
from mirrors.stopping import StopSignal


class Command(PlainCommand):
    help = "Check everything in the store. Damaged files are set aside and their mirrors synced again."
    expected = (StoreError,)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one list of objects on standard output")

    def run(self, *, json: bool, **_: Any) -> int:
        if not scrubbing.ask(by=self.who(), now=timezone.now()):
            raise Problem("A check of the store is under way already. Its page says how far it is.")
        stop = StopSignal()
        with stopped_by_signals(stop, self.who()), redrawn(progress_line):
            runs = scrubbing.scrub(by=self.who(), stop=stop)
        for run in runs:
            tasks.send(tasks.sync_mirror, run.pk)
        check = scrubbing.last_check()
        if check is None:
            raise Problem("The check left no result: is the data directory writable?")
        if json:
            self.print_json([as_json(check)])
        else:
            self.stdout.write(check.headline())
            for sentence in scrubbing.sentences(check):
                self.stdout.write(sentence)
        return 0 if check.is_clean else 1


def progress_line() -> str:
    check = scrubbing.last_check()
    if check is None or not check.bytes_total:
        return ""
    return f"{wording.progress_text(check.bytes_done, check.bytes_total)} · {wording.rate_text(check.rate_bytes)}"


def as_json(check: scrubbing.Check) -> dict[str, Any]:
    return {
        "state": check.state,
        "sentence": check.headline(),
        "started_at": check.started_at,
        "finished_at": check.finished_at,
        "files": check.files,
        "bytes": check.bytes_done,
        "damaged": check.damaged,
        "missing": check.missing,
        "strays": check.strays,
        "actions": check.actions,
        "error": check.error,
    }
