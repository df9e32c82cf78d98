"""Rows gathered into facts and verdicts, in a fixed number of queries."""

from datetime import timedelta

import pytest

from mirrors import runs, standing
from mirrors.clock import Reading
from mirrors.models import Bundle, BundleSnapshot, Export, Mirror, PushRule, Snapshot, SyncRun, with_rows
from mirrors.trivy.catalogue import Limits

HOUR = timedelta(hours=1)
SOURCES = ["mirror.gcr.io/aquasec/trivy-db:2", "ghcr.io/aquasecurity/trivy-db:2"]


@pytest.fixture
def make_snapshot(now):
    def make(mirror, letter="a", *, age=5 * HOUR, current=True, **fields) -> Snapshot:
        fields.setdefault("updated_at", now - age)
        snapshot = Snapshot.objects.create(
            mirror=mirror,
            identity="sha256:" + letter * 64,
            manifest_digest="sha256:" + letter * 64,
            layer_digest="sha256:" + letter.upper().lower() * 63 + "0",
            source_reference=SOURCES[0],
            size_bytes=fields.pop("size_bytes", 1000),
            fetched_at=fields.pop("fetched_at", now - age + HOUR),
            confirmed_at=fields.pop("confirmed_at", now - HOUR),
            **fields,
        )
        if current:
            mirror.switch_to(snapshot)
        return snapshot

    return make


@pytest.fixture
def stand(now):
    """The standings of all mirrors by name."""

    def look(behind=False):
        found = standing.standings(list(Mirror.objects.for_pages()), Reading(now, behind))
        return {one.mirror.name: one for one in found}

    return look


def test_it_judges_a_database_by_its_build_time(make_mirror, make_snapshot, stand):
    make_snapshot(make_mirror("trivy-db", sources=SOURCES), age=5 * HOUR)
    verdict = stand()["trivy-db"].verdict
    assert (verdict.state, verdict.age) == ("fresh", 5 * HOUR)


def test_it_judges_vex_by_its_last_confirmation(make_mirror, make_snapshot, stand, now):
    mirror = make_mirror("vexhub", kind="vex", sources=["https://github.com/aquasecurity/vexhub"])
    make_snapshot(mirror, age=timedelta(days=200), confirmed_at=now - 2 * HOUR)
    verdict = stand()["vexhub"].verdict
    assert (verdict.state, verdict.age) == ("fresh", 2 * HOUR)


def test_it_is_never_without_a_snapshot(make_mirror, stand):
    make_mirror("trivy-db", sources=SOURCES)
    found = stand()["trivy-db"]
    assert found.verdict.state == "never"
    assert found.current is None


def test_it_blames_our_failures(make_mirror, make_snapshot, stand, now):
    error = "mirror.gcr.io answered 429 (too many requests) to HEAD manifest."
    mirror = make_mirror("trivy-db", sources=SOURCES, failures=6, last_error=error, last_attempt_at=now - HOUR / 2)
    mirror.next_sync_at = now + timedelta(minutes=12)
    mirror.save()
    make_snapshot(mirror, age=timedelta(days=4))
    verdict = stand()["trivy-db"].verdict
    assert (verdict.state, verdict.cause) == ("stale", "failing")
    assert "429" in verdict.sentence
    assert "in 12 minutes" in verdict.next_step


def test_it_blames_the_hold(make_mirror, make_snapshot, stand, now):
    make_snapshot(make_mirror("trivy-db", sources=SOURCES, held_at=now), age=timedelta(days=2))
    assert stand()["trivy-db"].verdict.cause == "held"


def test_it_blames_the_source_that_lags(make_mirror, make_snapshot, stand, now):
    mirror = make_mirror("trivy-db", sources=SOURCES, last_attempt_at=now - HOUR / 2, last_success_at=now - HOUR / 2)
    make_snapshot(mirror, age=12 * HOUR)
    mirror.sources.update(answered_at=now - HOUR / 2, asked_at=now - HOUR / 2)
    mirror.sources.filter(position=1).update(updated_at=now - 4 * HOUR, layer_digest="sha256:" + "f" * 64)
    verdict = stand()["trivy-db"].verdict
    assert verdict.cause == "source"
    assert "ghcr.io has a build of 08:00 UTC" in verdict.sentence


def test_a_source_with_our_own_layer_is_not_newer(make_mirror, make_snapshot, stand, now):
    mirror = make_mirror("trivy-db", sources=SOURCES, last_attempt_at=now - HOUR / 2, last_success_at=now - HOUR / 2)
    snapshot = make_snapshot(mirror, age=12 * HOUR)
    mirror.sources.update(answered_at=now - HOUR / 2, updated_at=now - 10 * HOUR, layer_digest=snapshot.layer_digest)
    assert stand()["trivy-db"].verdict.cause == "upstream"


def test_own_limits_replace_only_those_that_are_set(make_mirror, make_snapshot, stand):
    mirror = make_mirror("trivy-db", sources=SOURCES, stale_seconds=13 * 3600)
    make_snapshot(mirror, age=14 * HOUR)
    verdict = stand()["trivy-db"].verdict
    assert verdict.limits == Limits(9 * HOUR, 13 * HOUR, timedelta(days=7))
    assert verdict.state == "stale"


def test_the_isolated_side_is_judged_by_the_courier(make_mirror, make_snapshot, stand, settings):
    settings.AIRGAP_SIDE = "isolated"
    settings.AIRGAP_COURIER_DAYS = 2
    make_snapshot(make_mirror("trivy-db"), age=timedelta(days=3, hours=1))
    verdict = stand()["trivy-db"].verdict
    assert (verdict.state, verdict.cause) == ("due", "courier")


def test_a_queued_run_is_waiting_and_a_running_one_is_running(make_mirror, stand, now):
    mirror = make_mirror("trivy-db", sources=SOURCES)
    run, _ = runs.request_sync(mirror, trigger="hand", by="otto", now=now)
    assert stand()["trivy-db"].open_run == run
    assert "running" not in stand()["trivy-db"].verdict.next_step
    assert runs.claim(run.pk, now=now)
    assert stand()["trivy-db"].verdict.next_step == "A sync is running now."


def test_a_run_that_just_ended_is_news(make_mirror, stand, now):
    mirror = make_mirror("trivy-db", sources=SOURCES)
    run = SyncRun.objects.create(
        mirror=mirror, state="unchanged", trigger="hand", settings_version=1, queued_at=now, finished_at=now
    )
    mirror.last_run, mirror.last_attempt_at = run, now - timedelta(seconds=10)
    mirror.save()
    assert stand()["trivy-db"].last_run == run
    mirror.last_attempt_at = now - timedelta(minutes=2)
    mirror.save()
    assert stand()["trivy-db"].last_run is None


def test_only_an_export_of_the_current_build_counts(make_mirror, make_snapshot, stand, now):
    mirror = make_mirror("trivy-db", sources=SOURCES)
    old, new = make_snapshot(mirror, "a"), make_snapshot(mirror, "b")

    def export(snapshot, moment):
        bundle = Bundle.objects.create(
            id=f"b{snapshot.pk}",
            filename="x.tar",
            state="ready",
            created_at=now,
            expires_at=now,
            first_exported_at=moment,
        )
        BundleSnapshot.objects.create(bundle=bundle, snapshot=snapshot, mirror_name="trivy-db", label="x", digest="x")
        Export.objects.create(bundle=bundle, at=moment, by="otto")

    export(old, now - HOUR)
    assert stand()["trivy-db"].last_export_at is None
    export(new, now - HOUR / 2)
    assert stand()["trivy-db"].last_export_at == now - HOUR / 2


def test_the_overview_adds_up(make_mirror, make_snapshot, now):
    make_snapshot(make_mirror("trivy-db", sources=SOURCES, label="Vulnerability DB"), "a", size_bytes=100)
    mirror = make_mirror("trivy-java-db", sources=SOURCES, label="Java DB", next_sync_at=now + HOUR)
    make_snapshot(mirror, "b", age=timedelta(days=4), size_bytes=800)
    make_mirror("trivy-checks", enabled=False)
    overview = standing.overview(Reading(now, False))
    assert (overview.exportable, overview.export_bytes, overview.next_sync_at) == (2, 900, now + HOUR)
    # The mirror that was switched off before it held anything is not counted.
    assert overview.summary.headline == "One of two is fresh. The Java DB is 4 days old."


def test_with_a_clock_behind_nothing_is_fresh(make_mirror, make_snapshot, stand, now):
    make_snapshot(make_mirror("trivy-db", sources=SOURCES))
    assert stand(behind=True)["trivy-db"].verdict.state == "due"
    assert "clock" in standing.overview(Reading(now, True)).summary.banner


def test_the_number_of_queries_does_not_grow(
    make_mirror, make_snapshot, now, django_assert_num_queries, django_assert_max_num_queries
):
    for number in range(3):
        make_snapshot(make_mirror(f"m{number}", kind="trivy-db", sources=SOURCES), "a")
    with django_assert_max_num_queries(6) as few:
        standing.overview(Reading(now, False))
    for number in range(3, 20):
        make_snapshot(make_mirror(f"m{number}", kind="trivy-db", sources=SOURCES), "a")
    with django_assert_num_queries(len(few)):
        standing.overview(Reading(now, False))


def test_one_query_says_which_tables_have_rows(make_mirror, django_assert_num_queries):
    make_mirror("trivy-db")
    with django_assert_num_queries(1):
        assert with_rows(PushRule, Mirror, Export, SyncRun) == {Mirror}
