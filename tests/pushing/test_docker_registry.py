"""Pushes to a real docker-registry with htpasswd and TLS from a private authority, looked at with skopeo."""

import shutil
import subprocess
from datetime import UTC, datetime

import pytest

from mirrors.models import PushStep
from tests.fakes.docker_registry import DockerRegistry, needs_docker_registry
from tests.fakes.tls import Authority
from tests.kept import keep_build

pytestmark = [pytest.mark.peers, pytest.mark.django_db, needs_docker_registry]
BUILT = datetime(2026, 11, 20, 6, 31, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority():
    return Authority("Plant CA")


@pytest.fixture
def registry(tmp_path, authority):
    with DockerRegistry(tmp_path / "registry", login=True, authority=authority) as running:
        yield running


@pytest.fixture
def destination(make_destination, registry):
    return make_destination(
        "plant", f"{registry.host}/security", login=(registry.USERNAME, registry.PASSWORD),
        ca_pem=registry.authority.pem, insecure=False,
    )  # fmt: skip


def steps(run):
    return "\n".join(PushStep.objects.filter(run=run).values_list("text", flat=True))


def skopeo(registry, reference, *words):
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed (apt install skopeo)")
    argv = ["skopeo", "inspect", "--raw", "--tls-verify=false", "--creds", f"{registry.USERNAME}:{registry.PASSWORD}"]
    return subprocess.run([*argv, *words, f"docker://{reference}"], check=True, capture_output=True).stdout


def test_a_database_arrives_whole_under_its_tags_with_its_digest(
    destination, registry, store, make_mirror, make_rule, push_now
):
    mirror = make_mirror("trivy-db")
    snapshot = keep_build(store, mirror, BUILT, padding=200_000)
    rule = make_rule(mirror, destination, target="trivy-db-mirror:{tag}", extra_tags="latest {tag}-{date}")
    run = push_now(rule)
    assert (run.state, run.error) == ("succeeded", ""), steps(run)
    for tag in ("2", "latest", "2-20261120T0631Z"):
        raw = skopeo(registry, f"{registry.host}/security/trivy-db-mirror:{tag}")
        assert raw == store.read(snapshot.manifest_digest)
    rule.refresh_from_db()
    assert (rule.pushed_snapshot, rule.pushed_digest) == (snapshot, snapshot.manifest_digest)
    assert run.bytes_uploaded == sum(blob.size_bytes for blob in snapshot.blobs.exclude(role="manifest"))
    again = push_now(rule)
    assert (again.state, again.bytes_uploaded) == ("unchanged", 0)
