"""The dashboard, with a handful of mirrors and with many, and years of history behind them."""

import statistics
import time

from tests.bench.instance import Instance, Site
from tests.bench.measuring import Finding, Section, plain, settle
from tests.bench.transfers import Bench

LOOKS = 40


def dashboard(bench: Bench, mirrors: int, runs: int) -> Section:
    """Queries and time of one look, beside an instance of five mirrors."""
    rows, queries, worst = [], [], 0.0
    for count, history in ((5, runs * 5 // mirrors), (mirrors, runs)):
        instance = Instance(bench.folder / "pages", bench.env)
        instance = bench.template.copied(instance.data)
        for name in ("copy", "java", "extra"):
            instance.manage("mirror", "remove", name)
        instance.inside("history", str(count), str(history))
        inside = instance.inside("dashboard", str(LOOKS))
        with instance.up() as site:
            settle()  # its worker and scheduler are still loading
            through = _looks(site)
        own = statistics.median(inside["milliseconds"])
        whole = statistics.median(through)
        bench.say(
            f"  {count} mirrors, {history} runs: {inside['queries']} queries, {own:.1f} ms, {whole:.1f} ms by HTTP"
        )
        rows.append((f"{count} mirrors, " + f"{history:,} runs".replace(",", " "), str(inside["queries"]), plain(own),
                     plain(whole), f"{inside['bytes'] / 1000:.0f} kB"))  # fmt: skip
        queries.append(inside["queries"])
        worst = max(own, whole)
    return Section(
        f"The dashboard with {mirrors} mirrors and {runs:,} runs of history".replace(",", " "),
        f"SQLite, {LOOKS} looks each: in the Django process, and through gunicorn on loopback over a kept connection.",
        ("", "queries", "median ms in the process", "median ms by HTTP", "page"),
        rows,
        [
            Finding("Dashboard: the larger one takes", worst, 50, "ms"),
            Finding("Dashboard: queries more than with 5 mirrors", float(queries[1] - queries[0]), 0, "queries"),
        ],
    )


def _looks(site: Site) -> list[float]:
    found = []
    for _ in range(LOOKS + 3):
        began = time.perf_counter()
        answer = site.session.get(site.url + "/")
        found.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 200:
            raise RuntimeError(f"The dashboard answered {answer.status_code}.")
    return found[3:]
