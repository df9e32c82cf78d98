"""Syncing a database mirror: what is taken, what is not, and what it costs."""

from datetime import UTC, datetime, timedelta

import pytest

from mirrors import content, runs, sync
from mirrors.models import LayerFacts, Snapshot, SyncRun
from mirrors.stopping import StopSignal
from mirrors.trivy import layers
from tests.operations.conftest import REPOSITORY, hours_ago

pytestmark = pytest.mark.django_db

State = SyncRun.State


@pytest.fixture
def mirror(make_mirror, fake):
    return make_mirror("trivy-db", sources=[fake.reference(REPOSITORY, "2")])


def story(run):
    return "\n".join(run.steps.values_list("text", flat=True))


def test_the_first_sync_brings_everything_and_says_how_old_it_is(mirror, fake, push_db, sync_now):
    built = hours_ago(5)
    digest = push_db(fake, built)
    run = sync_now(mirror)
    assert (run.state, run.error) == (State.SUCCEEDED, "")
    current = mirror.current
    assert current.manifest_digest == current.digest == digest
    assert current.updated_at == built
    assert current.next_update == built + timedelta(hours=24)
    assert current.published_at == built + timedelta(minutes=1)
    store = content.store()
    assert all(store.verify(blob.digest) == "ok" for blob in current.blobs.all())
    assert [blob.role for blob in current.blobs.all()] == ["manifest", "config", "layer"]
    assert store.read(digest) == fake.manifests[(REPOSITORY, "2")][0]
    assert run.bytes_downloaded == next(b.size_bytes for b in current.blobs.all() if b.role == "layer")
    assert "built" in story(run) and "GET" in story(run)


def test_an_unchanged_mirror_costs_one_request(mirror, fake, push_db, sync_now):
    push_db(fake, hours_ago(5))
    sync_now(mirror)
    before = mirror.current.confirmed_at
    fake.forget_requests()
    run = sync_now(mirror)
    assert (run.state, run.requests, run.bytes_downloaded) == (State.UNCHANGED, 1, 0)
    assert [request.method for request in fake.requests] == ["HEAD"]
    mirror.current.refresh_from_db()
    assert mirror.current.confirmed_at > before


def test_an_unchanged_mirror_behind_a_login_costs_token_and_head(mirror, fake, push_db, sync_now):
    fake.require_token()
    push_db(fake, hours_ago(5))
    sync_now(mirror)
    fake.forget_requests()
    run = sync_now(mirror)
    assert (run.state, run.requests) == (State.UNCHANGED, 2)


def test_the_same_layer_under_another_manifest_is_unchanged_and_remembered(mirror, fake, push_db, sync_now):
    built = hours_ago(5)
    kept = push_db(fake, built)
    sync_now(mirror)
    assert push_db(fake, built, annotations={"pushed": "again"}) != kept
    run = sync_now(mirror)
    assert (run.state, run.bytes_downloaded) == (State.UNCHANGED, 0)
    assert mirror.current.manifest_digest == kept
    fake.forget_requests()
    sync_now(mirror)
    assert [request.method for request in fake.requests] == ["HEAD"]


def test_a_newer_build_is_switched_to_and_the_old_one_kept(mirror, fake, push_db, sync_now):
    first = push_db(fake, hours_ago(8), seed=1)
    sync_now(mirror)
    second = push_db(fake, hours_ago(2), seed=2)
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED and "6 hours newer" in run.note
    assert mirror.current.manifest_digest == second
    assert set(mirror.snapshots.values_list("manifest_digest", flat=True)) == {first, second}


def test_an_older_build_is_not_switched_to(mirror, fake, push_db, sync_now):
    push_db(fake, hours_ago(2), seed=1)
    sync_now(mirror)
    kept = mirror.current.manifest_digest
    push_db(fake, hours_ago(8), seed=2)
    run = sync_now(mirror)
    assert run.state == State.UNCHANGED and "older build than ours" in run.note
    assert mirror.current.manifest_digest == kept
    source = mirror.sources.get()
    assert source.lagging
    assert run.bytes_downloaded == 0, "it was pushed before ours was built, so nothing needs to be read"
    fake.forget_requests()
    sync_now(mirror)
    assert [request.method for request in fake.requests] == ["HEAD"]


def test_an_older_build_that_was_pushed_late_is_read_and_still_not_switched_to(mirror, fake, push_db, sync_now):
    push_db(fake, hours_ago(2), seed=1)
    sync_now(mirror)
    kept = mirror.current.manifest_digest
    late = {"org.opencontainers.image.created": hours_ago(0).strftime("%Y-%m-%dT%H:%M:%SZ")}
    push_db(fake, hours_ago(8), seed=2, annotations=late)
    run = sync_now(mirror)
    assert run.state == State.UNCHANGED and run.bytes_downloaded > 0
    assert mirror.current.manifest_digest == kept and mirror.sources.get().lagging
    fake.forget_requests()
    again = sync_now(mirror)
    assert again.bytes_downloaded == 0


