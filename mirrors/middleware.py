"""What every answer gets: a strict Content-Security-Policy, and a new password before anything else."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
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
