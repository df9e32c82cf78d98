"""Volumes and single files: chosen on the bundle's page, sent like the whole, counted when all were taken."""

import base64
import hashlib
import json
import random
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from mirrors import bundle_signing, exporting, keys, sites, splitting, transfers
from mirrors.bundle.volumes import PRESETS, cut
from mirrors.exporting import ExportError
from mirrors.models import AuditEntry, Bundle, BundlePart, Export
from mirrors.signing import Key, sign
from tests.kept import keep_build, keep_vex

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def sent(monkeypatch):
    """Ids of bundles that a worker was woken for."""
    woken = []
    monkeypatch.setattr("mirrors.tasks.send", lambda task, *args: woken.append((task.name, *args)))
    return woken


@pytest.fixture
def held(store, make_mirror, now):
    return [
        keep_build(store, make_mirror("trivy-db", label="Vulnerability DB"), now - 5 * HOUR, padding=2_500_000),
        keep_vex(store, make_mirror("vexhub", "vex", label="VEX Hub", position=200), now - 30 * HOUR),
    ]


@pytest.fixture
def bundle(held, store):
    return exporting.create_bundle(held, profile="full", now=timezone.now(), by="otto", store=store)


@pytest.fixture
def volumes(bundle, store):
    """The bundle cut into three, not summed yet."""
    splitting.choose(bundle, MIB, by="otto", now=timezone.now())
    bundle.refresh_from_db()
    return bundle


@pytest.fixture
def files(held, store):
    bundle = exporting.create_bundle(held, profile="files", now=timezone.now(), by="otto", store=store)
    assert exporting.prepare(bundle.pk, store=store)
    bundle.refresh_from_db()
    return bundle


def page(bundle):
    return reverse("mirrors:bundle-detail", args=[bundle.pk])


def cut_url(bundle):
    return reverse("mirrors:bundle-cut", args=[bundle.pk])


def volume(bundle, number):
    return reverse("mirrors:volume-download", args=[bundle.pk, number])


def file(bundle, name):
    return reverse("mirrors:file-download", args=[bundle.pk, name])


def body(response):
    return b"".join(response.streaming_content)


def whole(bundle, store):
    found = exporting.file_of(bundle, store)
    return b"".join(found.read(0, found.size))


# Choosing


def test_the_page_offers_media_and_how_many_volumes_each_makes(as_operator, bundle):
    Bundle.objects.filter(pk=bundle.pk).update(size_bytes=5_000_000_000)
    text = as_operator.get(page(bundle)).content.decode()
    for words in ("CD, 700 MB", "8 volumes", "DVD, 4.7 GB", "2 volumes", "FAT32, 4 GiB − 1", "Cut it"):
        assert words in text


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_is_remembered(as_operator, bundle, sent, preset, django_capture_on_commit_callbacks):
    Bundle.objects.filter(pk=bundle.pk).update(size_bytes=9_000_000_000)
    with django_capture_on_commit_callbacks(execute=True):
        answer = as_operator.post(cut_url(bundle), {"size": preset})
    assert answer.status_code == 302
    bundle.refresh_from_db()
    assert bundle.volume_size == PRESETS[preset]
    names = [part.name(bundle.filename) for part in cut(9_000_000_000, PRESETS[preset])]
    assert list(bundle.parts.values_list("name", flat=True)) == names
    assert sent == [("mirrors.prepare_bundle", bundle.pk)]
    assert AuditEntry.objects.filter(action="bundle cut").count() == 1


def test_another_size_is_in_mib(as_operator, bundle, store):
    as_operator.post(cut_url(bundle), {"size": "custom", "mib": "1"})
    bundle.refresh_from_db()
    assert (bundle.volume_size, len(bundle.volumes)) == (MIB, 3)
    assert exporting.prepare(bundle.pk, store=store)
    text = as_operator.get(page(bundle)).content.decode()
    data = whole(bundle, store)
    for number, part in enumerate(cut(len(data), MIB), 1):
        assert hashlib.sha256(data[part.start : part.stop]).hexdigest() in text
        assert volume(bundle, number) in text
    assert "In 3 volumes" in text
    assert f"cat {bundle.filename}.???of003 &gt; {bundle.filename}" in text
    assert "copy /b" in text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "Choose a medium"),
        ({"size": "floppy"}, "Choose a medium"),
        ({"size": "custom", "mib": "0"}, "whole number of MiB from 1"),
        ({"size": "custom", "mib": "1.5"}, "whole number of MiB from 1"),
        ({"size": "custom", "mib": "9999999999"}, "whole number of MiB from 1"),
        ({"size": "cd"}, "fits without being cut"),
    ],
)
def test_a_size_that_cannot_be_is_explained(as_operator, bundle, values, words):
    text = as_operator.post(cut_url(bundle), values, follow=True).content.decode()
    assert words in text
    bundle.refresh_from_db()
    assert bundle.volume_size == 0
    assert not BundlePart.objects.exists()


