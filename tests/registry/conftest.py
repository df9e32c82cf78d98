"""What the registry tests share: short patience, a sink in memory, a listener that keeps what it hears."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from mirrors.registry.client import RegistryClient
from mirrors.registry.manifests import Descriptor
from mirrors.registry.pushing import PushClient
from mirrors.registry.references import Reference
from mirrors.registry.transport import Connection, Listener, Timeouts
from mirrors.stopping import StopSignal
from tests.fakes.push_registry import PushRegistry
from tests.fakes.registry import FakeRegistry

LAYER_TYPE = "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip"
# Quick to try again, but patient enough for a busy machine; SHORT is for the tests that wait for a limit.
QUICK = Timeouts(connect=10, read=10, source_seconds=60, longest_retry_after=1.2, backoff=0.01)
SHORT = replace(QUICK, connect=1, read=0.2, slow_seconds=0.3, source_seconds=5)


class MemorySink:
    """A sink as a blob store's partial is one, for blobs and for URLs."""

    def __init__(self, held: bytes = b"") -> None:
        self.data = bytearray(held)
        self.restarts = 0

    @property
    def offset(self) -> int:
        return len(self.data)

    def write(self, chunk: bytes) -> None:
        self.data += chunk

    def restart(self) -> None:
        self.restarts += 1
        self.data.clear()


class Recorder(Listener):
    """Keeps everything it is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, int]] = []
        self.retries: list[tuple[str, int, float]] = []
        self.byte_count = 0
        self.clocks: list[tuple[str, datetime]] = []

    def request(self, method: str, url: str, status: int, seconds: float) -> None:
        self.requests.append((method, url, status))

    def retry(self, reason: str, attempt: int, wait_seconds: float) -> None:
        self.retries.append((reason, attempt, wait_seconds))

    def received(self, byte_count: int) -> None:
        self.byte_count += byte_count

    def clock(self, registry: str, date: datetime) -> None:
        self.clocks.append((registry, date))


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def stop() -> StopSignal:
    return StopSignal()


@pytest.fixture
def heard() -> Recorder:
    return Recorder()


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def other() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def client_for(stop: StopSignal, heard: Recorder) -> Callable[..., RegistryClient]:
    """client_for(fake_or_host, timeouts=…, memory=…, **connection) -> RegistryClient (insecure unless said)"""

    def make(
        registry: FakeRegistry | str,
        *,
        timeouts: Timeouts = QUICK,
        memory: dict[str, Any] | None = None,
        **connection: Any,
    ) -> RegistryClient:
        host = registry if isinstance(registry, str) else registry.host
        connection.setdefault("insecure", True)
        return RegistryClient(
            host, Connection(**connection), stop=stop, listener=heard, timeouts=timeouts, memory=memory
        )

    return make


@pytest.fixture
def pusher(stop: StopSignal, heard: Recorder) -> Iterator[Callable[..., PushClient]]:
    """pusher(fake_or_host, timeouts=…, memory=…, chunk_bytes=…, **connection) -> PushClient (insecure unless said)"""
    made: list[PushClient] = []

    def make(
        registry: PushRegistry | str,
        *,
        timeouts: Timeouts = QUICK,
        memory: dict[str, Any] | None = None,
        chunk_bytes: int = 100_000,
        **connection: Any,
    ) -> PushClient:
        host = registry if isinstance(registry, str) else registry.host
        connection.setdefault("insecure", True)
        client = PushClient(
            host,
            Connection(**connection),
            stop=stop,
            listener=heard,
            timeouts=timeouts,
            memory=memory,
            chunk_bytes=chunk_bytes,
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


def reference(fake: FakeRegistry | str, repository: str = "aquasec/trivy-db", tag: str = "2") -> Reference:
    host = fake if isinstance(fake, str) else fake.host
    return Reference.parse(f"{host}/{repository}{'@' if tag.startswith('sha256:') else ':'}{tag}")


def put_layer(fake: FakeRegistry, data: bytes) -> Descriptor:
    return Descriptor(LAYER_TYPE, fake.put_blob(data), len(data))


def some_bytes(count: int, seed: int = 0) -> bytes:
    """Bytes that differ everywhere, the same each time."""
    blocks = (hashlib.sha256(f"{seed}/{index}".encode()).digest() for index in range(count // 32 + 1))
    return b"".join(blocks)[:count]
