import io
import json
from datetime import UTC, datetime

import pytest

from mirrors.demo.assets import MANIFEST_TYPE, build_checks, build_layer, build_manifest
from mirrors.registry.manifests import parse_manifest
from mirrors.trivy.catalogue import KINDS
from mirrors.trivy.rules import RuleError, check_checks_bundle, check_manifest

DB = KINDS["trivy-db"]
NOW = datetime(2026, 11, 20, tzinfo=UTC)
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


def manifest(change=lambda document: None, kind="trivy-db"):
    document = json.loads(build_manifest(kind, b"layer", NOW))
    change(document)
    return parse_manifest(json.dumps(document).encode(), MANIFEST_TYPE)


def refusal(change, kind=DB):
    with pytest.raises(RuleError) as caught:
        check_manifest(kind, manifest(change))
    return caught.value


@pytest.mark.parametrize("kind", ["trivy-db", "trivy-java-db", "trivy-checks"])
def test_it_returns_the_layer_of_what_upstream_publishes(kind):
    layer = check_manifest(KINDS[kind], manifest(kind=kind))
    assert (layer.size, layer.title) == (5, KINDS[kind].title)


def test_older_forms_of_the_manifest_pass():
    def old(document):
        del document["artifactType"]
        document["config"] = {
            "mediaType": "application/vnd.aquasec.trivy.config.v1+json",
            "digest": "sha256:" + "e" * 64,
            "size": 0,
        }

    assert check_manifest(DB, manifest(old)).size == 5


def test_it_refuses_an_index():
    index = parse_manifest(b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % INDEX_TYPE.encode(), INDEX_TYPE)
    with pytest.raises(RuleError, match="is an index; Trivy takes a Vulnerability DB only as a single") as caught:
        check_manifest(DB, index)
    assert caught.value.code == "index"


@pytest.mark.parametrize("count", [0, 2])
def test_it_refuses_other_than_one_layer(count):
    error = refusal(lambda document: document.update(layers=document["layers"] * count))
    assert (error.code, str(error)) == ("layers", f"The manifest has {count} layers; Trivy takes exactly one.")


def test_it_refuses_another_media_type():
    error = refusal(lambda document: None, KINDS["trivy-java-db"])
    assert error.code == "media-type"
    assert "Check that the source is of this kind" in str(error)


@pytest.mark.parametrize(
    ("title", "said"),
    [
        (None, "has no title"),
        ("", "has no title"),
        ("../db.tar.gz", "not a plain file name"),
        ("/db.tar.gz", "not a plain file name"),
        ("sub/db.tar.gz", "not a plain file name"),
        ("..", "not a plain file name"),
        ("a\\b.tar.gz", "not a plain file name"),
        ("db\n.tar.gz", "not a plain file name"),
        ("db.tar", "would not unpack it"),
    ],
)
def test_it_refuses_a_missing_or_hostile_title(title, said):
    def change(document):
        annotations = {} if title is None else {"org.opencontainers.image.title": title}
        document["layers"][0]["annotations"] = annotations

    error = refusal(change)
    assert (error.code, said in str(error)) == ("title", True)


@pytest.mark.parametrize("size", [0, DB.layer_limit + 1])
def test_it_refuses_an_absurd_size(size):
    assert refusal(lambda document: document["layers"][0].update(size=size)).code == "size"


def test_kinds_that_trivy_does_not_know_have_no_rules():
    with pytest.raises(ValueError, match="no rules"):
        check_manifest(KINDS["oci"], manifest())


def test_a_checks_bundle_is_counted():
    assert check_checks_bundle(io.BytesIO(build_checks())) == 2


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (build_layer([("specs/x.yaml", b"")]), "holds no check"),
        (build_layer([("policies/readme.md", b"")]), "holds no check"),
        (b"<html>", "is not gzip"),
        (build_checks()[:-20], "ends in the middle"),
        (build_layer([("../policies/x.rego", b"")]), "hostile name"),
    ],
)
def test_it_refuses_a_checks_bundle_without_checks(data, said):
    with pytest.raises(RuleError, match=said) as caught:
        check_checks_bundle(io.BytesIO(data))
    assert caught.value.code == "contents"
