"""`make bench [ARGS=--quick]`: every promise about speed, measured beside its peers; docs/performance.md is its report.

Exit status: 0 all ratios kept, 1 one was missed (said last), 2 it could not be run. `--quick` tries the program itself
with small sizes in under a minute: it judges nothing and writes nothing. Needs docker-registry; every other tool
(oras, crane, regctl, skopeo, trivy, curl, openssl, nginx) is looked for in AIRGAP_BENCH_TOOLS and on PATH, and left out
where it is missing. About 6 GB of disk are used in AIRGAP_BENCH_DIR (default /var/tmp) and given back.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.bench import crossing, downloads, pages, pulls, report, transfers
from tests.bench.instance import BASE, Instance, clean_environment, same_disk
from tests.bench.layer import make_layer, make_noise
from tests.bench.measuring import Peers, Section, Skip
from tests.bench.servers import JAVA_ARTIFACT, JAVA_LAYER, Registry
from tests.bench.transfers import REPOSITORY, Bench

PAGE = BASE / "docs" / "performance.md"
SCENARIOS = ("copies", "java", "resumes", "export", "import", "pulls", "dashboard")


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing judged, nothing written")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each comparison (5; quick 1)")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="these scenarios; nothing is written then")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rounds = options.rounds or (1 if options.quick else 5)
    place = Path(
        os.environ.get("AIRGAP_BENCH_DIR") or ("/var/tmp" if Path("/var/tmp").is_dir() else tempfile.gettempdir())
    )
    peers = Peers()
    folder = Path(tempfile.mkdtemp(prefix="airgap-bench-", dir=place))
    try:
        same_disk(place, 300 * 10**6 if options.quick else 6 * 10**9)
        peers.need("docker-registry")
        sections, skipped, broken = measure(folder, peers, options.quick, rounds, set(options.only or SCENARIOS))
    except Skip as reason:
        say(str(reason))
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name in peers.missing:
        skipped[name] = "not found on PATH or in AIRGAP_BENCH_TOOLS"
    for what, why in skipped.items():
        say(f"Left out: {what} ({why.rstrip('.')})")
    findings = [finding for section in sections for finding in section.findings]
    for finding in findings:
        verdict = "" if options.quick else "met" if finding.is_met else "MISSED"
        say(f"{finding.what}: {finding.measured} (wanted {finding.wanted}) {verdict}".rstrip())
    if broken:
        say(f"Could not be measured to the end: {'; '.join(broken)}")
        return 2
    if options.quick:
        say("Small sizes: these numbers say nothing.")
        return 0
    if not options.only:
        known = ("docker-registry", "oras", "crane", "regctl", "skopeo", "trivy", "curl", "openssl", "nginx")
        versions = ", ".join(f"{name} {peers.version(name)}".strip() for name in known if peers.find(name))
        report.write(PAGE, sections, skipped, rounds, versions)
        say(f"Written: {PAGE.relative_to(BASE)}")
    missed = [finding.what for finding in findings if not finding.is_met]
    if missed:
        say(f"Missed: {'; '.join(missed)}")
    return 1 if missed else 0


def measure(
    folder: Path, peers: Peers, quick: bool, rounds: int, wanted: set[str]
) -> tuple[list[Section], dict[str, str], list[str]]:
    """Every scenario that can be measured here, why the others cannot, and what broke while it was measured."""
    env = clean_environment(folder, peers.path)
    began = time.monotonic()
    say("Making a Java DB layer …")
    small = 24 * 10**6
    built = datetime.now(UTC) - timedelta(hours=2)
    layer = make_layer(folder / "layer.tar.gz", small if quick else 850 * 10**6, built, 4000 if quick else 32_000)
    extra = make_noise(folder / "extra.bin", small if quick else 190 * 10**6)
    template = Instance(folder / "template", env)
    template.prepare()
    registry = Registry(folder / "registry")
    sections: list[Section] = []
    skipped: dict[str, str] = {}
    broken: list[str] = []
    with registry.serving():
        registry.push(REPOSITORY, "1", layer, JAVA_LAYER, "javadb.tar.gz", JAVA_ARTIFACT)
        registry.push("extra", "1", extra, "application/octet-stream", "extra.bin", "application/vnd.example.noise")
        layer.path.unlink()
        extra.path.unlink()
        java = f"{registry.host}/{REPOSITORY}:1"
        for name, kind, source in (
            ("copy", "oci", java),
            ("java", "trivy-java-db", java),
            ("extra", "oci", f"{registry.host}/extra:1"),
        ):
            template.manage(
                "mirror", "add", name, "--kind", kind, "--source", source, "--insecure", "--schedule", "manual"
            )
        bench = Bench(folder, env, peers, template, registry, layer, extra, rounds, say)
        mirrors, runs = (40, 4000) if quick else (200, 300_000)
        scenarios: dict[str, Callable[[], Section | list[Section]]] = {
            "copies": lambda: transfers.copies(bench),
            "java": lambda: transfers.java(bench),
            "resumes": lambda: transfers.resumes(bench),
            "export": lambda: downloads.export(bench),
            "import": lambda: crossing.imports(bench),
            "pulls": lambda: pulls.pulls(bench, *((12 * 10**6, 10, 500) if quick else (113 * 10**6, 50, 10_000))),
            "dashboard": lambda: pages.dashboard(bench, mirrors, runs),
        }
        for name, scenario in scenarios.items():
            if name not in wanted:
                continue
            say(f"{name} …")
            try:
                done = scenario()
                sections += done if isinstance(done, list) else [done]
            except Skip as reason:
                skipped[name] = str(reason)
            except RuntimeError as fault:
                broken.append(f"{name}: {fault}")
                say(f"  failed: {fault}")
    say(f"Took {(time.monotonic() - began) / 60:.1f} minutes.")
    return sections, skipped, broken


if __name__ == "__main__":
    sys.exit(main())
