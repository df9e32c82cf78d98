"""A stop from another thread ends every kind of waiting at once."""

import socket
import threading
import time
from collections.abc import Callable

import pytest

from mirrors.registry.client import RegistryClient
from mirrors.registry.http import fetch_url
from mirrors.registry.transport import Connection, Timeouts
from mirrors.stopping import Stopped, StopSignal
from tests.fakes.proxy import FakeProxy
from tests.fakes.registry import FakeRegistry
from tests.registry.conftest import MemorySink, put_layer, reference, some_bytes
from tests.registry.test_failures import black_hole, leads_to

Make = Callable[..., RegistryClient]
REPOSITORY = "aquasec/trivy-db"
PATIENT = Timeouts(connect=30, read=30, slow_seconds=60, source_seconds=120, backoff=30)
HTTP = {"scheme": "http"}


def stopped_at_once(stop: StopSignal, work: Callable[[], object]) -> None:
    """`work` would block for 30 s; it ends with Stopped soon after the signal (0.01 s on an idle machine)."""
    timer = threading.Timer(0.15, stop.set)
    began = time.monotonic()
    timer.start()
    with pytest.raises(Stopped):
        work()
    took = time.monotonic() - began
    timer.join()
    assert 0.1 < took < 10


def test_while_the_server_is_silent(fake: FakeRegistry, client_for: Make, stop: StopSignal) -> None:
    fake.fault(stall=True)
    client = client_for(fake, timeouts=PATIENT, memory=HTTP)
    stopped_at_once(stop, lambda: client.head_manifest(reference(fake)))


def test_while_a_tls_server_is_silent(client_for: Make, stop: StopSignal) -> None:
    with FakeRegistry(tls=True) as fake:
        fake.fault(stall=True)
        client = client_for(fake, timeouts=PATIENT, insecure=False, ca_pem=fake.ca_pem)
        stopped_at_once(stop, lambda: client.head_manifest(reference(fake)))


@pytest.mark.parametrize("tls", [False, True])
def test_in_the_middle_of_a_blob(client_for: Make, stop: StopSignal, tls: bool) -> None:
    with FakeRegistry(tls=tls) as fake:
        data = some_bytes(300_000)
        layer, sink = put_layer(fake, data), MemorySink()
        fake.fault("/blobs/", stall_after=100_000)
        client = client_for(fake, timeouts=PATIENT)
        stopped_at_once(stop, lambda: client.fetch_blob(REPOSITORY, layer, sink))
        assert sink.data == data[:100_000], "what arrived is kept"


def test_after_a_redirect(fake: FakeRegistry, other: FakeRegistry, client_for: Make, stop: StopSignal) -> None:
    fake.blob_host = other
    layer = put_layer(fake, b"hello")
    other.fault(stall=True)
    client = client_for(fake, timeouts=PATIENT)
    stopped_at_once(stop, lambda: client.fetch_blob(REPOSITORY, layer, MemorySink()))


def test_while_a_close_delimited_body_is_read(fake: FakeRegistry, client_for: Make, stop: StopSignal) -> None:
    layer = put_layer(fake, some_bytes(300_000))
    fake.fault("/blobs/", close_delimited=True, stall_after=100_000)
    client = client_for(fake, timeouts=PATIENT)
    stopped_at_once(stop, lambda: client.fetch_blob(REPOSITORY, layer, MemorySink()))


def test_while_it_connects(client_for: Make, stop: StopSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    with black_hole() as address:
        leads_to(monkeypatch, address)
        client = client_for("registry.example.com", timeouts=PATIENT, insecure=False)
        stopped_at_once(stop, lambda: client.head_manifest(reference("registry.example.com")))


def test_while_a_name_is_looked_up(client_for: Make, stop: StopSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: hang.wait(5) and None)
    client = client_for("registry.example.com", timeouts=PATIENT)
    stopped_at_once(stop, lambda: client.head_manifest(reference("registry.example.com")))
    hang.set()


def test_during_the_tls_handshake(client_for: Make, stop: StopSignal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        client = client_for(host, timeouts=PATIENT, insecure=False)
        stopped_at_once(stop, lambda: client.head_manifest(reference(host)))


def test_while_a_proxy_is_silent(client_for: Make, stop: StopSignal) -> None:
    with FakeProxy() as proxy:
        proxy.stall = True
        client = client_for("registry.example.com", timeouts=PATIENT, insecure=False, proxy=proxy.url)
        stopped_at_once(stop, lambda: client.head_manifest(reference("registry.example.com")))


def test_during_a_pause_between_attempts(fake: FakeRegistry, client_for: Make, stop: StopSignal) -> None:
    fake.fault(status=503)
    client = client_for(fake, timeouts=PATIENT, memory=HTTP)
    stopped_at_once(stop, lambda: client.head_manifest(reference(fake)))


def test_while_retry_after_is_waited_out(fake: FakeRegistry, client_for: Make, stop: StopSignal) -> None:
    fake.fault(status=429, headers={"Retry-After": "25"})
    client = client_for(fake, timeouts=PATIENT, memory=HTTP)
    stopped_at_once(stop, lambda: client.head_manifest(reference(fake)))


def test_while_an_error_body_is_read(fake: FakeRegistry, client_for: Make, stop: StopSignal) -> None:
    fake.fault("/manifests/", method="GET", status=404, body=b"abcdef", stall_after=3)
    client = client_for(fake, timeouts=PATIENT, memory=HTTP)
    stopped_at_once(stop, lambda: client.fetch_manifest(reference(fake)))


def test_while_a_file_is_fetched(fake: FakeRegistry, stop: StopSignal) -> None:
    url = fake.put_file("/x", b"x" * 1000)
    fake.fault("/x", stall_after=10)
    connection = Connection(insecure=True)
    stopped_at_once(stop, lambda: fetch_url(url, connection, MemorySink(), stop=stop, limit=10**6, timeouts=PATIENT))


def test_a_stop_before_the_beginning_sends_nothing(fake: FakeRegistry, client_for: Make, stop: StopSignal) -> None:
    stop.set("told to")
    with pytest.raises(Stopped, match="told to"):
        client_for(fake).head_manifest(reference(fake))
    assert fake.requests == []


def test_an_endless_stream_notices_the_stop_between_chunks(
    fake: FakeRegistry, client_for: Make, stop: StopSignal
) -> None:
    layer = put_layer(fake, some_bytes(2_000_000))

    class StoppingSink(MemorySink):
        def write(self, chunk: bytes) -> None:
            super().write(chunk)
            stop.set()

    with pytest.raises(Stopped):
        client_for(fake).fetch_blob(REPOSITORY, layer, StoppingSink())
