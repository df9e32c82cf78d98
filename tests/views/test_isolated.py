"""What the pages say and offer on the isolated side, and between two enclaves."""

from datetime import timedelta

import pytest

from mirrors.models import Mirror
from tests.kept import keep_build


@pytest.fixture
def brought(make_mirror, store, now, settings):
    """A mirror as an import makes it: no source, by hand, and a current snapshot."""
    settings.AIRGAP_SIDE = "isolated"
    mirror = make_mirror("trivy-db", schedule="manual")
    keep_build(store, mirror, now)
    return mirror


def test_what_came_in_bundles_is_edited_without_sources(as_administrator, brought):
    page = as_administrator.get("/settings/mirrors/trivy-db/").text
    assert "comes with bundles." in page and "the courier&#x27;s limits" in page.replace("'", "&#x27;")
    for absent in ('name="sources"', 'name="schedule"', 'name="proxy"', 'name="login"', "Test connection", "Disable"):
        assert absent not in page
    served = {"served_as": "aquasecurity/trivy-db", "after": "."}
    sent = {"label": "The DB", "due": "10d", "stale": "", "expired": "40d", "keep": "5", **served}
    answer = as_administrator.post("/settings/mirrors/trivy-db/", sent)
    assert answer.status_code == 302, answer.text
    brought.refresh_from_db()
    assert (brought.label, brought.keep, brought.schedule) == ("The DB", 5, "manual")
    assert (brought.due_seconds, brought.stale_seconds, brought.expired_seconds) == (864000, None, 3456000)
    assert (brought.served_repository, brought.served_tag, brought.next_sync_at) == ("aquasecurity/trivy-db", "2", None)


def test_limits_of_what_came_in_bundles_are_checked_against_the_courier(as_administrator, brought):
    sent = {"label": "DB", "due": "20d", "served_as": "aquasecurity/trivy-db", "after": "."}
    answer = as_administrator.post("/settings/mirrors/trivy-db/", sent)
    assert answer.status_code == 422 and "due after 20 d, stale after 14 d" in answer.text


def test_a_courier_of_every_day_hinders_no_edit(as_administrator, brought, settings):
    settings.AIRGAP_COURIER_DAYS = 1
    sent = {"label": "DB", "served_as": "aquasecurity/trivy-db", "after": "."}
    assert as_administrator.post("/settings/mirrors/trivy-db/", sent).status_code == 302


def test_between_two_enclaves_a_mirror_without_sources_comes_with_bundles(as_administrator, brought, settings):
    settings.AIRGAP_SIDE = "both"
    page = as_administrator.get("/settings/mirrors/trivy-db/").text
    assert "comes with bundles." in page and 'name="sources"' in page
    sent = {"label": "DB", "sources": "", "schedule": "manual", "served_as": "aquasecurity/trivy-db"}
    answer = as_administrator.post("/settings/mirrors/trivy-db/", {**sent, "login": "keep", "after": "."})
    assert answer.status_code == 302, answer.text


def test_the_list_says_what_comes_with_bundles(as_administrator, brought):
    text = as_administrator.get("/settings/").text
    assert "with bundles" in text and "by every newer bundle" in text and "by the connected side" in text


def test_the_page_of_a_database_speaks_of_bundles_where_no_sync_comes(as_operator, brought, now):
    Mirror.objects.update(held_at=now, held_reason="a trial")
    page = as_operator.get("/databases/trivy-db/").text
    assert "What bundles bring is kept, but not switched to." in page and "by the connected side" in page
    for absent in ("Sync now", ">schedule<", "Syncs look", "No source is set"):
        assert absent not in page


def test_rolling_back_and_releasing_speak_of_imports(as_operator, brought, store, now):
    older = keep_build(store, brought, now - timedelta(days=3), current=False)
    assert "newer builds that bundles bring are kept" in as_operator.get(f"/snapshots/{older.pk}/roll-back").text
    page = as_operator.post(f"/snapshots/{older.pk}/roll-back", follow=True).text
    assert "Imports do not switch it until you release it." in page
    assert "imports do not switch it to a newer build" in page
    assert "Imports switch it again." in as_operator.post("/databases/trivy-db/release", follow=True).text
