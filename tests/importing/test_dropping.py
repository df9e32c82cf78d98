"""The drop folder: picked up when complete, left untouched, answered beside it, and never twice."""

import json
import os
from datetime import timedelta

import pytest

from mirrors.importing import dropping
from mirrors.importing.finding import FindingError
from mirrors.importing.perform import perform
from mirrors.models import Import, Mirror
from tests.carrying import single_files_of, volumes_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("isolated")]
SOON = timedelta(seconds=10)


@pytest.fixture
def look(carrier, settings, now):
    """look(seconds) -> imports that were asked for so many seconds later."""
    settings.AIRGAP_DROP_DIRECTORY = str(carrier.folder)
    dropping._seen.clear()

    def look(seconds=0):
        return dropping.look(now + timedelta(seconds=seconds))

    return look


def finish(run, store):
    Import.objects.filter(pk=run.pk).update(allow_unsigned=True)
    perform(run.pk, store=store, heart=False)


def test_a_complete_bundle_is_taken_when_it_has_been_still_for_a_while(carrier, look, store):
    path = carrier.bundle()
    before = path.read_bytes()
    assert look() == []
    assert look(5) == []
    (run,) = look(10)
    finish(run, store)
    assert Mirror.objects.get().current is not None
    assert path.read_bytes() == before
    assert look(20) == []
    (result,) = json.loads((carrier.folder / f"{path.name}.result.json").read_text())
    assert result["outcome"] == "succeeded"
    assert "trivy-db" in (carrier.folder / f"{path.name}.result.txt").read_text()


def test_it_is_not_taken_twice_even_by_a_process_that_forgot(carrier, look, store):
    carrier.bundle()
    look()
    (run,) = look(10)
    finish(run, store)
    dropping._seen.clear()
    assert look(20) == look(40) == look(60) == []
    assert Import.objects.count() == 1


def test_what_still_grows_waits(carrier, look):
    path = carrier.bundle()
    data = path.read_bytes()
    path.write_bytes(data[:1000])
    look()
    path.write_bytes(data)
    assert look(10) == []
    assert len(look(20)) == 1


def test_a_missing_volume_is_waited_for(carrier, look):
    paths = volumes_of(carrier.bundle(), 3)
    last = paths[1].read_bytes()
    paths[1].unlink()
    assert look() == look(10) == look(20) == []
    paths[1].write_bytes(last)
    look(30)
    assert len(look(40)) == 1


def test_files_that_changed_are_taken_again(carrier, look, store):
    path = carrier.bundle()
    look()
    (run,) = look(10)
    finish(run, store)
    os.utime(path, (0, 0))
    look(20)
    assert len(look(30)) == 1


def test_a_refused_bundle_gets_its_result_too(carrier, look, store):
    path = carrier.bundle()
    look()
    (run,) = look(10)
    perform(run.pk, store=store, heart=False)
    before = os.umask(0o077)
    look(20)
    os.umask(before)
    result = carrier.folder / f"{path.name}.result.txt"
    assert result.stat().st_mode & 0o777 == 0o644
    text = result.read_text()
    assert "PROBLEM" in text
    assert "nothing of it is done:\n" in text
    assert "not signed by a trusted key" in text
    assert "Nothing was switched." in text


def test_a_result_is_not_written_through_a_link(carrier, look, store, tmp_path):
    path = carrier.bundle()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (carrier.folder / f"{path.name}.result.txt").symlink_to(victim)
    look()
    (run,) = look(10)
    finish(run, store)
    look(20)
    assert victim.read_text() == "mine"


def test_a_medium_that_cannot_be_written_to_is_no_fault(carrier, look, store, monkeypatch):
    carrier.bundle()
    look()
    (run,) = look(10)
    finish(run, store)

    def refused(*args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(dropping, "_write", refused)
    look(20)
    run.refresh_from_db()
    assert run.told_at is not None
    assert "stands here only" in run.steps.last().text


def test_without_a_folder_or_on_the_connected_side_nobody_looks(carrier, look, settings):
    carrier.bundle()
    settings.AIRGAP_SIDE = "connected"
    assert look() == look(10) == look(20) == []
    settings.AIRGAP_SIDE, settings.AIRGAP_DROP_DIRECTORY = "isolated", ""
    assert look(30) == look(40) == []


# Single files, of a bundle without folders


@pytest.fixture
def singles(carrier):
    """singles(folder) -> the paths of a bundle's single files, laid there."""

    def lay(folder, **how):
        return single_files_of(carrier.bundle({"trivy-db": 5, "vexhub": 30}, profile="files", **how), folder)

    return lay


def test_single_files_are_taken_when_all_that_is_listed_is_there(carrier, singles, look, store):
    *most, last = singles(carrier.folder)
    data = last.read_bytes()
    last.unlink()
    (carrier.folder / "gateway.log").write_text("let through")
    assert look() == look(10) == look(20) == []
    last.write_bytes(data[:100])
    look(30)
    last.write_bytes(data)
    assert look(40) == []
    (run,) = look(50)
    assert {file["name"] for file in run.files} == {path.name for path in [*most, last]}
    finish(run, store)
    assert Mirror.objects.exclude(current=None).count() == 2
    assert look(60) == look(80) == []
    (result,) = json.loads((carrier.folder / f"{carrier.folder.name}.result.json").read_text())
    assert result["outcome"] == "succeeded"


def test_single_files_may_lie_in_a_folder_of_their_own(carrier, singles, look, store):
    (carrier.folder / "monday").mkdir()
    singles(carrier.folder / "monday")
    carrier.bundle()
    look()
    runs = look(10)
    assert sorted(run.name.endswith(".tar") for run in runs) == [False, True]
    for run in runs:
        finish(run, store)
    dropping._seen.clear()
    assert look(20) == look(40) == []
    assert (carrier.folder / "monday" / "monday.result.txt").exists()


def test_other_single_files_in_the_same_folder_are_another_bundle(carrier, singles, look, store, now):
    singles(carrier.folder)
    look()
    (first,) = look(10)
    finish(first, store)
    singles(carrier.folder, made=now + timedelta(hours=1))
    look(20)
    (second,) = look(30)
    finish(second, store)
    assert Import.objects.filter(state="succeeded").count() == 2
    assert look(40) == look(60) == []


@pytest.mark.parametrize("sums", [b"", b"half a li", b"0" * 64 + b"  blobs/sha256/x\n"])
def test_sums_that_say_nothing_or_have_folders_are_waited_for(carrier, singles, look, sums):
    singles(carrier.folder)
    (carrier.folder / "SHA256SUMS").write_bytes(sums)
    assert look() == look(10) == look(20) == []


def test_a_folder_that_is_gone_is_said(look, settings, tmp_path):
    settings.AIRGAP_DROP_DIRECTORY = str(tmp_path / "gone")
    with pytest.raises(FindingError, match="cannot be read"):
        look()
