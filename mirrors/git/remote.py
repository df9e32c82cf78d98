"""Git's smart HTTP (Documentation/gitprotocol-http, -v2, -pack): where a branch stands, and one commit as a pack.

Everything goes through an Exchange, so that TLS, proxies, logins, redirects, patience and stops are those of all other
requests. Protocol 2 is asked for, and what older servers answer is understood too.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from requests import Response

from mirrors.git.addresses import GitAddress
from mirrors.git.faults import GitError
from mirrors.git.pktline import DELIMITER, FLUSH, Mark, Truncated, packets, pkt
from mirrors.registry.bodies import Text
from mirrors.registry.errors import Hop, clean, redact_url
from mirrors.registry.exchange import Exchange
from mirrors.registry.http import authorization_of, exchange_for
from mirrors.registry.transport import Connection, Listener, Timeouts, user_agent
from mirrors.stopping import StopSignal

ADVERTISEMENT_LIMIT = 16 * 1024 * 1024
_ASK_REFS, _ASK_PACK = "GET git refs", "POST git pack"
_SERVICE = "/info/refs?service=git-upload-pack"
_TYPE = "application/x-git-upload-pack-"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAMES_SHOWN = 8


class PackSink(Protocol):
    """Where the pack goes."""

    def write(self, chunk: bytes, /) -> object: ...

    def restart(self) -> object: ...


@dataclass(frozen=True)
class Head:
    """A commit by its id, and the branch, tag or commit it was found under."""

    ref: str
    commit: str


@dataclass(frozen=True)
class _Refs:
    """What a server said of itself. `refs` is complete before protocol 2, empty in it."""

    version: int
    capabilities: frozenset[str]
    refs: dict[str, str]
    default: str = ""


class Remote:
    """One repository at one address; not thread-safe. Raises RegistryError, GitError or Stopped.

    The login goes to the address's own scheme, host and port; where the server redirects elsewhere, nobody's.
    """

    def __init__(
        self,
        address: GitAddress,
        connection: Connection,
        *,
        stop: StopSignal,
        listener: Listener | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.address = address
        self._connection = connection
        self._exchange: Exchange = exchange_for(address.url, connection, stop, listener, timeouts)
        self._base = address.url
        self._refs: _Refs | None = None

    @property
    def hops(self) -> tuple[Hop, ...]:
        return tuple(self._exchange.hops)

    def close(self) -> None:
        self._exchange.session.close()

    # Where a branch stands

    def head(self) -> Head:
        """The commit that the address's branch, tag or commit names now; of the default branch where it names none."""
        said = self._exchange.persist(self._advertised)
        self._refs = said
        ref = self.address.ref
        found, default = said.refs, said.default
        if said.version == 2:
            prefixes = [f"refs/heads/{ref}", f"refs/tags/{ref}"] if ref else ["HEAD"]
            found, default = self._exchange.persist(lambda: self._listed(said, prefixes))
        if not ref:
            if "HEAD" not in found:
                raise GitError(
                    f"The git repository {self._shown()} is empty, or has no default branch; name one with @."
                )
            return Head(default.removeprefix("refs/heads/") or "HEAD", found["HEAD"])
        for name in (f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}"):
            if name in found:
                return Head(ref, found[name])
        if _COMMIT.fullmatch(ref):
            return Head(ref, ref)
        raise GitError(
            f"The git repository {self._shown()} has no branch {ref[:80]!r}; it has: {self._branches(said)}."
        )

    def _branches(self, said: _Refs) -> str:
        found = said.refs
        if said.version == 2:
            found, _ = self._exchange.persist(lambda: self._listed(said, ["refs/heads/"]))
        names = [clean(name.removeprefix("refs/heads/"), 60) for name in found if name.startswith("refs/heads/")]
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        return ", ".join(names[:_NAMES_SHOWN]) + more or "none"

    def _advertised(self) -> _Refs:
        exchange = self._exchange
        response = exchange.send(
            "GET",
            self.address.url + _SERVICE,
            _ASK_REFS,
            headers=self._headers(),
            authorization=authorization_of(self._connection),
        )
        if response.status_code != 200:
            raise exchange.refusal(response, _ASK_REFS)
        self._require_type(response, _TYPE + "advertisement", _ASK_REFS)
        # Servers move repositories by redirects; what follows goes to where this was answered.
        self._base = _base_of(str(response.url))
        body = exchange.read(response, ADVERTISEMENT_LIMIT, _ASK_REFS)
        return _read_advertisement(packets([body]))

    def _listed(self, said: _Refs, prefixes: list[str]) -> tuple[dict[str, str], str]:
        """Refs that begin with one of these, and the branch that HEAD is, by protocol 2."""
        wanted = [pkt(f"ref-prefix {prefix}") for prefix in prefixes]
        body = b"".join([*_command("ls-refs", said), pkt("peel"), pkt("symrefs"), *wanted, FLUSH])
        response = self._post(body, _ASK_REFS)
        answer = self._exchange.read(response, ADVERTISEMENT_LIMIT, _ASK_REFS)
        refs: dict[str, str] = {}
        default = ""
        for packet in packets([answer]):
            if isinstance(packet, Mark):
                continue
            commit, name, *attributes = packet.decode("utf-8", "replace").rstrip("\n").split(" ")
            _keep(refs, commit, name)
            for attribute in attributes:
                key, _, value = attribute.partition(":")
                if key == "peeled":
                    _keep(refs, value, name + "^{}")
                if key == "symref-target" and name == "HEAD":
                    default = value
        return refs, default

    # The commit

    def fetch(self, commit: str, sink: PackSink, limit: int) -> None:
        """The pack of one commit without its history into the sink, of at most `limit` bytes. After `head`."""
        said = self._refs or self._exchange.persist(self._advertised)
        self._refs = said
        body = _want_2(commit, said) if said.version == 2 else _want_0(commit, said)

        def attempt() -> None:
            sink.restart()
            response = self._post(body, _ASK_PACK)
            try:
                self._unwrap(response, sink, limit)
            finally:
                response.close()

        self._exchange.persist(attempt)

    def _unwrap(self, response: Response, sink: PackSink, limit: int) -> None:
        exchange = self._exchange
        count = 0
        chunks = self._counted(response, limit)
        try:
            for piece in _pack_pieces(packets(chunks)):
                count += len(piece)
                if count > limit:
                    raise exchange.too_large(limit, _ASK_PACK)
                sink.write(piece)
        except Truncated:
            raise exchange.error(
                "truncated", f"{exchange.who()} broke off in the middle", _ASK_PACK, temporary=True
            ) from None
        if not count:
            raise GitError(f"The git repository {self._shown()} sent no pack for that commit.")

    def _counted(self, response: Response, limit: int) -> Iterator[bytes]:
        """The chunks as they come. Progress and keep-alives count as well: nobody sends those for ever."""
        count = 0
        for chunk in self._exchange.stream(response, _ASK_PACK):
            self._exchange.received(len(chunk))
            count += len(chunk)
            if count > limit + limit // 8 + ADVERTISEMENT_LIMIT:
                raise self._exchange.too_large(limit, _ASK_PACK)
            yield chunk

    # Requests

    def _post(self, body: bytes, operation: str) -> Response:
        own = _origin(self._base) == _origin(self.address.url)
        response = self._exchange.send(
            "POST",
            f"{self._base}/git-upload-pack",
            operation,
            headers=self._headers() | {"Content-Type": _TYPE + "request", "Accept": _TYPE + "result"},
            authorization=authorization_of(self._connection) if own else "",
            body=Text(body),
        )
        if response.status_code != 200:
            raise self._exchange.refusal(response, operation)
        self._require_type(response, _TYPE + "result", operation)
        self._exchange.require_plain(response, operation)
        return response

    def _headers(self) -> dict[str, str]:
        # GitHub takes only those for git clients whose name begins so (dulwich#562).
        return {"User-Agent": f"git/2 {user_agent()}", "Git-Protocol": "version=2"}

    def _require_type(self, response: Response, wanted: str, operation: str) -> None:
        got = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if got == wanted:
            return
        response.close()
        raise self._exchange.error(
            "malformed",
            f"{self._exchange.who()} does not answer as a git server: it sent {clean(got, 60) or 'no type'!r}",
            operation,
            "Check the address; servers that only offer files (dumb HTTP) are not read.",
        )

    def _shown(self) -> str:
        return redact_url(self.address.url)


