"""Many clients that download one URL at once, and cost the machine as little as can be: `python -m tests.bench.puller`.

Over plain HTTP what arrives is thrown away inside the kernel (MSG_TRUNC, tcp(7)), so that the clients are not what is
measured. Arguments are one JSON object, the answer is another; see Order and Result.
"""

import json
import resource
import socket
import ssl
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

PIECE = 4 << 20


@dataclass(frozen=True)
class Order:
    """`rate`: bytes a second for each client, 0 for as fast as it goes. `seconds`: break off after so long, 0 never."""

    url: str
    clients: int
    rate: int = 0
    seconds: float = 0
    ca: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Result:
    """Seconds from the first request to the last byte, bytes of bodies, statuses, seconds to the slowest first byte."""

    seconds: float
    received: int
    statuses: dict[str, int]
    slowest_first: float


class Client:
    def __init__(self, order: Order, context: ssl.SSLContext | None) -> None:
        self.order, self.context = order, context
        self.received, self.status, self.first = 0, "none", 0.0

    def pull(self, go: threading.Barrier) -> None:
        parts = urlsplit(self.order.url)
        plain = socket.socket()
        if self.order.rate:
            # Else the kernel would take the first megabytes at full speed.
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        go.wait()
        began = time.perf_counter()
        try:
            plain.connect((parts.hostname, parts.port))
            with self.context.wrap_socket(plain, server_hostname=parts.hostname) if self.context else plain as sock:
                headers = "".join(f"{name}: {value}\r\n" for name, value in self.order.headers.items())
                sock.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}\r\n".encode())
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = sock.recv(2048)
                    if not piece:
                        raise ConnectionError("no answer")
                    head += piece
                self.first = time.perf_counter() - began
                self.status = head.split(b" ", 2)[1].decode()
                top, _, rest = head.partition(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in top.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                self.received = len(rest)
                self._body(sock, length, began)
        except (OSError, StopIteration) as error:
            self.status = f"{self.status}, then {type(error).__name__}"

    def _body(self, sock: socket.socket, length: int, began: float) -> None:
        order = self.order
        buffer = memoryview(bytearray(PIECE if not self.context else 1 << 20))
        flags = 0 if self.context else socket.MSG_TRUNC | (0 if order.rate else socket.MSG_WAITALL)
        while self.received < length:
            most = min(len(buffer), length - self.received)
            if order.rate:
                time.sleep(0.1)
                most = min(most, order.rate // 10)
            count = sock.recv_into(buffer, most, flags)
            if not count:
                raise ConnectionError("ended early")
            self.received += count
            if order.seconds and time.perf_counter() - began > order.seconds:
                return


def pull(order: Order) -> Result:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    context = ssl.create_default_context(cafile=order.ca) if order.ca else None
    clients = [Client(order, context) for _ in range(order.clients)]
    go = threading.Barrier(order.clients + 1)
    threads = [threading.Thread(target=client.pull, args=(go,)) for client in clients]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    go.wait()
    for thread in threads:
        thread.join()
    statuses: dict[str, int] = {}
    for client in clients:
        statuses[client.status] = statuses.get(client.status, 0) + 1
    return Result(
        time.perf_counter() - began,
        sum(client.received for client in clients),
        statuses,
        max(client.first for client in clients),
    )


def main() -> None:
    order: dict[str, Any] = json.loads(sys.argv[1])
    print(json.dumps(asdict(pull(Order(**order)))))  # noqa: T201


if __name__ == "__main__":
    main()
