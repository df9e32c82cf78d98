"""The floors: a file imports only from its own floor or a lower one (docs/decisions/0001-four-floors.md)."""

import ast
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOOR_0 = {
    "consumption", "digests", "freshness", "verdict", "schedule", "stopping", "blobs", "secrets", "wording", "plot",
    "trivy", "registry", "bundle", "git", "demo", "snippets", "doctor", "signing", "receipts",
}  # fmt: skip
DOORS = {
    "tasks", "management", "views", "api", "forms", "admin", "urls", "checks", "middleware", "context",
    "templatetags", "apps",
}  # fmt: skip
LONGEST = 520


def floor_of(module: str) -> int:
    """0 plain Python, 1 record, 2 operations, 3 doors; -1 for what is not ours."""
    parts = module.split(".")
    if parts[0] == "airgap":
        return 3 if parts[1:2] in (["urls"], ["wsgi"], ["celery"], ["running"]) else -1
    if parts[0] != "mirrors" or len(parts) < 2:
        return -1
    room = parts[1]
    if room in FLOOR_0:
        return 0
    if room in ("models", "migrations"):
        return 1
    return 3 if room in DOORS else 2


def sources() -> list[Path]:
    return [path for path in (ROOT / "mirrors").rglob("*.py") if "migrations" not in path.parts]


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Every module the file imports, at whatever depth; `from mirrors import x` counts as mirrors.x."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module == "mirrors":
                found |= {f"mirrors.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return frozenset(found)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def on_floor(floor: int) -> list[Path]:
    return [path for path in sources() if floor_of(module_of(path)) == floor]


def test_each_file_imports_only_from_its_own_floor_or_a_lower_one():
    wrong = {}
    for path in sources():
        floor = floor_of(module_of(path))
        if above := sorted(name for name in imports_of(path) if floor_of(name) > floor >= 0):
            wrong[f"{module_of(path)} (floor {floor})"] = above
    assert not wrong, "these import from above"


def test_floor_0_knows_neither_django_nor_celery():
    foreign = {"django", "celery", "airgap"}
    known = {module_of(path): {name.split(".")[0] for name in imports_of(path)} & foreign for path in on_floor(0)}
    assert not {module: names for module, names in known.items() if names}


def test_operations_know_neither_requests_from_browsers_nor_celery():
    doors = ("celery", "django.http", "django.shortcuts")
    known = {module_of(path): {name for name in imports_of(path) if name.startswith(doors)} for path in on_floor(2)}
    assert not {module: names for module, names in known.items() if names}


def test_no_file_outgrows_its_room():
    lines = {module_of(path): len(path.read_text().splitlines()) for path in sources()}
    too_long = {module: count for module, count in lines.items() if count > LONGEST}
    assert not too_long, "split it: is there a room of its own in it?"


def test_every_floor_has_files():
    assert all(on_floor(floor) for floor in (0, 1, 2, 3))


def test_floor_0_and_no_other_is_checked_strictly_by_mypy():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    (strict,) = (entry["module"] for entry in settings if entry.get("strict"))
    assert {name.removeprefix("mirrors.").removesuffix(".*") for name in strict} == FLOOR_0


def test_what_starts_the_program_knows_nothing_of_what_it_does():
    """airgap/ names the application, as a word in its settings; nothing of it is imported there."""
    found = {
        path.name for path in (ROOT / "airgap").rglob("*.py") if any(n.startswith("mirrors") for n in imports_of(path))
    }
    assert found == set()


def test_there_is_no_drawer_for_everything():
    assert not [path for path in sources() if path.stem in ("utils", "helpers", "services", "signals", "common")]


def test_a_model_has_no_logic_in_save_and_nobody_listens_to_model_signals():
    for path in sources():
        if "models" in path.parts:
            tree = ast.parse(path.read_text())
            names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert not names & {"save", "delete"}, path
        assert "django.db.models.signals" not in imports_of(path), path
