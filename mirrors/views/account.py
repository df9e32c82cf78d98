"""Being written."""

from django.http import HttpRequest, HttpResponse


def login(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def logout(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def password(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError
