"""gunicorn with our worker and a little site, started as programs.py starts it."""

import http.client
import os
import resource
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.running.programs import Instance, web

BASE = Path(__file__).resolve().parents[3]
SIZE = 48 << 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, folder: Path, site: str = "site", worker: str = "", **environment: str) -> None:
        self.port = free_port()
        self.folder = folder
        self.file = folder / "file"
        if not self.file.exists():
            self.file.write_bytes(os.urandom(1 << 20) * (SIZE >> 20))
        self.log = folder / "log"
        instance = Instance(
            base=BASE, data=folder, host="127.0.0.1", port=self.port, base_url="", socket=None, workers=1,
            web_threads=int(environment.pop("AIRGAP_WEB_THREADS", "4")),
        )  # fmt: skip
        argv = [*web(instance).argv[:-1], f"tests.running.serving.{site}"]
        if worker:
            argv[argv.index("--worker-class") + 1] = worker
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AIRGAP_", "DJANGO_"))}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                argv, cwd=BASE, stdout=log, stderr=log,
                env={**clean, "AIRGAP_DATA_DIR": str(folder), "TEST_FILE": str(self.file), **environment},
            )  # fmt: skip
        self.context: ssl.SSLContext | None = None

    def connect(self, *, receive: int | None = None) -> socket.socket:
        plain = socket.socket()
        if receive:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        plain.settimeout(10)
        plain.connect(("127.0.0.1", self.port))
        return self.context.wrap_socket(plain, server_hostname="127.0.0.1") if self.context else plain

    def ask(self, request: bytes) -> socket.socket:
        connected = self.connect()
        connected.sendall(request)
        return connected

    def get(self, path: str, body: bytes | None = None) -> str:
        kind = http.client.HTTPSConnection if self.context else http.client.HTTPConnection
        options = {"context": self.context} if self.context else {}
        connection = kind("127.0.0.1", self.port, timeout=10, **options)
        try:
            connection.request("POST" if body is not None else "GET", path, body)
            return connection.getresponse().read().decode("latin-1")
        finally:
            connection.close()

    def wait_until_ready(self) -> "Server":
        deadline = time.monotonic() + 30
        while True:
            try:
                self.get("/")
                return self
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.05)

    def worker(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.worker()}/fd").iterdir()))

    def memory(self) -> float:
        """MiB of the worker that are in memory."""
        lines = Path(f"/proc/{self.worker()}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("serving"), AIRGAP_PULL_THREADS="4")
    try:
        yield started.wait_until_ready()
    finally:
        started.stop()


@pytest.fixture
def many_files():
    """As many open files as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
