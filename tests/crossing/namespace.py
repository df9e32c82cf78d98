"""A network namespace with a loopback of its own and no way out: the isolated side's building."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x40000000


def missing() -> str:
    """Why there can be none here; "" if there can."""
    absent = [program for program in ("unshare", "nsenter", "ip") if shutil.which(program) is None]
    if absent:
        return f"{' and '.join(absent)} not installed"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True)
    return "" if tried.returncode == 0 else "no network namespace may be made here (that needs root)"


class Namespace:
    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep infinity"],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        self.path = f"/proc/{self._holder.pid}/ns/net"

    def end(self) -> None:
        self._holder.terminate()
        self._holder.wait(5)
        assert self._holder.stdout is not None
        self._holder.stdout.close()

    @property
    def prefix(self) -> list[str]:
        """What goes before a command that shall run inside."""
        return ["nsenter", f"--net={self.path}"]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread's new sockets are inside meanwhile; those of other threads are not."""
        with Path("/proc/thread-self/ns/net").open("rb") as outside, Path(self.path).open("rb") as inside:
            _set(inside.fileno())
            try:
                yield
            finally:
                _set(outside.fileno())

    def script(self, command: str) -> Path:
        """A program that is `command` run inside, for whoever takes a path only (as Playwright for its browser)."""
        file = Path(tempfile.mkdtemp()) / "inside"
        file.write_text(f'#!/bin/sh\nexec {" ".join(self.prefix)} {command} "$@"\n')
        file.chmod(0o755)
        return file


def _set(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
