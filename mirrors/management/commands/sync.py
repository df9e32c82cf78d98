"""`manage.py sync`: bring mirrors up to date, in a worker or, with --wait, here."""

from contextlib import AbstractContextManager
from typing import Any

from django.core.management.base import CommandParser

from mirrors import runs, syncing_here, tasks, wording
from mirrors.management.commanding import PlainCommand, add_names, mirrors_named
from mirrors.management.terminal import redrawn, stopped_by_signals
from mirrors.models import SyncRun
from mirrors.stopping import StopSignal

BAR_WIDTH = 30


class Command(PlainCommand):
    help = "Bring mirrors up to date: all enabled ones, or those named."
    expected = (runs.RunError,)

    def add_arguments(self, parser: CommandParser) -> None:
        add_names(parser, "mirrors; all enabled ones if none is named")
        parser.add_argument("--wait", action="store_true", help="make the run in this process and report how it went")
        parser.add_argument("--json", action="store_true", help="print one list of objects on standard output")

    def run(self, *, names: list[str], wait: bool, json: bool, **_: Any) -> int:
        mirrors = mirrors_named(names)
        runs.refuse_on_the_isolated_side()
        stop = StopSignal()
        reports = []
        with stopped_by_signals(stop, self.who()):
            for mirror in mirrors:
                if wait:
                    report = syncing_here.sync_here(mirror, by=self.who(), stop=stop, watch=self.watch)
                else:
                    report = syncing_here.queue(mirror, by=self.who(), send=tasks.send_run)
                reports.append(report)
                if not json:
                    self.stdout.write(report.sentence)
        if json:
            self.print_json(report.as_json() for report in reports)
        if not mirrors:
            self.stderr.write("There is no enabled mirror. Add one: manage.py mirror add.")
        return 0 if all(report.is_good for report in reports) else 1

    def watch(self, run: SyncRun) -> AbstractContextManager[None]:
        """A progress bar on a terminal while the run is made."""

        def line() -> str:
            present = SyncRun.objects.select_related("mirror").filter(pk=run.pk).first()
            return progress_bar(present) if present is not None else ""

        return redrawn(line)


def progress_bar(run: SyncRun) -> str:
    """`trivy-db [####....] 3.1 of 6.2 MiB`; its stage while there are no bytes to count."""
    total = run.bytes_total or 0
    filled = int(BAR_WIDTH * min(1.0, run.bytes_done / total)) if total else 0
    amount = wording.progress_text(run.bytes_done, total) if total else run.stage
    return f"{run.mirror.name} [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {amount}"
