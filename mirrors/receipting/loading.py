"""Loading receipts where the bundle was made: verified, held against the transfer, and then believed, once."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from django.db import IntegrityError, transaction

from mirrors import keys, receipts, record, transfers, wording
from mirrors.models import Receipt, Transfer, TrustedKey
from mirrors.receipts import NAMESPACE, ReceiptError, SignedReceipt, TypedCode
from mirrors.transfers import ReceiptFacts, TransferError

REFUSED = "receipt refused"
# Clocks differ by time zones and neglect; beyond this one of them is wrong, or the receipt is of something else.
APART = timedelta(days=2)


class ReceiptRefused(Exception):
    """It changes nothing; `str()` is a sentence that says why and what to do."""


class LoadedBefore(ReceiptRefused):
    """This very receipt was loaded already."""


@dataclass(frozen=True)
class _Checked:
    """What a receipt says, and what its evidence is worth. `shown` is what it is recognised by."""

    bundle: str
    outcome: str
    date: date
    site: str
    key: str
    key_name: str
    shown: bytes


def load(text: bytes, *, way: str = "", by: str, now: datetime, address: str = "") -> Receipt:
    """Believe this signed text or typed code, close its transfer and write down what the site holds by it.

    `way` says how the text came, for whoever reads it later. Raises ReceiptRefused; that is in the record, too.
    """
    try:
        return _load(text, way, by, now, address)
    except ReceiptRefused as refusal:
        record.write(by, REFUSED, "receipts", str(refusal), address, at=now)
        raise


def _load(text: bytes, way: str, by: str, now: datetime, address: str) -> Receipt:
    try:
        found = receipts.read(text)
        checked = _by_signature(found) if isinstance(found, SignedReceipt) else _by_code(found)
        transfer = transfers.for_receipt(checked.bundle, checked.site)
    except (ReceiptError, TransferError) as error:
        raise ReceiptRefused(str(error)) from error
    _require_possible_date(checked, transfer, now)
    is_code = isinstance(found, TypedCode)
    if is_code or way not in (Receipt.Way.FILE, Receipt.Way.QR):
        way = Receipt.Way.CODE if is_code else Receipt.Way.TEXT
    row = Receipt(
        transfer=transfer,
        digest=f"sha256:{hashlib.sha256(checked.shown).hexdigest()}",
        way=way,
        bundle=checked.bundle,
        site=checked.site,
        outcome=checked.outcome,
        date=checked.date,
        key=checked.key,
        key_name=checked.key_name,
        loaded_at=now,
        loaded_by=by[:150],
    )
    return _apply(row, by, now, address)


def _by_signature(found: SignedReceipt) -> _Checked:
    receipt = found.receipt
    signed = keys.check_signature(receipt.text(), found.signature, NAMESPACE)
    if not signed.is_trusted:
        raise ReceiptRefused(f"The receipt for bundle {receipt.bundle} is not believed. {signed.sentence}")
    if signed.fingerprint != receipt.key_id:
        raise ReceiptRefused(
            f"The receipt names the key {receipt.key_id} and is signed with another, {signed.fingerprint}."
        )
    return _Checked(
        receipt.bundle,
        receipt.outcome,
        receipt.date,
        receipt.site,
        receipt.key_id,
        signed.name,
        receipts.signed_text(receipt, found.signature),
    )


def _by_code(code: TypedCode) -> _Checked:
    transfer = transfers.for_receipt(code.bundle)
    site = transfer.site
    if not transfer.receipt_secret:
        raise ReceiptRefused(
            f"Bundle {code.bundle} holds no secret for a typed code. Load the signed receipt, or mark it by hand."
        )
    called = next((each for each in transfers.codes_of(transfer) if code.is_genuine(transfer.receipt_secret, each)), "")
    if not called:
        raise ReceiptRefused(
            f"The code is typed right, and it was not made with the bundle {code.bundle} at {site.label}. Ask there "
            f"which bundle it is of, and whether the site's code over there is "
            f"{' or '.join(transfers.codes_of(transfer))}."
        )
    alike = TrustedKey.objects.filter(fingerprint__startswith=f"SHA256:{code.key}").order_by("-added_at")
    # Databases differ in whether capitals matter here.
    same = [key for key in alike if key.fingerprint.startswith(f"SHA256:{code.key}")]
    trusted = next((key for key in same if key.revoked_at is None), None)
    if same and trusted is None:
        raise ReceiptRefused(f"The code names the key {same[0].fingerprint} ({same[0].name}), which was revoked here.")
    return _Checked(
        code.bundle,
        code.outcome,
        code.date,
        called,
        trusted.fingerprint if trusted else "",
        trusted.name if trusted else "",
        repr(code).encode(),
    )


def _require_possible_date(checked: _Checked, transfer: Transfer, now: datetime) -> None:
    day, prepared, today = checked.date, transfer.prepared_at.astimezone(UTC).date(), now.astimezone(UTC).date()
    if prepared - APART <= day <= today + APART:
        return
    said = f"and today is {today}" if day > today else f"and the bundle was made on {prepared}"
    raise ReceiptRefused(
        f"The receipt is of {day}, {said}. One of the two clocks is wrong. Set it right and make the receipt anew over "
        "there, or mark the transfer by hand."
    )


def _apply(row: Receipt, by: str, now: datetime, address: str) -> Receipt:
    facts = ReceiptFacts(
        bundle_id=row.bundle,
        site_code=row.site,
        outcome=row.outcome,
        at=datetime.combine(row.date, time(), UTC),
        key=row.key,
        evidence=Transfer.Evidence.RECEIPT if row.is_signed else Transfer.Evidence.CODE,
    )
    _require_new(row)
    try:
        with transaction.atomic():
            row.save(force_insert=True)
            row.transfer = transfers.apply_receipt(facts, by=by, now=now, address=address)
    except IntegrityError:
        _require_new(row)
        raise
    except TransferError as error:
        raise ReceiptRefused(str(error)) from error
    return row


def _require_new(row: Receipt) -> None:
    before = Receipt.objects.filter(digest=row.digest).first()
    if before is not None:
        raise LoadedBefore(
            f"This receipt for bundle {before.bundle} was loaded already, {wording.utc_text(before.loaded_at)} by "
            f"{before.loaded_by}. It changes nothing."
        )


def sentence(row: Receipt) -> str:
    """What it means, for whoever loaded it."""
    label = row.transfer.site.label
    said = {
        "received": f"Bundle {row.bundle} was received at {label} on {row.date}.",
        "rejected": f"Bundle {row.bundle} was not taken in at {label} ({row.date}). The next export sends it again.",
    }[row.outcome]
    if row.is_signed:
        return f"{said} The receipt is signed with the key {row.key_name}."
    return f"{said} A typed code says so: whoever has the bundle can make one, so it is weaker evidence."


def latest(count: int) -> list[Receipt]:
    return list(Receipt.objects.select_related("transfer__site")[:count])
