"""Rounds, medians, ratios, and how they are told."""

import os
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Subject = Callable[[], float]


class Skip(Exception):
    """A scenario or peer that cannot be measured here; the sentence says why."""


@dataclass
class Finding:
    """One number that was promised: what was measured, what it must not exceed (or must reach)."""

    what: str
    value: float
    limit: float
    unit: str = "×"
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def wanted(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{_unit(self.unit)}"

    @property
    def measured(self) -> str:
        return f"{plain(self.value) if self.value else 0}{_unit(self.unit)}"


@dataclass
class Section:
    """One scenario: its table of what was seen, and the numbers that were promised."""

    title: str
    setting: str
    heads: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def _unit(unit: str) -> str:
    return unit if unit == "×" else f" {unit}"


def plain(value: float) -> str:
    """Two digits after the point while they say something."""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def seconds_text(values: list[float]) -> str:
    return plain(statistics.median(values))


def spread_text(values: list[float]) -> str:
    """Fastest and slowest."""
    return f"{plain(min(values))}-{plain(max(values))}"


def interleave(subjects: Mapping[str, Subject], rounds: int, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Every subject once a round, each round in another order, so that a busy minute hits all of them."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    order = random.Random(7)
    for number in range(rounds):
        for name in order.sample(list(subjects), len(subjects)):
            found[name].append(subjects[name]())
        shown = ", ".join(f"{name} {plain(values[-1])}" for name, values in found.items())
        say(f"  round {number + 1} of {rounds}: {shown}")
    return found


def ratio(found: Mapping[str, list[float]], ours: str, peer: str) -> float:
    return statistics.median(found[ours]) / statistics.median(found[peer])


def run(argv: list[str], env: Mapping[str, str], **more: object) -> float:
    """Seconds a program takes; CalledProcessError with its own words if it fails."""
    began = time.perf_counter()
    done = subprocess.run(argv, env=dict(env), capture_output=True, text=True, **more)  # type: ignore[call-overload]
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{Path(argv[0]).name} failed ({done.returncode}): {(done.stderr or done.stdout)[-600:]}")
    return seconds


def settle(patience: float = 15) -> None:
    """Before a measurement: what was written is on disk, and nobody else is using the machine (or will not stop)."""
    os.sync()
    deadline = time.monotonic() + patience
    while _busy(0.25) > 0.1 and time.monotonic() < deadline:
        pass


def _busy(seconds: float) -> float:
    """Part of all cores' time in which they worked (proc(5), stat: idle and iowait are the fourth and fifth)."""

    def look() -> tuple[int, int]:
        fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return fields[3] + fields[4], sum(fields)

    idle, everything = look()
    time.sleep(seconds)
    idle_then, everything_then = look()
    return 1 - (idle_then - idle) / max(everything_then - everything, 1)


class Peers:
    """Programs to compare with: from AIRGAP_BENCH_TOOLS first, then PATH."""

    def __init__(self) -> None:
        own = os.environ.get("AIRGAP_BENCH_TOOLS", "")
        self.path = os.pathsep.join(filter(None, [own, os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))
        self.missing: list[str] = []

    def find(self, name: str) -> str | None:
        found = shutil.which(name, path=self.path)
        if found is None and name not in self.missing:
            self.missing.append(name)
        return found

    def need(self, *names: str) -> None:
        absent = [name for name in names if self.find(name) is None]
        if absent:
            raise Skip(f"{' and '.join(absent)} not found on PATH or in AIRGAP_BENCH_TOOLS.")

    def version(self, name: str) -> str:
        """The first number that looks like a version in what the program says of itself."""
        program = self.find(name)
        if program is None:
            return ""
        for flag in ("--version", "version", "-v"):
            try:
                done = subprocess.run([program, flag], capture_output=True, text=True, timeout=20)
            except (OSError, subprocess.TimeoutExpired):
                continue
            words = (done.stdout + " " + done.stderr).replace("/", " ").replace("+", " ").split()
            for word in words:
                word = word.strip("v,:()")
                if word[:1].isdigit() and "." in word:
                    return word
        return ""
