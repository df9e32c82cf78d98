"""Asking for manifests: HEAD first, raw bytes, digests that must agree, bounded bodies, referrers."""

import json
from collections.abc import Callable

import pytest

from mirrors.registry.client import RegistryClient
from mirrors.registry.errors import RegistryError
from mirrors.registry.manifests import MANIFEST_LIMIT, OCI_INDEX, OCI_MANIFEST
from tests.fakes.registry import FakeRegistry, digest_of
from tests.registry.conftest import LAYER_TYPE, Recorder, reference

Make = Callable[..., RegistryClient]
REPOSITORY = "aquasec/trivy-db"


def refused(client: RegistryClient, fake: FakeRegistry, tag: str = "2") -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        client.fetch_manifest(reference(fake, tag=tag))
    return caught.value


def test_an_unchanged_mirror_costs_one_head(fake: FakeRegistry, client_for: Make, heard: Recorder) -> None:
    digest = fake.push(REPOSITORY, "2", layers=[(b"x", LAYER_TYPE, "db.tar.gz")])
    client = client_for(fake, memory={"scheme": "http"})
    assert client.head_manifest(reference(fake)) == (digest, OCI_MANIFEST)
    assert client.requests == 1 == len(fake.requests)
    assert [request[0] for request in heard.requests] == ["HEAD"]


def test_it_keeps_the_bytes_as_they_came(fake: FakeRegistry, client_for: Make) -> None:
    raw = b'{ "schemaVersion":2,\n "layers":[], "config":{"mediaType":"a/b","digest":"%s","size":0} }' % (
        digest_of(b"").encode()
    )
    fake.put_manifest(REPOSITORY, "2", raw)
    manifest = client_for(fake).fetch_manifest(reference(fake))
    assert manifest.raw == raw and manifest.digest == digest_of(raw)


def test_it_asks_for_every_known_type_and_no_compression(fake: FakeRegistry, client_for: Make) -> None:
    fake.push(REPOSITORY, "2")
    client_for(fake).fetch_manifest(reference(fake))
    headers = fake.requests[0].headers
    for media_type in (OCI_MANIFEST, OCI_INDEX, "docker.distribution.manifest.v2", "docker.distribution.manifest.list"):
        assert media_type in headers["Accept"]
    assert headers["Accept-Encoding"] == "identity" and headers["User-Agent"].startswith("airgap/")


@pytest.mark.parametrize("status", [403, 404, 405, 501])
def test_it_gets_where_head_is_refused(fake: FakeRegistry, client_for: Make, status: int) -> None:
    digest = fake.push(REPOSITORY, "2")
    fake.fault("/manifests/", method="HEAD", status=status)
    client = client_for(fake)
    assert client.head_manifest(reference(fake)) == (digest, OCI_MANIFEST)
    client.fetch_manifest(reference(fake))
    assert fake.count("GET") == 1, "what the GET brought is not fetched again"


@pytest.mark.parametrize("header", [{"Docker-Content-Digest": None}, {"Content-Type": None}])
def test_it_gets_where_head_says_too_little(
    fake: FakeRegistry, client_for: Make, header: dict[str, str | None]
) -> None:
    digest = fake.push(REPOSITORY, "2")
    fake.fault("/manifests/", method="HEAD", headers=header)
    assert client_for(fake).head_manifest(reference(fake)) == (digest, OCI_MANIFEST)


def test_it_refuses_a_digest_header_that_is_not_the_bodys(fake: FakeRegistry, client_for: Make) -> None:
    fake.push(REPOSITORY, "2")
    fake.fault("/manifests/", headers={"Docker-Content-Digest": "sha256:" + "0" * 64})
    error = refused(client_for(fake), fake)
    assert error.code == "digest" and "0" * 64 in str(error) and not error.temporary


def test_it_refuses_other_content_under_a_digest(fake: FakeRegistry, client_for: Make) -> None:
    digest = fake.push(REPOSITORY, "2")
    other = json.dumps(json.loads(fake.manifests[(REPOSITORY, digest)][0]) | {"artifactType": "a/b"}).encode()
    fake.fault("/manifests/", data=other, times=2)
    assert refused(client_for(fake), fake, digest).code == "digest"
    fake.fault("/manifests/", method="HEAD", headers={"Docker-Content-Digest": "sha256:" + "0" * 64})
    fake.faults.clear()
    fake.fault("/manifests/", headers={"Docker-Content-Digest": "sha256:" + "0" * 64})
    with pytest.raises(RegistryError) as caught:
        client_for(fake).head_manifest(reference(fake, tag=digest))
    assert caught.value.code == "digest"


@pytest.mark.parametrize("text", ["sha256:../../x", "sha512:" + "a" * 128, "latest", ""])
def test_it_refuses_a_hostile_digest_header(fake: FakeRegistry, client_for: Make, text: str) -> None:
    fake.push(REPOSITORY, "2")
    fake.fault("/manifests/", headers={"Docker-Content-Digest": text})
    assert refused(client_for(fake), fake).code == "malformed"


def test_it_refuses_a_type_that_contradicts_the_document(fake: FakeRegistry, client_for: Make) -> None:
    fake.push(REPOSITORY, "2")
    fake.fault("/manifests/", headers={"Content-Type": OCI_INDEX})
    assert "says index" in str(refused(client_for(fake), fake))


def test_it_refuses_a_web_page(fake: FakeRegistry, client_for: Make) -> None:
    fake.push(REPOSITORY, "2")
    fake.fault("/manifests/", data=b"<html>Login</html>", headers={"Content-Type": "text/html"})
    fake.faults[-1].headers = {"Content-Type": "text/html", "Docker-Content-Digest": None}
    error = refused(client_for(fake), fake)
    assert error.code == "malformed" and "web page" in str(error)


@pytest.mark.parametrize("how", [{"data": b" " * (MANIFEST_LIMIT + 1)}, {"endless": True}])
def test_it_stops_reading_a_huge_manifest(fake: FakeRegistry, client_for: Make, how: dict[str, object]) -> None:
    fake.push(REPOSITORY, "2")
    fake.fault("/manifests/", **how)
    assert refused(client_for(fake), fake).code == "too-large"
    assert len(fake.requests) == 1, "a refusal of ours is not tried again"


@pytest.mark.usefixtures("tidy")
def test_it_refuses_deep_nesting(fake: FakeRegistry, client_for: Make) -> None:
    fake.put_manifest(REPOSITORY, "2", b"[" * 100_000)
    assert refused(client_for(fake), fake).code == "malformed"


def test_it_refuses_a_compressed_body(fake: FakeRegistry, client_for: Make) -> None:
    fake.push(REPOSITORY, "2")
    fake.fault("/manifests/", headers={"Content-Encoding": "gzip"})
    error = refused(client_for(fake), fake)
    assert error.code == "malformed" and "gzip" in str(error)


def test_it_tries_a_cut_manifest_again(fake: FakeRegistry, client_for: Make, heard: Recorder) -> None:
    fake.push(REPOSITORY, "2")
    fake.fault("/manifests/", cut_after=20)
    client_for(fake).fetch_manifest(reference(fake))
    assert fake.count("GET") == 2 and len(heard.retries) == 1


def test_it_names_a_missing_tag(fake: FakeRegistry, client_for: Make) -> None:
    with pytest.raises(RegistryError) as caught:
        client_for(fake).head_manifest(reference(fake))
    error = caught.value
    assert (error.code, error.status, error.temporary) == ("not-found", 404, False)
    assert "MANIFEST_UNKNOWN: not known here" in str(error) and error.registry == fake.host


def test_it_tells_the_registrys_clock(fake: FakeRegistry, client_for: Make, heard: Recorder) -> None:
    fake.push(REPOSITORY, "2")
    fake.fault(headers={"Date": "Fri, 20 Nov 2026 12:00:00 GMT"})
    client_for(fake).head_manifest(reference(fake))
    registry, date = heard.clocks[0]
    assert registry == fake.host and date.isoformat() == "2026-11-20T12:00:00+00:00"


def test_nonsense_in_the_date_is_no_clock(fake: FakeRegistry, client_for: Make, heard: Recorder) -> None:
    fake.push(REPOSITORY, "2")
    fake.fault(headers={"Date": "tomorrow"})
    client_for(fake).head_manifest(reference(fake))
    assert heard.clocks == []


# Referrers


def push_with_referrer(fake: FakeRegistry) -> tuple[str, str]:
    subject = fake.push(REPOSITORY, "2")
    raw, media_type = fake.manifests[(REPOSITORY, subject)]
    described = {"mediaType": media_type, "digest": subject, "size": len(raw)}
    return subject, fake.push(REPOSITORY, None, subject=described, artifact_type="application/x.signature")


def test_it_lists_referrers_by_the_api(fake: FakeRegistry, client_for: Make) -> None:
    subject, referrer = push_with_referrer(fake)
    found = client_for(fake).referrers(reference(fake), subject)
    assert found is not None and [one.digest for one in found.manifests] == [referrer]
    assert found.manifests[0].artifact_type == "application/x.signature"


def test_it_lists_referrers_by_the_tag_schema(fake: FakeRegistry, client_for: Make) -> None:
    subject, referrer = push_with_referrer(fake)
    fake.referrers_api = False
    assert client_for(fake).referrers(reference(fake), subject) is None
    fake.push_index(REPOSITORY, subject.replace(":", "-"), [(referrer, None)])
    found = client_for(fake).referrers(reference(fake), subject)
    assert found is not None and [one.digest for one in found.manifests] == [referrer]


def test_it_follows_pages_of_referrers_on_the_same_registry(fake: FakeRegistry, client_for: Make) -> None:
    subject, referrer = push_with_referrer(fake)
    fake.fault("/referrers/", headers={"Link": f'</v2/{REPOSITORY}/referrers/{subject}?page=2>; rel="next"'})
    found = client_for(fake).referrers(reference(fake), subject)
    assert found is not None and [one.digest for one in found.manifests] == [referrer, referrer]
    fake.fault("/referrers/", headers={"Link": '<http://elsewhere.example/v2/>; rel="next"'})
    found = client_for(fake).referrers(reference(fake), subject)
    assert found is not None and len(found.manifests) == 1


# What is left of oras-py


def test_oras_pys_own_methods_go_through_the_same_exchange(fake: FakeRegistry, client_for: Make) -> None:
    fake.push(REPOSITORY, "2")
    fake.push(REPOSITORY, "1")
    fake.require_token()
    client = client_for(fake, memory={"scheme": "http"})
    assert client.get_tags(f"{fake.host}/{REPOSITORY}") == ["1", "2"]
    assert client.get_manifest(f"{fake.host}/{REPOSITORY}:2")["schemaVersion"] == 2


def test_what_oras_py_does_unsafely_is_refused(fake: FakeRegistry, client_for: Make) -> None:
    client = client_for(fake)
    for call in (client.login, client.pull, client.push, client.download_blob):
        with pytest.raises(RegistryError, match="only reads"):
            call("x")
    with pytest.raises(RegistryError, match="only reads"):
        client.do_request(fake.url("/v2/a/manifests/1"), "DELETE")
    with pytest.raises(RegistryError, match="points at"):
        client.do_request("http://elsewhere.example/v2/a/tags/list")
    assert fake.requests == []
