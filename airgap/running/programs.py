"""The processes Airgap consists of, as argument lists: one list for `make up` and for the systemd units."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHM = Path("/dev/shm")  # noqa: S108 - gunicorn's heartbeat file; a disk can stall it


@dataclass(frozen=True)
class Program:
    """`title` is what people read; `stop_seconds` is how long it may take to stop before it is killed."""

    name: str
    title: str
    argv: tuple[str, ...]
    stop_seconds: int


@dataclass(frozen=True)
class Instance:
    """Where one Airgap runs: what its programs need from the settings, as plain values."""

    base: Path
    data: Path
    host: str
    port: int
    base_url: str
    socket: Path | None
    workers: int
    web_threads: int
    tls: bool = False
    python: str = sys.executable

    @classmethod
    def from_settings(cls, settings: Any) -> "Instance":
        host, port = settings.AIRGAP_BIND
        return cls(
            base=settings.BASE_DIR,
            data=settings.AIRGAP_DATA_DIR,
            host=host,
            port=port,
            base_url=settings.AIRGAP_BASE_URL,
            socket=settings.AIRGAP_BROKER_SOCKET,
            workers=settings.CELERY_WORKER_CONCURRENCY,
            web_threads=settings.AIRGAP_WEB_THREADS,
            tls=bool(settings.AIRGAP_TLS_CERT),
        )

    @property
    def run(self) -> Path:
        return self.data / "run"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def url(self) -> str:
        """Where a person's browser finds it."""
        if self.base_url:
            return f"{self.base_url}/"
        host = "localhost" if self.host in ("0.0.0.0", "[::]", "::") else self.host  # noqa: S104
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}/"


def web(instance: Instance) -> Program:
    """gunicorn with threads, and a worker that keeps slow clients away from them (airgap/running/serving).

    `--timeout` watches the worker's main loop, which only dispatches; the `sync` worker would be killed in the middle
    of a long download (measured). One process is enough: sendfile works outside Python. TLS is the worker's part too.
    """
    argv = [instance.python, "-m", "gunicorn", "--config", str(instance.base / "airgap" / "running" / "web.py")]
    argv += [
        "--worker-class",
        "airgap.running.serving.worker.Worker",
        "--workers",
        "1",
        "--threads",
        str(instance.web_threads),
    ]
    argv += ["--bind", f"{instance.host}:{instance.port}", "--timeout", "120", "--graceful-timeout", "2"]
    # The control socket would be one file per user, shared by every instance.
    argv += ["--keep-alive", "5", "--backlog", "4096", "--no-control-socket", "--log-level", "warning"]
    if SHM.is_dir():
        argv += ["--worker-tmp-dir", str(SHM)]
    return Program("web", "web server", (*argv, "airgap.wsgi"), 4)


def worker(instance: Instance, node: str = "airgap") -> Program:
    argv = [instance.python, "-m", "celery", "--quiet", "-A", "airgap", "worker", "--pool", "threads"]
    argv += ["--concurrency", str(instance.workers), "--hostname", f"{node}@%h", "--loglevel", "WARNING"]
    return Program("worker", "worker", (*argv, "--without-gossip", "--without-mingle"), 8)


def scheduler(instance: Instance) -> Program:
    """Beat keeps its schedule in memory: two short intervals need no file, and a full disk cannot stop the tick.

    It runs with AIRGAP_SCHEDULE=off as well; the tick itself respects that, and housekeeping goes on.
    """
    argv = [instance.python, "-m", "celery", "--quiet", "-A", "airgap", "beat", "--scheduler", "celery.beat:Scheduler"]
    return Program("scheduler", "scheduler", (*argv, "--pidfile", "", "--loglevel", "WARNING"), 3)


def broker(server: str, configuration: Path) -> Program:
    return Program("broker", "broker", (server, str(configuration)), 3)


def demo_upstream(instance: Instance, port: int) -> Program:
    argv = [instance.python, "-m", "mirrors.demo.upstream", "--bind", f"127.0.0.1:{port}"]
    return Program("upstream", "demo upstream", (*argv, "--directory", str(instance.data / "demo" / "upstream")), 3)
