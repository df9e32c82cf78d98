"""Which repository and tag or digest is which blob: looked up in rows, for /v2/ and for the pages that tell of it."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from mirrors import retention, serving
from mirrors.digests import digest_of
from mirrors.models import Snapshot, SnapshotBlob
from tests.kept import keep, keep_build, keep_vex

pytestmark = pytest.mark.django_db
Role = SnapshotBlob.Role
HOUR = timedelta(hours=1)
BUILT = datetime(2026, 11, 20, 6, 31, 12, tzinfo=UTC)


def manifest_at(name: str, tag: str) -> str | None:
    repository = serving.find(name)
    assert repository is not None
    held = serving.manifest_tagged(repository, tag)
    return held.digest if held else None


def versioned(snapshot: Snapshot, version: str) -> Snapshot:
    Snapshot.objects.filter(pk=snapshot.pk).update(version=version)
    return snapshot


def test_a_repository_answers_to_upstreams_two_names(store, make_mirror):
    kept = keep_build(store, make_mirror("trivy-db"), BUILT)
    assert manifest_at("aquasecurity/trivy-db", "2") == kept.manifest_digest
    assert manifest_at("aquasec/trivy-db", "2") == kept.manifest_digest
    for other in ("aquasecurity2/trivy-db", "aquasec", "trivy-db", "mirrors/trivy-db", "aquasec/aquasec/trivy-db"):
        assert serving.find(other) is None, other


def test_its_tags_are_the_schema_latest_and_a_date_for_each_kept_snapshot(store, make_mirror):
    mirror = make_mirror("trivy-db")
    old = keep_build(store, mirror, BUILT)
    new = keep_build(store, mirror, BUILT + 6 * HOUR)
    repository = serving.find("aquasecurity/trivy-db")
    assert serving.tags(repository) == ["2", "2-20261120T0631Z", "2-20261120T1231Z", "latest"]
    assert serving.tags_of(mirror) == ("2", "latest", "2-20261120T1231Z", "2-20261120T0631Z")
    assert manifest_at("aquasecurity/trivy-db", "2") == new.manifest_digest
    assert manifest_at("aquasecurity/trivy-db", "latest") == new.manifest_digest
    assert manifest_at("aquasecurity/trivy-db", "2-20261120T0631Z") == old.manifest_digest
    for none in (
        "1",
        "2-20261120T0630Z",
        "2-20261120T0632Z",
        "3-20261120T0631Z",
        "2-99999999T9999Z",
        "2-20261120T0631",
    ):
        assert manifest_at("aquasecurity/trivy-db", none) is None, none


def test_every_tag_listed_answers(store, make_mirror):
    for name, kind in (("trivy-checks", None), ("trivy-checks-1", "trivy-checks")):
        mirror = make_mirror(name, kind)
        for hour in range(3):
            versioned(keep_build(store, mirror, BUILT + hour * HOUR), f"{2 if kind is None else 1}.{hour}.0")
    repository = serving.find("aquasecurity/trivy-checks")
    tags = serving.tags(repository)
    assert {"1", "2", "latest", "2.2.0", "2.2", "2.0", "1.1.0", "1-20261120T0631Z", "2-20261120T0831Z"} <= set(tags)
    assert all(serving.manifest_tagged(repository, tag) for tag in tags)


def test_latest_is_the_highest_one_that_holds_something(store, make_mirror):
    one = make_mirror("trivy-checks-1", "trivy-checks")
    two = make_mirror("trivy-checks")
    ten = make_mirror("ten", "trivy-checks", served_repository="aquasecurity/trivy-checks", served_tag="10")
    first = keep_build(store, one, BUILT)
    assert manifest_at("aquasec/trivy-checks", "latest") == first.manifest_digest
    assert manifest_at("aquasec/trivy-checks", "2") is None
    second = keep_build(store, two, BUILT + HOUR)
    assert manifest_at("aquasec/trivy-checks", "latest") == second.manifest_digest
    third = keep_build(store, ten, BUILT + 2 * HOUR)
    assert manifest_at("aquasec/trivy-checks", "latest") == third.manifest_digest
    assert "latest" in serving.tags_of(ten)
    assert "latest" not in serving.tags_of(two)


def test_a_database_answers_to_its_schema_whatever_its_source_calls_it(store, make_mirror):
    """Trivy asks for 2, also where somebody's registry has it as `latest` or `2026-11-20`."""
    mirror = make_mirror("trivy-db", served_tag="nightly")
    kept = keep_build(store, mirror, BUILT)
    for tag in ("2", "nightly", "latest", "nightly-20261120T0631Z"):
        assert manifest_at("aquasec/trivy-db", tag) == kept.manifest_digest, tag
    assert serving.tags_of(mirror) == ("nightly", "latest", "2", "nightly-20261120T0631Z")
    type(mirror).objects.update(served_tag="latest")
    assert serving.tags_of(mirror)[:2] == ("latest", "2")
    assert manifest_at("aquasec/trivy-db", "2-20261120T0631Z") == kept.manifest_digest
    # One that says it is 2 goes before.
    other = make_mirror("other", "trivy-db", served_repository="aquasecurity/trivy-db", served_tag="2")
    assert manifest_at("aquasec/trivy-db", "2") is None
    second = keep_build(store, other, BUILT + HOUR)
    assert manifest_at("aquasec/trivy-db", "2") == second.manifest_digest


