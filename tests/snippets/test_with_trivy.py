"""Every snippet a shell can run is run by the real Trivy, against a live instance, exactly as it stands on the page.

Only the target differs: `trivy fs` of a small folder instead of `trivy image IMAGE`, which would need a registry of
images. Every other host is behind a proxy that nobody listens at.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from datetime import UTC, datetime, timedelta
from urllib.request import ProxyHandler, build_opener

import pytest
import yaml

from mirrors import use_it
from mirrors.models import AccessToken, Mirror, Serving
from mirrors.reading import digest_of, forget
from mirrors.snippets import AUDIENCES, Artifact, Instance, snippets_for
from mirrors.trivy.catalogue import KINDS
from tests.doctor.conftest import NOW, push
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.kept import keep_build, keep_release, keep_vex

pytestmark = [pytest.mark.peers, pytest.mark.long, pytest.mark.django_db(transaction=True)]

GRADLE = "com.fasterxml.jackson.core:jackson-databind:2.9.10.1=runtimeClasspath\nempty=\n"
FOUND = {"CVE-2020-9548", "CVE-2021-20190"}
TOKEN = "airgap_" + "t" * 43


class Scanner:
    """A home, a target and a cache, and the snippets of the instance to run there."""

    def __init__(self, folder, live_server, built):
        self.folder, self.built = folder, built
        self.host = live_server.url.removeprefix("http://") if isinstance(live_server.url, str) else live_server.host
        self.cache = folder / "cache"
        self.target = folder / "target"
        self.target.mkdir()
        (self.target / "gradle.lockfile").write_text(GRADLE)
        (self.target / "Dockerfile").write_text("FROM debian:12\nADD . /x\n")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "HTTPS_PROXY": "http://127.0.0.1:1",
            "HTTP_PROXY": "http://127.0.0.1:1",
            "NO_PROXY": "127.0.0.1,localhost",
            "TRIVY_CACHE_DIR": str(self.cache),
        }

    def snippet(self, id):
        instance = use_it.instance_for("http", self.host)
        return next(found for key in AUDIENCES for found in snippets_for(key, instance) if found.id == id)

    def text(self, id):
        """The snippet with this test's target in it."""
        scan = f"trivy fs --scanners vuln,misconfig --format json --output {self.folder / 'found.json'}"
        text = re.sub(r"trivy image(?! --download)", scan, self.snippet(id).text)
        return re.sub(r"\bIMAGE\b", str(self.target), text).replace("/var/lib/trivy", str(self.cache))

    def write(self, id, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.snippet(id).text + "\n")

    def run(self, script, *arguments, **environment):
        done = subprocess.run(
            ["sh", "-euc", script, "sh", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def scan(self, *flags, **environment):
        return self.run(
            f"trivy fs --scanners vuln,misconfig --format json --output {self.folder / 'found.json'} "
            f"{' '.join(flags)} {self.target}",
            **environment,
        )

    @property
    def found(self):
        """Ids of vulnerabilities and misconfigurations."""
        results = json.loads((self.folder / "found.json").read_text())["Results"]
        vulnerable = {item["VulnerabilityID"] for result in results for item in result.get("Vulnerabilities") or []}
        wrong = {item["ID"] for result in results for item in result.get("Misconfigurations") or []}
        return vulnerable, wrong

    def assert_everything_came_from_here(self, said=""):
        vulnerable, wrong = self.found
        assert vulnerable == FOUND
        assert wrong == {"DS-0005"}, "checks fell back to those inside Trivy"
        assert "Falling back" not in said
        metadata = json.loads((self.cache / "db" / "metadata.json").read_text())
        assert datetime.fromisoformat(metadata["UpdatedAt"]) == self.built


def version_of_trivy():
    """0.74 as a pair; (0, 0) where there is none."""
    if not shutil.which("trivy"):
        return (0, 0)
    said = subprocess.run(["trivy", "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"(\d+)\.(\d+)\.", said)
    # Built without a version it is a recent one.
    return (int(match[1]), int(match[2])) if match else (0, 999)


@pytest.fixture
def scanner(any_scanner):
    if version_of_trivy() < (0, 69):
        pytest.skip("trivy 0.69 or later is not installed")
    return any_scanner


@pytest.fixture
def any_scanner(tmp_path, live_server, store, make_mirror):
    if version_of_trivy() < (0, 56):
        pytest.skip("trivy 0.56 or later is not installed")
    built = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    for name in ("trivy-db", "trivy-java-db", "trivy-checks"):
        keep_build(store, make_mirror(name, sources=[f"ghcr.io/aquasecurity/{name}"]), built)
    keep_vex(store, make_mirror("vexhub", kind="vex", sources=["https://vex.example"]), built)
    forget()
    yield Scanner(tmp_path, live_server, built)
    forget()


@pytest.fixture
def with_vex(scanner):
    scanner.write("repository-yaml", scanner.folder / ".trivy" / "vex" / "repository.yaml")
    return scanner


def vex_index(scanner):
    return scanner.cache / "vex" / "repositories" / "vexhub" / "0.1" / "index.json"


def test_flags(with_vex):
    said = with_vex.run(with_vex.text("flags"))
    with_vex.assert_everything_came_from_here(said)
    assert vex_index(with_vex).exists()


def test_environment(with_vex):
    said = with_vex.run(
        f"{with_vex.text('environment')}\n"
        f"trivy fs --scanners vuln,misconfig --format json --output found.json {with_vex.target}"
    )
    with_vex.assert_everything_came_from_here(said)
    assert vex_index(with_vex).exists()


def test_environment_and_file_are_taken_by_an_older_trivy_too(any_scanner):
    """They say 0.56 and later: what is unknown in them is passed over, where an unknown flag is fatal."""
    any_scanner.write("repository-yaml", any_scanner.folder / ".trivy" / "vex" / "repository.yaml")
    scan = f"trivy fs --scanners vuln --format json --output found.json {any_scanner.target}"
    any_scanner.run(f"{any_scanner.text('environment')}\n{scan}")
    assert any_scanner.found[0] == FOUND
    shutil.rmtree(any_scanner.cache)
    any_scanner.write("trivy-yaml", any_scanner.folder / "trivy.yaml")
    any_scanner.run(scan)
    assert any_scanner.found[0] == FOUND


@pytest.mark.parametrize("id", ["trivy-yaml", "registry-mirrors"])
def test_trivy_yaml(with_vex, id):
    with_vex.write(id, with_vex.folder / "trivy.yaml")
    said = with_vex.scan()
    with_vex.assert_everything_came_from_here(said)
    assert vex_index(with_vex).exists()


def test_own_checks_beside_the_official_ones(scanner):
    own = scanner.folder / "checks"
    own.mkdir()
    (own / "mine.rego").write_text(
        "# METADATA\n# title: mine\n# custom:\n#   id: MINE-1\n#   severity: LOW\n#   input:\n#     selector:\n"
        "#     - type: dockerfile\npackage user.mine\n\nimport rego.v1\n\n"
        'deny contains res if {\n\tinput.Stages[_]\n\tres := result.new("mine", {})\n}\n'
    )
    text = scanner.text("config-check").replace(
        "trivy config", f"trivy config --format json --output {scanner.folder / 'found.json'}"
    )
    (scanner.folder / "Dockerfile").write_text("FROM debian:12\nADD . /x\n")
    scanner.run(text)
    assert scanner.found[1] == {"DS-0005", "MINE-1"}


def test_a_pinned_day_that_is_not_the_newest(scanner, store):
    older = scanner.built - timedelta(days=1)
    keep_build(store, Mirror.objects.get(name="trivy-db"), older, current=False)
    instance = use_it.instance_for("http", scanner.host)
    newest_tag, older_tag = instance.db.dated
    scanner.run(scanner.text("pinned").replace(newest_tag, older_tag))
    metadata = json.loads((scanner.folder / ".cache" / f"trivy-{older_tag}" / "db" / "metadata.json").read_text())
    assert datetime.fromisoformat(metadata["UpdatedAt"]) == older
    assert scanner.found[0] == FOUND


@pytest.mark.parametrize("id", ["fill-trivy", "fill-curl"])
def test_a_cache_filled_by_hand_is_scanned_from_without_a_request(with_vex, id):
    if id == "fill-curl" and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    with_vex.run(with_vex.text(id), with_vex.cache)
    # Filled twice: what is there gives way.
    with_vex.run(with_vex.text(id), with_vex.cache)
    # From now on whoever asks is refused.
    script = with_vex.text("scan-filled")
    Serving.objects.create(pk=1, login_required=True)
    forget()
    said = with_vex.run(script)
    with_vex.assert_everything_came_from_here(said)
    assert vex_index(with_vex).exists()
    assert not list(with_vex.cache.glob("**/*.new")) and not list(with_vex.cache.glob("**/*.old"))
    shown = subprocess.run(
        ["sh", "-c", with_vex.text("check-cache")], env=with_vex.environment, capture_output=True, text=True, check=True
    )
    assert {"VulnerabilityDB", "JavaDB"} <= set(json.loads(shown.stdout))


def test_trivy_itself_is_fetched_and_compared(scanner, store, make_mirror):
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    mirror = make_mirror("trivy", kind="release", sources=["https://github.com/aquasecurity/trivy"])
    keep_release(store, mirror, datetime.now(UTC))
    scanner.run(scanner.text("program"))
    assert (scanner.folder / "trivy").is_file()


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def answers(url):
    try:
        return build_opener(ProxyHandler({})).open(url, timeout=1).status == 200
    except OSError:
        return False


def test_server_and_client(with_vex):
    port = free_port()
    lines = with_vex.snippet("server").text.replace("0.0.0.0:4954", f"127.0.0.1:{port}")
    server = subprocess.Popen(
        ["sh", "-c", f"exec {lines}"],
        cwd=with_vex.folder,
        env=with_vex.environment | {"TRIVY_CACHE_DIR": str(with_vex.folder / "server-cache")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not answers(f"http://127.0.0.1:{port}/healthz"):
            assert server.poll() is None and time.monotonic() < deadline, "trivy server did not come up"
            time.sleep(0.1)
        with_vex.run(with_vex.text("server-client").replace("TRIVY-SERVER:4954", f"127.0.0.1:{port}"))
        assert with_vex.found == (FOUND, {"DS-0005"})
        assert not (with_vex.cache / "db").exists(), "the vulnerability DB is the server's"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(10)


def test_a_required_login_by_docker_config(scanner):
    Serving.objects.create(pk=1, login_required=True)
    AccessToken.objects.create(name="scanner", digest=digest_of(TOKEN), created_at=datetime.now(UTC), created_by="ada")
    forget()
    scanner.run(scanner.text("login"), AIRGAP_TOKEN=TOKEN)
    assert json.loads((scanner.folder / ".docker" / "config.json").read_text())["auths"].keys() == {scanner.host}
    # The token for VEX stands in the file itself.
    file = scanner.folder / ".trivy" / "vex" / "repository.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(scanner.snippet("repository-yaml").text.replace("AIRGAP_TOKEN", TOKEN))
    said = scanner.run(scanner.text("flags"))
    scanner.assert_everything_came_from_here(said)
    assert vex_index(scanner).exists()


def test_trivy_takes_every_key_of_the_operators_configuration_file(scanner):
    found = yaml.safe_load(scanner.snippet("operator").text)
    (scanner.folder / "trivy.yaml").write_text(yaml.safe_dump(found["trivy"]["configFile"]))
    repository = f"{found['trivy']['dbRegistry']}/{found['trivy']['dbRepository']}"
    scanner.scan(f"--db-repository {repository}", "--skip-java-db-update", "--skip-check-update")
    assert scanner.found[0] == FOUND


# Over TLS with an authority of our own, and by plain HTTP to what Trivy does not take for private


class Elsewhere(Scanner):
    """The same snippets against another server that holds the same: one with TLS, or one Trivy refuses as it is."""

    def __init__(self, folder, fake, built):
        super().__init__(folder, fake, built)
        self.fake = fake

    def snippet(self, id):
        artifacts = tuple(
            Artifact(kind, kind, f"aquasecurity/{kind}", KINDS[kind].default_tag, size=1)
            for kind in ("trivy-db", "trivy-java-db", "trivy-checks")
        )
        ca = "/use-it/ca.pem" if self.fake.scheme == "https" else ""
        instance = Instance(self.fake.scheme, self.fake.host, artifacts, ca_path=ca)
        return next(found for key in AUDIENCES for found in snippets_for(key, instance) if found.id == id)


@pytest.fixture
def elsewhere(tmp_path):
    """elsewhere(tls=True) -> an Elsewhere"""
    if version_of_trivy() < (0, 69):
        pytest.skip("trivy 0.69 or later is not installed")
    with contextlib.ExitStack() as stack:

        def make(**how):
            fake = stack.enter_context(FakeRegistry(**how))
            for kind in ("trivy-db", "trivy-java-db", "trivy-checks"):
                for owner in ("aquasecurity", "aquasec"):
                    push(fake, kind, repository=f"{owner}/{kind}", built=NOW - timedelta(hours=1))
            return Elsewhere(tmp_path, fake, NOW - timedelta(hours=1))

        yield make


@pytest.fixture
def tls(elsewhere):
    scanner = elsewhere(tls=True)
    scanner.fake.put_file("/use-it/ca.pem", scanner.fake.ca_pem.encode())
    return scanner


def test_the_authority_is_fetched_and_named_by_its_fingerprint(tls):
    if not (shutil.which("curl") and shutil.which("openssl")):
        pytest.skip("curl or openssl is not installed")
    tls.run(tls.text("ca"))
    assert (tls.folder / "airgap-ca.pem").read_text() == tls.fake.ca_pem


def script_of(scanner, id):
    """The snippet made ready: flags as they stand, variables before a scan, files written."""
    scan = f"trivy fs --scanners vuln,misconfig --format json --output found.json {scanner.target}"
    if id == "flags":
        return scanner.text(id)
    if id == "environment":
        return f"{scanner.text(id)}\n{scan}"
    scanner.write(id, scanner.folder / "trivy.yaml")
    return scan


FORMS = ["flags", "environment", "trivy-yaml", "registry-mirrors"]


@pytest.mark.parametrize("id", FORMS)
def test_each_form_names_the_authority_and_without_it_trivy_stops(tls, id):
    script = script_of(tls, id)
    (tls.folder / "airgap-ca.pem").write_text(Authority("Somebody Else").pem)
    with pytest.raises(AssertionError, match="certificate signed by unknown authority"):
        tls.run(script)
    (tls.folder / "airgap-ca.pem").write_text(tls.fake.ca_pem)
    tls.assert_everything_came_from_here(tls.run(script))


@pytest.mark.parametrize("id", FORMS)
def test_where_trivy_refuses_plain_http_each_form_says_insecure_and_works(elsewhere, id):
    plain = elsewhere(address="127.0.0.2")
    plain.environment["NO_PROXY"] = "127.0.0.0/8"
    assert plain.snippet(id).warnings
    plain.assert_everything_came_from_here(plain.run(script_of(plain, id)))


def test_without_insecure_trivy_refuses_it(elsewhere):
    plain = elsewhere(address="127.0.0.2")
    plain.environment["NO_PROXY"] = "127.0.0.0/8"
    with pytest.raises(AssertionError, match="server gave HTTP response to HTTPS client"):
        plain.run(plain.text("flags").replace("--insecure", "--quiet"))
