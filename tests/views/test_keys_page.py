"""The pages on the key of this instance and on whose keys are trusted."""

import re
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from mirrors import keys
from mirrors.models import AuditEntry, SigningKey, TrustedKey
from mirrors.signing import Key

PAGE, TRUST = "/settings/keys/", "/settings/keys/trust"
ROTATE, ELSEWHERE, MAKE = "/settings/keys/rotate", "/settings/keys/elsewhere", "/settings/keys/make"
REVOKE = "/settings/keys/trusted/outside/revoke"
FILE, SIGNERS = "/settings/keys/file/airgap.pub", "/settings/keys/file/allowed_signers"
OTHER = Key.generate()


@pytest.fixture(autouse=True)
def own_data(data_dir, db):
    return data_dir


def trust(name="outside", key=OTHER):
    return keys.trust(name, key.public_line("x"), note="by phone", by="ada", now=timezone.now())


def test_pages_are_for_administrators(client, viewer, operator, administrator):
    keys.current()
    trust()
    pages = (PAGE, TRUST, ROTATE, ELSEWHERE, REVOKE, FILE, SIGNERS)
    for path in pages:
        assert client.get(path).status_code == 302
    for person, status in ((viewer, 403), (operator, 403), (administrator, 200)):
        client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
        for path in pages:
            assert client.get(path).status_code == status, path


def test_changes_are_for_administrators(as_operator):
    trust()
    sent = {"name": "x", "text": Key.generate().public_line(), "kept": "outside"}
    for path in (TRUST, ROTATE, ELSEWHERE, REVOKE, MAKE):
        assert as_operator.post(path, sent).status_code == 403
    assert not SigningKey.objects.exists() and TrustedKey.objects.standing().count() == 1


def test_it_is_in_the_navigation(as_administrator):
    assert f'<a href="{PAGE}" aria-current="page">Keys</a>' in as_administrator.get(PAGE).text


def test_without_a_key_it_offers_to_make_one_and_makes_none_by_itself(as_administrator):
    text = as_administrator.get(PAGE).text
    assert "<h1>No bundle has been signed here yet.</h1>" in text and "Make our key now" in text
    assert not SigningKey.objects.exists()
    assert as_administrator.get(FILE).status_code == 404
    assert as_administrator.get(MAKE).status_code == 405
    assert as_administrator.post(MAKE).status_code == 302
    assert SigningKey.objects.count() == 1


def test_the_public_key_is_shown_and_given_out_in_both_forms(as_administrator):
    key = keys.current()
    text = as_administrator.get(PAGE).text
    assert "<h1>Bundles are signed with a key of this instance.</h1>" in text
    assert key.fingerprint in text and key.public_line in text and "PRIVATE" not in text
    assert as_administrator.get(FILE).text == key.public_line + "\n"
    answer = as_administrator.get(SIGNERS)
    assert answer.text == keys.allowed_signers(key) + "\n"
    assert answer["Content-Disposition"] == 'attachment; filename="allowed_signers"'
    assert as_administrator.get("/settings/keys/file/private").status_code == 404


@pytest.mark.parametrize("side", ["connected", "isolated", "both"])
def test_every_side_has_its_sentence(as_administrator, settings, side):
    settings.AIRGAP_SIDE = side
    trust()
    trust("second", Key.generate())
    text = as_administrator.get(PAGE).text
    expected = "Two keys are trusted here." if side == "isolated" else "No bundle has been signed here yet."
    assert f"<h1>{expected}</h1>" in text
    first, second = "Trusted keys of others", "The key of this instance"
    assert (text.index(first) < text.index(second)) == (side == "isolated")


def test_rotating_asks_first(as_administrator):
    first = keys.current()
    text = as_administrator.get(ROTATE).text
    assert "Make a new key to sign with?" in text and "is destroyed" in text and first.fingerprint in text
    assert keys.current() == first
    text = as_administrator.post(ROTATE, follow=True).text
    assert keys.current() != first
    assert "from now on" in text and "1 former key" in text
    entry = AuditEntry.objects.latest("pk")
    assert (entry.actor, entry.action, entry.address) == ("ada", "signing key rotated", "127.0.0.1")


def test_a_key_kept_outside_is_chosen(as_administrator):
    keys.current()
    text = as_administrator.post(ELSEWHERE, {"kept": "outside", "text": OTHER.public_line()}, follow=True).text
    assert "<h1>Every bundle waits for a signature from outside.</h1>" in text
    assert keys.current().fingerprint == OTHER.fingerprint
    assert "is destroyed" not in as_administrator.get(ROTATE).text


def test_a_key_in_an_agent_that_is_away_is_refused_with_the_reason(as_administrator, settings):
    settings.AIRGAP_SSH_AUTH_SOCK = "/nowhere/agent"
    answer = as_administrator.post(ELSEWHERE, {"kept": "agent", "text": OTHER.public_line()})
    assert answer.status_code == 422 and "The ssh-agent at /nowhere/agent cannot be used" in answer.text


def test_the_list_names_whose_keys_are_trusted(as_administrator):
    trust()
    text = as_administrator.get(PAGE).text
    assert re.search(rf"<strong>outside</strong>.*?by phone.*?{re.escape(OTHER.fingerprint)}", text, re.DOTALL)
    keys.revoke("outside", by="ada", now=timezone.now() - timedelta(hours=2))
    text = as_administrator.get(PAGE).text
    assert "1 revoked key" in text and "Here will stand whose signatures are believed" in text


