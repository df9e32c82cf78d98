"""Export: the first byte, the speed of the rest, and what it costs the disk."""

import statistics
import subprocess
import time
from collections.abc import Callable

from tests.bench.instance import Site, bytes_written, peak_memory_mib
from tests.bench.measuring import Finding, Section, interleave, plain, seconds_text, settle, spread_text
from tests.bench.servers import nginx
from tests.bench.transfers import Bench

MIB = 1024 * 1024


def export(bench: Bench) -> Section:
    """One bundle of everything: clicked, downloaded, and the same bytes from one file by nginx."""
    bench.peers.need("nginx", "curl")
    instance = bench.instance()
    for name in ("java", "extra"):
        instance.sync(name)
    served = bench.emptied("served")
    with instance.up() as site:
        clicks = [_click(instance.inside, site) for _ in range(bench.rounds)]
        url = site.click_export()
        instance.inside("prepared")
        _fetch_to(site, url, str(served / "bundle.tar"))
        size = (served / "bundle.tar").stat().st_size
        firsts: list[float] = []
        written = []

        def ours() -> float:
            settle()
            pids = site.web_processes()
            before = bytes_written(pids)
            seconds, first, received = _curl(url, site.cookie)
            written.append(bytes_written(pids) - before)
            firsts.append(first * 1000)
            if received != size:
                raise RuntimeError(f"{received} of {size} bytes arrived.")
            return seconds

        with nginx(bench.folder / "nginx", served) as root:

            def peer() -> float:
                settle()
                return _curl(root + "bundle.tar", "")[0]

            subjects: dict[str, Callable[[], float]] = {"Airgap": ours, "nginx": peer}
            found = interleave(subjects, bench.rounds + 4, bench.say)
        memory = peak_memory_mib(site.web_processes())
    speeds = {name: [size / value / 1e6 for value in values] for name, values in found.items()}
    section = Section(
        f"An export of {size / 1e9:.2f} GB",
        "Everything running as `make up` runs it, a browser's session, `curl > /dev/null`. nginx as Debian configures "
        "it sends the same bytes from one file. The web server's processes are watched for what they write to disk.",
        ("", "median s", "fastest-slowest", "MB/s"),
        [(name, seconds_text(values), spread_text(values), plain(statistics.median(speeds[name])))
         for name, values in found.items()],
    )  # fmt: skip
    beside = statistics.median(speeds["Airgap"]) / statistics.median(speeds["nginx"])
    section.findings = [
        Finding("Export: first byte", statistics.median(firsts), 100, "ms"),
        Finding("Export: click to first byte", statistics.median(clicks) * 1000, 100, "ms"),
        Finding("Export: throughput beside nginx", beside, 0.8, at_least=True),
        Finding("Export: written to disk during a download", max(written) / MIB, 1, "MiB"),
    ]  # fmt: skip
    section.remarks.append(
        f"gunicorn's two processes together never held more than {memory:.0f} MiB. The click is the POST, the redirect "
        "and the first byte; the bundle is made anew each time. `sendfile_max_chunk 0` "
        "made no difference to nginx when it was tried."
    )
    return section


def _click(inside: Callable[..., object], site: Site) -> float:
    """Seconds from the click to the first byte. The bundle is given up again, so that the next click makes one."""
    inside("prepared")
    settle()
    began = time.perf_counter()
    url = site.click_export()
    with site.session.get(url, stream=True) as answer:
        answer.raw.read(1)
        seconds = time.perf_counter() - began
    site.post(url.removeprefix(site.url).removesuffix("download") + "delete", {})
    return seconds


def _curl(url: str, cookie: str) -> tuple[float, float, int]:
    """Seconds in all, seconds to the first byte, bytes."""
    words = _curl_words(url, cookie, "/dev/null")
    total, first, received = words
    return float(total), float(first), int(received)


def _fetch_to(site: Site, url: str, path: str) -> None:
    _curl_words(url, site.cookie, path)


def _curl_words(url: str, cookie: str, output: str) -> list[str]:
    argv = ["curl", "-sS", "--fail", "--noproxy", "*", "-b", cookie, "-o", output]
    argv += ["-w", "%{time_total} %{time_starttransfer} %{size_download}", url]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"curl: {done.stderr.strip()}")
    return done.stdout.split()
