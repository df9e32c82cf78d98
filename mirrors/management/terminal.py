"""Commands and the terminal they run on: a line that shows how far they are, and signals that end them in order."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connections

from mirrors.stopping import StopSignal

REDRAW_SECONDS = 0.5
CLEAR = "\r\x1b[K"


@contextmanager
def redrawn(line: Callable[[], str]) -> Iterator[None]:
    """While the block runs, stderr shows what `line` says, asked again twice a second from a thread of its own.

    Where stderr is no terminal, nothing is shown and `line` is never called.
    """
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()

    def draw() -> None:
        try:
            while not done.wait(REDRAW_SECONDS):
                sys.stderr.write(CLEAR + line())
                sys.stderr.flush()
        finally:
            connections.close_all()

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        sys.stderr.write(CLEAR)
        sys.stderr.flush()


@contextmanager
def stopped_by_signals(stop: StopSignal, who: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM set `stop`: a transfer ends, its run is closed as stopped and its partial file stays."""

    def pass_on(*_: object) -> None:
        # From a thread of its own: the main thread may be interrupted while it holds the signal's lock.
        threading.Thread(target=stop.set, args=(who,), daemon=True).start()

    with _handled((signal.SIGINT, signal.SIGTERM), pass_on):
        yield


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, so that it clears up behind itself."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with _handled((signal.SIGTERM,), interrupt):
        yield


@contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: Callable[..., None]) -> Iterator[None]:
    """Signals are handled so while the block runs; only the main thread can say how."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