def test_a_lagging_source_makes_the_next_one_be_asked(make_mirror, fake, other, push_db, sync_now):
    mirror = make_mirror("trivy-db", sources=[fake.reference(REPOSITORY, "2"), other.reference(REPOSITORY, "2")])
    push_db(fake, hours_ago(6), seed=1)
    sync_now(mirror)
    push_db(fake, hours_ago(9), seed=2)
    newest = push_db(other, hours_ago(1), seed=3)
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED
    assert mirror.current.manifest_digest == newest
    assert run.source_reference.startswith(other.host)
    assert mirror.sources.get(position=0).lagging and not mirror.sources.get(position=1).lagging


def test_while_our_data_is_fresh_only_the_first_source_is_asked(make_mirror, fake, other, push_db, sync_now):
    mirror = make_mirror("trivy-db", sources=[fake.reference(REPOSITORY, "2"), other.reference(REPOSITORY, "2")])
    push_db(fake, hours_ago(5))
    sync_now(mirror)
    sync_now(mirror)
    assert other.requests == []


def test_once_our_data_is_due_every_source_is_asked_and_the_newest_taken(make_mirror, fake, other, push_db, sync_now):
    mirror = make_mirror("trivy-db", sources=[fake.reference(REPOSITORY, "2"), other.reference(REPOSITORY, "2")])
    push_db(fake, hours_ago(12), seed=1)
    sync_now(mirror)
    newest = push_db(other, hours_ago(1), seed=2)
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED
    assert mirror.current.manifest_digest == newest


def test_the_run_names_the_source_that_gave_or_confirmed_it_and_not_the_next(
    make_mirror, fake, other, push_db, sync_now
):
    sources = [fake.reference(REPOSITORY, "2"), other.reference(REPOSITORY, "2")]
    mirror = make_mirror("trivy-db", sources=sources)
    push_db(fake, hours_ago(5))
    assert sync_now(mirror).source_reference == sources[0]
    assert sync_now(mirror).source_reference == sources[0]  # the second was not asked
    push_db(fake, hours_ago(10), seed="older")
    push_db(other, hours_ago(2), seed="newer")
    assert sync_now(mirror).source_reference == sources[1]
    push_db(fake, hours_ago(1), seed="newest")
    assert sync_now(mirror).source_reference == sources[0]


def test_of_several_sources_asked_the_run_names_the_one_it_took(make_mirror, fake, other, push_db, sync_now):
    sources = [fake.reference(REPOSITORY, "2"), other.reference(REPOSITORY, "2")]
    mirror = make_mirror("trivy-db", sources=sources)
    push_db(fake, hours_ago(12))
    push_db(other, hours_ago(20))
    sync_now(mirror)
    assert mirror.current.source_reference == sources[0]
    run = sync_now(mirror)  # due by now, so both were asked
    assert other.requests
    assert (run.state, run.source_reference) == (State.UNCHANGED, sources[0])


def test_a_failing_source_is_told_and_the_next_one_serves(make_mirror, fake, other, push_db, sync_now):
    mirror = make_mirror("trivy-db", sources=[fake.reference(REPOSITORY, "2"), other.reference(REPOSITORY, "2")])
    fake.fault("/v2/", status=403, times=None)
    digest = push_db(other, hours_ago(1))
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED and mirror.current.manifest_digest == digest
    assert "403" in mirror.sources.get(position=0).error
    assert mirror.sources.get(position=1).error == ""
    assert "403" in story(run)


def test_a_source_whose_password_cannot_be_read_is_passed_over(make_mirror, fake, other, push_db, sync_now):
    push_db(other, hours_ago(4))
    mirror = make_mirror("trivy-db", sources=[fake.reference(REPOSITORY, "2"), other.reference(REPOSITORY, "2")])
    mirror.sources.filter(position=0).update(
        login="basic", username="otto", secret_sealed="sealed with a key that is gone"
    )
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED
    assert "is missing" in mirror.sources.get(position=0).error


def test_a_layer_that_was_read_once_is_never_inflated_again(mirror, make_mirror, fake, push_db, sync_now, monkeypatch):
    push_db(fake, hours_ago(5))
    sync_now(mirror)
    assert LayerFacts.objects.count() == 1

    def refuse(*_args, **_kwargs):
        raise AssertionError("inflated twice")

    monkeypatch.setattr("mirrors.fetch_oci.LayerInspector", refuse)
    second = make_mirror("copy", "trivy-db", sources=[fake.reference(REPOSITORY, "2")])
    run = sync_now(second)
    assert (run.state, run.bytes_downloaded) == (State.SUCCEEDED, 0)
    assert second.current.updated_at == mirror.current.updated_at
    assert layers.LayerInspector is not refuse


def test_a_missing_blob_is_fetched_again_though_upstream_has_not_changed(mirror, fake, push_db, sync_now):
    push_db(fake, hours_ago(5))
    sync_now(mirror)
    layer = mirror.current.blobs.get(role="layer")
    content.store().remove(layer.digest)
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED and "fetched again" in run.note
    assert content.store().verify(layer.digest) == "ok"
    assert Snapshot.objects.count() == 1


