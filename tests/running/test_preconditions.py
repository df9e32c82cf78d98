"""What must hold before anything starts, and the sentence for each way it does not."""

import os
import socket
import subprocess
import sys

import pytest

from airgap import environment
from airgap.running import preconditions
from airgap.running.preconditions import CannotStart


@pytest.fixture
def taken_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_it_makes_the_data_directory_and_its_folders(tmp_path):
    preconditions.prepare_data_directory(tmp_path / "new" / "data")
    assert sorted(path.name for path in (tmp_path / "new" / "data").iterdir()) == ["logs", "run"]


def test_a_new_data_directory_is_closed_to_other_users(tmp_path):
    preconditions.prepare_data_directory(tmp_path / "data")
    environment.kept_secret(tmp_path / "other" / "secret-key")
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("data", "other")]
    assert modes == [0o700, 0o700]


def test_it_names_a_data_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotStart) as caught:
        preconditions.prepare_data_directory(tmp_path / "file" / "data")
    assert str(caught.value) == (
        f"The data directory {tmp_path}/file/data cannot be written (Not a directory). "
        "Make it writable for this user, or set AIRGAP_DATA_DIR to a directory that is."
    )


def test_it_refuses_a_second_instance_on_the_same_data_directory(tmp_path):
    preconditions.prepare_data_directory(tmp_path)
    script = (
        "import sys, pathlib\n"
        "from airgap.running import preconditions\n"
        "with preconditions.only_instance(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], **pipes) as first:
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(CannotStart) as caught, preconditions.only_instance(tmp_path):
            pass
        first.stdin.close()
    assert str(caught.value) == (
        f"Airgap is already running on {tmp_path} (process {first.pid}). "
        "Stop that one first, or set AIRGAP_DATA_DIR and AIRGAP_BIND for a second one."
    )
    with preconditions.only_instance(tmp_path):
        assert (tmp_path / "run" / "lock").read_text() == f"{os.getpid()}\n"


def test_it_names_a_port_that_is_taken_and_proposes_another(taken_port):
    with pytest.raises(CannotStart) as caught:
        preconditions.require_port("127.0.0.1", taken_port)
    assert str(caught.value) == (
        f"Port {taken_port} on 127.0.0.1 is taken by another program. "
        f"Stop that program, or choose another port: AIRGAP_BIND=127.0.0.1:{taken_port + 1}"
    )


def test_it_names_an_address_that_is_not_of_this_machine():
    with pytest.raises(CannotStart, match=r"192\.0\.2\.1:8000 cannot be listened on \(.*\)\. Use an address of this"):
        preconditions.require_port("192.0.2.1", 8000)


def test_it_takes_the_brackets_off_an_ipv6_host():
    family, address = preconditions.address_of("[::1]", 8000)
    assert (family, address) == (socket.AF_INET6, ("::1", 8000))


def test_the_demo_keeps_its_port(tmp_path):
    record = tmp_path / "demo" / "port"
    port = preconditions.kept_port(record, 20000)
    assert record.read_text() == f"{port}\n"
    assert preconditions.kept_port(record, port + 1) == port


def test_the_demo_takes_the_next_free_port(tmp_path, taken_port):
    record = tmp_path / "port"
    record.write_text(f"{taken_port}\n")
    port = preconditions.kept_port(record, taken_port)
    assert port > taken_port
    assert record.read_text() == f"{port}\n"


@pytest.mark.parametrize("url", ["", "sqlite:////var/lib/airgap/other.sqlite3", "postgres://airgap@127.0.0.1/airgap"])
def test_connections_to_every_database_are_kept(monkeypatch, tmp_path, url):
    monkeypatch.setenv("DATABASE_URL", url)
    assert environment.database("DATABASE_URL", tmp_path / "airgap.sqlite3")["CONN_MAX_AGE"] == environment.KEPT
