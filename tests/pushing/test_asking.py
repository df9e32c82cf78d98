"""When a push is asked for: due, coalesced, tried again, stopped, lost; and how destinations do not meet."""

from datetime import UTC, datetime, timedelta

import pytest

from mirrors import content, destinations, leases, runs
from mirrors.models import AuditEntry, PushRule, PushRun, PushStep, SyncRun
from mirrors.pushing import perform as pushing
from mirrors.pushing.asking import PUSHES, PushRefused, next_try, open_due, request_push
from tests.kept import keep_build
from tests.pushing.conftest import BUILT

pytestmark = pytest.mark.django_db
State = PushRun.State


@pytest.fixture
def rule(make_rule, database, make_destination):
    """To where nobody listens."""
    return make_rule(database, make_destination("plant", "127.0.0.1:1"), target="db:{tag}")


def ask(rule, now, trigger="hand"):
    return request_push(PushRule.objects.for_pages().get(pk=rule.pk), trigger=trigger, by="otto", now=now)


def fail(rule, now, retry_at=None):
    run, _ = ask(rule, now)
    PUSHES.close(PUSHES.claim(run.pk, now=now), State.FAILED, now=now, error="It broke.", retry_at=retry_at)
    rule.refresh_from_db()


def succeed(rule, now):
    run, _ = ask(rule, now)
    PushRule.objects.filter(pk=rule.pk).update(pushed_snapshot=rule.mirror.current, pushed_at=now)
    PUSHES.close(PUSHES.claim(run.pk, now=now), State.SUCCEEDED, now=now)
    rule.refresh_from_db()


def test_a_new_rule_is_due_at_once_and_once(rule, now):
    assert [run.rule for run in open_due(now)] == [rule]
    assert open_due(now) == []
    again, made = ask(rule, now)
    assert not made and again == PushRun.objects.get()


def test_however_often_the_mirror_switched_it_is_one_push(rule, store, now):
    succeed(rule, now)
    assert open_due(now) == []
    for hours in (6, 12, 18):
        keep_build(store, rule.mirror, BUILT + timedelta(hours=hours))
    assert len(open_due(now)) == 1


def test_by_hand_only_means_that(make_rule, database, make_destination, now):
    rule = make_rule(database, make_destination("plant", "127.0.0.1:1"), automatic=False)
    assert open_due(now) == []
    fail(rule, now)
    assert open_due(now) == []
    assert len(open_due(now + timedelta(minutes=1))) == 1, "what was asked for and failed is tried again"


def test_with_the_schedule_off_nothing_is_pushed_by_itself(rule, now, settings):
    settings.AIRGAP_SCHEDULE = False
    assert open_due(now) == []
    assert ask(rule, now)[1]


def test_the_isolated_side_pushes_too(rule, now, settings):
    settings.AIRGAP_SIDE = "isolated"
    assert len(open_due(now)) == 1


def test_a_disabled_destination_and_an_empty_mirror_are_told(rule, now):
    destinations.set_enabled("plant", False, by="ada", now=now)
    assert open_due(now) == []
    with pytest.raises(PushRefused, match="is disabled"):
        ask(rule, now)
    destinations.set_enabled("plant", True, by="ada", now=now)
    rule.mirror.current = None
    rule.mirror.save(update_fields=["current"])
    assert open_due(now) == []
    with pytest.raises(PushRefused, match="holds nothing yet"):
        ask(rule, now)


# Again


def test_pauses_grow_to_an_hour(now):
    waits = [next_try(failures, now=now) - now for failures in range(1, 12)]
    minutes = [wait // timedelta(minutes=1) for wait in waits]
    assert minutes == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]


def test_what_the_registry_asked_for_counts_if_it_is_later_and_sane(now):
    assert next_try(1, now=now, retry_at=now + timedelta(minutes=15)) == now + timedelta(minutes=15)
    assert next_try(5, now=now, retry_at=now + timedelta(seconds=1)) == now + timedelta(minutes=16)
    assert next_try(1, now=now, retry_at=now + timedelta(days=400)) == now + timedelta(days=1)


def test_a_failure_waits_for_its_time_whatever_is_new(rule, store, now):
    fail(rule, now)
    keep_build(store, rule.mirror, BUILT + timedelta(hours=6))
    assert open_due(now + timedelta(seconds=59)) == []
    (run,) = open_due(now + timedelta(seconds=60))
    assert run.trigger == "retry"


def test_failures_are_counted_until_it_succeeds(rule, now):
    for _ in range(3):
        fail(rule, now)
    assert (rule.failures, rule.failing_since, rule.next_try_at) == (3, now, now + timedelta(minutes=4))
    succeed(rule, now)
    assert (rule.failures, rule.failing_since, rule.next_try_at, rule.last_error) == (0, None, None, "")


