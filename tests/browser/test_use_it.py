"""Use it in a real browser: copying, and the doctor's findings without a new page."""

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from tests.doctor.conftest import push
from tests.fakes.registry import FakeRegistry
from tests.kept import keep_build

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.django_db(transaction=True)]
STAYS, STAYED = "window.stayed = true", "window.stayed === true"


@pytest.fixture
def mirrored(store, make_mirror):
    keep_build(store, make_mirror(sources=["ghcr.io/aquasecurity/trivy-db"]), timezone.now() - timedelta(hours=1))


def test_a_button_copies_the_text_as_it_stands(open_page, viewer, mirrored, live_server):
    page = open_page(viewer, permissions=["clipboard-read", "clipboard-write"])
    page.goto("/use-it/")
    snippet = page.locator(".snippet", has=page.get_by_role("heading", name="Flags"))
    snippet.get_by_role("button", name="Copy").click()
    expect(snippet.get_by_role("button")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == snippet.locator("pre").inner_text()
    assert f"--db-repository {live_server.url.removeprefix('http://')}/aquasecurity/trivy-db:2 \\\n" in copied


def test_without_a_clipboard_the_text_is_selected_and_copied_the_old_way(open_page, viewer, mirrored):
    page = open_page(viewer)
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.goto("/use-it/")
    snippet = page.locator(".snippet", has=page.get_by_role("heading", name="Flags"))
    snippet.get_by_role("button", name="Copy").click()
    assert page.evaluate("String(document.getSelection())").strip() == snippet.locator("pre").inner_text().strip()


def test_the_doctor_answers_below_its_form(open_page, operator, data_dir):
    with FakeRegistry() as fake:
        push(fake, layers=[(b"a", "application/x-tar", "db.tar.gz")])
        page = open_page(operator)
        page.goto("/use-it/doctor/")
        page.evaluate(STAYS)
        page.get_by_label("Address").fill(f"{fake.host}/aquasecurity/trivy-db:2")
        page.get_by_role("button", name="Examine").click()
        expect(page.get_by_role("heading", name="A Trivy there would stop: one thing.")).to_be_visible()
        expect(page.get_by_text("unacceptable media type")).to_be_visible()
        page.get_by_label("Address").fill("a b")
        page.get_by_role("button", name="Examine").click()
        expect(page.get_by_text("is not a host name")).to_be_visible()
        assert page.evaluate(STAYED)
        # Chromium's own word for the 422 of a form that is filled in wrongly.
        assert all("422" in complaint for complaint in open_page.complaints)
        open_page.complaints.clear()


def test_the_doctor_works_without_javascript(open_page, operator, data_dir):
    with FakeRegistry() as fake:
        push(fake)
        page = open_page(operator, java_script_enabled=False)
        page.goto("/use-it/doctor/")
        page.get_by_label("Address").fill(f"{fake.host}/aquasecurity/trivy-db:2")
        page.get_by_role("button", name="Examine").click()
        expect(page.get_by_role("heading", name="A Trivy there would get what it needs.")).to_be_visible()


@pytest.mark.parametrize("path", ["", "compare/", "hosts/", "by-hand/", "doctor/"])
def test_nothing_scrolls_sideways_on_a_phone(open_page, operator, mirrored, path):
    page = open_page(operator, viewport={"width": 390, "height": 800})
    page.goto(f"/use-it/{path}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
