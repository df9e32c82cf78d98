"""How a long transfer is told to stop from another thread.

A thread that waits in `recv` cannot be interrupted; shutting its socket down from outside can. Whoever may block
attaches such an abort while it blocks, and whoever sleeps sleeps on the signal.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """The work was told to stop and did."""

    def __init__(self, reason: str = "stopped") -> None:
        super().__init__(reason)


class StopSignal:
    """Set once, from any thread; everything attached is aborted at that moment."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._aborts: list[Callable[[], None]] = []
        self.reason = ""

    def set(self, reason: str = "stopped") -> None:
        with self._lock:
            if self._event.is_set():
                return
            self.reason = reason
            self._event.set()
            aborts = list(self._aborts)
        for abort in aborts:
            abort()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep up to `seconds`; true as soon as the signal is set."""
        return self._event.wait(seconds)

    def check(self) -> None:
        """Raise `Stopped` if the signal is set."""
        if self._event.is_set():
            raise Stopped(self.reason)

    @contextmanager
    def attach(self, abort: Callable[[], None]) -> Iterator[None]:
        """Call `abort` when the signal is set while the block runs (at once if it is set already)."""
        with self._lock:
            already = self._event.is_set()
            if not already:
                self._aborts.append(abort)
        if already:
            abort()
        try:
            yield
        finally:
            with self._lock:
                if abort in self._aborts:
                    self._aborts.remove(abort)
