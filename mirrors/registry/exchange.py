"""One request after another to one source: sent, bounded, redirected, retried, and told in one kind of error.

Knows HTTP and our patience; knows nothing of registries. RegistryClient and fetch_url both stand on it.
"""

import ipaddress
import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from http.client import HTTPException
from typing import TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from requests import RequestException, Response
from urllib3.exceptions import HTTPError

from mirrors.registry.bodies import Body, Outgoing
from mirrors.registry.certificates import read_certificate
from mirrors.registry.errors import Hop, RegistryError, answered, clean, redact_url
from mirrors.registry.faults import explain
from mirrors.registry.patience import Gauge, Patience, parse_date, parse_retry_after
from mirrors.registry.transport import Connection, Listener, Timeouts, new_session, proxy_for, proxy_label
from mirrors.registry.wire import Peer
from mirrors.stopping import Stopped, StopSignal

T = TypeVar("T")

# Every body that is not streamed has a ceiling (ggcr: transport/error.go, bearer.go).
ERROR_LIMIT = 64 * 1024
_ERROR_SECONDS = 5.0
CHUNK = 256 * 1024
_RECORD = 16 * 1024
_GATHER_SECONDS = 0.05
MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Those that repeat the request as it was; the others would make a GET of it.
_FAITHFUL = frozenset({307, 308})
_NETWORK_ERRORS = (RequestException, HTTPError, HTTPException, OSError, ValueError)
_PORTS = {"https": 443, "http": 80}


