"""Making receipts, where an administrator has allowed that anything about a bundle leaves the house."""

from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings
from django.db import transaction

from mirrors import keys, record
from mirrors.keys import KeysError
from mirrors.models import AuditEntry, Import, Receipting, Run
from mirrors.receipts import NAMESPACE, Receipt, ReceiptError, make_code, signed_text
from mirrors.receipts.document import RECEIVED, REJECTED

GIVEN = "receipt made"
NO_OTHER_WORD = (
    "the bundle's id, whether it was taken in, the day, the fingerprint of the key that signs, and the site's code"
)


class NoReceipt(Exception):
    """None can be made, and the sentence says why and what would help."""


class ReceiptsAreOff(NoReceipt):
    def __init__(self) -> None:
        super().__init__(
            "Receipts are off: they carry information out. An administrator can turn them on under Settings → Receipts."
        )


@dataclass(frozen=True)
class Given:
    """A receipt in its forms. `text` is the signed file, None where `unsigned` says why; `code` "" likewise."""

    receipt: Receipt
    text: bytes | None
    unsigned: str
    code: str
    uncoded: str


def is_on() -> bool:
    return Receipting.now().is_on


def switch(on: bool, *, by: str, now: datetime, address: str = "") -> bool:
    """Whether receipts may leave from now on; True if that is a change."""
    with transaction.atomic():
        row = Receipting.locked()
        if row.is_on == on:
            return False
        row.is_on, row.changed_at, row.changed_by = on, now, by[:150]
        row.save()
        detail = f"They hold {NO_OTHER_WORD}." if on else ""
        record.write(by, "receipts turned on" if on else "receipts turned off", "receipts", detail, address, at=now)
    return True


def import_of(bundle: str = "") -> Import:
    """The import whose receipt is meant: of this bundle, or the latest that has one. Raises NoReceipt."""
    rows = Import.objects.exclude(bundle="").exclude(finished_at=None).order_by("-finished_at", "-pk")
    found = rows.filter(bundle=bundle) if bundle else rows.exclude(site="")
    # What came in counts, whatever was tried before or after.
    run = found.filter(state__in=Run.SUCCESSES).first() or found.first() if bundle else found.first()
    if run is None:
        what = f"the bundle {bundle[:40]!r}" if bundle else "any bundle that was prepared for a site"
        raise NoReceipt(f"No import of {what} has ended here.")
    return run


def receipt_of(run: Import) -> Receipt:
    """The facts, which nobody has signed yet. Raises NoReceipt where there are none."""
    if run.is_open or run.finished_at is None:
        raise NoReceipt("The import has not ended yet; its receipt can be made afterwards.")
    if not run.bundle:
        raise NoReceipt("The import ended before it was known which bundle it was, so that there is nothing to say.")
    if not run.site or not run.transfer:
        raise NoReceipt(
            "This bundle was prepared for no certain site, so that no receipt of it is awaited. Where bundles are "
            "prepared, choose the site."
        )
    outcome = _outcome(run)
    site = (settings.AIRGAP_SITE_CODE or run.site).upper()
    try:
        key_id = keys.current().fingerprint
        return Receipt(run.bundle, outcome, run.finished_at.astimezone(UTC).date(), key_id, site)
    except (KeysError, ReceiptError) as error:
        raise NoReceipt(str(error)) from error


def _outcome(run: Import) -> str:
    if run.state in Run.SUCCESSES:
        return RECEIVED
    came_in = Import.objects.filter(bundle=run.bundle, state__in=Run.SUCCESSES).order_by("-pk").first()
    if came_in is not None:
        raise NoReceipt(f"Another import took this bundle in, number {came_in.pk}. The receipt is made there.")
    if run.state == Run.State.LOST:
        raise NoReceipt("The import broke off and says nothing about the bundle. Import it again.")
    return REJECTED


def make(run: Import, *, by: str, now: datetime, address: str = "") -> Given:
    """The receipt of an import that has ended; the first time each person makes it is a line in the record.

    Raises NoReceipt, ReceiptsAreOff.
    """
    if not is_on():
        raise ReceiptsAreOff
    receipt = receipt_of(run)
    text, unsigned, code, uncoded = None, "", "", ""
    try:
        text = signed_text(receipt, keys.sign(receipt.text(), NAMESPACE))
    except KeysError as error:
        unsigned = str(error)
    try:
        code = make_code(receipt, run.receipt_secret)
    except ReceiptError as error:
        uncoded = str(error)
    if text is None and not code:
        raise NoReceipt(f"{unsigned} {uncoded}")
    detail = f"{receipt.outcome} on {receipt.date}, site {receipt.site}, key {receipt.key_id}"
    if not AuditEntry.objects.filter(action=GIVEN, actor=by[:150], subject=run.bundle, detail=detail).exists():
        record.write(by, GIVEN, run.bundle, detail, address, at=now)
    return Given(receipt, text, unsigned, code, uncoded)
