"""Real clients log in: without credentials they are refused, with each kind they know they read."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from django.db import connection
from django.utils import timezone

from mirrors import access_tokens
from mirrors.models import AuditEntry, Role, User
from tests.kept import keep_build, keep_vex

pytestmark = [pytest.mark.peers, pytest.mark.long, pytest.mark.django_db(transaction=True)]
REPOSITORY, TAG = "aquasecurity/trivy-db", "2"


@dataclass
class Instance:
    """An instance that wants a login, and the token `ci` that reads there."""

    host: str
    digest: str
    secret: str
    told: Path

    def reader(self) -> str:
        """Who took something last."""
        return self.told.read_text().splitlines()[-1]


@pytest.fixture
def instance(store, make_mirror, tmp_path, settings):
    """Served by gunicorn, which reads what skopeo sends in chunks; Django's own test server does not."""
    told, now = tmp_path / "told", timezone.now().replace(microsecond=0)
    digest = keep_build(store, make_mirror("trivy-db"), now).manifest_digest
    keep_vex(store, make_mirror("vexhub", "vex"), now)
    User.objects.create_user("vera", password="correct horse vera", role=Role.VIEWER)
    secret = access_tokens.add_token("ci", by="ada", now=timezone.now())[1]
    access_tokens.require_login(True, by="ada", now=timezone.now())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "AIRGAP_TEST_READERS": str(told),
        "AIRGAP_TEST_DATABASE": str(connection.settings_dict["NAME"]),
        "AIRGAP_TEST_DATA": str(settings.AIRGAP_DATA_DIR),
        "AIRGAP_TEST_SECRET": settings.SECRET_KEY,
    }
    words = ["-m", "gunicorn", "--bind", host, "--worker-class", "gthread", "--threads", "4", "tests.reading.served"]
    with subprocess.Popen([sys.executable, *words], env=environment, stderr=subprocess.PIPE) as server:
        try:
            for line in iter(server.stderr.readline, b""):
                if b"Booting worker" in line:
                    break
            wait_for(host, 401)
            yield Instance(host, digest, secret, told)
        finally:
            server.terminate()
            server.communicate(timeout=10)


def wait_for(host, status):
    """Until it answers so."""
    for _ in range(400):
        with suppress(requests.ConnectionError):
            if requests.get(f"http://{host}/v2/", timeout=20).status_code == status:
                return
        time.sleep(0.05)
    raise AssertionError(f"gunicorn did not begin to answer {status}")


@pytest.fixture
def run(tmp_path):
    """run("skopeo", …, login={…}) -> CompletedProcess, with a home of its own; skips where there is no such program."""

    def call(program, *words, auths=None, env=None):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} here")
        docker = tmp_path / "docker"
        docker.mkdir(exist_ok=True)
        (docker / "config.json").write_text(json.dumps({"auths": auths or {}}))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "XDG_RUNTIME_DIR": str(tmp_path),
            "DOCKER_CONFIG": str(docker),
            "REGISTRY_AUTH_FILE": str(docker / "config.json"),
            **(env or {}),
        }
        return subprocess.run(
            [program, *words], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    return call


def auth(name, password):
    return {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}


def logins(instance):
    """What a docker config file may hold for us, and who that is."""
    return [
        (auth("ci", instance.secret), "token ci"),
        (auth("whoever", instance.secret), "token ci"),
        ({"auth": auth("whoever", "")["auth"], "identitytoken": instance.secret}, "token ci"),
        (auth("vera", "correct horse vera"), "user vera"),
    ]


def test_skopeo_reads_with_creds_and_with_an_authfile(instance, run):
    inspect = ("inspect", "--raw", "--tls-verify=false")
    image = f"docker://{instance.host}/{REPOSITORY}:{TAG}"
    refused = run("skopeo", *inspect, image)
    assert refused.returncode and "unauthorized" in refused.stderr.lower()
    assert AuditEntry.objects.filter(action="reader refused", actor="somebody").count() == 1
    for creds, who in ((f"ci:{instance.secret}", "token ci"), ("vera:correct horse vera", "user vera")):
        done = run("skopeo", *inspect, "--creds", creds, image)
        assert done.returncode == 0, done.stderr
        assert instance.reader() == who
    for login, who in logins(instance):
        done = run("skopeo", *inspect, image, auths={instance.host: login})
        assert done.returncode == 0, done.stderr
        assert instance.reader() == who
    assert run("skopeo", *inspect, "--creds", "vera:wrong", image).returncode


def test_skopeo_copies_with_the_digest_kept(instance, run, tmp_path):
    image = f"docker://{instance.host}/{REPOSITORY}:{TAG}"
    done = run("skopeo", "copy", "--src-tls-verify=false", "--src-creds", f"ci:{instance.secret}", image, "oci:out:x")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "out" / "index.json").read_text())["manifests"]
    assert entry["digest"] == instance.digest


def test_skopeo_logs_in_only_with_what_reads(instance, run, tmp_path):
    words = ("login", "--tls-verify=false", "--authfile", str(tmp_path / "auth.json"), instance.host)
    assert run("skopeo", *words, "--username", "ci", "--password", instance.secret).returncode == 0
    assert run("skopeo", *words, "--username", "ci", "--password", instance.secret + "x").returncode


