"""Transfers: a bundle made for a site, carried there, and received or rejected; and what the site holds by that.

What a site is known to hold comes from receipts, or from somebody's word here. What was only carried is assumed, and an
export does not rely on it unless it is told to. Order of locks: the site, then the transfer.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from mirrors import exporting, record, wording
from mirrors.blobs import BlobStore
from mirrors.bundle.contents import Assumed, Crossing
from mirrors.models import Bundle, BundleSnapshot, Site, SiteHolding, Snapshot, Transfer

State, Evidence = Transfer.State, Transfer.Evidence

SECRET_BYTES = 16
LONGEST_REFERENCE, LONGEST_REASON = 200, 1000
# How far back it is looked for what a site holds. What was last sent before that is sent again, which harms nobody.
LOOKED_BACK = 500


class TransferError(Exception):
    """What was asked for cannot be done with this transfer; the sentence says why and what would help."""


class NothingMissing(TransferError):
    def __init__(self, site: Site) -> None:
        super().__init__(
            f"{site.label} holds everything that is current here; there is nothing to send. If you are unsure, make "
            "the full bundle."
        )


class ReceiptRefused(TransferError):
    """A receipt that is not for a transfer of this instance, or was loaded before."""


# What a site lacks


@dataclass(frozen=True)
class Missing:
    """What is to be sent to a site, and what it holds already. `unsure`: sent, though it was carried there before."""

    send: tuple[Snapshot, ...]
    left_out: tuple[Snapshot, ...]
    unsure: tuple[Snapshot, ...]

    @property
    def size(self) -> int:
        return sum(snapshot.size_bytes for snapshot in self.send)


def holds(holding: SiteHolding, snapshot: Snapshot) -> bool:
    """Whether the site's content of this mirror is just this."""
    if holding.identity and snapshot.identity:
        return holding.identity == snapshot.identity
    return holding.digest == snapshot.digest


def missing(site: Site, names: Sequence[str] = (), *, trust_assumed: bool = False) -> Missing:
    """What the site lacks of the named mirrors, or of everything current. Raises ExportError if nothing is here.

    With `trust_assumed` what was carried and not confirmed counts as being there.
    """
    return missing_of(exporting.current_snapshots(names), site.holdings.all(), trust_assumed=trust_assumed)


def missing_of(current: Iterable[Snapshot], holdings: Iterable[SiteHolding], *, trust_assumed: bool = False) -> Missing:
    of: dict[str, list[SiteHolding]] = {}
    for holding in holdings:
        of.setdefault(holding.mirror_name, []).append(holding)
    send, left_out, unsure = [], [], []
    for snapshot in current:
        held = [holding for holding in of.get(snapshot.mirror.name, []) if holds(holding, snapshot)]
        if any(trust_assumed or not holding.is_assumed for holding in held):
            left_out.append(snapshot)
            continue
        send.append(snapshot)
        if held:
            unsure.append(snapshot)
    return Missing(tuple(send), tuple(left_out), tuple(unsure))


# Preparing


def prepare(
    site: Site,
    snapshots: Sequence[Snapshot],
    *,
    left_out: Sequence[Snapshot] = (),
    profile: str = Bundle.Profile.FULL,
    reference: str = "",
    by: str,
    now: datetime,
    address: str = "",
    store: BlobStore | None = None,
    reuse: bool = False,
) -> Transfer:
    """A bundle of these snapshots for this site, and its transfer. `left_out` is what it is taken to hold already.

    Raises NothingMissing for no snapshots, TransferError, and ExportError as `create_bundle` does.
    """
    if not snapshots:
        raise NothingMissing(site)
    reference = _checked_reference(reference)
    assumed = tuple(_assumed(snapshot) for snapshot in left_out)
    crossing = Crossing(
        site=site.code,
        site_label=site.label,
        transfer=secrets.token_hex(6),
        receipt_secret=secrets.token_hex(SECRET_BYTES),
        reference=reference,
        assumed=assumed,
    )
    is_archive = profile == Bundle.Profile.CACHE

    def write_row(bundle: Bundle) -> None:
        Transfer.objects.create(
            id=crossing.transfer,
            site=site,
            bundle=bundle,
            site_code=crossing.site,
            reference=reference,
            receipt_secret="" if is_archive else crossing.receipt_secret,
            left_out=[_left_out_row(each) for each in assumed],
            prepared_at=now,
            prepared_by_name=by[:150],
        )
        record.write(by, "transfer prepared", site.name, _named(bundle, reference), address, at=now)

    try:
        bundle = exporting.create_bundle(
            snapshots,
            profile=profile,
            now=now,
            by=by,
            address=address,
            store=store,
            reuse=reuse,
            crossing=crossing,
            on_created=write_row,
        )
    except IntegrityError:
        raise TransferError(f"{site.label} was removed meanwhile. Choose another site, or none.") from None
    return Transfer.objects.select_related("site", "bundle").get(bundle=bundle)


