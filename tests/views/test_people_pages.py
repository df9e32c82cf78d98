"""The pages of people."""

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from mirrors.models import AuditEntry, Role, User

LIST, NEW = "/settings/people/", "/settings/people/new"


@pytest.fixture(autouse=True)
def own_data(data_dir, db):
    return data_dir


def page(person):
    return f"{LIST}{person.pk}/"


def test_pages_are_for_administrators(client, viewer, operator, administrator):
    paths = (LIST, NEW, page(viewer), page(viewer) + "delete")
    for path in paths:
        assert client.get(path).status_code == 302
    for person, status in ((viewer, 403), (operator, 403), (administrator, 200)):
        client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
        for path in paths:
            assert client.get(path).status_code == status


def test_changes_are_for_administrators(as_operator, viewer):
    for path in (NEW, page(viewer), page(viewer) + "delete"):
        assert as_operator.post(path, {"do": "role", "role": "administrator"}).status_code == 403
    viewer.refresh_from_db()
    assert viewer.role == Role.VIEWER


def test_the_list_names_everybody(as_administrator, viewer, operator):
    User.objects.filter(pk=viewer.pk).update(is_active=False)
    text = as_administrator.get(LIST).text
    assert "One administrator and one operator may sign in." in text
    assert "vera" in text and "deactivated" in text and "(you)" in text


def test_the_list_asks_as_often_for_many_people_as_for_few(as_administrator):
    def count():
        with CaptureQueriesContext(connection) as queries:
            as_administrator.get(LIST)
        return len(queries)

    few = count()
    for number in range(20):
        User.objects.create_user(f"p{number}", password="x")
    assert count() == few


def test_a_random_password_is_shown_once(as_administrator):
    answer = as_administrator.post(NEW, {"username": "nora", "role": "operator", "password": ""})
    assert answer.status_code == 200 and "no-store" in answer["Cache-Control"]
    password = re.search(r'<code class="block">(.+?)</code>', answer.text)[1]
    nora = User.objects.get(username="nora")
    assert nora.check_password(password) and nora.must_change_password and nora.role == "operator"
    assert password not in as_administrator.get(page(nora)).text + as_administrator.get(LIST).text
    assert password not in " ".join(AuditEntry.objects.values_list("detail", flat=True))


def test_a_chosen_password_is_not_repeated(as_administrator):
    answer = as_administrator.post(NEW, {"username": "nora", "role": "viewer", "password": "a long enough one"})
    assert answer.status_code == 302
    assert "a long enough one" not in as_administrator.get(LIST).text


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"username": "", "role": "viewer"}, "username"),
        ({"username": "a b", "role": "viewer"}, "username"),
        ({"username": "ada", "role": "viewer"}, "username"),
        ({"username": "nora", "role": "king"}, "role"),
        ({"username": "nora", "role": "viewer", "password": "short"}, "password"),
    ],
)
def test_a_person_that_cannot_be_is_422(as_administrator, sent, field):
    answer = as_administrator.post(NEW, sent)
    assert answer.status_code == 422 and field in answer.context["form"].errors
    assert User.objects.count() == 1


def test_a_role_is_changed(as_administrator, viewer):
    assert as_administrator.post(page(viewer), {"do": "role", "role": "operator"}).status_code == 302
    viewer.refresh_from_db()
    assert viewer.role == "operator"
    assert "vera is an operator." in as_administrator.get(page(viewer)).text
    assert AuditEntry.objects.get(action="role changed").address == "127.0.0.1"


def test_a_person_is_deactivated_and_their_session_ends(as_administrator, viewer, client):
    other = type(client)()
    other.force_login(viewer, backend="django.contrib.auth.backends.ModelBackend")
    assert other.get("/password/").status_code == 200
    as_administrator.post(page(viewer), {"do": "deactivate"})
    assert other.get("/password/").status_code == 302
    as_administrator.post(page(viewer), {"do": "activate"})
    viewer.refresh_from_db()
    assert viewer.is_active


def test_a_password_is_made_anew(as_administrator, viewer):
    answer = as_administrator.post(page(viewer), {"do": "password"})
    password = re.search(r'<code class="block">(.+?)</code>', answer.text)[1]
    viewer.refresh_from_db()
    assert viewer.check_password(password) and viewer.must_change_password


def test_nobody_changes_themselves(as_administrator, administrator):
    text = as_administrator.get(page(administrator)).text
    assert "This is you" in text and "Remove…" not in text
    for sent in ({"do": "role", "role": "viewer"}, {"do": "deactivate"}):
        answer = as_administrator.post(page(administrator), sent)
        assert answer.status_code == 422 and "Ask another administrator" in answer.text
    assert as_administrator.post(page(administrator) + "delete").status_code == 422
    assert as_administrator.post(page(administrator), {"do": "password"})["Location"] == "/password/"
    administrator.refresh_from_db()
    assert administrator.may_administer


@pytest.mark.parametrize("sent", [{}, {"do": "paint"}, {"do": "role", "role": "king"}])
def test_nonsense_is_422(as_administrator, viewer, sent):
    assert as_administrator.post(page(viewer), sent).status_code == 422


def test_removing_asks_first(as_administrator, viewer):
    assert "Remove vera?" in as_administrator.get(page(viewer) + "delete").text
    assert User.objects.filter(pk=viewer.pk).exists()
    assert as_administrator.post(page(viewer) + "delete").status_code == 302
    assert not User.objects.filter(pk=viewer.pk).exists()
    assert as_administrator.get(page(viewer)).status_code == 404
