"""The pages on who may read, and with which tokens."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from mirrors import access_tokens, refusals
from mirrors.models import AccessToken, AuditEntry, Consumer, Serving
from mirrors.reading import Refused, Why

PAGE, SWITCH, NEW, REVOKE = (
    "/settings/access/",
    "/settings/access/switch",
    "/settings/access/tokens/new",
    "/settings/access/tokens/ci/revoke",
)


@pytest.fixture(autouse=True)
def own_data(data_dir, db):
    return data_dir


def add(name="ci", life=None, now=None):
    return access_tokens.add_token(name, life=life, by="ada", now=now or timezone.now())[1]


def test_pages_are_for_administrators(client, viewer, operator, administrator):
    add()
    for path in (PAGE, SWITCH, NEW, REVOKE):
        assert client.get(path).status_code == 302
    for person, status in ((viewer, 403), (operator, 403), (administrator, 200)):
        client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
        for path in (PAGE, SWITCH, NEW, REVOKE):
            assert client.get(path).status_code == status


def test_changes_are_for_administrators(as_operator):
    add()
    for path, sent in ((SWITCH, {"required": "1"}), (NEW, {"name": "x"}), (REVOKE, {})):
        assert as_operator.post(path, sent).status_code == 403
    assert as_operator.post(PAGE).status_code in (403, 405)
    assert not Serving.now().login_required and AccessToken.objects.standing().count() == 1


def test_it_says_first_who_may_read(as_administrator, viewer):
    assert "<h1>Anybody who reaches this instance may read.</h1>" in as_administrator.get(PAGE).text
    add("ci")
    add("old", timedelta(days=1), timezone.now() - timedelta(days=3))
    access_tokens.require_login(True, by="ada", now=timezone.now())
    text = as_administrator.get(PAGE).text
    assert "<h1>Reading needs a login, which one access token and two people have.</h1>" in text


def test_without_tokens_it_says_what_they_are_for(as_administrator):
    text = as_administrator.get(PAGE).text
    assert "Here will stand every access token" in text and "only people can read" not in text
    access_tokens.require_login(True, by="ada", now=timezone.now())
    assert "only people can read" in as_administrator.get(PAGE).text


def test_the_list_tells_states_apart(as_administrator):
    now = timezone.now()
    add("ci")
    add("old", timedelta(days=1), now - timedelta(days=3))
    add("gone")
    access_tokens.revoke_token("gone", by="ada", now=now)
    AccessToken.objects.filter(name="ci").update(last_used_at=now - timedelta(hours=2))
    text = as_administrator.get(PAGE).text
    assert re.search(r"<strong>ci</strong>.*?2 hours ago.*?>never<.*?>usable<", text, re.DOTALL)
    assert re.search(r"<strong>old</strong>.*?never.*?>expired<", text, re.DOTALL)
    assert "1 revoked token" in text


def test_the_list_asks_as_often_for_many_tokens_as_for_few(as_administrator):
    def count():
        with CaptureQueriesContext(connection) as queries:
            as_administrator.get(PAGE)
        return len(queries)

    add("first")
    few = count()
    for number in range(20):
        add(f"t{number}")
    assert count() == few


def test_a_token_is_shown_once_with_the_lines_to_use_it(as_administrator, settings):
    settings.AIRGAP_BASE_URL = "https://airgap.plant.example:8443"
    answer = as_administrator.post(NEW, {"name": "ci", "expires": "90"})
    assert answer.status_code == 200 and "no-store" in answer["Cache-Control"]
    secret = re.search(r'<pre id="secret"[^>]*>(airgap_\w{43})</pre>', answer.text)[1]
    assert "docker login --username ci airgap.plant.example:8443" in answer.text
    assert f"token: {secret}" in answer.text and "https://airgap.plant.example:8443/vex/" in answer.text
    token = AccessToken.objects.get()
    assert token.created_by == "ada" and token.expires_at - token.created_at == timedelta(days=90)
    assert secret not in as_administrator.get(PAGE).text
    entry = AuditEntry.objects.get(action="access token added")
    assert entry.subject == "ci" and entry.address == "127.0.0.1" and secret not in entry.detail


def test_it_warns_of_credentials_without_tls(as_administrator, settings):
    assert "without TLS" in as_administrator.get(SWITCH).text
    assert "without TLS" in as_administrator.post(NEW, {"name": "ci"}).text
    settings.AIRGAP_BASE_URL = "https://airgap.plant.example"
    assert "without TLS" not in as_administrator.get(SWITCH).text
    assert "without TLS" not in as_administrator.post(NEW, {"name": "plant-7"}).text


def test_a_token_need_not_expire(as_administrator):
    as_administrator.post(NEW, {"name": "ci", "expires": ""})
    assert AccessToken.objects.get().expires_at is None


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "A B"}, "name"),
        ({"name": "-x"}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "taken"}, "name"),
        ({"name": "ci", "expires": "-1"}, "expires"),
    ],
)
def test_a_token_that_cannot_be_is_422(as_administrator, sent, field):
    add("taken")
    answer = as_administrator.post(NEW, sent)
    assert answer.status_code == 422 and field in answer.context["form"].errors
    assert AccessToken.objects.count() == 1


def test_revoking_asks_first(as_administrator):
    add()
    assert "Revoke ci?" in as_administrator.get(REVOKE).text
    assert AccessToken.objects.standing().exists()
    assert as_administrator.post(REVOKE).status_code == 302
    assert AccessToken.objects.get().revoked_at is not None
    assert AuditEntry.objects.filter(action="access token revoked", subject="ci").exists()
    again = as_administrator.post(REVOKE, follow=True)
    assert again.status_code == 200 and "There is no token called" in again.text
    assert as_administrator.get(REVOKE).status_code == 302


def test_a_name_can_be_had_again_once_its_token_is_revoked(as_administrator):
    first = add()
    as_administrator.post(REVOKE)
    assert add() != first


def test_requiring_a_login_says_who_is_locked_out_and_what_to_change_first(as_administrator):
    text = as_administrator.get(SWITCH).text
    assert "Require a login to read?" in text and "There is no usable access token" in text
    for word in ("docker config", "Trivy server", "Operator", "repository.yaml", "curl --user"):
        assert word in text
    add("ci")
    add("plant-7")
    AccessToken.objects.filter(name="ci").update(last_used_at=timezone.now())
    text = as_administrator.get(SWITCH).text
    assert "2 usable tokens, of which 1 was used in the last 7 days. Not used: plant-7." in text


def test_it_names_who_would_be_locked_out(as_administrator):
    now = timezone.now()
    for number in range(12):
        Consumer.objects.create(
            address=f"10.0.0.{number}",
            reader_kind="anonymous",
            agent="trivy/0.74.0",
            first_seen_at=now,
            last_seen_at=now - timedelta(hours=number),
        )
    Consumer.objects.create(address="10.9.9.9", reader_kind="token", first_seen_at=now, last_seen_at=now)
    ago = now - timedelta(days=8)
    Consumer.objects.create(address="10.8.8.8", reader_kind="anonymous", first_seen_at=ago, last_seen_at=ago)
    text = as_administrator.get(SWITCH).text
    assert "The latest 10 of 12 that asked without a login" in text and "10.0.0.9<" in text
    for address in ("10.0.0.10", "10.9.9.9", "10.8.8.8"):
        assert address not in text
    Serving.objects.update_or_create(pk=Serving.ONLY, defaults={"count_consumers": False})
    text = as_administrator.get(SWITCH).text
    assert "10.0.0.1" not in text and "Consumers are not counted here" in text


def test_without_strangers_it_says_so(as_administrator):
    assert "Nobody asked without a login in the last 7 days." in as_administrator.get(SWITCH).text


def test_the_switch_is_thrown_and_recorded(as_administrator):
    assert as_administrator.post(SWITCH, {"required": "1"}).status_code == 302
    assert Serving.now().login_required
    assert "Let anybody read?" in as_administrator.get(SWITCH).text
    # A second administrator with an old page asks for the same, not for the opposite.
    as_administrator.post(SWITCH, {"required": "1"})
    assert Serving.now().login_required
    as_administrator.post(SWITCH, {"required": "0"})
    assert not Serving.now().login_required
    entries = AuditEntry.objects.filter(action="reading changed").order_by("pk")
    assert [entry.detail for entry in entries] == ["a login is required", "anybody may read"]
    assert entries[0].actor == "ada" and entries[0].address == "127.0.0.1"


@pytest.mark.parametrize("sent", [{}, {"required": "yes"}])
def test_nonsense_switches_nothing(as_administrator, sent):
    assert as_administrator.post(SWITCH, sent).status_code == 422
    assert not Serving.now().login_required


def test_who_was_refused_lately_stands_there(as_administrator):
    assert "Refused in the last" not in as_administrator.get(PAGE).text
    refused = Refused(Why.NOBODY, "Reading needs a login here.")
    refusals.note(refused, what="/vex/<b>", agent="trivy/0.74.0", address="10.1.2.3", now=timezone.now())
    text = as_administrator.get(PAGE).text
    assert "Refused in the last 24 hours" in text and "10.1.2.3" in text
    assert "no credentials, for /vex/&lt;b&gt;, by trivy/0.74.0" in text
