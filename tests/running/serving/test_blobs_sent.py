"""send_blob under the real web server: sendfile, ranges, and what counts as taken."""

import http.client
import os
from collections.abc import Iterator

import pytest

from mirrors.blobs import BlobStore
from tests.running.serving.conftest import Server
from tests.running.serving.test_worker import GET, wait_until

DATA = os.urandom(1 << 20) * 24


@pytest.fixture(scope="module")
def blobs(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("blobs")
    started = Server(folder, "blob_site", DJANGO_SETTINGS_MODULE="tests.running.serving.blob_settings")
    started.digest = BlobStore(folder).put(DATA)
    try:
        yield started.wait_until_ready()
    finally:
        started.stop()


def ask(server: Server, name: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, f"/v2/a/blobs/{server.digest}?as={name}", headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_the_last_byte_counts_as_taken_and_nothing_else_does(blobs):
    answer, body = ask(blobs, "whole")
    assert (answer.status, body) == (200, DATA)
    answer, body = ask(blobs, "end", Range=f"bytes={1 << 20}-")
    assert (answer.status, body) == (206, DATA[1 << 20 :])
    answer, body = ask(blobs, "beginning", Range="bytes=5-1000004")
    assert (answer.status, body) == (206, DATA[5:1000005])
    assert ask(blobs, "head", "HEAD")[1] == b""
    with blobs.ask(GET.format(f"/v2/a/blobs/{blobs.digest}?as=left").encode()) as asked:
        received = 0
        while received < len(DATA) // 2:
            received += len(asked.recv(1 << 20))
    wait_until(lambda: blobs.get("/taken").split() == ["whole", "end"])


def test_a_file_removed_while_it_is_sent_arrives_whole(blobs):
    """Whoever has it open keeps it; retention need not wait for downloads."""
    store = BlobStore(blobs.folder)
    other = store.put(DATA[:-1])
    with blobs.ask(f"GET /v2/a/blobs/{other} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()) as asked:
        received = asked.recv(1000)
        store.path(other).unlink()
        while data := asked.recv(1 << 20):
            received += data
    assert received.partition(b"\r\n\r\n")[2] == DATA[:-1]
