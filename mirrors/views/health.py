"""Whether this instance works: web, database and broker. For supervisors and monitoring; needs no login."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from mirrors import health


@login_not_required
@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    faults = health.faults()
    answer = {"status": "failing" if faults else "ok", **dict.fromkeys(faults, "failing")}
    return JsonResponse(answer, status=503 if faults else 200)
