"""The application's addresses; under /v2/ and /files/ stands a view that says who was let through."""

from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from mirrors.views.reading import reader_required, token


@reader_required
def who_reads(request: HttpRequest, rest: str = "") -> HttpResponse:
    reader = request.reader
    return HttpResponse(f"{reader.kind} {reader.name}".strip(), headers={"Cache-Control": "public, max-age=60"})


urlpatterns = [
    path("v2/token", token),
    path("v2/", who_reads),
    path("v2/<path:rest>", who_reads),
    path("files/<path:rest>", who_reads),
    path("", include("mirrors.urls")),
]
