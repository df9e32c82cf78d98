"""Files that browsers upload in pieces: `staging/<id>` in the data directory, one row each, gone when they were read.

The row's offset is what is on the disk for certain: it moves after fsync. Bytes beyond it are cut off by the next
piece, so whatever is killed, an upload goes on where its row says.
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db.models import F, Sum

from mirrors import content, retention
from mirrors.bundle.checking import LIST_LIMIT
from mirrors.bundle.volumes import LIST_ENDING
from mirrors.importing.finding import FILE, LIST, SINGLE, number_of
from mirrors.models import Import, Upload

PIECE = 1 << 20
LARGEST = 1 << 42
MOST_UPLOADS = 1000
# So many of the last imports of one bundle are looked at.
LAST = 20


class UploadError(Exception):
    """A piece or a file is not taken. `status` is HTTP's; the sentence says why and what to do."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


def folder() -> Path:
    return Path(settings.AIRGAP_DATA_DIR) / "staging"


def path_of(upload_id: str) -> Path:
    return folder() / upload_id


def begin(name: str, size: int, *, by: str, now: datetime) -> Upload:
    """A file that is going to be uploaded. Raises UploadError for a name that is no bundle's, or no room.

    A single file of a bundle without folders is named with the set it belongs to: `airgap-files-1a2b3c4d/bundle.json`.
    """
    name = name if SINGLE.fullmatch(name) else name.replace("\\", "/").rpartition("/")[2]
    if not any(pattern.fullmatch(name) for pattern in (FILE, SINGLE, LIST)):
        raise UploadError(
            f"{name[:80]!r} is not called like a bundle. Choose airgap-….tar, its volumes airgap-….tar.001of004 with "
            "their list airgap-….tar.sha256, or all single files of a bundle together."
        )
    if LIST.fullmatch(name) and size > LIST_LIMIT:
        raise UploadError(f"{name} is too large to be a list of checksums.", 413)
    if not 0 < size <= LARGEST:
        raise UploadError(f"{name} is empty." if size <= 0 else f"{name} is too large.", 400 if size <= 0 else 413)
    if Upload.objects.count() >= MOST_UPLOADS:
        raise UploadError(f"{MOST_UPLOADS} files are uploaded already. Import or remove some first.", 429)
    try:
        retention.require_room(size + outstanding(), run_id=0, store=content.store())
    except retention.NoRoomError as error:
        raise UploadError(
            f"{error} A bundle in a directory of the server needs no room for the file itself.", 413
        ) from error
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    upload = Upload(
        id=secrets.token_hex(16), name=name, size_bytes=size, by=by[:150], created_at=now, touched_at=now,
        expires_at=_until(now),
    )  # fmt: skip
    os.close(os.open(path_of(upload.pk), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    upload.save(force_insert=True)
    return upload


def outstanding() -> int:
    """Bytes of uploads begun that have still to come."""
    sums = Upload.objects.aggregate(total=Sum("size_bytes"), there=Sum("offset"))
    return (sums["total"] or 0) - (sums["there"] or 0)


def append(
    upload: Upload,
    offset: int,
    read: Callable[[int], bytes],
    length: int,
    *,
    now: Callable[[], datetime],
    check: Callable[[bytes], object] | None = None,
    right: Callable[[], bool] = lambda: True,
) -> int:
    """Add the piece of `length` bytes that `read` gives, at `offset`; the new offset. Raises UploadError.

    409 for an offset that is not where the file ends, 423 while another piece of it is being written. Of a connection
    that breaks, what came is kept; with a checksum (`check` hears every byte, `right` decides) all or nothing is.
    """
    with _locked(upload) as descriptor:
        upload.refresh_from_db()
        if upload.run_id is not None:
            raise UploadError("This file is being imported already.", 409)
        if offset != upload.offset:
            raise UploadError(f"The file goes on at {upload.offset}, not at {offset}.", 409)
        if offset + length > upload.size_bytes:
            raise UploadError(f"The file has {upload.size_bytes} bytes; this piece goes beyond its end.", 413)
        came = _write(descriptor, offset, read, length, check)
        if check is not None and (came < length or not right()):
            os.ftruncate(descriptor, offset)
            raise UploadError("The piece does not have its checksum; send it again.", 460)
        os.fsync(descriptor)
        moment = now()
        upload.offset, upload.touched_at, upload.expires_at = offset + came, moment, _until(moment)
        upload.save(update_fields=["offset", "touched_at", "expires_at"])
    if upload.is_complete:
        _replace(upload)
    return upload.offset


def _write(
    descriptor: int, offset: int, read: Callable[[int], bytes], length: int, check: Callable[[bytes], object] | None
) -> int:
    os.ftruncate(descriptor, offset)
    came = 0
    while came < length:
        try:
            piece = read(min(PIECE, length - came))
        except OSError:
            break
        if not piece:
            break
        if check is not None:
            check(piece)
        try:
            view = memoryview(piece)
            while view:
                written = os.pwrite(descriptor, view, offset + came)
                came, view = came + written, view[written:]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UploadError("The disk is full. Make room, then let the upload go on.", 507) from error
            raise
    return came


@contextmanager
def _locked(upload: Upload) -> Iterator[int]:
    try:
        descriptor = os.open(path_of(upload.pk), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise UploadError("This upload was removed. Begin it again.", 410) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    except BlockingIOError as error:
        raise UploadError("Another piece of this file is being written now.", 423) from error
    finally:
        os.close(descriptor)


# Removing


def remove(upload: Upload) -> None:
    """The file and its row. Nothing is left to go on with."""
    with suppress(FileNotFoundError):
        path_of(upload.pk).unlink()
    Upload.objects.filter(pk=upload.pk).delete()


def _replace(upload: Upload) -> None:
    """Of a file that was uploaded twice the later one counts; the room of the other is given back if it came whole."""
    same = Upload.objects.filter(name=upload.name, run=None, offset=F("size_bytes"), created_at__lte=upload.created_at)
    for other in same.exclude(pk=upload.pk):
        # Unless an import has taken it meanwhile.
        if Upload.objects.filter(pk=other.pk, run=None).delete()[0]:
            path_of(other.pk).unlink(missing_ok=True)


def remove_of(run: Import) -> None:
    for upload in Upload.objects.filter(run=run):
        remove(upload)


def let_go(run: Import, damaged: Collection[str], *, now: datetime) -> list[str]:
    """Let what was uploaded for this import wait for another one, from now on, without the damaged volumes and those
    that somebody has sent again meanwhile.

    Of those the rows are removed; the ids, for `unlink` once that is committed.
    """
    uploads = list(Upload.objects.filter(run=run))
    again = Upload.objects.filter(run=None, name__in=[upload.name for upload in uploads], offset=F("size_bytes"))
    dropped = {*damaged, *again.values_list("name", flat=True)}
    gone = [upload.pk for upload in uploads if upload.name in dropped]
    Upload.objects.filter(pk__in=gone).delete()
    Upload.objects.filter(run=run).update(run=None, expires_at=_until(now))
    return gone


def was_read(upload: Upload) -> bool:
    """Whether an import that failed has read it: whoever sends a file of this name again means another copy."""
    match = FILE.fullmatch(upload.name)
    if match is None or not upload.is_complete:
        return False
    failed = Import.objects.filter(state=Import.State.FAILED, origin=Import.Origin.UPLOAD, name=match["bundle"])
    files = failed.order_by("-pk").values_list("files", flat=True)[:LAST]
    return any(file.get("upload") == upload.pk for each in files for file in each)


def unlink(upload_ids: Iterable[str]) -> None:
    for upload_id in upload_ids:
        path_of(upload_id).unlink(missing_ok=True)


def kept_of(run: Import) -> list[Upload]:
    """What was uploaded for an import that has ended and waits for another one, the volumes' list last."""
    if run.is_open:
        return []
    ids = [file["upload"] for file in run.files if "upload" in file]
    kept = list(Upload.objects.filter(pk__in=ids, run=None)) if ids else []
    lists = Upload.objects.filter(name__iexact=run.name + LIST_ENDING, run=None) if kept else ()
    return sorted(kept, key=lambda upload: number_of(upload.name)) + list(lists)


def expire(now: datetime) -> int:
    """Uploads nobody came back for, and files that no row names any more; how many."""
    open_runs = Import.objects.open().values("pk")
    overdue = list(Upload.objects.overdue(now).exclude(run__in=open_runs))
    for upload in overdue:
        remove(upload)
    known = set(Upload.objects.values_list("pk", flat=True))
    with suppress(FileNotFoundError), os.scandir(folder()) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                # A row is written a moment after its file.
                if entry.name not in known and entry.stat().st_mtime < (now - timedelta(hours=1)).timestamp():
                    Path(entry.path).unlink()
    return len(overdue)


def _until(now: datetime) -> datetime:
    return now + timedelta(days=settings.AIRGAP_STAGING_DAYS)
