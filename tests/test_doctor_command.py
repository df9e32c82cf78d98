"""`manage.py doctor`: findings, exit statuses, and one list with --json whatever happens."""

import io
import json

import pytest

from mirrors.management.commands.doctor import Command
from mirrors.models import AuditEntry
from tests.doctor.conftest import push
from tests.fakes.registry import FakeRegistry

pytestmark = pytest.mark.django_db


@pytest.fixture
def doctor(capsys, monkeypatch):
    """doctor("host", "--json") -> (exit status, stdout, stderr), as from a shell."""
    monkeypatch.setattr("django.core.management.base.connections.close_all", lambda: None)

    def call(*arguments, stdin=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        try:
            Command().run_from_argv(["manage.py", "doctor", *arguments])
            status = 0
        except SystemExit as ended:
            status = ended.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return call


@pytest.fixture
def fake():
    with FakeRegistry() as registry:
        yield registry


def test_nothing_that_stops_a_trivy_is_status_0(doctor, fake):
    push(fake)
    status, out, _ = doctor(f"{fake.host}/aquasecurity/trivy-db:2")
    assert status == 0
    assert f"{fake.host}/aquasecurity/trivy-db:2" in out
    assert out.endswith("A Trivy there would get what it needs.\n")
    assert AuditEntry.objects.get(action="registry examined").actor.endswith("(command line)")


def test_something_that_does_is_status_1(doctor, fake):
    status, out, _ = doctor(f"{fake.host}/aquasecurity/trivy-db:2")
    assert status == 1
    assert "  stops  404 (not found), code MANIFEST_UNKNOWN" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("a b",),
        ("https://registry.example",),
        ("r.example", "--username", "u"),
        ("r.example", "--password-stdin"),
        ("r.example", "--username", "u", "--password-stdin", "--token-stdin"),
        ("r.example", "--ca", "/nowhere/ca.pem"),
        ("r.example", "--nonsense"),
        (),
    ],
)
def test_wrong_usage_is_status_2_and_still_a_list(doctor, arguments):
    status, out, err = doctor(*arguments, "--json", stdin="secret\n")
    assert status == 2
    assert json.loads(out) == []
    assert err


def test_json_has_every_finding(doctor, fake):
    push(fake)
    status, out, _ = doctor(fake.host, "--json")
    assert status == 1
    first, *rest = json.loads(out)
    assert set(first) == {"address", "level", "hosts", "findings"}
    assert set(first["findings"][0]) == {"code", "level", "asked", "came", "trivy", "cure"}
    assert (first["level"], [report["level"] for report in rest]) == ("note", ["stops", "stops"])


def test_a_ca_file_and_a_login(doctor, tmp_path):
    with FakeRegistry(tls=True) as fake:
        push(fake)
        fake.require_basic("u", "secret")
        (tmp_path / "ca.pem").write_text(fake.ca_pem)
        told = ("--ca", str(tmp_path / "ca.pem"), "--username", "u", "--password-stdin")
        status, out, _ = doctor(f"{fake.host}/aquasecurity/trivy-db:2", *told, stdin="secret\n")
        assert status == 0
        assert "secret" not in out
        assert doctor(f"{fake.host}/aquasecurity/trivy-db:2", *told[:2])[0] == 1


def test_a_large_layer_is_read_when_it_is_asked_for(doctor, fake, monkeypatch):
    monkeypatch.setattr("mirrors.management.commands.doctor.EVERYTHING", 1 << 50)
    push(fake)
    assert "read whole" in doctor(f"{fake.host}/aquasecurity/trivy-db:2", "--whole")[1]


def test_it_gives_up_when_time_is_up(doctor, fake):
    fake.fault("/v2/", stall=True, times=None)
    status, out, _ = doctor(f"{fake.host}/aquasecurity/trivy-db:2", "--seconds", "0.2")
    assert status == 1
    assert "Not everything was asked." in out
