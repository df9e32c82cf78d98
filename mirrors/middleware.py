"""What every answer gets: a strict Content-Security-Policy, and a new password before anything else; what none gets."""

from collections.abc import Callable
from typing import Any

from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse

from mirrors.views.oci import refusal

Answer = Callable[[HttpRequest], HttpResponse]

# For scanners, which have no session: nobody is looked up.
PROGRAMS = ("/v2/", "/vex/", "/files/", "/healthz")

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


# One page sets its own, for it reads QR codes: mirrors/views/receipt_loading.py.
PERMISSIONS = "camera=(), microphone=(), geolocation=()"


def content_security_policy(get_response: Answer) -> Answer:
    """And what a page may do with the device it is shown on."""

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        return response

    return answer


def no_nul(get_response: Answer) -> Answer:
    """400 for a NUL in the address: nobody types one, and PostgreSQL refuses a query with it. Forms look themselves."""

    def answer(request: HttpRequest) -> HttpResponse:
        if "%00" in request.META.get("QUERY_STRING", "") or "\0" in request.path:
            sentence = "The address holds a NUL character."
            if request.path.startswith("/v2/"):
                return refusal(400, "NAME_INVALID", sentence)
            return HttpResponseBadRequest(f"{sentence}\n", content_type="text/plain")
        return get_response(request)

    return answer


class LoginRequired(LoginRequiredMiddleware):
    """Django's, but without looking anybody up for a view that needs no login: those are asked the most."""

    def process_view(
        self, request: HttpRequest, view_func: Callable[..., Any], view_args: Any, view_kwargs: Any
    ) -> HttpResponseBase | None:
        if not getattr(view_func, "login_required", True):
            return None
        return super().process_view(request, view_func, view_args, view_kwargs)


def first_password(get_response: Answer) -> Answer:
    """Who was given a password by the program chooses an own one before seeing any other page."""

    def answer(request: HttpRequest) -> HttpResponse:
        if request.path.startswith(PROGRAMS):
            return get_response(request)
        user = getattr(request, "user", None)
        if user is not None and user.is_authenticated and getattr(user, "must_change_password", False):
            allowed = (reverse("mirrors:password"), reverse("mirrors:logout"), reverse("mirrors:healthz"))
            if request.path not in allowed and not request.path.startswith("/static/"):
                return redirect("mirrors:password")
        return get_response(request)

    return answer
