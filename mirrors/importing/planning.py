"""What would become of each snapshot of a bundle: worked out from rows alone, so that it is shown before it is done.

Never backwards: a build that is older than the one served is kept and not switched to, unless somebody says so. Older
is what has the earlier build date, and where the kind is judged by its last confirmation, the earlier confirmation.
"""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mirrors import wording
from mirrors.bundle.parsed import AssumedSnapshot, ParsedBundle, ParsedSnapshot
from mirrors.digests import digest_of, short
from mirrors.importing.report import SnapshotReport, moment
from mirrors.mirror_rules import RuleBroken, checked_name
from mirrors.models import ImportedSnapshot, Mirror, Snapshot, SnapshotBlob
from mirrors.trivy.catalogue import KINDS

AHEAD = timedelta(minutes=10)
# Once taken in, a bundle's date counts as the newest time known, and no clock gets behind it again: one of the two is
# so far off that a person should say which.
FAR_AHEAD = timedelta(days=2)

Outcome = ImportedSnapshot.Outcome
Role = SnapshotBlob.Role


@dataclass
class Decision:
    """One snapshot of the bundle, the mirror it goes to (None: it is made), and the row there is of it already."""

    parsed: ParsedSnapshot
    outcome: str
    sentence: str
    mirror: Mirror | None = None
    existing: Snapshot | None = None
    # Stays true when switching has made the mirror.
    new_mirror: bool = False

    def report(self) -> SnapshotReport:
        parsed = self.parsed
        return SnapshotReport(
            mirror=parsed.mirror,
            label=parsed.label,
            kind=parsed.kind,
            digest=digest_shown(parsed),
            outcome=str(self.outcome),
            sentence=self.sentence,
            size=parsed.size,
            updated_at=moment(parsed.updated_at),
            confirmed_at=moment(parsed.confirmed_at),
            reference=parsed.reference,
            tls_verified=parsed.tls_verified,
            new_mirror=self.new_mirror,
        )


@dataclass
class Plan:
    """`left_out`: what the bundle leaves out because this side was believed to hold it, and whether it is here."""

    decisions: list[Decision] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    confirmed: list[tuple[Snapshot, datetime]] = field(default_factory=list)


def plan(bundle: ParsedBundle, *, now: datetime, switch_older: bool = False, lock: bool = False) -> Plan:
    """Decide about every snapshot. With `lock` the mirrors are locked; the caller holds the transaction."""
    names = [snapshot.mirror for snapshot in bundle.snapshots] + [assumed.mirror for assumed in bundle.assumed]
    rows = Mirror.objects.filter(name__in=names).select_related("current").order_by("pk")
    if lock:
        rows = rows.select_for_update(of=("self",))
    mirrors = {mirror.name: mirror for mirror in rows}
    found = Plan()
    for parsed in bundle.snapshots:
        mirror = mirrors.get(parsed.mirror)
        problem = _problem(parsed, mirror, bundle)
        if problem:
            found.problems.append(problem)
            continue
        found.decisions.append(_decide(parsed, mirror, switch_older=switch_older))
    for assumed in bundle.assumed:
        _assumed(found, assumed, mirrors.get(assumed.mirror), bundle.created_at)
    _clock(found, bundle, now)
    return found


def _problem(parsed: ParsedSnapshot, mirror: Mirror | None, bundle: ParsedBundle) -> str:
    if not parsed.known:
        return ""
    if mirror is not None and mirror.kind != parsed.kind:
        return (
            f"The bundle has {parsed.mirror} as {_a(KINDS[parsed.kind].label)}, but the mirror of that name here is "
            f"{_a(mirror.asset.label)}. Rename one of the two, by adding a mirror under another name there, or by "
            "removing the one here; then import a new bundle."
        )
    if mirror is None:
        try:
            checked_name(parsed.mirror)
        except RuleBroken as broken:
            return f"The bundle names a mirror that cannot be made here: {broken}"
    for what, at in (("built", parsed.updated_at), ("confirmed", parsed.confirmed_at)):
        if at is not None and at > bundle.created_at + AHEAD:
            return (
                f"{parsed.label} is said to be {what} on {wording.utc_text(at)}, after the bundle was made "
                f"({wording.utc_text(bundle.created_at)}). See that the clock of the connected side is right, and make "
                "a new bundle."
            )
    return ""


def _decide(parsed: ParsedSnapshot, mirror: Mirror | None, *, switch_older: bool) -> Decision:
    if not parsed.known:
        return Decision(
            parsed, Outcome.LEFT, f"This version does not know the kind {parsed.kind}; it was verified and left alone."
        )
    built = _built(parsed)
    if mirror is None:
        return Decision(parsed, Outcome.SWITCHED, f"A new mirror, {parsed.mirror}{built}.", new_mirror=True)
    current = mirror.current
    existing = Snapshot.objects.filter(mirror=mirror, identity=identity_of(parsed)).first()
    if current is None:
        return Decision(parsed, Outcome.SWITCHED, f"The first copy here{built}.", mirror, existing)
    if (existing is not None and existing.pk == current.pk) or _same_content(parsed, current):
        later = parsed.confirmed_at > current.confirmed_at
        tail = f", now confirmed as of {wording.utc_text(parsed.confirmed_at)}" if later else ""
        return Decision(parsed, Outcome.CONFIRMED, f"Served already{tail}.", mirror, current)
    if mirror.is_held:
        reason = f" ({mirror.held_reason})" if mirror.held_reason else ""
        return Decision(
            parsed,
            Outcome.HELD,
            f"The mirror is held here{reason}: {_kept(existing)}, not switched.",
            mirror,
            existing,
        )
    behind = _older(parsed, current)
    if behind and not switch_older:
        return Decision(
            parsed, Outcome.OLDER, f"{behind}: {_kept(existing)}, not switched, unless you say so.", mirror, existing
        )
    tail = f", although it is older ({wording.continued(behind)})" if behind else ""
    sentence = f"In place of {short(_shown(mirror, current))}{built}{tail}."
    return Decision(parsed, Outcome.SWITCHED, sentence, mirror, existing)


