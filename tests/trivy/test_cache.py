import io
import json
from datetime import UTC, datetime, timedelta

import pytest

from mirrors.demo.assets import (
    build_checks,
    build_java_db,
    build_layer,
    build_trivy_db,
    build_vex_archive,
    build_vex_manifest,
    trivy_db_file,
)
from mirrors.digests import digest_of
from mirrors.trivy.cache import CacheArchive, CacheError, CacheFacts, cache_members, checks_metadata, vex_directory
from mirrors.trivy.catalogue import KINDS
from mirrors.trivy.metadata import parse_metadata

BUILT = datetime(2026, 11, 20, 6, 31, 52, 104857, tzinfo=UTC)
NOW = BUILT + timedelta(hours=5)


def files(kind, blobs, **facts):
    store = {digest_of(blob): blob for blob in blobs}
    facts.setdefault("layer_digest", digest_of(blobs[0]))
    members = cache_members(KINDS[kind], CacheFacts(NOW, **facts), lambda name: io.BytesIO(store[name]))
    found = {}
    for member in members:
        found[member.path] = b"".join(member.chunks)
        assert (len(found[member.path]), member.mode) == (member.size, 0o644)
    return found


@pytest.mark.parametrize("metadata_first", [False, True])
def test_a_database_gets_the_time_of_its_download_and_is_named_last(metadata_first):
    found = files("trivy-db", [build_trivy_db(BUILT, metadata_first=metadata_first)])

    assert list(found) == ["db/trivy.db", "db/metadata.json"]
    assert found["db/trivy.db"] == trivy_db_file()
    metadata = parse_metadata(found["db/metadata.json"], KINDS["trivy-db"])
    assert (metadata.updated_at, metadata.downloaded_at) == (BUILT, NOW)


def test_what_upstream_wrote_in_metadata_stays_to_the_nanosecond():
    raw = b'{"Version":2,"NextUpdate":"2026-11-21T06:31:52.123456789Z","UpdatedAt":"2026-11-20T06:31:52.987654321Z"}'
    found = files("trivy-db", [build_layer([("trivy.db", b"x"), ("metadata.json", raw)])])

    assert json.loads(found["db/metadata.json"]) == {**json.loads(raw), "DownloadedAt": "2026-11-20T11:31:52.104857Z"}


def test_a_java_db_has_its_own_directory():
    assert list(files("trivy-java-db", [build_java_db(BUILT)])) == ["java-db/trivy-java.db", "java-db/metadata.json"]


def test_checks_are_unpacked_below_content_and_their_metadata_comes_last():
    found = files("trivy-checks", [build_checks()], manifest_digest="sha256:" + "a" * 64, version="2.2.0")

    assert next(iter(found)) == "policy/content/policies/docker/policies/add_instead_of_copy.rego"
    assert list(found)[-1] == "policy/metadata.json"
    assert json.loads(found["policy/metadata.json"]) == {
        "Digest": "sha256:" + "a" * 64,
        "DownloadedAt": "2026-11-20T11:31:52.104857Z",
        "MajorVersion": 2,
    }


@pytest.mark.parametrize(
    ("version", "major", "custom"),
    [("2.2.0", 2, False), ("2.2.0-nightly.20260821", 2, False), ("v1.11.3", 1, False), (None, 0, True), ("", 0, True),
     ("two", 0, True), ("2", 0, True)],
)  # fmt: skip
def test_a_bundle_without_a_version_counts_as_custom(version, major, custom):
    metadata = json.loads(checks_metadata("sha256:x", NOW, version))
    assert (metadata["MajorVersion"], metadata.get("CustomBuild", False)) == (major, custom)


def vex_facts(archive, **changes):
    facts = {
        "repository_manifest": build_vex_manifest("https://vex.example"),
        "archives": (CacheArchive("0.1", digest_of(archive), "tar.gz", "vexhub-main"),),
    }
    return {**facts, **changes}


def test_a_vex_repository_never_calls_out():
    archive = build_vex_archive(BUILT)
    found = files("vex", [archive], **vex_facts(archive))

    base = "vex/repositories/default/"
    assert json.loads(found[base + "0.1/index.json"])["packages"][0]["location"] == (
        "pkg/golang/github.com/aquasecurity/trivy/demo.openvex.json"
    )
    assert base + "0.1/pkg/golang/github.com/aquasecurity/trivy/demo.openvex.json" in found
    assert json.loads(found[base + "cache.json"]) == {"UpdatedAt": "2026-11-20T11:31:52.104857Z", "ETags": {}}
    version = json.loads(found[base + "vex-repository.json"])["versions"][0]
    assert version["update_interval"] == "876000h"
    assert version["locations"] == [{"url": "https://vex.example/vexhub.tar.gz//vexhub-main"}]
    assert list(found)[-1] == base + "vex-repository.json"


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a\n", "x" * 200])
def test_it_refuses_a_hostile_repository_name(name):
    with pytest.raises(CacheError, match="is not a name for a VEX repository"):
        vex_directory(name)


def test_damage_found_while_unpacking_is_told():
    layer = bytearray(build_trivy_db(BUILT, padding=500_000))
    layer[200_000:200_100] = bytes(100)
    with pytest.raises(CacheError, match=r"The layer .*Scrub the store and sync again\."):
        files("trivy-db", [bytes(layer)])
    with pytest.raises(CacheError, match=r"metadata\.json is not JSON"):
        files("trivy-db", [build_layer([("trivy.db", b"x")])])
    archive = build_vex_archive(BUILT)[:-50]
    with pytest.raises(CacheError, match="The archive ends"):
        files("vex", [archive], **vex_facts(archive))


def test_other_artifacts_have_no_place_in_the_cache():
    with pytest.raises(CacheError, match="An OCI artifact has no place in Trivy's cache"):
        files("oci", [b""])