def _assumed(snapshot: Snapshot) -> Assumed:
    return Assumed(
        mirror=snapshot.mirror.name,
        label=snapshot.mirror.label,
        kind=snapshot.mirror.kind,
        manifest_digest=snapshot.manifest_digest,
        layer_digest=snapshot.layer_digest,
        updated_at=snapshot.updated_at,
        confirmed_at=snapshot.confirmed_at,
    )


def _left_out_row(assumed: Assumed) -> dict[str, Any]:
    """As it is kept with the transfer: JSON has no times."""
    return {
        "mirror": assumed.mirror,
        "label": assumed.label,
        "kind": assumed.kind,
        "digest": assumed.digest,
        "confirmed_at": wording.rfc3339(assumed.confirmed_at) if assumed.confirmed_at else None,
    }


def _named(bundle: Bundle, reference: str) -> str:
    return f"{bundle.filename}; {reference}" if reference else bundle.filename


def _checked_reference(text: str) -> str:
    reference = " ".join(text.split())
    if len(reference) > LONGEST_REFERENCE:
        raise TransferError(f"A reference has at most {LONGEST_REFERENCE} characters, such as a form number.")
    return reference


def withdraw(bundle: Bundle) -> None:
    """Forget the transfer of a bundle that nobody ever got; the record keeps that it was prepared."""
    Transfer.objects.filter(bundle=bundle, state=State.PREPARED).delete()


# On its way


def find(transfer_id: str) -> Transfer:
    """The transfer of this id, or of the bundle of this id. Raises TransferError."""
    rows = Transfer.objects.select_related("site", "bundle")
    found = rows.filter(pk=transfer_id).first() or rows.filter(bundle_id=transfer_id).first()
    if found is None:
        raise TransferError(f"There is no transfer {transfer_id[:40]!r} here.")
    return found


def mark_carried(
    transfer_id: str, *, reference: str | None = None, by: str, now: datetime, address: str = ""
) -> Transfer:
    """It has left the house. A reference replaces the one there is; carried again changes the reference alone."""
    wanted = None if reference is None else _checked_reference(reference)
    with transaction.atomic():
        transfer = _locked(transfer_id)
        if not transfer.is_open:
            raise TransferError(f"This transfer was {_ended(transfer)} already. Take that back first if it is wrong.")
        if transfer.state == State.PREPARED:
            transfer.carried_at, transfer.carried_by_name = now, by[:150]
        transfer.state = State.CARRIED
        transfer.reference = transfer.reference if wanted is None else wanted
        _save(transfer, "transfer carried", _named(transfer.bundle, transfer.reference), by, now, address)
    return transfer


def mark_received(transfer_id: str, *, by: str, now: datetime, address: str = "") -> Transfer:
    """Somebody here says that it arrived and was taken in; shown as that."""
    return _close_by_hand(transfer_id, State.RECEIVED, "", by, now, address)


def mark_rejected(transfer_id: str, *, reason: str, by: str, now: datetime, address: str = "") -> Transfer:
    """Somebody here says that it was refused, or lost on the way, and why."""
    reason = " ".join(reason.split())
    if not reason:
        raise TransferError("Say why, in a few words: refused by the transfer office, the disc was lost.")
    if len(reason) > LONGEST_REASON:
        raise TransferError(f"The reason has at most {LONGEST_REASON} characters.")
    return _close_by_hand(transfer_id, State.REJECTED, reason, by, now, address)


def _close_by_hand(transfer_id: str, state: str, reason: str, by: str, now: datetime, address: str) -> Transfer:
    with transaction.atomic():
        transfer = _locked(transfer_id)
        if not transfer.is_open:
            raise TransferError(f"This transfer was {_ended(transfer)} already. Take that back first if it is wrong.")
        transfer.state, transfer.evidence, transfer.reason = state, Evidence.HAND, reason
        transfer.closed_at, transfer.closed_by_name = now, by[:150]
        _save(transfer, f"transfer {state}", f"{transfer.bundle.filename}; by hand. {reason}".strip(), by, now, address)
    return transfer


