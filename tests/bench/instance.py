"""An Airgap on a data directory of its own, set up as production is: by its own commands, in processes of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests

from tests.bench import measuring
from tests.bench.servers import free_port

BASE = Path(__file__).resolve().parents[2]
PASSWORD = "bench-only-7c1f93"


def clean_environment(folder: Path, path: str) -> dict[str, str]:
    """What children get: no settings, proxies or logins of whoever runs the bench."""
    home, temporary = folder / "home", folder / "tmp"
    home.mkdir(exist_ok=True)
    temporary.mkdir(exist_ok=True)
    return {"PATH": path, "HOME": str(home), "TMPDIR": str(temporary), "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}


class Instance:
    """One data directory and how commands are run on it."""

    def __init__(self, data: Path, env: Mapping[str, str]) -> None:
        self.data = data
        self.env = {
            **env,
            "AIRGAP_DATA_DIR": str(data),
            "AIRGAP_SCHEDULE": "off",
            "AIRGAP_ADMIN_PASSWORD": PASSWORD,
            "DJANGO_SETTINGS_MODULE": "airgap.settings",
        }

    def prepare(self) -> None:
        """Database, first administrator and static files, as `make up` makes them; the default mirrors go."""
        self.data.mkdir()
        self.manage("up", "--prepare")
        names = [one["mirror"] for one in json.loads(self.manage("mirror", "list", "--json"))]
        for name in names:
            self.manage("mirror", "remove", name)

    def copied(self, data: Path) -> "Instance":
        """The same on another folder, which is replaced."""
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(self.data, data)
        return Instance(data, self.env)

    def manage(self, *arguments: str) -> str:
        """A command's standard output."""
        argv = [sys.executable, str(BASE / "manage.py"), *arguments]
        done = subprocess.run(argv, cwd=BASE, env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"manage.py {' '.join(arguments)}: {(done.stderr or done.stdout)[-800:]}")
        return done.stdout

    def sync(self, name: str) -> dict[str, Any]:
        """`sync --wait --json`, with `wall` (seconds of the whole process) beside what it reports."""
        began = time.perf_counter()
        report = json.loads(self.manage("sync", name, "--wait", "--json"))[0]
        return dict(report, wall=time.perf_counter() - began)

    def start_sync(self, name: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, str(BASE / "manage.py"), "sync", name, "--wait", "--json"]
        nowhere = subprocess.DEVNULL
        return subprocess.Popen(argv, cwd=BASE, env=self.env, stdout=nowhere, stderr=nowhere)

    def inside(self, *arguments: str) -> dict[str, Any]:
        """What tests/bench/inside.py says, run under this instance's settings."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.inside", *arguments],
            cwd=BASE, env=self.env, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{arguments[0]}: {done.stderr[-800:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @contextmanager
    def up(self, ca: str = "", **more: str) -> Iterator["Site"]:
        """All of it running, as `make up` does, with `more` in its environment. `ca`: its own TLS is signed by that."""
        port = free_port()
        env = {**self.env, "AIRGAP_BIND": f"127.0.0.1:{port}", **more}
        log = (self.data / "up.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, str(BASE / "manage.py"), "up"], cwd=BASE, env=env, stdout=log, stderr=log
        )
        try:
            site = Site(f"{'https' if ca else 'http'}://127.0.0.1:{port}", process.pid, ca)
            site.wait_until_ready(process)
            site.sign_in()
            yield site
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.close()


class Site:
    """A running instance, seen by somebody signed in."""

    def __init__(self, url: str, pid: int, ca: str = "") -> None:
        self.url, self.pid, self.ca = url, pid, ca
        self.session = requests.Session()
        self.session.trust_env, self.session.verify = False, ca or True

    def wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(requests.RequestException):
                if self.session.get(self.url + "/healthz", timeout=2).status_code == 200:
                    return
            time.sleep(0.2)
        raise RuntimeError("The instance did not become ready within a minute.")

    def sign_in(self) -> None:
        self.session.get(self.url + "/login/")
        answer = self.post("/login/", {"username": "admin", "password": PASSWORD})
        if answer.status_code != 302:
            raise RuntimeError(f"Signing in was answered with {answer.status_code}.")

    def post(self, path: str, data: Mapping[str, str]) -> requests.Response:
        form = dict(data, csrfmiddlewaretoken=self.session.cookies["csrftoken"])
        return self.session.post(self.url + path, form, headers={"Origin": self.url}, allow_redirects=False)

    def click_export(self) -> str:
        """ "Export everything current": where the browser is sent for the download."""
        answer = self.post("/bundles/create", {"all": "1"})
        if answer.status_code != 303:
            raise RuntimeError(f"The export was answered with {answer.status_code}.")
        return urljoin(self.url, answer.headers["Location"])

    @property
    def cookie(self) -> str:
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.session.cookies)

    def web_processes(self) -> list[int]:
        """gunicorn's: the arbiter and its worker."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if (
                    entry.name.isdigit()
                    and b"gunicorn" in (entry / "cmdline").read_bytes()
                    and self._is_below(entry.name)
                ):
                    found.append(int(entry.name))
        return found

    def _is_below(self, pid: str) -> bool:
        while pid not in ("0", "1"):
            if pid == str(self.pid):
                return True
            pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        return False


def bytes_written(pids: list[int]) -> int:
    """What these processes sent to disks so far (proc(5), io: write_bytes)."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))
    return total


def peak_memory_mib(pids: list[int]) -> float:
    return sum(_status_kib(pid, "VmHWM") for pid in pids) / 1024


def _status_kib(pid: int, key: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(key)), 0)  # 0: it has just ended


def same_disk(folder: Path, needed: int) -> None:
    """Skip (the whole bench) where the disk has not the room."""
    status = os.statvfs(folder)
    if status.f_bavail * status.f_frsize < needed:
        raise measuring.Skip(
            f"About {needed // 10**9} GB of disk are needed; set AIRGAP_BENCH_DIR to a folder with room."
        )
