"""RegistryClient: oras-py's Registry with every request made safe. README.md says what was wrong and why.

Of oras-py it keeps the shape, the tag listing and the constants; each request goes through an Exchange. It only reads.
"""

from dataclasses import replace
from typing import Any, NoReturn
from urllib.parse import urljoin, urlsplit

import oras.auth.base
import oras.provider
from requests import Response

from mirrors.digests import DigestError, parse_digest
from mirrors.registry.blobs import BlobTransfer, Sink
from mirrors.registry.conversation import Conversation
from mirrors.registry.errors import Hop, RegistryError, clean
from mirrors.registry.exchange import host_of
from mirrors.registry.manifests import (
    ACCEPT,
    MANIFEST_LIMIT,
    OCI_INDEX,
    Descriptor,
    Manifest,
    ManifestError,
    kind_of,
    parse_manifest,
    plain_type,
)
from mirrors.registry.references import TAG, Reference, checked_name
from mirrors.registry.transport import Connection, Listener, Timeouts
from mirrors.stopping import StopSignal

# A registry that answers so to HEAD may still answer GET (no HEAD behind some proxies and storages).
_HEAD_REFUSED = frozenset({403, 404, 405, 501})
_MOST_REFERRER_PAGES = 20


class _NoAmbientLogin(oras.auth.base.AuthBackend):  # type: ignore[misc]
    """oras-py reads ~/.docker/config.json and runs credential helpers before a manifest; this reads nothing."""

    def load_configs(self, container: object, configs: object = None) -> None:
        """Nothing to load: logins come from the Connection."""

    def authenticate_request(
        self, original: Response, headers: dict[str, str], refresh: bool = False
    ) -> tuple[dict[str, str], bool]:
        return headers, False

    def get_auth_header(self) -> dict[str, str]:
        return {}


