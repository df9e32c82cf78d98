"""Keys: which one this instance signs with, whose it trusts, and what a signature that arrives is worth.

Every change is a line in the record. Bytes and forms are mirrors/signing's business.
"""

import re
from collections.abc import Sequence
from datetime import datetime

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from mirrors import content, record, wording
from mirrors.bundle.contents import Signer
from mirrors.models import SigningKey, TrustedKey
from mirrors.secrets import SecretError
from mirrors.signing import (
    BUNDLE,
    KIT,
    Agent,
    AgentError,
    Key,
    KeyRefused,
    PublicKey,
    SignatureError,
    SignedBy,
    Standing,
)
from mirrors.signing import check as check_bytes
from mirrors.signing import sign as sign_bytes

Kept = SigningKey.Kept
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}")
WHO = "airgap"
LEAST_PASSPHRASE = 12
REVOKED_SHOWN = 50


class KeysError(Exception):
    """A key cannot be used or changed; `setting` is the field it is about ("" for none), `str()` a sentence."""

    def __init__(self, sentence: str, setting: str = "") -> None:
        super().__init__(sentence)
        self.setting = setting


class UnknownName(KeysError):
    """There is no trusted key of this name."""


class Taken(KeysError):
    """The name, or the key under another name, is trusted already."""


class WasRevoked(KeysError):
    """The key was revoked here; whoever trusts it again has to say so."""


# The key that signs


def current() -> SigningKey:
    """The key that this instance signs with; its own, made now, where there was none. Raises KeysError."""
    return SigningKey.objects.current().first() or _first()


def is_outside() -> bool:
    """Whether a person brings every signature. Makes no key."""
    return SigningKey.objects.current().filter(kept=Kept.OUTSIDE).exists()


def own_key() -> Key:
    """The private key. Raises KeysError where it is kept elsewhere, or cannot be opened."""
    return _opened(current())


def signer() -> Signer:
    """Who signs the bundles made now; what it raises on signing is a KeysError. Raises KeysError."""
    key = current()
    return Signer(key.fingerprint, None if key.is_outside else lambda data: _sign(key, data, BUNDLE))


def sign(data: bytes, namespace: str) -> bytes:
    """The armored signature of `data`. Raises KeysError, also where only a person can bring one."""
    return _sign(current(), data, namespace)


def _sign(key: SigningKey, data: bytes, namespace: str) -> bytes:
    try:
        if key.kept == Kept.AGENT:
            return sign_bytes(data, _agent(public_of(key)), namespace)
        return sign_bytes(data, _opened(key), namespace)
    except AgentError as error:
        raise KeysError(f"{error} Nothing was signed.") from error


def _agent(public: PublicKey) -> Agent:
    if not settings.AIRGAP_SSH_AUTH_SOCK:
        raise KeysError("The signing key is in an ssh-agent, and AIRGAP_SSH_AUTH_SOCK does not say where that listens.")
    return Agent(settings.AIRGAP_SSH_AUTH_SOCK, public)


def _opened(key: SigningKey) -> Key:
    if not key.is_own:
        raise KeysError(f"The key {key.fingerprint} is kept {key.get_kept_display()}; a person signs with it.")
    try:
        return Key.from_openssh(content.vault().decrypt(key.private_sealed))
    except (SecretError, KeyRefused) as error:
        raise KeysError(
            f"The signing key {key.fingerprint} cannot be opened. {error} If it is lost, rotate it, and give the new "
            "public key to the other side."
        ) from error


def public_of(key: SigningKey | TrustedKey) -> PublicKey:
    return PublicKey.from_text(key.public_line)


def allowed_signers(key: SigningKey) -> str:
    """The line that `ssh-keygen -Y verify -f` and install.sh --key want, without its end; for bundles and kits."""
    return public_of(key).allowed_signers(WHO, f"{BUNDLE},{KIT}")


def retired() -> Sequence[SigningKey]:
    """The keys before the current one, newest first."""
    return list(SigningKey.objects.exclude(retired_at=None).order_by("-retired_at")[:REVOKED_SHOWN])


def _first() -> SigningKey:
    """Two processes may need it at once: one row wins, and both take that."""
    made = _made("system", timezone.now())
    try:
        with transaction.atomic():
            made.save(force_insert=True)
            record.write("system", "signing key made", made.fingerprint, "at first need", at=made.created_at)
    except IntegrityError:
        return SigningKey.objects.current().get()
    return made


def _made(by: str, now: datetime) -> SigningKey:
    key = Key.generate()
    try:
        sealed = content.vault().encrypt(key.private_openssh())
    except SecretError as error:
        raise KeysError(f"A signing key cannot be kept. {error}") from error
    return SigningKey(
        kept=Kept.OWN,
        public_line=key.public_line(f"{WHO}-{now:%Y-%m-%d}"),
        fingerprint=key.fingerprint,
        private_sealed=sealed,
        created_at=now,
        created_by=by[:150],
    )


def rotate(*, by: str, now: datetime, address: str = "") -> SigningKey:
    """A new key of our own. The private part of the one before is destroyed; what it signed stays signed."""
    made = _made(by, now)
    _replace(made, "signing key rotated", by, now, address)
    return made


def use_elsewhere(text: str, kept: str, *, by: str, now: datetime, address: str = "") -> SigningKey:
    """Sign from now on with a key whose private part is not here: in the ssh-agent, or wherever a person signs.

    Raises KeysError for a text that is no public key, the key that is used already, and an agent that lacks it.
    """
    public = _parsed(text)
    there = SigningKey.objects.current().first()
    if there is not None and public_of(there) == public and there.kept == kept:
        raise KeysError(f"{public.fingerprint} is the key that is used already.", "key")
    if kept == Kept.AGENT:
        _require_in_agent(public)
    made = SigningKey(
        kept=kept,
        public_line=public.line(),
        fingerprint=public.fingerprint,
        created_at=now,
        created_by=by[:150],
    )
    _replace(made, "signing key chosen", by, now, address)
    return made


def _require_in_agent(public: PublicKey) -> None:
    try:
        if not _agent(public).holds():
            raise KeysError(f"The ssh-agent does not hold {public.fingerprint}. Load it first (ssh-add).", "key")
    except AgentError as error:
        raise KeysError(str(error)) from error


def _replace(made: SigningKey, action: str, by: str, now: datetime, address: str) -> None:
    with transaction.atomic():
        before = list(SigningKey.objects.current().select_for_update())
        # No query sets a sealed column but this one: nothing opens a retired key any more.
        SigningKey.objects.current().update(retired_at=now, retired_by=by[:150], private_sealed="")
        made.save(force_insert=True)
        instead = f"instead of {before[0].fingerprint}" if before else "the first one"
        record.write(by, action, made.fingerprint, f"{instead}; kept {made.get_kept_display()}", address, at=now)


def export_private(passphrase: str, *, by: str, now: datetime, address: str = "") -> str:
    """The own key as an OpenSSH private-key file under this passphrase. Raises KeysError."""
    if len(passphrase) < LEAST_PASSPHRASE:
        raise KeysError(f"A passphrase of at least {LEAST_PASSPHRASE} characters is wanted: the key signs in our name.")
    key = own_key()
    text = key.private_openssh(passphrase)
    record.write(by, "signing key exported", key.fingerprint, "with its private part, encrypted", address, at=now)
    return text


# The keys of others


def trusted() -> list[TrustedKey]:
    return list(TrustedKey.objects.standing())


def revoked() -> list[TrustedKey]:
    """The latest ones."""
    return list(TrustedKey.objects.exclude(revoked_at=None).order_by("-revoked_at")[:REVOKED_SHOWN])


def trust(
    name: str, text: str, *, note: str = "", again: bool = False, by: str, now: datetime, address: str = ""
) -> TrustedKey:
    """Believe what this key signs. `text` is a `.pub` file or an allowed-signers line; `again` takes a revoked key.

    Raises Taken, WasRevoked, or KeysError.
    """
    name = name.strip()
    if not NAME.fullmatch(name):
        raise KeysError(
            "A name is lower-case letters, digits, - and _, at most 80 of them, and begins with no sign.", "name"
        )
    public = _parsed(text)
    _require_new(name, public, again=again)
    key = TrustedKey(
        name=name,
        public_line=public.line(),
        fingerprint=public.fingerprint,
        note=" ".join(note.split())[:200],
        added_at=now,
        added_by=by[:150],
    )
    try:
        with transaction.atomic():
            key.save(force_insert=True)
            record.write(by, "key trusted", name, public.fingerprint, address, at=now)
    except IntegrityError:
        raise Taken(f"{name} or this key was added by somebody else just now. Look at the list.", "name") from None
    return key


