"""Which volumes of a bundle came damaged: each is hashed and compared with the list of checksums that came with them.

Nobody signed that list, so nothing is believed on its word but that another copy of a volume is needed.
"""

import hashlib
import re
from collections.abc import Callable, Sequence

from mirrors.bundle.joining import Joined, VolumeFile
from mirrors.bundle.tar_reading import StructureError
from mirrors.bundle.volumes import MOST, parse_name
from mirrors.stopping import StopSignal

# MOST lines, of names as long as they may be, and one for the whole.
LIST_LIMIT = 256 * 1024
PIECE = 1 << 20
LINE = re.compile(rb"([0-9A-Fa-f]{64}) [ *]([A-Za-z0-9][A-Za-z0-9._-]{0,199})\r?")


class ListError(ValueError):
    """The list cannot be used; the sentence says why."""


def read_list(file: VolumeFile, count: int) -> dict[int, str]:
    """The SHA-256 of volumes 1 to `count`, in hex, by their number.

    The list may be called for another name than the volumes are by now. Raises ListError unless it names each of the
    `count` volumes once, and what opening a file raises.
    """
    if file.size > LIST_LIMIT:
        raise ListError(f"it has {file.size:,} bytes, and at most {LIST_LIMIT:,} are read")
    try:
        with Joined([file]) as stream:
            data = b"".join(iter(lambda: stream.read(LIST_LIMIT), b""))
    except (OSError, StructureError):
        raise ListError("it cannot be read to its end") from None
    found: dict[int, str] = {}
    for line in data.removesuffix(b"\n").split(b"\n")[: MOST + 2]:
        match = LINE.fullmatch(line)
        if match is None:
            raise ListError("it has other lines than sha256sum writes")
        named = parse_name(match[2].decode("ascii"))
        if named is None or named[2] != count:
            continue
        if named[1] in found:
            raise ListError(f"it names volume {named[1]} twice")
        found[named[1]] = match[1].decode("ascii").lower()
    if len(found) < count:
        raise ListError(f"it names {len(found)} of the {count} volumes")
    return found


def damaged(
    volumes: Sequence[VolumeFile],
    sums: dict[int, str],
    *,
    progress: Callable[[int, str], object] | None = None,
    stop: StopSignal | None = None,
) -> list[VolumeFile]:
    """Those that are not what the list says, or that cannot be read to their end, in the order they were given.

    `progress(bytes so far, volume)`. Raises Stopped, and what opening a file raises.
    """
    wrong, before = [], 0
    for volume in volumes:
        named = parse_name(volume.name)
        running, done = hashlib.sha256(), 0
        try:
            with Joined([volume]) as stream:
                while piece := stream.read(PIECE):
                    if stop is not None:
                        stop.check()
                    running.update(piece)
                    done += len(piece)
                    if progress is not None:
                        progress(before + done, volume.name)
            right = named is not None and sums.get(named[1]) == running.hexdigest()
        except (OSError, StructureError):
            right = False
        if not right:
            wrong.append(volume)
        before += volume.size
    return wrong
