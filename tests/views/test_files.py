"""/files/: release files for people and programs."""

import hashlib
import html
import subprocess
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from mirrors import reading, serving_files
from mirrors.models import Serving
from tests.fakes.tls import Authority
from tests.kept import keep_build, keep_release

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)
ARCHIVE = "trivy_0.74.0_Linux-64bit.tar.gz"


@pytest.fixture
def trivy(make_mirror, store, now):
    """A mirror that holds 0.73.0 and, as its current version, 0.74.0."""
    mirror = make_mirror("trivy", "release", label="Trivy release", version="latest", platforms=["Linux-64bit"])
    keep_release(store, mirror, now - 9 * DAY, "0.73.0")
    keep_release(store, mirror, now - DAY, "0.74.0")
    return mirror


def body(response):
    return b"".join(response.streaming_content)


def test_it_lists_what_there_is_without_a_login(client, trivy, make_mirror, store, now):
    keep_build(store, make_mirror("trivy-db"), now)
    page = client.get("/files/").content.decode()
    assert "Trivy release" in page and "version 0.74.0" in page and "trivy-db" not in page


def test_it_says_what_to_do_where_there_is_nothing(client, db):
    assert "No release is held here yet." in client.get("/files/").content.decode()


def test_a_mirrors_page_shows_every_kept_version_with_its_files_and_how_to_verify_them(client, trivy):
    page = client.get("/files/trivy/").content.decode()
    assert f'href="/files/trivy/0.74.0/{ARCHIVE}"' in page and "/files/trivy/0.73.0/" in page
    assert "sha256sum -c --ignore-missing trivy_0.74.0_checksums.txt" in page
    assert "cosign verify-blob" in page and "did <strong>not</strong> verify" in page
    assert "curl -fLO http://testserver/files/trivy/0.74.0/" in page


def test_the_lines_that_fetch_carry_the_login_and_the_authority_that_they_need(as_viewer, trivy, settings, tmp_path):
    settings.AIRGAP_BASE_URL = "https://mirror.example"
    settings.AIRGAP_TLS_CA = str(tmp_path / "ca.pem")
    (tmp_path / "ca.pem").write_text(Authority("Our Authority").pem)
    Serving.objects.update_or_create(pk=1, defaults={"login_required": True})
    reading.forget()
    page = html.unescape(as_viewer.get("/files/trivy/").text)
    lines = [line for line in page.splitlines() if "curl -fLO" in line]
    assert lines and all(
        '--cacert airgap-ca.pem -u "airgap:$AIRGAP_TOKEN" https://mirror.example/' in line for line in lines
    )
    assert 'href="/use-it/ca.pem"' in page and "Settings → Access" in page


def test_a_versions_page_is_its_folder(client, trivy):
    page = client.get("/files/trivy/0.73.0/").content.decode()
    assert "This is an older version" in page and "trivy_0.73.0_Linux-64bit.tar.gz" in page
    assert ARCHIVE not in page


@pytest.mark.parametrize("address", ["/files/trivy/latest", "/files/trivy/latest/"])
def test_latest_redirects_to_the_newest_version(client, trivy, address):
    response = client.get(address)
    assert (response.status_code, response["Location"]) == (302, "/files/trivy/0.74.0/")
    assert response["Cache-Control"] == "no-cache"


def test_latest_is_what_is_current_also_after_a_roll_back(client, trivy):
    trivy.switch_to(trivy.snapshots.get(version="0.73.0"))
    assert client.get("/files/trivy/latest")["Location"] == "/files/trivy/0.73.0/"


@pytest.mark.parametrize(
    "address",
    [
        f"/files/trivy/0.74.0/{ARCHIVE}",
        f"/files/trivy/v0.74.0/{ARCHIVE}",
        f"/files/trivy/latest/{ARCHIVE}",
        "/files/trivy/latest/trivy_latest_Linux-64bit.tar.gz",
    ],
)
def test_a_file_comes_as_it_is_under_its_own_name(client, trivy, address):
    response = client.get(address)
    blob = trivy.current.blobs.get(name=ARCHIVE)
    assert response.status_code == 200 and "sha256:" + hashlib.sha256(body(response)).hexdigest() == blob.digest
    assert response["Content-Disposition"] == f'attachment; filename="{ARCHIVE}"'
    assert response["Content-Type"] == "application/gzip"


def test_a_part_can_be_asked_for_and_the_head_alone(client, trivy):
    whole = body(client.get(f"/files/trivy/0.74.0/{ARCHIVE}"))
    part = client.get(f"/files/trivy/0.74.0/{ARCHIVE}", headers={"Range": "bytes=10-"})
    assert part.status_code == 206 and body(part) == whole[10:]
    head = client.head(f"/files/trivy/0.74.0/{ARCHIVE}")
    assert head["Content-Length"] == str(len(whole)) and head.content == b""