def test_the_choice_can_be_changed_until_a_volume_was_taken(as_operator, volumes):
    as_operator.post(cut_url(volumes), {"size": "custom", "mib": "2"})
    assert volumes.parts.count() == 2
    as_operator.post(cut_url(volumes), {"size": "one"})
    assert volumes.parts.count() == 0
    as_operator.post(cut_url(volumes), {"size": "custom", "mib": "1"})
    body(as_operator.get(volume(volumes, 2)))
    text = as_operator.post(cut_url(volumes), {"size": "one"}, follow=True).content.decode()
    assert "A volume of this bundle was taken already" in text
    assert 'name="size"' not in text
    assert volumes.parts.count() == 3


def test_a_bundle_that_is_gone_or_not_ready_is_not_cut(as_operator, bundle, now):
    Bundle.objects.filter(pk=bundle.pk).update(state="damaged")
    with pytest.raises(ExportError, match="not ready"):
        splitting.choose(bundle, MIB, by="otto", now=now)
    exporting.delete_bundle(bundle, by="otto", now=now)
    with pytest.raises(ExportError, match="not ready"):
        splitting.choose(bundle, MIB, by="otto", now=now)


# Sums


def test_one_pass_sums_the_whole_and_the_volumes(volumes, store, monkeypatch):
    passes = []
    real = exporting.Composition.sha256
    monkeypatch.setattr(
        exporting.Composition, "sha256", lambda self, *options: passes.append(1) or real(self, *options)
    )
    assert exporting.prepare(volumes.pk, store=store)
    volumes.refresh_from_db()
    data = whole(volumes, store)
    assert volumes.sha256 == hashlib.sha256(data).hexdigest()
    expected = [hashlib.sha256(data[part.start : part.stop]).hexdigest() for part in volumes.volumes]
    assert list(volumes.parts.values_list("sha256", flat=True)) == expected
    assert passes == [1]
    assert not exporting.prepare(volumes.pk, store=store)


def test_volumes_chosen_later_ask_for_a_worker_again(bundle, store, now):
    exporting.prepare(bundle.pk, store=store)
    assert exporting.unprepared(timezone.now(), store) == []
    bundle.refresh_from_db()
    splitting.choose(bundle, MIB, by="otto", now=now)
    assert exporting.unprepared(timezone.now(), store) == [bundle.pk]
    assert exporting.prepare(bundle.pk, store=store)
    assert all(bundle.parts.values_list("sha256", flat=True))
    assert exporting.unprepared(timezone.now(), store) == []


def test_volumes_cut_anew_while_a_worker_sums_get_no_wrong_sum(volumes, store, monkeypatch):
    real = exporting.Composition.sha256

    def cut_meanwhile(self, *options):
        found = real(self, *options)
        splitting.choose(volumes, MIB + 1, by="ada", now=timezone.now())
        return found

    monkeypatch.setattr(exporting.Composition, "sha256", cut_meanwhile)
    exporting.prepare(volumes.pk, store=store)
    assert set(volumes.parts.values_list("sha256", flat=True)) == {""}
    monkeypatch.setattr(exporting.Composition, "sha256", real)
    assert exporting.prepare(volumes.pk, store=store)
    data = whole(volumes, store)
    assert volumes.parts.first().sha256 == hashlib.sha256(data[: MIB + 1]).hexdigest()


def test_a_cache_archive_is_cut_and_summed_too(held, store):
    bundle = exporting.create_bundle(held, profile="cache", now=timezone.now(), by="otto", store=store)
    exporting.prepare(bundle.pk, store=store)
    bundle.refresh_from_db()
    splitting.choose(bundle, MIB, by="otto", now=timezone.now())
    assert exporting.prepare(bundle.pk, store=store)
    bundle.refresh_from_db()
    data = whole(bundle, store)
    assert bundle.sha256 == hashlib.sha256(data).hexdigest()
    assert bundle.parts.first().sha256 == hashlib.sha256(data[:MIB]).hexdigest()
    assert bundle.parts.first().name == f"{bundle.filename}.001of003"


