"""Bundles: made at once, kept as long as promised, prepared by a worker, the same bytes for ever."""

import errno
import hashlib
import io
import json
import os
import subprocess
import tarfile
from datetime import timedelta

import pytest
from django.utils import timezone

from mirrors import cache_archive, exporting, preparing, retention
from mirrors.blobs import writing
from mirrors.exporting import ExportError
from mirrors.models import AuditEntry, Bundle, BundleBlob, Source
from mirrors.stopping import StopSignal
from tests.kept import keep_build, keep_vex
from tests.unpacking import unpack as unpack_tar

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def everything(store, make_mirror, now):
    """A current snapshot of every default mirror, by name."""
    return {
        "trivy-db": keep_build(store, make_mirror("trivy-db", position=1), now - 5 * HOUR, padding=300_000),
        "trivy-java-db": keep_build(store, make_mirror("trivy-java-db", position=2), now - 12 * HOUR),
        "trivy-checks": keep_build(store, make_mirror("trivy-checks", position=3), now - 900 * HOUR),
        "vexhub": keep_vex(store, make_mirror("vexhub", "vex", position=4), now - 30 * HOUR),
    }


def make(store, now, *names, profile="full", **options):
    options.setdefault("by", "otto")
    return exporting.create_bundle(exporting.current_snapshots(names), profile=profile, now=now, store=store, **options)


def sent(bundle, store):
    file = exporting.file_of(bundle, store)
    return b"".join(file.read(0, file.size))


def unpack(data, folder):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        unpack_tar(tar, folder)


def test_a_bundle_is_whole_and_checks_itself(everything, store, now, tmp_path):
    bundle = make(store, now)
    data = sent(bundle, store)
    assert len(data) == bundle.size_bytes
    assert bundle.filename.startswith("airgap-20261120T120000Z-")
    assert bundle.filename.endswith(".tar")
    unpack(data, tmp_path)
    top = tmp_path / bundle.filename.removesuffix(".tar")
    done = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=top, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    names = [entry["mirror"] for entry in json.loads((top / "bundle.json").read_text())["snapshots"]]
    assert names == ["trivy-db", "trivy-java-db", "trivy-checks", "vexhub"]
    assert (top / "install.sh").exists()
    assert (top / "push.sh").exists()


def test_data_only_leaves_the_scripts_out(everything, store, now, tmp_path):
    bundle = make(store, now, profile="data")
    unpack(sent(bundle, store), tmp_path)
    top = tmp_path / bundle.filename.removesuffix(".tar")
    assert not (top / "install.sh").exists()
    assert not (top / "push.sh").exists()
    assert (top / "README.txt").exists()


def test_it_takes_named_mirrors_in_that_order(everything, store, now):
    bundle = make(store, now, "vexhub", "trivy-db", "vexhub")
    assert [row.mirror_name for row in bundle.contents.all()] == ["vexhub", "trivy-db"]


def test_it_takes_one_older_snapshot(store, make_mirror, now):
    mirror = make_mirror()
    older = keep_build(store, mirror, now - 12 * HOUR)
    keep_build(store, mirror, now - 6 * HOUR)
    bundle = exporting.create_bundle([older], profile="full", now=now, by="otto", store=store)
    assert bundle.contents.get().digest == older.digest


def test_it_says_how_many_other_sources_have_the_same_layer(everything, store, now):
    snapshot = everything["trivy-db"]
    for position, layer in enumerate([snapshot.layer_digest, snapshot.layer_digest, "sha256:" + "0" * 64]):
        Source.objects.create(mirror=snapshot.mirror, position=position, reference=f"r{position}", layer_digest=layer)
    Source.objects.create(
        mirror=snapshot.mirror, position=9, reference=snapshot.source_reference, layer_digest=snapshot.layer_digest
    )
    (described,) = exporting.describe([snapshot])
    assert described.same_layer_sources == 2


