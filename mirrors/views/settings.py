"""Being written."""

from django.http import HttpRequest, HttpResponse


def mirrors(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def mirror_create(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def mirror_edit(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def mirror_enable(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def mirror_delete(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def mirror_test(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError
