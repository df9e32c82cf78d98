"""How numbers and times are written for people."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from mirrors import wording

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("age", "short", "long"),
    [
        (-HOUR, "<1 min", "less than a minute"),
        (59 * SECOND, "<1 min", "less than a minute"),
        (MINUTE, "1 min", "1 minute"),
        (20 * MINUTE, "20 min", "20 minutes"),
        (HOUR - SECOND, "59 min", "59 minutes"),
        (HOUR, "1 h", "1 hour"),
        (5 * HOUR + 59 * MINUTE, "5 h", "5 hours"),
        (30 * HOUR, "30 h", "30 hours"),
        (2 * DAY - SECOND, "47 h", "47 hours"),
        (2 * DAY, "2 d", "2 days"),
        (4 * DAY + 23 * HOUR, "4 d", "4 days"),
        (60 * DAY, "60 d", "60 days"),
        (61 * DAY, "2 mo", "2 months"),
        (240 * DAY, "7 mo", "7 months"),
        (730 * DAY, "23 mo", "23 months"),
        (731 * DAY, "2 y", "2 years"),
        (4000 * DAY, "10 y", "10 years"),
    ],
)
def test_an_age_is_cut_to_the_largest_unit_that_is_honest(age: timedelta, short: str, long: str) -> None:
    assert (wording.age_text(age), wording.long_age(age)) == (short, long)


@pytest.mark.parametrize(
    ("limit", "short", "long"),
    [
        (9 * HOUR, "9 h", "9 hours"),
        (24 * HOUR, "1 d", "1 day"),
        (30 * HOUR, "30 h", "30 hours"),
        (72 * HOUR, "3 d", "3 days"),
        (90 * MINUTE, "90 min", "90 minutes"),
        (90 * SECOND, "1 min", "1 minute"),
    ],
)
def test_a_limit_is_written_as_it_was_set(limit: timedelta, short: str, long: str) -> None:
    assert (wording.limit_text(limit), wording.long_limit(limit)) == (short, long)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (236 * 1024, "236 KiB"),
        (9.96 * 1024, "10 KiB"),
        (108 * MIB, "108 MiB"),
        (MIB - 1, "1.0 MiB"),
        (1024 * MIB - 1, "1.0 GiB"),
        (int(1.1 * 1024 * MIB), "1.1 GiB"),
        (2**62, "4096 PiB"),
    ],
)
def test_sizes_are_binary(size: int, text: str) -> None:
    assert wording.size_text(size) == text


def test_rates_are_decimal() -> None:
    rates = [(0, "0 B/s"), (999, "999 B/s"), (2_100_000, "2.1 MB/s"), (48_300_000, "48 MB/s"), (999_999, "1.0 MB/s")]
    assert [wording.rate_text(rate) for rate, _ in rates] == [text for _, text in rates]


def test_progress_keeps_one_unit() -> None:
    assert wording.progress_text(118 * 1024, 191 * 1024) == "118 of 191 KiB"
    assert wording.progress_text(0, 858 * MIB) == "0.0 of 858 MiB"
    assert wording.progress_text(5000, 0) == "4.9 KiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0.42, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (3900, "1 h 5 min"),
        (183_600, "2 d 3 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert wording.duration_text(seconds) == wording.duration_text(timedelta(seconds=seconds)) == text


def test_time_left_is_told_only_when_it_can_be() -> None:
    assert wording.time_left(0, 100, 0) == wording.time_left(100, 100, 5) == wording.time_left(5, 0, 5) == ""
    assert wording.time_left(0, 10, 100) == "1 s left"
    assert wording.time_left(0, 2000, 10) == "3 min 20 s left"
    assert wording.time_left(0, 10**9, 1) == "more than a day left"


def test_times_are_utc_whatever_zone_they_come_in() -> None:
    elsewhere = datetime(2026, 11, 20, 8, 31, 59, tzinfo=timezone(2 * HOUR))
    assert wording.utc_text(elsewhere) == "2026-11-20 06:31 UTC"
    assert wording.short_utc(elsewhere, NOW) == "06:31 UTC"


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 20, 6, 31, tzinfo=UTC), "06:31 UTC"),
        (datetime(2026, 11, 19, 23, 59, tzinfo=UTC), "Thu 23:59 UTC"),
        (datetime(2026, 11, 14, 1, 14, tzinfo=UTC), "Sat 01:14 UTC"),
        (datetime(2026, 11, 13, 1, 14, tzinfo=UTC), "13 Nov"),
        (datetime(2026, 11, 21, 1, 14, tzinfo=UTC), "21 Nov"),
        (datetime(2026, 3, 10, tzinfo=UTC), "10 Mar"),
        (datetime(2025, 3, 10, tzinfo=UTC), "10 Mar 2025"),
    ],
)
def test_a_short_time_is_as_long_as_it_must_be(moment: datetime, text: str) -> None:
    assert wording.short_utc(moment, NOW) == text


def test_past_and_future_are_told_relative_to_now() -> None:
    assert wording.ago_text(NOW - 30 * SECOND, NOW) == wording.ago_text(NOW + HOUR, NOW) == "just now"
    assert wording.ago_text(NOW - 20 * MINUTE, NOW) == "20 minutes ago"
    assert wording.in_text(NOW - HOUR, NOW) == wording.in_text(NOW + 29 * SECOND, NOW) == "now"
    assert wording.in_text(NOW + 31 * SECOND, NOW) == "in 1 minute"
    assert wording.in_text(NOW + 11 * MINUTE + SECOND, NOW) == "in 12 minutes"
    assert wording.in_text(NOW + 59 * MINUTE + SECOND, NOW) == "in 1 hour"
    assert wording.in_text(NOW + 5 * DAY, NOW) == "in 5 days"


def test_intervals_read_as_people_say_them() -> None:
    every = [(HOUR, "every hour"), (6 * HOUR, "every 6 hours"), (DAY, "every day"), (11 * HOUR, "every 11 hours")]
    assert [wording.every_text(interval) for interval, _ in every] == [text for _, text in every]


def test_counts_and_lists() -> None:
    assert [wording.counted(n, "attempt") for n in (0, 1, 1200)] == ["0 attempts", "1 attempt", "1,200 attempts"]
    assert [wording.number_word(n) for n in (0, 1, 12, 13, 1500)] == ["no", "one", "twelve", "13", "1,500"]
    assert wording.joined([]) == ""
    assert [wording.joined("abc"[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


def test_names_keep_their_letters() -> None:
    assert wording.capitalized("our DB is old") == "Our DB is old"
    assert wording.capitalized("") == ""
    assert wording.capitalized("mirror.gcr.io lags") == "mirror.gcr.io lags"
    assert wording.capitalized("localhost:5000 lags") == "localhost:5000 lags"
    assert wording.with_article("Java DB") == "the Java DB"
    assert wording.with_article("Checks bundle 1", start=True) == "The Checks bundle 1"
    assert wording.with_article("my-image", start=True) == "my-image"
    assert wording.with_article("VEX Hub", start=True) == "VEX Hub"


def test_the_first_sentence_keeps_the_dots_of_host_names() -> None:
    error = "mirror.gcr.io answered 429 (too many requests)\n to HEAD manifest.  Wait, or add a source."
    assert wording.first_sentence(error) == "mirror.gcr.io answered 429 (too many requests) to HEAD manifest"
    assert wording.first_sentence("  ") == ""


def test_programs_get_utc_with_a_z_and_a_fraction_only_where_there_is_one() -> None:
    east = timezone(timedelta(hours=2))
    assert wording.rfc3339(datetime(2026, 11, 20, 8, 31, 52, tzinfo=east)) == "2026-11-20T06:31:52Z"
    assert wording.rfc3339(datetime(2026, 11, 20, 6, 31, 52, 104857, tzinfo=UTC)) == "2026-11-20T06:31:52.104857Z"
