"""Release files for whoever needs them: pages for people, files for programs, no login where anybody may read."""

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from mirrors import serving_files, use_it
from mirrors.models import Mirror
from mirrors.serving_files import Release, Role
from mirrors.snippets import curl_options
from mirrors.trivy.release import LATEST
from mirrors.views.blobs import ServedBlob, send_blob
from mirrors.views.reading import reader_required
from mirrors.views.taking import telling

FRESH = "no-cache"


@reader_required
@require_safe
def files(request: HttpRequest) -> HttpResponse:
    """Every mirror that holds a release."""
    return _page(request, "files/files.html", {"mirrors": serving_files.mirrors_with_files()})


@reader_required
@require_safe
def mirror_files(request: HttpRequest, name: str) -> HttpResponse:
    """Every kept version, each with its files."""
    mirror = _mirror(name)
    return _releases_page(request, mirror, serving_files.releases_of(mirror), {})


@reader_required
@require_safe
def release_files(request: HttpRequest, name: str, version: str) -> HttpResponseBase:
    """One version's folder. `latest` redirects to it: so another Airgap, or a script, learns which that is."""
    mirror = _mirror(name)
    release = _release(mirror, version)
    if version != release.version:
        response = redirect("mirrors:release-files", name, release.version)
        response.headers["Cache-Control"] = FRESH
        return response
    return _releases_page(request, mirror, [release], {"only": release})


@reader_required
@require_safe
def latest_release(request: HttpRequest, name: str) -> HttpResponseBase:
    """Without a slash at the end."""
    return release_files(request, name, LATEST)


@reader_required
@require_safe
def release_file(request: HttpRequest, name: str, version: str, file: str) -> HttpResponseBase:
    """GET and HEAD, resumable; the checksum file is shown, everything else is saved under its own name."""
    release = _release(_mirror(name), version)
    blob = serving_files.file_named(release, file)
    if blob is None:
        raise Http404("No file of this name is mirrored here.")
    is_shown = blob.role == Role.CHECKSUMS
    served = ServedBlob(
        blob.digest,
        blob.size_bytes,
        "text/plain; charset=utf-8" if is_shown else blob.media_type or "application/octet-stream",
        headers={"Cache-Control": "no-cache, no-transform"},
        filename="" if is_shown else blob.name,
    )
    if blob.role != Role.FILE:
        return send_blob(request, served)
    told = telling(request, mirror_id=release.snapshot.mirror_id, snapshot_id=blob.snapshot_id, size=blob.size_bytes)
    return send_blob(request, served, **told)


def _mirror(name: str) -> Mirror:
    mirror = serving_files.find(name)
    if mirror is None:
        raise Http404("No release files of this name are mirrored here.")
    return mirror


def _release(mirror: Mirror, version: str) -> Release:
    release = serving_files.release_named(mirror, version)
    if release is None:
        raise Http404("This version is not kept here.")
    return release


def _releases_page(
    request: HttpRequest, mirror: Mirror, releases: list[Release], more: dict[str, object]
) -> HttpResponse:
    """With the lines that fetch, as this instance wants to be asked: its CA, and a login where one is required."""
    here = use_it.bare_instance(request.scheme or "http", request.get_host())
    base = here.base_url + reverse("mirrors:mirror-files", args=[mirror.name])
    context = {"mirror": mirror, "releases": releases, "base": base, "here": here}
    context["curl"] = " ".join(["curl -fLO", *curl_options(here)])
    return _page(request, "files/mirror.html", {**context, **more})


def _page(request: HttpRequest, template: str, context: dict[str, object]) -> HttpResponse:
    response = render(request, template, {"now": timezone.now(), **context})
    response.headers["Cache-Control"] = FRESH
    return response
