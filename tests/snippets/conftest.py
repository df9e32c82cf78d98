"""Instances to write snippets for."""

import pytest

from mirrors.snippets import Artifact, Instance, VexRepository

DB = Artifact(
    "trivy-db",
    "Vulnerability DB",
    "aquasecurity/trivy-db",
    "2",
    ("aquasec/trivy-db",),
    ("2-20261120T0631Z", "2-20261119T1831Z"),
    110_000_000,
)
JAVA_DB = Artifact("trivy-java-db", "Java DB", "aquasecurity/trivy-java-db", "1", size=900_000_000)
CHECKS = Artifact("trivy-checks", "Checks bundle", "aquasecurity/trivy-checks", "2", size=240_000)
CHECKS_1 = Artifact("trivy-checks", "Checks bundle 1", "aquasecurity/trivy-checks", "1", size=170_000)
VEX_HUB = VexRepository("vexhub", "VEX Hub", "v0.1-0.tar.gz", "vexhub-main", 180_000)


@pytest.fixture
def make_instance():
    """make_instance(scheme="https", host="airgap.example", **fields) -> Instance with everything mirrored"""

    def make(scheme="https", host="airgap.example", **fields) -> Instance:
        fields.setdefault("artifacts", (DB, JAVA_DB, CHECKS_1, CHECKS))
        fields.setdefault("vex", (VEX_HUB,))
        return Instance(scheme, host, **fields)

    return make