def _require_new(name: str, public: PublicKey, *, again: bool) -> None:
    same_name = TrustedKey.objects.standing().filter(name=name).first()
    if same_name is not None:
        if public_of(same_name) == public:
            raise Taken(f"This key is trusted already, as {name}.", "key")
        raise Taken(
            f"There is already another key called {name}. Choose another name for this one, and revoke {name} once no "
            "bundle that it signed is on its way.",
            "name",
        )
    rows = TrustedKey.objects.filter(fingerprint=public.fingerprint)
    if (same := rows.standing().first()) is not None:
        raise Taken(f"This key is trusted already, as {same.name}.", "key")
    if not again and (gone := rows.order_by("-revoked_at").first()) is not None and gone.revoked_at is not None:
        raise WasRevoked(
            f"This key was called {gone.name} and revoked on {wording.utc_text(gone.revoked_at)} by {gone.revoked_by}. "
            "If it is to be trusted again, say so.",
            "again",
        )


def revoke(name: str, *, by: str, now: datetime, address: str = "") -> TrustedKey:
    """What this key signed is refused from now on, also what it signed before. Raises UnknownName."""
    with transaction.atomic():
        key = TrustedKey.objects.standing().select_for_update().filter(name=name).first()
        if key is None:
            known = wording.joined([key.name for key in trusted()][:20])
            raise UnknownName(f"There is no trusted key called {name[:80]}. There are: {known or 'none'}.", "name")
        key.revoked_at, key.revoked_by = now, by[:150]
        key.save(update_fields=["revoked_at", "revoked_by"])
        record.write(by, "key revoked", key.name, key.fingerprint, address, at=now)
    return key


def revoked_key(fingerprint: str) -> TrustedKey | None:
    """The row by which a key was revoked here; None if it never was, or is trusted again."""
    rows = list(TrustedKey.objects.filter(fingerprint=fingerprint))
    if any(row.revoked_at is None for row in rows):
        return None
    return max(rows, key=lambda row: row.revoked_at or row.added_at, default=None)


def _parsed(text: str) -> PublicKey:
    try:
        return PublicKey.from_text(text)
    except KeyRefused as error:
        raise KeysError(str(error), "key") from None


# What arrives


def check_signature(data: bytes, signature: bytes | None, namespace: str = BUNDLE) -> SignedBy:
    """Whose signature of `data` this is, and how that key stands here. Raises nothing for bad bytes: it says so."""
    if signature is None:
        return SignedBy(Standing.UNSIGNED, sentence="It is not signed.")
    try:
        public = check_bytes(data, signature, namespace)
    except SignatureError as error:
        return SignedBy(Standing.WRONG, error.key.fingerprint if error.key else "", sentence=str(error))
    rows = TrustedKey.objects.filter(fingerprint=public.fingerprint)
    known = next((row for row in rows if public_of(row) == public and row.revoked_at is None), None)
    if known is not None:
        return SignedBy(Standing.TRUSTED, known.fingerprint, known.name)
    gone = revoked_key(public.fingerprint)
    if gone is not None and gone.revoked_at is not None:
        when = wording.utc_text(gone.revoked_at)
        said = f"It is signed with {public.fingerprint} ({gone.name}), which {gone.revoked_by} revoked {when}."
        return SignedBy(Standing.REVOKED, public.fingerprint, gone.name, said)
    if SigningKey.objects.filter(fingerprint=public.fingerprint).exists():
        said = (
            f"It is signed with the key {public.fingerprint}, which is this instance's own: it was made here. If it is "
            "to be taken here, too, an administrator adds that key under Settings → Keys."
        )
        return SignedBy(Standing.UNKNOWN, public.fingerprint, "", said)
    said = (
        f"It is signed with the key {public.fingerprint}, which nobody trusts here. Compare that with what the other "
        "side says its key is; if it is theirs, an administrator adds it under Settings → Keys."
    )
    return SignedBy(Standing.UNKNOWN, public.fingerprint, "", said)
