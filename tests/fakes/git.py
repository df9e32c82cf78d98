"""A git server on loopback: dulwich's own, or `git http-backend` where the program is there, with faults on request.

with FakeGit(tmp_path) as server:
    commit = server.commit("vexhub.git", {"index.json": b"…"})
    server.url("vexhub.git")     # http://127.0.0.1:PORT/vexhub.git
"""

import io
import os
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

from dulwich.index import commit_tree
from dulwich.objects import Blob, Commit, Tag
from dulwich.repo import Repo
from dulwich.server import Backend
from dulwich.web import make_wsgi_chain

from tests.fakes.tls import ServerCertificate

Start = Callable[..., Any]
WHEN = 1_763_600_000


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Answer:
    """What is answered to the next requests for a path that ends so, instead of git's own."""

    path: str
    status: str = "200 OK"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Callable[[], Iterable[bytes]] = b""
    times: int | None = None


class FakeGit:
    """Repositories below a folder. `program` uses git itself, which speaks protocol 2 unless `version` is 0; dulwich's
    server speaks 0 only."""

    def __init__(
        self, root: Path, *, version: int = 2, program: bool = False, tls: ServerCertificate | None = None
    ) -> None:
        self.root = root
        self.version, self.program = version, program
        self.requests: list[Asked] = []
        self.answers: list[Answer] = []
        self.authorization = ""
        self.closing = threading.Event()
        root.mkdir(parents=True, exist_ok=True)
        self._dulwich = make_wsgi_chain(_Backend(root))
        self._server = _Server(("127.0.0.1", 0), _Quiet)
        self._server.set_app(self._app)
        self._tls = tls
        if tls is not None:
            self._server.socket = tls.context().wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, repository: str = "vexhub.git") -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}/{repository}"

    # Content

    def repository(self, name: str = "vexhub.git") -> Repo:
        path = self.root / name
        return Repo(str(path)) if path.exists() else Repo.init_bare(str(path), mkdir=True, default_branch=b"main")

    def commit(
        self,
        files: Mapping[str, bytes],
        name: str = "vexhub.git",
        branch: str = "main",
        *,
        links: Mapping[str, int] | None = None,
        when: int = WHEN,
        tag: str = "",
    ) -> str:
        """A new commit of exactly these files on the branch; its id. `links` are names with another mode."""
        with self.repository(name) as repo:
            entries = []
            for path, data in files.items():
                blob = Blob.from_string(data)
                repo.object_store.add_object(blob)
                entries.append((path.encode(), blob.id, (links or {}).get(path, 0o100644)))
            ref = b"refs/heads/" + branch.encode()
            commit = Commit()
            commit.tree = commit_tree(repo.object_store, entries)
            commit.parents = [repo.refs[ref]] if ref in repo.refs else []
            commit.author = commit.committer = b"Vera <vera@plant.example>"
            commit.author_time = commit.commit_time = when
            commit.author_timezone = commit.commit_timezone = 0
            commit.message = b"A change\n"
            repo.object_store.add_object(commit)
            repo.refs[ref] = commit.id
            if tag:
                self._tag(repo, tag, commit)
            return commit.id.decode()

    @staticmethod
    def _tag(repo: Repo, name: str, commit: Commit) -> None:
        tag = Tag()
        tag.tagger, tag.message, tag.name = b"Vera <vera@plant.example>", b"A release\n", name.encode()
        tag.tag_time, tag.tag_timezone = WHEN, 0
        tag.object = (Commit, commit.id)
        repo.object_store.add_object(tag)
        repo.refs[b"refs/tags/" + name.encode()] = tag.id

    # Behaviour

    def answer(self, path: str, **how: Any) -> None:
        self.answers.insert(0, Answer(path, **how))

    def count(self) -> int:
        return len(self.requests)

    def _app(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        environ["wsgi.input"] = io.BytesIO(body)
        headers = {
            key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key.startswith("HTTP_")
        }
        path, query = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
        self.requests.append(Asked(environ["REQUEST_METHOD"], path, query, headers, body))
        if self.authorization and headers.get("authorization") != self.authorization:
            start("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="git"'), ("Content-Length", "0")])
            return []
        for answer in self.answers:
            if path.endswith(answer.path) and answer.times != 0:
                if answer.times is not None:
                    answer.times -= 1
                start(answer.status, list(answer.headers.items()))
                return [answer.body] if isinstance(answer.body, bytes) else answer.body()
        if self.version == 0:
            environ.pop("HTTP_GIT_PROTOCOL", None)
        return self._program(environ, start, body) if self.program else self._dulwich(environ, start)

    def _program(self, environ: dict[str, Any], start: Start, body: bytes) -> Iterable[bytes]:
        variables = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": environ.get("HTTP_GIT_PROTOCOL", ""),
            "PATH_INFO": quote(environ["PATH_INFO"]),
            "QUERY_STRING": environ.get("QUERY_STRING", ""),
            "REQUEST_METHOD": environ["REQUEST_METHOD"],
            "CONTENT_TYPE": environ.get("CONTENT_TYPE", ""),
            "CONTENT_LENGTH": str(len(body)),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=variables, capture_output=True, timeout=30)
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.decode().split(": ", 1) for line in head.split(b"\r\n") if b": " in line)
        start(headers.pop("Status", "200 OK"), list(headers.items()))
        return [rest]


class _Backend(Backend):
    def __init__(self, root: Path) -> None:
        self.root = root

    def open_repository(self, path: str | bytes) -> Any:
        return Repo(str(self.root / os.fsdecode(path).strip("/")))


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was stopped


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def get_stderr(self) -> Any:
        return io.StringIO()

    def handle(self) -> None:
        try:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.parse_request():
                return
            handler = _Handler(self.rfile, self.wfile, self.get_stderr(), self.get_environ(), multithread=True)
            handler.request_handler = self  # type: ignore[attr-defined]  # ServerHandler logs through it
            handler.run(self.server.get_app())  # type: ignore[attr-defined]
        except (OSError, ssl.SSLError):
            pass


class _Handler(ServerHandler):
    def log_exception(self, exc_info: Any) -> None:
        pass
