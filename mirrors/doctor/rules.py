"""Trivy's rules, as far as they need no network.

when the next of several repositories is asked   pkg/oci/artifact.go shouldTryOtherRepo,
                                                 go-containerregistry transport/error.go Temporary
which token server is asked                      transport/bearer.go validateRealmURL (Trivy 0.71 and later)
which redirect is followed                       remote/fetcher.go checkRedirectSSRF (Trivy 0.71 and later)
"""

import ipaddress
import json
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

SSRF_SINCE = "0.71"
# One comma-joined header; the first two are Docker's schema 1, which nothing mirrors.
ACCEPT = ",".join(
    (
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.index.v1+json",
    )
)
_TEMPORARY_CODES = frozenset({"BLOB_UPLOAD_INVALID", "TOOMANYREQUESTS", "UNKNOWN", "UNAVAILABLE"})
_TEMPORARY_STATUS = frozenset({408, 429, 500, 502, 503, 504})
RETRIED = frozenset({408, 429, 499, 500, 502, 503, 504, 522})
UNREADABLE = "(unreadable)"
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}")


def error_codes(body: bytes) -> tuple[str, ...]:
    """The codes of a registry's JSON errors, and nothing else of what it said."""
    try:
        errors = json.loads(body)["errors"]
        codes = [str(one["code"]) for one in errors[:10]]
    except (ValueError, TypeError, LookupError, RecursionError):
        return ()
    return tuple(code if _CODE.fullmatch(code) else UNREADABLE for code in codes)


def tries_next(status: int, codes: Iterable[str]) -> bool:
    """Whether Trivy asks the next of several --db-repository after this answer."""
    codes = tuple(codes)
    if not codes:
        return status in _TEMPORARY_STATUS
    return "BLOB_UNKNOWN" in codes or all(code in _TEMPORARY_CODES for code in codes)


def after(status: int, codes: Iterable[str]) -> str:
    """What Trivy does after an answer that is no success, in words."""
    codes = tuple(codes)
    tried = "tries three times within 4 seconds, then " if status in RETRIED else ""
    if tries_next(status, codes):
        return f"Trivy {tried}asks the next repository of its list (0.56 and later), and fails without one."
    why = ""
    if status in _TEMPORARY_STATUS and codes:
        why = f", because the code {codes[0]} in the answer counts more than the status"
    return f"Trivy {tried}stops here, and does not ask a next repository of its list{why}."


def realm_fault(realm: str, registry: str, scheme: str) -> str:
    """Why a token server may not be asked, "" where it may. `registry` is host[:port]."""
    try:
        parts = urlsplit(realm)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return "its address cannot be read"
    if parts.scheme not in ("https", "http") or not host:
        return "its address is no web address"
    if parts.scheme == "http" and scheme != "http":
        return "it is to be asked by plain HTTP, while the registry speaks TLS"
    if parts.netloc != registry and is_private_literal(host):
        return "its address is a private one and not the registry's own"
    return ""


def is_private_literal(host: str) -> bool:
    """Loopback, private or link-local, written as an address. Names are let through, wherever they lead."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_link_local or address.is_unspecified


def refused_redirect(hosts: Iterable[str]) -> str:
    """The host[:port] in a chain of redirects that Trivy does not go to, "" if it follows them all."""
    names = [(host, urlsplit(f"//{host}").hostname or "") for host in hosts]
    if not names:
        return ""
    first = names[0][1]
    return next((host for host, name in names[1:] if name != first and is_private_literal(name)), "")
