"""What clients send, and the addresses they ask."""

import base64

MANIFEST = "/vex/vexhub/.well-known/vex-repository.json"
ARCHIVE = "/vex/vexhub/v0.1-0.tar.gz"
REGISTRY = "/v2/aquasecurity/trivy-db/manifests/2"
FILE = "/files/trivy/trivy_0.74.0_Linux-64bit.tar.gz"
TOKEN = "/v2/token"


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