def test_the_list_asks_as_often_for_many_keys_as_for_few(as_administrator):
    keys.current()

    def count():
        with CaptureQueriesContext(
            connection,
        ) as queries:
            as_administrator.get(PAGE)
        return len(queries)

    trust()
    few = count()
    for number in range(5):
        trust(f"k{number}", Key.generate())
    assert count() == few


def test_a_key_is_pasted(as_administrator):
    sent = {"name": "outside", "text": OTHER.public_line("x") + "\r\n", "note": "by phone"}
    text = as_administrator.post(TRUST, sent, follow=True).text
    assert f"outside is trusted: {OTHER.fingerprint}" in text
    assert TrustedKey.objects.get().added_by == "ada"


def test_a_key_comes_as_a_file(as_administrator):
    line = OTHER.public.allowed_signers("airgap", "airgap-bundle") + "\n"
    file = SimpleUploadedFile("allowed_signers", line.encode())
    assert as_administrator.post(TRUST, {"name": "outside", "file": file}).status_code == 302
    assert TrustedKey.objects.get().fingerprint == OTHER.fingerprint


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ({"name": "outside"}, "Paste the key, or choose its file."),
        ({"name": "Out side", "text": "KEY"}, "A name is lower-case letters"),
        ({"name": "outside", "text": "hello"}, "This is no public key of OpenSSH"),
        ({"name": "outside", "text": "x\0"}, "Null characters are not allowed"),
        ({"name": "outside", "text": OTHER.private_openssh()}, "This is a private key, which must stay where it is"),
        ({"name": "outside", "text": "x" * 20_000}, "at most 16384 characters"),
        ({"name": "outside", "file": b"\xff" * 20_000}, "too long"),
        ({"name": "outside", "file": b""}, "empty"),
        ({"name": "outside", "text": "KEY", "file": b"x"}, "not both"),
        ({"text": "KEY"}, "This field is required"),
    ],
    ids=["nothing", "name", "no key", "NUL", "private", "long", "long file", "empty file", "both", "no name"],
)
def test_what_is_wrong_with_it_is_said_in_the_form(as_administrator, sent, sentence):
    sent = {name: OTHER.public_line() if value == "KEY" else value for name, value in sent.items()}
    if "file" in sent:
        sent["file"] = SimpleUploadedFile("x.pub", sent["file"])
    answer = as_administrator.post(TRUST, sent)
    assert answer.status_code == 422
    assert sentence in answer.text
    assert not TrustedKey.objects.exists()


def test_a_private_key_is_not_sent_back(as_administrator):
    answer = as_administrator.post(TRUST, {"name": "outside", "file": SimpleUploadedFile("k", b"-----BEGIN X")})
    assert answer.status_code == 422 and "-----BEGIN X" not in answer.text


def test_a_revoked_key_is_taken_again_with_a_tick_only(as_administrator):
    trust()
    keys.revoke("outside", by="ada", now=timezone.now())
    sent = {"name": "outside", "text": OTHER.public_line()}
    answer = as_administrator.post(TRUST, sent)
    assert answer.status_code == 422 and "If it is to be trusted again, say so" in answer.text
    assert as_administrator.post(TRUST, {**sent, "again": "on"}).status_code == 302


def test_revoking_asks_first(as_administrator):
    trust()
    text = as_administrator.get(REVOKE).text
    assert "Revoke outside?" in text and OTHER.fingerprint in text
    assert TrustedKey.objects.standing().exists()
    assert "outside was revoked" in as_administrator.post(REVOKE, follow=True).text
    assert not TrustedKey.objects.standing().exists()
    for ask in (as_administrator.get, as_administrator.post):
        text = ask(REVOKE, follow=True).text
        assert "There is no trusted key called outside" in text


class TestSmallFiles:
    def big(self, size):
        return SimpleUploadedFile("big", b"x" * size)

    def test_a_large_body_is_refused_unread(self, as_administrator):
        answer = as_administrator.post(TRUST, {"name": "outside", "file": self.big(300_000)})
        assert answer.status_code == 413 and "over 256 KiB" in answer.text

    def test_a_form_token_is_wanted_as_on_every_page(self, administrator):
        client = Client(enforce_csrf_checks=True)
        client.force_login(administrator, backend="django.contrib.auth.backends.ModelBackend")
        sent = {"name": "outside", "text": OTHER.public_line()}
        assert client.post(TRUST, sent).status_code == 403
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', client.get(TRUST).text)[1]
        file = SimpleUploadedFile("k.pub", OTHER.public_line().encode())
        sent = {"name": "outside", "file": file, "csrfmiddlewaretoken": token}
        assert client.post(TRUST, sent).status_code == 302

    def test_a_strangers_file_is_never_read(self, client):
        assert client.post(TRUST, {"file": self.big(300_000)}).status_code == 302

    def test_other_pages_take_no_file(self, as_administrator):
        answer = as_administrator.post("/settings/access/tokens/new", {"name": "x", "file": self.big(10)})
        assert not answer.wsgi_request.FILES
