"""What is inside a nested archive, for the cover sheet of the files profile: counts, and the first names.

Reads the whole archive, so it belongs to a worker. The bytes are hostile: bounded as in trivy/entries.py, and what
cannot be read to its end is said, not guessed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, cast

from mirrors.bundle.contents import BundleError
from mirrors.stopping import StopSignal
from mirrors.trivy.archives import ArchiveError
from mirrors.trivy.catalogue import GIB
from mirrors.trivy.entries import Format, Walk

NAMES_SHOWN = 12
# The Java database is the largest that Trivy has: below 2 GiB today, 32 GiB is what its kind allows.
INFLATED_LIMIT = 64 * GIB
FORMATS: dict[str, Format] = {".tar.gz": "tar.gz", ".tgz": "tar.gz", ".zip": "zip"}


@dataclass(frozen=True)
class Listing:
    """How many files, their bytes, links and the like, the first files by name; `problem` where it broke off."""

    format: Format
    files: int
    size: int
    others: int
    first: tuple[tuple[str, int], ...]
    problem: str = ""


def format_of(name: str) -> Format | None:
    """The kind of archive that `list_archive` can read, by the name's ending."""
    return next((format for ending, format in FORMATS.items() if name.lower().endswith(ending)), None)


def list_archive(
    file: BinaryIO,
    name: str,
    format: Format,
    *,
    progress: Callable[[int], object] = lambda size: None,
    stop: StopSignal | None = None,
) -> Listing:
    """`progress` is told the bytes read of the file. A damaged or odd archive gives a Listing with a `problem`."""
    files = size = others = 0
    first: list[tuple[str, int]] = []
    walk = Walk(cast(BinaryIO, _Watched(file, progress, stop or StopSignal())), format, name, INFLATED_LIMIT)
    problem = ""
    try:
        for member, _ in walk.entries():
            if member.kind == "file":
                files, size = files + 1, size + member.size
                if len(first) < NAMES_SHOWN:
                    first.append((member.name, member.size))
            elif member.kind != "directory":
                others += 1
    except ArchiveError as error:
        problem = str(error)
    except OSError as error:
        raise BundleError(f"{name} cannot be read from the content store: {error}.") from error
    return Listing(format, files, size, others, tuple(first), problem)


class _Watched:
    """A file that tells how much of it was read, and stops when asked to."""

    def __init__(self, file: BinaryIO, progress: Callable[[int], object], stop: StopSignal) -> None:
        self._file, self._progress, self._stop = file, progress, stop

    def read(self, count: int = -1) -> bytes:
        self._stop.check()
        piece = self._file.read(count)
        self._progress(len(piece))
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True
