"""Who is let through to what scanners fetch, with what, and what the others are told."""

import re
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from mirrors import access_tokens, reading
from mirrors.models import AccessToken, AuditEntry, User
from tests.reading.asking import ARCHIVE, FILE, MANIFEST, REGISTRY, basic, bearer

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.reading.urls")]

GARBAGE = [
    "Basic",
    "Basic !!!",
    "Basic Zm9v",
    "Basic /////w==",
    "Bearer",
    "Bearer not.ours.at.all",
    "Bearer " + "a" * 5000,
    "Negotiate abc",
    "Basic " + "QUFB" * 4000,
    "\x00\xff",
    ".",
]


# While anybody may read


@pytest.mark.parametrize("header", GARBAGE)
def test_while_anybody_may_read_whatever_is_sent_is_accepted(stranger, vexhub, header):
    for path in (MANIFEST, ARCHIVE, REGISTRY, FILE, "/v2/"):
        assert stranger.get(path, headers={"Authorization": header}).status_code == 200


def test_while_anybody_may_read_wrong_credentials_are_accepted_and_count_nowhere(stranger, administrator):
    for _ in range(20):
        assert stranger.get(REGISTRY, headers=basic("ada", "wrong")).text == "anonymous"
    assert not AuditEntry.objects.exists()
    assert stranger.post("/login/", {"username": "ada"}).status_code != 429


def test_while_anybody_may_read_nothing_is_asked_of_the_database(stranger):
    stranger.get(REGISTRY)
    with CaptureQueriesContext(connection) as queries:
        for headers in ({}, basic("ada", "wrong"), bearer("something"), {"Authorization": "."}):
            assert stranger.get(REGISTRY, headers=headers).text == "anonymous"
    assert not queries.captured_queries


def test_while_anybody_may_read_a_token_is_recognised(stranger, make_token):
    """So that an administrator sees who has one before a login is required."""
    secret = make_token("ci")
    assert stranger.get(REGISTRY, headers=bearer(secret)).text == "token ci"
    assert stranger.get(REGISTRY, headers=basic("whoever", secret)).text == "token ci"
    assert AccessToken.objects.get().last_used_at is not None
    assert stranger.get(REGISTRY, headers=bearer(secret + "x")).text == "anonymous"


def test_what_anybody_may_read_stays_for_every_cache(stranger):
    assert "public" in stranger.get(REGISTRY)["Cache-Control"]


# Once a login is required


@pytest.mark.parametrize("method", ["get", "head"])
@pytest.mark.parametrize("path", [MANIFEST, ARCHIVE])
def test_vex_asks_for_basic_and_takes_what_comes_with_the_first_request(
    stranger, vexhub, closed, make_token, method, path
):
    ask = getattr(stranger, method)
    answer = ask(path)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == 'Basic realm="Airgap", charset="UTF-8"'
    assert answer["Content-Type"].startswith("text/plain") and "no-store" in answer["Cache-Control"]
    secret = make_token("ci")
    for headers in (bearer(secret), basic("ci", secret), basic("x", secret)):
        assert ask(path, headers=headers).status_code == 200


def test_the_sentence_says_what_to_send(stranger, closed):
    assert stranger.get(FILE).text == "Reading needs a login here: an access token, or a user name and password.\n"


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/v2/", None),
        ("/v2/aquasecurity/trivy-db/manifests/2", "aquasecurity/trivy-db"),
        ("/v2/a/b/c/blobs/sha256:00", "a/b/c"),
        ("/v2/mirrors/x/tags/list", "mirrors/x"),
        ("/v2/blobs/blobs/manifests/2", "blobs/blobs"),
        ("/v2/x/referrers/sha256:00", "x"),
        ("/v2/UPPER/manifests/2", None),
        ('/v2/a",realm="http%3A//evil/manifests/2', None),
        ("/v2/" + "a/" * 200 + "a/manifests/2", None),
        ("/v2/nothing", None),
    ],
)
def test_every_address_of_the_registry_names_the_token_endpoint(stranger, closed, path, scope):
    answer = stranger.get(path)
    assert answer.status_code == 401
    (error,) = answer.json()["errors"]
    assert error["code"] == "UNAUTHORIZED" and "access token" in error["message"]
    assert answer["Docker-Distribution-API-Version"] == "registry/2.0"
    expected = 'Bearer realm="http://testserver/v2/token",service="testserver"'
    assert answer["WWW-Authenticate"] == expected + (f',scope="repository:{scope}:pull"' if scope else "")


