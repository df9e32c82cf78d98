import gzip
import io
import json
import sqlite3
import tarfile
from datetime import UTC, datetime, timedelta, timezone

from mirrors.demo import assets
from mirrors.digests import digest_of
from mirrors.registry.manifests import parse_manifest
from mirrors.trivy.catalogue import KINDS
from mirrors.trivy.layers import LayerInspector
from mirrors.trivy.rules import check_checks_bundle, check_manifest
from mirrors.trivy.vex import parse_repository, read_archive
from tests.demo.test_bolt import read_bolt

NOW = datetime(2026, 11, 20, 12, 30, 1, 500, tzinfo=UTC)


def members(layer):
    with tarfile.open(fileobj=io.BytesIO(layer), mode="r:gz") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers() if member.isfile()}


def test_times_are_written_as_go_writes_them():
    assert assets.format_time(NOW) == "2026-11-20T12:30:01.0005Z"
    assert assets.format_time(NOW.replace(microsecond=0)) == "2026-11-20T12:30:01Z"
    assert assets.format_time(NOW.astimezone(timezone(timedelta(hours=2)))) == "2026-11-20T12:30:01.0005Z"


def test_a_trivy_db_has_the_buckets_of_a_real_one():
    layer = assets.build_trivy_db(NOW)
    files = members(layer)
    database = read_bolt(files["trivy.db"])

    assert list(files) == ["trivy.db", "metadata.json"]
    assert len(layer) < 4096
    assert json.loads(database[b"vulnerability"][b"CVE-2021-44228"])["Severity"] == "CRITICAL"
    assert b"CVE-2020-9548" in database[assets.MAVEN.encode()][b"com.fasterxml.jackson.core:jackson-databind"]
    assert json.loads(database[b"data-source"][assets.MAVEN.encode()])["ID"] == "ghsa"
    assert files["metadata.json"] == (
        b'{"Version":2,"NextUpdate":"2026-11-21T12:30:01.0005Z","UpdatedAt":"2026-11-20T12:30:01.0005Z",'
        b'"DownloadedAt":"0001-01-01T00:00:00Z"}\n'
    )


def test_a_java_db_answers_what_trivy_asks(tmp_path):
    path = tmp_path / "trivy-java.db"
    path.write_bytes(members(assets.build_java_db(NOW))["trivy-java.db"])
    database = sqlite3.connect(path)
    found = database.execute(
        "SELECT a.group_id, a.artifact_id, i.version, i.archive_type FROM indices i"
        " JOIN artifacts a ON a.id = i.artifact_id WHERE i.sha1 = ?",
        (bytes.fromhex("80812ad2436cdd34e09efbc708f100fb311c3d19"),),
    ).fetchall()
    database.close()

    assert found == [("com.fasterxml.jackson.core", "jackson-databind", "2.9.10.1", "jar")]


def test_padding_does_not_compress_and_the_same_arguments_give_the_same_bytes():
    for build in (assets.build_trivy_db, assets.build_java_db):
        layer = build(NOW, padding=300_000, seed=1)
        assert len(layer) > 300_000
        assert layer == build(NOW, padding=300_000, seed=1) != build(NOW, padding=300_000, seed=2)


def test_what_is_built_passes_our_own_rules():
    for kind, layer in (("trivy-db", assets.build_trivy_db(NOW)), ("trivy-java-db", assets.build_java_db(NOW))):
        raw = assets.build_manifest(kind, layer, NOW)
        assert check_manifest(KINDS[kind], parse_manifest(raw, assets.MANIFEST_TYPE)).digest == digest_of(layer)
        with LayerInspector(KINDS[kind], len(layer)) as inspector:
            inspector.feed(layer)
            assert inspector.finish().updated_at == NOW
    assert check_checks_bundle(io.BytesIO(assets.build_checks())) == 2
    facts = read_archive(io.BytesIO(assets.build_vex_archive(NOW)), "tar.gz", "vexhub-main")
    assert (facts.updated_at, facts.packages) == (NOW, 2)
    assert parse_repository(facts.repository_manifest).versions[0].locations[0].subdir == "vexhub-main"


def test_a_manifest_is_what_oras_push_makes():
    layer = assets.build_checks()
    manifest = parse_manifest(
        assets.build_manifest("trivy-checks", layer, NOW, annotations={"org.opencontainers.image.version": "2.2.0"}), ""
    )

    assert manifest.created == NOW.replace(microsecond=0)
    assert manifest.version == "2.2.0"
    assert manifest.artifact_type == "application/vnd.cncf.openpolicyagent.config.v1+json"
    assert manifest.config.digest == digest_of(b"{}")
    assert manifest.layers[0].title == "bundle.tar.gz"


def test_a_layer_has_no_time_of_its_own():
    layer = assets.build_layer([("a/", b""), ("a/b", b"c")])
    assert layer == assets.build_layer([("a/", b""), ("a/b", b"c")])
    assert gzip.decompress(layer)[:4] == b"a/\0\0"
