"""The checksum file of a release: `<64 hex>  <name>`, a line a file, as sha256sum writes and reads it."""

import re
from collections.abc import Iterable, Mapping

from mirrors.trivy.release.errors import ReleaseError

# Trivy's has about 30 lines and 3 KB.
CHECKSUMS_LIMIT = 1024 * 1024
LINES_LIMIT = 10_000
LINE = re.compile(r"([0-9A-Fa-f]{64}) [ *](.+)", re.ASCII)
NAMES_TOLD = 12


def parse_checksums(raw: bytes, what: str) -> dict[str, str]:
    """Every file the document names, with its digest `sha256:…`. `what` begins the error sentences.

    Raises ReleaseError (`checksums`): not such a document, a name that leaves its folder, or a name with two digests.
    """
    if len(raw) > CHECKSUMS_LIMIT:
        raise ReleaseError("checksums", f"{what} has more than {CHECKSUMS_LIMIT} bytes; that is no checksum file.")
    try:
        lines = raw.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError:
        raise ReleaseError("checksums", f"{what} is not text; it cannot be the checksum file.") from None
    found: dict[str, str] = {}
    for line in (line for line in lines if line.strip()):
        match = LINE.fullmatch(line)
        if match is None:
            raise ReleaseError("checksums", f"{what} holds a line that is no checksum: {line[:80]!r}.")
        name, digest = match[2], f"sha256:{match[1].lower()}"
        if not is_plain(name):
            raise ReleaseError("checksums", f"{what} names a file that may not be called so: {name[:80]!r}.")
        if found.setdefault(name, digest) != digest:
            raise ReleaseError("checksums", f"{what} gives {name[:80]} two different checksums.")
        if len(found) > LINES_LIMIT:
            raise ReleaseError("checksums", f"{what} names more than {LINES_LIMIT} files; that is no real one.")
    if not found:
        raise ReleaseError("checksums", f"{what} is empty.")
    return found


def is_plain(name: str) -> bool:
    """Whether it names a file in its own folder and nothing else."""
    return (
        0 < len(name) <= 200
        and name.isprintable()
        and not set(name) & set('/\\:*?"<>|')
        and not name.startswith((".", "-", "~"))
        and name == name.strip()
    )


def chosen(checksums: Mapping[str, str], names: Iterable[str], what: str) -> dict[str, str]:
    """The chosen files with their digests, in the order asked. Raises ReleaseError for one that is not named."""
    wanted = list(dict.fromkeys(names))
    missing = [name for name in wanted if name not in checksums]
    if missing:
        there = sorted(checksums)
        more = f" and {len(there) - NAMES_TOLD} more" if len(there) > NAMES_TOLD else ""
        raise ReleaseError(
            "checksums",
            f"{what} has no line for {', '.join(missing)}, so that cannot be verified and is not taken. It names "
            f"{', '.join(there[:NAMES_TOLD])}{more}. Choose other platforms.",
        )
    return {name: checksums[name] for name in wanted}


def replaced(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The files that had another checksum before: what is published once under a version must not change."""
    return [name for name, digest in before.items() if now.get(name, digest) != digest]
