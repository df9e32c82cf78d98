"""The bundles' pages, and sending a bundle as browsers and curl ask for it."""

import base64
import hashlib
import os
import random
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from mirrors import exporting
from mirrors.bundle.contents import BundleError
from mirrors.models import AuditEntry, Bundle, Export
from tests.kept import keep_build, keep_vex

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
LIST = reverse("mirrors:bundles")
CREATE = reverse("mirrors:bundle-create")


@pytest.fixture(autouse=True)
def sent(monkeypatch):
    """Ids of bundles that a worker was woken for."""
    woken = []
    monkeypatch.setattr("mirrors.tasks.send", lambda task, *args: woken.append((task.name, *args)))
    return woken


@pytest.fixture
def held(store, make_mirror, now):
    return [
        keep_build(store, make_mirror("trivy-db", label="Vulnerability DB"), now - 5 * HOUR, padding=100_000),
        keep_vex(store, make_mirror("vexhub", "vex", label="VEX Hub", position=200), now - 30 * HOUR),
    ]


@pytest.fixture
def bundle(held, store):
    return exporting.create_bundle(held, profile="full", now=timezone.now(), by="otto", store=store)


def detail(bundle):
    return reverse("mirrors:bundle-detail", args=[bundle.pk])


def download(bundle):
    return reverse("mirrors:bundle-download", args=[bundle.pk])


def body(response):
    return b"".join(response.streaming_content)


def break_off(response):
    """As a server does when the client is gone: no more is asked for, everything is closed."""
    response._iterator.close()


def whole(bundle, store):
    file = exporting.file_of(bundle, store)
    return b"".join(file.read(0, file.size))


# The list


def test_an_empty_page_says_what_it_will_show(as_viewer, data_dir):
    text = as_viewer.get(LIST).content.decode()
    assert "There is nothing to export yet." in text
    assert "Every file that was made to be carried across will stand here." in text


def test_it_opens_with_how_exports_stand(as_operator, held, store, make_mirror, now):
    assert "Nothing has been exported yet." in as_operator.get(LIST).content.decode()
    bundle = exporting.create_bundle(held, profile="full", now=now, by="otto", store=store)
    exporting.record_export(bundle.pk, by="otto", now=now)
    text = as_operator.get(LIST).content.decode()
    assert "Everything current has been exported." in text
    assert f"by otto: {bundle.filename}." in text
    keep_build(store, held[0].mirror, now + HOUR)
    assert "One of two databases is not exported yet." in as_operator.get(LIST).content.decode()


def test_it_lists_bundles_with_contents_sum_and_exports(as_viewer, bundle, store):
    exporting.prepare(bundle.pk, store=store)
    exporting.record_export(bundle.pk, by="otto", now=timezone.now())
    text = as_viewer.get(LIST).content.decode()
    bundle.refresh_from_db()
    for words in (bundle.filename, "Vulnerability DB and VEX Hub", bundle.sha256, "by otto", "ready", "kept until"):
        assert words in text
    assert ">Download<" not in text
    assert "Export everything current" not in text


def test_an_operator_may_download_and_choose(as_operator, bundle):
    text = as_operator.get(LIST).content.decode()
    assert download(bundle) in text
    assert "Export everything current · " in text
    assert "Cache archive" in text


def test_the_list_alone_is_polled_and_silent_while_nothing_changes(as_viewer, bundle):
    first = as_viewer.get(LIST, headers={"HX-Request": "true"})
    text = first.content.decode()
    assert "<html" not in text
    assert 'hx-trigger="every 2s"' in text
    url = text.split('hx-get="')[1].split('"')[0].replace("&amp;", "&")
    assert as_viewer.get(url, headers={"HX-Request": "true"}).status_code == 204
    Bundle.objects.filter(pk=bundle.pk).update(sha256="0" * 64)
    assert 'hx-trigger="every 15s"' in as_viewer.get(url, headers={"HX-Request": "true"}).content.decode()


