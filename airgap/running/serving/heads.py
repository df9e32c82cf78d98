"""What a request's head says before anybody parses it: which pool it goes to, and whether to wait for its body.

gunicorn's parser decides what is valid. A head that only looks strange goes to it as it is.
"""

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote_to_bytes

LONGEST_HEAD = 16 * 1024
SMALL_BODY = 16 * 1024
END = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
STREAMED = re.compile(rb"\r\n(?:transfer-encoding|expect)[ \t]*:", re.IGNORECASE)
FILES = re.compile(rb"/v2/.*/blobs/|/vex/|/files/", re.DOTALL)
STREAMS = re.compile(rb"/bundles/[^/]+/download$|.*\.csv$", re.DOTALL)


class Lane(Enum):
    """PAGES answer at once. FILES may have to hash a file first, and leave the sending to others. STREAMS are made
    while they are sent, or read a long body: a thread for as long as that takes."""

    PAGES = "pages"
    FILES = "files"
    STREAMS = "streams"


@dataclass(frozen=True)
class Head:
    """`length`: bytes of head and body that must be there before the request is handled."""

    lane: Lane
    length: int


def read_head(arrived: bytes | bytearray, searched: int = 0) -> Head | None:
    """The head at the beginning of `arrived`; None while its end is not there. Before `searched` none was found."""
    end = arrived.find(END, max(0, searched - len(END) + 1))
    if end < 0:
        return None
    head = bytes(arrived[: end + len(END)])
    found = LENGTH.search(head)
    body = int(found[1]) if found else 0
    if STREAMED.search(head) or body > SMALL_BODY:
        return Head(Lane.STREAMS, len(head))
    return Head(lane_of(head.partition(b"\r\n")[0]), len(head) + body)


def lane_of(line: bytes) -> Lane:
    """From the request line, such as `GET /v2/aquasecurity/trivy-db/blobs/sha256:… HTTP/1.1`."""
    words = line.split(b" ")
    target = words[1] if len(words) > 1 else b""
    if not target.startswith(b"/"):
        # The absolute form, http://host/path, which proxies use.
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    path = unquote_to_bytes(target.partition(b"?")[0])
    if FILES.match(path):
        return Lane.FILES
    return Lane.STREAMS if STREAMS.match(path) else Lane.PAGES
