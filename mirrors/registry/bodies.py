"""What is sent in a request: read piece by piece while it leaves, watched, and broken off when the answer comes early.

urllib3 reads the body in pieces of `wire.AT_ONCE` and writes each to the socket, so the time between two reads is the
time the other end took for the piece before.
"""

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from mirrors.registry.errors import RegistryError
from mirrors.registry.patience import Gauge, Patience
from mirrors.registry.transport import Timeouts
from mirrors.registry.wire import Wire
from mirrors.stopping import StopSignal


class Body(Protocol):
    """Bytes for one request, from its beginning after each `rewind`. `read` may raise RegistryError: nothing more is
    sent then, and a server that was promised `size` bytes cannot take them for whole."""

    @property
    def size(self) -> int: ...

    def rewind(self) -> object: ...

    def read(self, count: int, /) -> bytes: ...


class Text:
    """A small body in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def size(self) -> int:
        return len(self._data)

    def rewind(self) -> None:
        self._at = 0

    def read(self, count: int, /) -> bytes:
        piece = self._data[self._at : self._at + count]
        self._at += len(piece)
        return piece


class Outgoing:
    """A body on its way, in the shape that requests takes for a file with a length."""

    def __init__(
        self,
        body: Body,
        wire: Wire,
        timeouts: Timeouts,
        patience: Patience,
        stop: StopSignal,
        sent: Callable[[int], object],
        too_slow: Callable[[], RegistryError],
    ) -> None:
        self._body = body
        self._wire = wire
        self._timeouts = timeouts
        self._patience = patience
        self._stop = stop
        self._sent = sent
        self._too_slow = too_slow
        self._gauge = Gauge(timeouts)
        self._to_come = body.size
        self._piece, self._left_at = 0, 0.0
        body.rewind()

    def __len__(self) -> int:
        return self._body.size

    def __iter__(self) -> Iterator[bytes]:
        """Only its presence counts: requests streams what can be iterated."""
        while piece := self.read(64 * 1024):
            yield piece

    def read(self, count: int) -> bytes:
        self._account()
        if not self._to_come:
            # What is still in the kernel may leave as slowly as everything else did, and then it is worked on.
            self._wire.give(self._timeouts.store)
            return b""
        if self._wire.was_answered():
            # A refusal while we are still sending (413 above all). urllib3 takes this as "read what it says".
            raise BrokenPipeError("answered before everything was sent")
        piece = self._body.read(min(count, self._to_come))
        self._to_come -= len(piece)
        self._wire.phase = "send"
        self._wire.give(self._patience.left())
        self._wire.until(self._timeouts.read)
        self._piece, self._left_at = len(piece), time.monotonic()
        return piece

    def _account(self) -> None:
        """Judge how the piece before went."""
        self._stop.check()
        if not self._piece:
            return
        self._sent(self._piece)
        is_well = self._gauge.add(self._piece, time.monotonic() - self._left_at)
        self._piece = 0
        if is_well:
            self._patience.still_good()
        elif self._gauge.is_too_slow() or self._patience.left() <= 0:
            raise self._too_slow()
