"""A database's page, and what can be done with its snapshots."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from mirrors import runs
from mirrors.models import Mirror, Snapshot, SyncRun
from tests.kept import keep_build, keep_vex

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
URL = reverse("mirrors:mirror-detail", args=["trivy-db"])
SOURCES = ["mirror.gcr.io/aquasec/trivy-db:2", "ghcr.io/aquasecurity/trivy-db:2"]


@pytest.fixture(autouse=True)
def nothing_sent(monkeypatch, data_dir):
    monkeypatch.setattr("mirrors.tasks.send_run", lambda run: None)


@pytest.fixture
def mirror(make_mirror):
    return make_mirror("trivy-db", sources=SOURCES, label="Vulnerability DB", insecure=False)


@pytest.fixture
def builds(store, mirror):
    now = timezone.now()
    return [keep_build(store, mirror, now - hours * HOUR) for hours in (17, 11, 5)]


def text(response) -> str:
    return " ".join(response.content.decode().split())


def test_it_needs_a_login(client, mirror):
    assert client.get(URL)["Location"].startswith(reverse("mirrors:login"))


def test_an_unknown_database_is_404(as_viewer):
    assert as_viewer.get(URL).status_code == 404


def test_it_opens_with_the_verdict(as_viewer, builds):
    page = text(as_viewer.get(URL))
    assert "<h1>The Vulnerability DB is 5 hours old.</h1>" in page
    assert "Scanners without skip flags download again after" in page
    assert builds[-1].manifest_digest in page
    assert builds[-1].layer_digest in page


def test_it_says_under_which_names_scanners_get_it(as_viewer, builds):
    page = text(as_viewer.get(URL))
    assert "<code>aquasecurity/trivy-db:2</code> and <code>aquasec/trivy-db:2</code>" in page
    assert f"also <code>latest</code>; by date as <code>2-{builds[-1].updated_at:%Y%m%dT%H%MZ}</code>" in page


def test_it_draws_the_saw_tooth_with_words_and_a_table(as_viewer, builds):
    page = text(as_viewer.get(URL))
    assert '<polyline class="line" points="' in page
    assert "the data was switched 3 times" in page
    assert page.count('<td data-label="Switched">') == 3
    assert "due after 9 h" in page
    assert "style=" not in page


def test_what_is_confirmed_is_drawn_from_its_runs(as_viewer, store, make_mirror):
    now = timezone.now()
    mirror = make_mirror("vexhub", "vex", label="VEX Hub")
    keep_vex(store, mirror, now - timedelta(days=200))
    for hours in (18, 12, 6):
        moment = now - hours * HOUR
        SyncRun.objects.create(
            mirror=mirror, state="unchanged", trigger="schedule", settings_version=1, queued_at=moment,
            started_at=moment, finished_at=moment,
        )  # fmt: skip
    page = text(as_viewer.get(reverse("mirrors:mirror-detail", args=["vexhub"])))
    assert "Time since upstream was last seen still offering what we hold." in page
    assert page.count('<td data-label="Confirmed">') >= 3


def test_never_synced_is_a_page_too(as_operator, mirror):
    page = text(as_operator.get(URL))
    assert "has never been fetched" in page
    assert "Here the age will be drawn" in page
    assert "Nothing is kept yet." in page
    assert "No run yet." in page


def test_it_shows_how_sources_are(as_viewer, mirror):
    first, second = mirror.sources.all()
    first.error, first.asked_at, first.clock_skew_seconds = "It answered 429.", timezone.now(), 240
    first.login, first.username, first.secret_sealed = "basic", "robot", "sealed-secret"
    first.save()
    second.lagging, second.answered_at = True, timezone.now() - HOUR
    second.save()
    page = text(as_viewer.get(URL))
    assert "It answered 429." in page
    assert "Its clock is 4 min ahead of ours." in page
    assert "with a password" in page
    assert "an older build" in page
    assert "sealed-secret" not in page
    assert "robot" not in page


def test_a_proxy_password_is_not_shown(as_administrator, mirror):
    Mirror.objects.update(proxy="http://me:hush@proxy.example:3128")
    page = text(as_administrator.get(URL))
    assert "Through the proxy proxy.example" in page
    assert "hush" not in page


def test_an_open_run_is_live_here_too(as_operator, mirror):
    run, _ = runs.request_sync(mirror, trigger="hand", by="otto", now=timezone.now())
    page = text(as_operator.get(URL))
    assert 'hx-trigger="every 2s, look-again from:body"' in page
    assert reverse("mirrors:run-stop", args=[run.pk]) in page


def test_the_isolated_side_has_no_sources_to_sync_from(as_operator, settings, make_mirror):
    settings.AIRGAP_SIDE = "isolated"
    make_mirror("trivy-db")
    page = text(as_operator.get(URL))
    assert "Sync now" not in page
    assert 'id="sources"' not in page


def test_a_viewer_is_offered_nothing_to_press(as_viewer, builds):
    page = text(as_viewer.get(URL))
    for word in ("Sync now", "Export", "Roll back", "Unpin", "Settings"):
        assert word not in page


def test_the_number_of_queries_does_not_grow(as_operator, store, mirror, builds, django_assert_num_queries):
    with django_assert_num_queries(16):
        as_operator.get(URL)
    for hours in (30, 36, 42):
        keep_build(store, mirror, timezone.now() - hours * HOUR, current=False)
    with django_assert_num_queries(16):
        as_operator.get(URL)


# Snapshots


def pin_url(snapshot):
    return reverse("mirrors:snapshot-pin", args=[snapshot.pk])


def roll_back_url(snapshot):
    return reverse("mirrors:snapshot-roll-back", args=[snapshot.pk])


def test_it_pins_and_unpins(as_operator, builds):
    assert as_operator.post(pin_url(builds[0]))["Location"] == URL
    assert Snapshot.objects.get(pinned=True) == builds[0]
    assert "Unpin" in text(as_operator.get(URL))
    as_operator.post(pin_url(builds[0]), {"unpin": "1"})
    assert not Snapshot.objects.filter(pinned=True).exists()


def test_rolling_back_asks_first(as_operator, builds):
    page = text(as_operator.get(roll_back_url(builds[0])))
    assert "Roll back Vulnerability DB to the build of" in page
    assert Mirror.objects.get().current == builds[-1]
    response = as_operator.post(roll_back_url(builds[0]), {"reason": "too many findings"}, follow=True)
    assert "is rolled back and held" in text(response)
    assert "too many findings" in text(response)
    assert Mirror.objects.get().current == builds[0]


def test_a_refused_roll_back_is_a_message(as_operator, builds):
    response = as_operator.post(roll_back_url(builds[-1]), follow=True)
    assert "is the current one already" in text(response)


def test_it_releases_a_hold(as_operator, builds):
    Mirror.objects.get().hold(timezone.now(), "why not")
    assert "Release hold" in text(as_operator.get(URL))
    response = as_operator.post(reverse("mirrors:mirror-release", args=["trivy-db"]), follow=True)
    assert "is released" in text(response)
    assert not Mirror.objects.get().is_held


def test_viewers_change_nothing(as_viewer, builds):
    release = reverse("mirrors:mirror-release", args=["trivy-db"])
    for url in (pin_url(builds[0]), roll_back_url(builds[0]), release):
        assert as_viewer.post(url).status_code == 403
    assert as_viewer.get(roll_back_url(builds[0])).status_code == 403


def test_what_changes_something_refuses_get(as_operator, builds):
    for url in (pin_url(builds[0]), reverse("mirrors:mirror-release", args=["trivy-db"])):
        assert as_operator.get(url).status_code == 405
