"""`export_bundle`, `scrub` and `prune` as a script meets them: files, exit statuses, JSON."""

import errno
import hashlib
import io
import json
import os
import subprocess
import tarfile
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from mirrors import exporting
from mirrors.models import AuditEntry, Bundle, Snapshot, SyncRun
from tests.kept import keep_build, keep_vex
from tests.unpacking import unpack as unpack_tar

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def held(store, make_mirror, now):
    make_mirror("empty", "oci", position=9)
    return [
        keep_build(store, make_mirror("trivy-db", position=1), now - 5 * HOUR, padding=100_000),
        keep_vex(store, make_mirror("vexhub", "vex", position=2), now - 30 * HOUR),
    ]


def run(command, *arguments):
    """Exit status, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    try:
        call_command(command, *arguments, stdout=out, stderr=err)
    except SystemExit as ended:
        status = ended.code
    return status, out.getvalue(), err.getvalue()


def test_a_device_or_a_pipe_is_not_replaced_and_a_link_stays_one(held, tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link.tar"
    os.mkfifo(pipe)
    status, out, err = run("export_bundle", "--output", str(pipe), "--json")
    assert (status, json.loads(out)) == (2, [])
    assert "is a device or a pipe" in err
    assert pipe.is_fifo()
    assert not Bundle.objects.exists()
    link.symlink_to(tmp_path / "real.tar")
    assert run("export_bundle", "--output", str(link))[0] == 0
    assert link.is_symlink()
    assert tarfile.is_tarfile(tmp_path / "real.tar")


def test_it_writes_everything_into_one_file(held, tmp_path):
    target = tmp_path / "out.tar"
    status, out, err = run("export_bundle", "--output", str(target))
    assert (status, err) == (0, "")
    bundle = Bundle.objects.get()
    assert hashlib.sha256(target.read_bytes()).hexdigest() == bundle.sha256
    assert f"{bundle.sha256}  out.tar" in out
    assert "with trivy-db and vexhub" in out
    assert set(os.listdir(tmp_path)) == {"data", "out.tar"}
    with tarfile.open(target) as tar:
        unpack_tar(tar, tmp_path)
    done = subprocess.run(
        ["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / bundle.filename.removesuffix(".tar")
    )
    assert done.returncode == 0


def test_it_prints_one_list_of_objects(held, tmp_path):
    target = tmp_path / "out.tar"
    status, out, _ = run("export_bundle", "vexhub", "--output", str(target), "--json")
    assert status == 0
    (found,) = json.loads(out)
    assert found == {
        "bundle": Bundle.objects.get().pk,
        "file": str(target),
        "size": target.stat().st_size,
        "sha256": "sha256:" + hashlib.sha256(target.read_bytes()).hexdigest(),
        "signed_by": Bundle.objects.get().signer,
        "snapshots": [
            {
                "mirror": "vexhub",
                "digest": held[1].layer_digest,
                "updated_at": "2026-11-19T06:00:00Z",
                "size": held[1].size_bytes,
            }
        ],
        "site": None,
        "transfer": None,
        "left_out": [],
    }


def test_it_writes_into_a_folder_under_the_bundles_own_name(held, tmp_path):
    folder = tmp_path / "usb"
    folder.mkdir()
    assert run("export_bundle", "--output", str(folder))[0] == 0
    assert os.listdir(folder) == [Bundle.objects.get().filename]


def test_a_folder_that_is_not_there_is_not_taken_for_a_file(held, tmp_path):
    """A medium that was not mounted: the bundle would lie beside its mount point, under the mount point's name."""
    status, _, err = run("export_bundle", "--output", f"{tmp_path}/stick/")
    assert status == 1
    assert "is a medium not mounted?" in err
    assert not (tmp_path / "stick").exists()


def test_it_writes_to_standard_output(held, capsysbinary):
    status, out, err = run("export_bundle", "trivy-db", "--output", "-")
    assert (status, out) == (0, "")
    data = capsysbinary.readouterr().out
    assert hashlib.sha256(data).hexdigest() == Bundle.objects.get().sha256
    assert "with trivy-db" in err


