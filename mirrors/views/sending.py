"""Sending a bundle: ranges, entity tags, and the moment that counts as exported. For browsers and for curl."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from django.contrib.auth import authenticate
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db import connections
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_safe

from mirrors import exporting, people, reading
from mirrors.blobs import StoreError
from mirrors.bundle.contents import BundleError
from mirrors.exporting import ExportError
from mirrors.models import Bundle, User
from mirrors.splitting import NoSuchPart
from mirrors.views.access import address_of
from mirrors.views.ranges import Span, Unsatisfiable, choose_span, matches_any

logger = logging.getLogger(__name__)

TAR, GZIP = "application/x-tar", "application/gzip"


class Sent(Protocol):
    """What is sent: a whole bundle or a part of one."""

    @property
    def size(self) -> int: ...
    @property
    def etag(self) -> str: ...
    def read(self, start: int, stop: int) -> Iterator[bytes]: ...


@dataclass(frozen=True)
class Outgoing:
    """Bytes and what they are called. `on_taken(who, address)` is called once the last of them was sent."""

    sent: Sent
    filename: str
    content_type: str
    on_taken: Callable[[str, str], object]


@login_not_required
@require_safe
def bundle_download(request: HttpRequest, pk: str) -> HttpResponseBase:
    """The whole file."""

    def whole(bundle: Bundle) -> Outgoing:
        def taken(who: str, address: str) -> None:
            exporting.record_export(bundle.pk, by=who, now=timezone.now(), address=address)

        content_type = GZIP if bundle.profile == Bundle.Profile.CACHE else TAR
        return Outgoing(exporting.checked_file_of(bundle), bundle.filename, content_type, taken)

    return send_to_operator(request, pk, whole)


def send_to_operator(request: HttpRequest, pk: str, choose: Callable[[Bundle], Outgoing]) -> HttpResponseBase:
    """GET and HEAD, a single range, resumable; for operators, by session or by HTTP Basic.

    404 unknown, 409 cannot be sent (now), 410 no longer kept, 412 and 416 as RFC 9110 has them.
    """
    user = _person(request)
    if user is None:
        return _ask_who(request)
    if not user.may_operate:
        raise PermissionDenied("Only operators and administrators may do this.")
    bundle = get_object_or_404(Bundle, pk=pk)
    try:
        outgoing = choose(bundle)
    except NoSuchPart as error:
        return _plain(f"{error}\n", 410 if bundle.expired_at is not None else 404)
    except (ExportError, StoreError) as error:
        return _plain(f"{error}\n", 410 if bundle.expired_at is not None else 409)
    return _answer(request, bundle.pk, outgoing, user.get_username())


def _answer(request: HttpRequest, bundle_id: str, outgoing: Outgoing, who: str) -> HttpResponseBase:
    etag, size = outgoing.sent.etag, outgoing.sent.size
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-transform"}
    if "If-Match" in request.headers and not matches_any(request.headers["If-Match"], etag, weakly=False):
        return _plain("This is no longer the file you began with. Download it anew.\n", 412, headers)
    if matches_any(request.headers.get("If-None-Match"), etag):
        return HttpResponse(status=304, headers=headers)
    wanted = request.headers.get("Range") if request.method == "GET" else None
    try:
        span = choose_span(wanted, request.headers.get("If-Range"), etag, size)
    except Unsatisfiable as error:
        return _plain(f"{error}\n", 416, headers | {"Content-Range": error.content_range})
    headers |= {
        "Content-Length": str(span.length),
        "Content-Type": outgoing.content_type,
        "Content-Disposition": content_disposition_header(True, outgoing.filename) or "attachment",
    }
    if span.partial:
        headers["Content-Range"] = span.content_range
    if request.method == "HEAD":
        return HttpResponse(headers=headers)
    body = _send(bundle_id, outgoing, span, who, address_of(request))
    return StreamingHttpResponse(body, status=206 if span.partial else 200, headers=headers)


def _send(bundle_id: str, outgoing: Outgoing, span: Span, who: str, address: str) -> Iterator[bytes]:
    """The bytes of the span. Asked for more after the last one, the server has written all of them: taken.

    Whoever breaks off makes the server close this generator instead, and nothing is recorded.
    """
    let_go_of_the_database()
    try:
        yield from outgoing.sent.read(span.start, span.stop)
    except (BundleError, StoreError) as error:
        # Raising breaks the connection, so that the other end sees a file that is too short, never a wrong one.
        exporting.mark_damaged(bundle_id, str(error))
        raise
    if span.has_last_byte:
        outgoing.on_taken(who, address)


def let_go_of_the_database() -> None:
    """A download may take hours; its thread should not keep a connection open all the while."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


# Who is asking


def _person(request: HttpRequest) -> User | None:
    """Whoever is signed in, or gave a name and password with this request; None for anybody else."""
    if isinstance(request.user, User):
        return request.user
    username, password = reading.basic_credentials(request.headers.get("Authorization", "")) or ("", "")
    if not username:
        return None
    user = authenticate(request, username=username, password=password)
    if not isinstance(user, User):
        people.record_failed_login(
            username,
            locked_out=getattr(request, "axes_locked_out", False),
            now=timezone.now(),
            detail="for a bundle, by HTTP Basic",
            address=address_of(request),
        )
        return None
    if user.must_change_password:
        raise PermissionDenied("Sign in with a browser first and choose a password of your own.")
    return user


def _ask_who(request: HttpRequest) -> HttpResponseBase:
    """A browser is sent to the login page; a program is asked for a name and password."""
    if "Authorization" not in request.headers and "text/html" in request.headers.get("Accept", ""):
        return redirect_to_login(request.get_full_path())
    return _plain(
        "Give the name and password of an operator (curl -u NAME).\n",
        401,
        {"WWW-Authenticate": 'Basic realm="Airgap", charset="UTF-8"'},
    )


def _plain(text: str, status: int, headers: dict[str, str] | None = None) -> HttpResponse:
    headers = {"Cache-Control": "no-store"} | (headers or {})
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8", headers=headers)
