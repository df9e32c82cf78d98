"""A scriptable registry on loopback, with every fault a real one has shown.

    with FakeRegistry() as fake:                       # plain HTTP: give the client insecure=True
        digest = fake.push("aquasec/trivy-db", "2", layers=[(data, LAYER_TYPE, "db.tar.gz")])
        fake.reference("aquasec/trivy-db", "2")        # "127.0.0.1:40001/aquasec/trivy-db:2"
        fake.fault("/blobs/", cut_after=1000)          # once: break the connection after 1000 body bytes
        fake.fault("/manifests/", method="HEAD", status=405, times=None)   # always
        fake.count("GET", "/blobs/")                   # how many such requests came
        fake.requests[-1].headers["Range"]

TLS:        `FakeRegistry(tls=True)`; its CA is `fake.ca_pem`. `tls=ServerCertificate` for an odd certificate.
Tokens:     `fake.require_token(username="", password="")`; Basic: `fake.require_basic("u", "p")`.
Redirects:  `fake.blob_host = other` sends every blob GET to another FakeRegistry (307, with a secret in the query).
Files:      `fake.put_file("/archive.tar.gz", data, headers={"ETag": '"x"'})` serves any path, with the same faults,
            Range, HEAD and If-None-Match; `fake.url("/archive.tar.gz")` is its address.
Faults:     see `Fault`; each is used `times` times (None: for ever); the first that matches wins.

Nothing sleeps longer than asked, and leaving the block ends every stall. Answers are counted in `fake.requests` as
soon as their head was read.
"""

import base64
import contextlib
import hashlib
import json
import re
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.fakes.tls import Authority, ServerCertificate

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
EMPTY_CONFIG = b"{}"

_authority: Authority | None = None
_authority_lock = threading.Lock()


def shared_authority() -> Authority:
    """One authority for all fakes of a test run."""
    global _authority
    with _authority_lock:
        if _authority is None:
            _authority = Authority("Airgap Test Authority")
        return _authority


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Recorded:
    """A request as it arrived. `path` has no query; `query` maps names to their first value."""

    method: str
    path: str
    query: dict[str, str]
    headers: HTTPMessage
    at: float


@dataclass
class Fault:
    """What goes wrong with a request whose path contains `path` (and whose method is `method`, if given).

    status, body, headers   answer this instead (headers are added to, or replace, those of a normal answer;
                            a header given as None is left out)
    delay                   seconds of silence before the answer's head
    stall                   never answer at all (until the fake closes)
    drop                    close the connection without an answer
    cut_after               send so many body bytes, then break the connection
    stall_after             send so many body bytes, then silence
    trickle                 (bytes, seconds): send the body in such pieces with such pauses
    flip                    change one byte of the body in the middle (wrong digest, right length)
    data                    send these bytes instead of the right ones (status and type stay)
    endless                 send bytes for ever, chunked, without a Content-Length
    chunked                 send the body chunked, without a Content-Length
    close_delimited         send the body without a Content-Length and close after it
    ignore_range            answer 200 with everything to a Range request
    content_range           send this text as Content-Range
    redirect                answer 307 to this URL (with `status`: that status)
    header_trickle          seconds between single bytes of the answer's head
    """

    path: str = ""
    method: str | None = None
    times: int | None = 1
    status: int | None = None
    body: bytes | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    delay: float = 0
    stall: bool = False
    drop: bool = False
    cut_after: int | None = None
    stall_after: int | None = None
    trickle: tuple[int, float] | None = None
    flip: bool = False
    data: bytes | None = None
    endless: bool = False
    chunked: bool = False
    close_delimited: bool = False
    ignore_range: bool = False
    content_range: str | None = None
    redirect: str | None = None
    header_trickle: float = 0

    def matches(self, method: str, path: str) -> bool:
        return self.times != 0 and self.path in path and self.method in (None, method)


@dataclass(frozen=True)
class _Authentication:
    scheme: str
    username: str
    password: str
    realm: str
    challenge: str | None
    expires_in: int | None
    token_key: str


