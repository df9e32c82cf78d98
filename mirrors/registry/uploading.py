"""One blob's way into a registry: a session is opened, the bytes go in at once or in chunks, the session is closed.

distribution-spec, "Pushing blobs". What real registries do otherwise is met here:

- ECR takes the first chunk only, answers 201 to it and throws the next ones away without a word
  (aws/containers-roadmap#2831): a chunk that does not show in `Range` twice makes us send all at once.
- ghcr.io refuses chunks over 4 MiB, with 416 (ocx-sh/ocx#237); nginx refuses bodies over 1 MiB unless told otherwise,
  with 413: smaller chunks are tried, twice.
- A Location may be relative, carry a query that must come back, and name another host. There the bytes go without our
  login (GHSA-jxpm-75mh-9fp7), and not from https to http nor to an inner address (ggcr#2295).
- Registries behind a proxy that ends TLS give a Location with http. On the same host https is kept.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from requests import Response

from mirrors.digests import DigestError, Verifier, short
from mirrors.registry.conversation import Conversation
from mirrors.registry.errors import RegistryError, clean
from mirrors.registry.exchange import content_length, host_of
from mirrors.registry.manifests import Descriptor

OPERATION = "upload blob"
# Tried one after the other where a request was too large: under what ghcr.io takes, and under nginx's default.
SMALLER = (4_000_000, 1_000_000)
_MOST_SESSIONS = 4
_MOST_STANDSTILLS = 2
_RANGE = re.compile(r"\s*(?:bytes\s*=\s*)?0\s*-\s*([0-9]{1,18})\s*")
_LIMIT_WORDS = ("too large", "exceeds", "permissible limit")


@dataclass(frozen=True)
class Session:
    """An upload that a registry began: where it goes on, and the least a chunk may have."""

    url: str
    least: int = 0


class Upload:
    """The attempts at one blob. `attempt` may be called again after a temporary RegistryError, and goes on then."""

    def __init__(
        self,
        talk: Conversation,
        repository: str,
        descriptor: Descriptor,
        open_blob: Callable[[], BinaryIO],
        progress: Callable[[int], None],
        chunk_bytes: int,
        session: Session | None = None,
    ) -> None:
        self._talk = talk
        self._exchange = talk.exchange
        self._repository = repository
        self._descriptor = descriptor
        self._bytes = _Bytes(talk, descriptor, open_blob, progress)
        self._session = session
        self._opened = 1 if session else 0
        self._chunk = min(chunk_bytes, int(talk.memory.get("chunk_bytes") or chunk_bytes))
        self._whole = descriptor.size <= self._chunk or talk.memory.get("chunks") is False
        self._offset = 0
        # Whether bytes were sent whose fate is not known, and whether the closing PUT was.
        self._is_unsure = self._was_closing = False
        self._standstills = self._lost = 0

    # The way

    def attempt(self) -> None:
        """Bring the blob there, from wherever the last attempt left it."""
        began = self._offset
        try:
            if self._is_unsure and self._recall():
                return
            if self._session is None:
                self._open()
            while not self._whole and self._offset < self._descriptor.size:
                self._send_chunk()
            self._close()
        finally:
            self._exchange.moved(max(0, self._offset - began), 0.0)

    def give_up(self) -> None:
        """Cancel the session, if there is one; failures are of no consequence (distribution-spec, "Cancel")."""
        session, self._session = self._session, None
        if session is not None:
            cancel(self._talk, self._repository, session)

    def end(self) -> None:
        """Close the file."""
        self._bytes.close()

    def _open(self) -> None:
        if self._opened >= _MOST_SESSIONS:
            what = f"{self._exchange.who()} lost the upload of {short(self._descriptor.digest)} {self._opened} times"
            raise self._exchange.error("server", what, OPERATION, "Its storage, or several of it side by side, fail.")
        self._opened += 1
        self._session, self._offset = open_session(self._talk, self._repository), 0
        self._is_unsure = self._was_closing = False

    def _recall(self) -> bool:
        """Find out where a broken attempt got to. True if the blob arrived whole after all."""
        if self._was_closing and has_blob(self._talk, self._repository, self._descriptor.digest, self._descriptor.size):
            self._session = None
            return True
        self._is_unsure = self._was_closing = False
        if self._session is None:
            return False
        if self._whole:
            # Registries differ in what they keep of a broken PUT; a new session knows nothing of it.
            self.give_up()
            return False
        response = self._ask("GET", self._session.url, "GET upload")
        self._exchange.drain(response)
        held = _held(response)
        if response.status_code in (200, 202, 204) and held is not None and held <= self._descriptor.size:
            self._session = self._next(response)
            self._offset = held
        elif response.status_code == 429 or response.status_code >= 500:
            self._is_unsure = True
            raise self._exchange.refusal(response, "GET upload")
        else:
            self._session = None
        return False

    # Chunks

    def _send_chunk(self) -> None:
        assert self._session is not None  # noqa: S101  opened just before
        start = self._offset
        count = min(max(self._chunk, self._session.least), self._descriptor.size - start)
        self._bytes.choose(start, count)
        self._is_unsure = True
        response = self._ask(
            "PATCH",
            self._session.url,
            OPERATION,
            {"Content-Type": "application/octet-stream", "Content-Range": f"{start}-{start + count - 1}"},
            self._bytes,
        )
        status = response.status_code
        if status in (200, 201, 202, 204):
            self._exchange.drain(response)
            self._accept(response, start, count)
        elif status == 413 or status == 416:
            self._shrink_or_ask(response, count)
        elif status == 404:
            self._forget(response)
        elif status == 405 and not start:
            self._exchange.drain(response)
            self._send_whole()
        else:
            raise self._exchange.refusal(response, OPERATION)

    def _accept(self, response: Response, start: int, count: int) -> None:
        """Go on from where the registry says it is (it may have taken less)."""
        held = _held(response)
        reached = start + count if held is None else held
        if reached > start + count:
            what = f"{self._exchange.who()} says it holds {reached} bytes where {start + count} were sent"
            raise self._exchange.error("malformed", what, OPERATION, "Check what stands between here and there.")
        self._session = self._next(response)
        self._is_unsure = False
        if reached > start:
            self._offset, self._standstills = reached, 0
            self._exchange.went_well()
            return
        self._standstills += 1
        self._offset = reached
        if self._standstills >= _MOST_STANDSTILLS:
            self._send_whole()

    def _shrink_or_ask(self, response: Response, count: int) -> None:
        """A chunk was too large, or came out of order."""
        refusal = self._exchange.refusal(response, OPERATION)
        is_large = response.status_code == 413 or any(word in refusal.detail.lower() for word in _LIMIT_WORDS)
        if is_large:
            if not self._shrink(count):
                raise refusal
            return
        self._lost += 1
        if self._lost > _MOST_SESSIONS:
            raise refusal
        if self._recall():
            self._offset = self._descriptor.size
        elif self._session is None:
            self._open()

    def _shrink(self, count: int) -> bool:
        """Choose smaller requests; False if there is nothing left to try."""
        least = self._session.least if self._session else 0
        smaller = next((size for size in SMALLER if least <= size < count), None)
        if smaller is None:
            return False
        self._chunk = self._talk.memory["chunk_bytes"] = smaller
        self._whole = False
        self._recall()
        if self._session is None:
            self._open()
        return True

    def _send_whole(self) -> None:
        """Chunks are not taken here: begin anew, all at once. Remembered for the next run."""
        self._talk.memory["chunks"] = False
        self._whole = True
        self.give_up()
        self._open()

    def _forget(self, response: Response) -> None:
        """404: the session is gone (BLOB_UPLOAD_UNKNOWN), as when a registry was restarted. Begin anew."""
        refusal = self._exchange.refusal(response, OPERATION)
        self._session = None
        if self._opened >= _MOST_SESSIONS:
            raise refusal
        self._open()

    # The end

    def _close(self) -> None:
        """PUT what is missing and the digest."""
        assert self._session is not None  # noqa: S101  opened just before
        digest, count = self._descriptor.digest, self._descriptor.size - self._offset
        self._bytes.choose(self._offset, count)
        self._is_unsure = self._was_closing = True
        headers = {"Content-Type": "application/octet-stream"}
        body = self._bytes if count else None
        if not count:
            self._bytes.check()
        response = self._ask("PUT", with_digest(self._session.url, digest), OPERATION, headers, body)
        if response.status_code in (200, 201, 202, 204):
            self._exchange.drain(response)
            if response.status_code == 202:
                raise self._unfinished()
            self._check_digest(response)
            self._is_unsure, self._session, self._offset = False, None, self._descriptor.size
            return
        if response.status_code == 413 and self._descriptor.size > SMALLER[-1]:
            refusal = self._exchange.refusal(response, OPERATION)
            if self._talk.memory.get("chunks") is False or not self._shrink(count):
                raise refusal
            self._was_closing = False
            self.attempt()
            return
        if response.status_code == 404 and self._opened < _MOST_SESSIONS:
            self._forget(response)
            self.attempt()
            return
        raise self._exchange.refusal(response, OPERATION)

    def _unfinished(self) -> RegistryError:
        what = f"{self._exchange.who()} answered 202 (accepted) where the upload should have been finished"
        return self._exchange.error("malformed", what, OPERATION, "Nothing was pushed. Check that it is a registry.")

    def _check_digest(self, response: Response) -> None:
        stated = response.headers.get("Docker-Content-Digest", "").strip()
        if stated and stated != self._descriptor.digest:
            what = f"{self._exchange.who()} filed {self._descriptor.digest} under {clean(stated, 80)!r}"
            advice = "Something between here and there changes contents. Nothing was published."
            raise self._exchange.error("digest", what, OPERATION, advice)

    # Requests

    def _ask(
        self, method: str, url: str, operation: str, headers: dict[str, str] | None = None, body: Any = None
    ) -> Response:
        return ask_at(self._talk, method, url, self._repository, operation, headers or {}, body)

    def _next(self, response: Response) -> Session:
        assert self._session is not None  # noqa: S101  it answered
        if not response.headers.get("Location"):
            return self._session
        return Session(location_of(self._talk, response, OPERATION), self._session.least)


class _Bytes:
    """The blob's own bytes as a request's body, hashed on their way out: a file may have rotted since it was stored."""

    def __init__(
        self,
        talk: Conversation,
        descriptor: Descriptor,
        open_blob: Callable[[], BinaryIO],
        progress: Callable[[int], None],
    ) -> None:
        self._talk = talk
        self._descriptor = descriptor
        self._open_blob = open_blob
        self._progress = progress
        self._verifier = Verifier(descriptor.digest, descriptor.size)
        self._file: BinaryIO | None = None
        self._start = self._at = 0
        self.size = 0
        self._shown = 0

    def choose(self, start: int, count: int) -> None:
        self._start, self.size = start, count

    def rewind(self) -> None:
        if self._file is None:
            self._file = self._open_blob()
        self._catch_up(self._start)
        self._file.seek(self._start)
        self._at = self._start

    def read(self, count: int, /) -> bytes:
        assert self._file is not None  # noqa: S101  rewind comes first
        piece = self._file.read(min(count, self._start + self.size - self._at))
        if not piece:
            raise self._damaged("is shorter than it was")
        new = self._at + len(piece) - self._verifier.seen
        if new > 0:
            self._verifier.update(piece[-new:])
            if self._verifier.seen == self._descriptor.size:
                # Before the last bytes leave: without them the registry cannot take the blob for whole.
                self.check()
        self._at += len(piece)
        if self._at > self._shown:
            self._progress(self._at - self._shown)
            self._shown = self._at
        return piece

    def check(self) -> None:
        """RegistryError (`damaged`) unless all bytes were read and are what the digest says."""
        self._catch_up(self._descriptor.size)
        try:
            self._verifier.finish()
        except DigestError:
            raise self._damaged("no longer has that digest") from None

    def _catch_up(self, position: int) -> None:
        """Read up to where the registry already is, if it holds more than we have seen (a session of another run)."""
        while self._verifier.seen < position:
            if self._file is None:
                self._file = self._open_blob()
            self._file.seek(self._verifier.seen)
            piece = self._file.read(min(256 * 1024, position - self._verifier.seen))
            if not piece:
                raise self._damaged("is shorter than it was")
            self._verifier.update(piece)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _damaged(self, what: str) -> RegistryError:
        return self._talk.exchange.error(
            "damaged",
            f"The stored copy of {self._descriptor.digest} {what}, so it was not pushed",
            OPERATION,
            "Run the check of the store, which fetches it again.",
        )


# Sessions


def open_session(talk: Conversation, repository: str) -> Session:
    """POST: begin an upload. RegistryError where that is not allowed or not possible."""
    operation = "start upload"
    response = talk.ask("POST", f"/v2/{repository}/blobs/uploads/", repository, operation, {})
    if response.status_code not in (200, 201, 202):
        raise talk.exchange.refusal(response, operation)
    talk.exchange.drain(response)
    return session_in(talk, response, operation)


def session_in(talk: Conversation, response: Response, operation: str) -> Session:
    """The session that an answer to a POST begins."""
    text = response.headers.get("OCI-Chunk-Min-Length", "").strip()
    least = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0
    return Session(location_of(talk, response, operation), least)


def cancel(talk: Conversation, repository: str, session: Session) -> bool:
    """DELETE a session. Whether the registry says it is gone; nothing is raised but a stop."""
    try:
        response = ask_at(talk, "DELETE", session.url, repository, "cancel upload", {})
        talk.exchange.drain(response)
    except RegistryError:
        return False
    return response.status_code in (200, 202, 204, 404)


def ask_at(
    talk: Conversation,
    method: str,
    url: str,
    repository: str,
    operation: str,
    headers: dict[str, str],
    body: Any = None,
) -> Response:
    """A request to an upload's URL: with our login on the registry itself, without it anywhere else."""
    patient = method == "PUT"
    if talk.is_at_home(url):
        return talk.ask(method, url, repository, operation, headers, body=body, patient=patient)
    return talk.exchange.send(method, url, operation, headers=headers, body=body, patient=patient)


