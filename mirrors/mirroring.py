"""Adding, changing and removing mirrors. Every change is one transaction, and a line in the record.

A change of what is fetched counts `settings_version` up, stops the run under way and makes the mirror due at once;
other changes leave a run alone. Two administrators who edit at once: the second is told, if it says what it saw.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, models, transaction

from mirrors import content, logins, record, retention, runs, served_names, wording
from mirrors import mirror_rules as rules
from mirrors.freshness import courier_limits
from mirrors.mirror_rules import RuleBroken, SourceSpec
from mirrors.models import Bundle, Mirror, Snapshot, Source
from mirrors.pushing.asking import stop_open_pushes
from mirrors.schedule import Schedule
from mirrors.trivy.catalogue import DEFAULT_MIRRORS, KINDS, SUGGESTED_MIRRORS, Kind, Limits

NOT_ON_THIS_SIDE = "This is an isolated instance: its mirrors come with the bundles that are imported."


class MirroringError(Exception):
    """The change cannot be made to what is there now; the sentence says why, and what would help."""


class UnknownMirror(MirroringError):
    def __init__(self, name: str) -> None:
        super().__init__(f"There is no mirror called {name[:80]!r}. `mirror list` shows those there are.")


class ChangedMeanwhile(MirroringError):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"Somebody else changed {name} while this form was open. Look at what it says now, and save again."
        )


class NameTaken(MirroringError):
    def __init__(self, name: str) -> None:
        super().__init__(f"There is already a mirror called {name}. Choose another name.")


class StillInBundles(MirroringError):
    """Bundles that can still be downloaded contain what is to go."""

    def __init__(self, name: str, bundles: Sequence[Bundle]) -> None:
        files = wording.joined([bundle.filename for bundle in bundles[:3]])
        more = f" and {len(bundles) - 3} more" if len(bundles) > 3 else ""
        super().__init__(
            f"{wording.capitalized(wording.counted(len(bundles), 'bundle'))} that can still be downloaded "
            f"{'contains' if len(bundles) == 1 else 'contain'} data of {name}: {files}{more}. Wait until they have "
            "expired, or confirm that they expire with it (--expire-bundles)."
        )
        self.bundles = list(bundles)


class Keep:
    """Marks a setting that stays as it is."""


KEEP = Keep()


@dataclass(frozen=True)
class Settings:
    """Settings of a mirror as they are asked for; KEEP leaves one as it is. None means: the kind's own."""

    kind: str | Keep = KEEP
    label: str | Keep = KEEP
    sources: Sequence[SourceSpec] | Keep = KEEP
    schedule: str | Keep = KEEP
    proxy: str | Keep = KEEP
    platforms: Iterable[str] | Keep = KEEP
    with_referrers: bool | Keep = KEEP
    version: str | Keep = KEEP
    due: timedelta | Keep | None = KEEP
    stale: timedelta | Keep | None = KEEP
    expired: timedelta | Keep | None = KEEP
    keep: int | Keep | None = KEEP
    served_as: str | Keep = KEEP
    """`REPOSITORY[:TAG]` under /v2/; "" for the mirror's own name."""
    after: str | Keep | None = KEEP
    """The mirror this one stands behind in lists; None is the top."""

    def says(self, name: str) -> bool:
        return not isinstance(getattr(self, name), Keep)


@dataclass(frozen=True)
class Edited:
    """What an edit did: the changed settings in words, and whether something else is fetched from now on.

    `gone` says which address scanners ask in vain from now on, "" for none.
    """

    mirror: Mirror
    changes: tuple[str, ...]
    fetches_anew: bool
    stopped_runs: int = 0
    gone: str = ""


# The columns a form shows, by what an administrator calls them. Those in FETCHED decide what is fetched.
COLUMNS = {
    "kind": "kind",
    "label": "label",
    "schedule": "schedule",
    "proxy": "proxy",
    "platforms": "platforms",
    "with_referrers": "referrers",
    "version": "version",
    "due_seconds": "due after",
    "stale_seconds": "stale after",
    "expired_seconds": "expired after",
    "keep": "snapshots kept",
    "served_repository": "served as",
    "served_tag": "served tag",
    "served_tag_follows": "served tag is the source's",
}
FETCHED = frozenset({"kind", "proxy", "platforms", "with_referrers", "version"})


