"""What commands draw on a terminal while they work."""

import io
import threading
from types import SimpleNamespace

import pytest

from mirrors.management import terminal
from mirrors.management.commands import export_bundle, scrub, sync
from mirrors.models import Mirror, SyncRun
from mirrors.scrubbing import Check


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_is_redrawn_while_the_work_goes_on_and_cleared_at_its_end(monkeypatch):
    stderr = Terminal()
    # Not in a fixture: between setting up and the test itself pytest puts its own in place again.
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr(terminal, "REDRAW_SECONDS", 0.001)
    drawn = threading.Semaphore(0)

    def line() -> str:
        drawn.release()
        return "half of it"

    with terminal.redrawn(line):
        assert drawn.acquire(timeout=60) and drawn.acquire(timeout=60)
    assert stderr.getvalue().startswith("\r\x1b[Khalf of it\r\x1b[K")
    assert stderr.getvalue().endswith("\r\x1b[K")


def test_nothing_is_drawn_where_there_is_no_terminal(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    with terminal.redrawn(lambda: pytest.fail("asked for a line that nobody sees")):
        pass
    assert shown.getvalue() == ""


@pytest.mark.parametrize(
    ("total", "done", "stage", "bar"),
    [
        (8 * 1024, 2 * 1024, "", f"trivy-db [{'#' * 7}{'.' * 23}] 2.0 of 8.0 KiB"),
        (1024, 4096, "", f"trivy-db [{'#' * 30}] 4.0 of 1.0 KiB"),
        (None, 0, "asking ghcr.io", f"trivy-db [{'.' * 30}] asking ghcr.io"),
    ],
)
def test_a_run_has_a_bar_or_says_its_stage(total, done, stage, bar):
    run = SyncRun(mirror=Mirror(name="trivy-db"), bytes_total=total, bytes_done=done, stage=stage)
    assert sync.progress_bar(run) == bar


def test_an_export_says_how_far_it_is():
    progress = export_bundle.Progress(4 * 1024 * 1024)
    progress.add(1024 * 1024)
    assert progress.line().startswith("1.0 of 4.0 MiB · ")


def test_a_check_says_how_far_it_is(monkeypatch):
    check = Check(bytes_done=1024, bytes_total=2048)
    monkeypatch.setattr(scrub, "scrubbing", SimpleNamespace(last_check=lambda: check))
    assert scrub.progress_line() == "1.0 of 2.0 KiB · 0 B/s"
    check.bytes_total = 0
    assert scrub.progress_line() == ""
