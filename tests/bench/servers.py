"""What the bench runs against, all on loopback: docker-registry, nginx, and a wire that breaks when told to."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import requests

from tests.bench.layer import Blob

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
JAVA_LAYER = "application/vnd.aquasec.trivy.javadb.layer.v1.tar+gzip"
JAVA_ARTIFACT = "application/vnd.aquasec.trivy.config.v1+json"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    argv: list[str], port: int, log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server until the block ends; entered when it answers on the port."""
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, env=env)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{argv[0]} did not start: {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Registry:
    """docker-registry with its storage under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.folder = folder
        folder.mkdir()
        self.configuration = folder / "config.yml"
        self.configuration.write_text(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
            f"storage: {{filesystem: {{rootdirectory: {folder / 'storage'}}}}}\n"
            f"http: {{addr: {self.host}}}\n"
        )

    @contextmanager
    def serving(self) -> Iterator[Self]:
        argv = ["docker-registry", "serve", str(self.configuration)]
        with running(argv, self.port, self.folder / "log", dict(os.environ, OTEL_TRACES_EXPORTER="none")):
            yield self

    def push(self, repository: str, tag: str, layer: Blob, media_type: str, title: str, artifact_type: str) -> None:
        """One layer and an empty config, as upstream's `oras push --artifact-type` does."""
        config = b"{}"
        config_digest = "sha256:" + hashlib.sha256(config).hexdigest()
        self._upload(repository, config_digest, config)
        with layer.path.open("rb") as file:
            self._upload(repository, layer.digest, file)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config_digest, "size": len(config)},
            "layers": [
                {
                    "mediaType": media_type,
                    "digest": layer.digest,
                    "size": layer.size,
                    "annotations": {"org.opencontainers.image.title": title},
                }
            ],
        }
        answer = requests.put(
            f"http://{self.host}/v2/{repository}/manifests/{tag}",
            data=json.dumps(manifest).encode(),
            headers={"Content-Type": MANIFEST},
        )
        answer.raise_for_status()

    def _upload(self, repository: str, digest: str, data: object) -> None:
        begun = requests.post(f"http://{self.host}/v2/{repository}/blobs/uploads/")
        begun.raise_for_status()
        location = begun.headers["Location"]
        answer = requests.put(
            location + ("&" if "?" in location else "?") + f"digest={digest}",
            data=data,  # type: ignore[arg-type]
            headers={"Content-Type": "application/octet-stream"},
        )
        answer.raise_for_status()


@contextmanager
def nginx(folder: Path, root: Path) -> Iterator[str]:
    """nginx as Debian configures it (sendfile, tcp_nopush), serving the files of `root`; its URL."""
    port = free_port()
    folder.mkdir()
    configuration = folder / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration.write_text(
        f"{user}worker_processes auto;\npid {folder}/pid;\nerror_log {folder}/error.log;\ndaemon off;\n"
        f"events {{ worker_connections 768; }}\nhttp {{\nsendfile on;\ntcp_nopush on;\naccess_log off;\n{temporary}"
        f"server {{ listen 127.0.0.1:{port}; root {root}; }}\n}}\n"
    )
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") or "nginx"
    with running([program, "-p", str(folder), "-c", str(configuration)], port, folder / "log"):
        yield f"http://127.0.0.1:{port}/"


class BreakingWire:
    """A TCP forwarder that counts what it sends to the client and, once, at `at` bytes, calls `event`.

    `event` gets the client's socket; what it returns true for breaks the connection. Small buffers, so that what is
    counted as sent is not megabytes ahead of what arrived.
    """

    def __init__(self, target: int, at: int, event: Callable[[], bool]) -> None:
        self._target, self._at, self._event = target, at, event
        self.sent = 0
        self._happened = False
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(16)
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
            threading.Thread(target=self._forward, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, True), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(128 * 1024):
                sink.sendall(data)
                if not counted:
                    continue
                self.sent += len(data)
                if not self._happened and self.sent >= self._at:
                    self._happened = True
                    if self._event():
                        break
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        sink.close()
