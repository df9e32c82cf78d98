"""The receipt of an import: a file, a QR code and a typed code, its signature where that is brought from elsewhere; and
the switch that lets any of it leave.
"""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from mirrors import keys, receipts
from mirrors.forms.keys import ReceiptSignatureForm
from mirrors.models import Import, Receipting
from mirrors.receipting import giving, signing
from mirrors.receipting.giving import Given, NoReceipt, ReceiptsAreOff
from mirrors.receipting.signing import NotTaken
from mirrors.receipts import NAMESPACE, Receipt, TooLong
from mirrors.views.access import address_of, administrator_required, operator_required
from mirrors.views.imports import importing_side
from mirrors.views.page import PageRequest
from mirrors.views.small_files import takes_small_file

CONFLICT = 409


@never_cache
@require_safe
@importing_side
@operator_required
def receipt(request: PageRequest, pk: int) -> HttpResponse:
    """Everything of it on one page, to be carried out on paper, on a medium, or read out."""
    run = get_object_or_404(Import, pk=pk)
    context: dict[str, object] = {"run": run, "now": timezone.now(), "may_administer": request.user.may_administer}
    try:
        given = _made(request, run)
    except NoReceipt as reason:
        context |= {"problem": str(reason), "is_off": isinstance(reason, ReceiptsAreOff)}
        return render(request, "receipts/none.html", context, status=CONFLICT)
    drawing, undrawn = "", ""
    try:
        drawing = receipts.data_uri(given.text) if given.text else ""
    except TooLong as reason:
        undrawn = str(reason)
    context |= {
        "given": given,
        "receipt": given.receipt,
        "not_switched": giving.not_switched(run),
        "drawing": drawing,
        "undrawn": undrawn,
        "text": given.text.decode("ascii") if given.text else "",
        "groups": given.code.split("-") if given.code else [],
    }
    return render(request, "receipts/receipt.html", context)


@never_cache
@require_safe
@importing_side
@operator_required
def receipt_file(request: PageRequest, pk: int) -> HttpResponse:
    run = get_object_or_404(Import, pk=pk)
    try:
        given = _made(request, run)
    except NoReceipt as reason:
        messages.error(request, str(reason))
        return redirect("mirrors:receipt", pk=pk)
    if given.text is None:
        raise Http404("It is not signed here.")
    return _as_file(given.text, given.receipt.filename)


@never_cache
@require_safe
@importing_side
@operator_required
def receipt_facts(request: PageRequest, pk: int) -> HttpResponse:
    """What is signed, to the byte, for whoever has the key."""
    run = get_object_or_404(Import, pk=pk)
    try:
        facts = giving.to_sign(run)
    except NoReceipt as reason:
        messages.error(request, str(reason))
        return redirect("mirrors:receipt", pk=pk)
    giving.record_given(facts, by=request.user.get_username(), now=timezone.now(), address=address_of(request))
    return _as_file(facts.text(), facts.facts_filename)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@importing_side
@operator_required
@takes_small_file
def receipt_sign(request: PageRequest, pk: int) -> HttpResponse:
    """Takes the signature of a key that is kept outside; has one made by a key that is not."""
    run = get_object_or_404(Import, pk=pk)
    about: dict[str, Any] = {"by": request.user.get_username(), "now": timezone.now(), "address": address_of(request)}
    try:
        facts = signing.awaited(run)
    except (NoReceipt, NotTaken) as reason:
        messages.info(request, str(reason))
        return redirect("mirrors:receipt", pk=pk)
    if keys.is_outside():
        return _bring_signature(request, run, facts, about)
    if request.method == "POST":
        try:
            signing.sign(run, **about)
        except NotTaken as reason:
            messages.error(request, str(reason))
        else:
            messages.success(request, f"The receipt of bundle {run.bundle} is signed.")
    return redirect("mirrors:receipt", pk=pk)


def _bring_signature(request: PageRequest, run: Import, facts: Receipt, about: dict[str, Any]) -> HttpResponse:
    name = f"{facts.facts_filename}.sig"
    form = ReceiptSignatureForm(name, *((request.POST, request.FILES) if request.method == "POST" else ()))
    if request.method == "POST" and form.is_valid():
        try:
            signing.attach(run, form.given.encode("utf-8", "replace"), **about)
        except (NoReceipt, NotTaken) as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"The receipt of bundle {run.bundle} is signed.")
            return redirect("mirrors:receipt", pk=run.pk)
    giving.record_given(facts, **about)
    context = {
        "run": run,
        "form": form,
        "receipt": facts,
        "text": facts.text().decode("ascii"),
        "signature": name,
        "namespace": NAMESPACE,
        "now": timezone.now(),
    }
    return render(request, "receipts/sign.html", context, status=422 if request.method == "POST" else 200)


def _as_file(data: bytes, name: str) -> HttpResponse:
    answer = HttpResponse(data, content_type="text/plain; charset=us-ascii")
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _made(request: PageRequest, run: Import) -> Given:
    return giving.make(run, by=request.user.get_username(), now=timezone.now(), address=address_of(request))


@require_http_methods(["GET", "HEAD", "POST"])
@importing_side
@administrator_required
def receipts_switch(request: PageRequest) -> HttpResponse:
    """`on` 1 or 0 is what is to hold from then on."""
    wanted = request.POST.get("on", "")
    if request.method == "POST" and wanted in ("0", "1"):
        on = wanted == "1"
        if giving.switch(on, by=request.user.get_username(), now=timezone.now(), address=address_of(request)):
            said = "Receipts are on. One can be made for every import that has ended." if on else "Receipts are off."
            messages.success(request, said)
        return redirect("mirrors:receipts-switch")
    context = {
        "row": Receipting.now(),
        "now": timezone.now(),
        "own_code": settings.AIRGAP_SITE_CODE,
    }
    return render(request, "receipts/switch.html", context, status=422 if request.method == "POST" else 200)
