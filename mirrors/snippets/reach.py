"""What Trivy makes of a host by its name alone: which scheme it speaks there, and whether it is a registry at all.

go-containerregistry decides both without asking anybody (pkg/name/registry.go, pkg/name/repository.go): plain HTTP is
tried only at loopback, `*.localhost` and RFC 1918 addresses, and a first path segment without a dot, a colon or the
word localhost is taken for a folder on Docker Hub.
"""

import ipaddress
import re
from dataclasses import dataclass

_PRIVATE = tuple(ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
_LOCAL = re.compile(r"^localhost:|\.localhost(:\d{1,5})?$|^127\.0\.0\.1(:\d{1,5})?$|^\[::1\](:\d{1,5})?$")
_PORTS = {"https": 443, "http": 80}


def speaks_plain_http(registry: str) -> bool:
    """Whether Trivy tries plain HTTP at `host[:port]` without --insecure. TLS is tried first in any case."""
    return is_private(registry) or bool(_LOCAL.search(registry))


def is_private(registry: str) -> bool:
    """An IPv4 literal of RFC 1918. IPv6 addresses have no such rule."""
    try:
        address = ipaddress.ip_address(registry.split(":")[0])
    except ValueError:
        return False
    return any(address in network for network in _PRIVATE)


def is_registry_name(host: str) -> bool:
    """Whether `host/path` is this host to Trivy, and not a path on Docker Hub."""
    return host == "localhost" or "." in host or ":" in host


def registry_name(host: str, scheme: str) -> str:
    """`host` as it must be written in a reference: with the port where Trivy would not know it for a host, and where
    `localhost` alone would be asked by TLS only."""
    if not is_registry_name(host) or (host == "localhost" and scheme == "http"):
        return f"{host}:{_PORTS[scheme]}"
    return host


def without_port(host: str) -> str:
    """`host` of `host:port`; an IPv6 address keeps its brackets."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and not name.endswith(":") and "]" not in port else host


@dataclass(frozen=True)
class Reach:
    """Whether scanners can reach the instance, in words. `state` is ok, warning or broken."""

    state: str
    sentence: str
    explanation: str = ""


def reach_of(scheme: str, host: str, *, private_ca: bool) -> Reach:
    """`host` as scanners write it."""
    bare = without_port(host)
    if bare == "localhost" or bare.endswith(".localhost") or bare == "[::1]" or bare.startswith("127."):
        return Reach(
            "warning",
            f"Only scanners on this very machine reach {host}.",
            "You opened this page by a loopback address, so the lines below carry it. Open it by the name scanners "
            "use, or set AIRGAP_BASE_URL and AIRGAP_BIND.",
        )
    if scheme == "https":
        if private_ca:
            return Reach(
                "ok",
                f"Scanners reach {host} by TLS, once they trust its certificate authority.",
                "The lines below name the CA file; fetch it first.",
            )
        return Reach(
            "ok",
            f"Scanners reach {host} by TLS.",
            "If its certificate comes from an authority of your own, each scanner must trust that authority: put it "
            "into the system's store, or name it with SSL_CERT_FILE (any Trivy) or --cacert (0.68 and later).",
        )
    if speaks_plain_http(host):
        return Reach(
            "warning",
            f"Scanners reach {host} by plain HTTP, because it is a private address.",
            "Trivy speaks plain HTTP to RFC 1918 addresses without being told to. Nobody on the way is kept from "
            "changing what it reads there: a certificate is better (AIRGAP_TLS_CERT and AIRGAP_TLS_KEY, or nginx in "
            "front).",
        )
    return Reach(
        "broken",
        f"Trivy refuses plain HTTP to {host}.",
        "It speaks plain HTTP to loopback and RFC 1918 addresses only; to any name it insists on TLS. The cure is a "
        "certificate: set AIRGAP_TLS_CERT and AIRGAP_TLS_KEY, or put nginx with TLS in front. Until then every line "
        "below carries --insecure or its like. That also switches off the check of every other certificate in the "
        "same run, so a stranger on the way could hand the scanner whatever they like.",
    )