def find(name: str) -> Mirror:
    """The mirror of this name. Raises UnknownMirror."""
    mirror = Mirror.objects.filter(name=name).first()
    if mirror is None:
        raise UnknownMirror(name)
    return mirror


def fingerprint(mirror: Mirror) -> str:
    """Changes with every setting a form shows, so that an edit can say which state it began from."""
    shown = [getattr(mirror, column) for column in COLUMNS]
    shown += [
        [s.reference, s.insecure, s.ca_pem, *logins.shown(logins.of_row(s))]
        for s in mirror.sources.order_by("position")
    ]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:20]


def default_sources(kind: str) -> list[str]:
    """What a new mirror of this kind is usually pointed at; empty where there is no usual place."""
    usual = (mirror.sources for mirror in (*DEFAULT_MIRRORS, *SUGGESTED_MIRRORS) if mirror.kind == kind)
    return list(next(usual, ()))


# Adding


def add_mirror(name: str, wish: Settings, *, by: str, now: datetime, address: str = "") -> Mirror:
    """A new mirror, due at once unless its schedule is `manual`.

    Raises RuleBroken for a setting that cannot be kept, MirroringError if the name is taken or this side has none.
    """
    if settings.AIRGAP_SIDE == "isolated":
        raise MirroringError(NOT_ON_THIS_SIDE)
    name = rules.checked_name(name)
    if isinstance(wish.kind, Keep):
        raise RuleBroken("kind", f"Say of which kind it is: {', '.join(KINDS)}.")
    if isinstance(wish.sources, Keep):
        raise RuleBroken("sources", "A mirror needs at least one source.")
    try:
        with transaction.atomic():
            if Mirror.objects.filter(name=name).exists():
                raise NameTaken(name)
            mirror = Mirror(name=name, label=name, created_at=now, position=_last_position() + 10)
            values = _checked_values(mirror, wish)
            specs = rules.checked_sources(wish.sources, rules.checked_kind(wish.kind))
            for column, value in values.items():
                setattr(mirror, column, value)
            mirror.next_sync_at = _next_sync(mirror, now)
            mirror.save(force_insert=True)
            _write_sources(mirror, specs)
            if not isinstance(wish.after, Keep):
                _place(mirror, wish.after)
            listed = ", ".join(spec.reference for spec in specs)
            record.write(by, "mirror added", name, f"{mirror.asset.label} from {listed}", address, at=now)
    except IntegrityError:
        if not Mirror.objects.filter(name=name).exists():
            raise
        raise NameTaken(name) from None
    return mirror


# Changing


def edit_mirror(
    name: str, wish: Settings, *, by: str, now: datetime, address: str = "", seen: str | None = None
) -> Edited:
    """Change what `wish` names. `seen` is the fingerprint the editor started from.

    Raises RuleBroken, UnknownMirror, ChangedMeanwhile, or MirroringError where the kind can no longer change.
    """
    with transaction.atomic():
        mirror = _locked(name)
        if seen is not None and seen != fingerprint(mirror):
            raise ChangedMeanwhile(name)
        values = _checked_values(mirror, wish)
        _check_kind_change(mirror, values)
        changes = [
            f"{COLUMNS[column]}: {_said(column, getattr(mirror, column))} → {_said(column, value)}"
            for column, value in values.items()
            if getattr(mirror, column) != value
        ]
        changed = {column for column, value in values.items() if getattr(mirror, column) != value}
        gone = served_names.gone(mirror, values)
        for column in changed:
            setattr(mirror, column, values[column])
        source_changes = _edit_sources(mirror, wish, kind_changed="kind" in changed)
        if not isinstance(wish.after, Keep) and _place(mirror, wish.after):
            changes.append("place in the list")
        edited = _conclude(mirror, changed, changes, source_changes, by=by, now=now, address=address)
        return replace(edited, gone=gone)


def _conclude(
    mirror: Mirror,
    changed: set[str],
    changes: list[str],
    source_changes: list[str],
    *,
    by: str,
    now: datetime,
    address: str,
) -> Edited:
    anew = bool(source_changes or changed & FETCHED)
    columns = [*changed]
    if anew:
        mirror.settings_version += 1
        columns.append("settings_version")
    if anew or "schedule" in changed:
        mirror.next_sync_at = _next_sync(mirror, now, at_once=anew)
        columns.append("next_sync_at")
    if columns:
        mirror.save(update_fields=columns)
    stopped = 0
    if anew:
        stopped = runs.stop_open_runs(
            mirror, by=by, now=now, reason=f"Stopped because {by or 'somebody'} changed what this mirror fetches."
        )
    everything = tuple(source_changes + changes)
    if everything:
        record.write(by, "mirror changed", mirror.name, "; ".join(everything), address, at=now)
    return Edited(mirror, everything, anew, stopped)


def set_enabled(name: str, enabled: bool, *, by: str, now: datetime, address: str = "") -> bool:
    """Switch a mirror on or off; whether that changed anything. Off: nothing is fetched, what is held stays served."""
    with transaction.atomic():
        mirror = _locked(name)
        if mirror.enabled == enabled:
            return False
        if not enabled:
            # First, for a run that ends also says when the next one comes.
            reason = f"Stopped because {by or 'somebody'} disabled this mirror."
            runs.stop_open_runs(mirror, by=by, now=now, reason=reason)
        mirror.enabled = enabled
        mirror.next_sync_at = _next_sync(mirror, now)
        mirror.save(update_fields=["enabled", "next_sync_at"])
        record.write(by, "mirror enabled" if enabled else "mirror disabled", name, "", address, at=now)
    return True


# Removing


@dataclass(frozen=True)
class Removal:
    """What goes with a mirror."""

    snapshots: int
    size_bytes: int
    runs: int
    bundles: tuple[Bundle, ...]
    destinations: tuple[str, ...] = ()


def what_removal_means(mirror: Mirror) -> Removal:
    sizes = mirror.snapshots.aggregate(count=models.Count("pk"), size=models.Sum("size_bytes"))
    destinations = mirror.push_rules.values_list("destination__label", flat=True).order_by("destination__label")
    ended = mirror.runs.count() + mirror.pushes.count()
    return Removal(sizes["count"], sizes["size"] or 0, ended, tuple(_bundles_with(mirror)), tuple(destinations))


def remove_mirror(name: str, *, by: str, now: datetime, address: str = "", expire_bundles: bool = False) -> Removal:
    """Remove a mirror with its snapshots and history. Its blobs go with the next housekeeping.

    Bundles that contain its data could no longer be sent whole: they expire with it if `expire_bundles`, else
    StillInBundles is raised. Also raises UnknownMirror.
    """
    with transaction.atomic():
        retention.lock_references()
        mirror = _locked(name)
        # Locked before bundles are looked for: a bundle made meanwhile has seen them go, or is seen.
        list(Snapshot.objects.select_for_update().filter(mirror=mirror).values_list("pk", flat=True))
        removal = what_removal_means(mirror)
        if removal.bundles and not expire_bundles:
            raise StillInBundles(name, removal.bundles)
        for bundle in removal.bundles:
            retention.forget_bundle(bundle, now)
        reason = f"Stopped because {by or 'somebody'} removed this mirror."
        runs.stop_open_runs(mirror, by=by, now=now, reason=reason)
        stop_open_pushes(mirror.push_rules.all(), by=by, now=now, reason=reason)
        detail = f"{wording.counted(removal.snapshots, 'snapshot')}, {wording.counted(removal.runs, 'run')}"
        if removal.bundles:
            detail += "; expired with it: " + ", ".join(bundle.filename for bundle in removal.bundles)
        if removal.destinations:
            detail += "; no longer pushed to " + wording.joined(list(removal.destinations))
        record.write(by, "mirror removed", name, detail, address, at=now)
        Mirror.objects.filter(pk=mirror.pk).update(current=None, last_run=None)
        mirror.delete()
    return removal


def _bundles_with(mirror: Mirror) -> models.QuerySet[Bundle]:
    return Bundle.objects.kept().filter(contents__snapshot__mirror=mirror).distinct()


# Parts


def _locked(name: str) -> Mirror:
    mirror = Mirror.objects.select_for_update().filter(name=name).first()
    if mirror is None:
        raise UnknownMirror(name)
    return mirror


def _last_position() -> int:
    return Mirror.objects.aggregate(last=models.Max("position"))["last"] or 0


def _next_sync(mirror: Mirror, now: datetime, *, at_once: bool = True) -> datetime | None:
    """Now, after a change of what is fetched; else when the schedule says; never for a manual or disabled mirror."""
    schedule = Schedule.parse(mirror.schedule_text)
    if schedule.is_manual or not mirror.enabled:
        return None
    return now if at_once else schedule.next_after(mirror.last_attempt_at, now, mirror.name)


def _checked_values(mirror: Mirror, wish: Settings) -> dict[str, Any]:
    """The columns to write, each by its rule. Settings that were not named are checked where they lean on others."""

    def asked(name: str, present: Any) -> Any:
        value = getattr(wish, name)
        return present if isinstance(value, Keep) else value

    kind = rules.checked_kind(asked("kind", mirror.kind))
    values: dict[str, Any] = {"kind": kind.name}
    if wish.says("label"):
        values["label"] = rules.checked_label(asked("label", ""), mirror.name)
    if wish.says("schedule"):
        values["schedule"] = rules.checked_schedule(asked("schedule", ""))
    if wish.says("proxy"):
        values["proxy"] = rules.checked_proxy(asked("proxy", ""))
    # Of another kind neither platforms nor versions mean anything.
    same = kind.name == mirror.kind
    values["platforms"] = rules.checked_platforms(asked("platforms", mirror.platforms if same else []), kind)
    values["with_referrers"] = rules.checked_referrers(asked("with_referrers", mirror.with_referrers), kind)
    values["version"] = rules.checked_version(asked("version", mirror.version if same else ""), kind)
    present = {part: _seconds(getattr(mirror, f"{part}_seconds")) for part in ("due", "stale", "expired")}
    usual = usual_limits(mirror, kind)
    limits = rules.checked_limits(usual, *(asked(part, present[part]) for part in ("due", "stale", "expired")))
    for part, limit in zip(("due", "stale", "expired"), limits, strict=True):
        values[f"{part}_seconds"] = None if limit is None else int(limit.total_seconds())
    values["keep"] = rules.checked_keep(asked("keep", mirror.keep), kind)
    served_as = None if isinstance(wish.served_as, Keep) else wish.served_as.strip()
    return values | served_names.columns(mirror, kind, served_as, _first_source(mirror, wish, kind))


def usual_limits(mirror: Mirror | None, kind: Kind) -> Limits:
    """The limits that count where a mirror has none of its own: the kind's, or the courier's where bundles bring it."""
    if comes_in_bundles(mirror):
        return courier_limits(timedelta(days=settings.AIRGAP_COURIER_DAYS))
    return kind.limits


def comes_in_bundles(mirror: Mirror | None) -> bool:
    """Whether couriers, not sources, bring what this mirror holds. None is a mirror yet to be added."""
    if settings.AIRGAP_SIDE == "both":
        return mirror is not None and mirror.pk is not None and not mirror.sources.exists()
    return bool(settings.AIRGAP_SIDE == "isolated")


def _first_source(mirror: Mirror, wish: Settings, kind: Kind) -> str:
    """The reference asked first from now on; "" where there is none."""
    if not isinstance(wish.sources, Keep):
        return next((rules.checked_reference(spec.reference, kind) for spec in wish.sources), "")
    first = mirror.sources.order_by("position").first() if mirror.pk else None
    if first is not None:
        return first.reference
    # What came in a bundle says where it was fetched on the other side.
    return mirror.current.source_reference if mirror.current is not None else ""


