"""The verdict: a test for every state, cause and boundary, and for the sentences people read."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from mirrors.freshness import (
    BOTH,
    CAUSES,
    CONNECTED,
    ISOLATED,
    LOOKS,
    STATES,
    Facts,
    SourceFacts,
    Verdict,
    clock_banner,
    courier_limits,
    judge,
    scanners_after,
    summarize,
    trusted_now,
)
from mirrors.trivy.catalogue import KINDS, Limits

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

DB_LIMITS = [(9 * HOUR, "due"), (24 * HOUR, "stale"), (7 * DAY, "expired")]
JAVA_LIMITS = [(30 * HOUR, "due"), (72 * HOUR, "stale"), (14 * DAY, "expired")]
CONFIRMED_LIMITS = [(2 * DAY, "due"), (7 * DAY, "stale"), (30 * DAY, "expired")]
COURIER_LIMITS = [(8 * DAY, "due"), (14 * DAY, "stale"), (30 * DAY, "expired")]
BEFORE = {"due": "fresh", "stale": "due", "expired": "stale"}


def source(name: str, ok: timedelta | None = HOUR, **changes: object) -> SourceFacts:
    return SourceFacts(name, None if ok is None else NOW - ok, **changes)  # type: ignore[arg-type]


def facts(age: timedelta = 4 * DAY, kind: str = "trivy-java-db", **changes: object) -> Facts:
    """A connected mirror on a two-hour schedule whose last check, an hour ago, found two sources with what it holds."""
    chosen = KINDS[kind]
    plain = Facts(
        label=chosen.label,
        kind=chosen,
        has_data=True,
        updated_at=NOW - age if chosen.judged_by == "updated_at" else None,
        confirmed_at=NOW - age if chosen.judged_by == "confirmed_at" else NOW - HOUR,
        fetched_at=NOW - age,
        schedule_interval=2 * HOUR,
        next_sync_at=NOW + 12 * MINUTE,
        last_attempt_at=NOW - HOUR,
        last_success_at=NOW - HOUR,
        sources=(source("mirror.gcr.io"), source("ghcr.io")),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def never(**changes: object) -> Facts:
    empty = {"has_data": False, "updated_at": None, "confirmed_at": None, "fetched_at": None, "last_attempt_at": None}
    return facts(**{**empty, "last_success_at": None, "sources": (), **changes})


def isolated(age: timedelta, **changes: object) -> Facts:
    quiet = {"schedule_interval": None, "next_sync_at": None, "last_attempt_at": None, "sources": ()}
    return facts(age, **{**quiet, "side": ISOLATED, "last_import_at": NOW - age, **changes})


# --- states and their boundaries --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "limit", "state"),
    [("trivy-db", *row) for row in DB_LIMITS]
    + [("trivy-java-db", *row) for row in JAVA_LIMITS]
    + [(kind, *row) for kind in ("vex", "trivy-checks", "oci") for row in CONFIRMED_LIMITS],
)
def test_a_state_begins_after_its_limit_and_not_at_it(kind: str, limit: timedelta, state: str) -> None:
    assert judge(facts(limit, kind), NOW).state == BEFORE[state]
    assert judge(facts(limit + timedelta(microseconds=1), kind), NOW).state == state


@pytest.mark.parametrize("kind", ["trivy-db", "trivy-java-db", "vex", "trivy-checks", "oci"])
@pytest.mark.parametrize(("limit", "state"), COURIER_LIMITS)
def test_the_courier_sets_the_limits_on_the_isolated_side(kind: str, limit: timedelta, state: str) -> None:
    assert judge(isolated(limit, kind=kind), NOW).state == BEFORE[state]
    assert judge(isolated(limit + SECOND, kind=kind), NOW).state == state


def test_the_expected_interval_moves_the_limits_of_the_isolated_side() -> None:
    assert courier_limits(3 * DAY) == Limits(4 * DAY, 6 * DAY, 30 * DAY)
    assert judge(isolated(4 * DAY + SECOND, expected_interval=3 * DAY), NOW).state == "due"


def test_a_courier_who_comes_several_times_a_day_is_not_stale_before_he_is_due() -> None:
    limits = courier_limits(12 * HOUR)
    assert limits.due == limits.stale == 36 * HOUR


def test_where_couriers_are_rare_nothing_is_expired_before_it_is_stale() -> None:
    assert courier_limits(31 * DAY) == Limits(32 * DAY, 62 * DAY, 62 * DAY)
    assert judge(isolated(31 * DAY, expected_interval=31 * DAY), NOW).state == "fresh"


def test_a_mirrors_own_limits_replace_those_of_its_kind_and_of_the_courier() -> None:
    limits = Limits(HOUR, 2 * HOUR, 3 * HOUR)
    for age, state in [(HOUR, "fresh"), (2 * HOUR, "due"), (3 * HOUR, "stale"), (4 * HOUR, "expired")]:
        assert judge(facts(age, limits=limits), NOW).state == state
        assert judge(isolated(age, limits=limits), NOW).state == state


def test_limits_in_the_wrong_order_still_warn() -> None:
    assert judge(facts(3 * DAY, limits=Limits(8 * DAY, 7 * DAY, 2 * DAY)), NOW).state == "expired"


def test_on_both_sides_a_mirror_with_sources_is_judged_as_connected_and_one_without_as_isolated() -> None:
    own = judge(facts(4 * DAY, side=BOTH, has_sources=True), NOW)
    carried = judge(isolated(4 * DAY, side=BOTH, has_sources=False), NOW)
    assert (own.state, carried.state) == ("stale", "fresh")
    assert judge(isolated(10 * DAY, side=BOTH, has_sources=False), NOW).cause == "courier"


def test_databases_are_judged_by_their_build_and_the_rest_by_confirmation() -> None:
    old_build = facts(4 * DAY, confirmed_at=NOW)
    assert judge(old_build, NOW).judged_from == "built"
    assert judge(old_build, NOW).age == 4 * DAY
    for kind in ("vex", "trivy-checks", "oci"):
        old_content = facts(HOUR, kind, updated_at=NOW - 240 * DAY, published_at=NOW - 240 * DAY)
        verdict = judge(old_content, NOW)
        assert (verdict.state, verdict.judged_from, verdict.age) == ("fresh", "confirmed", HOUR)
        assert verdict.judged_at == NOW - HOUR


def test_content_never_confirmed_counts_from_its_fetch() -> None:
    assert judge(facts(kind="vex", confirmed_at=None, fetched_at=NOW - 3 * DAY), NOW).age == 3 * DAY


def test_data_without_its_date_does_not_pass_as_good() -> None:
    verdict = judge(facts(updated_at=None), NOW)
    assert (verdict.state, verdict.age) == ("expired", None)
    assert verdict.sentence.startswith("Nobody can say how old the Java DB is, for its date is missing;")


def test_a_build_from_a_few_minutes_ahead_has_no_negative_age() -> None:
    verdict = judge(facts(-5 * MINUTE), NOW)
    assert (verdict.state, verdict.age) == ("fresh", timedelta())
    assert verdict.sentence == "The Java DB was built less than a minute ago."


def test_next_update_is_never_an_expiry_date() -> None:
    verdict = judge(facts(8 * HOUR, "trivy-db", next_update=NOW - 2 * HOUR), NOW)
    assert (verdict.state, verdict.cause) == ("fresh", "")
    assert verdict.scanners_after == "Scanners without skip flags download again after 2026-11-20 10:00 UTC."
    assert scanners_after(None) == ""


def test_every_state_has_a_word_a_shape_and_an_exit_status_of_its_command() -> None:
    shown = [(look.state, look.word, look.shape, look.exit_status) for look in LOOKS.values()]
    assert shown == [
        ("fresh", "fresh", "●", 0),
        ("due", "due", "◐", 1),
        ("stale", "stale", "▲", 2),
        ("expired", "expired", "■", 2),
        ("never", "never", "○", 2),
    ]
    assert STATES == ("fresh", "due", "stale", "expired", "never")
    assert [LOOKS[state].rank for state in STATES] == [0, 1, 2, 3, 4]


# --- causes -----------------------------------------------------------------------------------------------------------

LAGGING = (source("mirror.gcr.io", lagging=True), source("ghcr.io", newer_at=NOW - 30 * HOUR))
HOLDS: dict[str, dict[str, object]] = {
    "held": {"held": True},
    "late": {"next_sync_at": NOW - 4 * HOUR - SECOND},
    "failing": {"failures": 6, "last_error": "mirror.gcr.io answered 429 (too many requests). Wait."},
    "source": {"sources": LAGGING},
    "upstream": {},
}


@pytest.mark.parametrize("cause", HOLDS)
def test_each_cause_is_found_alone(cause: str) -> None:
    assert judge(facts(**HOLDS[cause]), NOW).cause == cause


def test_the_first_cause_in_the_order_of_precedence_wins() -> None:
    assert list(CAUSES) == ["held", "late", "failing", "source", "courier", "upstream"]
    order = list(HOLDS)
    for chosen in product([False, True], repeat=len(order) - 1):
        named = [cause for cause, on in zip(order, chosen, strict=False) if on]
        changes: dict[str, object] = {}
        for cause in named:
            changes.update(HOLDS[cause])
        assert judge(facts(**changes), NOW).cause == (named[0] if named else "upstream"), named


@pytest.mark.parametrize("cause", HOLDS)
def test_fresh_data_has_no_cause(cause: str) -> None:
    verdict = judge(facts(5 * HOUR, **HOLDS[cause]), NOW)
    assert (verdict.state, verdict.cause, verdict.reason, verdict.lead) == ("fresh", "", "", "")


def test_it_is_late_once_the_plan_lies_back_by_more_than_twice_the_interval() -> None:
    assert judge(facts(next_sync_at=NOW - 4 * HOUR), NOW).cause != "late"
    late = judge(facts(next_sync_at=NOW - 4 * HOUR - SECOND), NOW)
    assert late.cause == "late"
    assert late.sentence == "The Java DB was built 4 days ago; our sync planned for 2026-11-20 07:59 UTC never began."
    assert late.next_step == "See that the scheduler and a worker are running, or sync now."


def test_it_is_late_when_no_worker_begins_a_queued_run() -> None:
    late = judge(facts(waiting_since=NOW - 5 * HOUR), NOW)
    assert late.cause == "late"
    assert "no worker of ours has begun the run queued at 2026-11-20 07:00 UTC" in late.sentence
    assert judge(facts(waiting_since=NOW - 3 * HOUR), NOW).cause != "late"


def test_without_a_stored_plan_lateness_counts_from_the_last_attempt() -> None:
    assert judge(facts(next_sync_at=None, last_attempt_at=NOW - 6 * HOUR - SECOND), NOW).cause == "late"
    assert judge(facts(next_sync_at=None, last_attempt_at=NOW - 6 * HOUR), NOW).cause != "late"


def test_a_run_in_progress_is_not_late() -> None:
    verdict = judge(facts(next_sync_at=NOW - 50 * HOUR, running=True), NOW)
    assert verdict.cause == "upstream"
    assert verdict.next_step == "A sync is running now."


def test_a_long_retry_after_is_a_failure_and_not_lateness() -> None:
    waiting = facts(failures=1, next_sync_at=NOW - 5 * HOUR, next_try_at=NOW + HOUR, last_error="It is busy.")
    verdict = judge(waiting, NOW)
    assert (verdict.cause, verdict.next_step) == ("failing", "Next try in 1 hour.")


def test_late_wins_over_failing_when_we_stopped_trying() -> None:
    assert judge(facts(failures=3, next_sync_at=NOW - 5 * HOUR), NOW).cause == "late"


def test_failing_says_how_often_and_why_and_when_next() -> None:
    failing = facts(
        failures=6,
        last_success_at=NOW - 3 * DAY,
        last_error="mirror.gcr.io answered 429 (too many requests). It asks to wait 900 s.",
        sources=(source("mirror.gcr.io"), source("ghcr.io", newer_at=NOW - 10 * HOUR)),
    )
    verdict = judge(failing, NOW)
    assert verdict.sentence == (
        "The Java DB was built 4 days ago; our last 6 attempts failed: mirror.gcr.io answered 429 (too many requests)."
    )
    assert verdict.lead == "Failing on our side."
    assert verdict.detail == (
        "Upstream has a build of 02:00 UTC. Our last 6 attempts, since Tue 12:00 UTC, failed: mirror.gcr.io answered "
        "429 (too many requests). It asks to wait 900 s. Next try in 12 minutes."
    )


def test_one_failure_without_words_is_still_a_sentence() -> None:
    verdict = judge(facts(failures=1, schedule_interval=None), NOW)
    assert verdict.sentence == "The Java DB was built 4 days ago; our last attempt failed."
    assert verdict.detail == "Our last attempt failed. Sync now to try again."


def test_failures_of_fresh_data_are_told_without_blame() -> None:
    verdict = judge(facts(5 * HOUR, failures=1, last_error="ghcr.io refused the connection."), NOW)
    assert (verdict.state, verdict.cause, verdict.lead) == ("fresh", "", "")
    assert verdict.detail == "Our last attempt failed: ghcr.io refused the connection. Next check in 12 minutes."


def test_a_plan_whose_moment_has_come_is_due_now() -> None:
    assert judge(facts(5 * HOUR, next_sync_at=NOW), NOW).next_step == "The next check is due now."
    assert judge(facts(failures=1, next_sync_at=NOW), NOW).next_step == "The next try is due now."


def test_an_error_goes_on_after_the_colon_with_a_small_letter() -> None:
    verdict = judge(facts(failures=1, last_error="The name of ghcr.io is not known to DNS. Check it."), NOW)
    assert verdict.reason == "Our last attempt failed: the name of ghcr.io is not known to DNS."
    assert verdict.detail.startswith("Our last attempt failed: the name of ghcr.io is not known to DNS. Check it.")


def test_source_names_who_lags_and_who_is_ahead() -> None:
    verdict = judge(facts(sources=LAGGING), NOW)
    assert verdict.sentence == (
        "The Java DB was built 4 days ago; mirror.gcr.io lags, while ghcr.io has a build of Thu 06:00 UTC."
    )
    assert verdict.reason.startswith("mirror.gcr.io lags")
    assert verdict.next_step == "Next sync in 12 minutes; it asks every source."


def test_a_newer_build_seen_at_a_source_is_enough_for_source() -> None:
    seen = (source("mirror.gcr.io", newer_at=NOW - 4 * DAY), source("ghcr.io", newer_at=NOW - 4 * DAY + SECOND))
    verdict = judge(facts(sources=seen), NOW)
    assert verdict.cause == "source"
    assert "mirror.gcr.io lags, while ghcr.io has a build of Mon 12:00 UTC" in verdict.sentence


def test_what_was_newer_once_and_is_held_by_now_is_not_newer() -> None:
    seen = (source("mirror.gcr.io"), source("ghcr.io", newer_at=NOW - 4 * DAY))
    assert judge(facts(sources=seen), NOW).cause == "upstream"


def test_sources_that_only_lag_behind_us_are_named_too() -> None:
    one = judge(facts(sources=(source("a.example", lagging=True), source("b.example"))), NOW)
    assert one.sentence.endswith("; a.example still offers an older build than ours.")
    both = judge(facts(sources=(source("a.example", lagging=True), source("b.example", lagging=True))), NOW)
    assert both.sentence.endswith("; a.example and b.example still offer an older build than ours.")


def test_upstream_needs_a_good_check_of_every_source_within_the_interval() -> None:
    within = 2 * HOUR + 5 * MINUTE + 5 * MINUTE  # the interval, its jitter and the length of a run
    assert judge(facts(sources=(source("a"), source("b", within))), NOW).cause == "upstream"
    assert judge(facts(sources=(source("a"), source("b", within + SECOND))), NOW).cause == ""
    assert judge(facts(sources=(source("a"), source("b", None))), NOW).cause == ""
    assert judge(facts(sources=()), NOW).cause == ""


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "our only source was asked at"),
        (2, "both sources were asked since"),
        (4, "all four sources were asked since"),
    ],
)
def test_upstream_says_that_every_source_was_asked(count: int, words: str) -> None:
    verdict = judge(facts(sources=tuple(source(f"r{n}", n * MINUTE) for n in range(1, count + 1))), NOW)
    assert verdict.sentence == (
        f"The Java DB was built 4 days ago; upstream has nothing newer: {words} 11:{60 - count} UTC."
    )
    assert verdict.next_step == "There is nothing to do but wait. Next check in 12 minutes."


def test_nobody_is_blamed_when_the_last_sync_succeeded_but_a_source_was_not_heard() -> None:
    verdict = judge(facts(sources=(source("mirror.gcr.io"), source("ghcr.io", 2 * DAY), source("ecr", None))), NOW)
    assert verdict.cause == ""
    assert verdict.sentence.endswith(
        "; our last sync found nothing newer, but nothing was heard lately from ghcr.io and ecr."
    )
    assert judge(facts(sources=()), NOW).sentence.endswith("; our last sync found nothing newer.")


def test_not_trying_is_our_fault_even_before_the_plan_is_missed_twice() -> None:
    """The gap between the rules: nothing failed, the plan is missed once, no source was heard within the interval."""
    unheard = (source("mirror.gcr.io", 3 * HOUR),)
    gap = facts(last_attempt_at=NOW - 3 * HOUR, next_sync_at=NOW - HOUR, sources=unheard)
    verdict = judge(gap, NOW)
    assert verdict.cause == "late"
    assert verdict.sentence.endswith("; we have not tried since 2026-11-20 09:00 UTC.")
    assert judge(replace(gap, last_attempt_at=None), NOW).sentence.endswith("; we have not tried yet.")
    assert judge(replace(gap, running=True), NOW).cause == ""


def test_a_mirror_synced_by_hand_is_late_when_nobody_did() -> None:
    by_hand = {"schedule_interval": None, "next_sync_at": None}
    idle = facts(last_attempt_at=NOW - 3 * DAY, sources=(source("ghcr.io", 3 * DAY),), **by_hand)
    verdict = judge(idle, NOW)
    assert verdict.cause == "late"
    assert verdict.sentence.endswith("; it is synced by hand only, and nobody has since 2026-11-17 12:00 UTC.")
    assert verdict.next_step == "Sync now."
    assert judge(facts(**by_hand), NOW).cause == "upstream"
    assert judge(facts(HOUR, **by_hand), NOW).next_step == "It is synced by hand only."


def test_a_held_build_says_so() -> None:
    verdict = judge(facts(held=True), NOW)
    assert verdict.sentence == (
        "The Java DB was built 4 days ago; it is held, and syncs do not switch it to a newer build."
    )
    assert verdict.next_step == "Release it to let syncs switch it again."
    assert judge(isolated(40 * DAY, held=True), NOW).cause == "held"


def test_a_mirror_that_is_switched_off_is_held_by_us() -> None:
    verdict = judge(facts(enabled=False, failures=3, next_sync_at=NOW - 9 * DAY), NOW)
    assert (verdict.cause, verdict.next_at) == ("held", None)
    assert verdict.detail == "Its syncs are switched off. Enable the mirror to sync it again."


def test_the_courier_is_to_blame_on_the_isolated_side_whatever_syncs_once_did() -> None:
    verdict = judge(isolated(9 * DAY, failures=4, next_sync_at=NOW - 90 * DAY, enabled=False), NOW)
    assert verdict.cause == "courier"
    assert verdict.sentence == (
        "The Java DB was built 9 days ago; no bundle has come since the one imported 9 days ago."
    )
    assert verdict.next_step == "Ask the connected side for a new bundle and import it."


def test_a_bundle_that_came_in_time_with_old_data_is_told_apart() -> None:
    verdict = judge(isolated(20 * DAY, last_import_at=NOW - DAY), NOW)
    assert verdict.sentence.endswith("; the last bundle, imported 24 hours ago, brought nothing newer.")
    named = judge(isolated(20 * DAY, last_import_at=NOW - DAY, last_bundle="20261119-1200-ab12"), NOW)
    assert named.sentence.endswith(
        "; the last bundle, 20261119-1200-ab12, imported 24 hours ago, brought nothing newer."
    )
    late = judge(isolated(20 * DAY, last_bundle="20261031-1200-ab12"), NOW)
    assert late.sentence.endswith("; no bundle has come since 20261031-1200-ab12, imported 20 days ago.")
    assert judge(isolated(20 * DAY, last_import_at=None), NOW).sentence.endswith("; no bundle has brought a newer one.")
    assert judge(never(side=ISOLATED), NOW).sentence.endswith("; no bundle has been imported yet.")


def test_the_isolated_side_is_never_told_to_sync() -> None:
    ages = [HOUR, 9 * DAY, 20 * DAY, 40 * DAY]
    verdicts = [judge(isolated(age), NOW) for age in ages] + [judge(never(side=ISOLATED), NOW)]
    verdicts.append(judge(isolated(9 * DAY, held=True), NOW))
    for verdict in verdicts:
        assert "sync" not in f"{verdict.sentence} {verdict.detail} {verdict.next_step}".lower()


def test_fresh_data_on_the_isolated_side_says_when_the_next_bundle_is_expected() -> None:
    assert judge(isolated(DAY), NOW).next_step == "The next bundle is expected by 2026-11-26 12:00 UTC."
    assert judge(isolated(7 * DAY + HOUR), NOW).next_step == "The next bundle was expected by 2026-11-20 11:00 UTC."
    assert judge(isolated(DAY, last_import_at=None), NOW).next_step == "The next bundle brings the next build."


# --- never ------------------------------------------------------------------------------------------------------------


def test_a_mirror_just_created_blames_nobody() -> None:
    verdict = judge(never(next_sync_at=NOW), NOW)
    assert (verdict.state, verdict.cause, verdict.age) == ("never", "", None)
    assert verdict.sentence == "The Java DB has never been fetched; no sync has been tried yet."
    assert verdict.next_step == "The first sync starts now."
    assert judge(never(schedule_interval=None, next_sync_at=None), NOW).next_step == "Sync now to fetch it."


def test_never_with_failures_is_failing_and_never_tried_in_time_is_late() -> None:
    failing = judge(never(failures=2, last_attempt_at=NOW - HOUR, last_error="ghcr.io was not found by DNS."), NOW)
    assert (failing.state, failing.cause) == ("never", "failing")
    assert failing.sentence == (
        "The Java DB has never been fetched; our last 2 attempts failed: ghcr.io was not found by DNS."
    )
    assert judge(never(next_sync_at=NOW - 4 * HOUR - SECOND), NOW).cause == "late"
    assert judge(never(next_sync_at=NOW - 4 * HOUR), NOW).cause == ""
    assert judge(never(enabled=False), NOW).cause == "held"


def test_never_on_the_isolated_side_waits_for_the_courier() -> None:
    verdict = judge(never(side=ISOLATED, last_import_at=NOW - DAY), NOW)
    assert (verdict.state, verdict.cause) == ("never", "courier")
    assert verdict.sentence == (
        "The Java DB has never come in a bundle; the last bundle, imported 24 hours ago, did not carry it."
    )


def test_a_first_run_that_ended_without_data_or_failure_is_told_plainly() -> None:
    assert judge(never(last_attempt_at=NOW - HOUR), NOW).reason == "No sync has finished yet."


# --- the clock --------------------------------------------------------------------------------------------------------


def test_now_is_the_later_of_the_clock_and_the_newest_time_seen() -> None:
    assert trusted_now(NOW, None) == (NOW, False)
    assert trusted_now(NOW, NOW - DAY) == (NOW, False)
    assert trusted_now(NOW, NOW) == (NOW, False)
    assert trusted_now(NOW, NOW + DAY) == (NOW + DAY, True)


def test_clocks_that_differ_by_seconds_raise_no_alarm() -> None:
    assert trusted_now(NOW, NOW + MINUTE) == (NOW + MINUTE, False)
    assert trusted_now(NOW, NOW + MINUTE + SECOND) == (NOW + MINUTE + SECOND, True)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fresh_while_the_clock_is_behind(kind: str) -> None:
    verdict = judge(facts(MINUTE, kind, clock_behind=True), NOW)
    assert (verdict.state, verdict.cause) == ("due", "")
    assert verdict.sentence.endswith(
        "; this machine's clock is behind the newest verified data, so the age cannot be trusted."
    )
    assert verdict.detail.endswith("Set this machine's clock.")


def test_worse_states_stay_when_the_clock_is_behind_and_the_sentence_says_it() -> None:
    verdict = judge(facts(failures=1, clock_behind=True), NOW)
    assert (verdict.state, verdict.cause) == ("stale", "failing")
    assert "our last attempt failed, and this machine's clock is behind" in verdict.sentence


def test_the_banner_names_both_times() -> None:
    assert clock_banner(NOW, NOW + DAY) == (
        "This machine's clock says 2026-11-20 12:00 UTC, but verified data is from 2026-11-21 12:00 UTC: "
        "nothing is called fresh until the clock is set right."
    )


# --- the words --------------------------------------------------------------------------------------------------------


def test_confirmed_kinds_say_what_was_confirmed_and_by_whom() -> None:
    assert judge(facts(20 * MINUTE, "trivy-checks"), NOW).sentence == (
        "The Checks bundle was confirmed 20 minutes ago to be what upstream has."
    )
    assert judge(facts(3 * DAY, "vex", label="VEX Hub", failures=1), NOW).sentence == (
        "VEX Hub was last confirmed 3 days ago to be what upstream has; our last attempt failed."
    )
    assert "confirmed by the connected side 24 hours ago" in judge(isolated(DAY, kind="vex"), NOW).sentence


def every_verdict() -> list[Verdict]:
    ages = [timedelta(), 5 * HOUR, 31 * HOUR, 4 * DAY, 9 * DAY, 16 * DAY, 90 * DAY]
    found = []
    for age, kind, side, held, failures, plan, sources, behind in product(
        ages,
        ["trivy-db", "vex"],
        [CONNECTED, ISOLATED, BOTH],
        [False, True],
        [0, 3],
        [None, NOW + HOUR, NOW - 9 * HOUR],
        [(), (source("a.example"),), LAGGING],
        [False, True],
    ):
        one = facts(age, kind, side=side, held=held, failures=failures, next_sync_at=plan, clock_behind=behind)
        found.append(judge(replace(one, sources=sources), NOW))
    return found


def test_every_verdict_is_whole() -> None:
    for verdict in every_verdict():
        assert verdict.state in STATES
        assert verdict.cause in {"", *CAUSES}
        assert not (verdict.state == "fresh" and (verdict.cause or verdict.reason or verdict.clock_behind))
        assert verdict.state == "fresh" or verdict.reason.endswith(".")
        assert verdict.state == "fresh" or (verdict.lead.endswith(".") and verdict.detail)
        for text in (verdict.sentence, verdict.headline, verdict.next_step):
            assert re.fullmatch(r"[A-Z].*[^.]\.", text), text
            assert "up to date" not in text
            assert "None" not in text
            assert "  " not in text


def test_an_older_build_is_never_judged_better() -> None:
    for kind, behind in product(KINDS, [False, True]):
        ranks = [judge(facts(n * HOUR, kind, clock_behind=behind), NOW).look.rank for n in range(0, 40 * 24, 3)]
        assert ranks == sorted(ranks)
        assert set(ranks) == ({1, 2, 3} if behind else {0, 1, 2, 3})


# --- the summary ------------------------------------------------------------------------------------------------------


def test_the_summary_names_the_one_that_is_not_fresh_and_why() -> None:
    failing = facts(failures=6, last_error="mirror.gcr.io answered 429 (too many requests).")
    fresh = [judge(facts(5 * HOUR, kind), NOW) for kind in ("trivy-db", "vex", "trivy-checks")]
    summary = summarize([*fresh, judge(failing, NOW)])
    assert summary.headline == "Three of four are fresh. The Java DB is 4 days old."
    assert summary.explanation == (
        "Our last 6 attempts failed: mirror.gcr.io answered 429 (too many requests). Next try in 12 minutes."
    )
    assert summary.banner == ""


def test_the_summary_of_fresh_mirrors_is_short() -> None:
    fresh = [judge(facts(5 * HOUR, "trivy-db"), NOW), judge(facts(20 * HOUR), NOW)]
    assert summarize(fresh[:1]).headline == "The Vulnerability DB is fresh."
    assert summarize(fresh).headline == "Both are fresh."
    assert summarize([*fresh, *fresh, fresh[0]]).headline == "All five are fresh."
    assert summarize(fresh * 100).headline == "All 200 are fresh."
    assert summarize(fresh).explanation == "The Java DB was built 20 hours ago. Next check in 12 minutes."


def test_the_summary_names_two_and_counts_the_rest_worst_first() -> None:
    db, java = judge(facts(10 * HOUR, "trivy-db"), NOW), judge(facts(4 * DAY), NOW)
    vex = judge(facts(8 * DAY, "vex", label="VEX Hub"), NOW)
    checks = judge(facts(40 * DAY, "trivy-checks"), NOW)
    fresh = judge(facts(HOUR), NOW)
    assert summarize([db, java]).headline == (
        "None of two is fresh. The Java DB is 4 days old and the Vulnerability DB is 10 hours old."
    )
    assert summarize([db, java, fresh, checks]).headline == (
        "One of four is fresh. The Checks bundle was last confirmed 40 days ago, the Java DB is 4 days old, "
        "and 1 more is not fresh."
    )
    assert summarize([db, java, vex, checks, db, fresh, fresh]).headline == (
        "Two of seven are fresh. The Checks bundle was last confirmed 40 days ago, VEX Hub was last confirmed 8 days "
        "ago, and 3 more are not fresh."
    )
    assert summarize([java]).headline == "The Java DB is 4 days old."


def test_the_summary_of_nothing_says_where_to_begin() -> None:
    assert summarize([]).headline == "Nothing is mirrored yet."
    assert summarize([]).explanation == "Add a mirror to begin."
    assert summarize([], ISOLATED).headline == "Nothing has come across yet."


def test_the_summary_before_the_first_sync() -> None:
    first = judge(never(next_sync_at=NOW), NOW)
    assert summarize([first] * 5).headline == "Nothing has been fetched yet."
    assert summarize([first] * 5).explanation == "No sync has been tried yet. The first sync starts now."
    one = summarize([judge(facts(HOUR), NOW), first])
    assert one.headline == "One of two is fresh. The Java DB has never been fetched."


def test_a_mirror_waiting_for_its_first_sync_does_not_hide_real_trouble() -> None:
    waiting, expired = judge(never(label="New DB", next_sync_at=NOW), NOW), judge(facts(20 * DAY, failures=1), NOW)
    summary = summarize([waiting, expired])
    assert summary.headline == "None of two is fresh. The Java DB is 20 days old and the New DB has never been fetched."
    assert summary.explanation.startswith("Our last attempt failed.")


def test_the_summary_says_first_that_the_clock_is_behind() -> None:
    behind = [judge(facts(HOUR, clock_behind=True), NOW), judge(facts(failures=1, clock_behind=True), NOW)]
    summary = summarize(behind, banner="The banner.")
    assert summary.headline == "This machine's clock is behind; nothing can be called fresh."
    assert summary.explanation.endswith("Set this machine's clock.")
    assert summary.banner == "The banner."
