"""Git's pkt-lines (Documentation/gitprotocol-common): four hexadecimal digits of length, then so much."""

from collections.abc import Iterable, Iterator
from enum import Enum

from mirrors.git.faults import GitError

LONGEST = 65520


class Mark(Enum):
    """Packets without content."""

    FLUSH = "0000"
    DELIMITER = "0001"
    END = "0002"


class Truncated(GitError):
    """The other end stopped in the middle of a packet."""

    def __init__(self) -> None:
        super().__init__("The answer of the git server broke off in the middle.")


FLUSH, DELIMITER, END = b"0000", b"0001", b"0002"


def pkt(text: str) -> bytes:
    data = text.encode() + b"\n"
    return b"%04x" % (len(data) + 4) + data


def packets(chunks: Iterable[bytes]) -> Iterator[bytes | Mark]:
    """Every packet; ends with the bytes. Holds no more than a packet and a chunk. Raises GitError."""
    buffer = bytearray()
    source = iter(chunks)
    while True:
        if not _fill(buffer, source, 4):
            if buffer:
                raise Truncated
            return
        head = bytes(buffer[:4])
        mark = _MARKS.get(head)
        if mark is not None:
            del buffer[:4]
            yield mark
            continue
        length = _length(head)
        if not _fill(buffer, source, length):
            raise Truncated
        packet = bytes(buffer[4:length])
        del buffer[:length]
        yield packet


_MARKS = {b"0000": Mark.FLUSH, b"0001": Mark.DELIMITER, b"0002": Mark.END}


def _length(head: bytes) -> int:
    try:
        length = int(head, 16) if head.isalnum() else 0
    except ValueError:
        length = 0
    if not 4 <= length <= LONGEST:
        raise GitError(f"The git server sent {head!r} where the length of a packet should stand.")
    return length


def _fill(buffer: bytearray, source: Iterator[bytes], count: int) -> bool:
    while len(buffer) < count:
        chunk = next(source, None)
        if chunk is None:
            return False
        buffer += chunk
    return True
