"""Which mirrors go to a destination, under which name, and whether by themselves. Changes stand in the record."""

from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, transaction

from mirrors import record, wording
from mirrors.mirroring import KEEP, Keep
from mirrors.models import Destination, Mirror, PushRule
from mirrors.pushing.asking import forget_success, stop_open_pushes
from mirrors.pushing.targets import (
    DEFAULT_TARGET,
    Target,
    TargetError,
    checked_extra_tags,
    checked_target,
    target_of,
)
from mirrors.rules import RuleBroken


class PushRuleError(Exception):
    """The rule cannot be made or changed as things are; the sentence says why."""


@dataclass(frozen=True)
class Wish:
    """A rule as it is asked for; KEEP leaves a setting as it is."""

    target: str | Keep = KEEP
    extra_tags: str | Keep = KEEP
    automatic: bool | Keep = KEEP


def refuse_kind(mirror: Mirror) -> None:
    """Raise PushRuleError for what no registry takes."""
    if mirror.kind == "vex":
        raise PushRuleError(
            f"{mirror.label} is a VEX repository: Trivy fetches those over plain HTTP(S), not from a registry. "
            "Scanners take it from this instance, see Use it; or carry it in a bundle."
        )
    if mirror.asset.transport != "oci":
        raise PushRuleError(
            f"{mirror.label} holds files, not an OCI artifact, so it cannot be pushed to a registry. Its files are "
            "served here under /files/ and go into bundles."
        )


def find(mirror: str, destination: str) -> PushRule:
    rule = PushRule.objects.for_pages().filter(mirror__name=mirror, destination__name=destination).first()
    if rule is None:
        raise PushRuleError(
            f"{mirror} is not pushed to {destination}. Say that it should be: "
            f"destination edit {destination} --push {mirror}."
        )
    return rule


def preview(destination: Destination, target: str, extra_tags: str, mirror: Mirror) -> Target:
    """Where the mirror's present content would go. RuleBroken for templates, TargetError for what cannot be filled."""
    return target_of(destination, checked_target(target), checked_extra_tags(extra_tags), mirror, mirror.current)


def add_rule(
    destination: Destination, mirror: Mirror, wish: Wish, *, by: str, now: datetime, address: str = ""
) -> PushRule:
    """From now on the mirror goes there; by itself, its first push is due at once.

    Raises RuleBroken, or PushRuleError if it goes there already, another mirror has that name there, or it is of a kind
    that no registry takes.
    """
    refuse_kind(mirror)
    target = checked_target(DEFAULT_TARGET if isinstance(wish.target, Keep) else wish.target)
    extra_tags = checked_extra_tags("" if isinstance(wish.extra_tags, Keep) else wish.extra_tags)
    automatic = True if isinstance(wish.automatic, Keep) else wish.automatic
    try:
        with transaction.atomic():
            Destination.objects.select_for_update(no_key=True).get(pk=destination.pk)
            _refuse_double(destination, mirror, target, extra_tags)
            rule = PushRule.objects.create(
                mirror=mirror,
                destination=destination,
                target=target,
                extra_tags=extra_tags,
                automatic=automatic,
                created_at=now,
            )
            record.write(
                by, "push rule added", f"{mirror.name} to {destination.name}", _described(rule), address, at=now
            )
    except IntegrityError:
        raise PushRuleError(f"{mirror.label} is pushed to {destination.label} already. Change that rule.") from None
    return rule


def edit_rule(rule: PushRule, wish: Wish, *, by: str, now: datetime, address: str = "") -> tuple[str, ...]:
    """Change what `wish` names; what changed, in words. Another name means that it has still to be pushed there."""
    target = rule.target if isinstance(wish.target, Keep) else checked_target(wish.target)
    extra_tags = rule.extra_tags if isinstance(wish.extra_tags, Keep) else checked_extra_tags(wish.extra_tags)
    automatic = rule.automatic if isinstance(wish.automatic, Keep) else wish.automatic
    with transaction.atomic():
        Destination.objects.select_for_update(no_key=True).get(pk=rule.destination_id)
        _refuse_double(rule.destination, rule.mirror, target, extra_tags)
        changes = []
        if target != rule.target:
            changes.append(f"name: {rule.target} → {target}")
        if extra_tags != rule.extra_tags:
            changes.append(f"further tags: {rule.extra_tags or 'none'} → {extra_tags or 'none'}")
        if automatic != rule.automatic:
            changes.append("after each sync" if automatic else "by hand only")
        own = PushRule.objects.filter(pk=rule.pk)
        if (target, extra_tags) != (rule.target, rule.extra_tags):
            stop_open_pushes(own, by=by, now=now, reason=f"Stopped because {by or 'somebody'} changed where this goes.")
            forget_success(own)
        own.update(target=target, extra_tags=extra_tags, automatic=automatic)
        if changes:
            subject = f"{rule.mirror.name} to {rule.destination.name}"
            record.write(by, "push rule changed", subject, "; ".join(changes), address, at=now)
    rule.refresh_from_db()
    return tuple(changes)


def remove_rule(rule: PushRule, *, by: str, now: datetime, address: str = "") -> None:
    """The mirror goes there no more. What was pushed stays there, and the history of it here."""
    with transaction.atomic():
        own = PushRule.objects.filter(pk=rule.pk)
        stop_open_pushes(own, by=by, now=now, reason=f"Stopped because {by or 'somebody'} removed this rule.")
        subject = f"{rule.mirror.name} to {rule.destination.name}"
        record.write(by, "push rule removed", subject, _described(rule), address, at=now)
        own.delete()


def _described(rule: PushRule) -> str:
    tags = f", further tags {rule.extra_tags}" if rule.extra_tags else ""
    return f"{rule.target}{tags}, {'after each sync' if rule.automatic else 'by hand only'}"


def _refuse_double(destination: Destination, mirror: Mirror, target: str, extra_tags: str) -> None:
    """Two mirrors under one tag would push each other away for ever."""
    try:
        wanted = target_of(destination, target, extra_tags, mirror, mirror.current)
    except TargetError:
        return
    for rule in PushRule.objects.for_pages().filter(destination=destination).exclude(mirror=mirror):
        try:
            taken = target_of(destination, rule.target, rule.extra_tags, rule.mirror, rule.mirror.current)
        except TargetError:
            continue
        both = set(wanted.tags) & set(taken.tags)
        if wanted.repository == taken.repository and both:
            names = wording.joined([f":{tag}" for tag in sorted(both)])
            setting = "target" if wanted.tags[0] in both else "extra_tags"
            raise RuleBroken(
                setting,
                f"{rule.mirror.label} goes to {wanted.repository}{names} there already. Choose another path or tag.",
            )
