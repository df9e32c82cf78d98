"""Use it: what scanners must be told to pull from here, by who is told."""

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from mirrors import authority, use_it, wording
from mirrors.snippets import AUDIENCES, Traffic, by_hand, snippets_for, traffic
from mirrors.views.page import PageRequest

FIRST = "cli"
MOST = 1_000_000
# What the comparison begins with: a middling fleet.
SCANNERS, JOBS, FILLERS = 50, 0, 1


@require_safe
def page(request: PageRequest, audience: str = FIRST) -> HttpResponse:
    """The snippets for one audience, or one of the two pages that compare and list."""
    chosen = AUDIENCES.get(audience)
    if chosen is None:
        raise Http404("There is no such part of this page.")
    instance = use_it.instance_for(request.scheme or "http", request.get_host())
    places = use_it.destinations()
    place = next((found for found in places if found.name == request.GET.get("at")), None)
    if place is not None:
        instance = use_it.at_destination(place, instance)
    context: dict[str, object] = {
        "instance": instance,
        "reach": instance.reach,
        "audiences": AUDIENCES.values(),
        "chosen": chosen,
        "places": places,
        "place": place,
        "examine": instance.reference(instance.db) if place and instance.db else instance.registry,
        "snippets": snippets_for(audience, instance),
        "authorities": authority.authorities() if instance.ca_path else [],
    }
    if audience == "compare":
        reckoned = traffic(instance, **_counts(request))
        context |= {"traffic": reckoned, "snippets": list(by_hand.filling(instance)), "headline": compared(reckoned)}
    if audience == "hosts":
        gates = use_it.gates()
        context |= {"gates": gates, "own_registries": use_it.own_registries(), "headline": let_through(len(gates))}
    return render(request, "use_it/use_it.html", context)


def compared(reckoned: Traffic) -> str:
    """`50 scanners pull 669 MiB a day, or 7.8 GiB once nothing newer comes; one fill takes 29 MiB.`"""
    total = reckoned.total
    if total.size is None or total.pulled is None or total.stale is None:
        return ""
    pulled, stale = wording.size_text(total.pulled), wording.size_text(total.stale)
    who = f"{wording.counted(reckoned.scanners, 'scanner')} {'pulls' if reckoned.scanners == 1 else 'pull'}"
    once = f"or {stale} once nothing newer comes"
    return f"{who} {pulled} a day, {once}; one fill takes {wording.size_text(total.size)}."


def let_through(count: int) -> str:
    if settings.AIRGAP_SIDE == "isolated":
        return "This side needs nobody outside."
    if not count:
        return "No mirror has a source, so nobody outside is needed."
    verb = "is" if count == 1 else "are"
    return (
        f"{wording.capitalized(wording.number_word(count))} {'host' if count == 1 else 'hosts'} outside {verb} needed."
    )


def _counts(request: PageRequest) -> dict[str, int]:
    """Scanners, jobs and fillers as asked for; what makes no sense is what the page begins with."""
    wanted = {"scanners": SCANNERS, "jobs": JOBS, "fillers": FILLERS}
    for name in wanted:
        text = request.GET.get(name, "")
        if text.isascii() and text.isdigit():
            wanted[name] = min(int(text[:9]), MOST)
    return wanted


@login_not_required
@require_safe
def certificate(request: HttpRequest) -> HttpResponse:
    """The authority's certificate, for scanners that must trust it before they can ask anything."""
    pem = authority.pem()
    if not pem:
        raise Http404("This instance has no certificate authority of its own to hand out.")
    return HttpResponse(pem, content_type="application/x-pem-file")
