"""A bundle that came in several files, read as the one file it is: nothing is written, no blob is read twice.

Either its volumes, in any order; or, of the files profile, its members one by one, as a gateway lets them through.
"""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import BinaryIO, Self

from mirrors.bundle import tar
from mirrors.bundle.membership import BUNDLE, DOCUMENTS, SIGNATURE, SUMS, mode_of
from mirrors.bundle.parsed import BundleReadError
from mirrors.bundle.parsing import parse_bundle, parse_sums
from mirrors.bundle.tar_reading import StructureError
from mirrors.bundle.volumes import parse_name
from mirrors.registry.errors import clean


@dataclass(frozen=True)
class VolumeFile:
    """One file as it was handed over: its name, its bytes, and how it is opened (only when its turn has come)."""

    name: str
    size: int
    open: Callable[[], BinaryIO]


def ordered(volumes: Sequence[VolumeFile]) -> list[VolumeFile]:
    """The volumes of one bundle in their order; a single file that is no volume is the bundle itself.

    Raises BundleReadError with every volume that is missing, doubled, of another bundle or of a wrong size.
    """
    if not volumes:
        raise BundleReadError(["There is no file to read. Choose a bundle, or all volumes of one."])
    if len(volumes) == 1 and parse_name(volumes[0].name) is None:
        return list(volumes)
    problems: list[str] = []
    found: list[tuple[str, int, int, VolumeFile]] = []
    for volume in volumes:
        parsed = parse_name(volume.name)
        if parsed is None:
            problems.append(f"{_shown(volume)} is not a volume of a bundle (those end in .001of004, for example).")
        else:
            found.append((*parsed, volume))
    if found:
        problems += _of_one_bundle(found)
    if problems:
        raise BundleReadError(problems)
    return [volume for *_, volume in sorted(found, key=lambda each: each[1])]


def _of_one_bundle(found: list[tuple[str, int, int, VolumeFile]]) -> list[str]:
    (whole, count), _ = Counter((whole, count) for whole, _, count, _ in found).most_common(1)[0]
    problems = [
        f"{_shown(volume)} belongs to another bundle or another division than the other volumes of {clean(whole, 120)}."
        for other, _, of, volume in found
        if (other, of) != (whole, count)
    ]
    own = sorted((number, volume.size) for other, number, of, volume in found if (other, of) == (whole, count))
    times = Counter(number for number, _ in own)
    problems += [f"Volume {number} of {count} was given {n} times." for number, n in times.items() if n > 1]
    missing = [number for number in range(1, count + 1) if number not in times]
    if missing:
        problems.append(f"Of {count} volumes of {clean(whole, 120)} these are missing: {_numbers(missing)}.")
    return problems or list(_wrong_sizes(own, count))


def _wrong_sizes(own: list[tuple[int, int]], count: int) -> list[str]:
    """All but the last are of one size, the last is not larger; a copy that broke off is smaller than it should be."""
    full = max(size for _, size in own[:-1]) if count > 1 else 0
    problems = [
        f"Volume {number} of {count} has {size:,} bytes, the others {full:,}: it is not complete. Copy it again."
        for number, size in own[:-1]
        if size != full
    ]
    last = own[-1][1]
    if last == 0 or (count > 1 and last > full):
        problems.append(f"Volume {count} of {count}, the last, has {last:,} bytes; that does not fit the others.")
    elif not problems and sum(size for _, size in own) % tar.BLOCK:
        problems.append(f"Volume {count} of {count}, the last, is not complete. Copy it again.")
    return problems


def _numbers(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:20])
    return shown + (f" and {len(numbers) - 20} more" if len(numbers) > 20 else "")


def _shown(volume: VolumeFile) -> str:
    return repr(clean(volume.name, 120))


class Joined:
    """Ordered volumes as one stream: what `read_bundle` reads. To be closed; one file is open at a time.

    Raises StructureError when a volume has other than its stated bytes, OSError as the files do.
    """

    def __init__(self, volumes: Sequence[VolumeFile]) -> None:
        self.size = sum(volume.size for volume in volumes)
        self._waiting = list(reversed(volumes))
        self._file: BinaryIO | None = None
        self._now: VolumeFile | None = None
        self._left = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, count: int, /) -> bytes:
        """At most `count` bytes; b"" at the end of the last volume."""
        while not self._left:
            self._end_volume()
            if not self._waiting:
                return b""
            self._now = self._waiting.pop()
            self._file, self._left = self._now.open(), self._now.size
        assert self._file is not None and self._now is not None  # noqa: S101 - opened above
        try:
            piece = self._file.read(min(count, self._left))
        except OSError as error:
            error.filename = self._now.name  # reading tells what happened, only opening tells where
            raise
        if not piece and count:
            raise StructureError(f"{_shown(self._now)} ends {self._left:,} bytes early. Copy it again.")
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Close what is open. May be called again."""
        self._waiting.clear()
        self._left = 0
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()

    def _end_volume(self) -> None:
        file, self._file = self._file, None
        if file is None or self._now is None:
            return
        more = file.read(1)
        file.close()
        if more:
            raise StructureError(f"{_shown(self._now)} is longer than its {self._now.size:,} bytes. Copy it again.")


def join(volumes: Sequence[VolumeFile]) -> Joined:
    """The bundle that these volumes, in any order, are. Raises BundleReadError before anything is opened."""
    return Joined(ordered(volumes))


def are_members(files: Sequence[VolumeFile]) -> bool:
    """Whether these are the single files of a bundle without folders."""
    return {BUNDLE, SUMS} <= {file.name for file in files}


def assemble(files: Sequence[VolumeFile]) -> Joined:
    """The tar of the files profile that these files, in any order, are the members of.

    The signature covers what they are and how they follow each other; headers and padding say nothing else and are
    made here. Raises BundleReadError with every file that is missing, doubled, or too much.
    """
    named = {file.name: file for file in files}
    problems = [f"{_shown(file)} was given more than once." for file in files if named[file.name] is not file]
    problems += [f"{name} is missing." for name in (BUNDLE, SUMS) if name not in named]
    if problems:
        raise BundleReadError(problems)
    try:
        bundle = parse_bundle(_small(named[BUNDLE]), problems.append)
        listed = [name for name, _ in parse_sums(_small(named[SUMS]))]
    except StructureError as error:
        raise BundleReadError([str(error)]) from error
    order = [BUNDLE, SUMS, *([SIGNATURE] if SIGNATURE in named else []), *listed[1:]]
    problems += [f"{name} is missing; SHA256SUMS lists it." for name in order if name not in named]
    problems += [f"{_shown(file)} does not belong to this bundle." for file in files if file.name not in set(order)]
    if bundle is None or problems:
        raise BundleReadError(problems)
    mtime = int(bundle.created_at.timestamp())
    parts: list[VolumeFile] = []
    for name in order:
        file = named[name]
        parts += [_made(tar.header(name, file.size, mode_of(name), mtime)), file, _made(tar.padding(file.size))]
    return Joined([part for part in [*parts, _made(tar.END)] if part.size])


def _made(data: bytes) -> VolumeFile:
    return VolumeFile("a header", len(data), partial(io.BytesIO, data))


def _small(file: VolumeFile) -> bytes:
    if file.size > DOCUMENTS[file.name]:
        raise StructureError(f"{file.name} has {file.size:,} bytes; at most {DOCUMENTS[file.name]:,} are read.")
    with Joined([file]) as joined:
        data = bytearray()
        while piece := joined.read(file.size):
            data += piece
    return bytes(data)