def take_back(transfer_id: str, *, by: str, now: datetime, address: str = "") -> Transfer:
    """Undo what was marked by hand: a step back. What a receipt said stays."""
    with transaction.atomic():
        transfer = _locked(transfer_id)
        if transfer.state == State.PREPARED:
            raise TransferError("Nothing was marked yet, so there is nothing to take back.")
        if transfer.evidence in (Evidence.RECEIPT, Evidence.CODE):
            raise TransferError(f"This transfer was {_ended(transfer)} by a receipt, which nobody here can take back.")
        was = transfer.get_state_display().lower()
        if transfer.is_open:
            transfer.state, transfer.carried_at, transfer.carried_by_name = State.PREPARED, None, ""
        else:
            transfer.state = State.CARRIED if transfer.carried_at else State.PREPARED
            transfer.closed_at, transfer.closed_by_name, transfer.evidence, transfer.reason = None, "", "", ""
        _save(transfer, "transfer taken back", f"{transfer.bundle.filename}; was {was}", by, now, address)
    return transfer


def _ended(transfer: Transfer) -> str:
    return str(transfer.get_state_display()).lower()


# Receipts


@dataclass(frozen=True)
class ReceiptFacts:
    """What a receipt says, after its signature or its typed code was verified.

    `outcome` is `received` or `rejected`, `at` the date in it, `key` the fingerprint of the key that signed it, "" for
    a typed code. `evidence` is Transfer.Evidence RECEIPT or CODE.
    """

    bundle_id: str
    site_code: str
    outcome: str
    at: datetime
    key: str
    evidence: str


def for_receipt(bundle_id: str, site_code: str = "") -> Transfer:
    """The transfer a receipt speaks of, its secret with it. Raises ReceiptRefused for what never left this instance."""
    rows = Transfer.objects.select_related("site", "bundle")
    found = rows.filter(bundle_id=bundle_id).first()
    if found is None:
        raise ReceiptRefused(
            f"This receipt is for bundle {bundle_id[:40]!r}, which was not made here for a site. Load it where the "
            "bundle was made."
        )
    if site_code and site_code not in codes_of(found):
        raise ReceiptRefused(
            f"This receipt comes from site {site_code[:40]!r}, but bundle {bundle_id} was made for {found.site.code}. "
            "Ask there how they came by it."
        )
    return found


def codes_of(transfer: Transfer) -> tuple[str, ...]:
    """What a receipt of it may call the site: its code, and the one it had when the bundle was made, unless that is
    another site's by now."""
    own, former = transfer.site.code, transfer.site_code
    if former in ("", own) or Site.objects.filter(code=former).exists():
        return (own,)
    return (own, former)


def apply_receipt(facts: ReceiptFacts, *, by: str, now: datetime, address: str = "") -> Transfer:
    """Close the transfer by a verified receipt, and bring up to date what the site holds.

    A receipt outweighs what was marked by hand, a signed one a typed code. What was received by a receipt stays so:
    what is there does not go away by a later refusal. Raises ReceiptRefused for a foreign or replayed one.
    """
    if facts.outcome not in (State.RECEIVED, State.REJECTED):
        raise ReceiptRefused(f"A receipt cannot say {facts.outcome[:40]!r}, only received or rejected.")
    with transaction.atomic():
        transfer = _locked(for_receipt(facts.bundle_id, facts.site_code).pk)
        _refuse_replay(transfer, facts)
        before = "" if transfer.is_open else f"; was {_ended(transfer)}, {transfer.get_evidence_display()}"
        transfer.state, transfer.evidence = facts.outcome, facts.evidence
        transfer.closed_at, transfer.closed_by_name = now, by[:150]
        transfer.receipt_key, transfer.receipt_at, transfer.reason = facts.key[:100], facts.at, ""
        how = f"{transfer.get_evidence_display()} of {wording.utc_text(facts.at)}"
        key = f", key {facts.key}" if facts.key else ""
        told = f"{transfer.bundle.filename}; {how}{key}{before}"
        _save(transfer, f"transfer {facts.outcome}", told, by, now, address)
    return transfer


