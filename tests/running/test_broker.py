"""The private server: found, configured, and closed to others."""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
import redis

from airgap.running import broker
from airgap.running.preconditions import CannotStart


def program(folder: Path, name: str, answer: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def test_it_prefers_the_server_on_path(tmp_path):
    found = program(tmp_path, "redis-server", "Redis server v=7.0.15 sha=0:0 malloc=jemalloc bits=64")
    program(tmp_path, "valkey-server", "Valkey server v=8.0.1 sha=0:0 malloc=libc bits=64")
    assert broker.find_server(str(tmp_path)) == broker.Server(str(found), "redis-7")


def test_it_passes_over_a_server_that_does_not_run(tmp_path):
    program(tmp_path, "redis-server", "error while loading shared libraries")
    found = program(tmp_path, "valkey-server", "Valkey server v=8.0.1 sha=0:0 malloc=libc bits=64")
    assert broker.find_server(str(tmp_path)) == broker.Server(str(found), "valkey-8")


def test_it_falls_back_to_the_packaged_server(tmp_path):
    found = broker.find_server(str(tmp_path))
    assert found.path == broker.packaged_server()
    assert found.family.startswith("valkey-")


def test_it_says_what_to_install_when_no_server_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(broker, "packaged_server", lambda: None)
    with pytest.raises(CannotStart) as caught:
        broker.find_server(str(tmp_path))
    assert str(caught.value) == (
        "No Redis-protocol server runs on this machine. Install one (apt install redis-server), or set REDIS_URL."
    )


def test_it_closes_the_socket_folder_to_others(tmp_path):
    (tmp_path / "broker").mkdir(mode=0o755)
    broker.prepare_socket_folder(tmp_path / "broker" / "broker.sock", tmp_path)
    assert (tmp_path / "broker").stat().st_mode & 0o777 == 0o700


def test_it_refuses_a_socket_folder_that_is_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "airgap-0123").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotStart, match="airgap-0123 for the broker's socket belongs to somebody else"):
        broker.prepare_socket_folder(tmp_path / "airgap-0123" / "broker.sock", tmp_path / "data")


def test_it_refuses_a_socket_folder_of_somebody_else(tmp_path, monkeypatch):
    (tmp_path / "broker").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(CannotStart, match="belongs to somebody else"):
        broker.prepare_socket_folder(tmp_path / "broker" / "broker.sock", tmp_path)


def test_it_quotes_what_a_path_may_hold():
    text = broker.render_configuration(Path('/data "x"/ü/broker.sock'), Path("/data"))
    assert 'unixsocket "/data \\x22x\\x22/\\xc3\\xbc/broker.sock"\n' in text


@pytest.mark.parametrize("path", [None, ""], ids=["the machine's server", "the packaged server"])
def test_a_server_starts_with_the_configuration_and_listens_on_the_socket_only(tmp_path, path):
    server = broker.find_server(path)
    data = tmp_path / "dätä dir"
    (data / "run").mkdir(parents=True)
    # pytest's own folder may be deeper than a socket's path may be long.
    where = Path(f"/tmp/airgap-test-{os.getpid()}") / "broker.sock"
    configuration = broker.write_configuration(where, data, server)
    with subprocess.Popen([server.path, configuration], stdout=subprocess.DEVNULL) as process:
        try:
            client = redis.Redis(unix_socket_path=str(where))
            wait_for(lambda: broker.answers(where))
            assert client.config_get("port") == {"port": "0"} or client.config_get("port") == {b"port": b"0"}
            assert (data / "broker" / server.family / "appendonlydir").is_dir()
        finally:
            process.terminate()
            process.wait(10)
            where.unlink(missing_ok=True)
            where.parent.rmdir()
    assert not broker.answers(where)


def wait_for(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_socket_file_nobody_listens_on_does_not_answer(tmp_path):
    short = Path(f"/tmp/airgap-dead-{os.getpid()}.sock")
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(short))
    assert not broker.answers(short)
    short.unlink()
