"""Blobs while they are written: downloads that can be continued, and bytes whose name is not known yet."""

import ctypes
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from mirrors.blobs.hashing import Sha256
from mirrors.digests import DigestError, Verifier, short
from mirrors.stopping import Stopped, StopSignal

if TYPE_CHECKING:
    from mirrors.blobs.store import BlobStore

CHUNK = 256 * 1024
# Bytes per write, at multiples of it. Linux makes page cache in pieces as long as a write, and long ones cost: 840 MB
# on ext4 (6.18) took 0.2 s in writes of 32 KiB, 0.5 s in 256 KiB and 1.9 s in 1 MiB.
AT_ONCE = 32 * 1024
# So many new bytes are sent on their way to the disk while more arrive; fsync at the end then has little left to do.
WRITE_BEHIND = 16 * 1024 * 1024


class Feedable(Protocol):
    def feed(self, chunk: bytes, /) -> object: ...


Feed = Callable[[bytes], object]
Observer = Feedable | Feed


class PartialBlob:
    """A download that is being written. Not for use after the `with` block that made it."""

    def __init__(
        self,
        store: "BlobStore",
        path: Path,
        descriptor: int,
        digest: str,
        size: int,
        feeds: list[Feed],
        stop: StopSignal | None,
    ) -> None:
        self.digest = digest
        self.size = size
        self.complete = False
        self.resumed = 0
        self._store = store
        self._path = path
        self._descriptor = descriptor
        self._feeds = feeds
        self._stop = stop
        self._verifier = Verifier(digest, size)
        self._ended = False
        self._sent = 0

    @property
    def offset(self) -> int:
        """Bytes held, hashed and shown to the observers."""
        return self._verifier.seen

    def write(self, chunk: bytes) -> None:
        """Append. Raises DigestError for a byte too many (all is thrown away), StoreError, or what an observer raises.

        Observers may keep `chunk`: its buffer must not be used again.
        """
        if self._ended or self.complete:
            raise DigestError("size", f"Blob {short(self.digest)} is finished; further bytes have no place in it.")
        if self.offset + len(chunk) > self.size:
            self.discard()
            raise DigestError("size", f"More than the {self.size} bytes stated for {self.digest} arrived.")
        with self._store._explained("writing", self.digest):
            _write_all(self._descriptor, chunk, self.offset)
        self._verifier.update(chunk)
        self._show(chunk)
        if self.offset - self._sent >= WRITE_BEHIND:
            _start_writing(self._descriptor, self._sent, self.offset - self._sent)
            self._sent = self.offset

    def commit(self) -> str:
        """Verify size and digest, make it durable, give it its name. Wrong bytes are thrown away: DigestError.

        A partial that is only short stays for the next try.
        """
        if self.complete:
            return self.digest
        try:
            self._verifier.finish()
        except DigestError as error:
            if error.code == "digest":
                self.discard()
            raise
        self._store._finish(self._descriptor, self._path, self.digest)
        self.complete = True
        return self.digest

    def discard(self) -> None:
        """Throw the bytes away. The next `partial` begins at zero."""
        if not self.complete and not self._ended:
            self._ended = True
            with self._store._explained("removing", self.digest):
                os.ftruncate(self._descriptor, 0)
                self._path.unlink(missing_ok=True)

    def _take_up(self) -> None:
        if self._store.has(self.digest) and self._take_finished():
            return
        with self._store._explained("reading", self.digest):
            held = os.fstat(self._descriptor).st_size
            if held > self.size or (held == self.size and held and self._hash_of_file() != self.digest):
                os.ftruncate(self._descriptor, 0)
                held = 0
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            while self.offset < held and (chunk := os.read(self._descriptor, CHUNK)):
                self._check_stop()
                self._verifier.update(chunk)
                self._show(chunk)
            os.ftruncate(self._descriptor, self.offset)
        self.resumed = self.offset

    def _take_finished(self) -> bool:
        """The blob is in the store. Without observers a pristine one is believed; else its bytes are read once."""
        if not self._store.is_pristine(self.digest, self.size) and self._store.verify(self.digest) != "ok":
            self._store.quarantine(self.digest)
            return False
        if self._store.size(self.digest) != self.size:
            raise DigestError(
                "size",
                f"Blob {short(self.digest)} has {self._store.size(self.digest)} bytes, not the {self.size} stated.",
            )
        self._path.unlink(missing_ok=True)
        self.complete = True
        self.resumed = self.size
        if not self._feeds:
            self._verifier.seen = self.size
            return True
        with self._store.open(self.digest) as file:
            while chunk := file.read(CHUNK):
                self._check_stop()
                self._verifier.update(chunk)
                self._show(chunk)
        try:
            self._verifier.finish()
        except DigestError as error:
            self._store.quarantine(self.digest)
            raise self._store._damage(self.digest) from error
        return True

    def _hash_of_file(self) -> str:
        running = hashlib.sha256()
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        while chunk := os.read(self._descriptor, CHUNK):
            self._check_stop()
            running.update(chunk)
        return "sha256:" + running.hexdigest()

    def _show(self, chunk: bytes) -> None:
        try:
            for feed in self._feeds:
                feed(chunk)
        except Stopped:
            raise
        except Exception:  # whatever an observer raises, the bytes it refused must not spoil the next try
            self.discard()
            raise

    def _check_stop(self) -> None:
        if self._stop is not None:
            self._stop.check()

    def _close(self) -> None:
        with suppress(OSError):
            if not self.complete and not self._ended and os.fstat(self._descriptor).st_size == 0:
                self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