def _kept(existing: Snapshot | None) -> str:
    return "kept as a snapshot" if existing is None else "a snapshot of it is kept already"


def _older(parsed: ParsedSnapshot, current: Snapshot) -> str:
    """In which way it is older than what is served; "" if it is not."""
    if KINDS[parsed.kind].judged_by == "updated_at":
        if parsed.updated_at is None or current.updated_at is None or parsed.updated_at >= current.updated_at:
            return ""
        theirs, ours = wording.utc_text(parsed.updated_at), wording.utc_text(current.updated_at)
        return f"Older than what is served (built {theirs}, ours {ours})"
    if parsed.confirmed_at >= current.confirmed_at:
        return ""
    theirs, ours = wording.utc_text(parsed.confirmed_at), wording.utc_text(current.confirmed_at)
    return f"Older than what is served (last seen at its source {theirs}, ours {ours})"


def _same_content(parsed: ParsedSnapshot, current: Snapshot) -> bool:
    """The same layer under another manifest, as every registry of upstream's has its own."""
    one_layer = KINDS[parsed.kind].one_layer
    same = parsed.layer_digest == current.layer_digest and media_type_of(parsed) == current.media_type
    return one_layer and bool(parsed.layer_digest) and same


def _assumed(found: Plan, assumed: AssumedSnapshot, mirror: Mirror | None, made: datetime) -> None:
    """What was left out must be here; if it is not, the rest is still good, and a full bundle is needed."""
    built = f", built {wording.utc_text(assumed.updated_at)}" if assumed.updated_at else ""
    digest = short(assumed.layer_digest if assumed.kind == "vex" else assumed.manifest_digest)
    held = _held(assumed, mirror) if mirror is not None and mirror.kind == assumed.kind else None
    if held is None:
        found.left_out.append(f"{assumed.label} ({digest}{built}): not here.")
        found.warnings.append(
            f"The bundle leaves out {wording.with_article(assumed.label)} ({digest}{built}), because "
            "this side was believed to hold it. It is not here. What the bundle does hold can be used; ask the "
            "connected side for a full bundle to get the rest."
        )
        return
    found.left_out.append(f"{assumed.label} ({digest}{built}): is here.")
    if assumed.confirmed_at is not None:
        found.confirmed.append((held, min(assumed.confirmed_at, made)))


def _held(assumed: AssumedSnapshot, mirror: Mirror) -> Snapshot | None:
    rows = Snapshot.objects.filter(mirror=mirror).order_by("-pk")
    same = rows.filter(manifest_digest=assumed.manifest_digest, layer_digest=assumed.layer_digest).first()
    if same is None and assumed.layer_digest:
        same = rows.filter(layer_digest=assumed.layer_digest).first()
    return same


def _clock(found: Plan, bundle: ParsedBundle, now: datetime) -> None:
    far = bundle.created_at > now + FAR_AHEAD
    if bundle.created_at > now + AHEAD:
        found.warnings.append(
            f"The bundle was made on {wording.utc_text(bundle.created_at)}, which is in the future by this machine's "
            f"clock ({wording.utc_text(now)}). Set the clock; until then nothing is called fresh."
            + (" If this clock is right, discard the bundle: its date would count here from then on." if far else "")
        )


# What a row says


def identity_of(parsed: ParsedSnapshot) -> str:
    """As a sync of the same content would have it (Snapshot.identity)."""
    if parsed.is_vex:
        blobs = parsed.with_role(Role.VEX_MANIFEST) + parsed.with_role(Role.VEX_ARCHIVE)
        return digest_of(json.dumps([[blob.digest, blob.details.get("location", "")] for blob in blobs]).encode())
    if parsed.is_release:
        chosen = [(blob.name, blob.digest) for blob in parsed.with_role(Role.FILE)]
        return digest_of(json.dumps([parsed.manifest_digest, *chosen]).encode())
    others = [blob.digest for blob in parsed.with_role(Role.MANIFEST, Role.INDEX)]
    others.remove(parsed.manifest_digest)
    if not others:
        return parsed.manifest_digest
    return digest_of("\n".join([parsed.manifest_digest, *sorted(others)]).encode())


def media_type_of(parsed: ParsedSnapshot) -> str:
    if parsed.is_vex:
        return "application/json"
    return "text/plain" if parsed.is_release else parsed.content_media_type or parsed.media_type


def digest_shown(parsed: ParsedSnapshot) -> str:
    return parsed.layer_digest if parsed.is_vex else parsed.manifest_digest


def _shown(mirror: Mirror, snapshot: Snapshot) -> str:
    return snapshot.layer_digest if mirror.kind == "vex" else snapshot.manifest_digest


def _built(parsed: ParsedSnapshot) -> str:
    return f", built {wording.utc_text(parsed.updated_at)}" if parsed.updated_at and parsed.next_update else ""


def _a(label: str) -> str:
    return f"{'an' if label[:1].lower() in 'aeiou' else 'a'} {label}"
