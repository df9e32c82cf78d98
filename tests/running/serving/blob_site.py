"""send_blob behind the real server: what it sends, and what counts as taken there."""

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

application = get_wsgi_application()

from mirrors import content  # noqa: E402
from mirrors.views.blobs import ServedBlob, send_blob  # noqa: E402

taken: list[str] = []


def blob(request, digest):
    return send_blob(
        request,
        ServedBlob(digest, content.store().size(digest), "application/octet-stream"),
        on_taken=lambda: taken.append(request.GET.get("as", "")),
    )


urlpatterns = [
    path("", lambda request: HttpResponse("a page")),
    path("taken", lambda request: HttpResponse(" ".join(taken))),
    path("v2/a/blobs/<str:digest>", blob),
]