def _read_advertisement(incoming: Iterator[bytes | Mark]) -> _Refs:
    first = next(incoming, None)
    if isinstance(first, bytes) and first.startswith(b"# service="):
        if next(incoming, None) is not Mark.FLUSH:
            raise GitError("The git server's answer is not what a git server says.")
        first = next(incoming, None)
    lines = [] if first is None or isinstance(first, Mark) else [first]
    lines += [packet for packet in incoming if not isinstance(packet, Mark)]
    if lines and lines[0].strip() == b"version 2":
        capabilities = frozenset(line.decode("latin-1").strip() for line in lines[1:])
        refs: dict[str, str] = {}
        default = ""
    else:
        refs, capabilities = _read_refs(lines)
        default = next(
            (text.removeprefix("symref=HEAD:") for text in capabilities if text.startswith("symref=HEAD:")), ""
        )
    formats = {text.partition("=")[2] for text in capabilities if text.startswith("object-format=")}
    if formats and "sha1" not in " ".join(formats).split():
        raise GitError(
            "The git repository names its objects by SHA-256, which is not read yet. Mirror its archive instead."
        )
    return _Refs(2 if lines and lines[0].strip() == b"version 2" else 0, capabilities, refs, default)


def _read_refs(lines: list[bytes]) -> tuple[dict[str, str], frozenset[str]]:
    """Protocol 0 and 1: every ref at once, the capabilities behind the first."""
    refs: dict[str, str] = {}
    capabilities: frozenset[str] = frozenset()
    for line in lines:
        text, nul, after = line.decode("utf-8", "replace").rstrip("\n").partition("\0")
        if nul:
            capabilities = frozenset(after.split())
        if text == "version 1" or text.startswith("shallow "):
            continue
        commit, _, name = text.partition(" ")
        if name != "capabilities^{}":
            _keep(refs, commit, name)
    return refs, capabilities


