"""A bundle in volumes of which one came damaged: it is named, the others wait for it, and nothing waits for ever."""

import json
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from mirrors import retention
from mirrors.importing import asking, dropping, finding, perform, staging
from mirrors.importing.asking import request_import, request_import_of_uploads
from mirrors.importing.report import Report
from mirrors.models import Import, Mirror, Upload
from mirrors.receipting import giving
from mirrors.receipting.giving import NoReceipt
from tests.carrying import UNSIGNED, flip, list_of, volumes_of
from tests.importing.test_importing import crossing

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("isolated", "data_dir")]


def uploaded(path, now):
    upload = staging.begin(path.name, path.stat().st_size, by="otto", now=now)
    with path.open("rb") as file:
        staging.append(upload, 0, file.read, upload.size_bytes, now=lambda: now)
    return upload


def send(paths, store, now):
    """Upload these, then import all that waits; the import that has ended."""
    for path in paths:
        uploaded(path, now)
    waiting = sorted(Upload.objects.filter(run=None), key=lambda upload: upload.name)
    name = next(upload.name for upload in waiting if not upload.is_list).rpartition(".")[0]
    run = request_import_of_uploads(waiting, name, by="otto", now=now, wishes=UNSIGNED)
    assert perform.perform(run.pk, store=store, heart=False)
    run.refresh_from_db()
    return run


def report_of(run):
    return Report.from_dict(run.report)


def staged():
    return sorted(upload.name for upload in Upload.objects.filter(run=None))


def on_disk():
    return sum(path.stat().st_size for path in staging.folder().iterdir())


@pytest.fixture
def paths(carrier):
    return volumes_of(carrier.bundle(padding=50_000, crossing=crossing()), 3)


def test_only_the_damaged_volume_is_sent_again(paths, store, now):
    listed, good = list_of(paths), paths[1].read_bytes()
    whole = sum(path.stat().st_size for path in (*paths, listed))
    flip(paths[1])
    run = send([paths[2], paths[1], listed, paths[0]], store, now)
    assert run.state == "failed"
    assert run.error.startswith(
        f"Volume 2 of 3 is damaged: {paths[1].name} is not what {listed.name} says. Copy it again."
    )
    assert report_of(run).damaged == [paths[1].name]
    assert not any(problem.endswith("Copy the bundle again.") for problem in report_of(run).problems)
    assert staged() == [paths[0].name, paths[2].name, listed.name]
    assert on_disk() == whole - len(good)
    assert not Mirror.objects.exists()
    with pytest.raises(NoReceipt, match="copy of the bundle is damaged"):
        giving.receipt_of(run)

    paths[1].write_bytes(good)
    again = send([paths[1]], store, now)
    assert again.state == "succeeded"
    assert len(again.files) == 3
    assert Mirror.objects.get().current is not None
    assert not Upload.objects.exists()
    assert list(staging.folder().iterdir()) == []


def test_several_are_named_in_one_sentence(carrier, store, now):
    paths = volumes_of(carrier.bundle(padding=50_000), 6)
    listed = list_of(paths)
    for number in (1, 3, 4):
        flip(paths[number])
    run = send([*paths, listed], store, now)
    said = f"Volumes 2, 4 and 5 of 6 are damaged: they are not what {listed.name} says. Copy them again."
    assert report_of(run).problems[0] == said
    assert report_of(run).wants_another_copy
    assert staged() == [paths[0].name, paths[2].name, paths[5].name, listed.name]


def test_a_volume_that_was_cut_off_is_named_too(paths, store, now):
    listed = list_of(paths)
    paths[0].write_bytes(paths[0].read_bytes()[:-100])
    run = send([*paths, listed], store, now)
    assert report_of(run).damaged == [paths[0].name]
    assert "Volume 1 of 3 has" in report_of(run).problems[1]
    assert len(staged()) == 3


