"""Being written."""

from django.http import HttpRequest, HttpResponse


def record(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def record_csv(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError
