"""How rules stand: where each mirror is pushed to, whether it is there, and what is the matter. For all pages.

The same two queries for one rule or a thousand.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from mirrors import wording
from mirrors.models import PushRule, PushRun
from mirrors.pushing.targets import TargetError, target_of

LEVEL, BEHIND, NEVER, FAILING, PUSHING, WAITING, OFF, EMPTY = (
    "level", "behind", "never", "failing", "pushing", "waiting", "off", "empty",
)  # fmt: skip
WORDS = {
    LEVEL: "has it",
    BEHIND: "behind",
    NEVER: "not yet",
    FAILING: "failing",
    PUSHING: "being pushed",
    WAITING: "waiting",
    OFF: "disabled",
    EMPTY: "nothing to push",
}
# The shapes of run outcomes, which every page has.
SHAPES = {
    LEVEL: "succeeded",
    BEHIND: "queued",
    NEVER: "queued",
    FAILING: "failed",
    PUSHING: "running",
    WAITING: "queued",
    OFF: "cancelled",
    EMPTY: "queued",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """One rule as pages show it. `sentence` is what stands beside the word, "" where the word says it all."""

    rule: PushRule
    open_run: PushRun | None
    state: str
    sentence: str

    @property
    def word(self) -> str:
        return WORDS[self.state]

    @property
    def shape(self) -> str:
        return SHAPES[self.state]

    @property
    def goes(self) -> str:
        """Path and tag there, as they are with what the mirror holds now; the template where that cannot be said."""
        rule = self.rule
        try:
            target = target_of(rule.destination, rule.target, "", rule.mirror, rule.mirror.current)
        except TargetError:
            return rule.target
        return f"{target.repository}:{target.tags[0]}"

    @property
    def is_trouble(self) -> bool:
        """Somebody should know: it fails, or something else is there than should be and nothing is under way."""
        return self.state == FAILING or (self.state == BEHIND and self.rule.automatic)


def standings(rules: Sequence[PushRule], now: datetime) -> list[Standing]:
    """How these rules stand, in their order; best given with `for_pages`."""
    ids = [rule.pk for rule in rules]
    opened = {run.rule_id: run for run in PushRun.objects.open().filter(rule_id__in=ids)} if ids else {}
    return [_standing(rule, opened.get(rule.pk), now) for rule in rules]


def by_mirror(rules: Iterable[PushRule], now: datetime) -> dict[int, list[Standing]]:
    found: dict[int, list[Standing]] = {}
    for standing in standings(list(rules), now):
        found.setdefault(standing.rule.mirror_id, []).append(standing)
    return found


def _standing(rule: PushRule, run: PushRun | None, now: datetime) -> Standing:
    state = _state(rule, run)
    return Standing(rule, run, state, _sentence(rule, state, now))


def _state(rule: PushRule, run: PushRun | None) -> str:
    if not rule.destination.enabled:
        return OFF
    if run is not None:
        return PUSHING if run.state == PushRun.State.RUNNING else WAITING
    if rule.failures:
        return FAILING
    if rule.mirror.current_id is None:
        return EMPTY
    if rule.is_level:
        return LEVEL
    return NEVER if rule.pushed_at is None else BEHIND


def _sentence(rule: PushRule, state: str, now: datetime) -> str:
    upcoming = rule.next_try_at if settings.AIRGAP_SCHEDULE else None
    then = f" {wording.plan_text('Next try', upcoming, now)}." if upcoming is not None else ""
    if state == FAILING:
        return f"{rule.last_error}{then}"
    if state in (BEHIND, NEVER) and not then and rule.automatic:
        return "It is pushed within seconds." if settings.AIRGAP_SCHEDULE else "The schedule is off; push it by hand."
    if state in (BEHIND, NEVER):
        return then.strip() or "Pushed by hand only."
    return ""


def headline(found: Sequence[Standing], label: str, *, enabled: bool) -> str:
    """How a destination stands, in a sentence."""
    if not enabled:
        return f"{label} is disabled. Nothing is pushed there."
    if not found:
        return f"Nothing goes to {label} yet."
    failing = [each for each in found if each.state == FAILING]
    if failing:
        names = wording.joined([wording.with_article(each.rule.mirror.label) for each in failing[:3]])
        more = f" and {len(failing) - 3} more" if len(failing) > 3 else ""
        return f"Pushing {names}{more} to {label} fails."
    if any(each.open_run is not None for each in found):
        return f"{label} is being pushed to."
    missing = [each for each in found if each.state in (BEHIND, NEVER)]
    if missing:
        count = wording.number_word(len(missing))
        verb = "is" if len(missing) == 1 else "are"
        return wording.capitalized(f"{count} of {wording.number_word(len(found))} {verb} not at {label} yet.")
    if all(each.state == EMPTY for each in found):
        return f"There is nothing to push to {label} yet."
    return f"{label} has everything that should be there."
