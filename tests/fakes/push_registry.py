"""A registry on loopback that takes pushes, and does every wrong thing with them on request.

    with PushRegistry() as fake:                              # FakeRegistry, and what is below
        fake.trouble("PATCH", cut=1000)                       # once: keep 1000 bytes of the body, then hang up
        fake.trouble("PUT", path="/manifests/", status=400, body=b"{...}", times=None)
        fake.took("team/db", digest)                          # the blob's bytes, None if it is not there
        fake.uploads                                          # open sessions: id -> bytes so far

A blob belongs to the repository it was pushed to; `fake.mountable` (default True) lets others mount it.
`fake.least_chunk` is announced, `fake.most_body` answers 413 before a larger body was read (as nginx does),
`fake.chunks` = "once" plays ECR: only the first chunk counts. `fake.absolute` gives absolute Locations.
"""

import contextlib
import json
import re
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.fakes.registry import FakeRegistry, Fault, Recorded, _Handler, digest_of


@dataclass
class Trouble:
    """What goes wrong with a request that carries bytes or asks for an upload.

    status, body, headers   answer this (headers: also added to a normal answer; None leaves one out)
    early                   answer `status` before the body was read, and close
    open                    with `early`: keep the connection, whose next request is then what was not read
    cut                     read and keep so many bytes of the body, then hang up without an answer
    lost                    as `cut`, but what was read is forgotten
    silent                  read the body, never answer
    slow                    (bytes, seconds): read the body in such pieces with such pauses
    ponder                  seconds of silence between the body and its answer
    stuck                   stop reading the body after so many bytes, keep the connection
    keep                    keep only so many bytes of the chunk, and say so in Range
    lie                     answer 201 and keep nothing
    flip                    keep the bytes with one changed
    rewrite                 keep this manifest instead
    deaf                    do it, then hang up without an answer
    forget                  forget the session first (404)
    revoke                  refuse every token issued so far first
    """

    method: str
    path: str = ""
    times: int | None = 1
    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    early: bool = False
    open: bool = False
    cut: int | None = None
    lost: bool = False
    silent: bool = False
    slow: tuple[int, float] | None = None
    ponder: float = 0
    stuck: int | None = None
    keep: int | None = None
    lie: bool = False
    flip: bool = False
    rewrite: bytes | None = None
    deaf: bool = False
    forget: bool = False
    revoke: bool = False


class PushRegistry(FakeRegistry):
    """See the module's docstring."""

    def __init__(self, **settings: object) -> None:
        self.uploads: dict[str, bytearray] = {}
        self.chunks_taken: dict[str, int] = {}
        self.owned: set[tuple[str, str]] = set()
        self.troubles: list[Trouble] = []
        self.mountable = True
        self.least_chunk = 0
        self.most_body = 0
        self.chunks = "many"
        self.absolute = False
        self.upload_host: FakeRegistry | None = None
        self.subjects = True
        self.read_back = 0
        self.forms: list[dict[str, str]] = []
        super().__init__(**settings)  # type: ignore[arg-type]

    def trouble(self, method: str, path: str = "", times: int | None = 1, **what: object) -> Trouble:
        trouble = Trouble(method, path, times, **what)  # type: ignore[arg-type]
        self.troubles.append(trouble)
        return trouble

    def took(self, repository: str, digest: str) -> bytes | None:
        return self.blobs.get(digest) if (repository, digest) in self.owned else None

    def give(self, repository: str, data: bytes) -> str:
        """Let the repository have this blob already."""
        digest = self.put_blob(data)
        self.owned.add((repository, digest))
        return digest

    def _take_trouble(self, method: str, path: str) -> Trouble:
        with self._lock:
            for one in self.troubles:
                if one.times != 0 and one.method == method and one.path in path:
                    if one.times is not None:
                        one.times -= 1
                    return one
        return Trouble(method)

    def _challenge(self, authorization: str, path: str) -> str | None:
        text = super()._challenge(authorization, path)
        if text is None or "scope=" not in text:
            return text
        scope = text.partition('scope="')[2].rstrip('"').replace(":pull", ":pull,push")
        token = authorization.removeprefix("Bearer ")
        if token in self.tokens_issued and token not in self._revoked and token.endswith(f"|{scope}"):
            return None
        return re.sub(r'scope="[^"]*"', f'scope="{scope}"', text)


