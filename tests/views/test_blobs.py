"""send_blob: whole, ranges, conditions, nginx's way, and what happens to a file that is not what it was."""

import os
import threading

import pytest
from django.test import RequestFactory

from mirrors.blobs import BlobStore
from mirrors.digests import digest_of
from mirrors.views import blobs
from mirrors.views.blobs import ServedBlob, send_blob
from mirrors.views.oci import refuse_bytes
from tests.kept import keep_vex

DATA = bytes(range(256)) * 40
KIND = "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip"


@pytest.fixture
def blob(store):
    return ServedBlob(store.put(DATA), len(DATA), KIND, {"Docker-Content-Digest": digest_of(DATA)})


@pytest.fixture
def path(store, blob):
    return store.path(blob.digest)


def ask(blob: ServedBlob, method="GET", *, headers=None, **options):
    return send_blob(getattr(RequestFactory(), method.lower())("/x", headers=headers or {}), blob, **options)


def body(response) -> bytes:
    sent = b"".join(response.streaming_content) if response.streaming else response.content
    response.close()
    return sent


def touch(path, data: bytes | None = None) -> None:
    path.chmod(0o644)
    if data is not None:
        path.write_bytes(data)
    os.utime(path)


def test_it_sends_the_whole_blob_with_its_headers(blob):
    response = ask(blob)
    assert (response.status_code, body(response)) == (200, DATA)
    assert response.headers["Content-Length"] == str(len(DATA))
    assert response.headers["Content-Type"] == KIND
    assert response.headers["Docker-Content-Digest"] == blob.digest
    assert response.headers["ETag"] == f'"{blob.digest}"'
    assert response.headers["Accept-Ranges"] == "bytes"
    assert "Content-Disposition" not in response.headers


def test_head_says_the_same_and_sends_nothing(blob):
    response, whole = ask(blob, "HEAD"), ask(blob)
    assert (response.headers, body(response)) == (whole.headers, b"")
    body(whole)


def test_it_names_the_file_where_there_is_a_name(store, blob):
    named = ServedBlob(blob.digest, blob.size, "application/gzip", filename="trivy_0.74.0.tar.gz")
    assert ask(named, "HEAD").headers["Content-Disposition"] == 'attachment; filename="trivy_0.74.0.tar.gz"'


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=100-199", 100, 200), ("bytes=10000-", 10000, 10240), ("bytes=-5", 10235, 10240),
     ("bytes=0-99999999999999999999", 0, 10240)],
)  # fmt: skip
def test_it_sends_one_range(blob, asked, start, stop):
    response = ask(blob, headers={"Range": asked})
    assert (response.status_code, body(response)) == (206, DATA[start:stop])
    assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
    assert response.headers["Content-Length"] == str(stop - start)


@pytest.mark.parametrize(
    "hostile",
    ["bytes=5-2", "bytes=-", "bytes=a-b", "lines=0-5", "bytes=0-1,5-6", "bytes=٣-٤", "bytes=--5", "bytes=0x1-5", "=",
     "bytes=0-1" + "0" * 500, "bytes=" + ",".join(f"{n}-{n}" for n in range(5000))],
)  # fmt: skip
def test_a_hostile_range_gets_the_whole(blob, hostile):
    response = ask(blob, headers={"Range": hostile})
    assert (response.status_code, body(response)) == (200, DATA)


