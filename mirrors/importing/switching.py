"""The one transaction of an import: every row it brings, every switch, and the end of the import, or nothing at all."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import models

from mirrors import retention, runs, served_names
from mirrors.bundle.parsed import ParsedBundle, ParsedSnapshot
from mirrors.importing.planning import Decision, Outcome, Plan, Role, digest_shown, identity_of, media_type_of, plan
from mirrors.importing.trust import withdrawn
from mirrors.mirror_rules import RuleBroken
from mirrors.models import Import, ImportedSnapshot, LayerFacts, Mirror, Snapshot, SnapshotBlob
from mirrors.registry.errors import clean
from mirrors.trivy import layers
from mirrors.trivy.catalogue import DEFAULT_MIRRORS, KINDS, SUGGESTED_MIRRORS


class CannotSwitch(Exception):
    """What is here changed since the report was made. `problems` are sentences; nothing was touched."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = problems


def carry_out(
    run: Import, bundle: ParsedBundle, *, fingerprint: str, switch_older: bool, by: str, now: datetime
) -> tuple[Plan, bool]:
    """Do what `plan` says, and whether that changed anything. The caller holds the transaction and the store.

    `fingerprint` is the key that signed ("" for none): it may have been revoked since. Raises CannotSwitch before
    anything is written.
    """
    retention.lock_references()
    if why := withdrawn(fingerprint):
        raise CannotSwitch([why])
    found = plan(bundle, now=now, switch_older=switch_older, lock=True)
    if found.problems:
        raise CannotSwitch(found.problems)
    changed = False
    for decision in found.decisions:
        changed = _carry_out(run, decision, by=by, now=now) or changed
    for snapshot, at in found.confirmed:
        changed = _confirm(snapshot, at) or changed
    return found, changed


def _carry_out(run: Import, decision: Decision, *, by: str, now: datetime) -> bool:
    if decision.outcome == Outcome.LEFT:
        _note(run, decision, None)
        return False
    parsed = decision.parsed
    mirror = decision.mirror or _make_mirror(parsed, now)
    decision.mirror = mirror
    snapshot, changed = decision.existing, False
    if snapshot is not None:
        changed = _confirm(snapshot, parsed.confirmed_at)
    else:
        snapshot = _keep(mirror, parsed, replaced_at=None if decision.outcome == Outcome.SWITCHED else now)
        changed = True
    if decision.outcome == Outcome.SWITCHED:
        runs.stop_open_runs(mirror, by=by, now=now, reason="Stopped because a bundle brought this mirror new content.")
        mirror.switch_to(snapshot, now)
        changed = True
    _note(run, decision, snapshot)
    return changed


def _confirm(snapshot: Snapshot, at: datetime) -> bool:
    """Upstream was seen offering it at `at`, as the connected side says; dates only move forward."""
    return bool(Snapshot.objects.filter(pk=snapshot.pk, confirmed_at__lt=at).update(confirmed_at=at))


def _note(run: Import, decision: Decision, snapshot: Snapshot | None) -> None:
    parsed = decision.parsed
    ImportedSnapshot.objects.create(
        run=run,
        mirror=decision.mirror,
        snapshot=snapshot,
        mirror_name=parsed.mirror,
        label=parsed.label,
        kind=parsed.kind,
        digest=digest_shown(parsed),
        updated_at=parsed.updated_at,
        confirmed_at=parsed.confirmed_at,
        outcome=decision.outcome,
    )


def _make_mirror(parsed: ParsedSnapshot, now: datetime) -> Mirror:
    """A mirror without sources, which only bundles bring up to date."""
    last: int = Mirror.objects.aggregate(last=models.Max("position"))["last"] or 0
    indexes = [blob for blob in parsed.with_role(Role.INDEX) if blob.digest == parsed.manifest_digest]
    mirror = Mirror(
        name=parsed.mirror,
        label=parsed.label,
        kind=parsed.kind,
        position=last + 10,
        schedule="manual",
        version="latest" if parsed.is_release else "",
        platforms=list(indexes[0].details.get("platforms", [])) if indexes else [],
        created_at=now,
    )
    for column, value in _served(mirror, parsed).items():
        setattr(mirror, column, value)
    mirror.save(force_insert=True)
    return mirror


