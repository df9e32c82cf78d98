"""Who may read is settled here: anybody, or whoever logs in; and the tokens that scanners log in with.

Every change is a line in the record. What a request proves is mirrors/reading.py's business.
"""

import re
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction

from mirrors import reading, record, wording
from mirrors.models import AccessToken, Consumer, Serving, User

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}")
# Letters and digits only, so that no shell, YAML file or URL needs to quote one: 43 of them are 256 bits.
_LETTERS = string.ascii_letters + string.digits
_LENGTH = 43
LONGEST_LIFE = timedelta(days=3650)
REVOKED_SHOWN = 50
# A scanner that runs at all asks at least so often.
LATELY = timedelta(days=7)
STRANGERS_SHOWN = 10


class AccessError(Exception):
    """The change cannot be made; `setting` is the field it is about ("" for none), `str()` a sentence."""

    def __init__(self, setting: str, sentence: str) -> None:
        super().__init__(sentence)
        self.setting = setting


class UnknownToken(AccessError):
    """There is no standing token of this name."""


class NameTaken(AccessError):
    """There is a standing token of this name."""


def add_token(
    name: str, *, life: timedelta | None = None, by: str, now: datetime, address: str = ""
) -> tuple[AccessToken, str]:
    """A new token and its secret, which is told here and never again. Without `life` it does not expire."""
    name = name.strip()
    if not NAME.fullmatch(name):
        raise AccessError(
            "name", "A name is lower-case letters, digits, - and _, at most 80 of them, and begins with no sign."
        )
    if life is not None and not timedelta(0) < life <= LONGEST_LIFE:
        raise AccessError("expires", f"A token lasts from one day to {LONGEST_LIFE.days} days, or does not expire.")
    secret = reading.PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
    token = AccessToken(
        name=name,
        digest=reading.digest_of(secret),
        created_at=now,
        created_by=by[:150],
        expires_at=now + life if life else None,
    )
    until = f"until {wording.utc_text(token.expires_at)}" if token.expires_at else "does not expire"
    try:
        with transaction.atomic():
            token.save(force_insert=True)
            record.write(by, "access token added", name, until, address, at=now)
    except IntegrityError:
        raise NameTaken(
            "name", f"There is already a token called {name}. Revoke it first, or choose another name."
        ) from None
    return token, secret


def revoke_token(name: str, *, by: str, now: datetime, address: str = "") -> AccessToken:
    """The standing token of this name reads no more, within seconds everywhere. Raises UnknownToken."""
    with transaction.atomic():
        token = AccessToken.objects.standing().select_for_update().filter(name=name).first()
        if token is None:
            known = ", ".join(AccessToken.objects.standing().values_list("name", flat=True)[:20])
            raise UnknownToken("name", f"There is no token called {name[:80]!r}. There are: {known or 'no tokens'}.")
        token.revoked_at = now
        token.save(update_fields=["revoked_at"])
        record.write(by, "access token revoked", token.name, "", address, at=now)
        transaction.on_commit(reading.forget)
    return token


def require_login(required: bool, *, by: str, now: datetime, address: str = "") -> bool:
    """Let anybody read, or only whoever logs in; whether that changed. It holds within seconds everywhere."""
    with transaction.atomic():
        # The row must be there to be locked.
        serving = Serving.locked()
        if serving.login_required == required:
            return False
        serving.login_required = required
        serving.save(update_fields=["login_required"])
        what = "a login is required" if required else "anybody may read"
        record.write(by, "reading changed", "", what, address, at=now)
        transaction.on_commit(reading.forget)
    return True


@dataclass(frozen=True)
class Readiness:
    """How far those who read are prepared for a login.

    Usable tokens, of which some were seen lately and some not (named); people who may sign in; and, where consumers are
    counted, those who lately asked without a login: how many, and the latest.
    """

    usable: int
    seen: int
    unseen: tuple[str, ...]
    people: int
    is_counted: bool
    strangers: int = 0
    latest_strangers: tuple[Consumer, ...] = ()


def readiness(tokens: Sequence[AccessToken], now: datetime) -> Readiness:
    """What is known of the tokens that stand and of who reads without one."""
    usable = [token for token in tokens if token.is_usable(now)]
    unseen = tuple(token.name for token in usable if token.last_used_at is None or token.last_used_at < now - LATELY)
    strangers = Consumer.objects.filter(reader_kind="anonymous", last_seen_at__gte=now - LATELY)
    is_counted = Serving.now().count_consumers
    return Readiness(
        usable=len(usable),
        seen=len(usable) - len(unseen),
        unseen=unseen,
        people=User.objects.filter(is_active=True, must_change_password=False).count(),
        is_counted=is_counted,
        strangers=strangers.count() if is_counted else 0,
        latest_strangers=tuple(strangers[:STRANGERS_SHOWN]) if is_counted else (),
    )


def standing_tokens() -> Sequence[AccessToken]:
    """Those not revoked, with the uses this process knows of."""
    reading.write_uses()
    return list(AccessToken.objects.standing())


def revoked_tokens() -> Sequence[AccessToken]:
    """The latest ones."""
    return list(AccessToken.objects.exclude(revoked_at=None).order_by("-revoked_at")[:REVOKED_SHOWN])
