"""`manage.py mirror` and `reset_password`, as a script calls them: exit status, stdout, stderr."""

import io
import json
import sys

import pytest
from django.core.management import ManagementUtility
from django.db import connections as db_connections

from mirrors import connections, content, people
from mirrors.models import AuditEntry, Mirror, User
from mirrors.registry.transport import Timeouts
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.test_connections import push_db


@pytest.fixture(autouse=True)
def own_data(data_dir, db):
    return data_dir


@pytest.fixture
def manage(capsys, monkeypatch):
    """manage("mirror", "list", stdin="…") -> (status, stdout, stderr)"""

    def call(*words, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        # A command closes its database when it ends; ours is this test's.
        monkeypatch.setattr(db_connections, "close_all", lambda: None)
        try:
            ManagementUtility(["manage.py", *words]).execute()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return call


def add(manage, *words, name="db", stdin=""):
    return manage("mirror", "add", name, "--kind", "trivy-db", *words, stdin=stdin)


def references():
    return list(Mirror.objects.get().sources.values_list("reference", flat=True))


def test_it_adds_a_mirror(manage):
    status, out, _ = add(manage, "--source", "one.example/db", "two.example/db:2", "--schedule", "90m", "--insecure")
    assert status == 0 and "Added db" in out
    mirror = Mirror.objects.get()
    assert references() == ["one.example/db:2", "two.example/db:2"]
    assert mirror.schedule == "90m" and mirror.sources.filter(insecure=True).count() == 2
    assert AuditEntry.objects.get().actor.endswith("(command line)")


def test_source_may_also_be_given_several_times(manage):
    add(manage, "--source", "one.example/db", "--source", "two.example/db:2")
    assert references() == ["one.example/db:2", "two.example/db:2"]


def test_it_takes_a_ca_file_and_a_password_from_standard_input(manage, tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_text(Authority("Plant CA").pem)
    words = ("--source", "one.example/db", "--ca", str(ca), "--username", "robot", "--password-stdin")
    status, out, err = add(manage, *words, stdin="geheim-123\n")
    assert status == 0, err
    source = Mirror.objects.get().sources.get()
    assert source.ca_pem == ca.read_text() and source.username == "robot"
    assert content.vault().decrypt(source.secret_sealed) == "geheim-123"
    status, listed, _ = manage("mirror", "list")
    assert "own CA, as robot" in listed and "geheim" not in out + listed


def test_it_takes_a_token_from_standard_input_and_a_docker_config_file(manage, tmp_path):
    status, _, err = add(manage, "--source", "one.example/db", "--token-stdin", stdin="geheim-123\n")
    assert status == 0, err
    source = Mirror.objects.get().sources.get()
    assert (source.login, content.vault().decrypt(source.secret_sealed)) == ("token", "geheim-123")
    file = tmp_path / "config.json"
    file.write_text('{"auths": {"two.example": {"username": "rob\u00f6t", "password": "geheim-456"}}}')
    words = ("--source", "two.example/db", "three.example/db", "--docker-config", str(file))
    status, out, err = manage("mirror", "edit", "db", *words)
    assert status == 0 and "docker config file set" in out, err
    two, three = Mirror.objects.get().sources.all()
    assert (two.login, three.login) == ("docker", "none")
    assert "geheim-456" in content.vault().decrypt(two.secret_sealed)
    _, listed, _ = manage("mirror", "list")
    assert "with a docker config file" in listed and "geheim" not in out + listed
    assert json.loads(manage("mirror", "list", "--json")[1])[0]["sources"][0]["login"] == "docker"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("mirror",), "required"),
        (("mirror", "paint"), "invalid choice"),
        (("mirror", "add", "x"), "required"),
        (("mirror", "add", "x", "--kind", "npm", "--source", "a.example/b"), "invalid choice"),
        (("mirror", "add", "x", "--kind", "oci"), "--source"),
        (("mirror", "add", "x", "--kind", "oci", "--source", "a.example/b"), "no tag"),
        (("mirror", "add", "x", "--kind", "trivy-db", "--source", "https://a.example/b"), "scheme"),
        (("mirror", "add", "X y", "--kind", "trivy-db", "--source", "a.example/b"), "cannot be a mirror's name"),
        (("mirror", "add", "x", "--kind", "trivy-db", "--source", "a.example/b", "--schedule", "often"), "schedule"),
        (("mirror", "add", "x", "--kind", "trivy-db", "--source", "a.example/b", "--due", "soon"), "duration"),
        (("mirror", "add", "x", "--kind", "trivy-db", "--source", "a.example/b", "--ca", "/nowhere"), "cannot be read"),
        (("mirror", "add", "x", "--kind", "trivy-db", "--source", "a.example/b", "--username", "u"), "go together"),
        (("mirror", "add", "x", "--kind", "trivy-db", "--source", "a.example/b", "--password-stdin"), "go together"),
        (("mirror", "edit", "db", "--insecure"), "name them with --source"),
        (("mirror", "edit", "db", "--docker-config", "/nowhere"), "name them with --source"),
        (
            ("mirror", "edit", "db", "--source", "a.example/b", "--docker-config", "/nowhere"),
            "docker config file /nowhere cannot be read",
        ),
        (
            ("mirror", "edit", "db", "--source", "a.example/b", "--token-stdin", "--docker-config", "x"),
            "Give one login",
        ),
        (("mirror", "edit", "nobody", "--schedule", "6h"), "no mirror called 'nobody'"),
        (("mirror", "remove", "nobody"), "no mirror called 'nobody'"),
        (("mirror", "list", "nobody"), "nobody"),
        (("reset_password",), "required"),
    ],
)
def test_wrong_usage_is_a_sentence_and_status_2(manage, words, said):
    add(manage, "--source", "one.example/db")
    status, out, err = manage(*words)
    assert (status, out) == (2, "")
    assert said in err
    assert Mirror.objects.count() == 1


