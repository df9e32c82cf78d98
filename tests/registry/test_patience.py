"""The rules of waiting, without waiting: the clock is in the test's hand."""

from datetime import UTC, datetime

import pytest

from mirrors.registry.errors import RegistryError
from mirrors.registry.patience import Gauge, Patience, parse_date, parse_retry_after
from mirrors.registry.transport import Timeouts

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
USUAL = Timeouts()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def trouble(*, temporary: bool = True, retry_after: float | None = None) -> RegistryError:
    return RegistryError(
        "server", "x", registry="ghcr.io", operation="GET blob", temporary=temporary, retry_after=retry_after
    )


def test_the_usual_numbers_are_those_promised() -> None:
    assert (USUAL.connect, USUAL.read, USUAL.slow_bytes_per_second, USUAL.slow_seconds) == (10, 20, 10_000, 60)
    assert (USUAL.attempts, USUAL.source_seconds, USUAL.longest_retry_after) == (4, 120, 30)


def test_four_attempts_with_growing_pauses() -> None:
    patience = Patience(USUAL, Clock())
    pauses = [patience.pause_after(trouble()) for _ in range(4)]
    assert pauses[3] is None
    for pause, middle in zip(pauses[:3], (0.5, 1.0, 2.0), strict=True):
        assert pause is not None and middle * 0.75 <= pause <= middle * 1.25


def test_what_is_not_temporary_is_not_tried_again() -> None:
    assert Patience(USUAL, Clock()).pause_after(trouble(temporary=False)) is None


def test_the_error_knows_how_often_it_was_tried() -> None:
    patience, error = Patience(USUAL, Clock()), trouble()
    patience.pause_after(trouble())
    patience.pause_after(error)
    assert error.attempts == 2 and "(2 attempts)" in str(error)


def test_thirty_seconds_are_waited_out_and_thirty_one_are_not() -> None:
    assert Patience(USUAL, Clock()).pause_after(trouble(retry_after=30)) == 30
    assert Patience(USUAL, Clock()).pause_after(trouble(retry_after=31)) is None


def test_a_source_is_given_up_after_two_minutes_without_progress() -> None:
    clock = Clock()
    patience = Patience(USUAL, clock)
    clock.now += 119.8
    assert patience.left() == pytest.approx(0.2)
    assert patience.pause_after(trouble()) is None, "no time left for another attempt"


def test_progress_starts_both_counts_again() -> None:
    clock = Clock()
    patience = Patience(USUAL, clock)
    patience.pause_after(trouble())
    patience.pause_after(trouble())
    clock.now += 50
    patience.moved(500_000, 0)
    assert patience.failures == 0 and patience.left() == 120


def test_slower_than_the_minimum_is_no_progress() -> None:
    clock = Clock()
    patience = Patience(USUAL, clock)
    patience.pause_after(trouble())
    clock.now += 50
    patience.moved(499_999, 0)
    patience.moved(0, 50)
    assert patience.failures == 1 and patience.left() == 70


def test_our_own_time_does_not_count_against_the_source() -> None:
    clock = Clock()
    patience = Patience(USUAL, clock)
    patience.pause_after(trouble())
    clock.now += 50
    patience.moved(100_000, 40)
    assert patience.failures == 0


def test_a_gauge_judges_after_its_window_only() -> None:
    gauge = Gauge(USUAL)
    for _ in range(59):
        gauge.add(1, 1.0)
        assert not gauge.is_too_slow()
    gauge.add(1, 1.0)
    assert gauge.is_too_slow()


def test_a_gauge_looks_at_the_last_minute() -> None:
    gauge = Gauge(USUAL)
    gauge.add(10**9, 1.0)
    seconds = 0
    while not gauge.is_too_slow():
        gauge.add(9_999, 1.0)
        seconds += 1
    assert 55 < seconds < 70


def test_a_gauge_is_content_at_the_minimum() -> None:
    gauge = Gauge(USUAL)
    for _ in range(300):
        gauge.add(10_000, 1.0)
        assert not gauge.is_too_slow()


def test_a_gauge_says_now_and_then_that_all_is_well() -> None:
    gauge = Gauge(USUAL)
    assert sum(gauge.add(100_000, 0.1) for _ in range(1000)) in range(40, 60)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None), ("", None), ("0", 0), ("30", 30), (" 7 ", 7), ("2.5", 2.5), ("35s", 35), ("500ms", 0.5),
        ("2m", 120), ("Fri, 20 Nov 2026 12:05:00 GMT", 300), ("Fri, 20 Nov 2026 11:00:00 GMT", 0),
        ("35.2µs", pytest.approx(3.52e-5)), ("35 lightyears", 0), ("-1", 0), ("nan", 0), ("inf", 0), ("soon", 0),
        ("9" * 5000, 0), ("99999999999", 604800), ("Fri, 99 Nov 2026 12:05:00 GMT", 0), ("１２", 0),
    ],
)  # fmt: skip
def test_it_reads_retry_after(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, NOON) == seconds


@pytest.mark.parametrize("text", [None, "", "noon", "Fri, 99 Nov 2026 12:00:00 GMT", "x" * 10_000])
def test_a_date_that_is_none_is_unknown(text: str | None) -> None:
    assert parse_date(text) is None
    assert parse_date("Fri, 20 Nov 2026 12:00:00 GMT") == NOON
