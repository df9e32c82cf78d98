"""Which files are a bundle: one, or volumes in whatever order; found in folders that are only ever read.

Volumes are byte ranges of the tar and are named `airgap-….tar.001of004`. What lies on a stranger's medium is opened
without following links, and only regular files are read. A bundle without folders (files profile) may also come as
its single files, known by their bundle.json and SHA256SUMS, which lists them.
"""

import errno
import os
import re
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from django.conf import settings

from mirrors import wording
from mirrors.bundle.joining import VolumeFile
from mirrors.bundle.membership import BUNDLE, SIGNATURE, SUMS
from mirrors.bundle.parsing import parse_sums
from mirrors.bundle.tar_reading import StructureError
from mirrors.bundle.volumes import JOIN_ENDING, LIST_ENDING

# A file that is a bundle ends in .tar; of volumes the number alone tells, for `--output FILE` may be called anything.
# Media that know capitals only make .TAR and .001OF004 of them.
FILE = re.compile(
    r"(?P<bundle>[A-Za-z0-9][A-Za-z0-9._-]{0,150}?(?:\.tar|(?=\.\d{3}of\d{3}\Z)))"
    r"(?:\.(?P<number>\d{3})of(?P<count>\d{3}))?",
    re.ASCII | re.IGNORECASE,
)
# What export_bundle writes beside volumes; whoever names them all with a pattern names these too.
BESIDE = (LIST_ENDING, JOIN_ENDING)
LIST = re.compile(rf"(?P<bundle>[A-Za-z0-9][A-Za-z0-9._-]{{0,154}}){re.escape(LIST_ENDING)}", re.ASCII | re.IGNORECASE)
# A single file of a bundle without folders, as it is uploaded: the set it belongs to, and its own name.
SINGLE = re.compile(r"(?P<bundle>airgap-files-[A-Za-z0-9]{1,40})/(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]{0,99})", re.ASCII)
MOST_FILES = 5000
# A line of SHA256SUMS has 168 bytes where the name is as long as a name may be.
SUMS_LIMIT = 1 << 20


class FindingError(Exception):
    """These files cannot be read as one bundle; the sentence says why and what to do."""


@dataclass(frozen=True)
class Part:
    """One file: where it is, how many bytes it has."""

    name: str
    path: Path
    size: int
    modified: datetime


@dataclass
class Candidate:
    """What may be a bundle. `missing` are the numbers of volumes that are not there, `count` is 0 for a single file.

    `loose`: the parts are the members of a bundle without folders (files profile), and it is called like its folder;
    `absent` are the names of those that are not there, `fault` says why it cannot be told which there should be.
    """

    name: str
    count: int = 0
    parts: list[Part] = field(default_factory=list)
    loose: bool = False
    absent: list[str] = field(default_factory=list)
    fault: str = ""

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def modified(self) -> datetime:
        return max(part.modified for part in self.parts)

    @property
    def missing(self) -> list[int]:
        there = {number_of(part.name) for part in self.parts}
        return [number for number in range(1, self.count + 1) if number not in there]

    @property
    def is_complete(self) -> bool:
        return not self.missing_text

    @property
    def missing_text(self) -> str:
        """`volumes 2 and 4 of 5 are missing`, "" if none is."""
        if self.fault:
            return self.fault
        if self.absent:
            shown, rest = self.absent[:3], len(self.absent) - 3
            named = wording.joined([*shown, wording.counted(rest, "more file")] if rest > 0 else shown)
            return f"{named} {'is' if len(self.absent) == 1 else 'are'} missing"
        numbers = self.missing
        if not numbers:
            return ""
        named = wording.joined([str(number) for number in numbers[:6]])
        more = f" and {len(numbers) - 6} more" if len(numbers) > 6 else ""
        noun, verb = ("volume", "is") if len(numbers) == 1 else ("volumes", "are")
        return f"{noun} {named}{more} of {self.count} {verb} missing"


def number_of(name: str) -> int:
    """The volume's number, 0 for a file that is no volume."""
    match = FILE.fullmatch(name)
    return int(match["number"]) if match and match["number"] else 0


