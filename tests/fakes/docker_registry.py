"""A real docker-registry on loopback, with htpasswd and TLS from a private authority where asked for.

with DockerRegistry(tmp_path, login=True, authority=Authority()) as registry:
    registry.host, registry.authority.pem, registry.USERNAME, registry.PASSWORD
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import pytest

from tests.fakes.tls import Authority

needs_docker_registry = pytest.mark.skipif(
    shutil.which("docker-registry") is None, reason="docker-registry is not installed (apt install docker-registry)"
)


class DockerRegistry:
    """Its storage is under `folder`, and stays there when it is stopped."""

    USERNAME, PASSWORD = "robot", "geheim-123"
    # `htpasswd -Bbn -C 4 robot geheim-123`
    HTPASSWD = "robot:$2y$04$ITFHHBsgOwz./YcT3UITz.zH1t0SsyVP8MYlheq8WOq54XDOyA0bu\n"

    def __init__(self, folder: Path, *, login: bool = False, authority: Authority | None = None) -> None:
        self.folder, self.authority = folder, authority
        folder.mkdir(exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{probe.getsockname()[1]}"
        lines = [
            "version: 0.1",
            "log: {level: error, accesslog: {disabled: true}}",
            f"storage: {{filesystem: {{rootdirectory: {folder / 'storage'}}}, delete: {{enabled: true}}}}",
        ]
        http = f"addr: {self.host}"
        if authority is not None:
            certificate = authority.issue("127.0.0.1", "localhost")
            (folder / "cert.pem").write_text(certificate.certificate_pem)
            (folder / "key.pem").write_text(certificate.key_pem)
            http += f", tls: {{certificate: {folder / 'cert.pem'}, key: {folder / 'key.pem'}}}"
        lines.append(f"http: {{{http}}}")
        if login:
            (folder / "htpasswd").write_text(self.HTPASSWD)
            lines.append(f"auth: {{htpasswd: {{realm: plant, path: {folder / 'htpasswd'}}}}}")
        self._configuration = folder / "config.yml"
        self._configuration.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        log = (self.folder / "log").open("wb")
        environment = dict(os.environ, OTEL_TRACES_EXPORTER="none")
        argv = ["docker-registry", "serve", str(self._configuration)]
        self._process = subprocess.Popen(argv, stdout=log, stderr=log, env=environment)
        log.close()
        host, port = self.host.split(":")
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text(errors="replace")[-500:])
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
