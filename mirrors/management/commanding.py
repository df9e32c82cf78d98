"""What all commands share: exit statuses, plain sentences instead of tracebacks, and one JSON list on stdout.

0 done, 1 something named failed or was refused, 2 wrong usage (contract; `freshness` has its own three).
"""

import getpass
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.checks import Tags
from django.core.checks.registry import registry
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from mirrors.models import Mirror
from mirrors.wording import rfc3339

logger = logging.getLogger(__name__)

FAILED, WRONG_USAGE = 1, 2


class Problem(Exception):
    """What a person asked for cannot be done; the sentence says why, `status` is the exit status."""

    def __init__(self, sentence: str, status: int = FAILED) -> None:
        super().__init__(sentence)
        self.status = status


class PlainCommand(BaseCommand):
    """A command that implements `run(**options) -> int` and never shows a traceback.

    `expected` are the exception types whose text is a sentence for the operator.
    """

    expected: tuple[type[Exception], ...] = ()
    fault_status = FAILED

    # Each command names its own options; the parser guarantees that they are there.
    run: Callable[..., int]

    _listed = False

    def run_from_argv(self, argv: list[str]) -> None:
        """With --json there is a list also when it ends before `run` begins: wrong usage, a failed system check."""
        try:
            super().run_from_argv(argv)
        except SystemExit as ended:
            if ended.code and "--json" in argv and not self._listed:
                self.print_json([])
            raise

    def check(self, *args: Any, **options: Any) -> None:
        """What is wrong ends it, a line each. Warnings are told by `make up`, not into a script's mail every hour.

        Pages are left to the web server: to look at their addresses all of them are loaded, a third of a second.
        """
        wanted = [check for check in registry.get_checks() if Tags.urls not in check.tags]
        issues = [issue for check in wanted for issue in check(app_configs=None, databases=None)]
        wrong = [issue for issue in issues if issue.is_serious() and not issue.is_silenced()]
        for issue in wrong:
            self.stderr.write(" ".join(filter(None, [issue.msg, issue.hint])))
        if wrong:
            sys.exit(FAILED)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            status = self.run(**options)
            self.stdout.flush()
        except (SystemExit, CommandError):
            raise
        except Problem as problem:
            status = self.complain(str(problem), problem.status, options)
        except self.expected as error:
            status = self.complain(str(error), self.fault_status, options)
        except DatabaseError as error:
            logger.debug("database", exc_info=True)
            status = self.complain(database_trouble(error), self.fault_status, options)
        except KeyboardInterrupt:
            status = self.complain("Stopped.", FAILED, options)
        except OSError as error:
            logger.debug("system", exc_info=True)
            status = self.complain(f"The system refused: {error}.", self.fault_status, options)
            forget_output()
        except Exception as fault:
            if options.get("traceback"):
                raise
            logger.debug("fault", exc_info=True)
            status = self.complain(
                f"A fault in Airgap itself: {type(fault).__name__}. Run again with --traceback for the details.",
                self.fault_status,
                options,
            )
        if status:
            sys.exit(status)

    def complain(self, sentence: str, status: int, options: dict[str, Any]) -> int:
        """The sentence on stderr; with --json still a list on stdout."""
        self.stderr.write(sentence)
        if options.get("json"):
            with suppress(OSError):  # a full disk or a closed pipe may be what the sentence is about
                self.print_json([])
        return status

    def print_json(self, objects: Iterable[dict[str, Any]]) -> None:
        self._listed = True
        self.stdout.write(json.dumps(list(objects), indent=2, default=plain))

    def who(self) -> str:
        """Who the record names: the account that runs the command."""
        try:
            return f"{getpass.getuser()} (command line)"
        except (KeyError, OSError):
            return "command line"


def database_trouble(error: DatabaseError) -> str:
    """Why the database is of no use, in a sentence. SQLite and PostgreSQL each have words for a table not yet made."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    if re.search(r"no such (table|column)|(relation|column) .* does not exist", said):
        return (
            f"The database was not prepared by this version ({said}). Start it once with `make up`, or run "
            "`manage.py up --prepare`; if there should be data, check AIRGAP_DATA_DIR and DATABASE_URL."
        )
    if re.search(r"disk I/O error|disk is full|No space left", said):
        return f"The database cannot be used: {said}. See whether there is room left where it lies (`df`)."
    return f"The database cannot be used: {said}."


def forget_output() -> None:
    """What could not be written stays in the buffer, and Python's own try at its exit would end it with status 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def plain(value: object) -> str:
    """Times as RFC 3339 UTC with Z."""
    if isinstance(value, datetime):
        return rfc3339(value)
    return str(value)


def password_from_stdin(what: str = "password") -> str:
    """One line, for scripts: an argument would stand in everybody's list of processes. Problem if there is none."""
    password = sys.stdin.readline(16384).rstrip("\r\n")
    if not password:
        raise Problem(f"No {what} came on standard input.", WRONG_USAGE)
    return password


def read_text(path: str, what: str, limit: int) -> str:
    """A small file that a person named, up to one character beyond `limit`, which whoever takes it refuses."""
    try:
        with Path(path).open("rb") as file:
            return file.read(limit + 1).decode("latin-1")
    except OSError as error:
        raise Problem(f"The {what} {path} cannot be read: {error.strerror}.", WRONG_USAGE) from None


def add_names(parser: CommandParser, what: str = "mirrors; all of them if none is named") -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=what)


def mirrors_named(names: list[str], *, enabled_only: bool = True) -> list[Mirror]:
    """The mirrors in the order named, or all (enabled) ones. Raises Problem for a name there is none of."""
    every = {mirror.name: mirror for mirror in Mirror.objects.for_pages()}
    if not names:
        return [mirror for mirror in every.values() if mirror.enabled or not enabled_only]
    unknown = [name for name in names if name not in every]
    if unknown:
        known = ", ".join(every) or "none"
        raise Problem(f"There is no mirror named {', '.join(unknown)}. Mirrors here: {known}.", WRONG_USAGE)
    return [every[name] for name in dict.fromkeys(names)]
