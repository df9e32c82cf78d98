"""`manage.py sync`: bring mirrors up to date, in a worker or, with --wait, here."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandParser
from django.db import connections

from mirrors import runs, syncing_here, tasks
from mirrors.management.commanding import PlainCommand, add_names, mirrors_named
from mirrors.models import SyncRun
from mirrors.stopping import StopSignal


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

    @contextmanager
    def watch(self, run: SyncRun) -> Iterator[None]:
        """A progress bar on a terminal while the run is made."""
        if not sys.stderr.isatty():
            yield
            return
        line = syncing_here.ProgressLine(sys.stderr.write, True)
        done = threading.Event()

        def draw() -> None:
            while not done.wait(0.5):
                present = SyncRun.objects.select_related("mirror").filter(pk=run.pk).first()
                if present is not None:
                    line.show(present)
                    sys.stderr.flush()
            connections.close_all()

        thread = threading.Thread(target=draw, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            line.clear()


@contextmanager
def stopped_by_signals(stop: StopSignal, who: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the transfer; its run is closed as stopped and its partial file stays."""
    before = {}

    def pass_on(*_: object) -> None:
        # From a thread of its own: the main thread may be interrupted while it holds the signal's lock.
        threading.Thread(target=stop.set, args=(who,), daemon=True).start()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
