"""Destinations in a browser: the preview of names while typing, the test in place, and a push begun and stopped."""

import pytest
from django.utils import timezone

from mirrors import destinations, push_rules
from mirrors.models import PushRun
from tests.fakes.push_registry import PushRegistry
from tests.kept import keep_build

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def fake():
    with PushRegistry() as registry:
        yield registry


@pytest.fixture
def plant(fake, data_dir, monkeypatch):
    monkeypatch.setattr("mirrors.tasks.send_push", lambda run: None)
    wish = destinations.Wish(address=f"{fake.host}/security", label="Plant", insecure=True)
    return destinations.add_destination("plant", wish, by="ada", now=timezone.now())


def test_the_names_are_shown_while_they_are_typed(open_page, administrator, plant, fake, make_mirror, store):
    keep_build(store, make_mirror("trivy-db", label="Vulnerability DB"), timezone.now())
    keep_build(store, make_mirror("trivy-java-db", label="Java DB"), timezone.now())
    page = open_page(administrator)
    page.goto("/settings/destinations/plant/rules/new")
    page.fill("input[name=target]", "db-of-ours:{tag}")
    page.get_by_text(f"{fake.host}/security/db-of-ours:2").wait_for()
    page.select_option("select[name=mirror]", "trivy-java-db")
    page.get_by_text(f"{fake.host}/security/db-of-ours:1").wait_for()
    page.fill("input[name=target]", "db-of-ours:{nope}")
    page.get_by_text("There is no placeholder {nope}").wait_for()
    page.fill("input[name=target]", "db-of-ours:{tag}")
    page.get_by_role("button", name="Add this mirror").click()
    page.get_by_text("goes to Plant from now on").wait_for()
    assert open_page.complaints == []


def test_the_test_answers_in_place_and_a_push_is_begun_and_stopped(open_page, administrator, plant, make_mirror, store):
    mirror = make_mirror("trivy-db", label="Vulnerability DB")
    keep_build(store, mirror, timezone.now())
    push_rules.add_rule(plant, mirror, push_rules.Wish("db:{tag}"), by="ada", now=timezone.now())
    page = open_page(administrator)
    page.goto("/settings/destinations/plant/")
    page.get_by_role("button", name="Test", exact=True).click()
    page.get_by_text("Plant lets us push.").wait_for()
    page.get_by_role("button", name="Push Vulnerability DB now").click()
    page.get_by_text("waiting for a worker").wait_for()
    page.get_by_role("button", name="Stop pushing Vulnerability DB").click()
    page.get_by_text("is stopped").wait_for()
    assert PushRun.objects.get().state == "cancelled"
    assert page.url.endswith("/settings/destinations/plant/")
    assert open_page.complaints == []
