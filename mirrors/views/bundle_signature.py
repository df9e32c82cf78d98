"""The signature of a bundle: what is signed, the signature itself, and the one that a person brings."""

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from mirrors import bundle_signing, keys, tasks
from mirrors.blobs import StoreError
from mirrors.bundle.compose import SIGNATURE, SUMS
from mirrors.bundle_signing import NotTaken
from mirrors.forms.keys import SignatureForm
from mirrors.models import Bundle
from mirrors.views.access import address_of, operator_required
from mirrors.views.page import PageRequest
from mirrors.views.small_files import takes_small_file

SIGNERS = "allowed_signers"


@require_safe
def bundle_document(request: PageRequest, pk: str, name: str) -> HttpResponse:
    """SHA256SUMS, its signature, or the allowed-signers line of the key that made it, for download."""
    bundle = get_object_or_404(Bundle, pk=pk)
    try:
        data = _signers_of(bundle) if name == SIGNERS else bundle_signing.document(bundle, name)
    except StoreError as error:
        return HttpResponse(f"{error}\n", status=409, content_type="text/plain; charset=utf-8")
    if data is None:
        raise Http404(f"This bundle has no {name}.")
    answer = HttpResponse(data, content_type="text/plain; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    answer["Cache-Control"] = "private, no-transform"
    return answer


def _signers_of(bundle: Bundle) -> bytes | None:
    key = bundle_signing.key_of(bundle)
    return f"{keys.allowed_signers(key)}\n".encode() if key else None


@require_http_methods(["GET", "HEAD", "POST"])
@operator_required
@takes_small_file
def bundle_sign(request: PageRequest, pk: str) -> HttpResponse:
    """Takes the signature of a bundle that waits for one."""
    bundle = get_object_or_404(Bundle, pk=pk)
    if bundle.state != Bundle.State.UNSIGNED or bundle.expired_at is not None:
        messages.info(request, f"{bundle.filename} does not wait for a signature.")
        return redirect("mirrors:bundle-detail", bundle.pk)
    form = SignatureForm(request.POST, request.FILES) if request.method == "POST" else SignatureForm()
    if request.method == "POST" and form.is_valid():
        try:
            bundle_signing.attach(
                bundle,
                form.given.encode("utf-8", "replace"),
                by=request.user.get_username(),
                now=timezone.now(),
                address=address_of(request),
            )
        except NotTaken as error:
            form.add_error(None, str(error))
        else:
            tasks.send_bundle(bundle.pk)
            messages.success(request, f"{bundle.filename} is signed, and can be carried.")
            return redirect("mirrors:bundle-detail", bundle.pk)
    context = {"bundle": bundle, "form": form, "sums": SUMS, "signature": SIGNATURE, "now": timezone.now()}
    return render(request, "bundles/sign.html", context, status=422 if request.method == "POST" else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@operator_required
def bundle_unsigned(request: PageRequest, pk: str) -> HttpResponse:
    """Asks first, then lets the bundle be sent without its signature."""
    bundle = get_object_or_404(Bundle, pk=pk)
    if request.method == "POST":
        try:
            bundle_signing.send_unsigned(
                bundle, by=request.user.get_username(), now=timezone.now(), address=address_of(request)
            )
        except NotTaken as error:
            messages.warning(request, str(error))
        else:
            tasks.send_bundle(bundle.pk)
            messages.success(request, f"{bundle.filename} is sent without a signature.")
        return redirect("mirrors:bundle-detail", bundle.pk)
    if bundle.state != Bundle.State.UNSIGNED:
        return redirect("mirrors:bundle-detail", bundle.pk)
    return render(request, "bundles/unsigned.html", {"bundle": bundle, "now": timezone.now()})
