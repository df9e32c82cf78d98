"""The door of everything scanners fetch: who is let through, the challenge for who is not, and the token endpoint.

Registry clients follow the distribution project's token flow: a 401 on any path under /v2/ names the token endpoint,
which takes the credentials (GET with Basic, or POST as OAuth 2) and gives a short-lived Bearer token. Only Bearer is
offered there: go-containerregistry, containers/image and oras-go take the first challenge they know and never use a
second. Credentials on the first request are taken at once everywhere, for go-getter, which fetches VEX repositories,
follows no challenge.
"""

import re
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict, UnreadablePostError
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import patch_cache_control
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from mirrors import reading, refusals, served_names
from mirrors.models import User
from mirrors.reading import Reader, Refused, Subject, Why
from mirrors.views.access import address_of
from mirrors.wording import rfc3339

View = Callable[..., HttpResponseBase]

REGISTRY = "/v2/"
_OF_A_REPOSITORY = re.compile(r"/v2/(?P<name>.+)/(?:manifests|blobs|tags|referrers)/.+")
_SCOPE = re.compile(r"repository(?:\([a-z0-9]+\))?:(?P<name>[^:]+):(?P<actions>[a-z*,]+)")
MOST_SCOPES = 20
LARGEST_FORM = 16 * 1024
_STATUS = {
    Why.NOBODY: (HTTPStatus.UNAUTHORIZED, "UNAUTHORIZED"),
    Why.WRONG: (HTTPStatus.UNAUTHORIZED, "UNAUTHORIZED"),
    Why.FORBIDDEN: (HTTPStatus.FORBIDDEN, "DENIED"),
    Why.LOCKED: (HTTPStatus.TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
}
BASIC = 'Basic realm="Airgap", charset="UTF-8"'


def reader_required(view: View) -> View:
    """Lets whoever may read through, with `request.reader`; answers everybody else. Needs no login_not_required.

    For views that only read: so no form token is asked for, and another method is answered by 405 and not by a page.
    """

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            reader = _reader(request)
        except Refused as refused:
            return _refuse(request, refused)
        request.reader = reader  # type: ignore[attr-defined]
        response = view(request, *args, **kwargs)
        if reader.kind != "anonymous" and response.has_header("Cache-Control"):
            # What was given to one reader is nothing for a cache that others ask.
            patch_cache_control(response, private=True)
        return response

    return csrf_exempt(login_not_required(guarded))


def _reader(request: HttpRequest) -> Reader:
    authorization = request.headers.get("Authorization", "")
    if not authorization and reading.login_required() and isinstance(request.user, User):
        # Somebody who is signed in follows a link on one of our pages.
        return Reader("user", request.user.username)
    return reading.reader_of(authorization, request, timezone.now())


def _refuse(request: HttpRequest, refused: Refused) -> HttpResponse:
    is_registry = f"{request.path_info}/".startswith(REGISTRY)
    # A registry client begins without credentials, always; whether it has any shows at the token endpoint.
    if not (is_registry and refused.why is Why.NOBODY):
        _write_down(request, refused)
    if is_registry:
        return _registry_error(refused, {"WWW-Authenticate": _challenge(request, refused)})
    status = _STATUS[refused.why][0]
    response = HttpResponse(f"{refused}\n", status=status, content_type="text/plain; charset=utf-8")
    return _with_headers(response, refused, {"WWW-Authenticate": BASIC})


def _registry_error(refused: Refused, headers: dict[str, str]) -> HttpResponse:
    status, code = _STATUS[refused.why]
    response = JsonResponse({"errors": [{"code": code, "message": str(refused), "detail": None}]}, status=status)
    return _with_headers(response, refused, headers)


def _with_headers(response: HttpResponse, refused: Refused, on_401: dict[str, str]) -> HttpResponse:
    response.headers["Cache-Control"] = "no-store"
    response.headers["Docker-Distribution-API-Version"] = "registry/2.0"
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        for name, value in on_401.items():
            response.headers[name] = value
    if refused.why is Why.LOCKED:
        response.headers["Retry-After"] = str(round(float(settings.AXES_COOLOFF_TIME) * 3600))
    return response


def _write_down(request: HttpRequest, refused: Refused) -> None:
    refusals.note(
        refused,
        what=request.path_info,
        agent=request.headers.get("User-Agent", ""),
        address=address_of(request),
        now=timezone.now(),
    )


def _challenge(request: HttpRequest, refused: Refused) -> str:
    """Where to get a token, for what. The scope is left out where the address names no repository."""
    base = settings.AIRGAP_BASE_URL or request.build_absolute_uri("/").rstrip("/")
    parts = [f'realm="{base}{reverse("mirrors:token")}"', f'service="{urlsplit(base).netloc}"']
    found = _OF_A_REPOSITORY.fullmatch(request.path_info)
    if found and served_names.is_repository(found["name"]):
        parts.append(f'scope="repository:{found["name"]}:pull"')
    if refused.why is Why.WRONG:
        parts.append('error="invalid_token"')
    return "Bearer " + ",".join(parts)


# The token endpoint


@csrf_exempt
@login_not_required
@sensitive_post_parameters("password", "refresh_token")
@sensitive_variables("form", "token")
def token(request: HttpRequest) -> HttpResponse:
    """GET with Basic, or POST as OAuth 2 with grant_type `password` or `refresh_token`.

    Where anybody may read, anybody gets a token, whatever credentials came along.
    """
    if request.method not in ("GET", "HEAD", "POST"):
        return _bad(
            HTTPStatus.METHOD_NOT_ALLOWED, "UNSUPPORTED", "Ask for a token with GET or POST.", "GET, HEAD, POST"
        )
    try:
        form = _form(request)
    except UnreadablePostError:
        return _bad(HTTPStatus.BAD_REQUEST, "DENIED", "The form broke off.")
    if form is None:
        return _bad(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "DENIED", f"The form is larger than {LARGEST_FORM} bytes.")
    scopes = _granted(form.getlist("scope"))
    if scopes is None:
        return _bad(HTTPStatus.BAD_REQUEST, "DENIED", f"Ask for {MOST_SCOPES} scopes at most in one request.")
    if request.method == "POST" and form.get("grant_type") not in ("password", "refresh_token"):
        return _bad(
            HTTPStatus.BAD_REQUEST,
            "UNSUPPORTED",
            "grant_type is neither password nor refresh_token.",
            oauth="unsupported_grant_type",
        )
    try:
        subject = _proved(request, form)
    except Refused as refused:
        return _no_token(request, refused)
    wants_refresh = form.get("offline_token") == "true" or form.get("access_type") == "offline"
    return _given(reading.issue(subject, scopes, timezone.now(), with_refresh=wants_refresh), scopes)


def _form(request: HttpRequest) -> QueryDict | None:
    """What was asked; None for more than anybody needs to ask.

    containers/image (skopeo, podman) sends its form in chunks, without a length: Django takes that for an empty one.
    """
    if request.method != "POST":
        return request.GET
    length = str(request.META.get("CONTENT_LENGTH") or "")
    if not length and request.META.get("wsgi.input_terminated"):
        try:
            body = request.META["wsgi.input"].read(LARGEST_FORM + 1)
        except Exception as broken:  # each server has errors of its own for a body that breaks off
            raise UnreadablePostError(*broken.args) from broken
        return QueryDict(body) if len(body) <= LARGEST_FORM else None
    is_small = len(length) < 10 and (not length.isdigit() or int(length) <= LARGEST_FORM)
    return request.POST if is_small else None


def _proved(request: HttpRequest, form: QueryDict) -> Subject:
    """Who asks for a token. Raises Refused."""
    now = timezone.now()
    authorization = request.headers.get("Authorization", "") if request.method != "POST" else ""
    if not reading.login_required():
        _, secret = reading.basic_credentials(authorization) or ("", form.get("password") or form.get("refresh_token"))
        return reading.known_token(secret or "", now)
    if request.method != "POST":
        return reading.subject_of(authorization, request, now)
    if form["grant_type"] == "refresh_token":
        return reading.by_refresh_token(form.get("refresh_token", ""), now)
    named = reading.plausible(form.get("username", ""), form.get("password", ""))
    if named is None:
        raise Refused(Why.WRONG, "User name and password do not belong together.")
    return reading.by_password(*named, request, now)


def _granted(asked: list[str]) -> tuple[str, ...] | None:
    """To pull, of what was asked for: repeated parameters, or several in one. None if that is more than anybody needs.

    Whether there is such a repository is not said here.
    """
    wanted = [scope for text in asked for scope in text.split()]
    if len(wanted) > MOST_SCOPES:
        return None
    granted = []
    for scope in wanted:
        found = _SCOPE.fullmatch(scope)
        if found and served_names.is_repository(found["name"]) and {"pull", "*"} & set(found["actions"].split(",")):
            granted.append(f"repository:{found['name']}:pull")
    return tuple(dict.fromkeys(granted))


def _given(issued: reading.Issued, scopes: tuple[str, ...]) -> HttpResponse:
    answer: dict[str, object] = {
        "token": issued.token,
        "access_token": issued.token,
        "token_type": "Bearer",
        "expires_in": issued.seconds,
        "issued_at": rfc3339(issued.at),
        "scope": " ".join(scopes),
    }
    if issued.refresh:
        answer["refresh_token"] = issued.refresh
    return JsonResponse(answer, headers={"Cache-Control": "no-store", "Pragma": "no-cache"})


def _no_token(request: HttpRequest, refused: Refused) -> HttpResponse:
    """In the words of both: registry clients read `errors`, OAuth 2 clients `error`."""
    _write_down(request, refused)
    status, code = _STATUS[refused.why]
    answer = {
        "errors": [{"code": code, "message": str(refused), "detail": None}],
        "error": "invalid_grant" if refused.why is not Why.NOBODY else "invalid_client",
        "error_description": str(refused),
    }
    return _with_headers(JsonResponse(answer, status=status), refused, {"WWW-Authenticate": BASIC})


def _bad(
    status: HTTPStatus, code: str, sentence: str, allow: str = "", *, oauth: str = "invalid_request"
) -> HttpResponse:
    answer = {
        "errors": [{"code": code, "message": sentence, "detail": None}],
        "error": oauth,
        "error_description": sentence,
    }
    return JsonResponse(answer, status=status, headers={"Cache-Control": "no-store"})
