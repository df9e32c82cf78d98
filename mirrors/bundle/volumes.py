"""Volumes: the file cut into byte ranges that fit a medium. Joined in order (`cat`) they are the file again.

Nothing new is composed: a volume is a range of the same bytes, so it is known, named and resumable like the whole.
docs/bundle-format.md has the names and says why the presets are a little smaller than the media.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from mirrors.trivy.catalogue import GIB, MIB

MOST, SMALLEST = 999, MIB
PRESETS = {"cd": 700_000_000, "dvd": 4_690_000_000, "fat32": 4 * GIB - 1}
# Media that know capitals only (ISO 9660, old FAT) call them AIRGAP-….TAR.001OF004.
NAME = re.compile(r"(?P<whole>.+)\.(?P<number>[0-9]{3})of(?P<count>[0-9]{3})", re.IGNORECASE)
LIST_ENDING, JOIN_ENDING = ".sha256", ".join.txt"


class VolumeError(ValueError):
    """A size that no file can be cut to; the sentence says what is possible."""


class Readable(Protocol):
    """What can be cut: a composed bundle or a stored archive."""

    def read(self, start: int, stop: int) -> Iterator[bytes]: ...


@dataclass(frozen=True)
class Volume:
    """Number `number` (from 1) of `count`: the bytes from `start` up to, not including, `stop` of the file."""

    number: int
    count: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def name(self, filename: str) -> str:
        return f"{filename}.{self.number:03}of{self.count:03}"


def cut(size: int, volume_size: int) -> tuple[Volume, ...]:
    """The volumes of a file of `size` bytes. Raises VolumeError for a size too small, or too small for this file."""
    if volume_size < SMALLEST:
        raise VolumeError(f"A volume has at least {SMALLEST:,} bytes (1 MiB).")
    count = max(1, -(-size // volume_size))
    if count > MOST:
        least = max(SMALLEST, -(-size // MOST))
        raise VolumeError(
            f"That would make {count:,} volumes, and {MOST} is the most. For this file a volume needs at least "
            f"{least:,} bytes."
        )
    return tuple(
        Volume(number + 1, count, number * volume_size, min((number + 1) * volume_size, size))
        for number in range(count)
    )


def size_named(text: str) -> int:
    """`cd`, `dvd`, `fat32`, or a number of bytes. Raises VolumeError."""
    wanted = text.strip().lower()
    if wanted in PRESETS:
        return PRESETS[wanted]
    if not re.fullmatch(r"[0-9]{1,18}", wanted):
        raise VolumeError(f"The size of a volume is {', '.join(PRESETS)} or a number of bytes, not {text[:40]!r}.")
    return int(wanted)


def parse_name(name: str) -> tuple[str, int, int] | None:
    """`(name of the whole, number, count)` of a volume's name; None for any other name."""
    found = NAME.fullmatch(name)
    if not found:
        return None
    number, count = int(found["number"]), int(found["count"])
    return (found["whole"], number, count) if 1 <= number <= count else None


@dataclass(frozen=True)
class Part:
    """A byte range of a file as something that can be sent by itself, with an entity tag of its own."""

    whole: Readable
    start: int
    stop: int
    etag: str

    @property
    def size(self) -> int:
        return self.stop - self.start

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        return self.whole.read(self.start + start, self.start + stop)


class VolumeSums:
    """SHA-256 of every volume, computed while the whole file passes by in order."""

    def __init__(self, volumes: Sequence[Volume]) -> None:
        self._volumes = volumes
        self._sums = [hashlib.sha256() for _ in volumes]
        self._at, self._number = 0, 0

    def update(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view and self._number < len(self._volumes):
            room = self._volumes[self._number].stop - self._at
            self._sums[self._number].update(view[:room])
            self._at += min(room, len(view))
            view = view[room:]
            if self._at == self._volumes[self._number].stop:
                self._number += 1

    def hexdigests(self) -> list[str]:
        return [running.hexdigest() for running in self._sums]


def checksum_list(filename: str, sha256: str, volumes: Sequence[tuple[Volume, str]]) -> bytes:
    """Each volume with its SHA-256, then the whole, as `sha256sum -c` reads it. BusyBox's takes no comments."""
    lines = [f"{own}  {volume.name(filename)}\n" for volume, own in volumes]
    return "".join([*lines, f"{sha256}  {filename}\n"]).encode("ascii")


JOIN = """\
{filename}
in {count} volumes

Bring all of them into one folder, with {filename}{list}.

CHECK THE VOLUMES

  sha256sum -c --ignore-missing {filename}{list}

JOIN THEM

  Linux, macOS:

  cat {pattern} > {filename}

  Windows, in a command prompt:

  copy /b {plus} {filename}

CHECK THE WHOLE

The same line again now names the joined file, too:

  sha256sum -c --ignore-missing {filename}{list}

A sha256sum that does not know --ignore-missing: leave it out; what is not there
is reported, and every line that is there must end with OK. On Windows:
certutil -hashfile {filename} SHA256

An Airgap on the other side takes the volumes as they are, in any order.
"""
PATTERN_OF = "???of"


def join_text(filename: str, count: int) -> bytes:
    """What the courier does with the volumes, ASCII."""
    names = [volume.name(filename) for volume in (Volume(n + 1, count, 0, 0) for n in range(count))]
    plus = "+".join(names) if count <= 20 else f"{names[0]}+{names[1]}+(all others in this order)+{names[-1]}"
    text = JOIN.format(
        filename=filename,
        count=count,
        list=LIST_ENDING,
        pattern=f"{filename}.{PATTERN_OF}{count:03}",
        plus=plus,
    )
    return text.encode("ascii")
