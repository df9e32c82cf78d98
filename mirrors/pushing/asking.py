"""Pushes: asked for, remembered on their rule, tried again, opened when they are due. `PUSHES` is their life."""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from mirrors.leases import Life
from mirrors.models import Mirror, PushRule, PushRun

FIRST_RETRY = timedelta(minutes=1)
LONGEST_RETRY = timedelta(hours=1)
# For what no waiting heals: a wrong password, a project that is not there, an upload that is too large.
HOPELESS_RETRY = timedelta(hours=6)
# Longer than any server should ask for; else a broken one would silence its own pushes for a year.
LONGEST_RETRY_AFTER = timedelta(days=1)
AFTER_A_STOP = timedelta(hours=1)

Trigger = PushRun.Trigger


class PushRefused(Exception):
    """A push cannot be asked for; the sentence says why."""


def request_push(rule: PushRule, *, trigger: str, by: str, now: datetime, losses: int = 0) -> tuple[PushRun, bool]:
    """The rule's open push, made now if there is none; and whether it was made."""
    mirror, destination = rule.mirror, rule.destination
    if not destination.enabled:
        raise PushRefused(f"{destination.label} is disabled. Enable it in its settings first.")
    if mirror.current_id is None:
        raise PushRefused(f"{mirror.label} holds nothing yet. Sync it first.")
    for _ in range(3):
        try:
            with transaction.atomic():
                run = PushRun.objects.create(
                    rule=rule,
                    mirror=mirror,
                    destination=destination,
                    trigger=trigger,
                    requested_by=by[:150],
                    queued_at=now,
                    losses=losses,
                )
            return run, True
        except IntegrityError:
            existing = PushRun.objects.open().filter(rule=rule).first()
            if existing is not None:
                return existing, False
    raise PushRefused(f"A push of {mirror.name} to {destination.name} could not be opened; try again.")


def open_due(now: datetime) -> list[PushRun]:
    """A push for every rule whose time has come; whatever has happened since the last one, it is one."""
    if not settings.AIRGAP_SCHEDULE:
        return []
    opened = []
    for rule in PushRule.objects.due(now).select_related("mirror", "destination"):
        trigger = Trigger.RETRY if rule.failures else Trigger.SYNC
        try:
            run, created = request_push(rule, trigger=trigger, by="", now=now)
        except PushRefused:  # it was disabled in this moment
            continue
        if created:
            opened.append(run)
    return opened


def stop_open_pushes(rules: Any, *, by: str, now: datetime, reason: str) -> int:
    """Stop what is under way for these rules (a queryset), as when their settings change."""
    found = PUSHES.related().open().filter(rule__in=rules)
    return sum(PUSHES.stop(run, by=by, now=now, reason=reason) for run in found)


class Pushes(Life[PushRun]):
    model = PushRun
    stopped = "push stopped"

    def lock_subject(self, run_id: int) -> None:
        """The mirror before the rule, as when it switches; an edit of a destination locks its rules."""
        run = PushRun.objects.filter(pk=run_id)
        list(Mirror.objects.select_for_update().filter(pk__in=run.values("mirror_id")).values_list("pk", flat=True))
        list(PushRule.objects.select_for_update().filter(pk__in=run.values("rule_id")).values_list("pk", flat=True))

    def remember(self, run: PushRun, *, now: datetime, retry_at: datetime | None = None) -> None:
        rule = PushRule.objects.filter(pk=run.rule_id).first() if run.rule_id is not None else None
        if rule is None:
            return
        rule.last_run = run
        if run.is_success:
            rule.checked_at, rule.failures, rule.last_error = now, 0, ""
            rule.failing_since = rule.next_try_at = None
        elif run.state == PushRun.State.FAILED:
            rule.failures += 1
            rule.last_error = run.error
            rule.failing_since = rule.failing_since or run.started_at or now
            rule.next_try_at = next_try(rule.failures, now=now, retry_at=retry_at)
        elif run.state == PushRun.State.CANCELLED:
            # What was stopped on purpose does not begin again in the next second.
            rule.next_try_at = now + AFTER_A_STOP if rule.automatic else None
        rule.save(update_fields=["last_run", "checked_at", "failures", "last_error", "failing_since", "next_try_at"])

    def ask_again(self, run: PushRun, *, now: datetime) -> PushRun | None:
        if run.rule is None:
            return None
        try:
            fresh, created = request_push(
                run.rule, trigger=Trigger.RETRY, by=run.requested_by, now=now, losses=run.losses + 1
            )
        except PushRefused:
            return None
        return fresh if created else None

    def named(self, run: PushRun) -> str:
        return f"{run.mirror.name} to {run.destination.name}"

    def related(self) -> Any:
        return PushRun.objects.select_related("mirror", "destination", "rule__mirror", "rule__destination")

    def claimable(self) -> Any:
        return PushRun.objects.claimable()


PUSHES = Pushes()


def next_try(failures: int, *, now: datetime, retry_at: datetime | None = None) -> datetime:
    """1, 2, 4 … minutes up to an hour after a failure, and never before `retry_at` (which says how long to wait)."""
    backoff: timedelta = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(max(failures, 1) - 1, 10))
    if retry_at is None:
        return now + backoff
    return min(max(now + backoff, retry_at), now + LONGEST_RETRY_AFTER)


def forget_failures(rules: Any) -> None:
    """What is new may help: try again soon, and count from one."""
    rules.update(failures=0, next_try_at=None)


def forget_success(rules: Any) -> None:
    """They go elsewhere now: what was pushed before says nothing."""
    rules.update(pushed_snapshot=None, pushed_digest="", pushed_reference="", pushed_at=None, checked_at=None)
    forget_failures(rules)
