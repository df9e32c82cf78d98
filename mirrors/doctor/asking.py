"""One bounded request at a time, as the doctor's patience allows: nothing is tried twice."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from requests import Response

from mirrors.doctor.rules import error_codes
from mirrors.registry.errors import Hop
from mirrors.registry.exchange import Exchange
from mirrors.registry.transport import Connection, Timeouts, user_agent
from mirrors.stopping import StopSignal

T = TypeVar("T")
PATIENCE = Timeouts(connect=5, read=8, attempts=1, source_seconds=25, longest_retry_after=0)
# What it calls itself, so that nobody takes it for a scanner.
DOCTOR = "airgap-doctor"
BODY_LIMIT = 4 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """`hosts` are those met on the way, the one asked first; `codes` of a registry's JSON error."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    hops: tuple[Hop, ...]
    seconds: float

    @property
    def codes(self) -> tuple[str, ...]:
        return error_codes(self.body) if self.status >= 300 else ()

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(hop.host for hop in self.hops)


class Asker:
    """Asks one host, and whom it sends us to. Remembers every host that answered."""

    def __init__(self, name: str, connection: Connection, stop: StopSignal, timeouts: Timeouts = PATIENCE) -> None:
        self.exchange = Exchange(name, name, connection, stop=stop, timeouts=timeouts)
        self.exchange.session.headers["User-Agent"] = user_agent(DOCTOR)
        self.connection = connection
        self.met: list[Hop] = []

    def get(
        self,
        url: str,
        operation: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        authorization: str = "",
        limit: int = BODY_LIMIT,
    ) -> Answer:
        """The whole of a small answer, whatever its status. RegistryError where none came."""
        began = time.monotonic()

        def attempt() -> Answer:
            with self.opened(url, operation, method=method, headers=headers, authorization=authorization) as response:
                if response.status_code == 200 and method == "GET":
                    body = self.exchange.read(response, limit, operation)
                else:
                    body = self.exchange.drain(response)
                return Answer(
                    response.status_code,
                    response.headers,
                    body,
                    tuple(self.exchange.hops),
                    time.monotonic() - began,
                )

        return self.persist(attempt)

    @contextmanager
    def opened(
        self,
        url: str,
        operation: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        authorization: str = "",
    ) -> Iterator[Response]:
        """An answer whose body is still to come; inside `persist`."""
        response = self.exchange.send(method, url, operation, headers=headers or {}, authorization=authorization)
        try:
            yield response
        finally:
            response.close()

    def persist(self, attempt: Callable[[], T]) -> T:
        try:
            return self.exchange.persist(attempt)
        finally:
            self.met += self.exchange.hops

    def close(self) -> None:
        self.exchange.session.close()