def test_an_empty_password_is_wrong_usage(manage):
    words = ("--source", "one.example/db", "--username", "robot", "--password-stdin")
    assert add(manage, *words)[0] == 2
    assert manage("reset_password", "ada", "--password-stdin")[0] == 2


def test_a_name_that_is_taken_is_refused_with_status_1(manage):
    add(manage, "--source", "one.example/db")
    status, _, err = add(manage, "--source", "two.example/db")
    assert status == 1 and "already a mirror called db" in err


def test_edit_changes_what_is_named_and_source_replaces_the_whole_list(manage):
    login = ("--username", "robot", "--password-stdin")
    add(manage, "--source", "one.example/db", "two.example/db", *login, stdin="geheim-123")
    status, out, _ = manage("mirror", "edit", "db", "--schedule", "manual", "--label", "Our DB", "--keep", "3")
    assert status == 0 and "schedule" in out
    mirror = Mirror.objects.get()
    assert (mirror.schedule, mirror.label, mirror.keep, mirror.next_sync_at) == ("manual", "Our DB", 3, None)
    assert references() == ["one.example/db:2", "two.example/db:2"]
    # Exactly what is named: the login of the former list goes with it.
    status, out, _ = manage("mirror", "edit", "db", "--source", "two.example/db", "three.example/db")
    assert status == 0 and "login removed" in out
    assert references() == ["two.example/db:2", "three.example/db:2"]
    assert not Mirror.objects.get().sources.exclude(username="").exists()
    assert manage("mirror", "edit", "db", "--schedule", "manual")[1].startswith("Nothing to change")


def test_edit_enables_and_disables(manage):
    add(manage, "--source", "one.example/db")
    assert manage("mirror", "edit", "db", "--disable")[:2] == (0, "Disabled.\n")
    assert not Mirror.objects.get().enabled
    assert "disabled" in manage("mirror", "list")[1]
    assert manage("mirror", "edit", "db", "--enable")[:2] == (0, "Enabled.\n")


def test_it_removes_a_mirror(manage):
    add(manage, "--source", "one.example/db")
    status, out, _ = manage("mirror", "remove", "db")
    assert status == 0 and out == "Removed db with 0 snapshots and 0 runs.\n"
    assert not Mirror.objects.exists()


def test_the_list_for_programs_has_every_mirror_and_no_password(manage):
    add(manage, "--source", "one.example/db", "--username", "robot", "--password-stdin", stdin="geheim-123")
    add(manage, "--source", "one.example/db", name="other")
    status, out, _ = manage("mirror", "list", "--json", "other", "db")
    listed = json.loads(out)
    assert status == 0 and [entry["mirror"] for entry in listed] == ["other", "db"]
    assert listed[1]["sources"][0]["username"] == "robot" and "geheim" not in out
    assert listed[0]["next_sync_at"].endswith("Z") and listed[0]["schedule"] == "1h"


def test_lists_stay_lists_when_something_is_wrong(manage):
    assert manage("mirror", "list", "--json")[:2] == (0, "[]\n")
    status, out, err = manage("mirror", "list", "--json", "nobody")
    assert (status, json.loads(out)) == (2, []) and "nobody" in err


# test


