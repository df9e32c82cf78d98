"""Which mirrors go to a destination: a rule added, changed, removed, and pushed by now."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from mirrors import push_rules, tasks
from mirrors.forms.destination import RuleForm
from mirrors.models import Destination, Mirror, PushRule, PushRun
from mirrors.push_rules import PushRuleError
from mirrors.pushing.asking import PushRefused, request_push
from mirrors.pushing.targets import PLACEHOLDERS, Target, TargetError
from mirrors.rules import RuleBroken
from mirrors.views.access import address_of, administrator_required, operator_required
from mirrors.views.page import PageRequest


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def rule_create(request: PageRequest, name: str) -> HttpResponse:
    """With `preview` in the form nothing is saved: the page says where the content would go."""
    destination = get_object_or_404(Destination, name=name)
    taken = destination.rules.values("mirror_id")
    mirrors = list(Mirror.objects.exclude(pk__in=taken).select_related("current"))
    # What no registry takes is offered too, last: choosing it tells why.
    mirrors.sort(key=lambda mirror: mirror.asset.transport != "oci")
    form = RuleForm(request.POST if request.method == "POST" else None, mirrors=mirrors)
    chosen = request.POST.get("mirror") or request.GET.get("mirror") or (mirrors[0].name if mirrors else "")
    form.initial["mirror"] = chosen
    mirror = next((each for each in mirrors if each.name == chosen), None)
    if request.method == "POST" and "preview" not in request.POST and form.is_valid() and mirror is not None:
        try:
            push_rules.add_rule(
                destination,
                mirror,
                form.wish(),
                by=request.user.get_username(),
                now=timezone.now(),
                address=address_of(request),
            )
        except (RuleBroken, PushRuleError) as refusal:
            _explain(form, refusal)
        else:
            soon = (
                " The first push begins within seconds." if form.cleaned_data["automatic"] and mirror.current_id else ""
            )
            messages.success(request, f"{mirror.label} goes to {destination.label} from now on.{soon}")
            return redirect("mirrors:destination-detail", name=name)
    return _form_page(request, form, destination, mirror, None)


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def rule_edit(request: PageRequest, pk: int) -> HttpResponse:
    rule = get_object_or_404(PushRule.objects.for_pages(), pk=pk)
    form = RuleForm(request.POST if request.method == "POST" else None, rule=rule)
    if request.method == "POST" and "preview" not in request.POST and form.is_valid():
        try:
            changes = push_rules.edit_rule(
                rule, form.wish(), by=request.user.get_username(), now=timezone.now(), address=address_of(request)
            )
        except (RuleBroken, PushRuleError) as refusal:
            _explain(form, refusal)
        else:
            messages.success(request, "Saved." if changes else "Nothing was changed.")
            return redirect("mirrors:destination-detail", name=rule.destination.name)
    return _form_page(request, form, rule.destination, rule.mirror, rule)


def _explain(form: RuleForm, refusal: Exception) -> None:
    setting = refusal.setting if isinstance(refusal, RuleBroken) else "mirror"
    form.add_error(setting if setting in form.fields else None, str(refusal))


def _form_page(
    request: PageRequest, form: RuleForm, destination: Destination, mirror: Mirror | None, rule: PushRule | None
) -> HttpResponse:
    previewed = "preview" in request.POST
    target, problem = _preview(request, form, destination, mirror)
    context = {
        "form": form,
        "destination": destination,
        "mirror": mirror,
        "rule": rule,
        "target": target,
        "problem": problem,
        "placeholders": PLACEHOLDERS.items(),
    }
    if previewed and request.htmx:
        return render(request, "destinations/_preview.html", context)
    return render(
        request, "destinations/rule.html", context, status=200 if previewed or request.method != "POST" else 422
    )


def _preview(
    request: PageRequest, form: RuleForm, destination: Destination, mirror: Mirror | None
) -> tuple[Target | None, str]:
    """Where the mirror's present content would go, or why that cannot be said."""
    if mirror is None:
        return None, ""
    said = request.POST if request.method == "POST" else form.initial
    try:
        push_rules.refuse_kind(mirror)
        return push_rules.preview(destination, said.get("target", ""), said.get("extra_tags", ""), mirror), ""
    except (PushRuleError, RuleBroken, TargetError) as refusal:
        return None, str(refusal)


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def rule_delete(request: PageRequest, pk: int) -> HttpResponse:
    rule = get_object_or_404(PushRule.objects.for_pages(), pk=pk)
    if request.method == "POST":
        push_rules.remove_rule(rule, by=request.user.get_username(), now=timezone.now(), address=address_of(request))
        messages.success(request, f"{rule.mirror.label} goes to {rule.destination.label} no more.")
        return redirect("mirrors:destination-detail", name=rule.destination.name)
    return render(request, "destinations/rule_delete.html", {"rule": rule})


@require_POST
@operator_required
def rule_push(request: PageRequest, pk: int) -> HttpResponse:
    """Ask for a push now, also where the rule pushes by itself or waits after a failure."""
    rule = get_object_or_404(PushRule.objects.for_pages(), pk=pk)
    what = f"{rule.mirror.label} to {rule.destination.label}"
    try:
        run, created = request_push(rule, trigger=PushRun.Trigger.HAND, by=request.user.username, now=timezone.now())
    except PushRefused as refusal:
        messages.error(request, str(refusal))
    else:
        if created:
            tasks.send_push(run)
            messages.success(request, f"{what}: the push begins within seconds.")
        else:
            messages.info(request, f"{what} is being pushed already.")
    if request.POST.get("back") == "destination" and request.user.may_administer:
        return redirect("mirrors:destination-detail", name=rule.destination.name)
    return redirect("mirrors:mirror-detail", name=rule.mirror.name)
