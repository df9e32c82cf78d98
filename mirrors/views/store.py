"""The store: what it holds and for whom, what is free, and the check of everything in it."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from mirrors import clock, retention, scrubbing, tasks
from mirrors.blobs import StoreError
from mirrors.retention import Space
from mirrors.scrubbing import Check
from mirrors.views.access import address_of, operator_required
from mirrors.views.page import PageRequest


@require_safe
@operator_required
@vary_on_headers("HX-Request")
def store(request: PageRequest) -> HttpResponse:
    """The page; for htmx only the check, which is polled while it runs, and the sentence on top."""
    now = clock.trusted_now().now
    check = scrubbing.last_check()
    context: dict[str, object] = {
        "now": now,
        "section": "settings" if request.user.may_administer else "store",
        "check": check,
        "sentences": list(scrubbing.sentences(check)) if check else [],
    }
    space, problem = None, ""
    try:
        space = retention.space(now)
        context["shares"] = _shares(space)
    except StoreError as error:
        problem = str(error)
    context |= {"space": space, "problem": problem, "headline": headline(space, check)}
    return render(request, "store/_polled.html" if request.htmx else "store/store.html", context)


def headline(space: Space | None, check: Check | None) -> str:
    """What matters most about the store, in one sentence."""
    if space is None:
        return "The store cannot be read."
    if space.is_short:
        return "The store is full: the next sync will be refused."
    if check is None:
        return "The store was never checked."
    if check.is_open:
        return "The store is being checked."
    return check.headline()


def _shares(space: Space) -> list[dict[str, object]]:
    used = max(space.used, 1)
    return [
        {"what": holder.what, "size": holder.size_bytes, "percent": round(100 * holder.size_bytes / used)}
        for holder in space.holders
    ]


@require_POST
@operator_required
def store_scrub(request: PageRequest) -> HttpResponse:
    """Wake a worker that checks everything."""
    by = request.user.get_username()
    if scrubbing.ask(by=by, now=timezone.now(), address=address_of(request)):
        if not tasks.send(tasks.scrub, by):
            problem = "No worker could be woken: the broker does not answer. Try again when it is back."
            scrubbing.withdraw(problem, by=by, now=timezone.now())
    else:
        messages.info(request, "A check is under way already.")
    return redirect("mirrors:store")
