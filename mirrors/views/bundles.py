"""Bundles: everything current in one click, a choice of databases, the list of what was made, and one bundle's page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Page, Paginator
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from mirrors import bundle_signing, clock, exporting, tasks, transfers, wording
from mirrors.blobs import StoreError
from mirrors.exporting import ExportError
from mirrors.models import Bundle, BundleSnapshot, Export, Mirror, Site, Snapshot, Transfer
from mirrors.transfers import TransferError
from mirrors.views.access import address_of, operator_required
from mirrors.views.page import PageRequest
from mirrors.views.parts import parts_context
from mirrors.views.sending import bundle_download
from mirrors.views.tables import csv_answer

__all__ = ["bundle_create", "bundle_delete", "bundle_detail", "bundle_download", "bundles", "bundles_csv"]

A_PAGE = 50
EXPORTS_SHOWN = 20
NOTHING_NEW = 204
SEE_OTHER = 303

PROFILE_HELP = {
    Bundle.Profile.FULL: "A tar with a cover sheet, checksums, and scripts that fill a cache or a registry.",
    Bundle.Profile.DATA: "The same without the scripts, where no program may cross.",
    Bundle.Profile.FILES: (
        "For a gateway that looks into what crosses: no folders, no scripts, telling names, and a cover sheet that "
        "lists what is in each archive. To be taken one by one, or as a tar. A worker prepares it."
    ),
    Bundle.Profile.CACHE: (
        "A tar.gz that unpacks to a Trivy cache directory, without what has no place there: OCI artifacts, release "
        "files. A worker prepares it; that takes a while."
    ),
}


@dataclass(frozen=True)
class Choice:
    """A database that can go into a bundle."""

    mirror: Mirror
    snapshot: Snapshot
    chosen: bool


@dataclass(frozen=True)
class Row:
    """A bundle in the list. `look` is the class of its state; `moving`: a worker has still to do something."""

    bundle: Bundle
    word: str
    look: str
    moving: bool
    what: str
    last_export: Export | None
    export_count: int
    transfer: Transfer | None

    @property
    def may_be_sent(self) -> bool:
        return self.bundle.is_ready


LOOKS = {
    Bundle.State.PREPARING: "running",
    Bundle.State.UNSIGNED: "queued",
    Bundle.State.READY: "succeeded",
    Bundle.State.FAILED: "failed",
    Bundle.State.DAMAGED: "failed",
}


def row_of(bundle: Bundle) -> Row:
    """Expects `contents` and `exports` prefetched, and `transfer__site` selected."""
    exports = list(bundle.exports.all())
    gone = bundle.expired_at is not None
    word, look = str(bundle.get_state_display()), LOOKS[Bundle.State(bundle.state)]
    if gone:
        word, look = ("Deleted" if bundle.problem.startswith("Deleted") else "Expired"), "cancelled"
    return Row(
        bundle=bundle,
        word=word,
        look=look,
        moving=not gone and not bundle.sha256 and bundle.state in (Bundle.State.PREPARING, Bundle.State.READY),
        what=wording.joined([row.label for row in bundle.contents.all()]),
        last_export=exports[0] if exports else None,
        export_count=len(exports),
        transfer=getattr(bundle, "transfer", None),
    )


@dataclass(frozen=True)
class Standing:
    """What the page says first: how far exports have kept up with what is current."""

    headline: str
    explanation: str
    snapshots: tuple[Snapshot, ...]

    @property
    def size(self) -> int:
        return sum(snapshot.size_bytes for snapshot in self.snapshots)


# The list


@require_safe
@vary_on_headers("HX-Request")
def bundles(request: PageRequest) -> HttpResponse:
    """The page; for htmx only the list, or 204 while it reads as what was `seen`."""
    now = clock.trusted_now().now
    page = _page(request)
    rows = [row_of(bundle) for bundle in page]
    listed = render_to_string("bundles/_list.html", {"page": page, "rows": rows, "now": now}, request)
    seen = blake2b(listed.encode(), digest_size=8).hexdigest()
    polled = {
        "listed": listed,
        "has_bundles": bool(rows),
        "moving": any(row.moving for row in rows),
        "poll_url": f"{reverse('mirrors:bundles')}?page={page.number}&seen={seen}",
    }
    if request.htmx:
        if request.GET.get("seen") == seen:
            return HttpResponse(status=NOTHING_NEW)
        return render(request, "bundles/_polled.html", polled)
    site = request.GET.get("site", "")
    return render(request, "bundles/bundles.html", {**_context(now, site=site), "open_form": bool(site), **polled})


def _page(request: PageRequest) -> Page[Bundle]:
    rows = Bundle.objects.select_related("transfer__site").prefetch_related("contents", "exports")
    return Paginator(rows, A_PAGE).get_page(request.GET.get("page"))


def _context(
    now: datetime, chosen: Sequence[str] = (), profile: str = Bundle.Profile.FULL, site: str = ""
) -> dict[str, object]:
    mirrors = list(Mirror.objects.for_pages().exclude(current=None))
    choices = [
        Choice(mirror, mirror.current, mirror.name in chosen if chosen else mirror.asset.in_everything)
        for mirror in mirrors
        if mirror.current is not None
    ]
    return {
        "now": now,
        "section": "bundles",
        "standing": _standing([choice.snapshot for choice in choices if choice.mirror.asset.in_everything], now),
        "choices": choices,
        "profiles": [
            {"value": value, "label": value.label, "help": text, "chosen": value == profile}
            for value, text in PROFILE_HELP.items()
        ],
        "sites": Site.objects.in_order(),
        "chosen_site": site,
        "keep_days": settings.AIRGAP_BUNDLE_DAYS,
    }


def _standing(snapshots: list[Snapshot], now: datetime) -> Standing:
    last = Export.objects.select_related("bundle").first()
    if not snapshots:
        return Standing(
            "There is nothing to export yet.",
            "As soon as a database is here, it can be taken from here in one file.",
            (),
        )
    rows = BundleSnapshot.objects.filter(
        snapshot__in=[snapshot.pk for snapshot in snapshots], bundle__first_exported_at__isnull=False
    )
    exported = set(rows.values_list("snapshot_id", flat=True))
    newer = [snapshot for snapshot in snapshots if snapshot.pk not in exported]
    if last is None:
        headline = "Nothing has been exported yet."
    elif not newer:
        headline = "Everything current has been exported."
    elif len(newer) == len(snapshots):
        headline = "Nothing of what is current has been exported."
    else:
        count, total = wording.number_word(len(newer)), wording.number_word(len(snapshots))
        headline = wording.capitalized(
            f"{count} of {total} databases {'is' if len(newer) == 1 else 'are'} not exported yet."
        )
    return Standing(headline, _last_export(last, now), tuple(snapshots))


def _last_export(last: Export | None, now: datetime) -> str:
    if last is None:
        return "One click makes a file with everything that is current; the browser starts receiving it at once."
    return f"The last export was {wording.ago_text(last.at, now)}, by {last.by}: {last.bundle.filename}."


@require_safe
def bundles_csv(request: PageRequest) -> StreamingHttpResponse:
    """Every bundle, newest first, one row each."""
    return csv_answer("airgap-bundles.csv", CSV_COLUMNS, _csv_rows())


CSV_COLUMNS = (
    "bundle", "file", "form", "state", "made_at", "made_by", "size_bytes", "sha256", "contents", "exports",
    "first_exported_at", "last_exported_by", "kept_until", "expired_at", "site", "transfer_state", "reference",
)  # fmt: skip


def _csv_rows() -> Iterator[Sequence[object]]:
    rows = Bundle.objects.select_related("transfer__site").prefetch_related("contents", "exports")
    for bundle in rows.iterator(chunk_size=500):
        exports = list(bundle.exports.all())
        contents = " ".join(f"{row.mirror_name}@{row.digest}" for row in bundle.contents.all())
        transfer = getattr(bundle, "transfer", None)
        crossing = (transfer.site.name, transfer.state, transfer.reference) if transfer is not None else ("", "", "")
        yield (
            bundle.pk, bundle.filename, bundle.profile, row_of(bundle).word.lower(), bundle.created_at,
            bundle.created_by_name, bundle.size_bytes, bundle.sha256, contents, len(exports),
            bundle.first_exported_at, exports[0].by if exports else None, bundle.expires_at, bundle.expired_at,
            *crossing,
        )  # fmt: skip


# Making


@require_POST
@operator_required
def bundle_create(request: PageRequest) -> HttpResponse:
    """`all=1`, or `mirror=NAME` (several), or `snapshot=ID`; `profile` full, data, files or cache; `site=NAME` for
    whom, then also `reference`, and `missing=1` for what it lacks of these.

    Answers with the download itself, so that one click is enough; single files and a cache archive have to be prepared
    first, and a bundle may wait for its signature.
    """
    profile = request.POST.get("profile") or Bundle.Profile.FULL
    try:
        if profile not in Bundle.Profile.values:
            raise ExportError("There is no such form of a bundle. Choose one of those below.")
        bundle = _created(request, _wanted(request), profile)
    except (ExportError, TransferError, StoreError) as error:
        return _refused(request, str(error), profile)
    tasks.send_bundle(bundle.pk)
    may_be_sent = bundle.state == Bundle.State.READY
    answer = redirect("mirrors:bundle-download" if may_be_sent else "mirrors:bundle-detail", bundle.pk)
    answer.status_code = SEE_OTHER
    return answer


def _created(request: PageRequest, wanted: list[Snapshot], profile: str) -> Bundle:
    by, now, address = request.user.get_username(), timezone.now(), address_of(request)
    name = request.POST.get("site")
    if not name:
        return exporting.create_bundle(wanted, profile=profile, now=now, by=by, address=address, reuse=True)
    site = Site.objects.filter(name=name).first()
    if site is None:
        raise TransferError("This site was removed meanwhile. Choose another one, or none.")
    left_out: Sequence[Snapshot] = ()
    send: Sequence[Snapshot] = wanted
    if request.POST.get("missing"):
        lacks = transfers.missing_of(wanted, site.holdings.all())
        send, left_out = lacks.send, lacks.left_out
    return transfers.prepare(
        site,
        send,
        left_out=left_out,
        profile=profile,
        reference=request.POST.get("reference", ""),
        by=by,
        now=now,
        address=address,
        reuse=True,
    ).bundle


def _wanted(request: PageRequest) -> list[Snapshot]:
    if pk := request.POST.get("snapshot"):
        rows = Snapshot.objects.select_related("mirror").filter(pk=int(pk)) if pk.isdecimal() and len(pk) < 19 else ()
        if not rows:
            raise ExportError("This build is no longer kept. Choose among what there is.")
        return list(rows)
    if names := request.POST.getlist("mirror"):
        return exporting.current_snapshots(names)
    if request.POST.get("all"):
        return exporting.current_snapshots()
    raise ExportError("Choose at least one database.")


def _refused(request: PageRequest, problem: str, profile: str) -> HttpResponse:
    """The page again, with the reason on top."""
    now = clock.trusted_now().now
    page = _page(request)
    rows = [row_of(bundle) for bundle in page]
    context = {
        **_context(now, request.POST.getlist("mirror"), profile, request.POST.get("site", "")),
        "typed": request.POST,
        "listed": render_to_string("bundles/_list.html", {"page": page, "rows": rows, "now": now}, request),
        "poll_url": f"{reverse('mirrors:bundles')}?page={page.number}",
        "problem": problem,
        "open_form": True,
    }
    return render(request, "bundles/bundles.html", context, status=422)


# One bundle


@require_safe
@vary_on_headers("HX-Request")
def bundle_detail(request: PageRequest, pk: str) -> HttpResponse:
    """The page; for htmx only its head or its parts, which change while a worker is busy with the bundle."""
    bundles = Bundle.objects.select_related("transfer__site")
    bundles = bundles.prefetch_related("contents__snapshot__mirror", "exports", "parts")
    bundle = get_object_or_404(bundles, pk=pk)
    now = clock.trusted_now().now
    rows, exports = list(bundle.contents.all()), list(bundle.exports.all())
    base = settings.AIRGAP_BASE_URL or f"{request.scheme}://{request.get_host()}"
    context = {
        "bundle": bundle,
        "shown": row_of(bundle),
        "now": now,
        "section": "bundles",
        "rows": rows,
        "exports": exports[:EXPORTS_SHOWN],
        "more_exports": max(0, len(exports) - EXPORTS_SHOWN),
        "kinds": {row.snapshot.mirror.kind for row in rows if row.snapshot is not None},
        "headline": headline(bundle, len(rows)),
        "key": bundle_signing.key_of(bundle),
        "folder": bundle.filename.removesuffix(".tar"),
        "download_url": base + reverse("mirrors:bundle-download", args=[bundle.pk]),
        **parts_context(bundle, base, request.GET),
    }
    alone = "bundles/_parts.html" if request.htmx.target == "parts" else "bundles/_head.html"
    return render(request, alone if request.htmx else "bundles/detail.html", context)


def headline(bundle: Bundle, count: int) -> str:
    """The bundle's state in a sentence."""
    what = bundle.get_profile_display()
    if bundle.expired_at is not None:
        return f"This {what.lower()} is no longer kept."
    if bundle.state == Bundle.State.PREPARING:
        return f"The {what.lower()} is being prepared."
    if bundle.state == Bundle.State.UNSIGNED:
        return f"This {what.lower()} waits for its signature."
    if bundle.state == Bundle.State.FAILED:
        return f"The {what.lower()} could not be prepared."
    if bundle.state == Bundle.State.DAMAGED:
        return f"This {what.lower()} is damaged and is not sent."
    size = wording.size_text(bundle.size_bytes)
    if bundle.first_exported_at is not None:
        return f"Exported: {size} with {wording.counted(count, 'database')}."
    return f"Ready to carry: {size} with {wording.counted(count, 'database')}."


@require_http_methods(["GET", "HEAD", "POST"])
@operator_required
def bundle_delete(request: PageRequest, pk: str) -> HttpResponse:
    """Asks first, then gives the bundle up; its row stays in the list."""
    bundle = get_object_or_404(Bundle.objects.prefetch_related("contents", "exports"), pk=pk)
    if bundle.expired_at is not None:
        messages.info(request, f"{bundle.filename} is no longer kept; there is nothing to delete.")
        return redirect("mirrors:bundle-detail", bundle.pk)
    if request.method != "POST":
        return render(request, "bundles/delete.html", {"bundle": bundle, "now": timezone.now(), "section": "bundles"})
    exporting.delete_bundle(bundle, by=request.user.get_username(), now=timezone.now(), address=address_of(request))
    messages.success(request, f"{bundle.filename} was deleted. The space it alone held is free within an hour or so.")
    return redirect("mirrors:bundles")
