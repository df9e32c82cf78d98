"""History and the page of one run."""

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from mirrors import runs
from mirrors.models import RunStep, SyncRun
from mirrors.views import history
from mirrors.views.history import Filters

pytestmark = pytest.mark.django_db
URL = reverse("mirrors:history")
CSV = reverse("mirrors:history-csv")
HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def nothing_sent(monkeypatch, data_dir):
    monkeypatch.setattr("mirrors.tasks.send_run", lambda run: None)


@pytest.fixture
def mirror(make_mirror):
    return make_mirror("trivy-db", sources=["ghcr.io/aquasecurity/trivy-db:2"], label="Vulnerability DB")


@pytest.fixture
def make_run(mirror):
    def make(state="succeeded", *, of=mirror, at=None, trigger="schedule", **fields) -> SyncRun:
        at = at or timezone.now() - timedelta(minutes=5)
        return SyncRun.objects.create(
            mirror=of, state=state, trigger=trigger, settings_version=1, queued_at=at, started_at=at,
            finished_at=None if state in ("queued", "running") else at + timedelta(seconds=8), **fields,
        )  # fmt: skip

    return make


def text(response) -> str:
    return " ".join(response.content.decode().split())


def listed(response) -> list[int]:
    return [run.pk for run in response.context["runs"]]


def test_it_needs_a_login(client):
    for url in (URL, CSV):
        assert client.get(url)["Location"].startswith(reverse("mirrors:login"))


def test_it_lists_newest_first_and_hides_what_found_nothing_new(as_viewer, make_run):
    old, _, new = make_run("failed"), make_run("unchanged"), make_run("succeeded")
    page = as_viewer.get(URL)
    assert listed(page) == [new.pk, old.pk]
    assert "Runs that found nothing new are left out." in text(page)


def test_all_outcomes_can_be_shown(as_viewer, make_run):
    make_run("unchanged"), make_run("failed")
    assert len(listed(as_viewer.get(URL, {"outcome": "all"}))) == 2


def test_it_filters_by_outcome_database_who_and_day(as_viewer, make_run, make_mirror):
    other = make_mirror("vexhub", "vex", label="VEX Hub")
    failed = make_run("failed", requested_by="otto", trigger="hand")
    make_run("succeeded")
    elsewhere = make_run("succeeded", of=other)
    long_ago = make_run("succeeded", at=datetime(2026, 3, 10, 23, 59, 55, tzinfo=UTC))
    opened = make_run("running", of=make_mirror("third", "oci"))
    assert listed(as_viewer.get(URL, {"outcome": "failed"})) == [failed.pk]
    assert listed(as_viewer.get(URL, {"outcome": "open"})) == [opened.pk]
    assert listed(as_viewer.get(URL, {"database": "vexhub"})) == [elsewhere.pk]
    assert listed(as_viewer.get(URL, {"who": "otto"})) == [failed.pk]
    assert listed(as_viewer.get(URL, {"who": "hand"})) == [failed.pk]
    # The day it ended, not the day it began.
    assert listed(as_viewer.get(URL, {"day": "2026-03-11"})) == [long_ago.pk]
    assert opened.pk in listed(as_viewer.get(URL, {"day": f"{timezone.now():%Y-%m-%d}"}))


def test_filters_are_links_that_keep_the_others(as_viewer, make_run):
    make_run("failed")
    page = text(as_viewer.get(URL, {"outcome": "failed", "database": "trivy-db"}))
    assert '<a href="/history/?database=trivy-db&amp;outcome=failed&amp;who=hand">by hand</a>' in page
    assert '<a href="/history/?database=trivy-db&amp;outcome=failed" aria-current="true">failed</a>' in page


@pytest.mark.parametrize(
    "asked",
    [
        {"day": "yesterday"},
        {"outcome": "nonsense"},
        {"before": "²"},
        {"before": "9" * 40},
        {"database": "'; --"},
        {"day": "0001-01-01"},
    ],
)
def test_nonsense_in_the_url_is_no_error(as_viewer, make_run, asked):
    make_run("failed")
    assert as_viewer.get(URL, asked).status_code == 200
    assert b"".join(as_viewer.get(CSV, asked).streaming_content)


def test_pages_follow_the_key(as_viewer, make_run, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 2)
    made = [make_run("failed").pk for _ in range(5)]
    page, seen = as_viewer.get(URL, {"outcome": "failed"}), []
    while True:
        seen += listed(page)
        if not page.context["older"]:
            break
        assert "outcome=failed" in page.context["older"]
        page = as_viewer.get(page.context["older"])
        assert page.context["newest"]
    assert seen == made[::-1]


def test_many_databases_are_searched_for(as_viewer, make_run, make_mirror):
    make_run("failed")
    for number in range(12):
        make_mirror(f"m{number}", "oci")
    page = text(as_viewer.get(URL))
    assert 'type="search" name="database"' in page
    assert '<option value="m7">' in page


def test_empty_is_a_page_too(as_viewer, make_run, mirror):
    assert "No run yet." in text(as_viewer.get(URL))
    make_run("unchanged")
    page = text(as_viewer.get(URL))
    assert "No run is like that." in page
    assert "drop every filter" in page


