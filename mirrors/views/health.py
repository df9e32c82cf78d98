"""Being written."""

from django.http import HttpRequest, HttpResponse


def healthz(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError
