"""People: roles, passwords, and the administrator who is always left."""

import pytest
from axes.models import AccessAttempt
from django.contrib.auth import authenticate

from mirrors import people
from mirrors.models import AuditEntry, Role, User
from mirrors.people import PeopleError


def entries(action):
    return list(AuditEntry.objects.filter(action=action).values_list("actor", "subject", "detail"))


@pytest.fixture
def other(db):
    return User.objects.create_user("bob", password="correct horse bob", role=Role.ADMINISTRATOR)


def test_it_adds_a_person_with_a_random_password_to_be_changed(db, now):
    person, password = people.create_person("nora", "operator", by="ada", now=now, address="10.0.0.1")
    assert person.must_change_password
    assert person.check_password(password) and len(password) == 23
    assert people.random_password() != people.random_password()
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.subject, entry.address) == ("ada", "person added", "nora", "10.0.0.1")
    assert password not in entry.detail


def test_a_chosen_password_need_not_be_changed(db, now):
    person, password = people.create_person("nora", "viewer", password="a long enough one", by="ada", now=now)
    assert password == "a long enough one"
    assert not person.must_change_password and person.check_password(password)


@pytest.mark.parametrize(
    ("username", "role", "password", "setting"),
    [
        ("", "viewer", "", "username"),
        ("no spaces", "viewer", "", "username"),
        ("x" * 151, "viewer", "", "username"),
        ("ADA", "viewer", "", "username"),
        ("nora", "king", "", "role"),
        ("nora", "viewer", "short", "password"),
        ("nora", "viewer", "password123", "password"),
    ],
)
def test_it_refuses_a_person_that_cannot_be(administrator, now, username, role, password, setting):
    with pytest.raises(PeopleError) as refused:
        people.create_person(username, role, password=password, by="ada", now=now)
    assert refused.value.setting == setting
    assert User.objects.count() == 1


def test_roles_change_and_are_recorded(administrator, viewer, now):
    assert people.change_role(viewer, "operator", by=administrator, now=now)
    assert not people.change_role(viewer, "operator", by=administrator, now=now)
    viewer.refresh_from_db()
    assert viewer.role == "operator"
    assert entries("role changed") == [("ada", "vera", "viewer → operator")]


def test_nobody_changes_what_they_are_themselves(administrator, other, now):
    for change in (
        lambda: people.change_role(administrator, "viewer", by=administrator, now=now),
        lambda: people.set_active(administrator, False, by=administrator, now=now),
        lambda: people.delete_person(administrator, by=administrator, now=now),
    ):
        with pytest.raises(PeopleError, match="Ask another administrator"):
            change()
    administrator.refresh_from_db()
    assert administrator.may_administer


def test_the_last_administrator_stays(administrator, viewer, now):
    """As when two pages are open: by the time the second is sent, its sender is no administrator any more."""
    for change in (
        lambda: people.change_role(administrator, "viewer", by=viewer, now=now),
        lambda: people.set_active(administrator, False, by=viewer, now=now),
        lambda: people.delete_person(administrator, by=viewer, now=now),
    ):
        with pytest.raises(PeopleError, match="ada is the last administrator"):
            change()


def test_a_deactivated_administrator_does_not_count_as_one(administrator, other, viewer, now):
    people.set_active(other, False, by=administrator, now=now)
    with pytest.raises(PeopleError, match="last administrator"):
        people.delete_person(administrator, by=viewer, now=now)


def test_a_deactivated_person_cannot_log_in(administrator, viewer, now, rf):
    assert people.set_active(viewer, False, by=administrator, now=now)
    assert not people.set_active(viewer, False, by=administrator, now=now)
    assert authenticate(rf.post("/login/"), username="vera", password="correct horse vera") is None
    people.set_active(viewer, True, by=administrator, now=now)
    assert authenticate(rf.post("/login/"), username="vera", password="correct horse vera") == viewer
    assert [row[1] for row in entries("person deactivated") + entries("person activated")] == ["vera", "vera"]


def test_a_removed_person_stays_in_the_record(administrator, viewer, now):
    people.delete_person(viewer, by=administrator, now=now)
    assert not User.objects.filter(username="vera").exists()
    assert entries("person removed") == [("ada", "vera", "was viewer")]
    with pytest.raises(PeopleError, match="vera is no longer there"):
        people.delete_person(viewer, by=administrator, now=now)


def test_a_reset_password_lets_a_locked_out_person_in_again(administrator, rf, now, settings):
    settings.AXES_FAILURE_LIMIT = 2
    for _ in range(2):
        authenticate(rf.post("/login/"), username="ada", password="wrong")
    assert authenticate(rf.post("/login/"), username="ada", password="correct horse ada") is None
    password = people.reset_password("ada", by="the command line", now=now)
    assert not AccessAttempt.objects.exists()
    person = authenticate(rf.post("/login/"), username="ada", password=password)
    assert person == administrator and person.must_change_password


def test_whoever_is_deactivated_may_do_nothing(operator, administrator):
    assert operator.may_operate and administrator.may_operate and administrator.may_administer
    operator.is_active = administrator.is_active = False
    assert not (operator.may_operate or administrator.may_operate or administrator.may_administer)


def test_a_reset_can_make_an_active_administrator(viewer, now):
    User.objects.update(is_active=False)
    people.reset_password("vera", password="a long enough one", by="the command line", now=now, administrator=True)
    viewer.refresh_from_db()
    assert viewer.may_administer and not viewer.must_change_password


def test_it_names_the_people_there_are_when_one_is_unknown(viewer, now):
    with pytest.raises(PeopleError, match=r"nobody called 'eve'\. There are: vera"):
        people.reset_password("eve", by="", now=now)


def test_an_own_password_must_be_another_and_strong_enough(administrator, now):
    with pytest.raises(PeopleError, match="the password you have now"):
        people.change_own_password(administrator, "correct horse ada", now=now)
    with pytest.raises(PeopleError, match="too short"):
        people.change_own_password(administrator, "short", now=now)
    administrator.must_change_password = True
    people.change_own_password(administrator, "a long enough one", now=now)
    administrator.refresh_from_db()
    assert administrator.check_password("a long enough one") and not administrator.must_change_password


def test_the_first_password_file_goes_with_the_first_password(data_dir, db, now):
    admin = User.objects.create_user("admin", password="correct horse admin", role=Role.ADMINISTRATOR)
    other = User.objects.create_user("ada", password="correct horse ada", role=Role.ADMINISTRATOR)
    file = people.first_password_file()
    file.write_text("x")
    people.change_own_password(other, "a long enough one", now=now)
    assert file.exists()
    people.change_own_password(admin, "a long enough one", now=now)
    assert not file.exists()
    file.write_text("x")
    people.reset_password("admin", by="", now=now)
    assert not file.exists()
    file.write_text("x")
    people.delete_person(admin, by=other, now=now)
    assert not file.exists()
