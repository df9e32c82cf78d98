"""How ages, sizes, times and durations are written for people. Plain functions, the same words on every door.

Ages are cut, never rounded up, to the largest unit that is honest: 30 h, then 4 d, then 2 mo. Sizes are binary (MiB),
rates decimal (MB/s), as disks and networks are spoken of. Times are UTC.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MONTH = timedelta(days=30.4375)
YEAR = timedelta(days=365.25)

# (use this unit from here on, the unit, short, long). Hours run to two days, because "30 h" says more than "1 d".
_AGES: tuple[tuple[timedelta, timedelta, str, str], ...] = (
    (2 * YEAR, YEAR, "y", "year"),
    (timedelta(days=61), MONTH, "mo", "month"),
    (2 * DAY, DAY, "d", "day"),
    (HOUR, HOUR, "h", "hour"),
    (MINUTE, MINUTE, "min", "minute"),
)
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_RATES = ("B/s", "kB/s", "MB/s", "GB/s")
_COMMON = frozenset({"db", "database", "bundle", "repository", "artifact", "image", "mirror", "checks"})
# Written here and not by strftime, which takes three times as long and asks the machine for its language.
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def counted(count: int, noun: str) -> str:
    """`1 attempt`, `6 attempts`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def number_word(count: int) -> str:
    """`four` up to twelve, then figures. Zero is `no`."""
    return _NUMBERS[count] if 0 <= count < len(_NUMBERS) else f"{count:,}"


def capitalized(text: str) -> str:
    """The first letter raised and nothing else touched (`DB` stays); a host name at the start stays as it is."""
    first = text.split(" ", 1)[0]
    return text if set(".:/") & set(first[:-1]) else text[:1].upper() + text[1:]


