"""What must hold before anything starts: a data directory we can write, no second instance on it, a free port."""

import errno
import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CannotStart(Exception):
    """One sentence for the operator: what is wrong, where, and the next step."""


def prepare_data_directory(data: Path) -> None:
    """Make the data directory and the folders the processes need; CannotStart if it cannot be written.

    A new one is closed to other users of the machine: a session read from the database is as good as a password.
    """
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("run", "logs"):
            (data / name).mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=data) as file:
            file.write(b"written")
    except OSError as error:
        raise CannotStart(
            f"The data directory {data} cannot be written ({error.strerror}). "
            "Make it writable for this user, or set AIRGAP_DATA_DIR to a directory that is."
        ) from None


@contextmanager
def only_instance(data: Path) -> Iterator[None]:
    """Hold the data directory for this process; CannotStart if another one holds it. Ends with the process."""
    with (data / "run" / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise CannotStart(
                    f"The file {file.name} cannot be locked ({error.strerror}). "
                    "Set AIRGAP_DATA_DIR to a directory on a filesystem that supports flock."
                ) from None
            file.seek(0)
            holder = file.read(20).strip()
            raise CannotStart(
                f"Airgap is already running on {data}{f' (process {holder})' if holder.isdigit() else ''}. "
                "Stop that one first, or set AIRGAP_DATA_DIR and AIRGAP_BIND for a second one."
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def address_of(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Family and address to bind; brackets around an IPv6 host are taken off. CannotStart for an unknown name."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise CannotStart(
            f"AIRGAP_BIND names the host {host}, which is unknown here ({error.strerror}). "
            "Use an address of this machine."
        ) from None
    family, _, _, _, address = found[0]
    return family, (str(address[0]), port)


def port_is_free(host: str, port: int) -> bool:
    """False only where another program listens; other refusals to bind raise CannotStart."""
    family, address = address_of(host, port)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            advice = {
                errno.EACCES: "Ports below 1024 need a privilege; use a higher one and put nginx in front.",
                errno.EADDRNOTAVAIL: "Use an address of this machine.",
            }.get(error.errno or 0, "Set AIRGAP_BIND to another host:port.")
            raise CannotStart(f"{host}:{port} cannot be listened on ({error.strerror}). {advice}") from None
    return True


def require_port(host: str, port: int) -> None:
    if not port_is_free(host, port):
        other = port + 1 if port < 65535 else 8001
        raise CannotStart(
            f"Port {port} on {host} is taken by another program. "
            f"Stop that program, or choose another port: AIRGAP_BIND={host}:{other}"
        )


def kept_port(record: Path, first: int) -> int:
    """The loopback port in `record` if it is free, else from `first` on the next free one, which is then kept there."""
    candidates = list(range(first, min(first + 200, 65536)))
    try:
        candidates.insert(0, int(record.read_text()))
    except (OSError, ValueError):
        pass
    for port in candidates:
        if port_is_free("127.0.0.1", port):
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(f"{port}\n")
            return port
    raise CannotStart(f"None of 200 ports from {first} on is free on 127.0.0.1; stop what uses them.")
