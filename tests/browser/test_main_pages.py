"""What only a browser can show: live parts without a reload, keyboard, phone, no JavaScript."""

import tarfile
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from mirrors import runs
from mirrors.models import Role, SyncRun, User
from tests.kept import keep_build

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
HOUR = timedelta(hours=1)
STAYS = "window.stays = true"
STAYED = "window.stays === true"


@pytest.fixture
def operator(transactional_db):
    return User.objects.create_user("otto", password="correct horse otto", role=Role.OPERATOR)


@pytest.fixture
def databases(store, make_mirror):
    now = timezone.now()
    first = make_mirror("trivy-db", sources=["ghcr.io/aquasecurity/trivy-db:2"], label="Vulnerability DB")
    second = make_mirror("trivy-java-db", sources=["ghcr.io/x/trivy-java-db:1"], label="Java DB", position=200)
    for mirror, hours in ((first, 11), (first, 5), (second, 7)):
        keep_build(store, mirror, now - hours * HOUR)
    return first, second


def test_somebody_signs_in_and_sees_how_things_stand(open_page, operator, databases):
    page = open_page()
    page.goto("/")
    page.get_by_label("User name").fill("otto")
    page.get_by_label("Password").fill("correct horse otto")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Both are fresh.")
    expect(page.locator("#row-trivy-db .age")).to_contain_text("5 h")
    expect(page.get_by_role("img", name="5 hours old; rebuilt every 6 hours")).to_be_visible()


@pytest.mark.long
def test_a_sync_is_watched_in_its_row_and_nothing_jumps(open_page, operator, databases):
    page = open_page(operator)
    page.goto("/")
    page.evaluate(STAYS)
    row, below = page.locator("#row-trivy-db"), page.locator("#row-trivy-java-db")
    height, place = row.bounding_box()["height"], below.bounding_box()["y"]
    page.get_by_role("button", name="Sync Vulnerability DB now").click()
    expect(row).to_contain_text("waiting for a worker")
    stop = page.get_by_role("button", name="Stop syncing Vulnerability DB")
    expect(stop).to_be_focused()
    run = SyncRun.objects.get()
    lease = runs.claim(run.pk, now=timezone.now())
    lease.write(bytes_total=191 * 1024, bytes_done=118 * 1024, rate_bytes=2_100_000)
    expect(row).to_contain_text("118 of 191 KiB · 2.1 MB/s · 1 s left")
    assert (row.bounding_box()["height"], below.bounding_box()["y"]) == (height, place)
    runs.close(lease, "unchanged", now=timezone.now(), note="Nothing new.")
    expect(row).to_contain_text("Nothing new.")
    expect(page.get_by_role("button", name="Sync Vulnerability DB now")).to_be_focused()
    assert (row.bounding_box()["height"], below.bounding_box()["y"]) == (height, place)
    assert page.evaluate(STAYED)


@pytest.mark.long
def test_stop_stops(open_page, operator, databases):
    run, _ = runs.request_sync(databases[0], trigger="hand", by="otto", now=timezone.now())
    page = open_page(operator)
    page.goto("/")
    page.evaluate(STAYS)
    page.get_by_role("button", name="Stop syncing Vulnerability DB").click()
    expect(page.locator("#row-trivy-db")).to_contain_text("Stopped by otto.")
    run.refresh_from_db()
    assert run.state == "cancelled"
    assert page.evaluate(STAYED)


@pytest.mark.long
def test_a_run_of_the_schedule_appears_by_itself(open_page, operator, databases):
    page = open_page(operator)
    page.goto("/")
    runs.request_sync(databases[1], trigger="schedule", by="", now=timezone.now())
    # What the page does every 20 seconds, without waiting for them.
    page.evaluate("htmx.trigger(document.body, 'look-again')")
    expect(page.locator("#row-trivy-java-db")).to_contain_text("waiting for a worker")


@pytest.mark.long
def test_everything_works_without_javascript(open_page, operator, databases):
    page = open_page(operator, java_script_enabled=False)
    page.goto("/")
    page.get_by_role("button", name="Sync Vulnerability DB now").click()
    expect(page.locator("#row-trivy-db")).to_contain_text("waiting for a worker")
    page.get_by_role("button", name="Stop syncing Vulnerability DB").click()
    expect(page.get_by_role("status").first).to_contain_text("is stopped")


@pytest.mark.long
def test_one_click_and_the_file_comes(open_page, operator, databases, tmp_path):
    page = open_page(operator)
    page.goto("/")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export everything current").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    with tarfile.open(file) as bundle:
        names = [name.partition("/")[2] for name in bundle.getnames()]
    assert names[:2] == ["bundle.json", "SHA256SUMS"]


@pytest.mark.long
def test_a_session_that_ended_shows_the_login_and_not_inside_a_row(open_page, operator, databases):
    page = open_page(operator)
    page.goto("/")
    Session.objects.all().delete()
    page.evaluate("htmx.trigger(document.body, 'look-again')")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    expect(page.locator("#row-trivy-db")).to_have_count(0)


@pytest.mark.long
def test_a_server_that_is_away_is_told_and_forgotten(open_page, operator, databases):
    page = open_page(operator)
    page.goto("/")
    page.route("**/*part=live*", lambda route: route.abort())
    page.evaluate("htmx.trigger(document.body, 'look-again')")
    expect(page.get_by_text("The server does not answer.")).to_be_visible()
    page.unroute("**/*part=live*")
    page.evaluate("htmx.trigger(document.body, 'look-again')")
    expect(page.get_by_text("The server does not answer.")).to_be_hidden()
    open_page.complaints.clear()


@pytest.mark.long
def test_what_was_unfolded_stays_unfolded(open_page, operator, databases):
    page = open_page(operator)
    page.goto(reverse("mirrors:mirror-detail", args=["trivy-db"]))
    page.get_by_text("The same as a table").click()
    expect(page.get_by_role("columnheader", name="Age when replaced")).to_be_visible()
    runs.request_sync(databases[0], trigger="schedule", by="", now=timezone.now())
    page.evaluate("htmx.trigger(document.body, 'look-again')")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.get_by_role("columnheader", name="Age when replaced")).to_be_visible()


@pytest.mark.long
def test_the_keyboard_is_enough(open_page, operator, databases, make_mirror):
    for number in range(12):
        make_mirror(f"image-{number}", "oci")
    SyncRun.objects.create(
        mirror=databases[0], state="failed", trigger="hand", settings_version=1, queued_at=timezone.now(),
        finished_at=timezone.now(), error="ghcr.io refused the connection.",
    )  # fmt: skip
    page = open_page(operator)
    page.goto(reverse("mirrors:history"))
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("/")
    expect(page.locator("input[type=search]")).to_be_focused()
    page.keyboard.type("trivy-db")
    page.keyboard.press("Enter")
    link = page.get_by_role("row").nth(1).get_by_role("link")
    link.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("The sync of the Vulnerability DB failed.")


@pytest.mark.long
def test_nothing_scrolls_sideways_on_a_phone(open_page, operator, databases):
    long = "registry.example.com:5000/" + "a-very-long-name/" * 8 + "trivy-db:2"
    databases[0].sources.update(reference=long, error="It answered " + "x" * 200)
    run = SyncRun.objects.create(
        mirror=databases[0], state="failed", trigger="hand", settings_version=1, queued_at=timezone.now(),
        finished_at=timezone.now(), error="y" * 300, source_reference=long,
    )  # fmt: skip
    page = open_page(operator, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    mirror = reverse("mirrors:mirror-detail", args=["trivy-db"])
    for path in ("/", mirror, reverse("mirrors:history"), reverse("mirrors:run-detail", args=[run.pk])):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
