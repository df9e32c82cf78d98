"""When to try again, when to give up, and what is too slow.

Retries are for the next minute only; waiting longer is the schedule's business.
"""

import random
import re
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from mirrors.registry.errors import RegistryError
from mirrors.registry.transport import Timeouts

_WEEK = 7 * 86400.0
_UNITS = {
    "": 1.0,
    "s": 1.0,
    "sec": 1.0,
    "ms": 1e-3,
    "µs": 1e-6,
    "μs": 1e-6,
    "us": 1e-6,
    "ns": 1e-9,
    "m": 60.0,
    "h": 3600.0,
}


class Patience:
    """How often and how long one operation may still be tried.

    Failed attempts are counted; the time is measured from the last good progress. Both start again when an attempt
    moved bytes at the minimum average speed or better, the pause before it included: so a source that breaks off after
    a few bytes each time is no progress.
    """

    def __init__(self, timeouts: Timeouts, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeouts = timeouts
        self._clock = clock
        self.failures = 0
        self._good_at = self._attempt_from = clock()

    def left(self) -> float:
        """Seconds this source still has; 0 when it is given up."""
        return max(0.0, self._timeouts.source_seconds - (self._clock() - self._good_at))

    def still_good(self) -> None:
        """Bytes are flowing well: the clock starts again."""
        self._good_at = self._clock()

    def moved(self, byte_count: int, seconds_elsewhere: float) -> None:
        """An attempt ended early after so many bytes; `seconds_elsewhere` of it were ours (disk, hashing)."""
        seconds = self._clock() - self._attempt_from - seconds_elsewhere
        if byte_count > 0 and byte_count >= seconds * self._timeouts.slow_bytes_per_second:
            self.failures = 0
            self.still_good()

    def pause_after(self, error: RegistryError) -> float | None:
        """Seconds to wait before the next attempt; None to give up."""
        self.failures += 1
        self._attempt_from = self._clock()
        error.attempts = self.failures
        if not error.temporary or self.failures >= self._timeouts.attempts:
            return None
        pause = self._timeouts.backoff * 2 ** (self.failures - 1)
        pause *= random.uniform(0.75, 1.25)  # noqa: S311  so that many instances do not come back in step
        if error.retry_after is not None:
            if error.retry_after > self._timeouts.longest_retry_after:
                return None
            pause = max(pause, error.retry_after)
        return pause if pause < self.left() else None


class Gauge:
    """Average speed over a window of waiting. Time that we spend elsewhere (writing, hashing) does not count."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._window = timeouts.slow_seconds
        self._minimum = timeouts.slow_bytes_per_second
        self._waited = 0.0
        self.total = 0
        self._samples: deque[tuple[float, int]] = deque([(0.0, 0)])

    def add(self, byte_count: int, seconds: float) -> bool:
        """Count bytes that took so long to come. True, now and then, when it was time to judge and all is well."""
        self._waited += seconds
        self.total += byte_count
        if self._waited - self._samples[-1][0] < self._window / 30:
            return False
        self._samples.append((self._waited, self.total))
        while len(self._samples) > 2 and self._samples[1][0] <= self._waited - self._window:
            self._samples.popleft()
        return self._speed() >= self._minimum

    def is_too_slow(self) -> bool:
        return self._waited - self._samples[0][0] >= self._window and self._speed() < self._minimum

    def _speed(self) -> float:
        since, before = self._samples[0]
        return (self.total - before) / max(self._waited - since, 1e-9)


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds from a Retry-After header (RFC 9110 10.2.3: seconds or a date), at most a week; None if there is none.

    ghcr.io has been seen to say `35.2µs` (trivy-db#442): that and other nonsense is 0, and the usual pause holds.
    """
    if not text:
        return None
    match = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*([a-zµμ]{0,3})\s*", text[:64])
    if match:
        return min(float(match[1]) * _UNITS.get(match[2], 0.0), _WEEK)
    try:
        moment = parsedate_to_datetime(text[:64])
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return min(max((moment - now).total_seconds(), 0.0), _WEEK)
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0


def parse_date(text: str | None) -> datetime | None:
    """A Date header as an aware datetime."""
    try:
        moment = parsedate_to_datetime((text or "")[:64])
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
