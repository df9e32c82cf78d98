"""Versions of a release: which one is wanted, which of two is older, and which one an answer names.

A tag is `v0.74.0`, a version `0.74.0`; file names have the version (goreleaser.yml of aquasecurity/trivy).
"""

import json
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from mirrors.digests import DIGEST
from mirrors.trivy.release.errors import ReleaseError

LATEST = "latest"
LONGEST = 40
VERSION = re.compile(r"v?([0-9]{1,9}(?:\.[0-9]{1,9}){1,3}(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?)", re.ASCII)
# What a host that answers in JSON calls it: GitHub's and Gitea's API, and what people write by hand.
KEYS = ("tag_name", "version", "latest")
ANSWER_LIMIT = 256 * 1024


@dataclass(frozen=True)
class Wanted:
    """`version` is LATEST or a number; `checksums` the digest of the one checksum file that is taken, "" for any."""

    version: str
    checksums: str = ""

    @property
    def is_latest(self) -> bool:
        return self.version == LATEST

    def __str__(self) -> str:
        return f"{self.version}@{self.checksums}" if self.checksums else self.version


def parse_version(text: str) -> str | None:
    """`0.74.0` of `v0.74.0` or `0.74.0`; None for anything else."""
    match = VERSION.fullmatch(text.strip()) if len(text) <= LONGEST + 20 else None
    return match[1] if match and len(match[1]) <= LONGEST else None


def parse_wanted(text: str) -> Wanted:
    """What an administrator wrote: `latest`, `0.74.0`, or `0.74.0@sha256:…`. Raises ReleaseError (`version`)."""
    name, at, digest = text.strip().partition("@")
    if not at and name.lower() in ("", LATEST):
        return Wanted(LATEST)
    version = parse_version(name)
    if version is None or (at and not DIGEST.fullmatch(digest)):
        raise ReleaseError(
            "version",
            f"{text.strip()[:60]!r} is no version. Write latest, or one such as 0.74.0; 0.74.0@sha256:… takes that "
            "version with one certain checksum file only.",
        )
    return Wanted(version, digest)


def is_older(version: str, than: str) -> bool:
    """By semantic versioning; a pre-release comes before its release."""
    return _order(version) < _order(than)


def _order(version: str) -> tuple[tuple[int, ...], int, tuple[tuple[int, int, str], ...]]:
    numbers, _, pre = version.partition("-")
    counts = [int(number) for number in numbers.split(".")]
    counts += [0] * (4 - len(counts))
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".") if part)
    return tuple(counts), 0 if parts else 1, parts


def version_in_address(url: str) -> str | None:
    """The version in a web address, as in `…/releases/tag/v0.74.0` or `…/0.74.0/`; the last one counts."""
    try:
        segments = urlsplit(url).path.split("/")
    except ValueError:
        return None
    return next((found for segment in reversed(segments) if (found := parse_version(segment))), None)


def version_in_answer(raw: bytes) -> str | None:
    """The version that a body names: text that is nothing else, or JSON with one of `KEYS`."""
    text = raw[:ANSWER_LIMIT].decode("utf-8", "replace").strip()
    if not text.startswith("{"):
        return parse_version(text)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    named = [document.get(key) for key in KEYS] if isinstance(document, dict) else []
    return next((found for name in named if isinstance(name, str) and (found := parse_version(name))), None)
