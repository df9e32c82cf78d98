"""A VEX repository out of git: what is fetched, what is packed, and what an unchanged one costs."""

import gzip
import io
import json
import tarfile
from types import SimpleNamespace

import pytest

from mirrors import connections, content, fetch_vex, mirroring
from mirrors.connections import try_mirror
from mirrors.job import Refused
from mirrors.mirror_rules import RuleBroken, SourceSpec
from mirrors.models import SyncRun
from mirrors.registry.transport import Timeouts
from mirrors.trivy.vex import parse_repository
from tests.fakes.git import WHEN, FakeGit
from tests.operations.conftest import hours_ago
from tests.operations.test_sync_vex import ARCHIVE, WELL_KNOWN, archive, manifest

pytestmark = pytest.mark.django_db

State = SyncRun.State
MANIFEST = "/vex/hub/.well-known/vex-repository.json"
UPSTREAM = "https://github.com/aquasecurity/vexhub/archive/refs/heads/main.tar.gz//vexhub-main"


def files(*locations, documents=("a.json",), **more):
    packages = [{"id": f"pkg:npm/{name}", "location": f"pkg/{name}"} for name in documents]
    index = {"updated_at": hours_ago(1).isoformat(), "packages": packages}
    return {
        "index.json": json.dumps(index).encode(),
        "vex-repository.json": manifest(*(locations or (UPSTREAM,))),
        "README.md": b"Read me.",
        **{f"pkg/{name}": b'{"statements": []}' for name in documents},
        **more,
    }


@pytest.fixture
def git(tmp_path):
    with FakeGit(tmp_path / "git") as server:
        yield server


@pytest.fixture
def mirror(make_mirror, git):
    git.commit(files())
    return make_mirror("hub", "vex", sources=["git+" + git.url()])


def members(digest):
    with tarfile.open(fileobj=io.BytesIO(content.store().read(digest))) as tar:
        return tar.getmembers()


def test_a_commit_is_packed_under_the_folder_that_the_manifest_names(mirror, git, sync_now, client):
    run = sync_now(mirror)
    assert (run.state, run.error) == (State.SUCCEEDED, "")
    found = members(mirror.current.layer_digest)
    assert [member.name for member in found] == [
        f"vexhub-main/{name}" for name in ("README.md", "index.json", "pkg/a.json", "vex-repository.json")
    ]
    assert {(m.mtime, m.mode, m.uid, m.gid, m.uname, m.type) for m in found} == {
        (WHEN, 0o644, 0, 0, "", tarfile.REGTYPE)
    }
    (location,) = client.get(MANIFEST).json()["versions"][0]["locations"]
    assert location["url"].endswith("/vex/hub/v0.1-0.tar.gz//vexhub-main")
    served = client.get("/vex/hub/v0.1-0.tar.gz")
    assert gzip.decompress(b"".join(served.streaming_content))
    assert mirror.current.item_count == 1 and mirror.current.updated_at is not None


def test_an_unchanged_branch_costs_a_look_and_no_pack(mirror, git, sync_now):
    sync_now(mirror)
    before, asked = mirror.current.confirmed_at, git.count()
    run = sync_now(mirror)
    assert run.state == State.UNCHANGED and git.count() == asked + 1
    mirror.current.refresh_from_db()
    assert mirror.current.confirmed_at > before


def test_a_new_commit_is_switched_to(mirror, git, sync_now):
    sync_now(mirror)
    first = mirror.current_id
    git.commit(files(documents=("a.json", "b.json")))
    assert sync_now(mirror).state == State.SUCCEEDED
    assert mirror.current_id != first and mirror.current.item_count == 2


def test_a_lost_archive_is_made_again_with_the_same_bytes(mirror, git, sync_now):
    sync_now(mirror)
    digest = mirror.current.layer_digest
    content.store().remove(digest)
    assert sync_now(mirror).state in (State.SUCCEEDED, State.UNCHANGED)
    assert mirror.current.layer_digest == digest and content.store().has(digest)


def test_the_same_commit_is_the_same_bytes_on_every_machine(make_mirror, git, sync_now):
    fixed = {
        "index.json": b'{"packages": []}',
        "vex-repository.json": manifest(UPSTREAM),
        "pkg/\u00e9.json": b"x" * 9000,
    }
    git.commit(fixed)
    mirror = make_mirror("hub", "vex", sources=["git+" + git.url()])
    sync_now(mirror)
    assert mirror.current.layer_digest == FIXED


FIXED = "sha256:58d5e0ae4cfa738d3243f38ba4a3bb0d45b7e49c8167c72a3a25101fbeda7582"


def test_branch_and_folder_are_followed(make_mirror, git, sync_now, client):
    git.commit({"else": b"x"})
    git.commit({f"vex/own/{path}": data for path, data in files("https://x.example/own.zip").items()}, branch="r/1")
    mirror = make_mirror("hub", "vex", sources=["git+" + git.url() + "@r/1//vex/own"])
    assert sync_now(mirror).state == State.SUCCEEDED
    assert {member.name.split("/")[0] for member in members(mirror.current.layer_digest)} == {"vexhub-r-1"}
    (location,) = client.get(MANIFEST).json()["versions"][0]["locations"]
    assert location["url"].endswith("/vex/hub/v0.1-0.tar.gz//vexhub-r-1")


def test_links_and_submodules_are_left_out_and_told(make_mirror, git, sync_now):
    git.commit(files(link=b"/etc/passwd"), links={"link": 0o120000})
    run = sync_now(make_mirror("hub", "vex", sources=["git+" + git.url()]))
    assert run.state == State.SUCCEEDED
    assert "not followed; left out: link." in " ".join(run.steps.values_list("text", flat=True))


def test_pointers_are_listed_as_they_are_for_archives(make_mirror, git, sync_now):
    git.commit({**files(), "pkg/a.json": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"})
    run = sync_now(make_mirror("hub", "vex", sources=["git+" + git.url()]))
    assert "only git LFS pointers: 1 document (pkg/a.json)" in " ".join(run.steps.values_list("text", flat=True))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"README.md": b"x"}, "no vex-repository.json in the git repository"),
        ({"vex-repository.json": b"[]"}, "vex-repository.json"),
        ({"vex-repository.json": manifest(UPSTREAM)}, "no index.json"),
        (
            {"vex-repository.json": manifest(UPSTREAM), "index.json": b"version https://git-lfs.github.com/spec/v1\n"},
            "LFS",
        ),
    ],
)
def test_a_repository_that_is_none_is_refused(made, said, make_mirror, git, sync_now):
    git.commit(made)
    run = sync_now(make_mirror("hub", "vex", sources=["git+" + git.url()]))
    assert run.state == State.FAILED and said in run.error
    assert git.host in run.error


def test_an_empty_repository_and_a_wrong_branch_are_refused(make_mirror, git, sync_now):
    git.repository("empty.git")
    run = sync_now(make_mirror("one", "vex", sources=["git+" + git.url("empty.git")]))
    assert "is empty" in run.error
    git.commit(files())
    run = sync_now(make_mirror("two", "vex", sources=["git+" + git.url() + "@mian"]))
    assert "no branch 'mian'; it has: main." in run.error


@pytest.mark.parametrize(("kind", "sent"), [("token", "Bearer geheim-123"), ("basic", "Basic dTpnZWhlaW0tMTIz")])
def test_it_logs_in_and_tells_nobody(kind, sent, mirror, git, sync_now):
    git.authorization = sent
    sealed = content.vault().encrypt("geheim-123")
    mirror.sources.update(login=kind, username="u" if kind == "basic" else "", secret_sealed=sealed)
    run = sync_now(mirror)
    assert (run.state, run.error) == (State.SUCCEEDED, "")
    assert {request.headers["authorization"] for request in git.requests} == {sent}
    assert "geheim" not in " ".join(run.steps.values_list("text", flat=True))


def test_a_location_that_is_a_git_repository_is_packed(make_mirror, fake, git, sync_now, client):
    git.commit({f"vex/{path}": data for path, data in files().items()}, tag="v1")
    fake.put_file(WELL_KNOWN, manifest(f"git::{git.url()}//vex?ref=v1&depth=1", "git::ssh://git@x.example/y.git"))
    mirror = make_mirror("hub", "vex", sources=[fake.url("/hub")])
    run = sync_now(mirror)
    assert (run.state, run.error) == (State.SUCCEEDED, "")
    assert "of git repositories only those at https" in " ".join(run.steps.values_list("text", flat=True))
    (location,) = client.get(MANIFEST).json()["versions"][0]["locations"]
    assert location["url"].endswith("/vex/hub/v0.1-0.tar.gz//vexhub-v1")
    asked = git.count()
    assert sync_now(mirror).state == State.UNCHANGED and git.count() == asked + 1


def test_a_strangers_manifest_does_not_lead_git_into_our_network(make_mirror, git):
    mirror = make_mirror("hub", "vex", sources=["https://hub.example"], insecure=False)
    job = SimpleNamespace(story=SimpleNamespace(warn=lambda *_, **__: None), listener=lambda source: None)
    with pytest.raises(Refused, match=r"private address 127\.0\.0\.1"):
        fetch_vex._Asking(job, mirror.sources.get())._mirrored(parse_repository(manifest(f"git::{git.url()}")))
    assert git.count() == 0


def test_several_repositories_are_served_side_by_side_under_their_own_names(make_mirror, fake, git, sync_now, client):
    fake.put_file(WELL_KNOWN, manifest(fake.url(ARCHIVE) + "//vexhub-main"))
    fake.put_file(ARCHIVE, archive())
    git.commit(files(documents=("a.json", "b.json")))
    for name, source in (("one", fake.url("/hub")), ("two", "git+" + git.url())):
        assert sync_now(make_mirror(name, "vex", sources=[source])).state == State.SUCCEEDED
    for name, count in (("one", 1), ("two", 2)):
        (location,) = client.get(f"/vex/{name}/.well-known/vex-repository.json").json()["versions"][0]["locations"]
        assert f"/vex/{name}/v0.1-0.tar.gz//vexhub-main" in location["url"]
        archived = b"".join(client.get(f"/vex/{name}/v0.1-0.tar.gz").streaming_content)
        with tarfile.open(fileobj=io.BytesIO(archived)) as tar:
            assert len(json.load(tar.extractfile("vexhub-main/index.json"))["packages"]) == count


def test_the_test_of_a_source_says_where_the_branch_stands(mirror, git):
    commit = git.commit(files())
    git.requests.clear()
    (report,) = try_mirror(mirror, timeouts=Timeouts(attempts=1))
    assert report.ok and report.offers == f"git repository, main at {commit[:12]}"
    assert [hop.host for hop in report.hops] == [git.host] and git.count() == 1
    mirror.sources.update(reference="git+" + git.url() + "@mian")
    (report,) = try_mirror(mirror, timeouts=Timeouts(attempts=1))
    assert not report.ok and "it has: main" in report.error


def test_the_login_holds_for_that_host_and_port_and_scheme_only():
    own = connections.Connection(insecure=True, username="u", password="p")
    reference = "git+https://h.example/hub.git@main"
    assert connections.for_url(own, reference, "https://h.example/hub.git").username == "u"
    for url in ("http://h.example/hub.git", "https://h.example:8443/hub.git", "https://x.example/hub.git"):
        assert connections.for_url(own, reference, url).username == ""


def test_a_source_that_needs_a_key_of_our_own_is_refused_when_it_is_saved(db, now):
    wish = mirroring.Settings(kind="vex", sources=[SourceSpec("git+ssh://git@h.example/hub.git")])
    with pytest.raises(RuleBroken, match="without a key of our own"):
        mirroring.add_mirror("hub", wish, by="", now=now)
