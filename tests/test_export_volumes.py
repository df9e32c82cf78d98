"""`export_bundle --volume-size` and `--profile files`: all of it or nothing, and it joins to the same."""

import errno
import hashlib
import json
import re
import subprocess
import tarfile
from datetime import timedelta
from types import SimpleNamespace

import pytest

from mirrors import splitting
from mirrors.models import Bundle, BundlePart, Export
from tests.kept import keep_build, keep_vex
from tests.test_export_command import run
from tests.unpacking import unpack as unpack_tar

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
MIB = 1024 * 1024


@pytest.fixture
def held(store, make_mirror, now):
    return [
        keep_build(store, make_mirror("trivy-db", position=1), now - 5 * HOUR, padding=2_500_000),
        keep_vex(store, make_mirror("vexhub", "vex", position=2), now - 30 * HOUR),
    ]


def refused(*arguments):
    status, out, err = run(*arguments)
    assert status in (1, 2)
    assert out == ""
    return err


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "medium"
    folder.mkdir()
    return folder


def test_it_writes_volumes_a_list_and_how_to_join_them(held, folder):
    status, out, err = run("export_bundle", "--output", str(folder / "b.tar"), "--volume-size", str(MIB))
    assert (status, err) == (0, "")
    bundle = Bundle.objects.get()
    volumes = [f"b.tar.00{n}of003" for n in (1, 2, 3)]
    assert names_in(folder) == [*volumes, "b.tar.join.txt", "b.tar.sha256"]
    joined = b"".join((folder / name).read_bytes() for name in volumes)
    assert hashlib.sha256(joined).hexdigest() == bundle.sha256
    assert len(joined) == bundle.size_bytes
    check = ["sha256sum", "-c", "--ignore-missing", "--strict", "b.tar.sha256"]
    assert subprocess.run(check, cwd=folder, capture_output=True, text=True).stdout.count(": OK") == 3
    (folder / "b.tar").write_bytes(joined)
    assert subprocess.run(check, cwd=folder, capture_output=True, text=True).stdout.count(": OK") == 4
    assert "In 3 volumes: b.tar.001of003 to b.tar.003of003" in out


def test_they_count_as_taken_and_the_bundle_as_exported_once(held, folder):
    run("export_bundle", "--output", str(folder), "--volume-size", str(MIB))
    assert Export.objects.count() == 1
    rows = BundlePart.objects.filter(kind="volume")
    assert [(row.times, len(row.sha256)) for row in rows] == [(1, 64)] * 3
    assert Bundle.objects.get().filename + ".001of003" in names_in(folder)


@pytest.mark.parametrize("preset", ["cd", "DVD", "fat32"])
def test_a_bundle_that_fits_is_one_volume_for_a_script(held, folder, preset):
    run("export_bundle", "--output", str(folder / "b.tar"), "--volume-size", preset)
    assert names_in(folder) == ["b.tar.001of001", "b.tar.join.txt", "b.tar.sha256"]


def test_it_names_the_volumes_in_json(held, folder):
    _, out, _ = run("export_bundle", "--output", str(folder / "b.tar"), "--volume-size", str(MIB), "--json")
    (found,) = json.loads(out)
    assert found["file"] == str(folder / "b.tar")
    assert [entry["file"] for entry in found["volumes"]] == [str(folder / f"b.tar.00{n}of003") for n in (1, 2, 3)]
    for entry in found["volumes"]:
        data = (folder / entry["file"]).read_bytes()
        assert (entry["size"], entry["sha256"]) == (len(data), "sha256:" + hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("size", "words"),
    [("floppy", "cd, dvd, fat32 or a number of bytes"), ("1000", "at least 1,048,576 bytes"), ("-1", "a number")],
)
def test_a_size_that_cannot_be_is_refused_before_anything_is_made(held, folder, size, words):
    assert re.search(words, refused("export_bundle", "--output", str(folder), f"--volume-size={size}"))
    assert not Bundle.objects.exists()


def test_volumes_do_not_go_to_standard_output(held):
    assert re.search("standard output", refused("export_bundle", "--output", "-", "--volume-size", "cd"))


@pytest.mark.parametrize("broken", ["001of003", "003of003", "sha256"])
def test_when_the_disk_refuses_nothing_is_left(held, folder, monkeypatch, broken):
    real = splitting._Writer._open

    def full(self, name):
        if name.endswith(broken):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, name)

    monkeypatch.setattr(splitting._Writer, "_open", full)
    said = refused("export_bundle", "--output", str(folder / "b.tar"), "--volume-size", str(MIB))
    assert "No space left on device. Nothing was left there" in said
    assert names_in(folder) == []
    assert Bundle.objects.get().expired_at is not None
    assert not Export.objects.exists()


@pytest.mark.parametrize("more", [[], ["--volume-size", "cd"]])
def test_it_says_before_the_first_byte_that_there_is_no_room(held, folder, monkeypatch, more):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    said = refused("export_bundle", "--output", str(folder / "b.tar"), *more)
    assert re.search(r"has 1000 B free, and the bundle needs 2\.. MiB. Nothing was written", said)
    assert names_in(folder) == []


def test_single_files_come_as_a_tar_without_folders(held, folder):
    status, _, _ = run("export_bundle", "--output", str(folder), "--profile", "files")
    assert status == 0
    (tar,) = folder.iterdir()
    assert tar.name.startswith("airgap-files-")
    with tarfile.open(tar) as archive:
        unpack_tar(archive, folder)
    assert "trivy-db-2.layer.tar.gz" in names_in(folder)
    assert "vexhub.vex-repository.json" in names_in(folder)
    done = subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=folder)
    assert done.returncode == 0
