"""The content store: immutable files named by the SHA-256 of their bytes.

A blob appears under its name only when it is complete, verified and on disk (fsync, rename, fsync of the folder).
Nothing here knows what a blob means or who refers to it; rows do.

    <root>/blobs/sha256/ab/<hex>     finished blobs, mode 0444
    <root>/partial/<hex>             a download under way or interrupted, held under flock while it is written
    <root>/partial/incoming-*        bytes whose digest is not known yet
    <root>/damaged/<hex>             set aside because the bytes were not what the name says
"""

import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from mirrors.digests import DIGEST, DigestError, Verifier, digest_of, parse_digest, short
from mirrors.stopping import Stopped, StopSignal

CHUNK = 256 * 1024
MIB = 1024 * 1024

# The time of last change that every finished blob carries (2001-01-01T00:00:00Z). Whoever writes to a blob later
# changes it, so a blob that still has it was not touched since its bytes were verified. Whole seconds, because
# some file systems keep nothing finer.
STAMP_NS = 978_307_200 * 1_000_000_000

CODES = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "read-only",
    errno.EACCES: "read-only",
    errno.EPERM: "read-only",
    errno.EIO: "damaged",
    errno.ENOENT: "missing",
}

NEXT_STEP = {
    "full": "Free space on that file system, or keep fewer snapshots; what was downloaded so far is resumed.",
    "read-only": "Give the user who runs Airgap the right to write there, or mount the file system writable.",
    "damaged": "The disk reports an error: check it (dmesg, SMART), then run the store check.",
    "missing": "Run the store check; it fetches missing content again.",
    "failed": "See the reason given by the system and try again.",
}


