"""Schedules: what is accepted, what is refused in which words, and when the next sync falls."""

from datetime import UTC, datetime, timedelta

import pytest

from mirrors.schedule import Schedule, ScheduleError, jitter, jitter_limit

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
KEYS = [f"mirror-{number}" for number in range(40)]
LINES = ["0 6 * * *", "*/5 * * * *", "30 2 * * 1-5", "0 0 1 * *", "15 */6 * * *", "0 3 l * *", "0 0 * * sun"]


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("6h", 6 * HOUR),
        ("90m", 90 * MINUTE),
        ("90min", 90 * MINUTE),
        ("1d", DAY),
        (" 1H30M ", 90 * MINUTE),
        ("1d12h", 36 * HOUR),
        ("1m", MINUTE),
        ("365d", 365 * DAY),
    ],
)
def test_it_reads_intervals(text: str, every: timedelta) -> None:
    schedule = Schedule.parse(text)
    assert schedule.every == schedule.interval() == every
    assert not schedule.is_manual


def test_it_reads_manual() -> None:
    schedule = Schedule.parse(" Manual ")
    assert schedule.is_manual
    assert schedule.interval() is None
    assert schedule.next_after(None, NOW, "any") is None
    assert schedule.next_after(NOW - 90 * DAY, NOW, "any") is None


@pytest.mark.parametrize("text", ["", "h", "6", "6 h", "h6", "-6h", "6.5h", "6h30", "١h", "@daily", "never", "6hh"])
def test_it_refuses_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ScheduleError, match="is not a schedule"):
        Schedule.parse(text)


@pytest.mark.parametrize("text", ["0m", "0d0h", "366d", "999999d", "999999h"])
def test_it_refuses_intervals_that_cannot_be_kept(text: str) -> None:
    with pytest.raises(ScheduleError, match="between 1m and 365d"):
        Schedule.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "* * * *",
        "* * * * * *",
        "0 0 0 1 1 * 2030",
        "r * * * *",
        "h h * * *",
        "* * ? * *",
        "a\x00b c d e f",
        "* * * * *,",
    ],
)
def test_it_refuses_cron_lines_of_another_shape(text: str) -> None:
    with pytest.raises(ScheduleError, match="five fields"):
        Schedule.parse(text)