class IncomingBlob:
    """Bytes that get their name when they are all there. Not for use after the `with` block that made it."""

    def __init__(self, store: "BlobStore", path: Path, descriptor: int, limit: int) -> None:
        self.limit = limit
        self.offset = 0
        self.committed = False
        self._sent = 0
        self._store = store
        self._path = path
        self._descriptor = descriptor
        self._hash = Sha256(limit)

    def write(self, chunk: bytes) -> None:
        """Append. Raises DigestError (`size`) for a byte more than the limit, StoreError where the disk refuses.

        The buffer of `chunk` must not be used again: it may still be hashed after this returns.
        """
        if self.offset + len(chunk) > self.limit:
            raise DigestError("size", f"More than the {self.limit} bytes allowed arrived.")
        with self._store._explained("writing", ""):
            _write_all(self._descriptor, chunk, self.offset)
        self._hash.update(chunk)
        self.offset += len(chunk)
        if self.offset - self._sent >= WRITE_BEHIND:
            _start_writing(self._descriptor, self._sent, self.offset - self._sent)
            self._sent = self.offset

    def restart(self) -> None:
        """Throw away what was written and begin again."""
        with self._store._explained("writing", ""):
            os.ftruncate(self._descriptor, 0)
        self._hash.close()
        self._hash = Sha256(self.limit)
        self.offset = self._sent = 0

    def require(self, digest: str) -> None:
        """Raise DigestError unless these bytes have this digest."""
        actual = "sha256:" + self._hash.hexdigest()
        if actual != digest:
            raise DigestError("digest", f"The bytes of {digest} have the digest {actual}.")

    def reading(self) -> BinaryIO:
        """What was written so far, opened to be read. The caller closes it."""
        return self._path.open("rb")

    def commit(self) -> tuple[str, int]:
        """Make it a blob; returns its digest and its size in bytes."""
        digest = "sha256:" + self._hash.hexdigest()
        if not self.committed:
            self._store._finish(self._descriptor, self._path, digest)
            self.committed = True
        return digest, self.offset

    def _close(self) -> None:
        self._hash.close()
        if not self.committed:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def feed_of(observer: Observer) -> Feed:
    return observer if callable(observer) else observer.feed


def _write_all(descriptor: int, chunk: bytes, offset: int) -> None:
    """Write at `offset`; after a failure there the same bytes may be tried again."""
    view = memoryview(chunk)
    while view:
        written = os.pwrite(descriptor, view[: AT_ONCE - offset % AT_ONCE], offset)
        view, offset = view[written:], offset + written


def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """sync_file_range(2), which Python does not offer; None where the system has none."""
    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return function


_SYNC_FILE_RANGE = _sync_file_range()
_SYNC_FILE_RANGE_WRITE = 2


def _start_writing(descriptor: int, offset: int, count: int) -> None:
    """Have the system begin to write these bytes to the disk. Only fsync waits for it and reports errors."""
    if _SYNC_FILE_RANGE is not None:
        _SYNC_FILE_RANGE(descriptor, offset, count, _SYNC_FILE_RANGE_WRITE)
