"""The geometry of the ruler and the saw-tooth, and the words that stand beside them."""

from datetime import UTC, datetime, timedelta

import pytest

from mirrors.freshness import Facts, judge
from mirrors.plot import MARKER_WIDTH, RULER_WIDTH, Sawtooth, ruler, ruler_text, sawtooth
from mirrors.trivy.catalogue import KINDS, Limits

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
DB = KINDS["trivy-db"]


def ago(hours: float) -> datetime:
    return NOW - hours * HOUR


# --- the ruler --------------------------------------------------------------------------------------------------------


def test_the_ruler_has_the_proportions_of_the_look() -> None:
    drawn = ruler(DB.limits, 5 * HOUR)
    assert [(part.state, part.x, part.width) for part in drawn.segments] == [
        ("fresh", 0, 120),
        ("due", 120, 100),
        ("stale", 220, 120),
        ("expired", 340, 60),
    ]
    assert [(mark.percent, mark.text) for mark in drawn.marks] == [(30, "9 h"), (55, "1 d"), (85, "7 d")]
    assert drawn.marker == 64.7


def test_the_marker_stands_at_a_limit_when_the_age_does() -> None:
    for limit, x in [(DB.limits.due, 120), (DB.limits.stale, 220), (DB.limits.expired, 340)]:
        assert ruler(DB.limits, limit).marker == x - MARKER_WIDTH / 2


def test_the_marker_never_leaves_the_ruler_nor_moves_back() -> None:
    markers = [ruler(DB.limits, n * HOUR).marker for n in range(-5, 24 * 60)]
    assert markers == sorted(markers, key=lambda marker: marker or 0)
    assert markers[0] == 0
    assert markers[-1] == RULER_WIDTH - MARKER_WIDTH
    assert ruler(DB.limits, None).marker is None


@pytest.mark.parametrize("kind", ["trivy-db", "trivy-java-db"])
def test_the_marker_stands_in_the_stretch_of_its_state(kind: str) -> None:
    chosen = KINDS[kind]
    for hours in range(0, 24 * 40, 5):
        facts = Facts(label="a", kind=chosen, has_data=True, updated_at=ago(hours))
        state = judge(facts, NOW).state
        drawn = ruler(chosen.limits, hours * HOUR)
        (part,) = [part for part in drawn.segments if part.state == state]
        assert drawn.marker is not None
        assert part.x - MARKER_WIDTH <= drawn.marker <= part.x + part.width


def test_limits_that_fall_together_divide_by_nothing() -> None:
    assert ruler(Limits(DAY, DAY, DAY), 25 * HOUR).marker is not None
    assert ruler(Limits(DAY, DAY, DAY), DAY).marker == 118


def test_the_ruler_can_be_read_out() -> None:
    assert ruler_text(DB.limits, 5 * HOUR, "built", DB.rhythm) == (
        "5 hours old; rebuilt every 6 hours, due after 9 hours, stale after 1 day, expired after 7 days"
    )
    assert ruler_text(KINDS["vex"].limits, 2 * HOUR, "confirmed") == (
        "Confirmed 2 hours ago to be what upstream has; due after 2 days, stale after 7 days, expired after 30 days "
        "without confirmation"
    )
    assert ruler_text(DB.limits, None, "built").startswith("No data yet; due after 9 hours")


# --- the saw-tooth ----------------------------------------------------------------------------------------------------


def corners(drawn: Sawtooth) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (corner.split(",") for corner in drawn.line.split())]


def test_age_rises_with_time_and_falls_at_each_switch() -> None:
    drawn = sawtooth([(ago(40), ago(42)), (ago(20), ago(22)), (ago(2), ago(4))], DB.limits, ago(48), NOW)
    line = corners(drawn)
    assert len(line) == 6
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    for (begin, low), (stop, high) in zip(line[::2], line[1::2], strict=True):
        assert begin < stop
        assert low > high, "y grows downwards, so an age that rises goes up"
    for (stop, high), (begin, low) in zip(line[1:-1:2], line[2::2], strict=True):
        assert stop == begin
        assert low > high
    assert line[-1][0] == drawn.right
    assert "At its oldest it was 22 hours old" in drawn.text


