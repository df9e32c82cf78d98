"""The signature of a receipt that does not come by itself: a person brings it, or somebody asks the ssh-agent for it.

What is signed anew after another key or another site code is a second receipt; the first one stays.
"""

from datetime import datetime

from django.db import transaction

from mirrors import keys, wording
from mirrors.keys import KeysError
from mirrors.models import Import, IssuedReceipt, SigningKey
from mirrors.receipting import issuing
from mirrors.receipting.giving import to_sign
from mirrors.receipts import NAMESPACE, Receipt
from mirrors.signing import PublicKey, SignatureError, check, tidied


class NotTaken(Exception):
    """Nothing was signed, or the signature is not taken; the sentence says why."""


def awaited(run: Import) -> Receipt:
    """The facts that the key of now has not signed yet. Raises NotTaken, NoReceipt, ReceiptsAreOff."""
    facts = to_sign(run)
    if issuing.is_issued(run, facts):
        raise NotTaken(
            f"The receipt of bundle {facts.bundle} does not wait for a signature: {facts.key_id} has signed it."
        )
    return facts


def attach(run: Import, signature: bytes, *, by: str, now: datetime, address: str = "") -> IssuedReceipt:
    """Take the signature that a person brings. Raises NotTaken, NoReceipt, ReceiptsAreOff."""
    with transaction.atomic():
        # Whoever replaces the key, or brings the same signature, waits here.
        key = SigningKey.objects.current().select_for_update().first()
        facts = awaited(run)
        if key is None or key.fingerprint != facts.key_id:
            raise NotTaken("The signing key was replaced just now. Look at the receipt again.")
        if not key.is_outside:
            raise NotTaken(f"The key {key.fingerprint} is kept {key.get_kept_display()}: nobody brings its signatures.")
        armored = _verified(facts, signature, keys.public_of(key))
        return issuing.keep(run, facts, armored, by=by, now=now, address=address)


def sign(run: Import, *, by: str, now: datetime, address: str = "") -> IssuedReceipt:
    """Sign with the key in this instance or in the agent. Raises NotTaken, NoReceipt, ReceiptsAreOff."""
    facts = awaited(run)
    if keys.is_outside():
        raise NotTaken(f"The key {facts.key_id} is kept outside: somebody signs there and brings the signature.")
    try:
        return issuing.sign(run, facts, by=by, now=now, address=address)
    except KeysError as error:
        raise NotTaken(str(error)) from error


def _verified(facts: Receipt, signature: bytes, public: PublicKey) -> bytes:
    """The signature in the one form that is carried. Raises NotTaken unless it is the right one."""
    try:
        armored = tidied(signature)
        signed_by = check(facts.text(), armored, NAMESPACE)
    except SignatureError as error:
        if error.key is not None and error.key != public:
            raise NotTaken(_by_another(error.key, facts)) from None
        raise NotTaken(f"{error} Sign {facts.facts_filename} of this very receipt, with -n {NAMESPACE}.") from None
    if signed_by != public:
        raise NotTaken(_by_another(signed_by, facts))
    return armored


def _by_another(key: PublicKey, facts: Receipt) -> str:
    said = f"It is signed with {key.fingerprint}; this receipt wants {facts.key_id}."
    former = SigningKey.objects.filter(fingerprint=key.fingerprint).exclude(retired_at=None).first()
    if former is None or former.retired_at is None:
        return said
    when = wording.utc_text(former.retired_at)
    return (
        f"{said} The former key was replaced on {when}, and the receipt names the one of now: save "
        f"{facts.facts_filename} again, and sign that."
    )
