"""Sockets: how one is found, watched and broken off from another thread, and heard while it is written to.

urllib3 hides the socket while it connects, shakes hands and waits. A `Wire` is told of it at every stage, so that a
stop shuts it down at once, and so that every step has an absolute end (a server that sends one byte of its header
every few seconds never trips a plain read timeout).
"""

import ipaddress
import math
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any, cast

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.wait import wait_for_read

from mirrors.stopping import StopSignal

# Bytes of a body that go out at once. At the slowest speed allowed they take less time than the longest silence.
AT_ONCE = 64 * 1024
# So much may wait unsent in the kernel (its buffers take megabytes): what is counted as sent really left.
_UNSENT = 128 * 1024


@dataclass(frozen=True)
class Peer:
    """Who is at the other end: IP address (the proxy's, if one is used) and certificate (DER, b"" without TLS)."""

    address: str
    certificate: bytes


class Wire:
    """The connection in use. One request at a time; only `abort` may be called from another thread.

    phase      what is being waited for: dns, connect, proxy, tls, send, answer or body
    requests   HTTP requests sent
    """

    def __init__(self, stop: StopSignal) -> None:
        self.stop = stop
        self.phase = ""
        self.requests = 0
        self._deadline = self._end = math.inf
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def give(self, seconds: float) -> None:
        """Nothing may last longer than so many seconds from now, whatever its own limit."""
        self._end = time.monotonic() + seconds

    def until(self, seconds: float) -> None:
        """The next bytes must arrive within so many seconds, however few come at a time."""
        self._deadline = min(time.monotonic() + seconds, self._end)

    def left(self) -> float:
        """Seconds until the end set by `until`; TimeoutError once it has passed."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    def hold(self, connection: socket.socket | None) -> None:
        """This socket is the one a stop has to break."""
        with self._lock:
            self._socket = connection
        if self.stop.is_set():
            self.abort()

    def abort(self) -> None:
        """Break the connection; whoever waits on it wakes up with an error."""
        with self._lock:
            connection = self._socket
        if connection is not None:
            try:
                # Not SSLSocket.shutdown, which would take the TLS state away under the reading thread.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                pass

    def has_bytes(self) -> bool:
        """Whether a read would bring something without waiting (as far as can be told from outside)."""
        connection = self._socket
        try:
            if isinstance(connection, ssl.SSLSocket) and connection.pending():
                return True
            return connection is not None and wait_for_read(connection, timeout=0.0)
        except (OSError, ValueError):
            return False

    def was_answered(self) -> bool:
        """Whether the other end said something, or hung up, while we are still sending."""
        connection = self._socket
        try:
            if not isinstance(connection, WatchedSocket | WatchedSSLSocket) or not wait_for_read(connection, timeout=0):
                return False
            return connection.spoke()
        except (OSError, ValueError):
            return True

    def connect(self, host: str, port: int, timeout: float) -> socket.socket:
        """A connected socket within `timeout` seconds in all: name lookup and every address together."""
        self.until(timeout)
        self.phase = "dns"
        addresses = self._resolve(host, port, self.left())
        self.phase = "connect"
        failure: OSError = OSError("the name has no address")
        for position, (family, kind, protocol, address) in enumerate(addresses):
            self.stop.check()
            connection = WatchedSocket(family, kind, protocol)
            connection.wire = self
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
                # A dead first address (often IPv6) must leave time for the others.
                connection.settimeout(self.left() / (len(addresses) - position))
                self.hold(connection)
                connection.connect(address)
                self.until(timeout)
                connection.settimeout(self.left())
                return connection
            except OSError as error:
                failure = error
                self.hold(None)
                connection.close()
        raise failure

    def _resolve(self, host: str, port: int, timeout: float) -> list[tuple[int, int, int, Any]]:
        """Addresses of a name. The system's resolver cannot be interrupted, so it is asked in a thread."""
        host = host.strip("[]")
        try:
            ipaddress.ip_address(host)
            numeric = True
        except ValueError:
            numeric = False
        found: list[Any] = []
        done = threading.Event()

        def look_up() -> None:
            try:
                found.append(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                found.append(error)
            done.set()

        if numeric:
            look_up()
        else:
            threading.Thread(target=look_up, name="name-lookup", daemon=True).start()
            with self.stop.attach(done.set):
                done.wait(timeout)
        self.stop.check()
        if not found:
            raise socket.gaierror(socket.EAI_AGAIN, "the name lookup took too long")
        if isinstance(found[0], UnicodeError):
            raise socket.gaierror(socket.EAI_NONAME, "not a usable host name")
        if isinstance(found[0], OSError):
            raise found[0]
        return [(family, kind, protocol, address) for family, kind, protocol, _, address in found[0]]


class WatchedSocket(socket.socket):
    """A socket whose every read and write ends at the wire's deadline."""

    wire: Wire

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(self.wire.left())
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self.settimeout(self.wire.left())
        super().sendall(*args, **kwargs)

    def spoke(self) -> bool:
        """Whether bytes, or the end, can be read now."""
        try:
            self.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        return True


class WatchedSSLSocket(ssl.SSLSocket):
    """The same over TLS; it makes itself known before the handshake, which happens inside its construction."""

    # A byte that was read to see whether any had come.
    _ahead = b""

    def do_handshake(self, block: bool = False) -> None:
        wire = cast(WatchedSSLContext, self.context).wire
        wire.phase = "tls"
        wire.hold(self)
        super().do_handshake(block)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        if self._ahead:
            memoryview(args[0])[:1] = self._ahead
            self._ahead = b""
            return 1
        self.settimeout(cast(WatchedSSLContext, self.context).wire.left())
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self.settimeout(cast(WatchedSSLContext, self.context).wire.left())
        super().sendall(*args, **kwargs)

    def spoke(self) -> bool:
        """Whether bytes, or the end, can be read now. TLS 1.3 sends session tickets by itself, which are none."""
        if self._ahead:
            return True
        self.settimeout(0)
        try:
            self._ahead = self.recv(1)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return True


class WatchedSSLContext(ssl.SSLContext):
    """A client context for one wire."""

    wire: Wire
    sslsocket_class = WatchedSSLSocket


class _Watched:
    """What both kinds of connection add to urllib3's."""

    wire: Wire
    peer: Peer | None = None
    # Whether the last request went out to its end, and whether it had a body.
    _is_whole = True
    _had_body = False

    def _new_conn(self) -> socket.socket:
        me = cast(HTTPConnection, self)
        timeout = me.timeout if isinstance(me.timeout, int | float) else 10.0
        try:
            return self.wire.connect(me._dns_host, me.port, timeout)
        except socket.gaierror as error:
            raise NameResolutionError(me.host, me, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(me, "connecting took too long") from error
        except OSError as error:
            raise NewConnectionError(me, str(error)) from error

    def _tunnel(self) -> None:
        self.wire.phase = "proxy"
        timeout = cast(HTTPConnection, self).timeout
        self.wire.until(timeout if isinstance(timeout, int | float) else 10.0)
        super()._tunnel()  # type: ignore[misc]

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        connection = cast(socket.socket, cast(HTTPConnection, self).sock)
        self.wire.hold(connection)
        certificate = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLSocket) else b""
        try:
            address = str(connection.getpeername()[0])
        except OSError:
            address = ""
        self.peer = Peer(address, certificate or b"")

    def request(self, *args: Any, **kwargs: Any) -> None:
        me = cast(HTTPConnection, self)
        self.wire.hold(me.sock)
        self.wire.requests += 1
        self.wire.until(me.timeout if isinstance(me.timeout, int | float) else 20.0)
        self._is_whole, self._had_body = False, kwargs.get("body") is not None
        super().request(*args, **kwargs)  # type: ignore[misc]
        self._is_whole = True

    def getresponse(self) -> Any:
        timeout = cast(HTTPConnection, self).timeout
        self.wire.until(timeout if isinstance(timeout, int | float) else 20.0)
        self.wire.phase = "answer" if self._is_whole else "send"
        response = super().getresponse()  # type: ignore[misc]
        response.peer = self.peer
        me, was_refused = cast(HTTPConnection, self), self._had_body and response.status >= 400
        if me.sock is not None and (was_refused or not self._is_whole):
            # Answered in the middle of our request, whose rest would be taken for the next one; or refused, and who
            # refuses need not have read it. The answer keeps its own hold on the socket until it is read.
            me.sock.close()
            me.sock = None
        return response


class _WatchedHTTP(_Watched, HTTPConnection):
    pass


class _WatchedHTTPS(_Watched, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _WatchedHTTP
    wire: Wire

    def _new_conn(self) -> Any:
        connection = cast(_WatchedHTTP, super()._new_conn())
        connection.wire, connection.blocksize = self.wire, AT_ONCE
        return connection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPS
    wire: Wire

    def _new_conn(self) -> Any:
        connection = cast(_WatchedHTTPS, super()._new_conn())
        connection.wire, connection.blocksize = self.wire, AT_ONCE
        return connection

    def _validate_conn(self, conn: Any) -> None:
        """Connect early, as urllib3 does, but without its warning: an unverified source was asked for by name."""
        if conn.is_closed:
            conn.connect()


class WatchedAdapter(HTTPAdapter):
    """Makes connections of one wire with one TLS context; never retries, never follows, never picks a CA by itself."""

    def __init__(self, wire: Wire, context: WatchedSSLContext) -> None:
        self._context = context
        self._pools = {
            "http": type("HTTPPool", (_HTTPPool,), {"wire": wire}),
            "https": type("HTTPSPool", (_HTTPSPool,), {"wire": wire}),
        }
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> tuple[Any, Any]:
        host, _ = super().build_connection_pool_key_attributes(request, True, None)
        return host, ({"ssl_context": self._context} if host["scheme"] == "https" else {})

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """The context already says whom to trust."""
