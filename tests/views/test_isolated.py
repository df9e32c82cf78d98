"""What the pages say and offer on the isolated side, and between two enclaves."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from mirrors import clock, scrubbing
from mirrors.importing import asking
from mirrors.importing.asking import Wishes
from mirrors.models import Import, Mirror, Snapshot
from mirrors.standing import standings
from mirrors.views.mirror import _points
from tests.kept import keep_build


@pytest.fixture
def mark_as_just_now():
    """mark_as_just_now(run): the import ended now, by the clock that pages are drawn with."""

    def mark(run: Import) -> Import:
        Import.objects.filter(pk=run.pk).update(finished_at=timezone.now())
        run.refresh_from_db()
        return run

    return mark


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


# After an import


def test_the_first_action_is_import(as_operator, isolated, db, data_dir):
    page = as_operator.get("/").text
    assert "Nothing has come across yet." in page
    assert '<a class="button main" id="import" href="/import/">Import a bundle</a>' in page
    assert "An administrator trusts that key" in page and "Add a mirror" not in page


def test_a_viewer_is_offered_no_import(as_viewer, isolated, data_dir):
    assert 'id="import"' not in as_viewer.get("/").text


def test_between_two_enclaves_import_stands_beside_export(as_operator, carrier, take, settings):
    settings.AIRGAP_SIDE = "both"
    take(carrier.bundle())
    page = as_operator.get("/").text
    assert 'id="import"' in page and 'class="button main" form="act" name="all"' in page


def test_the_connected_side_offers_no_import(as_operator, make_mirror, data_dir):
    make_mirror("trivy-db")
    assert 'id="import"' not in as_operator.get("/").text


def test_the_dashboard_says_with_which_bundle_it_came(as_operator, isolated, carrier, take, mark_as_just_now):
    run = mark_as_just_now(take(carrier.bundle({"trivy-db": 5})))
    page = as_operator.get("/").text
    assert "<dt>imported</dt>" in page
    assert f'/import/{run.pk}/">{run.bundle}</a>' in page
    assert "next expected in 7 d" in page
    assert "Last import" in page and "The courier is expected every 7 days." in page
    for absent in ("Sync now", "Last sync", "<dt>pulled</dt>", "by hand only"):
        assert absent not in page


def test_nobody_over_there_claims_to_know_what_upstream_has(as_operator, isolated, carrier, take):
    take(carrier.bundle({"trivy-checks": 30}))
    Snapshot.objects.update(confirmed_at=timezone.now() - timedelta(days=2))
    page = as_operator.get("/").text
    assert "is fresh" in page
    assert "was what upstream had when last confirmed" in page
    assert "is what upstream has" not in page


def test_the_database_page_says_where_it_came_from(as_operator, isolated, carrier, take, mark_as_just_now):
    run = mark_as_just_now(take(carrier.bundle({"trivy-db": 5})))
    page = as_operator.get("/databases/trivy-db/").text
    assert f'with bundle <a href="/import/{run.pk}/">{run.bundle}</a>, <strong>unsigned</strong>' in page
    assert "Bundles that carried it" in page and "switched to" in page and "Last runs" not in page


def test_the_age_falls_when_a_bundle_comes_and_not_when_it_was_fetched(isolated, carrier, take, mark_as_just_now):
    run = mark_as_just_now(take(carrier.bundle({"trivy-db": 5})))
    mirror = Mirror.objects.get()
    came = list(mirror.imports.select_related("run"))
    points = list(_points(mirror, [mirror.current], came, "built", timezone.now()))
    assert points == [(run.finished_at, mirror.current.updated_at)]


def test_freshness_names_the_courier_and_the_last_bundle(isolated, carrier, take, mark_as_just_now):
    run = mark_as_just_now(take(carrier.bundle({"trivy-db": 20 * 24}, made=timezone.now())))
    found = standings(list(Mirror.objects.select_related("current")), clock.trusted_now())[0]
    assert (found.verdict.state, found.verdict.cause) == ("stale", "courier")
    assert f"the last bundle, {run.bundle}, imported just now, brought nothing newer." in found.verdict.sentence
    assert found.brought is not None and found.brought.bundle == run.bundle


def test_the_dashboard_asks_as_often_for_ten_databases_as_for_one(as_operator, isolated, carrier, take):
    take(carrier.bundle({"trivy-db": 5}))
    with CaptureQueriesContext(connection) as one:
        as_operator.get("/")
    take(carrier.bundle({f"db-{n}": 5 for n in range(10)}, kinds={f"db-{n}": "trivy-db" for n in range(10)}))
    with CaptureQueriesContext(connection) as ten:
        as_operator.get("/")
    assert len(ten) <= len(one)


# The clock


def test_a_clock_that_is_years_behind_calls_nothing_fresh(as_operator, isolated, carrier, take, store):
    """The bundle was made by a clock that is right, and ours stands years before that."""
    made = timezone.now() + timedelta(days=3 * 365)
    run = take(carrier.bundle({"trivy-db": 1}, made=made))
    assert not clock.trusted_now().behind, "nobody has said yet which of the two clocks is right"
    asking.decide(run, switch_older=False, by="ada", now=timezone.now(), store=store)
    reading = clock.trusted_now()
    assert reading.behind and reading.now == Import.objects.get().bundle_created_at
    found = standings(list(Mirror.objects.select_related("current")), reading)[0]
    assert found.verdict.state == "due" and not found.verdict.is_fresh
    page = as_operator.get("/").text
    assert "clock" in page and "nothing is called fresh until the clock is set right" in page


def test_a_clock_that_is_years_ahead_calls_nothing_fresh_either(isolated, carrier, take):
    take(carrier.bundle({"trivy-db": 1}, made=timezone.now() - timedelta(days=3 * 365)))
    found = standings(list(Mirror.objects.select_related("current")), clock.trusted_now())[0]
    assert not clock.trusted_now().behind
    assert (found.verdict.state, found.verdict.cause) == ("expired", "courier")


def test_a_bundle_that_was_refused_moves_no_clock(isolated, carrier, take):
    made = timezone.now() + timedelta(days=3 * 365)
    run = take(carrier.bundle({"trivy-db": 1}, made=made), wishes=Wishes(at_once=True))
    assert run.state == "failed" and not clock.trusted_now().behind


# The store


def test_the_check_says_which_bundle_mends_what_is_damaged_and_that_bundle_does(isolated, carrier, take, store):
    path = carrier.bundle({"trivy-db": 5})
    run = take(path)
    digest = Mirror.objects.get().current.layer_digest
    store.path(digest).chmod(0o644)
    store.path(digest).write_bytes(b"gone bad")
    assert scrubbing.scrub(store=store) == []
    (action,) = scrubbing.last_check().actions
    said = f"what is current is damaged. Import the bundle {run.bundle} again, which brought it, or a newer one."
    assert action == f"trivy-db: {said}"
    assert not store.has(digest)
    take(path)
    assert store.verify(digest) == "ok"


# History


def test_history_tells_of_imports(as_viewer, isolated, carrier, take):
    first = take(carrier.bundle({"trivy-db": 30}))
    refused = take(carrier.bundle({"trivy-java-db": 5}), wishes=Wishes(at_once=True))
    page = as_viewer.get("/history/").text
    assert page.index(f'href="/import/{refused.pk}/"') < page.index(f'href="/import/{first.pk}/"')
    assert f"bundle {first.bundle}" in page and "is not signed" in page and "from a directory" in page
    only = as_viewer.get("/history/?database=trivy-db&kind=import").text
    assert f"/import/{first.pk}/" in only and f"/import/{refused.pk}/" not in only
    assert f"/import/{first.pk}/" not in as_viewer.get("/history/?outcome=failed").text
    assert f"/import/{first.pk}/" in as_viewer.get("/history/?who=directory").text
    assert f"/import/{first.pk}/" in as_viewer.get("/history/?who=otto").text
    for nobody in ("?who=upload", "?kind=push", "?kind=sync", "?day=2020-01-01"):
        assert f"/import/{first.pk}/" not in as_viewer.get(f"/history/{nobody}").text


def test_history_goes_on_behind_the_last_import_of_a_page(as_viewer, isolated, carrier, take, monkeypatch):
    monkeypatch.setattr("mirrors.views.history.PAGE", 1)
    first, second = take(carrier.bundle({"trivy-db": 30})), take(carrier.bundle({"trivy-db": 5}))
    page = as_viewer.get("/history/").text
    assert f"/import/{second.pk}/" in page and f"before=..{second.pk}" in page
    older = as_viewer.get(f"/history/?before=..{second.pk}").text
    assert f"/import/{first.pk}/" in older and f"/import/{second.pk}/" not in older and "These are all." in older


def test_history_as_csv_holds_imports(as_viewer, isolated, carrier, take):
    run = take(carrier.bundle())
    lines = as_viewer.get("/history.csv").getvalue().decode().splitlines()
    assert (
        f"{run.pk},trivy-db,succeeded,directory,otto," in lines[1]
        and f",{run.bundle}," in lines[1]
        and ",import," in lines[1]
    )


def test_the_connected_side_lists_no_imports(as_viewer, carrier, take, settings):
    settings.AIRGAP_SIDE = "isolated"
    run = take(carrier.bundle())
    settings.AIRGAP_SIDE = "connected"
    assert f"/import/{run.pk}/" not in as_viewer.get("/history/").text
