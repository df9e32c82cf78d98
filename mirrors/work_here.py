"""Long work of this process other than sync runs, so that a shutdown reaches it at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mirrors.stopping import StopSignal

SHUTDOWN = "shutdown"

_signals: set[StopSignal] = set()
_lock = threading.Lock()


@contextmanager
def entered(stop: StopSignal) -> Iterator[None]:
    """While the block runs, `stop_all_here` sets `stop`."""
    with _lock:
        _signals.add(stop)
    try:
        yield
    finally:
        with _lock:
            _signals.discard(stop)


def stop_all_here() -> None:
    """The process shuts down: what it works at lets go, and is begun again at the next start."""
    with _lock:
        signals = list(_signals)
    for signal in signals:
        signal.set(SHUTDOWN)
