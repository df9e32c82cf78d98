"""Access: who may read what scanners fetch, and the tokens they read with; for administrators."""

import base64
import json
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from mirrors import access_tokens, refusals, wording
from mirrors.access_tokens import AccessError, Readiness, UnknownToken
from mirrors.forms import TokenForm
from mirrors.models import AccessToken, Mirror, Serving
from mirrors.views.access import address_of, administrator_required


@require_safe
@administrator_required
def access(request: HttpRequest) -> HttpResponse:
    now, tokens = timezone.now(), access_tokens.standing_tokens()
    required = Serving.now().login_required
    context = {
        "now": now,
        "required": required,
        "tokens": [(token, token.state(now)) for token in tokens],
        "revoked": access_tokens.revoked_tokens(),
        "refused": refusals.lately(now),
        "refused_action": refusals.ACTION,
        "headline": _headline(required, access_tokens.readiness(tokens, now)),
    }
    return render(request, "access/access.html", context)


def _headline(required: bool, ready: Readiness) -> str:
    if not required:
        return "Anybody who reaches this instance may read."
    tokens = wording.number_word(ready.usable) + (" access token" if ready.usable == 1 else " access tokens")
    people = wording.number_word(ready.people) + (" person" if ready.people == 1 else " people")
    return f"Reading needs a login, which {tokens} and {people} have."


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def access_switch(request: HttpRequest) -> HttpResponse:
    """A page that says who is locked out, or let in; `required` 1 or 0 is what is to hold from then on."""
    wanted = request.POST.get("required", "")
    now = timezone.now()
    if request.method == "POST" and wanted in ("0", "1"):
        by, address = request.user.get_username(), address_of(request)
        if access_tokens.require_login(wanted == "1", by=by, now=now, address=address):
            said = "Reading needs a login from now on." if wanted == "1" else "Anybody may read from now on."
            messages.success(request, f"{said} It holds everywhere within seconds.")
        return redirect("mirrors:access")
    required = Serving.now().login_required
    tokens = access_tokens.standing_tokens()
    context = {"now": now, "required": required, "ready": access_tokens.readiness(tokens, now)}
    context["is_plain"] = _is_plain(request)
    return render(request, "access/switch.html", context, status=422 if request.method == "POST" else 200)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def token_create(request: HttpRequest) -> HttpResponse:
    form = TokenForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            token, secret = access_tokens.add_token(
                form.cleaned_data["name"],
                life=form.life(),
                by=request.user.get_username(),
                now=timezone.now(),
                address=address_of(request),
            )
        except AccessError as error:
            form.add_error(error.setting if error.setting in form.fields else None, str(error))
        else:
            # Shown in this answer and nowhere else: it is kept only as a hash.
            return render(request, "access/token.html", _shown(request, token, secret))
    status = 422 if request.method == "POST" else 200
    return render(request, "access/new.html", {"form": form}, status=status)


def _base(request: HttpRequest) -> str:
    """Where scanners reach this instance, as far as is known."""
    return settings.AIRGAP_BASE_URL or request.build_absolute_uri("/").rstrip("/")


def _is_plain(request: HttpRequest) -> bool:
    return _base(request).startswith("http:")


def _shown(request: HttpRequest, token: AccessToken, secret: str) -> dict[str, object]:
    """What the page with the secret says, with this instance's address in every line."""
    base = _base(request)
    host = urlsplit(base).netloc
    login = base64.b64encode(f"{token.name}:{secret}".encode()).decode()
    vex = Mirror.objects.filter(kind="vex").order_by("name").values_list("name", flat=True).first() or "vexhub"
    repository = (
        f"repositories:\n  - name: default\n    url: {base}/vex/{vex}\n    enabled: true\n    token: {secret}\n"
    )
    return {
        "now": timezone.now(),
        "token": token,
        "secret": secret,
        "is_plain": _is_plain(request),
        "host": host,
        "lines": [
            ("login", "Log in once, with the token as password", "", f"docker login --username {token.name} {host}"),
            (
                "docker-config",
                "Or a docker config file, as for CI jobs",
                "~/.docker/config.json",
                json.dumps({"auths": {host: {"auth": login}}}, indent=2),
            ),
            ("repository", "VEX", "~/.trivy/vex/repository.yaml", repository),
            ("curl", "By hand", "", f"curl --user {token.name}:{secret} --output FILE {base}/files/…"),
        ],
    }


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def token_revoke(request: HttpRequest, name: str) -> HttpResponse:
    now = timezone.now()
    if request.method == "POST":
        try:
            access_tokens.revoke_token(name, by=request.user.get_username(), now=now, address=address_of(request))
        except UnknownToken as error:
            messages.warning(request, str(error))
        else:
            messages.success(request, f"The access token {name} was revoked. It reads no more, within seconds.")
        return redirect("mirrors:access")
    token = next((token for token in access_tokens.standing_tokens() if token.name == name), None)
    if token is None:
        messages.warning(request, f"There is no access token called {name} (any more).")
        return redirect("mirrors:access")
    context = {"now": now, "token": token, "required": Serving.now().login_required}
    return render(request, "access/revoke.html", context)
