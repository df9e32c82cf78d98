"""The page Import: what it says, who may do what, and the way from an upload to a switch."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse

from mirrors import keys, tasks, wording
from mirrors.importing import staging
from mirrors.importing.asking import IMPORTS, Wishes, request_import
from mirrors.importing.finding import at_paths
from mirrors.importing.perform import perform
from mirrors.models import AuditEntry, Import, Mirror, Upload
from tests.carrying import flip, list_of, single_files_of, volumes_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("isolated")]
PAGE = "/import/"


@pytest.fixture(autouse=True)
def no_broker(monkeypatch):
    monkeypatch.setattr(tasks, "send", lambda task, *args: True)


@pytest.fixture
def waiting(carrier, take):
    return take(carrier.bundle({"trivy-db": 5, "vexhub": 30}), wishes=Wishes(allow_unsigned=True))


def uploaded(path, operator, now, whole=True):
    upload = staging.begin(path.name, path.stat().st_size, by=operator.username, now=now)
    data = path.read_bytes()
    data = data if whole else data[:100]
    with path.open("rb") as file:
        staging.append(upload, 0, file.read, len(data), now=lambda: now)
    return upload


def test_it_works_for_everybody_who_is_signed_in(as_viewer, store):
    answer = as_viewer.get(PAGE)
    assert answer.status_code == 200
    assert b"Nothing has come across yet." in answer.content
    assert b'id="drop"' not in answer.content
    assert b">Import</a>" in answer.content


def test_it_needs_a_login(client, store):
    assert client.get(PAGE).status_code == 302


def test_there_is_no_such_page_on_the_connected_side(as_operator, settings, store):
    settings.AIRGAP_SIDE = "connected"
    assert as_operator.get(PAGE).status_code == 404
    assert b">Import</a>" not in as_operator.get("/").content


def test_operators_find_where_to_drop_a_bundle(as_operator, store):
    content = as_operator.get(PAGE).content.decode()
    assert 'data-endpoint="/import/uploads/"' in content
    assert "tus-js-client-4.3.1" in content
    assert "Uploading needs JavaScript" in content
    assert "manage.py import_bundle" in content


@pytest.mark.parametrize("name", ["import-switch", "import-stop", "import-again", "import-allow"])
def test_changes_need_a_post_and_a_role(client, as_viewer, waiting, name):
    url = reverse(f"mirrors:{name}", args=[waiting.pk])
    assert as_viewer.get(url).status_code == 405
    assert as_viewer.post(url).status_code == 403
    assert Client().post(url).status_code == 302


@pytest.mark.parametrize("name", ["import-uploads", "import-directory", "upload-remove"])
def test_so_do_beginnings(as_viewer, store, name):
    url = reverse(f"mirrors:{name}")
    assert as_viewer.get(url).status_code == 405
    assert as_viewer.post(url).status_code == 403


def test_operators_may_not_allow_what_is_refused(as_operator, carrier, take):
    run = take(carrier.bundle(), wishes=Wishes())
    assert as_operator.post(reverse("mirrors:import-allow", args=[run.pk]), {"reason": "x"}).status_code == 403
    assert b"Allow unsigned" not in as_operator.get(f"/import/{run.pk}/").content


def test_an_administrator_allows_an_unsigned_bundle_with_a_reason(as_administrator, carrier, take):
    run = take(carrier.bundle(), wishes=Wishes())
    content = as_administrator.get(f"/import/{run.pk}/").content.decode()
    assert "Allow unsigned" in content
    answer = as_administrator.post(reverse("mirrors:import-allow", args=[run.pk]), {"reason": "sums compared"})
    fresh = Import.objects.latest("pk")
    assert answer["Location"] == f"/import/{fresh.pk}/"
    assert fresh.allow_unsigned
    assert "sums compared" in AuditEntry.objects.get(action="import allowed").detail


def test_the_report_stands_before_anything_is_switched(as_operator, waiting):
    content = as_operator.get(f"/import/{waiting.pk}/").content.decode()
    assert "is verified." in content
    assert "A new mirror, trivy-db" in content
    assert ">Switch</button>" in content
    assert ">Discard</button>" in content
    assert not Mirror.objects.exists()


def test_a_viewer_sees_the_report_without_buttons(as_viewer, waiting):
    content = as_viewer.get(f"/import/{waiting.pk}/").content.decode()
    assert "A new mirror, trivy-db" in content
    assert ">Switch</button>" not in content


def test_a_key_revoked_meanwhile_leaves_only_discarding(as_operator, carrier, take, now):
    keys.trust("north", keys.own_key().public_line("north"), by="ada", now=now)
    run = take(carrier.bundle(), wishes=Wishes())
    keys.revoke("north", by="ada", now=now)
    content = as_operator.get(f"/import/{run.pk}/").content.decode()
    assert "may not be switched to any more" in content
    assert "was revoked by ada" in content
    assert ">Switch</button>" not in content
    assert ">Discard</button>" in content
    answer = as_operator.post(reverse("mirrors:import-switch", args=[run.pk]), follow=True)
    assert b"discard it" in answer.content
    assert not Mirror.objects.exists()


def test_switching_switches_all(as_operator, waiting):
    answer = as_operator.post(reverse("mirrors:import-switch", args=[waiting.pk]), follow=True)
    assert b"is in." in answer.content
    assert Mirror.objects.exclude(current=None).count() == 2
    assert Import.objects.get().decided_by == "otto"


def test_discarding_switches_nothing(as_operator, waiting):
    answer = as_operator.post(reverse("mirrors:import-stop", args=[waiting.pk]), follow=True)
    assert b"Discarded by otto" in answer.content
    assert not Mirror.objects.exists()


def test_older_ones_are_switched_only_with_their_own_button(as_operator, carrier, take, now):
    older, newer = carrier.bundle({"trivy-db": 30}), carrier.bundle({"trivy-db": 5})
    take(newer)
    first = Mirror.objects.get().current_id
    run = take(older, wishes=Wishes(allow_unsigned=True))
    assert b"Switch to older ones too" in as_operator.get(f"/import/{run.pk}/").content
    as_operator.post(reverse("mirrors:import-switch", args=[run.pk]), {"older": "1"})
    assert Mirror.objects.get().current_id != first


def test_an_older_bundle_that_was_here_already_is_called_older(as_operator, carrier, take):
    older, newer = carrier.bundle({"trivy-db": 30}), carrier.bundle({"trivy-db": 5})
    for path in (older, newer):
        take(path)
    run = take(older)
    text = as_operator.get(f"/import/{run.pk}/").text
    assert run.state == "unchanged"
    assert f"Bundle {run.bundle} is older than what is served." in text
    assert "a snapshot of it is kept already, not switched, unless you say so." in text
    assert "older than what is served: kept, not switched." in as_operator.get("/import/").text


def test_uploaded_volumes_become_one_import_in_their_order(as_operator, operator, carrier, store, now):
    first, second, third = volumes_of(carrier.bundle(padding=50_000), 3)
    name = first.name.removesuffix(".001of003")
    for path in (third, first):
        uploaded(path, operator, now)
    content = as_operator.get(PAGE).content.decode()
    assert "volume 2 of 3 is missing" in content
    answer = as_operator.post(reverse("mirrors:import-uploads"), {"name": name}, headers={"accept": "application/json"})
    assert "volume 2 of 3 is missing" in answer.json()["problem"]
    uploaded(second, operator, now)
    answer = as_operator.post(reverse("mirrors:import-uploads"), {"name": name}, headers={"accept": "application/json"})
    run = Import.objects.get()
    assert answer.json() == {"url": f"/import/{run.pk}/"}
    assert [file["name"] for file in run.files] == [first.name, second.name, third.name]
    Import.objects.update(allow_unsigned=True)
    perform(run.pk, store=store, heart=False)
    run.refresh_from_db()
    assert run.is_waiting
    assert not Upload.objects.exists()
    assert list(staging.folder().iterdir()) == []


def test_a_half_upload_is_not_imported(as_operator, operator, carrier, store, now):
    path = carrier.bundle()
    uploaded(path, operator, now, whole=False)
    assert b"drop the same file again to go on" in as_operator.get(PAGE).content
    as_operator.post(reverse("mirrors:import-uploads"), {"name": path.name})
    assert not Import.objects.exists()
    as_operator.post(reverse("mirrors:upload-remove"), {"name": path.name})
    assert not Upload.objects.exists()


def test_what_was_uploaded_stays_for_a_second_try_if_only_its_signature_was_refused(
    as_operator,
    operator,
    carrier,
    store,
    now,
):
    path = carrier.bundle()
    uploaded(path, operator, now)
    as_operator.post(reverse("mirrors:import-uploads"), {"name": path.name})
    run = Import.objects.get()
    perform(run.pk, store=store, heart=False)
    assert Upload.objects.count() == 1
    assert b"Verify again" in as_operator.get(f"/import/{run.pk}/").content
    as_operator.post(reverse("mirrors:import-again", args=[run.pk]))
    assert Upload.objects.get().run == Import.objects.latest("pk")


def test_damaged_uploads_go_at_once(as_operator, operator, carrier, store, now):
    path = carrier.bundle()
    path.write_bytes(path.read_bytes()[:-5000])
    uploaded(path, operator, now)
    as_operator.post(reverse("mirrors:import-uploads"), {"name": path.name})
    perform(Import.objects.get().pk, store=store, heart=False)
    assert not Upload.objects.exists()


@pytest.fixture
def damaged(as_operator, operator, carrier, store, now):
    """damaged(with_list=True) -> the ended import of three volumes, the second with a flipped bit, and their paths."""

    def made(*, with_list=True):
        paths = volumes_of(carrier.bundle(padding=50_000), 3)
        listed = list_of(paths)
        good = paths[1].read_bytes()
        flip(paths[1])
        for path in (*paths, listed) if with_list else paths:
            uploaded(path, operator, now)
        paths[1].write_bytes(good)
        as_operator.post(reverse("mirrors:import-uploads"), {"name": listed.name.removesuffix(".sha256")})
        run = Import.objects.get()
        Import.objects.update(allow_unsigned=True)
        perform(run.pk, store=store, heart=False)
        return Import.objects.get(), paths

    return made


def test_the_page_says_which_volume_is_damaged_and_what_is_kept_until_when(as_operator, operator, damaged, store, now):
    run, paths = damaged()
    content = as_operator.get(f"/import/{run.pk}/").text
    assert f"Volume 2 of 3 is damaged: {paths[1].name} is not what" in content
    assert "Only volume 2 of 3 must be sent again." in content
    until = wording.utc_text(Upload.objects.first().expires_at)
    assert f"Volumes 1 and 3 are what their list says and stay here until {until}" in content
    assert "Discard what is kept" in content
    assert "Verify again" not in content
    content = as_operator.get(PAGE).text
    assert "volume 2 of 3 is missing" in content
    assert f'<a class="small" href="/import/{run.pk}/">the rest is kept, for it is whole</a>' in content
    assert content.count("data-whole=") == 2
    assert f'data-whole="{paths[0].name}:{paths[0].stat().st_size}"' in content

    uploaded(paths[1], operator, now)
    as_operator.post(reverse("mirrors:import-uploads"), {"name": run.name})
    again = Import.objects.latest("pk")
    assert [file["name"] for file in again.files] == [path.name for path in paths]
    assert "must be sent again" not in as_operator.get(f"/import/{run.pk}/").text


def test_viewers_read_it_and_discard_nothing(client, viewer, damaged):
    run, _ = damaged()
    client.force_login(viewer, backend="django.contrib.auth.backends.ModelBackend")
    content = client.get(f"/import/{run.pk}/").text
    assert "Only volume 2 of 3 must be sent again." in content
    assert "Discard what is kept" not in content
    assert client.post(reverse("mirrors:import-stop", args=[run.pk])).status_code == 403
    assert Upload.objects.count() == 3


def test_what_is_kept_is_discarded_by_its_button(as_operator, damaged):
    run, _ = damaged()
    as_operator.post(reverse("mirrors:import-stop", args=[run.pk]))
    assert not Upload.objects.exists()
    assert list(staging.folder().iterdir()) == []
    assert "must be sent again" not in as_operator.get(f"/import/{run.pk}/").text


def test_without_a_list_the_page_asks_for_it(as_operator, damaged):
    run, _ = damaged(with_list=False)
    content = as_operator.get(f"/import/{run.pk}/").text
    assert "All 3 volumes are kept." in content
    assert f"Drop their list <code>{run.name}.sha256</code>" in content
    content = as_operator.get(PAGE).text
    assert "one of them came damaged</a>" in content
    assert "data-whole" not in content


def test_a_list_alone_is_no_bundle(as_operator, operator, carrier, store, now):
    listed = list_of(volumes_of(carrier.bundle(), 2))
    uploaded(listed, operator, now)
    name = listed.name.removesuffix(".sha256")
    assert "only its list of checksums is here" in as_operator.get(PAGE).text
    answer = as_operator.post(reverse("mirrors:import-uploads"), {"name": name}, headers={"accept": "application/json"})
    assert "its volumes are missing" in answer.json()["problem"]
    as_operator.post(reverse("mirrors:upload-remove"), {"name": name})
    assert not Upload.objects.exists()


def test_bundles_in_an_opened_directory_are_listed_and_taken(as_operator, carrier, store, settings, tmp_path):
    settings.AIRGAP_IMPORT_DIRECTORIES = [str(tmp_path)]
    path = carrier.bundle()
    (carrier.folder / "notes.txt").write_text("x")
    (carrier.folder / "airgap-link.tar").symlink_to("/etc/passwd")
    content = as_operator.get(PAGE).content.decode()
    assert path.name in content
    assert "airgap-link.tar" not in content
    as_operator.post(reverse("mirrors:import-directory"), {"bundle": f"{carrier.folder}/{path.name}"})
    assert Import.objects.get().files[0]["path"] == str(path)


@pytest.mark.parametrize(
    "asked", ["/etc/passwd", "{root}/../../etc/passwd", "{root}/missing.tar", "", "{root}/../x.tar"]
)
def test_nothing_outside_of_it_is_taken(as_operator, carrier, store, settings, asked):
    carrier.bundle()
    settings.AIRGAP_IMPORT_DIRECTORIES = [str(carrier.folder)]
    answer = as_operator.post(
        reverse("mirrors:import-directory"), {"bundle": asked.format(root=carrier.folder)}, follow=True
    )
    assert b"no longer there" in answer.content
    assert not Import.objects.exists()


def test_a_directory_that_is_not_there_is_told(as_operator, store, settings, tmp_path):
    settings.AIRGAP_IMPORT_DIRECTORIES = [str(tmp_path / "usb")]
    assert b"cannot be read" in as_operator.get(PAGE).content


def test_the_number_of_queries_does_not_grow_with_the_rows(
    as_operator,
    carrier,
    take,
    store,
    django_assert_max_num_queries,
    now,
    operator,
):
    path = carrier.bundle()
    for _ in range(3):
        take(path)
    with django_assert_max_num_queries(14) as few:
        as_operator.get(PAGE)
    for _ in range(5):
        take(path)
        take(path, wishes=Wishes(allow_unsigned=True))
    with django_assert_max_num_queries(len(few)):
        as_operator.get(PAGE)


def test_a_running_import_asks_again_and_an_ended_one_rests(as_operator, waiting, now):
    Import.objects.update(state="running")
    assert b'hx-trigger="every 2s' in as_operator.get(f"/import/{waiting.pk}/").content
    Import.objects.update(state="succeeded", finished_at=now)
    assert b"hx-trigger" not in as_operator.get(f"/import/{waiting.pk}/").content


def test_what_a_stranger_named_is_escaped(as_operator, now, store):
    Import.objects.create(
        origin="upload", name="<script>x</script>", queued_at=now, finished_at=now, state="failed",
        error="<b>bold</b>", report={"problems": ["<i>x</i>"]},
    )  # fmt: skip
    for url in (PAGE, f"/import/{Import.objects.get().pk}/"):
        content = as_operator.get(url).content.decode()
        assert "<script>x" not in content
        assert "<b>bold" not in content
        assert "<i>x" not in content


def test_the_receipts_secret_is_on_no_page(as_administrator, waiting):
    Import.objects.update(receipt_secret="5ec4e7" * 8)
    for url in (PAGE, f"/import/{waiting.pk}/"):
        assert b"5ec4e7" not in as_administrator.get(url).content


def test_what_was_uploaded_for_a_stopped_import_is_listed_again(as_operator, operator, carrier, store, now):
    path = carrier.bundle()
    uploaded(path, operator, now)
    as_operator.post(reverse("mirrors:import-uploads"), {"name": path.name})
    as_operator.post(reverse("mirrors:import-stop", args=[Import.objects.get().pk]))
    assert Import.objects.get().state == "cancelled"
    assert b"Uploaded, not imported yet" in as_operator.get(PAGE).content


def test_single_files_are_imported_as_the_set_they_were_sent_as(as_operator, operator, carrier, store, now, tmp_path):
    folder = tmp_path / "singles"
    folder.mkdir()
    *most, last = single_files_of(carrier.bundle(profile="files"), folder)

    def send(path):
        upload = staging.begin(f"airgap-files-abcd/{path.name}", path.stat().st_size, by=operator.username, now=now)
        with path.open("rb") as file:
            staging.append(upload, 0, file.read, upload.size_bytes, now=lambda: now)

    for path in most:
        send(path)
    page = as_operator.get(PAGE).content.decode()
    assert f"{len(most)} single files" in page and f"{last.name} is missing" in page
    answer = as_operator.post(reverse("mirrors:import-uploads"), {"name": "airgap-files-abcd"}, follow=True)
    assert "is missing" in answer.content.decode() and not Import.objects.exists()
    send(last)
    as_operator.post(reverse("mirrors:import-uploads"), {"name": "airgap-files-abcd"})
    run = Import.objects.get()
    assert {file["name"] for file in run.files} == {path.name for path in [*most, last]}
    Import.objects.filter(pk=run.pk).update(allow_unsigned=True, at_once=True)
    perform(run.pk, store=store, heart=False)
    assert Mirror.objects.get().current is not None
    assert not Upload.objects.exists()
    report = as_operator.get(reverse("mirrors:import-detail", args=[run.pk])).content.decode()
    assert f"in {len(most) + 1} files" in report and "volume" not in report


def test_a_set_without_its_list_says_what_is_missing(as_operator, operator, store, now):
    upload = staging.begin("airgap-files-abcd/README.txt", 1, by=operator.username, now=now)
    staging.append(upload, 0, lambda count: b"x", 1, now=lambda: now)
    assert "bundle.json or SHA256SUMS is missing" in as_operator.get(PAGE).content.decode()


def test_a_lost_import_leads_to_the_one_in_its_place(as_operator, carrier, store, now):
    run = request_import(at_paths([carrier.bundle()]), origin="directory", by="otto", now=now)
    IMPORTS.claim(run.pk, now=now)
    Import.objects.update(heartbeat_at=now - timedelta(minutes=5), worker="elsewhere:1:2")
    (again,) = IMPORTS.close_lost(now)
    content = as_operator.get(f"/import/{run.pk}/").content.decode()
    assert f'href="/import/{again.pk}/"' in content
    assert "Verify again" not in content
    assert "<dt>came</dt><dd>from a directory, by otto" in content


def test_a_stopped_import_of_what_lies_in_a_folder_can_be_begun_again(as_operator, carrier, store, now):
    run = request_import(at_paths([carrier.bundle()]), origin="drop", by="", now=now)
    as_operator.post(f"/import/{run.pk}/stop")
    assert b"Verify again" in as_operator.get(f"/import/{run.pk}/").content
