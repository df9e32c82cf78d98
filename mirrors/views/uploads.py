"""Uploads in pieces: a tus 1.0 server (https://tus.io/protocols/resumable-upload) for the page Import.

Core, and the extensions creation, termination, expiration and checksum. Every request needs the session of an operator,
and every one that changes something the CSRF token in `X-CSRFToken`. A piece is written while it comes, by a thread of
those that stream (airgap/running/serving), so pages do not wait for it.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import http_date
from django.views.decorators.http import require_http_methods

from mirrors import retention
from mirrors.importing import staging
from mirrors.importing.staging import UploadError
from mirrors.models import Upload

VERSION = "1.0.0"
EXTENSIONS = "creation,termination,expiration,checksum"
PIECE_TYPE = "application/offset+octet-stream"
METADATA_LIMIT = 4096

View = Callable[..., HttpResponse]


def tus(view: View) -> View:
    """Speaks the protocol's errors: no redirect to a login, no page, a sentence in plain text."""

    @login_not_required
    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            response = _checked(request) or view(request, *args, **kwargs)
        except UploadError as error:
            response = _said(str(error), error.status)
        response.headers["Tus-Resumable"] = VERSION
        response.headers["Cache-Control"] = "no-store"
        return response

    return answer


def _checked(request: HttpRequest) -> HttpResponse | None:
    user: Any = request.user
    if not user.is_authenticated or user.must_change_password:
        return _said("Your session has ended. Sign in again; the upload then goes on where it stopped.", 401)
    if not user.may_operate:
        return _said("Only operators and administrators may upload bundles.", 403)
    if settings.AIRGAP_SIDE == "connected":
        return _said("This is the connected side; it imports nothing.", 404)
    if request.method != "OPTIONS" and request.headers.get("Tus-Resumable") != VERSION:
        response = _said(f"This server speaks tus {VERSION}.", 412)
        response.headers["Tus-Version"] = VERSION
        return response
    return None


def _said(sentence: str, status: int) -> HttpResponse:
    return HttpResponse(f"{sentence}\n", status=status, content_type="text/plain; charset=utf-8")


@tus
@require_http_methods(["OPTIONS", "POST"])
def uploads(request: HttpRequest) -> HttpResponse:
    """What this server can do; or a new upload, of `Upload-Length` bytes, with its `filename` in `Upload-Metadata`."""
    if request.method == "OPTIONS":
        response = HttpResponse(status=204)
        room = max(0, retention.space(timezone.now()).free - settings.AIRGAP_RESERVE_MB * 2**20 - staging.outstanding())
        response.headers["Tus-Version"] = VERSION
        response.headers["Tus-Extension"] = EXTENSIONS
        response.headers["Tus-Max-Size"] = str(min(room, staging.LARGEST))
        response.headers["Tus-Checksum-Algorithm"] = "sha256"
        return response
    size = _number(request, "Upload-Length")
    upload = staging.begin(_filename(request), size, by=_who(request), now=timezone.now())
    response = HttpResponse(status=201)
    response.headers["Location"] = reverse("mirrors:upload", args=[upload.pk])
    return _dated(response, upload)


@tus
@require_http_methods(["HEAD", "PATCH", "DELETE"])
def upload(request: HttpRequest, pk: str) -> HttpResponse:
    """How much of it is here; another piece of it; or its end."""
    found = Upload.objects.filter(pk=pk, by=_who(request)[:150]).first()
    if found is None or (request.method == "HEAD" and (found.run_id is not None or staging.was_read(found))):
        raise UploadError("There is no such upload; it may have been imported, removed or given up.", 404)
    if request.method == "HEAD":
        response = HttpResponse()
        response.headers["Upload-Length"] = str(found.size_bytes)
    elif request.method == "DELETE":
        if found.run_id is not None:
            raise UploadError("This file is being imported. Stop the import first.", 409)
        staging.remove(found)
        return HttpResponse(status=204)
    else:
        _take(request, found)
        response = HttpResponse(status=204)
    response.headers["Upload-Offset"] = str(found.offset)
    return _dated(response, found)


def _take(request: HttpRequest, found: Upload) -> None:
    if request.content_type != PIECE_TYPE:
        raise UploadError(f"A piece comes as {PIECE_TYPE}.", 415)
    offset = _number(request, "Upload-Offset")
    if "Content-Length" not in request.headers:
        raise UploadError("A piece says how long it is (Content-Length).", 411)
    length = _number(request, "Content-Length")
    running, wanted = _checksum(request)
    staging.append(
        found,
        offset,
        request.read,
        length,
        now=timezone.now,
        check=running.update if running is not None else None,
        right=lambda: running is None or running.digest() == wanted,
    )


def _checksum(request: HttpRequest) -> tuple[Any, bytes]:
    """`Upload-Checksum: sha256 <base64>`, if it is there."""
    said = request.headers.get("Upload-Checksum", "")
    if not said:
        return None, b""
    algorithm, _, value = said.partition(" ")
    if algorithm != "sha256":
        raise UploadError("Checksums are taken as sha256.", 400)
    try:
        return hashlib.sha256(), base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise UploadError("The checksum is not in base64.", 400) from None


def _filename(request: HttpRequest) -> str:
    said = request.headers.get("Upload-Metadata", "")
    if len(said) > METADATA_LIMIT:
        raise UploadError("Upload-Metadata is too long.", 400)
    for pair in said.split(","):
        key, _, value = pair.strip().partition(" ")
        if key == "filename":
            try:
                return base64.b64decode(value, validate=True).decode()
            except (binascii.Error, ValueError):
                break
    raise UploadError("Upload-Metadata does not say the file's name (filename, in base64).", 400)


def _number(request: HttpRequest, header: str) -> int:
    value = request.headers.get(header, "")
    if not value.isascii() or not value.isdigit() or len(value) > 16:
        raise UploadError(f"{header} is missing or no number.", 400)
    return int(value)


def _dated(response: HttpResponse, found: Upload) -> HttpResponse:
    response.headers["Upload-Expires"] = http_date(found.expires_at.timestamp())
    return response


def _who(request: HttpRequest) -> str:
    user: Any = request.user
    return str(user.username)


def answer_json(values: dict[str, str], status: int = 200) -> HttpResponse:
    return HttpResponse(json.dumps(values), status=status, content_type="application/json")