def test_the_list_comes_when_the_sums_are_known(as_operator, volumes, store):
    url = reverse("mirrors:volume-list", args=[volumes.pk])
    assert as_operator.get(url).status_code == 409
    exporting.prepare(volumes.pk, store=store)
    answer = as_operator.get(url)
    volumes.refresh_from_db()
    lines = body(answer).decode().splitlines()
    assert lines[-1] == f"{volumes.sha256}  {volumes.filename}"
    assert [line[66:] for line in lines[:-1]] == [f"{volumes.filename}.00{n}of003" for n in (1, 2, 3)]
    assert f'filename="{volumes.filename}.sha256"' in answer["Content-Disposition"]
    joined = body(as_operator.get(reverse("mirrors:volume-join", args=[volumes.pk]))).decode()
    assert f"cat {volumes.filename}.???of003 > {volumes.filename}" in joined


def test_a_bundle_in_one_piece_has_no_list(as_operator, bundle):
    assert as_operator.get(reverse("mirrors:volume-list", args=[bundle.pk])).status_code == 404


# Sending


def test_joined_the_volumes_are_the_file(as_operator, volumes, store):
    data = b"".join(body(as_operator.get(volume(volumes, number))) for number in (1, 2, 3))
    assert data == whole(volumes, store)


def test_a_volume_is_sent_like_a_file_of_its_own(as_operator, volumes):
    head = as_operator.head(volume(volumes, 2))
    assert head["Content-Length"] == str(MIB)
    assert head["Accept-Ranges"] == "bytes"
    assert head["Content-Type"] == "application/octet-stream"
    assert f'filename="{volumes.filename}.002of003"' in head["Content-Disposition"]
    tags = {as_operator.head(volume(volumes, number))["ETag"] for number in (1, 2, 3)}
    assert len(tags) == 3
    assert all(tag.startswith('"') and tag.endswith('"') for tag in tags)
    same = as_operator.get(volume(volumes, 2), headers={"If-None-Match": head["ETag"]})
    assert same.status_code == 304
    other = as_operator.get(volume(volumes, 3), headers={"If-Match": head["ETag"]})
    assert other.status_code == 412


def test_ranges_of_a_volume_are_those_of_the_file(as_operator, volumes, store):
    data = whole(volumes, store)
    etag = as_operator.head(volume(volumes, 2))["ETag"]
    chance = random.Random(5)
    for _ in range(5):
        start = chance.randrange(MIB)
        stop = chance.randrange(start, MIB)
        answer = as_operator.get(volume(volumes, 2), headers={"Range": f"bytes={start}-{stop}", "If-Range": etag})
        assert answer.status_code == 206
        assert answer["Content-Range"] == f"bytes {start}-{stop}/{MIB}"
        assert body(answer) == data[MIB + start : MIB + stop + 1]
    assert as_operator.get(volume(volumes, 2), headers={"Range": f"bytes={MIB}-"}).status_code == 416
    stale = as_operator.get(volume(volumes, 2), headers={"Range": "bytes=5-", "If-Range": '"other"'})
    assert stale.status_code == 200
    assert body(stale) == data[MIB : 2 * MIB]


def test_another_cut_has_other_entity_tags(as_operator, volumes):
    before = as_operator.head(volume(volumes, 1))["ETag"]
    assert as_operator.head(volume(volumes, 1))["ETag"] == before
    as_operator.post(cut_url(volumes), {"size": "custom", "mib": "2"})
    assert as_operator.head(volume(volumes, 1))["ETag"] != before


@pytest.mark.parametrize("number", [0, 4, 999])
def test_a_number_that_is_none_is_not_found(as_operator, volumes, number):
    assert as_operator.get(volume(volumes, number)).status_code == 404


def test_a_bundle_in_one_piece_has_no_volumes(as_operator, bundle):
    assert as_operator.get(volume(bundle, 1)).status_code == 404


def test_a_bundle_no_longer_kept_is_gone(as_operator, volumes, files, now):
    for bundle in (volumes, files):
        exporting.delete_bundle(bundle, by="otto", now=now)
    assert as_operator.get(volume(volumes, 1)).status_code == 410
    assert as_operator.get(file(files, "bundle.json")).status_code == 410
    assert "In 3 volumes" not in as_operator.get(page(volumes)).content.decode()


def test_exported_is_when_every_volume_was_taken(as_operator, volumes, store):
    for number in (3, 1, 1):
        body(as_operator.get(volume(volumes, number)))
    assert not Export.objects.exists()
    assert "2 of 3 volumes taken" in as_operator.get(page(volumes)).content.decode()
    broken = as_operator.get(volume(volumes, 2))
    next(iter(broken.streaming_content))
    broken._iterator.close()
    body(as_operator.get(volume(volumes, 2), headers={"Range": "bytes=0-99"}))
    assert not Export.objects.exists()
    body(as_operator.get(volume(volumes, 2), headers={"Range": "bytes=100-"}))
    assert Export.objects.count() == 1
    text = as_operator.get(page(volumes)).content.decode()
    assert "Every volume was taken." in text
    assert "(2 times)" in text
    for number in (1, 2, 3):
        body(as_operator.get(volume(volumes, number)))
    assert Export.objects.count() == 2