def test_describing_asks_as_often_for_four_as_for_one(everything, django_assert_num_queries):
    snapshots = exporting.current_snapshots()
    for few in (snapshots[:1], snapshots):
        with django_assert_num_queries(3):
            exporting.describe(few)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([], "There is nothing to export yet: no database holds anything. Sync one first."),
        (["nothing"], "There is no mirror called nothing."),
        (["trivy-db"], "trivy-db has nothing to export yet: it was never synced. Sync it first."),
    ],
)
def test_it_says_why_there_is_nothing_to_export(store, make_mirror, names, sentence):
    make_mirror()
    with pytest.raises(ExportError) as caught:
        exporting.current_snapshots(names)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("profile", ["full", "cache"])
def test_it_refuses_when_a_blob_is_missing(everything, store, now, profile):
    store.remove(everything["trivy-db"].layer_digest)
    with pytest.raises(ExportError, match="Run the store check"):
        make(store, now, profile=profile)
    assert not Bundle.objects.exists()


def test_a_bundle_protects_what_it_is_made_of_until_it_expires(everything, store, now, settings):
    settings.AIRGAP_BUNDLE_DAYS = 30
    mirror = everything["trivy-db"].mirror
    mirror.keep = 1
    mirror.save()
    later = timezone.now() + timedelta(days=3)
    bundle = make(store, later)
    data = sent(bundle, store)
    keep_build(store, mirror, later)
    keep_build(store, mirror, later + HOUR)

    retention.prune(later + timedelta(days=29))
    assert sent(bundle, store) == data
    retention.prune(later + timedelta(days=30))
    bundle.refresh_from_db()
    assert bundle.expired_at is not None
    with pytest.raises(ExportError, match=r"is no longer kept\. Make a new bundle"):
        exporting.file_of(bundle, store)
    assert not store.has(everything["trivy-db"].layer_digest)


def test_a_snapshot_pruned_while_the_bundle_is_made_is_refused(everything, store, now, monkeypatch):
    real = exporting.compose

    def pruned_meanwhile(*arguments, **options):
        recipe = real(*arguments, **options)
        everything["vexhub"].delete()
        return recipe

    monkeypatch.setattr(exporting, "compose", pruned_meanwhile)
    with pytest.raises(ExportError, match="was removed while the bundle was being made"):
        make(store, now)
    assert not Bundle.objects.exists()


def test_nothing_is_pruned_between_rendering_a_bundle_and_writing_its_rows(everything, store, now, monkeypatch):
    monkeypatch.setattr(retention, "ALONE_WITHIN_SECONDS", 0)
    real, passes = exporting.compose, []

    def prune_meanwhile(*arguments, **options):
        recipe = real(*arguments, **options)
        passes.append(retention.prune(timezone.now() + timedelta(hours=5)))
        return recipe

    monkeypatch.setattr(exporting, "compose", prune_meanwhile)
    bundle = make(store, now)
    assert passes[0].postponed
    assert len(sent(bundle, store)) == bundle.size_bytes


def test_a_second_click_gets_the_same_bundle(everything, store, now):
    first = make(store, now, reuse=True)
    assert make(store, now + timedelta(minutes=1), reuse=True) == first
    assert make(store, now + timedelta(minutes=1), reuse=True, by="ada") != first
    assert make(store, now + timedelta(minutes=1), profile="data", reuse=True) != first
    assert make(store, now + timedelta(minutes=1), "vexhub", reuse=True) != first
    assert make(store, now + timedelta(minutes=6), reuse=True) != first


def test_creating_and_deleting_are_on_record(everything, store, now):
    bundle = make(store, now, "vexhub", address="10.0.0.7")
    assert exporting.delete_bundle(bundle, by="ada", now=now + HOUR)
    assert not exporting.delete_bundle(bundle, by="ada", now=now + HOUR)
    bundle.refresh_from_db()
    assert bundle.problem == "Deleted by ada on 2026-11-20 13:00 UTC."
    assert bundle.contents.count() == 1
    assert not BundleBlob.objects.filter(bundle=bundle).exists()
    assert list(AuditEntry.objects.order_by("pk").values_list("actor", "action", "address")) == [
        ("system", "signing key made", ""),
        ("otto", "bundle created", "10.0.0.7"),
        ("ada", "bundle deleted", ""),
    ]