def test_a_missing_blob_does_not_let_an_older_build_in(mirror, fake, push_db, sync_now):
    push_db(fake, hours_ago(2), seed=1)
    sync_now(mirror)
    kept = mirror.current.manifest_digest
    content.store().remove(mirror.current.layer_digest)
    push_db(fake, hours_ago(8), seed=2)
    sync_now(mirror)
    assert mirror.current.manifest_digest == kept


def test_a_held_mirror_is_not_switched(mirror, fake, push_db, sync_now):
    push_db(fake, hours_ago(8), seed=1)
    sync_now(mirror)
    kept = mirror.current_id
    mirror.hold(datetime.now(UTC), "audit")
    push_db(fake, hours_ago(1), seed=2)
    run = sync_now(mirror)
    assert run.state == State.UNCHANGED and "held" in run.note
    assert mirror.current_id == kept and run.bytes_downloaded == 0


def test_a_duplicate_message_is_no_harm(mirror, fake, push_db, sync_now):
    push_db(fake, hours_ago(5))
    run = sync_now(mirror)
    fake.forget_requests()
    assert sync.perform(run.pk, heart=False) is False
    assert fake.requests == []


def test_a_run_closed_by_somebody_else_switches_nothing(mirror, fake, push_db, sync_now, monkeypatch):
    push_db(fake, hours_ago(5))
    run, _ = runs.request_sync(mirror, trigger="hand", by="otto", now=datetime.now(UTC))
    original = sync._conclude

    def closed_meanwhile(lease, run, story, outcome, stop):
        SyncRun.objects.filter(pk=run.pk).update(state=State.LOST, finished_at=datetime.now(UTC))
        original(lease, run, story, outcome, stop)

    monkeypatch.setattr(sync, "_conclude", closed_meanwhile)
    sync.perform(run.pk, heart=False)
    mirror.refresh_from_db()
    run.refresh_from_db()
    assert mirror.current is None and Snapshot.objects.count() == 0
    assert run.state == State.LOST


def test_only_what_was_seen_at_a_source_is_confirmed(mirror, fake, push_db, sync_now):
    push_db(fake, hours_ago(5), seed=1)
    sync_now(mirror)
    seen = mirror.current.confirmed_at
    push_db(fake, hours_ago(8), seed=2)
    assert "older build" in sync_now(mirror).note
    mirror.hold(datetime.now(UTC), "audit")
    push_db(fake, hours_ago(1), seed=3)
    assert "held" in sync_now(mirror).note
    assert Snapshot.objects.get(pk=mirror.current_id).confirmed_at == seen


def test_nothing_is_switched_once_the_run_was_told_to_stop(mirror, fake, push_db, monkeypatch, data_dir):
    push_db(fake, hours_ago(5))
    run, _ = runs.request_sync(mirror, trigger="hand", by="otto", now=datetime.now(UTC))
    original, stop = sync.sync_oci, StopSignal()

    def told_at_the_last_byte(job):
        outcome = original(job)
        stop.set("otto")
        return outcome

    monkeypatch.setattr(sync, "sync_oci", told_at_the_last_byte)
    sync.perform(run.pk, stop=stop, heart=False)
    mirror.refresh_from_db()
    run.refresh_from_db()
    assert (run.state, run.error) == (State.CANCELLED, "Stopped by otto.")
    assert mirror.current is None


def test_the_pruner_stays_away_until_the_switch_is_committed(mirror, fake, push_db, sync_now, monkeypatch):
    push_db(fake, hours_ago(5))
    original, free = sync._conclude, []

    def look(*args):
        original(*args)
        with content.store().alone() as alone:
            free.append(alone)

    monkeypatch.setattr(sync, "_conclude", look)
    sync_now(mirror)
    with content.store().alone() as alone:
        free.append(alone)
    assert free == [False, True]


def test_a_run_that_is_still_ending_does_not_undo_an_edit(mirror, fake, push_db, sync_now, monkeypatch):
    from mirrors import fetch_oci
    from mirrors.models import Mirror, Source

    push_db(fake, hours_ago(5))
    original = fetch_oci.check_manifest

    def edited_meanwhile(kind, manifest):
        Source.objects.update(username="new", insecure=False)
        Mirror.objects.update(settings_version=2)
        return original(kind, manifest)

    monkeypatch.setattr(fetch_oci, "check_manifest", edited_meanwhile)
    sync_now(mirror)
    source = mirror.sources.get()
    assert (source.username, source.insecure, source.answered_at) == ("new", False, None)


def test_a_held_mirror_takes_what_is_missing_of_its_own_content_and_nothing_else(mirror, fake, push_db, sync_now):
    ours = hours_ago(8)
    push_db(fake, ours, seed=1)
    sync_now(mirror)
    kept = mirror.current_id
    mirror.hold(datetime.now(UTC), "audit")
    content.store().remove(mirror.current.layer_digest)
    push_db(fake, hours_ago(1), seed=2)
    assert "held" in sync_now(mirror).note
    assert mirror.current_id == kept
    push_db(fake, ours, seed=1)
    assert "fetched again" in sync_now(mirror).note
    assert mirror.current_id == kept
    assert content.store().verify(mirror.current.layer_digest) == "ok"
