"""Layers into the store: beside the tools that copy them, beside Trivy itself, and over wires that break."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.instance import Instance
from tests.bench.layer import Blob
from tests.bench.measuring import (
    Finding,
    Peers,
    Section,
    interleave,
    plain,
    ratio,
    run,
    seconds_text,
    settle,
    spread_text,
)
from tests.bench.servers import BreakingWire, Registry

REPOSITORY = "aquasecurity/trivy-java-db"
Say = Callable[[str], None]


@dataclass
class Bench:
    """What the scenarios share."""

    folder: Path
    env: dict[str, str]
    peers: Peers
    template: Instance
    registry: Registry
    layer: Blob
    extra: Blob
    rounds: int
    say: Say

    @property
    def reference(self) -> str:
        return f"{self.registry.host}/{REPOSITORY}:1"

    @property
    def layer_text(self) -> str:
        return f"{self.layer.size / 1e6:.0f} MB gzip, {self.layer.inflated / 1e9:.2f} GB inside"

    def emptied(self, name: str) -> Path:
        """An empty folder for a program's output; what was there and everything else is settled first."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        settle()
        return folder

    def instance(self) -> Instance:
        """A fresh instance that holds nothing yet."""
        fresh = self.template.copied(self.folder / "data")
        settle()
        return fresh


