"""`make up` itself: starts, answers, restarts what dies, refuses a second one, and leaves no process behind.

Each test starts the real programs (about five seconds); those that are about one more way to die run in test-servers.
"""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.fakes.tls import Authority

BASE = Path(__file__).resolve().parent.parent.parent
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Up:
    """One `up` on a data directory of its own, with the output it has written."""

    def __init__(self, folder: Path, *, data: Path | None = None) -> None:
        self.data = data or folder / "data"
        self.port = free_port()
        self.output = folder / "output"
        makefile = folder / "Makefile"
        makefile.write_text(f"up:\n\t@exec {sys.executable} {BASE}/manage.py up\n")
        self.make = ["make", "-f", str(makefile), "up"]
        self.python = [sys.executable, str(BASE / "manage.py"), "up"]
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AIRGAP_DATA_DIR": str(self.data),
            "AIRGAP_BIND": f"127.0.0.1:{self.port}",
            # A test sends nothing to the internet.
            "AIRGAP_SCHEDULE": "off",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str], *, ignoring_interrupts: bool = False) -> subprocess.Popen[bytes]:
        def ignore() -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=self.environment,
                cwd=BASE,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=ignore if ignoring_interrupts else None,
            )
        wait_for(lambda: "Airgap is running at" in self.said() or self.process.poll() is not None, 60)
        return self.process

    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def processes(self) -> dict[int, str]:
        """Everything that lives of this instance. A Redis server overwrites its environment, so its folder is asked."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environment = (entry / "environ").read_bytes()
                folder = os.readlink(entry / "cwd")
                state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            is_ours = f"AIRGAP_DATA_DIR={self.data}\0".encode() in environment or Path(folder).is_relative_to(self.data)
            if is_ours and state != "Z":
                found[int(entry.name)] = command
        return found

    def pids(self, word: str) -> list[int]:
        return sorted(pid for pid, command in self.processes().items() if word in command)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def wait_until_gone(self, seconds: float = 15) -> None:
        wait_for(lambda: not self.processes(), seconds, lambda: f"left: {self.processes()}\n{self.said()}")
        self.process.wait(5)


def wait_for(condition: Callable[[], bool], seconds: float = 20, explain: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.05)


@pytest.fixture
def up() -> Iterator[Up]:
    # A short path: the broker's socket then stands in the data directory.
    with tempfile.TemporaryDirectory(prefix="airgap-up-") as folder:
        instance = Up(Path(folder))
        yield instance
        for pid in instance.processes():
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not instance.processes())


@needs_proc
@pytest.mark.long
def test_it_runs_refuses_a_second_start_and_stops_when_only_make_is_interrupted(up):
    process = up.start(up.make)
    assert up.answers(), up.said()
    assert f"Airgap is running at http://127.0.0.1:{up.port}/" in up.said()
    password = (up.data / "admin-password").read_text().strip()
    assert password not in up.said()
    for name in (".", "broker"):
        assert (up.data / name).stat().st_mode & 0o777 == 0o700
    for name in ("airgap.sqlite3", "logs/web.log"):
        assert (up.data / name).stat().st_mode & 0o007 == 0

    second = subprocess.run(up.python, env=up.environment, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert second.stderr.startswith(f"Airgap is already running on {up.data} (process ")
    assert second.stderr.count("\n") == 1

    (worker,) = up.pids("celery --quiet -A airgap worker")
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: [pid for pid in up.pids("celery --quiet -A airgap worker") if pid != worker])
    assert up.answers()
    wait_for(lambda: "The worker ended (killed by SIGKILL) and is started again" in up.said())

    process.send_signal(signal.SIGINT)
    up.wait_until_gone()


@needs_proc
@pytest.mark.servers
@pytest.mark.parametrize("whom", ["the process", "its group"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("way", ["make", "manage.py", "in the background"])
def test_no_process_survives(up, way, number, whom):
    process = up.start(up.make if way == "make" else up.python, ignoring_interrupts=way == "in the background")
    assert len(up.processes()) >= 6, up.said()
    if whom == "the process":
        process.send_signal(number)
    else:
        os.killpg(process.pid, number)
    up.wait_until_gone()


@needs_proc
@pytest.mark.servers
def test_a_worker_that_does_not_react_is_killed_in_time(up):
    process = up.start(up.python)
    for pid in up.pids("celery --quiet -A airgap worker") + up.pids("redis") + up.pids("valkey"):
        os.kill(pid, signal.SIGSTOP)
    process.terminate()
    up.wait_until_gone()


@needs_proc
@pytest.mark.servers
@pytest.mark.parametrize("word", ["gunicorn", "broker.sock", "supervisord", "airgap beat"])
def test_what_dies_is_started_again(up, word):
    up.start(up.python)
    before = up.pids(word)
    # Of gunicorn the first: its worker must not live on without it.
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: bool(set(up.pids(word)) - set(before)), 30, up.said)
    wait_for(up.answers, 30, up.said)
    assert not set(up.pids(word)) & set(before)
    up.process.terminate()
    up.wait_until_gone()


@needs_proc
@pytest.mark.servers
def test_a_start_right_after_a_kill_waits_for_what_is_still_stopping(up):
    first = up.start(up.python)
    for pid in up.pids("celery --quiet -A airgap worker"):
        os.kill(pid, signal.SIGSTOP)
    first.kill()
    first.wait()
    up.output.write_text("")
    second = up.start(up.python)
    assert "Waiting for the processes of the last run to stop." in up.said()
    assert up.answers(), up.said()
    second.terminate()
    up.wait_until_gone()


@needs_proc
@pytest.mark.servers
def test_a_long_data_directory_gets_its_socket_elsewhere_and_two_instances_share_nothing(up, tmp_path):
    other = Up(tmp_path, data=tmp_path / ("a name with 100% ; # and spaces" * 3))
    up.start(up.python)
    try:
        other.start(other.python)
        assert up.answers(), up.said()
        assert other.answers(), other.said()
        assert not (other.data / "broker" / "broker.sock").exists()
        assert (up.data / "secret-key").read_text() != (other.data / "secret-key").read_text()
        up.process.terminate()
        up.wait_until_gone()
        assert other.answers()
    finally:
        other.process.terminate()
        other.wait_until_gone()
    hashed = hashlib.sha256(os.fsencode(other.data)).hexdigest()[:16]
    assert not (Path(tempfile.gettempdir()) / f"airgap-{hashed}").exists()


@pytest.mark.long
def test_it_says_in_one_sentence_that_the_port_is_taken(up):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", up.port))
        taken.listen()
        done = subprocess.run(up.python, env=up.environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Port {up.port} on 127.0.0.1 is taken by another program. "
        f"Stop that program, or choose another port: AIRGAP_BIND=127.0.0.1:{up.port + 1}\n"
    )


def test_it_says_in_one_sentence_that_the_data_directory_cannot_be_written(up):
    (up.data.parent / "file").write_text("in the way")
    environment = {**up.environment, "AIRGAP_DATA_DIR": str(up.data.parent / "file" / "data")}
    done = subprocess.run(up.python, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"The data directory {up.data.parent}/file/data cannot be written (")


def test_it_says_in_one_sentence_that_the_database_cannot_be_reached(up):
    environment = {**up.environment, "DATABASE_URL": f"postgres://airgap:geheim@127.0.0.1:{free_port()}/airgap"}
    done = subprocess.run(up.python, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("The database cannot be used (")
    assert "geheim" not in done.stderr


@needs_proc
@pytest.mark.servers
def test_it_serves_https_with_secure_cookies_where_there_is_a_certificate(up, tmp_path):
    authority = Authority()
    issued = authority.issue()
    (tmp_path / "cert.pem").write_text(issued.certificate_pem)
    (tmp_path / "key.pem").write_text(issued.key_pem)
    up.environment |= {
        "AIRGAP_TLS_CERT": str(tmp_path / "cert.pem"),
        "AIRGAP_TLS_KEY": str(tmp_path / "key.pem"),
        "AIRGAP_ADMIN_PASSWORD": "correct horse admin",
    }
    process = up.start(up.python)
    url = f"https://127.0.0.1:{up.port}"
    assert f"Airgap is running at {url}/" in up.said()
    (tmp_path / "ca.pem").write_text(authority.pem)
    with requests.Session() as browser:
        browser.trust_env, browser.verify = False, str(tmp_path / "ca.pem")
        page = browser.get(f"{url}/login/")
        assert page.headers["Strict-Transport-Security"] == "max-age=15552000"
        assert "; Secure" in page.headers["Set-Cookie"]
        form = {
            "username": "admin",
            "password": "correct horse admin",
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
        }
        answer = browser.post(f"{url}/login/", form, headers={"Origin": url}, allow_redirects=False)
        assert (answer.status_code, "; Secure" in answer.headers["Set-Cookie"]) == (302, True)
        assert browser.get(url).status_code == 200
    health = [sys.executable, "-I", str(BASE / "airgap" / "running" / "healthy.py")]
    assert subprocess.run(health, env=up.environment).returncode == 0
    process.send_signal(signal.SIGTERM)
    up.wait_until_gone()
    assert subprocess.run(health, env=up.environment).returncode == 1


def test_a_certificate_that_cannot_be_used_stops_the_start_with_one_line(up, tmp_path):
    up.environment |= {"AIRGAP_TLS_CERT": str(tmp_path / "no.pem"), "AIRGAP_TLS_KEY": str(tmp_path / "no.pem")}
    refused = subprocess.run(up.python, env=up.environment, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"airgap.E003: AIRGAP_TLS_CERT names {tmp_path}/no.pem, which cannot be read")
    assert "Traceback" not in refused.stderr
