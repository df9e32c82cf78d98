"""/v2/, as registries answer: every status, header and code that a client leans on, and what must not cost anything."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from mirrors import reading, referring
from mirrors.digests import digest_of
from mirrors.models import Snapshot, SnapshotBlob
from tests.kept import keep_build, keep_vex
from tests.test_serving import keep_image

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
BUILT = datetime(2026, 11, 20, 6, 31, 12, tzinfo=UTC)
NAME = "aquasecurity/trivy-db"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture
def kept(store, make_mirror) -> Snapshot:
    return keep_build(store, make_mirror("trivy-db"), BUILT)


@pytest.fixture(autouse=True)
def known_switch(db):
    """Whether a login is required is asked of the database every few seconds, not with each request."""
    reading.login_required()


def body(response) -> bytes:
    return response.content if not response.streaming else b"".join(response.streaming_content)


def refused(response, status: int, code: str) -> str:
    """That it was refused in the spec's form; the message."""
    assert response.status_code == status, body(response)[:300]
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    (error,) = json.loads(body(response))["errors"]
    assert error["code"] == code
    return error["message"]


# The base


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
@pytest.mark.parametrize("method", ["get", "head"])
def test_it_says_that_there_is_a_registry(client, path, method):
    response = getattr(client, method)(path)
    assert response.status_code == 200
    assert response.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert response.headers["Content-Length"] == "2"


# Manifests


@pytest.mark.parametrize("name", [NAME, "aquasec/trivy-db"])
@pytest.mark.parametrize("reference", ["2", "latest", "2-20261120T0631Z", "digest"])
def test_it_sends_the_manifest_byte_for_byte(client, store, kept, name, reference):
    reference = kept.manifest_digest if reference == "digest" else reference
    response = client.get(f"/v2/{name}/manifests/{reference}")
    assert response.status_code == 200
    assert response.content == store.read(kept.manifest_digest)
    assert digest_of(response.content) == response.headers["Docker-Content-Digest"] == kept.manifest_digest
    assert response.headers["Content-Type"] == OCI_MANIFEST
    assert response.headers["Content-Length"] == str(len(response.content))
    head = client.head(f"/v2/{name}/manifests/{reference}")
    assert head.status_code == 200
    assert head.content == b""
    assert dict(head.headers) == dict(response.headers)


@pytest.mark.parametrize(
    "accept",
    [
        "application/vnd.docker.distribution.manifest.v1+json",
        "text/html",
        "application/vnd.oci.image.index.v1+json, " * 250,
        "é;;;q=x,,*",
        "",
    ],
)
def test_it_sends_the_same_bytes_whatever_is_accepted(client, store, kept, accept):
    response = client.get(f"/v2/{NAME}/manifests/2", headers={"accept": accept})
    assert (response.status_code, response.content) == (200, store.read(kept.manifest_digest))


@pytest.mark.parametrize(
    "authorization",
    ["Basic dHJpdnk6c2VjcmV0", "Bearer x.y.z", "Basic %%%", "Digest username=x", "é", "Basic " + "A" * 9000],
)
def test_a_login_nobody_asked_for_is_ignored(client, kept, authorization):
    for path in ("/v2/", f"/v2/{NAME}/manifests/2", f"/v2/{NAME}/blobs/{kept.layer_digest}"):
        assert client.get(path, headers={"authorization": authorization}).status_code == 200


def test_a_manifest_that_did_not_change_is_not_sent_again(client, kept):
    headers = {"if-none-match": f'"{kept.manifest_digest}"'}
    response = client.get(f"/v2/{NAME}/manifests/2", headers=headers)
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["Docker-Content-Digest"] == kept.manifest_digest


def test_old_digests_and_their_blobs_are_still_answered_after_a_switch(client, store, kept):
    new = keep_build(store, kept.mirror, BUILT + 6 * HOUR)
    assert client.get(f"/v2/{NAME}/manifests/2").headers["Docker-Content-Digest"] == new.manifest_digest
    assert client.get(f"/v2/{NAME}/manifests/{kept.manifest_digest}").status_code == 200
    assert body(client.get(f"/v2/{NAME}/blobs/{kept.layer_digest}")) == store.read(kept.layer_digest)


def test_an_index_its_children_and_their_blobs_are_answered(client, store, make_mirror):
    made = keep_image(store, make_mirror("image", "oci", sources=["registry.example/team/image:1.0"]))
    index = client.get("/v2/mirrors/image/manifests/1.0")
    assert (index.content, index.headers["Content-Type"]) == (made["index"], OCI_INDEX)
    child = client.get(f"/v2/mirrors/image/manifests/{digest_of(made['image'])}")
    assert (child.content, child.headers["Content-Type"]) == (made["image"], OCI_MANIFEST)
    for part in ("config", "layer"):
        assert body(client.get(f"/v2/mirrors/image/blobs/{digest_of(made[part])}")) == made[part]


# Blobs


def test_it_sends_a_blob_whole_and_in_part(client, store, kept):
    path, data = f"/v2/aquasec/trivy-db/blobs/{kept.layer_digest}", store.read(kept.layer_digest)
    whole = client.get(path)
    assert (whole.status_code, body(whole)) == (200, data)
    assert whole.headers["Content-Length"] == str(len(data))
    assert whole.headers["Docker-Content-Digest"] == kept.layer_digest
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert whole.headers["Content-Type"] == "application/octet-stream"
    head = client.head(path)
    assert (head.status_code, body(head)) == (200, b"")
    for name in ("Content-Length", "Docker-Content-Digest", "Content-Type"):
        assert head.headers[name] == whole.headers[name]
    part = client.get(path, headers={"range": f"bytes=10-{len(data)}"})
    assert (part.status_code, body(part)) == (206, data[10:])
    assert part.headers["Content-Range"] == f"bytes 10-{len(data) - 1}/{len(data)}"
    assert part.headers["Content-Length"] == str(len(data) - 10)


def test_the_config_of_two_bytes_is_a_blob(client, kept):
    assert body(client.get(f"/v2/{NAME}/blobs/{digest_of(b'{}')}")) == b"{}"


@pytest.mark.parametrize("header", ["bytes=999999999-", "bytes=-0"])
def test_a_range_that_does_not_exist_is_416(client, kept, store, header):
    response = client.get(f"/v2/{NAME}/blobs/{kept.layer_digest}", headers={"range": header})
    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{len(store.read(kept.layer_digest))}"
    assert response.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


@pytest.mark.parametrize("header", ["bytes=5-1", "lines=1-2", "bytes=a-b", "bytes=0-1,3-4", "bytes=" + "9" * 300, "-"])
def test_a_range_that_makes_no_sense_asks_for_all_of_it(client, kept, store, header):
    response = client.get(f"/v2/{NAME}/blobs/{kept.layer_digest}", headers={"range": header})
    assert (response.status_code, body(response)) == (200, store.read(kept.layer_digest))


# What is missing or damaged here


def test_a_blob_that_is_gone_or_damaged_sends_trivy_to_its_next_repository(client, store, kept, caplog):
    path = f"/v2/{NAME}/blobs/{kept.layer_digest}"
    file = store.path(kept.layer_digest)
    file.chmod(0o644)
    file.write_bytes(b"x" * file.stat().st_size)
    for method in (client.get, client.head):
        response = method(path)
        assert response.status_code == 503
        assert "damaged" in caplog.text
    refused(client.get(path), 503, "UNAVAILABLE")
    file.unlink()
    refused(client.get(path), 503, "UNAVAILABLE")


def test_a_manifest_that_is_gone_or_damaged_is_never_sent(client, store, kept, caplog):
    file = store.path(kept.manifest_digest)
    file.chmod(0o644)
    file.write_bytes(file.read_bytes().replace(b"sha256", b"sha257"))
    for reference in ("2", kept.manifest_digest):
        refused(client.get(f"/v2/{NAME}/manifests/{reference}"), 503, "UNAVAILABLE")
    assert "damaged" in caplog.text
    file.unlink()
    assert "not there" in refused(client.get(f"/v2/{NAME}/manifests/2"), 503, "UNAVAILABLE")


# What there is not


def test_an_unknown_repository_is_refused_fast(client, kept, django_assert_num_queries):
    nothing = digest_of(b"nothing")
    for rest in ("manifests/latest", f"manifests/{nothing}", f"blobs/{nothing}", "tags/list", f"referrers/{nothing}"):
        with django_assert_num_queries(1):
            refused(client.get(f"/v2/library/alpine/{rest}"), 404, "NAME_UNKNOWN")


def test_a_repository_that_was_never_synced_says_so(client, make_mirror):
    make_mirror("trivy-db")
    message = refused(client.get(f"/v2/{NAME}/manifests/2"), 404, "MANIFEST_UNKNOWN")
    assert message == f"{NAME} is mirrored here, but nothing of it has been fetched yet."
    assert client.get(f"/v2/{NAME}/tags/list").json() == {"name": NAME, "tags": []}


def test_what_is_not_in_the_repository_is_refused(client, store, make_mirror, kept):
    java = keep_build(store, make_mirror("trivy-java-db"), BUILT)
    refused(client.get(f"/v2/{NAME}/manifests/3"), 404, "MANIFEST_UNKNOWN")
    refused(client.get(f"/v2/{NAME}/manifests/{java.manifest_digest}"), 404, "MANIFEST_UNKNOWN")
    refused(client.get(f"/v2/{NAME}/blobs/{java.layer_digest}"), 404, "BLOB_UNKNOWN")
    refused(client.get(f"/v2/{NAME}/blobs/sha512:{'a' * 128}"), 404, "BLOB_UNKNOWN")
    # A manifest is no blob here, as in other registries.
    refused(client.get(f"/v2/{NAME}/blobs/{kept.manifest_digest}"), 404, "BLOB_UNKNOWN")
    head = client.head(f"/v2/{NAME}/manifests/3")
    assert head.status_code == 404


def test_vex_repositories_are_not_served_here(client, store, make_mirror):
    keep_vex(store, make_mirror("vexhub", "vex"), BUILT)
    for name in ("vexhub", "mirrors/vexhub"):
        refused(client.get(f"/v2/{name}/manifests/latest"), 404, "NAME_UNKNOWN")


DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"/v2/UPPER/Case/blobs/{DIGEST}", 400, "NAME_INVALID"),
        ("/v2/a..b/manifests/2", 400, "NAME_INVALID"),
        ("/v2/../../etc/manifests/2", 400, "NAME_INVALID"),
        ("/v2/a/../b/manifests/2", 400, "NAME_INVALID"),
        ("/v2//manifests/2", 400, "NAME_INVALID"),
        ("/v2/a//b/manifests/2", 400, "NAME_INVALID"),
        ("/v2/-a/tags/list", 400, "NAME_INVALID"),
        ("/v2/aquasec%00/trivy-db/manifests/2", 400, "NAME_INVALID"),
        ("/v2/aquasec/trivy-db%0a/manifests/2", 400, "NAME_INVALID"),
        ("/v2/aquasec/trivy-db%20/manifests/2", 400, "NAME_INVALID"),
        ("/v2/%E2%98%83/manifests/2", 400, "NAME_INVALID"),
        ("/v2/%ff%fe/manifests/2", 400, "NAME_INVALID"),
        ("/v2/%D9%A1/manifests/2", 400, "NAME_INVALID"),
        (f"/v2/{'a' * 5000}/manifests/2", 400, "NAME_INVALID"),
        (f"/v2/{'a/' * 2000}a/tags/list", 400, "NAME_INVALID"),
        (f"/v2/{'a-' * 2500}/tags/list", 400, "NAME_INVALID"),
        (f"/v2/{NAME}/manifests/sha256:abc", 400, "DIGEST_INVALID"),
        (f"/v2/{NAME}/manifests/{DIGEST}0", 400, "DIGEST_INVALID"),
        (f"/v2/{NAME}/manifests/{DIGEST.upper()}", 400, "DIGEST_INVALID"),
        (f"/v2/{NAME}/manifests/:", 400, "DIGEST_INVALID"),
        (f"/v2/{NAME}/blobs/latest", 400, "DIGEST_INVALID"),
        (f"/v2/{NAME}/blobs/sha256:{'A' * 64}", 400, "DIGEST_INVALID"),
        (f"/v2/{NAME}/blobs/sha256:{'a' * 9000}", 400, "DIGEST_INVALID"),
        (f"/v2/{NAME}/blobs/sha256:..%2f..%2fetc", 404, "UNSUPPORTED"),
        (f"/v2/{NAME}/blobs/sha256:%00{'a' * 64}", 400, "NAME_INVALID"),
        (f"/v2/{NAME}/blobs/x:%0a", 400, "DIGEST_INVALID"),
        (f"/v2/{NAME}/referrers/2", 400, "DIGEST_INVALID"),
        (f"/v2/{NAME}/manifests/{'t' * 129}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{NAME}/manifests/.hidden", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{NAME}/manifests/%F0%9F%92%A9", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{NAME}/tags/list?n=-1", 400, "UNSUPPORTED"),
        (f"/v2/{NAME}/manifests", 404, "UNSUPPORTED"),
        (f"/v2/{NAME}", 404, "UNSUPPORTED"),
        (f"/v2/{NAME}/manifests/2/", 404, "UNSUPPORTED"),
        ("/v2/%0a", 404, "UNSUPPORTED"),
        ("/v2/_catalog/", 404, "UNSUPPORTED"),
    ],
)
def test_what_cannot_be_a_name_or_digest_is_refused_without_a_look_up(
    client, path, status, code, django_assert_max_num_queries
):
    # The number of names is looked at last; by then the repository is known not to be there.
    allowed = 1 if "?n=" in path else 0
    with django_assert_max_num_queries(allowed):
        response = client.get(path)
    refused(response, status if not allowed else 404, code if not allowed else "NAME_UNKNOWN")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", f"/v2/{NAME}/blobs/uploads/"),
        ("post", f"/v2/{NAME}/blobs/uploads/?mount={DIGEST}&from=a"),
        ("put", f"/v2/{NAME}/manifests/2"),
        ("patch", f"/v2/{NAME}/blobs/uploads/1"),
        ("delete", f"/v2/{NAME}/manifests/{DIGEST}"),
        ("delete", f"/v2/{NAME}/blobs/{DIGEST}"),
        ("delete", f"/v2/{NAME}/manifests/2"),
        ("options", "/v2/"),
        ("trace", "/v2/"),
        ("post", "/v2/"),
    ],
)
def test_nothing_can_be_written(method, path, django_assert_num_queries, db):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    with django_assert_num_queries(0):
        response = getattr(client, method)(path)
    assert "read-only" in refused(response, 405, "UNSUPPORTED")
    assert response.headers["Allow"] == "GET, HEAD"