class StoreError(Exception):
    """The store cannot do what was asked. `code`: full, read-only, damaged, missing, busy, too-large or failed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Feedable(Protocol):
    def feed(self, chunk: bytes, /) -> object: ...


Feed = Callable[[bytes], object]
Observer = Feedable | Feed


@dataclass(frozen=True)
class Partial:
    """An interrupted download. `digest` is empty for bytes whose digest was never known."""

    digest: str
    size: int
    changed_at: datetime
    path: Path


class BlobStore:
    """Blobs under one folder; any number of processes and hosts may share it."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._blobs = self.root / "blobs" / "sha256"
        self._partial = self.root / "partial"
        self._damaged = self.root / "damaged"

    # Reading

    def path(self, digest: str) -> Path:
        """Where the blob is or would be. Raises DigestError for anything that is not a sha256 digest."""
        name = parse_digest(digest).removeprefix("sha256:")
        return self._blobs / name[:2] / name

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def size(self, digest: str) -> int:
        """Bytes on disk. Raises StoreError (`missing`)."""
        with self._explained("reading", digest):
            return self.path(digest).stat().st_size

    def open(self, digest: str) -> BinaryIO:
        """The file, for reading. Raises StoreError (`missing`, `read-only`)."""
        with self._explained("reading", digest):
            return self.path(digest).open("rb")

    def read(self, digest: str, limit: int = 4 * MIB) -> bytes:
        """All bytes of a small blob, verified. Raises StoreError (`missing`, `damaged`, `too-large`)."""
        with self._explained("reading", digest), self.path(digest).open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise StoreError("too-large", f"Blob {short(digest)} is larger than the {limit} bytes expected here.")
        if digest_of(data) != digest:
            raise self._damage(digest)
        return data

    def is_pristine(self, digest: str, size: int | None = None) -> bool:
        """Whether the blob is there, has `size` bytes (if given) and was not written to since it was verified."""
        try:
            status = self.path(digest).stat()
        except OSError:
            return False
        return status.st_mtime_ns == STAMP_NS and (size is None or status.st_size == size)

    def verify(
        self,
        digest: str,
        *,
        stop: StopSignal | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Literal["ok", "missing", "damaged"]:
        """Re-hash the blob. `progress` is told how many bytes each step read. Marks it pristine again when right."""
        path = self.path(digest)
        running = hashlib.sha256()
        try:
            with path.open("rb", buffering=0) as file:
                before = os.fstat(file.fileno())
                while chunk := file.read(CHUNK):
                    running.update(chunk)
                    if stop is not None:
                        stop.check()
                    if progress is not None:
                        progress(len(chunk))
                if running.hexdigest() != path.name:
                    return "damaged"
                # Not when somebody wrote to it meanwhile, and not our file on a shared store: then it stays unmarked.
                if before.st_mtime_ns != STAMP_NS and os.fstat(file.fileno()).st_mtime_ns == before.st_mtime_ns:
                    with suppress(OSError):
                        os.utime(file.fileno(), ns=(STAMP_NS, STAMP_NS))
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            if error.errno == errno.EIO:
                return "damaged"
            raise self._error(error, "reading", digest) from error
        return "ok"

    def digests(self) -> Iterator[tuple[str, int]]:
        """Every finished blob with its size in bytes, in order of digest. A blob removed meanwhile is left out."""
        with self._explained("listing", ""):
            folders = sorted(self._blobs.iterdir()) if self._blobs.is_dir() else []
            for folder in folders:
                for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                    digest = f"sha256:{path.name}"
                    if DIGEST.fullmatch(digest) and path.name.startswith(folder.name):
                        with suppress(FileNotFoundError):
                            yield digest, path.stat().st_size

    def partials(self) -> Iterator[Partial]:
        """Everything under `partial/`, oldest change first."""
        found: list[Partial] = []
        with self._explained("listing", ""):
            for path in self._partial.iterdir() if self._partial.is_dir() else ():
                if path.name == "in-use.lock":
                    continue
                with suppress(FileNotFoundError):
                    status = path.stat()
                    digest = f"sha256:{path.name}" if DIGEST.fullmatch(f"sha256:{path.name}") else ""
                    found.append(Partial(digest, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC), path))
        yield from sorted(found, key=lambda partial: partial.changed_at)

    def free_bytes(self) -> int:
        """What an ordinary user may still write on the store's file system."""
        place = self.root
        while not place.exists() and place != place.parent:
            place = place.parent
        with self._explained("measuring", ""):
            status = os.statvfs(place)
        return status.f_bavail * status.f_frsize

    def used_bytes(self) -> int:
        """Blobs, partial downloads and damaged files together."""
        total = sum(size for _, size in self.digests()) + sum(partial.size for partial in self.partials())
        for path in self._damaged.iterdir() if self._damaged.is_dir() else ():
            with suppress(OSError):
                total += path.stat().st_size
        return total

    # Sharing

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While a sync or an export puts blobs in place that no row names yet: nothing is pruned meanwhile."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """For the pruner: true if nobody is putting blobs in place now, and nobody begins until the block ends."""
        try:
            with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
                yield True
        except BlockingIOError:
            yield False

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with self._explained("locking", ""):
            self._make_folder(self._partial)
            descriptor = os.open(self._partial / "in-use.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    # Writing

    def put(self, data: bytes) -> str:
        """Keep `data` and return its digest. A blob of that name that is damaged is replaced."""
        digest = digest_of(data)
        if self.has(digest) and (self.is_pristine(digest, len(data)) or self.verify(digest) == "ok"):
            return digest
        with self.incoming(len(data)) as incoming:
            incoming.write(data)
            incoming.commit()
        return digest

    @contextmanager
    def partial(
        self,
        digest: str,
        size: int,
        observers: Iterable[Observer] = (),
        *,
        stop: StopSignal | None = None,
        wait_seconds: float = 30,
    ) -> Iterator["PartialBlob"]:
        """Continue or begin the download of a blob of `size` bytes; left without commit, it is kept for the next try.

        1. Wait up to `wait_seconds` for whoever writes this blob now (StoreError `busy`).
        2. Hash what is there and show it to the observers, which thus see every byte once and in order.
        3. Hand out the partial. `complete` is true when the blob is in the store already: there is nothing to write.

        What is too long, or whole and wrong, is thrown away and begun again. An observer that refuses bytes (raises)
        makes them be thrown away too, so that they cannot spoil the next try. Raises `Stopped` when `stop` is set.
        """
        feeds = [_feed_of(observer) for observer in observers]
        path = self._partial / parse_digest(digest).removeprefix("sha256:")
        with self._explained("writing", digest):
            self._make_folder(self._partial)
            descriptor = self._lock(path, digest, stop, wait_seconds)
        partial = PartialBlob(self, path, descriptor, digest, size, feeds, stop)
        try:
            partial._take_up()
            yield partial
        finally:
            partial._close()

    @contextmanager
    def incoming(self, limit: int) -> Iterator["IncomingBlob"]:
        """Write a blob whose digest is not known before. Left without commit, nothing of it stays.

        More than `limit` bytes raise DigestError (`size`).
        """
        with self._explained("writing", ""):
            self._make_folder(self._partial)
            path = self._partial / f"incoming-{secrets.token_hex(8)}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        incoming = IncomingBlob(self, path, descriptor, limit)
        try:
            yield incoming
        finally:
            incoming._close()

    def remove(self, digest: str) -> None:
        """Forget a blob; one that is not there is no error. Downloads that are being sent from it run on."""
        with self._explained("removing", digest):
            self.path(digest).unlink(missing_ok=True)

    def remove_partials(self, older_than: datetime) -> int:
        """Remove what nobody is writing and nobody has written since `older_than`; returns the bytes freed."""
        freed = 0
        for partial in list(self.partials()):
            if partial.changed_at >= older_than:
                continue
            with self._explained("removing", partial.digest), suppress(FileNotFoundError):
                descriptor = os.open(partial.path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    partial.path.unlink()
                    freed += partial.size
                except BlockingIOError:
                    pass
                finally:
                    os.close(descriptor)
        return freed

    def quarantine(self, digest: str) -> Path | None:
        """Move a damaged blob aside, so that it can be fetched again. Returns where it is now, None if it was gone."""
        target = self._damaged / parse_digest(digest).removeprefix("sha256:")
        with self._explained("moving", digest):
            self._make_folder(self._damaged)
            try:
                self.path(digest).replace(target)
            except FileNotFoundError:
                return None
            _sync_folder(self.path(digest).parent)
        return target

    # Inside

    def _lock(self, path: Path, digest: str, stop: StopSignal | None, wait_seconds: float) -> int:
        """An open, exclusively locked file that still is the one at `path`."""
        deadline = time.monotonic() + wait_seconds
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                while True:
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        if stop is not None:
                            stop.check()
                        if time.monotonic() >= deadline:
                            raise StoreError(
                                "busy",
                                f"Blob {short(digest)} is being downloaded by another run. "
                                "Wait until that run has ended, or stop it.",
                            ) from None
                        stop.wait(0.1) if stop is not None else time.sleep(0.1)
                # Its last holder may have moved it into the store or removed it while we waited.
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), path.stat()):
                        return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _finish(self, descriptor: int, path: Path, digest: str) -> None:
        """Move a verified file under its final name; when this returns, it survives a power cut."""
        target = self.path(digest)
        with self._explained("writing", digest):
            os.fchmod(descriptor, 0o444)
            os.utime(descriptor, ns=(STAMP_NS, STAMP_NS))
            os.fsync(descriptor)
            self._make_folder(target.parent)
            path.replace(target)
            _sync_folder(target.parent)

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        if folder != folder.parent:
            self._make_folder(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(0o755)
            _sync_folder(folder.parent)

    @contextmanager
    def _explained(self, doing: str, digest: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(error, doing, digest) from error

    def _error(self, error: OSError, doing: str, digest: str) -> StoreError:
        code = CODES.get(error.errno or 0, "failed")
        blob = f"blob {short(digest)}" if digest else "content"
        reason = {
            "full": "the file system is full",
            "read-only": "it may not be written or read",
            "missing": "it is not there",
        }.get(code, os.strerror(error.errno) if error.errno else str(error))
        return StoreError(code, f"{doing.capitalize()} {blob} in {self.root} failed: {reason}. {NEXT_STEP[code]}")

    def _damage(self, digest: str) -> StoreError:
        return StoreError(
            "damaged",
            f"Blob {short(digest)} in {self.root} is damaged: its bytes are not what its name says. "
            "Run the store check; it fetches the blob again.",
        )


class PartialBlob:
    """A download that is being written. Not for use after the `with` block that made it."""

    def __init__(
        self,
        store: BlobStore,
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
        except Exception:
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

    def __init__(self, store: BlobStore, path: Path, descriptor: int, limit: int) -> None:
        self.limit = limit
        self.offset = 0
        self.committed = False
        self._store = store
        self._path = path
        self._descriptor = descriptor
        self._hash = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        """Append. Raises DigestError (`size`) for a byte more than the limit, StoreError where the disk refuses."""
        if self.offset + len(chunk) > self.limit:
            raise DigestError("size", f"More than the {self.limit} bytes allowed arrived.")
        with self._store._explained("writing", ""):
            _write_all(self._descriptor, chunk, self.offset)
        self._hash.update(chunk)
        self.offset += len(chunk)

    def restart(self) -> None:
        """Throw away what was written and begin again."""
        with self._store._explained("writing", ""):
            os.ftruncate(self._descriptor, 0)
        self._hash = hashlib.sha256()
        self.offset = 0

    def commit(self) -> tuple[str, int]:
        """Make it a blob; returns its digest and its size in bytes."""
        digest = "sha256:" + self._hash.hexdigest()
        if not self.committed:
            self._store._finish(self._descriptor, self._path, digest)
            self.committed = True
        return digest, self.offset

    def _close(self) -> None:
        if not self.committed:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _feed_of(observer: Observer) -> Feed:
    return observer if callable(observer) else observer.feed


def _write_all(descriptor: int, chunk: bytes, offset: int) -> None:
    """Write at `offset`; after a failure there the same bytes may be tried again."""
    view = memoryview(chunk)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable. File systems that cannot (some network ones) say EINVAL."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
