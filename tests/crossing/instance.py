"""A whole instance: the real programs on a data directory of their own, and a person who uses it through HTTP."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import requests

from tests.crossing.namespace import Namespace

BASE = Path(__file__).resolve().parent.parent.parent
RECORDING = Path(__file__).parent / "recording"
PASSWORD = "crossing the gap"
LINK = re.compile(r'<a [^>]*?href="([^"]+)"')
# No page of ours; a GET of it does nothing.
LEFT_OUT = re.compile(r"^/(static|logout)")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 60, explain: Callable[[], str] = str) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, explain()
        time.sleep(0.1)
    return found


class Instance:
    """`up` of one side. With a namespace it lives in there. What it asked of the network stands in `calls()`."""

    def __init__(self, folder: Path, side: str, *, namespace: Namespace | None = None, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.namespace, self.port = folder, namespace, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "AIRGAP_DATA_DIR": str(folder / "data"),
            "AIRGAP_BIND": f"127.0.0.1:{self.port}",
            "AIRGAP_SIDE": side,
            "AIRGAP_ADMIN_PASSWORD": PASSWORD,
            "AIRGAP_RESERVE_MB": "1",
            "PYTHONPATH": str(RECORDING),
            "PYTHONDONTWRITEBYTECODE": "1",
            "AIRGAP_TEST_CALLS": str(folder / "calls"),
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def prefix(self) -> list[str]:
        return self.namespace.prefix if self.namespace is not None else []

    def start(self) -> None:
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, str(BASE / "manage.py"), "up"],
                env=self.environment,
                cwd=BASE,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        process = self.process
        wait_for(lambda: "Airgap is running at" in self.said() or process.poll() is not None, 90, self.said)
        assert process.poll() is None, self.said()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def said(self) -> str:
        file = self.folder / "output"
        return file.read_text(errors="replace") if file.exists() else ""

    def calls(self) -> list[list[str]]:
        """What its Python programs asked the network: program, event, arguments."""
        file = Path(self.environment["AIRGAP_TEST_CALLS"])
        return [line.split("\t") for line in file.read_text().splitlines()] if file.exists() else []

    def run(self, *command: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """A program beside it, where it lives."""
        done = subprocess.run(
            [*self.prefix, *command],
            env=self.environment,
            cwd=BASE,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}{self.said()}"
        return done

    def manage(self, *arguments: str, check: bool = True, text: str | None = None) -> str:
        """What `manage.py …` says on standard output."""
        return self.run_manage(*arguments, check=check, text=text).stdout

    def run_manage(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, str(BASE / "manage.py"), *arguments, **options)

    def python(self, code: str) -> str:
        return self.run(sys.executable, str(BASE / "manage.py"), "shell", "-c", code).stdout

    def freshness(self) -> dict[str, dict[str, Any]]:
        """What `manage.py freshness` says, by mirror."""
        return {row["mirror"]: row for row in json.loads(self.manage("freshness", "--json", check=False))}

    @contextmanager
    def inside(self) -> Iterator[None]:
        with self.namespace.entered() if self.namespace is not None else nullcontext():
            yield


class Person:
    """Somebody at a browser without JavaScript."""

    def __init__(self, instance: Instance, name: str = "admin", password: str = PASSWORD) -> None:
        self.instance, self.session = instance, requests.Session()
        self.session.trust_env = False
        self.post("/login/", username=name, password=password, at="/login/")

    def get(self, path: str, **options: Any) -> requests.Response:
        with self.instance.inside():
            answer = self.session.get(urljoin(self.instance.url, path), timeout=30, **options)
        assert answer.status_code < 400, f"{path} answered {answer.status_code}: {answer.text[:2000]}"
        return answer

    def post(self, path: str, *, at: str = "/", **fields: str) -> requests.Response:
        """Send a form of the page `at`."""
        page = self.get(at)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        headers = {"Referer": page.url}
        if token:
            headers["X-CSRFToken"] = token[1]
        with self.instance.inside():
            answer = self.session.post(urljoin(self.instance.url, path), data=fields, headers=headers, timeout=60)
        assert answer.status_code < 400, f"{path} answered {answer.status_code}: {answer.text[:2000]}"
        return answer

    def send(self, method: str, path: str, *, headers: dict[str, str], data: bytes = b"") -> requests.Response:
        """A request as a script of the page makes it."""
        own = {"X-CSRFToken": self.session.cookies["csrftoken"], "Referer": self.instance.url + "/"}
        with self.instance.inside():
            answer = self.session.request(
                method, urljoin(self.instance.url, path), headers=own | headers, data=data, timeout=60
            )
        assert answer.status_code < 400, f"{path} answered {answer.status_code}: {answer.text[:2000]}"
        return answer

    def visit_everything(self) -> set[str]:
        """Follow the links of every page, each path once; which were seen. A page that does not exist fails."""
        seen: set[str] = set()
        ahead = ["/"]
        while ahead:
            path = ahead.pop()
            if path in seen or LEFT_OUT.match(path):
                continue
            seen.add(path)
            answer = self.get(path, stream=True)
            with answer:
                if not answer.headers.get("Content-Type", "").startswith("text/html"):
                    continue
                for link in LINK.findall(answer.text):
                    found = urlsplit(urljoin(answer.url, urldefrag(link.replace("&amp;", "&"))[0]))
                    if f"{found.scheme}://{found.netloc}" == self.instance.url:
                        ahead.append(found.path)
        return seen