class Ours:
    """A sync of a fresh instance; remembers what the whole process took beside the run itself."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.bench, self.name = bench, name
        self.walls: list[float] = []

    def __call__(self) -> float:
        report = self.bench.instance().sync(self.name)
        if report["bytes_downloaded"] != self.bench.layer.size:
            raise RuntimeError(f"The sync downloaded {report['bytes_downloaded']} bytes.")
        self.walls.append(report["wall"])
        return float(report["seconds"])


def copies(bench: Bench) -> Section:
    """The layer as a plain OCI artifact: no look inside."""
    ours = Ours(bench, "copy")
    subjects = {"Airgap": ours, **_copiers(bench)}
    found = interleave(subjects, bench.rounds, bench.say)
    section = Section(
        "A layer into the store, verified and on disk",
        f"One artifact of one layer ({bench.layer_text}) from docker-registry on loopback; kind `oci`. Every tool "
        "starts with nothing and is followed by `sync -f` of its output; Airgap syncs its files before it switches.",
        ("", "median s", "fastest-slowest", "Airgap takes"),
    )
    for name, values in found.items():
        compared = "" if name == "Airgap" else f"{plain(ratio(found, 'Airgap', name))}×"
        section.rows.append((name, seconds_text(values), spread_text(values), compared))
    for name in ("oras pull", "curl; openssl dgst"):
        if name in found:
            section.findings.append(Finding(f"A copy: time beside {name}", ratio(found, "Airgap", name), 1.0))
    section.remarks.append(_starting(ours, found["Airgap"]))
    return section


def _starting(ours: Ours, inside: list[float]) -> str:
    return (
        "Airgap's seconds are those its run reports, from its start to the switch, as a worker makes it that is there "
        "already. Starting a process with Python and Django for it (`manage.py sync --wait`) takes "
        f"{seconds_text(ours.walls)} s in all instead of {seconds_text(inside)} s."
    )


def _copiers(bench: Bench) -> dict[str, Callable[[], float]]:
    peers, env = bench.peers, bench.env
    url = f"http://{bench.registry.host}/v2/{REPOSITORY}/blobs/{bench.layer.digest}"
    blob = f"{bench.registry.host}/{REPOSITORY}@{bench.layer.digest}"
    scripts = {
        "oras pull": ("oras", f'oras pull --plain-http --no-tty -o "$OUT/x" {bench.reference}'),
        "curl; openssl dgst": ("curl", f'curl -sS -o "$OUT/x" {url} && openssl dgst -sha256 "$OUT/x"'),
        "crane blob": ("crane", f'crane blob --insecure {blob} > "$OUT/x"'),
        "regctl blob get": (
            "regctl",
            f"regctl --host reg={bench.registry.host},tls=disabled blob get {bench.registry.host}/{REPOSITORY} "
            f'{bench.layer.digest} > "$OUT/x"',
        ),
    }

    def subject(script: str) -> Callable[[], float]:
        def once() -> float:
            out = bench.emptied("out")
            return run(["sh", "-c", f'{script} && sync -f "$OUT/x"'], {**env, "OUT": str(out)})

        return once

    return {name: subject(script) for name, (tool, script) in scripts.items() if peers.find(tool)}


def java(bench: Bench) -> Section:
    """The layer as a Java DB: verified, and inflated on the way to read its age."""
    peers, env = bench.peers, bench.env
    peers.need("skopeo")
    ours = Ours(bench, "java")

    def skopeo() -> float:
        out = bench.emptied("out")
        return run(
            ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{bench.reference}", f"oci:{out}/x:1"],
            env,
        )

    def trivy() -> float:
        out = bench.emptied("out")
        return run(
            ["trivy", "image", "--quiet", "--download-java-db-only", "--cache-dir", str(out), "--insecure",
             "--java-db-repository", bench.reference],
            env,
        )  # fmt: skip

    subjects: dict[str, Callable[[], float]] = {"Airgap": ours, "skopeo copy": skopeo}
    if peers.find("trivy"):
        subjects["trivy --download-java-db-only"] = trivy
    found = interleave(subjects, bench.rounds, bench.say)
    grown = [bench.instance().inside("growth", "java") for _ in range(2)]
    most = max(one["growth"] for one in grown)
    section = Section(
        "The same layer as Java DB: verified, and its age read",
        "`metadata.json` stands last in it, so all of it is inflated while it streams by. skopeo only copies, and "
        "nothing is synced after it here; Trivy downloads and unpacks.",
        ("", "median s", "fastest-slowest", "Airgap takes"),
    )
    for name, values in found.items():
        compared = "" if name == "Airgap" else f"{plain(ratio(found, 'Airgap', name))}×"
        section.rows.append((name, seconds_text(values), spread_text(values), compared))
    section.findings.append(Finding("Java DB: time beside skopeo copy", ratio(found, "Airgap", "skopeo copy"), 1.1))
    for name in list(found)[2:]:
        section.findings.append(Finding(f"Java DB: time beside {name}", ratio(found, "Airgap", name), 0.4))
    section.findings.append(Finding("Java DB: memory a worker grows by", most, 48, "MiB"))
    section.remarks.append(_starting(ours, found["Airgap"]))
    section.remarks.append(
        f"Memory: resident, its peak during the sync over what a process with all of Airgap loaded has before "
        f"({grown[0]['before']:.0f} MiB)."
    )
    return section


def resumes(bench: Bench) -> Section:
    """Half-way, the connection breaks, or the process that downloads is killed."""
    size = bench.layer.size
    section = Section(
        "A download that breaks at half",
        "Java DB as above, through a wire on loopback that counts what it sent. Bytes that were on their way to a "
        "killed process count as well.",
        ("", "bytes sent", "of the layer's size"),
    )
    for name, kill in (("the connection breaks", False), ("the worker is killed (SIGKILL)", True)):
        sent = _interrupted(bench, kill=kill)
        excess = (sent / size - 1) * 100
        section.rows.append((name, f"{sent:,}".replace(",", " "), f"{excess:+.2f} %"))
        section.findings.append(Finding(f"Java DB: bytes more than its size when {name}", excess, 1.0, "%"))
        bench.say(f"  {name}: {excess:+.2f} %")
    return section


def _interrupted(bench: Bench, *, kill: bool) -> int:
    instance = bench.instance()
    running: list[subprocess.Popen[bytes]] = []

    def event() -> bool:
        if kill:
            os.kill(running[0].pid, signal.SIGKILL)
        return True

    with BreakingWire(bench.registry.port, bench.layer.size // 2, event) as wire:
        instance.manage("mirror", "edit", "java", "--source", f"{wire.host}/{REPOSITORY}:1", "--insecure")
        running.append(instance.start_sync("java"))
        status = running[0].wait()
        if kill:
            if status != -signal.SIGKILL:
                raise RuntimeError(f"The sync ended with {status} before it was killed.")
            report = instance.sync("java")
            if report["outcome"] != "succeeded":
                raise RuntimeError(f"The second try: {report['error']}")
        elif status:
            raise RuntimeError("The sync did not survive the broken connection.")
        return wire.sent
