"""Who is closed when the web server's patience is at an end, and who makes room. A worker with little patience."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.running.serving.conftest import Server
from tests.running.serving.test_worker import GET, wait_until


@pytest.fixture(scope="module")
def hasty(tmp_path_factory) -> Iterator[Server]:
    started = Server(
        tmp_path_factory.mktemp("hasty"), worker="tests.running.serving.impatient.Worker", AIRGAP_PULL_THREADS="2"
    )
    try:
        yield started.wait_until_ready()
    finally:
        started.stop()


def is_closed(sock: socket.socket) -> bool:
    """Whether the server has closed its end, or does while we wait."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


HALVES = {
    "silent": b"",
    "half a line": b"GET / HTT",
    "half a head": b"GET / HTTP/1.1\r\nX: y",
    "half a form": b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
    "half a long form": b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nhalf",
    "half a chunk": b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
    "kept open": GET.format("/").encode(),
}


@pytest.fixture(scope="module")
def closed(hasty) -> dict[str, bool]:
    """Who of them was closed. They come together, so that one wait is enough."""
    with ExitStack() as stack:
        asked = {name: stack.enter_context(hasty.ask(words)) for name, words in HALVES.items()}
        return {name: is_closed(sock) for name, sock in asked.items()}


@pytest.mark.parametrize("words", HALVES)
def test_who_does_not_go_on_is_closed(closed, words):
    assert closed[words]


def test_who_sends_a_byte_now_and_then_is_closed_too(hasty):
    with hasty.ask(b"GET / HTTP/1.1\r\nX: ") as asked:
        began = time.monotonic()
        try:
            while time.monotonic() - began < 8:
                asked.sendall(b"x")
                time.sleep(0.1)
            pytest.fail("still open")
        except OSError:
            pass


def test_who_takes_nothing_is_closed_and_leaves_nothing_open(hasty):
    wait_until(lambda: hasty.get("/") == "a page")
    before, said = hasty.open_files(), hasty.log.stat().st_size
    paths = ("/v2/a/blobs/b?no", "/large", "/bundles/a/download?no")
    with hasty.connect(receive=4096) as one, hasty.connect(receive=4096) as two, hasty.connect(receive=4096) as three:
        for sock, path in zip((one, two, three), paths, strict=True):
            sock.sendall(GET.format(path).encode())
        wait_until(lambda: hasty.open_files() >= before + 3)
        wait_until(lambda: hasty.open_files() <= before)
    assert "no" not in hasty.get("/taken").split()
    assert b"Traceback" not in hasty.log.read_bytes()[said:]


def test_pages_nobody_takes_are_given_up_when_they_fill_the_memory(hasty):
    before = hasty.open_files()
    readers = [hasty.connect(receive=4096) for _ in range(30)]
    for reader in readers:
        reader.sendall(GET.format("/large").encode())
    wait_until(lambda: hasty.open_files() <= before)
    assert hasty.get("/") == "a page"
    for reader in readers:
        reader.close()


def test_with_every_place_taken_the_oldest_silent_one_makes_room(hasty):
    """Sixty places here."""
    silent = [hasty.connect() for _ in range(150)]
    assert hasty.get("/") == "a page"
    assert is_closed(silent[0])
    for one in silent:
        one.close()