class Exchange:
    """Requests to one source. `name` is how the operator knows it, `home` the host[:port] that answers for it.

    Not thread-safe: one for each run and source. `requests`, `bytes_downloaded` and `bytes_sent` (of bodies, what
    went twice counted twice) count from its beginning.
    """

    def __init__(
        self,
        name: str,
        home: str,
        connection: Connection,
        *,
        stop: StopSignal,
        listener: Listener | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.name = name
        self.home = home
        self.connection = connection
        self.stop = stop
        self.listener = listener or Listener()
        self.timeouts = timeouts or Timeouts()
        self.session = new_session(connection, stop=stop)
        self.bytes_downloaded = self.bytes_sent = 0
        self.hops: list[Hop] = []
        # `Server` and the names of all headers (lower case) of the source's last answer: they tell products apart.
        self.answered_with: tuple[str, tuple[str, ...]] = ("", ())
        self._patience = Patience(self.timeouts)
        self._wire = self.session.wire
        self._host = home
        self._proxy = ""

    @property
    def requests(self) -> int:
        return self._wire.requests

    # Patience

    def persist(self, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it works or patience ends. Raises its last RegistryError, or Stopped."""
        self._patience = patience = Patience(self.timeouts)
        while True:
            self.stop.check()
            self.hops = []
            try:
                with self.stop.attach(self._wire.abort):
                    return attempt()
            except RegistryError as error:
                self.stop.check()
                error.hops = tuple(self.hops)
                pause = patience.pause_after(error)
                if pause is None:
                    raise
                self.listener.retry(f"{error.what}.", patience.failures, pause)
            if self.stop.wait(pause):
                self.stop.check()

    def moved(self, byte_count: int, seconds_elsewhere: float) -> None:
        """Tell patience of an attempt that broke off after so many bytes that will not have to come again."""
        self._patience.moved(byte_count, seconds_elsewhere)

    def went_well(self) -> None:
        """Something was done for good, however long the other end took over it."""
        self._patience.still_good()

    # Requests

    def send(
        self,
        method: str,
        url: str,
        operation: str,
        *,
        headers: Mapping[str, str],
        authorization: str = "",
        body: Body | None = None,
        follow: bool = True,
        patient: bool = False,
        is_enough: Callable[[str], bool] | None = None,
    ) -> Response:
        """The answer, whatever its status, its body unread. Redirects are followed unless `follow` is off: of GET and
        HEAD all, of others those that repeat the request (307, 308).

        `authorization` goes to `url`'s own scheme, host and port and nowhere else. `patient` waits for the answer as
        long as after a body: the other end has work to do. A redirect to an address that `is_enough` is itself the
        answer and is not followed.
        """
        seen = {url}
        for _ in range(MOST_REDIRECTS + 1):
            response = self._once(method, url, operation, headers, authorization, body, patient or body is not None)
            location = response.headers.get("Location")
            faithful = _REDIRECTS if method in ("GET", "HEAD") else _FAITHFUL
            if not follow or response.status_code not in faithful or not location:
                return response
            self.drain(response)
            target = self.target(url, location, operation)
            if is_enough is not None and is_enough(target):
                return response
            if target in seen:
                raise self.error("redirect", f"{self.who()} redirects in a circle", operation, "Check its address.")
            seen.add(target)
            if _origin(target) != _origin(url):
                authorization = ""
            url = target
        raise self.error(
            "redirect", f"{self.who()} redirects more than {MOST_REDIRECTS} times", operation, "Check its address."
        )

    def _once(
        self,
        method: str,
        url: str,
        operation: str,
        headers: Mapping[str, str],
        authorization: str,
        body: Body | None,
        patient: bool,
    ) -> Response:
        self.stop.check()
        parts = urlsplit(url)
        self._host = self.home if self.is_home(parts) else host_of(parts)
        proxy = proxy_for(url, self.connection)
        self._proxy = proxy_label(proxy)
        sent_before, began = self._wire.requests, time.monotonic()
        all_headers = dict(headers) | ({"Authorization": authorization} if authorization else {})
        left = max(self._patience.left(), 0.05)
        read = self.timeouts.store if patient else min(self.timeouts.read, left)
        self._wire.give(max(left, read))
        try:
            self._check_proxy(proxy, operation)
            response = self.session.request(
                method,
                url,
                headers=all_headers,
                data=self._outgoing(body, operation) if body is not None and body.size else None,
                stream=True,
                allow_redirects=False,
                timeout=(min(self.timeouts.connect, left), read),
                proxies={parts.scheme: proxy} if proxy else {},
            )
        except (*_NETWORK_ERRORS, RegistryError) as error:
            if self._wire.requests > sent_before:
                self.listener.request(method, redact_url(url), 0, time.monotonic() - began)
            raise self._failed(error, operation) from error
        self.listener.request(method, redact_url(url), response.status_code, time.monotonic() - began)
        self._wire.phase = "body"
        self.hops.append(self._hop(parts, response))
        if self._host == self.home:
            self.answered_with = response.headers.get("Server", "")[:80], tuple(map(str.lower, response.headers))
            date = parse_date(response.headers.get("Date"))
            if date is not None:
                self.listener.clock(self.name, date)
        return response

    def _outgoing(self, body: Body, operation: str) -> Outgoing:
        return Outgoing(
            body,
            self._wire,
            self.timeouts,
            self._patience,
            self.stop,
            self._sent,
            lambda: self._slow(operation, "takes", "It is tried again from where it got to."),
        )

    def _sent(self, byte_count: int) -> None:
        self.bytes_sent += byte_count
        self.listener.sent(byte_count)

    def is_home(self, parts: SplitResult) -> bool:
        """Whether a URL leads to the source itself, its port written out or not."""
        return host_of(parts) == host_of(urlsplit(f"{parts.scheme}://{self.home}"))

    def _check_proxy(self, proxy: str, operation: str) -> None:
        if proxy and (not proxy.lower().startswith("http://") or self._proxy == "?"):
            raise self.error(
                "proxy",
                f"The proxy {self._proxy} has no usable address that starts with http://",
                operation,
                "Only HTTP proxies can be used; give its address as http://host:port.",
            )

    def target(self, url: str, location: str, operation: str) -> str:
        """Where a redirect or an upload's Location leads. RegistryError (`redirect`) if it may not be followed."""
        try:
            parts = urlsplit(urljoin(url, location[:8192]))
            host, scheme = parts.hostname or "", parts.scheme
            netloc = host_of(parts)
        except ValueError:
            host = scheme = netloc = ""
        shown = redact_url(location)
        if scheme not in _PORTS or not host:
            raise self.error("redirect", f"{self.who()} redirects to {shown!r}, which is no web address", operation)
        start = urlsplit(url)
        if scheme == "http" and start.scheme == "https" and not self.connection.insecure:
            raise self.error(
                "redirect",
                f"{self.who()} redirects from https to http ({shown})",
                operation,
                "That is refused; allow it for this source with --insecure if it must be.",
            )
        if is_inner(host) and not is_inner(start.hostname or "") and not self.connection.insecure:
            # As go-containerregistry does (fetcher.go), so that a source cannot make us call into our own network.
            raise self.error(
                "redirect",
                f"{self.who()} redirects to the private address {netloc}",
                operation,
                "That is refused; allow it for this source with --insecure if it must be.",
            )
        # Without a user in it: requests would send that as a login.
        return urlunsplit((scheme, netloc, parts.path or "/", parts.query, ""))

    # Bodies

    def stream(self, response: Response, operation: str) -> Iterator[bytes]:
        """The body as it arrives, undecoded. RegistryError when it stalls, crawls or breaks, after what came before.

        An early end of a body without Content-Length is not seen here.
        """
        gauge = Gauge(self.timeouts)
        limits, patience = self.timeouts, self._patience
        failure: Exception | None = None
        chunk = b""
        while True:
            self.stop.check()
            left = patience.left()
            if left <= 0:
                raise self._slow(operation)
            self._wire.give(left)
            self._wire.until(limits.read)
            began = time.monotonic()
            chunk, failure = self._gather(response, began)
            is_well = gauge.add(len(chunk), time.monotonic() - began)
            if chunk:
                yield chunk
            if failure is not None:
                raise self._failed(failure, operation) from failure
            if not chunk:
                self.stop.check()
                return
            if is_well:
                patience.still_good()
            elif gauge.is_too_slow():
                raise self._slow(operation)

    def _gather(self, response: Response, began: float) -> tuple[bytes, Exception | None]:
        """Bytes for one chunk, and what broke while they came.

        One `recv` a call, so that a trickle is noticed. TLS gives 16 KiB at a time, which are put together as long as
        more is there already: what has arrived never waits for what has not.
        """
        pieces: list[bytes] = []
        room = CHUNK
        try:
            while room > 0:
                piece = response.raw.read1(room, decode_content=False)
                if not piece:
                    break
                pieces.append(piece)
                room -= len(piece)
                if room < _RECORD or time.monotonic() - began > _GATHER_SECONDS or not self._wire.has_bytes():
                    break
        except _NETWORK_ERRORS as error:
            return b"".join(pieces), error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), None

    def first_byte(self, response: Response, operation: str) -> None:
        """Wait for the body to begin."""
        for _ in self.stream(response, operation):
            return
        raise self.error("truncated", f"{self.who()} broke off in the middle", operation, temporary=True)

    def has_more(self, response: Response) -> bool:
        """Whether bytes follow where the body should have ended. A server that dawdles over its end is let be."""
        self._wire.until(min(1.0, self.timeouts.read))
        try:
            return bool(response.raw.read1(1, decode_content=False))
        except _NETWORK_ERRORS:
            self.stop.check()
            return False

    def received(self, byte_count: int) -> None:
        """Count bytes of a blob or archive."""
        self.bytes_downloaded += byte_count
        self.listener.received(byte_count)

    def read(self, response: Response, limit: int, operation: str) -> bytes:
        """The whole of a small body. RegistryError (`too-large`) beyond `limit` bytes, however it is sent."""
        self.require_plain(response, operation)
        stated = content_length(response)
        if stated is not None and stated > limit:
            raise self.too_large(limit, operation)
        body = bytearray()
        for chunk in self.stream(response, operation):
            body += chunk
            if len(body) > limit:
                response.close()
                raise self.too_large(limit, operation)
        if stated is not None and len(body) != stated:
            raise self.error("truncated", f"{self.who()} broke off in the middle", operation, temporary=True)
        return bytes(body)

    def drain(self, response: Response) -> bytes:
        """The body of an answer that is no success, if it is small and comes soon; b"" otherwise. Ends the answer.

        Read to its end, the connection can be used again.
        """
        self._wire.until(min(_ERROR_SECONDS, self.timeouts.read))
        body = b""
        try:
            body = response.raw.read(ERROR_LIMIT + 1, decode_content=False) or b""
        except _NETWORK_ERRORS:
            self.stop.check()
        response.close()
        return body if len(body) <= ERROR_LIMIT else b""

    def require_plain(self, response: Response, operation: str) -> None:
        """RegistryError for a compressed body: digests and sizes are of the bytes on the wire."""
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            raise self.error(
                "malformed",
                f"{self.who()} sent the body with Content-Encoding {clean(encoding, 40)!r}, which was not asked for",
                operation,
                "Look for a proxy in between that compresses.",
            )

    # Errors

    def who(self) -> str:
        """The subject of a sentence: the source, or the other host that failed on its behalf."""
        if self._host in ("", self.home):
            return self.name
        return f"{self._host} (where {self.name} sent us)"

    def error(
        self,
        code: str,
        what: str,
        operation: str,
        advice: str = "",
        *,
        temporary: bool = False,
        status: int | None = None,
    ) -> RegistryError:
        return RegistryError(
            code,
            f"{self._hide(what)} ({operation})",
            registry=self.name,
            host=self._host,
            operation=operation,
            status=status,
            temporary=temporary,
            advice=advice,
        )

    def refusal(self, response: Response, operation: str) -> RegistryError:
        """The error for an answer whose status is no success, with the server's own words from its body."""
        detail = self._hide(self._own_words(response))
        now = parse_date(response.headers.get("Date")) or datetime.now(UTC)
        return answered(
            registry=self.name,
            who=self.who(),
            host=self._host,
            operation=operation,
            status=response.status_code,
            detail=detail,
            retry_after=parse_retry_after(response.headers.get("Retry-After"), now),
        )

    def _own_words(self, response: Response) -> str:
        """`CODE: message` of the registry's JSON errors (distribution-spec), bounded; "" where there are none.

        A `detail` that is text comes third: GitLab names there the media type that it does not take.
        """
        body = self.drain(response)
        try:
            errors = json.loads(body).get("errors", [])[:3]
            said = [
                (
                    clean(str(one.get("code") or ""), 60),
                    clean(str(one.get("message") or ""), 120),
                    clean(one["detail"], 120) if isinstance(one.get("detail"), str) else "",
                )
                for one in errors
            ]
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
            return ""
        return clean("; ".join(": ".join(part for part in parts if part) for parts in said), 250)

    def _failed(self, error: BaseException, operation: str) -> RegistryError:
        if isinstance(error, RegistryError):
            return error
        if self.stop.is_set():
            raise Stopped(self.stop.reason) from None
        return explain(
            error,
            phase=self._wire.phase,
            proxy=self._proxy,
            registry=self.name,
            who=self.who(),
            host=self._host,
            operation=operation,
        )

    def _slow(
        self, operation: str, does: str = "sends", advice: str = "What arrived is kept; it goes on from there."
    ) -> RegistryError:
        minimum = int(self.timeouts.slow_bytes_per_second)
        what = f"{self.who()} {does} less than {minimum} bytes a second"
        return self.error("slow", what, operation, advice, temporary=True)

    def too_large(self, limit: int, operation: str) -> RegistryError:
        advice = "Check the address of this source."
        return self.error("too-large", f"{self.who()} sent more than the {limit} bytes allowed", operation, advice)

    def _hide(self, text: str) -> str:
        for secret in self.connection.secrets():
            text = text.replace(secret, "…")
        return text

    def _hop(self, parts: SplitResult, response: Response) -> Hop:
        peer: Peer | None = getattr(response.raw, "peer", None)
        issuer, not_after = read_certificate(peer.certificate if peer else b"")
        return Hop(
            host=host_of(parts),
            address=peer.address if peer else "",
            proxy=self._proxy,
            issuer=issuer,
            not_after=not_after,
            status=response.status_code,
            scheme=parts.scheme,
        )


def host_of(parts: SplitResult) -> str:
    """`host[:port]` in lower case, without a user; the port only where it is not the scheme's own."""
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    port = parts.port
    return host if port is None or port == _PORTS.get(parts.scheme) else f"{host}:{port}"


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, host_of(parts)


def is_inner(host: str) -> bool:
    """Whether a host, as written, is this machine or an address of a private network. No lookup is made."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return not (mapped or address).is_global


def content_length(response: Response) -> int | None:
    """The Content-Length, where there is one that counts."""
    text = response.headers.get("Content-Length", "")
    if response.headers.get("Transfer-Encoding") or not (text.isascii() and text.isdigit() and len(text) < 20):
        return None
    return int(text)
