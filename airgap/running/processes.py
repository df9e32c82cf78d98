"""What /proc tells about other processes: our descendants, and whether the `make` above us was interrupted.

Without /proc (macOS) there are no descendants to be found and no make to be watched; signals alone do the work there.
"""

import os
import signal
import time
from pathlib import Path

PROC = Path("/proc")


def descendants(root: int) -> list[int]:
    """Process ids of all children of `root`, theirs, and so on; zombies left out."""
    children: dict[int, list[int]] = {}
    for entry in PROC.glob("[0-9]*"):
        try:
            # The command may hold spaces and parentheses; the fields after its last parenthesis do not.
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(entry.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def reap() -> list[tuple[int, int]]:
    """(pid, wait status) of every child that has ended, adopted ones included."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended.append((pid, status))


def kill_descendants(seconds: float = 2.0) -> None:
    """SIGKILL whatever is still below us, again and again until nothing is (or `seconds` are over)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        reap()
        left = descendants(os.getpid())
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty if there is none."""
    try:
        return [os.fsdecode(part) for part in (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[:-1]]
    except OSError:
        return []


class MakeWatch:
    """Notices that the `make` which started us was told to stop, though nobody told us.

    GNU make hands SIGTERM on to its child, but not SIGINT: it takes it for the terminal's, which reaches everyone. A
    make that got one alone resets its own handler and waits for us (commands.c, fatal_error_signal); the kernel shows
    that as a missing bit in SigCgt. A make killed outright leaves us with another parent.
    """

    def __init__(self) -> None:
        self._parent = os.getppid()
        try:
            name = (PROC / str(self._parent) / "comm").read_text().strip()
        except OSError:
            name = ""
        self._watching = name in ("make", "gmake")
        self._caught = self._catches_interrupt()

    def _catches_interrupt(self) -> bool:
        try:
            text = (PROC / str(self._parent) / "status").read_text()
        except OSError:
            return False
        caught = next((line.split()[1] for line in text.splitlines() if line.startswith("SigCgt:")), "0")
        return bool(int(caught, 16) >> (signal.SIGINT - 1) & 1)

    def told_to_stop(self) -> bool:
        if not self._watching:
            return False
        return os.getppid() != self._parent or (self._caught and not self._catches_interrupt())