def grouped(parts: Iterable[Part]) -> list[Candidate]:
    """Files put together to bundles, volumes in their order, newest bundle first."""
    found: dict[tuple[str, int], Candidate] = {}
    for part in parts:
        match = FILE.fullmatch(part.name)
        if match is None:
            continue
        count = int(match["count"] or 0)
        if match["number"] and not 1 <= int(match["number"]) <= count:
            continue
        found.setdefault((match["bundle"], count), Candidate(match["bundle"], count)).parts.append(part)
    for candidate in found.values():
        candidate.parts.sort(key=lambda part: number_of(part.name))
    return sorted(found.values(), key=lambda candidate: candidate.modified, reverse=True)


def single_files(name: str, parts: Sequence[Part]) -> Candidate | None:
    """The bundle whose single files are among these; None where there is none. What it does not list is left aside."""
    there = {part.name: part for part in parts}
    if not {BUNDLE, SUMS} <= there.keys():
        return None
    candidate = Candidate(name, parts=[there[BUNDLE], there[SUMS]], loose=True)
    try:
        listed = [each for each, _ in parse_sums(_small(there[SUMS]))]
    except (StructureError, FindingError, OSError):
        candidate.fault = "SHA256SUMS is not complete yet, or is damaged"
        return candidate
    if any("/" in each for each in listed):
        candidate.fault = "this is a bundle with folders that was unpacked; import its file airgap-….tar instead"
        return candidate
    wanted = dict.fromkeys([BUNDLE, SUMS, *([SIGNATURE] if SIGNATURE in there else []), *listed])
    candidate.parts = sorted((there[each] for each in wanted if each in there), key=lambda part: part.name)
    candidate.absent = [each for each in wanted if each not in there]
    return candidate


def _small(part: Part) -> bytes:
    if part.size > SUMS_LIMIT:
        raise FindingError(f"{part.name} is too large to be true.")
    with volume(part.name, part.path, part.size).open() as file:
        return file.read(SUMS_LIMIT)


def in_directory(directory: Path) -> list[Candidate]:
    """The bundles in a folder, not below it, and first of all the one whose single files it holds.

    Raises FindingError for a folder that cannot be read.
    """
    parts: list[Part] = []
    every: list[Part] = []
    try:
        with os.scandir(directory) as entries:
            for count, entry in enumerate(entries):
                if count >= MOST_FILES:
                    raise FindingError(
                        f"{directory} holds more than {MOST_FILES} files. Put the bundle into a folder of its own."
                    )
                if entry.name.startswith(".") or not entry.is_file(follow_symlinks=False):
                    continue
                with suppress(FileNotFoundError):
                    every.append(_part(Path(entry.path)))
                    if FILE.fullmatch(entry.name):
                        parts.append(every[-1])
    except OSError as error:
        raise FindingError(f"The folder {directory} cannot be read: {error.strerror}.") from error
    loose = single_files(directory.name, every)
    return ([] if loose is None else [loose]) + grouped(parts)


def at_paths(paths: Sequence[Path]) -> Candidate:
    """The bundle that somebody named: a file, all of its volumes in any order, or a folder that holds exactly one.

    Raises FindingError.
    """
    if not paths:
        raise FindingError("Name the bundle: its file, its volumes, or the folder it lies in.")
    if len(paths) == 1 and paths[0].is_dir():
        found = in_directory(paths[0])
        whole = [candidate for candidate in found if candidate.is_complete]
        if len(found) == 1:
            return _whole(found[0])
        if not found:
            raise FindingError(
                f"No bundle lies in {paths[0]}: no file there is called airgap-….tar or airgap-….tar.001of002."
            )
        if len(whole) == 1:
            return whole[0]
        names = wording.joined([candidate.name for candidate in found[:5]])
        raise FindingError(f"Several bundles lie in {paths[0]}: {names}. Name the one to import.")
    parts = []
    paths = list(dict.fromkeys(paths))
    if any(number_of(path.name) for path in paths):
        paths = [path for path in paths if not path.name.lower().endswith(BESIDE)]
    for path in paths:
        try:
            parts.append(_part(path, follow=True))
        except OSError as error:
            raise FindingError(f"{path} cannot be read: {error.strerror}.") from error
    if len(parts) == 1 and not number_of(parts[0].name):
        # Somebody may have renamed it; what it holds is looked at anyway.
        return Candidate(parts[0].name, 0, parts)
    found = grouped(parts)
    strange = [part.name for part in parts if not number_of(part.name)]
    if strange or len(found) != 1:
        raise FindingError(
            "These files are not the volumes of one bundle: "
            f"{wording.joined([part.name for part in parts[:6]])}. Volumes are called like airgap-….tar.001of004."
        )
    each = [part.name for part in found[0].parts]
    if doubled := sorted({name for name in each if each.count(name) > 1}):
        raise FindingError(f"{doubled[0]} was named twice, in two folders. Name each volume once.")
    return _whole(found[0])


