"""`manage.py token`, as a script calls it: exit status, stdout, stderr."""

import json
import re
from datetime import timedelta

import pytest
from django.utils import timezone

from mirrors import access_tokens, reading
from mirrors.models import AccessToken, AuditEntry
from tests.test_mirror_command import manage

__all__ = ["manage"]


@pytest.fixture(autouse=True)
def own_data(data_dir, db):
    return data_dir


def test_it_prints_a_new_token_and_nothing_else_on_stdout(manage):
    status, out, err = manage("token", "add", "ci", "--days", "30")
    assert status == 0 and re.fullmatch(r"airgap_[A-Za-z0-9]{43}\n", out) and "never again" in err
    token = AccessToken.objects.get()
    assert token.digest == reading.digest_of(out.strip()) and token.expires_at - token.created_at == timedelta(days=30)
    assert AuditEntry.objects.get().actor.endswith("(command line)")


def test_with_json_the_token_is_one_of_its_keys(manage):
    status, out, _ = manage("token", "add", "ci", "--json")
    (said,) = json.loads(out)
    assert status == 0 and said["name"] == "ci" and said["state"] == "usable" and said["expires_at"] is None
    assert said["token"].startswith("airgap_") and said["created_at"].endswith("Z")
    status, out, _ = manage("token", "list", "--json")
    assert status == 0 and "token" not in json.loads(out)[0]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["add", "A B"], 2),
        (["add", "ci", "--days", "0"], 2),
        (["add", "ci", "--days", "-5"], 2),
        (["add", "ci", "--days", "99999999999999"], 2),
        (["add", "ci", "--days", "x"], 2),
        (["add", "taken"], 1),
        (["add"], 2),
        (["revoke"], 2),
        (["revoke", "nobody"], 1),
        ([], 2),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(manage, words, status):
    access_tokens.add_token("taken", by="ada", now=timezone.now())
    for each in (words, [*words, "--json"]):
        got, out, err = manage("token", *each)
        assert got == status and err
        assert json.loads(out) == [] if "--json" in each else not out
    assert AccessToken.objects.count() == 1


def test_it_lists_them_with_their_state(manage):
    now = timezone.now()
    assert "manage.py token add NAME" in manage("token", "list")[2]
    access_tokens.add_token("ci", by="ada", now=now)
    access_tokens.add_token("old", life=timedelta(days=1), by="ada", now=now - timedelta(days=2))
    access_tokens.add_token("gone", by="ada", now=now)
    access_tokens.revoke_token("gone", by="ada", now=now)
    AccessToken.objects.filter(name="ci").update(last_used_at=now - timedelta(hours=3))
    status, out, err = manage("token", "list")
    assert status == 0 and "usable   ci  (last used 3 hours ago; does not expire)" in out
    assert "expired  old  (never used; expires " in out and "gone" not in out
    assert "Anybody may read at present" in err
    assert "revoked  gone" in manage("token", "list", "--all")[1]


def test_it_revokes_all_that_are_named_and_says_which_were_not_there(manage):
    for name in ("a", "b"):
        access_tokens.add_token(name, by="ada", now=timezone.now())
    status, out, err = manage("token", "revoke", "a", "nobody", "b")
    assert status == 1 and "Revoked a." in out and "Revoked b." in out and "no token called 'nobody'" in err
    assert not AccessToken.objects.standing().exists()
