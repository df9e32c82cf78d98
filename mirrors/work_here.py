"""Long work of this process (runs, bundles, a check), so that a stop or a shutdown reaches it at once."""

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from mirrors.stopping import StopSignal

SHUTDOWN = "shutdown"

_signals: dict[Hashable, StopSignal] = {}
_shutting_down = threading.Event()
_lock = threading.Lock()


@contextmanager
def entered(stop: StopSignal, key: Hashable = None) -> Iterator[None]:
    """While the block runs, `stop_all_here` sets `stop`; so does a shutdown that began before. `signal_of` finds it."""
    key = object() if key is None else key
    with _lock:
        _signals[key] = stop
    if _shutting_down.is_set():
        stop.set(SHUTDOWN)
    try:
        yield
    finally:
        with _lock:
            _signals.pop(key, None)


def signal_of(key: Hashable) -> StopSignal | None:
    """What stops the work entered under this key, where it is done by this process."""
    with _lock:
        return _signals.get(key)


def is_shutting_down() -> bool:
    return _shutting_down.is_set()


def stop_all_here() -> None:
    """The process shuts down: what it works at lets go, and is begun again or goes on at the next start."""
    _shutting_down.set()
    with _lock:
        signals = list(_signals.values())
    for signal in signals:
        signal.set(SHUTDOWN)