def test_a_stop_by_hand_is_not_undone_in_the_next_second(rule, now):
    run, _ = ask(rule, now)
    assert PUSHES.stop(run, by="otto", now=now)
    assert AuditEntry.objects.get(action="push stopped").subject == "trivy-db to plant"
    assert PushStep.objects.get(run=run).text == "Stopped by otto."
    assert open_due(now + timedelta(minutes=59)) == []
    assert len(open_due(now + timedelta(hours=1))) == 1


def test_a_changed_destination_is_tried_at_once(rule, now):
    for _ in range(5):
        fail(rule, now)
    destinations.edit_destination("plant", destinations.Wish(proxy="http://proxy.example:3128"), by="ada", now=now)
    assert len(open_due(now)) == 1


# Lost


def test_a_push_whose_worker_went_away_is_lost_and_asked_for_again(rule, now):
    run, _ = ask(rule, now)
    PUSHES.claim(run.pk, now=now)
    PushRun.objects.filter(pk=run.pk).update(worker="elsewhere:12:34")
    assert PUSHES.close_lost(now + timedelta(seconds=29)) == []
    (again,) = PUSHES.close_lost(now + timedelta(seconds=31))
    run.refresh_from_db()
    assert run.state == State.LOST
    assert (again.trigger, again.losses, again.state) == ("retry", 1, State.QUEUED)


def test_one_that_is_lost_again_and_again_is_left_to_the_schedule(rule, now):
    run, _ = ask(rule, now)
    for _ in range(leases.MOST_LOSSES):
        PUSHES.claim(run.pk, now=now)
        PushRun.objects.filter(pk=run.pk).update(worker="elsewhere:12:34")
        again = PUSHES.close_lost(now + timedelta(minutes=1))
        if not again:
            break
        run = again[0]
    assert run.losses == leases.MOST_LOSSES - 1 and not PushRun.objects.open().exists()


def test_a_worker_that_is_shut_down_puts_its_push_back(rule, now):
    run, _ = ask(rule, now)
    PUSHES.put_back(PUSHES.claim(run.pk, now=now))
    run.refresh_from_db()
    assert run.state == State.QUEUED and run.is_open
    assert PUSHES.claim(run.pk, now=now)


def test_a_push_and_a_sync_of_the_same_key_are_not_mistaken_for_each_other(rule, now):
    push, _ = ask(rule, now)
    sync, _ = runs.request_sync(rule.mirror, trigger="hand", by="otto", now=now)
    assert leases.work_key(PushRun, 1) != leases.work_key(SyncRun, 1)
    lease = runs.claim(sync.pk, now=now)
    PUSHES.stop(push, by="otto", now=now)
    assert lease.write(bytes_done=1)


# Several destinations


def test_one_push_at_a_time_goes_to_a_destination_and_others_go_on(
    rule, make_mirror, make_rule, make_destination, store, now
):
    second = make_mirror("trivy-java-db", label="Java DB")
    keep_build(store, second, BUILT)
    behind = make_rule(second, rule.destination)
    elsewhere = make_rule(second, make_destination("other", "127.0.0.1:2"))
    first_run, behind_run, other_run = (ask(each, now)[0] for each in (rule, behind, elsewhere))
    lease = PUSHES.claim(first_run.pk, now=now)
    assert PUSHES.claim(behind_run.pk, now=now) is None, "its destination is busy"
    assert PUSHES.oldest_queued() == other_run.pk, "who got free passes over what has to wait"
    assert [run.pk for run in PUSHES.unsent(now)] == [other_run.pk]
    PUSHES.close(lease, State.FAILED, now=now, error="x")
    assert PUSHES.oldest_queued() == behind_run.pk


def test_one_that_could_not_be_claimed_is_left_alone(rule, make_mirror, make_rule, store, now, data_dir):
    second = make_mirror("trivy-java-db")
    keep_build(store, second, BUILT)
    waiting, _ = ask(make_rule(second, rule.destination), now)
    PUSHES.claim(ask(rule, now)[0].pk, now=now)
    assert pushing.perform(waiting.pk, heart=False, store=content.store()) is False
    waiting.refresh_from_db()
    assert waiting.state == State.QUEUED


def test_history_outlives_its_rule(rule, now):
    fail(rule, now)
    assert PushRule.objects.all().delete()
    run = PushRun.objects.get()
    assert run.rule is None and run.destination.name == "plant"
    assert PUSHES.ask_again(run, now=datetime.now(UTC)) is None
