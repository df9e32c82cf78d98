"""Takes the place of one program: dies with its parent, and waits a little longer each time that program keeps dying.

Run as a file (`python -I launch.py …`), not as a module: importing the package would cost half a second a start.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LIVED = 10.0  # seconds after which a program that ends again counts as a first failure
LONGEST_WAIT = 30.0


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere nothing happens, and stopping relies on signals alone."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process `number` when its parent ends, however that ends. Survives exec."""
    parent = os.getppid()
    _prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ended, so that none can hide from the final sweep."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def wait_before_start(record: Path, now: float) -> float:
    """Seconds to wait before this start: 0 at first, then 1, 2, 4 … 30 while the program keeps dying young.

    `record` holds [failures in a row, time of the last start]; a broken record counts as none.
    """
    failures = 0
    try:
        before, started = json.loads(record.read_text())
        if 0 <= now - float(started) < LIVED:
            failures = int(before) + 1
    except (OSError, ValueError, TypeError):
        pass
    wait = min(2.0 ** (min(failures, 10) - 1), LONGEST_WAIT) if failures else 0.0
    try:
        record.write_text(json.dumps([failures, now + wait]))
    except OSError:
        # A full disk must not keep a program from starting.
        pass
    return wait


def supervise(arguments: list[str]) -> None:
    """Become supervisord. On a full disk a line of a log is lost, and not everything with it: supervisord would tell of
    the line on its stderr, which lies on that disk too, and end."""
    from supervisor import loggers, supervisord

    loggers.Handler.handleError = lambda handler: None
    supervisord.main(arguments)


def main(arguments: list[str]) -> None:
    """`launch.py supervise -c CONFIGURATION`, or `launch.py program PROGRAMS_FILE NAME`."""
    if arguments[0] == "supervise":
        die_with_parent(signal.SIGTERM)
        supervise(arguments[1:])
        return
    die_with_parent(signal.SIGKILL)
    programs_file, name = Path(arguments[1]), arguments[2]
    program = json.loads(programs_file.read_text())[name]
    time.sleep(wait_before_start(programs_file.with_name(f"{name}.starts"), time.time()))
    os.chdir(program["directory"])
    os.execv(program["argv"][0], program["argv"])


if __name__ == "__main__":
    main(sys.argv[1:])