def _keep(refs: dict[str, str], commit: str, name: str) -> None:
    if commit == "unborn":
        return
    if not _COMMIT.fullmatch(commit) or not name:
        raise GitError("The git server's list of branches is not what a git server says.")
    refs[name] = commit


def _want_2(commit: str, said: _Refs) -> bytes:
    fetch = next((text.partition("=")[2].split() for text in said.capabilities if text.startswith("fetch")), [])
    shallow = [pkt("deepen 1")] if "shallow" in fetch else []
    wanted = [pkt(f"want {commit}"), pkt("done"), FLUSH]
    return b"".join([*_command("fetch", said), pkt("no-progress"), pkt("ofs-delta"), *shallow, *wanted])


def _command(name: str, said: _Refs) -> list[bytes]:
    """Servers before git 2.28 die of an object-format that they did not offer."""
    names_format = any(text.startswith("object-format=") for text in said.capabilities)
    return [pkt(f"command={name}"), *([pkt("object-format=sha1")] if names_format else []), DELIMITER]


def _want_0(commit: str, said: _Refs) -> bytes:
    if "side-band-64k" not in said.capabilities:
        raise GitError("The git server is too old: it does not offer side-band-64k.")
    # dulwich's server insists on thin-pack; no pack is thin where nothing was had before.
    words = " ".join(
        word for word in ("side-band-64k", "ofs-delta", "no-progress", "thin-pack") if word in said.capabilities
    )
    shallow = [pkt("deepen 1")] if "shallow" in said.capabilities else []
    return b"".join([pkt(f"want {commit} {words}"), *shallow, FLUSH, pkt("done")])


def _pack_pieces(incoming: Iterator[bytes | Mark]) -> Iterator[bytes]:
    """The pack out of its side band. GitError with the server's own words where it refuses."""
    inside = False
    for packet in incoming:
        if isinstance(packet, Mark):
            if inside and packet is Mark.FLUSH:
                return
            continue
        if not inside:
            words = packet.rstrip(b"\n")
            if packet.startswith(b"ERR "):
                raise GitError(f"The git server refused: {clean(packet[4:].decode('utf-8', 'replace'))}.")
            # The one opens the pack in protocol 2, the other before it.
            inside = words == b"packfile" or words == b"NAK"
            continue
        band, piece = packet[:1], packet[1:]
        if band == b"\x01":
            yield piece
        elif band == b"\x03":
            raise GitError(f"The git server broke off: {clean(piece.decode('utf-8', 'replace'))}.")
    raise Truncated


def _base_of(url: str) -> str:
    if not url.endswith(_SERVICE):
        raise GitError(f"The git server sent us on to {redact_url(url)}, which is no git repository.")
    return url.removesuffix(_SERVICE)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()
