"""What every answer gets: a strict Content-Security-Policy, and a new password before anything else; what none gets."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import redirect
from django.urls import reverse

Answer = Callable[[HttpRequest], HttpResponse]

POLICY = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        "img-src 'self' data:",
    )
)


def content_security_policy(get_response: Answer) -> Answer:
    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response

    return answer


def no_nul(get_response: Answer) -> Answer:
    """400 for a NUL in the address: nobody types one, and PostgreSQL refuses a query with it. Forms look themselves."""

    def answer(request: HttpRequest) -> HttpResponse:
        if "%00" in request.META.get("QUERY_STRING", "") or "\0" in request.path:
            return HttpResponseBadRequest("The address holds a NUL character.\n", content_type="text/plain")
        return get_response(request)

    return answer


def first_password(get_response: Answer) -> Answer:
    """Who was given a password by the program chooses an own one before seeing any other page."""

    def answer(request: HttpRequest) -> HttpResponse:
        user = getattr(request, "user", None)
        if user is not None and user.is_authenticated and getattr(user, "must_change_password", False):
            allowed = (reverse("mirrors:password"), reverse("mirrors:logout"), reverse("mirrors:healthz"))
            if request.path not in allowed and not request.path.startswith("/static/"):
                return redirect("mirrors:password")
        return get_response(request)

    return answer
