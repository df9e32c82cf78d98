"""gunicorn's threaded worker, made safe against slow clients. See the package's docstring for the plan."""

import errno
import os
import resource
import selectors
import socket
import ssl
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import ThreadWorker

from airgap.running.preconditions import CannotStart
from airgap.running.serving.channel import Channel
from airgap.running.serving.connections import Connection, Shelf
from airgap.running.serving.heads import LONGEST_HEAD, SMALL_BODY, Lane, read_head
from airgap.running.serving.sender import Sender
from airgap.running.tls import Certificate

SENDERS = min(max(4, os.cpu_count() or 1), 16)
# A whole request must have come within so many seconds, TLS's handshake before it too: its head and a small body.
HEAD_SECONDS = 15.0
# Who was told that the connection ends has so long to close it: closing first could lose the end of the answer.
LINGER_SECONDS = 2.0
# Connections, of all that the system lets this process open; the rest is for files, the database and the pools.
SHARE = 2 / 3
MOST_CONNECTIONS = 50_000
# Requests that are not complete, all together, in bytes.
MOST_ARRIVED = 64 << 20
ACCEPTED_AT_ONCE = 64
TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
NOT_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 50\r\n\r\n"
    b"This address speaks TLS; it begins with https://.\n"
)
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Worker(ThreadWorker):  # type: ignore[misc]
    """`nr_conns` counts every connection there is; each is either on a shelf, in a pool, or with a sender."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.arriving = Shelf(HEAD_SECONDS)
        self.idle = Shelf(float(self.cfg.keepalive))
        self.leaving = Shelf(LINGER_SECONDS)
        self.everyone: set[Connection] = set()
        self.arrived_bytes = 0
        self.certificate: Certificate | None = None

    def init_process(self) -> None:
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "airgap.settings")
        from django.conf import settings

        self.worker_connections = _room_for_connections()
        pulls = settings.AIRGAP_PULL_THREADS
        self.pools = {
            Lane.PAGES: ThreadPoolExecutor(self.cfg.threads, "page"),
            Lane.FILES: ThreadPoolExecutor(pulls, "file"),
            Lane.STREAMS: ThreadPoolExecutor(pulls, "stream"),
        }
        self.senders = [Sender(number) for number in range(SENDERS)]
        for sender in self.senders:
            sender.start()
        if settings.AIRGAP_TLS_CERT and settings.AIRGAP_TLS_KEY:
            try:
                self.certificate = Certificate(settings.AIRGAP_TLS_CERT, settings.AIRGAP_TLS_KEY)
            except CannotStart as problem:
                self.log.error("%s", problem)
                sys.exit(Arbiter.WORKER_BOOT_ERROR)
        super().init_process()

    def get_thread_pool(self) -> ThreadPoolExecutor:
        return self.pools[Lane.PAGES]

    def run(self) -> None:
        try:
            super().run()
        finally:
            # Threads that wait for a client are told that there is none any more; else the process would not end.
            for connection in list(self.everyone):
                try:
                    connection.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            for pool in self.pools.values():
                pool.shutdown(wait=False, cancel_futures=True)

    # A connection comes, and waits for its request

    def accept(self, listener: Any) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                plain, client = listener.accept()
            except OSError as error:
                if error.errno in OUT_OF_FILES:
                    self._make_room()
                    time.sleep(0.01)
                elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                    raise
                return
            self.nr_conns += 1
            connection = Connection(self.cfg, Channel(plain), client, listener.getsockname())
            self.everyone.add(connection)
            self._expect(connection, self.arriving)
            if self.nr_conns >= self.worker_connections:
                self._make_room()

    def _make_room(self) -> None:
        """Close who has waited longest. Whoever really wants something has said so within moments."""
        shelf = max((self.arriving, self.idle, self.leaving), key=len)
        oldest = shelf.oldest()
        if oldest is not None:
            self._drop(oldest)

    def _expect(self, connection: Connection, shelf: Shelf) -> None:
        """Wait for bytes of the client, in the event loop."""
        shelf.add(connection)
        self.poller.register(connection.sock.sock, selectors.EVENT_READ, partial(self._on_readable, connection))

    def _on_readable(self, connection: Connection, _: Any) -> None:
        if connection not in self.everyone:
            # Dropped a moment ago, by an event of the same batch.
            return
        try:
            if connection in self.leaving:
                if not connection.sock.sock.recv(65536):
                    self._drop(connection)
            elif connection.is_shaken or self._shake_hands(connection):
                self._read(connection)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._wait_for(connection, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._wait_for(connection, selectors.EVENT_WRITE)
        except (OSError, ValueError):
            self._drop(connection)

    def _wait_for(self, connection: Connection, event: int) -> None:
        key = self.poller.get_key(connection.sock.sock)
        if key.events != event:
            self.poller.modify(connection.sock.sock, event, key.data)

    def _shake_hands(self, connection: Connection) -> bool:
        """A step of the handshake; true when there is none (left). Raises what the socket raises while it waits."""
        if self.certificate is None:
            return True
        channel = connection.sock
        if not isinstance(channel.sock, ssl.SSLSocket):
            if channel.sock.recv(1, socket.MSG_PEEK) not in (b"\x16", b""):
                self._leave(connection, NOT_TLS)
                return False
            key = self.poller.unregister(channel.sock)
            channel.sock = self._context(self.certificate).wrap_socket(
                channel.sock, server_side=True, do_handshake_on_connect=False
            )
            self.poller.register(channel.sock, selectors.EVENT_READ, key.data)
        channel.sock.do_handshake()
        connection.is_shaken = True
        return True

    def _context(self, certificate: Certificate) -> ssl.SSLContext:
        try:
            return certificate.context()
        except CannotStart as problem:
            self.log.error("The certificate was renewed, but the one before stays in use. %s", problem)
            return certificate.last()

    def _read(self, connection: Connection) -> None:
        """Take what has come. A complete request goes to its pool; an incomplete one stays on the shelf."""
        while True:
            data = connection.sock.sock.recv(LONGEST_HEAD + SMALL_BODY)
            if not data:
                self._drop(connection)
                return
            if connection in self.idle:
                self.idle.remove(connection)
                self.arriving.add(connection)
            connection.arrived += data
            self.arrived_bytes += len(data)
            if self._dispatch(connection):
                return
            while self.arrived_bytes > MOST_ARRIVED and connection in self.arriving:
                self._drop(self.arriving.oldest())
            if connection not in self.arriving:
                return

    def _dispatch(self, connection: Connection) -> bool:
        """Whether the connection has left the shelf: its request is complete, or too long."""
        head = read_head(connection.arrived, connection.searched)
        if head is None:
            connection.searched = len(connection.arrived)
            if len(connection.arrived) <= LONGEST_HEAD:
                return False
            self._leave(connection, TOO_LONG)
            return True
        if len(connection.arrived) < head.length:
            return False
        self._take_off(connection)
        connection.parser.unreader.unread(bytes(connection.arrived))
        connection.arrived.clear()
        connection.searched = 0
        connection.lane = head.lane
        self.enqueue_req(connection)
        return True

    def _take_off(self, connection: Connection) -> None:
        """From its shelf and out of the event loop."""
        for shelf in (self.arriving, self.idle, self.leaving):
            shelf.remove(connection)
        self.arrived_bytes -= len(connection.arrived)
        try:
            self.poller.unregister(connection.sock.sock)
        except (KeyError, ValueError):
            pass

    # A request is handled in a pool, and what is left of its answer by a sender

    def enqueue_req(self, conn: Connection) -> None:
        future = self.pools[conn.lane].submit(self.handle, conn)
        future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def handle(self, conn: Connection) -> bool:
        conn.sock.begin(patient=conn.lane is Lane.STREAMS)
        keep = super().handle(conn)
        # Most answers end here; what does not go out at once is a sender's.
        conn.sock.push_held()
        return keep is True

    def handle_request(self, req: Any, conn: Connection) -> Any:
        if self.certificate is not None:
            req.scheme = "https"
        return super().handle_request(req, conn)

    def finish_request(self, conn: Connection, fs: Future[bool]) -> None:
        conn.keep = not fs.cancelled() and fs.exception() is None and fs.result()
        if conn.sock.broken or not conn.sock.has_left:
            self._answered(conn, not conn.sock.broken)
            return
        sender = min(self.senders, key=lambda sender: sender.load)
        sender.take(conn.sock, lambda well: self.method_queue.defer(self._answered, conn, well))

    def _answered(self, connection: Connection, well: bool) -> None:
        taken = connection.sock.when_sent()
        if not well:
            self._drop(connection)
            return
        if taken is not None:
            self.pools[Lane.FILES].submit(taken)
        if not connection.keep:
            self._leave(connection)
            return
        connection.arrived += connection.parser.unreader.take_buffered()
        self.arrived_bytes += len(connection.arrived)
        self._expect(connection, self.arriving if connection.arrived else self.idle)
        if connection.arrived and self._dispatch(connection):
            return
        if self.certificate is not None:
            # What TLS has decrypted already does not make the socket readable again.
            self._on_readable(connection, None)

    # A connection goes

    def _leave(self, connection: Connection, last_words: bytes = b"") -> None:
        """All was said: let the client close, for a moment (RFC 9112, 9.6)."""
        self._take_off(connection)
        connection.arrived.clear()
        try:
            if last_words:
                connection.sock.sock.send(last_words)
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(connection)
            return
        self._expect(connection, self.leaving)

    def _drop(self, connection: Connection | None) -> None:
        if connection is None or connection not in self.everyone:
            return
        self.everyone.remove(connection)
        self._take_off(connection)
        self.nr_conns -= 1
        connection.sock.dispose()

    def murder_keepalived(self, force: bool = False) -> None:
        now = time.monotonic()
        for shelf in (self.idle, self.leaving, self.arriving):
            for connection in shelf.late(float("inf") if force else now):
                self._drop(connection)

    def murder_pending(self) -> None:
        """All shelves are looked through above."""

    def _cap_keepalive(self, deadline: float) -> None:
        """The worker stops: nobody waits for a request any more."""
        self.murder_keepalived(force=True)


def _room_for_connections() -> int:
    """Raise this process's limit of open files as far as it may be raised, and give connections their share."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = 2 * MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, 2 * MOST_CONNECTIONS)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return min(int(allowed * SHARE), MOST_CONNECTIONS)