def test_the_number_of_queries_does_not_grow_with_bundles(as_operator, held, store, now):
    counts = []
    for _ in range(2):
        for index in range(4):
            made = exporting.create_bundle(held, profile="full", now=now + index * HOUR, by="otto", store=store)
            exporting.record_export(made.pk, by="otto", now=now)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert as_operator.get(LIST).status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_it_has_pages(as_viewer, now, data_dir):
    Bundle.objects.bulk_create(
        Bundle(id=f"b{index}", filename=f"f{index}.tar", state="ready", created_at=now + index * HOUR, expires_at=now)
        for index in range(60)
    )
    assert "Page 1 of 2" in as_viewer.get(LIST).content.decode()
    assert "f0.tar" in as_viewer.get(LIST + "?page=2").content.decode()
    assert as_viewer.get(LIST + "?page=nonsense").status_code == 200


def test_the_csv_has_a_row_a_bundle_and_no_formulas(as_viewer, bundle):
    Bundle.objects.filter(pk=bundle.pk).update(created_by_name="=cmd()")
    response = as_viewer.get(reverse("mirrors:bundles-csv"))
    head, row = body(response).decode().splitlines()
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert head.startswith("bundle,file,form,state,")
    assert row.startswith(f"{bundle.pk},{bundle.filename},full,ready,")
    assert "'=cmd()" in row


@pytest.mark.parametrize("name", ["bundles", "bundles-csv"])
def test_the_pages_need_a_login(client, name, db):
    assert client.get(reverse(f"mirrors:{name}")).status_code == 302


# Making


def test_one_click_makes_everything_and_answers_with_the_download(
    as_operator, held, sent, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        response = as_operator.post(CREATE, {"all": "1"})
    made = Bundle.objects.get()
    assert (response.status_code, response.url) == (303, download(made))
    assert (made.profile, made.created_by_name, made.contents.count()) == ("full", "otto", 2)
    assert sent == [("mirrors.prepare_bundle", made.pk)]
    assert AuditEntry.objects.filter(action="bundle created", actor="otto", address="127.0.0.1").exists()


def test_a_double_click_makes_one_bundle(as_operator, held):
    urls = {as_operator.post(CREATE, {"all": "1"}).url for _ in range(2)}
    assert len(urls) == Bundle.objects.count() == 1


def test_it_makes_what_was_chosen(as_operator, held):
    as_operator.post(CREATE, {"mirror": ["vexhub"], "profile": "data"})
    made = Bundle.objects.get()
    assert (made.profile, [row.mirror_name for row in made.contents.all()]) == ("data", ["vexhub"])


def test_it_makes_one_of_an_older_build(as_operator, held, store, now):
    older = keep_build(store, held[0].mirror, now - 40 * HOUR, current=False)
    as_operator.post(CREATE, {"snapshot": older.pk})
    assert Bundle.objects.get().contents.get().digest == older.digest


def test_a_cache_archive_leads_to_its_page(as_operator, held, sent, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        response = as_operator.post(CREATE, {"all": "1", "profile": "cache"})
    made = Bundle.objects.get()
    assert (response.status_code, response.url) == (303, detail(made))
    assert sent == [("mirrors.prepare_bundle", made.pk)]


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({}, "Choose at least one database."),
        ({"all": "1", "profile": "zip"}, "There is no such form of a bundle."),
        ({"mirror": "nothing"}, "There is no mirror called nothing."),
        ({"snapshot": "999"}, "This build is no longer kept."),
        ({"snapshot": "x"}, "This build is no longer kept."),
        ({"snapshot": "9" * 30}, "This build is no longer kept."),
    ],
)
def test_what_cannot_be_made_is_said(as_operator, held, form, problem):
    response = as_operator.post(CREATE, form)
    assert response.status_code == 422
    assert problem in response.content.decode()
    assert not Bundle.objects.exists()


def test_making_is_for_operators_and_by_post(as_viewer, held):
    assert as_viewer.post(CREATE, {"all": "1"}).status_code == 403
    assert as_viewer.get(CREATE).status_code == 405


# One bundle


def test_its_page_shows_contents_sum_and_what_to_do(as_operator, bundle, store):
    exporting.prepare(bundle.pk, store=store)
    bundle.refresh_from_db()
    text = as_operator.get(detail(bundle)).content.decode()
    for words in (
        "Ready to carry: ",
        "with 2 databases.",
        bundle.sha256,
        f"curl --fail -C - -u otto -o {bundle.filename} http://testserver{download(bundle)}",
        "sh install.sh --key ALLOWED_SIGNERS --require-signature CACHE_DIR",
        "sha256sum -c SHA256SUMS",
        "--skip-vex-repo-update",
        bundle.contents.first().digest,
        "Nobody has received the last byte of it yet.",
    ):
        assert words in text


def test_the_curl_line_uses_the_address_this_instance_is_known_by(as_operator, bundle, settings):
    settings.AIRGAP_BASE_URL = "https://airgap.example"
    assert f"https://airgap.example{download(bundle)}" in as_operator.get(detail(bundle)).content.decode()


def test_its_head_is_polled_until_the_sum_is_there(as_viewer, bundle, store):
    first = as_viewer.get(detail(bundle), headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in first
    assert "waits for a worker" in first
    assert 'hx-trigger="every 2s"' in first
    exporting.prepare(bundle.pk, store=store)
    assert "hx-trigger" not in as_viewer.get(detail(bundle), headers={"HX-Request": "true"}).content.decode()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"state": "preparing", "profile": "cache", "work_started_at": timezone.now()},
            "The cache archive is being prepared.",
        ),
        (
            {"state": "failed", "profile": "cache", "problem": "The disk is full."},
            "The cache archive could not be prepared.",
        ),
        ({"state": "damaged", "problem": "Blob abc is damaged."}, "This transfer bundle is damaged and is not sent."),
        ({"expired_at": timezone.now(), "recipe": {}}, "This transfer bundle is no longer kept."),
    ],
)
def test_every_state_has_its_words(as_operator, bundle, fields, words):
    Bundle.objects.filter(pk=bundle.pk).update(**fields)
    text = as_operator.get(detail(bundle)).content.decode()
    assert words in text
    assert fields.get("problem", "") in text
    assert "Download ·" not in text
    assert as_operator.get(LIST).status_code == 200


def test_an_unknown_bundle_is_not_found(as_operator):
    assert as_operator.get("/bundles/nothing/").status_code == 404
    assert as_operator.get("/bundles/nothing/download").status_code == 404


def test_deleting_asks_first(as_operator, bundle):
    url = reverse("mirrors:bundle-delete", args=[bundle.pk])
    assert "Delete this bundle?" in as_operator.get(url).content.decode()
    assert Bundle.objects.get().expired_at is None
    assert as_operator.post(url).url == LIST
    assert Bundle.objects.get().expired_at is not None
    assert "deleted" in as_operator.get(LIST).content.decode()
    assert as_operator.get(url).url == detail(bundle)


def test_deleting_is_for_operators(as_viewer, bundle):
    url = reverse("mirrors:bundle-delete", args=[bundle.pk])
    assert as_viewer.get(url).status_code == 403
    assert as_viewer.post(url).status_code == 403


# Sending


def test_it_sends_the_whole_file(as_operator, bundle, store):
    response = as_operator.get(download(bundle))
    assert response.status_code == 200
    assert response["Content-Length"] == str(bundle.size_bytes)
    assert response["Content-Type"] == "application/x-tar"
    assert response["Content-Disposition"] == f'attachment; filename="{bundle.filename}"'
    assert response["Accept-Ranges"] == "bytes"
    assert response["ETag"] == bundle.etag
    assert response["Cache-Control"] == "private, no-transform"
    assert body(response) == whole(bundle, store)


def test_head_tells_all_of_it_and_exports_nothing(as_operator, bundle):
    response = as_operator.head(download(bundle), headers={"Range": "bytes=0-5"})
    assert response.status_code == 200
    assert response["Content-Length"] == str(bundle.size_bytes)
    assert response["ETag"] == bundle.etag
    assert response.content == b""
    assert not Export.objects.exists()


def test_any_range_is_a_slice_of_the_whole(as_operator, bundle, store):
    data, dice = whole(bundle, store), random.Random(3)
    for _ in range(60):
        start = dice.randrange(len(data))
        stop = min(start + dice.choice([1, 511, 512, 513, 70_000]), len(data))
        response = as_operator.get(download(bundle), headers={"Range": f"bytes={start}-{stop - 1}"})
        assert response.status_code == 206
        assert response["Content-Range"] == f"bytes {start}-{stop - 1}/{len(data)}"
        assert response["Content-Length"] == str(stop - start)
        assert body(response) == data[start:stop]


def test_a_suffix_and_an_open_range(as_operator, bundle, store):
    data = whole(bundle, store)
    assert body(as_operator.get(download(bundle), headers={"Range": "bytes=-1000"})) == data[-1000:]
    assert body(as_operator.get(download(bundle), headers={"Range": "bytes=1000-"})) == data[1000:]


def test_several_ranges_get_the_whole(as_operator, bundle, store):
    response = as_operator.get(download(bundle), headers={"Range": "bytes=0-1,5-6"})
    assert response.status_code == 200
    assert body(response) == whole(bundle, store)


def test_a_range_past_the_end_is_refused_with_the_size(as_operator, bundle):
    response = as_operator.get(download(bundle), headers={"Range": f"bytes={bundle.size_bytes}-"})
    assert response.status_code == 416
    assert response["Content-Range"] == f"bytes */{bundle.size_bytes}"


def test_conditions_are_honoured(as_operator, bundle):
    url, etag = download(bundle), bundle.etag
    assert as_operator.get(url, headers={"If-None-Match": etag}).status_code == 304
    assert as_operator.get(url, headers={"If-Match": '"other"'}).status_code == 412
    assert as_operator.get(url, headers={"Range": "bytes=5-", "If-Range": etag}).status_code == 206
    assert as_operator.get(url, headers={"Range": "bytes=5-", "If-Range": '"other"'}).status_code == 200


def test_exported_means_that_the_last_byte_was_sent(as_operator, bundle):
    body(as_operator.get(download(bundle), headers={"Range": "bytes=0-99"}))
    assert not Export.objects.exists()
    body(as_operator.get(download(bundle), headers={"Range": "bytes=100-"}))
    export = Export.objects.get()
    assert (export.by, export.address) == ("otto", "127.0.0.1")
    bundle.refresh_from_db()
    assert bundle.first_exported_at == export.at
    assert AuditEntry.objects.filter(action="bundle exported", subject=bundle.filename, actor="otto").exists()


def test_breaking_off_is_no_export(as_operator, bundle):
    response = as_operator.get(download(bundle))
    pieces = iter(response.streaming_content)
    for _ in range(3):
        next(pieces)
    break_off(response)
    assert not Export.objects.exists()


def test_breaking_off_at_the_last_piece_is_no_export(as_operator, bundle):
    response = as_operator.get(download(bundle))
    received = 0
    for piece in response.streaming_content:
        received += len(piece)
        if received == bundle.size_bytes:
            break
    break_off(response)
    assert received == bundle.size_bytes
    assert not Export.objects.exists()


def test_the_bytes_are_the_same_after_everything_was_synced_anew(as_operator, bundle, store, held, now):
    first = body(as_operator.get(download(bundle)))
    keep_build(store, held[0].mirror, now + HOUR)
    assert hashlib.sha256(body(as_operator.get(download(bundle)))).digest() == hashlib.sha256(first).digest()


