"""Use it: what scanners must be told to pull from here, by who is told."""

from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from mirrors import authority, use_it
from mirrors.snippets import AUDIENCES, by_hand, snippets_for, traffic
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
        counts = _counts(request)
        context |= {"traffic": traffic(instance, **counts), "snippets": list(by_hand.filling(instance))}
    if audience == "hosts":
        context["gates"] = use_it.gates()
    return render(request, "use_it/use_it.html", context)


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
