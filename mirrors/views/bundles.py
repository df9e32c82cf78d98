"""Being written."""

from django.http import HttpRequest, HttpResponse


def bundles(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def bundles_csv(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def bundle_create(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def bundle_detail(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def bundle_download(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def bundle_delete(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError
