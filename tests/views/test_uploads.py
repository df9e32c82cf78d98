"""Uploads in pieces by tus: where a file goes on, what is refused, and who may."""

import base64
import hashlib
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse

from mirrors.importing import staging
from mirrors.models import Import, Upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("isolated", "data_dir")]
TUS = {"HTTP_TUS_RESUMABLE": "1.0.0"}
PIECE = "application/offset+octet-stream"
NAME = "airgap-20261120T120000Z-abcd1234.tar"


def metadata(name):
    return f"filename {base64.b64encode(name.encode()).decode()}"


def begin(client, size=10, name=NAME, **headers):
    return client.post(
        reverse("mirrors:uploads"), HTTP_UPLOAD_LENGTH=str(size), HTTP_UPLOAD_METADATA=metadata(name), **TUS, **headers
    )


def send(client, url, data, offset, content_type=PIECE, **headers):
    return client.patch(url, data, content_type=content_type, HTTP_UPLOAD_OFFSET=str(offset), **TUS, **headers)


def test_a_file_comes_in_pieces_and_goes_on_where_it_stopped(as_operator):
    url = begin(as_operator)["Location"]
    answer = send(as_operator, url, b"01234", 0)
    assert (answer.status_code, answer["Upload-Offset"]) == (204, "5")
    answer = as_operator.head(url, **TUS)
    assert (answer["Upload-Offset"], answer["Upload-Length"], answer["Cache-Control"]) == ("5", "10", "no-store")
    assert "Upload-Expires" in answer
    assert send(as_operator, url, b"56789", 5)["Upload-Offset"] == "10"
    upload = Upload.objects.get()
    assert upload.is_complete
    assert staging.path_of(upload.pk).read_bytes() == b"0123456789"


def test_what_the_server_can_do_is_asked_for(as_operator):
    answer = as_operator.options(reverse("mirrors:uploads"))
    assert answer.status_code == 204
    assert answer["Tus-Extension"] == "creation,termination,expiration,checksum"
    assert int(answer["Tus-Max-Size"]) > 0


@pytest.mark.parametrize("offset", [0, 4, 6, 10])
def test_another_offset_than_where_it_ends_is_a_conflict(as_operator, offset):
    url = begin(as_operator)["Location"]
    send(as_operator, url, b"01234", 0)
    assert send(as_operator, url, b"xxxxx", offset).status_code == 409
    assert as_operator.head(url, **TUS)["Upload-Offset"] == "5"


def test_more_than_was_announced_is_refused(as_operator):
    url = begin(as_operator, size=4)["Location"]
    assert send(as_operator, url, b"01234", 0).status_code == 413
    assert as_operator.head(url, **TUS)["Upload-Offset"] == "0"


def test_bytes_beyond_what_is_certain_are_cut_off(as_operator):
    """As after a crash between the write and the row."""
    url = begin(as_operator)["Location"]
    send(as_operator, url, b"012", 0)
    path = staging.path_of(Upload.objects.get().pk)
    path.write_bytes(b"012garbage")
    assert send(as_operator, url, b"3456789", 3)["Upload-Offset"] == "10"
    assert path.read_bytes() == b"0123456789"


def test_a_piece_with_a_wrong_checksum_leaves_nothing(as_operator):
    url = begin(as_operator)["Location"]
    right = base64.b64encode(hashlib.sha256(b"01234").digest()).decode()
    assert send(as_operator, url, b"0123X", 0, HTTP_UPLOAD_CHECKSUM=f"sha256 {right}").status_code == 460
    assert as_operator.head(url, **TUS)["Upload-Offset"] == "0"
    assert send(as_operator, url, b"01234", 0, HTTP_UPLOAD_CHECKSUM=f"sha256 {right}").status_code == 204
    assert send(as_operator, url, b"01234", 5, HTTP_UPLOAD_CHECKSUM="md5 xx").status_code == 400


def test_a_connection_that_breaks_keeps_what_came(as_operator, data_dir, now):
    begin(as_operator)
    upload = Upload.objects.get()
    came = iter([b"0123"])

    def read(count):
        try:
            return next(came)
        except StopIteration:
            raise ConnectionResetError from None

    assert staging.append(upload, 0, read, 10, now=lambda: now) == 4
    assert Upload.objects.get().offset == 4


def test_an_upload_can_be_given_up(as_operator):
    url = begin(as_operator)["Location"]
    path = staging.path_of(Upload.objects.get().pk)
    assert as_operator.delete(url, **TUS).status_code == 204
    assert not path.exists()
    assert as_operator.head(url, **TUS).status_code == 404
    assert send(as_operator, url, b"0", 0).status_code == 404


def test_what_nobody_comes_back_for_is_removed_and_so_is_what_no_row_names(as_operator, now):
    begin(as_operator)
    upload = Upload.objects.get()
    stray = staging.folder() / "stray"
    stray.write_bytes(b"x")
    assert staging.expire(upload.expires_at - timedelta(minutes=1)) == 0
    assert staging.expire(upload.expires_at + timedelta(hours=2)) == 1
    assert list(staging.folder().iterdir()) == []


@pytest.mark.parametrize(
    "name", ["notes.txt", "bundle.zip", "airgap.tar.exe", "", "airgap.tar.5of9", "-.tar", "air\x00gap.tar"]
)
def test_only_files_called_like_bundles_are_taken(as_operator, name):
    assert begin(as_operator, name=name).status_code == 400
    assert not Upload.objects.exists()


