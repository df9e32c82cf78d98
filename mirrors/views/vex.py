"""VEX repositories as Trivy asks for them: credentials, where they are required, on the first request; and no ETag.

Trivy before 0.73 deletes its copy of the repository on a 304.
"""

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.views.decorators.http import require_safe

from mirrors import content, serving_vex
from mirrors.views.blobs import ServedBlob, send_blob
from mirrors.views.reading import reader_required
from mirrors.views.taking import telling


@reader_required
@require_safe
def vex_manifest(request: HttpRequest, name: str) -> HttpResponse:
    snapshot = serving_vex.current_repository(name)
    if snapshot is None:
        raise Http404("No VEX repository of this name is mirrored here.")
    path = reverse("mirrors:vex-archive", args=[name, "x"]).removesuffix("/x")
    base = settings.AIRGAP_BASE_URL or request.build_absolute_uri("/").rstrip("/")
    return HttpResponse(
        serving_vex.manifest_for(snapshot, content.store(), base + path), content_type="application/json"
    )


@reader_required
@require_safe
def vex_archive(request: HttpRequest, name: str, file: str) -> HttpResponseBase:
    snapshot = serving_vex.current_repository(name)
    blob = serving_vex.archive_named(snapshot, file) if snapshot else None
    if snapshot is None or blob is None:
        raise Http404("No archive of this name is mirrored here.")
    kind = "application/zip" if file.endswith(".zip") else "application/gzip"
    told = telling(request, mirror_id=snapshot.mirror_id, snapshot_id=snapshot.pk, size=blob.size_bytes)
    return send_blob(request, ServedBlob(blob.digest, blob.size_bytes, kind), etag=False, **told)
