"""Keys: the one this instance signs with, and whose are trusted here; for administrators."""

from collections.abc import Callable

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from mirrors import keys, wording
from mirrors.forms.keys import ElsewhereForm, TrustForm
from mirrors.keys import KeysError, UnknownName
from mirrors.models import SigningKey, TrustedKey
from mirrors.views.access import address_of, administrator_required
from mirrors.views.small_files import takes_small_file

FILES: dict[str, Callable[[SigningKey], str]] = {
    "airgap.pub": lambda key: key.public_line,
    "allowed_signers": keys.allowed_signers,
}


@require_safe
@administrator_required
def keys_page(request: HttpRequest) -> HttpResponse:
    key, trusted = SigningKey.objects.current().first(), keys.trusted()
    context = {
        "now": timezone.now(),
        "key": key,
        "allowed_signers": keys.allowed_signers(key) if key else "",
        "retired": keys.retired(),
        "trusted": trusted,
        "revoked": keys.revoked(),
        "headline": _headline(key, trusted),
    }
    return render(request, "keys/keys.html", context)


def _headline(key: SigningKey | None, trusted: list[TrustedKey]) -> str:
    """What matters most on this side, in a sentence."""
    if settings.AIRGAP_SIDE == "isolated":
        if not trusted:
            return "No key is trusted here yet."
        count = wording.capitalized(wording.number_word(len(trusted)))
        return f"{count} {'key is' if len(trusted) == 1 else 'keys are'} trusted here."
    if key is None:
        return "No bundle has been signed here yet."
    return {
        SigningKey.Kept.OWN: "Bundles are signed with a key of this instance.",
        SigningKey.Kept.AGENT: "Bundles are signed by an ssh-agent.",
        SigningKey.Kept.OUTSIDE: "Every bundle waits for a signature from outside.",
    }[SigningKey.Kept(key.kept)]


@require_POST
@administrator_required
def key_make(request: HttpRequest) -> HttpResponse:
    """The first key, before a bundle needs it, so that it can be given to the other side."""
    try:
        keys.current()
    except KeysError as error:
        messages.error(request, str(error))
    return redirect("mirrors:keys")


@require_safe
@administrator_required
def key_file(request: HttpRequest, name: str) -> HttpResponse:
    """Our public key, for download, in either form."""
    key = SigningKey.objects.current().first()
    if key is None or name not in FILES:
        raise Http404("There is no key yet.")
    answer = HttpResponse(FILES[name](key) + "\n", content_type="text/plain; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def key_rotate(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        try:
            key = keys.rotate(by=request.user.get_username(), now=timezone.now(), address=address_of(request))
        except KeysError as error:
            messages.error(request, str(error))
        else:
            messages.success(
                request, f"Bundles are signed with {key.fingerprint} from now on. Give it to the other side."
            )
        return redirect("mirrors:keys")
    context = {"now": timezone.now(), "key": SigningKey.objects.current().first()}
    return render(request, "keys/rotate.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
@takes_small_file
def key_elsewhere(request: HttpRequest) -> HttpResponse:
    """Sign with a key whose private part is kept elsewhere."""
    form = ElsewhereForm(request.POST, request.FILES) if request.method == "POST" else ElsewhereForm()
    if request.method == "POST" and form.is_valid():
        kept = form.cleaned_data["kept"]
        try:
            key = keys.use_elsewhere(
                form.given,
                kept,
                by=request.user.get_username(),
                now=timezone.now(),
                address=address_of(request),
            )
        except KeysError as error:
            form.add_error("text" if error.setting == "key" else None, str(error))
        else:
            messages.success(
                request, f"Bundles are signed with {key.fingerprint} from now on. Give it to the other side."
            )
            return redirect("mirrors:keys")
    context = {"form": form, "key": SigningKey.objects.current().first()}
    return render(request, "keys/elsewhere.html", context, status=422 if request.method == "POST" else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
@takes_small_file
def key_trust(request: HttpRequest) -> HttpResponse:
    form = TrustForm(request.POST, request.FILES) if request.method == "POST" else TrustForm()
    if request.method == "POST" and form.is_valid():
        try:
            key = keys.trust(
                form.cleaned_data["name"],
                form.given,
                note=form.cleaned_data["note"],
                again=form.cleaned_data["again"],
                by=request.user.get_username(),
                now=timezone.now(),
                address=address_of(request),
            )
        except KeysError as error:
            form.add_error({"key": "text"}.get(error.setting, error.setting) or None, str(error))
        else:
            messages.success(
                request, f"{key.name} is trusted: {key.fingerprint}. Compare that with what its owner says."
            )
            return redirect("mirrors:keys")
    return render(request, "keys/trust.html", {"form": form}, status=422 if request.method == "POST" else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def key_revoke(request: HttpRequest, name: str) -> HttpResponse:
    now = timezone.now()
    if request.method == "POST":
        try:
            keys.revoke(name, by=request.user.get_username(), now=now, address=address_of(request))
        except UnknownName as error:
            messages.warning(request, str(error))
        else:
            messages.success(request, f"{name} was revoked. What it signed is refused from now on.")
        return redirect("mirrors:keys")
    key = next((key for key in keys.trusted() if key.name == name), None)
    if key is None:
        messages.warning(request, f"There is no trusted key called {name} (any more).")
        return redirect("mirrors:keys")
    return render(request, "keys/revoke.html", {"now": now, "key": key})