def test_a_worker_computes_the_sum_of_the_whole_file(everything, store, now):
    bundle = make(store, now)
    assert exporting.unprepared(timezone.now()) == [bundle.pk]
    assert exporting.prepare(bundle.pk, store=store)
    bundle.refresh_from_db()
    assert bundle.sha256 == hashlib.sha256(sent(bundle, store)).hexdigest()
    assert (bundle.state, bundle.work_started_at, bundle.bytes_done) == ("ready", None, bundle.size_bytes)
    assert exporting.unprepared(timezone.now()) == []
    assert not exporting.prepare(bundle.pk, store=store)


def test_two_workers_do_not_prepare_the_same_bundle(everything, store, now):
    bundle = make(store, now)
    moment = timezone.now()
    Bundle.objects.filter(pk=bundle.pk).update(work_started_at=moment)
    assert not exporting.prepare(bundle.pk, store=store)
    assert exporting.unprepared(moment) == []
    # Its worker is gone: another one takes over.
    assert exporting.unprepared(moment + timedelta(minutes=2)) == [bundle.pk]
    Bundle.objects.filter(pk=bundle.pk).update(work_started_at=moment - timedelta(minutes=2))
    assert exporting.prepare(bundle.pk, store=store)


def test_a_worker_whose_bundle_was_deleted_writes_nothing(everything, store, now, monkeypatch):
    bundle = make(store, now)
    monkeypatch.setattr(preparing, "BEAT_SECONDS", 0)
    real = exporting.Composition.sha256

    def deleted_meanwhile(self, progress, *options):
        exporting.delete_bundle(bundle, by="ada", now=now)
        return real(self, progress, *options)

    monkeypatch.setattr(exporting.Composition, "sha256", deleted_meanwhile)
    assert not exporting.prepare(bundle.pk, store=store)
    bundle.refresh_from_db()
    assert bundle.sha256 == ""


def test_a_worker_that_is_shut_down_lets_go_of_the_bundle(everything, store, now):
    bundle = make(store, now)
    stop = StopSignal()
    stop.set()
    exporting.prepare(bundle.pk, store=store, stop=stop)
    bundle.refresh_from_db()
    assert (bundle.work_started_at, bundle.state, bundle.sha256) == (None, "ready", "")
    assert exporting.unprepared(now) == [bundle.pk]


