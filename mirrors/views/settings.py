"""Mirror settings: what is fetched, from where and how often; for administrators."""

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from mirrors import connections, mirroring, wording
from mirrors.connections import OutboundRefused
from mirrors.forms import MirrorForm, rhythm
from mirrors.forms.login import SECRET_FIELDS
from mirrors.mirror_rules import RuleBroken
from mirrors.mirroring import MirroringError, StillInBundles
from mirrors.models import Mirror
from mirrors.secrets import SecretError
from mirrors.trivy.catalogue import KINDS, Kind
from mirrors.views.access import address_of, administrator_required

_REFUSALS = (MirroringError, SecretError)
ABOUT_KINDS = {
    "trivy-db": "The vulnerability database, which every scan needs.",
    "trivy-java-db": "Which JAR is which artifact: for scans of Java.",
    "trivy-checks": "Rules for misconfigurations in Kubernetes, Terraform, Dockerfiles and the like.",
    "vex": "Statements on which vulnerabilities do not matter where: VEX Hub, or any VEX repository.",
    "release": "The scanner itself: Trivy's archives and packages, verified by the release's own checksum file.",
    "oci": "Any image or artifact of a registry, whole: Trivy's own image, for one.",
}


@require_safe
@administrator_required
def mirrors(request: HttpRequest) -> HttpResponse:
    found = list(Mirror.objects.for_pages())
    disabled = sum(not mirror.enabled for mirror in found)
    headline = f"{wording.number_word(len(found))} mirror{'s' if len(found) != 1 else ''}"
    if disabled:
        headline += f", {wording.number_word(disabled)} disabled"
    rows = [{"mirror": mirror, "sources": list(mirror.sources.all()), "rhythm": rhythm(mirror)} for mirror in found]
    context = {"rows": rows, "headline": wording.capitalized(f"{headline}."), "now": timezone.now()}
    return render(request, "settings/mirrors.html", context)


@sensitive_post_parameters(*SECRET_FIELDS)
@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def mirror_create(request: HttpRequest) -> HttpResponse:
    """First the kind is chosen, then its form comes filled with what is usual. Not on the isolated side."""
    if settings.AIRGAP_SIDE == "isolated" and request.method != "POST":
        messages.info(request, mirroring.NOT_ON_THIS_SIDE)
        return redirect("mirrors:settings")
    kind = KINDS.get(request.POST.get("kind") or request.GET.get("kind") or "")
    if kind is None:
        kinds = [(each, ABOUT_KINDS.get(each.name, each.rhythm)) for each in KINDS.values()]
        return render(request, "settings/kinds.html", {"kinds": kinds}, status=422 if request.method == "POST" else 200)
    form = MirrorForm(request.POST if request.method == "POST" else None, kind=kind)
    if request.method == "POST" and form.is_valid():
        name = form.cleaned_data["name"]
        try:
            mirror = mirroring.add_mirror(
                name, form.wish(), by=request.user.get_username(), now=timezone.now(), address=address_of(request)
            )
        except (RuleBroken, *_REFUSALS) as refusal:
            _explain(form, refusal)
        else:
            upcoming = "Its first sync begins within seconds." if mirror.next_sync_at else "It is synced by hand only."
            messages.success(request, f"{mirror.label} was added. {upcoming}")
            return redirect("mirrors:mirror-edit", name=mirror.name)
    return _form_page(request, form, kind, None)


@sensitive_post_parameters(*SECRET_FIELDS)
@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def mirror_edit(request: HttpRequest, name: str) -> HttpResponse:
    mirror = get_object_or_404(Mirror, name=name)
    form = MirrorForm(request.POST if request.method == "POST" else None, kind=mirror.asset, mirror=mirror)
    if request.method == "POST" and form.is_valid():
        try:
            edited = mirroring.edit_mirror(
                name,
                form.wish(),
                by=request.user.get_username(),
                now=timezone.now(),
                address=address_of(request),
                seen=form.cleaned_data["seen"] or None,
            )
        except (RuleBroken, *_REFUSALS) as refusal:
            _explain(form, refusal)
        else:
            messages.success(request, _said(edited))
            return redirect("mirrors:mirror-edit", name=name)
    return _form_page(request, form, mirror.asset, mirror)