def _served(mirror: Mirror, parsed: ParsedSnapshot) -> dict[str, Any]:
    """Upstream's name for a default mirror, as on the connected side; else its own. Never one that is taken."""
    defaults = (*DEFAULT_MIRRORS, *SUGGESTED_MIRRORS)
    known = next((each for each in defaults if (each.name, each.kind) == (parsed.mirror, parsed.kind)), None)
    own = served_names.own_repository(mirror.name)
    tag = parsed.tag or mirror.asset.default_tag or "latest"
    wishes = [f"{known.repository}:{tag}"] if known is not None and known.repository else []
    for wish in (*wishes, f"{own}:{tag}", f"{own}:{tag[:40]}-{mirror.name}", f"{own}:latest"):
        try:
            asked = wish if mirror.asset.transport == "oci" else None
            return served_names.columns(mirror, mirror.asset, asked, parsed.reference)
        except RuleBroken:
            continue
    raise CannotSwitch([f"Another mirror is served as {own} already. Give it another name, then import again."])


def _keep(mirror: Mirror, parsed: ParsedSnapshot, *, replaced_at: datetime | None) -> Snapshot:
    """The row of what the bundle brought. What is not switched to counts as replaced now, so that it stays a while."""
    snapshot = Snapshot.objects.create(
        mirror=mirror,
        identity=identity_of(parsed),
        manifest_digest=parsed.manifest_digest,
        layer_digest=parsed.layer_digest,
        media_type=media_type_of(parsed)[:200],
        artifact_type=parsed.artifact_type[:200],
        tag=parsed.tag,
        source_reference=parsed.reference,
        tls_verified=parsed.tls_verified,
        version=clean(parsed.version, 100),
        size_bytes=parsed.size,
        item_count=parsed.item_count if parsed.is_vex else len(parsed.with_role(Role.FILE)) or None,
        updated_at=parsed.updated_at,
        next_update=parsed.next_update,
        published_at=parsed.published_at,
        fetched_at=parsed.fetched_at,
        confirmed_at=parsed.confirmed_at,
        replaced_at=replaced_at,
    )
    SnapshotBlob.objects.bulk_create(
        SnapshotBlob(
            snapshot=snapshot,
            position=position,
            digest=blob.digest,
            size_bytes=blob.size,
            role=blob.role,
            media_type=blob.media_type[:200],
            name=clean(blob.name, 255),
            details=blob.details,
        )
        for position, blob in enumerate(parsed.blobs)
    )
    return snapshot


def keep_facts(bundle: ParsedBundle, found: Mapping[str, layers.LayerFacts], now: datetime) -> None:
    """What was read inside a verified bundle's databases: neither an import nor a sync inflates those layers again."""
    LayerFacts.objects.bulk_create(
        (
            LayerFacts.of(blob.digest, snapshot.kind, blob.size, found[blob.digest], now)
            for snapshot in bundle.snapshots
            if snapshot.known and KINDS[snapshot.kind].has_metadata
            for blob in snapshot.layers
            if blob.digest in found
        ),
        ignore_conflicts=True,
    )


def site_problem(bundle: ParsedBundle) -> str:
    """Why a bundle that was prepared for somebody else is not taken; "" if it may be."""
    ours = settings.AIRGAP_SITE_CODE
    if not ours or not bundle.site or bundle.site.casefold() == ours.casefold():
        return ""
    return (
        f"This bundle was prepared for the site {bundle.site}, and this is {ours} (AIRGAP_SITE_CODE). What it leaves "
        "out was chosen for that site. Take the bundle that was made for this one; an administrator may allow this "
        "one for a single import."
    )
