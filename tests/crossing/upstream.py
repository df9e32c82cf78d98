"""What is out in the internet: the demo's upstream on loopback, which publishes when the test says so."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from mirrors.demo.publishing import Plan, Publisher, utc_now
from mirrors.demo.upstream import Server

# A new build of the vulnerability database every time, of the rest never again.
PLAN = Plan(database_bytes=2_500_000, java_bytes=400_000, java_every=1000, other_every=1000)


class Upstream:
    def __init__(self, publisher: Publisher, address: str) -> None:
        self._publisher, self.address = publisher, address

    def publish(self) -> list[str]:
        """A new build of what is due; the names."""
        return self._publisher.tick(utc_now())


@contextmanager
def upstream(folder: Path) -> Iterator[Upstream]:
    publisher = Publisher(folder, PLAN)
    server = Server(("127.0.0.1", 0), publisher, 0)
    publisher.start(utc_now() - timedelta(minutes=2))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Upstream(publisher, server.url.removeprefix("http://"))
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
