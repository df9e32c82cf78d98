"""The store itself: where blobs are, how they are read, checked, locked and removed."""

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
from typing import BinaryIO, Literal

from mirrors.blobs.faults import CODES, NEXT_STEP, StoreError
from mirrors.blobs.writing import CHUNK, IncomingBlob, Observer, PartialBlob, feed_of
from mirrors.digests import DIGEST, digest_of, parse_digest, short
from mirrors.stopping import StopSignal

# What is read whole: manifests, of which registries take up to so many bytes (distribution-spec, "Pushing Manifests").
SMALL = 4 * 1024 * 1024
# The time of last change that every finished blob carries (2001-01-01T00:00:00Z). Whoever writes to a blob later
# changes it, so a blob that still has it was not touched since its bytes were verified. Whole seconds, because
# some file systems keep nothing finer.
STAMP_NS = 978_307_200 * 1_000_000_000


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

    def read(self, digest: str, limit: int = SMALL) -> bytes:
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

    def damaged_bytes(self) -> int:
        """What was set aside, in bytes."""
        return sum(size for _, size, _ in self._set_aside())

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
    ) -> Iterator[PartialBlob]:
        """Continue or begin the download of a blob of `size` bytes; left without commit, it is kept for the next try.

        1. Wait up to `wait_seconds` for whoever writes this blob now (StoreError `busy`).
        2. Hash what is there and show it to the observers, which thus see every byte once and in order.
        3. Hand out the partial. `complete` is true when the blob is in the store already: there is nothing to write.

        What is too long, or whole and wrong, is thrown away and begun again. An observer that refuses bytes (raises)
        makes them be thrown away too, so that they cannot spoil the next try. Raises `Stopped` when `stop` is set.
        """
        feeds = [feed_of(observer) for observer in observers]
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
    def incoming(self, limit: int) -> Iterator[IncomingBlob]:
        """Write a blob whose digest is not known before. Left without commit, nothing of it stays.

        More than `limit` bytes raise DigestError (`size`).
        """
        with self._explained("writing", ""):
            self._make_folder(self._partial)
            path = self._partial / f"incoming-{secrets.token_hex(8)}"
            descriptor = self._lock(path, "", None, 30)
        incoming = IncomingBlob(self, path, descriptor, limit)
        try:
            yield incoming
        finally:
            incoming._close()

    def remove(self, digest: str) -> None:
        """Forget a blob; one that is not there is no error. Downloads that are being sent from it run on."""
        with self._explained("removing", digest):
            self.path(digest).unlink(missing_ok=True)

    def remove_partials(self, older_than: datetime, nameless: datetime | None = None) -> int:
        """Remove what nobody is writing and nobody has written since `older_than`; returns the bytes freed.

        What has no name yet can never be gone on with: of that, what nobody has written since `nameless`.
        """
        freed = 0
        for partial in list(self.partials()):
            if partial.changed_at >= (older_than if partial.digest or nameless is None else nameless):
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

    def remove_abandoned(self) -> int:
        """Remove at once what a killed process left without a name; returns the bytes freed."""
        return self.remove_partials(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))

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

    def remove_damaged(self, older_than: datetime) -> int:
        """Remove what was set aside before `older_than`; returns the bytes freed."""
        freed = 0
        for path, size, since in self._set_aside():
            if since < older_than:
                with self._explained("removing", f"sha256:{path.name}"):
                    path.unlink(missing_ok=True)
                freed += size
        return freed

    def _set_aside(self) -> Iterator[tuple[Path, int, datetime]]:
        """Damaged files, their sizes, and since when they stand there: by the inode's time, which the move changed."""
        with self._explained("listing", ""):
            for path in list(self._damaged.iterdir()) if self._damaged.is_dir() else ():
                with suppress(FileNotFoundError):
                    status = path.stat()
                    yield path, status.st_size, datetime.fromtimestamp(status.st_ctime, UTC)

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
            os.utime(descriptor, ns=(STAMP_NS, STAMP_NS))
            os.fsync(descriptor)
            self._make_folder(target.parent)
            path.replace(target)
            # Only now: whoever is killed before the rename leaves a partial, and that must stay writable to go on.
            os.fchmod(descriptor, 0o444)
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
