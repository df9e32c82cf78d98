"""Everything that goes wrong while pushing: what is done about it, and the sentence that remains."""

import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from mirrors.digests import digest_of
from mirrors.registry.errors import RegistryError
from mirrors.registry.manifests import OCI_MANIFEST, Descriptor
from mirrors.registry.pushing import PushClient
from mirrors.stopping import Stopped, StopSignal
from tests.fakes.proxy import FakeProxy
from tests.fakes.push_registry import PushRegistry
from tests.registry.conftest import LAYER_TYPE, QUICK, SHORT, Recorder, some_bytes
from tests.registry.test_pushing import BIG, EMPTY, PASSWORD, REPOSITORY, describe, manifest_of, push_all, send

Make = Callable[..., PushClient]
# More than the kernel keeps for a server that does not read, and more than ghcr.io and nginx take at once.
HUGE = bytes(12_000_000)
PATIENT = replace(QUICK, read=30, store=30, source_seconds=120)


@pytest.fixture
def fake() -> Iterator[PushRegistry]:
    with PushRegistry() as registry:
        yield registry


def errors(code: str, message: str = "", detail: object = None) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": detail}]}).encode()


def failed(work: Callable[[], object]) -> RegistryError:
    """The error, whose sentence names no source, no sync and no secret."""
    with pytest.raises(RegistryError) as caught:
        work()
    said = str(caught.value)
    assert said.endswith(".") and not re.search(r"\b(source|sync)\b", said), said
    assert PASSWORD not in said and "roken pipe" not in said and "--" not in said
    return caught.value


def ranges(fake: PushRegistry) -> list[str]:
    return [one.headers["Content-Range"] for one in fake.seen("PATCH")]


# Breaks, and going on


