"""What every template may show: which instance this is, and which part of it this page belongs to."""

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from mirrors import clock, standing
from mirrors.models import Site

SIDES = {"connected": "connected side", "isolated": "isolated side", "both": "connected and isolated side"}
SECTIONS = (
    ("/settings/", "settings"),
    ("/history", "history"),
    ("/runs/", "history"),
    ("/pushes/", "history"),
    ("/bundles", "bundles"),
    ("/sites", "sites"),
    ("/transfers/", "sites"),
    ("/receipts/", "sites"),
    ("/import/", "import"),
    ("/use-it/", "use-it"),
    ("/consumers", "consumers"),
    ("/password/", "password"),
    ("/login/", ""),
    ("/files/", ""),
)


def section_of(path: str) -> str:
    """The entry of the main navigation a path belongs to; databases belong to the dashboard."""
    return next((section for prefix, section in SECTIONS if path.startswith(prefix)), "dashboard")


def _shows_sites(request: HttpRequest) -> bool:
    if settings.AIRGAP_SIDE != "isolated" or getattr(request.user, "may_operate", False):
        return True
    return Site.objects.exists()


def instance(request: HttpRequest) -> dict[str, object]:
    return {
        "side": settings.AIRGAP_SIDE,
        "side_text": SIDES[settings.AIRGAP_SIDE],
        "is_isolated": settings.AIRGAP_SIDE == "isolated",
        # A chain of enclaves goes on from the isolated side; where nobody carries onward, the entry would lead nowhere.
        "shows_sites": SimpleLazyObject(lambda: _shows_sites(request)),
        "imports": settings.AIRGAP_SIDE != "connected",
        "program_version": settings.VERSION,
        "section": section_of(request.path),
        # Asked for by base.html, only where somebody is signed in and the page does not bring its own.
        "clock_banner": SimpleLazyObject(lambda: standing.clock_banner(clock.trusted_now())),
    }
