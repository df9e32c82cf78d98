"""Whether the doctor is right: where it says that Trivy stops, real Trivy stops, and else it goes on."""

import os
import re
import shutil
import subprocess

import pytest

from mirrors.trivy.catalogue import KINDS
from tests.doctor.conftest import push, reports_of
from tests.fakes.registry import OCI_INDEX, FakeRegistry

pytestmark = [pytest.mark.peers, pytest.mark.long]

DB = "aquasecurity/trivy-db"
DB_TYPE = KINDS["trivy-db"].layer_media_type


@pytest.fixture
def trivy(tmp_path):
    """trivy(host) -> whether it got the database. Only a Trivy that knows what the doctor knows."""
    if not shutil.which("trivy"):
        pytest.skip("trivy is not installed")
    version = re.search(r"\d+\.(\d+)\.", subprocess.run(["trivy", "-v"], capture_output=True, text=True).stdout)
    if version and int(version[1]) < 71:
        pytest.skip("trivy 0.71 or later is not installed")

    def gets_it(host, **environment):
        done = subprocess.run(
            ["trivy", "image", "--download-db-only", "--db-repository", f"{host}/{DB}:2"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "TRIVY_CACHE_DIR": str(tmp_path / "cache"),
                "TRIVY_SKIP_VERSION_CHECK": "true",
                "TRIVY_DISABLE_TELEMETRY": "true",
                "NO_PROXY": "127.0.0.0/8",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode == 0 and (tmp_path / "cache" / "db" / "trivy.db").exists()

    return gets_it


def nothing(fake):
    pass


def two_layers(fake):
    push(fake, layers=[(b"a", DB_TYPE, "db.tar.gz"), (b"b", DB_TYPE, "x")])


def wrong_type(fake):
    push(fake, layers=[(b"a", "application/x-tar", "db.tar.gz")])


def no_title(fake):
    push(fake, layers=[(b"a", DB_TYPE, None)])


def leaving_title(fake):
    push(fake, layers=[(b"a", DB_TYPE, "../db.tar.gz")])


def title_that_is_not_unpacked(fake):
    data = fake.blobs[next(digest for digest in fake.blobs if len(fake.blobs[digest]) > 100)]
    push(fake, layers=[(data, DB_TYPE, "database")])


def index_around_it(fake):
    digest = push(fake)
    fake.push_index(DB, "2", [(digest, {"os": "linux", "architecture": "arm64"})])


def called_an_index(fake):
    fake.fault("/manifests/2", headers={"Content-Type": OCI_INDEX}, times=None)


def no_such_tag(fake):
    fake.manifests.clear()


def no_layer(fake):
    fake.fault("/blobs/", status=404, body=b'{"errors":[{"code":"BLOB_UNKNOWN"}]}', times=None)


def wrong_length(fake):
    fake.fault("/blobs/", data=b"short", times=None)


def changed_bytes(fake):
    fake.fault("/blobs/", flip=True, times=None)


def no_gzip(fake):
    push(fake, layers=[(b"plain text", DB_TYPE, "db.tar.gz")])


def web_page(fake):
    fake.fault("/manifests/2", status=200, body=b"<html>", times=None)


def ping_not_found(fake):
    fake.fault("/v2/", status=404, body=b"", times=None)


def login_by_basic(fake):
    fake.require_basic("u", "secret")


def login_by_token(fake):
    fake.require_token()


def token_with_login(fake):
    fake.require_token(username="u", password="secret")


def token_from_a_private_address(fake):
    fake.require_token(realm="http://10.255.255.1/token")


def no_digest_header(fake):
    fake.fault("/manifests/2", headers={"Docker-Content-Digest": None}, times=None)


def no_content_type(fake):
    fake.fault("/manifests/2", headers={"Content-Type": None}, times=None)


def lying_digest_header(fake):
    fake.fault("/manifests/2", headers={"Docker-Content-Digest": "sha256:" + "0" * 64}, times=None)


def empty_config(fake):
    push(fake, config=b"")


def no_length(fake):
    fake.fault("/blobs/", chunked=True, times=None)


FAULTS = [
    nothing,
    two_layers,
    wrong_type,
    no_title,
    leaving_title,
    title_that_is_not_unpacked,
    index_around_it,
    called_an_index,
    no_such_tag,
    no_layer,
    wrong_length,
    changed_bytes,
    no_gzip,
    web_page,
    ping_not_found,
    login_by_basic,
    login_by_token,
    token_with_login,
    token_from_a_private_address,
    no_digest_header,
    no_content_type,
    lying_digest_header,
    empty_config,
    no_length,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_the_doctor_and_trivy_agree(trivy, fault):
    with FakeRegistry() as fake:
        push(fake)
        fault(fake)
        (report,) = reports_of(f"{fake.host}/{DB}:2")
        assert trivy(fake.host) is not report.stops, report.findings


def test_they_agree_about_plain_http_by_name(trivy):
    with FakeRegistry(address="127.0.0.2") as fake:
        push(fake)
        (report,) = reports_of(f"{fake.host}/{DB}:2")
        assert report.stops
        assert not trivy(fake.host)
        assert trivy(fake.host, TRIVY_INSECURE="true")


def test_they_agree_about_an_unknown_authority(trivy, tmp_path):
    with FakeRegistry(tls=True) as fake:
        push(fake)
        (unknown,) = reports_of(f"{fake.host}/{DB}:2")
        assert unknown.stops and not trivy(fake.host)
        (tmp_path / "ca.pem").write_text(fake.ca_pem)
        (known,) = reports_of(f"{fake.host}/{DB}:2", ca_pem=fake.ca_pem)
        assert not known.stops and trivy(fake.host, SSL_CERT_FILE=str(tmp_path / "ca.pem"))


def test_they_agree_about_a_redirect_to_another_private_address(trivy):
    with FakeRegistry() as fake, FakeRegistry(address="127.0.0.2") as other:
        push(fake)
        fake.blob_host = other
        (report,) = reports_of(f"{fake.host}/{DB}:2")
        assert report.stops and not trivy(fake.host)