# Single files


def test_making_single_files_leads_to_the_page(as_operator, held, sent, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        answer = as_operator.post(reverse("mirrors:bundle-create"), {"all": "1", "profile": "files"})
    bundle = Bundle.objects.get()
    assert answer.url == page(bundle)
    assert (bundle.state, bundle.profile) == ("preparing", "files")
    assert sent == [("mirrors.prepare_bundle", bundle.pk)]
    text = as_operator.get(page(bundle)).content.decode()
    assert "The bundle of single files is being prepared." in text
    assert "A worker reads every archive" in text


def test_each_file_stands_on_the_page_with_its_sum(as_operator, files, held):
    text = as_operator.get(page(files)).content.decode()
    assert "Single files" in text
    for name in ("bundle.json", "SHA256SUMS", "README.txt", "trivy-db-2.layer.tar.gz", "vexhub.vex-repository.json"):
        assert file(files, name) in text
    assert held[0].layer_digest.removeprefix("sha256:") in text


def test_each_file_is_sent_by_itself(as_operator, files, held):
    answer = as_operator.get(file(files, "trivy-db-2.layer.tar.gz"))
    assert "sha256:" + hashlib.sha256(body(answer)).hexdigest() == held[0].layer_digest
    assert answer["Content-Type"] == "application/gzip"
    assert answer["ETag"] == f'"{held[0].layer_digest.removeprefix("sha256:")}"'
    part = as_operator.get(file(files, "bundle.json"), headers={"Range": "bytes=0-0"})
    assert (part.status_code, body(part)) == (206, b"{")
    assert as_operator.get(file(files, "README.txt"))["Content-Type"] == "text/plain"


@pytest.mark.parametrize("name", ["nothing", "install.sh", "...", "trivy-db-2.layer.tar.gz.001of001"])
def test_a_file_that_is_none_is_not_found(as_operator, files, name):
    assert as_operator.get(f"/bundles/{files.pk}/files/{name}").status_code == 404


def test_a_bundle_with_folders_gives_no_single_files(as_operator, bundle):
    assert as_operator.get(file(bundle, "bundle.json")).status_code == 404


def test_exported_is_when_every_file_was_taken(as_operator, files):
    names = [part.name for part in splitting.files_shown(files)]
    for name in names[:-1]:
        body(as_operator.get(file(files, name)))
    assert not Export.objects.exists()
    assert f"{len(names) - 1} of {len(names)} files taken" in as_operator.get(page(files)).content.decode()
    body(as_operator.get(file(files, names[-1])))
    assert Export.objects.count() == 1


def test_single_files_that_were_begun_are_made_by_the_next_worker(held, store):
    bundle = exporting.create_bundle(held, profile="files", now=timezone.now(), by="otto", store=store)
    assert exporting.unprepared(timezone.now(), store) == [bundle.pk]
    store.remove(held[0].layer_digest)
    exporting.prepare(bundle.pk, store=store)
    bundle.refresh_from_db()
    assert bundle.state == "failed"
    assert "cannot be bundled" in bundle.problem


# Who may


@pytest.mark.parametrize("which", ["volume", "file"])
def test_parts_are_for_operators(as_viewer, volumes, files, which):
    url = volume(volumes, 1) if which == "volume" else file(files, "bundle.json")
    assert as_viewer.get(url).status_code == 403
    assert Client().get(url).status_code == 401
    assert Client().get(url, headers={"Accept": "text/html"}).status_code == 302
    assert as_viewer.post(url).status_code == 405


def test_a_script_takes_a_volume_by_name_and_password(volumes, operator):
    basic = base64.b64encode(b"otto:correct horse otto").decode()
    answer = Client().get(volume(volumes, 1), headers={"Authorization": f"Basic {basic}"})
    assert len(body(answer)) == MIB
    assert volumes.parts.first().taken_by == "otto"
    listed = Client().get(
        reverse("mirrors:volume-list", args=[volumes.pk]), headers={"Authorization": f"Basic {basic}"}
    )
    assert listed.status_code == 409
    assert Client().get(reverse("mirrors:volume-list", args=[volumes.pk])).status_code == 401


def test_a_viewer_sees_parts_and_cannot_cut(as_viewer, volumes):
    text = as_viewer.get(page(volumes)).content.decode()
    assert "In 3 volumes" in text
    assert ">Download<" not in text
    assert "Cut it" not in text
    assert as_viewer.post(cut_url(volumes), {"size": "one"}).status_code == 403
    assert Client().post(cut_url(volumes), {"size": "one"}).status_code == 302
    assert as_viewer.get(cut_url(volumes)).status_code == 405
    assert as_viewer.get(reverse("mirrors:volume-list", args=[volumes.pk])).status_code == 403


# The page


def test_only_the_parts_are_polled_while_they_are_summed(as_operator, volumes, store):
    answer = as_operator.get(page(volumes), headers={"HX-Request": "true", "HX-Target": "parts"})
    text = answer.content.decode()
    assert text.strip().startswith('<div id="parts" hx-get=')
    assert "<h1" not in text
    exporting.prepare(volumes.pk, store=store)
    text = as_operator.get(page(volumes), headers={"HX-Request": "true", "HX-Target": "parts"}).content.decode()
    assert 'hx-get="' not in text


def test_many_volumes_come_in_pages(as_operator, volumes, monkeypatch):
    monkeypatch.setattr("mirrors.views.parts.PARTS_A_PAGE", 2)
    first, second = (as_operator.get(page(volumes), {"volumes": number}).text for number in (1, 2))
    assert volume(volumes, 2) in first and volume(volumes, 3) not in first
    assert volume(volumes, 3) in second and volume(volumes, 2) not in second
    assert '<a href="?volumes=2#parts" rel="next">Next</a>' in first and "In 3 volumes" in second
    # What asks again while the sums are computed stays on the page.
    assert f'hx-get="{page(volumes)}?volumes=2"' in second
    assert "Page 1 of 2" in as_operator.get(page(volumes), {"volumes": "x"}).text


def test_many_single_files_come_in_pages(as_operator, files, monkeypatch):
    monkeypatch.setattr("mirrors.views.parts.PARTS_A_PAGE", 2)
    text = as_operator.get(page(files), {"files": 2}).text
    assert file(files, "bundle.json") not in text and "Page 2 of" in text
    assert file(files, "bundle.json") in as_operator.get(page(files)).text


def test_the_number_of_queries_does_not_grow_with_volumes(as_operator, bundle):
    counts = []
    for size in (MIB * 2, MIB + MIB // 8):
        splitting.choose(bundle, size, by="otto", now=timezone.now())
        with CaptureQueriesContext(connection) as queries:
            as_operator.get(page(bundle))
        counts.append(len(queries))
    assert counts[0] == counts[1]


# For a site, and signed


def test_single_files_for_a_site_say_so_and_are_signed(held, store, now):
    site = sites.add_site("plant", sites.Wish(), by="ada", now=now)
    transfer = transfers.prepare(site, held, profile="files", by="otto", now=now, store=store)
    assert exporting.prepare(transfer.bundle_id, store=store)
    bundle = Bundle.objects.get(pk=transfer.bundle_id)
    found = {part.name: part.sha256 for part in splitting.files_shown(bundle)}
    document = json.loads(store.read("sha256:" + found["bundle.json"]))
    assert (document["profile"], document["site"], document["transfer"]) == ("files", site.code, transfer.pk)
    assert document["receipt_secret"] == transfer.receipt_secret
    assert b"ssh-keygen -Y verify" in store.read("sha256:" + found["README.txt"])
    assert "SHA256SUMS.sig" in found
    assert bundle.signer


def test_single_files_whose_key_is_outside_wait_for_their_signature(held, store, now):
    key = Key.generate()
    keys.use_elsewhere(key.public_line("outside"), "outside", by="ada", now=now)
    bundle = exporting.create_bundle(held, profile="files", now=timezone.now(), by="otto", store=store)
    assert exporting.prepare(bundle.pk, store=store)
    bundle.refresh_from_db()
    assert (bundle.state, bundle.signer) == ("unsigned", key.fingerprint)
    signature = sign(bundle_signing.document(bundle, "SHA256SUMS", store), key)
    bundle_signing.attach(bundle, signature, by="ada", now=now, store=store)
    assert exporting.prepare(bundle.pk, store=store)
    bundle.refresh_from_db()
    assert bundle.sha256 == hashlib.sha256(whole(bundle, store)).hexdigest()
    assert [part.name for part in splitting.files_shown(bundle)][:4] == [
        "bundle.json", "SHA256SUMS", "SHA256SUMS.sig", "README.txt",
    ]  # fmt: skip
