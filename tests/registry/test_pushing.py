"""Pushing to a registry that works: what is sent, how often, and that it is there afterwards."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mirrors.digests import digest_of
from mirrors.registry.errors import RegistryError
from mirrors.registry.manifests import OCI_INDEX, OCI_MANIFEST, Descriptor
from mirrors.registry.pushing import PushClient
from tests.fakes.proxy import FakeProxy
from tests.fakes.push_registry import PushRegistry
from tests.registry.conftest import LAYER_TYPE, Recorder, some_bytes

Make = Callable[..., PushClient]
REPOSITORY = "team/trivy-db"
PASSWORD = "correct-horse-battery"
BIG = some_bytes(250_000)
EMPTY = b"{}"


@pytest.fixture
def fake() -> Iterator[PushRegistry]:
    with PushRegistry() as registry:
        yield registry


def describe(data: bytes) -> Descriptor:
    return Descriptor(LAYER_TYPE, digest_of(data), len(data))


def send(client: PushClient, data: bytes, repository: str = REPOSITORY, **more: Any) -> list[int]:
    """Upload, and what `progress` was told."""
    told: list[int] = []
    client.upload(repository, describe(data), lambda: io.BytesIO(data), told.append, **more)
    return told


def manifest_of(*layers: bytes, subject: dict[str, Any] | None = None, **more: Any) -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.aquasec.trivy.config.v1+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(EMPTY), "size": len(EMPTY)},
        "layers": [{"mediaType": LAYER_TYPE, "digest": digest_of(data), "size": len(data)} for data in layers],
    } | more
    if subject:
        document["subject"] = subject
    return json.dumps(document, indent=1).encode()


def methods(fake: PushRegistry, *only: str) -> list[str]:
    return [one.method for one in fake.requests if one.path != "/token" and (not only or one.method in only)]


# Asking


def test_it_asks_for_a_manifest_by_tag_or_digest(fake: PushRegistry, pusher: Make) -> None:
    digest = fake.push(REPOSITORY, "2", [(BIG, LAYER_TYPE, None)])
    client = pusher(fake)
    assert client.has_manifest(REPOSITORY, "2") == digest
    assert client.has_manifest(REPOSITORY, digest) == digest
    assert client.has_manifest(REPOSITORY, "3") is None
    assert client.has_manifest("team/none", "2") is None
    assert client.requests == 4


@pytest.mark.parametrize("trouble", [{"status": 405}, {"headers": {"Docker-Content-Digest": None}}])
def test_a_registry_that_knows_no_head_is_asked_by_get(fake: PushRegistry, pusher: Make, trouble: Any) -> None:
    digest = fake.push(REPOSITORY, "2")
    fake.fault("/manifests/", method="HEAD", times=None, **trouble)
    assert pusher(fake).has_manifest(REPOSITORY, "2") == digest


def test_it_asks_for_a_blob_without_following_where_it_lies(fake: PushRegistry, pusher: Make) -> None:
    digest, client = fake.give(REPOSITORY, BIG), pusher(fake)
    assert client.has_blob(REPOSITORY, digest, len(BIG))
    assert not client.has_blob(REPOSITORY, digest, len(BIG) - 1), "another size is another blob"
    assert not client.has_blob("team/other", digest, len(BIG))
    fake.fault("/blobs/", redirect="http://127.0.0.1:1/storage")
    assert client.has_blob(REPOSITORY, digest, len(BIG)), "a redirect means that it is there"
    fake.fault("/blobs/", status=405)
    assert not client.has_blob(REPOSITORY, digest, len(BIG)), "who does not say is sent it"


# Blobs


def test_a_small_blob_goes_in_one_request(fake: PushRegistry, pusher: Make) -> None:
    assert sum(send(pusher(fake), b"x" * 100_000)) == 100_000
    assert methods(fake) == ["POST", "PUT", "HEAD"]
    put = fake.seen("PUT")[0]
    assert put.query["_state"] == "abc==", "the Location's own query comes back"
    assert put.headers["Content-Length"] == "100000" and put.headers["Transfer-Encoding"] is None
    assert fake.took(REPOSITORY, digest_of(b"x" * 100_000)) and not fake.uploads


def test_a_large_blob_goes_in_chunks(fake: PushRegistry, pusher: Make) -> None:
    assert sum(send(pusher(fake), BIG)) == len(BIG)
    assert [one.headers["Content-Range"] for one in fake.seen("PATCH")] == ["0-99999", "100000-199999", "200000-249999"]
    assert methods(fake) == ["POST", "PATCH", "PATCH", "PATCH", "PUT", "HEAD"]
    assert fake.took(REPOSITORY, digest_of(BIG)) == BIG


def test_an_empty_blob_is_sent_too(fake: PushRegistry, pusher: Make) -> None:
    send(pusher(fake), b"")
    assert fake.took(REPOSITORY, digest_of(b"")) == b""


def test_over_tls_with_a_private_ca_and_absolute_locations(pusher: Make) -> None:
    with PushRegistry(tls=True) as fake:
        fake.absolute = True
        client = pusher(fake, insecure=False, ca_pem=fake.ca_pem)
        send(client, BIG)
        assert fake.took(REPOSITORY, digest_of(BIG)) == BIG


def test_through_a_proxy(fake: PushRegistry, pusher: Make) -> None:
    with PushRegistry(tls=True) as fake, FakeProxy() as proxy:
        client = pusher(fake, insecure=False, ca_pem=fake.ca_pem, proxy=proxy.url)
        send(client, BIG)
        assert fake.took(REPOSITORY, digest_of(BIG)) == BIG
        assert proxy.seen[0] == f"CONNECT {fake.host}"


def test_the_least_length_of_a_chunk_is_kept(fake: PushRegistry, pusher: Make) -> None:
    fake.least_chunk = 120_000
    send(pusher(fake), BIG)
    assert [one.headers["Content-Range"] for one in fake.seen("PATCH")] == [
        "0-119999",
        "120000-239999",
        "240000-249999",
    ]


def test_what_was_sent_is_counted(fake: PushRegistry, pusher: Make, heard: Recorder) -> None:
    client = pusher(fake)
    send(client, BIG)
    assert client.bytes_sent == len(BIG) == fake.read_back


def test_a_blob_is_mounted_from_a_neighbour(fake: PushRegistry, pusher: Make) -> None:
    fake.give("team/old", BIG)
    client = pusher(fake)
    assert client.mount(REPOSITORY, digest_of(BIG), "team/old")
    assert fake.took(REPOSITORY, digest_of(BIG)) == BIG
    assert client.bytes_sent == 0 and fake.seen("POST")[0].query == {"mount": digest_of(BIG), "from": "team/old"}


def test_a_mount_that_opened_an_upload_instead_is_gone_on_with(fake: PushRegistry, pusher: Make) -> None:
    client = pusher(fake)
    assert not client.mount(REPOSITORY, digest_of(BIG), "team/none")
    send(client, BIG)
    assert fake.count("POST") == 1 and not fake.uploads


def test_a_mount_that_came_to_nothing_leaves_nothing_behind(fake: PushRegistry, pusher: Make) -> None:
    client = pusher(fake)
    client.mount(REPOSITORY, digest_of(BIG), "team/none")
    assert fake.uploads
    client.close()
    assert not fake.uploads


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
def test_a_mount_that_is_refused_is_no_error(fake: PushRegistry, pusher: Make, status: int) -> None:
    fake.trouble("POST", status=status, times=None, headers={"WWW-Authenticate": 'Basic realm="x"'})
    assert not pusher(fake).mount(REPOSITORY, digest_of(BIG), "team/old")


# Manifests


def push_all(client: PushClient, raw: bytes, tag: str = "2", repository: str = REPOSITORY) -> str:
    send(client, EMPTY, repository)
    send(client, b"layer", repository)
    return client.put_manifest(repository, tag, raw, OCI_MANIFEST)


def test_a_manifest_arrives_byte_for_byte(fake: PushRegistry, pusher: Make) -> None:
    raw = manifest_of(b"layer")
    assert push_all(pusher(fake), raw) == digest_of(raw)
    assert fake.manifests[(REPOSITORY, "2")] == (raw, OCI_MANIFEST) == fake.manifests[(REPOSITORY, digest_of(raw))]
    assert fake.seen("PUT", "/manifests/")[0].headers["Content-Type"] == OCI_MANIFEST


def test_a_manifest_is_pushed_by_digest_only_under_its_own(fake: PushRegistry, pusher: Make) -> None:
    raw, client = manifest_of(b"layer"), pusher(fake)
    assert push_all(client, raw, digest_of(raw)) == digest_of(raw)
    with pytest.raises(ValueError, match="has the digest"):
        client.put_manifest(REPOSITORY, digest_of(b"other"), raw, OCI_MANIFEST)


@pytest.mark.parametrize("name", ["../x", "a b", "", "x" * 129])
def test_a_hostile_tag_or_name_never_becomes_a_url(fake: PushRegistry, pusher: Make, name: str) -> None:
    client = pusher(fake)
    with pytest.raises(ValueError):
        client.put_manifest(REPOSITORY, name, b"{}", OCI_MANIFEST)
    with pytest.raises(ValueError):
        client.has_blob(f"Team/{name}", digest_of(b""), 0)
    assert not fake.requests


# Referrers


def referrer(subject: bytes) -> bytes:
    entry = {"mediaType": OCI_MANIFEST, "digest": digest_of(subject), "size": len(subject)}
    return manifest_of(b"layer", subject=entry, annotations={"a": "b"})


def test_a_registry_that_lists_referrers_needs_no_tag(fake: PushRegistry, pusher: Make) -> None:
    image, client = manifest_of(b"layer"), pusher(fake)
    push_all(client, image)
    push_all(client, referrer(image), digest_of(referrer(image)))
    assert fake.count("GET", "/referrers/") == 0
    found = client.referrers(REPOSITORY, digest_of(image))
    assert found is not None and [one.digest for one in found.manifests] == [digest_of(referrer(image))]


def test_one_that_lists_them_without_saying_so_is_asked_first(fake: PushRegistry, pusher: Make) -> None:
    fake.subjects = False
    image, client = manifest_of(b"layer"), pusher(fake)
    push_all(client, image)
    push_all(client, referrer(image), digest_of(referrer(image)))
    assert not any(tag.startswith("sha256-") for _, tag in fake.manifests)


def test_elsewhere_they_are_entered_in_the_index_of_a_tag(fake: PushRegistry, pusher: Make) -> None:
    fake.referrers_api = False
    image, client = manifest_of(b"layer"), pusher(fake)
    push_all(client, image)
    second = manifest_of(b"layer", subject={"mediaType": OCI_MANIFEST, "digest": digest_of(image), "size": len(image)})
    for raw in (referrer(image), second, referrer(image)):
        push_all(client, raw, digest_of(raw))
    raw_index, kind = fake.manifests[(REPOSITORY, digest_of(image).replace(":", "-"))]
    entries = json.loads(raw_index)["manifests"]
    assert kind == OCI_INDEX and [one["digest"] for one in entries] == [digest_of(referrer(image)), digest_of(second)]
    assert entries[0] == {
        "mediaType": OCI_MANIFEST,
        "digest": digest_of(referrer(image)),
        "size": len(referrer(image)),
        "artifactType": "application/vnd.aquasec.trivy.config.v1+json",
        "annotations": {"a": "b"},
    }


# Logging in


def test_one_token_with_the_right_to_push_serves_a_whole_repository(fake: PushRegistry, pusher: Make) -> None:
    fake.require_token(username="robot", password=PASSWORD)
    client = pusher(fake, username="robot", password=PASSWORD)
    assert client.has_manifest(REPOSITORY, "2") is None
    push_all(client, manifest_of(b"layer"))
    assert [one.query["scope"] for one in fake.seen("GET", "/token")] == [f"repository:{REPOSITORY}:pull,push"]


def test_a_mount_asks_to_read_the_other_repository_too(fake: PushRegistry, pusher: Make) -> None:
    fake.require_token()
    fake.give("team/old", BIG)
    client = pusher(fake)
    assert client.mount(REPOSITORY, digest_of(BIG), "team/old")


def test_basic_logs_in_everywhere(fake: PushRegistry, pusher: Make) -> None:
    fake.require_basic("robot", PASSWORD)
    send(pusher(fake, username="robot", password=PASSWORD), BIG)
    assert fake.took(REPOSITORY, digest_of(BIG)) == BIG


def test_an_identity_token_is_changed_for_a_token_by_post(fake: PushRegistry, pusher: Make) -> None:
    fake.require_token()
    client = pusher(fake, identity_token="refresh-me-please")
    send(client, BIG)
    (asked,) = fake.seen("POST", "/token")
    assert asked.headers["Authorization"] is None and "refresh" not in str(asked.query)
    assert fake.forms == [
        {
            "grant_type": "refresh_token",
            "service": "fake",
            "client_id": "airgap",
            "scope": f"repository:{REPOSITORY}:pull,push",
            "refresh_token": "refresh-me-please",
        }
    ]


def test_a_test_starts_an_upload_and_leaves_nothing(fake: PushRegistry, pusher: Make) -> None:
    fake.require_token(username="robot", password=PASSWORD)
    hops = pusher(fake, username="robot", password=PASSWORD).try_login(REPOSITORY)
    assert {hop.host for hop in hops} == {fake.host}
    assert not fake.uploads and fake.count("DELETE") == 1 and fake.read_back == 0


def test_what_was_learned_is_kept_and_holds_no_secret(fake: PushRegistry, pusher: Make) -> None:
    fake.require_token(username="robot", password=PASSWORD)
    first = pusher(fake, username="robot", password=PASSWORD)
    first.has_manifest(REPOSITORY, "2")
    assert PASSWORD not in json.dumps(first.memory)
    fake.forget_requests()
    pusher(fake, username="robot", password=PASSWORD, memory=first.memory).has_manifest(REPOSITORY, "2")
    assert [one.path for one in fake.requests] == ["/token", f"/v2/{REPOSITORY}/manifests/2"]


def test_a_400_over_plain_http_is_an_answer_and_not_a_wish_for_tls(fake: PushRegistry, pusher: Make) -> None:
    client = pusher(fake)
    client.has_manifest(REPOSITORY, "2")
    fake.trouble("PUT", "/manifests/", status=400, body=b'{"errors":[{"code":"MANIFEST_INVALID"}]}')
    with pytest.raises(RegistryError) as caught:
        client.put_manifest(REPOSITORY, "2", manifest_of(b"layer"), OCI_MANIFEST)
    assert caught.value.status == 400
