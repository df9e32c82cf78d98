"""What is kept of pushes and for how long, and what of destinations leaves this instance: nothing."""

from datetime import UTC, datetime, timedelta

import pytest

from mirrors import content, exporting, logins, retention
from mirrors.models import Bundle, PushRule, PushRun, PushStep

pytestmark = pytest.mark.django_db


@pytest.fixture
def rule(make_rule, database, make_destination):
    there = make_destination("plant", "internal.example/security", login=("robot", "geheim-123"))
    return make_rule(database, there, target="db:{tag}")


@pytest.fixture
def make_run(rule, now):
    def make(state, days) -> PushRun:
        at = now - timedelta(days=days)
        run = PushRun.objects.create(
            rule=rule, mirror=rule.mirror, destination=rule.destination, trigger="sync", state=state, queued_at=at,
            started_at=at, finished_at=at,
        )  # fmt: skip
        PushStep.objects.create(run=run, at=at, text="asked")
        return run

    return make


def test_looks_go_with_the_steps_and_other_pushes_with_the_history(rule, make_run, now, settings, store):
    settings.AIRGAP_HISTORY_DAYS, settings.AIRGAP_STEPS_DAYS = 1000, 90
    ancient, old_look = make_run("succeeded", 1001), make_run("unchanged", 91)
    old_push, young_look = make_run("succeeded", 91), make_run("unchanged", 89)
    pruned = retention.prune(now)
    assert pruned.runs == 2
    assert set(PushRun.objects.all()) == {old_push, young_look}
    assert [step.run for step in PushStep.objects.all()] == [young_look]
    assert ancient.pk and old_look.pk


def test_the_last_run_of_a_rule_stays(rule, make_run, now, store):
    last = make_run("unchanged", 9000)
    PushRule.objects.update(last_run=last)
    retention.prune(now)
    assert PushRun.objects.get() == last


def test_a_bundle_holds_nothing_of_destinations(rule, store, push_now):
    sealed = rule.destination.secret_sealed
    assert sealed and content.vault().decrypt(sealed) == "geheim-123" and logins.SEALED
    bundle = exporting.create_bundle(
        [rule.mirror.current], profile="full", by="ada", now=datetime.now(UTC), store=store
    )
    bundle = Bundle.objects.get(pk=bundle.pk)
    said = str(bundle.recipe) + "".join(
        store.read(digest).decode(errors="replace") for digest in bundle.rendered.values_list("digest", flat=True)
    )
    for word in ("internal.example", "robot", "geheim", sealed, "plant"):
        assert word not in said
