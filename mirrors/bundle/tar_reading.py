"""Reads the one tar that tar.py writes, and no other: every header is rendered again and compared byte for byte.

Nothing of a header is believed but a size. So owners, modes, times, kinds of member, checksums and padding are right
or the reading ends; there is no name that could lead anywhere, for the names that may follow are known beforehand.
"""

import re
from collections.abc import Callable, Iterator
from typing import Protocol

from mirrors.bundle import tar
from mirrors.bundle.contents import BundleError
from mirrors.registry.errors import clean
from mirrors.stopping import StopSignal

CHUNK = 256 * 1024
# Where the header of a member of 8 GiB or more is three blocks: a pax header, its one record, the member's own.
PAX_HEADER = 3 * tar.BLOCK
FOLDER = re.compile(r"airgap-\d{8}T\d{6}Z-[A-Za-z0-9_][A-Za-z0-9._-]{0,7}", re.ASCII)
FIRST = "bundle.json"
OCTAL = re.compile(rb"[0-7]{11}\0")
PAX_SIZE = re.compile(rb"\d{1,3} size=([1-9]\d{9,17})\n\0*")
KINDS = {
    b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"5": "a folder", b"6": "a pipe",
    b"S": "a sparse file", b"x": "an extended header", b"g": "an extended header", b"L": "a GNU header",
    b"K": "a GNU header", b"V": "a volume's name", b"M": "a part of a file",
}  # fmt: skip


class StructureError(BundleError):
    """The tar is not one of ours from here on; reading on would be guessing."""


class Readable(Protocol):
    """Anything with `read`: a file, a request's body, joined volumes."""

    def read(self, count: int, /) -> bytes: ...


