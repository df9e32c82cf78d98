"""Sites: how old each database is in the networks that bundles are carried to, and what goes there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from mirrors import clock, exporting, site_standing, tasks, transfers
from mirrors import sites as operations
from mirrors.blobs import StoreError
from mirrors.exporting import ExportError
from mirrors.forms.site import SiteForm
from mirrors.models import Bundle, Site
from mirrors.rules import RuleBroken
from mirrors.site_standing import SiteStanding
from mirrors.sites import SiteError
from mirrors.transfers import Missing, TransferError
from mirrors.views.access import address_of, administrator_required, operator_required
from mirrors.views.page import PageRequest, live_page
from mirrors.views.tables import csv_answer
from mirrors.views.transfers import row_of

A_PAGE = 25
SITES_A_PAGE = 50
LOOK_AGAIN_SECONDS = 15
SEE_OTHER = 303


@require_safe
def sites(request: PageRequest) -> HttpResponse:
    """All are judged, so that the worst stand on the first page."""
    reading = clock.trusted_now()
    found = site_standing.worst_first(site_standing.standings(list(Site.objects.in_order()), reading))
    page = Paginator(found, SITES_A_PAGE).get_page(request.GET.get("page"))
    context = {
        "rows": [{"standing": each, "transfer": row_of(each.last_transfer)} for each in page],
        "page": page,
        "headline": site_standing.headline(found),
        "now": reading.now,
    }
    return render(request, "sites/sites.html", context)


@dataclass(frozen=True)
class Offer:
    """What can be sent to a site with one click. `problem` says why nothing can be sent at all."""

    lacks: Missing
    lacks_without_carried: Missing
    full_bytes: int
    full_count: int
    problem: str = ""

    @property
    def is_incremental(self) -> bool:
        """Leaving out what the site holds makes a difference."""
        return bool(self.lacks.left_out)

    @property
    def carried_matters(self) -> bool:
        """Relying on what was only carried makes a further difference."""
        return bool(self.lacks.unsure)


@require_safe
def site_detail(request: PageRequest, name: str) -> HttpResponse:
    """How old each database is there, what can be sent, and its transfers; keeps itself current."""
    site = get_object_or_404(Site, name=name)
    reading = clock.trusted_now()
    found = site_standing.standings([site], reading)[0]
    rows = site.transfers.select_related("bundle").prefetch_related("bundle__contents").newest_first()
    page = Paginator(rows, A_PAGE).get_page(request.GET.get("page"))
    context: dict[str, object] = {
        "now": reading.now,
        "site": site,
        "found": found,
        "headline": site_standing.headline_of(found),
        "courier_days": site_standing.courier_interval(site).days,
        "offer": _offer(site) if request.user.may_operate else None,
        "page": page,
        "rows": [row_of(transfer) for transfer in page],
        "may_operate": request.user.may_operate,
        "may_administer": request.user.may_administer,
    }
    return live_page(request, "sites/detail.html", "sites/_detail.html", context, every=LOOK_AGAIN_SECONDS)


def _offer(site: Site) -> Offer:
    try:
        current = exporting.current_snapshots()
    except ExportError as nothing:
        empty = Missing((), (), ())
        return Offer(empty, empty, 0, 0, str(nothing))
    holdings = list(site.holdings.all())
    return Offer(
        lacks=transfers.missing_of(current, holdings),
        lacks_without_carried=transfers.missing_of(current, holdings, trust_assumed=True),
        full_bytes=sum(snapshot.size_bytes for snapshot in current),
        full_count=len(current),
    )


@require_POST
@operator_required
def site_prepare(request: PageRequest, name: str) -> HttpResponse:
    """`what`: `full` everything current, `lacks` what it does not hold, `uncarried` also without what was carried.

    Answers with the download itself, so that one click is enough.
    """
    site = get_object_or_404(Site, name=name)
    what = request.POST.get("what")
    try:
        if what not in ("full", "lacks", "uncarried"):
            raise TransferError("Say what is to be sent: everything, or what the site lacks.")
        if what == "full":
            lacks = Missing(tuple(exporting.current_snapshots()), (), ())
        else:
            lacks = transfers.missing(site, trust_assumed=what == "uncarried")
        transfer = transfers.prepare(
            site,
            lacks.send,
            left_out=lacks.left_out,
            by=request.user.get_username(),
            now=timezone.now(),
            address=address_of(request),
            reuse=True,
        )
    except (ExportError, TransferError, StoreError) as refusal:
        messages.error(request, str(refusal))
        return redirect("mirrors:site-detail", name=name)
    tasks.send_bundle(transfer.bundle_id)
    # One that waits for its signature says so on its page.
    ready = transfer.bundle.state == Bundle.State.READY
    answer = redirect("mirrors:bundle-download" if ready else "mirrors:bundle-detail", transfer.bundle_id)
    answer.status_code = SEE_OTHER
    return answer


# Settings


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def site_create(request: PageRequest) -> HttpResponse:
    form = SiteForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            site = operations.add_site(
                form.cleaned_data["name"],
                form.wish(),
                by=request.user.get_username(),
                now=timezone.now(),
                address=address_of(request),
            )
        except (RuleBroken, SiteError) as refusal:
            _explain(form, refusal)
        else:
            messages.success(request, f"{site.label} was added. Its first bundle is one click away.")
            return redirect("mirrors:site-detail", name=site.name)
    return _form_page(request, form, None)


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def site_edit(request: PageRequest, name: str) -> HttpResponse:
    site = get_object_or_404(Site, name=name)
    form = SiteForm(request.POST if request.method == "POST" else None, site=site)
    if request.method == "POST" and form.is_valid():
        try:
            _, changes = operations.edit_site(
                name,
                form.wish(),
                by=request.user.get_username(),
                now=timezone.now(),
                address=address_of(request),
                seen=form.cleaned_data["seen"] or None,
            )
        except (RuleBroken, SiteError) as refusal:
            _explain(form, refusal)
        else:
            messages.success(request, "Saved." if changes else "Nothing was changed.")
            return redirect("mirrors:site-detail", name=name)
    return _form_page(request, form, site)


def _explain(form: SiteForm, refusal: Exception) -> None:
    setting = refusal.setting if isinstance(refusal, RuleBroken) else ""
    if isinstance(refusal, SiteError):
        setting = "code" if "code" in str(refusal) else "name" if "already a site" in str(refusal) else ""
    form.add_error(setting if setting in form.fields else None, str(refusal))


def _form_page(request: PageRequest, form: SiteForm, site: Site | None) -> HttpResponse:
    for name in [name for name in form.fields if name in form.errors][:1]:
        form.fields[name].widget.attrs["autofocus"] = True
    status = 422 if request.method == "POST" else 200
    return render(request, "sites/form.html", {"form": form, "site": site}, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def site_delete(request: PageRequest, name: str) -> HttpResponse:
    """Asks first."""
    site = get_object_or_404(Site, name=name)
    if request.method == "POST":
        operations.remove_site(name, by=request.user.get_username(), now=timezone.now(), address=address_of(request))
        messages.success(request, f"{site.label} was removed. What is there is still there.")
        return redirect("mirrors:sites")
    context = {"site": site, "removal": operations.what_removal_means(site)}
    return render(request, "sites/delete.html", context)


# CSV

CSV_COLUMNS = (
    "site", "code", "label", "receipts", "mirror", "state", "age_seconds", "updated_at", "confirmed_at", "digest",
    "evidence", "since", "is_current", "last_transfer", "last_transfer_state", "last_transfer_reference",
)  # fmt: skip


@require_safe
def sites_csv(request: PageRequest) -> StreamingHttpResponse:
    """A row for each database of each site; a site that holds nothing has one without a database."""
    reading = clock.trusted_now()
    found = site_standing.standings(list(Site.objects.in_order()), reading)
    return csv_answer(f"airgap-sites-{reading.now:%Y%m%dT%H%M%SZ}.csv", CSV_COLUMNS, _csv_rows(found))


def _csv_rows(found: Sequence[SiteStanding]) -> Iterator[Sequence[object]]:
    for each in found:
        site, last = each.site, each.last_transfer
        start = (site.name, site.code, site.label, site.receipts)
        end = (last.bundle.filename, last.state, last.reference) if last is not None else ("", "", "")
        for row in each.held:
            holding, verdict = row.holding, row.verdict
            if holding is None or verdict is None:
                continue
            age = int(verdict.age.total_seconds()) if verdict.age is not None else None
            yield (
                *start, row.mirror_name, verdict.state, age, holding.updated_at, holding.confirmed_at, holding.digest,
                holding.evidence, holding.since, row.is_current, *end,
            )  # fmt: skip
        if not each.held:
            yield (*start, "", "never", None, None, None, "", "", None, None, *end)
