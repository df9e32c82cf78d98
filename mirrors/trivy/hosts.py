"""What Trivy makes of a host by its name alone: which scheme it speaks there, and whether it is a registry at all.

go-containerregistry decides both without asking anybody (pkg/name/registry.go, pkg/name/repository.go): plain HTTP is
tried only at loopback, `*.localhost` and RFC 1918 addresses, and a first path segment without a dot, a colon or the
word localhost is taken for a folder on Docker Hub.
"""

import ipaddress
import re

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
