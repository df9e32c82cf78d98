"""Syncing checks bundles and any OCI artifact: indexes, platforms, referrers, many layers."""

import hashlib

import pytest

from mirrors import clock, content
from mirrors.demo import assets
from mirrors.models import SyncRun
from mirrors.trivy.catalogue import KINDS
from tests.operations.conftest import hours_ago

pytestmark = pytest.mark.django_db

State = SyncRun.State
CHECKS = KINDS["trivy-checks"]
IMAGE_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
AMD, ARM = {"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64", "variant": "v8"}


def push_checks(fake, created, *, revision="", version="2.2.0", layer=None):
    layer = layer if layer is not None else assets.build_checks(revision=revision)
    return fake.push(
        "aquasecurity/trivy-checks",
        "2",
        [(layer, CHECKS.layer_media_type, CHECKS.title)],
        created=created,
        annotations={"org.opencontainers.image.version": version},
    )


@pytest.fixture
def checks(make_mirror, fake):
    return make_mirror("trivy-checks", sources=[fake.reference("aquasecurity/trivy-checks", "2")])


def test_a_checks_bundle_is_dated_by_when_it_was_published(checks, fake, sync_now):
    published = hours_ago(2000)
    push_checks(fake, published)
    assert sync_now(checks).state == State.SUCCEEDED
    current = checks.current
    assert (current.updated_at, current.published_at, current.version) == (published, published, "2.2.0")


def test_checks_from_the_future_are_refused_for_they_would_age_everything_else(checks, fake, sync_now):
    push_checks(fake, hours_ago(-24 * 365))
    run = sync_now(checks)
    assert run.state == State.FAILED and "in the future by our clock" in run.error
    assert not clock.trusted_now().behind


def test_checks_may_go_back(checks, fake, sync_now):
    push_checks(fake, hours_ago(10), revision="new", version="2.2.0")
    sync_now(checks)
    older = push_checks(fake, hours_ago(500), revision="old", version="2.1.1")
    assert sync_now(checks).state == State.SUCCEEDED
    assert checks.current.manifest_digest == older


def test_going_back_to_content_that_was_kept_uses_its_row(checks, fake, sync_now):
    first = push_checks(fake, hours_ago(10), revision="one")
    sync_now(checks)
    one = checks.current_id
    push_checks(fake, hours_ago(9), revision="two")
    sync_now(checks)
    fake.put_manifest("aquasecurity/trivy-checks", "2", *fake.manifests[("aquasecurity/trivy-checks", first)])
    run = sync_now(checks)
    assert (run.state, run.bytes_downloaded) == (State.SUCCEEDED, 0)
    assert checks.current_id == one and checks.snapshots.count() == 2


def test_an_empty_checks_bundle_is_refused(checks, fake, sync_now):
    push_checks(fake, hours_ago(1), layer=assets.build_layer([("commands/x.yaml", b"a: b")]))
    run = sync_now(checks)
    assert run.state == State.FAILED and "check" in run.error


def test_any_artifact_with_many_layers_is_mirrored_whole(make_mirror, fake, sync_now):
    layers = [(b"one" * 1000, "text/plain", "one.txt"), (b"two" * 10, "text/plain", None)]
    digest = fake.push("library/thing", "v1", layers, config=b'{"a": 1}', config_type="application/json")
    mirror = make_mirror("thing", "oci", sources=[fake.reference("library/thing", "v1")])
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED
    assert mirror.current.manifest_digest == digest and mirror.current.updated_at is None
    assert [blob.role for blob in mirror.current.blobs.all()] == ["manifest", "config", "layer", "layer"]
    assert sync_now(mirror).state == State.UNCHANGED


@pytest.fixture
def image(fake):
    """An index of two platforms that share a layer."""
    shared = (b"shared" * 100, IMAGE_LAYER, None)
    children = []
    for platform in (AMD, ARM):
        own = (str(platform).encode() * 20, IMAGE_LAYER, None)
        config = b'{"architecture": "%s"}' % platform["architecture"].encode()
        children.append((fake.push("app/image", None, [shared, own], config=config), platform))
    return fake.push_index("app/image", "1.0", children)


def test_an_index_is_mirrored_with_all_its_platforms(make_mirror, fake, image, sync_now):
    mirror = make_mirror("image", "oci", sources=[fake.reference("app/image", "1.0")])
    assert sync_now(mirror).state == State.SUCCEEDED
    assert mirror.current.manifest_digest == image
    roles = [blob.role for blob in mirror.current.blobs.all()]
    assert roles.count("index") == 1 and roles.count("manifest") == 2
    assert sync_now(mirror).state == State.UNCHANGED


def test_only_the_platforms_chosen_are_fetched(make_mirror, fake, image, sync_now):
    mirror = make_mirror("image", "oci", sources=[fake.reference("app/image", "1.0")], platforms=["linux/arm64/v8"])
    sync_now(mirror)
    manifests = mirror.current.blobs.filter(role="manifest")
    assert [blob.details["platform"]["architecture"] for blob in manifests] == ["arm64"]
    mirror.platforms = []
    mirror.save()
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED
    assert mirror.current.blobs.filter(role="manifest").count() == 2
    assert sync_now(mirror).state == State.UNCHANGED


def test_words_that_no_database_takes_are_cleaned_before_they_are_kept(checks, fake, sync_now):
    push_checks(fake, hours_ago(5), version="2.2\x00.0\ud800")
    run = sync_now(checks)
    assert (run.state, run.error) == (State.SUCCEEDED, "")
    assert checks.current.version == "2.2 .0"


def test_platforms_that_no_database_takes_are_cleaned_before_they_are_named(make_mirror, fake, sync_now):
    child = fake.push("app/image", None, [(b"odd", IMAGE_LAYER, None)])
    fake.push_index("app/image", "odd", [(child, {"os": "li\x00nux\ud800", "architecture": "a" * 500})])
    mirror = make_mirror("odd", "oci", sources=[fake.reference("app/image", "odd")])
    assert sync_now(mirror).state == State.SUCCEEDED
    mirror.platforms = ["linux/s390x"]
    mirror.save()
    error = sync_now(mirror).error
    assert "li nux" in error and len(error) < 500


def test_a_platform_that_is_not_offered_is_named_with_those_that_are(make_mirror, fake, image, sync_now):
    mirror = make_mirror("image", "oci", sources=[fake.reference("app/image", "1.0")], platforms=["plan9/mips"])
    run = sync_now(mirror)
    assert run.state == State.FAILED and "plan9/mips" in run.error and "linux/amd64" in run.error


@pytest.mark.parametrize("limit", ["MOST_BLOBS", "MOST_MANIFEST_BYTES"])
def test_an_image_of_too_many_parts_is_refused(make_mirror, fake, image, sync_now, monkeypatch, limit):
    monkeypatch.setattr(f"mirrors.fetch_oci.{limit}", 6)
    mirror = make_mirror("image", "oci", sources=[fake.reference("app/image", "1.0")])
    assert "too many parts" in sync_now(mirror).error


def test_a_reference_by_digest_is_mirrored(make_mirror, fake, image, sync_now):
    mirror = make_mirror("image", "oci", sources=[fake.reference("app/image", image)])
    assert sync_now(mirror).state == State.SUCCEEDED
    assert mirror.current.manifest_digest == image


def test_referrers_are_mirrored_where_asked_and_noticed_when_they_change(make_mirror, fake, sync_now):
    digest = fake.push("app/signed", "1", [(b"signed", "text/plain", None)])
    raw, media_type = fake.manifests[("app/signed", digest)]
    subject = {"mediaType": media_type, "digest": digest, "size": len(raw)}
    fake.push("app/signed", None, [(b"signature one", "text/plain", None)], subject=subject)
    mirror = make_mirror("signed", "oci", sources=[fake.reference("app/signed", "1")], with_referrers=True)
    sync_now(mirror)
    assert mirror.current.blobs.filter(details__subject=digest).count() == 1
    assert sync_now(mirror).state == State.UNCHANGED
    fake.push("app/signed", None, [(b"signature two", "text/plain", None)], subject=subject)
    assert sync_now(mirror).state == State.SUCCEEDED
    assert mirror.current.blobs.filter(details__subject=digest).count() == 2


def test_what_was_mirrored_with_its_referrers_is_served_with_them(make_mirror, fake, sync_now, client):
    digest = fake.push("app/signed", "1", [(b"signed", "text/plain", None)])
    raw, media_type = fake.manifests[("app/signed", digest)]
    subject = {"mediaType": media_type, "digest": digest, "size": len(raw)}
    signature = fake.push("app/signed", None, [(b"signature", "text/plain", None)], subject=subject)
    # One with its referrers, and the referrer alone, which says itself what it is about.
    whole = make_mirror("signed", "oci", sources=[fake.reference("app/signed", "1")], with_referrers=True)
    alone = make_mirror("signature", "oci", sources=[fake.reference("app/signed", signature)])
    for mirror in (whole, alone):
        assert sync_now(mirror).state == State.SUCCEEDED
        (entry,) = client.get(f"/v2/mirrors/{mirror.name}/referrers/{digest}").json()["manifests"]
        assert entry["digest"] == signature
        served = client.get(f"/v2/mirrors/{mirror.name}/manifests/{signature}")
        assert served.content == fake.manifests[("app/signed", signature)][0]
    assert client.get("/v2/mirrors/signed/manifests/1").content == raw
    assert client.get(f"/v2/mirrors/signature/manifests/{digest}").status_code == 404


def test_the_manifest_is_kept_byte_for_byte(make_mirror, fake, sync_now):
    raw = b'{ "schemaVersion":2,\n "mediaType":"application/vnd.oci.image.manifest.v1+json", "config":%s,"layers":[] }'
    config = b'{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:%s","size":2}'
    raw = raw % (config % hashlib.sha256(b"{}").hexdigest().encode())
    fake.put_blob(b"{}")
    digest = fake.put_manifest("app/odd", "1", raw)
    mirror = make_mirror("odd", "oci", sources=[fake.reference("app/odd", "1")])
    assert sync_now(mirror).state == State.SUCCEEDED
    assert content.store().read(digest) == raw
