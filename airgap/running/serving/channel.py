"""A connection's socket as gunicorn sees it: it takes an answer, and sends it without making a page's thread wait.

The socket underneath never blocks. One thread at a time owns a channel: the event loop, then a thread of a pool, then
perhaps a sender, then the event loop again.
"""

import errno
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any, BinaryIO

# Nothing goes out or comes in for so many seconds: the other end is gone. As nginx has it (send_timeout).
STALL_SECONDS = 60.0
# A body may take so long, and longer only while this many bytes come a second: a byte a minute keeps no thread.
BODY_SECONDS = 60.0
BODY_RATE = 10_000
# An answer that no file makes is kept in memory up to here, if its client does not take it at once.
MOST_HELD = 8 << 20
# Bytes of a file in one turn of a sender, before others have theirs; and at once through TLS, where sendfile cannot go.
TURN = 4 << 20
BLOCK = 128 << 10


class Channel:
    def __init__(self, plain: socket.socket) -> None:
        plain.setblocking(False)
        self.sock: socket.socket | ssl.SSLSocket = plain
        # Whether the thread that has it may wait for its client: true for streams only.
        self.patient = False
        self.wants = EVENT_WRITE
        self.broken = False
        self._timeout: float | None = None
        self._held: deque[memoryview] = deque()
        # In memory, not in a file.
        self.held_bytes = 0
        self._file: int | None = None
        self._offset = self._left = 0
        self._when_sent: Callable[[], None] | None = None
        self._received = 0
        self._since = 0.0

    def begin(self, *, patient: bool) -> None:
        """A request is being handled from now on."""
        self.patient = patient
        self._received = 0
        self._since = time.monotonic()

    # What gunicorn calls

    def recv(self, size: int) -> bytes:
        """More of a body, in a thread that may wait for it. Elsewhere all was there: this is the end."""
        while self.patient and not self.broken:
            try:
                data: bytes = self._io(EVENT_READ, self.sock.recv, size)
            except Waits as waits:
                self._wait(waits.wants, self._patience())
                continue
            self._received += len(data)
            return data
        return b""

    def sendall(self, data: bytes) -> None:
        if self.broken:
            raise BrokenPipeError(errno.EPIPE, "the connection is closed")
        if self._file is not None:
            self._drain()
        if data:
            self._held.append(memoryview(data))
            self.held_bytes += len(data)
        if self.patient or self.held_bytes > MOST_HELD:
            self._drain()

    def send(self, data: bytes) -> int:
        self.sendall(data)
        return len(data)

    def sendfile(self, file: BinaryIO, offset: int = 0, count: int = 0) -> int:
        """Keep the file's part to be sent after what is held. The file itself may be closed afterwards."""
        self._file, self._offset, self._left = os.dup(file.fileno()), offset, count
        self._when_sent = getattr(file, "all_was_sent", None)
        return count

    def setblocking(self, _: bool) -> None:
        """gunicorn sets it back and forth; here nothing blocks."""

    def gettimeout(self) -> float | None:
        return self._timeout

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def shutdown(self, how: int) -> None:
        self.push_held()
        if isinstance(self.sock, ssl.SSLSocket):
            # TLS's own goodbye; the other end's is not waited for.
            with suppress(OSError, ValueError):
                self.sock.unwrap()
        self.sock.shutdown(how)

    def close(self) -> None:
        """gunicorn gives it up; the event loop does the rest."""
        self.broken = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    # Sending

    @property
    def has_left(self) -> bool:
        return bool(self._held) or self._file is not None

    def push_held(self) -> None:
        """Send what goes out at once of what is held, nothing of a file. A client that is gone is found out later."""
        try:
            while self._held:
                self._sent(self._io(EVENT_WRITE, self.sock.send, self._held[0]))
        except Waits as waits:
            self.wants = waits.wants
        except OSError:
            self.broken = True

    def push(self) -> bool:
        """Send what goes out without waiting, a turn at most. True when nothing is left.

        Otherwise `wants` says what to wait for. OSError when the client is gone.
        """
        turn = TURN
        try:
            while True:
                while self._held:
                    self._sent(self._io(EVENT_WRITE, self.sock.send, self._held[0]))
                if self._file is None:
                    return True
                if turn <= 0:
                    self.wants = EVENT_WRITE
                    return False
                turn -= self._push_file(self._file, turn)
        except Waits as waits:
            self.wants = waits.wants
            return False

    def when_sent(self) -> Callable[[], None] | None:
        """What to call now that the file was sent, once."""
        call, self._when_sent = self._when_sent, None
        return call

    def _sent(self, count: int) -> None:
        self.held_bytes -= count
        if count < len(self._held[0]):
            self._held[0] = self._held[0][count:]
        else:
            self._held.popleft()

    def _push_file(self, file: int, turn: int) -> int:
        """Bytes of the file that went out. Through TLS, they are read again after a wait."""
        count = 0
        if self._left and isinstance(self.sock, ssl.SSLSocket):
            block = os.pread(file, min(BLOCK, self._left), self._offset)
            count = self._io(EVENT_WRITE, self.sock.send, block) if block else 0
        elif self._left:
            count = self._io(EVENT_WRITE, os.sendfile, self.sock.fileno(), file, self._offset, min(self._left, turn))
        if self._left and not count:
            raise OSError("the file became shorter while it was sent")
        self._offset += count
        self._left -= count
        if not self._left:
            os.close(file)
            self._file = None
        return count

    def _drain(self) -> None:
        while not self.push():
            self._wait(self.wants, STALL_SECONDS)

    # Waiting

    def _io(self, wants: int, call: Callable[..., Any], *arguments: Any) -> Any:
        """The call's result; Waits if it would block, ConnectionResetError for whatever TLS finds wrong."""
        try:
            return call(*arguments)
        except BlockingIOError:
            raise Waits(wants) from None
        except ssl.SSLWantReadError:
            raise Waits(EVENT_READ) from None
        except ssl.SSLWantWriteError:
            raise Waits(EVENT_WRITE) from None
        except ssl.SSLError as error:
            raise ConnectionResetError(errno.ECONNRESET, str(error)) from None

    def _patience(self) -> float:
        """Seconds that may pass until more of the body comes."""
        left = self._since + BODY_SECONDS + self._received / BODY_RATE - time.monotonic()
        return min(left, STALL_SECONDS, self._timeout if self._timeout is not None else STALL_SECONDS)

    def _wait(self, wants: int, seconds: float) -> None:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN if wants == EVENT_READ else select.POLLOUT)
        if not poll.poll(max(0.0, seconds) * 1000):
            self.broken = True
            raise ConnectionResetError(errno.ECONNRESET, "the client is too slow")

    # The end

    def dispose(self) -> None:
        """Close everything, whatever is left to send."""
        self.broken = True
        self._held.clear()
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self.sock.close()


class Waits(Exception):
    """The socket is not ready; `wants` is the event to wait for."""

    def __init__(self, wants: int) -> None:
        super().__init__()
        self.wants = wants