def _said(edited: mirroring.Edited) -> str:
    if not edited.changes:
        return "Nothing was changed."
    stopped = " The run under way was stopped." if edited.stopped_runs else ""
    soon = (
        " A sync with the new settings begins within seconds."
        if edited.fetches_anew and edited.mirror.next_sync_at
        else ""
    )
    gone = f" {edited.gone}" if edited.gone else ""
    return f"Saved.{stopped}{soon}{gone}"


def _explain(form: MirrorForm, refusal: Exception) -> None:
    setting = refusal.setting if isinstance(refusal, RuleBroken) else ""
    if isinstance(refusal, MirroringError) and "already a mirror" in str(refusal):
        setting = "name"
    form.add_error(setting if setting in form.fields else None, str(refusal))


def _form_page(request: HttpRequest, form: MirrorForm, kind: Kind, mirror: Mirror | None) -> HttpResponse:
    # The form is longer than a screen: the browser goes to what is wrong.
    for name in [name for name in form.fields if name in form.errors][:1]:
        form.fields[name].widget.attrs["autofocus"] = True
    context = {
        "form": form,
        "kind": kind,
        "mirror": mirror,
        "subject": wording.with_article(mirror.label, start=True) if mirror else "",
        "sources": list(mirror.sources.order_by("position")) if mirror else [],
        "comes_in_bundles": mirroring.comes_in_bundles(mirror),
        "rhythm": rhythm(mirror) if mirror else "",
        "own_rhythm": wording.every_text(kind.check_every),
        "now": timezone.now(),
    }
    return render(request, "settings/mirror.html", context, status=422 if request.method == "POST" else 200)


@require_POST
@administrator_required
def mirror_enable(request: HttpRequest, name: str) -> HttpResponse:
    """`enabled` is 1 or 0."""
    mirror = get_object_or_404(Mirror, name=name)
    enabled = request.POST.get("enabled") == "1"
    by, now = request.user.get_username(), timezone.now()
    if mirroring.set_enabled(name, enabled, by=by, now=now, address=address_of(request)):
        what = "is synced again" if enabled else "is synced no more; what it holds stays served"
        messages.success(request, f"{mirror.label} {what}.")
    return redirect("mirrors:mirror-edit", name=name)


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def mirror_delete(request: HttpRequest, name: str) -> HttpResponse:
    """A page that says what goes with it; what can still be downloaded goes only if that was ticked, too."""
    mirror = get_object_or_404(Mirror, name=name)
    problem = ""
    if request.method == "POST":
        try:
            mirroring.remove_mirror(
                name,
                by=request.user.get_username(),
                now=timezone.now(),
                address=address_of(request),
                expire_bundles=request.POST.get("expire_bundles") == "1",
            )
        except StillInBundles as refusal:
            count = len(refusal.bundles)
            problem = f"{wording.capitalized(wording.counted(count, 'bundle'))} would be lost: tick that you want this."
        except MirroringError as refusal:
            problem = str(refusal)
        else:
            messages.success(request, f"{mirror.label} was removed.")
            return redirect("mirrors:settings")
    context = {"mirror": mirror, "removal": mirroring.what_removal_means(mirror), "problem": problem}
    return render(request, "settings/delete.html", context, status=422 if problem else 200)


@require_POST
@administrator_required
def mirror_test(request: HttpRequest, name: str) -> HttpResponse:
    """Ask every source now. A fragment for htmx, else a page of its own."""
    mirror = get_object_or_404(Mirror, name=name)
    problem = ""
    reports: list[connections.SourceReport] = []
    try:
        reports = connections.try_mirror(mirror)
    except OutboundRefused as refusal:
        problem = str(refusal)
    failed = sum(not report.ok for report in reports)
    context = {
        "mirror": mirror,
        "reports": reports,
        "failed": failed,
        "gates": connections.allow_list(reports),
        "problem": problem,
        "headline": _verdict(len(reports), failed),
    }
    is_htmx = bool(getattr(request, "htmx", False))
    return render(request, "settings/_test.html" if is_htmx else "settings/test.html", context)


def _verdict(asked: int, failed: int) -> str:
    if not failed:
        return "Every source answers, down to its data." if asked != 1 else "The source answers, down to its data."
    if failed == asked:
        return "No source can be fetched from." if asked != 1 else "The source cannot be fetched from."
    verb = "does" if failed == 1 else "do"
    return wording.capitalized(
        f"{wording.number_word(failed)} of {wording.number_word(asked)} sources {verb} not answer."
    )