class FakeRegistry:
    """See the module's docstring."""

    # What answers requests, where it is not this file's own.
    handler: type["_Handler"] | None = None

    def __init__(self, *, tls: bool | ServerCertificate = False, address: str = "127.0.0.1") -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.files: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.requests: list[Recorded] = []
        self.faults: list[Fault] = []
        self.blob_host: FakeRegistry | None = None
        self.referrers_api = True
        self.connections = 0
        self.tokens_issued: list[str] = []
        self._revoked: set[str] = set()
        self._authentication: _Authentication | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._context: ssl.SSLContext | None = None
        if tls:
            certificate = tls if isinstance(tls, ServerCertificate) else shared_authority().issue()
            self._context = certificate.context()
        self._server = _Server((address, 0), self, self._context)
        self.address = address
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True)

    # Life

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering; every open connection is broken. May be called before the block ends."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.break_connections()
        self._thread.join(5)

    # Names

    @property
    def scheme(self) -> str:
        return "https" if self._context else "http"

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`, as it stands in a reference."""
        return f"{self.address}:{self.port}"

    @property
    def ca_pem(self) -> str:
        return shared_authority().pem

    def url(self, path: str = "/") -> str:
        return f"{self.scheme}://{self.host}{path}"

    def reference(self, repository: str, tag: str) -> str:
        return f"{self.host}/{repository}{'@' if tag.startswith('sha256:') else ':'}{tag}"

    # Contents

    def put_blob(self, data: bytes) -> str:
        digest = digest_of(data)
        self.blobs[digest] = data
        return digest

    def put_manifest(self, repository: str, tag: str | None, data: bytes, media_type: str = OCI_MANIFEST) -> str:
        """Store these bytes under the tag (if any) and under their digest."""
        digest = digest_of(data)
        with self._lock:
            self.manifests[(repository, digest)] = (data, media_type)
            if tag is not None:
                self.manifests[(repository, tag)] = (data, media_type)
        return digest

    def put_file(self, path: str, data: bytes, headers: Mapping[str, str] | None = None) -> str:
        """Serve `data` at `path`; the answer is its address."""
        self.files[path] = (data, dict(headers or {}))
        return self.url(path)

    def push(
        self,
        repository: str,
        tag: str | None,
        layers: Iterable[tuple[bytes, str, str | None]] = (),
        *,
        annotations: Mapping[str, str] | None = None,
        created: datetime | None = None,
        artifact_type: str | None = "application/vnd.aquasec.trivy.config.v1+json",
        config: bytes = EMPTY_CONFIG,
        config_type: str = OCI_EMPTY,
        media_type: str = OCI_MANIFEST,
        subject: Mapping[str, Any] | None = None,
        change: Mapping[str, Any] | None = None,
    ) -> str:
        """Push an image manifest as `oras push` makes it; `layers` are (bytes, media type, title or None).

        `change` overrides or, with None, removes keys of the manifest. The answer is the manifest's digest.
        """
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
        if artifact_type:
            document["artifactType"] = artifact_type
        document["config"] = {"mediaType": config_type, "digest": self.put_blob(config), "size": len(config)}
        document["layers"] = [self._layer(*layer) for layer in layers]
        if subject:
            document["subject"] = dict(subject)
        notes = {"org.opencontainers.image.created": (created or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")}
        document["annotations"] = notes | dict(annotations or {})
        for key, value in (change or {}).items():
            if value is None:
                document.pop(key, None)
            else:
                document[key] = value
        return self.put_manifest(repository, tag, json.dumps(document).encode(), media_type)

    def push_index(
        self,
        repository: str,
        tag: str | None,
        manifests: Sequence[tuple[str, Mapping[str, str] | None]],
        *,
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        """Push an index of manifests already there: (digest, platform or None) each."""
        entries = []
        for digest, platform in manifests:
            data, media_type = self.manifests[(repository, digest)]
            entry: dict[str, Any] = {"mediaType": media_type, "digest": digest, "size": len(data)}
            if platform:
                entry["platform"] = dict(platform)
            entries.append(entry)
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        if annotations:
            document["annotations"] = dict(annotations)
        return self.put_manifest(repository, tag, json.dumps(document).encode(), OCI_INDEX)

    def _layer(self, data: bytes, media_type: str, title: str | None = None) -> dict[str, Any]:
        layer: dict[str, Any] = {"mediaType": media_type, "digest": self.put_blob(data), "size": len(data)}
        if title is not None:
            layer["annotations"] = {"org.opencontainers.image.title": title}
        return layer

    # Faults and counting

    def fault(self, path: str = "", method: str | None = None, times: int | None = 1, **what: Any) -> Fault:
        """Script a fault; see `Fault` for the keywords."""
        fault = Fault(path=path, method=method, times=times, **what)
        with self._lock:
            self.faults.append(fault)
        return fault

    def count(self, method: str | None = None, path: str = "") -> int:
        return len(self.seen(method, path))

    def seen(self, method: str | None = None, path: str = "") -> list[Recorded]:
        with self._lock:
            return [r for r in self.requests if method in (None, r.method) and path in r.path]

    def forget_requests(self) -> None:
        with self._lock:
            self.requests.clear()

    # Authentication

    def require_token(
        self,
        *,
        username: str = "",
        password: str = "",
        realm: str | None = None,
        challenge: str | None = None,
        expires_in: int | None = 300,
        token_key: str = "token",
    ) -> None:
        """Ask for a Bearer token from now on; with a username, the token endpoint (`/token`) asks for Basic.

        `realm` is another token endpoint's URL, `challenge` the whole WWW-Authenticate header instead.
        """
        self._authentication = _Authentication(
            "bearer", username, password, realm or self.url("/token"), challenge, expires_in, token_key
        )

    def require_basic(self, username: str, password: str) -> None:
        self._authentication = _Authentication("basic", username, password, "fake", None, None, "")

    def revoke_tokens(self) -> None:
        """Every token issued so far is refused with 401 from now on."""
        self._revoked.update(self.tokens_issued)

    # What the handler asks

    def _take_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.matches(method, path):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    def _challenge(self, authorization: str, path: str) -> str | None:
        """The WWW-Authenticate text where the request is not authorized."""
        rule = self._authentication
        if rule is None:
            return None
        if rule.scheme == "basic":
            wanted = "Basic " + base64.b64encode(f"{rule.username}:{rule.password}".encode()).decode()
            return None if authorization == wanted else f'Basic realm="{rule.realm}"'
        match = re.fullmatch(r"/v2/(.+)/(?:manifests|blobs|tags|referrers)/.+", path)
        scope = f"repository:{match[1]}:pull" if match else ""
        token = authorization.removeprefix("Bearer ")
        if token in self.tokens_issued and token not in self._revoked and token.endswith(f"|{scope}"):
            return None
        text = f'Bearer realm="{rule.realm}",service="fake"' + (f',scope="{scope}"' if scope else "")
        return rule.challenge or text

    def _token(self, query: Mapping[str, str], authorization: str) -> tuple[int, bytes]:
        rule = self._authentication
        if rule is None or rule.scheme != "bearer":
            return 404, b""
        if rule.username:
            wanted = "Basic " + base64.b64encode(f"{rule.username}:{rule.password}".encode()).decode()
            if authorization != wanted:
                return 401, b'{"errors":[{"code":"UNAUTHORIZED","message":"bad credentials"}]}'
        token = f"t{len(self.tokens_issued)}|{query.get('scope', '')}"
        self.tokens_issued.append(token)
        answer: dict[str, Any] = {rule.token_key: token}
        if rule.expires_in is not None:
            answer["expires_in"] = rule.expires_in
        return 200, json.dumps(answer).encode()

    def _referrers(self, repository: str, digest: str) -> bytes:
        entries = []
        for (name, reference), (data, media_type) in list(self.manifests.items()):
            if name != repository or not reference.startswith("sha256:"):
                continue
            with contextlib.suppress(ValueError, AttributeError):
                document = json.loads(data)
                if document.get("subject", {}).get("digest") == digest:
                    entries.append(
                        {
                            "mediaType": media_type,
                            "digest": reference,
                            "size": len(data),
                            "artifactType": document.get("artifactType", ""),
                        }
                    )
        return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], fake: FakeRegistry, context: ssl.SSLContext | None) -> None:
        self.fake = fake
        self.context = context
        self._open: set[socket.socket] = set()
        super().__init__(address, fake.handler or _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.fake.connections += 1
        connection = request
        try:
            if self.context is not None:
                connection = self.context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                self._open.add(connection)
                connection.settimeout(5)
                connection.do_handshake()
                connection.settimeout(None)
            elif request.recv(1, socket.MSG_PEEK) == b"\x16":
                # As real servers do with a TLS greeting: a plain answer, and the end.
                request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            self._open.add(connection)
            self.RequestHandlerClass(connection, client_address, self)
        except OSError:
            return
        finally:
            self._open.discard(connection)
            with contextlib.suppress(OSError):
                connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""

    def break_connections(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the requests stand in `fake.requests`."""

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    do_PUT = do_PATCH = do_DELETE = do_POST

    def _handle(self) -> None:
        fake = self.server.fake
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        recorded = Recorded(self.command, parts.path, query, self.headers, time.monotonic())
        with fake._lock:
            fake.requests.append(recorded)
        fault = fake._take_fault(self.command, parts.path) or Fault()
        if fault.delay and fake._closing.wait(fault.delay):
            self.close_connection = True
            return
        if fault.stall:
            fake._closing.wait()
        if fault.stall or fault.drop:
            self.close_connection = True
            return
        if fault.redirect is not None:
            self._answer(fault.status or 307, {"Location": fault.redirect}, fault.body or b"", fault)
            return
        if fault.status is not None:
            self._answer(fault.status, {"Content-Type": "application/json"}, fault.body or b"", fault)
            return
        status, headers, body = self._normal(parts.path, query, fault)
        self._answer(status, headers, body, fault)

    def _normal(self, path: str, query: Mapping[str, str], fault: Fault) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and whole body as a healthy registry answers."""
        fake = self.server.fake
        authorization = self.headers.get("Authorization", "")
        if path == "/token":
            status, body = fake._token(query, authorization)
            return status, {"Content-Type": "application/json"}, body
        if path in fake.files:
            data, extra = fake.files[path]
            if extra.get("ETag") and self.headers.get("If-None-Match") == extra["ETag"]:
                return 304, extra, b""
            return self._ranged(data, {"Content-Type": "application/octet-stream"} | extra, fault)
        if path.startswith("/cdn/") and path[5:] in fake.blobs:
            return self._ranged(fake.blobs[path[5:]], {"Content-Type": "application/octet-stream"}, fault)
        challenge = fake._challenge(authorization, path) if path.startswith("/v2/") else None
        if challenge is not None:
            body = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
            return 401, {"Content-Type": "application/json", "WWW-Authenticate": challenge}, body
        if path == "/v2/":
            return 200, {"Content-Type": "application/json"}, b"{}"
        return self._content(path, fault)

    def _content(self, path: str, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        fake = self.server.fake
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|referrers|tags)/(.+)", path)
        if match:
            repository, what, name = match.groups()
            if what == "manifests" and (repository, name) in fake.manifests:
                data, media_type = fake.manifests[(repository, name)]
                return 200, {"Content-Type": media_type, "Docker-Content-Digest": digest_of(data)}, data
            if what == "blobs" and name in fake.blobs:
                data = fake.blobs[name]
                if fake.blob_host is not None and self.command == "GET":
                    fake.blob_host.blobs.setdefault(name, data)
                    return 307, {"Location": fake.blob_host.url(f"/cdn/{name}?signature=very-secret")}, b""
                extra = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": name}
                return self._ranged(data, extra, fault)
            if what == "referrers" and fake.referrers_api:
                return 200, {"Content-Type": OCI_INDEX}, fake._referrers(repository, name)
            if what == "tags":
                tags = sorted(tag for repo, tag in fake.manifests if repo == repository and ":" not in tag)
                listing = json.dumps({"name": repository, "tags": tags}).encode()
                return 200, {"Content-Type": "application/json"}, listing
        code = "BLOB_UNKNOWN" if "/blobs/" in path else "MANIFEST_UNKNOWN" if "/manifests/" in path else "NOT_FOUND"
        body = json.dumps({"errors": [{"code": code, "message": "not known here"}]}).encode()
        return 404, {"Content-Type": "application/json"}, body

    def _ranged(self, data: bytes, headers: dict[str, str], fault: Fault) -> tuple[int, dict[str, str], bytes]:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not match or fault.ignore_range:
            return 200, headers, data
        start = int(match[1])
        end = min(int(match[2] or len(data) - 1), len(data) - 1)
        if start > end:
            return 416, headers | {"Content-Range": f"bytes */{len(data)}"}, b""
        text = fault.content_range or f"bytes {start}-{end}/{len(data)}"
        return 206, headers | {"Content-Range": text}, data[start : end + 1]

    def _answer(self, status: int, headers: dict[str, str], body: bytes, fault: Fault) -> None:
        if fault.data is not None:
            body = fault.data
        if fault.flip and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
        endless_or_chunked = fault.endless or fault.chunked
        head: dict[str, str | None] = {"Date": self.date_time_string(), **headers}
        if endless_or_chunked:
            head["Transfer-Encoding"] = "chunked"
        elif fault.close_delimited:
            head["Connection"] = "close"
            self.close_connection = True
        elif status != 304:
            head["Content-Length"] = str(len(body))
        for name, value in fault.headers.items():
            head = {key: old for key, old in head.items() if key.lower() != name.lower()}
            head[name] = value
        lines = [f"HTTP/1.1 {status} Scripted"] + [f"{k}: {v}" for k, v in head.items() if v is not None]
        raw = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        try:
            if fault.header_trickle:
                self._send_slowly(raw, 1, fault.header_trickle)
            else:
                self.wfile.write(raw)
            if self.command != "HEAD" and status not in (204, 304):
                self._send_body(body, fault)
        except OSError:
            self.close_connection = True

    def _send_body(self, body: bytes, fault: Fault) -> None:
        closing = self.server.fake._closing
        if fault.endless:
            while not closing.is_set():
                self.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        elif fault.trickle is not None:
            self._send_slowly(body, *fault.trickle)
        elif fault.cut_after is not None or fault.stall_after is not None:
            count = fault.cut_after if fault.cut_after is not None else fault.stall_after
            part = body[:count]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if fault.chunked and part else part)
            if fault.stall_after is not None:
                closing.wait()
            self.close_connection = True
        elif fault.chunked:
            for start in range(0, len(body), 0x10000):
                part = body[start : start + 0x10000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(body)

    def _send_slowly(self, data: bytes, piece: int, pause: float) -> None:
        for start in range(0, len(data), piece):
            self.wfile.write(data[start : start + piece])
            if self.server.fake._closing.wait(pause):
                raise ConnectionAbortedError
