"""Being written."""

from django.http import HttpRequest, HttpResponse


def people(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def person_create(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def person_edit(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError


def person_delete(request: HttpRequest, **kwargs: object) -> HttpResponse:
    raise NotImplementedError
