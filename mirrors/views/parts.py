"""A bundle in parts: cut into volumes, each volume or single file as a download of its own, and the list of sums."""

import hashlib
import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from mirrors import splitting, tasks, wording
from mirrors.bundle.volumes import JOIN_ENDING, LIST_ENDING, PRESETS
from mirrors.exporting import ExportError
from mirrors.models import Bundle, BundlePart
from mirrors.splitting import Sendable
from mirrors.trivy.catalogue import MIB
from mirrors.views.access import address_of, operator_required
from mirrors.views.page import PageRequest
from mirrors.views.sending import Outgoing, send_to_operator

PRESET_LABELS = {
    "cd": "CD, 700 MB",
    "dvd": "DVD, 4.7 GB (needs UDF)",
    "fat32": "FAT32, 4 GiB − 1",
}
CUSTOM, ONE = "custom", "one"
PARTS_A_PAGE = 50
OCTETS = "application/octet-stream"


@require_POST
@operator_required
def bundle_cut(request: PageRequest, pk: str) -> HttpResponse:
    """`size` is a preset, `one` (a single file again) or `custom` with `mib`, a number of MiB."""
    bundle = get_object_or_404(Bundle, pk=pk)
    try:
        size = _wanted_size(request)
        splitting.choose(bundle, size, by=request.user.get_username(), now=timezone.now(), address=address_of(request))
    except ExportError as error:
        messages.error(request, str(error))
    else:
        if size:
            tasks.send_bundle(bundle.pk)
    return redirect(reverse("mirrors:bundle-detail", args=[bundle.pk]) + "#parts")


def _wanted_size(request: PageRequest) -> int:
    wanted = request.POST.get("size", "")
    if wanted == ONE:
        return 0
    if wanted in PRESETS:
        return PRESETS[wanted]
    text = request.POST.get("mib", "").strip()
    if wanted != CUSTOM or not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        raise ExportError("Choose a medium, or give the size of a volume as a whole number of MiB from 1.")
    return int(text) * MIB


def parts_context(bundle: Bundle, base: str, asked: QueryDict) -> dict[str, object]:
    """What a bundle's page says about its parts. Expects `parts` prefetched; `asked` says which pages of them."""
    volumes, single_files = splitting.volumes_shown(bundle), splitting.files_shown(bundle)
    url = reverse("mirrors:volume-download", args=[bundle.pk, 1])
    return {
        "volumes": volumes,
        "single_files": single_files,
        "volumes_page": Paginator(volumes, PARTS_A_PAGE).get_page(asked.get("volumes")),
        "files_page": Paginator(single_files, PARTS_A_PAGE).get_page(asked.get("files")),
        "volumes_taken": sum(part.taken for part in volumes),
        "files_taken": sum(part.taken for part in single_files),
        "summing": bundle.is_ready and not all(part.sha256 for part in volumes),
        "cut_for": next((PRESET_LABELS[name] for name, size in PRESETS.items() if size == bundle.volume_size), ""),
        "presets": _presets_for(bundle),
        "count3": f"{len(volumes):03}",
        "volumes_url": base + url.rpartition("/")[0],
        "list_name": bundle.filename + LIST_ENDING,
        "join_name": bundle.filename + JOIN_ENDING,
        "plus": "+".join(part.name for part in volumes[:3]) + ("+…" if len(volumes) > 3 else ""),
    }


def _presets_for(bundle: Bundle) -> list[dict[str, object]]:
    """The media of the form, with how many volumes each would make."""
    found = []
    for name, size in PRESETS.items():
        count = -(-bundle.size_bytes // size)
        makes = "fits without being cut" if count <= 1 else wording.counted(count, "volume")
        found.append({"name": name, "label": PRESET_LABELS[name], "makes": makes, "fits": count <= 1})
    return found


@login_not_required
@require_safe
def volume_download(request: HttpRequest, pk: str, number: int) -> HttpResponseBase:
    return send_to_operator(request, pk, lambda bundle: _outgoing(bundle, splitting.volume_to_send(bundle, number)))


@login_not_required
@require_safe
def file_download(request: HttpRequest, pk: str, name: str) -> HttpResponseBase:
    return send_to_operator(request, pk, lambda bundle: _outgoing(bundle, splitting.file_to_send(bundle, name)))


def _outgoing(bundle: Bundle, sendable: Sendable) -> Outgoing:
    def taken(who: str, address: str) -> None:
        splitting.record_taken(bundle.pk, sendable.kind, [sendable.name], by=who, now=timezone.now(), address=address)

    content_type = OCTETS
    if sendable.kind == BundlePart.Kind.FILE:
        guessed, packed = mimetypes.guess_type(sendable.name)
        content_type = "application/gzip" if packed == "gzip" else guessed or OCTETS
    return Outgoing(sendable.part, sendable.name, content_type, taken)


@login_not_required
@require_safe
def volume_list(request: HttpRequest, pk: str) -> HttpResponseBase:
    """SHA-256 of the volumes and of the whole; 409 while they are being computed."""
    return send_to_operator(request, pk, lambda bundle: _paper(bundle, LIST_ENDING))


@login_not_required
@require_safe
def join_text(request: HttpRequest, pk: str) -> HttpResponseBase:
    """How the volumes are checked and joined."""
    return send_to_operator(request, pk, lambda bundle: _paper(bundle, JOIN_ENDING))


@dataclass(frozen=True)
class _Text:
    """A small document as something that can be sent."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.data).hexdigest()}"'

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        yield self.data[start:stop]


def _paper(bundle: Bundle, ending: str) -> Outgoing:
    name = bundle.filename + ending
    text = _Text(splitting.papers(bundle)[name])
    return Outgoing(text, name, "text/plain; charset=utf-8", lambda who, address: None)
