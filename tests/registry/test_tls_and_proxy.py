"""Schemes, certificates and proxies."""

import ssl
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from mirrors.registry.client import RegistryClient
from mirrors.registry.errors import RegistryError
from mirrors.registry.transport import Connection, new_session, proxy_for, proxy_label, user_agent
from mirrors.stopping import StopSignal
from tests.fakes.proxy import FakeProxy
from tests.fakes.registry import FakeRegistry, shared_authority
from tests.fakes.tls import Authority
from tests.registry.conftest import LAYER_TYPE, QUICK, MemorySink, Recorder, put_layer, reference, some_bytes

Make = Callable[..., RegistryClient]
REPOSITORY = "aquasec/trivy-db"


def refused(client: RegistryClient, host: FakeRegistry | str) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        client.head_manifest(reference(host))
    return caught.value


@pytest.fixture
def secure() -> object:
    with FakeRegistry(tls=True) as registry:
        registry.push(REPOSITORY, "2", layers=[(b"x", LAYER_TYPE, "db.tar.gz")])
        yield registry


# Schemes


def test_plain_http_is_refused_unless_allowed_also_on_loopback(fake: FakeRegistry, client_for: Make) -> None:
    error = refused(client_for(fake, insecure=False), fake)
    assert error.code == "tls" and "does not speak TLS" in str(error) and "--insecure" in str(error)
    assert not error.temporary and fake.requests == []


def test_an_insecure_source_is_asked_by_tls_first(secure: FakeRegistry, client_for: Make) -> None:
    client = client_for(secure, insecure=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.head_manifest(reference(secure))
    assert client.memory["scheme"] == "https" and client.prefix == "https"


def test_the_scheme_found_is_remembered(fake: FakeRegistry, client_for: Make) -> None:
    fake.push(REPOSITORY, "2")
    first = client_for(fake)
    first.head_manifest(reference(fake))
    assert first.memory == {"scheme": "http"} and fake.connections == 2
    client_for(fake, memory=first.memory).head_manifest(reference(fake))
    assert fake.connections == 3


def test_a_remembered_http_is_not_used_once_insecure_is_taken_back(fake: FakeRegistry, client_for: Make) -> None:
    fake.push(REPOSITORY, "2")
    assert refused(client_for(fake, insecure=False, memory={"scheme": "http"}), fake).code == "tls"
    assert fake.requests == []


def test_a_registry_that_learned_tls_is_found_again(secure: FakeRegistry, client_for: Make) -> None:
    client = client_for(secure, insecure=True, memory={"scheme": "http"})
    client.head_manifest(reference(secure))
    assert client.memory["scheme"] == "https"


def test_a_registry_that_lost_tls_is_found_again_where_allowed(fake: FakeRegistry, client_for: Make) -> None:
    fake.push(REPOSITORY, "2")
    client = client_for(fake, insecure=True, memory={"scheme": "https"})
    client.head_manifest(reference(fake))
    assert client.memory["scheme"] == "http"


def test_an_answer_of_400_over_http_is_not_remembered(fake: FakeRegistry, client_for: Make) -> None:
    fake.fault(status=400, times=None)
    client = client_for(fake)
    assert refused(client, fake).status == 400
    assert "scheme" not in client.memory


def test_a_port_that_is_written_out_is_the_same_host(client_for: Make, heard: Recorder) -> None:
    with FakeProxy() as proxy, FakeRegistry(tls=shared_authority().issue("registry.example.com")) as fake:
        proxy.routes["registry.example.com:443"] = fake.port
        client = client_for("registry.example.com:443", insecure=False, ca_pem=fake.ca_pem, proxy=proxy.url)
        error = refused(client, "registry.example.com:443")
        assert str(error).startswith("registry.example.com:443 answered 404") and heard.clocks


# Certificates


def test_a_private_authority_is_trusted_when_its_file_is_given(secure: FakeRegistry, client_for: Make) -> None:
    client = client_for(secure, insecure=False, ca_pem=secure.ca_pem)
    client.head_manifest(reference(secure))


def test_a_private_authority_is_named_when_it_is_not(secure: FakeRegistry, client_for: Make) -> None:
    error = refused(client_for(secure, insecure=False), secure)
    assert (error.code, error.temporary, error.attempts) == ("ca", False, 1)
    assert "is signed by an authority this machine does not know" in str(error)
    assert "Give its CA file with --ca" in str(error)
    other = refused(client_for(secure, insecure=False, ca_pem=Authority("Other").pem), secure)
    assert other.code == "ca" and secure.requests == []


def test_a_servers_own_certificate_may_be_given_as_its_authority(client_for: Make) -> None:
    certificate = Authority("Unknown").issue()
    with FakeRegistry(tls=certificate) as fake:
        fake.push(REPOSITORY, "2")
        client = client_for(fake, insecure=False, ca_pem=certificate.certificate_pem)
        client.head_manifest(reference(fake))


@pytest.mark.parametrize(
    ("hosts", "dates", "words"),
    [
        (["elsewhere.example.com"], {}, "is for another name"),
        ([], {"not_after": datetime.now(UTC) - timedelta(minutes=1)}, "has expired"),
        ([], {"not_before": datetime.now(UTC) + timedelta(days=1)}, "is not valid yet"),
    ],
)
def test_a_wrong_certificate_is_named(
    client_for: Make, hosts: list[str], dates: dict[str, datetime], words: str
) -> None:
    with FakeRegistry(tls=shared_authority().issue(*hosts, **dates)) as fake:
        error = refused(client_for(fake, insecure=False, ca_pem=fake.ca_pem), fake)
        assert error.code == "tls" and words in str(error) and not error.temporary and error.attempts == 1


@pytest.mark.parametrize(
    "pem", ["nonsense", "-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n", "zertifikät"]
)
def test_a_ca_file_that_is_none_is_named(pem: str) -> None:
    with pytest.raises(RegistryError, match="holds no certificate in PEM form") as caught:
        new_session(Connection(ca_pem=pem))
    assert caught.value.code == "ca"


def test_insecure_takes_any_certificate(client_for: Make) -> None:
    expired = Authority("Unknown").issue("elsewhere", not_after=datetime.now(UTC) - timedelta(minutes=1))
    with FakeRegistry(tls=expired) as fake:
        fake.push(REPOSITORY, "2")
        client_for(fake, insecure=True).head_manifest(reference(fake))


def test_a_blob_comes_over_tls_and_resumes(secure: FakeRegistry, client_for: Make) -> None:
    data = some_bytes(300_000)
    layer = put_layer(secure, data)
    secure.fault("/blobs/", cut_after=100_000)
    sink = MemorySink()
    client_for(secure, insecure=False, ca_pem=secure.ca_pem).fetch_blob(REPOSITORY, layer, sink)
    assert sink.data == data


def test_a_probe_names_certificates(secure: FakeRegistry, client_for: Make) -> None:
    layer = put_layer(secure, b"hello")
    client = client_for(secure, insecure=False, ca_pem=secure.ca_pem)
    (hop,) = client.probe_layer(REPOSITORY, layer)
    assert hop.issuer == "Airgap Test Authority" and hop.scheme == "https" and hop.address == "127.0.0.1"
    assert hop.not_after is not None and hop.not_after > datetime.now(UTC)


# Proxies


def test_tls_goes_through_a_proxys_tunnel(client_for: Make) -> None:
    with FakeProxy() as proxy, FakeRegistry(tls=shared_authority().issue("registry.example.com")) as fake:
        fake.push(REPOSITORY, "2")
        layer = put_layer(fake, b"hello")
        proxy.routes["registry.example.com:443"] = fake.port
        client = client_for("registry.example.com", insecure=False, ca_pem=fake.ca_pem, proxy=proxy.url)
        client.head_manifest(reference("registry.example.com"))
        (hop,) = client.probe_layer(REPOSITORY, layer)
        assert proxy.seen == ["CONNECT registry.example.com:443"]
        assert (hop.host, hop.proxy) == ("registry.example.com", f"127.0.0.1:{proxy.port}")


def test_the_proxys_login_goes_to_the_proxy_only(client_for: Make) -> None:
    with FakeProxy() as proxy, FakeRegistry(tls=shared_authority().issue("registry.example.com")) as fake:
        fake.push(REPOSITORY, "2")
        proxy.require("u", "proxy-password")
        proxy.routes["registry.example.com:443"] = fake.port
        url = proxy.url_with("u", "proxy-password")
        client = client_for("registry.example.com", insecure=False, ca_pem=fake.ca_pem, proxy=url)
        client.head_manifest(reference("registry.example.com"))
        assert "Proxy-Authorization" not in fake.requests[0].headers


def test_plain_http_is_forwarded_by_the_proxy(fake: FakeRegistry, client_for: Make) -> None:
    fake.push(REPOSITORY, "2")
    with FakeProxy() as proxy:
        proxy.require("u", "proxy-password")
        client = client_for(fake, memory={"scheme": "http"}, proxy=proxy.url_with("u", "proxy-password"))
        client.head_manifest(reference(fake))
        assert proxy.seen == [f"HEAD {fake.url('/v2/aquasec/trivy-db/manifests/2')}"]


def test_a_proxys_refusals_are_named(client_for: Make) -> None:
    host = "registry.example.com"
    with FakeProxy() as proxy:
        proxy.require("u", "right")
        error = refused(client_for(host, insecure=False, proxy=proxy.url_with("u", "wrong-password")), host)
        assert (error.code, error.temporary, error.attempts) == ("proxy", False, 1)
        assert f"The proxy 127.0.0.1:{proxy.port} did not connect us to {host}: 407" in str(error)
        assert "user name and password of the proxy" in str(error) and "wrong-password" not in str(error)
        proxy.login, proxy.refusal = "", 403
        error = refused(client_for(host, insecure=False, proxy=proxy.url), host)
        assert error.code == "proxy" and "403" in str(error) and not error.temporary
        proxy.refusal = 503
        error = refused(client_for(host, insecure=False, proxy=proxy.url), host)
        assert error.code == "proxy" and error.temporary and error.attempts == 4
    error = refused(client_for(host, insecure=False, proxy=proxy.url_with("u", "wrong-password")), host)
    assert error.code == "proxy" and "cannot be reached" in str(error) and "wrong-password" not in str(error)


def test_a_silent_proxy_is_named(client_for: Make) -> None:
    from dataclasses import replace

    with FakeProxy() as proxy:
        proxy.stall = True
        quick = replace(QUICK, connect=0.1, attempts=1)
        client = client_for("registry.example.com", insecure=False, proxy=proxy.url, timeouts=quick)
        error = refused(client, "registry.example.com")
        assert error.code == "proxy" and error.temporary


@pytest.mark.parametrize("proxy", ["https://proxy:8080", "socks5://u:secret-pw@proxy:1080", "http://[x:80"])
def test_other_kinds_of_proxy_are_named(client_for: Make, proxy: str) -> None:
    error = refused(client_for("registry.example.com", insecure=False, proxy=proxy), "registry.example.com")
    assert error.code == "proxy" and "secret-pw" not in str(error)


def test_the_environments_proxy_is_used_and_a_sources_own_wins(
    client_for: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeProxy() as proxy, FakeRegistry(tls=shared_authority().issue("registry.example.com")) as fake:
        fake.push(REPOSITORY, "2")
        proxy.routes["registry.example.com:443"] = fake.port
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        client_for("registry.example.com", insecure=False, ca_pem=fake.ca_pem).head_manifest(
            reference("registry.example.com")
        )
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        client_for("registry.example.com", insecure=False, ca_pem=fake.ca_pem, proxy=proxy.url).head_manifest(
            reference("registry.example.com")
        )
        assert len(proxy.seen) == 2


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("https://a.example.com/", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://a.example.com/", {"https_proxy": "p:1"}, "http://p:1"),
        ("http://a.example.com/", {"HTTPS_PROXY": "http://p:1"}, ""),
        ("http://a.example.com/", {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("https://a.example.com/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example.com"}, ""),
        ("https://a.example.com/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example.com"}, ""),
        ("https://a.example.com/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*.example.com, other"}, ""),
        ("https://a.example.com/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, ""),
        ("https://aexample.com/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example.com"}, "http://p:1"),
        ("https://a:5000/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a:5000"}, ""),
        ("https://a:5001/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a:5000"}, "http://p:1"),
        ("https://10.1.2.3/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, ""),
        ("https://11.1.2.3/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8,x"}, "http://p:1"),
        ("https://a.example.com/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ", ."}, "http://p:1"),
        ("https://a.example.com/", {}, ""),
    ],
)
def test_it_reads_the_proxy_variables(url: str, environ: dict[str, str], expected: str) -> None:
    assert proxy_for(url, Connection(), environ) == expected
    assert proxy_for(url, Connection(proxy="own:3128"), environ) == "http://own:3128"


def test_a_proxys_label_has_no_login() -> None:
    assert proxy_label("http://u:p@proxy.example.com:3128") == "proxy.example.com:3128"
    assert proxy_label("") == "" and proxy_label("http://[x") == "?"


# Sessions


def test_a_connection_hides_its_secrets() -> None:
    text = repr(Connection(ca_pem="pem", proxy="http://u:p1@h", username="u", password="p2-secret", token="p3-secret"))
    assert "p1" not in text and "p2" not in text and "p3" not in text and "pem" not in text.replace("ca_pem", "")


def test_a_session_ignores_its_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    session = new_session(Connection(), stop=StopSignal())
    assert session.trust_env is False and session.headers["User-Agent"] == user_agent()
    assert user_agent().startswith("airgap/")


def test_tls_1_2_is_the_least() -> None:
    session = new_session(Connection())
    context = session.get_adapter("https://x")._context
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2 and context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
