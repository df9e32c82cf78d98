"""The token flows of registry clients: GET with Basic, POST as OAuth 2, and what `docker login` keeps."""

import io
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from mirrors import access_tokens, reading
from mirrors.models import AuditEntry, User
from mirrors.views.reading import token
from tests.reading.asking import FILE, REGISTRY, TOKEN, basic, bearer

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.reading.urls")]

SCOPE = "repository:aquasecurity/trivy-db:pull"
VERA = basic("vera", "correct horse vera")


def grant(client, **form):
    return client.post(TOKEN, form)


def test_basic_credentials_give_a_token_that_reads(stranger, closed, viewer, make_token):
    for headers, who in ((VERA, "user vera"), (basic("x", make_token("ci")), "token ci")):
        answer = stranger.get(TOKEN, {"service": "testserver", "scope": SCOPE, "account": "x"}, headers=headers)
        assert answer.status_code == 200 and "no-store" in answer["Cache-Control"]
        said = answer.json()
        assert said["token"] == said["access_token"] and said["expires_in"] == 600 and said["scope"] == SCOPE
        assert abs(datetime.fromisoformat(said["issued_at"]) - timezone.now()) < timedelta(seconds=10)
        assert "refresh_token" not in said
        assert len(answer.content) < 4096 and ":" not in said["token"]
        assert stranger.get(REGISTRY, headers=bearer(said["token"])).text == who
        assert stranger.get(FILE, headers=bearer(said["token"])).text == who


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ([], ""),
        ([SCOPE, "repository:x/y:pull"], f"{SCOPE} repository:x/y:pull"),
        ([f"{SCOPE} repository:x/y:pull"], f"{SCOPE} repository:x/y:pull"),
        ([SCOPE, SCOPE], SCOPE),
        (["repository:x:pull,push"], "repository:x:pull"),
        (["repository:x:*"], "repository:x:pull"),
        (["repository(plugin):x:pull"], "repository:x:pull"),
        (["repository:x:push"], ""),
        (["registry:catalog:*"], ""),
        (["repository:UPPER:pull", "repository::pull", "nonsense", "repository:a:b:pull"], ""),
        (["repository:no/such/thing:pull"], "repository:no/such/thing:pull"),
    ],
)
def test_what_is_asked_for_is_granted_to_pull_and_says_nothing_of_what_exists(stranger, closed, viewer, asked, granted):
    assert stranger.get(TOKEN, {"scope": asked}, headers=VERA).json()["scope"] == granted


def test_more_scopes_than_anybody_needs_are_refused(stranger, closed, viewer):
    answer = stranger.get(TOKEN, {"scope": " ".join(f"repository:x{n}:pull" for n in range(21))}, headers=VERA)
    assert answer.status_code == 400 and "20 scopes at most" in answer.json()["errors"][0]["message"]


def test_a_token_for_many_long_names_still_fits_into_a_header(stranger, closed, viewer):
    scopes = [f"repository:{'x' * 190}{number}:pull" for number in range(20)]
    token = stranger.get(TOKEN, {"scope": scopes}, headers=VERA).json()["token"]
    assert len(token) < 4096
    assert stranger.get(REGISTRY, headers=bearer(token)).text == "user vera"


def test_the_token_holds_for_ten_minutes(stranger, closed, viewer, monkeypatch):
    token = stranger.get(TOKEN, headers=VERA).json()["token"]
    moment = timezone.now().timestamp()
    for after, status in ((590, 200), (620, 401)):
        monkeypatch.setattr("django.core.signing.time.time", lambda after=after: moment + after)
        assert stranger.get(REGISTRY, headers=bearer(token)).status_code == status


def test_a_token_of_a_revoked_access_token_reads_no_more(
    stranger, closed, make_token, django_capture_on_commit_callbacks
):
    token = stranger.get(TOKEN, headers=basic("x", make_token("ci"))).json()["token"]
    assert stranger.get(REGISTRY, headers=bearer(token)).status_code == 200
    with django_capture_on_commit_callbacks(execute=True):
        access_tokens.revoke_token("ci", by="ada", now=timezone.now())
    assert stranger.get(REGISTRY, headers=bearer(token)).status_code == 401


@pytest.mark.parametrize("change", [{"is_active": False}, {"password": "another"}])
def test_a_token_of_somebody_kept_out_or_with_a_new_password_reads_no_more(stranger, closed, viewer, change):
    token = stranger.get(TOKEN, headers=VERA).json()["token"]
    User.objects.update(**change)
    reading.forget()
    assert stranger.get(REGISTRY, headers=bearer(token)).status_code == 401


@pytest.mark.parametrize("spoil", [lambda t: t[:-1], lambda t: "x" + t, lambda t: t.upper(), lambda t: t.split(".")[0]])
def test_a_spoilt_token_reads_nothing(stranger, closed, viewer, spoil):
    token = stranger.get(TOKEN, headers=VERA).json()["token"]
    assert stranger.get(REGISTRY, headers=bearer(spoil(token))).status_code == 401


def test_nobody_and_the_wrong_are_told_so_in_the_words_of_both_protocols(stranger, closed, viewer):
    answer = stranger.get(TOKEN, {"scope": SCOPE})
    assert answer.status_code == 401 and answer["WWW-Authenticate"].startswith("Basic ")
    assert "an access token" in answer.json()["errors"][0]["message"]
    for answer in (
        stranger.get(TOKEN, headers=basic("vera", "wrong")),
        grant(stranger, grant_type="password", username="vera", password="wrong"),
        grant(stranger, grant_type="refresh_token", refresh_token="what.ever"),
        grant(stranger, grant_type="refresh_token"),
        grant(stranger, grant_type="password", username="v\0", password="wrong"),
        grant(stranger, grant_type="password", username="v" * 200, password="wrong"),
    ):
        assert answer.status_code == 401
        assert answer.json()["error"] == "invalid_grant" and answer.json()["errors"][0]["code"] == "UNAUTHORIZED"
    assert AuditEntry.objects.filter(action="reader refused", actor="somebody").count() == 2


