"""Being written."""

from django.http import HttpRequest, HttpResponse


def history(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def history_csv(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def run_detail(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def run_stop(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError
