"""The verdict: how old a mirror's data is, whose fault that is, and what happens next.

One pure function decides for the pages, the commands, the API and the alerts; nobody else decides what stale means.
"Built" is all we can say: a rebuild from a stuck feed looks fresh, so nothing here says "up to date".
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from mirrors import wording
from mirrors.schedule import jitter_limit
from mirrors.verdict import (
    BOTH,
    BUILT,
    CAUSES,
    CONFIRMED,
    CONNECTED,
    COURIER,
    DUE,
    EXPECTED_INTERVAL,
    EXPIRED,
    FAILING,
    FRESH,
    HELD,
    ISOLATED,
    LATE,
    LOOKS,
    NEVER,
    SOURCE,
    STALE,
    STATES,
    UPSTREAM,
    Facts,
    Look,
    SourceFacts,
    Summary,
    Verdict,
    courier_limits,
)

__all__ = [
    "BOTH",
    "BUILT",
    "CAUSES",
    "CONFIRMED",
    "CONNECTED",
    "COURIER",
    "DUE",
    "EXPECTED_INTERVAL",
    "EXPIRED",
    "FAILING",
    "FRESH",
    "HELD",
    "ISOLATED",
    "LATE",
    "LOOKS",
    "NEVER",
    "SOURCE",
    "STALE",
    "STATES",
    "UPSTREAM",
    "Facts",
    "Look",
    "SourceFacts",
    "Summary",
    "Verdict",
    "clock_banner",
    "courier_limits",
    "judge",
    "scanners_after",
    "summarize",
    "trusted_now",
]

# Between two checks of a source lie the interval, the jitter and the length of the run itself.
RUN_ALLOWANCE = timedelta(minutes=5)
# Clocks of several hosts never agree to the second; only a clock behind by more than this is called wrong.
CLOCK_TOLERANCE = timedelta(minutes=1)


def trusted_now(system_now: datetime, newest_seen: datetime | None) -> tuple[datetime, bool]:
    """The later of the clock and the newest time in any verified snapshot or bundle, and whether the clock is wrong."""
    if newest_seen is None or newest_seen <= system_now:
        return system_now, False
    return newest_seen, newest_seen - system_now > CLOCK_TOLERANCE


def clock_banner(system_now: datetime, newest_seen: datetime) -> str:
    """The sentence that stands on every page while the clock is behind."""
    return (
        f"This machine's clock says {wording.utc_text(system_now)}, but verified data is from "
        f"{wording.utc_text(newest_seen)}: nothing is called fresh until the clock is set right."
    )


def judge(facts: Facts, now: datetime) -> Verdict:
    """The verdict on one mirror at `now` (that of `trusted_now`). Every limit is inclusive: at exactly 9 h it is fresh.

    1. The age and the limits give the state; with a clock that is behind, nothing is better than due.
    2. Anything but fresh gets the first cause that holds, in the order of `CAUSES`.
    3. State, cause and plan become words.
    """
    age = None if facts.judged_at is None else max(now - facts.judged_at, timedelta())
    state = _state(facts, age)
    cause = "" if state == FRESH else _cause(facts, now)
    only_the_clock = facts.clock_behind and state == FRESH
    if only_the_clock:
        state, lead, reason, next_step = DUE, "The clock is behind.", _CLOCK, _SET_CLOCK
    else:
        lead, reason = ("", "") if state == FRESH else _reason(facts, cause, now)
        next_step = _next_step(facts, state, cause, now)
    sentence = _opening(facts, age, state) + (f"; {reason}" if reason else "")
    if facts.clock_behind and not only_the_clock:
        sentence = f"{sentence}, and {_CLOCK}"
    return Verdict(
        label=facts.label,
        state=state,
        cause=cause,
        sentence=f"{sentence}.",
        headline=_headline(facts, age),
        reason=wording.capitalized(reason) + "." if reason else "",
        lead=lead,
        detail=_detail(facts, reason, cause, next_step, now),
        next_step=next_step,
        age=age,
        judged_from=facts.judged_from,
        judged_at=facts.judged_at,
        limits=facts.judged_limits,
        next_at=_next_at(facts),
        scanners_after=scanners_after(facts.next_update) if facts.has_data else "",
        clock_behind=facts.clock_behind,
    )


_CLOCK = "this machine's clock is behind the newest verified data, so the age cannot be trusted"
_SET_CLOCK = "Set this machine's clock."


def scanners_after(next_update: datetime | None) -> str:
    """What NextUpdate means. It is no expiry date: Trivy asks again after it and uses what it has (pkg/db/db.go)."""
    if next_update is None:
        return ""
    return f"Scanners without skip flags download again after {wording.utc_text(next_update)}."


# --- what is the state, and who is to blame ---------------------------------------------------------------------------


def _state(facts: Facts, age: timedelta | None) -> str:
    if not facts.has_data:
        return NEVER
    limits = facts.judged_limits
    # Data without the date it is judged by must not pass as good. The worst limit that is passed decides, so that
    # limits set in the wrong order still warn.
    if age is None or age > limits.expired:
        return EXPIRED
    if age > limits.stale:
        return STALE
    return DUE if age > limits.due else FRESH


def _cause(facts: Facts, now: datetime) -> str:
    """The first cause that holds. For a mirror with sources and no cause in the strict sense: late or none.

    That happens in a gap of the rules: not fresh, no failure, no schedule missed by twice its interval, and yet not
    every source was heard within the interval. If nothing at all was tried within the interval, not trying is the
    fault (also of a mirror synced by hand, measured by its kind's interval); else nobody is blamed.
    """
    if (facts.held and facts.has_data) or (not facts.enabled and not facts.by_courier):
        return HELD
    if facts.by_courier:
        return COURIER
    if _missed(facts, now):
        return LATE
    if facts.failures > 0:
        return FAILING
    if not facts.has_data:
        return ""
    if _newer(facts) or any(source.lagging for source in facts.sources):
        return SOURCE
    if facts.sources and not _unheard(facts, now):
        return UPSTREAM
    if not facts.running and (facts.last_attempt_at is None or facts.last_attempt_at < now - _within(facts)):
        return LATE
    return ""


def _missed(facts: Facts, now: datetime) -> bool:
    """A planned attempt, or a queued run that no worker began, lies back by more than twice the interval."""
    planned = _planned(facts)
    if facts.running or facts.schedule_interval is None or planned is None:
        return False
    return now - planned > 2 * facts.schedule_interval


def _planned(facts: Facts) -> datetime | None:
    """The earliest attempt that was due and did not begin. Without a stored plan: one interval after the last."""
    if facts.next_sync_at is None and facts.last_attempt_at and facts.schedule_interval and not facts.next_try_at:
        return facts.last_attempt_at + facts.schedule_interval
    return min((moment for moment in (_next_at(facts), facts.waiting_since) if moment), default=None)


def _within(facts: Facts) -> timedelta:
    """How far back a check still counts as within the interval."""
    interval = facts.schedule_interval or facts.kind.check_every
    return interval + jitter_limit(interval) + RUN_ALLOWANCE


def _newer(facts: Facts) -> list[tuple[datetime, str]]:
    """The sources that were seen to offer something newer than what we hold, newest first."""
    ours = facts.updated_at or facts.published_at
    found = [(s.newer_at, s.name) for s in facts.sources if s.newer_at and (ours is None or s.newer_at > ours)]
    return sorted(found, reverse=True)


def _unheard(facts: Facts, now: datetime) -> list[str]:
    """The sources without a good check within the interval."""
    since = now - _within(facts)
    return [source.name for source in facts.sources if source.last_ok_at is None or source.last_ok_at < since]


def _next_at(facts: Facts) -> datetime | None:
    if facts.by_courier:
        return facts.last_import_at + facts.expected_interval if facts.last_import_at else None
    return facts.next_try_at or facts.next_sync_at if facts.enabled else None


# --- the words --------------------------------------------------------------------------------------------------------


def _subject(facts: Facts) -> str:
    return wording.with_article(facts.label, start=True)


def _headline(facts: Facts, age: timedelta | None) -> str:
    if age is None:
        return f"{_opening(facts, age, NEVER)}."
    if facts.judged_from == BUILT:
        return f"{_subject(facts)} is {wording.long_age(age)} old."
    return f"{_subject(facts)} was last confirmed {wording.long_age(age)} ago."


def _opening(facts: Facts, age: timedelta | None, state: str) -> str:
    """How the sentence begins: the age, without a full stop."""
    if not facts.has_data:
        return f"{_subject(facts)} has never {'come in a bundle' if facts.by_courier else 'been fetched'}"
    if age is None:
        return f"Nobody can say how old {wording.with_article(facts.label)} is, for its date is missing"
    if facts.judged_from == BUILT:
        return f"{_subject(facts)} was built {wording.long_age(age)} ago"
    whom = "by the connected side " if facts.by_courier else ""
    last = "" if state == FRESH else "last "
    return f"{_subject(facts)} was {last}confirmed {whom}{wording.long_age(age)} ago to be what upstream has"


def _reason(facts: Facts, cause: str, now: datetime) -> tuple[str, str]:
    """The bold lead of the row's box, and whose fault it is as a clause without a full stop."""
    if cause == HELD:
        if facts.held:
            return "Held on purpose.", f"it is held, and {_switchers(facts)} do not switch it to a newer build"
        return "Switched off.", "its syncs are switched off"
    if cause == LATE:
        return "Not tried on our side.", _late(facts, now)
    if cause == FAILING:
        error = wording.continued(wording.first_sentence(facts.last_error))
        return "Failing on our side.", f"our last {_attempts(facts)} failed" + (f": {error}" if error else "")
    if cause == SOURCE:
        return "A source lags.", _lag(facts, now)
    if cause == COURIER:
        return "Nothing newer came across.", _courier(facts, now)
    if cause == UPSTREAM:
        return "Waiting for upstream.", f"upstream has nothing newer: {_asked(facts, now)}"
    if not facts.has_data:
        return "Not fetched yet.", "no sync has finished yet" if facts.last_attempt_at else "no sync has been tried yet"
    unheard = wording.joined(_unheard(facts, now))
    but = f", but nothing was heard lately from {unheard}" if unheard else ""
    return "Not every source was heard.", f"our last sync found nothing newer{but}"


def _switchers(facts: Facts) -> str:
    return "imports" if facts.by_courier else "syncs"


def _asked(facts: Facts, now: datetime) -> str:
    oldest = min(source.last_ok_at for source in facts.sources if source.last_ok_at)
    count = len(facts.sources)
    all_of_them = {1: "our only source was", 2: "both sources were"}.get(
        count, f"all {wording.number_word(count)} sources were"
    )
    return f"{all_of_them} asked {'at' if count == 1 else 'since'} {wording.short_utc(oldest, now)}"


def _attempts(facts: Facts) -> str:
    return "attempt" if facts.failures == 1 else f"{facts.failures} attempts"


def _late(facts: Facts, now: datetime) -> str:
    planned = _planned(facts)
    if _missed(facts, now) and planned is not None:
        if planned == facts.waiting_since:
            return f"no worker of ours has begun the run queued at {wording.utc_text(planned)}"
        return f"our sync planned for {wording.utc_text(planned)} never began"
    if facts.last_attempt_at is None:
        return "we have not tried yet"
    since = wording.utc_text(facts.last_attempt_at)
    if facts.schedule_interval is None:
        return f"it is synced by hand only, and nobody has since {since}"
    return f"we have not tried since {since}"


def _lag(facts: Facts, now: datetime) -> str:
    newer = _newer(facts)
    ahead = {name for _, name in newer}
    lagging = [source.name for source in facts.sources if source.lagging and source.name not in ahead]
    if not newer:
        return f"{wording.joined(lagging)} still {_verb(lagging, 'offers', 'offer')} an older build than ours"
    built, name = newer[0]
    behind = lagging or [source.name for source in facts.sources if source.name not in ahead]
    start = f"{wording.joined(behind)} {_verb(behind, 'lags', 'lag')}, while " if behind else ""
    return f"{start}{name} has a build of {wording.short_utc(built, now)}"


def _verb(subjects: Sequence[str], one: str, many: str) -> str:
    return one if len(subjects) == 1 else many


def _courier(facts: Facts, now: datetime) -> str:
    if facts.last_import_at is None:
        return "no bundle has brought a newer one" if facts.has_data else "no bundle has been imported yet"
    imported = f"imported {wording.ago_text(facts.last_import_at, now)}"
    named = f"{facts.last_bundle}, {imported}" if facts.last_bundle else imported
    if not facts.has_data:
        return f"the last bundle, {named}, did not carry it"
    if now - facts.last_import_at > facts.expected_interval:
        return f"no bundle has come since {'' if facts.last_bundle else 'the one '}{named}"
    return f"the last bundle, {named}, brought nothing newer"


def _when(facts: Facts, now: datetime, what: str) -> str:
    """`Next check in 12 minutes`; `The next check is due now`. Empty for what is synced by hand only."""
    at = _next_at(facts)
    if at is None or facts.schedule_interval is None:
        return ""
    return wording.plan_text(what, at, now)


def _next_step(facts: Facts, state: str, cause: str, now: datetime) -> str:
    """What happens next by itself, or what somebody has to do."""
    if facts.running:
        return "A sync is running now."
    if cause == COURIER:
        return "Ask the connected side for a new bundle and import it."
    if facts.held and facts.has_data:
        return f"Release it to let {_switchers(facts)} switch it again."
    if facts.by_courier:
        at = _next_at(facts)
        if at is None:
            return "The next bundle brings the next build."
        return f"The next bundle {'is' if at >= now else 'was'} expected by {wording.utc_text(at)}."
    if not facts.enabled:
        return "Enable the mirror to sync it again."
    if cause == LATE:
        by_hand = facts.schedule_interval is None
        return "Sync now." if by_hand else "See that the scheduler and a worker are running, or sync now."
    if cause == FAILING:
        return f"{_when(facts, now, 'Next try') or 'Sync now to try again'}."
    if not facts.has_data:
        return f"{_when(facts, now, 'The first sync starts') or 'Sync now to fetch it'}."
    if state == FRESH:
        return f"{_when(facts, now, 'Next check') or 'It is synced by hand only'}."
    if cause == UPSTREAM:
        return f"There is nothing to do but wait. {_when(facts, now, 'Next check') or 'It is synced by hand only'}."
    plan = _when(facts, now, "Next sync")
    return f"{plan}; it asks every source." if plan else "Sync now asks every source."


def _detail(facts: Facts, reason: str, cause: str, next_step: str, now: datetime) -> str:
    """What follows the lead in the row's box. A failure of fresh data is told too, without a lead."""
    if cause != FAILING and not (facts.failures and not reason and not facts.by_courier):
        return f"{wording.capitalized(reason)}. {next_step}" if reason else ""
    newer = _newer(facts)
    has = f"Upstream has a build of {wording.short_utc(newer[0][0], now)}. " if newer else ""
    several = facts.last_success_at if facts.failures > 1 else None
    since = f", since {wording.short_utc(several, now)}," if several else ""
    error = f": {wording.continued(facts.last_error.strip())}" if facts.last_error.strip() else "."
    return f"{has}Our last {_attempts(facts)}{since} failed{error} {next_step}"


# --- the sentence on top ----------------------------------------------------------------------------------------------


def summarize(verdicts: Sequence[Verdict], side: str = CONNECTED, banner: str = "") -> Summary:
    """How things stand, in the manner of "Three of four are fresh. The Java DB is 4 days old."

    `banner` is that of `clock_banner` and is passed through. The explanation is the worst mirror's.
    """
    if not verdicts:
        if side == ISOLATED:
            return Summary("Nothing has come across yet.", "What this side holds comes in bundles.", banner)
        return Summary("Nothing is mirrored yet.", "Add a mirror to begin.", banner)
    troubled = sorted((verdict for verdict in verdicts if not verdict.is_fresh), key=_trouble, reverse=True)
    total, fresh = len(verdicts), len(verdicts) - len(troubled)
    if not troubled:
        return Summary(_all_fresh(verdicts), _quiet(verdicts), banner)
    worst = troubled[0]
    explanation = f"{worst.reason} {worst.next_step}".strip()
    if all(verdict.clock_behind for verdict in verdicts):
        explanation = f"{wording.capitalized(_CLOCK)}. {_SET_CLOCK}"
        return Summary("This machine's clock is behind; nothing can be called fresh.", explanation, banner)
    if total > 1 and all(verdict.state == NEVER for verdict in verdicts):
        return Summary("Nothing has been fetched yet.", explanation, banner)
    count = wording.capitalized("none" if fresh == 0 else wording.number_word(fresh))
    start = f"{count} of {wording.number_word(total)} {'is' if fresh < 2 else 'are'} fresh. " if total > 1 else ""
    return Summary(f"{start}{_named(troubled)}", explanation, banner)


def _trouble(verdict: Verdict) -> tuple[bool, int, timedelta]:
    """Worst last. A mirror that only waits for its first sync must not hide one whose data grows old."""
    return (verdict.state != NEVER or bool(verdict.cause), verdict.look.rank, verdict.age or timedelta())


def _all_fresh(verdicts: Sequence[Verdict]) -> str:
    if len(verdicts) == 1:
        return f"{wording.with_article(verdicts[0].label, start=True)} is fresh."
    return "Both are fresh." if len(verdicts) == 2 else f"All {wording.number_word(len(verdicts))} are fresh."


def _quiet(verdicts: Sequence[Verdict]) -> str:
    """Under "All five are fresh.": the oldest build, and the next thing that happens."""
    built = [verdict for verdict in verdicts if verdict.judged_from == BUILT and verdict.age is not None]
    planned = [verdict for verdict in verdicts if verdict.next_at is not None]
    words = []
    if built:
        oldest = max(built, key=lambda verdict: verdict.age or timedelta())
        words.append(oldest.sentence)
    if planned:
        words.append(min(planned, key=lambda verdict: verdict.next_at or datetime.max).next_step)
    return " ".join(words)


def _named(troubled: Sequence[Verdict]) -> str:
    """The ages of the two worst, and how many more."""
    headlines = [verdict.headline.rstrip(".") for verdict in troubled[:2]]
    rest = len(troubled) - 2
    # Only a leading article is lowered; a name keeps its capital.
    headlines[1:] = ["the " + text[4:] if text.startswith("The ") else text for text in headlines[1:]]
    if rest > 0:
        return f"{', '.join(headlines)}, and {rest} more {'is' if rest == 1 else 'are'} not fresh."
    return f"{wording.joined(headlines)}."