def test_the_token_endpoint_stands_where_this_instance_is_reached(stranger, closed, settings):
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    answer = stranger.get("/v2/", headers={"Host": "mirror.plant.example:8443", "X-Forwarded-Proto": "https"})
    said = 'realm="https://mirror.plant.example:8443/v2/token",service="mirror.plant.example:8443"'
    assert said in answer["WWW-Authenticate"]
    settings.AIRGAP_BASE_URL = "https://airgap.plant.example"
    said = 'realm="https://airgap.plant.example/v2/token",service="airgap.plant.example"'
    assert said in stranger.get("/v2/")["WWW-Authenticate"]


@pytest.mark.parametrize("header", GARBAGE)
def test_what_cannot_be_read_is_refused_in_a_sentence(stranger, closed, header):
    for path in (REGISTRY, FILE):
        answer = stranger.get(path, headers={"Authorization": header})
        assert answer.status_code == 401 and "WWW-Authenticate" in answer
        assert len(answer.content) < 500


def test_a_token_reads_by_bearer_and_as_a_password(stranger, closed, make_token):
    secret = make_token("ci")
    assert re.fullmatch(r"airgap_[A-Za-z0-9]{43}", secret)
    assert stranger.get(REGISTRY, headers=bearer(secret)).text == "token ci"
    assert stranger.get(REGISTRY, headers={"Authorization": f"bearer  {secret}"}).text == "token ci"
    assert stranger.get(REGISTRY, headers=basic("ci", secret)).text == "token ci"
    assert stranger.get(REGISTRY, headers=basic("", secret)).text == "token ci"
    assert stranger.get(FILE, headers=basic("some-user", secret)).text == "token ci"
    assert stranger.get(REGISTRY, headers=basic("ci", secret))["Cache-Control"] == "max-age=60, private"


def test_a_revoked_token_reads_no_more(stranger, closed, make_token, django_capture_on_commit_callbacks):
    secret = make_token("ci")
    assert stranger.get(REGISTRY, headers=bearer(secret)).status_code == 200
    with django_capture_on_commit_callbacks(execute=True):
        access_tokens.revoke_token("ci", by="ada", now=timezone.now())
    answer = stranger.get(REGISTRY, headers=bearer(secret))
    assert answer.status_code == 401 and 'error="invalid_token"' in answer["WWW-Authenticate"]
    assert answer.json()["errors"][0]["message"] == "The access token ci was revoked."


def test_a_token_revoked_by_another_process_reads_no_more_within_seconds(stranger, closed, make_token, monkeypatch):
    secret = make_token("ci")
    assert stranger.get(REGISTRY, headers=bearer(secret)).status_code == 200
    AccessToken.objects.update(revoked_at=timezone.now())
    clock = reading.monotonic()
    monkeypatch.setattr(reading, "monotonic", lambda: clock + reading.LOOK_AGAIN_SECONDS)
    assert stranger.get(REGISTRY, headers=bearer(secret)).status_code == 401


def test_an_expired_token_reads_no_more(stranger, closed, make_token):
    secret = make_token("ci", timedelta(days=1), now=timezone.now() - timedelta(days=2))
    answer = stranger.get(REGISTRY, headers=bearer(secret))
    assert answer.status_code == 401 and "The access token ci expired on " in answer.json()["errors"][0]["message"]