def damage(store, digest):
    path = store.path(digest)
    os.chmod(path, 0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_worker_finds_a_damaged_part_and_names_it(everything, store, now):
    bundle = make(store, now)
    damage(store, everything["trivy-db"].layer_digest)
    exporting.prepare(bundle.pk, store=store)
    bundle.refresh_from_db()
    assert bundle.state == "damaged"
    assert "is damaged in the content store" in bundle.problem
    assert bundle.sha256 == ""
    with pytest.raises(ExportError, match="cannot be sent"):
        exporting.file_of(bundle, store)


def test_a_damaged_bundle_is_ready_again_when_its_part_was_fetched_again(everything, store, now):
    bundle = make(store, now)
    layer = everything["trivy-db"].layer_digest
    good = store.path(layer).read_bytes()
    damage(store, layer)
    exporting.prepare(bundle.pk, store=store)
    # The worker set the damaged file aside, so that a sync fetches it again.
    assert not store.has(layer)
    assert exporting.unprepared(timezone.now(), store) == []

    store.put(good)
    assert exporting.unprepared(timezone.now(), store) == [bundle.pk]
    assert exporting.prepare(bundle.pk, store=store)
    bundle.refresh_from_db()
    assert (bundle.state, bundle.problem) == ("ready", "")
    assert bundle.sha256 == hashlib.sha256(sent(bundle, store)).hexdigest()


def test_a_missing_part_is_found_before_the_first_byte(everything, store, now):
    bundle = make(store, now)
    store.remove(everything["vexhub"].layer_digest)
    with pytest.raises(ExportError, match=r"cannot be sent\. vex/vexhub/v0\.1-0\.tar\.gz"):
        exporting.checked_file_of(bundle, store)
    bundle.refresh_from_db()
    assert bundle.state == "damaged"


def test_a_cache_archive_unpacks_to_a_ready_cache(everything, store, make_mirror, now, tmp_path):
    one = make_mirror("trivy-checks-1", "trivy-checks")
    snapshot = keep_build(store, one, now - 2000 * HOUR)
    type(snapshot).objects.filter(pk=snapshot.pk).update(version="1.11.3", tag="1")
    bundle = make(store, now, profile="cache")
    assert bundle.state == "preparing"
    assert bundle.filename.endswith(".tar.gz")
    # There is one place for checks; version 2 has it.
    assert [row.mirror_name for row in bundle.contents.all()] == ["trivy-db", "trivy-java-db", "trivy-checks", "vexhub"]
    with pytest.raises(ExportError, match="still being prepared"):
        exporting.file_of(bundle, store)

    assert exporting.prepare(bundle.pk, store=store)

    bundle.refresh_from_db()
    assert bundle.state == "ready"
    data = sent(bundle, store)
    assert len(data) == bundle.size_bytes == bundle.bytes_done
    assert bundle.sha256 == hashlib.sha256(data).hexdigest()
    unpack(data, tmp_path)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {
        "db/trivy.db",
        "db/metadata.json",
        "java-db/trivy-java.db",
        "java-db/metadata.json",
        "policy/metadata.json",
        "vex/repositories/default/cache.json",
        "vex/repositories/default/vex-repository.json",
        "vex/repositories/default/0.1/index.json",
    } <= found
    assert json.loads((tmp_path / "db/metadata.json").read_text())["DownloadedAt"] == "2026-11-20T12:00:00Z"
    assert json.loads((tmp_path / "policy/metadata.json").read_text())["MajorVersion"] == 2
    assert oct((tmp_path / "db/trivy.db").stat().st_mode)[-3:] == "644"
    retention.prune(timezone.now() + timedelta(hours=3))
    assert sent(bundle, store) == data


def test_the_same_cache_archive_has_the_same_bytes(everything, store, now):
    placed = cache_archive.place_all(exporting.describe(exporting.current_snapshots()))
    made = [cache_archive.write(placed, store, now, progress=lambda size: None, stop=StopSignal()) for _ in range(2)]
    assert made[0] == made[1]


def test_a_cache_archive_of_nothing_a_cache_holds_is_refused(store, make_mirror, now):
    mirror = make_mirror("tool", "oci")
    snapshot = keep_build(store, make_mirror("trivy-db"), now)
    snapshot.mirror = mirror
    snapshot.save()
    with pytest.raises(ExportError, match="None of this has a place in a Trivy cache"):
        exporting.create_bundle([snapshot], profile="cache", now=now, by="otto", store=store)


def test_a_full_disk_fails_the_cache_archive_with_a_sentence(everything, store, now, monkeypatch):
    bundle = make(store, now, profile="cache")

    def full(descriptor, data, offset):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing.os, "pwrite", full)
    exporting.prepare(bundle.pk, store=store)
    bundle.refresh_from_db()
    assert bundle.state == "failed"
    assert "the file system is full" in bundle.problem
    assert list(store.partials()) == []


def test_no_room_fails_the_cache_archive_before_it_is_begun(everything, store, now, monkeypatch):
    bundle = make(store, now, profile="cache")
    monkeypatch.setattr(type(store), "free_bytes", lambda self: 10)
    exporting.prepare(bundle.pk, store=store)
    bundle.refresh_from_db()
    assert bundle.state == "failed"
    assert bundle.problem.startswith("There is no room for")


def test_an_export_is_recorded_with_who_and_when(everything, store, now):
    bundle = make(store, now)
    for hours in (1, 2):
        exporting.record_export(bundle.pk, by="otto", now=now + hours * HOUR, address="10.0.0.7")
    bundle.refresh_from_db()
    assert bundle.first_exported_at == now + HOUR
    assert bundle.exports.count() == 2
    assert AuditEntry.objects.filter(action="bundle exported", subject=bundle.filename, address="10.0.0.7").count() == 2


def test_what_a_sources_query_holds_does_not_leave_the_house(store, make_mirror, now):
    snapshot = keep_vex(store, make_mirror("vexhub", "vex"), now - timedelta(hours=1))
    snapshot.source_reference = "https://vex.example/hub.tar.gz//hub?token=hunter2"
    snapshot.save()
    (described,) = exporting.describe([snapshot])
    assert described.reference == "https://vex.example/hub.tar.gz//hub"
