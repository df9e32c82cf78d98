"""`manage.py destination` and `manage.py push`, as a script calls them: exit status, stdout, stderr."""

import io
import json
import sys
from datetime import UTC, datetime

import pytest
from django.core.management import ManagementUtility
from django.db import connections as db_connections

from mirrors import content
from mirrors.models import AuditEntry, Destination, PushRule, PushRun
from mirrors.pushing import trying
from mirrors.registry.transport import Timeouts
from tests.fakes.push_registry import PushRegistry
from tests.fakes.tls import Authority
from tests.kept import keep_build, keep_vex

BUILT = datetime(2026, 11, 20, 6, 31, tzinfo=UTC)


@pytest.fixture(autouse=True)
def own_data(data_dir, db, monkeypatch):
    quick = Timeouts(connect=5, read=5, attempts=1, source_seconds=10, backoff=0.01)
    monkeypatch.setattr(trying, "TEST_TIMEOUTS", quick)
    monkeypatch.setattr("mirrors.pushing.connecting.TIMEOUTS", quick)
    monkeypatch.setattr("mirrors.tasks.send_push", lambda run: None)
    return data_dir


@pytest.fixture
def manage(capsys, monkeypatch):
    """manage("push", "--wait", stdin="…") -> (status, stdout, stderr)"""

    def call(*words, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
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


@pytest.fixture
def fake():
    with PushRegistry() as registry:
        yield registry


@pytest.fixture
def mirror(make_mirror, store):
    mirror = make_mirror("trivy-db", label="Vulnerability DB")
    keep_build(store, mirror, BUILT)
    return mirror


def add(manage, *words, to="harbor.example/security", stdin=""):
    return manage("destination", "add", "plant", "--to", to, *words, stdin=stdin)


# destination


def test_it_adds_one_with_a_password_from_standard_input_and_a_ca_file(manage, tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_text(Authority("Plant CA").pem)
    status, out, err = add(
        manage, "--username", "robot", "--password-stdin", "--ca", str(ca), "--label", "Harbor", stdin="geheim-123\n"
    )
    assert status == 0, err
    there = Destination.objects.get()
    assert (there.address, there.label, there.ca_pem) == ("harbor.example/security", "Harbor", ca.read_text())
    assert content.vault().decrypt(there.secret_sealed) == "geheim-123"
    status, listed, _ = manage("destination", "list")
    assert "plant  harbor.example/security  (as robot, own CA)" in listed and "geheim" not in out + listed
    assert AuditEntry.objects.get().actor.endswith("(command line)")


def test_a_login_may_come_as_a_token_or_a_docker_config(manage, tmp_path):
    assert add(manage, "--token-stdin", stdin="tok-123\n")[0] == 0
    assert Destination.objects.get().login == "token"
    config = tmp_path / "config.json"
    config.write_text('{"auths": {"harbor.example": {"auth": "cm9ib3Q6Z2VoZWlt"}}}')
    assert manage("destination", "edit", "plant", "--docker-config", str(config))[0] == 0
    assert Destination.objects.get().login == "docker"
    assert manage("destination", "edit", "plant", "--no-login")[0] == 0
    assert Destination.objects.get().login == "none" and Destination.objects.get().secret_sealed == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "plant"), "--to"),
        (("add", "Plant", "--to", "x.example"), "cannot be a destination's name"),
        (("add", "p", "--to", "https://x.example"), "without https"),
        (("add", "p", "--to", "x.example", "--username", "u"), "go together"),
        (("add", "p", "--to", "x.example", "--as", "db:2"), "name it with --push"),
        (("add", "p", "--to", "x.example", "--push", "nope"), "no mirror named nope"),
        (("edit", "nope"), "no destination called 'nope'"),
        (("remove", "nope"), "no destination called 'nope'"),
        (("test", "nope"), "no destination named nope"),
        (("list", "nope"), "no destination named nope"),
    ],
)
def test_wrong_usage_is_2_and_nothing_is_kept(manage, words, said):
    status, _, err = manage("destination", *words)
    assert status == 2 and said in err
    assert not Destination.objects.exists()


def test_what_is_refused_is_1(manage, make_mirror, store):
    assert add(manage)[0] == 0
    status, _, err = add(manage)
    assert status == 1 and "already a destination" in err
    keep_vex(store, make_mirror("vexhub", "vex", label="VEX Hub"), BUILT)
    status, _, err = manage("destination", "edit", "plant", "--push", "vexhub")
    assert status == 1 and "VEX repository" in err


def test_rules_are_made_changed_and_removed(manage, mirror):
    status, out, _ = add(manage, "--push", "trivy-db", "--as", "db:{tag}", "--tag", "latest", "{tag}-{date}")
    assert status == 0 and "trivy-db goes there as db:{tag}." in out
    rule = PushRule.objects.get()
    assert (rule.target, rule.extra_tags, rule.automatic) == ("db:{tag}", "latest {tag}-{date}", True)
    status, out, _ = manage("destination", "edit", "plant", "--push", "trivy-db", "--by-hand", "--no-extra-tags")
    assert status == 0 and "by hand only" in out
    rule.refresh_from_db()
    assert (rule.target, rule.extra_tags, rule.automatic) == ("db:{tag}", "", False)
    status, out, _ = manage("destination", "list")
    assert "trivy-db as db:{tag}, by hand: not yet; Pushed by hand only." in out
    status, out, _ = manage("destination", "edit", "plant", "--unpush", "trivy-db")
    assert status == 0 and "goes there no more" in out and not PushRule.objects.exists()


def test_an_edit_that_changes_nothing_says_so(manage):
    add(manage)
    status, out, _ = manage("destination", "edit", "plant", "--to", "harbor.example/security")
    assert status == 0 and "Nothing to change" in out
    assert "Disabled." in manage("destination", "edit", "plant", "--disable")[1]


def test_remove_says_what_went(manage, mirror):
    add(manage, "--push", "trivy-db")
    status, out, _ = manage("destination", "remove", "plant")
    assert status == 0 and "with 1 rule and 0 pushes of history" in out and "is still there" in out


def test_list_as_json_never_holds_a_secret(manage, mirror):
    add(manage, "--username", "robot", "--password-stdin", "--push", "trivy-db", stdin="geheim-123\n")
    status, out, _ = manage("destination", "list", "--json")
    (there,) = json.loads(out)
    assert status == 0 and "geheim" not in out and Destination.objects.get().secret_sealed not in out
    assert there["destination"] == "plant" and there["username"] == "robot"
    assert there["mirrors"][0]["mirror"] == "trivy-db" and there["mirrors"][0]["state"] == "never"


def test_test_names_the_fault_and_is_1(manage, fake):
    fake.require_basic("robot", "right")
    add(manage, "--insecure", "--username", "robot", "--password-stdin", to=fake.host, stdin="wrong-geheim\n")
    status, out, _ = manage("destination", "test")
    assert status == 1 and "FAILED" in out and "user name and password" in out and "wrong-geheim" not in out
    manage("destination", "edit", "plant", "--username", "robot", "--password-stdin", stdin="right\n")
    status, out, _ = manage("destination", "test", "--json")
    assert status == 0 and json.loads(out)[0]["ok"] is True
    assert not fake.uploads


def test_test_with_nothing_to_test_is_1(manage):
    status, out, _ = manage("destination", "test", "--json")
    assert status == 1 and json.loads(out) == []


# push


def test_push_wait_pushes_here_and_reports(manage, fake, mirror):
    add(manage, "--insecure", "--push", "trivy-db", "--as", "db:{tag}", to=f"{fake.host}/security")
    status, out, err = manage("push", "--wait", "--json")
    (report,) = json.loads(out)
    assert status == 0, err
    assert report["outcome"] == "succeeded" and report["error"] == ""
    assert report["digest"] == mirror.current.manifest_digest
    assert report["reference"] == f"{fake.host}/security/db:2"
    assert report["bytes_uploaded"] > 0 and report["requests"] > 3 and isinstance(report["seconds"], float)
    status, out, _ = manage("push", "trivy-db", "--destination", "plant", "--wait")
    assert status == 0 and "trivy-db to plant: unchanged." in out


def test_push_without_wait_queues_and_prints_the_id(manage, mirror):
    add(manage, "--push", "trivy-db")
    status, out, _ = manage("push")
    run = PushRun.objects.get()
    assert status == 0 and f"trivy-db to plant: push {run.pk} is queued." in out and run.trigger == "command"


def test_a_push_that_fails_is_1_with_its_sentence(manage, fake, mirror):
    fake.trouble("PUT", "/manifests/", status=403, times=None)
    add(manage, "--insecure", "--push", "trivy-db", to=fake.host)
    status, out, _ = manage("push", "--wait")
    assert status == 1 and "trivy-db to plant: failed." in out and "403" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nope",), "no mirror named nope"),
        (("trivy-db",), "does not go to any enabled destination"),
        (("--destination", "nope"), "no destination named nope"),
    ],
)
def test_names_of_nothing_are_wrong_usage(manage, mirror, words, said):
    status, out, err = manage("push", *words, "--json")
    assert status == 2 and said in err and json.loads(out) == []


def test_with_no_rule_at_all_it_says_how_to_make_one(manage):
    status, out, err = manage("push", "--json")
    assert status == 0 and json.loads(out) == [] and "destination edit NAME --push" in err


def test_a_disabled_destination_is_passed_over_unless_it_is_named(manage, mirror):
    add(manage, "--push", "trivy-db")
    manage("destination", "edit", "plant", "--disable")
    assert manage("push")[0] == 0
    status, out, _ = manage("push", "--destination", "plant")
    assert status == 1 and "is disabled" in out
