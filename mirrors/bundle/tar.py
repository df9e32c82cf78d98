"""The one way a bundle's tar headers are written: ustar with fixed fields, pax only for sizes ustar cannot hold.

Written out by hand, because a bundle must have the same bytes with every version of Python. Never change the
output for a format version that was released.
"""

BLOCK = 512
END = bytes(2 * BLOCK)
USTAR_SIZE_LIMIT = 8**11  # eleven octal digits (POSIX.1, ustar interchange format)


class NameTooLong(ValueError):
    """A member's name fits into no ustar header."""


def header(name: str, size: int, mode: int, mtime: int) -> bytes:
    """The block or blocks before a regular file's bytes.

    `name` is ASCII with `/`; owner and group are 0 without names. Raises NameTooLong.
    """
    if size < USTAR_SIZE_LIMIT:
        return _block(name, size, mode, mtime, b"0")
    record = _pax_record("size", str(size))
    first = _block(f"PaxHeaders/{name.rpartition('/')[2]}"[:100], len(record), 0o644, mtime, b"x")
    return first + record + padding(len(record)) + _block(name, 0, mode, mtime, b"0")


def header_for_any_name(path: str, size: int, mode: int, mtime: int) -> bytes:
    """As `header`, for names of any length and letters: those that ustar cannot hold stand in a pax record."""
    try:
        return header(path, size, mode, mtime)
    except (NameTooLong, UnicodeEncodeError):
        record = _pax_record("path", path)
    first = _block("PaxHeaders/name", len(record), 0o644, mtime, b"x")
    return first + record + padding(len(record)) + header("name", size, mode, mtime)


def padding(size: int) -> bytes:
    """The zeros after `size` bytes of a member, up to the next block."""
    return bytes(-size % BLOCK)


def _block(name: str, size: int, mode: int, mtime: int, kind: bytes) -> bytes:
    prefix, base = _split(name.encode("ascii"))
    block = b"".join(
        (
            base.ljust(100, b"\0"),
            b"%07o\0" % mode,
            b"%07o\0" % 0,
            b"%07o\0" % 0,
            b"%011o\0" % size,
            b"%011o\0" % mtime,
            b" " * 8,
            kind,
            bytes(100),
            b"ustar\x0000",
            bytes(32),
            bytes(32),
            b"%07o\0" % 0,
            b"%07o\0" % 0,
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Prefix and name: nothing in the prefix when all fits, else cut at the first slash that makes both fit."""
    if len(name) <= 100:
        return b"", name
    cut = name.find(b"/", len(name) - 101)
    if cut <= 0 or cut > 155:
        raise NameTooLong(f"{name.decode()} is too long for a tar header.")
    return name[:cut], name[cut + 1 :]


def _pax_record(key: str, value: str) -> bytes:
    """`<length> <key>=<value>\\n`, where the length counts its own digits."""
    rest = len(f" {key}={value}\n".encode())
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return f"{length} {key}={value}\n".encode()