def test_it_makes_a_cache_archive_here(held, tmp_path):
    target = tmp_path / "cache.tar.gz"
    assert run("export_bundle", "--profile", "cache", "--output", str(target))[0] == 0
    with tarfile.open(target) as tar:
        assert "db/trivy.db" in tar.getnames()


def test_an_export_by_command_is_on_record(held, tmp_path):
    run("export_bundle", "--output", str(tmp_path / "out.tar"))
    bundle = Bundle.objects.get()
    assert bundle.exports.get().by.endswith("(command line)")
    assert bundle.first_exported_at is not None
    assert AuditEntry.objects.filter(action="bundle exported", subject=bundle.filename).exists()


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["nothing"], 2, "There is no mirror named nothing. Mirrors here: trivy-db, vexhub, empty."),
        (["empty"], 1, "empty has nothing to export yet: it was never synced. Sync it first."),
    ],
)
def test_it_refuses_in_a_sentence(held, tmp_path, arguments, status, sentence):
    found = run("export_bundle", *arguments, "--output", str(tmp_path / "out.tar"), "--json")
    assert found == (status, "[]\n", sentence + "\n")
    assert not (tmp_path / "out.tar").exists()


def test_the_bundle_and_json_do_not_share_standard_output(held):
    status, _, err = run("export_bundle", "--output", "-", "--json")
    assert status == 2
    assert "not both" in err


def test_an_output_is_needed(held):
    with pytest.raises(CommandError, match="--output"):
        call_command("export_bundle")


def test_a_full_disk_leaves_nothing_behind(held, tmp_path, monkeypatch):
    target = tmp_path / "out.tar"
    target.write_bytes(b"the bundle of yesterday")

    def full(bundle, output, **_):
        output.write(b"x" * 100)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporting, "write_to", full)
    status, _, err = run("export_bundle", "--output", str(target))
    assert (status, err) == (1, f"{target} cannot be written: No space left on device. Nothing was left there.\n")
    assert target.read_bytes() == b"the bundle of yesterday"
    assert set(os.listdir(tmp_path)) == {"data", "out.tar"}
    assert Bundle.objects.get().expired_at is not None


def test_a_folder_that_is_not_there_is_named(held, tmp_path):
    status, _, err = run("export_bundle", "--output", str(tmp_path / "nowhere" / "out.tar"))
    assert status == 1
    assert "out.tar cannot be written: No such file or directory" in err


def test_a_damaged_part_fails_the_command(held, store, tmp_path):
    path = store.path(held[0].layer_digest)
    os.chmod(path, 0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    status, _, err = run("export_bundle", "--output", str(tmp_path / "out.tar"))
    assert status == 1
    assert "is damaged in the content store" in err
    assert not (tmp_path / "out.tar").exists()


def test_scrub_says_that_all_is_well(held):
    status, out, _ = run("scrub")
    assert (status, out) == (0, "All 5 files in the store are what their names say.\n")


def test_scrub_exits_with_1_and_says_what_it_did(held, store, monkeypatch):
    sent = []
    monkeypatch.setattr("mirrors.tasks.send", lambda task, *args: sent.append(args))
    store.remove(held[0].layer_digest)
    status, out, _ = run("scrub", "--json")
    (found,) = json.loads(out)
    assert status == 1
    assert found["sentence"] == "Of 4 files in the store, 1 missing."
    assert "it is fetched again in run" in found["actions"][0]
    assert sent == [(SyncRun.objects.get().pk,)]


def test_prune_says_what_it_removed_and_who_holds_the_rest(held, store, now):
    held[0].mirror.keep = 1
    held[0].mirror.save()
    keep_build(store, held[0].mirror, now)
    status, out, _ = run("prune")
    assert status == 0
    assert out.startswith("Removed 1 snapshot; ")
    assert "vexhub (1 snapshot)" in out
    assert Snapshot.objects.count() == 2
    status, out, _ = run("prune", "--json")
    assert json.loads(out)[0]["snapshots"] == 0
