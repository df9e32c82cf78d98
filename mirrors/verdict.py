"""What goes into a freshness verdict and what comes out: states, causes, facts. The judging is in freshness.py."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from mirrors.trivy.catalogue import Kind, Limits

FRESH, DUE, STALE, EXPIRED, NEVER = "fresh", "due", "stale", "expired", "never"
HELD, LATE, FAILING, SOURCE, COURIER, UPSTREAM = "held", "late", "failing", "source", "courier", "upstream"
CONNECTED, ISOLATED, BOTH = "connected", "isolated", "both"
BUILT, CONFIRMED = "built", "confirmed"


@dataclass(frozen=True)
class Look:
    """How a state is shown and counted: `rank` orders by trouble, `exit_status` is that of the freshness command."""

    state: str
    word: str
    shape: str
    rank: int
    exit_status: int


LOOKS: dict[str, Look] = {
    FRESH: Look(FRESH, "fresh", "●", 0, 0),
    DUE: Look(DUE, "due", "◐", 1, 1),
    STALE: Look(STALE, "stale", "▲", 2, 2),
    EXPIRED: Look(EXPIRED, "expired", "■", 3, 2),
    NEVER: Look(NEVER, "never", "○", 4, 2),
}
STATES: tuple[str, ...] = tuple(LOOKS)

# In order of precedence. The text is for legends and documentation.
CAUSES: dict[str, str] = {
    HELD: "somebody here holds it or switched its syncs off",
    LATE: "we did not even try: its schedule was missed",
    FAILING: "we tried and failed",
    SOURCE: "one source lags behind another",
    COURIER: "no bundle brought anything newer",
    UPSTREAM: "we hold what every source has",
}

EXPECTED_INTERVAL = timedelta(days=7)


def courier_limits(expected_interval: timedelta = EXPECTED_INTERVAL) -> Limits:
    """The isolated side's limits: the courier's interval and a day, twice the interval, 30 days.

    Where couriers are so rare that 30 days would pass first, nothing is expired before it is stale.
    """
    due = expected_interval + timedelta(days=1)
    stale = max(2 * expected_interval, due)
    return Limits(due=due, stale=stale, expired=max(timedelta(days=30), stale))


class SourceFacts(NamedTuple):
    """What one source last told us. A tuple, because a dashboard makes 800 of them.

    `last_ok_at`: when a check of it last succeeded. `last_error`: the sentence of the last check if it failed.
    `lagging`: it last offered an older build than ours. `newer_at`: the build (or publishing) time of something newer
    than ours that it was seen to offer and that we do not hold.
    """

    name: str
    last_ok_at: datetime | None = None
    last_error: str = ""
    lagging: bool = False
    newer_at: datetime | None = None


@dataclass(frozen=True)
class Facts:
    """Everything the verdict on one mirror depends on, as plain values.

    `limits`: None takes the kind's (or the courier's, where bundles bring the data). `held`: somebody holds the current
    snapshot so that syncs do not switch. `schedule_interval`: None for a mirror synced by hand, or where the instance
    sends nothing by itself. `next_sync_at`: the next planned attempt, left standing when it passes until an attempt
    begins. `waiting_since`: when a run was queued that no worker has begun. `next_try_at`: set where a failure chose
    its own next time (Retry-After). `failures`: attempts that failed since the last success. `last_import_at`: when
    the last bundle was imported here, `last_bundle` its name. `clock_behind`: from `trusted_now`.
    """

    label: str
    kind: Kind
    side: str = CONNECTED
    has_sources: bool = True
    limits: Limits | None = None
    expected_interval: timedelta = EXPECTED_INTERVAL
    has_data: bool = False
    updated_at: datetime | None = None
    next_update: datetime | None = None
    published_at: datetime | None = None
    confirmed_at: datetime | None = None
    fetched_at: datetime | None = None
    held: bool = False
    enabled: bool = True
    schedule_interval: timedelta | None = None
    next_sync_at: datetime | None = None
    waiting_since: datetime | None = None
    last_attempt_at: datetime | None = None
    last_success_at: datetime | None = None
    failures: int = 0
    last_error: str = ""
    next_try_at: datetime | None = None
    running: bool = False
    sources: tuple[SourceFacts, ...] = ()
    last_import_at: datetime | None = None
    last_bundle: str = ""
    clock_behind: bool = False

    @property
    def by_courier(self) -> bool:
        """True where bundles, not sources, bring the data."""
        return self.side == ISOLATED or (self.side == BOTH and not self.has_sources)

    @property
    def judged_limits(self) -> Limits:
        if self.limits is not None:
            return self.limits
        return courier_limits(self.expected_interval) if self.by_courier else self.kind.limits

    @property
    def judged_from(self) -> str:
        return BUILT if self.kind.judged_by == "updated_at" else CONFIRMED

    @property
    def judged_at(self) -> datetime | None:
        """The instant the age counts from. What was just fetched was seen upstream at that moment."""
        if not self.has_data:
            return None
        return self.updated_at if self.judged_from == BUILT else self.confirmed_at or self.fetched_at


@dataclass(frozen=True)
class Verdict:
    """The answer for one mirror.

    `sentence` says all in one: the age and whose fault it is. `headline` is the age alone ("The Java DB is 4 days
    old."), `reason` the fault alone, "" when fresh. `lead` and `detail` fill the row's box: a short bold start and the
    rest. `next_step` says what happens next or what to do. `age` is None when there is no data. `next_at` is the next
    planned check, or the next bundle expected. `scanners_after` is the NextUpdate wording, "" if unknown.
    """

    label: str
    state: str
    cause: str
    sentence: str
    headline: str
    reason: str
    lead: str
    detail: str
    next_step: str
    age: timedelta | None
    judged_from: str
    judged_at: datetime | None
    limits: Limits
    next_at: datetime | None = None
    scanners_after: str = ""
    clock_behind: bool = False

    @property
    def is_fresh(self) -> bool:
        return self.state == FRESH

    @property
    def look(self) -> Look:
        return LOOKS[self.state]


@dataclass(frozen=True)
class Summary:
    """The sentence on top of the dashboard, what stands under it, and the clock banner ("" if the clock is right)."""

    headline: str
    explanation: str
    banner: str = ""
