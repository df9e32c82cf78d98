"""A little site for the worker under test: pages, a file, a stream, a form, and what of the file was taken."""

import os
import threading
import time
from collections.abc import Iterator

FILE = os.environ.get("TEST_FILE", "")
taken: list[str] = []
gate = threading.Event()


class Served:
    def __init__(self, name: str, start: int = 0) -> None:
        self.name = name
        self.file = open(FILE, "rb")  # noqa: SIM115 - close() is the server's
        self.file.seek(start)

    def fileno(self) -> int:
        return self.file.fileno()

    def read(self, size: int = -1) -> bytes:
        return self.file.read(size)

    def all_was_sent(self) -> None:
        taken.append(self.name)

    def close(self) -> None:
        self.file.close()


def stream(size: int, name: str) -> Iterator[bytes]:
    piece = b"s" * 65536
    for _ in range(size // len(piece)):
        yield piece
    taken.append(name)


def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path.startswith("/v2/"):
        size = os.path.getsize(FILE)
        start = int(environ.get("HTTP_RANGE", "bytes=0-")[6:-1])
        status = "206 Partial Content" if start else "200 OK"
        start_response(status, [("Content-Length", str(size - start))])
        return environ["wsgi.file_wrapper"](Served(query, start))
    if path.startswith("/bundles/"):
        start_response("200 OK", [("Content-Length", str(64 << 20))])
        return stream(64 << 20, query)
    if path == "/broken":
        start_response("200 OK", [("Content-Length", "100000")])
        return broken()
    if path == "/large":
        start_response("200 OK", [("Content-Length", str(4 << 20))])
        return [b"l" * (4 << 20)]
    if path == "/slow":
        time.sleep(0.2)
    body = environ["wsgi.input"].read()
    answers = {
        "/taken": " ".join(taken),
        "/scheme": environ["wsgi.url_scheme"],
        "/echo": f"{len(body)} {body[:20].decode('latin-1')}",
        "/thread": threading.current_thread().name,
    }
    text = answers.get(path, "a page").encode()
    start_response("200 OK", [("Content-Length", str(len(text))), ("Content-Type", "text/plain")])
    return [text]


def broken() -> Iterator[bytes]:
    yield b"some of it"
    raise ValueError("the rest is damaged")
