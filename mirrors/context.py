"""What every template may show: which instance this is."""

from django.conf import settings
from django.http import HttpRequest


def instance(request: HttpRequest) -> dict[str, object]:
    return {
        "side": settings.AIRGAP_SIDE,
        "is_isolated": settings.AIRGAP_SIDE == "isolated",
        "program_version": settings.VERSION,
    }
