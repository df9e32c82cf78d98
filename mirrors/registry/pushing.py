"""PushClient: brings blobs and manifests to one registry, byte for byte, and looks whether they really are there.

A registry is believed nothing: after "201 Created" every blob and manifest is asked for again.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlencode

from requests import Response

from mirrors.digests import DIGEST, digest_of, parse_digest
from mirrors.registry.bodies import Text
from mirrors.registry.client import RegistryClient
from mirrors.registry.errors import Hop, RegistryError, clean
from mirrors.registry.manifests import (
    ACCEPT,
    MANIFEST_LIMIT,
    OCI_INDEX,
    Descriptor,
    Manifest,
    ManifestError,
    parse_manifest,
    plain_type,
)
from mirrors.registry.products import product_of
from mirrors.registry.references import TAG, Reference, checked_name
from mirrors.registry.refusals import refined
from mirrors.registry.transport import Connection, Listener, Timeouts
from mirrors.registry.uploading import Session, Upload, cancel, has_blob, open_session, session_in
from mirrors.stopping import StopSignal

T = TypeVar("T")

# Above this a blob goes in chunks of it, so that a broken connection costs one chunk. Trivy's DB (80 MB) takes three.
CHUNK_BYTES = 32 * 1024 * 1024
_SAYS_NOTHING = frozenset({403, 405, 501})


class PushClient:
    """Pushes to one registry. One object a run and destination; not thread-safe.

    `memory` is a JSON-able dict that the caller keeps between runs, as RegistryClient's; it also learns how this
    registry wants its bytes. Every method raises RegistryError, or Stopped.
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
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.registry = registry
        self._reader = RegistryClient(
            registry,
            connection,
            stop=stop,
            listener=listener,
            timeouts=timeouts,
            memory=memory,
            actions="pull,push",
        )
        self._talk = self._reader.talk
        self._exchange = self._talk.exchange
        self._connection = connection
        self._chunk_bytes = chunk_bytes
        self._product = ""
        # Sessions that a mount opened instead of mounting, by repository and digest.
        self._opened: dict[tuple[str, str], Session] = {}

    @property
    def memory(self) -> dict[str, Any]:
        """To be kept between runs."""
        return self._talk.memory

    @property
    def requests(self) -> int:
        """HTTP requests sent so far."""
        return self._exchange.requests

    @property
    def bytes_sent(self) -> int:
        """Bytes of bodies sent so far, those sent twice counted twice."""
        return self._exchange.bytes_sent

    @property
    def hops(self) -> tuple[Hop, ...]:
        """Every host met by the last operation, in order."""
        return tuple(self._exchange.hops)

    def close(self) -> None:
        """Cancel what was begun and not used, and give the connections back."""
        opened, self._opened = self._opened, {}
        if not self._exchange.stop.is_set():
            for (repository, _), session in opened.items():
                cancel(self._talk, repository, session)
        self._reader.close()

    # Asking

    def has_manifest(self, repository: str, tag_or_digest: str) -> str | None:
        """The digest of what is there under this tag or digest, None where there is nothing."""
        path = _manifest_path(repository, tag_or_digest)

        def attempt() -> str | None:
            response = self._talk.ask("HEAD", path, repository, "HEAD manifest", {"Accept": ACCEPT})
            self._exchange.drain(response)
            if response.status_code == 404:
                return None
            stated = response.headers.get("Docker-Content-Digest", "").strip()
            if response.status_code == 200 and DIGEST.fullmatch(stated):
                return stated
            if response.status_code == 200 or response.status_code in _SAYS_NOTHING:
                found = self._read_manifest(path, repository)
                return digest_of(found) if found is not None else None
            raise self._exchange.refusal(response, "HEAD manifest")

        return self._persist(repository, attempt)

    def has_blob(self, repository: str, digest: str, size: int | None = None) -> bool:
        """Whether the blob is there, with this size where one is given. No where the registry does not say."""
        checked_name(repository), parse_digest(digest)
        return self._persist(repository, lambda: has_blob(self._talk, repository, digest, size))

    # Blobs

    def mount(self, repository: str, digest: str, source_repository: str) -> bool:
        """Take over a blob that another repository of the registry has. False: it has to be uploaded."""
        checked_name(repository), checked_name(source_repository), parse_digest(digest)
        query = urlencode({"mount": digest, "from": source_repository})
        operation = "mount blob"

        def attempt() -> bool:
            path = f"/v2/{repository}/blobs/uploads/?{query}"
            response = self._talk.ask("POST", path, repository, operation, {}, also=source_repository)
            status = response.status_code
            if status in (408, 429) or (status >= 500 and status != 501):
                raise self._exchange.refusal(response, operation)
            self._exchange.drain(response)
            if status == 202:
                self._opened[(repository, digest)] = session_in(self._talk, response, operation)
            stated = response.headers.get("Docker-Content-Digest", digest).strip()
            return status == 201 and stated == digest and has_blob(self._talk, repository, digest, None)

        return self._persist(repository, attempt)

    def upload(
        self,
        repository: str,
        descriptor: Descriptor,
        open_blob: Callable[[], BinaryIO],
        progress: Callable[[int], None] = lambda _: None,
        *,
        verify: bool = True,
    ) -> None:
        """Send one blob; `open_blob` opens it for reading, once. `progress` is told how many bytes more were sent,
        those sent again not counted.

        Small ones go in one request, larger ones in chunks, resumed after a break. What is read is hashed on the way
        (`damaged` where it rotted). With `verify` the registry must then find it, in the right size.
        """
        checked_name(repository), parse_digest(descriptor.digest)
        session = self._opened.pop((repository, descriptor.digest), None)
        upload = Upload(self._talk, repository, descriptor, open_blob, progress, self._chunk_bytes, session)
        try:
            self._persist(repository, upload.attempt)
        except RegistryError:
            upload.give_up()
            raise
        finally:
            upload.end()
        if verify:
            self._persist(repository, lambda: self._find(repository, descriptor))

    def _find(self, repository: str, descriptor: Descriptor) -> None:
        if not has_blob(self._talk, repository, descriptor.digest, descriptor.size):
            raise self._lie(f"the blob {descriptor.digest}", "finds no such blob of that size now", "HEAD blob")

    # Manifests

    def put_manifest(self, repository: str, reference: str, raw: bytes, media_type: str) -> str:
        """Push these bytes under a tag or their digest, look whether they are there, and return their digest.

        A manifest that refers to another (`subject`) is also entered in the index of its tag `sha256-…`, where the
        registry does not list referrers itself.
        """
        path, digest = _manifest_path(repository, reference), digest_of(raw)
        if ":" in reference and reference != digest:
            raise ValueError(f"The manifest has the digest {digest}, not {reference}.")
        answer = self._persist(repository, lambda: self._put(path, repository, raw, media_type), tagging=True)
        self._persist(repository, lambda: self._look(repository, reference, raw, digest))
        subject = _subject_of(raw, media_type)
        if subject and answer.headers.get("OCI-Subject", "").strip() != subject:
            self._enter_referrer(repository, subject, raw, media_type)
        return digest

    def _put(self, path: str, repository: str, raw: bytes, media_type: str) -> Response:
        operation = "PUT manifest"
        response = self._talk.ask("PUT", path, repository, operation, {"Content-Type": media_type}, body=Text(raw))
        if not 200 <= response.status_code < 300:
            raise self._exchange.refusal(response, operation)
        self._exchange.drain(response)
        stated = response.headers.get("Docker-Content-Digest", "").strip()
        if stated and stated != digest_of(raw):
            raise self._exchange.error(
                "digest",
                f"{self._exchange.who()} filed the manifest {digest_of(raw)} under {clean(stated, 80)!r}",
                operation,
                "It rewrites manifests, so what is there is not what was mirrored. Look for a setting that converts.",
            )
        return response

    def _look(self, repository: str, reference: str, raw: bytes, digest: str) -> None:
        """Whether tag and digest give back these very bytes."""
        for name in dict.fromkeys((reference, digest)):
            found = self._read_manifest(_manifest_path(repository, name), repository)
            what = f"{repository}{'@' if ':' in name else ':'}{name}"
            if found is None:
                raise self._lie(what, "finds nothing there now", "GET manifest")
            if found != raw:
                raise self._lie(
                    what,
                    f"gives {len(found)} bytes with the digest {digest_of(found)}, not the {len(raw)} of {digest}",
                    "GET manifest",
                )

    def _read_manifest(self, path: str, repository: str) -> bytes | None:
        operation = "GET manifest"
        response = self._talk.ask("GET", path, repository, operation, {"Accept": ACCEPT})
        if response.status_code == 404:
            self._exchange.drain(response)
            return None
        if response.status_code != 200:
            raise self._exchange.refusal(response, operation)
        return self._exchange.read(response, MANIFEST_LIMIT, operation)

    # Referrers

    def _enter_referrer(self, repository: str, subject: str, raw: bytes, media_type: str) -> None:
        """Add the manifest to the index under the tag `sha256-…` (distribution-spec, "Referrers Tag Schema").

        A registry that lists referrers itself but does not say so on a push is asked first: the tag would only be in
        the way there.
        """
        own = _entry_of(raw, media_type)
        if self._lists_referrers(repository, subject):
            return
        tag = subject.replace(":", "-", 1)
        found = self._persist(repository, lambda: self._read_manifest(_manifest_path(repository, tag), repository))
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        if found is not None:
            try:
                if not parse_manifest(found, "").is_index:
                    raise ManifestError("malformed", "not an index")
                document = json.loads(found)
            except ManifestError as error:
                what = f"Under {repository}:{tag} is something else than an index of referrers"
                raise self._exchange.error("malformed", what, "GET referrers tag", "Remove that tag there.") from error
        entries = document["manifests"]
        if any(entry.get("digest") == own["digest"] for entry in entries):
            return
        document["manifests"] = [*entries, own]
        index = json.dumps(document, separators=(",", ":")).encode()
        path = _manifest_path(repository, tag)
        self._persist(repository, lambda: self._put(path, repository, index, OCI_INDEX), tagging=True)
        self._persist(repository, lambda: self._look(repository, tag, index, digest_of(index)))

    def _lists_referrers(self, repository: str, subject: str) -> bool:
        path = f"/v2/{repository}/referrers/{subject}"

        def attempt() -> bool:
            response = self._talk.ask("GET", path, repository, "GET referrers", {"Accept": OCI_INDEX})
            self._exchange.drain(response)
            is_index = plain_type(response.headers.get("Content-Type", "")) == OCI_INDEX
            return response.status_code == 200 and is_index

        return self._persist(repository, attempt)

    def referrers(self, repository: str, digest: str) -> Manifest | None:
        """The index of what refers to this digest there; None where there is none."""
        reference = Reference(self.registry, checked_name(repository), digest=parse_digest(digest))
        with self._refining(repository):
            return self._reader.referrers(reference, digest)

    # Trying out

    def try_login(self, repository: str) -> tuple[Hop, ...]:
        """A real check, as a push would begin: log in, start an upload there and cancel it. The hosts met.

        Nothing is left behind. RegistryError names what is wrong; its `hops` are those that did answer.
        """
        checked_name(repository)
        hops: list[Hop] = []

        def ping() -> None:
            response = self._talk.ask("GET", "/v2/", repository, "GET /v2/", {})
            self._exchange.drain(response)
            hops.extend(self._exchange.hops)
            # 401, 403: some answer so to a token that is good for one repository only.
            if response.status_code not in (200, 401, 403):
                raise self._exchange.refusal(response, "GET /v2/")

        def start() -> None:
            session = open_session(self._talk, repository)
            cancel(self._talk, repository, session)
            hops.extend(self._exchange.hops)

        self._persist(repository, ping)
        self._persist(repository, start)
        return tuple(hops)

    # Errors

    def _persist(self, repository: str, attempt: Callable[[], T], *, tagging: bool = False) -> T:
        """Call `attempt` until it works or patience ends. What its error means is judged before it is tried again."""

        def judged() -> T:
            with self._refining(repository, tagging=tagging):
                return attempt()

        return self._exchange.persist(judged)

    @contextmanager
    def _refining(self, repository: str, *, tagging: bool = False) -> Iterator[None]:
        try:
            yield
        except RegistryError as error:
            connection = self._connection
            refined(
                error,
                product=product_of(self.registry, self._talk.login.realm, *self._exchange.answered_with),
                repository=repository,
                # A token that was typed in proves nothing; one that a token server gave for a login does.
                shown="" if connection.token else self._talk.shown,
                has_login=bool(connection.username or connection.token or connection.identity_token),
                tagging=tagging,
            )
            raise

    def _lie(self, what: str, found: str, operation: str) -> RegistryError:
        return self._exchange.error(
            "digest",
            f"{self.registry} said that it took {what}, but {found}",
            operation,
            "It was not pushed, whatever the registry says. Look at its storage and for a proxy or cache in between.",
            # Where several machines answer for one registry, a moment may help.
            temporary=True,
        )


def _manifest_path(repository: str, reference: str) -> str:
    if ":" in reference:
        parse_digest(reference)
    elif not TAG.fullmatch(reference):
        raise ValueError(f"{reference[:80]!r} is not a tag.")
    return f"/v2/{checked_name(repository)}/manifests/{reference}"


def _subject_of(raw: bytes, media_type: str) -> str:
    try:
        subject = parse_manifest(raw, media_type).subject
    except ManifestError:
        return ""
    return subject.digest if subject else ""


def _entry_of(raw: bytes, media_type: str) -> dict[str, Any]:
    """The descriptor of a referrer (distribution-spec: artifactType, else the config's type; annotations too)."""
    manifest = parse_manifest(raw, media_type)
    entry: dict[str, Any] = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(raw)}
    kind = manifest.artifact_type or (manifest.config.media_type if manifest.config else "")
    if kind:
        entry["artifactType"] = kind
    if manifest.annotations:
        entry["annotations"] = dict(manifest.annotations)
    return entry