def test_what_was_fetched_passes_sha256sum(client, trivy, tmp_path):
    for name in (ARCHIVE, "trivy_0.74.0_checksums.txt"):
        (tmp_path / name).write_bytes(body(client.get(f"/files/trivy/latest/{name}")))
    done = subprocess.run(
        ["sha256sum", "-c", "--ignore-missing", "trivy_0.74.0_checksums.txt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, f"{ARCHIVE}: OK\n")


def test_the_checksum_file_is_shown_as_text(client, trivy):
    response = client.get("/files/trivy/0.74.0/trivy_0.74.0_checksums.txt")
    assert response["Content-Type"] == "text/plain; charset=utf-8" and "Content-Disposition" not in response


@pytest.mark.parametrize(
    "address",
    [
        "/files/nothing/", "/files/nothing/latest", "/files/trivy/0.1.0/", "/files/trivy/0.1.0/x",
        "/files/trivy/0.74.0/x", "/files/trivy/0.74.0/..%2f..%2fetc%2fpasswd", "/files/trivy/..%2f/x",
        "/files/trivy-db/", "/files/trivy/0.73.0/" + ARCHIVE,
    ],
)  # fmt: skip
def test_what_is_not_there_is_404(client, trivy, make_mirror, store, now, address):
    keep_build(store, make_mirror("trivy-db"), now)
    assert client.get(address).status_code == 404


@pytest.mark.parametrize(
    "address", ["/files/", "/files/trivy/", "/files/trivy/latest", f"/files/trivy/0.74.0/{ARCHIVE}"]
)
def test_it_takes_no_post(client, trivy, address):
    assert client.post(address).status_code == 405


@pytest.mark.parametrize(
    "address", ["/files/", "/files/trivy/", "/files/trivy/latest", f"/files/trivy/0.74.0/{ARCHIVE}"]
)
def test_where_a_login_is_required_nobody_gets_anything_without(client, as_viewer, trivy, address):
    Serving.objects.update_or_create(pk=1, defaults={"login_required": True})
    assert as_viewer.get(address).status_code in (200, 302)
    as_viewer.logout()
    response = client.get(address)
    assert response.status_code == 401 and "Basic" in response["WWW-Authenticate"]


def test_a_version_is_one_folder_however_often_its_platforms_changed(client, trivy, store, now):
    before = trivy.current
    snapshot = keep_release(store, trivy, now, "0.74.0", ("Linux-64bit", "Linux-ARM64"))
    # The release is the same one, with another choice of its files.
    for blob in before.blobs.filter(role="checksums"):
        snapshot.blobs.filter(role="checksums").update(digest=blob.digest, size_bytes=blob.size_bytes)
    type(snapshot).objects.filter(pk=snapshot.pk).update(manifest_digest=before.manifest_digest)
    trivy.refresh_from_db()
    releases = serving_files.releases_of(trivy)
    assert [release.version for release in releases] == ["0.74.0", "0.73.0"]
    assert len(releases[0].programs) == 2


def test_files_under_another_checksum_file_are_not_mixed_in(client, trivy, store, now):
    keep_release(store, trivy, now, "0.74.0", ("Linux-ARM64",))
    assert client.get(f"/files/trivy/0.74.0/{ARCHIVE}").status_code == 404


def test_what_turned_out_malicious_is_handed_out_no_more(client, trivy):
    trivy.snapshots.filter(version="0.73.0").update(version="0.69.4")
    assert client.get("/files/trivy/0.69.4/trivy_0.73.0_Linux-64bit.tar.gz").status_code == 404
    page = client.get("/files/trivy/").content.decode()
    assert "no longer handed out" in page and "GHSA-69fq-xp46-6x23" in page


def test_a_damaged_file_is_not_sent(client, trivy, store):
    path = store.path(trivy.current.blobs.get(name=ARCHIVE).digest)
    path.chmod(0o644)
    path.write_bytes(b"x" * path.stat().st_size)
    assert client.get(f"/files/trivy/0.74.0/{ARCHIVE}").status_code == 503


def test_queries_do_not_grow_with_the_versions(client, trivy, store, now):
    def asked(address):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            client.get(address)
        return len(queries)

    addresses = ("/files/", "/files/trivy/", f"/files/trivy/0.74.0/{ARCHIVE}")
    asked("/files/")
    before = [asked(address) for address in addresses]
    for patch in range(5):
        keep_release(store, trivy, now - 20 * DAY, f"0.72.{patch}", current=False)
    assert [asked(address) for address in addresses] == before


def test_the_databases_page_leads_there(as_viewer, trivy):
    page = as_viewer.get(reverse("mirrors:mirror-detail", args=["trivy"])).content.decode()
    assert 'href="/files/trivy/"' in page and "checksum file" in page and "version 0.74.0" in page