def _seconds(value: int | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


def _check_kind_change(mirror: Mirror, values: dict[str, Any]) -> None:
    if values["kind"] != mirror.kind and mirror.snapshots.exists():
        raise MirroringError(
            f"{mirror.name} holds {mirror.asset.label} data, so its kind can no longer change. "
            "Add another mirror of the other kind, and remove this one."
        )


def _said(column: str, value: Any) -> str:
    """A value as the record says it."""
    if value in (None, "", []):
        return "none" if column in ("proxy", "platforms", "served_repository", "served_tag") else "the kind's own"
    if column.endswith("_seconds"):
        return wording.limit_text(timedelta(seconds=value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _place(mirror: Mirror, after: str | None) -> bool:
    """Move the mirror behind another (None: to the top); whether the order changed."""
    before = list(Mirror.objects.order_by("position", "name").values_list("name", flat=True))
    names = [name for name in before if name != mirror.name]
    if after is not None and after not in names:
        raise RuleBroken("after", f"There is no other mirror called {after[:80]!r} to stand behind.")
    names.insert(0 if after is None else names.index(after) + 1, mirror.name)
    if names == before:
        return False
    for index, name in enumerate(names):
        Mirror.objects.filter(name=name).update(position=10 * (index + 1))
    mirror.position = 10 * (names.index(mirror.name) + 1)
    return True


# Sources


def specs_of(mirror: Mirror) -> list[SourceSpec]:
    """The sources as they are, in order, ready to be changed and given to `edit_mirror`."""
    return [
        SourceSpec(source.reference, source.insecure, source.ca_pem, logins.of_row(source))
        for source in mirror.sources.order_by("position")
    ]


def _edit_sources(mirror: Mirror, wish: Settings, *, kind_changed: bool) -> list[str]:
    """Put the wished list in place of the present one; what changed, in words without secrets."""
    if isinstance(wish.sources, Keep):
        if kind_changed:
            # The sources that are there must be of the new kind, too.
            rules.checked_sources(specs_of(mirror), mirror.asset)
        return []
    specs = rules.checked_sources(wish.sources, mirror.asset)
    present = {source.reference: source for source in mirror.sources.all()}
    order = [source.reference for source in mirror.sources.order_by("position")]
    wanted = [spec.reference for spec in specs]
    changes = []
    if order != wanted:
        changes.append(f"sources: {', '.join(order)} → {', '.join(wanted)}")
    for spec in specs:
        source = present.get(spec.reference)
        words = _connection_changes(source, spec)
        if words:
            changes.append(f"{spec.reference}: {', '.join(words)}")
    if changes:
        _write_sources(mirror, specs, present)
    return changes


def _connection_changes(source: Source | None, spec: SourceSpec) -> list[str]:
    before = source or Source()
    words = []
    if before.insecure != spec.insecure:
        words.append("unverified connections allowed" if spec.insecure else "unverified connections refused")
    if before.ca_pem != spec.ca_pem:
        words.append("CA changed" if spec.ca_pem else "CA removed")
    return words + logins.changes(logins.of_row(before), spec.login)


def _write_sources(mirror: Mirror, specs: Sequence[SourceSpec], present: dict[str, Source] | None = None) -> None:
    """Rows in the order of `specs`. What a source last answered is kept where the way to it stays the same."""
    vault = content.vault()
    present = present or {}
    kept = {spec.reference for spec in specs}
    Source.objects.filter(mirror=mirror).exclude(reference__in=kept).delete()
    # Positions are unique: everybody steps aside before anybody takes a place.
    Source.objects.filter(mirror=mirror).update(position=models.F("position") + 10_000)
    for position, spec in enumerate(specs):
        source = present.get(spec.reference)
        if source is None or _connection_changes(source, spec):
            old, source = source, Source(mirror=mirror, reference=spec.reference)
            if old is not None:
                source.pk = old.pk
        source.position, source.insecure, source.ca_pem = position, spec.insecure, spec.ca_pem
        logins.put(source, spec.login, vault)
        source.save()
