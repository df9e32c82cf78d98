"""A VEX archive made by us: the same files give the same bytes on every machine.

A tar with fixed headers, in gzip members of at most 4 MiB each. They are packed by libdeflate in a pinned version, for
what zlib makes differs with who built it. Go's gzip, GNU tar and BusyBox read several members as one.
"""

from collections.abc import Iterable, Iterator

import deflate

from mirrors.bundle import tar

LEVEL = 6
AT_ONCE = 4 * 1024 * 1024
# For files without a time of their own; tar warns of 1970.
LONG_AGO = 315_532_800


def packed(files: Iterable[tuple[str, bytes]], modified_at: int) -> Iterator[bytes]:
    """The tar.gz of (path, content), in this order; every file is of `modified_at`, in seconds since 1970."""
    buffer = bytearray()
    for part in _tar(files, modified_at):
        buffer += part
        while len(buffer) >= AT_ONCE:
            yield _member(bytes(buffer[:AT_ONCE]))
            del buffer[:AT_ONCE]
    if buffer:
        yield _member(bytes(buffer))


def _tar(files: Iterable[tuple[str, bytes]], modified_at: int) -> Iterator[bytes]:
    for path, content in files:
        yield tar.header_for_any_name(path, len(content), 0o644, modified_at)
        yield content
        yield tar.padding(len(content))
    yield tar.END


def _member(data: bytes) -> bytes:
    return bytes(deflate.gzip_compress(data, LEVEL))
