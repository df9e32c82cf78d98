"""Load a receipt: what a site says about a bundle that was made here."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from mirrors.forms.receipt import ReceiptForm
from mirrors.receipting import loading
from mirrors.receipting.loading import ReceiptRefused
from mirrors.views.access import address_of, operator_required
from mirrors.views.page import PageRequest
from mirrors.views.small_files import takes_small_file

SHOWN = 20
WITH_CAMERA = "camera=(self), microphone=(), geolocation=()"


@require_http_methods(["GET", "HEAD", "POST"])
@operator_required
@takes_small_file
def receipt_load(request: PageRequest) -> HttpResponse:
    form = ReceiptForm(request.POST, request.FILES) if request.method == "POST" else ReceiptForm()
    if request.method == "POST" and form.is_valid():
        try:
            receipt = loading.load(
                form.given,
                way=form.came_by,
                by=request.user.get_username(),
                now=timezone.now(),
                address=address_of(request),
            )
        except ReceiptRefused as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, loading.sentence(receipt))
            return redirect("mirrors:transfer-detail", pk=receipt.transfer_id)
    context = {"form": form, "loaded": loading.latest(SHOWN), "now": timezone.now()}
    response = render(request, "receipts/load.html", context, status=422 if request.method == "POST" else 200)
    response.headers["Permissions-Policy"] = WITH_CAMERA
    return response
