"""The doctor's page: an address goes in, findings come out. Administrators and operators only, for the server asks."""

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods
from django.views.decorators.vary import vary_on_headers

from mirrors import checkup, use_it
from mirrors.doctor import Report
from mirrors.forms.doctor import DoctorForm
from mirrors.snippets import AUDIENCES
from mirrors.views.access import address_of, operator_required
from mirrors.views.page import PageRequest


@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_post_parameters("password")
@operator_required
@vary_on_headers("HX-Request")
def doctor(request: PageRequest) -> HttpResponse:
    """The form; posted, its findings below it. For htmx the lower part of the page alone."""
    here = use_it.instance_for(request.scheme or "http", request.get_host())
    reports: list[Report] = []
    if request.method == "POST":
        form = DoctorForm(request.POST, here=here)
        if form.is_valid():
            reports = checkup.examined(
                form.cleaned_data["address"],
                form.targets,
                form.options(),
                by=request.user.get_username(),
                now=timezone.now(),
                seconds=checkup.PAGE_SECONDS,
                address=address_of(request),
            )
    else:
        form = DoctorForm(here=here, initial={"address": request.GET.get("address", "")[:600]})
    context = {
        "form": form,
        "here": here,
        "reports": reports,
        "headline": checkup.headline(reports) if reports else "",
        "hosts": checkup.allow_list(reports),
        "audiences": AUDIENCES.values(),
        "now": timezone.now(),
    }
    status = 422 if form.errors else 200
    return render(request, "use_it/_doctor.html" if request.htmx else "use_it/doctor.html", context, status=status)
