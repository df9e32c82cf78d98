"""supervisord's configuration, what its log lines mean to people, and the wait before a start."""

import configparser
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airgap.running import launch, programs, supervision
from airgap.running.programs import Instance


@pytest.fixture
def instance(tmp_path) -> Instance:
    (tmp_path / "run").mkdir()
    return Instance(
        base=Path("/opt/airgap; 100%"),
        data=tmp_path,
        host="127.0.0.1",
        port=8000,
        base_url="",
        socket=tmp_path / "broker" / "broker.sock",
        workers=4,
        web_threads=48,
        python="/opt/airgap; 100%/.venv/bin/python",
    )


def everything(instance: Instance) -> list[programs.Program]:
    broker = programs.broker("/usr/bin/redis-server", instance.run / "broker.conf")
    return [broker, programs.web(instance), programs.worker(instance), programs.scheduler(instance)]


def test_the_broker_starts_first_and_stops_last(instance):
    parser = configparser.RawConfigParser()
    parser.read_string(supervision.render_configuration(everything(instance)))
    assert parser["group:private"]["programs"] == "broker"
    assert parser["group:airgap"]["programs"] == "web,worker,scheduler"
    assert int(parser["group:private"]["priority"]) < int(parser["group:airgap"]["priority"])


def test_stopping_fits_into_the_time_that_is_left(instance):
    parser = configparser.RawConfigParser()
    parser.read_string(supervision.render_configuration(everything(instance)))
    together = max(int(parser[f"program:{name}"]["stopwaitsecs"]) for name in ("web", "worker", "scheduler"))
    assert together + int(parser["program:broker"]["stopwaitsecs"]) < 12


def test_there_is_no_broker_where_redis_url_names_one(instance):
    assert "broker" not in supervision.render_configuration([programs.web(instance)])


def test_no_path_stands_in_the_configuration_where_it_could_be_taken_for_syntax(instance):
    path = supervision.write_configuration(instance, everything(instance))
    assert "/opt" not in path.read_text()
    assert str(instance.data) not in path.read_text()
    assert json.loads((instance.run / "programs.json").read_text())["web"]["argv"][0] == instance.python


def test_the_processes_are_not_told_the_first_password(instance):
    environment = supervision.environment(instance, {"AIRGAP_ADMIN_PASSWORD": "geheim", "PATH": "/bin"})
    assert "AIRGAP_ADMIN_PASSWORD" not in environment
    assert environment["PATH"] == "/bin"
    assert environment["AIRGAP_DATA_DIR"] == str(instance.data)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "2026-11-20 22:00:11,428 WARN exited: worker (terminated by SIGKILL; not expected)",
            "The worker ended (killed by SIGKILL) and is started again; its log is /logs/worker.log",
        ),
        (
            "2026-11-20 22:00:11,428 WARN exited: web (exit status 1; not expected)",
            "The web server ended (exit status 1) and is started again; its log is /logs/web.log",
        ),
        (
            "2026-11-20 22:00:11,428 WARN killing 'worker' (77) with SIGKILL",
            "The worker did not stop in time and was killed.",
        ),
        ("2026-11-20 22:00:11,428 INFO spawned: 'worker' with pid 19504", None),
        ("2026-11-20 22:00:11,428 INFO success: web entered RUNNING state, process has stayed up", None),
    ],
)
def test_it_says_in_plain_words_what_happened(line, words):
    titles = {"web": "web server", "worker": "worker"}
    assert supervision.in_plain_words(line, titles, Path("/logs")) == words


def test_a_program_that_keeps_dying_waits_longer_each_time_but_never_over_half_a_minute(tmp_path):
    record, now, waits = tmp_path / "worker.starts", 1000.0, []
    for _ in range(9):
        waits.append(launch.wait_before_start(record, now))
        now += waits[-1] + 1
    assert waits == [0, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_program_that_lived_a_while_starts_at_once(tmp_path):
    record = tmp_path / "worker.starts"
    launch.wait_before_start(record, 1000.0)
    assert launch.wait_before_start(record, 1001.0) == 1
    assert launch.wait_before_start(record, 1012.5) == 0


@pytest.mark.parametrize("damaged", ["", "{}", "[1]", '["x", "y"]', "[1, 2000]"])
def test_a_damaged_record_or_a_clock_set_back_counts_as_a_first_start(tmp_path, damaged):
    record = tmp_path / "worker.starts"
    record.write_text(damaged)
    assert launch.wait_before_start(record, 1000.0) == 0


def test_logs_that_cannot_be_written_end_nothing(tmp_path):
    """A full disk: supervisord's own output, its log and the program's log all say ENOSPC."""
    talker = tmp_path / "talker.py"
    talker.write_text(
        "import pathlib, time\n"
        "for number in range(1, 1000):\n"
        "    print('a line', number, flush=True)\n"
        "    pathlib.Path('said').write_text(f'{number}\\n')\n"
        "    time.sleep(0.02)\n"
    )
    configuration = tmp_path / "supervisord.conf"
    configuration.write_text(
        "[supervisord]\nnodaemon=true\nsilent=true\nlogfile=full\nlogfile_maxbytes=0\npidfile=pid\nnocleanup=true\n"
        f"[program:talker]\ncommand={sys.executable} talker.py\nredirect_stderr=true\nstdout_logfile=full\n"
        "stdout_logfile_maxbytes=0\n"
    )
    (tmp_path / "full").symlink_to("/dev/full")
    command = [sys.executable, "-I", str(supervision.LAUNCHER), "supervise", "-c", str(configuration)]
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=full, stderr=full)
    try:
        said = tmp_path / "said"
        while not (said.exists() and said.read_text().endswith("\n") and int(said.read_text()) >= 10):
            assert process.poll() is None, "supervisord ended"
            time.sleep(0.02)
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(10)


def test_a_second_start_forgets_the_failures_of_the_last_run(instance):
    (instance.run / "worker.starts").write_text("[9, 1]")
    supervision.write_configuration(instance, everything(instance))
    assert not (instance.run / "worker.starts").exists()


@pytest.mark.parametrize(
    ("host", "base_url", "url"),
    [
        ("127.0.0.1", "", "http://127.0.0.1:8000/"),
        ("0.0.0.0", "", "http://localhost:8000/"),
        ("[::1]", "", "http://[::1]:8000/"),
        ("0.0.0.0", "https://airgap.example.org", "https://airgap.example.org/"),
    ],
)
def test_it_names_the_address_a_browser_needs(instance, host, base_url, url):
    from dataclasses import replace

    assert replace(instance, host=host, base_url=base_url).url == url
