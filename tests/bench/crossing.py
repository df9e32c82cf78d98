"""Import: a signed bundle from a directory, verified and switched to, beside reading and copying the same file."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.instance import BASE, Instance
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

    def ours() -> float:
        fresh = receiver.copied(bench.folder / "received")
        settle()
        began = time.perf_counter()
        argv = [sys.executable, str(BASE / "manage.py"), "import_bundle", str(bundle), "--json"]
        with subprocess.Popen(argv, cwd=BASE, env=fresh.env, stdout=subprocess.PIPE) as process:
            said = process.stdout.read() if process.stdout is not None else b""
        seconds = time.perf_counter() - began
        if json.loads(said)[0]["outcome"] != "succeeded":
            raise RuntimeError(f"The import failed: {said[-600:]!r}")
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
        f"and `cp` of it with `sync -f`. The Java DB's layer ({bench.layer_text}) is also looked into.",
        ("", "median s", "fastest-slowest"),
        [(name, seconds_text(values), spread_text(values)) for name, values in found.items()],
    )
    section.findings = [Finding("Import beside reading and copying", ratio(found, "Airgap", "openssl, cp, sync"), 1.5)]
    return section
