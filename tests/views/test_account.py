"""Coming in and going out, and the throttle in front."""

import pytest
from django.test import Client
from django.urls import reverse

from mirrors import people
from mirrors.models import AuditEntry, Role, User

LOGIN = "/login/"


@pytest.fixture(autouse=True)
def own_data(data_dir, db):
    return data_dir


def log_in(client, username="ada", password="correct horse ada", **fields):
    return client.post(LOGIN, {"username": username, "password": password, **fields})


def told():
    return list(AuditEntry.objects.order_by("pk").values_list("actor", "action", "address"))


def test_a_person_logs_in_and_the_record_says_so(client, administrator):
    answer = log_in(client)
    assert answer.status_code == 302 and answer["Location"] == reverse("mirrors:dashboard")
    assert client.session["_auth_user_id"] == str(administrator.pk)
    assert told() == [("ada", "login", "127.0.0.1")]


def test_a_wrong_password_is_refused_and_recorded(client, administrator):
    answer = log_in(client, password="wrong")
    assert answer.status_code == 422
    assert "do not belong together" in answer.text and "wrong" not in answer.text.split("<form")[1]
    assert told() == [("ada", "login failed", "127.0.0.1")]


def test_what_is_no_user_name_is_not_written_down(client, administrator):
    log_in(client, username="correct horse ada", password="x")
    assert told() == [("(no such user)", "login failed", "127.0.0.1")]


@pytest.mark.parametrize("username", ["", "x" * 151, "a\0b"])
def test_odd_user_names_are_invalid_and_no_fault(client, administrator, username):
    assert log_in(client, username=username).status_code == 422
    assert told() == []


def test_after_too_many_failures_even_the_right_password_waits(client, administrator, settings):
    settings.AXES_FAILURE_LIMIT = 3
    assert [log_in(client, password="wrong").status_code for _ in range(3)] == [422, 422, 429]
    answer = log_in(client)
    assert answer.status_code == 429
    assert "Too many failed attempts" in answer.text and "for 15 minutes" in answer.text
    assert "_auth_user_id" not in client.session
    assert [action for _, action, _ in told()] == ["login failed", "login failed", "login locked", "login locked"]


def test_ten_failures_are_too_many_where_nothing_else_was_set(client, administrator):
    assert [log_in(client, password="wrong").status_code for _ in range(10)] == [422] * 9 + [429]


def test_a_lock_is_for_one_name_and_one_address(client, administrator, viewer, settings):
    settings.AXES_FAILURE_LIMIT = 2
    for _ in range(3):
        log_in(client, password="wrong")
    assert log_in(client, "vera", "correct horse vera").status_code == 302
    elsewhere = Client(REMOTE_ADDR="10.0.0.9")
    assert log_in(elsewhere).status_code == 302


def test_behind_a_proxy_a_lock_is_for_the_address_that_the_proxy_saw(client, administrator, settings):
    settings.AXES_FAILURE_LIMIT, settings.AIRGAP_BEHIND_PROXY = 2, True
    for _ in range(3):
        client.post(LOGIN, {"username": "ada", "password": "x"}, headers={"X-Forwarded-For": "10.0.0.7"})
    assert log_in(client).status_code == 302
    # What a client puts there itself stands in front of what the proxy adds.
    forged = {"X-Forwarded-For": "10.0.0.9, 10.0.0.7"}
    answer = client.post(LOGIN, {"username": "ada", "password": "correct horse ada"}, headers=forged)
    assert answer.status_code == 429
    assert [address for _, _, address in told()] == ["10.0.0.7"] * 3 + ["127.0.0.1", "10.0.0.7"]


def test_without_a_proxy_a_client_cannot_choose_its_address(client, administrator, settings):
    settings.AXES_FAILURE_LIMIT = 2
    for number in range(3):
        answer = client.post(
            LOGIN, {"username": "ada", "password": "x"}, headers={"X-Forwarded-For": f"10.0.0.{number}"}
        )
    assert answer.status_code == 429
    assert {address for _, _, address in told()} == {"127.0.0.1"}


@pytest.mark.parametrize("peer", ["", "unix", "fe80::1%eth0"])
def test_an_odd_address_is_no_fault(administrator, peer):
    assert log_in(Client(REMOTE_ADDR=peer), password="wrong").status_code == 422
    assert told()[0][2] in ("", "fe80::1")


def test_a_login_needs_the_csrf_token(administrator):
    strict = Client(enforce_csrf_checks=True)
    assert log_in(strict).status_code == 403
    strict.get(LOGIN)
    token = strict.cookies["csrftoken"].value
    answer = log_in(strict, csrfmiddlewaretoken=token)
    assert answer.status_code == 302


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("/history/?q=x", "/history/?q=x"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("http:///evil.example", "/"),
        ("nowhere", "nowhere"),
        ("", "/"),
    ],
)
def test_it_goes_on_to_the_page_asked_for_if_that_is_ours(client, administrator, wanted, given):
    page = client.get(LOGIN, {"next": wanted})
    assert f'name="next" value="{given}"' in page.text
    assert log_in(client, next=wanted)["Location"] == given


def test_who_is_in_already_goes_on(as_viewer):
    answer = as_viewer.get(LOGIN, {"next": "/history/"})
    assert answer.status_code == 302 and answer["Location"] == "/history/"


def test_every_page_asks_strangers_to_log_in_and_brings_them_back(client, db):
    answer = client.get("/password/")
    assert answer.status_code == 302 and answer["Location"] == "/login/?next=/password/"


def test_a_deactivated_person_stays_outside(client, administrator):
    User.objects.update(is_active=False)
    assert log_in(client).status_code == 422


def test_the_first_visitor_is_told_where_the_password_is(client, db):
    assert "admin-password" not in client.get(LOGIN).text
    people.first_password_file().write_text("x")
    assert "admin-password" in client.get(LOGIN).text


def test_logging_out_is_a_post(as_viewer):
    assert as_viewer.get("/logout/").status_code == 405
    answer = as_viewer.post("/logout/")
    assert answer.status_code == 302 and answer["Location"] == "/login/"
    assert "_auth_user_id" not in as_viewer.session
    assert told() == [("vera", "logout", "127.0.0.1")]


# One's own password


def change(client, old="correct horse vera", new="a long enough one", again=None):
    fields = {"old_password": old, "new_password1": new, "new_password2": new if again is None else again}
    return client.post("/password/", fields)


def test_a_person_changes_their_password_and_stays_in(as_viewer, viewer):
    assert as_viewer.get("/password/").status_code == 200
    answer = change(as_viewer)
    assert answer.status_code == 302
    viewer.refresh_from_db()
    assert viewer.check_password("a long enough one")
    assert as_viewer.get("/password/").status_code == 200
    assert told() == [("vera", "password changed", "127.0.0.1")]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"old": "wrong"}, "not your present password"),
        ({"again": "another one, really"}, "two new passwords differ"),
        ({"new": "short"}, "too short"),
        ({"new": "correct horse vera"}, "the password you have now"),
        ({"new": ""}, "required"),
    ],
)
def test_a_password_that_will_not_do_is_422(as_viewer, viewer, fields, said):
    answer = change(as_viewer, **fields)
    assert answer.status_code == 422 and said in answer.text
    viewer.refresh_from_db()
    assert viewer.check_password("correct horse vera")


def test_a_given_password_is_changed_before_anything_else(client, viewer):
    User.objects.update(must_change_password=True)
    log_in(client, "vera", "correct horse vera")
    for path in ("/", "/history/", "/settings/record/"):
        answer = client.get(path)
        assert answer.status_code == 302 and answer["Location"] == "/password/"
    page = client.get("/password/").text
    assert "password of your own" in page
    assert 'href="/history/"' not in page, "a link that leads back here is none"
    assert change(client).status_code == 302
    viewer.refresh_from_db()
    assert not viewer.must_change_password


def test_changing_the_first_password_removes_its_file(client):
    User.objects.create_user("admin", password="correct horse vera", role=Role.ADMINISTRATOR, must_change_password=True)
    people.first_password_file().write_text("correct horse vera\n")
    log_in(client, "admin", "correct horse vera")
    change(client)
    assert not people.first_password_file().exists()