class _PushHandler(_Handler):
    def _handle(self) -> None:
        path = urlsplit(self.path).path
        carries = self.command in ("POST", "PATCH", "PUT", "DELETE") or "/uploads/" in path
        if not carries or not path.startswith("/v2/"):
            if path == "/token" and self.command == "POST":
                self._change_identity(path)
                return
            super()._handle()
            return
        fake = self.server.fake
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        with fake._lock:
            fake.requests.append(Recorded(self.command, path, query, self.headers, time.monotonic()))
        trouble = fake._take_trouble(self.command, path)
        try:
            self._push(path, query, trouble)
        except OSError:
            self.close_connection = True

    def _change_identity(self, path: str) -> None:
        """POST to the token endpoint, as distribution's spec/auth/oauth.md has it."""
        fake = self.server.fake
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        form = {name: values[0] for name, values in parse_qs(text).items()}
        with fake._lock:
            fake.requests.append(Recorded("POST", path, {}, self.headers, time.monotonic()))
        fake.forms.append(form)
        token = f"t{len(fake.tokens_issued)}|{form['scope']}"
        fake.tokens_issued.append(token)
        answer = json.dumps({"access_token": token, "expires_in": 300}).encode()
        self._answer(200, {"Content-Type": "application/json"}, answer, Fault())

    def _push(self, path: str, query: dict[str, str], trouble: Trouble) -> None:
        fake = self.server.fake
        length = int(self.headers.get("Content-Length") or 0)
        if trouble.revoke:
            fake.revoke_tokens()
        challenge = fake._challenge(self.headers.get("Authorization", ""), path)
        if challenge is not None:
            self._early(401, {"WWW-Authenticate": challenge}, b"", length)
            return
        if fake.most_body and length > fake.most_body:
            self._early(413, {"Content-Type": "text/html"}, b"<html>413 Request Entity Too Large</html>", length)
            return
        if trouble.early and trouble.open:
            self._answer(trouble.status or 413, {}, trouble.body, Fault(headers=trouble.headers))
            return
        if trouble.early:
            self._early(trouble.status or 413, dict(trouble.headers), trouble.body, length)
            return
        if trouble.stuck is not None:
            self.rfile.read(trouble.stuck)
            fake._closing.wait()
            self.close_connection = True
            return
        if trouble.slow is not None:
            self._read_slowly(length, *trouble.slow)
            return
        body = self.rfile.read(length if trouble.cut is None else min(trouble.cut, length))
        fake.read_back += len(body)
        fake._closing.wait(trouble.ponder)
        if trouble.silent:
            fake._closing.wait()
            self.close_connection = True
            return
        if trouble.status is not None:
            self._answer(
                trouble.status, {"Content-Type": "application/json"}, trouble.body, Fault(headers=trouble.headers)
            )
            return
        status, headers, text = self._store(path, query, b"" if trouble.lost else body, trouble)
        if trouble.cut is not None or trouble.deaf:
            self.close_connection = True
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.connection, socket.SHUT_RDWR)
            return
        self._answer(status, headers, text, Fault(headers=trouble.headers))

    def _read_slowly(self, length: int, piece: int, pause: float) -> None:
        while length > 0 and not self.server.fake._closing.wait(pause):
            length -= len(self.rfile.read(min(piece, length))) or length
        self.close_connection = True

    def _early(self, status: int, headers: Mapping[str, str | None], body: bytes, length: int) -> None:
        """Answer first; then, as real servers do, read on for a moment so that the answer is not lost to a reset."""
        self._answer(status, {}, body, Fault(headers=headers))
        if not length:
            return
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.settimeout(0.5)
            while self.rfile.read1(65536):
                pass

    def _store(
        self, path: str, query: dict[str, str], body: bytes, trouble: Trouble
    ) -> tuple[int, dict[str, str], bytes]:
        match = re.fullmatch(r"/v2/(.+)/blobs/uploads/(.*)", path)
        if match:
            return self._upload(match[1], match[2], query, body, trouble)
        match = re.fullmatch(r"/v2/(.+)/manifests/(.+)", path)
        if match and self.command == "PUT":
            return self._manifest(match[1], match[2], body, trouble)
        return _error(404, "NAME_UNKNOWN", "no such thing")

    def _upload(
        self, repository: str, session: str, query: dict[str, str], body: bytes, trouble: Trouble
    ) -> tuple[int, dict[str, str], bytes]:
        fake = self.server.fake
        if self.command == "POST":
            digest = query.get("mount", "")
            if digest and fake.mountable and (query.get("from", ""), digest) in fake.owned:
                fake.owned.add((repository, digest))
                return 201, {"Location": f"/v2/{repository}/blobs/{digest}", "Docker-Content-Digest": digest}, b""
            session = uuid.uuid4().hex
            fake.uploads[session] = bytearray()
            return 202, self._place(repository, session), b""
        if trouble.forget:
            fake.uploads.pop(session, None)
        if session not in fake.uploads:
            return _error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        held = fake.uploads[session]
        if self.command == "GET":
            return 204, self._place(repository, session), b""
        if self.command == "DELETE":
            del fake.uploads[session]
            return 204, {}, b""
        if self.command == "PATCH":
            return self._chunk(repository, session, body, trouble)
        held += body
        digest = query.get("digest", "")
        data = bytes(held)
        if trouble.flip:
            data = data[:-1] + bytes([data[-1] ^ 0xFF])
        if not trouble.lie and digest_of(bytes(held)) != digest:
            return _error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        del fake.uploads[session]
        if not trouble.lie:
            fake.blobs[digest] = data
            fake.owned.add((repository, digest))
        return 201, {"Location": f"/v2/{repository}/blobs/{digest}", "Docker-Content-Digest": digest}, b""

    def _chunk(self, repository: str, session: str, body: bytes, trouble: Trouble) -> tuple[int, dict[str, str], bytes]:
        fake = self.server.fake
        held = fake.uploads[session]
        start, _, _ = self.headers.get("Content-Range", "").partition("-")
        if int(start) != len(held):
            return 416, self._place(repository, session), b""
        taken = fake.chunks_taken[session] = fake.chunks_taken.get(session, 0) + 1
        if fake.chunks == "once" and taken > 1:
            return 201, self._place(repository, session), b""
        held += body if trouble.keep is None else body[: trouble.keep]
        return 202, self._place(repository, session), b""

    def _place(self, repository: str, session: str) -> dict[str, str]:
        fake = self.server.fake
        place = f"/v2/{repository}/blobs/uploads/{session}?_state=abc%3D%3D"
        if fake.upload_host is not None:
            fake.upload_host.uploads[session] = fake.uploads.setdefault(session, bytearray())
            place = fake.upload_host.url(place)
        elif fake.absolute:
            place = fake.url(place)
        headers = {"Location": place, "Range": f"0-{max(0, len(fake.uploads[session]) - 1)}"}
        if fake.least_chunk:
            headers["OCI-Chunk-Min-Length"] = str(fake.least_chunk)
        return headers

    def _manifest(
        self, repository: str, reference: str, body: bytes, trouble: Trouble
    ) -> tuple[int, dict[str, str], bytes]:
        fake = self.server.fake
        document = json.loads(body)
        named = [document["config"], *document.get("layers", [])] if "config" in document else []
        for one in named:
            if (repository, one["digest"]) not in fake.owned:
                return _error(400, "MANIFEST_BLOB_UNKNOWN", f"blob unknown to registry {one['digest']}")
        digest = digest_of(body)
        headers = {"Location": f"/v2/{repository}/manifests/{digest}", "Docker-Content-Digest": digest}
        if document.get("subject") and fake.subjects and fake.referrers_api:
            headers["OCI-Subject"] = document["subject"]["digest"]
        if not trouble.lie:
            kept = trouble.rewrite if trouble.rewrite is not None else body
            fake.put_manifest(repository, None if ":" in reference else reference, kept, self.headers["Content-Type"])
            if trouble.rewrite is not None:
                fake.manifests[(repository, digest)] = (kept, self.headers["Content-Type"])
        return 201, headers, b""

    def _content(self, path: str, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        match = re.fullmatch(r"/v2/(.+)/blobs/(sha256:.+)", path)
        if match and (match[1], match[2]) not in self.server.fake.owned:
            return _error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return super()._content(path, fault)


PushRegistry.handler = _PushHandler


def _error(status: int, code: str, message: str) -> tuple[int, dict[str, str], bytes]:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return status, {"Content-Type": "application/json"}, body