def test_a_chunk_that_broke_off_goes_on_where_the_registry_is(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PATCH", cut=60_000)
    told = send(pusher(fake), BIG)
    assert ranges(fake) == ["0-99999", "60000-159999", "160000-249999"]
    assert fake.took(REPOSITORY, digest_of(BIG)) == BIG and sum(told) == len(BIG), "nothing is counted twice"


def test_a_chunk_that_was_lost_is_sent_again(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PATCH", cut=60_000, lost=True)
    send(pusher(fake), BIG)
    assert ranges(fake) == ["0-99999", "0-99999", "100000-199999", "200000-249999"]


def test_a_chunk_that_arrived_without_an_answer_is_not_sent_again(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PATCH", deaf=True)
    send(pusher(fake), BIG)
    assert ranges(fake) == ["0-99999", "100000-199999", "200000-249999"]


@pytest.mark.parametrize("data", [BIG, b"small"])
def test_a_finished_upload_without_an_answer_is_recognized(fake: PushRegistry, pusher: Make, data: bytes) -> None:
    fake.trouble("PUT", deaf=True)
    send(pusher(fake), data)
    assert fake.count("PUT") == 1 and fake.count("POST") == 1


def test_a_small_blob_that_broke_off_begins_anew(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PUT", cut=10)
    send(pusher(fake), b"small enough")
    assert fake.count("POST") == 2 and not fake.uploads, "the broken session was cancelled"


def test_breaks_that_go_on_end_with_a_sentence_and_no_session(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PATCH", cut=10, lost=True, times=None)
    error = failed(lambda: send(pusher(fake), BIG))
    assert error.temporary and error.attempts == 4 and "closed the connection" in str(error)
    assert not fake.uploads


def test_a_registry_that_takes_less_than_it_was_given_is_sent_the_rest(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PATCH", keep=30_000)
    send(pusher(fake), BIG)
    assert ranges(fake)[:2] == ["0-99999", "30000-129999"]
    assert fake.took(REPOSITORY, digest_of(BIG)) == BIG


def test_a_chunk_out_of_order_is_answered_by_asking_where_it_is(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PATCH", status=416)
    send(pusher(fake), BIG)
    assert fake.count("GET", "/uploads/") == 1 and fake.took(REPOSITORY, digest_of(BIG)) == BIG


def test_a_session_that_was_forgotten_begins_anew(fake: PushRegistry, pusher: Make) -> None:
    client = pusher(fake)
    fake.trouble("PATCH", deaf=True)
    fake.trouble("GET", "/uploads/", forget=True)
    send(client, BIG)
    fake.trouble("PATCH", forget=True)
    send(client, BIG, "team/other")
    fake.trouble("PUT", forget=True)
    send(client, BIG, "team/third")
    assert fake.count("POST") == 6 and not fake.uploads


def test_a_session_that_is_always_forgotten_is_given_up(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PATCH", forget=True, times=None)
    error = failed(lambda: send(pusher(fake), BIG))
    assert fake.count("POST") == 4 and "BLOB_UPLOAD_UNKNOWN" in str(error)


def test_a_closed_connection_is_no_reason_to_send_a_post_twice_in_one_attempt(
    fake: PushRegistry, pusher: Make, heard: Recorder
) -> None:
    fake.trouble("POST", deaf=True)
    send(pusher(fake), BIG)
    assert fake.count("POST") == 2 and len(heard.retries) == 1


# What registries do with chunks


def test_chunks_that_are_thrown_away_make_it_send_all_at_once_and_remember(fake: PushRegistry, pusher: Make) -> None:
    fake.chunks = "once"
    client = pusher(fake)
    send(client, BIG)
    assert fake.took(REPOSITORY, digest_of(BIG)) == BIG and len(ranges(fake)) == 3 and not fake.uploads
    fake.forget_requests()
    send(pusher(fake, memory=client.memory), BIG, "team/other")
    assert fake.count("PATCH") == 0 and fake.took("team/other", digest_of(BIG)) == BIG


def test_a_registry_that_takes_no_patch_gets_all_at_once(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PATCH", status=405, times=None)
    send(pusher(fake), BIG)
    assert fake.took(REPOSITORY, digest_of(BIG)) == BIG and fake.count("PATCH") == 1


def test_chunks_too_large_for_ghcr_become_smaller(fake: PushRegistry, pusher: Make) -> None:
    said = "the request body is too large and exceeds the maximum permissible limit of 4.00MiB"
    fake.trouble("PATCH", status=416, body=errors("REQUESTED_RANGE_NOT_SATISFIABLE", said))
    client = pusher(fake, chunk_bytes=10_000_000)
    send(client, HUGE)
    assert ranges(fake)[0] == "0-9999999" and ranges(fake)[1] == "0-3999999"
    assert client.memory["chunk_bytes"] == 4_000_000 and fake.took(REPOSITORY, digest_of(HUGE)) == HUGE


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("chunk_bytes", [10_000_000, 20_000_000])
def test_a_413_in_the_middle_of_sending_is_read_and_smaller_requests_are_tried(
    pusher: Make, tls: bool, chunk_bytes: int
) -> None:
    with PushRegistry(tls=tls) as fake:
        fake.most_body = 1024 * 1024
        client = pusher(fake, insecure=not tls, ca_pem=fake.ca_pem if tls else "", chunk_bytes=chunk_bytes)
        send(client, HUGE)
        assert fake.took(REPOSITORY, digest_of(HUGE)) == HUGE and len(ranges(fake)) >= 12
        assert client.memory["chunk_bytes"] == 1_000_000
        assert client.bytes_sent < len(HUGE) * 1.8, "what was refused was not sent to its end"


@pytest.mark.parametrize("size", [100_000, 10_000_000])
def test_a_connection_with_an_unread_body_on_it_is_not_used_again(fake: PushRegistry, pusher: Make, size: int) -> None:
    fake.trouble("PATCH", early=True, open=True, status=503)
    client = pusher(fake, chunk_bytes=size)
    send(client, HUGE[: size * 6 // 5])
    assert fake.count("POST") == 1, "the next request was understood"


def test_the_first_request_of_all_may_have_a_body(pusher: Make) -> None:
    """TLS 1.3 sends session tickets by itself, which are no answer."""
    with PushRegistry(tls=True) as fake:
        client = pusher(fake, insecure=False, ca_pem=fake.ca_pem)
        for data in (EMPTY, b"layer"):
            fake.give(REPOSITORY, data)
        raw = manifest_of(b"layer", annotations={"long": "x" * 1_000_000})
        assert client.put_manifest(REPOSITORY, "2", raw, OCI_MANIFEST) == digest_of(raw)
        assert fake.count("PUT") == 1


def test_a_413_that_remains_names_the_limit(fake: PushRegistry, pusher: Make) -> None:
    fake.most_body = 5000
    error = failed(lambda: send(pusher(fake), BIG))
    assert (error.code, error.status, error.temporary) == ("too-large", 413, False)
    assert "client_max_body_size" in str(error) and not fake.uploads


# Logging in


def test_a_token_that_ends_in_the_middle_is_replaced_and_the_same_bytes_follow(
    fake: PushRegistry, pusher: Make
) -> None:
    fake.require_token(username="robot", password=PASSWORD)
    client = pusher(fake, username="robot", password=PASSWORD)
    client.has_blob(REPOSITORY, digest_of(BIG), 1)
    fake.trouble("POST")
    fake.trouble("PATCH")
    fake.trouble("PATCH", revoke=True)
    told = send(client, BIG)
    assert ranges(fake) == ["0-99999", "100000-199999", "100000-199999", "200000-249999"]
    assert fake.count("GET", "/token") == 2 and sum(told) == len(BIG)
    assert fake.took(REPOSITORY, digest_of(BIG)) == BIG


def test_a_401_while_much_is_being_sent_is_read(fake: PushRegistry, pusher: Make) -> None:
    fake.require_token(username="robot", password=PASSWORD)
    client = pusher(fake, username="robot", password=PASSWORD, chunk_bytes=20_000_000)
    fake.trouble("PUT", revoke=True)
    send(client, HUGE)
    assert fake.took(REPOSITORY, digest_of(HUGE)) == HUGE and fake.count("PUT") == 2


def test_a_wrong_password_is_called_so(fake: PushRegistry, pusher: Make) -> None:
    fake.require_token(username="robot", password=PASSWORD)
    error = failed(lambda: pusher(fake, username="robot", password="wrong-one").try_login(REPOSITORY))
    assert error.code == "auth" and "Check the user name and password" in str(error)
    fake.require_basic("robot", PASSWORD)
    error = failed(lambda: pusher(fake, username="robot", password="wrong-one").try_login(REPOSITORY))
    assert error.code == "auth" and "Check the user name and password" in str(error)


def test_no_login_where_one_is_needed_is_called_so(fake: PushRegistry, pusher: Make) -> None:
    for ask in (fake.require_basic, fake.require_token):
        ask(username="robot", password=PASSWORD)
        error = failed(lambda: pusher(fake).try_login(REPOSITORY))
        assert error.code == "auth" and "asks for a login" in str(error)


def test_a_login_without_the_right_to_push_is_told_from_a_wrong_one(fake: PushRegistry, pusher: Make) -> None:
    fake.require_token(username="robot", password=PASSWORD)
    header = {"WWW-Authenticate": f'Bearer realm="{fake.url("/token")}",service="fake",error="insufficient_scope"'}
    fake.trouble("POST", status=401, headers=header, times=None, body=errors("UNAUTHORIZED", "action: push"))
    error = failed(lambda: pusher(fake, username="robot", password=PASSWORD).try_login(REPOSITORY))
    assert error.code == "forbidden" and f"does not include the right to push to {REPOSITORY}" in str(error)


def test_a_token_that_was_typed_in_wrong_is_not_called_a_login_that_worked(fake: PushRegistry, pusher: Make) -> None:
    for ask in (fake.require_basic, fake.require_token):
        ask(username="robot", password=PASSWORD)
        error = failed(lambda: pusher(fake, token="no-such-token").try_login(REPOSITORY))
        assert error.code == "auth" and "Check the user name and password (or token)" in str(error)


def test_denied_says_where_the_right_is_given(fake: PushRegistry, pusher: Make) -> None:
    fake.require_token(realm=None)
    realm = fake.url("/service/token")
    challenge = {"scheme": "bearer", "realm": realm, "service": "harbor-registry", "scope": ""}
    memory = {"scheme": "http", "challenge": challenge}
    fake.trouble("POST", status=403, body=errors("DENIED", "requested access to the resource is denied"), times=None)
    fake.put_file("/service/token", b'{"token": "t0|repository:team/trivy-db:pull,push"}')
    fake.tokens_issued.append("t0|repository:team/trivy-db:pull,push")
    error = failed(lambda: send(pusher(fake, memory=memory), BIG))
    assert error.code == "forbidden" and "In Harbor" in str(error) and "robot account" in str(error)


# Places that take nothing


@pytest.mark.parametrize(
    ("trouble", "code", "said"),
    [
        ({"status": 404, "body": errors("NAME_UNKNOWN", "repository not known")}, "not-found", "have to be made first"),
        ({"status": 404, "body": b"<html>"}, "not-found", "Check the path"),
        ({"status": 405}, "read-only", "takes no uploads"),
        ({"status": 403, "body": errors("DENIED", "The system is in read only mode.")}, "read-only", "read-only mode"),
        ({"status": 507}, "full", "no room left"),
        ({"status": 500, "body": errors("UNKNOWN", "write /data: no space left on device")}, "full", "no room left"),
        (
            {
                "status": 403,
                "body": errors("DENIED", "adding 2 GiB … will exceed the configured upper limit of 1"),
            },
            "full",
            "quota",
        ),
        ({"status": 400, "body": errors("SIZE_INVALID", "size")}, "size", "cuts or changes"),
        ({"status": 400, "body": errors("DIGEST_INVALID", "x")}, "digest", "look for a proxy"),
        ({"status": 418}, "unsupported", "OCI distribution API"),
        ({"status": 301, "headers": {"Location": "https://127.0.0.1/"}}, "redirect", "Check the address"),
        ({"headers": {"Location": None}}, "malformed", "without saying where"),
    ],
)
def test_what_a_refused_upload_means(
    fake: PushRegistry, pusher: Make, trouble: dict[str, Any], code: str, said: str
) -> None:
    fake.trouble("POST", times=None, **trouble)
    error = failed(lambda: pusher(fake).try_login(REPOSITORY))
    assert (error.code, error.temporary) == (code, False), str(error)
    assert said in str(error)


@pytest.mark.long
def test_too_many_requests_are_waited_out(fake: PushRegistry, pusher: Make, heard: Recorder) -> None:
    fake.trouble("PATCH", status=429, headers={"Retry-After": "1"})
    send(pusher(fake), BIG)
    assert heard.retries[0][2] >= 1 and fake.took(REPOSITORY, digest_of(BIG)) == BIG


def test_an_hour_is_not_waited_out(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("POST", status=429, headers={"Retry-After": "3600"})
    error = failed(lambda: send(pusher(fake), BIG, "team/other"))
    assert error.code == "rate-limited" and "asks us to wait 60 min" in str(error) and "Push again later" in str(error)


def test_a_registry_that_is_restarting_is_tried_again(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("POST", status=503)
    fake.trouble("PATCH", status=502)
    fake.trouble("GET", "/uploads/", status=503)
    fake.trouble("PUT", status=500)
    send(pusher(fake), BIG)
    assert fake.took(REPOSITORY, digest_of(BIG)) == BIG and ranges(fake).count("0-99999") == 2


# Lies


def test_a_blob_that_was_never_filed_is_missed(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PUT", lie=True)
    error = failed(lambda: send(pusher(fake), BIG))
    assert error.code == "digest" and f"said that it took the blob {digest_of(BIG)}, but finds no such blob" in str(
        error
    )


def test_a_blob_filed_under_another_digest_is_refused(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PUT", headers={"Docker-Content-Digest": digest_of(b"other")})
    error = failed(lambda: send(pusher(fake), BIG))
    assert error.code == "digest" and f"filed {digest_of(BIG)} under" in str(error)


def test_accepted_is_not_created(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PUT", status=202)
    assert "202 (accepted)" in str(failed(lambda: send(pusher(fake), b"small")))


def test_a_range_beyond_what_was_sent_is_not_believed(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PATCH", headers={"Range": "0-999999999"})
    assert "holds 1000000000 bytes where 100000 were sent" in str(failed(lambda: send(pusher(fake), BIG)))


def test_a_mount_that_was_only_said_is_no_mount(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("POST", status=201)
    assert not pusher(fake).mount(REPOSITORY, digest_of(BIG), "team/old")


def test_a_manifest_that_was_never_filed_is_missed(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PUT", "/manifests/", lie=True)
    error = failed(lambda: push_all(pusher(fake), manifest_of(b"layer")))
    assert error.code == "digest" and f"{REPOSITORY}:2, but finds nothing there now" in str(error)


def test_a_tag_that_still_leads_to_the_old_manifest_is_noticed(fake: PushRegistry, pusher: Make) -> None:
    old = manifest_of(b"older")
    fake.put_manifest(REPOSITORY, "2", old)
    fake.trouble("PUT", "/manifests/", lie=True)
    error = failed(lambda: push_all(pusher(fake), manifest_of(b"layer")))
    assert f"gives {len(old)} bytes with the digest {digest_of(old)}" in str(error)


def test_a_manifest_that_was_rewritten_is_noticed(fake: PushRegistry, pusher: Make) -> None:
    raw = manifest_of(b"layer")
    fake.trouble("PUT", "/manifests/", rewrite=raw.replace(b"\n", b""))
    assert failed(lambda: push_all(pusher(fake), raw)).code == "digest"
    fake.trouble("PUT", "/manifests/", headers={"Docker-Content-Digest": digest_of(b"other")})
    assert "It rewrites manifests" in str(failed(lambda: push_all(pusher(fake), raw)))


# Manifests that are not taken


@pytest.mark.parametrize(
    ("realm", "status", "body", "code", "said"),
    [
        ("", 400, errors("MANIFEST_INVALID", "manifest invalid"), "unsupported", "application/vnd.oci.empty.v1+json"),
        ("/service/token", 415, b"", "unsupported", "from version 2.0 on"),
        ("/v2/auth", 400, errors("MANIFEST_INVALID", "manifest invalid"), "unsupported", "ALLOWED_OCI_ARTIFACT_TYPES"),
        (
            "/jwt/auth",
            400,
            errors("MANIFEST_INVALID", "manifest invalid", "unknown media type: application/vnd.oci.empty.v1+json"),
            "unsupported",
            "unknown media type: application/vnd.oci.empty.v1+json",
        ),
        ("/v2/token", 400, b"", "unsupported", "Nexus takes OCI manifests from 3.23 on"),
        (
            "",
            400,
            errors("TAG_INVALID", "The image tag '2' cannot be overwritten"),
            "forbidden",
            "date",
        ),
        ("", 412, errors("PRECONDITION", "the tag is immutable"), "forbidden", "tag immutability"),
        ("", 403, errors("DENIED", "no"), "forbidden", "right to push"),
        ("", 413, b"", "too-large", "client_max_body_size"),
    ],
)
def test_why_a_manifest_is_not_taken(
    fake: PushRegistry, pusher: Make, realm: str, status: int, body: bytes, code: str, said: str
) -> None:
    memory: dict[str, Any] = {"scheme": "http"}
    if realm:
        memory["challenge"] = {"scheme": "bearer", "realm": fake.url(realm), "service": "x", "scope": ""}
        fake.put_file(realm, b'{"token": "anything"}')
    fake.trouble("PUT", "/manifests/", status=status, body=body, times=None)
    error = failed(lambda: push_all(pusher(fake, memory=memory), manifest_of(b"layer")))
    assert (error.code, error.temporary) == (code, False), str(error)
    assert said in str(error)


def test_a_registry_that_does_not_see_its_own_blobs_yet_is_asked_again(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PUT", "/manifests/", status=400, body=errors("MANIFEST_BLOB_UNKNOWN", "blob unknown"))
    push_all(pusher(fake), manifest_of(b"layer"))
    fake.trouble("PUT", "/manifests/", status=400, body=errors("MANIFEST_BLOB_UNKNOWN", "blob unknown"), times=None)
    error = failed(lambda: push_all(pusher(fake), manifest_of(b"layer"), "3"))
    assert error.attempts == 4 and "not in step" in str(error)


def test_something_else_under_the_tag_for_referrers_is_left_alone(fake: PushRegistry, pusher: Make) -> None:
    fake.referrers_api = False
    image, client = manifest_of(b"layer"), pusher(fake)
    tag = push_all(client, image).replace(":", "-")
    fake.put_manifest(REPOSITORY, tag, image)
    subject = {"mediaType": OCI_MANIFEST, "digest": digest_of(image), "size": len(image)}
    raw = manifest_of(b"layer", subject=subject)
    assert "something else than an index" in str(failed(lambda: push_all(client, raw, digest_of(raw))))
    assert fake.manifests[(REPOSITORY, tag)][0] == image


# Our own bytes


@pytest.mark.parametrize("chunk_bytes", [100_000, 1_000_000])
def test_a_blob_that_rotted_in_the_store_is_not_finished(fake: PushRegistry, pusher: Make, chunk_bytes: int) -> None:
    rotten = BIG[:-1] + b"?"
    client = pusher(fake, chunk_bytes=chunk_bytes)
    error = failed(lambda: client.upload(REPOSITORY, describe(BIG), lambda: io.BytesIO(rotten)))
    assert (error.code, error.temporary) == ("damaged", False) and "no longer has that digest" in str(error)
    assert fake.took(REPOSITORY, digest_of(BIG)) is None and not fake.uploads
    error = failed(lambda: client.upload(REPOSITORY, describe(BIG), lambda: io.BytesIO(BIG[:-5])))
    assert error.code == "damaged" and "is shorter than it was" in str(error) and not fake.uploads


def test_a_file_that_grew_is_sent_no_further_than_its_descriptor(fake: PushRegistry, pusher: Make) -> None:
    pusher(fake).upload(REPOSITORY, describe(BIG), lambda: io.BytesIO(BIG + b"more"))
    assert fake.took(REPOSITORY, digest_of(BIG)) == BIG


def test_the_file_is_closed_whatever_happens(fake: PushRegistry, pusher: Make) -> None:
    file = io.BytesIO(BIG)
    pusher(fake).upload(REPOSITORY, describe(BIG), lambda: file)
    assert file.closed
    fake.trouble("PUT", status=403)
    second = io.BytesIO(BIG)
    failed(lambda: pusher(fake).upload("team/other", describe(BIG), lambda: second))
    assert second.closed


# Silence, slowness and stops


def test_a_registry_that_stops_reading_is_given_up(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PUT", stuck=1000, times=None)
    client = pusher(fake, timeouts=replace(SHORT, attempts=1), chunk_bytes=20_000_000)
    error = failed(lambda: send(client, HUGE))
    assert error.code == "stalled" and "took nothing of what was sent" in str(error) and error.temporary


def test_a_registry_that_took_everything_and_never_answers_is_given_up(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PUT", silent=True, times=None)
    error = failed(lambda: send(pusher(fake, timeouts=replace(SHORT, store=0.3, attempts=1)), b"small"))
    assert error.code == "stalled"


def test_the_answer_to_a_body_may_take_longer_than_other_answers(
    fake: PushRegistry, pusher: Make, heard: Recorder
) -> None:
    for data in (b"small", BIG):
        fake.trouble("PUT", ponder=0.5)
        send(pusher(fake, timeouts=replace(SHORT, store=30, source_seconds=30)), data)
    assert not [reason for reason, _, _ in heard.retries if "upload blob" in reason]


def test_a_registry_that_reads_too_slowly_is_given_up(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("PUT", slow=(20_000, 0.01), times=None)
    limits = replace(QUICK, slow_bytes_per_second=100_000_000, slow_seconds=0.3, attempts=1)
    error = failed(lambda: send(pusher(fake, timeouts=limits, chunk_bytes=20_000_000), HUGE))
    assert error.code == "slow" and "takes less than 100000000 bytes a second" in str(error)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("trouble", [{"stuck": 1000}, {"silent": True}])
def test_a_stop_ends_an_upload_at_once(pusher: Make, stop: StopSignal, tls: bool, trouble: dict[str, Any]) -> None:
    with PushRegistry(tls=tls) as fake:
        fake.trouble("PUT", **trouble)
        client = pusher(
            fake, timeouts=PATIENT, insecure=not tls, ca_pem=fake.ca_pem if tls else "", chunk_bytes=20_000_000
        )
        timer = threading.Timer(0.3, stop.set)
        timer.start()
        with pytest.raises(Stopped):
            send(client, HUGE)
        timer.join()


# Other places


def test_bytes_may_go_to_another_host_but_never_the_login(fake: PushRegistry, pusher: Make) -> None:
    fake.require_basic("robot", PASSWORD)
    with PushRegistry() as storage:
        fake.upload_host, storage.blobs, storage.owned = storage, fake.blobs, fake.owned
        send(pusher(fake, username="robot", password=PASSWORD), BIG)
        assert fake.took(REPOSITORY, digest_of(BIG)) == BIG
        assert len(storage.requests) == 4
        assert all(one.headers["Authorization"] is None for one in storage.requests)
    assert all(one.headers["Authorization"] for one in fake.requests[1:])


def test_bytes_do_not_go_from_tls_to_plain_http_on_another_host(pusher: Make) -> None:
    with PushRegistry(tls=True) as fake, FakeProxy() as proxy:
        proxy.routes[f"localhost:{fake.port}"] = fake.port
        fake.trouble("POST", headers={"Location": "http://storage.example.com/upload/1"}, times=None)
        client = pusher(fake, insecure=False, ca_pem=fake.ca_pem)
        error = failed(lambda: send(client, BIG))
        assert error.code == "redirect" and "X-Forwarded-Proto" in str(error)
        assert fake.read_back == 0


def test_a_location_that_lost_its_tls_behind_a_proxy_is_put_right(pusher: Make) -> None:
    with PushRegistry(tls=True) as fake:
        session = "one"
        fake.uploads[session] = bytearray()
        place = f"http://127.0.0.1/v2/{REPOSITORY}/blobs/uploads/{session}?_state=abc%3D%3D"
        fake.trouble("POST", headers={"Location": place})
        send(pusher(fake, insecure=False, ca_pem=fake.ca_pem), b"small")
        assert fake.took(REPOSITORY, digest_of(b"small")) == b"small"


@pytest.mark.parametrize("location", ["ftp://x/y", "http://[", "\x00", "//"])
def test_a_location_that_leads_nowhere_is_refused(fake: PushRegistry, pusher: Make, location: str) -> None:
    fake.trouble("POST", headers={"Location": location}, times=None)
    assert failed(lambda: send(pusher(fake), BIG)).code in ("redirect", "malformed", "not-found")


def test_an_upload_that_is_sent_elsewhere_with_307_begins_there(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("POST", status=307, headers={"Location": f"/v2/{REPOSITORY}/blobs/uploads/?moved=1"})
    send(pusher(fake), BIG)
    assert fake.took(REPOSITORY, digest_of(BIG)) == BIG


# Trying out


def test_a_test_names_what_does_not_answer(pusher: Make) -> None:
    with PushRegistry() as fake:
        gone = fake.host
    assert failed(lambda: pusher(gone, timeouts=replace(SHORT, attempts=1)).try_login(REPOSITORY)).code == "refused"


def test_a_test_names_a_certificate_nobody_knows_and_plain_http(pusher: Make, fake: PushRegistry) -> None:
    with PushRegistry(tls=True) as secure:
        error = failed(lambda: pusher(secure, insecure=False).try_login(REPOSITORY))
        assert error.code == "ca" and "Give this destination its CA file" in str(error)
    error = failed(lambda: pusher(fake, insecure=False).try_login(REPOSITORY))
    assert error.code == "tls" and "mark this destination as insecure" in str(error)


def test_a_test_names_a_proxy_that_refuses(pusher: Make) -> None:
    with PushRegistry(tls=True) as fake, FakeProxy() as proxy:
        proxy.require("someone", "else")
        error = failed(lambda: pusher(fake, insecure=False, ca_pem=fake.ca_pem, proxy=proxy.url).try_login(REPOSITORY))
        assert error.code == "proxy" and "407" in str(error)


def test_a_test_of_something_that_is_no_registry_says_so(pusher: Make, fake: PushRegistry) -> None:
    fake.fault("/v2/", status=404, body=b"<html>", times=None)
    error = failed(lambda: pusher(fake).try_login(REPOSITORY))
    assert error.code == "not-found" and "GET /v2/" in str(error) and error.hops


def test_a_registry_that_cannot_cancel_still_passes(fake: PushRegistry, pusher: Make) -> None:
    fake.trouble("DELETE", status=405)
    assert pusher(fake).try_login(REPOSITORY)


def test_descriptors_and_data_of_these_tests_agree() -> None:
    assert describe(BIG) == Descriptor(LAYER_TYPE, digest_of(some_bytes(250_000)), 250_000)
