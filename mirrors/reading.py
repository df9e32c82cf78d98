"""Who may read what scanners fetch, and who is reading: nobody in particular, an access token, or a person.

While anybody may read (the default), whatever a client sends is accepted and nothing is asked of the database; only
access tokens are looked up, so that their use is seen before a login becomes required. What is looked up is kept in
this process for a few seconds: so long does a change of the switch, a revoked token or a new password take to hold.
"""

import base64
import binascii
import copy
import hashlib
import hmac
import logging
import re
import secrets
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from time import monotonic
from typing import Any, Literal

from django.conf import settings
from django.contrib.auth import authenticate
from django.core import signing
from django.db import DatabaseError, transaction
from django.db.models import Q

from mirrors import wording
from mirrors.models import AccessToken, Serving, User

logger = logging.getLogger(__name__)

Kind = Literal["anonymous", "token", "user"]

# Recognised by people, by secret scanners, and by us: what does not begin so costs no look-up.
PREFIX = "airgap_"
LOOK_AGAIN_SECONDS = 3.0
# A password that was right, or wrong, need not be hashed again so soon: hashing it takes as long as serving a manifest
# a hundred times. One that is wrong again and again counts once: it is a scanner with an old password, no guess.
PASSWORD_KEPT_SECONDS = 300.0
WRONG_KEPT_SECONDS = 60.0
USE_WRITTEN_SECONDS = 60.0
TOKEN_LIFE = timedelta(minutes=10)
# What `docker login` keeps in place of a person's password. Machines use access tokens.
REFRESH_LIFE = timedelta(days=30)
LONGEST_HEADER = 8192
LONGEST_NAME = 150
MOST_KEPT = 2000
# Of the scopes that a token is for, so many letters are noted: it travels in a header with every request.
SCOPES_NOTED = 1500
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/=-]{1,4096}")
_BEARER, _REFRESH = "airgap.reading.bearer", "airgap.reading.refresh"


@dataclass(frozen=True)
class Reader:
    """Who a request is from. `name` is that of the token or the person, "" for nobody in particular."""

    kind: Kind
    name: str = ""


ANONYMOUS = Reader("anonymous")


class Why(StrEnum):
    """Why somebody may not read."""

    NOBODY = "no credentials"
    WRONG = "wrong credentials"
    FORBIDDEN = "not allowed"
    LOCKED = "locked"


class Refused(Exception):
    """No reading this time; `str()` is a sentence for whoever runs the scanner. `name` is who it claimed to be."""

    def __init__(self, why: Why, sentence: str, name: str = "") -> None:
        super().__init__(sentence)
        self.why, self.name = why, name


@dataclass(frozen=True)
class Subject:
    """Somebody who may read: the row behind the reader, and what changes with their password (people only)."""

    reader: Reader
    key: int = 0
    stamp: str = field(default="", repr=False)
    # The access token itself, where it was given: what its holder may be told to keep.
    secret: str = field(default="", repr=False)


NOBODY_IN_PARTICULAR = Subject(ANONYMOUS)


@dataclass(frozen=True)
class _Seen:
    """A row as it was, until when that may be believed (on the monotonic clock)."""

    until: float
    row: AccessToken | User | None


@dataclass(frozen=True)
class _Password:
    until: float
    key: int | None
    stamp: str


class _Memory:
    """What this process remembers, guarded by one lock that is held for no longer than a dictionary takes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.password_key = secrets.token_bytes(32)
        # As many passwords are hashed at once; the same one never twice.
        self.hashing = [threading.Lock() for _ in range(4)]
        self.serving: tuple[Serving | None, float] = (None, 0.0)
        self.rows: dict[tuple[str, str | int], _Seen] = {}
        self.passwords: dict[bytes, _Password] = {}
        self.uses: dict[int, datetime] = {}
        self.used_before: set[int] = set()
        self.written = monotonic()


_memory = _Memory()


def forget(*, uses: bool = False) -> None:
    """Look everything up again: for the process that changed something. Between tests, unwritten `uses` go, too."""
    with _memory.lock:
        _memory.serving = (None, 0.0)
        _memory.rows.clear()
        _memory.passwords.clear()
        if uses:
            _memory.uses.clear()
            _memory.used_before.clear()


def serving() -> Serving:
    """The settings of everything scanners fetch, as they were some seconds ago at the most. For reading alone."""
    row, until = _memory.serving
    if row is None or monotonic() >= until:
        row = Serving.now()
        _memory.serving = (row, monotonic() + LOOK_AGAIN_SECONDS)
    return row


def login_required() -> bool:
    """Whether readers must say who they are."""
    return serving().login_required


def reader_of(authorization: str, request: Any, now: datetime) -> Reader:
    """Who sent this Authorization header ("" for none). The request is for the throttle alone. Raises Refused."""
    if not login_required():
        return _if_known(authorization, now)
    return subject_of(authorization, request, now).reader


def subject_of(authorization: str, request: Any, now: datetime) -> Subject:
    """Who this header proves, whether or not a login is required. Raises Refused."""
    if not authorization:
        raise Refused(Why.NOBODY, "Reading needs a login here: an access token, or a user name and password.")
    scheme, value = _parted(authorization)
    if scheme == "bearer" and _TOKEN68.fullmatch(value):
        return by_secret(value, now) if value.startswith(PREFIX) else _by_signed(value, _BEARER, TOKEN_LIFE, now)
    if scheme == "basic" and (named := basic_credentials(authorization)):
        return by_password(*named, request, now)
    raise Refused(Why.WRONG, "The Authorization header cannot be read; send Basic with a name and password, or Bearer.")


def basic_credentials(authorization: str) -> tuple[str, str] | None:
    """Name and password of a Basic header (RFC 7617, UTF-8); None if it is none, or none that anybody can have."""
    scheme, value = _parted(authorization)
    if scheme != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return plausible(name, password) if colon else None


def plausible(name: str, password: str) -> tuple[str, str] | None:
    """Both, if they can be somebody's: failed logins are counted by name, in a column that takes no NUL."""
    return (name, password) if password and len(name) <= LONGEST_NAME and "\0" not in name + password else None


