"""The dashboard: what it says, who may do what, what moves, and what it costs."""

from datetime import UTC, datetime, timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from mirrors import runs
from mirrors.models import (
    Bundle,
    BundleSnapshot,
    Destination,
    Export,
    Mirror,
    PushRule,
    Site,
    SiteHolding,
    SyncRun,
    Transfer,
)
from tests.kept import keep_build, keep_vex

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
URL = reverse("mirrors:dashboard")
HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def sent(monkeypatch, data_dir):
    """Ids of runs that a worker was woken for."""
    woken = []
    monkeypatch.setattr("mirrors.tasks.send_run", lambda run: woken.append(run.pk))
    return woken


@pytest.fixture
def database(make_mirror):
    return make_mirror("trivy-db", sources=["ghcr.io/aquasecurity/trivy-db:2"], label="Vulnerability DB")


def text(response) -> str:
    return " ".join(response.content.decode().split())


def test_it_needs_a_login(client):
    assert client.get(URL)["Location"].startswith(reverse("mirrors:login"))


def test_it_opens_with_a_sentence(as_viewer, store, database):
    keep_build(store, database, timezone.now() - 5 * HOUR)
    page = text(as_viewer.get(URL))
    assert "<h1>The Vulnerability DB is fresh.</h1>" in page
    assert "The Vulnerability DB was built 5 hours ago." in page


def test_a_row_shows_age_state_ruler_and_hops(as_operator, store, database):
    snapshot = keep_build(store, database, timezone.now() - 5 * HOUR)
    page = text(as_operator.get(URL))
    assert '<li class="database fresh" id="row-trivy-db">' in page
    assert '<div class="age">5 h<small class="state">fresh</small></div>' in page
    assert 'aria-label="5 hours old; rebuilt every 6 hours, due after 9 hours, stale after 1 day, expired' in page
    assert "trivy-db:2 · " in page
    assert f"<code>{snapshot.manifest_digest[7:17]}</code>" in page
    assert "<dt>built</dt>" in page
    assert "</time> from ghcr.io</dd>" in page
    assert "<dt>exported</dt><dd>not yet</dd>" in page
    assert "Export everything current · " in page


def test_what_is_judged_by_confirmation_shows_its_own_date(as_viewer, store, make_mirror):
    keep_vex(store, make_mirror("vexhub", "vex", label="VEX Hub"), datetime(2026, 3, 23, tzinfo=UTC))
    page = text(as_viewer.get(URL))
    assert "<dt>confirmed</dt>" in page
    assert "content of 23 Mar" in page


def test_trouble_explains_itself_in_its_row(as_viewer, store, database):
    run = SyncRun.objects.create(
        mirror=database, state="failed", trigger="schedule", settings_version=1, queued_at=timezone.now(),
        finished_at=timezone.now(),
    )  # fmt: skip
    Mirror.objects.update(failures=6, last_error="ghcr.io refused the connection.", last_run=run)
    keep_build(store, Mirror.objects.get(), timezone.now() - timedelta(days=4))
    page = text(as_viewer.get(URL))
    assert "<strong>Failing on our side.</strong>" in page
    assert "ghcr.io refused the connection." in page
    assert f'<a href="{reverse("mirrors:run-detail", args=[run.pk])}">Read the last run</a>' in page


def test_a_stopped_run_is_not_called_a_sync(as_viewer, store, database):
    keep_build(store, database, timezone.now() - HOUR)
    ended = timezone.now() - 20 * timedelta(minutes=1)
    Mirror.objects.update(last_attempt_at=ended, last_success_at=ended)
    assert "synced <time" in text(as_viewer.get(URL))
    Mirror.objects.update(last_success_at=ended - HOUR)
    assert "tried <time" in text(as_viewer.get(URL))


def test_a_mirror_that_was_never_synced_says_so(as_operator, database):
    page = text(as_operator.get(URL))
    assert '<small class="state">never</small>' in page
    assert "No sync has been tried yet." in page
    assert "Sync now" in page
    assert "Export everything" not in page


def test_without_mirrors_it_says_what_will_stand_here(as_administrator):
    page = text(as_administrator.get(URL))
    assert "Nothing is mirrored yet." in page
    assert reverse("mirrors:mirror-create") in page


def test_a_label_cannot_bring_markup(as_viewer, make_mirror):
    make_mirror("evil", "oci", label="<script>x</script>", sources=["host/<b>:1"], last_error="<i>", failures=1)
    page = text(as_viewer.get(URL))
    assert "<script>x" not in page
    # What page.py puts where the body goes.
    Mirror.objects.update(label="<live-body>")
    assert "&lt;live-body&gt;</a></h2>" in text(as_viewer.get(URL))
    assert "<b>" not in page
    assert "<i>" not in page


def test_the_isolated_side_offers_no_sync(as_operator, settings, store, database):
    settings.AIRGAP_SIDE = "isolated"
    assert "Sync now" not in text(as_operator.get(URL))
    Mirror.objects.all().delete()
    page = text(as_operator.get(URL))
    assert "Nothing has come across yet." in page
    assert "Sync now" not in page


def test_it_says_when_the_schedule_is_off(as_viewer, settings, database):
    settings.AIRGAP_SCHEDULE = False
    assert "nothing is synced by itself" in text(as_viewer.get(URL))


def test_a_clock_that_is_behind_is_told_once(as_viewer, store, database):
    keep_build(store, database, timezone.now() + 5 * HOUR, fetched=timezone.now())
    page = text(as_viewer.get(URL))
    assert page.count("clock says") == 1
    assert "nothing can be called fresh" in page


def test_a_full_disk_is_named_before_it_hurts(as_administrator, settings, store, database):
    keep_build(store, database, timezone.now() - HOUR)
    settings.AIRGAP_RESERVE_MB = 10**9
    page = text(as_administrator.get(URL))
    assert "The store is full:" in page
    assert "Most is held by Vulnerability DB" in page


def test_a_viewer_is_offered_nothing_to_press(as_viewer, store, database):
    keep_build(store, database, timezone.now() - HOUR)
    page = text(as_viewer.get(URL))
    assert "Sync now" not in page
    assert "Export" not in page


# What moves


@pytest.fixture
def running(database):
    """An open run that has 118 of 191 KiB."""
    now = timezone.now()
    run, _ = runs.request_sync(database, trigger="hand", by="otto", now=now)
    runs.claim(run.pk, now=now)
    SyncRun.objects.update(bytes_total=191 * 1024, bytes_done=118 * 1024, rate_bytes=2_100_000)
    return run


def test_a_running_sync_shows_bytes_speed_and_time_left(as_operator, running):
    page = text(as_operator.get(URL))
    assert "118 of 191 KiB · 2.1 MB/s · 1 s left" in page
    assert f'max="{191 * 1024}" value="{118 * 1024}"' in page
    assert reverse("mirrors:run-stop", args=[running.pk]) in page
    assert "Sync now" not in page
    assert '<noscript><meta http-equiv="refresh"' in page


def test_only_a_row_with_an_open_run_asks_again(as_operator, running, make_mirror):
    make_mirror("other", "oci", sources=["host/x:1"])
    page = text(as_operator.get(URL))
    assert page.count('hx-trigger="every 2s"') == 1


def test_the_row_stops_asking_when_its_run_ends(as_operator, running):
    row = as_operator.get(URL, {"row": "trivy-db"}, headers=HTMX)
    assert 'hx-trigger="every 2s"' in text(row)
    assert "HX-Trigger-After-Settle" not in row
    runs.stop_run(running, by="otto", now=timezone.now())
    row = as_operator.get(URL, {"row": "trivy-db"}, headers=HTMX)
    assert "hx-trigger" not in text(row)
    assert "Stopped by otto." in text(row)
    assert row["HX-Trigger-After-Settle"] == "look-again"


def test_a_row_is_one_element_and_the_page_has_the_same(as_operator, database):
    row = text(as_operator.get(URL, {"row": "trivy-db"}, headers=HTMX))
    assert row.startswith('<li class="database never" id="row-trivy-db">')
    assert row.endswith("</li>")
    assert row in text(as_operator.get(URL))


def test_a_fragment_asked_for_by_a_person_is_the_page(as_viewer, database):
    assert as_viewer.get(URL, {"row": "trivy-db"})["Location"] == URL
    assert "<!doctype html>" in text(as_viewer.get(URL, {"part": "live"}))


def test_what_reads_the_same_is_not_sent_again(as_viewer, database):
    asked = as_viewer.get(URL, {"part": "live"}, headers=HTMX)
    assert text(asked).startswith('<div id="live"')
    again = asked.context["live_url"]
    assert as_viewer.get(again, headers=HTMX).status_code == 204
    Mirror.objects.update(label="Renamed")
    assert "Renamed" in text(as_viewer.get(again, headers=HTMX))
    assert as_viewer.get(again, headers=HTMX)["Vary"].count("HX-Request") == 1


def test_an_unknown_row_is_404(as_viewer):
    assert as_viewer.get(URL, {"row": "nope"}, headers=HTMX).status_code == 404


def test_it_refuses_to_be_posted_to(as_operator):
    assert as_operator.post(URL).status_code == 405


# Sync now


SYNC = reverse("mirrors:mirror-sync", args=["trivy-db"])


def test_sync_now_works_without_javascript(as_operator, database, sent):
    assert as_operator.post(SYNC, {"back": "dashboard"})["Location"] == URL
    run = SyncRun.objects.get()
    assert (run.trigger, run.requested_by, sent) == ("hand", "otto", [run.pk])


def test_sync_now_with_htmx_answers_with_the_row(as_operator, database):
    row = as_operator.post(SYNC, headers={**HTMX, "HX-Target": "row-trivy-db"})
    assert "waiting for a worker" in text(row)
    assert "Stop" in text(row)


def test_two_clicks_make_one_run(as_operator, database, sent):
    as_operator.post(SYNC)
    as_operator.post(SYNC)
    assert SyncRun.objects.count() == len(sent) == 1


def test_a_refusal_is_a_message(as_operator, database):
    Mirror.objects.update(enabled=False)
    page = as_operator.post(SYNC, {"back": "dashboard"}, follow=True)
    assert "trivy-db is disabled." in text(page)
    again = as_operator.post(SYNC, {"back": "dashboard"}, headers={**HTMX, "HX-Target": "row-trivy-db"})
    assert again["HX-Redirect"] == URL


def test_a_viewer_may_not_sync(as_viewer, database):
    assert as_viewer.post(SYNC).status_code == 403
    assert not SyncRun.objects.exists()


def test_sync_now_refuses_get(as_operator, database):
    assert as_operator.get(SYNC).status_code == 405


# What it costs


def test_the_number_of_queries_does_not_grow(as_operator, store, make_mirror, django_assert_num_queries, now):
    def add(number):
        mirror = make_mirror(f"m{number}", "trivy-db", sources=["ghcr.io/x/y:2", "host/x/y:2"])
        keep_build(store, mirror, timezone.now() - timedelta(hours=number))
        run = SyncRun.objects.create(
            mirror=mirror, state="unchanged", trigger="schedule", settings_version=1, queued_at=now, finished_at=now
        )
        Mirror.objects.filter(pk=mirror.pk).update(last_run=run, last_attempt_at=timezone.now())
        runs.request_sync(mirror, trigger="hand", by="otto", now=timezone.now())

    def use(mirror):
        """Push it, export it, carry it to a site."""
        snapshot, name = mirror.current, mirror.name
        harbor = Destination.objects.get_or_create(
            name="harbor", defaults={"label": "Harbor", "registry": "harbor.example", "created_at": now}
        )[0]
        PushRule.objects.create(mirror=mirror, destination=harbor, target=name, created_at=now, pushed_at=now)
        bundle = Bundle.objects.create(
            id=f"b-{name}", state="ready", created_at=now, expires_at=now + HOUR, first_exported_at=now
        )
        BundleSnapshot.objects.create(bundle=bundle, snapshot=snapshot, mirror_name=name, digest=snapshot.digest)
        Export.objects.create(bundle=bundle, at=now, by="otto")
        site = Site.objects.create(name=name, code=name.upper(), label=f"Plant {name}", created_at=now)
        transfer = Transfer.objects.create(id=f"t-{name}", site=site, bundle=bundle, prepared_at=now)
        SiteHolding.objects.create(
            site=site, transfer=transfer, snapshot=snapshot, mirror_name=name, label=mirror.label, kind=mirror.kind,
            digest=snapshot.digest, since=now, evidence="receipt",
        )  # fmt: skip

    for number in range(2):
        add(number)
    with django_assert_num_queries(11):
        as_operator.get(URL)
    for number in range(2, 12):
        add(number)
    with django_assert_num_queries(11):
        page = text(as_operator.get(URL))
    assert "<dt>pushed</dt>" not in page
    # What there is, is asked for: where it is pushed, when it was exported, where it arrived, and three for the sites.
    use(Mirror.objects.get(name="m0"))
    with django_assert_num_queries(18):
        page = text(as_operator.get(URL))
    assert all(said in page for said in ("<dt>pushed</dt>", "<dt>exported</dt><dd><time", "<dt>at</dt><dd>Plant m0"))
    for mirror in Mirror.objects.exclude(name="m0"):
        use(mirror)
    with django_assert_num_queries(18):
        as_operator.get(URL)