def test_a_person_reads_with_name_and_password(stranger, closed, viewer):
    assert stranger.get(FILE, headers=basic("vera", "correct horse vera")).text == "user vera"
    assert stranger.get(REGISTRY, headers=basic("vera", "correct horse vera")).text == "user vera"


def test_somebody_signed_in_reads_by_following_a_link(as_viewer, closed):
    assert as_viewer.get(FILE).text == "user vera"


def test_a_person_who_was_kept_out_reads_no_more(stranger, closed, viewer):
    assert stranger.get(FILE, headers=basic("vera", "correct horse vera")).status_code == 200
    User.objects.update(is_active=False)
    reading.forget()
    assert stranger.get(FILE, headers=basic("vera", "correct horse vera")).status_code == 401


def test_a_first_password_reads_nothing(stranger, closed, viewer):
    User.objects.update(must_change_password=True)
    for path in (FILE, REGISTRY):
        answer = stranger.get(path, headers=basic("vera", "correct horse vera"))
        assert answer.status_code == 403 and "vera must sign in with a browser first" in answer.text


def test_a_changed_password_holds_at_once_and_the_old_one_no_more(stranger, closed, viewer, monkeypatch):
    assert stranger.get(FILE, headers=basic("vera", "correct horse vera")).status_code == 200
    viewer.set_password("another horse")
    viewer.save()
    assert stranger.get(FILE, headers=basic("vera", "another horse")).status_code == 200
    clock = reading.monotonic()
    monkeypatch.setattr(reading, "monotonic", lambda: clock + reading.LOOK_AGAIN_SECONDS)
    assert stranger.get(FILE, headers=basic("vera", "correct horse vera")).status_code == 401


def test_a_password_is_hashed_once_and_not_with_every_request(stranger, closed, viewer, monkeypatch):
    hashed = []
    check = User.check_password
    monkeypatch.setattr(User, "check_password", lambda self, raw: hashed.append(raw) or check(self, raw))
    for _ in range(5):
        assert stranger.get(FILE, headers=basic("vera", "correct horse vera")).status_code == 200
        assert stranger.get(FILE, headers=basic("vera", "old")).status_code == 401
    assert sorted(hashed) == ["correct horse vera", "old"]


def test_guessing_is_throttled_as_on_the_login_page(stranger, closed, viewer, settings):
    for number in range(settings.AXES_FAILURE_LIMIT):
        answer = stranger.get(REGISTRY, headers=basic("vera", f"guess {number}"))
    assert answer.status_code == 429 and answer["Retry-After"] == "900"
    assert answer.json()["errors"][0]["code"] == "TOOMANYREQUESTS"
    assert "wait 15 minutes" in answer.json()["errors"][0]["message"]
    assert stranger.get(FILE, headers=basic("vera", "correct horse vera")).status_code == 429
    assert stranger.post("/login/", {"username": "vera", "password": "correct horse vera"}).status_code in (403, 429)


def test_a_scanner_with_an_old_password_locks_nobody_out(stranger, closed, viewer, settings):
    for _ in range(settings.AXES_FAILURE_LIMIT * 2):
        assert stranger.get(FILE, headers=basic("vera", "last year's")).status_code == 401
    assert stranger.get(FILE, headers=basic("vera", "correct horse vera")).status_code == 200


@pytest.mark.parametrize("name", ["a" * 151, "a\0b", ""])
def test_a_name_nobody_can_have_is_refused(stranger, closed, name):
    assert stranger.get(FILE, headers=basic(name, "password")).status_code == 401


def test_readers_are_looked_up_once_and_not_with_every_request(stranger, closed, make_token, viewer):
    secret = make_token("ci")
    each = (bearer(secret), basic("ci", secret), basic("vera", "correct horse vera"))
    for headers in each:
        stranger.get(REGISTRY, headers=headers)
    with CaptureQueriesContext(connection) as queries:
        for _ in range(3):
            for headers in each:
                assert stranger.get(REGISTRY, headers=headers).status_code == 200
    assert not queries.captured_queries