def _refuse_replay(transfer: Transfer, facts: ReceiptFacts) -> None:
    if transfer.evidence not in (Evidence.RECEIPT, Evidence.CODE):
        return
    stronger = transfer.evidence == Evidence.CODE and facts.evidence == Evidence.RECEIPT
    same = transfer.state == facts.outcome
    if (same and not stronger) or (transfer.state == State.RECEIVED and not same):
        when = wording.utc_text(transfer.closed_at) if transfer.closed_at else "before"
        raise ReceiptRefused(
            f"Bundle {transfer.bundle_id} was {_ended(transfer)} at {transfer.site.label} according to a receipt "
            f"loaded {when}. This one changes nothing."
        )


def _locked(transfer_id: str) -> Transfer:
    """The transfer, its site's row locked first. Raises TransferError if it is gone."""
    found = find(transfer_id)
    site = Site.objects.select_for_update(no_key=True).filter(pk=found.site_id).first()
    row = Transfer.objects.select_for_update(of=("self",)).select_related("bundle").filter(pk=found.pk).first()
    if site is None or row is None:
        raise TransferError("The site was removed meanwhile, and its transfers with it.")
    row.site = site
    return row


def _save(transfer: Transfer, action: str, detail: str, by: str, now: datetime, address: str) -> None:
    transfer.save()
    work_out_holdings(transfer.site)
    record.write(by, action, transfer.site.name, detail, address, at=now)


# What a site holds


def work_out_holdings(site: Site) -> None:
    """Write anew what the site holds, from its transfers in the order in which they were prepared.

    Worked out whole each time, so that what is taken back, rejected after all, or arrives out of order leaves no trace.
    """
    rows = site.transfers.filter(state__in=[State.CARRIED, State.RECEIVED]).newest_first()[:LOOKED_BACK]
    transfers = sorted(rows, key=lambda transfer: (transfer.prepared_at, transfer.pk))
    contents: dict[str, list[BundleSnapshot]] = {}
    for row in BundleSnapshot.objects.filter(bundle__in=[transfer.bundle_id for transfer in transfers]):
        contents.setdefault(row.bundle_id, []).append(row)
    known: dict[str, SiteHolding] = {}
    assumed: dict[str, SiteHolding] = {}
    for transfer in transfers:
        received = transfer.state == State.RECEIVED
        for row in contents.get(transfer.bundle_id, []):
            (known if received else assumed)[row.mirror_name] = _holding(site, transfer, row)
            if received:
                # What was carried earlier is older than what is known now.
                assumed.pop(row.mirror_name, None)
        for left in transfer.left_out:
            _confirm(known if received else assumed, known, left, transfer)
    SiteHolding.objects.filter(site=site).delete()
    SiteHolding.objects.bulk_create([*known.values(), *assumed.values()])


def _holding(site: Site, transfer: Transfer, row: BundleSnapshot) -> SiteHolding:
    received = transfer.state == State.RECEIVED
    since = transfer.arrived_at if received else transfer.carried_at
    return SiteHolding(
        site=site,
        transfer=transfer,
        snapshot_id=row.snapshot_id,
        mirror_name=row.mirror_name,
        label=row.label,
        kind=row.kind,
        digest=row.digest,
        identity=row.identity,
        updated_at=row.updated_at,
        next_update=row.next_update,
        confirmed_at=row.confirmed_at,
        since=since or transfer.prepared_at,
        evidence=transfer.evidence if received else SiteHolding.ASSUMED,
        is_assumed=not received,
    )


def _confirm(
    into: dict[str, SiteHolding], known: dict[str, SiteHolding], left: dict[str, Any], transfer: Transfer
) -> None:
    """A bundle that leaves something out says when that was last confirmed at its source; so the site learns it."""
    held = into.get(left["mirror"]) or known.get(left["mirror"])
    confirmed = datetime.fromisoformat(left["confirmed_at"]) if left.get("confirmed_at") else None
    if held is None or held.digest != left["digest"] or confirmed is None:
        return
    if held.confirmed_at is not None and held.confirmed_at >= confirmed:
        return
    if transfer.state == State.RECEIVED or held.is_assumed:
        held.confirmed_at = confirmed
        return
    into[left["mirror"]] = SiteHolding(
        site=held.site,
        transfer=transfer,
        snapshot_id=held.snapshot_id,
        mirror_name=held.mirror_name,
        label=held.label,
        kind=held.kind,
        digest=held.digest,
        identity=held.identity,
        updated_at=held.updated_at,
        next_update=held.next_update,
        confirmed_at=confirmed,
        since=transfer.carried_at or transfer.prepared_at,
        evidence=SiteHolding.ASSUMED,
        is_assumed=True,
    )
