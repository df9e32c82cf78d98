"""`site`, and `export_bundle --site`, as a script meets them."""

import io
import json
import tarfile
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from mirrors.models import AuditEntry, Bundle, Site, Transfer
from tests.kept import keep_build, keep_vex

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def held(store, make_mirror):
    today = timezone.now()
    return [
        keep_build(store, make_mirror("trivy-db", position=1), today - 5 * HOUR),
        keep_vex(store, make_mirror("vexhub", "vex", position=2), today - 30 * HOUR),
    ]


def run(command, *arguments):
    """Exit status, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    try:
        call_command(command, *arguments, stdout=out, stderr=err)
    except SystemExit as ended:
        status = ended.code
    except CommandError as wrong:
        status, err = wrong.returncode if hasattr(wrong, "returncode") else 2, io.StringIO(str(wrong))
    return status, out.getvalue(), err.getvalue()


def test_sites_are_added_listed_edited_and_removed(db):
    assert run("site", "list") == (0, "", "There is no site. Add one: manage.py site add NAME.\n")
    status, out, _ = run("site", "add", "plant-nord", "--label", "Plant Nord", "--receipts", "none")
    assert (status, out.splitlines()[0][:44]) == (0, "Added plant-nord with the code PLANT-NORD. I")
    assert run("site", "edit", "PLANT-NORD", "--courier-days", "3")[1] == "courier: as everywhere → 3 days\n"
    assert run("site", "edit", "plant-nord", "--courier-days", "")[1] == "courier: 3 days → as everywhere\n"
    assert "Nothing to change" in run("site", "edit", "plant-nord", "--receipts", "none")[1]
    out = run("site", "list")[1]
    assert out == "plant-nord  Plant Nord (PLANT-NORD, no receipts): never, nothing arrived yet\n"
    assert run("site", "remove", "plant-nord")[0] == 0
    assert not Site.objects.exists()


def test_wrong_names_and_values_are_wrong_usage_and_taken_ones_refused(db):
    run("site", "add", "lab-7")
    assert run("site", "add", "Lab")[0] == 2
    assert run("site", "add", "lab-7")[0] == 1
    assert run("site", "list", "elsewhere")[0] == 2
    assert run("site", "edit", "lab-7", "--courier-days", "often")[0] == 2
    assert run("site", "remove", "elsewhere")[0] == 2
    assert run("site", "mark", "nothing", "--carried")[0] == 1


def test_a_bundle_is_exported_for_a_site_and_then_only_what_it_lacks(held, store, tmp_path):
    run("site", "add", "lab-7")
    status, out, err = run(
        "export_bundle", "--site", "lab-7", "--missing", "--reference", "Form 1", "--output", str(tmp_path), "--json"
    )
    assert (status, err) == (0, "")
    (first,) = json.loads(out)
    assert (first["site"], first["left_out"]) == ("lab-7", [])
    assert [each["mirror"] for each in first["snapshots"]] == ["trivy-db", "vexhub"]
    assert run("site", "mark", first["bundle"], "--carried", "--reference", "Disc 3")[0] == 0
    assert run("site", "mark", first["transfer"], "--received")[0] == 0

    status, out, err = run("export_bundle", "--site", "lab-7", "--missing", "--output", str(tmp_path), "--json")
    assert (status, json.loads(out)) == (0, [])
    assert "there is nothing to send" in err
    assert Bundle.objects.count() == 1

    keep_build(store, held[0].mirror, timezone.now() - HOUR)
    target = tmp_path / "second.tar"
    status, out, _ = run("export_bundle", "--site", "LAB-7", "--missing", "--output", str(target))
    assert status == 0
    assert "with trivy-db, without vexhub for lab-7." in out
    with tarfile.open(target) as tar:
        told = json.load(tar.extractfile(tar.getmembers()[0]))
    assert (told["site"], [each["mirror"] for each in told["assumed"]]) == ("LAB-7", ["vexhub"])


def test_the_list_for_programs_says_how_old_it_is_and_how_that_is_known(held, tmp_path):
    run("site", "add", "lab-7", "--receipts", "none")
    run("export_bundle", "--site", "lab-7", "--output", str(tmp_path))
    transfer = Transfer.objects.get()
    run("site", "mark", transfer.pk, "--carried")
    status, out, _ = run("site", "list", "lab-7", "--json")
    (site,) = json.loads(out)
    assert status == 0
    assert (site["state"], site["assumed"], site["last_transfer"]["state"]) == ("fresh", True, "carried")
    assert {row["mirror"]: (row["state"], row["evidence"], row["is_current"]) for row in site["databases"]} == {
        "trivy-db": ("fresh", "assumed", True),
        "vexhub": ("fresh", "assumed", True),
    }
    assert transfer.receipt_secret not in out
    assert "trivy-db: 5 h, fresh; assumed; as here" in run("site", "list")[1]
    out = run("export_bundle", "--site", "lab-7", "--missing", "--assume-carried", "--output", str(tmp_path))
    assert "there is nothing to send" in out[2]


def test_marks_say_why_and_can_be_taken_back(held, tmp_path):
    run("site", "add", "lab-7")
    run("export_bundle", "--site", "lab-7", "--output", str(tmp_path))
    pk = Transfer.objects.get().pk
    assert run("site", "mark", pk, "--rejected", "lost on the way")[0] == 0
    assert Transfer.objects.get().reason == "lost on the way"
    assert run("site", "mark", pk, "--received")[0] == 1
    assert run("site", "mark", pk, "--take-back")[0] == 0
    assert run("site", "mark", pk, "--received", "--reference", "x")[0] == 2
    assert Transfer.objects.get().state == "prepared"


def test_what_is_about_a_site_needs_one(held, tmp_path):
    output = ("--output", str(tmp_path))
    assert run("export_bundle", "--missing", *output)[0] == 2
    assert run("export_bundle", "--reference", "x", *output)[0] == 2
    assert run("export_bundle", "--site", "elsewhere", *output)[0] == 2
    run("site", "add", "lab-7")
    assert run("export_bundle", "--site", "lab-7", "--assume-carried", *output)[0] == 2
    assert not Bundle.objects.exists()


def test_an_export_that_fails_leaves_no_transfer(held, tmp_path):
    run("site", "add", "lab-7")
    assert run("export_bundle", "--site", "lab-7", "--output", str(tmp_path / "no" / "folder.tar"))[0] == 1
    assert not Transfer.objects.exists()
    assert AuditEntry.objects.filter(action="bundle deleted").exists()