def test_a_damaged_volume_that_makes_the_signature_wrong_is_named(carrier, store, now):
    """A bit of SHA256SUMS fell over: the reader sees a wrong signature, the list sees a damaged volume."""
    paths = volumes_of(carrier.bundle(padding=50_000, crossing=crossing()), 3)
    listed = list_of(paths)
    data = paths[0].read_bytes()
    place = data.index(b"  README.txt\n") - 10
    paths[0].write_bytes(data[:place] + (b"0" if data[place : place + 1] != b"0" else b"1") + data[place + 1 :])
    run = send([*paths, listed], store, now)
    assert report_of(run).signature == "wrong signature"
    assert report_of(run).damaged == [paths[0].name]
    with pytest.raises(NoReceipt, match="copy of the bundle is damaged"):
        giving.receipt_of(run)
    assert staged() == [paths[1].name, paths[2].name, listed.name]


def test_without_a_list_all_are_kept_and_it_is_said_how_to_find_out(paths, store, now):
    listed, good = list_of(paths), paths[2].read_bytes()
    flip(paths[2])
    run = send(paths, store, now)
    (warning,) = report_of(run).warnings
    assert f"sha256sum -c --ignore-missing {listed.name}" in warning
    assert report_of(run).damaged == []
    assert staged() == [path.name for path in paths]
    # The list that comes afterwards tells, without anything else being sent again.
    run = send([listed], store, now)
    assert report_of(run).damaged == [paths[2].name]
    paths[2].write_bytes(good)
    assert send([paths[2]], store, now).state == "succeeded"


def test_without_a_list_the_one_sent_again_takes_the_place_of_the_damaged_one(paths, store, now):
    good = paths[2].read_bytes()
    flip(paths[2])
    send(paths, store, now)
    before = on_disk()
    paths[2].write_bytes(good)
    upload = uploaded(paths[2], now)
    assert on_disk() == before
    assert staged() == [path.name for path in paths]
    assert not staging.was_read(upload)
    assert all(staging.was_read(other) for other in Upload.objects.exclude(pk=upload.pk))
    assert send([], store, now).state == "succeeded"


def test_a_list_that_lies_leads_to_another_refusal_only(paths, store, now):
    listed = list_of(paths)
    flip(paths[2])
    text = list_of(paths).read_text().splitlines(keepends=True)
    listed.write_text("".join(["0" * 64 + text[0][64:], *text[1:]]))
    for again in ([*paths, listed], [paths[0]]):
        run = send(again, store, now)
        assert (run.state, report_of(run).damaged) == ("failed", [paths[0].name])
        assert staged() == [paths[1].name, paths[2].name, listed.name]
    assert not Mirror.objects.exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("no list at all\n", "other lines than sha256sum writes"),
        ("\0" * 200_000, "other lines than sha256sum writes"),
        (f"{'a' * 64}  x.001of003\n{'b' * 64}  x.002of003\n{'c' * 64}  x.003of003\n", "another bundle's"),
    ],
)
def test_a_list_that_cannot_be_true_is_as_none(paths, store, now, text, why):
    listed = list_of(paths)
    listed.write_text(text)
    flip(paths[1])
    run = send([*paths, listed], store, now)
    assert why in report_of(run).warnings[0]
    assert (report_of(run).damaged, report_of(run).unclear) == ([], True)
    assert len(staged()) == 4


def test_a_bundle_that_was_damaged_before_it_was_cut_is_kept_nowhere(paths, store, now):
    flip(paths[1])
    listed = list_of(paths)
    run = send([*paths, listed], store, now)
    assert "All 3 volumes are what" in report_of(run).warnings[0]
    assert not report_of(run).may_be_mended
    assert not Upload.objects.exists()
    assert list(staging.folder().iterdir()) == []


def test_a_list_beside_a_whole_bundle_changes_nothing(paths, store, now):
    listed = list_of(paths)
    listed.write_text("nonsense")
    assert send([*paths, listed], store, now).state == "succeeded"
    assert not Upload.objects.exists()


def test_what_is_kept_goes_after_its_time(paths, store, now, settings):
    listed = list_of(paths)
    flip(paths[1])
    began = timezone.now()
    run = send([*paths, listed], store, now)
    days = timedelta(days=settings.AIRGAP_STAGING_DAYS)
    kept = staging.kept_of(run)
    assert [upload.name for upload in kept] == [paths[0].name, paths[2].name, listed.name]
    assert all(began + days <= upload.expires_at <= timezone.now() + days for upload in kept)
    asking.expire(began + days - timedelta(hours=1))
    assert Upload.objects.count() == 3
    asking.expire(timezone.now() + days)
    assert not Upload.objects.exists()
    assert list(staging.folder().iterdir()) == []


