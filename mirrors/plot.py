"""Geometry of the two age pictures: the dashboard's ruler and the saw-tooth of age over time.

Numbers and texts only; templates turn them into SVG attributes. Every picture carries its words, so that it can be
read without colour and without seeing it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mirrors import wording
from mirrors.trivy.catalogue import Limits
from mirrors.verdict import BUILT, DUE, EXPIRED, FRESH, STALE

RULER_WIDTH = 400
MARKER_WIDTH = 4
# Where due, stale and expired begin on the ruler. The scale is piecewise, for limits run from hours to weeks.
_STOPS = (120.0, 220.0, 340.0)


@dataclass(frozen=True)
class Segment:
    """A stretch of the ruler: state, x and width in the 0..400 box."""

    state: str
    x: float
    width: float


@dataclass(frozen=True)
class Mark:
    """A limit's label under the ruler: x in the 0..400 box, the same in percent, `9 h`."""

    x: float
    percent: float
    text: str


@dataclass(frozen=True)
class Ruler:
    """`marker` is the left edge of the marker, MARKER_WIDTH wide and always inside; None without an age."""

    segments: tuple[Segment, ...]
    marks: tuple[Mark, ...]
    marker: float | None
    width: int = RULER_WIDTH


def ruler(limits: Limits, age: timedelta | None) -> Ruler:
    """Fresh runs to 30 % of the ruler, due to 55 %, stale to 85 %; at twice the last limit the marker has arrived."""
    edges = (0.0, *_STOPS, float(RULER_WIDTH))
    segments = tuple(
        Segment(state, edges[place], edges[place + 1] - edges[place])
        for place, state in enumerate((FRESH, DUE, STALE, EXPIRED))
    )
    marks = tuple(
        Mark(x, x * 100 / RULER_WIDTH, wording.limit_text(limit))
        for x, limit in zip(_STOPS, (limits.due, limits.stale, limits.expired), strict=True)
    )
    return Ruler(segments, marks, None if age is None else _marker(limits, age))


def _marker(limits: Limits, age: timedelta) -> float:
    ages = (timedelta(), limits.due, limits.stale, limits.expired, 2 * limits.expired)
    edges = (0.0, *_STOPS, float(RULER_WIDTH))
    # The worst limit that is passed decides, as in the verdict; from there the age moves on in proportion.
    place = max((place for place in range(4) if age > ages[place]), default=0)
    span = ages[place + 1] - ages[place]
    share = min(1.0, max(0.0, (age - ages[place]) / span)) if span > timedelta() else 1.0
    centre = edges[place] + share * (edges[place + 1] - edges[place])
    left = min(max(centre - MARKER_WIDTH / 2, 0.0), RULER_WIDTH - MARKER_WIDTH)
    return round(left, 1)


def ruler_text(limits: Limits, age: timedelta | None, judged_from: str, rhythm: str = "") -> str:
    """The ruler in words: "5 hours old; rebuilt every 6 hours, due after 9 hours, stale after 1 day, …"."""
    steps = (
        f"due after {wording.long_limit(limits.due)}, stale after {wording.long_limit(limits.stale)}, "
        f"expired after {wording.long_limit(limits.expired)}"
    )
    if age is None:
        return f"No data yet; {steps}"
    if judged_from == BUILT:
        return f"{wording.long_age(age)} old; {rhythm + ', ' if rhythm else ''}{steps}"
    return f"Confirmed {wording.long_age(age)} ago to be what upstream has; {steps} without confirmation"


# --- the saw-tooth ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tick:
    """A label on an axis at `position` (x or y in pixels)."""

    position: float
    text: str


@dataclass(frozen=True)
class LimitLine:
    """A horizontal line where a state begins."""

    state: str
    y: float
    text: str


@dataclass(frozen=True)
class Switch:
    """One snapshot, as a dot at (x, y) and as a row of the table.

    When it became current, when its data was built, the age then, and the age when the next one replaced it (for the
    last one: at the end of the plot).
    """

    x: float
    y: float
    fetched_at: datetime
    updated_at: datetime
    age_then: timedelta
    age_replaced: timedelta
    is_last: bool

    @property
    def text(self) -> str:
        """The row in words, also the dot's title."""
        return (
            f"{wording.utc_text(self.fetched_at)}: switched to the build of {wording.utc_text(self.updated_at)}, "
            f"{wording.long_age(self.age_then)} old"
        )


