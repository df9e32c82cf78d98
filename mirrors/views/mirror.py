"""Being written."""

from django.http import HttpRequest, HttpResponse


def mirror_detail(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def mirror_sync(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def mirror_release(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def snapshot_pin(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def snapshot_roll_back(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError
