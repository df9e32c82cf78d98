"""Which wheels of the lock a Python on an architecture needs, and fetching them with pip, each against its hash."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker

PYTHONS = ("3.11", "3.12", "3.13")
ARCHITECTURES = ("x86_64", "aarch64")
# What wheels for Linux call the C libraries they run with; pip takes a wheel that fits any of them.
GLIBC = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014",
         "manylinux2010", "manylinux1", "linux")  # fmt: skip
_REQUIREMENT = re.compile(r"^(?P<pin>[A-Za-z0-9._-]+==[^\s;]+)\s*(?:;\s*(?P<marker>[^\\]+?))?\s*\\?$")
_HASH = re.compile(r"^\s+(--hash=sha256:[0-9a-f]{64})\s*\\?$")
_PYTHON = re.compile(r"3\.\d{1,2}")


class KitError(Exception):
    """The kit cannot be made; the sentence says why and what to do."""


@dataclass(frozen=True)
class Requirement:
    """One pinned package of the lock."""

    pin: str
    marker: str
    hashes: tuple[str, ...]

    def is_wanted(self, python: str, architecture: str) -> bool:
        """For any patch release of that Python: the machine over there has another one than this."""
        if not self.marker:
            return True
        marker = Marker(self.marker)
        return any(
            marker.evaluate(
                {
                    "python_version": python,
                    "python_full_version": f"{python}.{patch}",
                    "implementation_name": "cpython",
                    "implementation_version": f"{python}.{patch}",
                    "platform_python_implementation": "CPython",
                    "platform_machine": architecture,
                    "platform_system": "Linux",
                    "sys_platform": "linux",
                    "os_name": "posix",
                }
            )
            for patch in (0, 99)
        )

    def line(self) -> str:
        """For pip, without the marker: pip judges markers by the Python it runs on, not by the one it fetches for."""
        return " ".join((self.pin, *self.hashes))


def read_lock(text: str) -> list[Requirement]:
    """The packages of a requirements.lock as `make lock` writes it. Raises KitError for anything else."""
    found: list[tuple[str, str, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if (hashed := _HASH.match(line)) and found:
            found[-1][2].append(hashed[1])
        elif named := _REQUIREMENT.match(line):
            found.append((named["pin"], (named["marker"] or "").strip(), []))
        else:
            raise KitError(f"requirements.lock, line {number}, is not understood. Write it anew with make lock.")
    unhashed = [pin for pin, _, hashes in found if not hashes]
    if unhashed:
        raise KitError(f"requirements.lock has no hash for {unhashed[0]}. Write it anew with make lock.")
    return [Requirement(pin, marker, tuple(hashes)) for pin, marker, hashes in found]


def checked_python(text: str) -> str:
    if not _PYTHON.fullmatch(text) or int(text.split(".")[1]) < 11:
        raise KitError(f"{text[:20]!r} is no Python that Airgap runs on. Name 3.11 or later, such as 3.12.")
    return text


def checked_architecture(text: str) -> str:
    if text not in ARCHITECTURES:
        raise KitError(f"{text[:20]!r} is no architecture kits are made for. There are: {', '.join(ARCHITECTURES)}.")
    return text


def fetch(requirements: Sequence[Requirement], target: Path, python: str, architecture: str) -> None:
    """Put the wheels that this Python needs into `target`. Raises KitError with pip's own reason."""
    wanted = [each.line() for each in requirements if each.is_wanted(python, architecture)]
    tag = f"cp{python.replace('.', '')}"
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(wanted) + "\n")
        file.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(target)]
        command += [
            "--implementation",
            "cp",
            "--python-version",
            python,
            "--abi",
            tag,
            "--abi",
            "abi3",
            "--abi",
            "none",
        ]
        for name in platforms(architecture):
            command += ["--platform", name]
        done = subprocess.run([*command, "-r", file.name], capture_output=True, text=True, env=_environment())
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), done.stderr[-300:])
        raise KitError(
            f"The packages for Python {python} on {architecture} could not be fetched: {reason.strip()} "
            "A kit is made where a package index is reached; leave out a Python that a package has no wheel for."
        )


def platforms(architecture: str) -> Iterable[str]:
    """The platform tags of wheels that run there."""
    return (f"{name}_{architecture}" for name in GLIBC)


def _environment() -> dict[str, str]:
    return {**os.environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
