"""The papers name everything there is: every variable, every command."""

import re
from pathlib import Path

BASE = Path(__file__).parent.parent
READERS = re.compile(r"""environment\.\w+\(\s*["']([A-Z][A-Z_]+)["']|environ(?:\.get\(|\[)["']([A-Z][A-Z_]+)["']""")
SETTINGS = (BASE / "airgap" / "settings.py").read_text()
VARIABLES = sorted({first or second for first, second in READERS.findall(SETTINGS)})
COMMANDS = sorted(
    file.stem for file in (BASE / "mirrors" / "management" / "commands").glob("*.py") if not file.stem.startswith("_")
)


def headings(name: str) -> set[str]:
    lines = (BASE / "docs" / name).read_text().splitlines()
    return {line.lstrip("#").strip() for line in lines if line.startswith("#")}


def test_it_finds_the_variables_at_all():
    assert {"AIRGAP_DATA_DIR", "AIRGAP_BIND", "DATABASE_URL", "REDIS_URL"} <= set(VARIABLES)


def test_every_variable_has_a_heading():
    assert set(VARIABLES) <= headings("configuration.md")


def test_no_variable_is_described_that_is_not_read():
    described = {heading for heading in headings("configuration.md") if re.fullmatch(r"[A-Z][A-Z_]+", heading)}
    assert described == set(VARIABLES)


def test_every_command_has_a_section():
    assert COMMANDS
    assert set(COMMANDS) <= headings("commands.md")