@pytest.fixture
def fake(monkeypatch):
    quick = Timeouts(connect=2, read=2, attempts=1, source_seconds=5)
    original = connections.try_mirror
    monkeypatch.setattr(connections, "try_mirror", lambda mirror: original(mirror, timeouts=quick))
    with FakeRegistry() as registry:
        yield registry


def test_a_directory_needs_no_firewall(manage, tmp_path):
    place = tmp_path / "stick"
    place.mkdir()
    (place / "vex-repository.json").write_text(
        '{"name": "own", "versions": [{"spec_version": "0.1", "locations": [{"url": "https://a.example/x.tar.gz"}]}]}'
    )
    (place / "index.json").write_text('{"updated_at": "2026-11-01T00:00:00Z", "packages": []}')
    manage("mirror", "add", "own", "--kind", "vex", "--source", f"file://{place}")
    status, out, err = manage("mirror", "test", "own")
    assert (status, err) == (0, "No source needs the firewall.\n") and f"  ok      file://{place}" in out


def test_it_tests_every_source_and_ends_with_the_allow_list(manage, fake):
    add(manage, "--source", push_db(fake), "--insecure")
    status, out, _ = manage("mirror", "test")
    assert status == 0
    assert f"ok      {fake.host}/aquasec/trivy-db:2: manifest " in out
    assert "plain HTTP" in out
    assert out.endswith(f"Firewall: let this machine out to\n  {fake.host}\n")


def test_one_failing_source_is_status_1(manage, fake):
    add(manage, "--source", push_db(fake), "127.0.0.1:1/x/y", "--insecure")
    status, out, _ = manage("mirror", "test", "db", "--json")
    (report,) = json.loads(out)
    assert status == 1 and not report["ok"]
    assert [source["ok"] for source in report["sources"]] == [True, False]
    assert report["sources"][0]["hops"][0]["host"] == fake.host
    assert report["allow"] == sorted([fake.host, "127.0.0.1:1"])
    status, out, _ = manage("mirror", "test", "db")
    assert "FAILED  127.0.0.1:1/x/y:2: 127.0.0.1:1 refused the connection" in out
    assert "127.0.0.1:1  (did not answer)" in out


def test_the_isolated_side_is_told_where_its_mirrors_come_from(manage, settings):
    Mirror.objects.all().delete()
    assert manage("mirror", "list")[2].strip().endswith("Add one: manage.py mirror add NAME --kind KIND --source REF.")
    settings.AIRGAP_SIDE = "isolated"
    status, _, err = manage("mirror", "list")
    assert (status, err.strip()) == (0, "There is no mirror. They come with the bundles: manage.py import_bundle FILE.")


def test_the_isolated_side_lists_what_comes_with_bundles(manage, make_mirror, settings):
    make_mirror("trivy-db", schedule="manual")
    assert "by hand only" in manage("mirror", "list")[1]
    settings.AIRGAP_SIDE = "isolated"
    listed = manage("mirror", "list")[1]
    assert "trivy-db  (trivy-db, comes with bundles)" in listed and "by hand only" not in listed


def test_the_isolated_side_tests_and_adds_nothing(manage, fake, settings):
    add(manage, "--source", push_db(fake), "--insecure")
    settings.AIRGAP_SIDE = "isolated"
    status, _, err = manage("mirror", "test")
    assert status == 1 and "isolated" in err and fake.requests == []
    assert add(manage, "--source", "one.example/db", name="other")[0] == 1


def test_a_fault_of_ours_is_a_sentence(manage, monkeypatch):
    monkeypatch.setattr("mirrors.mirroring.add_mirror", lambda *_, **__: 1 / 0)
    status, _, err = add(manage, "--source", "one.example/db")
    assert status == 1 and "A fault in Airgap itself" in err


# reset_password


def test_it_prints_a_new_password_and_nothing_else_on_stdout(manage, administrator):
    status, out, err = manage("reset_password", "ada")
    assert status == 0 and "to be changed" in err
    person = User.objects.get()
    assert person.check_password(out.strip()) and person.must_change_password


def test_it_takes_a_password_from_standard_input(manage, viewer):
    status, out, _ = manage(
        "reset_password", "vera", "--password-stdin", "--administrator", stdin="a long enough one\n"
    )
    person = User.objects.get()
    assert (status, out) == (0, "")
    assert person.check_password("a long enough one") and person.may_administer and not person.must_change_password


def test_it_refuses_an_unknown_person_and_a_weak_password(manage, viewer):
    assert manage("reset_password", "eve")[0] == 1
    status, _, err = manage("reset_password", "vera", "--password-stdin", stdin="short\n")
    assert status == 1 and "too short" in err
    assert people.random_password()