@pytest.mark.parametrize("with_list", [True, False])
def test_what_was_sent_again_while_it_was_read_takes_no_room_twice(paths, store, now, with_list):
    listed, good = list_of(paths), paths[1].read_bytes()
    flip(paths[1])
    sent = [uploaded(path, now) for path in ((*paths, listed) if with_list else paths)]
    name = paths[0].name.rpartition(".")[0]
    run = request_import_of_uploads(sent, name, by="otto", now=now, wishes=UNSIGNED)
    paths[1].write_bytes(good)
    for path in paths[:2]:
        uploaded(path, now)
    perform.perform(run.pk, store=store, heart=False)
    assert staged() == [path.name for path in ((*paths, listed) if with_list else paths)]
    assert on_disk() == sum(upload.size_bytes for upload in Upload.objects.all())
    assert send([], store, now).state == "succeeded"


def test_it_can_be_discarded_at_once(paths, store, now):
    listed = list_of(paths)
    flip(paths[1])
    run = send([*paths, listed], store, now)
    asking.discard(run)
    assert not Upload.objects.exists()
    assert list(staging.folder().iterdir()) == []


def test_what_it_took_into_the_store_goes_too(paths, store, now):
    listed = list_of(paths)
    flip(paths[2])
    send([*paths, listed], store, now)
    retention.prune(timezone.now() + timedelta(days=4000), store)
    assert not list(store.digests())


def test_a_lost_import_with_a_list_is_begun_again(paths, store, now):
    uploads = [uploaded(path, now) for path in (*paths, list_of(paths))]
    run = request_import_of_uploads(uploads, uploads[0].name.rpartition(".")[0], by="otto", now=now, wishes=UNSIGNED)
    asking.stop(run, by="otto", now=now)
    Upload.objects.update(run=run)
    again = asking.again(Import.objects.get(pk=run.pk), by="otto", now=now, wishes=UNSIGNED)
    assert len(again.files) == 3
    assert again.uploads.count() == 4


def test_from_a_directory_the_volume_is_named_if_the_list_lies_there(paths, store, now):
    listed = list_of(paths)
    flip(paths[1])
    run = request_import(finding.at_paths(paths), origin="directory", by="otto", now=now, wishes=UNSIGNED)
    perform.perform(run.pk, store=store, heart=False)
    run.refresh_from_db()
    assert run.error.startswith(f"Volume 2 of 3 is damaged: {paths[1].name}")
    assert all(path.exists() for path in (*paths, listed))


def test_a_link_or_a_device_in_the_lists_place_is_not_read(paths, tmp_path):
    listed = list_of(paths)
    listed.rename(tmp_path / "elsewhere")
    listed.symlink_to(tmp_path / "elsewhere")
    assert finding.list_beside(paths) is None


def test_lists_in_capitals_are_found(paths):
    listed = list_of(paths)
    listed.rename(listed.with_name(listed.name.upper()))
    upper = [path.rename(path.with_name(path.name.upper())) for path in paths]
    found = finding.list_beside(upper)
    assert found is not None and found.name == listed.name.upper()


def test_a_dry_run_by_command_names_it_and_so_does_json(paths, capsys):
    list_of(paths)
    flip(paths[0])
    with pytest.raises((SystemExit, CommandError)):
        call_command("import_bundle", *map(str, paths), "--dry-run", "--allow-unsigned", "--json")
    (said,) = json.loads(capsys.readouterr().out)
    assert said["damaged_volumes"] == [paths[0].name]
    assert said["problems"][0].startswith("Volume 1 of 3 is damaged")


def test_the_result_beside_a_dropped_bundle_names_it(paths, store, now, settings):
    settings.AIRGAP_DROP_DIRECTORY = str(paths[0].parent)
    listed = list_of(paths)
    flip(paths[2])
    dropping.look(now)
    (run,) = dropping.look(now + timedelta(minutes=1))
    Import.objects.filter(pk=run.pk).update(allow_unsigned=True)
    perform.perform(run.pk, store=store, heart=False)
    dropping.lay_down(now)
    assert f"PROBLEM  Volume 3 of 3 is damaged: {paths[2].name} is not what {listed.name} says." in (
        paths[0].with_name(f"{run.name}.result.txt").read_text()
    )
