"""When a consumer asks again, and from when on it is late: one test a rule, one a boundary."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mirrors import consumption
from mirrors.consumption import Held

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TAKEN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
DB = Held("trivy-db", TAKEN, next_update=TAKEN + timedelta(hours=20), usual=timedelta(hours=26))
JAVA = Held("trivy-java-db", TAKEN, next_update=TAKEN + timedelta(hours=60))


def test_a_database_is_good_until_its_next_update():
    assert consumption.asks_again_at(DB) == TAKEN + timedelta(hours=20)
    assert consumption.state_of(DB, TAKEN + timedelta(hours=20) - timedelta(seconds=1)) == "waiting"
    assert consumption.state_of(DB, TAKEN + timedelta(hours=20)) == "expected"


def test_it_is_late_once_its_own_usual_interval_has_passed_too():
    assert consumption.late_from(DB) == TAKEN + timedelta(hours=46)
    assert consumption.state_of(DB, TAKEN + timedelta(hours=46) - timedelta(seconds=1)) == "expected"
    assert consumption.state_of(DB, TAKEN + timedelta(hours=46)) == "late"


def test_who_has_no_habit_yet_is_taken_for_one_that_runs_daily():
    assert consumption.late_from(replace(DB, usual=None)) == TAKEN + timedelta(hours=44)


@pytest.mark.parametrize(("held", "rest"), [(DB, HOUR), (JAVA, DAY)])
def test_trivy_rests_after_a_download_of_a_database_past_its_next_update(held, rest):
    past = replace(held, next_update=TAKEN - DAY)
    assert consumption.asks_again_at(past) == TAKEN + rest


@pytest.mark.parametrize("kind", ["trivy-checks", "vex"])
def test_what_has_no_next_update_is_asked_for_a_day_after_it_was_last_asked_for(kind):
    assert consumption.asks_again_at(Held(kind, TAKEN)) == TAKEN + DAY
    assert consumption.asks_again_at(Held(kind, TAKEN, asked_at=TAKEN + 3 * DAY)) == TAKEN + 4 * DAY


def test_of_other_artifacts_nobody_can_say_when_they_are_asked_for():
    held = Held("oci", TAKEN)
    assert consumption.asks_again_at(held) is consumption.late_from(held) is None
    assert consumption.state_of(held, TAKEN + 300 * DAY) == "unknown"


def test_a_habit_begins_with_the_second_pull_and_follows_slowly():
    assert consumption.habit(None, None, TAKEN) is None
    first = consumption.habit(None, TAKEN - DAY, TAKEN)
    assert first == DAY
    assert consumption.habit(first, TAKEN - 4 * DAY, TAKEN) == 2 * DAY


def test_a_second_try_of_the_same_pull_is_no_habit():
    assert consumption.habit(DAY, TAKEN - timedelta(minutes=9), TAKEN) == DAY
    assert consumption.habit(None, TAKEN - timedelta(minutes=9), TAKEN) is None


def test_past_its_next_update_a_db_is_downloaded_hourly_and_a_java_db_daily():
    assert consumption.bytes_per_hour("trivy-db", 10, 100) == 1000
    assert consumption.bytes_per_hour("trivy-java-db", 24, 100) == 100
    assert consumption.bytes_per_hour("trivy-checks", 10, 100) == 0


@pytest.mark.parametrize(
    ("agent", "product"),
    [
        ("trivy/0.74.0", "trivy"),
        ("Trivy/0.56.2 (x)", "trivy"),
        ("curl/8.1", "curl"),
        ("containers image", "containers"),
        ("", ""),
    ],
)
def test_a_program_is_told_without_its_version(agent, product):
    assert consumption.product_of(agent) == product


@pytest.mark.parametrize(
    ("address", "network"),
    [("10.1.2.3", "10.1.2.0/24"), ("2001:db8:1:2::5", "2001:db8:1::/48"), ("", ""), ("nonsense", "")],
)
def test_a_blurred_address_names_the_network_alone(address, network):
    assert consumption.blurred(address) == network