def test_the_switch_holds_within_seconds_in_other_processes(stranger, closed, monkeypatch):
    assert stranger.get(REGISTRY).status_code == 401
    from mirrors.models import Serving

    Serving.objects.update(login_required=False)
    clock = reading.monotonic()
    monkeypatch.setattr(reading, "monotonic", lambda: clock + reading.LOOK_AGAIN_SECONDS)
    assert stranger.get(REGISTRY).status_code == 200


# When a token was last used


def test_use_is_written_once_a_minute_and_not_with_every_request(stranger, closed, make_token, monkeypatch):
    secret = make_token("ci")
    stranger.get(REGISTRY, headers=bearer(secret))
    first = AccessToken.objects.get().last_used_at
    assert first is not None
    stranger.get(REGISTRY, headers=bearer(secret))
    assert AccessToken.objects.get().last_used_at == first
    clock = reading.monotonic()
    monkeypatch.setattr(reading, "monotonic", lambda: clock + reading.USE_WRITTEN_SECONDS)
    stranger.get(REGISTRY, headers=bearer(secret))
    assert AccessToken.objects.get().last_used_at > first


# What the record says of it


def test_who_was_refused_stands_in_the_record_once_an_hour(stranger, closed, make_token):
    for _ in range(5):
        stranger.get(FILE, headers={"User-Agent": "trivy/0.74.0"})
        stranger.get(MANIFEST, headers=bearer("airgap_" + "x" * 43))
    refused = list(AuditEntry.objects.filter(action="reader refused").order_by("pk"))
    assert [(entry.actor, entry.address) for entry in refused] == [
        ("somebody", "127.0.0.1"),
        ("an access token", "127.0.0.1"),
    ]
    assert refused[0].detail == f"no credentials, for {FILE}, by trivy/0.74.0"


def test_the_first_request_of_a_registry_client_is_no_refusal(stranger, closed):
    stranger.get("/v2/")
    stranger.get(REGISTRY)
    assert not AuditEntry.objects.filter(action="reader refused").exists()


def test_the_record_does_not_grow_with_what_strangers_send(stranger, closed):
    for number in range(50):
        stranger.get(FILE, headers=basic(f"name{number}", "x"))
    refused = AuditEntry.objects.filter(action="reader refused").order_by("pk")
    assert refused.count() == 30
    assert refused.last().detail.endswith("further ones of this hour are not written down")
    assert {entry.actor for entry in refused} == {"(no such user)"}


def test_a_record_that_cannot_be_written_changes_no_answer(stranger, closed, make_token):
    """As while another writer holds SQLite for too long."""

    def busy(execute, sql, params, many, context):
        if sql.startswith(("INSERT", "UPDATE")):
            raise OperationalError("database is locked")
        return execute(sql, params, many, context)

    secret = make_token("ci")
    with connection.execute_wrapper(busy):
        assert stranger.get(FILE).status_code == 401
        assert stranger.get(FILE, headers=bearer(secret)).text == "token ci"


def test_no_secret_is_written_anywhere(stranger, closed, make_token, viewer, caplog):
    secret = make_token("ci")
    signed = stranger.get("/v2/token", headers=basic("vera", "correct horse vera")).json()["token"]
    for headers in (
        bearer(secret),
        basic("vera", "a wrong secret"),
        basic("a wrong secret", "x"),
        bearer(signed + "x"),
    ):
        stranger.get(FILE, headers=headers)
    told = " ".join(f"{entry.actor} {entry.subject} {entry.detail}" for entry in AuditEntry.objects.all()) + caplog.text
    for word in (secret, "a wrong secret", signed, "correct horse vera"):
        assert word not in told
    assert secret not in str(AccessToken.objects.values())
