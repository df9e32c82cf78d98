"""Adding, changing and removing destinations. Every change is one transaction, and a line in the record.

A change of the address forgets what was pushed, for it is not there; a change of the way there stops the push under way
and lets what failed be tried again at once. Which mirrors go there is said by rules (push_rules.py).
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from mirrors import content, logins, record, wording
from mirrors import mirror_rules as rules
from mirrors.logins import Login
from mirrors.mirroring import KEEP, Keep
from mirrors.models import Destination, PushRule
from mirrors.pushing.asking import forget_failures, forget_success, stop_open_pushes
from mirrors.registry.references import REPOSITORY, ReferenceError, parse_host
from mirrors.rules import RuleBroken

DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


class DestinationError(Exception):
    """The change cannot be made to what is there now; the sentence says why, and what would help."""


class UnknownDestination(DestinationError):
    def __init__(self, name: str) -> None:
        super().__init__(f"There is no destination called {name[:80]!r}. `destination list` shows those there are.")


class DestinationChanged(DestinationError):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"Somebody else changed {name} while this form was open. Look at what it says now, and save again."
        )


@dataclass(frozen=True)
class Wish:
    """Settings of a destination as they are asked for; KEEP leaves one as it is.

    `address` is host[:port][/path], the path being what every repository there begins with.
    """

    address: str | Keep = KEEP
    label: str | Keep = KEEP
    insecure: bool | Keep = KEEP
    ca_pem: str | Keep = KEEP
    proxy: str | Keep = KEEP
    login: Login | Keep = KEEP


@dataclass(frozen=True)
class Changed:
    """What an edit did: the changed settings in words, and how many pushes it stopped."""

    destination: Destination
    changes: tuple[str, ...]
    stopped: int = 0


def find(name: str) -> Destination:
    """The destination of this name. Raises UnknownDestination."""
    destination = Destination.objects.filter(name=name).first()
    if destination is None:
        raise UnknownDestination(name)
    return destination


def fingerprint(destination: Destination) -> str:
    """Changes with every setting a form shows, so that an edit can say which state it began from."""
    shown = [
        destination.label, destination.registry, destination.prefix, destination.insecure, destination.ca_pem,
        destination.proxy, *logins.shown(logins.of_row(destination)),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:20]


# Rules


def checked_name(text: str) -> str:
    name = text.strip()
    if not rules.NAME.fullmatch(name) or len(name) > 80 or name in rules.RESERVED_NAMES:
        raise RuleBroken(
            "name",
            f"{name[:80]!r} cannot be a destination's name. Use up to 80 lower-case letters and digits, joined by "
            "single '-' or '_', such as harbor-plant-2.",
        )
    return name


def checked_address(text: str) -> tuple[str, str]:
    """Registry and prefix of `host[:port][/path]`."""
    address = text.strip().rstrip("/")
    if "://" in address:
        raise RuleBroken("address", "Write the address without https://, such as harbor.example/security.")
    if "@" in address:
        raise RuleBroken("address", "Write the address without a user; the login has fields of its own.")
    host, _, prefix = address.partition("/")
    try:
        name, port = parse_host(host)
    except ReferenceError as error:
        raise RuleBroken("address", str(error)) from None
    registry = name if port is None else f"{name}:{port}"
    if registry in DOCKER_HUB:
        registry = "docker.io"
    if prefix and (len(prefix) > 200 or not REPOSITORY.fullmatch(prefix)):
        raise RuleBroken(
            "address",
            f"{prefix[:80]!r} cannot be the beginning of a repository. Use lower-case letters and digits, joined by "
            "single '.', '_' or '-', in parts between slashes; the tag belongs to each mirror's rule.",
        )
    return registry, prefix


def _checked(wish: Wish, destination: Destination) -> dict[str, Any]:
    """The columns to write, each by its rule; the login apart."""
    values: dict[str, Any] = {}
    if not isinstance(wish.address, Keep):
        values["registry"], values["prefix"] = checked_address(wish.address)
    if not isinstance(wish.label, Keep):
        values["label"] = rules.checked_label(wish.label, destination.name)
    if not isinstance(wish.insecure, Keep):
        values["insecure"] = wish.insecure
    if not isinstance(wish.ca_pem, Keep):
        values["ca_pem"] = rules.checked_ca(wish.ca_pem)
    if not isinstance(wish.proxy, Keep):
        values["proxy"] = rules.checked_proxy(wish.proxy)
    return values


# Changing


def add_destination(name: str, wish: Wish, *, by: str, now: datetime, address: str = "") -> Destination:
    """A new destination without rules. Raises RuleBroken, DestinationError if the name is taken, SecretError."""
    name = checked_name(name)
    if isinstance(wish.address, Keep):
        raise RuleBroken("address", "Say where it is: host[:port], with a path where the registry wants one.")
    destination = Destination(name=name, label=name, created_at=now)
    for column, value in _checked(wish, destination).items():
        setattr(destination, column, value)
    if not isinstance(wish.login, Keep):
        logins.put(destination, logins.checked(wish.login, destination.registry), content.vault())
    try:
        with transaction.atomic():
            destination.save(force_insert=True)
            record.write(by, "destination added", name, destination.address, address, at=now)
    except IntegrityError:
        raise DestinationError(f"There is already a destination called {name}. Choose another name.") from None
    return destination


def edit_destination(
    name: str, wish: Wish, *, by: str, now: datetime, address: str = "", seen: str | None = None
) -> Changed:
    """Change what `wish` names. `seen` is the fingerprint the editor started from.

    Raises RuleBroken, UnknownDestination, DestinationChanged or SecretError.
    """
    with transaction.atomic():
        destination = _locked(name)
        if seen is not None and seen != fingerprint(destination):
            raise DestinationChanged(name)
        values = _checked(wish, destination)
        moved = values.get("registry", destination.registry) != destination.registry
        login_changes = _change_login(destination, wish, values.get("registry", destination.registry), moved=moved)
        changes = _told(destination, values) + login_changes
        changed = {column for column, value in values.items() if getattr(destination, column) != value}
        for column in changed:
            setattr(destination, column, values[column])
        stopped = 0
        if login_changes or changed - {"label"}:
            own = PushRule.objects.filter(destination=destination)
            reason = f"Stopped because {by or 'somebody'} changed this destination."
            stopped = stop_open_pushes(own, by=by, now=now, reason=reason)
            (forget_success if changed & {"registry", "prefix"} else forget_failures)(own)
            destination.memory, destination.error = {}, ""
        if changes:
            destination.save()
            record.write(by, "destination changed", name, "; ".join(changes), address, at=now)
    return Changed(destination, tuple(changes), stopped)


def _change_login(destination: Destination, wish: Wish, registry: str, *, moved: bool) -> list[str]:
    """Put the wished login into the row; what changed, in words. A login never follows to another host by itself."""
    before = logins.of_row(destination)
    if isinstance(wish.login, Keep) or (wish.login.sealed and wish.login == before):
        if moved and before.is_set:
            raise RuleBroken(
                "login",
                f"The login kept here is for {destination.registry}. Give the one for {registry}, or choose no login.",
            )
        return []
    if moved and wish.login.sealed:
        raise RuleBroken(
            "login", f"Give the secret for {registry} as well; what is kept is for {destination.registry}."
        )
    after = logins.checked(wish.login, registry)
    changes = logins.changes(before, after)
    if changes:
        logins.put(destination, after, content.vault())
    return changes


def _told(destination: Destination, values: dict[str, Any]) -> list[str]:
    """What changes, in words without secrets."""
    before = destination.address
    after = "/".join(
        filter(None, (values.get("registry", destination.registry), values.get("prefix", destination.prefix)))
    )
    changes = []
    if after != before:
        changes.append(f"address: {before} → {after}")
    for column, noun in (("label", "label"), ("proxy", "proxy")):
        if column in values and values[column] != getattr(destination, column):
            changes.append(f"{noun}: {getattr(destination, column) or 'none'} → {values[column] or 'none'}")
    if values.get("insecure", destination.insecure) != destination.insecure:
        changes.append(f"unverified connections {'allowed' if values['insecure'] else 'refused'}")
    if values.get("ca_pem", destination.ca_pem) != destination.ca_pem:
        changes.append("CA changed" if values["ca_pem"] else "CA removed")
    return changes


def set_enabled(name: str, enabled: bool, *, by: str, now: datetime, address: str = "") -> bool:
    """Switch a destination on or off; whether that changed anything. Off: nothing is pushed there."""
    with transaction.atomic():
        destination = _locked(name)
        if destination.enabled == enabled:
            return False
        own = PushRule.objects.filter(destination=destination)
        if not enabled:
            stop_open_pushes(
                own, by=by, now=now, reason=f"Stopped because {by or 'somebody'} disabled this destination."
            )
        forget_failures(own)
        Destination.objects.filter(pk=destination.pk).update(enabled=enabled)
        action = "destination enabled" if enabled else "destination disabled"
        record.write(by, action, name, "", address, at=now)
    return True


# Removing


@dataclass(frozen=True)
class Removal:
    """What goes with a destination."""

    rules: int
    runs: int


def what_removal_means(destination: Destination) -> Removal:
    return Removal(destination.rules.count(), destination.runs.count())


def remove_destination(name: str, *, by: str, now: datetime, address: str = "") -> Removal:
    """Remove a destination with its rules and its history. What was pushed there stays there."""
    with transaction.atomic():
        destination = _locked(name)
        removal = what_removal_means(destination)
        own = PushRule.objects.filter(destination=destination)
        stop_open_pushes(own, by=by, now=now, reason=f"Stopped because {by or 'somebody'} removed this destination.")
        detail = f"{destination.address}; {wording.counted(removal.rules, 'mirror')} went there"
        record.write(by, "destination removed", name, detail, address, at=now)
        own.update(last_run=None)
        destination.delete()
    return removal


def _locked(name: str) -> Destination:
    destination = Destination.objects.select_for_update(no_key=True).filter(name=name).first()
    if destination is None:
        raise UnknownDestination(name)
    return destination