def _whole(candidate: Candidate) -> Candidate:
    if candidate.fault:
        raise FindingError(f"{candidate.name} cannot be imported: {candidate.fault}.")
    if not candidate.is_complete:
        raise FindingError(f"Of {candidate.name}, {candidate.missing_text}. Add what is missing, then try again.")
    return candidate


def _part(path: Path, *, follow: bool = False) -> Part:
    status = path.stat() if follow else path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "it is no regular file")
    return Part(path.name, path, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


# Folders of this machine that administrators opened


def roots() -> list[Path]:
    """The folders that may be imported from, in the order of AIRGAP_IMPORT_DIRECTORIES."""
    return [Path(path) for path in settings.AIRGAP_IMPORT_DIRECTORIES]


def in_roots() -> list[tuple[Path, list[Candidate], str]]:
    """For each root: the bundles in it and in the folders of it, and why it could not be read, if it could not."""
    found = []
    for root in roots():
        try:
            candidates = in_directory(root)
            for folder in folders_of(root):
                with suppress(FindingError):
                    candidates += in_directory(folder)
            found.append((root, candidates, ""))
        except FindingError as error:
            found.append((root, [], str(error)))
    return found


def folders_of(root: Path) -> list[Path]:
    """One level, as of media that are mounted below a common folder."""
    with suppress(OSError), os.scandir(root) as entries:
        folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        return sorted(folders)[:100]
    return []


def in_root(folder: str, name: str) -> Candidate:
    """The complete bundle of this name in a folder that one of the roots holds. Raises FindingError for any other."""
    for _, candidates, _ in in_roots():
        for candidate in candidates:
            if (candidate.name, str(candidate.parts[0].path.parent)) == (name, folder):
                return _whole(candidate)
    raise FindingError("That bundle is no longer there. Look at the list again.")


# Reading, by joining.join


def volume(name: str, path: Path, size: int) -> VolumeFile:
    """A file for `join`, opened when its turn comes. Raises FindingError then, if it is gone or was changed."""

    def opened() -> BinaryIO:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            gone = " Put the medium it lies on back in, then try again." if error.errno == errno.ENOENT else ""
            raise FindingError(f"{name} cannot be read: {error.strerror}.{gone}") from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            os.close(descriptor)
            raise FindingError(f"{name} is no longer the file that was found. Wait until it is copied, then try again.")
        with suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return os.fdopen(descriptor, "rb", buffering=0)

    return VolumeFile(name, size, opened)


def list_beside(paths: Sequence[Path]) -> VolumeFile | None:
    """The list of checksums that lies where one of these volumes lies, None if there is none."""
    for path in paths:
        match = FILE.fullmatch(path.name)
        if match is None or not match["number"]:
            continue
        for ending in (LIST_ENDING, LIST_ENDING.upper()):
            with suppress(OSError):
                part = _part(path.with_name(match["bundle"] + ending))
                return volume(part.name, part.path, part.size)
    return None


def volumes_of(candidate: Candidate) -> list[VolumeFile]:
    """What is read of it. A link that somebody named is followed here, once."""
    return [volume(part.name, part.path.resolve(), part.size) for part in candidate.parts]
