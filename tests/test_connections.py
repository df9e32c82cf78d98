"""Sources tried out against a fake registry: what is met is named, and what is blocked."""

import io
import json
import tarfile

import pytest

from mirrors import connections, content
from mirrors.connections import OutboundRefused, allow_list, connection_for, for_url, try_mirror, with_port
from mirrors.models import Source, SyncRun
from mirrors.registry.errors import Hop
from mirrors.registry.transport import Connection, Timeouts
from mirrors.stopping import StopSignal
from mirrors.trivy.catalogue import KINDS
from tests.fakes.registry import FakeRegistry

DB = KINDS["trivy-db"]
QUICK = Timeouts(connect=2, read=2, attempts=1, source_seconds=5, backoff=0.01)


@pytest.fixture
def fake():
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def cdn():
    with FakeRegistry() as registry:
        yield registry


def push_db(fake, repository="aquasec/trivy-db"):
    fake.push(repository, "2", layers=[(b"a layer", DB.layer_media_type, DB.title)])
    return fake.reference(repository, "2")


def hosts(report):
    return [hop.host for hop in report.hops]


def test_it_names_the_host_behind_a_registrys_redirect(fake, cdn, make_mirror):
    fake.blob_host = cdn
    mirror = make_mirror(sources=[push_db(fake)])
    (report,) = try_mirror(mirror, timeouts=QUICK)
    assert report.ok, report.error
    assert hosts(report) == [fake.host, cdn.host]
    assert report.hops[-1].address == "127.0.0.1"
    assert "layer of 7 B" in report.offers
    assert [gate.host for gate in allow_list([report])] == sorted([fake.host, cdn.host])


def test_it_asks_for_one_byte_and_writes_nothing(fake, make_mirror):
    mirror = make_mirror(sources=[push_db(fake)])
    Source.objects.update(memory={"kept": 1})
    try_mirror(mirror, timeouts=QUICK)
    (blob,) = fake.seen("GET", "/blobs/")
    assert blob.headers["Range"] == "bytes=0-0"
    assert not SyncRun.objects.exists()
    assert Source.objects.get().memory == {"kept": 1}


def test_it_says_which_host_to_ask_for_when_the_blob_host_is_blocked(fake, cdn, make_mirror):
    fake.blob_host = cdn
    reference = push_db(fake)
    cdn.close()
    (report,) = try_mirror(make_mirror(sources=[reference]), timeouts=QUICK)
    assert not report.ok
    assert report.failed_host == cdn.host
    assert hosts(report) == [fake.host]
    assert report.advice == (
        f"{fake.host} answers, but sends us on to {cdn.host}, which does not: ask for {cdn.host} in the firewall, too."
    )
    assert "secret" not in f"{report}"
    assert {gate.host: gate.remark for gate in allow_list([report])} == {fake.host: "", cdn.host: "did not answer"}


def test_it_names_the_documented_hosts_of_a_registry_that_does_not_answer():
    error = connections.RegistryError("refused", "ghcr.io refused", registry="ghcr.io", operation="GET manifest")
    assert connections._advice(error, []) == (
        "It also sends its data from pkg-containers.githubusercontent.com: ask for that host at the same time."
    )


def test_it_names_the_login_server_that_was_met(fake, cdn, make_mirror):
    reference = push_db(fake)
    fake.require_token(realm=cdn.url("/login"))
    cdn.put_file("/login", b'{"token":"t0|repository:aquasec/trivy-db:pull"}')
    fake.tokens_issued.append("t0|repository:aquasec/trivy-db:pull")
    (report,) = try_mirror(make_mirror(sources=[reference]), timeouts=QUICK)
    assert report.ok, report.error
    assert hosts(report) == [fake.host, cdn.host]


