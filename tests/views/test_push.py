"""Pushes in the history, the page of one push, and what the dashboard says of them."""

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from mirrors import destinations, push_rules
from mirrors.models import PushRule, PushRun, PushStep, SyncRun
from mirrors.pushing.asking import PUSHES
from mirrors.views import history
from tests.kept import keep_build

pytestmark = pytest.mark.django_db
HISTORY, CSV = reverse("mirrors:history"), reverse("mirrors:history-csv")
HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def own_data(data_dir, monkeypatch):
    monkeypatch.setattr("mirrors.tasks.send_push", lambda run: None)


@pytest.fixture
def rule(make_mirror, store):
    mirror = make_mirror("trivy-db", label="Vulnerability DB", last_success_at=timezone.now())
    keep_build(store, mirror, timezone.now() - timedelta(hours=5))
    wish = destinations.Wish(address="harbor.example/security", label="Harbor")
    there = destinations.add_destination("harbor", wish, by="ada", now=timezone.now())
    return push_rules.add_rule(there, mirror, push_rules.Wish("db:{tag}"), by="ada", now=timezone.now())


@pytest.fixture
def make_push(rule):
    def make(state="succeeded", *, minutes=5, **fields) -> PushRun:
        at = timezone.now() - timedelta(minutes=minutes)
        fields.setdefault("trigger", "sync")
        return PushRun.objects.create(
            rule=rule, mirror=rule.mirror, destination=rule.destination, state=state, queued_at=at, started_at=at,
            finished_at=None if state in ("queued", "running") else at + timedelta(seconds=8), **fields,
        )  # fmt: skip

    return make


@pytest.fixture
def make_sync(rule):
    def make(state="succeeded", *, minutes=5) -> SyncRun:
        at = timezone.now() - timedelta(minutes=minutes)
        return SyncRun.objects.create(
            mirror=rule.mirror, state=state, trigger="schedule", settings_version=1, queued_at=at, started_at=at,
            finished_at=at + timedelta(seconds=8),
        )  # fmt: skip

    return make


def text(response) -> str:
    return " ".join(response.content.decode().split())


def listed(response):
    return [(run.kind, run.pk) for run in response.context["runs"]]


def detail(run):
    return reverse("mirrors:push-detail", args=[run.pk])


# History


def test_syncs_and_pushes_stand_together_by_when_they_were_queued(as_viewer, make_push, make_sync):
    oldest, middle, newest = make_sync(minutes=30), make_push(minutes=20), make_sync(minutes=10)
    page = as_viewer.get(HISTORY)
    assert listed(page) == [("sync", newest.pk), ("push", middle.pk), ("sync", oldest.pk)]
    assert "→ Harbor" in text(page) and detail(middle) in text(page)


def test_they_are_told_apart_by_kind_and_destination(as_viewer, make_push, make_sync):
    sync, push = make_sync(), make_push("failed")
    assert listed(as_viewer.get(HISTORY, {"kind": "sync"})) == [("sync", sync.pk)]
    assert listed(as_viewer.get(HISTORY, {"kind": "push"})) == [("push", push.pk)]
    page = as_viewer.get(HISTORY, {"destination": "harbor"})
    assert listed(page) == [("push", push.pk)]
    assert "Pushes that changed something or failed to Harbor, newest first." in text(page)
    assert listed(as_viewer.get(HISTORY, {"destination": "nope"})) == []
    assert listed(as_viewer.get(HISTORY, {"who": "schedule"})) == [("sync", sync.pk)]


def test_without_a_destination_the_filters_stay_as_they_were(as_viewer, make_mirror):
    SyncRun.objects.create(
        mirror=make_mirror("trivy-db"), state="failed", trigger="hand", settings_version=1,
        queued_at=timezone.now(), finished_at=timezone.now(),
    )  # fmt: skip
    page = text(as_viewer.get(HISTORY))
    assert "kind=push" not in page and "after a sync" not in page


def test_pages_follow_both_keys_and_lose_nothing(as_viewer, make_push, make_sync, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 3)
    for number in range(10):
        make_sync(minutes=10 + 7 * number) if number % 3 else make_push(minutes=10 + 7 * number)
    page, seen = as_viewer.get(HISTORY), []
    while True:
        seen += listed(page)
        if not page.context["older"]:
            break
        page = as_viewer.get(page.context["older"])
    assert len(seen) == len(set(seen)) == 10


@pytest.mark.parametrize("before", [".", "1.x", "1.2.3", ".." * 30, "9" * 30 + ".1", "-1.5", "1."])
def test_nonsense_for_a_place_is_no_error(as_viewer, make_push, before):
    make_push()
    assert as_viewer.get(HISTORY, {"before": before}).status_code == 200


def test_the_number_of_queries_does_not_grow(as_viewer, make_push, make_sync, django_assert_num_queries):
    make_push(), make_sync()
    with django_assert_num_queries(7):
        as_viewer.get(HISTORY)
    for minutes in range(20):
        make_push("failed", minutes=minutes)
    with django_assert_num_queries(7):
        as_viewer.get(HISTORY)


