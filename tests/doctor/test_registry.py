"""A registry that does each thing wrong, and the finding that names it."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from mirrors.demo import assets
from mirrors.doctor import DOCTOR, EVERYTHING, Level, worst_of
from mirrors.doctor.artifact import STRANGER
from mirrors.stopping import StopSignal
from mirrors.trivy.catalogue import KINDS
from tests.doctor.conftest import NOW, findings_of, push, reports_of
from tests.fakes.registry import OCI_INDEX, FakeRegistry, shared_authority

DB = "aquasecurity/trivy-db"
DB_TYPE = KINDS["trivy-db"].layer_media_type


def levels(found):
    return {code: finding.level for code, finding in found.items()}


# In order


def test_a_sound_registry_has_nothing_but_good_findings(secure):
    for kind in ("trivy-db", "trivy-java-db", "trivy-checks"):
        push(secure, kind)
    push(secure, "trivy-checks", "latest")
    reports = reports_of(secure.host, ca_pem=secure.ca_pem)
    assert [report.worst for report in reports] == [Level.NOTE, Level.OK, Level.OK]
    first = {finding.code: finding for finding in reports[0].findings}
    assert levels(first) == {
        "ca": Level.NOTE,
        "ping": Level.OK,
        "manifest": Level.OK,
        "rules": Level.OK,
        "layer": Level.OK,
        "age": Level.OK,
        "missing-tag": Level.OK,
        "stranger": Level.OK,
    }
    assert "2 h ago" in first["age"].came and "built" in first["age"].came
    assert "SSL_CERT_FILE" in first["ca"].trivy
    assert "latest" in {finding.code for finding in reports[2].findings}
    assert reports[0].hosts == (secure.host,)


def test_it_asks_what_trivy_asks_and_in_its_order(fake):
    push(fake)
    findings_of(f"{fake.host}/{DB}:2")
    asked = [(request.method, request.path) for request in fake.requests]
    assert asked[0] == ("GET", "/v2/")
    assert asked[1] == ("GET", f"/v2/{DB}/manifests/2")
    assert asked[2][1].startswith(f"/v2/{DB}/blobs/sha256:")
    accept = fake.seen("GET", "/manifests/2")[0].headers.get_all("Accept")
    assert len(accept) == 1 and accept[0].startswith("application/vnd.docker.distribution.manifest.v1+json,")
    assert not fake.seen("HEAD")
    assert not any("Range" in request.headers for request in fake.requests)
    assert {request.headers["User-Agent"].split("/")[0] for request in fake.requests} == {DOCTOR}


def test_what_holds_for_the_host_is_said_once(fake):
    for kind in ("trivy-db", "trivy-java-db", "trivy-checks"):
        push(fake, kind)
    codes = [finding.code for report in reports_of(fake.host) for finding in report.findings]
    assert codes.count("plain-http") == codes.count("ping") == 1


def test_the_other_name_of_the_organisation_is_tried_where_only_a_host_was_given(fake):
    push(fake, repository="aquasec/trivy-db")
    report = reports_of(fake.host)[0]
    assert not report.stops
    assert any("aquasec/trivy-db/manifests/2" in finding.asked for finding in report.findings)


def test_a_kind_is_told_by_its_layer(fake):
    push(fake, "trivy-java-db", "7", repository="mirrors/x")
    assert "It is a Java DB." in findings_of(f"{fake.host}/mirrors/x:7")["rules"].trivy


def test_a_large_layer_is_not_read_and_its_age_is_when_it_was_pushed(fake):
    push(fake)
    found = findings_of(f"{fake.host}/{DB}:2", whole_up_to=10)
    assert "its beginning" in found["layer"].came
    assert found["age"].came.startswith("pushed (when it was built stands inside the layer")
    assert "read whole" in findings_of(f"{fake.host}/{DB}:2", whole_up_to=EVERYTHING)["layer"].came


# Scheme and certificate


def test_plain_http_by_anything_but_loopback_and_private_addresses_stops_trivy():
    with FakeRegistry(address="127.0.0.2") as fake:
        push(fake)
        found = findings_of(f"{fake.host}/{DB}:2", username="u", password="secret")
        assert found["plain-http"].level == Level.STOPS
        assert "--insecure" in found["plain-http"].trivy
        # The examination goes on, but nothing secret does.
        assert found["layer"].level == Level.OK
        sent = {asked.headers["Authorization"] for asked in fake.requests}
        assert sent <= {None, STRANGER}


def test_plain_http_at_loopback_is_taken_with_a_note(fake):
    push(fake)
    assert findings_of(f"{fake.host}/{DB}:2")["plain-http"].level == Level.NOTE


def test_an_unknown_authority_stops_trivy_and_no_login_is_sent(secure):
    push(secure)
    secure.require_basic("u", "secret")
    found = findings_of(f"{secure.host}/{DB}:2", username="u", password="secret")
    assert found["ca"].level == Level.STOPS
    assert "--cacert" in found["ca"].cure and "SSL_CERT_FILE" in found["ca"].cure
    assert not any(asked.headers["Authorization"] for asked in secure.requests)


def test_a_certificate_that_ends_soon_is_told():
    soon = shared_authority().issue(not_after=datetime.now(UTC) + timedelta(days=3))
    with FakeRegistry(tls=soon) as fake:
        push(fake)
        found = findings_of(f"{fake.host}/{DB}:2", ca_pem=fake.ca_pem)
        assert found["certificate"].level == Level.TRIPS
        assert "Renew" in found["certificate"].cure


def test_a_certificate_for_another_name_stops_trivy():
    with FakeRegistry(tls=shared_authority().issue("other.example")) as fake:
        push(fake)
        found = findings_of(f"{fake.host}/{DB}:2", ca_pem=fake.ca_pem)
        assert found["certificate"].level == Level.STOPS
        assert found["rules"].level == Level.OK


def test_nobody_there_is_one_finding():
    with FakeRegistry() as fake:
        host = fake.host
    (report,) = reports_of(f"{host}/{DB}:2")
    assert [finding.code for finding in report.findings] == ["unreached"]
    assert "does not ask a next repository" in report.findings[0].trivy


# Ping and login


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"status": 404, "body": b""}, "stops here"),
        ({"status": 503, "body": b""}, "asks the next repository"),
        ({"status": 503, "body": b'{"errors":[{"code":"DENIED"}]}'}, "code DENIED in the answer counts more"),
    ],
)
def test_a_ping_that_is_neither_200_nor_401_stops_trivy(fake, fault, told):
    push(fake)
    fake.fault("/v2/", times=None, **fault)
    found = findings_of(f"{fake.host}/{DB}:2")
    assert found["ping"].level == Level.STOPS
    assert told in found["ping"].trivy
    assert "manifest" not in found


@pytest.mark.parametrize("challenge", ["", "Negotiate", 'Digest realm="x"'])
def test_a_challenge_that_trivy_does_not_know_stops_it(fake, challenge):
    push(fake)
    fake.fault("/v2/", status=401, body=b"", headers={"WWW-Authenticate": challenge or None}, times=None)
    assert findings_of(f"{fake.host}/{DB}:2")["challenge"].level == Level.STOPS


def test_basic_without_a_login_stops_trivy_and_with_one_it_goes_on(secure):
    push(secure)
    secure.require_basic("u", "secret")
    address = f"{secure.host}/{DB}:2"
    refused = findings_of(address, ca_pem=secure.ca_pem)
    assert refused["login"].level == Level.STOPS and "trivy registry login" in refused["login"].cure
    allowed = findings_of(address, ca_pem=secure.ca_pem, username="u", password="secret")
    assert allowed["login"].level == Level.OK and allowed["layer"].level == Level.OK
    assert "stranger" not in allowed


def test_a_token_without_a_login(secure):
    push(secure)
    secure.require_token()
    found = findings_of(f"{secure.host}/{DB}:2", ca_pem=secure.ca_pem)
    assert found["token"].level == Level.OK and "without a login" in found["token"].came
    assert found["layer"].level == Level.OK
    (asked,) = secure.seen("GET", "/token")
    assert asked.query == {"scope": f"repository:{DB}:pull", "service": "fake"}


def test_a_token_server_that_wants_a_login(secure):
    push(secure)
    secure.require_token(username="u", password="secret")
    address = f"{secure.host}/{DB}:2"
    assert findings_of(address, ca_pem=secure.ca_pem)["token"].level == Level.STOPS
    found = findings_of(address, ca_pem=secure.ca_pem, username="u", password="secret")
    assert found["token"].level == Level.OK


@pytest.mark.parametrize(
    ("realm", "told"),
    [("http://auth.example/token", "plain HTTP"), ("https://10.0.0.5/token", "a private one"), ("nonsense", "no web")],
)
def test_a_token_server_that_trivy_refuses_is_not_asked(secure, realm, told):
    push(secure)
    secure.require_token(realm=realm)
    found = findings_of(f"{secure.host}/{DB}:2", ca_pem=secure.ca_pem)
    assert found["realm"].level == Level.STOPS and told in found["realm"].came


def test_a_token_server_that_sends_no_token(secure):
    push(secure)
    secure.require_token()
    secure.fault("/token", status=200, body=b"<html>", times=None)
    assert "neither token nor access_token" in findings_of(f"{secure.host}/{DB}:2", ca_pem=secure.ca_pem)["token"].came


def test_a_password_is_not_shown_to_another_party(secure):
    push(secure)
    with FakeRegistry(tls=True) as other:
        other.require_token()
        secure.require_token(realm=f"https://localhost:{other.port}/token")
        found = findings_of(f"{secure.host}/{DB}:2", ca_pem=secure.ca_pem, username="u", password="secret")
        (asked,) = other.seen("GET", "/token")
    assert found["password"].level == Level.TRIPS
    assert "Authorization" not in asked.headers


# Manifest


def test_a_missing_tag_stops_trivy_and_the_next_repository_is_not_asked(fake):
    found = findings_of(f"{fake.host}/{DB}:2")
    assert found["manifest"].level == Level.STOPS
    assert "does not ask a next repository" in found["manifest"].trivy
    assert found["missing-tag"].level == Level.OK


def test_missing_checks_are_replaced_in_silence(fake):
    found = findings_of(f"{fake.host}/aquasecurity/trivy-checks")
    assert "falls back to the checks inside it" in found["manifest"].trivy
    assert "Without a tag Trivy asks for latest" in found["manifest"].cure


@pytest.mark.parametrize(
    ("body", "told"),
    [(b"<html><body>login</body></html>", "A web page came"), (b"{", "not JSON"), (b"[]", "not a JSON object")],
)
def test_what_is_no_manifest_stops_trivy_and_is_not_shown(fake, body, told):
    push(fake)
    fake.fault("/manifests/2", status=200, body=body, times=None)
    found = findings_of(f"{fake.host}/{DB}:2")
    assert found["manifest"].level == Level.STOPS
    assert told in found["manifest"].came and "login<" not in str(found)


def test_an_index_around_the_artifact_stops_trivy(fake):
    digest = push(fake)
    fake.push_index(DB, "2", [(digest, {"os": "linux", "architecture": "amd64"})])
    assert findings_of(f"{fake.host}/{DB}:2")["index"].level == Level.STOPS


def test_a_manifest_that_is_called_an_index_stops_trivy(fake):
    push(fake)
    fake.fault("/manifests/2", headers={"Content-Type": OCI_INDEX}, times=None)
    assert findings_of(f"{fake.host}/{DB}:2")["manifest"].level == Level.STOPS


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"layers": [(b"a", DB_TYPE, "db.tar.gz"), (b"b", DB_TYPE, "x")]}, "layers"),
        ({"layers": [(b"a", "application/x-tar", "db.tar.gz")]}, "media-type"),
        ({"layers": [(b"a", DB_TYPE, None)]}, "title"),
        ({"layers": [(b"a", DB_TYPE, "../db.tar.gz")]}, "title"),
        ({"layers": [(b"a", DB_TYPE, "db")]}, "title"),
    ],
)
def test_what_trivy_demands_of_its_artifacts(fake, changed, code):
    push(fake, **changed)
    found = findings_of(f"{fake.host}/{DB}:2")
    assert found[code].level == Level.STOPS and found[code].cure


def test_an_image_is_no_database(fake):
    push(fake, layer=(b"a", "application/vnd.oci.image.layer.v1.tar+gzip", None), repository="library/nginx")
    assert findings_of(f"{fake.host}/library/nginx:2")["kind"].level == Level.STOPS


def test_headers_that_only_others_need_are_notes(fake):
    push(fake)
    fake.fault("/manifests/2", headers={"Content-Type": None, "Docker-Content-Digest": None}, times=None)
    found = findings_of(f"{fake.host}/{DB}:2")
    assert found["content-type"].level == found["digest-header"].level == Level.NOTE
    assert found["layer"].level == Level.OK


def test_a_wrong_digest_header_trips_others(fake):
    push(fake)
    fake.fault("/manifests/2", headers={"Docker-Content-Digest": "sha256:" + "0" * 64}, times=None)
    assert findings_of(f"{fake.host}/{DB}:2")["digest-header"].level == Level.TRIPS


def test_an_empty_config_is_a_note(fake):
    push(fake, config=b"")
    assert findings_of(f"{fake.host}/{DB}:2")["config"].level == Level.NOTE


# Layer


def test_a_layer_that_is_not_there_stops_trivy_unless_it_has_a_list(fake):
    push(fake)
    fake.fault("/blobs/", status=404, body=b'{"errors":[{"code":"BLOB_UNKNOWN"}]}', times=None)
    found = findings_of(f"{fake.host}/{DB}:2")["layer"]
    assert found.level == Level.STOPS
    assert "asks the next repository" in found.trivy


def test_a_wrong_length_stops_trivy(fake):
    push(fake)
    fake.fault("/blobs/", data=b"short", times=None)
    assert findings_of(f"{fake.host}/{DB}:2")["layer-size"].level == Level.STOPS


def test_changed_bytes_stop_trivy(fake):
    push(fake)
    fake.fault("/blobs/", flip=True, times=None)
    assert findings_of(f"{fake.host}/{DB}:2")["layer-contents"].level == Level.STOPS


def test_a_layer_that_is_not_gzip_stops_trivy(fake):
    push(fake, layer=(b"plain text", DB_TYPE, "db.tar.gz"))
    assert findings_of(f"{fake.host}/{DB}:2", whole_up_to=0)["layer-contents"].level == Level.STOPS


def test_a_layer_that_breaks_off_stops_trivy(fake):
    push(fake)
    fake.fault("/blobs/", cut_after=100, times=None)
    assert findings_of(f"{fake.host}/{DB}:2")["layer"].level == Level.STOPS


def test_checks_without_a_check_stop_trivy(fake):
    empty = assets.build_layer([("policies/readme.txt", b"nothing")])
    push(fake, "trivy-checks", layer=(empty, KINDS["trivy-checks"].layer_media_type, "bundle.tar.gz"))
    assert findings_of(f"{fake.host}/aquasecurity/trivy-checks:2")["layer-contents"].level == Level.STOPS


def test_a_redirect_to_another_private_address_stops_newer_trivys(fake):
    push(fake)
    with FakeRegistry(address="127.0.0.2") as other:
        fake.blob_host = other
        found = findings_of(f"{fake.host}/{DB}:2")
    assert found["redirect"].level == Level.STOPS
    assert "0.71" in found["redirect"].trivy
    assert "very-secret" not in str(found)


def test_a_redirect_to_another_port_is_followed_and_named_for_the_firewall(fake):
    push(fake)
    with FakeRegistry() as other:
        fake.blob_host = other
        (report,) = reports_of(f"{fake.host}/{DB}:2")
        assert other.host in report.hosts
    found = {finding.code: finding for finding in report.findings}
    assert found["redirect"].level == Level.NOTE and other.host in found["redirect"].came


# Age


@pytest.mark.parametrize(
    ("old", "level"),
    [
        (timedelta(hours=2), Level.OK),
        (timedelta(hours=12), Level.NOTE),
        (timedelta(days=3), Level.TRIPS),
        (-timedelta(hours=2), Level.TRIPS),
    ],
)
def test_the_age_of_a_database_is_judged(fake, old, level):
    push(fake, built=NOW - old)
    assert findings_of(f"{fake.host}/{DB}:2")["age"].level == level


def test_a_build_past_its_next_update_is_downloaded_again_and_again(fake):
    push(fake, built=NOW - timedelta(days=3))
    assert "up to once an hour" in findings_of(f"{fake.host}/{DB}:2")["next-update"].trivy


def test_checks_are_published_rarely_and_that_is_no_fault(fake):
    push(fake, "trivy-checks", built=NOW - timedelta(days=200))
    found = findings_of(f"{fake.host}/aquasecurity/trivy-checks:2")["age"]
    assert found.level == Level.OK and found.came.startswith("published")


# What is not there


def test_a_registry_that_has_everything_is_told(fake):
    push(fake)
    fake.fault("airgap-doctor-asks-for-nothing", status=200, body=b"<html>", times=None)
    assert findings_of(f"{fake.host}/{DB}:2")["missing-tag"].level == Level.TRIPS


def test_a_stranger_that_is_refused_trips_harbor(fake):
    push(fake)
    fake.fault("/manifests/sha256:", status=401, body=b"", times=None)
    found = findings_of(f"{fake.host}/{DB}:2")["stranger"]
    assert found.level == Level.TRIPS and "Harbor" in found.trivy


def test_checks_without_latest_are_told(fake):
    push(fake, "trivy-checks")
    assert findings_of(f"{fake.host}/aquasecurity/trivy-checks:2")["latest"].level == Level.NOTE


# Limits


def test_a_stop_ends_it_and_says_what_was_not_asked(fake):
    push(fake)
    stop = StopSignal()
    stop.set("time is up")
    reports = reports_of(fake.host, stop=stop)
    assert [finding.came for report in reports for finding in report.findings] == ["not asked any more: time is up"] * 3
    assert fake.count() == 0


def test_an_endless_manifest_is_cut_off(fake):
    push(fake)
    fake.fault("/manifests/2", endless=True, times=None)
    assert findings_of(f"{fake.host}/{DB}:2")["manifest"].level == Level.STOPS


def test_every_finding_can_be_written_as_json(fake):
    push(fake, built=NOW - timedelta(days=3))
    for report in reports_of(fake.host):
        assert json.dumps([vars(finding) for finding in report.findings])
        assert worst_of(report.findings) == report.worst
