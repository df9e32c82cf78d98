"""The fake registry itself, as far as other tests lean on it."""

import ssl
import urllib.error
import urllib.request

import pytest

from tests.fakes.registry import FakeRegistry, digest_of


def get(url: str, headers: dict[str, str] | None = None, ca: str = "") -> tuple[int, bytes]:
    context = ssl.create_default_context(cadata=ca) if ca else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize("tls", [False, True])
def test_it_serves_what_was_pushed(tls: bool) -> None:
    with FakeRegistry(tls=tls) as fake:
        digest = fake.push("a/b", "1", layers=[(b"hello", "application/x", "h.txt")])
        ca = fake.ca_pem if tls else ""
        status, body = get(fake.url("/v2/a/b/manifests/1"), ca=ca)
        assert (status, digest_of(body)) == (200, digest)
        assert get(fake.url(f"/v2/a/b/blobs/{digest_of(b'hello')}"), {"Range": "bytes=1-2"}, ca) == (206, b"el")
        assert get(fake.url("/v2/a/b/manifests/2"), ca=ca)[0] == 404
        assert fake.count("GET", "/manifests/") == 2


def test_it_scripts_faults_and_files() -> None:
    with FakeRegistry() as fake:
        url = fake.put_file("/x.bin", b"data", headers={"ETag": '"1"'})
        fake.fault("/x.bin", status=503)
        assert get(url)[0] == 503
        assert get(url) == (200, b"data")
        assert get(url, {"If-None-Match": '"1"'})[0] == 304


def test_it_ends_a_stall_when_it_closes() -> None:
    with FakeRegistry() as fake:
        fake.fault(stall=True)
        fake.close()
