"""The systemd units: right by systemd's own reading where it is at hand, and closed to everything but the data."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from airgap.running import service
from airgap.running.preconditions import CannotStart
from airgap.running.programs import Instance

SYSTEM = service.Place(Path("/etc/systemd/system"), Path("/etc/airgap.env"), True, "airgap")
OWN = service.Place(Path("/home/a/.config/systemd/user"), Path("/home/a/.config/airgap.env"), False, "")


@pytest.fixture
def instance() -> Instance:
    data = Path("/var/lib/airgap 100%")
    return Instance(
        base=service.BASE,
        data=data,
        host="127.0.0.1",
        port=8000,
        base_url="",
        socket=data / "broker" / "broker.sock",
        workers=4,
        web_threads=48,
    )


def test_a_system_service_may_write_the_data_directory_only(instance):
    web = service.render(instance, SYSTEM)["airgap-web.service"]
    assert 'ReadWritePaths="/var/lib/airgap 100%%"\n' in web
    for line in ("User=airgap", "NoNewPrivileges=yes", "ProtectSystem=strict", "EnvironmentFile=/etc/airgap.env"):
        assert f"\n{line}\n" in web + "\n"


def test_the_units_run_the_programs_of_make_up(instance):
    units = service.render(instance, SYSTEM)
    assert sorted(units) == [
        "airgap-broker.service",
        "airgap-prepare.service",
        "airgap-scheduler.service",
        "airgap-web.service",
        "airgap-worker.service",
        "airgap.target",
    ]
    assert '"-m" "celery" "--quiet" "-A" "airgap" "worker" "--pool" "threads"' in units["airgap-worker.service"]
    assert 'manage.py" "up" "--prepare"' in units["airgap-prepare.service"]
    assert "@" not in "".join(units.values()).replace("airgap@%%h", "").replace("@system-service", "")


def test_a_user_service_asks_for_nothing_a_user_cannot_have(instance):
    units = service.render(instance, OWN)
    assert "ProtectSystem" not in units["airgap-web.service"]
    assert "User=" not in units["airgap-web.service"]
    assert "WantedBy=default.target" in units["airgap.target"]


def test_there_is_no_broker_unit_where_redis_url_names_a_server(instance):
    units = service.render(replace(instance, socket=None), SYSTEM)
    assert "airgap-broker.service" not in units
    assert "broker" not in "".join(units.values())


def test_a_low_port_gets_the_one_capability_it_needs(instance):
    assert (
        "AmbientCapabilities=CAP_NET_BIND_SERVICE\n"
        in (service.render(replace(instance, port=80), SYSTEM)["airgap-web.service"])
    )


def test_it_refuses_a_socket_that_private_temporary_folders_would_hide(instance):
    with pytest.raises(CannotStart) as caught:
        service.render(replace(instance, socket=Path("/tmp/airgap-0123/broker.sock")), SYSTEM)
    assert str(caught.value) == (
        "The path of the data directory /var/lib/airgap 100% is too long for the broker's socket. "
        "Set AIRGAP_DATA_DIR to a shorter one (such as /var/lib/airgap), or set REDIS_URL."
    )


def test_the_environment_file_reads_back_as_it_was_set():
    given = {
        "AIRGAP_BIND": "0.0.0.0:8000",
        "DATABASE_URL": 'postgres://u:p"a$s\\s`@h/d',
        "AIRGAP_DATA_DIR": "data",
        "HOME": "/root",
        "REDIS_URL": "",
    }
    text = service.render_environment(given, Path("/var/lib/airgap"))
    assert service.read_environment(text) == {
        "AIRGAP_DATA_DIR": "/var/lib/airgap",
        "AIRGAP_BIND": "0.0.0.0:8000",
        "DATABASE_URL": 'postgres://u:p"a$s\\s`@h/d',
    }


def test_it_reads_an_environment_file_written_by_hand():
    text = "# comment\n; other\n\nAIRGAP_SIDE=isolated\nA='single'\n B = \"x\" \nnonsense\n"
    assert service.read_environment(text) == {"AIRGAP_SIDE": "isolated", "A": "single", "B": "x"}


def test_root_does_not_become_the_services_user_by_accident(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(service.Path, "owner", lambda self: "root")
    with pytest.raises(CannotStart, match="SERVICE_USER=airgap"):
        service.this_place()
    assert service.this_place("root").user == "root"
    with pytest.raises(CannotStart, match="There is no user 'nobody-like-this' here"):
        service.this_place("nobody-like-this")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("place", [replace(SYSTEM, user="root"), OWN], ids=["system", "user"])
def test_systemd_finds_no_fault_in_the_units(tmp_path, instance, place):
    for name, text in service.render(instance, place).items():
        (tmp_path / name).write_text(text)
    mode = ["--system"] if place.system else ["--user"]
    # The user's manager wants a runtime directory, which a test run from cron or CI has not.
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = ["systemd-analyze", *mode, "verify", *sorted(tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    ours = [line for line in done.stderr.splitlines() if "airgap" in line]
    assert (done.returncode, ours) == (0, [])
