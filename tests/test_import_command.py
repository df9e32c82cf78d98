"""`manage.py import_bundle`: exit status, JSON, a dry run that writes nothing."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.utils import timezone

from mirrors.importing import asking
from mirrors.models import Import, Mirror, Snapshot
from tests.carrying import volumes_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("isolated")]


def run(*args):
    """Exit status, standard output, standard error."""
    out, err = StringIO(), StringIO()
    try:
        call_command("import_bundle", *map(str, args), stdout=out, stderr=err)
    except SystemExit as ended:
        return ended.code, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def test_it_imports_and_says_what_became_of_each(carrier, store):
    path = carrier.bundle({"trivy-db": 5, "vexhub": 30})
    status, out, _ = run(path, "--allow-unsigned", "--json")
    (found,) = json.loads(out)
    assert status == 0
    assert found["outcome"] == "succeeded"
    assert found["problems"] == []
    assert found["signed_by"] is None
    assert {each["mirror"]: each["outcome"] for each in found["snapshots"]} == {
        "trivy-db": "switched",
        "vexhub": "switched",
    }
    assert found["bundle"] == Import.objects.get().bundle
    assert Import.objects.get().allowed_by.endswith("(command line)")
    status, out, _ = run(path, "--allow-unsigned", "--json")
    assert (status, json.loads(out)[0]["outcome"]) == (0, "unchanged")


def test_unsigned_fails_with_a_sentence(carrier, store):
    status, out, err = run(carrier.bundle())
    assert status == 1
    assert "not signed by a trusted key" in err
    assert "Nothing was switched." in err
    assert "this once: --allow-unsigned --reason 'WHY'" in err
    assert "It says of itself, and nothing of it is done:\n  trivy-db: A new mirror" in out
    assert not Snapshot.objects.exists()


def test_what_was_refused_claims_no_outcome_for_its_snapshots(carrier, store):
    _, out, _ = run(carrier.bundle(), "--json")
    (found,) = json.loads(out)
    assert found["outcome"] == "failed"
    assert [each["outcome"] for each in found["snapshots"]] == [None]


def test_a_dry_run_writes_nothing(carrier, store):
    path = carrier.bundle()
    status, out, _ = run(path, "--allow-unsigned", "--dry-run")
    assert status == 0
    assert "A new mirror, trivy-db" in out
    assert "Nothing was written." in out
    assert not Import.objects.exists()
    assert not Mirror.objects.exists()
    assert not list(store.digests())


def test_it_takes_a_folder_of_volumes(carrier, store):
    paths = volumes_of(carrier.bundle(padding=100_000), 3)
    assert run(paths[0].parent, "--allow-unsigned")[0] == 0
    assert Mirror.objects.get().current is not None


def test_what_is_not_there_is_said_and_json_is_still_a_list(carrier, store, tmp_path):
    status, out, err = run(tmp_path / "nothing.tar", "--json")
    assert status == 1
    assert "cannot be read: No such file or directory" in err
    (found,) = json.loads(out)
    assert (found["bundle"], found["outcome"], found["signed_by"], found["snapshots"]) == (None, "failed", None, [])
    assert found["problems"] == [found["error"]] == [err.strip()]


def test_a_missing_volume_is_a_problem_in_json_too(carrier, store):
    first, _ = volumes_of(carrier.bundle(padding=100_000), 2)
    status, out, _ = run(first, "--dry-run", "--json")
    (found,) = json.loads(out)
    assert (status, found["outcome"]) == (1, "failed")
    assert "volume 2 of 2 is missing" in found["problems"][0]


def test_of_damaged_volumes_it_says_how_the_one_is_found(carrier, store):
    first, second = volumes_of(carrier.bundle(padding=100_000), 2)
    data = bytearray(second.read_bytes())
    data[1000] ^= 1
    second.write_bytes(data)
    _, out, _ = run(first, second, "--allow-unsigned", "--json")
    (found,) = json.loads(out)
    whole = first.name.removesuffix(".001of002")
    assert found["outcome"] == "failed"
    assert found["warnings"][0].endswith(f"sha256sum -c --ignore-missing {whole}.sha256")


def test_a_bundle_dated_days_ahead_is_left_to_a_person(carrier, store):
    path = carrier.bundle(made=timezone.now().replace(microsecond=0) + timedelta(days=400))
    status, _, err = run(path, "--allow-unsigned")
    waiting = Import.objects.get()
    assert status == 1
    assert waiting.is_waiting
    assert f"Nothing was switched: import {waiting.pk} waits for somebody's decision on its page." in err
    asking.decide(waiting, switch_older=False, by="ada", now=timezone.now(), store=store)
    assert Mirror.objects.get().current is not None


def test_several_bundles_in_a_folder_have_to_be_named(carrier, store):
    carrier.bundle()
    carrier.bundle({"trivy-java-db": 4})
    status, _, err = run(carrier.folder)
    assert status == 1
    assert "Name the one to import" in err


def test_older_is_switched_to_when_told(carrier, store, now):
    older, newer = carrier.bundle({"trivy-db": 30}), carrier.bundle({"trivy-db": 5})
    run(newer, "--allow-unsigned")
    status, out, _ = run(older, "--allow-unsigned")
    assert status == 0
    assert "kept, not switched" in out
    run(older, "--allow-unsigned", "--switch-older")
    assert Snapshot.objects.get(updated_at=Mirror.objects.get().current.updated_at).replaced_at is not None


def test_older_is_called_so_when_it_comes_again(carrier, store):
    older, newer = carrier.bundle({"trivy-db": 30}), carrier.bundle({"trivy-db": 5})
    for path in (older, newer):
        run(path, "--allow-unsigned")
    status, out, _ = run(older, "--allow-unsigned", "--json")
    (found,) = json.loads(out)
    assert (status, found["outcome"], found["snapshots"][0]["outcome"]) == (0, "unchanged", "older")
    assert found["note"].endswith("older than what is served: kept, not switched.")
    _, out, _ = run(older, "--allow-unsigned", "--dry-run", "--json")
    assert "a snapshot of it is kept already" in json.loads(out)[0]["snapshots"][0]["sentence"]


def test_the_connected_side_imports_nothing(carrier, store, settings):
    path = carrier.bundle()
    settings.AIRGAP_SIDE = "connected"
    status, _, err = run(path)
    assert status == 1
    assert "connected side" in err
