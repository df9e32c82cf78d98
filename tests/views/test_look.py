"""The colours of static/airgap.css, computed: text can be read in both schemes."""

import re
from itertools import product
from pathlib import Path

import pytest

CSS = (Path(__file__).resolve().parents[2] / "static" / "airgap.css").read_text()
INK = ("ink", "muted", "accent")
STATES = ("fresh", "due", "stale", "expired", "none")
WASHES = tuple(f"{state}-wash" for state in STATES)


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))


def scheme(name: str) -> dict[str, str]:
    light = colours(CSS.split(":root {")[1].split("}")[0])
    dark = colours(CSS.split("@media (prefers-color-scheme: dark)")[1].split("}")[0])
    return {"light": light, "dark": {**light, **dark}}[name]


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_text_stands_out_from_its_ground(name):
    found = scheme(name)
    pairs = [*product((*INK, *STATES), ("paper", "raised")), *product(("ink", "accent"), WASHES), ("paper", "accent")]
    weak = {pair: round(contrast(found[pair[0]], found[pair[1]]), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("name", ["light", "dark"])
def test_marks_and_the_borders_of_fields_can_be_seen(name):
    found = scheme(name)
    pairs = [*((state, f"{state}-wash") for state in STATES), ("muted", "raised"), ("accent", "none-wash")]
    weak = {pair: round(contrast(found[pair[0]], found[pair[1]]), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < 3} == {}