@dataclass(frozen=True)
class Sawtooth:
    """Age over time in a `width` by `height` box, y growing downwards.

    `line` is the text of a polyline's `points`, "" without data. `left`, `top`, `right`, `bottom` bound the plot area;
    tick labels stand left of and below it. `rows` are newest first.
    """

    width: int
    height: int
    left: float
    top: float
    right: float
    bottom: float
    line: str
    limits: tuple[LimitLine, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    rows: tuple[Switch, ...]
    text: str


LEFT, TOP, RIGHT, BOTTOM = 48.0, 8.0, 8.0, 24.0
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
# A Monday, so that weekly ticks fall on Mondays.
_ORIGIN = datetime(2024, 1, 1, tzinfo=UTC)
_TIME_STEPS = (
    tuple(timedelta(minutes=n) for n in (2, 5, 15, 30))
    + tuple(_HOUR * n for n in (1, 2, 3, 6, 12))
    + tuple(_DAY * n for n in (1, 2, 7, 14, 28, 56, 91, 182, 365, 730))
)
_AGE_STEPS = (
    tuple(timedelta(minutes=n) for n in (1, 5, 15))
    + tuple(_HOUR * n for n in (1, 3, 6, 12))
    + tuple(_DAY * n for n in (1, 2, 5, 10, 30, 60, 180, 365))
)


@dataclass(frozen=True)
class _Piece:
    """One tooth: the stretch of the plot in which one snapshot was current."""

    begin: datetime
    stop: datetime
    fetched_at: datetime
    updated_at: datetime


def sawtooth(
    points: Sequence[tuple[datetime, datetime]],
    limits: Limits,
    start: datetime,
    end: datetime,
    width: int = 800,
    height: int = 200,
) -> Sawtooth:
    """The age of the data from `start` to `end`, which must lie after `start`.

    `points` are (fetched_at, updated_at) of the snapshots that were current, in any order: the age falls at each switch
    to `fetched_at - updated_at` and rises with time until the next. One from before `start` is carried into the plot.
    """
    if end <= start:
        raise ValueError("A plot needs an end after its start.")
    pieces = _pieces(points, start, end)
    oldest = max((piece.stop - piece.updated_at for piece in pieces), default=None)
    # The first limit is always in sight: a line of fresh data says nothing without it.
    top_age = max(oldest or timedelta(), limits.due) * 1.1
    right, bottom = width - RIGHT, height - BOTTOM

    def x(moment: datetime) -> float:
        return round(LEFT + (moment - start) / (end - start) * (right - LEFT), 1)

    def y(age: timedelta) -> float:
        return round(bottom - max(age, timedelta()) / top_age * (bottom - TOP), 1)

    corners = [(x(at), y(at - piece.updated_at)) for piece in pieces for at in (piece.begin, piece.stop)]
    rows = tuple(
        Switch(
            x=x(piece.begin),
            y=y(piece.begin - piece.updated_at),
            fetched_at=piece.fetched_at,
            updated_at=piece.updated_at,
            age_then=piece.fetched_at - piece.updated_at,
            age_replaced=piece.stop - piece.updated_at,
            is_last=piece is pieces[-1],
        )
        for piece in pieces
    )
    named = ((DUE, limits.due), (STALE, limits.stale), (EXPIRED, limits.expired))
    return Sawtooth(
        width=width,
        height=height,
        left=LEFT,
        top=TOP,
        right=right,
        bottom=bottom,
        line=" ".join(f"{across:g},{down:g}" for across, down in corners),
        limits=tuple(
            LimitLine(state, y(limit), f"{state} after {wording.limit_text(limit)}")
            for state, limit in named
            if limit <= top_age
        ),
        x_ticks=tuple(Tick(x(moment), text) for moment, text in _time_ticks(start, end)),
        y_ticks=tuple(Tick(y(age), text) for age, text in _age_ticks(top_age)),
        rows=rows[::-1],
        text=_in_words(rows, oldest, start, end),
    )


def _pieces(points: Sequence[tuple[datetime, datetime]], start: datetime, end: datetime) -> list[_Piece]:
    ordered = sorted(point for point in points if point[0] <= end)
    pieces = []
    for place, (fetched, updated) in enumerate(ordered):
        is_last = place == len(ordered) - 1
        begin, stop = max(fetched, start), end if is_last else ordered[place + 1][0]
        # What was replaced before the plot begins, or in the same instant, leaves no line.
        if stop > begin or is_last:
            pieces.append(_Piece(begin, stop, fetched, updated))
    return pieces


def _time_ticks(start: datetime, end: datetime) -> list[tuple[datetime, str]]:
    """At most eight, on round minutes, hours, days or weeks of UTC; midnight is named by its date."""
    step = next((step for step in _TIME_STEPS if (end - start) / step <= 8), _TIME_STEPS[-1])
    moment = _ORIGIN + -((_ORIGIN - start) // step) * step
    ticks = []
    while moment <= end:
        is_clock = step < _DAY and (moment.hour or moment.minute)
        date = moment.strftime("%b %Y") if step > 100 * _DAY else f"{moment.day} {moment.strftime('%b')}"
        ticks.append((moment, moment.strftime("%H:%M") if is_clock else date))
        moment += step
    return ticks


def _age_ticks(top: timedelta) -> list[tuple[timedelta, str]]:
    """From zero upwards, at most six."""
    step = next((step for step in _AGE_STEPS if top / step < 6), _AGE_STEPS[-1])
    return [(place * step, wording.limit_text(place * step) if place else "0") for place in range(int(top / step) + 1)]


def _in_words(rows: Sequence[Switch], oldest: timedelta | None, start: datetime, end: datetime) -> str:
    """The plot's text alternative."""
    span = f"From {wording.utc_text(start)} to {wording.utc_text(end)}"
    if not rows or oldest is None:
        return f"{span} there was no data."
    switches = sum(row.fetched_at >= start for row in rows)
    return (
        f"{span} the data was switched {wording.counted(switches, 'time')}. At its oldest it was "
        f"{wording.long_age(oldest)} old; at the end {wording.long_age(rows[-1].age_replaced)}."
    )
