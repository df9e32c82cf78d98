"""The foreground of `manage.py up`: starts supervisord, says what happens, and leaves nothing behind when it stops.

This process outlives everything below it. It holds the signals, adopts orphans, starts supervisord again should that
die, and ends with a sweep. If it is itself killed outright, the kernel tells supervisord (launch.py), and that stops
the rest.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from airgap.running import supervision
from airgap.running.healthy import is_ready
from airgap.running.launch import adopt_orphans
from airgap.running.preconditions import CannotStart
from airgap.running.processes import MakeWatch, command_line, kill_descendants, reap
from airgap.running.programs import Instance, Program

STOP_SECONDS = 12.0  # the contract's 15 s, less the final sweep
READY_SECONDS = 60.0
Say = Callable[[str], None]


def wait_for_previous(instance: Instance, say: Say) -> None:
    """Where the last `up` was killed outright, its supervisord needs a moment to stop; what stays longer is killed."""
    try:
        pid = int((instance.run / "supervisord.pid").read_text())
    except (OSError, ValueError):
        return
    configuration = str(instance.run / "supervisord.conf")
    deadline = time.monotonic() + STOP_SECONDS
    said = False
    while configuration in command_line(pid):
        if not said:
            say("Waiting for the processes of the last run to stop.")
            said = True
        if time.monotonic() > deadline:
            # Its programs die with it.
            os.kill(pid, signal.SIGKILL)
            deadline += STOP_SECONDS
        time.sleep(0.1)


class Tail:
    """New lines of a file that somebody else writes and rotates."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity, self._offset = self._look()
        self._rest = ""

    def _look(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return 0, 0
        return found.st_ino, found.st_size

    def lines(self) -> list[str]:
        identity, size = self._look()
        if identity != self._identity or size < self._offset:
            self._identity, self._offset, self._rest = identity, 0, ""
        if size <= self._offset:
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read(size - self._offset)
        self._offset += len(data)
        *whole, self._rest = (self._rest + data.decode(errors="replace")).split("\n")
        return whole


class Runner:
    """One run in the foreground. `say` prints a line; `ready` is called once, when /healthz answers."""

    def __init__(self, instance: Instance, programs: Sequence[Program], say: Say, ready: Callable[[], None]) -> None:
        self.instance = instance
        self.say = say
        self.ready = ready
        self.titles = {program.name: program.title for program in programs}
        self.configuration = supervision.write_configuration(instance, programs)
        self.output = instance.run / "supervisord.out"
        self.asked_to_stop = ""
        self.supervisor = 0
        self.started = 0.0
        self.failures = 0

    def run(self) -> int:
        """Until a signal comes: 0. CannotStart if supervisord does not even begin."""
        adopt_orphans()
        woken = self._take_signals()
        make = MakeWatch()
        log = Tail(self.instance.logs / "supervisor.log")
        waiting = True
        complaint = READY_SECONDS
        self._start_supervisor()
        try:
            while not self.asked_to_stop:
                readable, _, _ = select.select([woken], [], [], 0.3 if waiting and self._age() < 10 else 1.0)
                if readable:
                    os.read(woken, 512)
                self._look_after_supervisor()
                self._report(log.lines())
                if make.told_to_stop():
                    self.asked_to_stop = "make was told to stop"
                if (
                    waiting
                    and not self.asked_to_stop
                    and is_ready(self.instance.host, self.instance.port, tls=self.instance.tls)
                ):
                    waiting = False
                    self.ready()
                elif waiting and self._age() > complaint:
                    complaint = float("inf")
                    self.say(f"There is no answer at {self.instance.url} yet; the logs stand in {self.instance.logs}")
            self.say("Stopping.")
        finally:
            self._stop()
        self.say("Airgap has stopped.")
        return 0

    def _age(self) -> float:
        """Seconds since supervisord was started."""
        return time.monotonic() - self.started

    def _report(self, lines: list[str]) -> None:
        for line in lines:
            words = supervision.in_plain_words(line, self.titles, self.instance.logs)
            if words and not self.asked_to_stop:
                self.say(words)

    def _take_signals(self) -> int:
        """Own handlers, also where the parent shell had set SIGINT to be ignored (it does for background jobs)."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)

        def stop(number: int, frame: FrameType | None) -> None:
            self.asked_to_stop = signal.Signals(number).name

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # nohup keeps its meaning.
            signal.signal(signal.SIGHUP, stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        return reading

    def _start_supervisor(self) -> None:
        command = [sys.executable, "-I", str(supervision.LAUNCHER), "supervise", "-c", str(self.configuration)]
        with self.output.open("wb") as output:
            # A session of its own: a Ctrl-C at the terminal reaches us only, and we stop it in order.
            process = subprocess.Popen(
                command,
                cwd=self.instance.run,
                env=supervision.environment(self.instance, dict(os.environ)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.supervisor = process.pid
        # reap() collects it; a returncode keeps Popen from waiting for it as well.
        process.returncode = 0
        self.started = time.monotonic()

    def _look_after_supervisor(self) -> None:
        if self.supervisor not in [pid for pid, _ in reap()]:
            return
        self.supervisor = 0
        if self.asked_to_stop:
            return
        kill_descendants()
        self.failures = self.failures + 1 if self._age() < 10 else 1
        if self.failures > 5:
            said = self.output.read_text(errors="replace").strip()[-2000:]
            raise CannotStart(f"The supervisor does not stay up. It said: {said or 'nothing'}")
        self.say("The supervisor ended and is started again, with everything under it.")
        time.sleep(min(self.failures, 5) * 0.2)
        self._start_supervisor()

    def _stop(self) -> None:
        """SIGTERM to supervisord, which stops each program in order; then sweep away whatever is left."""
        deadline = time.monotonic() + STOP_SECONDS
        if self.supervisor:
            os.kill(self.supervisor, signal.SIGTERM)
        while self.supervisor and time.monotonic() < deadline:
            if self.supervisor in [pid for pid, _ in reap()]:
                self.supervisor = 0
            else:
                time.sleep(0.05)
        kill_descendants()
        for name in ("supervisord.pid", "broker.pid"):
            (self.instance.run / name).unlink(missing_ok=True)
