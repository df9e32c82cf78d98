"""References: `host[:port]/path[:tag][@sha256:…]`, without a scheme.

oras-py's own parser lets `https://…`, spaces and `ta/g` pass and sends `localhost/x` to Docker Hub, so we have ours.
The grammar is distribution-spec's (names, tags) with the registry's host always written out.
"""

import ipaddress
import re
from dataclasses import dataclass, replace
from functools import lru_cache

from mirrors.digests import DigestError, parse_digest

_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?P<name>{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?", re.ASCII)

# Docker Hub is named docker.io and served from elsewhere (moby registry/config.go).
_DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
_DOCKER_HUB_API = "registry-1.docker.io"


class ReferenceError(ValueError):  # the name says what it is; the builtin of that name is about weak references
    """The text is no reference; the message says what is wrong and how it should look."""


def parse_host(text: str) -> tuple[str, int | None]:
    """Host (lower case, IPv6 in brackets) and port of `host[:port]`, or ReferenceError."""
    match = _HOST.fullmatch(text)
    if not match or len(text) > 260:
        raise ReferenceError(f"{text[:80]!r} is not a host name; expected host or host:port.")
    name = match["name"].lower()
    if name.startswith("["):
        try:
            ipaddress.IPv6Address(name[1:-1])
        except ValueError:
            raise ReferenceError(f"{text[:80]!r} is not an IPv6 address.") from None
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        raise ReferenceError(f"Port {port} of {text[:80]!r} is not between 1 and 65535.")
    return name, port


def api_host(registry: str) -> str:
    """`host[:port]` that answers for this registry: itself, except Docker Hub."""
    return _DOCKER_HUB_API if registry in _DOCKER_HUB else registry


def checked_name(repository: str) -> str:
    """A repository's name, safe to stand in a URL. ValueError otherwise."""
    if len(repository) > 255 or not REPOSITORY.fullmatch(repository):
        raise ValueError(f"{repository[:80]!r} is not a repository name.")
    return repository


@lru_cache(maxsize=4096)
def host_of(text: str) -> str:
    """`host[:port]` in lower case, of a reference or a web address; a directory as it stands. Nothing is checked."""
    return text.partition("://")[2 if "://" in text else 0].partition("/")[0].lower() or text


@dataclass(frozen=True)
class Reference:
    """What to ask a registry for. A digest wins over a tag; one of them is there."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str, default_tag: str | None = None) -> "Reference":
        """The reference, or ReferenceError. Without a tag or digest, `default_tag` is taken; without that, refused."""
        text = text.strip()
        if not text or len(text) > 600 or not text.isascii() or not text.isprintable() or " " in text:
            raise ReferenceError(f"{text[:80]!r} is not a reference; expected host/path:tag in plain characters.")
        if "@" in text.partition("://")[2 if "://" in text else 0].partition("/")[0]:
            # Not repeated: what is refused stands on pages and in the logs of scripts.
            raise ReferenceError("A reference holds no user name or password; those have fields of their own.")
        if "://" in text:
            raise ReferenceError(f"{text[:80]!r} starts with a scheme; leave out everything up to ://.")
        rest, _, digest = text.partition("@")
        if "@" in text:
            try:
                digest = parse_digest(digest)
            except DigestError as error:
                raise ReferenceError(f"In {text[:80]!r}: {error}") from None
        host, slash, path = rest.partition("/")
        if not slash or not ("." in host or ":" in host or host == "localhost"):
            raise ReferenceError(
                f"{text[:80]!r} names no registry; write its host first, such as docker.io/{text[:60]}."
            )
        name, port = parse_host(host)
        registry = name if port is None else f"{name}:{port}"
        repository, colon, tag = path.partition(":")
        if colon and not TAG.fullmatch(tag):
            raise ReferenceError(f"{tag[:80]!r} is not a tag; expected up to 128 letters, digits, '.', '_' or '-'.")
        if len(repository) > 255 or not REPOSITORY.fullmatch(repository):
            raise ReferenceError(
                f"{repository[:80]!r} is not a repository name; expected lower-case parts joined by '/'."
            )
        if registry in _DOCKER_HUB:
            registry = "docker.io"
            repository = repository if "/" in repository else f"library/{repository}"
        if not tag and not digest:
            tag = default_tag or ""
            if not tag:
                raise ReferenceError(f"{text[:80]!r} has no tag; add one, such as :latest, or a digest with @sha256:….")
        return cls(registry, repository, tag or None, digest or None)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.registry}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def target(self) -> str:
        """What stands in the manifest's URL: the digest, else the tag."""
        return self.digest or self.tag or ""

    def at(self, digest: str) -> "Reference":
        """The same repository at this digest."""
        return replace(self, tag=None, digest=parse_digest(digest))