def test_everything_is_drawn_inside_the_plot() -> None:
    points = [(ago(hours), ago(hours * 1.3)) for hours in range(0, 2000, 37)]
    for start, width, height in [(ago(24), 800, 200), (ago(24 * 30), 320, 120), (ago(24 * 365), 800, 200)]:
        drawn = sawtooth(points, DB.limits, start, NOW, width, height)
        assert drawn.right < width
        assert drawn.bottom < height
        for x, y in corners(drawn):
            assert drawn.left <= x <= drawn.right
            assert drawn.top <= y <= drawn.bottom
        assert all(drawn.left <= tick.position <= drawn.right for tick in drawn.x_ticks)
        assert all(drawn.top <= tick.position <= drawn.bottom for tick in drawn.y_ticks)
        assert all(drawn.top <= limit.y <= drawn.bottom for limit in drawn.limits)
        assert 1 <= len(drawn.x_ticks) <= 9
        assert 2 <= len(drawn.y_ticks) <= 7


def test_a_snapshot_from_before_is_carried_into_the_plot_and_older_ones_are_left_out() -> None:
    drawn = sawtooth([(ago(100), ago(101)), (ago(60), ago(62)), (ago(30), ago(31))], DB.limits, ago(48), NOW)
    assert [row.fetched_at for row in drawn.rows] == [ago(30), ago(60)]
    assert corners(drawn)[0][0] == drawn.left
    assert "switched 1 time." in drawn.text


def test_without_an_earlier_snapshot_the_line_begins_at_the_first() -> None:
    drawn = sawtooth([(ago(12), ago(13))], DB.limits, ago(24), NOW)
    assert corners(drawn)[0][0] == pytest.approx((drawn.left + drawn.right) / 2)


def test_what_comes_after_the_plot_is_left_out() -> None:
    drawn = sawtooth([(ago(30), ago(31)), (ago(1), ago(2))], DB.limits, ago(48), ago(24))
    assert [row.fetched_at for row in drawn.rows] == [ago(30)]
    assert drawn.rows[0].age_replaced == 7 * HOUR


def test_a_switch_at_this_very_moment_is_seen() -> None:
    drawn = sawtooth([(ago(10), ago(12)), (NOW, ago(1))], DB.limits, ago(48), NOW)
    assert [row.is_last for row in drawn.rows] == [True, False]
    assert corners(drawn)[-1][0] == drawn.right


def test_the_table_tells_the_same_as_the_line() -> None:
    drawn = sawtooth([(ago(20), ago(22)), (ago(2), ago(4))], DB.limits, ago(48), NOW)
    newest, older = drawn.rows
    assert (older.age_then, older.age_replaced, older.is_last) == (2 * HOUR, 20 * HOUR, False)
    assert (newest.age_then, newest.age_replaced, newest.is_last) == (2 * HOUR, 4 * HOUR, True)
    assert newest.text == "2026-11-20 10:00 UTC: switched to the build of 2026-11-20 08:00 UTC, 2 hours old"
    assert drawn.text == (
        "From 2026-11-18 12:00 UTC to 2026-11-20 12:00 UTC the data was switched 2 times. "
        "At its oldest it was 20 hours old; at the end 4 hours."
    )


def test_the_first_limit_is_always_in_sight_and_later_ones_when_the_data_came_near() -> None:
    fresh = sawtooth([(ago(2), ago(3))], DB.limits, ago(48), NOW)
    assert [limit.text for limit in fresh.limits] == ["due after 9 h"]
    old = sawtooth([(ago(200), ago(201))], DB.limits, ago(48), NOW)
    assert [limit.state for limit in old.limits] == ["due", "stale", "expired"]


def test_a_plot_without_data_says_so() -> None:
    drawn = sawtooth([], DB.limits, ago(48), NOW)
    assert (drawn.line, drawn.rows) == ("", ())
    assert drawn.text == "From 2026-11-18 12:00 UTC to 2026-11-20 12:00 UTC there was no data."
    assert drawn.x_ticks
    assert drawn.y_ticks


def test_the_order_of_the_snapshots_does_not_matter() -> None:
    points = [(ago(40), ago(42)), (ago(20), ago(22)), (ago(2), ago(4))]
    assert sawtooth(points, DB.limits, ago(48), NOW) == sawtooth(points[::-1], DB.limits, ago(48), NOW)


def test_a_build_from_a_moment_ahead_stays_on_the_ground() -> None:
    drawn = sawtooth([(ago(2), ago(2) + 300 * SECOND)], DB.limits, ago(48), NOW)
    assert corners(drawn)[0][1] == drawn.bottom


def test_midnight_is_named_by_its_date() -> None:
    drawn = sawtooth([], DB.limits, ago(48), NOW)
    assert [tick.text for tick in drawn.x_ticks] == [
        "12:00", "18:00", "19 Nov", "06:00", "12:00", "18:00", "20 Nov", "06:00", "12:00",
    ]  # fmt: skip


def test_it_refuses_a_plot_that_ends_before_it_starts() -> None:
    with pytest.raises(ValueError, match="an end after its start"):
        sawtooth([], DB.limits, NOW, NOW)
