"""docs/performance.md: our words around the numbers of one run."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.measuring import Section

HEAD = """\
# Performance

`make bench` measures Airgap beside the tools that do parts of its work, on one machine in one run, and writes this
file. Seconds say something about that machine only; what counts is the ratios. Every tool has its turn in every round,
in changing order, and waits up to 15 s for an idle machine; the medians are compared. Client and server share the
machine's cores. Each promise holds or the command fails.
"""


def write(path: Path, sections: Sequence[Section], skipped: Mapping[str, str], rounds: int, versions: str) -> None:
    """Replace the file."""
    lines = [HEAD, f"Measured {datetime.now(UTC):%Y-%m-%d} in {rounds} rounds: {_machine()}; {versions}.", ""]
    lines += ["| what was promised | wanted | measured | |", "|---|---|---|---|"]
    for section in sections:
        lines += [
            f"| {finding.what} | {finding.wanted} | {finding.measured} | {'met' if finding.is_met else '**missed**'} |"
            for finding in section.findings
        ]
    lines.append("")
    for section in sections:
        lines += [f"## {section.title}", "", section.setting, ""]
        if section.rows:
            lines += [_row(section.heads), "|" + "---|" * len(section.heads), *map(_row, section.rows), ""]
        for remark in section.remarks:
            lines += [remark, ""]
    if skipped:
        lines += ["## Not measured", ""]
        lines += [f"- {what}: {why}" for what, why in skipped.items()]
        lines.append("")
    path.write_text("\n".join(lines).rstrip() + "\n")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _machine() -> str:
    model = "an unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}, " + (
        f"Python {platform.python_version()}"
    )