def damage(store, digest):
    path = store.path(digest)
    os.chmod(path, 0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_part_breaks_the_connection_and_marks_the_bundle(as_operator, bundle, store, held):
    damage(store, held[0].layer_digest)
    response = as_operator.get(download(bundle))
    received = b""
    with pytest.raises(BundleError):
        for piece in response.streaming_content:
            received += piece
    assert len(received) < bundle.size_bytes
    assert not Export.objects.exists()
    bundle.refresh_from_db()
    assert bundle.state == "damaged"
    assert "is damaged in the content store" in as_operator.get(detail(bundle)).content.decode()
    assert as_operator.get(download(bundle)).status_code == 409


def test_a_missing_part_is_said_before_the_first_byte(as_operator, bundle, store, held):
    store.remove(held[1].layer_digest)
    response = as_operator.get(download(bundle))
    assert response.status_code == 409
    assert "cannot be sent" in response.content.decode()


def test_an_expired_bundle_is_gone(as_operator, bundle):
    exporting.delete_bundle(bundle, by="ada", now=timezone.now())
    response = as_operator.get(download(bundle))
    assert response.status_code == 410
    assert "is no longer kept. Make a new bundle" in response.content.decode()


def test_a_cache_archive_is_sent_as_gzip(as_operator, held, store):
    made = exporting.create_bundle(held, profile="cache", now=timezone.now(), by="otto", store=store)
    assert as_operator.get(download(made)).status_code == 409
    exporting.prepare(made.pk, store=store)
    made.refresh_from_db()
    response = as_operator.get(download(made))
    assert response["Content-Type"] == "application/gzip"
    assert response["ETag"] == f'"{made.sha256}"'
    assert hashlib.sha256(body(response)).hexdigest() == made.sha256


def test_sending_asks_the_database_a_few_times_only(as_operator, bundle, store, held, make_mirror, now):
    counts = []
    for index in range(2):
        snapshots = [
            *held,
            *(keep_build(store, make_mirror(f"m{index}{i}", "trivy-db"), now) for i in range(index * 4)),
        ]
        made = exporting.create_bundle(snapshots, profile="full", now=now, by="otto", store=store)
        with CaptureQueriesContext(connection) as queries:
            as_operator.head(download(made))
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 4


# Who may


def basic(name, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode(), "Accept": "*/*"}


def test_a_viewer_may_not_download(as_viewer, bundle):
    assert as_viewer.get(download(bundle)).status_code == 403


def test_a_browser_is_sent_to_the_login_page(client, bundle):
    response = client.get(download(bundle), headers={"Accept": "text/html,*/*"})
    assert (response.status_code, response.url) == (302, f"/login/?next={download(bundle)}")


def test_curl_is_asked_for_a_name_and_password(client, bundle):
    response = client.get(download(bundle), headers={"Accept": "*/*"})
    assert response.status_code == 401
    assert response["WWW-Authenticate"].startswith("Basic realm=")


def test_curl_may_give_an_operators_name_and_password(client, bundle, operator, store):
    response = client.get(download(bundle), headers=basic("otto", "correct horse otto"))
    assert body(response) == whole(bundle, store)
    assert Export.objects.get().by == "otto"
    assert "airgap_session" not in response.cookies


def test_a_name_and_password_open_nothing_else(client, bundle, operator):
    assert client.get(LIST, headers=basic("otto", "correct horse otto")).status_code == 302
    assert client.post(CREATE, {"all": "1"}, headers=basic("otto", "correct horse otto")).status_code == 302


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !!!", "Basic b3R0bw==", "Bearer abc", "Basic " + "A" * 5000, "Basic AGI6Yw=="]
)
def test_credentials_that_are_none_are_asked_for_again(client, bundle, header):
    assert client.get(download(bundle), headers={"Authorization": header}).status_code == 401


def test_a_name_that_nobody_can_have_is_not_tried(client, bundle):
    # PostgreSQL would refuse to count it.
    assert client.get(download(bundle), headers=basic("x" * 300, "y")).status_code == 401
    assert not AuditEntry.objects.filter(action="login failed").exists()


def test_a_viewers_name_and_password_are_not_enough(client, bundle, viewer):
    assert client.get(download(bundle), headers=basic("vera", "correct horse vera")).status_code == 403


def test_a_first_password_has_to_be_changed_first(client, bundle, operator):
    operator.must_change_password = True
    operator.save()
    assert client.get(download(bundle), headers=basic("otto", "correct horse otto")).status_code == 403


def test_guessing_is_throttled_and_on_record(client, bundle, operator, settings):
    settings.AXES_FAILURE_LIMIT = 3
    codes = [client.get(download(bundle), headers=basic("otto", "wrong")).status_code for _ in range(4)]
    assert codes[0] == 401
    assert codes[-1] == 429
    assert client.get(download(bundle), headers=basic("otto", "correct horse otto")).status_code == 429
    assert AuditEntry.objects.filter(action="login failed", subject="otto").exists()


def test_the_name_of_nobody_is_not_written_down(client, bundle):
    client.get(download(bundle), headers=basic("my-secret-password", "x"))
    assert AuditEntry.objects.get(action="login failed").subject == "(no such user)"


def test_csrf_protects_making(held, operator):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")
    assert strict.post(CREATE, {"all": "1"}).status_code == 403