def test_the_csv_has_both(as_viewer, make_push, make_sync):
    push, sync = make_push(reference="harbor.example/security/db:2", bytes_uploaded=7, minutes=1), make_sync(minutes=9)
    body = b"".join(as_viewer.get(CSV).streaming_content).decode()
    rows = list(csv.DictReader(io.StringIO(body)))
    assert [(row["kind"], int(row["run"])) for row in rows] == [("push", push.pk), ("sync", sync.pk)]
    assert (rows[0]["destination"], rows[0]["target"], rows[0]["bytes_uploaded"]) == (
        "harbor", "harbor.example/security/db:2", "7",
    )  # fmt: skip
    assert rows[1]["destination"] == "" and rows[1]["trigger"] == "schedule"


# One push


def test_it_needs_a_login(client, make_push):
    assert client.get(detail(make_push()))["Location"].startswith(reverse("mirrors:login"))


def test_a_failed_push_tells_its_story_and_when_it_is_tried_again(as_viewer, make_push, rule):
    run = make_push("failed", error="harbor.example answered 413 (too large).", requests=3, worker="host:1:2")
    PushStep.objects.create(
        run=run, at=run.started_at, level="error", source="harbor.example/security/db:2", text="413."
    )
    PushRule.objects.update(last_run=run, failures=1, next_try_at=timezone.now() + timedelta(hours=6))
    page = text(as_viewer.get(detail(run)))
    assert "<h1>The push of the Vulnerability DB to Harbor failed.</h1>" in page
    assert "harbor.example answered 413 (too large). Next try in " in page
    assert '<strong class="level">failed:</strong> 413.' in page and "hx-get" not in page


@pytest.mark.parametrize("state", PushRun.State.values)
def test_every_outcome_has_its_sentence(as_viewer, make_push, state):
    page = as_viewer.get(detail(make_push(state, error="Because.", note="Noted.", stage="asking")))
    assert page.status_code == 200 and page.context["headline"].endswith(".")


def test_one_whose_rule_is_gone_is_still_there(as_operator, make_push, rule):
    run = make_push("failed", error="x")
    push_rules.remove_rule(rule, by="ada", now=timezone.now())
    page = text(as_operator.get(detail(run)))
    assert "failed." in page and "Push now" not in page


def test_an_open_push_goes_on_by_itself_and_stops_by_itself(as_operator, make_push):
    run = make_push("running", bytes_total=100 * 1024, bytes_done=50 * 1024, rate_bytes=1000, stage="uploading")
    page = as_operator.get(detail(run))
    assert 'hx-trigger="every 2s' in text(page) and "50 of 100 KiB" in text(page)
    assert 'aria-label="Pushing Vulnerability DB"' in text(page)
    again = page.context["live_url"]
    assert as_operator.get(again, headers=HTMX).status_code == 204
    PUSHES.stop(run, by="otto", now=timezone.now())
    last = text(as_operator.get(again, headers=HTMX))
    assert last.startswith('<div id="live">') and "was stopped" in last


def test_stop_is_for_operators_and_by_post(as_operator, make_push):
    run = make_push("running")
    url = reverse("mirrors:push-stop", args=[run.pk])
    assert as_operator.get(url).status_code == 405
    assert "is stopped" in text(as_operator.post(url, follow=True))
    run.refresh_from_db()
    assert (run.state, run.error) == ("cancelled", "Stopped by otto.")
    answer = as_operator.post(url, {"back": "database"}, follow=True)
    assert "had ended already" in text(answer) and answer.redirect_chain[-1][0] == "/databases/trivy-db/"


def test_viewers_do_not_stop(as_viewer, make_push):
    run = make_push("running")
    assert as_viewer.post(reverse("mirrors:push-stop", args=[run.pk])).status_code == 403
    assert "Stop</button>" not in text(as_viewer.get(detail(run)))


def test_an_unknown_push_is_404(as_viewer):
    assert as_viewer.get(reverse("mirrors:push-detail", args=[4711])).status_code == 404


# The dashboard


def test_the_dashboard_says_quietly_where_a_build_is(as_viewer, rule):
    assert "<dt>pushed</dt><dd>not yet</dd>" in text(as_viewer.get("/"))
    PushRule.objects.update(pushed_snapshot=rule.mirror.current, pushed_at=timezone.now() - timedelta(hours=3))
    page = text(as_viewer.get("/"))
    assert "<dt>pushed</dt><dd>to Harbor, <time" in page and "3 h ago" in page
    assert "has failed" not in page


def test_the_dashboard_says_in_words_when_a_push_fails(as_viewer, rule, make_push):
    run = make_push("failed", error="x")
    PushRule.objects.update(
        failures=3, failing_since=timezone.now() - timedelta(hours=2, minutes=5), last_run=run,
        last_error="harbor.example answered 401 (login required). Check the password.",
        next_try_at=timezone.now() + timedelta(minutes=4, seconds=30),
    )  # fmt: skip
    page = text(as_viewer.get("/"))
    assert (
        "<strong>Pushing to Harbor has failed for 2 h.</strong> harbor.example answered 401 (login required). Next try"
        in page
    )
    assert detail(run) in page


def test_a_mirror_that_goes_nowhere_says_nothing(as_viewer, make_mirror, store):
    keep_build(store, make_mirror("trivy-db"), datetime.now(UTC))
    assert "<dt>pushed</dt>" not in text(as_viewer.get("/"))
