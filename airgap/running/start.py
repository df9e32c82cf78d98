"""The steps before the processes start: static files gathered, the broker's configuration written, programs named."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from django.core.management import call_command

from airgap.running import broker, programs
from airgap.running.preconditions import CannotStart, kept_port
from airgap.running.programs import Instance, Program

DEMO_PORT = 5055


def fingerprint(folders: Sequence[Path], version: str) -> str:
    """Changes when a static file is added, removed or edited, or the program is another version."""
    found = hashlib.sha256(version.encode())
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                stat = path.stat()
                found.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return found.hexdigest()


def gather_static_files(folders: Sequence[Path], root: Path, version: str) -> None:
    """collectstatic, unless nothing has changed since the last time (compressing takes a second)."""
    stamp, current = root / ".gathered", fingerprint(folders, version)
    if stamp.exists() and stamp.read_text() == current:
        return
    call_command("collectstatic", interactive=False, verbosity=0)
    root.mkdir(exist_ok=True)
    stamp.write_text(current)


def prepare_broker(instance: Instance) -> list[Program]:
    """The private server's program, configured; none where REDIS_URL names a server."""
    if instance.socket is None:
        return []
    if broker.answers(instance.socket):
        raise CannotStart(
            f"Airgap is already running on {instance.data}: its broker answers on {instance.socket}. "
            "Stop it first (services: systemctl stop airgap.target), or set AIRGAP_DATA_DIR for a second instance."
        )
    server = broker.find_server()
    return [programs.broker(server.path, broker.write_configuration(instance.socket, instance.data, server))]


def demo_port(instance: Instance) -> int:
    return kept_port(instance.data / "demo" / "port", DEMO_PORT)


def all_programs(instance: Instance, *, upstream_port: int | None = None) -> list[Program]:
    """Everything `manage.py up` runs, the broker configured and first."""
    extra = [programs.demo_upstream(instance, upstream_port)] if upstream_port else []
    core = [programs.web(instance), programs.worker(instance), programs.scheduler(instance)]
    return [*prepare_broker(instance), *extra, *core]


def one_program(instance: Instance, name: str) -> Program:
    """One of the programs that a container runs by itself; the broker is another container there."""
    return {"web": programs.web, "worker": programs.worker, "scheduler": programs.scheduler}[name](instance)
