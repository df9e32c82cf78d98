"""An HTTP proxy on loopback that also plays DNS: names that do not exist lead to fakes.

    with FakeProxy() as proxy:
        proxy.routes["registry.example.com:443"] = fake.port
        Connection(proxy=proxy.url)            # or proxy.url_with("user", "password")
        proxy.seen                             # ["CONNECT registry.example.com:443", "GET http://…"]

`require(user, password)` asks for a login, `refusal` answers every request with that status, `stall` with silence.
"""

import base64
import contextlib
import select
import socket
import socketserver
import threading
from typing import Any, Self
from urllib.parse import urlsplit


class FakeProxy:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.routes: dict[str, int] = {}
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.refusal: int | None = None
        self.stall = False
        self.login = ""
        self._closing = threading.Event()
        fake = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    fake._handle(self.request)

        class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url_with(self, username: str, password: str) -> str:
        return f"http://{username}:{password}@127.0.0.1:{self.port}"

    def require(self, username: str, password: str) -> None:
        self.login = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(65536)
            if not piece:
                return
            head += piece
        lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        method, target, _ = lines[0].split(" ", 2)
        self.seen.append(f"{method} {target}")
        self.headers.append(headers)
        if self.stall:
            self._closing.wait()
            return
        if self.refusal or (self.login and headers.get("proxy-authorization") != self.login):
            client.sendall(f"HTTP/1.1 {self.refusal or 407} Refused\r\nContent-Length: 0\r\n\r\n".encode())
            return
        if method == "CONNECT":
            self._tunnel(client, target)
            return
        parts = urlsplit(target)
        path = target.partition("//")[2].partition("/")[2]
        kept = [line for line in lines[1:] if not line.lower().startswith(("connection:", "proxy-"))]
        request = [f"{method} /{path} HTTP/1.1", *kept, "Connection: close", "", ""]
        server = self._server_for(client, f"{parts.hostname}:{parts.port or 80}")
        if server is None:
            return
        with server:
            server.sendall("\r\n".join(request).encode("latin-1"))
            answer = b""
            while piece := server.recv(65536):
                answer += piece
            status, _, rest = answer.partition(b"\r\n")
            client.sendall(status + b"\r\nConnection: close\r\n" + rest)

    def _server_for(self, client: socket.socket, target: str) -> socket.socket | None:
        host, _, port = target.rpartition(":")
        address = ("127.0.0.1", self.routes[target]) if target in self.routes else (host, int(port))
        try:
            return socket.create_connection(address, timeout=2)
        except OSError:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return None

    def _tunnel(self, client: socket.socket, target: str) -> None:
        server = self._server_for(client, target)
        if server is None:
            return
        with server:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            ends = {client: server, server: client}
            while not self._closing.is_set():
                for end in select.select(list(ends), [], [], 0.1)[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)