@pytest.mark.parametrize(
    "text",
    ["60 * * * *", "* 24 * * *", "* * 32 * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "* * * * foo", "*/0 * * * *"],
)
def test_it_refuses_cron_fields_out_of_range(text: str) -> None:
    with pytest.raises(ScheduleError, match="out of its range"):
        Schedule.parse(text)


@pytest.mark.parametrize("text", ["0 0 30 2 *", "0 0 31 4,6 *"])
def test_it_refuses_days_that_never_come(text: str) -> None:
    with pytest.raises(ScheduleError, match="never or hardly ever comes"):
        Schedule.parse(text)


def test_errors_show_only_the_start_of_a_huge_text() -> None:
    with pytest.raises(ScheduleError) as caught:
        Schedule.parse("1 " * 100_000)
    assert len(str(caught.value)) < 300


def test_an_error_names_what_would_be_right() -> None:
    with pytest.raises(ScheduleError) as caught:
        Schedule.parse("often")
    assert str(caught.value) == (
        "'often' is not a schedule. Write an interval such as 90m, 6h or 1d, five cron fields such as "
        '"0 6 * * *" (UTC), or manual.'
    )


# --- intervals --------------------------------------------------------------------------------------------------------


def test_an_interval_never_tried_is_due_at_once() -> None:
    assert Schedule.parse("6h").next_after(None, NOW, "trivy-db") == NOW


@pytest.mark.parametrize("every", [MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY])
def test_the_next_time_is_an_interval_later_with_a_little_jitter(every: timedelta) -> None:
    schedule = Schedule("", every=every)
    for key in KEYS:
        after = schedule.next_after(NOW, NOW, key)
        assert after is not None
        assert every <= after - NOW <= every + min(every / 10, 5 * MINUTE)


def test_the_jitter_is_the_same_for_the_same_key_and_spreads_different_ones() -> None:
    assert [jitter(key, HOUR) for key in KEYS] == [jitter(key, HOUR) for key in KEYS]
    assert len({jitter(key, HOUR) for key in KEYS}) > 20
    assert all(
        timedelta() <= jitter(key, every) <= jitter_limit(every) for key in KEYS for every in (MINUTE, HOUR, DAY)
    )


def test_the_jitter_is_a_tenth_and_five_minutes_at_most() -> None:
    assert jitter_limit(10 * MINUTE) == MINUTE
    assert jitter_limit(DAY) == 5 * MINUTE


def test_many_missed_intervals_become_one() -> None:
    for key in KEYS:
        for hours in (1, 2, 7, 24, 24 * 365 * 5):
            schedule = Schedule.parse("1h")
            missed = schedule.next_after(NOW - hours * HOUR, NOW, key)
            assert missed is not None
            assert NOW - HOUR < missed <= NOW + 5 * MINUTE
            again = schedule.next_after(NOW, NOW, key)
            assert again is not None
            assert again > NOW


def test_a_clock_set_back_does_not_postpone_the_next_sync() -> None:
    for text in ("6h", "0 */6 * * *"):
        after = Schedule.parse(text).next_after(NOW + 400 * DAY, NOW, "trivy-db")
        assert after is not None
        assert NOW < after <= NOW + 6 * HOUR + 5 * MINUTE


# --- cron -------------------------------------------------------------------------------------------------------------


def test_a_cron_line_is_read_in_utc() -> None:
    after = Schedule.parse("0 6 * * *").next_after(NOW, NOW, "trivy-db")
    assert after is not None
    assert datetime(2026, 11, 21, 6, 0, tzinfo=UTC) <= after <= datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
    assert after.utcoffset() == timedelta()


def test_a_cron_line_never_tried_waits_for_its_hour() -> None:
    after = Schedule.parse("0 13 * * *").next_after(None, NOW, "trivy-db")
    assert after is not None
    assert timedelta() <= after - (NOW + HOUR) <= 5 * MINUTE


def test_a_cron_time_is_due_within_its_own_minute_and_after_a_sync_no_more() -> None:
    schedule = Schedule.parse("0 12 * * *")
    for key in KEYS:
        wait = jitter(key, DAY)
        due = schedule.next_after(NOW - DAY, NOW, key)
        assert due == NOW + wait
        assert schedule.next_after(NOW - DAY, NOW + wait, key) == due
        done = schedule.next_after(NOW + wait, NOW + wait + SECOND, key)
        assert done == NOW + DAY + wait


def test_many_missed_cron_times_become_one() -> None:
    schedule = Schedule.parse("0 6 * * *")
    for days in (1, 2, 30, 900):
        missed = schedule.next_after(NOW - days * DAY, NOW, "trivy-db")
        assert missed is not None
        assert datetime(2026, 11, 20, 6, 0, tzinfo=UTC) <= missed <= datetime(2026, 11, 20, 6, 5, tzinfo=UTC)


@pytest.mark.parametrize("line", LINES)
def test_following_a_cron_line_step_by_step_never_skips_nor_repeats(line: str) -> None:
    schedule = Schedule.parse(line)
    longest = schedule.interval()
    assert longest is not None
    last = NOW
    for _ in range(30):
        after = schedule.next_after(last, last, "vexhub")
        assert after is not None
        assert timedelta() < after - last <= longest + 5 * MINUTE
        last = after


@pytest.mark.parametrize(
    ("line", "gap"),
    [
        ("* * * * *", MINUTE),
        ("*/5 * * * *", 5 * MINUTE),
        ("0 * * * *", HOUR),
        ("0 6 * * *", DAY),
        ("0 6,18 * * *", 12 * HOUR),
        ("0 6,8 * * *", 22 * HOUR),
        ("0 6 * * 1-5", 3 * DAY),
        ("* 0-12 * * 1-5", 2 * DAY + 11 * HOUR + MINUTE),
        ("0 0 1 * *", 31 * DAY),
        ("0 0 1 1 *", 366 * DAY),
        ("0 0 29 2 *", 1461 * DAY),
        ("0 0 1 * mon", 7 * DAY),
    ],
)
def test_the_interval_of_a_cron_line_is_its_longest_gap(line: str, gap: timedelta) -> None:
    assert Schedule.parse(line).interval() == gap


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1h", "every hour"),
        ("6h", "every 6 hours"),
        ("90m", "every 90 minutes"),
        ("1d", "every day"),
        ("7d", "every 7 days"),
        ("manual", "by hand only"),
        ("0 6 * * *", "every day at 06:00 UTC"),
        ("15 * * * *", "every hour at minute 15"),
        ("0 6 * * 1-5", "at the times of the cron line 0 6 * * 1-5 (UTC)"),
    ],
)
def test_it_says_what_it_means(text: str, sentence: str) -> None:
    assert Schedule.parse(text).sentence() == sentence


@pytest.mark.parametrize("text", ["6h", "1d12h", "manual", "0 6 * * 1-5"])
def test_the_kept_text_reads_back_as_the_same_schedule(text: str) -> None:
    schedule = Schedule.parse(text)
    assert Schedule.parse(schedule.text) == schedule
