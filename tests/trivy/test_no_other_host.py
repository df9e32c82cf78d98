"""Trivy scans with this instance as the only other host: both stand in a network namespace that has loopback alone."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.peers, pytest.mark.long]
BASE = Path(__file__).parent.parent.parent
PORT = 8000

# The namespace's own loopback, so the port is free. Trivy speaks plain HTTP to a loopback address by itself.
SCRIPT = f"""
set -eu
ip link set lo up
test "$(ip -o route get 203.0.113.1 2>&1 | grep -c unreachable)" = 1
"$PYTHON" -m gunicorn --worker-class gthread --threads 8 --bind 127.0.0.1:{PORT} --no-control-socket \\
    --log-level warning airgap.wsgi 2>server.log &
server=$!
trap 'kill $server; wait $server' EXIT
until curl -fsS -o /dev/null http://127.0.0.1:{PORT}/v2/ 2>/dev/null; do kill -0 $server; sleep 0.1; done
mkdir -p "$XDG_DATA_HOME/.trivy/vex"
cat >"$XDG_DATA_HOME/.trivy/vex/repository.yaml" <<YAML
repositories:
  - name: airgap
    url: http://127.0.0.1:{PORT}/vex/vexhub
    enabled: true
YAML
trivy sbom --format json --output vulnerabilities.json --vex repo --show-suppressed \\
    --db-repository 127.0.0.1:{PORT}/aquasecurity/trivy-db:2 \\
    --java-db-repository 127.0.0.1:{PORT}/aquasecurity/trivy-java-db:1 \\
    --skip-version-check --disable-telemetry sbom.json 2>vulnerabilities.log
trivy image --download-java-db-only --java-db-repository 127.0.0.1:{PORT}/aquasec/trivy-java-db:1 \\
    --skip-version-check --disable-telemetry 2>java.log
trivy config --format json --output misconfigurations.json \\
    --checks-bundle-repository 127.0.0.1:{PORT}/aquasecurity/trivy-checks:2 \\
    --skip-version-check --disable-telemetry scanned 2>misconfigurations.log
"""
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
def alone(tmp_path):
    """alone(script) runs it in a folder of its own, with no network but loopback."""
    for program in ("trivy", "curl", "ip", "unshare"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    said = subprocess.run(["trivy", "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"Version: 0\.(\d+)\.", said)
    if version and int(version[1]) < 69:
        pytest.skip("trivy 0.69 or later is not installed")
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("making a network namespace is not allowed here (it needs root)")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHON": sys.executable,
        "PYTHONPATH": str(BASE),
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path / "share"),
        "TRIVY_CACHE_DIR": str(tmp_path / "cache"),
        "AIRGAP_DATA_DIR": str(tmp_path / "data"),
    }
    subprocess.run([sys.executable, "-m", "tests.trivy.namespace_seed"], cwd=BASE, env=environment, check=True)

    def run(script: str) -> None:
        done = subprocess.run(
            ["unshare", "--net", "sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        logs = "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in tmp_path.glob("*.log"))
        assert done.returncode == 0, f"{done.stderr}\n{logs}"

    return run


def test_trivy_finds_everything_with_no_other_host_to_ask(alone, tmp_path):
    (tmp_path / "sbom.json").write_text(json.dumps(SBOM))
    (tmp_path / "scanned").mkdir()
    (tmp_path / "scanned" / "Dockerfile").write_text("FROM debian:12\nADD . /x\n")
    alone(SCRIPT)
    (result,) = json.loads((tmp_path / "vulnerabilities.json").read_text())["Results"]
    found = {item["VulnerabilityID"] for item in result.get("Vulnerabilities") or []}
    assert found == {"CVE-2020-9548", "CVE-2021-20190"}
    assert (tmp_path / "cache" / "vex" / "repositories" / "airgap" / "0.1" / "index.json").is_file()
    assert (tmp_path / "cache" / "java-db" / "trivy-java.db").is_file()
    checked = json.loads((tmp_path / "misconfigurations.json").read_text())["Results"]
    (dockerfile,) = [item for item in checked if item["Target"] == "Dockerfile"]
    # DS-0005 as the served bundle has it; those built into Trivy have more.
    assert [item["ID"] for item in dockerfile["Misconfigurations"]] == ["DS-0005"]
    assert "Falling back" not in (tmp_path / "misconfigurations.log").read_text()
