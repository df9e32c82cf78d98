"""Redirects: followed a few times, and never with a login to somebody else."""

from collections.abc import Callable

import pytest

from mirrors.registry.client import RegistryClient
from mirrors.registry.errors import RegistryError
from mirrors.registry.manifests import Descriptor
from tests.fakes.proxy import FakeProxy
from tests.fakes.registry import FakeRegistry
from tests.registry.conftest import MemorySink, Recorder, put_layer, some_bytes

Make = Callable[..., RegistryClient]
REPOSITORY = "aquasec/trivy-db"
DATA = some_bytes(50_000)


@pytest.fixture
def layer(fake: FakeRegistry) -> Descriptor:
    return put_layer(fake, DATA)


def refused(client: RegistryClient, layer: Descriptor) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        client.fetch_blob(REPOSITORY, layer, MemorySink())
    return caught.value


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_it_follows_a_redirect_to_another_host(
    fake: FakeRegistry, other: FakeRegistry, client_for: Make, layer: Descriptor, status: int, heard: Recorder
) -> None:
    url = other.put_file("/blob", DATA)
    fake.fault("/blobs/", redirect=f"{url}?signature=very-secret", status=status)
    sink = MemorySink()
    client_for(fake).fetch_blob(REPOSITORY, layer, sink)
    assert sink.data == DATA
    assert "very-secret" not in repr(heard.requests) and heard.requests[-1][1] == url


def test_a_token_does_not_follow_to_another_host(
    fake: FakeRegistry, other: FakeRegistry, client_for: Make, layer: Descriptor
) -> None:
    fake.require_token()
    fake.blob_host = other
    client_for(fake).fetch_blob(REPOSITORY, layer, MemorySink())
    assert fake.requests[-1].headers["Authorization"].startswith("Bearer ")
    assert other.requests[0].headers["Authorization"] is None


@pytest.mark.parametrize("login", [{"token": "fixed-token"}, {"username": "u", "password": "fixed-password"}])
def test_a_login_does_not_come_back_from_another_host(
    fake: FakeRegistry, other: FakeRegistry, client_for: Make, layer: Descriptor, login: dict[str, str]
) -> None:
    """Redirected out and back again: the way was chosen by somebody else, so the login stays away."""
    if "password" in login:
        fake.require_basic("u", "fixed-password")
    fake.put_file("/back", DATA)
    fake.fault("/other", status=200)
    other.fault("/out", redirect=fake.url("/back"))
    client = client_for(fake, memory={"scheme": "http", "challenge": {"scheme": "basic", "realm": ""}}, **login)
    fake.faults.clear()
    fake.fault("/blobs/", redirect=other.url("/out"))
    client.fetch_blob(REPOSITORY, layer, MemorySink())
    assert fake.seen("GET", "/blobs/")[0].headers["Authorization"] is not None
    assert other.requests[0].headers["Authorization"] is None
    assert fake.seen("GET", "/back")[0].headers["Authorization"] is None


def test_a_login_stays_on_the_same_origin(fake: FakeRegistry, client_for: Make, layer: Descriptor) -> None:
    fake.put_file("/moved", DATA)
    fake.fault("/blobs/", redirect="/moved")
    client_for(fake, token="fixed-token").fetch_blob(REPOSITORY, layer, MemorySink())
    assert fake.seen("GET", "/moved")[0].headers["Authorization"] == "Bearer fixed-token"


def test_a_login_in_the_location_is_not_sent(
    fake: FakeRegistry, other: FakeRegistry, client_for: Make, layer: Descriptor
) -> None:
    other.put_file("/blob", DATA)
    fake.fault("/blobs/", redirect=f"http://eve:pw@{other.host}/blob")
    client_for(fake).fetch_blob(REPOSITORY, layer, MemorySink())
    assert other.requests[0].headers["Authorization"] is None


def test_a_circle_is_named(fake: FakeRegistry, other: FakeRegistry, client_for: Make, layer: Descriptor) -> None:
    fake.fault("/blobs/", redirect=other.url("/a"), times=None)
    other.fault("/a", redirect=other.url("/a"), times=None)
    error = refused(client_for(fake), layer)
    assert error.code == "redirect" and "in a circle" in str(error) and not error.temporary
    assert len(other.requests) == 1


def test_a_long_chain_is_named(fake: FakeRegistry, client_for: Make, layer: Descriptor) -> None:
    for step in range(10):
        fake.fault(f"/step{step}", redirect=f"/step{step + 1}")
    fake.fault("/blobs/", redirect="/step0")
    error = refused(client_for(fake), layer)
    assert error.code == "redirect" and "more than 5 times" in str(error)
    assert len(fake.requests) == 6


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://[x/", "http://a:b/"])
def test_a_location_that_is_no_web_address_is_named(
    fake: FakeRegistry, client_for: Make, layer: Descriptor, location: str
) -> None:
    fake.fault("/blobs/", redirect=location)
    error = refused(client_for(fake), layer)
    assert error.code == "redirect" and "no web address" in str(error)


def test_a_redirect_without_a_location_is_named(fake: FakeRegistry, client_for: Make, layer: Descriptor) -> None:
    fake.fault("/blobs/", status=307)
    error = refused(client_for(fake), layer)
    assert error.code == "redirect" and "answered 307" in str(error)


def test_an_endless_body_of_a_redirect_is_not_read(
    fake: FakeRegistry, other: FakeRegistry, client_for: Make, layer: Descriptor
) -> None:
    fake.fault("/blobs/", redirect=other.put_file("/blob", DATA), endless=True)
    client_for(fake).fetch_blob(REPOSITORY, layer, MemorySink())


def test_a_downgrade_to_http_is_refused(other: FakeRegistry, client_for: Make) -> None:
    with FakeRegistry(tls=True) as fake:
        layer = put_layer(fake, DATA)
        fake.fault("/blobs/", redirect=other.put_file("/blob", DATA) + "?signature=very-secret", times=2)
        error = refused(client_for(fake, insecure=False, ca_pem=fake.ca_pem), layer)
        assert error.code == "redirect" and "from https to http" in str(error) and "very-secret" not in str(error)
        assert other.requests == []
        client_for(fake, insecure=True).fetch_blob(REPOSITORY, layer, MemorySink())


def test_a_name_may_not_redirect_to_an_inner_address(other: FakeRegistry, client_for: Make) -> None:
    with FakeProxy() as proxy, FakeRegistry(tls=True) as inner:
        from tests.fakes.registry import shared_authority

        with FakeRegistry(tls=shared_authority().issue("registry.example.com")) as fake:
            layer = put_layer(fake, DATA)
            proxy.routes["registry.example.com:443"] = fake.port
            fake.fault("/blobs/", redirect=inner.put_file("/blob", DATA))
            client = client_for("registry.example.com", insecure=False, ca_pem=fake.ca_pem, proxy=proxy.url)
            error = refused(client, layer)
            assert error.code == "redirect" and "private address 127.0.0.1" in str(error)
            assert inner.requests == []
