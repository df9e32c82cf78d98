"""One text to copy, and the small words that many of them share."""

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

IMAGE = "IMAGE"
CONTINUED = " \\\n  "


@dataclass(frozen=True)
class Snippet:
    """`id` is unique on all pages. `file` is where the text belongs, "" for a command line. `needs` says which Trivy
    versions take it, `warnings` stand right beside it, `notes` under it. `language` is sh, yaml, json or env.
    """

    id: str
    title: str
    text: str
    language: str
    file: str = ""
    needs: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def command(words: str, flags: Iterable[str], target: str = "") -> str:
    """A command with one flag a line."""
    return CONTINUED.join([words, *flags, *([target] if target else [])])


def flag(name: str, value: str) -> str:
    return f"{name} {shlex.quote(value)}"


def quoted(text: str) -> str:
    """For YAML and JSON alike: a JSON string is a YAML double-quoted scalar."""
    return json.dumps(text, ensure_ascii=False)


def notes(*candidates: str) -> tuple[str, ...]:
    """Those that say anything."""
    return tuple(text for text in candidates if text)
