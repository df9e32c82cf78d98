"""One blob's transfer: streamed into a sink, resumed by Range, never a byte more than its descriptor says."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from requests import Response

from mirrors.registry.errors import RegistryError, clean
from mirrors.registry.exchange import Exchange, content_length
from mirrors.registry.manifests import Descriptor


class Sink(Protocol):
    """Where bytes go. `offset` counts those it holds, all of them hashed already."""

    @property
    def offset(self) -> int: ...

    def write(self, chunk: bytes, /) -> object: ...


class BlobTransfer:
    """The attempts at one blob. `request` sends a GET for it, through the registry's own URL each time: the signed link
    of a redirect is good for minutes only."""

    def __init__(
        self,
        exchange: Exchange,
        descriptor: Descriptor,
        sink: Sink,
        request: Callable[[Mapping[str, str]], Response],
        operation: str = "GET blob",
    ) -> None:
        self._exchange = exchange
        self._descriptor = descriptor
        self._sink = sink
        self._request = request
        self._operation = operation
        self._takes_ranges = True

    def is_complete(self) -> bool:
        return self._sink.offset >= self._descriptor.size

    def attempt(self) -> None:
        """Fetch what is missing. A RegistryError that is temporary leaves the sink where it got to."""
        offset, size = self._sink.offset, self._descriptor.size
        if self.is_complete():
            return
        headers: dict[str, str] = {}
        if offset and self._takes_ranges:
            # Closed: go-containerregistry's registry answers 416 to an open range.
            headers["Range"] = f"bytes={offset}-{size - 1}"
        response = self._request(headers)
        try:
            skip = self._accept(response, offset, bool(headers))
            self._copy(response, skip)
        finally:
            response.close()

    def _accept(self, response: Response, offset: int, ranged: bool) -> int:
        """Bytes to read past before what is new begins; RegistryError if the answer is not the blob asked for."""
        exchange, size = self._exchange, self._descriptor.size
        status = response.status_code
        if status == 206 and ranged:
            expected = f"bytes {offset}-{size - 1}/"
            stated = re.sub(r"\s+", " ", response.headers.get("Content-Range", "")[:100].strip())
            if stated not in (f"{expected}{size}", f"{expected}*"):
                self._takes_ranges = False
                raise exchange.error(
                    "malformed",
                    f"{exchange.who()} sent the part {clean(stated, 60)!r} of {expected[:-1]!r}",
                    self._operation,
                    "All of it is asked for again.",
                    temporary=True,
                )
            length, skip = size - offset, 0
        elif status == 200:
            length, skip = size, offset
        elif status == 416 and ranged:
            self._takes_ranges = False
            exchange.drain(response)
            what = f"{exchange.who()} refused to send the part that is missing"
            raise exchange.error(
                "truncated", what, self._operation, "All of it is asked for again.", temporary=True, status=416
            )
        else:
            raise exchange.refusal(response, self._operation)
        exchange.require_plain(response, self._operation)
        stated_length = content_length(response)
        if stated_length is not None and stated_length != length:
            raise self._wrong_size(f"{stated_length} bytes where {length} were expected")
        return skip

    def _copy(self, response: Response, skip: int) -> None:
        """Write the body into the sink, without its first `skip` bytes."""
        exchange, size = self._exchange, self._descriptor.size
        to_come = size - self._sink.offset + skip
        wrote, elsewhere, finished = 0, 0.0, False
        try:
            for chunk in exchange.stream(response, self._operation):
                began = time.monotonic()
                exchange.received(len(chunk))
                if len(chunk) > to_come:
                    raise self._wrong_size(f"more than the {size} bytes stated before")
                to_come -= len(chunk)
                new = chunk if not skip else chunk[skip:]
                skip -= min(skip, len(chunk))
                if new:
                    self._sink.write(new)
                    wrote += len(new)
                elsewhere += time.monotonic() - began
                if not to_come:
                    break
            finished = not to_come
        finally:
            if not finished:
                exchange.moved(wrote, elsewhere)
        if to_come:
            what = f"{exchange.who()} broke off {to_come} bytes before the end"
            raise exchange.error(
                "truncated", what, self._operation, "What arrived is kept; it goes on from there.", temporary=True
            )
        if content_length(response) is None and exchange.has_more(response):
            raise self._wrong_size(f"more than the {size} bytes stated before")

    def _wrong_size(self, said: str) -> RegistryError:
        return self._exchange.error(
            "size",
            f"{self._exchange.who()} offers {said} for {self._descriptor.digest}",
            self._operation,
            "It was not taken. If it happens again, something between here and there changes contents.",
        )
