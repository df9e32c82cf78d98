"""When a mirror is due: an interval (`6h`, `90m`, `1d`), a five-field cron line in UTC, or `manual`.

Computes times only. Who stores them as `next_sync_at` and who sends what is due lives above.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise

from croniter import CroniterBadDateError, croniter

from mirrors import wording

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
SHORTEST = MINUTE
LONGEST = timedelta(days=365)
LARGEST_JITTER = timedelta(minutes=5)
MANUAL = "manual"

_INTERVAL = re.compile(r"(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m(?:in)?)?", re.ASCII)
# What cron(5) and croniter agree on. croniter also takes seconds, years, H and R (random at every call); a schedule
# that differs between two readings of it cannot be shown to anybody.
_POINT = r"(?:[0-9]{1,2}|[a-z]{3})"
_CRON_PART = re.compile(rf"(?:\*|{_POINT}(?:-{_POINT})?)(?:/[0-9]{{1,2}})?|l|l[0-7]|{_POINT}#[1-5]", re.ASCII)
# Days are compared over five years, so that the 29th of February is seen twice.
_SURVEY_START = datetime(2024, 1, 1, tzinfo=UTC)
_SURVEY_END = datetime(2029, 1, 1, tzinfo=UTC)


class ScheduleError(ValueError):
    """The text is not a schedule. The sentence says what would be one."""


def jitter_limit(interval: timedelta) -> timedelta:
    """A tenth of the interval, five minutes at most."""
    return min(interval / 10, LARGEST_JITTER)


def jitter(key: str, interval: timedelta) -> timedelta:
    """The same delay for the same key, in whole seconds from 0 to `jitter_limit`; spreads mirrors of one schedule."""
    seconds = int(jitter_limit(interval).total_seconds())
    return timedelta(seconds=int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % (seconds + 1))


@dataclass(frozen=True)
class Schedule:
    """`text` is the schedule as it is kept; `every` is set for an interval, `cron` for a cron line, neither by hand."""

    text: str
    every: timedelta | None = None
    cron: str = ""

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Read `6h`, `1d12h`, `*/30 * * * *` or `manual`; raises ScheduleError."""
        clean = " ".join(text.lower().split())
        if clean == MANUAL:
            return cls(MANUAL)
        if len(clean.split(" ")) > 1:
            return cls(clean, cron=_checked_cron(clean))
        match = _INTERVAL.fullmatch(clean)
        if not clean or match is None:
            raise ScheduleError(
                f"{text[:80]!r} is not a schedule. Write an interval such as 90m, 6h or 1d, five cron fields such as "
                f'"0 6 * * *" (UTC), or manual.'
            )
        days, hours, minutes = (int(part or 0) for part in match.groups())
        every = timedelta(days=days, hours=hours, minutes=minutes)
        if not SHORTEST <= every <= LONGEST:
            raise ScheduleError(f"An interval of {clean} cannot be kept. Write one between 1m and 365d, or manual.")
        return cls(clean, every=every)

    @property
    def is_manual(self) -> bool:
        return self.every is None and not self.cron

    def next_after(self, last: datetime | None, now: datetime, key: str) -> datetime | None:
        """When to sync next, given when the last attempt began; None if only by hand.

        A time at or before `now` means: now. However many were missed, only the latest of them is returned, so a long
        sleep ends in one run. Never tried: an interval is due at once, a cron line waits for its hour, for somebody
        chose that hour. Keep the answer until an attempt begins; how far it lies back is how late we are.
        """
        if self.is_manual:
            return None
        # A clock that was set back must not postpone the next sync by as much.
        last = None if last is None else min(last, now)
        if self.every is not None:
            return now if last is None else self._next_interval(last, now, key, self.every)
        return self._next_cron(last, now, key)

    def _next_interval(self, last: datetime, now: datetime, key: str, every: timedelta) -> datetime:
        planned = last + every + jitter(key, every)
        return planned if planned > now else planned + (now - planned) // every * every

    def _next_cron(self, last: datetime | None, now: datetime, key: str) -> datetime:
        # croniter's get_prev is strictly before its start, and a start within the minute still counts that minute.
        latest = self._occurrence(now + timedelta(microseconds=1), forward=False)
        chosen = latest if last is not None and latest > last else self._occurrence(now, forward=True)
        gap = self._occurrence(chosen, forward=True) - chosen
        return chosen + jitter(key, gap)

    def _occurrence(self, start: datetime, *, forward: bool) -> datetime:
        walker = croniter(self.cron, start.astimezone(UTC), ret_type=datetime)
        found: datetime = walker.get_next() if forward else walker.get_prev()
        return found

    def interval(self) -> timedelta | None:
        """The interval; of a cron line the longest gap between two of its times; None if only by hand."""
        return _longest_gap(self.cron) if self.cron else self.every

    def sentence(self) -> str:
        """`every 6 hours`, `every day at 06:00 UTC`, `at the times of the cron line … (UTC)`, `by hand only`."""
        if self.every is not None:
            return wording.every_text(self.every)
        if not self.cron:
            return "by hand only"
        minute, hour, *days = self.cron.split(" ")
        if days == ["*", "*", "*"] and minute.isdigit():
            if hour.isdigit():
                return f"every day at {int(hour):02}:{int(minute):02} UTC"
            if hour == "*":
                return f"every hour at minute {int(minute)}"
        return f"at the times of the cron line {self.cron} (UTC)"


def _checked_cron(line: str) -> str:
    """The line itself; ScheduleError unless it has five plain fields and happens at least every four years or so."""
    fields = line.split(" ")
    plain = len(line) <= 200 and all(_CRON_PART.fullmatch(part) for field in fields for part in field.split(","))
    if len(fields) != 5 or not plain:
        raise ScheduleError(
            f"{line[:80]!r} is not a schedule. A cron line has five fields (minute, hour, day, month, weekday, in UTC) "
            f'such as "0 6 * * 1-5".'
        )
    try:
        _longest_gap(line)
    except CroniterBadDateError:
        raise ScheduleError(f'The cron line "{line}" names a day that never or hardly ever comes.') from None
    except ValueError:
        raise ScheduleError(
            f'The cron line "{line}" has a field out of its range: minute 0-59, hour 0-23, day 1-31, month 1-12, '
            f"weekday 0-7."
        ) from None
    return line


@lru_cache(maxsize=256)
def _longest_gap(line: str) -> timedelta:
    """The longest time between two occurrences; walks days, not minutes, so `* 0-12 * * 1-5` costs no more."""
    (minutes, hours, *_), _ = croniter.expand(line)
    every_minute = list(range(60)) if minutes == ["*"] else minutes
    every_hour = list(range(24)) if hours == ["*"] else hours
    times = sorted(timedelta(hours=h, minutes=m) for h in every_hour for m in every_minute)
    within = max((later - earlier for earlier, later in pairwise(times)), default=timedelta())
    days = line.split(" ", 2)[2]
    if days == "* * *":
        return max(within, DAY - (times[-1] - times[0]))
    walker = croniter(f"0 0 {days}", _SURVEY_START - MINUTE, ret_type=datetime)
    longest, previous = timedelta(), walker.get_next()
    while (day := walker.get_next()) < _SURVEY_END:
        longest, previous = max(longest, day - previous), day
    if not longest:
        raise CroniterBadDateError(line)
    return max(within, longest - (times[-1] - times[0]))
