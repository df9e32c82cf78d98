"""A VEX repository that does each thing wrong, and the finding that names it."""

import json
from datetime import timedelta

import pytest

from mirrors.demo import assets
from mirrors.doctor import Level
from tests.doctor.conftest import NOW, findings_of, reports_of
from tests.fakes.registry import FakeRegistry

MANIFEST = "/vex/hub/.well-known/vex-repository.json"
ARCHIVE = "/vex/hub/archive.tar.gz"


def publish(fake, *, subdir="vexhub-main", headers=None, archive=None, version="0.1", archive_host=None, **changed):
    """A repository below /vex/hub; the answer is its address."""
    host = archive_host or fake
    data = assets.build_vex_archive(NOW - timedelta(hours=1)) if archive is None else archive
    host.put_file(ARCHIVE, data, headers)
    location = host.url(ARCHIVE) + (f"//{subdir}" if subdir else "")
    document = {
        "name": "Hub",
        "versions": [{"spec_version": version, "locations": [{"url": location}], "update_interval": "24h"}],
    }
    fake.put_file(MANIFEST, json.dumps(document | changed).encode(), {"Content-Type": "application/json"})
    return fake.url("/vex/hub")


@pytest.fixture
def fake():
    with FakeRegistry() as registry:
        yield registry


def test_a_sound_repository_has_nothing_but_good_findings(fake):
    (report,) = reports_of(publish(fake))
    assert {finding.code: finding.level for finding in report.findings} == {
        "manifest": Level.OK,
        "archive": Level.OK,
        "etag": Level.OK,
    }
    assert "1 package" in report.findings[1].came or "packages" in report.findings[1].came
    # As go-getter does: HEAD, then GET.
    assert [asked.method for asked in fake.seen(path=ARCHIVE)] == ["HEAD", "GET"]


def test_a_failing_head_is_no_harm(fake):
    address = publish(fake)
    fake.fault(ARCHIVE, method="HEAD", status=405, body=b"", times=None)
    found = findings_of(address)
    assert found["head"].level == Level.NOTE and found["archive"].level == Level.OK


def test_a_304_makes_older_trivys_forget_it(fake):
    found = findings_of(publish(fake, headers={"ETag": '"one"'}))
    assert found["etag"].level == Level.TRIPS and "0.73" in found["etag"].trivy


def test_a_login_must_stand_in_the_file(fake):
    address = publish(fake)
    fake.fault("/vex/", status=401, body=b"", headers={"WWW-Authenticate": 'Basic realm="x"'}, times=None)
    found = findings_of(address)["manifest"]
    assert found.level == Level.STOPS and "repository.yaml" in found.cure
    fake.faults.clear()
    findings_of(address, username="u", password="secret")
    assert fake.requests[-1].headers["Authorization"].startswith("Basic ")
    findings_of(address, token="t0ken")
    assert fake.requests[-1].headers["Authorization"] == "Bearer t0ken"


def test_a_login_that_goes_to_another_host_is_told(fake):
    address = publish(fake)
    with FakeRegistry(address="127.0.0.2") as other:
        data = fake.files[ARCHIVE][0]
        fake.fault(ARCHIVE, redirect=other.put_file("/elsewhere.tar.gz", data), times=None)
        found = findings_of(address, username="u", password="secret")
        assert found["login-leaks"].level == Level.TRIPS
        assert not any("Authorization" in asked.headers for asked in other.requests)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"version": "0.2"}, "spec-version"),
        ({"versions": [{"spec_version": "0.1", "locations": ["https://x.example/a.tar.gz"]}]}, "manifest"),
        ({"versions": [{"spec_version": "0.1", "locations": [], "update_interval": "1d"}]}, "manifest"),
        ({"versions": [{"spec_version": "0.1", "locations": []}]}, "locations"),
        ({"versions": []}, "manifest"),
        ({"archive": b"no archive"}, "archive"),
        ({"subdir": "wrong"}, "archive"),
        ({"subdir": ""}, "archive"),
    ],
)
def test_what_stops_trivy_is_named(fake, changed, code):
    found = findings_of(publish(fake, **changed))[code]
    assert found.level == Level.STOPS and found.cure


def test_a_missing_archive_stops_trivy(fake):
    address = publish(fake)
    del fake.files[ARCHIVE]
    found = findings_of(address)["archive"]
    assert found.level == Level.STOPS and "deleted the copy it had" in found.trivy


def test_a_missing_interval_and_several_locations_are_notes(fake):
    address = publish(fake)
    location = {"url": fake.url(ARCHIVE) + "//vexhub-main"}
    document = {"versions": [{"spec_version": "0.1", "locations": [location, location]}]}
    fake.put_file(MANIFEST, json.dumps(document).encode())
    found = findings_of(address)
    assert found["interval"].level == found["locations"].level == Level.NOTE


def test_getters_that_airgap_does_not_know_are_left_alone(fake):
    location = {"url": "git::https://git.example/x"}
    found = findings_of(publish(fake, versions=[{"spec_version": "0.1", "locations": [location]}]))
    assert found["archive"].level == Level.NOTE


def test_an_unknown_authority_is_told_with_what_works_for_vex():
    with FakeRegistry(tls=True) as secure:
        address = publish(secure)
        found = findings_of(address, username="u", password="secret")
        assert found["ca"].level == Level.STOPS
        assert "trivy vex repo download" in found["ca"].cure
        assert found["manifest"].level == Level.OK
        assert not any(asked.headers["Authorization"] for asked in secure.requests)
        assert findings_of(address, ca_pem=secure.ca_pem)["archive"].level == Level.OK


def test_github_is_explained_and_not_asked():
    (report,) = reports_of("https://github.com/aquasecurity/vexhub")
    assert [finding.code for finding in report.findings] == ["github"]
    assert report.hosts == ()


def test_nobody_there_is_one_finding(fake):
    address = publish(fake)
    fake.close()
    assert [finding.code for finding in reports_of(address)[0].findings] == ["unreached"]
