"""A connection while it waits for its client, and where such ones stand until they are late."""

import time
from collections import OrderedDict
from typing import Any

from gunicorn import http
from gunicorn.workers.gthread import TConn

from airgap.running.serving.channel import Channel
from airgap.running.serving.heads import Lane


class Connection(TConn):  # type: ignore[misc]
    """What gunicorn calls a connection, with the bytes of a request that is not complete."""

    def __init__(self, cfg: Any, channel: Channel, client: Any, server: Any) -> None:
        super().__init__(cfg, channel, client, server)
        # gunicorn would wait for data here, and wrap the socket for TLS.
        self.initialized = True
        self.parser = http.get_parser(cfg, channel, client)
        self.arrived = bytearray()
        self.searched = 0
        self.keep = False
        self.lane = Lane.PAGES
        self.is_shaken = False


class Shelf:
    """Connections that wait for their client, each for at most `seconds`; the oldest first."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until: OrderedDict[Connection, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._until

    def add(self, connection: Connection) -> None:
        self._until[connection] = time.monotonic() + self.seconds

    def remove(self, connection: Connection) -> None:
        self._until.pop(connection, None)

    def oldest(self) -> Connection | None:
        return next(iter(self._until), None)

    def late(self, now: float) -> list[Connection]:
        found = []
        for connection, until in self._until.items():
            if until > now:
                break
            found.append(connection)
        return found

    def everyone(self) -> list[Connection]:
        return list(self._until)
