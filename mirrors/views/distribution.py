"""The read-only OCI Distribution API under /v2/ (distribution-spec 1.1), from the content store.

Manifests are sent byte for byte whatever Accept says, for their digest is what they are asked by. What cannot be a name
or a digest is refused before any look-up.
"""

import json
import logging
import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from mirrors import content, referring, served_names, serving
from mirrors.blobs import StoreError
from mirrors.digests import DIGEST
from mirrors.models import SnapshotBlob
from mirrors.registry.manifests import OCI_INDEX, OCI_MANIFEST, ManifestError
from mirrors.registry.references import TAG
from mirrors.serving import Held, Repository
from mirrors.views.blobs import ServedBlob, send_blob
from mirrors.views.oci import API_VERSION, TEMPORARY, Refusal, refuse_bytes
from mirrors.views.ranges import matches_any
from mirrors.views.reading import reader_required
from mirrors.views.taking import asked, telling

logger = logging.getLogger(__name__)

View = Callable[..., HttpResponseBase]
READ = ("GET", "HEAD")
# What may be a digest (image-spec, descriptor.md) of an algorithm whose digests are not kept here.
_OTHER_DIGEST = re.compile(r"(?!sha256:)[a-z0-9]+(?:[+._-][a-z0-9]+)*:[A-Za-z0-9=_-]{1,512}", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


def registry_view(view: View) -> View:
    """A view of the registry: for programs, so without session, CSRF token or login page, and refusing in JSON."""
    guarded = reader_required(view)

    @csrf_exempt
    @login_not_required
    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            _check_request(request, kwargs.get("name"))
            response = guarded(request, *args, **kwargs)
        except Refusal as refused:
            response = refused.response()
            # Whose registries are all mirrored to us asks for every image it scans, too: no line for each in the log.
            response._has_been_logged = True  # type: ignore[attr-defined]
        except SuspiciousOperation:
            response = Refusal(400, "UNSUPPORTED", "The query has too many parts.").response()
        except StoreError as error:
            logger.error("%s could not be answered: %s", request.path, error)
            response = Refusal(503, TEMPORARY, str(error)).response()
        for name, value in API_VERSION.items():
            response.headers[name] = value
        return response

    return answer


def _check_request(request: HttpRequest, name: str | None) -> None:
    if request.method not in READ:
        message = "This registry is read-only: what it holds comes from its upstreams. Push to another one."
        raise Refusal(405, "UNSUPPORTED", message, {"Allow": ", ".join(READ)})
    if name is not None and not served_names.is_repository(name):
        raise Refusal(400, "NAME_INVALID", f"{name[:80]!r} cannot be the name of a repository.")


@registry_view
def base(request: HttpRequest) -> HttpResponse:
    """That there is a registry here, and whether it asks for a login."""
    return _json(request, {})


@registry_view
def manifest(request: HttpRequest, name: str, reference: str) -> HttpResponse:
    if ":" in reference:
        _check_digest(reference)
    elif not TAG.fullmatch(reference):
        raise Refusal(404, "MANIFEST_UNKNOWN", f"{reference[:80]!r} cannot be a tag.")
    repository = _repository(name)
    look_up = serving.manifest if ":" in reference else serving.manifest_tagged
    held = look_up(repository, reference)
    if held is None:
        raise Refusal(404, "MANIFEST_UNKNOWN", _unknown_manifest(repository, name, reference))
    raw = content.store().read(held.digest)
    asked(request, mirror_id=held.mirror_id, digest=held.digest)
    media_type = held.media_type or (OCI_INDEX if b'"manifests"' in raw else OCI_MANIFEST)
    etag = f'"{held.digest}"'
    headers = {"Docker-Content-Digest": held.digest, "ETag": etag}
    if matches_any(request.headers.get("If-None-Match"), etag):
        return HttpResponse(status=304, headers=headers)
    return _whole(request, raw, media_type, headers)


@registry_view
def blob(request: HttpRequest, name: str, digest: str) -> HttpResponseBase:
    _check_digest(digest)
    held = serving.blob(_repository(name), digest)
    if held is None:
        raise Refusal(404, "BLOB_UNKNOWN", f"No kept content of {name} has a blob {digest[:80]}.")
    return _send(request, held)


def _send(request: HttpRequest, held: Held) -> HttpResponseBase:
    served = ServedBlob(
        held.digest, held.size, "application/octet-stream", headers={"Docker-Content-Digest": held.digest}
    )
    if held.role != SnapshotBlob.Role.LAYER:
        return send_blob(request, served, refuse=refuse_bytes)
    told = telling(request, mirror_id=held.mirror_id, snapshot_id=held.snapshot_id, size=held.size)
    return send_blob(request, served, refuse=refuse_bytes, **told)


@registry_view
def tags(request: HttpRequest, name: str) -> HttpResponse:
    repository = _repository(name)
    page, link = _page(request, serving.tags(repository))
    return _json(request, {"name": name, "tags": page}, link)


@registry_view
def catalog(request: HttpRequest) -> HttpResponse:
    page, link = _page(request, serving.catalog())
    return _json(request, {"repositories": page}, link)


@registry_view
def referrers(request: HttpRequest, name: str, digest: str) -> HttpResponse:
    _check_digest(digest)
    artifact_type = request.GET.get("artifactType", "")
    found = serving.referrers(_repository(name), digest)
    try:
        raw, more = referring.index_of(
            found, digest, content.store(), artifact_type=artifact_type, after=request.GET.get("last", "")
        )
    except ManifestError as error:
        logger.error("The referrers of %s in %s cannot be listed: %s", digest, name, error)
        raise Refusal(503, TEMPORARY, "One of the manifests that refer to this one cannot be read here.") from None
    headers = _link(request, {"artifactType": artifact_type, "last": more} if artifact_type else {"last": more}, more)
    if artifact_type:
        headers["OCI-Filters-Applied"] = "artifactType"
    return _whole(request, raw, OCI_INDEX, headers)


@registry_view
def nothing(request: HttpRequest) -> HttpResponse:
    """Any other address below /v2/."""
    raise Refusal(404, "UNSUPPORTED", "The distribution API has nothing at this address.")


# Parts


def _repository(name: str) -> Repository:
    repository = serving.find(name)
    if repository is None:
        raise Refusal(404, "NAME_UNKNOWN", f"No mirror is served as {name[:200]}.")
    return repository


def _check_digest(text: str) -> None:
    if not DIGEST.fullmatch(text) and not _OTHER_DIGEST.fullmatch(text):
        raise Refusal(
            400, "DIGEST_INVALID", f"{text[:80]!r} is not a digest; expected sha256: and 64 lower-case hex digits."
        )


def _unknown_manifest(repository: Repository, name: str, reference: str) -> str:
    if not any(shelf.current_id for shelf in repository.shelves):
        return f"{name} is mirrored here, but nothing of it has been fetched yet."
    return f"No kept content of {name} is {reference[:128]}."


def _page(request: HttpRequest, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The part that `n` and `last` ask for, and the Link to the next one if there is more."""
    number = request.GET.get("n")
    if number is not None and not _NUMBER.fullmatch(number):
        raise Refusal(400, "UNSUPPORTED", f"n is {number[:20]!r}; expected how many names to list, such as 100.")
    last = request.GET.get("last")
    rest = [name for name in names if last is None or name > last]
    if number is None:
        return rest, {}
    page = rest[: int(number)]
    more = page[-1] if page and len(page) < len(rest) else ""
    return page, _link(request, {"n": number, "last": more}, more)


def _link(request: HttpRequest, query: dict[str, str], more: str) -> dict[str, str]:
    return {"Link": f'<{request.path}?{urlencode(query)}>; rel="next"'} if more else {}


def _json(request: HttpRequest, document: dict[str, Any], headers: dict[str, str] | None = None) -> HttpResponse:
    return _whole(request, json.dumps(document).encode(), "application/json", headers or {})


def _whole(request: HttpRequest, raw: bytes, media_type: str, headers: dict[str, str]) -> HttpResponse:
    headers = {**headers, "Content-Type": media_type, "Content-Length": str(len(raw))}
    return HttpResponse(b"" if request.method == "HEAD" else raw, headers=headers)
