"""People and their passwords: who may come in, and as what. Every change is a line in the record.

There is always an administrator who can log in; nobody changes what they are themselves.
"""

import logging
import secrets
from datetime import datetime
from pathlib import Path

from axes.utils import reset as forget_failed_logins
from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from mirrors import record
from mirrors.models import Role, User

logger = logging.getLogger(__name__)

FIRST_ADMINISTRATOR = "admin"
# Read aloud and typed from paper: no 0 and O, no 1, l and I.
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


class PeopleError(Exception):
    """The change cannot be made; `setting` is the field it is about ("" for none), `str()` a sentence."""

    def __init__(self, setting: str, sentence: str) -> None:
        super().__init__(sentence)
        self.setting = setting


def random_password() -> str:
    """Four groups of five, 100 bits."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(4))


def create_person(
    username: str, role: str, *, password: str = "", by: str, now: datetime, address: str = ""
) -> tuple[User, str]:
    """A new person and the password they log in with: the given one, or a random one to be changed at first login."""
    username = username.strip()
    _check_role(role)
    person = User(username=username, role=role, must_change_password=not password)
    try:
        person.clean_fields(exclude=["password"])
    except ValidationError as error:
        raise PeopleError("username", " ".join(error.messages)) from None
    if password:
        _check_password(password, person)
    chosen = password or random_password()
    person.set_password(chosen)
    try:
        with transaction.atomic():
            if User.objects.filter(username__iexact=username).exists():
                raise IntegrityError
            person.save(force_insert=True)
            record.write(by, "person added", username, f"as {role}", address, at=now)
    except IntegrityError:
        raise PeopleError("username", f"There is already somebody called {username}.") from None
    return person, chosen


def change_role(person: User, role: str, *, by: User, now: datetime, address: str = "") -> bool:
    """Give somebody else another role; whether it changed. The last administrator keeps theirs."""
    _check_role(role)
    with transaction.atomic():
        person = _locked(person)
        if person.role == role:
            return False
        _refuse_oneself(person, by, "your own role")
        _keep_an_administrator(person, "become something else")
        before, person.role = person.role, role
        person.save(update_fields=["role"])
        record.write(by.username, "role changed", person.username, f"{before} → {role}", address, at=now)
    return True


def set_active(person: User, active: bool, *, by: User, now: datetime, address: str = "") -> bool:
    """Let somebody in, or keep them out from their next click on; whether that changed."""
    with transaction.atomic():
        person = _locked(person)
        if person.is_active == active:
            return False
        _refuse_oneself(person, by, "whether you may log in")
        if not active:
            _keep_an_administrator(person, "be deactivated")
        person.is_active = active
        person.save(update_fields=["is_active"])
        action = "person activated" if active else "person deactivated"
        record.write(by.username, action, person.username, "", address, at=now)
    return True


def delete_person(person: User, *, by: User, now: datetime, address: str = "") -> None:
    """Remove somebody's account. What they did stays in the record under their name."""
    with transaction.atomic():
        person = _locked(person)
        _refuse_oneself(person, by, "your own account")
        _keep_an_administrator(person, "be removed")
        username = person.username
        person.delete()
        record.write(by.username, "person removed", username, f"was {person.role}", address, at=now)
    _forget_first_password(username)


def reset_password(
    username: str, *, password: str = "", by: str, now: datetime, address: str = "", administrator: bool = False
) -> str:
    """Give somebody a new password and forget their failed logins; the password.

    A random one is to be changed at the next login. With `administrator` the person also becomes an active
    administrator, for whoever has the machine has everything anyway. Raises PeopleError.
    """
    with transaction.atomic():
        person = User.objects.select_for_update().filter(username=username).first()
        if person is None:
            known = ", ".join(User.objects.order_by("username").values_list("username", flat=True)[:20])
            raise PeopleError(
                "username", f"There is nobody called {username[:150]!r}. There are: {known or 'no people'}."
            )
        if password:
            _check_password(password, person)
        chosen = password or random_password()
        person.set_password(chosen)
        person.must_change_password = not password
        detail = "password"
        if administrator:
            person.role, person.is_active = Role.ADMINISTRATOR, True
            detail = "password; active administrator"
        person.save(update_fields=["password", "must_change_password", "role", "is_active"])
        record.write(by, "password reset", person.username, detail, address, at=now)
    forget_failed_logins(username=person.username)
    _forget_first_password(person.username)
    return chosen


def change_own_password(person: User, password: str, *, now: datetime, address: str = "") -> None:
    """Set the password somebody chose for themselves. Raises PeopleError if it is too weak or the same."""
    if person.check_password(password):
        raise PeopleError("new_password1", "This is the password you have now. Choose another one.")
    _check_password(password, person, "new_password1")
    with transaction.atomic():
        person.set_password(password)
        person.must_change_password = False
        person.save(update_fields=["password", "must_change_password"])
        record.write(person.username, "password changed", person.username, "", address, at=now)
    _forget_first_password(person.username)


def record_failed_login(username: str, *, locked_out: bool, now: datetime, detail: str = "", address: str = "") -> None:
    """Write down that somebody did not get in. Names of nobody are left out: people type their password there."""
    name = username if User.objects.filter(username=username).exists() else "(no such user)"
    record.write(name, "login locked" if locked_out else "login failed", name, detail, address, at=now)


def first_password_file() -> Path:
    """Where the first administrator's random password stands until it is changed."""
    return Path(settings.AIRGAP_DATA_DIR) / "admin-password"


def _forget_first_password(username: str) -> None:
    if username == FIRST_ADMINISTRATOR:
        try:
            first_password_file().unlink(missing_ok=True)
        except OSError as error:
            logger.warning(
                "%s cannot be removed (%s); the password in it is no longer valid.", error.filename, error.strerror
            )


def _check_role(role: str) -> None:
    if role not in Role.values:
        raise PeopleError("role", f"{role[:40]!r} is no role. There are: {', '.join(Role.values)}.")


def _check_password(password: str, person: User, setting: str = "password") -> None:
    try:
        validate_password(password, person)
    except ValidationError as error:
        raise PeopleError(setting, " ".join(error.messages)) from None


def _locked(person: User) -> User:
    """The row, and those of all administrators: of two who remove each other at once, one must see the other go."""
    wanted = User.objects.select_for_update().filter(role=Role.ADMINISTRATOR, is_active=True)
    list(wanted.order_by("pk").values_list("pk", flat=True))
    found = User.objects.select_for_update().filter(pk=person.pk).first()
    if found is None:
        raise PeopleError("", f"{person.username} is no longer there.")
    return found


def _refuse_oneself(person: User, by: User, what: str) -> None:
    if person.pk == by.pk:
        raise PeopleError("", f"You cannot change {what}. Ask another administrator.")


def _keep_an_administrator(person: User, what: str) -> None:
    if not person.may_administer:
        return
    others = User.objects.filter(role=Role.ADMINISTRATOR, is_active=True).exclude(pk=person.pk)
    if not others.exists():
        raise PeopleError("", f"{person.username} is the last administrator and cannot {what}. Make another one first.")