def test_checks_answer_to_their_major_version_where_no_mirror_has_that_tag(store, make_mirror):
    mirror = make_mirror("trivy-checks", served_tag="latest")
    old = versioned(keep_build(store, mirror, BUILT), "1.12.1")
    new = versioned(keep_build(store, mirror, BUILT + HOUR), "2.2.0")
    assert manifest_at("aquasec/trivy-checks", "2") == new.manifest_digest
    assert manifest_at("aquasec/trivy-checks", "1") == old.manifest_digest


def test_a_mirror_of_upstreams_own_latest_is_latest(store, make_mirror):
    keep_build(store, make_mirror("trivy-checks"), BUILT)
    own = make_mirror("own", "trivy-checks", served_repository="aquasecurity/trivy-checks", served_tag="latest")
    assert manifest_at("aquasecurity/trivy-checks", "latest") is None
    kept = keep_build(store, own, BUILT + HOUR)
    assert manifest_at("aquasecurity/trivy-checks", "latest") == kept.manifest_digest


def test_upstreams_versions_are_tags_where_the_annotation_has_one(store, make_mirror):
    mirror = make_mirror("trivy-checks")
    old = versioned(keep_build(store, mirror, BUILT), "2.1.1")
    nightly = versioned(keep_build(store, mirror, BUILT + HOUR), "2.2.0-nightly.20260821")
    odd = versioned(keep_build(store, mirror, BUILT + 2 * HOUR), "../2 2+x")
    new = versioned(keep_build(store, mirror, BUILT + 3 * HOUR), "2.1.10")
    name = "aquasecurity/trivy-checks"
    assert manifest_at(name, "2.1.1") == old.manifest_digest
    assert manifest_at(name, "2.1.10") == new.manifest_digest
    assert manifest_at(name, "2.1") == new.manifest_digest
    assert manifest_at(name, "2.2.0-nightly.20260821") == nightly.manifest_digest
    assert manifest_at(name, "2.2") is None
    # A text that cannot be a tag is none; the build has its date all the same.
    assert "../2 2+x" not in serving.tags_of(mirror)
    assert manifest_at(name, "2-20261120T0831Z") == odd.manifest_digest
    assert serving.tags_of(mirror)[:5] == ("2", "latest", "2.2.0-nightly.20260821", "2.1.10", "2.1.1")


def test_a_version_published_twice_is_what_is_current(store, make_mirror):
    mirror = make_mirror("trivy-checks")
    first = keep_build(store, mirror, BUILT)
    second = keep_build(store, mirror, BUILT + HOUR)
    assert manifest_at("aquasecurity/trivy-checks", "2.2.0") == second.manifest_digest
    mirror.switch_to(first)
    assert manifest_at("aquasecurity/trivy-checks", "2.2.0") == first.manifest_digest
    assert manifest_at("aquasecurity/trivy-checks", "2.2") == first.manifest_digest


def test_a_dated_tag_stays_with_the_build_that_had_it_first(store, make_mirror):
    mirror = make_mirror("trivy-db")
    first = keep_build(store, mirror, BUILT, fetched=BUILT + HOUR)
    keep_build(store, mirror, BUILT + timedelta(seconds=30), fetched=BUILT + 2 * HOUR)
    assert manifest_at("aquasecurity/trivy-db", "2-20261120T0631Z") == first.manifest_digest


def test_a_digest_is_answered_only_where_a_kept_snapshot_of_the_repository_names_it(store, make_mirror):
    db = keep_build(store, make_mirror("trivy-db"), BUILT)
    java = keep_build(store, make_mirror("trivy-java-db"), BUILT)
    repository = serving.find("aquasecurity/trivy-db")
    assert serving.manifest(repository, db.manifest_digest).size == len(store.read(db.manifest_digest))
    assert serving.blob(repository, db.layer_digest).snapshot_id == db.pk
    assert serving.blob(repository, digest_of(b"{}")).size == 2
    assert serving.manifest(repository, java.manifest_digest) is None
    assert serving.blob(repository, java.layer_digest) is None
    # A manifest is no blob, and a blob no manifest.
    assert serving.blob(repository, db.manifest_digest) is None
    assert serving.manifest(repository, db.layer_digest) is None


def test_what_was_current_stays_pullable_until_retention_removes_it(store, make_mirror):
    mirror = make_mirror("trivy-db", keep=1)
    old = keep_build(store, mirror, BUILT)
    keep_build(store, mirror, BUILT + 6 * HOUR)
    repository = serving.find("aquasec/trivy-db")
    assert serving.manifest(repository, old.manifest_digest)
    assert serving.blob(repository, old.layer_digest)
    retention.prune(BUILT + 48 * HOUR)
    assert serving.manifest(repository, old.manifest_digest) is None
    assert serving.blob(repository, old.layer_digest) is None
    assert manifest_at("aquasec/trivy-db", "2-20261120T0631Z") is None


OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
SIGNATURE_TYPE = "application/vnd.example.signature.v1"


def described(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def manifest_of(config: bytes, config_type: str, layers: list[bytes], **more: object) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(config_type, config),
        "layers": [described("application/vnd.oci.image.layer.v1.tar", layer) for layer in layers],
        **more,
    }
    return json.dumps(document, indent=1).encode()


def keep_image(store, mirror) -> dict[str, bytes]:
    """An index with one image, and a signature and an SBOM that refer to the index."""
    layer, config = b"layer", b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    image = manifest_of(config, "application/vnd.oci.image.config.v1+json", [layer])
    child = {**described(OCI_MANIFEST, image), "platform": {"os": "linux", "architecture": "amd64"}}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).encode()
    subject = described(OCI_INDEX, index)
    empty = "application/vnd.oci.empty.v1+json"
    signature = manifest_of(
        b"{}", empty, [b"{}"], subject=subject, artifactType=SIGNATURE_TYPE, annotations={"by": "somebody"}
    )
    sbom = manifest_of(b"{}", "application/vnd.example.sbom.v1", [b"{}"], subject=subject)
    keep(
        store,
        mirror,
        [
            (Role.INDEX, index, OCI_INDEX, "", {"platforms": []}),
            (Role.MANIFEST, image, OCI_MANIFEST, "", {"platform": {"os": "linux"}}),
            (Role.CONFIG, config, "application/vnd.oci.image.config.v1+json", "", {}),
            (Role.LAYER, layer, "application/vnd.oci.image.layer.v1.tar", "", {}),
            (Role.MANIFEST, signature, OCI_MANIFEST, "", {"subject": digest_of(index)}),
            (Role.CONFIG, b"{}", empty, "", {}),
            (Role.MANIFEST, sbom, OCI_MANIFEST, "", {"subject": digest_of(index)}),
        ],
        fetched=BUILT,
        identity=digest_of(index + signature),
        manifest_digest=digest_of(index),
        source_reference="registry.example/team/image:1.0",
        tag="1.0",
    )
    return {"index": index, "image": image, "config": config, "layer": layer, "signature": signature, "sbom": sbom}


def test_an_index_is_answered_with_its_children_and_what_refers_to_it(store, make_mirror):
    mirror = make_mirror("image", "oci", sources=["registry.example/team/image:1.0"])
    made = keep_image(store, mirror)
    repository = serving.find("mirrors/image")
    assert serving.manifest_tagged(repository, "1.0").digest == digest_of(made["index"])
    for part in ("index", "image", "signature"):
        assert serving.manifest(repository, digest_of(made[part])), part
    for part in ("config", "layer"):
        assert serving.blob(repository, digest_of(made[part])), part
    found = [held.digest for held in serving.referrers(repository, digest_of(made["index"]))]
    assert found == sorted(digest_of(made[part]) for part in ("signature", "sbom"))
    assert serving.referrers(repository, digest_of(made["image"])) == []
    # It has no date of its own, so none stands in a tag.
    assert serving.tags_of(mirror) == ("1.0", "latest")


def test_vex_repositories_have_no_name_here(store, make_mirror):
    mirror = make_mirror("vexhub", "vex")
    kept = keep_vex(store, mirror, BUILT)
    assert serving.names_of(mirror) == ()
    assert serving.tags_of(mirror) == ()
    assert serving.find("") is None
    keep_build(store, make_mirror("trivy-db"), BUILT)
    assert serving.blob(serving.find("aquasec/trivy-db"), kept.layer_digest) is None


def test_names_are_told_with_the_one_that_is_kept_first(make_mirror):
    assert serving.names_of(make_mirror("trivy-db")) == ("aquasecurity/trivy-db", "aquasec/trivy-db")
    assert serving.names_of(make_mirror("mine", "trivy-db")) == ("mirrors/mine",)


def test_the_catalog_lists_what_holds_something_once(store, make_mirror):
    make_mirror("empty", "trivy-db")
    keep_build(store, make_mirror("zzz", "trivy-db"), BUILT)
    for name, kind in (("trivy-checks", None), ("trivy-checks-1", "trivy-checks")):
        keep_build(store, make_mirror(name, kind), BUILT + HOUR * len(name))
    assert serving.catalog() == ["aquasecurity/trivy-checks", "mirrors/zzz"]


def test_a_pull_takes_two_queries_however_much_is_kept(store, make_mirror, django_assert_num_queries):
    mirror = make_mirror("trivy-db")
    kept = [keep_build(store, mirror, BUILT + hour * HOUR) for hour in range(5)]
    for index in range(10):
        keep_build(store, make_mirror(f"m{index}", "trivy-db"), BUILT)
    with django_assert_num_queries(2):
        serving.manifest_tagged(serving.find("aquasec/trivy-db"), "2")
    with django_assert_num_queries(2):
        serving.manifest(serving.find("aquasec/trivy-db"), kept[0].manifest_digest)
    with django_assert_num_queries(2):
        serving.blob(serving.find("aquasec/trivy-db"), kept[0].layer_digest)
    with django_assert_num_queries(2):
        serving.tags(serving.find("aquasec/trivy-db"))
    with django_assert_num_queries(1):
        assert serving.find("library/alpine") is None
    with django_assert_num_queries(0):
        assert serving.find("UPPER/../case") is None
    with django_assert_num_queries(1):
        assert serving.referrers(serving.find("aquasec/trivy-db"), kept[0].manifest_digest) == []