def test_every_source_is_asked_and_reported_in_order(fake, make_mirror):
    good = push_db(fake)
    fake.push("b/wrong", "2", layers=[(b"x", "application/x", "x")])
    mirror = make_mirror(
        sources=[fake.reference("a/missing", "2"), good, fake.reference("b/wrong", "2"), "127.0.0.1:1/x/y:2"]
    )
    missing, fine, wrong, refused = try_mirror(mirror, timeouts=QUICK)
    assert [report.ok for report in (missing, fine, wrong, refused)] == [False, True, False, False]
    assert "404 (not found)" in missing.error and missing.advice == ""
    assert "media type" in wrong.error
    assert "refused the connection" in refused.error and refused.failed_host == "127.0.0.1:1"


def test_it_names_the_issuer_of_the_certificate(make_mirror):
    with FakeRegistry(tls=True) as fake:
        mirror = make_mirror(sources=[push_db(fake)], insecure=False)
        (unknown,) = try_mirror(mirror, timeouts=QUICK)
        assert not unknown.ok and "certificate" in unknown.error
        Source.objects.update(ca_pem=fake.ca_pem)
        (report,) = try_mirror(mirror, timeouts=QUICK)
        assert report.ok, report.error
        assert report.hops[0].issuer == "Airgap Test Authority"
        assert report.hops[0].not_after is not None


def test_it_logs_in_with_the_sealed_password(fake, data_dir, make_mirror):
    mirror = make_mirror(sources=[push_db(fake)])
    fake.require_basic("robot", "geheim-123")
    Source.objects.update(login="basic", username="robot", secret_sealed=content.vault().encrypt("geheim-123"))
    source = mirror.sources.get()
    assert connection_for(source, mirror).password == "geheim-123"
    assert "geheim" not in repr(connection_for(source, mirror))
    (report,) = try_mirror(mirror, timeouts=QUICK)
    assert report.ok, report.error


@pytest.mark.parametrize("asks", ["basic", "token"])
def test_it_logs_in_with_a_docker_config(asks, fake, data_dir, make_mirror):
    mirror = make_mirror(sources=[push_db(fake)])
    getattr(fake, f"require_{asks}")(username="robot", password="geheim-123")
    config = {"auths": {fake.host: {"username": "robot", "password": "geheim-123"}}}
    sealed = content.vault().encrypt(json.dumps(config))
    Source.objects.update(login="docker", secret_sealed=sealed)
    (report,) = try_mirror(mirror, timeouts=QUICK)
    assert report.ok, report.error
    Source.objects.update(
        secret_sealed=content.vault().encrypt(json.dumps({"auths": {"other.example": {"auth": "dTpw"}}}))
    )
    (report,) = try_mirror(mirror, timeouts=QUICK)
    assert not report.ok and "401" in report.error and "geheim" not in report.error


def test_a_missing_key_is_a_report_and_no_crash(fake, data_dir, make_mirror):
    mirror = make_mirror(sources=[push_db(fake)])
    Source.objects.update(login="basic", username="robot", secret_sealed=content.vault().encrypt("geheim-123"))
    (data_dir / "credentials-key").unlink()
    (report,) = try_mirror(mirror, timeouts=QUICK)
    assert not report.ok and "key of the stored passwords" in report.error


def test_it_follows_an_index_to_a_layer_of_a_chosen_platform(fake, make_mirror):
    arm = fake.push("a/image", None, layers=[(b"arm layer", "application/x", None)])
    amd = fake.push("a/image", None, layers=[(b"the amd layer", "application/x", None)])
    fake.push_index(
        "a/image",
        "1",
        [(arm, {"os": "linux", "architecture": "arm64"}), (amd, {"os": "linux", "architecture": "amd64"})],
    )
    mirror = make_mirror("image", "oci", sources=[fake.reference("a/image", "1")], platforms=["linux/amd64"])
    (report,) = try_mirror(mirror, timeouts=QUICK)
    assert report.ok, report.error
    assert report.offers.startswith("index ") and "of 2 manifests, layer of 13 B" in report.offers


# VEX


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("top/index.json")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"{}"))
    return buffer.getvalue()


def vex_manifest(url: str) -> bytes:
    locations = f'[{{"url": "{url}//top"}}]'
    versions = f'[{{"spec_version": "0.1", "update_interval": "24h", "locations": {locations}}}]'
    return f'{{"name": "Ours", "description": "x", "versions": {versions}}}'.encode()


def test_it_asks_for_a_vex_manifest_and_one_byte_of_its_archive_on_another_host(fake, cdn, make_mirror):
    url = cdn.put_file("/v.tar.gz", archive())
    fake.put_file("/vex/.well-known/vex-repository.json", vex_manifest(url))
    mirror = make_mirror("v", "vex", sources=[fake.url("/vex").replace("127.0.0.1", "localhost")])
    (report,) = try_mirror(mirror, timeouts=QUICK)
    # Leniency holds for the source's own host: the archive of another host must be https.
    assert not report.ok and "plain HTTP" in report.error
    assert hosts(report) == [fake.host.replace("127.0.0.1", "localhost")]


def test_a_login_holds_for_the_sources_very_port_and_leniency_for_its_host():
    own = Connection(insecure=True, proxy="http://proxy:3128", username="reader", password="secret")
    reference = "https://vex.example/hub"
    assert for_url(own, reference, "https://vex.example/v.tar.gz") == own
    for url in ("https://vex.example:8443/v.tar.gz", "http://vex.example/v.tar.gz"):
        found = for_url(own, reference, url)
        assert (found.username, found.password, found.insecure) == ("", "", True)
    assert for_url(own, reference, "https://other.example/v.tar.gz") == Connection(proxy="http://proxy:3128")


def test_it_asks_for_an_archive_on_the_same_host(fake, make_mirror):
    url = fake.put_file("/v.tar.gz", archive())
    fake.put_file("/vex/.well-known/vex-repository.json", vex_manifest(url))
    (report,) = try_mirror(make_mirror("v", "vex", sources=[fake.url("/vex")]), timeouts=QUICK)
    assert report.ok, report.error
    assert report.offers == "manifest of Ours, 1 archive"
    assert fake.seen("GET", "/v.tar.gz")[0].headers["Range"] == "bytes=0-0"


def test_it_asks_for_one_byte_of_an_archive_source(fake, make_mirror):
    fake.put_file("/v.tar.gz", archive())
    (report,) = try_mirror(make_mirror("v", "vex", sources=[fake.url("/v.tar.gz//top")]), timeouts=QUICK)
    assert report.ok, report.error
    assert report.offers == "archive v.tar.gz"
    (missing,) = try_mirror(make_mirror("w", "vex", sources=[fake.url("/w.tar.gz//top")]), timeouts=QUICK)
    assert not missing.ok and "404" in missing.error


# The isolated side, stopping, the list


def test_the_isolated_side_asks_nobody(fake, make_mirror, settings):
    mirror = make_mirror(sources=[push_db(fake)])
    settings.AIRGAP_SIDE = "isolated"
    with pytest.raises(OutboundRefused, match="isolated instance"):
        try_mirror(mirror)
    assert fake.requests == []


def test_a_stopped_trial_says_so(fake, make_mirror):
    stop = StopSignal()
    stop.set("stopped")
    (report,) = try_mirror(make_mirror(sources=[push_db(fake)]), stop=stop, timeouts=QUICK)
    assert not report.ok and report.error == "stopped"


def test_the_allow_list_names_ports_proxies_and_documented_hosts():
    hop = Hop("registry-1.docker.io", "10.0.0.1", "proxy.example:3128", "Plant CA", None, 200, "https")
    report = connections.SourceReport("db", "docker.io/x:1", True, (hop,))
    gates = {gate.host: gate.remark for gate in allow_list([report, report])}
    assert gates["registry-1.docker.io:443"] == "through the proxy proxy.example:3128"
    assert gates["auth.docker.io:443"] == "documented for registry-1.docker.io, not met now"
    assert len(gates) == 5


def test_ports_are_written_once():
    assert with_port("a.example") == "a.example:443"
    assert with_port("a.example", "http") == "a.example:80"
    assert with_port("a.example:5000") == "a.example:5000"
    assert with_port("[::1]") == "[::1]:443"
    assert with_port("[::1]:5000") == "[::1]:5000"
