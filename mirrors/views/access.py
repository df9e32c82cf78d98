"""Who may do what: one decorator a role, for every door that changes something."""

from collections.abc import Callable
from functools import wraps
from ipaddress import ip_address
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.http.response import HttpResponseBase

View = Callable[..., HttpResponseBase]


def operator_required(view: View) -> View:
    """Operators and administrators; others get 403. Login itself is required by middleware."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not getattr(request.user, "may_operate", False):
            raise PermissionDenied("Only operators and administrators may do this.")
        return view(request, *args, **kwargs)

    return guarded


def administrator_required(view: View) -> View:
    """Administrators only; others get 403."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not getattr(request.user, "may_administer", False):
            raise PermissionDenied("Only administrators may do this.")
        return view(request, *args, **kwargs)

    return guarded


def address_of(request: HttpRequest) -> str:
    """The client's address as the server saw it; behind a proxy, as the proxy saw it.

    Only what the proxy itself added to X-Forwarded-For counts: whatever stands before that came from the client.
    """
    peer = str(request.META.get("REMOTE_ADDR", ""))
    forwarded = request.headers.get("X-Forwarded-For", "") if settings.AIRGAP_BEHIND_PROXY else ""
    return _plain_address(forwarded.rpartition(",")[2]) or _plain_address(peer)


def _plain_address(text: str) -> str:
    """An IP address without its zone, as databases keep it; "" for anything else."""
    try:
        return str(ip_address(text.strip().partition("%")[0]))
    except ValueError:
        return ""