def test_crane_reads_with_a_docker_config_file(instance, run):
    image = f"{instance.host}/{REPOSITORY}:{TAG}"
    refused = run("crane", "digest", image)
    assert refused.returncode and "UNAUTHORIZED" in refused.stderr and "Reading needs a login here" in refused.stderr
    for login, who in logins(instance):
        done = run("crane", "manifest", image, auths={instance.host: login})
        assert done.returncode == 0, done.stderr
        assert instance.reader() == who
    done = run("crane", "digest", image, auths={instance.host: {"registrytoken": instance.secret}})
    assert done.stdout.strip() == instance.digest, done.stderr


def test_oras_reads_with_name_and_password_and_a_docker_config_file(instance, run):
    fetch = ("manifest", "fetch", "--plain-http", f"{instance.host}/{REPOSITORY}:{TAG}")
    refused = run("oras", *fetch)
    assert refused.returncode and "Reading needs a login here" in refused.stderr
    done = run("oras", *fetch, "--username", "ci", "--password", instance.secret)
    assert done.returncode == 0, done.stderr
    for login, who in logins(instance):
        done = run("oras", *fetch, auths={instance.host: login})
        assert done.returncode == 0, done.stderr
        assert instance.reader() == who


def test_regctl_reads_with_a_docker_config_file(instance, run):
    image = f"{instance.host}/{REPOSITORY}:{TAG}"
    run("regctl", "registry", "set", "--tls", "disabled", instance.host)
    assert run("regctl", "manifest", "head", image).returncode
    for login, who in logins(instance):
        done = run("regctl", "manifest", "head", image, auths={instance.host: login})
        assert done.returncode == 0, done.stderr
        assert instance.reader() == who


def test_oras_py_reads_with_name_and_password(instance):
    from oras.provider import Registry

    for name, password, who in (("ci", instance.secret, "token ci"), ("vera", "correct horse vera", "user vera")):
        client = Registry(hostname=instance.host, insecure=True, auth_backend="token")
        client.auth.set_basic_auth(name, password)
        assert client.get_manifest(f"{instance.host}/{REPOSITORY}:{TAG}")["layers"]
        assert instance.reader() == who


def trivy(instance, run, tmp_path, **more):
    return run(
        "trivy",
        "image",
        "--download-db-only",
        "--skip-version-check",
        "--disable-telemetry",
        "--db-repository",
        f"{instance.host}/{REPOSITORY}:{TAG}",
        "--cache-dir",
        str(tmp_path / os.urandom(4).hex()),
        **more,
    )


def test_trivy_reads_with_every_login_it_knows(instance, run, tmp_path):
    refused = trivy(instance, run, tmp_path)
    assert refused.returncode and "Reading needs a login here" in refused.stderr
    for login, who in logins(instance):
        done = trivy(instance, run, tmp_path, auths={instance.host: login})
        assert done.returncode == 0, done.stderr
        assert instance.reader() == who
    for env in (
        {"TRIVY_USERNAME": "ci", "TRIVY_PASSWORD": instance.secret},
        {"TRIVY_REGISTRY_TOKEN": instance.secret},
    ):
        done = trivy(instance, run, tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        assert instance.reader() == "token ci"


def test_trivy_is_not_refused_for_credentials_of_elsewhere_while_anybody_may_read(instance, run, tmp_path):
    access_tokens.require_login(False, by="ada", now=timezone.now())
    wait_for(instance.host, 200)
    for env in (
        {"TRIVY_USERNAME": "robot", "TRIVY_PASSWORD": "of-elsewhere"},
        {"TRIVY_REGISTRY_TOKEN": "of-elsewhere"},
    ):
        done = trivy(instance, run, tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        assert instance.reader() == "anonymous"


@pytest.mark.parametrize("login", ["token: {secret}", "username: ci\n    password: {secret}"])
def test_trivy_downloads_a_vex_repository(instance, run, tmp_path, login):
    def download(words):
        folder = tmp_path / ".trivy" / "vex"
        folder.mkdir(parents=True, exist_ok=True)
        url = f"http://{instance.host}/vex/vexhub"
        (folder / "repository.yaml").write_text(
            f"repositories:\n  - name: default\n    url: {url}\n    enabled: true\n    {words}\n"
        )
        cache = str(tmp_path / os.urandom(4).hex())
        return run("trivy", "vex", "repo", "download", "--cache-dir", cache), cache

    refused, _ = download("insecure: false")
    assert refused.returncode
    done, cache = download(login.format(secret=instance.secret))
    assert done.returncode == 0, done.stderr
    found = [name for _, _, names in os.walk(os.path.join(cache, "vex")) for name in names]
    assert "index.json" in found


def test_docker_keeps_an_identity_token_that_gets_tokens(instance):
    """The requests of `docker login` and of the pull after it, as moby's client makes them."""
    realm = f"http://{instance.host}/v2/token"
    asked = {"account": "vera", "client_id": "docker", "offline_token": "true", "service": instance.host}
    kept = requests.get(realm, params=asked, auth=("vera", "correct horse vera"), timeout=10).json()["refresh_token"]
    form = {
        "grant_type": "refresh_token",
        "refresh_token": kept,
        "client_id": "docker",
        "service": instance.host,
        "scope": f"repository:{REPOSITORY}:pull",
    }
    token = requests.post(realm, data=form, timeout=10).json()["access_token"]
    url = f"http://{instance.host}/v2/{REPOSITORY}/manifests/{TAG}"
    assert requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10).status_code == 200
    assert instance.reader() == "user vera"
