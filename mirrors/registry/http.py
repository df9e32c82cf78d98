"""Plain files over HTTP (VEX archives, release files) under the rules that hold for registries."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from requests import Response

from mirrors.registry.blobs import BlobTransfer, Sink
from mirrors.registry.errors import Hop, RegistryError, redact_url
from mirrors.registry.exchange import Exchange, content_length, host_of
from mirrors.registry.manifests import Descriptor
from mirrors.registry.patience import parse_date
from mirrors.registry.transport import Connection, Listener, Timeouts
from mirrors.stopping import StopSignal

T = TypeVar("T")
_OPERATION = "GET file"


class UrlSink(Protocol):
    """Where a file goes whose digest is not known before. `restart` throws away what was written."""

    def write(self, chunk: bytes, /) -> object: ...

    def restart(self) -> object: ...


@dataclass(frozen=True)
class UrlAnswer:
    """What came. `status` 200, or 304 where the given etag still holds; `modified` is the Last-Modified."""

    status: int
    etag: str
    hops: tuple[Hop, ...]
    requests: int
    modified: datetime | None = None


def fetch_url(
    url: str,
    connection: Connection,
    sink: UrlSink,
    *,
    stop: StopSignal,
    listener: Listener | None = None,
    timeouts: Timeouts | None = None,
    limit: int,
    etag: str = "",
) -> UrlAnswer:
    """GET `url` into the sink, at most `limit` bytes; with `etag` only if it changed.

    A break starts it again from its beginning (`sink.restart`): such files are small, and often made anew on each
    request. User and password, or token, go to the URL's own scheme, host and port. RegistryError, or Stopped.
    """
    exchange = exchange_for(url, connection, stop, listener, timeouts)
    headers = {"If-None-Match": etag} if etag else {}

    def attempt() -> UrlAnswer:
        response = exchange.send("GET", url, _OPERATION, headers=headers, authorization=authorization_of(connection))
        try:
            if response.status_code != 304 or not etag:
                _copy(exchange, response, sink, limit)
        finally:
            response.close()
        return UrlAnswer(
            status=response.status_code,
            etag=_etag(response),
            hops=tuple(exchange.hops),
            requests=exchange.requests,
            modified=parse_date(response.headers.get("Last-Modified")),
        )

    return _close_after(exchange, attempt)


def read_url(
    url: str,
    connection: Connection,
    *,
    stop: StopSignal,
    listener: Listener | None = None,
    timeouts: Timeouts | None = None,
    limit: int,
    etag: str = "",
) -> tuple[bytes, UrlAnswer]:
    """GET a document of at most `limit` bytes into memory; b"" where `etag` still holds. As `fetch_url`."""
    kept = _Kept()
    answer = fetch_url(url, connection, kept, stop=stop, listener=listener, timeouts=timeouts, limit=limit, etag=etag)
    return bytes(kept.data), answer


@dataclass(frozen=True)
class Pointer:
    """What an address that points to something newest said: `target`, where it redirects to, or a `body`."""

    target: str
    body: bytes
    hops: tuple[Hop, ...]


def read_pointer(
    url: str,
    connection: Connection,
    is_enough: Callable[[str], bool],
    *,
    stop: StopSignal,
    listener: Listener | None = None,
    timeouts: Timeouts | None = None,
    limit: int,
) -> Pointer:
    """GET `url`. A redirect to an address that `is_enough` answers by itself and is not followed, others are."""
    exchange = exchange_for(url, connection, stop, listener, timeouts)
    targets: list[str] = []

    def judged(target: str) -> bool:
        if not is_enough(target):
            return False
        targets.append(target)
        return True

    def attempt() -> Pointer:
        targets.clear()
        response = exchange.send(
            "GET", url, _OPERATION, headers={}, authorization=authorization_of(connection), is_enough=judged
        )
        try:
            if targets:
                return Pointer(targets[0], b"", tuple(exchange.hops))
            if response.status_code != 200:
                raise exchange.refusal(response, _OPERATION)
            return Pointer("", exchange.read(response, limit, _OPERATION), tuple(exchange.hops))
        finally:
            response.close()

    return _close_after(exchange, attempt)


def size_of(
    url: str,
    connection: Connection,
    *,
    stop: StopSignal,
    listener: Listener | None = None,
    timeouts: Timeouts | None = None,
) -> int | None:
    """Bytes of the file at `url`, None if it is not said. A GET of the first one, for signed links often allow no HEAD.

    RegistryError, or Stopped.
    """
    exchange = exchange_for(url, connection, stop, listener, timeouts)

    def attempt() -> int | None:
        headers = {"Range": "bytes=0-0"}
        response = exchange.send("GET", url, _OPERATION, headers=headers, authorization=authorization_of(connection))
        try:
            if response.status_code not in (200, 206):
                raise exchange.refusal(response, _OPERATION)
            if response.status_code == 200:
                return content_length(response)
            match = re.fullmatch(r"bytes 0-0/([0-9]{1,18})", response.headers.get("Content-Range", "")[:100].strip())
            return int(match[1]) if match else None
        finally:
            response.close()

    return _close_after(exchange, attempt)


def fetch_file(
    url: str,
    connection: Connection,
    descriptor: Descriptor,
    sink: Sink,
    *,
    stop: StopSignal,
    listener: Listener | None = None,
    timeouts: Timeouts | None = None,
) -> None:
    """GET a file of known size and digest into the sink, from where it stands; a break is continued, not begun again.

    The sink's owner verifies the digest. RegistryError, or Stopped.
    """
    exchange = exchange_for(url, connection, stop, listener, timeouts)

    def request(headers: Mapping[str, str]) -> Response:
        return exchange.send("GET", url, _OPERATION, headers=headers, authorization=authorization_of(connection))

    transfer = BlobTransfer(exchange, descriptor, sink, request, _OPERATION)
    try:
        if not transfer.is_complete():
            exchange.persist(transfer.attempt)
    finally:
        exchange.session.close()


class _Kept:
    """A sink in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, chunk: bytes) -> None:
        self.data += chunk

    def restart(self) -> None:
        self.data.clear()