def test_the_number_of_queries_does_not_grow(as_viewer, make_run, make_mirror, django_assert_num_queries):
    make_run("failed")
    with django_assert_num_queries(7):
        as_viewer.get(URL)
    for number in range(10):
        make_run("failed", of=make_mirror(f"m{number}", "oci"))
    with django_assert_num_queries(7):
        as_viewer.get(URL)


def test_the_csv_has_every_run_the_filters_let_through(as_viewer, make_run, monkeypatch):
    monkeypatch.setattr(history, "CSV_CHUNK", 2)
    made = [make_run("failed", error="=cmd()", requested_by="@otto", bytes_downloaded=5).pk for _ in range(5)]
    make_run("unchanged")
    response = as_viewer.get(CSV, {"before": str(made[1])})
    assert response["Content-Disposition"].endswith('.csv"')
    rows = list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))
    assert [int(row["run"]) for row in rows] == made[::-1]
    assert (rows[0]["error"], rows[0]["requested_by"], rows[0]["seconds"]) == ("'=cmd()", "'@otto", "8.0")
    assert rows[0]["finished_at"].endswith("Z")


def test_an_unknown_database_finds_nothing(make_run):
    make_run("failed")
    assert Filters(database="nope").newest(1) == []


# One run


def detail(run):
    return reverse("mirrors:run-detail", args=[run.pk])


def test_a_failed_run_tells_its_story(as_viewer, make_run, mirror):
    run = make_run("failed", error="ghcr.io answered 404. Check the name.", requests=3, worker="build-host:12:99")
    source = "ghcr.io/aquasecurity/trivy-db:2"
    for level, line in (("info", "HEAD /v2/…: 404"), ("warning", "Trying again."), ("error", "ghcr.io answered 404.")):
        RunStep.objects.create(run=run, at=run.started_at + timedelta(seconds=2), level=level, source=source, text=line)
    page = text(as_viewer.get(detail(run)))
    assert "<h1>The sync of the Vulnerability DB failed.</h1>" in page
    assert "ghcr.io answered 404. Check the name." in page
    assert "still served" not in page, "nothing was ever fetched"
    assert '<strong class="level">failed:</strong> ghcr.io answered 404.' in page
    assert '<strong class="level">note:</strong> Trying again.' in page
    assert "+2.0 s" in page
    assert "<dd>build-host</dd>" in page
    assert "hx-get" not in page


@pytest.mark.parametrize("state", SyncRun.State.values)
def test_every_outcome_has_its_sentence(as_viewer, make_run, state):
    page = as_viewer.get(detail(make_run(state, error="Because.", note="Noted.", stage="asking ghcr.io")))
    assert page.status_code == 200
    assert page.context["headline"].endswith(".")


def test_an_open_run_goes_on_by_itself_and_stops_by_itself(as_operator, make_run):
    run = make_run("running", bytes_total=100 * 1024, bytes_done=50 * 1024, rate_bytes=1000, stage="downloading")
    page = as_operator.get(detail(run))
    assert 'hx-trigger="every 2s, look-again from:body"' in text(page)
    assert "50 of 100 KiB" in text(page)
    again = page.context["live_url"]
    assert as_operator.get(again, headers=HTMX).status_code == 204
    runs.stop_run(run, by="otto", now=timezone.now())
    last = text(as_operator.get(again, headers=HTMX))
    assert last.startswith('<div id="live">')
    assert "was stopped" in last


def test_stop_works_without_javascript(as_operator, make_run):
    run = make_run("running")
    response = as_operator.post(reverse("mirrors:run-stop", args=[run.pk]), {"back": "run"}, follow=True)
    assert "is stopped" in text(response)
    run.refresh_from_db()
    assert (run.state, run.error) == ("cancelled", "Stopped by otto.")
    again = as_operator.post(reverse("mirrors:run-stop", args=[run.pk]), {"back": "dashboard"}, follow=True)
    assert "had ended already" in text(again)


def test_stop_with_htmx_answers_with_the_row(as_operator, make_run):
    run = make_run("running")
    headers = {**HTMX, "HX-Target": "row-trivy-db"}
    row = as_operator.post(reverse("mirrors:run-stop", args=[run.pk]), headers=headers)
    assert text(row).startswith('<li class="database')
    assert "Sync now" in text(row)


def test_only_operators_stop_and_only_by_post(client, as_viewer, make_run):
    run = make_run("running")
    assert as_viewer.post(reverse("mirrors:run-stop", args=[run.pk])).status_code == 403
    assert "Stop</button>" not in text(as_viewer.get(detail(run)))


def test_stop_refuses_get(as_operator, make_run):
    assert as_operator.get(reverse("mirrors:run-stop", args=[make_run("running").pk])).status_code == 405


def test_an_unknown_run_is_404_in_our_own_words(as_viewer):
    response = as_viewer.get(reverse("mirrors:run-detail", args=[4711]))
    assert response.status_code == 404
    assert "There is nothing here." in text(response)