class RegistryClient(oras.provider.Registry):  # type: ignore[misc]
    """Reads from one registry. One object a run and registry; not thread-safe.

    `memory` is a JSON-able dict that the caller keeps between runs: the scheme found and the challenge, no secrets.
    With it an unchanged mirror costs a token and a HEAD. `actions` is what tokens are asked for, `pull` or `pull,push`.
    Every method raises RegistryError, or Stopped.
    """

    def __init__(
        self,
        registry: str,
        connection: Connection,
        *,
        stop: StopSignal,
        listener: Listener | None = None,
        timeouts: Timeouts | None = None,
        memory: dict[str, Any] | None = None,
        actions: str = "pull",
    ) -> None:
        self.talk = Conversation(
            registry, connection, stop=stop, listener=listener, timeouts=timeouts, memory=memory, actions=actions
        )
        super().__init__(hostname=registry)
        self.registry = registry
        self.connection = connection
        self.memory = self.talk.memory
        self._exchange, self._login = self.talk.exchange, self.talk.login
        self._last: tuple[Reference, Manifest] | None = None
        self.session = self._exchange.session
        self.auth = _NoAmbientLogin()
        self.auth.session = self.session

    @property
    def prefix(self) -> str:
        """The scheme, under the name that oras-py has for it; what it sets itself is not taken."""
        return self.talk.scheme

    @prefix.setter
    def prefix(self, scheme: str) -> None:
        return

    @property
    def requests(self) -> int:
        """HTTP requests sent so far, token requests and redirects included."""
        return self._exchange.requests

    @property
    def bytes_downloaded(self) -> int:
        """Blob bytes received so far."""
        return self._exchange.bytes_downloaded

    @property
    def hops(self) -> tuple[Hop, ...]:
        """Every host met by the last operation, in order: the registry, its token server, redirects' targets."""
        return tuple(self._exchange.hops)

    def close(self) -> None:
        """Give the connections back."""
        self.session.close()

    # Reading

    def head_manifest(self, reference: Reference) -> tuple[str | None, str]:
        """Digest and media type of what the reference points at. GET where the registry refuses HEAD."""
        answer = self._exchange.persist(lambda: self._head(reference))
        if answer is not None:
            return answer
        manifest = self.fetch_manifest(reference)
        self._last = (reference, manifest)
        return manifest.digest, manifest.media_type

    def fetch_manifest(self, reference: Reference) -> Manifest:
        """The manifest, byte for byte, its digest checked against the reference and the registry's own header."""
        last, self._last = self._last, None
        if last is not None and last[0] == reference:
            return last[1]
        return self._exchange.persist(lambda: self._manifest(reference, "GET manifest"))

    def fetch_blob(self, repository: str, descriptor: Descriptor, sink: Sink) -> None:
        """Write the blob's bytes from `sink.offset` on into the sink, resuming as often as patience allows.

        The sink verifies the digest when it is committed; a wrong size is found here.
        """
        path = f"/v2/{checked_name(repository)}/blobs/{parse_digest(descriptor.digest)}"
        transfer = BlobTransfer(
            self._exchange,
            descriptor,
            sink,
            lambda headers: self.talk.ask("GET", path, repository, "GET blob", headers),
        )
        if transfer.is_complete():
            return
        self._exchange.persist(transfer.attempt)

    def referrers(self, reference: Reference, digest: str) -> Manifest | None:
        """The index of what refers to this digest: from the referrers API, else from the tag `sha256-…`; None if there
        is neither (distribution-spec, "Listing Referrers" and "Referrers Tag Schema")."""
        parse_digest(digest)
        found = self._exchange.persist(lambda: self._referrers(reference, digest))
        if found is not None:
            return found
        fallback = replace(reference, tag=digest.replace(":", "-"), digest=None)
        try:
            manifest = self._exchange.persist(lambda: self._manifest(fallback, "GET referrers tag"))
        except RegistryError as error:
            if error.code == "not-found":
                return None
            raise
        return manifest if manifest.is_index else None

    def probe_layer(self, repository: str, descriptor: Descriptor) -> list[Hop]:
        """Fetch one byte of a blob and name every host on the way. A RegistryError has those that did answer."""
        path = f"/v2/{checked_name(repository)}/blobs/{parse_digest(descriptor.digest)}"

        def attempt() -> list[Hop]:
            response = self.talk.ask("GET", path, repository, "GET blob", {"Range": "bytes=0-0"})
            if response.status_code not in (200, 206) and not (response.status_code == 416 and descriptor.size == 0):
                raise self._exchange.refusal(response, "GET blob")
            if descriptor.size:
                self._exchange.first_byte(response, "GET blob")
            response.close()
            return list(self._exchange.hops)

        return self._exchange.persist(attempt)

    # Manifests

    def _head(self, reference: Reference) -> tuple[str | None, str] | None:
        """None where HEAD gave no answer to rely on."""
        operation = "HEAD manifest"
        response = self.talk.ask("HEAD", _manifest_path(reference), reference.repository, operation, {"Accept": ACCEPT})
        self._exchange.drain(response)
        if response.status_code in _HEAD_REFUSED:
            return None
        if response.status_code != 200:
            raise self._exchange.refusal(response, operation)
        stated = self._stated_digest(response, operation)
        media_type = plain_type(response.headers.get("Content-Type", ""))
        if stated is None or not kind_of(media_type):
            return None
        if reference.digest and stated != reference.digest:
            raise self._wrong_digest(stated, reference.digest, operation)
        return stated, media_type

    def _manifest(self, reference: Reference, operation: str) -> Manifest:
        path = _manifest_path(reference)
        response = self.talk.ask("GET", path, reference.repository, operation, {"Accept": ACCEPT})
        if response.status_code != 200:
            raise self._exchange.refusal(response, operation)
        stated = self._stated_digest(response, operation)
        raw = self._exchange.read(response, MANIFEST_LIMIT, operation)
        manifest = self._parse(raw, response, operation)
        for expected in (reference.digest, stated):
            if expected and expected != manifest.digest:
                raise self._wrong_digest(manifest.digest, expected, operation)
        return manifest

    def _parse(self, raw: bytes, response: Response, operation: str) -> Manifest:
        try:
            return parse_manifest(raw, response.headers.get("Content-Type", ""))
        except ManifestError as error:
            said = str(error)
            raise self._exchange.error(
                error.code,
                f"What {self._exchange.who()} sent cannot be taken: {said[:1].lower()}{said[1:].rstrip('.')}",
                operation,
                "Check the address of this source.",
            ) from error

    def _referrers(self, reference: Reference, digest: str) -> Manifest | None:
        """All pages as one index (its bytes are those of the first page); None where there is no such API."""
        operation = "GET referrers"
        path = f"/v2/{checked_name(reference.repository)}/referrers/{digest}"
        first: Manifest | None = None
        entries: list[Descriptor] = []
        for _ in range(_MOST_REFERRER_PAGES):
            response = self.talk.ask("GET", path, reference.repository, operation, {"Accept": OCI_INDEX})
            if response.status_code in (400, 403, 404, 405, 501):
                self._exchange.drain(response)
                return None
            if response.status_code != 200:
                raise self._exchange.refusal(response, operation)
            page = self._parse(self._exchange.read(response, MANIFEST_LIMIT, operation), response, operation)
            if not page.is_index:
                return None
            first = first or page
            entries += page.manifests
            path = self._next_page(response)
            if not path:
                break
        return replace(first, manifests=tuple(entries)) if first else None

    def _next_page(self, response: Response) -> str:
        """Path and query of the next page on this registry, "" if there is none."""
        try:
            link = response.links.get("next", {}).get("url", "")
            parts = urlsplit(urljoin(response.url, link))
            if not link or not self._exchange.is_home(parts):
                return ""
        except ValueError:
            return ""
        return parts.path + (f"?{parts.query}" if parts.query else "")

    def _stated_digest(self, response: Response, operation: str) -> str | None:
        text = response.headers.get("Docker-Content-Digest")
        if text is None:
            return None
        try:
            return parse_digest(text.strip())
        except DigestError as error:
            what = f"{self._exchange.who()} names the manifest by something else than a digest: {clean(text, 80)!r}"
            raise self._exchange.error(
                "malformed", what, operation, "Check that this address is a registry."
            ) from error

    def _wrong_digest(self, actual: str, expected: str, operation: str) -> RegistryError:
        return self._exchange.error(
            "digest",
            f"{self._exchange.who()} sent a manifest with the digest {actual} where {expected} was expected",
            operation,
            "It was not taken. If it happens again, something between here and there changes contents.",
        )

    # What oras-py would do by itself

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: object = None,
        headers: dict[str, str] | None = None,
        json: object = None,
        stream: bool = False,
    ) -> Response:
        """What oras-py's own methods (get_tags, get_manifest) send through: this registry only, GET and HEAD only."""
        parts = urlsplit(url)
        operation = f"{method} {parts.path}"
        if method not in ("GET", "HEAD") or data is not None or json is not None:
            self._refuse(operation)
        # oras-py writes the registry's own name into its URLs, which for Docker Hub is another.
        if not self._exchange.is_home(parts) and parts.netloc != self.registry:
            raise self._exchange.error("redirect", f"{self.registry} points at {host_of(parts)}", operation)
        repository = parts.path.removeprefix("/v2/").rpartition("/")[0].rpartition("/")[0]
        path = parts.path + (f"?{parts.query}" if parts.query else "")

        def attempt() -> Response:
            response = self.talk.ask(method, path, repository, operation, headers or {})
            if response.status_code in (408, 429) or response.status_code >= 500:
                raise self._exchange.refusal(response, operation)
            if not stream:
                response._content = self._exchange.read(response, MANIFEST_LIMIT, operation)
                response._content_consumed = True  # type: ignore[attr-defined]
            return response

        return self._exchange.persist(attempt)

    def _refuse(self, operation: str) -> NoReturn:
        raise self._exchange.error("unsupported", "This client only reads", operation, "Use a tool made for pushing.")

    def login(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refused: oras-py would write the password into ~/.docker/config.json."""
        self._refuse("login")

    def pull(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refused: oras-py would write unverified bytes to names chosen by the manifest. Use fetch_blob."""
        self._refuse("pull")

    def download_blob(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refused: unverified. Use fetch_blob."""
        self._refuse("download_blob")

    def push(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refused: this client only reads."""
        self._refuse("push")


def _manifest_path(reference: Reference) -> str:
    target = reference.target
    if reference.digest:
        parse_digest(reference.digest)
    elif not TAG.fullmatch(target):
        raise ValueError(f"{target[:80]!r} is not a tag.")
    return f"/v2/{checked_name(reference.repository)}/manifests/{target}"
