"""Making receipts, where an administrator has allowed that anything about a bundle leaves the house."""

from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from mirrors import keys, record
from mirrors.importing.report import CONTENT, FAULT, ROOM, SIGNATURE, SITE, Report, SnapshotReport
from mirrors.keys import KeysError
from mirrors.models import AuditEntry, Import, Receipting, Run, SigningKey
from mirrors.receipting import issuing
from mirrors.receipts import Receipt, ReceiptError, make_code, read_signed
from mirrors.receipts.document import RECEIVED, REJECTED
from mirrors.signing import Standing

Kept = SigningKey.Kept
GIVEN = "receipt made"
PASSED_OVER = ("older", "held", "left")
WHO_SIGNS = {Kept.OUTSIDE: "a person signs there", Kept.AGENT: "it signs when somebody here wants it to"}
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
    """A receipt in its forms. `text` is the signed file, None where `unsigned` says why; `code` "" likewise.

    `waits` where somebody has to see to the signature: `kept` says where the key of now is. `outdated` says what has
    changed here since it was signed, "" if nothing has.
    """

    receipt: Receipt
    text: bytes | None
    unsigned: str
    code: str
    uncoded: str
    kept: str
    waits: bool
    outdated: str


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
        raise NoReceipt(f"No import of {what} has ended here with anything to say of it.")
    return run


def receipt_of(run: Import) -> Receipt:
    """The facts, which nobody has signed yet. Raises NoReceipt where there are none."""
    if run.is_open or run.finished_at is None:
        raise NoReceipt("The import has not ended yet; its receipt can be made afterwards.")
    if not run.bundle:
        if Report.from_dict(run.report).refusal in (ROOM, FAULT):
            _outcome_of_failure(run)
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


def why_none(run: Import) -> str:
    """Why this import, which has ended and was for a site, has no receipt; "" if it has one once they are on."""
    try:
        _outcome(run)
    except NoReceipt as reason:
        return str(reason)
    return ""


def not_switched(run: Import) -> list[SnapshotReport]:
    """What this import received and did not switch to. No receipt can say so."""
    return [each for each in Report.from_dict(run.report).snapshots if run.is_success and each.outcome in PASSED_OVER]


def _outcome(run: Import) -> str:
    """`rejected` only for what the bundle is or a person here decided. What may still come in has none yet."""
    if run.state in Run.SUCCESSES:
        return RECEIVED
    came_in = Import.objects.filter(bundle=run.bundle, state__in=Run.SUCCESSES).order_by("-pk").first()
    if came_in is not None:
        raise NoReceipt(f"Another import took this bundle in, number {came_in.pk}. The receipt is made there.")
    under_way = Import.objects.open().filter(Q(bundle=run.bundle) | Q(bundle="", name=run.name)).first()
    if under_way is not None:
        raise NoReceipt(
            f"Another import of this bundle is under way, number {under_way.pk}. Its receipt is made when it has ended."
        )
    if run.state == Run.State.LOST:
        raise NoReceipt("The import broke off and says nothing about the bundle. Import it again.")
    if run.state == Run.State.CANCELLED and not run.decided_by:
        raise NoReceipt("Nobody decided about this bundle, so that there is nothing to say of it. Import it again.")
    return _outcome_of_failure(run) if run.state == Run.State.FAILED else REJECTED


def _outcome_of_failure(run: Import) -> str:
    report = Report.from_dict(run.report)
    if report.refusal == ROOM:
        raise NoReceipt("The import ended for lack of room, not over the bundle. Make room, then import it again.")
    if report.refusal == FAULT:
        raise NoReceipt(
            "The import ended over a medium that cannot be read or a fault on this side, not over the bundle. Its page "
            "says which; import the bundle again."
        )
    damaged_there = bool(report.damaged) and report.signature == Standing.WRONG
    may_be_unsigned = run.allow_unsigned and report.signature in ("unsigned", "unknown key")
    if damaged_there or (report.wants_another_copy and (report.signature == Standing.TRUSTED or may_be_unsigned)):
        raise NoReceipt(
            "This copy of the bundle is damaged, which says nothing about the bundle. Copy it again, from the medium "
            "or from the connected side, and import that. If no whole copy can be had, tell the connected side: the "
            "transfer is marked as lost there by hand."
        )
    if report.refusal not in (SIGNATURE, SITE, CONTENT):
        raise NoReceipt("The import says nothing about the bundle. Import it again.")
    return REJECTED


def make(run: Import, *, by: str, now: datetime, address: str = "", ask_agent: bool = False) -> Given:
    """The receipt of an import that has ended; the first time each person makes it is a line in the record.

    What was signed once is given out again as it was. An own key signs now, one in an agent only with `ask_agent`.
    Raises NoReceipt, ReceiptsAreOff.
    """
    wanted = to_sign(run)
    kept = keys.current().kept
    issued = issuing.issued_of(run, wanted)
    unsigned, waits = "", issued is None and kept != Kept.OWN
    if issued is None and (kept == Kept.OWN or (kept == Kept.AGENT and ask_agent)):
        try:
            issued = issuing.sign(run, wanted, by=by, now=now, address=address, recorded=kept != Kept.OWN)
            waits = False
        except KeysError as error:
            unsigned = str(error)
    elif issued is None:
        unsigned = f"Its key {wanted.key_id} is kept {Kept(kept).label}: {WHO_SIGNS[Kept(kept)]}."
    text = issued.text.encode("ascii") if issued is not None else None
    receipt = read_signed(text).receipt if text is not None else wanted
    code, uncoded = "", ""
    try:
        code = make_code(receipt, run.receipt_secret)
    except ReceiptError as error:
        uncoded = str(error)
    if text is None and not code and not waits:
        raise NoReceipt(f"{unsigned} {uncoded}")
    record_given(receipt, by=by, now=now, address=address)
    return Given(receipt, text, unsigned, code, uncoded, kept, waits, _outdated(receipt, wanted))


def to_sign(run: Import) -> Receipt:
    """The facts as the key of now would sign them. Raises NoReceipt, ReceiptsAreOff."""
    if not is_on():
        raise ReceiptsAreOff
    return receipt_of(run)


def record_given(receipt: Receipt, *, by: str, now: datetime, address: str = "") -> None:
    """Who had these facts on a page or in a file; once each."""
    detail = f"{receipt.outcome} on {receipt.date}, site {receipt.site}, key {receipt.key_id}"
    if not AuditEntry.objects.filter(action=GIVEN, actor=by[:150], subject=receipt.bundle, detail=detail).exists():
        record.write(by, GIVEN, receipt.bundle, detail, address, at=now)


def _outdated(receipt: Receipt, wanted: Receipt) -> str:
    if receipt.key_id != wanted.key_id:
        return (
            f"It is signed with a former key of this side and stays as it is. The key is {wanted.key_id} now: where "
            "the connected side no longer trusts the former one, sign it anew."
        )
    if receipt.site != wanted.site:
        return (
            f"It was signed for the site {receipt.site} and stays as it is. This side is called {wanted.site} now: "
            "where the receipt was refused over that, sign it anew."
        )
    return ""
