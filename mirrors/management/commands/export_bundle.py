"""`manage.py export_bundle [NAME…] --output FILE`: one file to carry, made and written here."""

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors import exporting, wording
from mirrors.exporting import ExportError
from mirrors.management.commanding import WRONG_USAGE, PlainCommand, Problem, add_names, mirrors_named
from mirrors.models import Bundle

PROFILES = {"full": "with install.sh and push.sh", "data": "no scripts", "cache": "a tar.gz of a Trivy cache directory"}
DRAW_EVERY_SECONDS = 0.5


class Command(PlainCommand):
    help = "Make a bundle of what is current (of everything, or of the mirrors named) and write it to a file."
    expected = (ExportError,)

    def add_arguments(self, parser: CommandParser) -> None:
        add_names(parser, "mirrors to put in; all that hold something if none is named")
        parser.add_argument(
            "--output", required=True, metavar="FILE", help="where to; a folder, or - for standard output"
        )
        profiles = "; ".join(f"{name}: {what}" for name, what in PROFILES.items())
        parser.add_argument("--profile", choices=list(PROFILES), default="full", help=profiles)
        parser.add_argument("--json", action="store_true", help="print one list of objects on standard output")

    def run(self, *, names: list[str], output: str, profile: str, json: bool, **_: Any) -> int:
        if output == "-" and json:
            raise Problem("Either the bundle or --json can go to standard output, not both.", WRONG_USAGE)
        mirrors_named(names)
        with ended_by_sigterm():
            snapshots = exporting.current_snapshots(names)
            bundle = exporting.create_bundle(snapshots, profile=profile, now=timezone.now(), by=self.who())
            try:
                file = self.write(bundle, output)
            except BaseException:
                # Nobody has it, so it need not hold its snapshots for a month.
                exporting.delete_bundle(bundle, by=self.who(), now=timezone.now())
                raise
        exporting.record_export(bundle.pk, by=self.who(), now=timezone.now())
        if json:
            self.print_json([as_json(bundle, file)])
        else:
            say = self.stderr.write if output == "-" else self.stdout.write
            names_in = wording.joined([row.mirror_name for row in bundle.contents.all()])
            say(f"{file}: {wording.size_text(bundle.size_bytes)} with {names_in}.")
            say(f"{bundle.sha256}  {Path(file).name}")
        return 0

    def write(self, bundle: Bundle, output: str) -> str:
        """Prepare what has to be, then write; returns the file's path."""
        if bundle.profile == Bundle.Profile.CACHE:
            exporting.prepare(bundle.pk)
            bundle.refresh_from_db()
            if bundle.state != Bundle.State.READY:
                raise ExportError(bundle.problem or f"{bundle.filename} could not be prepared.")
        progress = Progress(bundle.size_bytes)
        if output == "-":
            exporting.write_to(bundle, sys.stdout.buffer, progress=progress)
            sys.stdout.buffer.flush()
            return "-"
        target = Path(output)
        if target.is_dir():
            target /= bundle.filename
        try:
            with replaced(target) as file:
                exporting.write_to(bundle, file, progress=progress)
        except OSError as error:
            raise Problem(f"{target} cannot be written: {error.strerror or error}. Nothing was left there.") from error
        finally:
            progress.clear()
        return str(target)


@contextmanager
def replaced(target: Path) -> Iterator[BinaryIO]:
    """Write beside `target` and rename when all of it is on disk; whatever goes wrong, nothing half stays."""
    aside = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, so that it clears up behind itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Progress:
    """A line on a terminal; silent elsewhere."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._began = self._drawn = time.monotonic()
        self._draws = sys.stderr.isatty()

    def __call__(self, size: int) -> None:
        self.done += size
        if self._draws and time.monotonic() - self._drawn >= DRAW_EVERY_SECONDS:
            self._drawn = time.monotonic()
            rate = self.done / (self._drawn - self._began)
            parts = [wording.progress_text(self.done, self.total), wording.rate_text(rate)]
            parts.append(wording.time_left(self.done, self.total, rate))
            sys.stderr.write("\r\x1b[K" + " · ".join(part for part in parts if part))
            sys.stderr.flush()

    def clear(self) -> None:
        if self._draws:
            sys.stderr.write("\r\x1b[K")


def as_json(bundle: Bundle, file: str) -> dict[str, Any]:
    return {
        "bundle": bundle.pk,
        "file": file,
        "size": bundle.size_bytes,
        "sha256": f"sha256:{bundle.sha256}",
        "snapshots": [
            {
                "mirror": row.mirror_name,
                "digest": row.digest,
                "updated_at": row.updated_at,
                "size": row.size_bytes,
            }
            for row in bundle.contents.all()
        ],
    }