def joined(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return ", ".join(words[:-1]) + " and " + words[-1]


def ranges_text(numbers: Sequence[int]) -> str:
    """`1, 3–5 and 9` of numbers that rise; after twenty such only how many more."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    texts: list[str] = []
    for group in groups:
        texts += [f"{group[0]}–{group[-1]}"] if len(group) > 2 else [str(number) for number in group]
    return joined([*texts[:20], f"{len(texts) - 20} more"] if len(texts) > 20 else texts)


def with_article(label: str, *, start: bool = False) -> str:
    """`the Java DB` (`The` at a sentence's start), but `VEX Hub`: labels with a common noun take an article."""
    if _COMMON.isdisjoint(label.casefold().split()):
        return label
    return f"{'The' if start else 'the'} {label}"


def first_sentence(text: str) -> str:
    """The first sentence of an error without its full stop; host names keep their dots."""
    return " ".join(text.split()).split(". ", 1)[0].rstrip(".")


def continued(text: str) -> str:
    """A sentence that goes on after a colon: a leading `The` is lowered, names keep their capital."""
    first = text.split(" ", 1)[0]
    return text[:1].lower() + text[1:] if first in ("The", "A", "An", "No", "Connecting") else text


def _unit(age: timedelta) -> tuple[int, str, str] | None:
    for start, unit, short, long in _AGES:
        if age >= start:
            return age // unit, short, long
    return None


def age_text(age: timedelta) -> str:
    """`20 min`, `5 h`, `30 h`, `4 d`, `2 mo`, `3 y`; `<1 min` below a minute and for a negative age."""
    unit = _unit(age)
    return f"{unit[0]} {unit[1]}" if unit else "<1 min"


def long_age(age: timedelta) -> str:
    """`20 minutes`, `1 hour`, `4 days`; `less than a minute`."""
    unit = _unit(age)
    return counted(unit[0], unit[2]) if unit else "less than a minute"


def limit_text(limit: timedelta) -> str:
    """A limit as it was set: `9 h`, `30 h`, `1 d`, `14 d`. The largest unit that divides it."""
    for unit, short in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if limit >= unit and not limit % unit:
            return f"{limit // unit} {short}"
    return age_text(limit)


def long_limit(limit: timedelta) -> str:
    """`9 hours`, `1 day`, `14 days`."""
    for unit, noun in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if limit >= unit and not limit % unit:
            return counted(limit // unit, noun)
    return long_age(limit)


def every_text(interval: timedelta) -> str:
    """`every hour`, `every 6 hours`, `every day`, `every 90 minutes`."""
    words = long_limit(interval)
    return "every " + words.removeprefix("1 ")


def ago_text(moment: datetime, now: datetime) -> str:
    """`5 hours ago`; `just now` below a minute."""
    age = now - moment
    return "just now" if age < MINUTE else f"{long_age(age)} ago"


def in_text(moment: datetime, now: datetime) -> str:
    """`in 12 minutes`; `now` when it is less than half a minute away or past. Rounded up to whole minutes."""
    wait = moment - now
    if wait < timedelta(seconds=30):
        return "now"
    if wait < HOUR:
        wait = -(-wait // MINUTE) * MINUTE
    return f"in {long_age(wait)}"


def plan_text(what: str, moment: datetime, now: datetime) -> str:
    """`Next check in 12 minutes`; `The next check is due now` once its moment has come."""
    when = in_text(moment, now)
    if when == "now" and what.startswith("Next "):
        return f"The {what[:1].lower()}{what[1:]} is due now"
    return f"{what} {when}"


def utc_text(moment: datetime) -> str:
    """`2026-11-20 06:31 UTC`, cut to the minute."""
    return f"{moment.astimezone(UTC).isoformat(' ', 'minutes')[:16]} UTC"


def rfc3339(moment: datetime) -> str:
    """`2026-11-20T06:31:52Z`, for programs; a fraction only where there is one."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def short_utc(moment: datetime, now: datetime) -> str:
    """As short as it stays clear: `06:31 UTC` today, `Mon 01:14 UTC` in the last six days, `10 Mar`, `10 Mar 2025`."""
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    days = now.toordinal() - moment.toordinal()
    if 0 <= days < 7:
        day = f"{_DAYS[moment.weekday()]} " if days else ""
        return f"{day}{moment.hour:02}:{moment.minute:02} UTC"
    date = f"{moment.day} {_MONTHS[moment.month - 1]}"
    return date if moment.year == now.year else f"{date} {moment.year}"


def _scaled(amount: float, step: int, units: Sequence[str]) -> tuple[float, int]:
    """The amount in its unit and the unit's place. Moves on where rounding would print the step itself (1024 MiB)."""
    power = 0
    while power < len(units) - 1 and round(amount) >= step:
        amount /= step
        power += 1
    return amount, power


def _figure(amount: float, power: int) -> str:
    """One decimal below ten (`1.1`), none above and none for plain bytes."""
    return f"{amount:.0f}" if power == 0 or round(amount, 1) >= 10 else f"{amount:.1f}"


def size_text(size: int) -> str:
    """Bytes: `236 KiB`, `108 MiB`, `1.1 GiB`."""
    amount, power = _scaled(size, 1024, _SIZES)
    return f"{_figure(amount, power)} {_SIZES[power]}"


def progress_text(done: int, total: int) -> str:
    """`118 of 191 KiB`, both in the unit of the total; only what was done if no total is known."""
    if total <= 0:
        return size_text(done)
    amount, power = _scaled(total, 1024, _SIZES)
    return f"{_figure(done / 1024**power, power)} of {_figure(amount, power)} {_SIZES[power]}"


def rate_text(bytes_per_second: float) -> str:
    """`2.1 MB/s`."""
    amount, power = _scaled(bytes_per_second, 1000, _RATES)
    return f"{_figure(amount, power)} {_RATES[power]}"


def duration_text(duration: timedelta | float) -> str:
    """How long something took, in seconds or as timedelta: `0.4 s`, `12 s`, `3 min 20 s`, `1 h 5 min`, `2 d 3 h`."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for unit, name, below, below_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name} {rest} {below_name}" if rest else f"{whole // unit} {name}"
    return f"{whole} s"


def time_left(done: int, total: int, bytes_per_second: float) -> str:
    """`12 s left`, `3 min 20 s left`; empty while it cannot be told."""
    if total <= 0 or bytes_per_second <= 0 or done >= total:
        return ""
    seconds = (total - done) / bytes_per_second
    if seconds > 86400:
        return "more than a day left"
    # A tenth of a second is noise in a forecast.
    return f"{max(1, round(seconds))} s left" if seconds < 59.5 else f"{duration_text(seconds)} left"
