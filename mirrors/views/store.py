"""Being written."""

from django.http import HttpRequest, HttpResponse


def store(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def store_scrub(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError
