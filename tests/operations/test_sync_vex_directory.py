"""A VEX repository out of a directory of this machine: what is read, what is not, and what is refused."""

import io
import json
import os
import subprocess
import tarfile
from datetime import UTC, datetime

import pytest

from mirrors import content, exporting, mirroring, pack_vex
from mirrors.connections import try_mirror
from mirrors.mirror_rules import RuleBroken, SourceSpec
from mirrors.models import SyncRun
from mirrors.trivy.vex import INDEX_FILE
from tests.operations.conftest import hours_ago
from tests.operations.test_sync_vex import manifest
from tests.unpacking import unpack as unpack_tar

pytestmark = pytest.mark.django_db

State = SyncRun.State
UPSTREAM = "https://github.com/aquasecurity/vexhub/archive/refs/heads/main.tar.gz//vexhub-main"


@pytest.fixture
def place(tmp_path):
    place = tmp_path / "stick" / "vexhub"
    write(place)
    return place


def write(place, documents=("pkg/a.json",), location=UPSTREAM):
    packages = [{"id": f"pkg:npm/{name}", "location": name} for name in documents]
    for name in documents:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b'{"statements": []}')
    (place / "index.json").write_text(json.dumps({"updated_at": hours_ago(1).isoformat(), "packages": packages}))
    (place / "vex-repository.json").write_bytes(manifest(location))


@pytest.fixture
def mirror(make_mirror, place):
    return make_mirror("hub", "vex", sources=[f"file://{place}"])


def names(mirror):
    with tarfile.open(fileobj=io.BytesIO(content.store().read(mirror.current.layer_digest))) as tar:
        return [member.name for member in tar.getmembers()]


def test_the_manifest_the_index_and_what_it_names_are_packed_and_nothing_else(mirror, place, sync_now, client):
    (place / "secrets.txt").write_text("geheim")
    (place / ".git").mkdir()
    run = sync_now(mirror)
    assert (run.state, run.error, run.requests) == (State.SUCCEEDED, "", 0)
    assert names(mirror) == [f"vexhub-main/{name}" for name in ("index.json", "pkg/a.json", "vex-repository.json")]
    (location,) = client.get("/vex/hub/.well-known/vex-repository.json").json()["versions"][0]["locations"]
    assert location["url"].endswith("/vex/hub/v0.1-0.tar.gz//vexhub-main")


def test_what_is_unchanged_is_confirmed_whatever_its_times(mirror, place, sync_now):
    sync_now(mirror)
    before = mirror.current.confirmed_at
    for path in (place / "index.json", place / "pkg" / "a.json"):
        os.utime(path, (1, 1))
    assert sync_now(mirror).state == State.UNCHANGED
    mirror.current.refresh_from_db()
    assert mirror.current.confirmed_at > before
    (place / "pkg" / "a.json").write_text('{"statements": [1]}')
    assert sync_now(mirror).state == State.SUCCEEDED


def test_a_path_a_folder_in_it_and_a_link_to_it_are_read(make_mirror, place, tmp_path, sync_now):
    (tmp_path / "current").symlink_to(place.parent)
    for number, source in enumerate((str(place), f"{place.parent}//vexhub", f"file://{tmp_path}/current//vexhub")):
        assert sync_now(make_mirror(f"hub{number}", "vex", sources=[source])).state == State.SUCCEEDED, source


def test_without_a_folder_in_its_manifest_the_top_is_called_as_the_directory(make_mirror, place, sync_now, client):
    write(place, location="https://x.example/vex.zip")
    mirror = make_mirror("hub", "vex", sources=[str(place)])
    sync_now(mirror)
    assert names(mirror)[0] == "vexhub/index.json"
    (location,) = client.get("/vex/hub/.well-known/vex-repository.json").json()["versions"][0]["locations"]
    assert location["url"].endswith("/v0.1-0.tar.gz//vexhub")


# What is not read


def test_no_link_is_followed_at_any_step(make_mirror, place, tmp_path, sync_now):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b.json").write_text("geheim")
    write(place, documents=("pkg/a.json", "other/b.json", "c.json"))
    (place / "other" / "b.json").unlink()
    (place / "other").rmdir()
    (place / "other").symlink_to(tmp_path / "outside")
    (place / "c.json").unlink()
    (place / "c.json").symlink_to(tmp_path / "outside" / "b.json")
    mirror = make_mirror("hub", "vex", sources=[str(place)])
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED
    assert names(mirror) == [f"vexhub-main/{name}" for name in ("index.json", "pkg/a.json", "vex-repository.json")]
    told = " ".join(run.steps.values_list("text", flat=True))
    assert "left out: c.json, other/b.json" in told and "named but not there" in told


def test_an_index_that_is_a_link_a_pipe_or_a_folder_is_none(mirror, place, tmp_path, sync_now):
    for spoil in (lambda p: p.symlink_to("/etc/hostname"), lambda p: os.mkfifo(p), lambda p: p.mkdir()):
        index = place / "index.json"
        index.rmdir() if index.is_dir() else index.unlink()
        spoil(index)
        run = sync_now(mirror)
        assert run.state == State.FAILED and "no index.json in" in run.error


@pytest.mark.parametrize("name", ["index.json", "vex-repository.json"])
def test_a_copy_that_is_not_complete_is_refused(name, mirror, place, sync_now):
    (place / name).unlink()
    run = sync_now(mirror)
    assert run.state == State.FAILED and f"There is no {name} in" in run.error and "still being copied" in run.error


@pytest.mark.parametrize("name", ["index.json", "pkg/a.json"])
def test_what_changes_while_it_is_read_is_refused(name, mirror, place, sync_now, monkeypatch):
    real = pack_vex._Folder.read

    def read(self, path, limit):
        found = real(self, path, limit)
        if path == "pkg/a.json" and name == "index.json":
            write(place, documents=("pkg/a.json", "pkg/b.json"))
        return found

    monkeypatch.setattr(pack_vex._Folder, "read", read)
    if name != "index.json":
        grows = os.fstat

        def fstat(file):
            found = grows(file)
            if found.st_size == len(b'{"statements": []}'):
                (place / name).open("ab").write(b" ")
            return found

        monkeypatch.setattr(pack_vex.os, "fstat", fstat)
    run = sync_now(mirror)
    assert run.state == State.FAILED and f"{name} changed while it was read" in run.error


def test_a_directory_that_is_not_there_or_not_readable_is_a_sentence(make_mirror, tmp_path, sync_now):
    run = sync_now(make_mirror("one", "vex", sources=["/nowhere/vexhub"]))
    assert "The directory /nowhere/vexhub cannot be read: No such file or directory" in run.error
    (tmp_path / "file").write_text("")
    run = sync_now(make_mirror("two", "vex", sources=[str(tmp_path / "file")]))
    assert "Not a directory" in run.error
    (tmp_path / "stick").mkdir()
    run = sync_now(make_mirror("three", "vex", sources=[f"{tmp_path}/stick//sub"]))
    assert "There is no directory sub in" in run.error


def test_our_own_data_and_what_is_around_it_is_never_read(make_mirror, data_dir, sync_now, tmp_path):
    for name, place in (("a", data_dir), ("b", data_dir.parent), ("c", data_dir / "blobs")):
        place.mkdir(exist_ok=True)
        write(place)
        run = sync_now(make_mirror(name, "vex", sources=[str(place)]))
        assert run.state == State.FAILED and "this instance's own data" in run.error


def test_only_the_directories_of_the_setting_are_read(make_mirror, place, settings, sync_now, tmp_path):
    settings.AIRGAP_VEX_DIRECTORIES = [str(tmp_path / "stick")]
    assert sync_now(make_mirror("one", "vex", sources=[str(place)])).state == State.SUCCEEDED
    (tmp_path / "stick" / "link").symlink_to(tmp_path / "elsewhere")
    write(tmp_path / "elsewhere")
    for name, source in (("two", tmp_path / "elsewhere"), ("three", tmp_path / "stick" / "link")):
        run = sync_now(make_mirror(name, "vex", sources=[str(source)]))
        assert run.state == State.FAILED and "AIRGAP_VEX_DIRECTORIES" in run.error


def test_an_index_that_names_too_much_is_bounded(mirror, place, sync_now, monkeypatch):
    monkeypatch.setattr(pack_vex, "BOUNDS", pack_vex.Bounds(tree_bytes=2000))
    (place / "pkg" / "a.json").write_bytes(b" " * 3000)
    run = sync_now(mirror)
    assert run.state == State.FAILED and "larger than is taken" in run.error


@pytest.mark.parametrize("location", ["../../../etc/passwd", "/etc/passwd", "a/../../b"])
def test_an_index_that_leaves_its_folder_is_refused(location, mirror, place, sync_now):
    (place / INDEX_FILE).write_text(json.dumps({"packages": [{"id": "a", "location": location}]}))
    run = sync_now(mirror)
    assert run.state == State.FAILED and "leaves the index's folder" in run.error


# Settings and tests


def test_pages_say_that_it_is_read_from_the_disk(mirror, as_administrator, sync_now):
    sync_now(mirror)
    assert "certificate not verified" not in as_administrator.get("/databases/hub/").text
    for page in ("/settings/mirrors/hub/", "/databases/hub/"):
        text = as_administrator.get(page).text
        assert "read from the disk" in text and "anonymous" not in text and ">verified" not in text


def test_a_directory_takes_no_login_and_is_looked_at_when_it_is_saved(data_dir, db, now, place, settings):
    spec = SourceSpec(f"file://{place}", insecure=True)
    mirror = mirroring.add_mirror("hub", mirroring.Settings(kind="vex", sources=[spec]), by="", now=now)
    assert mirror.sources.get().insecure is False
    for text, said in (
        (str(data_dir), "own data"), ("file://host/x", "is not a directory"), ("/a/../b", "is not a directory"),
        ("file:relative", "is not a directory"), ("/", "is not a directory"),
    ):  # fmt: skip
        with pytest.raises(RuleBroken, match=said):
            mirroring.add_mirror("x", mirroring.Settings(kind="vex", sources=[SourceSpec(text)]), by="", now=now)


def test_the_test_of_a_source_reads_the_index(mirror, place, data_dir):
    (report,) = try_mirror(mirror)
    assert report.ok and report.offers == "directory of a VEX repository, 1 package" and report.hops == ()
    (place / "index.json").unlink()
    (report,) = try_mirror(mirror)
    assert not report.ok and "no index.json" in report.error


def test_a_bundle_carries_it_and_does_not_say_where_it_lay(mirror, sync_now, place, tmp_path):
    sync_now(mirror)
    held = exporting.current_snapshots(["hub"])
    bundle = exporting.create_bundle(held, profile="full", by="otto", now=datetime.now(UTC))
    file = exporting.file_of(bundle)
    whole = b"".join(file.read(0, file.size))
    assert b'"reference": "file:vexhub"' in whole and b"transport  none, read from a directory" in whole
    assert b"TLS NOT verified" not in whole
    assert str(place).encode() not in whole
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        unpack_tar(tar, tmp_path)
    script = tmp_path / bundle.filename.removesuffix(".tar") / "install.sh"
    done = subprocess.run(["sh", script, tmp_path / "cache"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (index,) = (tmp_path / "cache" / "vex").rglob("index.json")
    assert index.parent.name == "0.1" and (index.parent / "pkg" / "a.json").exists()
