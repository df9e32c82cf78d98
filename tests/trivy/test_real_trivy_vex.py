"""What Airgap packs of git and of directories, as Trivy itself takes it from there."""

import io
import json
import tarfile
from datetime import UTC, datetime, timedelta

import pytest

from mirrors.demo.assets import build_trivy_db, build_vex_archive
from tests.fakes.git import FakeGit
from tests.operations.conftest import patience, sync_now  # noqa: F401
from tests.operations.test_sync_vex import manifest
from tests.trivy.test_real_trivy import SBOM, fill, trivy  # noqa: F401

pytestmark = [pytest.mark.peers, pytest.mark.django_db(transaction=True)]

UPSTREAM = "https://github.com/aquasecurity/vexhub/archive/refs/heads/main.tar.gz//vexhub-main"


def files(built, location=UPSTREAM):
    """A repository that says of one of the SBOM's two findings that it does not matter."""
    packed = build_vex_archive(built, packages=["pkg:maven/com.fasterxml.jackson.core/jackson-databind"])
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        found = {m.name.split("/", 1)[1]: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}
    found = {path: data.replace(b"CVE-2024-0001", b"CVE-2020-9548") for path, data in found.items()}
    return found | {"vex-repository.json": manifest(location)}


@pytest.mark.parametrize("location", [UPSTREAM, "https://x.example/vex.zip"])
@pytest.mark.parametrize("form", ["git", "directory"])
def test_trivy_uses_a_repository_that_was_packed_here(
    form, location, make_mirror, tmp_path, sync_now, live_server, trivy, settings  # noqa: F811
):  # fmt: skip
    built, cache = datetime.now(UTC) - timedelta(hours=2), tmp_path / "cache"
    settings.AIRGAP_BASE_URL = live_server.url
    with FakeGit(tmp_path / "git") as git:
        git.commit(files(built, location))
        for path, data in files(built, location).items():
            (tmp_path / "stick" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "stick" / path).write_bytes(data)
        source = "git+" + git.url() if form == "git" else str(tmp_path / "stick")
        run = sync_now(make_mirror("hub", "vex", sources=[source]))
        assert run.state == "succeeded", run.error
    fill(cache, "trivy-db", build_trivy_db(built))
    (tmp_path / ".trivy" / "vex").mkdir(parents=True)
    entry = f"repositories:\n  - name: own\n    url: {live_server.url}/vex/hub\n    enabled: true\n"
    (tmp_path / ".trivy" / "vex" / "repository.yaml").write_text(entry)
    (tmp_path / "sbom.json").write_text(json.dumps(SBOM))

    scanned = trivy("sbom", "--format", "json", "--vex", "repo", "--show-suppressed", "--skip-db-update", "sbom.json")
    assert scanned.returncode == 0, scanned.stderr
    result = json.loads(scanned.stdout)["Results"][0]
    assert [finding["VulnerabilityID"] for finding in result["Vulnerabilities"]] == ["CVE-2021-20190"]
    (suppressed,) = result["ExperimentalModifiedFindings"]
    assert suppressed["Status"] == "not_affected" and "own" in suppressed["Source"]
