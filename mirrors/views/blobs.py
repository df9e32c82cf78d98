"""Sending one blob of the store: by sendfile, or by nginx; whole or one range; and the moment that counts as taken.

Every door that hands out kept bytes as they are (`/v2/`, VEX archives, `/files/`) answers through `send_blob`.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header

from mirrors import content
from mirrors.blobs import BlobStore, StoreError
from mirrors.digests import short
from mirrors.views.ranges import Span, Unsatisfiable, choose_span, matches_any
from mirrors.views.sending import let_go_of_the_database

logger = logging.getLogger(__name__)

# Where deploy/nginx.conf has the store, for X-Accel-Redirect only.
ACCEL_PREFIX = "/_blobs"
REMEMBERED = 1000
Refuse = Callable[[int, str], HttpResponse]


@dataclass(frozen=True)
class ServedBlob:
    """What is to be sent. `size` in bytes, as the record has it; `filename` makes browsers save it under that name."""

    digest: str
    size: int
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    filename: str = ""


def refuse_plainly(status: int, sentence: str) -> HttpResponse:
    return HttpResponse(f"{sentence}\n", status=status, content_type="text/plain; charset=utf-8")


def send_blob(
    request: HttpRequest,
    blob: ServedBlob,
    *,
    on_taken: Callable[[], None] | None = None,
    taken_note: str = "",
    etag: bool = True,
    refuse: Refuse = refuse_plainly,
) -> HttpResponseBase:
    """GET and HEAD, a single range: 200, 206, 304, 416; 503 where the bytes are missing or not what they were.

    `on_taken` is called once, when the last byte of the blob was handed to the network (a range that ends with it
    counts), never when the client broke off before. With AIRGAP_SEND_WITH=nginx only nginx knows; then `taken_note`
    (printable ASCII) goes to nginx as `X-Airgap-Taken`, for its log and for nobody else.

    `etag=False` for what Trivy before 0.73 asks conditionally: it deletes its copy on a 304.
    """
    # Whoever asks was looked up by now. Many threads answer here, and a database has only so many connections.
    let_go_of_the_database()
    store = content.store()
    if not _is_fit(store, blob):
        message = f"The content {short(blob.digest)} is missing or damaged here. Run the store check on the Store page."
        return _headed(refuse(503, message), {"Cache-Control": "no-store"})
    tag = f'"{blob.digest}"' if etag else ""
    headers = {"Accept-Ranges": "bytes", **blob.headers}
    if tag:
        headers["ETag"] = tag
        if matches_any(request.headers.get("If-None-Match"), tag):
            return HttpResponse(status=304, headers=headers)
    headers["Content-Type"] = blob.content_type
    if blob.filename:
        headers["Content-Disposition"] = content_disposition_header(True, blob.filename) or "attachment"
    if settings.AIRGAP_SEND_WITH == "nginx":
        return _by_nginx(request, store, blob, headers, taken_note)
    wanted = request.headers.get("Range") if request.method == "GET" else None
    try:
        span = choose_span(wanted, request.headers.get("If-Range"), tag, blob.size)
    except Unsatisfiable as error:
        return _headed(refuse(416, str(error)), {"Content-Range": error.content_range})
    if span.partial:
        headers["Content-Range"] = span.content_range
    headers["Content-Length"] = str(span.length)
    if request.method == "HEAD":
        return HttpResponse(headers=headers)
    try:
        file = BlobFile(store.open(blob.digest), span, on_taken)
    except StoreError as error:
        logger.error("%s", error)
        return _headed(refuse(503, str(error)), {"Cache-Control": "no-store"})
    return BlobResponse(file, status=206 if span.partial else 200, headers=headers)


class BlobFile:
    """The bytes of a span as a WSGI server takes them: with `fileno`, for sendfile, else with `read`.

    Asked for more after the last byte, `read` knows that everything before was written. A server that uses the file
    descriptor calls `all_was_sent` itself (airgap/running/serving); both do so once, and not for a client that left.
    """

    def __init__(self, file: BinaryIO, span: Span, on_taken: Callable[[], None] | None) -> None:
        self._file = file
        self._left = span.length
        self._on_taken = on_taken if span.has_last_byte else None
        file.seek(span.start)

    def fileno(self) -> int:
        return self._file.fileno()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(chunk)
        if not chunk and size:
            if self._left:
                # Shorter than a moment ago: the connection breaks, and the other end sees that something is missing.
                raise OSError(f"{self._file.name} ended {self._left} bytes early")
            self.all_was_sent()
        return chunk

    def all_was_sent(self) -> None:
        taken, self._on_taken = self._on_taken, None
        if taken is not None:
            try:
                taken()
            except Exception:
                # The bytes are there all the same, and the connection is good for the next request.
                logger.exception("What was taken could not be recorded.")

    def close(self) -> None:
        self._file.close()


class BlobResponse(FileResponse):
    """Sent in large pieces where the server cannot hand the file to the kernel. Says of itself only what it is told."""

    block_size = 1 << 20

    def set_headers(self, filelike: Any) -> None:
        pass


def _by_nginx(
    request: HttpRequest, store: BlobStore, blob: ServedBlob, headers: dict[str, str], note: str
) -> HttpResponse:
    """nginx looks at Range and HEAD itself, and says so."""
    place = store.path(blob.digest).relative_to(store.root / "blobs")
    del headers["Accept-Ranges"]
    headers["X-Accel-Redirect"] = f"{ACCEL_PREFIX}/{place.as_posix()}"
    if note and request.method == "GET":
        headers["X-Airgap-Taken"] = note
    return HttpResponse(headers=headers)


def _headed(response: HttpResponse, headers: dict[str, str]) -> HttpResponse:
    for name, value in headers.items():
        response.headers[name] = value
    return response


# Whether the bytes are still what their name says

_verdicts: dict[tuple[str, int, int, int], bool] = {}
_verifying: dict[str, threading.Lock] = {}
_guard = threading.Lock()


def _is_fit(store: BlobStore, blob: ServedBlob) -> bool:
    """Whether the blob is there, as long as it should be, and unchanged since it was verified.

    A file somebody touched is read once, however many ask for it meanwhile, and the verdict holds until it is touched
    again: also where it cannot be marked as verified (another user's file on a shared store).
    """
    if store.is_pristine(blob.digest, blob.size):
        return True
    with _guard:
        lock = _verifying.setdefault(blob.digest, threading.Lock())
    try:
        with lock:
            return store.is_pristine(blob.digest, blob.size) or _verified(store, blob)
    finally:
        with _guard:
            _verifying.pop(blob.digest, None)


def _verified(store: BlobStore, blob: ServedBlob) -> bool:
    try:
        status = store.path(blob.digest).stat()
    except OSError as error:
        logger.error("Blob %s is not served: %s. Run the store check.", short(blob.digest), error.strerror)
        return False
    seen = (blob.digest, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if seen not in _verdicts:
        try:
            fit = status.st_size == blob.size and store.verify(blob.digest) == "ok"
        except StoreError as error:
            logger.error("%s", error)
            return False
        if not fit:
            logger.error("Blob %s is damaged and is not served; run the store check.", short(blob.digest))
        with _guard:
            while len(_verdicts) >= REMEMBERED:
                del _verdicts[next(iter(_verdicts))]
            _verdicts[seen] = fit
    return _verdicts[seen]
