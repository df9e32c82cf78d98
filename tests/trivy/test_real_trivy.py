import io
import json
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from mirrors.demo.assets import (
    build_checks,
    build_java_db,
    build_trivy_db,
    build_vex_archive,
    build_vex_manifest,
)
from mirrors.digests import digest_of
from mirrors.trivy.cache import CacheArchive, CacheFacts, cache_members
from mirrors.trivy.catalogue import KINDS

pytestmark = pytest.mark.peers

SBOM = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.5",
    "components": [
        {
            "type": "library",
            "group": "com.fasterxml.jackson.core",
            "name": "jackson-databind",
            "version": "2.9.10.1",
            "purl": "pkg:maven/com.fasterxml.jackson.core/jackson-databind@2.9.10.1",
        }
    ],
}


@pytest.fixture
def trivy(tmp_path):
    if not shutil.which("trivy"):
        pytest.skip("trivy is not installed")
    # Whoever still calls out meets a proxy that nobody listens at.
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "TRIVY_CACHE_DIR": str(tmp_path / "cache"),
        "TRIVY_SKIP_VERSION_CHECK": "true",
        "TRIVY_DISABLE_TELEMETRY": "true",
    }

    def run(*argv):
        return subprocess.run(
            ["trivy", *argv], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


def fill(directory, kind, blob, **facts):
    now = datetime.now(UTC)
    facts = CacheFacts(
        now, layer_digest=digest_of(blob), manifest_digest=digest_of(b"manifest"), version="2.2.0", **facts
    )
    for member in cache_members(KINDS[kind], facts, lambda _: io.BytesIO(blob)):
        path = directory / member.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(member.chunks))


def test_a_filled_cache_is_used_without_a_flag_and_without_a_request(trivy, tmp_path):
    built, cache = datetime.now(UTC) - timedelta(hours=2), tmp_path / "cache"
    vex = build_vex_archive(built)
    fill(cache, "trivy-db", build_trivy_db(built))
    fill(cache, "trivy-java-db", build_java_db(built))
    fill(cache, "trivy-checks", build_checks())
    archive = CacheArchive("0.1", digest_of(vex), "tar.gz", "vexhub-main")
    fill(cache, "vex", vex, repository_manifest=build_vex_manifest("https://vex.example"), archives=(archive,))
    (tmp_path / "sbom.json").write_text(json.dumps(SBOM))
    (tmp_path / "scanned").mkdir()
    (tmp_path / "scanned" / "Dockerfile").write_text("FROM debian:12\nADD . /x\n")

    scanned = trivy("sbom", "--format", "json", "--vex", "repo", "sbom.json")
    assert scanned.returncode == 0, scanned.stderr
    found = {item["VulnerabilityID"] for item in json.loads(scanned.stdout)["Results"][0]["Vulnerabilities"]}
    assert found == {"CVE-2020-9548", "CVE-2021-20190"}
    assert "No need to check repository updates" in scanned.stderr

    checked = trivy("config", "--format", "json", "scanned")
    assert checked.returncode == 0, checked.stderr
    [result] = [item for item in json.loads(checked.stdout)["Results"] if item["Target"] == "Dockerfile"]
    assert [item["ID"] for item in result["Misconfigurations"]] == ["DS-0005"]
    assert "Falling back" not in checked.stderr
