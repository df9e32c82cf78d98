"""Being written."""

from django.http import HttpRequest, HttpResponse


def vex_manifest(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def vex_archive(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError
