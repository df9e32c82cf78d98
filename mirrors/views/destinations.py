"""Push destinations: registries that mirrors are pushed to, and how each stands; for administrators."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from mirrors import destinations as operations
from mirrors import wording
from mirrors.destinations import DestinationError
from mirrors.forms.destination import DestinationForm
from mirrors.forms.login import SECRET_FIELDS
from mirrors.models import Destination, Mirror, PushRule, PushRun
from mirrors.pushing import standing, trying
from mirrors.rules import RuleBroken
from mirrors.secrets import SecretError
from mirrors.views.access import address_of, administrator_required
from mirrors.views.page import PageRequest, live_page
from mirrors.views.rows import moving

RUNS_SHOWN = 6
RUNNING_SECONDS, RESTING_SECONDS = 2, 10
_REFUSALS = (DestinationError, SecretError)


@require_safe
@administrator_required
def destinations(request: PageRequest) -> HttpResponse:
    now = timezone.now()
    found = list(Destination.objects.in_order())
    of: dict[int, list[standing.Standing]] = {}
    for each in standing.standings(list(PushRule.objects.for_pages()), now):
        of.setdefault(each.rule.destination_id, []).append(each)
    rows = [
        {
            "destination": destination,
            "rules": of.get(destination.pk, []),
            "sentence": standing.headline(of.get(destination.pk, []), destination.label, enabled=destination.enabled),
            "trouble": any(each.is_trouble for each in of.get(destination.pk, [])),
        }
        for destination in found
    ]
    context = {"rows": rows, "headline": _headline(rows), "now": now}
    return render(request, "destinations/destinations.html", context)


def _headline(rows: list[dict[str, object]]) -> str:
    if not rows:
        return "Nothing is pushed anywhere."
    troubled = sum(bool(row["trouble"]) for row in rows)
    count = wording.number_word(len(rows))
    if not troubled:
        noun = "destination" if len(rows) == 1 else "destinations"
        return wording.capitalized(f"{count} {noun}, and nothing is the matter.")
    verb = "needs" if troubled == 1 else "need"
    return wording.capitalized(f"{wording.number_word(troubled)} of {count} {verb} looking after.")


@require_safe
@administrator_required
def destination_detail(request: PageRequest, name: str) -> HttpResponse:
    """What goes there and how that stands; while something is pushed, it goes on by itself."""
    destination = get_object_or_404(Destination, name=name)
    now = timezone.now()
    found = standing.standings(list(PushRule.objects.for_pages().filter(destination=destination)), now)
    running = any(each.open_run is not None for each in found)
    runs = PushRun.objects.filter(destination=destination).exclude(state=PushRun.State.UNCHANGED)
    context: dict[str, object] = {
        "now": now,
        "destination": destination,
        "headline": standing.headline(found, destination.label, enabled=destination.enabled),
        "rows": [{"standing": each, "moving": moving(each.open_run, now) if each.open_run else None} for each in found],
        "addable": Mirror.objects.exclude(push_rules__destination=destination).exists(),
        "runs": runs.select_related("mirror").newest_first()[:RUNS_SHOWN],
        "may_operate": True,
    }
    every = RUNNING_SECONDS if running else RESTING_SECONDS
    return live_page(request, "destinations/detail.html", "destinations/_detail.html", context, every=every)


@sensitive_post_parameters(*SECRET_FIELDS)
@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def destination_create(request: PageRequest) -> HttpResponse:
    form = DestinationForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            destination = operations.add_destination(
                form.cleaned_data["name"],
                form.wish(),
                by=request.user.get_username(),
                now=timezone.now(),
                address=address_of(request),
            )
        except (RuleBroken, *_REFUSALS) as refusal:
            _explain(form, refusal)
        else:
            messages.success(request, f"{destination.label} was added. Test it, then say which mirrors go there.")
            return redirect("mirrors:destination-detail", name=destination.name)
    return _form_page(request, form, None)


@sensitive_post_parameters(*SECRET_FIELDS)
@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def destination_edit(request: PageRequest, name: str) -> HttpResponse:
    destination = get_object_or_404(Destination, name=name)
    form = DestinationForm(request.POST if request.method == "POST" else None, destination=destination)
    if request.method == "POST" and form.is_valid():
        try:
            changed = operations.edit_destination(
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
            stopped = " The push under way was stopped; it begins again." if changed.stopped else ""
            messages.success(request, f"Saved.{stopped}" if changed.changes else "Nothing was changed.")
            return redirect("mirrors:destination-detail", name=name)
    return _form_page(request, form, destination)


def _explain(form: DestinationForm, refusal: Exception) -> None:
    setting = refusal.setting if isinstance(refusal, RuleBroken) else ""
    if isinstance(refusal, DestinationError) and "already a destination" in str(refusal):
        setting = "name"
    form.add_error(setting if setting in form.fields else None, str(refusal))


def _form_page(request: PageRequest, form: DestinationForm, destination: Destination | None) -> HttpResponse:
    for name in [name for name in form.fields if name in form.errors][:1]:
        form.fields[name].widget.attrs["autofocus"] = True
    status = 422 if request.method == "POST" else 200
    return render(request, "destinations/form.html", {"form": form, "destination": destination}, status=status)


@require_POST
@administrator_required
def destination_enable(request: PageRequest, name: str) -> HttpResponse:
    """`enabled` is 1 or 0."""
    destination = get_object_or_404(Destination, name=name)
    enabled = request.POST.get("enabled") == "1"
    by, now = request.user.get_username(), timezone.now()
    if operations.set_enabled(name, enabled, by=by, now=now, address=address_of(request)):
        what = "is pushed to again" if enabled else "is pushed to no more; what is there stays there"
        messages.success(request, f"{destination.label} {what}.")
    return redirect("mirrors:destination-detail", name=name)


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def destination_delete(request: PageRequest, name: str) -> HttpResponse:
    destination = get_object_or_404(Destination, name=name)
    if request.method == "POST":
        operations.remove_destination(
            name, by=request.user.get_username(), now=timezone.now(), address=address_of(request)
        )
        messages.success(request, f"{destination.label} was removed. What was pushed there is still there.")
        return redirect("mirrors:destinations")
    context = {"destination": destination, "removal": operations.what_removal_means(destination)}
    return render(request, "destinations/delete.html", context)


@require_POST
@administrator_required
def destination_test(request: PageRequest, name: str) -> HttpResponse:
    """Log in and begin a push now. A fragment for htmx, else a page of its own."""
    destination = get_object_or_404(Destination, name=name)
    trials = trying.try_destination(destination)
    failed = sum(not trial.ok for trial in trials)
    context = {
        "destination": destination,
        "trials": trials,
        "headline": _verdict(destination, len(trials), failed),
        "has_rules": destination.rules.exists(),
    }
    return render(request, "destinations/_test.html" if request.htmx else "destinations/test.html", context)


def _verdict(destination: Destination, asked: int, failed: int) -> str:
    if not failed:
        return f"{destination.label} lets us push."
    if failed == asked:
        return f"{destination.label} cannot be pushed to."
    some, all_of = wording.number_word(asked - failed), wording.number_word(asked)
    return f"{destination.label} lets us push to {some} of {all_of} repositories."