def _parted(authorization: str) -> tuple[str, str]:
    """The scheme in lower case and what follows; two empty texts for a header longer than any of ours."""
    scheme, _, value = authorization.partition(" ") if len(authorization) <= LONGEST_HEADER else ("", "", "")
    return scheme.lower(), value.strip()


def _if_known(authorization: str, now: datetime) -> Reader:
    """The access token that came along although none is needed; anything else is nobody in particular."""
    if not authorization:
        return ANONYMOUS
    scheme, value = _parted(authorization)
    named = basic_credentials(authorization) if scheme == "basic" else None
    return known_token(named[1] if named else value, now).reader


def known_token(secret: str, now: datetime) -> Subject:
    """The access token this is, if it is one; where anybody may read, nothing else matters."""
    if secret.startswith(PREFIX):
        try:
            return by_secret(secret, now)
        except (Refused, DatabaseError):
            pass
    return NOBODY_IN_PARTICULAR


# Access tokens


def digest_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def by_secret(secret: str, now: datetime) -> Subject:
    """The access token this is, its use noted. Raises Refused."""
    digest = digest_of(secret)
    row = _row("digest", digest)
    if not isinstance(row, AccessToken) or not hmac.compare_digest(row.digest, digest):
        raise Refused(Why.WRONG, "This access token is not known here.", "an access token")
    return _usable_token(row, now, secret)


def _usable_token(row: AccessToken, now: datetime, secret: str = "") -> Subject:
    if row.revoked_at is not None:
        raise Refused(Why.WRONG, f"The access token {row.name} was revoked.", row.name)
    if row.expires_at is not None and row.expires_at <= now:
        raise Refused(
            Why.WRONG, f"The access token {row.name} expired on {wording.utc_text(row.expires_at)}.", row.name
        )
    _note_use(row, now)
    return Subject(Reader("token", row.name), row.pk, secret=secret)


def _row(column: str, value: str | int) -> AccessToken | User | None:
    """The token or person of this `digest`, `token` or `user` key, looked up once in a few seconds."""
    key = (column, value)
    seen = _memory.rows.get(key)
    if seen is None or seen.until <= monotonic():
        row: AccessToken | User | None
        if column == "user":
            row = User.objects.filter(pk=value).first()
        else:
            row = AccessToken.objects.filter(**{"digest" if column == "digest" else "pk": value}).first()
        seen = _Seen(monotonic() + LOOK_AGAIN_SECONDS, row)
        with _memory.lock:
            if len(_memory.rows) >= MOST_KEPT:
                _memory.rows.clear()
            _memory.rows[key] = seen
    return seen.row


def _note_use(row: AccessToken, now: datetime) -> None:
    """Remember when; written for all tokens together, once a minute, and at once for one that was never used."""
    with _memory.lock:
        first = row.last_used_at is None and row.pk not in _memory.used_before
        _memory.used_before.add(row.pk)
        _memory.uses[row.pk] = now
        due = first or monotonic() - _memory.written >= USE_WRITTEN_SECONDS
    if due:
        write_uses()


def write_uses() -> None:
    """Write down when each token was last used. Reading goes on if that fails."""
    with _memory.lock:
        uses, _memory.uses, _memory.written = _memory.uses, {}, monotonic()
    if not uses:
        return
    try:
        with transaction.atomic():
            for key, at in sorted(uses.items()):
                before = Q(last_used_at=None) | Q(last_used_at__lt=at)
                AccessToken.objects.filter(before, pk=key).update(last_used_at=at)
    except DatabaseError as error:
        logger.warning("When %d access tokens were last used could not be written: %s", len(uses), error)


# People


