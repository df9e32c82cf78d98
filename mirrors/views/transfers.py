"""One transfer: a bundle's crossing to a site, and what is marked about it by hand."""

from collections.abc import Callable
from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from mirrors import clock, transfers, wording
from mirrors.models import Transfer
from mirrors.transfers import TransferError
from mirrors.views.access import address_of, operator_required
from mirrors.views.page import PageRequest

State = Transfer.State
LOOKS = {State.PREPARED: "queued", State.CARRIED: "running", State.RECEIVED: "succeeded", State.REJECTED: "failed"}


@dataclass(frozen=True)
class Row:
    """A transfer in a table. `look` is the class of its state, `evidence` how its end is known."""

    transfer: Transfer
    word: str
    look: str
    evidence: str
    what: str

    @property
    def can_be_carried(self) -> bool:
        return self.transfer.state == State.PREPARED

    @property
    def can_be_closed(self) -> bool:
        return self.transfer.is_open

    @property
    def can_be_taken_back(self) -> bool:
        evidence = self.transfer.evidence
        return self.transfer.state != State.PREPARED and evidence in ("", Transfer.Evidence.HAND)


def row_of(transfer: Transfer | None) -> Row | None:
    """What it holds is told where the bundle's contents were prefetched."""
    if transfer is None:
        return None
    prefetched = "contents" in getattr(transfer.bundle, "_prefetched_objects_cache", {})
    return Row(
        transfer=transfer,
        word=str(transfer.get_state_display()).lower(),
        look=LOOKS[State(transfer.state)],
        evidence=str(transfer.get_evidence_display()) if transfer.evidence else "",
        what=wording.joined([row.label for row in transfer.bundle.contents.all()]) if prefetched else "",
    )


@require_safe
def transfer_detail(request: PageRequest, pk: str) -> HttpResponse:
    rows = Transfer.objects.select_related("site", "bundle").prefetch_related("bundle__contents", "bundle__exports")
    transfer = get_object_or_404(rows, pk=pk)
    return render(request, "sites/transfer.html", _context(request, transfer))


def _context(request: PageRequest, transfer: Transfer) -> dict[str, object]:
    exports = list(transfer.bundle.exports.all())
    return {
        "now": clock.trusted_now().now,
        "transfer": transfer,
        "site": transfer.site,
        "bundle": transfer.bundle,
        "row": row_of(transfer),
        "headline": headline(transfer),
        "last_export": exports[0] if exports else None,
        "may_operate": request.user.may_operate,
    }


def headline(transfer: Transfer) -> str:
    label = transfer.site.label
    by_hand = ", marked by hand" if transfer.evidence == Transfer.Evidence.HAND else ""
    return {
        State.PREPARED: f"Prepared for {label}, not carried yet.",
        State.CARRIED: f"On its way to {label}."
        if transfer.site.expects_receipts
        else f"Carried to {label}; assumed to be there.",
        State.RECEIVED: f"Received at {label}{by_hand}.",
        State.REJECTED: f"Not taken in at {label}{by_hand}.",
    }[State(transfer.state)]


@require_POST
@operator_required
def transfer_carried(request: PageRequest, pk: str) -> HttpResponse:
    """`reference`: a form number, a media label; left alone where the form did not ask for it."""
    reference = request.POST.get("reference")
    return _mark(request, pk, lambda **who: transfers.mark_carried(pk, reference=reference, **who))


@require_POST
@operator_required
def transfer_received(request: PageRequest, pk: str) -> HttpResponse:
    return _mark(request, pk, lambda **who: transfers.mark_received(pk, **who))


@require_POST
@operator_required
def transfer_rejected(request: PageRequest, pk: str) -> HttpResponse:
    """`reason` is asked for."""
    return _mark(request, pk, lambda **who: transfers.mark_rejected(pk, reason=request.POST.get("reason", ""), **who))


@require_POST
@operator_required
def transfer_take_back(request: PageRequest, pk: str) -> HttpResponse:
    return _mark(request, pk, lambda **who: transfers.take_back(pk, **who))


def _mark(request: PageRequest, pk: str, mark: Callable[..., Transfer]) -> HttpResponse:
    """Back to the page it was asked from: the site's (`back=site`), else the transfer's."""
    transfer = get_object_or_404(Transfer.objects.select_related("site", "bundle"), pk=pk)
    try:
        transfer = mark(by=request.user.get_username(), now=timezone.now(), address=address_of(request))
    except TransferError as refusal:
        context = {
            **_context(request, transfer),
            "problem": str(refusal),
            "typed": {"reference": request.POST.get("reference", ""), "reason": request.POST.get("reason", "")},
        }
        return render(request, "sites/transfer.html", context, status=422)
    messages.success(request, headline(transfer))
    if request.POST.get("back") == "site":
        return redirect("mirrors:site-detail", name=transfer.site.name)
    return redirect("mirrors:transfer-detail", pk=pk)