def test_it_takes_the_password_grant(stranger, closed, viewer, make_token):
    """oras-go and containerd ask so."""
    answer = grant(
        stranger, grant_type="password", username="vera", password="correct horse vera", service="s", scope=SCOPE
    )
    assert answer.status_code == 200 and "refresh_token" not in answer.json()
    assert stranger.get(REGISTRY, headers=bearer(answer.json()["access_token"])).text == "user vera"
    answer = grant(stranger, grant_type="password", username="x", password=make_token("ci"))
    assert stranger.get(REGISTRY, headers=bearer(answer.json()["access_token"])).text == "token ci"


def test_an_identity_token_of_docker_config_gets_tokens(stranger, closed, viewer):
    said = stranger.get(TOKEN, {"offline_token": "true", "client_id": "docker", "account": "vera"}, headers=VERA).json()
    refresh = said["refresh_token"]
    assert stranger.get(REGISTRY, headers=bearer(refresh)).status_code == 401
    answer = grant(stranger, grant_type="refresh_token", refresh_token=refresh, service="s", scope=SCOPE)
    assert stranger.get(REGISTRY, headers=bearer(answer.json()["access_token"])).text == "user vera"
    viewer.set_password("another horse")
    viewer.save()
    reading.forget()
    assert grant(stranger, grant_type="refresh_token", refresh_token=refresh).status_code == 401


def test_an_access_token_is_its_own_identity_token(stranger, closed, make_token):
    secret = make_token("ci")
    answer = grant(stranger, grant_type="password", username="x", password=secret, access_type="offline")
    assert answer.json()["refresh_token"] == secret
    answer = grant(stranger, grant_type="refresh_token", refresh_token=secret)
    assert stranger.get(REGISTRY, headers=bearer(answer.json()["access_token"])).text == "token ci"


@pytest.mark.parametrize("form", [{}, {"grant_type": "client_credentials"}, {"grant_type": "\0"}])
def test_another_grant_is_refused(stranger, closed, form):
    answer = grant(stranger, **form)
    assert answer.status_code == 400 and answer.json()["error"] == "unsupported_grant_type"


def test_a_form_larger_than_any_is_refused(stranger, closed):
    assert grant(stranger, grant_type="password", username="x", password="y" * 20_000).status_code == 413


@pytest.mark.parametrize("body", [b"\xff\xfe=\xff", b"grant_type=password&username=%ff&password=%ff"])
def test_what_is_no_text_is_refused(stranger, closed, body):
    answer = stranger.post(TOKEN, body, content_type="application/x-www-form-urlencoded")
    assert answer.status_code in (400, 401)


class Broken(io.BytesIO):
    def read(self, size=-1):
        raise ValueError("Invalid chunk size")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (io.BytesIO(b"grant_type=password&username=vera&password=correct+horse+vera"), 200),
        (io.BytesIO(b"grant_type=password&username=vera&password=wrong"), 401),
        (io.BytesIO(b""), 400),
        (io.BytesIO(b"x" * 20_000), 413),
        (Broken(), 400),
    ],
)
def test_it_reads_a_form_that_came_in_chunks(rf, closed, viewer, body, status):
    """Without a length, as containers/image sends it and gunicorn passes it on."""
    request = rf.generic("POST", TOKEN, content_type="application/x-www-form-urlencoded")
    request.META.pop("CONTENT_LENGTH", None)
    request.META |= {"wsgi.input": body, "wsgi.input_terminated": True}
    assert token(request).status_code == status


@pytest.mark.parametrize("length", ["", "-1", "x", "9" * 40, "1_0"])
def test_a_length_that_is_none_is_no_error_of_ours(stranger, closed, length):
    assert stranger.post(TOKEN, {"grant_type": "password"}, CONTENT_LENGTH=length).status_code in (400, 401, 413)


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options"])
def test_other_methods_are_refused(stranger, closed, method):
    assert getattr(stranger, method)(TOKEN).status_code in (403, 405)


def test_a_first_password_gets_no_token(stranger, closed, viewer):
    User.objects.update(must_change_password=True)
    assert stranger.get(TOKEN, headers=VERA).status_code == 403


def test_the_throttle_holds_here_too(stranger, closed, viewer, settings):
    for number in range(settings.AXES_FAILURE_LIMIT):
        answer = grant(stranger, grant_type="password", username="vera", password=f"guess {number}")
    assert answer.status_code == 429 and answer.json()["errors"][0]["code"] == "TOOMANYREQUESTS"
    assert stranger.get(TOKEN, headers=VERA).status_code == 429


def test_while_anybody_may_read_anybody_gets_a_token(stranger, viewer, make_token):
    for answer in (
        stranger.get(TOKEN),
        stranger.get(TOKEN, headers=basic("vera", "wrong")),
        grant(stranger, grant_type="password", username="vera", password="wrong"),
    ):
        assert stranger.get(REGISTRY, headers=bearer(answer.json()["token"])).text == "anonymous"
    assert stranger.get(TOKEN, headers=basic("x", make_token("ci"))).status_code == 200


def test_a_token_of_nobody_reads_no_more_once_a_login_is_required(stranger, django_capture_on_commit_callbacks):
    token = stranger.get(TOKEN).json()["token"]
    with django_capture_on_commit_callbacks(execute=True):
        access_tokens.require_login(True, by="ada", now=timezone.now())
    assert stranger.get(REGISTRY, headers=bearer(token)).status_code == 401
