"""The papers say what is there: make targets, commands, variables, links, and the sentences people look up."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from mirrors.freshness import CAUSES, LOOKS
from mirrors.registry import errors
from mirrors.trivy.catalogue import KINDS

ROOT = Path(__file__).parent.parent
PAPERS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("mirrors/**/*.md")], key=lambda path: path.as_posix()
)
DECISIONS = [path for path in sorted(ROOT.glob("docs/decisions/*.md")) if path.name != "README.md"]
OPERATING = ROOT / "docs" / "operating.md"
# Written by `make bench` on the machine that measures.
MEASURED = "docs/performance.md"
HEADINGS = ["Context", "Options", "Decision", "Consequences"]
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    """The prose alone: what stands in code is no link and no heading."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(path: Path) -> set[str]:
    """The addresses of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^( *)```.*?^\1```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@cache
def pictures() -> frozenset[str]:
    """What `make screenshots` makes (tests/browser/screenshots.py): promised until it was run for this checkout."""
    module = ast.parse((ROOT / "tests" / "browser" / "screenshots.py").read_text())
    values: dict[str, object] = {}
    for node in module.body:
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if (
            isinstance(target, ast.Name)
            and target.id in ("PAGES", "ISOLATED", "SCHEMES", "WIDTHS")
            and node.value is not None
        ):
            values[target.id] = ast.literal_eval(node.value)
    return frozenset(
        f"docs/images/{page[0]}-{scheme}-{width}.png"
        for page in (*values["PAGES"], *values["ISOLATED"])
        for scheme in values["SCHEMES"]
        for width in values["WIDTHS"]
    )


def lost_links(paper: Path) -> Iterator[str]:
    for link in LINK.findall(without_code(paper.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        address, _, anchor = link.partition("#")
        target = (paper.parent / address).resolve() if address else paper
        promised = name_of(target) in {*pictures(), MEASURED}
        if not (target.exists() or promised) or (anchor and anchor not in anchors(target)):
            yield link


def strange_in(papers: list[Path], strange: Callable[[Path], Iterable[str]]) -> dict[str, list[str]]:
    """What is strange, by the paper it stands in."""
    found = {name_of(paper): sorted(strange(paper)) for paper in papers}
    return {name: words for name, words in found.items() if words}


def test_every_relative_link_leads_somewhere():
    assert not strange_in(PAPERS, lost_links)


def test_papers_are_read_at_all():
    assert len(PAPERS) > 40


def test_the_pictures_are_all_there_or_none_was_taken_yet():
    shown = {
        name_of((ROOT / link).resolve())
        for link in LINK.findall((ROOT / "README.md").read_text())
        if link.endswith(".png")
    }
    assert shown, "the README shows what it looks like"
    assert shown <= pictures(), "make screenshots does not make these"
    missing = {name for name in shown if not (ROOT / name).exists()}
    assert missing in (set(), shown)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def targets_named(paper: Path) -> set[str]:
    code = re.findall(r"`[^`\n]+`|^ *```.*?^ *```", paper.read_text(), re.DOTALL | re.MULTILINE)
    return {name for text in code for name in re.findall(r"(?:^|[`\s;&|(])make ([a-z][a-z-]*)", text)}


def test_papers_name_only_targets_that_make_has():
    there_are = targets()
    assert not strange_in(PAPERS, lambda paper: targets_named(paper) - there_are)


def test_the_readme_tells_the_two_commands_and_the_one_for_tests():
    text = (ROOT / "README.md").read_text()
    assert {"make up", "make demo", "make test"} <= set(re.findall(r"make [a-z-]+", text))


def test_papers_name_only_commands_there_are():
    here = {path.stem for path in (ROOT / "mirrors" / "management" / "commands").glob("[a-z]*.py")}
    there_are = here | {"migrate", "makemigrations", "check", "shell"}
    assert not strange_in(PAPERS, lambda paper: {*re.findall(r"manage\.py ([a-z_]+)", paper.read_text())} - there_are)


@cache
def variables_read() -> frozenset[str]:
    code = "".join(
        path.read_text()
        for folder in ("airgap", "mirrors", "deploy")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sh", ".yaml") or path.name == "Dockerfile"
    )
    return frozenset(re.findall(r"AIRGAP_[A-Z_]+[A-Z]", code))


def test_papers_name_only_variables_that_something_reads():
    read = variables_read()
    assert not strange_in(PAPERS, lambda paper: {*re.findall(r"\bAIRGAP_[A-Z_]+[A-Z]\b", paper.read_text())} - read)


# What people look up in operating.md


@cache
def our_sentences() -> str:
    """Every text the program can say, with … where a value is put in."""
    found: list[str] = []
    for folder in ("mirrors", "airgap"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    found.append(
                        "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    found += [path.read_text() for path in (ROOT / "mirrors").rglob("*.sh")]
    found += [f"answered {errors.status_words(status)} to" for status in errors.STATUS_WORDS]
    return "\n".join(found)


def quoted_rows() -> list[str]:
    """What stands between backticks in the first column of the troubleshooting tables."""
    part = OPERATING.read_text().partition("## Troubleshooting")[2]
    cells = re.findall(r"^\| (`.+?) \| ", part, re.MULTILINE)
    return [sentence for cell in cells for sentence in re.findall(r"`([^`]+)`", cell)]


def test_a_sentence_to_look_up_is_one_the_program_says():
    said = our_sentences()
    fragments = {
        fragment.strip(" .:,()"): sentence for sentence in quoted_rows() for fragment in re.split(r"…|\(\)", sentence)
    }
    assert not {fragment: sentence for fragment, sentence in fragments.items() if fragment not in said}


def test_the_troubleshooting_tables_are_read_at_all():
    assert len(quoted_rows()) > 40


def test_states_and_causes_are_explained():
    text = OPERATING.read_text()
    for word in [*LOOKS, *CAUSES]:
        assert f"| `{word}` |" in text, word
    for look in LOOKS.values():
        assert f"| {look.shape} | `{look.word}` |" in text


def test_every_recorded_action_is_listed():
    listed = set(
        re.findall(r"`([^`]+)`", OPERATING.read_text().partition("## What is recorded")[2].partition("\n## ")[0])
    )
    said = set()
    for text in (path.read_text() for path in (ROOT / "mirrors").rglob("*.py")):
        for node in ast.walk(ast.parse(text)) if "record.write" in text else ():
            if isinstance(node, ast.Call) and len(node.args) > 1 and ast.unparse(node.func) == "record.write":
                said |= {leaf.value for leaf in ast.walk(node.args[1]) if isinstance(leaf, ast.Constant)}
    assert said and {text for text in said if isinstance(text, str)} <= listed


def test_what_is_kept_is_what_the_catalogue_keeps():
    text = OPERATING.read_text()
    keep = {name: kind.keep for name, kind in KINDS.items()}
    assert keep["trivy-checks"] == keep["vex"] == keep["oci"]
    assert keep["trivy-java-db"] == keep["release"]
    few = f"{keep['trivy-java-db']} (Java DB and release files)"
    assert f"the newest {keep['trivy-db']} (DB), {few}, {keep['oci']} (others)" in text


# Decisions


@pytest.mark.parametrize("paper", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_its_date_status_and_parts(paper):
    text = paper.read_text()
    assert re.fullmatch(r"\d{4}-[a-z0-9-]+", paper.stem)
    number = paper.stem[:4]
    assert text.startswith(f"# {number}. ")
    assert re.search(r"^Date: \d{4}-\d{2}-\d{2}$", text, re.MULTILINE)
    assert re.search(r"^Status: (accepted|superseded by \[\d{4}\]\(.+\))$", text, re.MULTILINE)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert len(text.splitlines()) <= 60, "one page"


def test_decisions_have_numbers_of_their_own_and_are_listed():
    # Numbers are handed out when work begins, so one may be missing while that goes on.
    assert len({int(path.stem[:4]) for path in DECISIONS}) == len(DECISIONS)
    listed = (ROOT / "docs" / "decisions" / "README.md").read_text()
    assert all(f"]({path.name})" in listed for path in DECISIONS)


def test_contributing_stays_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) < 80


def test_the_drawing_is_readable_in_the_dark_and_by_readers():
    drawing = (ROOT / "docs" / "images" / "two-sides.svg").read_text()
    assert "prefers-color-scheme: dark" in drawing
    assert "<title" in drawing and "<desc" in drawing
    assert "http" not in drawing.replace("http://www.w3.org/2000/svg", ""), "it loads nothing"
