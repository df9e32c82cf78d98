"""Import: a signed bundle from a directory, verified and switched to, beside reading and copying the same file."""

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.instance import BASE, Instance, peak_memory_mib
from tests.bench.measuring import Finding, Section, interleave, ratio, run, seconds_text, settle, spread_text
from tests.bench.transfers import Bench


def imports(bench: Bench) -> Section:
    """One bundle of everything into an empty isolated instance, from the first byte to the switch."""
    bench.peers.need("openssl")
    sender = bench.instance()
    for name in ("java", "extra"):
        sender.sync(name)
    medium = bench.emptied("medium")
    bundle = Path(
        json.loads(sender.manage("export_bundle", "java", "extra", "--output", str(medium), "--json"))[0]["file"]
    )
    key = medium / "north.pub"
    key.write_text(sender.manage("signing_key", "show"))
    receiver = Instance(bench.folder / "isolated", {**bench.env, "AIRGAP_SIDE": "isolated"})
    receiver.prepare()
    receiver.manage("signing_key", "trust", "north", str(key))

    inside: list[float] = []
    peaks: list[float] = []

    def ours() -> float:
        fresh = receiver.copied(bench.folder / "received")
        settle()
        said, seconds, peak = _measured(fresh, "import_bundle", str(bundle), "--json")
        if json.loads(said)[0]["outcome"] != "succeeded":
            raise RuntimeError(f"The import failed: {said[-600:]!r}")
        peaks.append(peak)
        asked = (
            "from mirrors.models import Import; run = Import.objects.latest('pk'); print(run.duration.total_seconds())"
        )
        inside.append(float(fresh.manage("shell", "-v", "0", "-c", asked)))
        return seconds

    def peer() -> float:
        copied = bench.emptied("copied")
        settle()
        read = run(["openssl", "dgst", "-sha256", str(bundle)], bench.env)
        return read + run(["sh", "-c", 'cp "$1" "$2" && sync -f "$2"', "sh", str(bundle), str(copied / "b")], bench.env)

    subjects: dict[str, Callable[[], float]] = {"Airgap": ours, "openssl, cp, sync": peer}
    found = interleave(subjects, bench.rounds, bench.say)
    size = bundle.stat().st_size
    section = Section(
        f"An import of {size / 1e9:.2f} GB",
        "`manage.py import_bundle` of a signed bundle in a directory into an empty instance, from the start of the "
        "process to its end: every byte verified, everything switched. Beside it `openssl dgst -sha256` of the file, "
        f"and `cp` of it with `sync -f`. The layer of its Java DB ({bench.layer_text}) is looked into after the "
        "switch, because the bundle is signed by a trusted key; that is not measured here.",
        ("", "median s", "fastest-slowest"),
        [(name, seconds_text(values), spread_text(values)) for name, values in found.items()],
    )
    at_rest = statistics.median(_measured(receiver, "signing_key", "list")[2] for _ in range(3))
    section.findings = [
        Finding("Import beside reading and copying", ratio(found, "Airgap", "openssl, cp, sync"), 1.5),
        Finding("Import: memory more than a command that reads nothing", max(peaks) - at_rest, 48, "MiB"),
    ]
    section.remarks.append(
        f"From its claim to the switch, as in a worker that is there already: {seconds_text(inside)} s."
    )
    return section


def _measured(instance: Instance, *arguments: str) -> tuple[bytes, float, float]:
    """A command's standard output, its seconds, and the most memory it had, in MiB."""
    began = time.perf_counter()
    argv = [sys.executable, str(BASE / "manage.py"), *arguments]
    peak = 0.0
    with subprocess.Popen(argv, cwd=BASE, env=instance.env, stdout=subprocess.PIPE) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError):  # it has just ended
                peak = max(peak, peak_memory_mib([process.pid]))
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        said = process.stdout.read() if process.stdout is not None else b""
    return said, seconds, peak
