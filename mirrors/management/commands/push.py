"""`manage.py push`: bring destinations what mirrors serve, in a worker or, with --wait, here."""

from contextlib import AbstractContextManager
from typing import Any

from django.core.management.base import CommandParser

from mirrors import tasks, wording
from mirrors.management.commanding import WRONG_USAGE, PlainCommand, Problem, add_names, mirrors_named
from mirrors.management.commands.destination import destinations_named
from mirrors.management.terminal import redrawn, stopped_by_signals
from mirrors.models import PushRule, PushRun
from mirrors.pushing import here
from mirrors.stopping import StopSignal

BAR_WIDTH = 30


class Command(PlainCommand):
    help = "Push mirrors to their destinations: all of them, or those named."

    def add_arguments(self, parser: CommandParser) -> None:
        add_names(parser, "mirrors; all that go to an enabled destination if none is named")
        parser.add_argument(
            "--destination",
            dest="destinations",
            nargs="+",
            action="extend",
            default=[],
            metavar="D",
            help="only to these; all enabled ones if none is named",
        )
        parser.add_argument("--wait", action="store_true", help="push in this process and report how it went")
        parser.add_argument("--json", action="store_true", help="print one list of objects on standard output")

    def run(self, *, names: list[str], destinations: list[str], wait: bool, json: bool, **_: Any) -> int:
        rules = rules_named(names, destinations)
        stop = StopSignal()
        reports = []
        with stopped_by_signals(stop, self.who()):
            for rule in rules:
                if wait:
                    report = here.push_here(rule, by=self.who(), stop=stop, watch=self.watch)
                else:
                    report = here.queue(rule, by=self.who(), send=tasks.send_push)
                reports.append(report)
                if not json:
                    self.stdout.write(report.sentence)
        if json:
            self.print_json(report.as_json() for report in reports)
        if not rules:
            self.stderr.write("No mirror goes anywhere. Say so: manage.py destination edit NAME --push MIRROR.")
        return 0 if all(report.is_good for report in reports) else 1

    def watch(self, run: PushRun) -> AbstractContextManager[None]:
        """A progress bar on a terminal while it is pushed."""

        def line() -> str:
            present = PushRun.objects.select_related("mirror", "destination").filter(pk=run.pk).first()
            return progress_bar(present) if present is not None else ""

        return redrawn(line)


def rules_named(names: list[str], destinations: list[str]) -> list[PushRule]:
    """The rules of the mirrors named, in that order, to the destinations named. Problem where there is no such rule."""
    chosen = destinations_named(destinations)
    mirrors = mirrors_named(names, enabled_only=False)
    rules = PushRule.objects.for_pages().filter(destination__in=chosen)
    if not destinations:
        rules = rules.filter(destination__enabled=True)
    of: dict[int, list[PushRule]] = {}
    for rule in rules.order_by("destination__label", "pk"):
        of.setdefault(rule.mirror_id, []).append(rule)
    nowhere = [mirror.name for mirror in mirrors if mirror.pk not in of] if names else []
    if nowhere:
        where = f"to {wording.joined(destinations)}" if destinations else "to any enabled destination"
        raise Problem(
            f"{wording.joined(nowhere)} {'does' if len(nowhere) == 1 else 'do'} not go {where}. "
            "Say so: manage.py destination edit NAME --push MIRROR.",
            WRONG_USAGE,
        )
    return [rule for mirror in mirrors for rule in of.get(mirror.pk, [])]


def progress_bar(run: PushRun) -> str:
    """`trivy-db to plant [####....] 3.1 of 6.2 MiB`; its stage while there are no bytes to count."""
    total = run.bytes_total or 0
    filled = int(BAR_WIDTH * min(1.0, run.bytes_done / total)) if total else 0
    amount = wording.progress_text(run.bytes_done, total) if total else run.stage
    return f"{run.mirror.name} to {run.destination.name} [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {amount}"
