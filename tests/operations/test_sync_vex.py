"""Syncing a VEX repository, and serving it rewritten for this instance."""

import io
import json
import tarfile
import zipfile
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from mirrors import clock, content, fetch_vex
from mirrors.demo import assets
from mirrors.job import Refused
from mirrors.models import SyncRun
from mirrors.trivy.vex import parse_repository
from tests.operations.conftest import hours_ago

pytestmark = pytest.mark.django_db

State = SyncRun.State
WELL_KNOWN = "/hub/.well-known/vex-repository.json"
ARCHIVE = "/archives/vexhub-main.tar.gz"


def manifest(*locations, spec_version="0.1", **extra):
    return json.dumps(
        {
            "name": "Hub",
            "description": "VEX for tests",
            "repository_specific": {"kept": ["as", "it", "is"]},
            "versions": [
                {
                    "spec_version": spec_version,
                    "locations": [{"url": url, "note": "kept"} for url in locations],
                    "update_interval": "24h",
                }
            ],
            **extra,
        }
    ).encode()


def archive(updated_at=None, top="vexhub-main", documents=("a.json",), pointers=(), repository=None, index=None):
    """A tar.gz as GitHub makes it: one top folder with index.json and the documents it names."""
    packages = [{"id": f"pkg:npm/{name}", "location": f"pkg/{name}"} for name in (*documents, *pointers)]
    stamp = (updated_at or hours_ago(1)).isoformat()
    index = index if index is not None else json.dumps({"updated_at": stamp, "packages": packages}).encode()
    members = {f"{top}/index.json": index}
    members |= {f"{top}/pkg/{name}": b'{"statements": []}' for name in documents}
    members |= {f"{top}/pkg/{name}": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n" for name in pointers}
    if repository is not None:
        members[f"{top}/vex-repository.json"] = repository
    return assets.build_layer(members.items())


def zipped(tar_gz):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(tar_gz)) as tar, zipfile.ZipFile(buffer, "w") as packed:
        for member in tar.getmembers():
            packed.writestr(member.name, tar.extractfile(member).read())
    return buffer.getvalue()


@pytest.fixture
def hub(fake):
    """A repository at a base URL with one archive."""
    fake.put_file(WELL_KNOWN, manifest(fake.url(ARCHIVE) + "//vexhub-main"))
    fake.put_file(ARCHIVE, archive(), {"ETag": '"one"'})
    return fake


@pytest.fixture
def mirror(make_mirror, hub):
    return make_mirror("vexhub", "vex", sources=[hub.url("/hub")])


def test_the_first_sync_keeps_the_manifest_as_it_came_and_the_archive(mirror, hub, sync_now):
    run = sync_now(mirror)
    assert (run.state, run.error) == (State.SUCCEEDED, "")
    current = mirror.current
    roles = {blob.role: blob for blob in current.blobs.all()}
    assert content.store().read(roles["vex-manifest"].digest) == hub.files[WELL_KNOWN][0]
    assert current.digest == current.layer_digest == roles["vex-archive"].digest
    assert roles["vex-archive"].details["subdir"] == "vexhub-main"
    assert current.item_count == 1
    assert abs((current.updated_at - hours_ago(1)).total_seconds()) < 60


def test_an_unchanged_repository_costs_two_small_requests_and_no_archive(mirror, hub, sync_now):
    sync_now(mirror)
    before = mirror.current.confirmed_at
    hub.forget_requests()
    run = sync_now(mirror)
    assert run.state == State.UNCHANGED and run.requests == 2
    assert hub.requests[-1].headers["If-None-Match"] == '"one"'
    mirror.current.refresh_from_db()
    assert mirror.current.confirmed_at > before


def test_a_server_without_etags_is_compared_by_content(mirror, hub, sync_now):
    hub.put_file(ARCHIVE, archive(hours_ago(3)))
    sync_now(mirror)
    assert sync_now(mirror).state == State.UNCHANGED


def test_new_content_is_switched_to_and_may_be_older(mirror, hub, sync_now):
    sync_now(mirror)
    first = mirror.current_id
    hub.put_file(ARCHIVE, archive(hours_ago(30)), {"ETag": '"two"'})
    assert sync_now(mirror).state == State.SUCCEEDED
    assert mirror.current_id != first and mirror.snapshots.count() == 2


def test_an_index_from_the_future_is_refused_for_it_would_age_everything_else(mirror, hub, sync_now):
    sync_now(mirror)
    hub.put_file(ARCHIVE, archive(hours_ago(-24 * 365)), {"ETag": '"two"'})
    run = sync_now(mirror)
    assert run.state == State.FAILED and "in the future by our clock" in run.error
    assert not clock.trusted_now().behind


def test_what_a_repository_says_is_cleaned_before_it_is_told(mirror, hub, sync_now):
    packages = [{"id": "a", "location": "gone\x07\ud800" + "x" * 100_000}]
    hub.put_file(ARCHIVE, archive(index=json.dumps({"packages": packages}).encode()))
    hub.put_file(WELL_KNOWN, manifest(hub.url(ARCHIVE) + "//vexhub-main?checksum=%00crc:1234"))
    run = sync_now(mirror)
    assert (run.state, run.error) == (State.SUCCEEDED, "")
    steps = [step.text for step in run.steps.all()]
    assert any("named but not there" in text for text in steps) and any("was not compared" in text for text in steps)
    assert all(text.isprintable() and len(text) <= 4000 for text in steps)


def test_a_second_location_serves_when_the_first_is_broken(make_mirror, fake, sync_now):
    fake.put_file(
        WELL_KNOWN, manifest(fake.url("/gone.tar.gz") + "//x", fake.url(ARCHIVE) + "//vexhub-main", "git::ssh://x/y")
    )
    fake.put_file(ARCHIVE, archive())
    mirror = make_mirror("vexhub", "vex", sources=[fake.url("/hub")])
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED
    warnings = list(run.steps.filter(level="warning").values_list("text", flat=True))
    assert any("404" in text for text in warnings) and any("git::" in text for text in warnings)


def test_every_location_and_version_that_can_be_had_is_kept(make_mirror, fake, sync_now):
    document = json.loads(manifest(fake.url(ARCHIVE) + "//vexhub-main", fake.url("/second.zip") + "//vexhub-main?x=1"))
    later = {"spec_version": "0.2", "locations": [{"url": fake.url("/later.tar.gz") + "//vexhub-main"}]}
    document["versions"].append(later | {"update_interval": "4h"})
    fake.put_file(WELL_KNOWN, json.dumps(document).encode())
    for path, data in ((ARCHIVE, archive()), ("/second.zip", zipped(archive())), ("/later.tar.gz", archive())):
        fake.put_file(path, data)
    mirror = make_mirror("vexhub", "vex", sources=[fake.url("/hub")])
    assert sync_now(mirror).state == State.SUCCEEDED
    served = [blob.details["served"] for blob in mirror.current.blobs.filter(role="vex-archive")]
    assert served == ["v0.1-0.tar.gz", "v0.1-1.zip", "v0.2-0.tar.gz"]


def test_an_archive_source_is_read_from_inside_and_asks_no_other_host(make_mirror, fake, sync_now):
    inner = manifest("https://github.com/aquasecurity/vexhub/archive/refs/heads/main.tar.gz//vexhub-main")
    fake.put_file("/vexhub-main.tar.gz", archive(repository=inner))
    mirror = make_mirror("vexhub", "vex", sources=[fake.url("/vexhub-main.tar.gz") + "//vexhub-main"])
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED and run.requests == 1
    assert content.store().read(mirror.current.manifest_digest) == inner


def test_a_zip_source_is_read_too(make_mirror, fake, sync_now):
    inner = manifest("https://example.invalid/main.tar.gz//vexhub-main")
    fake.put_file("/hub.zip", zipped(archive(repository=inner)))
    mirror = make_mirror("vexhub", "vex", sources=[fake.url("/hub.zip") + "//vexhub-main"])
    assert sync_now(mirror).state == State.SUCCEEDED


def test_pointer_documents_are_listed_on_the_run(mirror, hub, sync_now):
    hub.put_file(ARCHIVE, archive(pointers=("big.json",)))
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED
    assert "pkg/big.json" in "".join(run.steps.values_list("text", flat=True))


BAD = {
    "manifest is HTML": ({WELL_KNOWN: b"<html>"}, "JSON"),
    "manifest has strings for locations": (
        {WELL_KNOWN: json.dumps({"versions": [{"spec_version": "0.1", "locations": ["https://x/y.tar.gz"]}]}).encode()},
        "instead of an object",
    ),
    "manifest has no versions": ({WELL_KNOWN: b'{"versions": []}'}, "no versions"),
    "no location": ({WELL_KNOWN: manifest()}, "names none"),
    "index is a pointer": (
        {ARCHIVE: archive(index=b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")},
        "pointer",
    ),
    "no index": ({ARCHIVE: archive(top="elsewhere")}, "index|vexhub-main"),
    "index is garbage": ({ARCHIVE: archive(index=b"{")}, "index.json"),
    "archive is no archive": ({ARCHIVE: b"<html>"}, "gzip"),
    "archive is cut": ({ARCHIVE: archive()[:-40]}, "end|cut|truncated"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_bad_is_named_and_the_old_content_still_served(what, mirror, hub, sync_now):
    sync_now(mirror)
    kept = mirror.current_id
    files, sentence = BAD[what]
    for path, data in files.items():
        hub.put_file(path, data)
    run = sync_now(mirror)
    assert run.state == State.FAILED
    assert any(word in run.error for word in sentence.split("|")), run.error
    assert hub.host in run.error
    assert mirror.current_id == kept


def test_a_login_goes_to_the_sources_host_only(make_mirror, fake, other, sync_now):
    fake.put_file(WELL_KNOWN, manifest(other.url(ARCHIVE) + "//vexhub-main"))
    other.put_file(ARCHIVE, archive())
    mirror = make_mirror("vexhub", "vex", sources=[fake.url("/hub").replace("127.0.0.1", "localhost")])
    mirror.sources.update(login="basic", username="reader", secret_sealed=content.vault().encrypt("right horse"))
    sync_now(mirror)
    assert "Authorization" in fake.requests[0].headers
    assert all("Authorization" not in request.headers for request in other.requests)


@pytest.mark.parametrize("moved", [False, True])
def test_a_token_is_sent_with_the_first_request_and_to_no_other_host(moved, make_mirror, fake, other, sync_now):
    fake.put_file(WELL_KNOWN, manifest(fake.url(ARCHIVE) + "//vexhub-main"))
    fake.put_file(ARCHIVE, archive())
    if moved:
        other.put_file(ARCHIVE, archive())
        fake.fault(ARCHIVE, status=302, headers={"Location": other.url(ARCHIVE)}, times=None)
    mirror = make_mirror("vexhub", "vex", sources=[fake.url("/hub")])
    mirror.sources.update(login="token", secret_sealed=content.vault().encrypt("geheim-123"))
    run = sync_now(mirror)
    assert (run.state, run.requests) == (State.SUCCEEDED, 3 if moved else 2)
    assert {request.headers["Authorization"] for request in fake.requests} == {"Bearer geheim-123"}
    assert len(other.requests) == moved
    assert all("Authorization" not in request.headers for request in other.requests)
    assert not any("geheim" in step.text for step in run.steps.all())


# Serving


def test_it_is_served_rewritten_for_this_instance(mirror, hub, sync_now, client, settings):
    sync_now(mirror)
    settings.AIRGAP_BASE_URL = "https://airgap.plant.example"
    answer = client.get("/vex/vexhub/.well-known/vex-repository.json")
    assert answer.status_code == 200 and answer["Content-Type"] == "application/json"
    assert "ETag" not in answer
    document = answer.json()
    (location,) = document["versions"][0]["locations"]
    assert location == {"url": "https://airgap.plant.example/vex/vexhub/v0.1-0.tar.gz//vexhub-main", "note": "kept"}
    assert document["repository_specific"] == {"kept": ["as", "it", "is"]}
    settings.AIRGAP_BASE_URL = "https://elsewhere.example"
    again = client.get("/vex/vexhub/.well-known/vex-repository.json").json()
    assert again["versions"][0]["locations"][0]["url"].startswith("https://elsewhere.example/")


def test_without_a_base_url_the_address_asked_is_the_address_served(mirror, hub, sync_now, client):
    sync_now(mirror)
    document = client.get("/vex/vexhub/.well-known/vex-repository.json").json()
    assert document["versions"][0]["locations"][0]["url"].startswith("http://testserver/vex/vexhub/")


def test_the_archive_is_served_under_a_name_that_never_changes(mirror, hub, sync_now, client):
    sync_now(mirror)
    for method in (client.get, client.head):
        answer = method("/vex/vexhub/v0.1-0.tar.gz")
        assert answer.status_code == 200 and "ETag" not in answer
        assert int(answer["Content-Length"]) == len(hub.files[ARCHIVE][0])
    assert b"".join(client.get("/vex/vexhub/v0.1-0.tar.gz").streaming_content) == hub.files[ARCHIVE][0]
    hub.put_file(ARCHIVE, archive(hours_ago(0)), {"ETag": '"two"'})
    sync_now(mirror)
    assert b"".join(client.get("/vex/vexhub/v0.1-0.tar.gz").streaming_content) == hub.files[ARCHIVE][0]


@pytest.mark.parametrize(
    "path",
    ["/vex/vexhub/.well-known/vex-repository.json", "/vex/vexhub/v0.1-0.tar.gz", "/vex/nothing/v0.1-0.tar.gz"],
)
def test_what_is_not_mirrored_is_not_found(make_mirror, client, path):
    make_mirror("vexhub", "vex", sources=["https://example.invalid/hub"])
    assert client.get(path).status_code == 404
    assert client.post(path).status_code == 405


def test_an_archive_that_names_another_folder_is_served_with_the_folder_it_has(make_mirror, fake, sync_now, client):
    inner = manifest("https://example.invalid/main.tar.gz//vexhub-main")
    fake.put_file("/copy.tar.gz", archive(top="vexhub-copy", repository=inner))
    mirror = make_mirror("vexhub", "vex", sources=[fake.url("/copy.tar.gz") + "//vexhub-copy"])
    assert sync_now(mirror).state == State.SUCCEEDED
    document = client.get("/vex/vexhub/.well-known/vex-repository.json").json()
    assert document["versions"][0]["locations"][0]["url"] == ("http://testserver/vex/vexhub/v0.1-0.tar.gz//vexhub-copy")
    assert client.get("/vex/vexhub/v0.1-0.tar.gz").status_code == 200


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_damaged_archive_is_not_served(mirror, hub, sync_now, client, how):
    sync_now(mirror)
    path = content.store().path(mirror.current.layer_digest)
    if how == "gone":
        path.unlink()
    else:
        path.chmod(0o644)
        path.write_bytes(b"x" * path.stat().st_size)
    assert client.get("/vex/vexhub/v0.1-0.tar.gz").status_code == 503


def test_a_strangers_manifest_is_no_way_into_our_network(make_mirror):
    mirror = make_mirror("vexhub", "vex", sources=["https://hub.example"], insecure=False)
    job = SimpleNamespace(story=SimpleNamespace(warn=lambda *_, **__: None), listener=lambda source: None)
    named = parse_repository(manifest("https://10.0.0.1/a.tar.gz", "https://[::1]:8443/b.tar.gz"))
    with pytest.raises(Refused, match=r"private address 10\.0\.0\.1.*private address ::1"):
        fetch_vex._Asking(job, mirror.sources.get())._mirrored(named)


def test_a_held_repository_is_not_switched(mirror, hub, sync_now):
    sync_now(mirror)
    kept = mirror.current_id
    mirror.hold(datetime.now(UTC), "audit")
    hub.put_file(ARCHIVE, archive(hours_ago(0)), {"ETag": '"two"'})
    assert "held" in sync_now(mirror).note
    assert mirror.current_id == kept
