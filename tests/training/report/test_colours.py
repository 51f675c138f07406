"""Contrasts of the page's colours, light and dark (WCAG 2.2: 4.5 for text, 3 for the rest)."""

import re
from importlib.resources import files

import pytest

STYLE = files("cyclegan_cli.training.report").joinpath("page.css").read_text(encoding="utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): (#\w{6});", block))
    for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
)
TEXT = [
    ("ink", "paper"), ("ink", "card"), ("ink", "bad-card"), ("faint", "paper"), ("faint", "card"),
    ("good", "paper"), ("bad", "bad-card"), ("bad", "paper"),
    ("card", "c0"), ("card", "good"), ("card", "faint"), ("card", "bad"),  # The run's state.
]  # fmt: skip
DRAWN = [("c0", "card"), ("c1", "card"), ("c0", "paper"), ("c0", "line"), ("faint", "card")]


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb``, as WCAG defines it."""
    levels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in levels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_black_on_white_is_21():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "paper", "least"), [(*pair, 4.5) for pair in TEXT] + [(*pair, 3.0) for pair in DRAWN]
)
def test_colors_have_sufficient_contrast(colours, ink, paper, least):
    assert contrast(colours[ink], colours[paper]) >= least
