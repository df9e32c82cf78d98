"""Receipts that are signed: kept as they were handed out, whatever key signs or code is valid here later."""

from datetime import datetime

from django.db import transaction

from mirrors import keys, record
from mirrors.keys import KeysError
from mirrors.models import Import, IssuedReceipt
from mirrors.receipts import NAMESPACE, Receipt, signed_text
from mirrors.signing import SignatureError, check

SIGNED = "receipt signed"


def issued_of(run: Import, facts: Receipt) -> IssuedReceipt | None:
    """The signed receipt that says just this, or else the latest there is of this import."""
    rows = list(run.receipts.all())
    return next((row for row in rows if (row.key, row.site) == (facts.key_id, facts.site)), rows[0] if rows else None)


def is_issued(run: Import, facts: Receipt) -> bool:
    return run.receipts.filter(key=facts.key_id, site=facts.site).exists()


def sign(
    run: Import, facts: Receipt, *, by: str, now: datetime, address: str = "", recorded: bool = True
) -> IssuedReceipt:
    """Signed by the key of now, which this instance or its agent has, and kept. Raises KeysError."""
    signature = keys.sign(facts.text(), NAMESPACE)
    try:
        signed_by = check(facts.text(), signature, NAMESPACE)
    except SignatureError as error:
        raise KeysError(str(error)) from error
    if signed_by.fingerprint != facts.key_id:
        raise KeysError("The signing key was replaced just now. Look at the receipt again.")
    return keep(run, facts, signature, by=by, now=now, address=address, recorded=recorded)


def keep(
    run: Import, facts: Receipt, signature: bytes, *, by: str, now: datetime, address: str = "", recorded: bool = True
) -> IssuedReceipt:
    """The row of this signature, which is right; of two at once that of the first."""
    text = signed_text(facts, signature).decode("ascii")
    with transaction.atomic():
        row, made = IssuedReceipt.objects.get_or_create(
            run=run,
            key=facts.key_id,
            site=facts.site,
            defaults={"text": text, "signed_at": now, "signed_by": by[:150]},
        )
        if made and recorded:
            record.write(by, SIGNED, facts.bundle, facts.key_id, address, at=now)
    return row
