"""The login for one registry from the text of a docker config file (`auths`), as `docker login` and others write it.

Credential helpers are programs of the person's own machine; they are named, not run. Podman's files may name a path
below a host (containers-auth.json(5)): such an entry counts where there is none for the host itself.
"""

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from mirrors.registry.errors import clean

LIMIT = 256 * 1024
# A user name that only says that the password is an identity token (docker/cli, native_store.go).
_TOKEN_USER = "<token>"  # noqa: S105  no secret, but the word for one
_DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


class DockerConfigError(ValueError):
    """The text gives no login for the registry; the message is a sentence that says why and never holds a secret."""


class NotNamed(DockerConfigError):
    """The file holds logins, but none for this registry."""


@dataclass(frozen=True)
class Credentials:
    """`username`/`password`, or an `identity_token` (given to the token server in place of a password), or a
    `registry_token` (sent as Bearer as it is)."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


def credentials_for(config_text: str, registry: str) -> Credentials:
    """The login that the file holds for `registry` (host[:port]). Raises DockerConfigError."""
    try:
        config = json.loads(config_text) if len(config_text) <= LIMIT else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise DockerConfigError("The docker config file is not JSON. Give the text of ~/.docker/config.json.")
    wanted = _host(registry)
    auths = config.get("auths")
    named: dict[str, Any] = {}
    for key, entry in sorted(auths.items(), key=lambda pair: _has_path(pair[0])) if isinstance(auths, dict) else []:
        named.setdefault(_host(key), entry)
    entry = named.get(wanted)
    found = _credentials(entry, wanted) if isinstance(entry, dict) and entry else None
    if found is not None:
        return found
    helper = _helper(config, wanted, is_named=entry is not None)
    if helper:
        raise DockerConfigError(
            f"The docker config file leaves the login for {wanted} to the credential helper {helper}, which is not "
            "run here. Log in once with a config file that has no credsStore, or give user name and password."
        )
    others = ", ".join(clean(host, 80) for host in list(named)[:5]) or "none"
    raise NotNamed(
        f"The docker config file holds no login for {wanted} (it has: {others}). "
        "Log in there with `docker login` first."
    )


def _credentials(entry: dict[str, Any], registry: str) -> Credentials | None:
    texts = {key: entry.get(key) or "" for key in ("auth", "username", "password", "identitytoken", "registrytoken")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise DockerConfigError(f"The docker config file's login for {registry} is not made of texts.")
    username, password = texts["username"], texts["password"]
    if texts["auth"]:
        username, password = _decoded(texts["auth"], registry)
    for text in (username, password, texts["identitytoken"], texts["registrytoken"]):
        if not text.isprintable():
            raise DockerConfigError(f"The docker config file's login for {registry} has control characters in it.")
    if texts["registrytoken"]:
        return Credentials(registry_token=texts["registrytoken"])
    if username == _TOKEN_USER and password and not texts["identitytoken"]:
        return Credentials(username, identity_token=password)
    if texts["identitytoken"]:
        return Credentials(username, identity_token=texts["identitytoken"])
    return Credentials(username, password) if username and password else None


def _decoded(auth: str, registry: str) -> tuple[str, str]:
    try:
        username, colon, password = (
            base64.b64decode(auth + "=" * (-len(auth) % 4), validate=True).decode().partition(":")
        )
    except (binascii.Error, UnicodeError, ValueError):
        colon = ""
    if not colon:
        raise DockerConfigError(f"The docker config file's login for {registry} cannot be read: auth is not base64.")
    return username, password.rstrip("\0")


def _helper(config: dict[str, Any], registry: str, *, is_named: bool) -> str:
    """The program that keeps the login: the registry's own, or the one for all where `docker login` left its mark."""
    helpers = config.get("credHelpers")
    own = {_host(key): name for key, name in helpers.items()} if isinstance(helpers, dict) else {}
    return clean(str(own.get(registry) or (is_named and config.get("credsStore")) or ""), 60)


def _has_path(key: str) -> bool:
    """Whether the entry is for a path below a host; `/v1/` and `/v2/` are none."""
    return key.partition("://")[2 if "://" in key else 0].partition("/")[2].strip("/") not in ("", "v1", "v2")


def _host(key: str) -> str:
    """`https://host/v1/`, `host:443` and `host` are the same registry; so are Docker Hub's names."""
    try:
        parts = urlsplit(key if "://" in key else f"//{key}")
        host = parts.netloc.rpartition("@")[2].lower()
    except ValueError:
        host = ""
    host = host.removesuffix(":443")
    return "docker.io" if host in _DOCKER_HUB else host
