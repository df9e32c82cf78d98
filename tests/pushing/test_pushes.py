"""One push, from the row that asks for it to what stands at the destination afterwards."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from mirrors import destinations, logins, retention
from mirrors.digests import digest_of
from mirrors.models import Destination, PushRule, PushRun, PushStep, Snapshot
from mirrors.pushing import perform as pushing
from mirrors.pushing.asking import HOPELESS_RETRY, PUSHES, open_due, request_push
from mirrors.stopping import StopSignal
from tests.kept import keep_build
from tests.pushing.conftest import BUILT, OCI_MANIFEST, Role

pytestmark = pytest.mark.django_db
REPOSITORY = "security/db"


def story(run):
    return "\n".join(PushStep.objects.filter(run=run).values_list("text", flat=True))


def layer_of(snapshot):
    return snapshot.blobs.get(role=Role.LAYER)


def test_it_brings_blobs_and_manifest_byte_for_byte(rule, fake, store, push_now):
    run = push_now(rule)
    snapshot = rule.mirror.current
    assert (run.state, run.error) == ("succeeded", ""), story(run)
    assert fake.manifests[(REPOSITORY, "2")] == (store.read(snapshot.manifest_digest), OCI_MANIFEST)
    layer = layer_of(snapshot)
    assert digest_of(fake.took(REPOSITORY, layer.digest)) == layer.digest
    assert run.reference == f"{fake.host}/security/db:2" and run.snapshot == snapshot
    assert run.bytes_uploaded == run.bytes_total == run.bytes_done


def test_the_rule_and_the_destination_remember_it(rule, push_now):
    push_now(rule)
    rule.refresh_from_db()
    assert rule.is_level and rule.pushed_digest == rule.mirror.current.manifest_digest
    assert rule.pushed_at is not None and rule.pushed_at <= rule.checked_at
    there = Destination.objects.get()
    assert there.answered_at is not None and there.error == "" and there.memory


def test_what_is_there_already_costs_one_request_and_no_byte(rule, fake, push_now):
    push_now(rule)
    pushed_at = PushRule.objects.get().pushed_at
    fake.forget_requests()
    run = push_now(rule)
    assert (run.state, run.bytes_uploaded, run.requests) == ("unchanged", 0, 1)
    assert [(request.method, request.path) for request in fake.requests] == [("HEAD", f"/v2/{REPOSITORY}/manifests/2")]
    assert PushRule.objects.get().pushed_at == pushed_at, "since when it is there, not when it was looked at"


def test_by_hand_a_blob_that_the_registry_lost_is_brought_again(rule, fake, push_now):
    push_now(rule)
    layer = layer_of(rule.mirror.current)
    fake.owned.discard((REPOSITORY, layer.digest))
    assert push_now(rule).state == "unchanged"
    run = push_now(rule, trigger="hand")
    assert (run.state, run.bytes_uploaded) == ("succeeded", layer.size_bytes)
    assert push_now(rule, trigger="hand").state == "unchanged"


def test_further_tags_name_the_same_content_and_only_missing_ones_are_put(
    database, destination, fake, make_rule, push_now
):
    rule = make_rule(database, destination, target="db:{tag}", extra_tags="latest {tag}-{date} v{version}")
    run = push_now(rule)
    digest = database.current.manifest_digest
    for tag in ("2", "latest", "2-20261120T0631Z"):
        assert digest_of(fake.manifests[(REPOSITORY, tag)][0]) == digest
    assert "v{version} is left out" in story(run)
    del fake.manifests[(REPOSITORY, "latest")]
    fake.forget_requests()
    assert push_now(rule).state == "succeeded"
    assert [request.path for request in fake.seen("PUT")] == [f"/v2/{REPOSITORY}/manifests/latest"]


def test_a_new_build_sends_only_what_is_new(rule, fake, store, push_now):
    push_now(rule)
    newer = keep_build(store, rule.mirror, BUILT + timedelta(hours=6), padding=50_000)
    run = push_now(rule)
    assert run.state == "succeeded" and run.bytes_uploaded == layer_of(newer).size_bytes
    assert "1 is there already" in story(run), "the empty config"


def test_a_blob_of_another_repository_of_the_destination_is_mounted(
    rule, fake, make_mirror, make_rule, store, push_now
):
    push_now(rule)
    twin = make_mirror("twin", "trivy-db", served_repository="mirrors/twin", served_tag="2")
    keep_build(store, twin, BUILT, padding=50_000)
    fake.forget_requests()
    run = push_now(make_rule(twin, rule.destination, target="twin:{tag}"))
    assert run.state == "succeeded" and run.bytes_uploaded == 0
    assert "was mounted from security/db" in story(run)
    assert fake.count("PATCH") == 0


# Indexes and referrers


def test_an_index_goes_whole_parts_first_signature_next_and_the_tag_last(image, destination, fake, make_rule, push_now):
    mirror, index, signature = image
    run = push_now(make_rule(mirror, destination, target="tool:{tag}"))
    assert (run.state, run.error) == ("succeeded", ""), story(run)
    put = [request.path.rpartition("/")[2] for request in fake.seen("PUT", "/manifests/")]
    children = [child["digest"] for child in json.loads(index)["manifests"]]
    assert put == [*children, digest_of(index), digest_of(signature), "1"]
    assert fake.manifests[("security/tool", "1")][0] == index


def test_a_signature_that_is_missing_there_is_brought_although_the_tag_is_right(
    image, destination, fake, make_rule, push_now
):
    mirror, _, signature = image
    rule = make_rule(mirror, destination, target="tool:{tag}")
    push_now(rule)
    del fake.manifests[("security/tool", digest_of(signature))]
    assert push_now(rule).state == "succeeded"
    assert ("security/tool", digest_of(signature)) in fake.manifests


def test_an_index_of_which_platforms_were_chosen_tells_why_it_is_refused(image, destination, fake, make_rule, push_now):
    mirror, index, _ = image
    absent = json.loads(index)["manifests"][1]["digest"]
    mirror.current.blobs.filter(digest=absent).delete()
    body = b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}'
    fake.trouble("PUT", f"/manifests/{digest_of(index)}", status=404, body=body, times=None)
    run = push_now(make_rule(mirror, destination, target="tool:{tag}"))
    assert run.state == "failed" and "this mirror keeps chosen platforms" in run.error


# What goes wrong


def test_a_wrong_password_is_named_and_rarely_tried_again(rule, fake, push_now):
    fake.require_basic("robot", "right")
    Destination.objects.update(login="basic", username="robot", secret_sealed=_sealed("wrong-password"))
    run = push_now(rule)
    rule.refresh_from_db()
    assert run.state == "failed" and "user name and password" in run.error and "wrong-password" not in run.error
    assert rule.next_try_at - run.finished_at > HOPELESS_RETRY - timedelta(minutes=1)
    assert rule.failures == 1 and rule.last_error == run.error
    assert Destination.objects.get().error


def _sealed(password):
    from mirrors import content

    return content.vault().encrypt(password)


def test_a_server_in_trouble_is_tried_again_in_a_minute_and_what_arrived_is_not_sent_twice(rule, fake, push_now):
    fake.trouble("PUT", "/manifests/", status=503, times=None)
    run = push_now(rule)
    rule.refresh_from_db()
    assert run.state == "failed" and "503" in run.error and not rule.pushed_digest
    assert timedelta(seconds=55) < rule.next_try_at - run.finished_at <= timedelta(seconds=61)
    fake.troubles.clear()
    again = push_now(rule)
    assert (again.state, again.bytes_uploaded) == ("succeeded", 0)
    rule.refresh_from_db()
    assert (rule.failures, rule.next_try_at, rule.last_error) == (0, None, "")


def test_a_registry_that_asks_for_patience_gets_it(rule, fake, push_now):
    fake.fault("/manifests/", method="HEAD", status=429, times=None, headers={"Retry-After": "900"})
    run = push_now(rule)
    rule.refresh_from_db()
    assert run.state == "failed"
    assert timedelta(seconds=880) < rule.next_try_at - run.finished_at <= timedelta(seconds=900)


def test_a_registry_that_says_yes_and_keeps_nothing_is_not_believed(rule, fake, push_now):
    fake.trouble("PUT", "/manifests/", lie=True, times=None)
    run = push_now(rule)
    assert run.state == "failed" and "finds nothing there now" in run.error
    assert not PushRule.objects.get().pushed_digest


def test_a_blob_that_is_missing_here_ends_it_before_anything_is_sent(rule, fake, store, push_now):
    store.remove(layer_of(rule.mirror.current).digest)
    run = push_now(rule)
    assert run.state == "failed" and "missing, so nothing was pushed" in run.error and "Check the store" in run.error
    assert fake.count("POST") == fake.count("PUT") == 0


def test_a_blob_that_rotted_here_is_not_pushed(rule, fake, store, push_now):
    layer = layer_of(rule.mirror.current)
    path = store.path(layer.digest)
    data = bytearray(path.read_bytes())
    data[1000] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(data)
    run = push_now(rule)
    assert run.state == "failed" and layer.digest[7:17] in run.error, run.error
    assert fake.took(REPOSITORY, layer.digest) is None and (REPOSITORY, "2") not in fake.manifests


def test_a_manifest_that_rotted_here_is_not_pushed(rule, fake, store, push_now):
    path = store.path(rule.mirror.current.manifest_digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b" ")
    run = push_now(rule)
    assert run.state == "failed" and not fake.requests


def test_a_key_that_is_gone_is_a_sentence(rule, data_dir, push_now):
    Destination.objects.update(login="basic", username="robot", secret_sealed=_sealed("geheim-123"))
    (data_dir / "credentials-key").unlink()
    run = push_now(rule)
    assert run.state == "failed" and "key" in run.error and "geheim" not in run.error


# Meanwhile


def test_what_is_switched_to_during_a_push_is_pushed_next(rule, fake, store, data_dir):
    older = rule.mirror.current
    run, _ = request_push(PushRule.objects.for_pages().get(), trigger="hand", by="otto", now=datetime.now(UTC))
    lease = PUSHES.claim(run.pk, now=datetime.now(UTC))
    story_of = pushing.PushStory(lease)
    push = pushing._begin(lease, PUSHES.related().get(pk=run.pk), story_of, StopSignal(), store)
    newer = keep_build(store, rule.mirror, BUILT + timedelta(hours=6))
    pushing._conclude(lease, push, *push.bring())
    run.refresh_from_db()
    assert (run.state, run.snapshot) == ("succeeded", older) and "that is pushed next" in run.note
    following = PushRun.objects.open().get()
    assert following.requested_by == "otto"
    assert pushing.perform(following.pk, heart=False, store=store)
    assert digest_of(fake.manifests[(REPOSITORY, "2")][0]) == newer.manifest_digest
    assert not PushRun.objects.open().exists()


def test_what_is_being_pushed_is_not_pruned(rule, store, data_dir):
    run, _ = request_push(PushRule.objects.for_pages().get(), trigger="hand", by="otto", now=datetime.now(UTC))
    lease = PUSHES.claim(run.pk, now=datetime.now(UTC))
    pushing._begin(lease, PUSHES.related().get(pk=run.pk), pushing.PushStory(lease), StopSignal(), store)
    older = rule.mirror.current
    rule.mirror.keep = 1
    rule.mirror.save(update_fields=["keep"])
    keep_build(store, rule.mirror, BUILT + timedelta(hours=6))
    later = datetime.now(UTC) + timedelta(days=3)
    retention.prune_snapshots(later)
    assert Snapshot.objects.filter(pk=older.pk).exists()
    PUSHES.stop(run, by="otto", now=later)
    retention.prune_snapshots(later)
    assert not Snapshot.objects.filter(pk=older.pk).exists()


def test_a_push_that_was_stopped_writes_nothing_any_more(rule, store, data_dir):
    run, _ = request_push(PushRule.objects.for_pages().get(), trigger="hand", by="otto", now=datetime.now(UTC))
    lease = PUSHES.claim(run.pk, now=datetime.now(UTC))
    push = pushing._begin(lease, PUSHES.related().get(pk=run.pk), pushing.PushStory(lease), StopSignal(), store)
    ended = push.bring()
    PUSHES.stop(run, by="otto", now=datetime.now(UTC))
    with pytest.raises(pushing.LeaseLost):
        pushing._conclude(lease, push, *ended)
    rule.refresh_from_db()
    assert rule.pushed_digest == ""


def test_what_was_learned_of_one_registry_is_not_kept_for_another(rule, fake, store, data_dir):
    fake.require_token()
    run, _ = request_push(PushRule.objects.for_pages().get(), trigger="hand", by="otto", now=datetime.now(UTC))
    lease = PUSHES.claim(run.pk, now=datetime.now(UTC))
    push = pushing._begin(lease, PUSHES.related().get(pk=run.pk), pushing.PushStory(lease), StopSignal(), store)
    wish = destinations.Wish(address="other.example/security")
    destinations.edit_destination("plant", wish, by="ada", now=datetime.now(UTC))
    push.bring()
    assert Destination.objects.get().memory == {} and Destination.objects.get().answered_at is None


def test_a_sync_that_confirmed_it_lets_the_destination_be_looked_at_again(rule, push_now):
    push_now(rule)
    now = datetime.now(UTC)
    assert open_due(now) == []
    rule.mirror.last_success_at = now + timedelta(minutes=1)
    rule.mirror.save(update_fields=["last_success_at"])
    (run,) = open_due(now + timedelta(minutes=2))
    assert run.trigger == "sync"


def test_no_secret_stands_in_its_story(rule, fake, push_now):
    fake.require_token(username="robot", password="geheim-123")
    Destination.objects.update(login="basic", username="robot", secret_sealed=_sealed("geheim-123"))
    run = push_now(rule)
    assert run.state == "succeeded", run.error
    said = story(run) + run.note + json.dumps(Destination.objects.get().memory)
    assert "geheim" not in said
    for token in fake.tokens_issued:
        assert token not in said
    assert logins.SEALED