# Lists


@pytest.fixture
def many(store, make_mirror) -> list[str]:
    mirror = make_mirror("trivy-db")
    for hour in range(3):
        keep_build(store, mirror, BUILT + hour * HOUR)
    return ["2", "2-20261120T0631Z", "2-20261120T0731Z", "2-20261120T0831Z", "latest"]


def test_tags_are_listed_in_order(client, many):
    response = client.get("/v2/aquasec/trivy-db/tags/list")
    assert response.json() == {"name": "aquasec/trivy-db", "tags": many}
    assert response.headers["Content-Type"] == "application/json"
    assert "Link" not in response.headers


def test_tags_are_listed_by_the_page(client, many):
    path, found, pages = f"/v2/{NAME}/tags/list?n=2", [], 0
    while path:
        response = client.get(path)
        found += response.json()["tags"]
        pages += 1
        link = response.headers.get("Link", "")
        assert not link or link.endswith('>; rel="next"')
        path = link.partition("<")[2].partition(">")[0]
    assert (found, pages) == (many, 3)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("n=0", []),
        ("n=100", None),
        ("n=999999999", None),
        ("last=2-20261120T0831Z", ["latest"]),
        ("last=latest", []),
        ("last=2-2", None),
        ("n=1&last=2-20261120T0731Z", ["2-20261120T0831Z"]),
        ("last=%E2%98%83", []),
        ("last=", None),
    ],
)
def test_a_part_of_the_tags_can_be_asked_for(client, many, query, expected):
    response = client.get(f"/v2/{NAME}/tags/list?{query}")
    known = many[1:] if query == "last=2-2" else many
    assert response.json()["tags"] == (known if expected is None else expected)
    assert "Link" not in response.headers or query.startswith("n=1&")


@pytest.mark.parametrize("number", ["-1", "x", "", "1.5", "1e3", "%D9%A1", "9" * 5000, "0x10"])
def test_a_number_that_is_none_is_refused(client, many, number):
    refused(client.get(f"/v2/{NAME}/tags/list?n={number}"), 400, "UNSUPPORTED")
    refused(client.get(f"/v2/_catalog?n={number}"), 400, "UNSUPPORTED")


def test_a_query_with_too_many_parts_is_refused(client, many):
    refused(client.get(f"/v2/{NAME}/tags/list?{'&'.join(['a=1'] * 2000)}"), 400, "UNSUPPORTED")


def test_repositories_are_listed(client, store, make_mirror, many):
    keep_build(store, make_mirror("mine", "trivy-java-db"), BUILT)
    make_mirror("empty", "trivy-db")
    assert client.get("/v2/_catalog").json() == {"repositories": [NAME, "mirrors/mine"]}
    first = client.get("/v2/_catalog?n=1")
    assert first.json() == {"repositories": [NAME]}
    assert first.headers["Link"] == '</v2/_catalog?n=1&last=aquasecurity%2Ftrivy-db>; rel="next"'
    assert client.get("/v2/_catalog?n=1&last=aquasecurity%2Ftrivy-db").json() == {"repositories": ["mirrors/mine"]}


# Referrers


def test_nothing_refers_to_upstreams_databases(client, kept):
    for digest in (kept.manifest_digest, digest_of(b"unknown"), f"sha512:{'a' * 128}"):
        response = client.get(f"/v2/{NAME}/referrers/{digest}")
        assert response.status_code == 200
        assert response.headers["Content-Type"] == OCI_INDEX
        assert response.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}


def test_what_refers_to_an_image_is_listed(client, store, make_mirror):
    made = keep_image(store, make_mirror("image", "oci", sources=["registry.example/team/image:1.0"]))
    path = f"/v2/mirrors/image/referrers/{digest_of(made['index'])}"
    response = client.get(path)
    found = {entry["digest"]: entry for entry in response.json()["manifests"]}
    assert found == {
        digest_of(made["signature"]): {
            "mediaType": OCI_MANIFEST,
            "digest": digest_of(made["signature"]),
            "size": len(made["signature"]),
            "artifactType": "application/vnd.example.signature.v1",
            "annotations": {"by": "somebody"},
        },
        # Without a type of its own it is of its config's.
        digest_of(made["sbom"]): {
            "mediaType": OCI_MANIFEST,
            "digest": digest_of(made["sbom"]),
            "size": len(made["sbom"]),
            "artifactType": "application/vnd.example.sbom.v1",
        },
    }
    assert "OCI-Filters-Applied" not in response.headers
    some = client.get(path, {"artifactType": "application/vnd.example.sbom.v1"})
    assert [entry["digest"] for entry in some.json()["manifests"]] == [digest_of(made["sbom"])]
    assert some.headers["OCI-Filters-Applied"] == "artifactType"
    none = client.get(path, {"artifactType": "application/x"})
    assert none.json()["manifests"] == []
    head = client.head(path)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(response.content)))


def test_many_referrers_come_on_several_pages(client, store, make_mirror, monkeypatch):
    monkeypatch.setattr(referring, "LARGEST_PAGE", 1)
    made = keep_image(store, make_mirror("image", "oci", sources=["registry.example/team/image:1.0"]))
    path, found = f"/v2/mirrors/image/referrers/{digest_of(made['index'])}", []
    while path:
        response = client.get(path)
        found += [entry["digest"] for entry in response.json()["manifests"]]
        path = response.headers.get("Link", "").partition("<")[2].partition(">")[0]
    assert found == sorted(digest_of(made[part]) for part in ("signature", "sbom"))


def test_a_referrer_that_names_another_subject_than_upstreams_list_said_is_left_out(client, store, make_mirror):
    made = keep_image(store, make_mirror("image", "oci", sources=["registry.example/team/image:1.0"]))
    SnapshotBlob.objects.filter(digest=digest_of(made["sbom"])).update(details={"subject": digest_of(made["image"])})
    assert client.get(f"/v2/mirrors/image/referrers/{digest_of(made['image'])}").json()["manifests"] == []


def test_a_referrer_that_is_damaged_is_not_passed_over(client, store, make_mirror):
    made = keep_image(store, make_mirror("image", "oci", sources=["registry.example/team/image:1.0"]))
    store.path(digest_of(made["signature"])).unlink()
    refused(client.get(f"/v2/mirrors/image/referrers/{digest_of(made['index'])}"), 503, "UNAVAILABLE")


# What must not cost anything


def test_no_session_or_user_is_looked_up(as_viewer, store, kept, django_assert_num_queries):
    """A browser that is signed in sends its cookie here, too."""
    with django_assert_num_queries(0):
        response = as_viewer.get("/v2/")
    assert "Vary" not in response.headers
    assert not response.cookies
    with django_assert_num_queries(2):
        as_viewer.get(f"/v2/{NAME}/manifests/2")


def test_a_nul_anywhere_is_refused_in_the_spec_s_form(client, many):
    refused(client.get(f"/v2/{NAME}/tags/list?last=%00"), 400, "NAME_INVALID")
    refused(client.get(f"/v2/{NAME}/referrers/{DIGEST}?artifactType=%00"), 400, "NAME_INVALID")