def probe_url(
    url: str,
    connection: Connection,
    *,
    stop: StopSignal,
    listener: Listener | None = None,
    timeouts: Timeouts | None = None,
) -> list[Hop]:
    """Fetch one byte and name every host on the way. A RegistryError has those that did answer in its `hops`."""
    exchange = exchange_for(url, connection, stop, listener, timeouts)

    def attempt() -> list[Hop]:
        headers = {"Range": "bytes=0-0"}
        response = exchange.send("GET", url, _OPERATION, headers=headers, authorization=authorization_of(connection))
        if response.status_code not in (200, 206):
            raise exchange.refusal(response, _OPERATION)
        exchange.first_byte(response, _OPERATION)
        response.close()
        return list(exchange.hops)

    return _close_after(exchange, attempt)


def _close_after(exchange: Exchange, attempt: Callable[[], T]) -> T:
    try:
        return exchange.persist(attempt)
    finally:
        exchange.session.close()


def _copy(exchange: Exchange, response: Response, sink: UrlSink, limit: int) -> None:
    """The body into the emptied sink, refused as soon as it is more than allowed."""
    if response.status_code != 200:
        raise exchange.refusal(response, _OPERATION)
    exchange.require_plain(response, _OPERATION)
    stated = content_length(response)
    if stated is not None and stated > limit:
        raise exchange.too_large(limit, _OPERATION)
    sink.restart()
    count = 0
    for chunk in exchange.stream(response, _OPERATION):
        count += len(chunk)
        exchange.received(len(chunk))
        if count > limit:
            raise exchange.too_large(limit, _OPERATION)
        sink.write(chunk)
    if stated is not None and count != stated:
        raise exchange.error("truncated", f"{exchange.who()} broke off in the middle", _OPERATION, temporary=True)


def exchange_for(
    url: str, connection: Connection, stop: StopSignal, listener: Listener | None, timeouts: Timeouts | None
) -> Exchange:
    try:
        parts = urlsplit(url)
        host = host_of(parts)
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or not url.isprintable() or " " in url:
        raise _refused(url, host, f"{redact_url(url)!r} is no web address", "Give one that starts with https://.")
    if "@" in parts.netloc:
        advice = "Give user and password of this source apart from its address, where they are kept encrypted."
        raise _refused(url, host, f"The address at {host} has a login in it", advice)
    if parts.scheme == "http" and not connection.insecure:
        advice = "Use https, or allow plain HTTP for this source with --insecure."
        raise _refused(url, host, f"{redact_url(url)} is plain HTTP", advice)
    return Exchange(host, host, connection, stop=stop, listener=listener, timeouts=timeouts)


def _etag(response: Response) -> str:
    """What to ask with next time; "" for one that is not fit to be kept and sent back."""
    etag: str = response.headers.get("ETag", "")
    return etag if len(etag) <= 200 and etag.isascii() and etag.isprintable() else ""


def _refused(url: str, host: str, what: str, advice: str) -> RegistryError:
    return RegistryError("unsupported", what, registry=host or redact_url(url), operation=_OPERATION, advice=advice)


def authorization_of(connection: Connection) -> str:
    """Sent at once: archives behind a login rarely ask for it (go-getter does not wait for that either)."""
    return f"Bearer {connection.token}" if connection.token else connection.basic()
