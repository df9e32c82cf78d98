"""Everything a source can do wrong: a clear sentence on the run, and what was served before is still served."""

import errno
import gzip
import io
import json
import os
import re
import tarfile
from datetime import UTC, datetime, timedelta

import pytest

from mirrors import content
from mirrors.demo import assets
from mirrors.models import SyncRun
from tests.fakes.registry import OCI_INDEX, FakeRegistry
from tests.operations.conftest import DB, REPOSITORY, hours_ago

pytestmark = pytest.mark.django_db

State = SyncRun.State
MANIFESTS, BLOBS = "/manifests/", "/blobs/"


@pytest.fixture
def mirror(make_mirror, fake, push_db, sync_now):
    """A mirror that serves a build of eight hours ago, and an upstream that has a newer one."""
    mirror = make_mirror("trivy-db", sources=[fake.reference(REPOSITORY, "2")])
    push_db(fake, hours_ago(8), seed="ours")
    assert sync_now(mirror).state == State.SUCCEEDED
    push_db(fake, hours_ago(1), seed="theirs", padding=300_000)
    fake.forget_requests()
    return mirror


def layer_of(*members, raw=None):
    return raw if raw is not None else assets.build_layer(members)


def tar_of(*members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def metadata(**changes):
    document = {
        "Version": 2,
        "NextUpdate": "2026-11-21T06:00:00Z",
        "UpdatedAt": "2026-11-20T06:00:00.123456789Z",
        "DownloadedAt": "0001-01-01T00:00:00Z",
    } | changes
    return json.dumps({key: value for key, value in document.items() if value is not None}).encode()


def bomb():
    packer = gzip.compress(tar_of(("metadata.json", metadata())) + b"\0" * 100_000_000, 9)
    return packer


def each(cases, long):
    """Their names; a quick run leaves one out that takes most of a second and is refused elsewhere too."""
    return [pytest.param(name, marks=pytest.mark.long) if name == long else name for name in cases]


# What upstream does wrong with its answers -> what the run says.
ANSWERS = {
    "wrong digest header": (MANIFESTS, {"headers": {"Docker-Content-Digest": "sha256:" + "0" * 64}}, "digest"),
    "manifest bytes changed": (MANIFESTS, {"method": "GET", "flip": True}, "digest|not JSON|manifest"),
    "manifest is HTML": (
        MANIFESTS,
        {"data": b"<html>log in</html>", "headers": {"Docker-Content-Digest": None}},
        "web page",
    ),
    "manifest is huge": (
        MANIFESTS,
        {"method": "GET", "data": b" " * 5_000_000, "headers": {"Docker-Content-Digest": None}},
        "more than",
    ),
    "manifest is nested deeply": (
        MANIFESTS,
        {"method": "GET", "data": b'{"a":' * 100_000, "headers": {"Docker-Content-Digest": None}},
        "nested|JSON",
    ),
    "401": ("/v2/", {"status": 401, "headers": {"WWW-Authenticate": 'Basic realm="x"'}}, "401"),
    "403": ("/v2/", {"status": 403}, "403"),
    "404": ("/v2/", {"status": 404}, "404|not found|does not have"),
    "429": ("/v2/", {"status": 429}, "429"),
    "500": ("/v2/", {"status": 500}, "500"),
    "503 at the blob": (BLOBS, {"status": 503}, "503"),
    "wrong bytes": (BLOBS, {"flip": True}, "digest|damaged|gzip|inflate"),
    "blob too long": (BLOBS, {"data": b"x" * 900_000}, "bytes|size"),
    "blob too short": (BLOBS, {"data": b"x" * 100}, "bytes|size"),
    "cut off for ever": (BLOBS, {"cut_after": 0}, "broke|ended|end|closed|truncated"),
    "stalled": (BLOBS, {"stall_after": 1000}, "no byte|silent|nothing|stalled|seconds"),
    "never answers": (MANIFESTS, {"stall": True}, "no answer|silent|nothing|did not answer|seconds"),
    "redirect loop": (BLOBS, {"redirect": "LOOP"}, "redirect"),
}


@pytest.mark.parametrize("what", each(ANSWERS, long="never answers"))
def test_a_bad_answer_is_named_and_changes_nothing(what, mirror, fake, sync_now, request):
    path, fault, sentence = ANSWERS[what]
    if what in ("stalled", "never answers"):
        request.getfixturevalue("impatience")
    if what == "manifest is nested deeply":
        request.getfixturevalue("tidy")
    if fault.get("redirect") == "LOOP":
        loop = fake.url("/loop/blobs/")
        fault = {"redirect": loop}
    fake.fault(path, times=None, **fault)
    kept = mirror.current.manifest_digest
    run = sync_now(mirror)
    assert run.state == State.FAILED, run.note
    assert re.search(sentence, run.error, re.IGNORECASE), run.error
    assert fake.host.split(":")[0] in run.error
    assert mirror.current.manifest_digest == kept
    assert all(content.store().verify(blob.digest) == "ok" for blob in mirror.current.blobs.all())
    assert mirror.failures == 1 and mirror.last_error == run.error


# What is wrong inside what upstream offers -> what the run says.
LAYERS = {
    "not gzip": (lambda: b"this is not gzip at all", "gzip"),
    "not tar": (lambda: gzip.compress(b"no tar" * 1000), "tar"),
    "truncated gzip": (lambda: assets.build_trivy_db(hours_ago(1))[:-30], "end|truncated|cut"),
    "no metadata.json": (lambda: layer_of(("trivy.db", b"x" * 600)), "metadata.json"),
    "no database": (lambda: layer_of(("metadata.json", metadata())), "trivy.db"),
    "metadata is garbage": (lambda: layer_of(("trivy.db", b"x"), ("metadata.json", b"{oops")), "metadata.json"),
    "metadata is huge": (
        lambda: layer_of(("trivy.db", b"x"), ("metadata.json", b" " * 200_000 + metadata())),
        "metadata.json",
    ),
    "schema 3": (lambda: layer_of(("trivy.db", b"x"), ("metadata.json", metadata(Version=3))), "schema|version"),
    "no UpdatedAt": (
        lambda: layer_of(("trivy.db", b"x"), ("metadata.json", metadata(UpdatedAt=None))),
        "UpdatedAt",
    ),
    "bomb": (bomb, "bomb|inflate|unpack"),
}


@pytest.mark.parametrize("what", each(LAYERS, long="bomb"))
def test_a_bad_layer_is_named_and_changes_nothing(what, mirror, fake, push_db, sync_now):
    make, sentence = LAYERS[what]
    push_db(fake, hours_ago(0.5), layer=make())
    kept = mirror.current.manifest_digest
    run = sync_now(mirror)
    assert run.state == State.FAILED
    assert re.search(sentence, run.error, re.IGNORECASE), run.error
    assert mirror.current.manifest_digest == kept


MANIFEST_CHANGES = {
    "two layers": (lambda layer: {"layers": [layer, layer]}, "one layer|2 layers|single layer"),
    "no layers": (lambda layer: {"layers": []}, "layer"),
    "unknown media type": (
        lambda layer: {"layers": [layer | {"mediaType": "application/x-tar"}]},
        "media type|application/x-tar",
    ),
    "missing title": (lambda layer: {"layers": [layer | {"annotations": {}}]}, "title"),
    "path in title": (
        lambda layer: {"layers": [layer | {"annotations": {"org.opencontainers.image.title": "../db.tar.gz"}}]},
        "title|name|path",
    ),
    "hostile digest": (lambda layer: {"layers": [layer | {"digest": "sha256:../../../../etc/passwd"}]}, "digest"),
    "digest of another kind": (lambda layer: {"layers": [layer | {"digest": "md5:" + "0" * 32}]}, "digest"),
    "negative size": (lambda layer: {"layers": [layer | {"size": -1}]}, "size"),
    "wrong size": (lambda layer: {"layers": [layer | {"size": layer["size"] + 7}]}, "size|bytes"),
    "layers are text": (lambda layer: {"layers": "many"}, "layers"),
    "schema 1": (lambda layer: {"schemaVersion": 1, "layers": None, "fsLayers": []}, "schema"),
}


@pytest.mark.parametrize("what", MANIFEST_CHANGES)
def test_a_bad_manifest_is_named_and_changes_nothing(what, mirror, fake, push_db, sync_now):
    change, sentence = MANIFEST_CHANGES[what]
    layer = assets.build_trivy_db(hours_ago(1), seed=what)
    entry = {
        "mediaType": DB.layer_media_type,
        "digest": fake.put_blob(layer),
        "size": len(layer),
        "annotations": {"org.opencontainers.image.title": DB.title},
    }
    push_db(fake, hours_ago(1), layer=layer, change=change(entry))
    kept = mirror.current.manifest_digest
    run = sync_now(mirror)
    assert run.state == State.FAILED
    assert re.search(sentence, run.error, re.IGNORECASE), run.error
    assert mirror.current.manifest_digest == kept


def test_an_index_is_refused_for_a_trivy_database(mirror, fake, sync_now):
    fake.put_manifest(
        REPOSITORY,
        "2",
        json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode(),
        OCI_INDEX,
    )
    run = sync_now(mirror)
    assert run.state == State.FAILED and "index" in run.error


def test_a_build_from_the_future_is_refused_and_the_clock_named(mirror, fake, push_db, sync_now):
    push_db(fake, datetime.now(UTC) + timedelta(minutes=30), seed="tomorrow")
    kept = mirror.current.manifest_digest
    run = sync_now(mirror)
    assert run.state == State.FAILED and "future" in run.error and "clock" in run.error
    assert mirror.current.manifest_digest == kept


def test_a_build_a_few_minutes_ahead_of_our_clock_is_taken(mirror, fake, push_db, sync_now):
    digest = push_db(fake, datetime.now(UTC) + timedelta(minutes=5), seed="soon")
    assert sync_now(mirror).state == State.SUCCEEDED
    assert mirror.current.manifest_digest == digest


def test_a_host_without_an_address_is_named(make_mirror, sync_now):
    mirror = make_mirror("trivy-db", sources=["registry.invalid/aquasecurity/trivy-db:2"])
    run = sync_now(mirror)
    assert run.state == State.FAILED and "registry.invalid" in run.error


def test_a_refused_connection_is_named(make_mirror, sync_now):
    mirror = make_mirror("trivy-db", sources=["127.0.0.1:1/aquasecurity/trivy-db:2"])
    run = sync_now(mirror)
    assert run.state == State.FAILED and "refused" in run.error


def test_a_certificate_of_an_unknown_authority_is_named_with_the_remedy(make_mirror, push_db, sync_now):
    with FakeRegistry(tls=True) as fake:
        push_db(fake, hours_ago(1))
        mirror = make_mirror("trivy-db", sources=[fake.reference(REPOSITORY, "2")], insecure=False)
        run = sync_now(mirror)
        assert run.state == State.FAILED and "--ca" in run.error
        mirror.sources.update(ca_pem=fake.ca_pem)
        assert sync_now(mirror).state == State.SUCCEEDED
        assert mirror.current.tls_verified


def test_plain_http_is_not_spoken_unless_allowed(make_mirror, fake, push_db, sync_now):
    push_db(fake, hours_ago(1))
    mirror = make_mirror("trivy-db", sources=[fake.reference(REPOSITORY, "2")], insecure=False)
    run = sync_now(mirror)
    assert run.state == State.FAILED and "TLS" in run.error
    assert fake.requests == []


def test_a_long_retry_after_ends_the_run_and_sets_the_next_try(mirror, fake, sync_now):
    fake.fault("/v2/", status=429, headers={"Retry-After": "900"}, times=None)
    before = datetime.now(UTC)
    run = sync_now(mirror)
    assert run.state == State.FAILED and "429" in run.error
    assert len(fake.requests) == 1
    assert timedelta(seconds=890) < mirror.next_sync_at - before < timedelta(seconds=910)
    fake.forget_requests()
    assert sync_now(mirror, trigger="schedule").state == State.FAILED
    assert fake.requests == [], "the schedule leaves it alone until then"
    sync_now(mirror)
    assert fake.requests, "a person may ask all the same"


@pytest.mark.long
def test_a_short_retry_after_is_waited_out(mirror, fake, sync_now):
    fake.fault("/v2/", status=429, headers={"Retry-After": "1"}, times=1)
    assert sync_now(mirror).state == State.SUCCEEDED


def test_a_broken_download_goes_on_where_it_broke(mirror, fake, sync_now):
    fake.fault(BLOBS, cut_after=200_000, times=1)
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED
    size = next(blob.size_bytes for blob in mirror.current.blobs.all() if blob.role == "layer")
    assert run.bytes_downloaded <= size * 1.01
    assert any("Range" in request.headers for request in fake.seen("GET", BLOBS))


def test_a_later_run_goes_on_where_a_failed_one_stopped(mirror, fake, sync_now):
    fake.fault(BLOBS, cut_after=200_000, times=1)
    fake.fault(BLOBS, status=500, times=1)
    first = sync_now(mirror)
    fake.forget_requests()
    second = first if first.state == State.SUCCEEDED else sync_now(mirror)
    assert second.state == State.SUCCEEDED
    size = mirror.current.blobs.get(role="layer").size_bytes
    assert first.bytes_downloaded + (second.bytes_downloaded if second.pk != first.pk else 0) <= size * 1.01


def test_a_full_disk_ends_the_run_and_keeps_what_came(mirror, fake, sync_now, monkeypatch):
    real, written = os.pwrite, []

    def full(descriptor, data, offset):
        if offset > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(len(data))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    kept = mirror.current.manifest_digest
    run = sync_now(mirror)
    assert run.state == State.FAILED and "full" in run.error and "space" in run.error
    assert mirror.current.manifest_digest == kept
    monkeypatch.setattr(os, "pwrite", real)
    again = sync_now(mirror)
    assert again.state == State.SUCCEEDED
    assert again.bytes_downloaded < mirror.current.blobs.get(role="layer").size_bytes


def test_a_store_that_cannot_be_written_ends_the_run(mirror, sync_now, monkeypatch):
    real = os.open

    def read_only(path, flags, *args, **kwargs):
        if "partial" in os.fspath(path) and flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", read_only)
    run = sync_now(mirror)
    assert run.state == State.FAILED and "writ" in run.error


def test_a_sync_that_would_leave_too_little_room_fails_before_its_first_byte(mirror, fake, sync_now, settings):
    settings.AIRGAP_RESERVE_MB = 10**9
    run = sync_now(mirror)
    assert run.state == State.FAILED and "free" in run.error
    assert fake.seen("GET", BLOBS) == []


def test_a_fault_of_our_own_is_written_down_too(mirror, sync_now, monkeypatch):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("mirrors.fetch_oci.check_manifest", broken)
    with pytest.raises(ZeroDivisionError):
        sync_now(mirror)
    run = SyncRun.objects.first()
    assert run.state == State.FAILED and "ZeroDivisionError" in run.error and "secret detail" not in run.error


def test_a_password_is_in_no_error_and_no_step(make_mirror, fake, push_db, sync_now):
    fake.require_basic("reader", "right horse")
    push_db(fake, hours_ago(1))
    mirror = make_mirror("trivy-db", sources=[fake.reference(REPOSITORY, "2")])
    mirror.sources.update(
        login="basic", username="reader", secret_sealed=content.vault().encrypt("wrong-horse-battery")
    )
    run = sync_now(mirror)
    assert run.state == State.FAILED and "401" in run.error
    told = run.error + "".join(run.steps.values_list("text", flat=True))
    assert "wrong-horse" not in told
    mirror.sources.update(secret_sealed=content.vault().encrypt("right horse"))
    assert sync_now(mirror).state == State.SUCCEEDED
