"""Manifests: every accepted form, and every hostile one."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from mirrors.digests import digest_of
from mirrors.registry.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MANIFEST_LIMIT,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    ManifestError,
    parse_manifest,
)

DIGEST = "sha256:" + "a" * 64
LAYER = {"mediaType": "application/x", "digest": DIGEST, "size": 5}
CONFIG = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": DIGEST, "size": 2}


def manifest(**changes: Any) -> bytes:
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]} | changes
    return json.dumps({key: value for key, value in document.items() if value is not ...}).encode()


def index(**changes: Any) -> bytes:
    entry = LAYER | {"mediaType": OCI_MANIFEST, "platform": {"os": "linux", "architecture": "amd64"}}
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]} | changes).encode()


def refused(raw: bytes, media_type: str = OCI_MANIFEST) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(raw, media_type)
    assert len(str(caught.value)) < 400
    return caught.value


def test_it_reads_trivys_manifest() -> None:
    raw = manifest(
        artifactType="application/vnd.aquasec.trivy.config.v1+json",
        layers=[LAYER | {"annotations": {"org.opencontainers.image.title": "db.tar.gz"}}],
        annotations={
            "org.opencontainers.image.created": "2026-08-18T06:55:43Z",
            "org.opencontainers.image.version": "2.2.0",
        },
    )
    parsed = parse_manifest(raw, OCI_MANIFEST + "; charset=utf-8", digest_of(raw))
    assert parsed.raw == raw and parsed.digest == digest_of(raw) and not parsed.is_index
    assert parsed.artifact_type == "application/vnd.aquasec.trivy.config.v1+json"
    assert parsed.created == datetime(2026, 8, 18, 6, 55, 43, tzinfo=UTC) and parsed.version == "2.2.0"
    assert parsed.layers[0].title == "db.tar.gz" and parsed.layers[0].size == 5
    assert parsed.config == Descriptor(str(CONFIG["mediaType"]), DIGEST, 2)


def test_it_reads_an_index_with_platforms() -> None:
    parsed = parse_manifest(index(), "application/json")
    assert parsed.is_index and parsed.media_type == OCI_INDEX and parsed.config is None
    assert parsed.manifests[0].platform == {"os": "linux", "architecture": "amd64"}


def test_it_reads_dockers_types_and_an_empty_config() -> None:
    raw = manifest(mediaType=DOCKER_MANIFEST, config=CONFIG | {"size": 0})
    assert parse_manifest(raw, DOCKER_MANIFEST).media_type == DOCKER_MANIFEST
    assert parse_manifest(index(mediaType=DOCKER_LIST), DOCKER_LIST).is_index
    assert parse_manifest(manifest(mediaType=...), "").media_type == OCI_MANIFEST
    assert parse_manifest(manifest(mediaType=...), DOCKER_MANIFEST).media_type == DOCKER_MANIFEST


def test_it_reads_a_subject() -> None:
    parsed = parse_manifest(manifest(subject=LAYER), OCI_MANIFEST)
    assert parsed.subject is not None and parsed.subject.digest == DIGEST


@pytest.mark.parametrize("text", ["yesterday", "2026-08-18", "2026-08-18T06:55:43", "", "9999-99-99T00:00:00Z"])
def test_a_created_that_is_no_time_is_unknown(text: str) -> None:
    raw = manifest(annotations={"org.opencontainers.image.created": text})
    assert parse_manifest(raw, OCI_MANIFEST).created is None


def test_it_refuses_a_web_page() -> None:
    for raw in (b"<!DOCTYPE html><html>", b"\n  <html><body>login</body></html>", b"<?xml version='1.0'?>"):
        assert "web page" in str(refused(raw))
    assert "web page" in str(refused(manifest(), "text/html; charset=utf-8"))


def test_it_refuses_a_huge_manifest() -> None:
    assert refused(b" " * (MANIFEST_LIMIT + 1)).code == "too-large"


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, manifest()[:-1] + b', "x": ' + b"[" * 200_000])
def test_it_refuses_deep_nesting(raw: bytes) -> None:
    assert refused(raw).code == "malformed"


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"7", b'"x"', b"{", b"\xff\xfe", b"1" * 10_000])
def test_it_refuses_what_is_no_json_object(raw: bytes) -> None:
    assert refused(raw).code == "malformed"


def test_it_refuses_the_wrong_digest() -> None:
    with pytest.raises(ManifestError, match="has the digest") as caught:
        parse_manifest(manifest(), OCI_MANIFEST, DIGEST)
    assert caught.value.code == "digest"


def test_it_refuses_types_that_contradict() -> None:
    assert "says index" in str(refused(manifest(), OCI_INDEX))
    assert "says manifest" in str(refused(index(), OCI_MANIFEST))
    assert "says index" in str(refused(manifest(mediaType=OCI_INDEX)))
    assert "at once" in str(refused(manifest(manifests=[])))


def test_it_refuses_unknown_types_and_schema_1() -> None:
    assert refused(manifest(mediaType="application/vnd.oci.artifact.manifest.v1+json")).code == "unsupported"
    assert refused(manifest(), "application/vnd.docker.distribution.manifest.v1+prettyjws").code == "unsupported"
    assert "schema 1" in str(refused(manifest(schemaVersion=1)))


@pytest.mark.parametrize(
    "changes",
    [
        {"schemaVersion": ...}, {"schemaVersion": "2"}, {"schemaVersion": True}, {"mediaType": 7}, {"layers": ...},
        {"layers": {}}, {"layers": [7]}, {"layers": None}, {"config": ...}, {"config": None}, {"config": []},
        {"layers": [LAYER] * 5001}, {"annotations": []}, {"annotations": {"a": 1}}, {"artifactType": 7},
        {"subject": "x"}, {"layers": [LAYER | {"annotations": "x"}]}, {"layers": [LAYER | {"platform": "x"}]},
        {"layers": [LAYER | {"mediaType": ""}]}, {"layers": [LAYER | {"mediaType": "a\nb"}]},
        {"layers": [LAYER | {"mediaType": "a" * 300}]}, {"layers": ..., "config": ...},
    ],
)  # fmt: skip
def test_it_refuses_wrong_shapes(changes: dict[str, Any]) -> None:
    assert refused(manifest(**changes)).code == "malformed"


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../etc/passwd", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha256:" + "a" * 65, "", None, 7,
        "sha512:" + "a" * 128, DIGEST + "\n", "sha256:" + "\u0661" * 64, ["x"],
    ],
)  # fmt: skip
def test_it_refuses_hostile_digests(digest: object) -> None:
    assert "is not a digest" in str(refused(manifest(layers=[LAYER | {"digest": digest}])))


@pytest.mark.parametrize("size", [-1, 1.5, "5", None, True, 2**50, [5]])
def test_it_refuses_hostile_sizes(size: object) -> None:
    assert "size" in str(refused(manifest(layers=[LAYER | {"size": size}])))
