"""`manage.py freshness [NAME…] [--json]`: how old each database is and whose fault that is, for cron and monitoring."""

import json
import sys
from datetime import datetime
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError

from mirrors import clock, wording
from mirrors.management.commanding import database_trouble, forget_output
from mirrors.models import Mirror
from mirrors.standing import Standing, clock_banner, standings

COULD_NOT_TELL = 3


class Command(BaseCommand):
    help = (
        "Say how old each database is, what state that is, and whose fault it is. "
        "Exit status: 0 fresh, 1 due, 2 stale, expired or never, 3 could not tell."
    )
    requires_system_checks: list[str] = []
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="mirrors to judge (default: all)")
        parser.add_argument("--json", action="store_true", help="one list of objects on stdout")

    def run_from_argv(self, argv: list[str]) -> None:
        """Whatever goes wrong is a sentence and status 3; a monitor must never read a crash as "due" or "stale"."""
        self._called_from_command_line = True
        try:
            self.create_parser(argv[0], argv[1]).parse_args(argv[2:])
        except SystemExit as ended:
            # argparse leaves with 2, which means stale here.
            if ended.code and "--json" in argv:
                self.stdout.write("[]")
            sys.exit(COULD_NOT_TELL if ended.code else 0)
        try:
            try:
                super().run_from_argv(argv)
            finally:
                self.stdout.flush()
        except (Exception, KeyboardInterrupt) as fault:  # noqa: BLE001 - the last door before the shell
            self.stderr.write(f"Could not tell: {str(fault) or 'stopped'}")
            forget_output()
            sys.exit(COULD_NOT_TELL)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found, missing = self._look(options["names"])
            listed = json.dumps([_object(standing) for standing in found], indent=2)
        except Exception as fault:  # noqa: BLE001 - an unreachable database, a missing table, anything: status 3
            if options["json"]:
                self.stdout.write("[]")
            sentence = str(fault).strip() or type(fault).__name__
            if isinstance(fault, DatabaseError):
                sentence = database_trouble(fault)
            self._leave(f"Could not tell: {sentence.splitlines()[0]}")
        if options["json"]:
            self.stdout.write(listed)
        else:
            self._tell(found)
        if missing:
            self._leave(f"There is no mirror named {wording.joined(missing)}. `manage.py mirror list` names them.")
        if not found:
            self._leave("There are no mirrors, so nothing is fresh.")
        status = max(standing.verdict.look.exit_status for standing in found)
        if status:
            sys.exit(status)

    def _leave(self, sentence: str) -> NoReturn:
        self.stderr.write(sentence)
        sys.exit(COULD_NOT_TELL)

    def _look(self, names: list[str]) -> tuple[list[Standing], list[str]]:
        """The standings in the order named, and the names that do not exist."""
        reading = clock.trusted_now()
        if banner := clock_banner(reading):
            self.stderr.write(banner)
        mirrors = Mirror.objects.select_related("current")
        if not names:
            # Switched off before it ever held anything: nobody expects data from it.
            found = standings(list(mirrors), reading)
            return [s for s in found if s.mirror.enabled or s.current is not None], []
        by_name = {s.mirror.name: s for s in standings(list(mirrors.filter(name__in=names)), reading)}
        wanted = list(dict.fromkeys(names))
        return [by_name[name] for name in wanted if name in by_name], [name for name in wanted if name not in by_name]

    def _tell(self, found: list[Standing]) -> None:
        width = max((len(standing.mirror.name) for standing in found), default=0)
        for standing in found:
            verdict = standing.verdict
            age = "" if verdict.age is None else wording.age_text(verdict.age)
            name = f"{standing.mirror.name:<{width}}"
            self.stdout.write(f"{verdict.look.word:<7}  {name}  {age:>6}  {verdict.sentence}")


def _object(standing: Standing) -> dict[str, object]:
    """One mirror for programs. Times are RFC 3339 UTC, digests carry `sha256:`, unknown is null."""
    current, verdict = standing.current, standing.verdict
    return {
        "mirror": standing.mirror.name,
        "kind": standing.mirror.kind,
        "state": verdict.state,
        "cause": verdict.cause,
        "sentence": verdict.sentence,
        "age_seconds": None if verdict.age is None else int(verdict.age.total_seconds()),
        "updated_at": _time(current.updated_at if current else None),
        "next_update": _time(current.next_update if current else None),
        "confirmed_at": _time(current.confirmed_at if current else None),
        "checked_at": _time(standing.mirror.last_success_at),
        "imported_at": _time(standing.brought.at) if standing.brought else None,
        "bundle": standing.brought.bundle if standing.brought else None,
        "digest": current.digest or None if current else None,
        "layer_digest": current.layer_digest or None if current else None,
    }


def _time(moment: datetime | None) -> str | None:
    return wording.rfc3339(moment) if moment else None
