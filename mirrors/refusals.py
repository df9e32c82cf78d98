"""Readers that were refused, written down so that an administrator sees which scanner lacks its token.

Bounded, for the record only grows and a scanner asks again and again: one line an hour for the same reader, and a few
lines an hour in all.
"""

import logging
import threading
from datetime import datetime, timedelta

from django.db import DatabaseError, transaction

from mirrors import record
from mirrors.models import AccessToken, AuditEntry, User
from mirrors.reading import Refused, Why

logger = logging.getLogger(__name__)

ACTION = "reader refused"
QUIET = timedelta(hours=1)
MOST_IN_AN_HOUR = 30
SHOWN = 10


class _Lately:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.written: dict[tuple[str, str, str], datetime] = {}


_lately = _Lately()


def forget() -> None:
    """Between tests."""
    global _lately
    _lately = _Lately()


def note(refused: Refused, *, what: str, agent: str, address: str, now: datetime) -> bool:
    """Write a line unless this reader has one of the last hour or there are too many; whether it was written.

    `what` was asked for, `agent` is what the client calls itself.
    """
    lately, key = _lately, (address, refused.name[:80], str(refused.why))
    with lately.lock:
        lately.written = {one: at for one, at in lately.written.items() if now - at < QUIET}
        if key in lately.written or len(lately.written) >= MOST_IN_AN_HOUR:
            return False
        lately.written[key] = now
        is_last = len(lately.written) == MOST_IN_AN_HOUR
    detail = f"{refused.why}, for {_printable(what, 120)}"
    if agent:
        detail += f", by {_printable(agent, 80)}"
    if is_last:
        detail += "; further ones of this hour are not written down"
    try:
        with transaction.atomic():
            record.write(_name(refused), ACTION, "", detail, address, at=now)
    except DatabaseError as error:
        # Whoever was refused is told so all the same.
        logger.warning("A refused reader at %s could not be written down: %s", address, error)
        return False
    return True


def lately(now: datetime) -> list[AuditEntry]:
    """The lines of the last day, newest first."""
    return list(AuditEntry.objects.filter(action=ACTION, at__gte=now - timedelta(days=1)).order_by("-pk")[:SHOWN])


def _name(refused: Refused) -> str:
    """Names of nobody are left out: people type their password there."""
    name = refused.name
    if refused.why is Why.NOBODY or not name:
        return "somebody"
    is_known = User.objects.filter(username=name).exists() or AccessToken.objects.filter(name=name).exists()
    return name if is_known or name == "an access token" else "(no such user)"


def _printable(text: str, most: int) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:most])
