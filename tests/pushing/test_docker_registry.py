"""Pushes to a real docker-registry with htpasswd and TLS from a private authority, looked at with skopeo."""

import base64
import json
import shutil
import subprocess

import pytest

from mirrors import destinations, logins
from mirrors.digests import digest_of
from mirrors.models import Destination, PushRule, PushStep
from mirrors.pushing import trying
from tests.fakes.docker_registry import DockerRegistry, needs_docker_registry
from tests.fakes.tls import Authority
from tests.kept import keep_build
from tests.pushing.conftest import BUILT

pytestmark = [pytest.mark.peers, pytest.mark.django_db, needs_docker_registry]


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


def test_an_index_arrives_with_all_platforms_and_what_refers_to_it(destination, registry, image, make_rule, push_now):
    mirror, index, signature = image
    run = push_now(make_rule(mirror, destination, target="tool:{tag}"))
    assert (run.state, run.error) == ("succeeded", ""), steps(run)
    place = f"{registry.host}/security/tool"
    assert skopeo(registry, f"{place}:1") == index
    for child in json.loads(index)["manifests"]:
        assert digest_of(skopeo(registry, f"{place}@{child['digest']}")) == child["digest"]
    assert skopeo(registry, f"{place}@{digest_of(signature)}") == signature
    # This registry lists no referrers itself, so clients look under this tag (distribution-spec).
    listed = json.loads(skopeo(registry, f"{place}:{digest_of(index).replace(':', '-')}"))
    assert [entry["digest"] for entry in listed["manifests"]] == [digest_of(signature)]
    assert push_now(PushRule.objects.get()).state == "unchanged"


def test_skopeo_copies_from_there_what_upstream_made(destination, registry, database, make_rule, push_now, tmp_path):
    push_now(make_rule(database, destination, target="db:{tag}"))
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed (apt install skopeo)")
    source = f"docker://{registry.host}/security/db:2"
    login = f"{registry.USERNAME}:{registry.PASSWORD}"
    subprocess.run(
        ["skopeo", "copy", "-q", "--preserve-digests", "--src-tls-verify=false", "--src-creds", login, source,
         f"oci:{tmp_path / 'layout'}:2"],
        check=True, capture_output=True,
    )  # fmt: skip
    listed = json.loads((tmp_path / "layout" / "index.json").read_text())
    assert listed["manifests"][0]["digest"] == database.current.manifest_digest


def test_a_blob_is_mounted_from_another_path_of_the_registry(
    destination, database, make_mirror, make_rule, store, push_now
):
    push_now(make_rule(database, destination, target="db:{tag}"))
    twin = make_mirror("twin", "trivy-db", served_repository="mirrors/twin", served_tag="2")
    keep_build(store, twin, BUILT, padding=50_000)
    run = push_now(make_rule(twin, destination, target="twin:{tag}"))
    assert (run.state, run.bytes_uploaded) == ("succeeded", 0), steps(run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"login": logins.basic("robot", "wrong-geheim")}, "Check the user name and password"),
        ({"login": logins.NO_LOGIN}, "asks for a login"),
        ({"ca_pem": ""}, "certificate"),
    ],
)
def test_what_is_wrong_is_named_by_the_test_and_by_the_push(
    destination, database, make_rule, push_now, now, change, words
):
    rule = make_rule(database, destination, target="db:{tag}")
    destinations.edit_destination("plant", destinations.Wish(**change), by="ada", now=now)
    (trial,) = trying.try_destination(Destination.objects.get())
    assert not trial.ok and words in trial.error and "geheim" not in trial.error
    run = push_now(rule)
    assert run.state == "failed" and words in run.error and "geheim" not in run.error


def test_the_test_leaves_nothing_there(destination, registry):
    (trial,) = trying.try_destination(destination)
    assert trial.ok and trial.hops[0].issuer == "Plant CA"
    # A hash of no bytes stays in its folder of the cancelled upload, until the registry's own purge.
    left = {path.name for path in (registry.folder / "storage").rglob("*") if path.is_file()}
    assert left <= {"0"}


def test_a_docker_config_file_logs_in(destination, registry, database, make_rule, push_now, now):
    auth = base64.b64encode(f"{registry.USERNAME}:{registry.PASSWORD}".encode()).decode()
    config = json.dumps({"auths": {registry.host: {"auth": auth}}})
    wish = destinations.Wish(login=logins.Login("docker", secret=config))
    destinations.edit_destination("plant", wish, by="ada", now=now)
    assert push_now(make_rule(database, destination)).state == "succeeded"
