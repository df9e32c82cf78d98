"""One byte range and the conditions around it, as RFC 9110 sections 13 and 14 have them.

Django's FileResponse knows no ranges. Several ranges in one request are answered with the whole: that is allowed,
and no client that resumes a download asks for them.
"""

import re
from dataclasses import dataclass

LONGEST_HEADER = 200
RANGE = re.compile(r"bytes\s*=\s*([0-9]*)\s*-\s*([0-9]*)\s*", re.IGNORECASE | re.ASCII)
ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True)
class Span:
    """The bytes from `start` up to, not including, `stop` of `size`. `partial` asks for 206 and Content-Range."""

    start: int
    stop: int
    size: int
    partial: bool

    @property
    def length(self) -> int:
        return self.stop - self.start

    @property
    def has_last_byte(self) -> bool:
        return self.stop == self.size

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


class Unsatisfiable(Exception):
    """None of the bytes asked for exists: 416."""

    def __init__(self, size: int) -> None:
        super().__init__(f"The range asked for is outside of the {size} bytes there are.")
        self.content_range = f"bytes */{size}"


def choose_span(range_header: str | None, if_range: str | None, etag: str, size: int) -> Span:
    """The bytes to send. A range that is malformed, multiple or of another version of the file asks for the whole.

    Raises Unsatisfiable.
    """
    whole = Span(0, size, size, partial=False)
    if not range_header or len(range_header) > LONGEST_HEADER:
        return whole
    # If-Range compares strongly, and without a Last-Modified no date can match (RFC 9110, 13.1.5).
    if if_range is not None and if_range.strip() != etag:
        return whole
    match = RANGE.fullmatch(range_header.strip())
    if not match or match.groups() == ("", ""):
        return whole
    first, last = match.groups()
    if first == "":
        length = min(int(last), size)
        if length == 0:
            raise Unsatisfiable(size)
        return Span(size - length, size, size, partial=True)
    start = int(first)
    if last and int(last) < start:
        return whole
    if start >= size:
        raise Unsatisfiable(size)
    stop = min(int(last) + 1, size) if last else size
    return Span(start, stop, size, partial=True)


def matches_any(header: str | None, etag: str, *, weakly: bool = True) -> bool:
    """Whether an If-None-Match (weak comparison) or If-Match (strong) header names this entity tag."""
    if header is None:
        return False
    if header.strip() == "*":
        return True
    tags = ENTITY_TAG.findall(header)
    if weakly:
        return etag.removeprefix("W/") in {tag.removeprefix("W/") for tag in tags}
    return etag in tags and not etag.startswith("W/")
