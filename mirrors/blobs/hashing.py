"""SHA-256 beside other work: the next bytes are read and written while the last ones are hashed."""

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

# Pieces that wait to be hashed; whoever brings more waits too, so memory stays that of a few pieces.
MOST_WAITING = 8
SMALL = 1024 * 1024


class Sha256:
    """Like hashlib's, for bytes up to `expected` in number: with more than 1 MiB it hashes in a thread of its own.

    Pieces are kept until they are hashed, so their buffers must not be used again. `close` ends the thread.
    """

    def __init__(self, expected: int) -> None:
        self._running = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1, "sha256") if expected > SMALL else None
        self._waiting: deque[Future[None]] = deque()

    def update(self, piece: bytes) -> None:
        if self._pool is None:
            self._running.update(piece)
            return
        if len(self._waiting) == MOST_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._running.update, piece))

    def hexdigest(self) -> str:
        """Of everything up to here."""
        while self._waiting:
            self._waiting.popleft().result()
        return self._running.hexdigest()

    def close(self) -> None:
        """May be called again; `hexdigest` still answers."""
        if self._pool is not None:
            self._pool.shutdown()
