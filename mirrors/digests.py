"""Digests and the running check of bytes against them.

A digest is text: `sha256:` and 64 lower-case hex digits (OCI image-spec, descriptor.md). It is checked here before it
may become part of a path or a URL.
"""

import hashlib
import re

DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


class DigestError(ValueError):
    """Bytes or a digest are not what they were said to be. `code`: malformed, size or digest."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def parse_digest(text: object) -> str:
    """The digest itself, or DigestError (`malformed`). Only sha256 is accepted."""
    if not isinstance(text, str) or not DIGEST.fullmatch(text):
        raise DigestError("malformed", f"{str(text)[:80]!r} is not a digest; expected sha256: and 64 hex digits.")
    return text


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def short(digest: str) -> str:
    """The first ten hex digits, as people read them."""
    return digest.removeprefix("sha256:")[:10]


class Verifier:
    """Counts and hashes bytes in order, and refuses the first byte too many."""

    def __init__(self, digest: str, size: int) -> None:
        self.digest = parse_digest(digest)
        self.size = size
        self.seen = 0
        self._hash = hashlib.sha256()

    def update(self, chunk: bytes | memoryview) -> None:
        self.seen += len(chunk)
        if self.seen > self.size:
            raise DigestError("size", f"More than the {self.size} bytes stated for {self.digest} arrived.")
        self._hash.update(chunk)

    def finish(self) -> None:
        """Raise DigestError unless exactly the stated bytes were seen."""
        if self.seen != self.size:
            raise DigestError("size", f"{self.seen} of the {self.size} bytes stated for {self.digest} arrived.")
        actual = "sha256:" + self._hash.hexdigest()
        if actual != self.digest:
            raise DigestError("digest", f"The bytes of {self.digest} have the digest {actual}.")