@pytest.mark.parametrize("outside", ["bytes=10240-", "bytes=99999-100000", "bytes=-0"])
def test_a_range_outside_is_refused_with_the_size(blob, outside):
    response = ask(blob, headers={"Range": outside}, refuse=refuse_bytes)
    assert (response.status_code, response.headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")
    assert b'"errors"' in response.content


def test_a_range_of_another_version_gets_the_whole(blob):
    same = ask(blob, headers={"Range": "bytes=1-2", "If-Range": f'"{blob.digest}"'})
    other = ask(blob, headers={"Range": "bytes=1-2", "If-Range": '"sha256:other"'})
    assert (same.status_code, other.status_code) == (206, 200)
    body(same), body(other)


def test_a_known_tag_is_answered_304_unless_tags_are_off(blob):
    assert ask(blob, headers={"If-None-Match": f'"{blob.digest}"'}).status_code == 304
    without = ask(blob, headers={"If-None-Match": f'"{blob.digest}"'}, etag=False)
    assert (without.status_code, without.headers.get("ETag"), body(without)) == (200, None, DATA)


# What counts as taken


@pytest.mark.parametrize("asked", [None, "bytes=500-", "bytes=-1", "bytes=0-10239"])
def test_the_last_byte_counts_as_taken_once(blob, asked):
    taken = []
    response = ask(blob, headers={"Range": asked} if asked else {}, on_taken=lambda: taken.append(1))
    body(response)
    assert taken == [1]


def test_a_part_before_the_end_a_head_and_a_client_that_left_count_for_nothing(blob):
    taken = []

    def on_taken():
        taken.append(1)

    body(ask(blob, headers={"Range": "bytes=0-100"}, on_taken=on_taken))
    body(ask(blob, "HEAD", on_taken=on_taken))
    left = ask(blob, on_taken=on_taken)
    assert next(iter(left.streaming_content))
    left.close()
    assert taken == []


def test_a_failure_to_record_what_was_taken_does_not_spoil_the_download(blob, caplog):
    def fails():
        raise ValueError("the database is away")

    assert body(ask(blob, on_taken=fails)) == DATA
    assert "What was taken could not be recorded." in caplog.text


# Files that are not what they were


@pytest.mark.parametrize("harm", ["changed", "shorter", "gone"])
def test_damaged_and_missing_bytes_are_refused_in_the_callers_form(blob, path, harm, caplog):
    touch(path, DATA[:-1] + b"x" if harm == "changed" else DATA[:-1])
    if harm == "gone":
        path.unlink()
    response = ask(blob, refuse=refuse_bytes, on_taken=lambda: pytest.fail("nothing was taken"))
    assert response.status_code == 503
    assert response.headers["Content-Type"] == "application/json"
    assert '"code": "UNAVAILABLE"' in response.content.decode()
    assert "store check" in caplog.text
    assert ask(blob).content.decode().startswith(f"The content {blob.digest[7:17]} is missing or damaged here. Run")


def test_it_says_so_when_the_size_on_record_is_not_the_files(blob):
    assert ask(ServedBlob(blob.digest, blob.size + 1, KIND)).status_code == 503


def test_a_touched_file_with_the_right_bytes_is_read_once_and_sent(store, blob, path, monkeypatch):
    read = counting(monkeypatch)
    touch(path)
    assert body(ask(blob)) == body(ask(blob)) == DATA
    assert len(read) == 1


def test_a_file_that_cannot_be_marked_is_read_once_until_it_changes(blob, path, monkeypatch):
    def refuses(*arguments, **options):
        raise PermissionError

    read = counting(monkeypatch)
    touch(path)
    with monkeypatch.context() as patch:
        # As on a shared store, where the file is another user's.
        patch.setattr("mirrors.blobs.store.os.utime", refuses)
        assert body(ask(blob)) == body(ask(blob)) == DATA
    assert len(read) == 1
    touch(path, DATA[:-1] + b"x")
    assert ask(blob).status_code == ask(blob).status_code == 503
    assert len(read) == 2


def test_many_that_ask_for_a_touched_file_wait_for_one_reading(blob, path, monkeypatch):
    go_on = threading.Event()
    read = counting(monkeypatch, lambda: go_on.wait(10))
    touch(path)
    answers = []
    askers = [threading.Thread(target=lambda: answers.append(body(ask(blob)))) for _ in range(8)]
    for asker in askers:
        asker.start()
    go_on.set()
    for asker in askers:
        asker.join(10)
    assert answers == [DATA] * 8
    assert len(read) == 1


def counting(monkeypatch, first=lambda: None) -> list[str]:
    read, verify = [], BlobStore.verify

    def counted(store, digest, **options):
        read.append(digest)
        first()
        return verify(store, digest, **options)

    monkeypatch.setattr(BlobStore, "verify", counted)
    return read


# nginx


def test_nginx_is_told_where_the_bytes_are(blob, settings):
    settings.AIRGAP_SEND_WITH = "nginx"
    response = ask(blob, headers={"Range": "bytes=1-2"}, taken_note="trivy-db 42")
    name = blob.digest.removeprefix("sha256:")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["X-Accel-Redirect"] == f"/_blobs/sha256/{name[:2]}/{name}"
    assert response.headers["X-Airgap-Taken"] == "trivy-db 42"
    assert response.headers["Docker-Content-Digest"] == blob.digest
    assert response.headers["Content-Type"] == KIND
    assert "X-Airgap-Taken" not in ask(blob, "HEAD", taken_note="trivy-db 42").headers


def test_nginx_is_not_sent_to_damaged_bytes(blob, path, settings):
    settings.AIRGAP_SEND_WITH = "nginx"
    touch(path, b"x")
    assert "X-Accel-Redirect" not in ask(blob).headers


def test_the_note_for_nginx_stays_inside_otherwise(blob):
    response = ask(blob, taken_note="trivy-db 42")
    assert "X-Airgap-Taken" not in response.headers
    body(response)


# The doors


@pytest.mark.django_db
def test_a_vex_archive_is_sent_in_ranges_and_never_answered_304(client, store, make_mirror, now):
    snapshot = keep_vex(store, make_mirror("vexhub", "vex"), now)
    archive = snapshot.blobs.get(role="vex-archive")
    whole = client.get("/vex/vexhub/v0.1-0.tar.gz", headers={"If-None-Match": f'"{archive.digest}"'})
    # The test client closes what was read to its end; closing it once more would close the test's database.
    assert (whole.status_code, digest_of(b"".join(whole.streaming_content))) == (200, archive.digest)
    assert "ETag" not in whole.headers
    part = client.get("/vex/vexhub/v0.1-0.tar.gz", headers={"Range": "bytes=2-"})
    assert (part.status_code, len(b"".join(part.streaming_content))) == (206, archive.size_bytes - 2)
    touch(store.path(archive.digest), b"x")
    assert client.get("/vex/vexhub/v0.1-0.tar.gz").status_code == 503


def test_nothing_is_remembered_without_end(blob, path, monkeypatch):
    monkeypatch.setattr(blobs, "REMEMBERED", 3)
    for number in range(6):
        touch(path, b"x" * number)
        assert ask(blob).status_code == 503
    assert len(blobs._verdicts) <= 3
    assert not blobs._verifying