class TarReader:
    """Members one after the other: `begin`, then all of `body`, and at last `end`. StructureError where it is not ours.

    `folder` and `mtime` (seconds since 1970) are those of the first member; every other must have the same. In the
    files profile there is no folder: it is "" and `flat` true.
    """

    def __init__(
        self, stream: Readable, progress: Callable[[int, str], object] | None = None, stop: StopSignal | None = None
    ) -> None:
        self._stream = stream
        self._progress = progress
        self._stop = stop
        self._seen: set[str] = set()
        self.position = 0
        self.folder = ""
        self.flat = False
        self.mtime = 0

    def begin(self, *allowed: tuple[str, int]) -> tuple[str, int]:
        """The next member's name and size in bytes; it must be one of `allowed` (name, mode)."""
        wanted = allowed[0][0]
        raw = self._exactly(tar.BLOCK, f"before {wanted}")
        if not raw.strip(b"\0"):
            raise StructureError(f"The tar ends where {wanted} should follow. Copy the bundle again.")
        if raw[156:157] == b"x":
            raw += self._exactly(PAX_HEADER - tar.BLOCK, f"in the header of {wanted}")
        size = _size_of(raw)
        if not self._has_begun:
            self._take_first(raw)
        for name, mode in allowed:
            if size is not None and self._has_begun and self._rendered(name, size, mode) == raw:
                self._seen.add(name)
                return name, size
        raise StructureError(self._difference(raw, wanted))

    def body(self, name: str, size: int) -> Iterator[bytes]:
        """The member's bytes in pieces; the padding after them is read with the last."""
        left = size
        while left:
            piece = self._some(min(CHUNK, left))
            if not piece:
                raise self._cut_off(f"in {name}, {left} bytes before its end")
            left -= len(piece)
            if self._progress is not None:
                self._progress(self.position, name)
            yield piece
        if self._exactly(-size % tar.BLOCK, f"after {name}").strip(b"\0"):
            raise StructureError(f"There are other bytes than zeros after {name}. Copy the bundle again.")

    def end(self) -> None:
        """The two blocks of zeros, and nothing after them."""
        raw = self._exactly(tar.BLOCK, "before its end mark")
        if raw.strip(b"\0"):
            raise StructureError(f"A member follows the last one that SHA256SUMS lists. {self._named(raw)}")
        if self._exactly(tar.BLOCK, "in its end mark").strip(b"\0"):
            raise StructureError("There are other bytes than zeros in the tar's end mark. Copy the bundle again.")
        if self._some(1):
            raise StructureError("Something follows the end of the tar; a bundle ends there. Copy it again.")

    # Inside

    @property
    def _has_begun(self) -> bool:
        return self.flat or bool(self.folder)

    def _take_first(self, raw: bytes) -> None:
        folder, slash, _ = _name_of(raw).partition("/")
        if not OCTAL.fullmatch(raw[136:148]):
            return
        if slash and FOLDER.fullmatch(folder):
            self.folder, self.mtime = folder, int(raw[136:147], 8)
        elif not slash and folder == FIRST:
            self.flat, self.mtime = True, int(raw[136:147], 8)

    def _rendered(self, name: str, size: int, mode: int) -> bytes:
        try:
            return tar.header(name if self.flat else f"{self.folder}/{name}", size, mode, self.mtime)
        except tar.NameTooLong:
            return b""

    def _some(self, count: int) -> bytes:
        if self._stop is not None:
            self._stop.check()
        piece = self._stream.read(count)
        if len(piece) > count:
            raise ValueError("a stream gave more bytes than were asked for")
        self.position += len(piece)
        return piece

    def _exactly(self, count: int, where: str) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self._some(count - len(data))
            if not piece:
                raise self._cut_off(where)
            data += piece
        return bytes(data)

    def _cut_off(self, where: str) -> StructureError:
        if not self.position:
            return StructureError("The file is empty. Copy the bundle again.")
        return StructureError(
            f"The file ends {where}, after {self.position:,} bytes: it is not complete. Copy the bundle again."
        )

    def _difference(self, raw: bytes, wanted: str) -> str:
        """What is wrong with a header, said as precisely as a stranger's bytes allow."""
        block = raw[-tar.BLOCK :] if len(raw) == PAX_HEADER else raw
        if not _checksum_holds(raw[: tar.BLOCK]) or not _checksum_holds(block):
            if not self._seen:
                return "This is no bundle: it does not begin with a tar header. Choose a file named airgap-….tar."
            return f"The tar header of {wanted} is damaged. Copy the bundle again."
        kind = block[156:157]
        if kind != b"0":
            what = KINDS.get(kind, "no regular file")
            return f"{self._shown(block)} is {what}; a bundle holds regular files only. Airgap did not write this."
        name = _name_of(block)
        if name.startswith("/") or ".." in name.split("/"):
            return f"{self._shown(block)} lies outside of the bundle's folder. Airgap did not write this."
        if not self._has_begun:
            return f"This is no bundle: it begins with {self._shown(block)}. Choose a file named airgap-….tar."
        folder, _, inner = ("", "", name) if self.flat else name.partition("/")
        if folder != self.folder:
            return f"{self._shown(block)} lies outside of the bundle's folder {self.folder}."
        if inner in self._seen:
            return f"{self._shown(block)} comes a second time."
        if inner != wanted:
            return f"{self._shown(block)} stands where {wanted} should: members are missing or in another order."
        return f"The tar header of {wanted} is not as Airgap writes it (size, owner, mode or time)."

    def _named(self, raw: bytes) -> str:
        return (
            f"It is called {self._shown(raw)}."
            if _checksum_holds(raw)
            else "Its header is damaged. Copy the bundle again."
        )

    @staticmethod
    def _shown(raw: bytes) -> str:
        return repr(clean(_name_of(raw), 120))


def _size_of(raw: bytes) -> int | None:
    """What the header says, None where it says it in another way than ours."""
    if len(raw) == PAX_HEADER:
        record = PAX_SIZE.fullmatch(raw[tar.BLOCK : 2 * tar.BLOCK])
        size = int(record[1]) if record else 0
        return size if size >= tar.USTAR_SIZE_LIMIT else None
    return int(raw[124:135], 8) if OCTAL.fullmatch(raw[124:136]) else None


def _name_of(block: bytes) -> str:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0]
    return (prefix + b"/" + name if prefix else name).decode("ascii", "replace")


def _checksum_holds(block: bytes) -> bool:
    digits = block[148:156].strip(b" \0")
    return (
        digits.isdigit() and len(digits) <= 7 and int(digits) == int(f"{sum(block[:148]) + 256 + sum(block[156:]):o}")
    )
