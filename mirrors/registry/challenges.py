"""WWW-Authenticate: reading it, and deciding who may be shown a token request or a password.

A registry's answer names the token server ("realm"); a hostile or broken one could name any host. So the realm must be
https and no inner address, and a password goes to a realm only if it belongs to the same party (ggcr bearer.go).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mirrors.registry.exchange import is_inner

_HEADER_LIMIT = 8192
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(_WORD)

# Registries whose token server belongs to somebody else by design: a vanity name in front of another registry.
_KNOWN_PAIRS = frozenset({("lscr.io", "ghcr.io"), ("dhi.io", "auth.docker.io")})
# Names under which strangers live side by side.
_SHARED = frozenset(
    {
        "amazonaws.com", "azurecr.io", "azurewebsites.net", "cloudfront.net", "github.io", "googleapis.com",
        "herokuapp.com", "pkg.dev", "run.app", "web.app", "windows.net", "workers.dev",
    }
)  # fmt: skip


class ChallengeError(ValueError):
    """The registry asks for a login in a way that is not followed; the message says why."""


@dataclass(frozen=True)
class Challenge:
    """How a registry wants to be asked: `scheme` is bearer or basic."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""

    def remembered(self) -> dict[str, str]:
        """What is kept between runs (no secret in it)."""
        return {"scheme": self.scheme, "realm": self.realm, "service": self.service, "scope": self.scope}

    @classmethod
    def recall(cls, kept: object) -> "Challenge | None":
        """From what `remembered` made; None where that is missing or odd."""
        if not isinstance(kept, dict) or kept.get("scheme") not in ("bearer", "basic"):
            return None
        texts = {key: kept.get(key, "") for key in ("scheme", "realm", "service", "scope")}
        if not all(isinstance(text, str) for text in texts.values()):
            return None
        return cls(**texts)


def parse_challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    """(scheme, parameters) each, lower-case names, from one or several joined headers; junk is skipped."""
    text, position = header[:_HEADER_LIMIT], 0
    found: list[tuple[str, dict[str, str]]] = []
    while position < len(text):
        parameter = _PARAMETER.match(text, position)
        if parameter and found:
            name, quoted, bare = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare
            found[-1][1].setdefault(name.lower(), value)
            position = parameter.end()
            continue
        scheme = _SCHEME.match(text, position)
        if scheme:
            found.append((scheme[0].lower(), {}))
            position = scheme.end()
        else:
            position += 1
    return found


def choose(header: str) -> Challenge:
    """The challenge to follow: Bearer before Basic. ChallengeError where there is neither."""
    if not header.isprintable():
        # It is remembered; PostgreSQL takes no NUL, and nobody else has a use for control characters here.
        raise ChallengeError("it does so with control characters")
    challenges = parse_challenges(header)
    for scheme, parameters in challenges:
        if scheme == "bearer" and parameters.get("realm"):
            scope = parameters.get("scope", "")
            # "repository:NAME:pull" is made for each repository anew; public.ecr.aws says just "aws", which is kept.
            kept = "" if scope.startswith("repository:") else scope
            return Challenge("bearer", parameters["realm"], parameters.get("service", ""), kept)
    for scheme, parameters in challenges:
        if scheme == "basic":
            return Challenge("basic", parameters.get("realm", ""))
    if not challenges:
        raise ChallengeError("it does not say how to log in")
    if any(scheme == "bearer" for scheme, _ in challenges):
        raise ChallengeError("it names no token server")
    names = ", ".join(sorted({scheme for scheme, _ in challenges})[:3])
    raise ChallengeError(f"it wants a login by {names[:60]!r}, which is not supported")


def scope_of(challenge: Challenge, repository: str, actions: str = "pull") -> str:
    return challenge.scope or f"repository:{repository}:{actions}"


def check_realm(realm: str, registry_host: str, registry_scheme: str, *, insecure: bool) -> None:
    """ChallengeError unless a token may be asked for at this URL. `registry_host` is host[:port]."""
    try:
        parts = urlsplit(realm)
        host = (parts.hostname or "").lower()
        _ = parts.port
    except ValueError:
        raise ChallengeError("its token server has no usable address") from None
    if not host or "@" in parts.netloc or not realm.isprintable():
        raise ChallengeError("its token server has no usable address")
    own = _bare(registry_host)
    if parts.scheme != "https" and not (parts.scheme == "http" and insecure and registry_scheme == "http"):
        raise ChallengeError(f"its token server {host} is not reached by https")
    if is_inner(host) and host != own:
        raise ChallengeError(f"its token server {host} is an inner address and not the registry itself")


def may_have_password(realm: str, registry_host: str) -> bool:
    """Whether the token server belongs to the same party as the registry: same host, same parent, or a known pair."""
    host, own = (urlsplit(realm).hostname or "").lower(), _bare(registry_host)
    if host == own or (own, host) in _KNOWN_PAIRS:
        return True
    parent = parent_domain(own)
    return bool(parent) and parent == parent_domain(host)


def parent_domain(host: str) -> str:
    """The registrable domain, as well as can be told without the public suffix list; "" for addresses and bare names.

    Under two-letter countries a short second label is taken for a suffix (co.uk, com.au, ac.jp).
    """
    labels = host.rstrip(".").split(".")
    if len(labels) < 2 or labels[-1].isdigit() or ":" in host:
        return ""
    keep = 3 if len(labels[-1]) == 2 and len(labels[-2]) <= 3 and len(labels) >= 3 else 2
    parent = ".".join(labels[-keep:])
    return host if parent in _SHARED or any(parent.endswith("." + shared) for shared in _SHARED) else parent


def _bare(host: str) -> str:
    return (urlsplit(f"//{host}").hostname or "").lower()


def token_from(document: object) -> tuple[str, float]:
    """Token and seconds it lives, from a token server's answer (distribution token spec: 60 s unless stated)."""
    answer: Mapping[str, Any] = document if isinstance(document, dict) else {}
    token = answer.get("token") or answer.get("access_token")
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ChallengeError("its token server sent no usable token")
    lives = answer.get("expires_in")
    if isinstance(lives, bool) or not isinstance(lives, int | float) or not 0 < lives < 10**9:
        return token, 60.0
    return token, float(lives)