def test_a_path_in_the_name_leads_nowhere(as_operator):
    assert begin(as_operator, name="../../etc/airgap-x.tar").status_code == 201
    upload = Upload.objects.get()
    assert upload.name == "airgap-x.tar"
    assert [path.name for path in staging.folder().iterdir()] == [upload.pk]


def test_more_than_there_is_room_for_is_refused_first(as_operator, settings):
    assert begin(as_operator, size=2**41).status_code == 413
    settings.AIRGAP_RESERVE_MB = 2**30
    answer = begin(as_operator, size=10)
    assert answer.status_code == 413
    assert b"There is no room" in answer.content


def test_what_was_promised_to_other_uploads_counts_as_used(as_operator, settings, store):
    free = store.free_bytes()
    assert begin(as_operator, size=free * 6 // 10).status_code == 201
    assert begin(as_operator, size=free * 6 // 10).status_code == 413


@pytest.mark.parametrize("size", ["", "abc", "-1", "0", "99999999999999999999"])
def test_a_length_that_is_none_is_refused(as_operator, size):
    answer = as_operator.post(
        reverse("mirrors:uploads"), HTTP_UPLOAD_LENGTH=size, HTTP_UPLOAD_METADATA=metadata(NAME), **TUS
    )
    assert answer.status_code == 400


def test_the_protocol_is_kept(as_operator):
    assert as_operator.post(reverse("mirrors:uploads")).status_code == 412
    url = begin(as_operator)["Location"]
    assert send(as_operator, url, b"0", 0, content_type="text/plain").status_code == 415
    assert as_operator.get(url, **TUS).status_code == 405
    assert as_operator.put(url, **TUS).status_code == 405


def test_a_file_that_is_being_imported_takes_no_more(as_operator, now):
    url = begin(as_operator)["Location"]
    run = Import.objects.create(origin="upload", name="x", queued_at=now)
    Upload.objects.update(run=run)
    assert send(as_operator, url, b"0", 0).status_code == 409
    assert as_operator.delete(url, **TUS).status_code == 409


def test_a_file_that_is_being_imported_is_not_gone_on_with(as_operator, now):
    """Dropped again it is a new upload, for a new import."""
    url = begin(as_operator)["Location"]
    Upload.objects.update(run=Import.objects.create(origin="upload", name="x", queued_at=now))
    assert as_operator.head(url, **TUS).status_code == 404


def test_a_second_upload_of_a_file_takes_the_place_of_the_first(as_operator):
    """As after a reload in another browser: not more is staged than the bundle has."""
    first = begin(as_operator)["Location"]
    send(as_operator, first, b"0123456789", 0)
    second = begin(as_operator)["Location"]
    send(as_operator, second, b"01234", 0)
    assert Upload.objects.count() == 2, "the first is whole, and the second not yet"
    send(as_operator, second, b"56789", 5)
    upload = Upload.objects.get()
    assert second.endswith(upload.pk)
    assert [path.name for path in staging.folder().iterdir()] == [upload.pk]


def test_a_list_of_checksums_is_taken_if_it_is_small(as_operator):
    assert begin(as_operator, size=262_144, name=f"{NAME}.sha256").status_code == 201
    answer = begin(as_operator, size=262_145, name=f"{NAME}.SHA256")
    assert answer.status_code == 413
    assert b"too large to be a list of checksums" in answer.content


def test_a_volume_that_came_damaged_is_not_gone_on_with(as_operator, now):
    """The browser remembers it under its name, size and date, which the good copy may well share."""
    url = begin(as_operator, size=5, name=f"{NAME}.001of002")["Location"]
    send(as_operator, url, b"01234", 0)
    assert as_operator.head(url, **TUS)["Upload-Offset"] == "5"
    Import.objects.create(
        origin="upload", name=NAME, files=[{"name": "x", "size": 5, "upload": Upload.objects.get().pk}],
        state="failed", queued_at=now, finished_at=now,
    )  # fmt: skip
    assert as_operator.head(url, **TUS).status_code == 404


def test_nobody_else_goes_on_with_it(as_operator, administrator):
    url = begin(as_operator)["Location"]
    other = Client()
    other.force_login(administrator, backend="django.contrib.auth.backends.ModelBackend")
    assert other.head(url, **TUS).status_code == 404
    assert send(other, url, b"0", 0).status_code == 404


def test_without_a_session_the_answer_is_no_page(client, as_viewer):
    answer = begin(Client())
    assert answer.status_code == 401
    assert answer["Content-Type"].startswith("text/plain")
    assert begin(as_viewer).status_code == 403
    assert not Upload.objects.exists()


def test_every_change_needs_the_csrf_token(operator):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")
    assert begin(strict).status_code == 403
    token = strict.get(reverse("mirrors:imports")).cookies["csrftoken"].value
    url = begin(strict, HTTP_X_CSRFTOKEN=token)["Location"]
    assert send(strict, url, b"01234", 0).status_code == 403
    assert send(strict, url, b"01234", 0, HTTP_X_CSRFTOKEN=token).status_code == 204
    assert strict.delete(url, **TUS).status_code == 403


def test_the_connected_side_takes_nothing(as_operator, settings):
    settings.AIRGAP_SIDE = "connected"
    assert begin(as_operator).status_code == 404
