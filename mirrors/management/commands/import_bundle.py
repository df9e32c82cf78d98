"""`manage.py import_bundle PATH…`: verify a bundle and switch to what it brings, here, without broker or worker."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from mirrors import wording
from mirrors.importing.asking import ImportRefused, Wishes, refuse_on_the_connected_side
from mirrors.importing.finding import FindingError, at_paths
from mirrors.importing.here import Done, dry_run, import_here
from mirrors.importing.report import SIGNATURE, Report
from mirrors.importing.verifying import Allowed
from mirrors.management.commanding import PlainCommand
from mirrors.management.commands.export_bundle import Progress
from mirrors.management.terminal import redrawn, stopped_by_signals
from mirrors.models import Import
from mirrors.retention import NoRoomError
from mirrors.stopping import Stopped, StopSignal


class Command(PlainCommand):
    help = "Import a bundle: verify every byte, then switch everything or nothing."
    expected = (FindingError, ImportRefused, NoRoomError)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "paths",
            nargs="+",
            type=Path,
            metavar="PATH",
            help="the bundle's file, all of its volumes in any order, or the folder it lies in",
        )
        parser.add_argument("--dry-run", action="store_true", help="verify and say what would happen; write nothing")
        parser.add_argument(
            "--allow-unsigned", action="store_true", help="take it without a signature, or with one by an unknown key"
        )
        parser.add_argument("--allow-other-site", action="store_true", help="take it although it is for another site")
        parser.add_argument("--reason", default="", help="why that is allowed; it stands in the record")
        parser.add_argument(
            "--switch-older", action="store_true", help="switch also to what is older than what is served"
        )
        parser.add_argument("--json", action="store_true", help="print one list of objects on standard output")

    def run(self, *, paths: list[Path], dry_run: bool, json: bool, **options: Any) -> int:
        stop = StopSignal()
        try:
            with stopped_by_signals(stop, self.who()):
                done = self.look(paths, stop, options) if dry_run else self.take(paths, stop, options)
        except self.expected as refused:
            if not json:
                raise
            self.stderr.write(str(refused))
            done = Done(Report(), "failed", str(refused))
        if json:
            self.print_json([done.as_json()])
        else:
            self.tell(done, dry=dry_run)
        return 0 if done.is_good else 1

    def look(self, paths: list[Path], stop: StopSignal, options: dict[str, Any]) -> Done:
        allowed = Allowed(options["allow_unsigned"], options["allow_other_site"], options["switch_older"])
        progress = Progress(at_paths(paths).size)

        def read_to(position: int, member: str) -> None:
            progress.done = position

        with redrawn(progress.line):
            try:
                return dry_run(paths, allowed=allowed, stop=stop, progress=read_to)
            except Stopped as stopped:
                raise ImportRefused("Stopped; nothing was written.") from stopped

    def take(self, paths: list[Path], stop: StopSignal, options: dict[str, Any]) -> Done:
        refuse_on_the_connected_side()
        allows = options["allow_unsigned"] or options["allow_other_site"]
        wishes = Wishes(
            at_once=True,
            switch_older=options["switch_older"],
            allow_unsigned=options["allow_unsigned"],
            allow_other_site=options["allow_other_site"],
            allowed_by=self.who() if allows else "",
            reason=options["reason"],
        )
        return import_here(paths, wishes=wishes, by=self.who(), stop=stop, watch=self.watch)

    def watch(self, run: Import) -> AbstractContextManager[None]:
        progress = Progress(run.size_bytes)

        def line() -> str:
            progress.done = Import.objects.values_list("bytes_done", flat=True).get(pk=run.pk)
            return progress.line()

        return redrawn(line)

    def tell(self, done: Done, *, dry: bool) -> None:
        """The report as people read it: problems on stderr, the rest on stdout."""
        report, say = done.report, self.stdout.write
        if report.bundle:
            signed = f"signed by {report.signed_by} ({report.fingerprint})" if report.signed_by else report.signature
            say(f"Bundle {report.bundle}, {wording.size_text(report.size)}, {signed or 'signature not checked'}.")
        if report.snapshots and not done.is_good and done.outcome != Import.WAITING:
            say("It says of itself, and nothing of it is done:")
        for snapshot in report.snapshots:
            say(f"  {snapshot.mirror}: {snapshot.sentence}")
        for warning in report.warnings:
            self.stderr.write(f"Warning: {warning}")
        for problem in report.problems or ([done.error] if done.error else []):
            self.stderr.write(problem)
        if done.is_good:
            say(f"Nothing was written. {done.note}" if dry else done.note)
        elif done.outcome == Import.WAITING:
            self.stderr.write(f"Nothing was switched: import {done.run} waits for somebody's decision on its page.")
        else:
            self.stderr.write("Nothing was switched.")
            if report.may_be_allowed:
                flag = "--allow-unsigned" if report.refusal == SIGNATURE else "--allow-other-site"
                self.stderr.write(f"To take it all the same, this once: {flag} --reason 'WHY'. The record has it.")
