"""Logins at other hosts, of sources and destinations alike: checked when they are given, sealed when they are kept.

A secret is given in plain once and kept encrypted; what is kept is opened only to be sent. Of a docker config file
nothing but the login for the very registry is kept.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mirrors.models.login import LoginKind, WithLogin
from mirrors.registry.docker_config import Credentials, DockerConfigError, NotNamed, credentials_for
from mirrors.registry.transport import Connection
from mirrors.rules import RuleBroken
from mirrors.secrets import Vault

LONGEST_PASSWORD = 4096
LONGEST_TOKEN = 8192
LARGEST_CONFIG = 256 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]+")

# Every column that holds a sealed secret: a rotation of the key goes through all of them.
SEALED: tuple[tuple[str, str], ...] = (("Source", "secret_sealed"), ("Destination", "secret_sealed"))


class NotInConfig(RuleBroken):
    """A docker config file that holds logins, but none for the registry in question."""


@dataclass(frozen=True)
class Login:
    """A login as it was asked for. `secret` is plain text, `sealed` one that is stored already."""

    kind: str = LoginKind.NONE
    username: str = ""
    secret: str = field(default="", repr=False)
    sealed: str = field(default="", repr=False)

    @property
    def is_set(self) -> bool:
        return self.kind != LoginKind.NONE


NO_LOGIN = Login()


def basic(username: str, password: str) -> Login:
    return Login(LoginKind.BASIC, username, password)


def of_row(row: WithLogin) -> Login:
    """The login a row has, ready to be kept as it is."""
    return Login(row.login, row.username, sealed=row.secret_sealed)


def put(row: WithLogin, login: Login, vault: Vault) -> None:
    """Write a checked login into a row, which the caller saves. Raises SecretError."""
    row.login, row.username = login.kind, login.username
    row.secret_sealed = vault.encrypt(login.secret) if login.secret else login.sealed


def onto(connection: Connection, row: WithLogin, registry: str, vault: Vault) -> Connection:
    """The connection with the row's login for `registry` (host[:port]). Raises SecretError.

    A docker config that does not name this registry gives none: it was kept for another.
    """
    if row.login == LoginKind.NONE:
        return connection
    secret = vault.decrypt(row.secret_sealed)
    if row.login == LoginKind.TOKEN:
        return replace(connection, token=secret)
    if row.login == LoginKind.BASIC:
        return replace(connection, username=row.username, password=secret)
    try:
        found = credentials_for(secret, registry)
    except DockerConfigError:
        return connection
    return replace(
        connection,
        username=found.username,
        password=found.password,
        identity_token=found.identity_token,
        token=found.registry_token,
    )


# Checking


def checked_each(wanted: Sequence[tuple[Login, str, str]]) -> list[Login]:
    """`checked` for each of (login, registry, place). One docker config file may serve several and name some of them:
    those that it does not name are asked without a login, as docker would."""
    found: list[Login] = []
    unnamed: list[NotInConfig] = []
    for login, registry, place in wanted:
        try:
            found.append(checked(login, registry, place))
        except NotInConfig as refusal:
            unnamed.append(refusal)
            found.append(NO_LOGIN)
    if unnamed and not any(login.kind == LoginKind.DOCKER for login in found):
        raise unnamed[0]
    return found


def checked(login: Login, registry: str, place: str = "") -> Login:
    """The login as it is kept, for `registry` (host[:port]); `place` is what it is for, as a person reads it.

    Raises RuleBroken (`username`, `password`, `token` or `docker_config`). What is sealed already was checked before.
    """
    place = place or registry
    if login.kind not in LoginKind.values:
        raise RuleBroken("login", f"{str(login.kind)[:20]!r} is no kind of login.")
    if login.kind == LoginKind.NONE:
        return NO_LOGIN
    if login.kind == LoginKind.BASIC:
        return _checked_basic(login, place)
    if not login.secret:
        if not login.sealed:
            where = "token" if login.kind == LoginKind.TOKEN else "docker_config"
            raise RuleBroken(where, f"Give the {_NOUNS[login.kind]} for {place} as well.")
        return replace(login, username="")
    if login.kind == LoginKind.TOKEN:
        return Login(LoginKind.TOKEN, secret=_checked_token(login.secret, place))
    return Login(LoginKind.DOCKER, secret=_checked_config(login.secret, registry))


_NOUNS: dict[str, str] = {LoginKind.BASIC: "password", LoginKind.TOKEN: "token", LoginKind.DOCKER: "docker config file"}


def _checked_basic(login: Login, place: str) -> Login:
    for text, what, limit in ((login.username, "user name", 200), (login.secret, "password", LONGEST_PASSWORD)):
        if len(text) > limit or any(ord(char) < 32 or ord(char) == 127 for char in text):
            raise RuleBroken("username", f"The {what} for {place} is too long or has control characters in it.")
    if ":" in login.username:
        raise RuleBroken("username", "A user name cannot have a colon in it (RFC 7617).")
    if not login.username:
        raise RuleBroken("username", f"Give the user name that the password for {place} belongs to.")
    if not (login.secret or login.sealed):
        raise RuleBroken("password", f"Give the password of {login.username} for {place} as well.")
    return login


def _checked_token(text: str, place: str) -> str:
    """A token as it is sent after `Bearer `; people paste the whole header, too."""
    token = re.sub(r"(?i)\A\s*(?:authorization:\s*)?bearer\s+", "", text).strip()
    if len(token) > LONGEST_TOKEN or not _TOKEN.fullmatch(token):
        raise RuleBroken(
            "token",
            f"The token for {place} is no token: it is one word of up to {LONGEST_TOKEN} printable characters, "
            "sent as it is after Bearer.",
        )
    return token


def _checked_config(text: str, registry: str) -> str:
    """A docker config file cut down to the login for this registry."""
    if len(text) > LARGEST_CONFIG:
        raise RuleBroken(
            "docker_config", "The docker config file is larger than 256 KiB. Give what `docker login` made."
        )
    try:
        found = credentials_for(text, registry)
    except NotNamed as error:
        raise NotInConfig("docker_config", str(error)) from None
    except DockerConfigError as error:
        raise RuleBroken("docker_config", str(error)) from None
    return _reduced(found, registry)


def _reduced(found: Credentials, registry: str) -> str:
    entry: dict[str, Any] = {
        "username": found.username,
        "password": found.password,
        "identitytoken": found.identity_token,
        "registrytoken": found.registry_token,
    }
    return json.dumps({"auths": {registry: {key: value for key, value in entry.items() if value}}})


# Telling


def changes(before: Login, after: Login) -> list[str]:
    """What an edit changes, in words for the record, without secrets."""
    if not after.is_set:
        return ["login removed"] if before.is_set else []
    words = []
    same_kind = before.kind == after.kind
    if after.kind == LoginKind.BASIC and (not same_kind or before.username != after.username):
        words.append(f"user name {after.username}")
    if after.secret or after.sealed != before.sealed or not same_kind:
        words.append(f"{_NOUNS[after.kind]} {'changed' if same_kind or _is_basic(after) else 'set'}")
    return words


def _is_basic(login: Login) -> bool:
    return login.kind == LoginKind.BASIC


def shown(login: Login) -> Sequence[str]:
    """What of a login decides whether two editors saw the same; ciphertext, never a secret."""
    return [login.kind, login.username, login.sealed]