def location_of(talk: Conversation, response: Response, operation: str) -> str:
    """Where an answer says the upload goes on, as a whole URL. RegistryError (`redirect`, `malformed`)."""
    exchange = talk.exchange
    location = response.headers.get("Location", "")
    if not location:
        what = f"{exchange.who()} answered {response.status_code} without saying where to send the bytes"
        raise exchange.error("malformed", what, operation, "Check that this address is a registry.")
    url = response.url or talk.url("/")
    try:
        joined, asked = urlsplit(urljoin(url, location[:8192])), urlsplit(url)
        if joined.hostname == asked.hostname and (joined.scheme, asked.scheme) == ("http", "https"):
            return urlunsplit(("https", asked.netloc, joined.path or "/", joined.query, ""))
        if host_of(joined) == host_of(asked) and joined.scheme == asked.scheme:
            return urlunsplit((asked.scheme, asked.netloc, joined.path or "/", joined.query, ""))
    except ValueError:
        pass
    try:
        return exchange.target(url, location, operation)
    except RegistryError as error:
        raise exchange.error(
            "redirect",
            f"{exchange.who()} sends us to {clean(location.partition('?')[0], 120)!r} with the bytes, which is refused",
            operation,
            "The registry does not know its own address: a proxy in front of it must pass on Host and "
            "X-Forwarded-Proto, or it must be told (Harbor: external_url; docker-registry: http.host).",
        ) from error


def with_digest(url: str, digest: str) -> str:
    """The closing PUT's URL: what the registry gave, byte for byte, and the digest."""
    return f"{url}{'&' if urlsplit(url).query else '?'}digest={quote(digest, safe='')}"


def has_blob(talk: Conversation, repository: str, digest: str, size: int | None) -> bool:
    """HEAD: whether the registry holds the blob. A redirect means yes, unfollowed: storage may refuse HEAD."""
    operation = "HEAD blob"
    response = talk.ask("HEAD", f"/v2/{repository}/blobs/{digest}", repository, operation, {}, follow=False)
    talk.exchange.drain(response)
    status = response.status_code
    if status in (401, 408, 429) or (status >= 500 and status != 501):
        raise talk.exchange.refusal(response, operation)
    if status in (301, 302, 303, 307, 308):
        return True
    stated = content_length(response)
    return status == 200 and (size is None or stated is None or stated == size)


def _held(response: Response) -> int | None:
    """How many bytes `Range` says are there; None where it does not say. `0-0` stands for none, as in distribution."""
    match = _RANGE.fullmatch(response.headers.get("Range", "")[:60])
    if not match:
        return None
    last = int(match[1])
    return last + 1 if last else 0
