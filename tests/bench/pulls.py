"""Scanners: many that pull the vulnerability DB at once, slow ones, silent ones; and TLS by ourselves and by nginx."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.bench.instance import BASE, Instance, Site, peak_memory_mib
from tests.bench.layer import make_noise
from tests.bench.measuring import Finding, Section, interleave, plain, settle, spread_text
from tests.bench.servers import free_port, running
from tests.bench.transfers import Bench
from tests.fakes import nginx
from tests.fakes.tls import Authority

REPOSITORY = "bench/trivy-db"
NOISE = "application/octet-stream"


def pulls(bench: Bench, size: int, clients: int, silent: int) -> list[Section]:
    """All that happens while scanners pull a database of `size` bytes."""
    blob = make_noise(bench.folder / "db.bin", size)
    bench.registry.push(REPOSITORY, "2", blob, NOISE, "db.bin", "application/vnd.example.noise")
    blob.path.unlink()
    size = blob.size
    instance = bench.instance()
    source = f"{bench.registry.host}/{REPOSITORY}:2"
    instance.manage("mirror", "add", "db", "--kind", "oci", "--source", source, "--insecure", "--schedule", "manual")
    instance.sync("db")
    path = f"/v2/mirrors/db/blobs/{blob.digest}"
    with instance.up() as site:
        at_once = _at_once(bench, site, path, blob.digest, size, clients)
        patience = _slow_and_silent(bench, site, path, silent)
    encrypted = [_encrypted(bench, instance, path, size, clients)] if bench.peers.find("nginx") else []
    return [at_once, patience, *encrypted]


def _pull(bench: Bench, url: str, clients: int, **more: Any) -> dict[str, Any]:
    order = json.dumps({"url": url, "clients": clients, **more})
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.puller", order], cwd=BASE, env=bench.env, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"The clients failed: {done.stderr[-600:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    if set(result["statuses"]) != {"200"}:
        raise RuntimeError(f"Not every client was served: {result['statuses']}")
    return result


def _whole(bench: Bench, url: str, clients: int, size: int, ca: str = "") -> float:
    settle()
    result = _pull(bench, url, clients, ca=ca)
    if result["received"] != clients * size:
        raise RuntimeError(f"{result['received']} of {clients * size} bytes arrived.")
    return float(result["seconds"])


def _at_once(bench: Bench, site: Site, path: str, digest: str, size: int, clients: int) -> Section:
    theirs = f"http://{bench.registry.host}/v2/{REPOSITORY}/blobs/{digest}"
    subjects: dict[str, Callable[[], float]] = {
        "Airgap": lambda: _whole(bench, site.url + path, clients, size),
        "docker-registry": lambda: _whole(bench, theirs, clients, size),
    }
    found = interleave(subjects, bench.rounds + 4, bench.say)
    speeds = {name: [clients * size / value / 1e9 for value in values] for name, values in found.items()}
    beside = statistics.median(speeds["Airgap"]) / statistics.median(speeds["docker-registry"])
    return Section(
        f"{clients} scanners that pull {size / 1e6:.0f} MB at once",
        "Everything running as `make up` runs it, plain HTTP, one blob of `/v2/`. The clients are threads of one "
        "process that have the kernel throw away what arrives (MSG_TRUNC): the servers are measured, and not they.",
        ("", "median s", "fastest-slowest", "median GB/s"),
        [(name, plain(statistics.median(values)), spread_text(values), plain(statistics.median(speeds[name])))
         for name, values in found.items()],
        [Finding(f"{clients} pulls at once: throughput beside docker-registry", beside, 1.0, at_least=True)],
        [f"The web server's two processes together held at most {peak_memory_mib(site.web_processes()):.0f} MiB."],
    )  # fmt: skip


def _slow_and_silent(bench: Bench, site: Site, path: str, silent: int) -> Section:
    slow, rate = 100, 100_000
    rows, findings = [], []
    settle()
    idle = _looks(site, 1.0)
    rows.append(("nobody else", "", plain(statistics.median(idle)), plain(max(idle))))
    order = json.dumps({"url": site.url + path, "clients": slow, "rate": rate, "seconds": 8})
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.puller", order], cwd=BASE, env=bench.env, stdout=subprocess.PIPE
    ) as clients:
        time.sleep(1)
        looks = _looks(site, 5)
        said, _ = clients.communicate()
    result = json.loads(said)
    if result["statuses"] != {"200": slow}:
        raise RuntimeError(f"Not every slow client was served: {result['statuses']}")
    each = result["received"] / slow / result["seconds"] / 1000
    name = f"{slow} pulls at {each:.0f} kB/s each"
    rows.append((name, f"{result['slowest_first'] * 1000:.0f}", plain(statistics.median(looks)), plain(max(looks))))
    findings.append(Finding(f"Dashboard while {slow} pull at 100 kB/s: the slowest look", max(looks), 200, "ms"))
    with _crowd(site, silent) as held:
        looks = _looks(site, 3)
    rows.append((f"{held} connections that say nothing or half a request", "", plain(statistics.median(looks)),
                 plain(max(looks))))  # fmt: skip
    findings.append(Finding("Dashboard with a crowd of silent connections: the slowest look", max(looks), 200, "ms"))
    return Section(
        "Slow scanners, silent connections, and the dashboard",
        "The same instance; somebody signed in looks at the dashboard again and again. None of the slow clients is "
        "refused or has to wait for another.",
        ("meanwhile", "slowest first byte, ms", "median look, ms", "slowest look, ms"),
        rows,
        findings,
    )


def _looks(site: Site, seconds: float) -> list[float]:
    """Milliseconds of each look at the dashboard."""
    found = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        answer = site.session.get(site.url + "/")
        found.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 200:
            raise RuntimeError(f"The dashboard answered {answer.status_code}.")
        time.sleep(0.05)
    return found


@contextmanager
def _crowd(site: Site, count: int) -> Iterator[int]:
    """Connections of another process, which has its own limit of open files: how many there are."""
    program = (
        "import resource, socket, sys\n"
        "_, most = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))\n"
        "port, count = int(sys.argv[1]), min(int(sys.argv[2]), most - 100)\n"
        "held = []\n"
        "for number in range(count):\n"
        "    held.append(socket.create_connection(('127.0.0.1', port)))\n"
        "    held[-1].sendall((b'', b'GET / HTTP/1.1\\r\\nX: ')[number % 2])\n"
        "print(len(held), flush=True)\n"
        "sys.stdin.read()\n"
    )
    port = site.url.rpartition(":")[2]
    with subprocess.Popen(
        [sys.executable, "-c", program, port, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("The crowd has no pipes.")
        yield int(process.stdout.readline() or 0)
        process.stdin.close()


def _encrypted(bench: Bench, instance: Instance, path: str, size: int, clients: int) -> Section:
    """The program's own TLS beside nginx with deploy/nginx.conf, each on the same instance started for it."""
    folder = bench.emptied("tls")
    authority = Authority()
    issued = authority.issue()
    for name, text in (("own-cert.pem", issued.certificate_pem), ("own-key.pem", issued.key_pem)):
        (folder / name).write_text(text)
    (folder / "own-ca.pem").write_text(authority.pem)
    own_ca, clients = str(folder / "own-ca.pem"), max(clients // 2, 2)
    pair = {"AIRGAP_TLS_CERT": str(folder / "own-cert.pem"), "AIRGAP_TLS_KEY": str(folder / "own-key.pem")}

    def own() -> float:
        with instance.up(own_ca, **pair) as site:
            return _whole(bench, site.url + path, clients, size, own_ca)

    def front() -> float:
        port, plain = free_port(), free_port()
        with instance.up(AIRGAP_SEND_WITH="nginx", AIRGAP_BEHIND_PROXY="yes") as site:
            command = nginx.set_up(
                folder, data=instance.data, upstream=site.url, port=port, plain_port=plain, workers="auto"
            )
            with running(command, port, folder / "nginx-said"):
                return _whole(bench, f"https://127.0.0.1:{port}{path}", clients, size, str(folder / "ca.pem"))

    found = interleave({"Airgap itself": own, "nginx in front": front}, bench.rounds, bench.say)
    speeds = {name: [clients * size / value / 1e9 for value in values] for name, values in found.items()}
    return Section(
        f"{clients} scanners that pull {size / 1e6:.0f} MB at once over TLS",
        "A P-256 certificate, TLS 1.3. Airgap with AIRGAP_TLS_CERT; and nginx with deploy/nginx.conf and "
        "AIRGAP_SEND_WITH=nginx. The clients decrypt on the same cores.",
        ("", "median s", "fastest-slowest", "median GB/s"),
        [(name, plain(statistics.median(values)), spread_text(values), plain(statistics.median(speeds[name])))
         for name, values in found.items()],
    )  # fmt: skip