def by_password(name: str, password: str, request: Any, now: datetime) -> Subject:
    """Whoever gives this name and password; an access token in place of the password needs no name of its own.

    Wrong passwords are counted with those of the login page. Raises Refused.
    """
    if password.startswith(PREFIX):
        return by_secret(password, now)
    key = hmac.digest(_memory.password_key, f"{name}\0{password}".encode(), "sha256")
    kept = _kept_password(key)
    if kept is None:
        with _memory.hashing[key[0] % len(_memory.hashing)]:
            kept = _kept_password(key) or _checked(key, name, password, request)
    if kept.key is None:
        raise Refused(Why.WRONG, "User name and password do not belong together.", name)
    return _usable_person(_row("user", kept.key), kept.stamp)


def _checked(key: bytes, name: str, password: str, request: Any) -> _Password:
    """What hashing the password says, kept for a while. Raises Refused when nobody may try any more."""
    # On a copy, or axes would put its own page for browsers in the place of our answer.
    asking = copy.copy(request)
    user = authenticate(asking, username=name, password=password) if name and password else None
    if user is None and getattr(asking, "axes_locked_out", False):
        minutes = round(float(settings.AXES_COOLOFF_TIME) * 60)
        raise Refused(
            Why.LOCKED,
            f"Too many wrong passwords for this user name from this address; wait {minutes} minutes, "
            "or use an access token.",
            name,
        )
    if isinstance(user, User):
        kept = _Password(monotonic() + PASSWORD_KEPT_SECONDS, user.pk, _stamp(user))
    else:
        kept = _Password(monotonic() + WRONG_KEPT_SECONDS, None, "")
    with _memory.lock:
        if len(_memory.passwords) >= MOST_KEPT:
            _memory.passwords.clear()
        _memory.passwords[key] = kept
        # Who just proved a new password is not judged by the row as it was before.
        _memory.rows.pop(("user", kept.key or 0), None)
    return kept


def _kept_password(key: bytes) -> _Password | None:
    """What was found out about this name and password, unless it is too long ago or the password was changed."""
    kept = _memory.passwords.get(key)
    if kept is None or kept.until <= monotonic():
        return None
    if kept.key is None:
        return kept
    row = _row("user", kept.key)
    return kept if isinstance(row, User) and hmac.compare_digest(_stamp(row), kept.stamp) else None


def _usable_person(row: AccessToken | User | None, stamp: str) -> Subject:
    if not isinstance(row, User) or not row.is_active or not hmac.compare_digest(_stamp(row), stamp):
        raise Refused(
            Why.WRONG, "This login no longer holds; log in again.", row.username if isinstance(row, User) else ""
        )
    if row.must_change_password:
        raise Refused(
            Why.FORBIDDEN, f"{row.username} must sign in with a browser first and choose a password.", row.username
        )
    return Subject(Reader("user", row.username), row.pk, stamp)


def _stamp(user: User) -> str:
    """Another one once the password is another."""
    return user.get_session_auth_hash()[:32]


# Tokens that are signed, not kept


@dataclass(frozen=True)
class Issued:
    """A short-lived Bearer token. `refresh` is what gets the next one, if that was asked for."""

    token: str = field(repr=False)
    at: datetime
    seconds: int
    refresh: str = field(default="", repr=False)


def issue(subject: Subject, scopes: tuple[str, ...], now: datetime, *, with_refresh: bool = False) -> Issued:
    """A token for this reader. `scopes` is what was granted: written down in it; every reader may read everything."""
    at = now.replace(microsecond=0)
    refresh = ""
    if with_refresh and subject.reader.kind != "anonymous":
        refresh = subject.secret or _signed(subject, (), _REFRESH)
    return Issued(_signed(subject, scopes, _BEARER), at, int(TOKEN_LIFE.total_seconds()), refresh)


def by_refresh_token(token: str, now: datetime) -> Subject:
    """Who a refresh token is of: an access token, or what `issue` gave. Raises Refused."""
    if token.startswith(PREFIX):
        return by_secret(token, now)
    return _by_signed(token, _REFRESH, REFRESH_LIFE, now)


def _signer(purpose: str) -> signing.TimestampSigner:
    # A colon is no character of a Bearer token (RFC 6750).
    return signing.TimestampSigner(salt=purpose, sep=".")


def _signed(subject: Subject, scopes: tuple[str, ...], purpose: str) -> str:
    noted = " ".join(scopes)[:SCOPES_NOTED]
    said = {"k": subject.reader.kind, "i": subject.key, "h": subject.stamp, "s": noted}
    return _signer(purpose).sign_object(said)


def _by_signed(token: str, purpose: str, life: timedelta, now: datetime) -> Subject:
    try:
        said = _signer(purpose).unsign_object(token, max_age=life)
    except signing.SignatureExpired:
        raise Refused(Why.WRONG, "This login has expired; log in again.") from None
    except (signing.BadSignature, ValueError, binascii.Error):
        raise Refused(Why.WRONG, "This token is not of this Airgap.") from None
    if said["k"] == "token":
        row = _row("token", said["i"])
        if isinstance(row, AccessToken):
            return _usable_token(row, now)
    elif said["k"] == "user":
        return _usable_person(_row("user", said["i"]), said["h"])
    elif not login_required():
        return NOBODY_IN_PARTICULAR
    raise Refused(Why.WRONG, "This login no longer holds; log in again.")
