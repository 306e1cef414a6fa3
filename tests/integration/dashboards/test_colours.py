"""The charts' colours: seen on their page, and told apart by people who lack a kind of cone."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

PAGES = {"light": "#FFFFFF", "dark": "#10151D"}
SIGHT = {
    "all cones": np.eye(3),
    "no red ones": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "no green ones": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.01182, 0.04294, 0.968881],
        ]
    ),
}
"""What is left of linear red, green and blue (Machado, Oliveira & Fernandes 2009, severity 1)."""
TOGETHER = 5
"""So many of the first colours stand beside each other on a chart of variants."""


def linear(colour: str) -> np.ndarray:
    """(3,) linear red, green and blue of `#RRGGBB`."""
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """(3,) CIE L*a*b* of linear red, green and blue, under D65."""
    m = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = m @ np.clip(rgb, 0.0, 1.0) / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio, 1 to 21."""
    light = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


@pytest.fixture
def palettes(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "dashboards"))
    from board import style

    found = {}
    for page in PAGES:
        monkeypatch.setattr(style, "dark", lambda page=page: page == "dark")
        found[page] = style.palette()
    return found


@pytest.mark.parametrize("page", PAGES)
def test_colours_are_seen_on_their_page(page: str, palettes: dict[str, tuple[str, ...]]) -> None:
    assert min(contrast(colour, PAGES[page]) for colour in palettes[page]) > 2.0


@pytest.mark.parametrize("page", PAGES)
def test_what_is_written_on_charts_can_be_read(
    page: str, palettes: dict[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which no checker of a page sees, as charts are drawn on a canvas."""
    from board import style

    monkeypatch.setattr(style, "dark", lambda: page == "dark")
    assert contrast(style.label_colour(), PAGES[page]) > 4.5


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("page", PAGES)
def test_colours_that_stand_together_are_told_apart(
    page: str, sight: str, palettes: dict[str, tuple[str, ...]]
) -> None:
    """A difference of 2.3 in L*a*b* is just seen; these are five times that."""
    seen = [lab(SIGHT[sight] @ linear(colour)) for colour in palettes[page][:TOGETHER]]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) > 11.5
