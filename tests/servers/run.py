"""`make test-servers`: the suite on a throw-away PostgreSQL cluster and a stand-alone redis-server, both on loopback.

Plain Python. First everything but the tests marked `servers`, then those by themselves, because their two workers take
every message they find. Exit status: pytest's, 1 if anything failed, 2 if a server program is missing.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from urllib.parse import quote

BASE = Path(__file__).resolve().parent.parent.parent
NO_TESTS = 5  # pytest's exit status where nothing was selected


class CannotRun(Exception):
    """One sentence: what is missing and how to get it."""


def find_programs() -> tuple[Path, str]:
    """PostgreSQL's folder of programs (the newest of Debian's, else where PATH finds initdb), and redis-server."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    initdb = debian[-1] if debian else Path(shutil.which("initdb") or "")
    redis = shutil.which("redis-server")
    missing = [package for found, package in ((initdb.is_file(), "postgresql"), (redis, "redis-server")) if not found]
    if missing or redis is None:
        raise CannotRun(f"Missing here: {' and '.join(missing)}. Install with: apt install {' '.join(missing)}")
    return initdb.parent, redis


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def unprivileged() -> dict[str, object]:
    """How to start PostgreSQL, which refuses to run as root: as the user of Debian's package."""
    if os.geteuid() != 0:
        return {}
    try:
        account = pwd.getpwnam("postgres")
    except KeyError:
        raise CannotRun(
            "PostgreSQL does not run as root, and there is no user postgres: apt install postgresql"
        ) from None
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


@contextmanager
def running(command: list[str], log: Path, port: int, **options: object) -> Iterator[None]:
    """A server that listens on the port while the block runs; CannotRun with its log if it does not come up."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **options)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    said = log.read_text(errors="replace")[-2000:]
                    raise CannotRun(f"{command[0]} did not start:\n{said}") from None
                time.sleep(0.1)
        yield
    finally:
        # SIGINT is PostgreSQL's fast shutdown: connections are cut, nothing is waited for.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def postgresql(programs: Path, folder: Path) -> Iterator[str]:
    """DATABASE_URL of a new cluster. Nothing of it needs to survive, so nothing is fsynced."""
    password, port, account = secrets.token_urlsafe(16), free_port(), unprivileged()
    folder.mkdir()
    password_file = folder / "password"
    password_file.write_text(password)
    if account:
        for path in (folder, password_file):
            shutil.chown(path, "postgres", "postgres")
    cluster = folder / "cluster"
    command = [str(programs / "initdb"), "--pgdata", str(cluster), "--username", "airgap", "--no-sync"]
    command += ["--pwfile", str(password_file), "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8"]
    made = subprocess.run(command, capture_output=True, text=True, cwd="/", **account)
    if made.returncode:
        raise CannotRun(f"initdb failed:\n{made.stderr}")
    command = [str(programs / "postgres"), "-D", str(cluster), "-p", str(port), "-k", str(folder)]
    for setting in ("listen_addresses=127.0.0.1", "fsync=off", "synchronous_commit=off", "full_page_writes=off"):
        command += ["-c", setting]
    with running(command, folder.with_suffix(".log"), port, cwd="/", **account):
        yield f"postgres://airgap:{quote(password)}@127.0.0.1:{port}/postgres"


@contextmanager
def redis_server(program: str, folder: Path) -> Iterator[str]:
    """REDIS_URL, without a database number."""
    port = free_port()
    folder.mkdir()
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    with running([*command, "--save", "", "--appendonly", "no"], folder.with_suffix(".log"), port):
        yield f"redis://127.0.0.1:{port}"


def run_tests(arguments: list[str], database: str, redis: str) -> int:
    """Both parts; the first exit status that is neither 0 nor `nothing selected`, else 0."""
    environment = {**os.environ, "DATABASE_URL": database, "AIRGAP_TEST_SERVERS": "1"}
    worst = 0
    for number, selection in enumerate((["-n", "2", "--dist", "worksteal", "-m", "not servers"], ["-m", "servers"])):
        command = [sys.executable, "-m", "pytest", *selection, *arguments]
        status = subprocess.run(command, cwd=BASE, env={**environment, "REDIS_URL": f"{redis}/{number}"}).returncode
        if status not in (0, NO_TESTS) and not worst:
            worst = status
    return worst


def stop(number: int, frame: FrameType | None) -> None:
    # Turned into an exception, so that the servers are stopped on the way out.
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        programs, redis_program = find_programs()
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="airgap-servers-")))
            # PostgreSQL's user must reach its folder in it.
            folder.chmod(0o711)
            database = stack.enter_context(postgresql(programs, folder / "postgresql"))
            redis = stack.enter_context(redis_server(redis_program, folder / "redis"))
            return run_tests(arguments, database, redis)
    except CannotRun as problem:
        sys.stderr.write(f"{problem}\n")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
