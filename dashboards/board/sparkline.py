"""A lift over time for a card, with two or three levels at its left: a picture and not a chart, of
which a page with many cards would draw one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import floor, log10

import pandas as pd

from board.effects import near
from board.pictures import svg_address
from board.style import GREY, palette
from topbill.domain.formatting import percent

WIDTH, HEIGHT = 400.0, 90.0
"""Of the picture's own coordinates; it is as wide as its place."""


def sparkline(frame: pd.DataFrame, marks: pd.DataFrame, says: str) -> str:
    """The picture as HTML.

    Args:
        frame: columns till, relative, relative_low, relative_high; at least two lines.
        marks: columns at and sentence: what happened to the experiment.
        says: what the picture shows, for those who do not see it.
    """
    marks = near(marks, frame["till"])
    times = [*frame["till"], *marks["at"]]
    first, span = min(times), max(times) - min(times)
    across = [(till - first) / span for till in frame["till"]]
    # Scaled to the interval as it is now: the first ones are so wide that nothing else is seen.
    low, high = (float(frame[end].iloc[-1]) for end in ("relative_low", "relative_high"))
    top = max(0.02, 1.8 * max(abs(low), abs(high)))
    bottom = max(-1.0, min(0.0, 1.8 * low) - 0.02)

    def down(lift: float) -> float:
        return (top - lift) / (top - bottom) * HEIGHT

    def points(xs: Sequence[float], lifts: Sequence[float]) -> str:
        return " ".join(
            f"{x * WIDTH:.1f},{down(lift):.1f}" for x, lift in zip(xs, lifts, strict=True)
        )

    lows, highs = frame["relative_low"].tolist(), frame["relative_high"].tolist()
    band = points([*across, *reversed(across)], [*lows, *reversed(highs)])
    blue, thin = palette()[0], 'vector-effect="non-scaling-stroke"'
    # Stretched to its place, of which nobody knows the width here; lines stay as thin as they are.
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" '
        'preserveAspectRatio="none">'
        f'<path d="M0 {down(0.0):.1f}H{WIDTH:g}" stroke="{GREY}" stroke-dasharray="3 3" {thin}/>'
        f'<polygon points="{band}" fill="{blue}" opacity="0.22"/>'
        f'<polyline points="{points(across, frame["relative"].tolist())}" fill="none" '
        f'stroke="{blue}" stroke-width="2" {thin}/></svg>'
    )
    lines = []
    for at, sentence in zip(marks["at"], marks["sentence"], strict=True):
        left = 100 * (at - first) / span
        lines.append(f'<i style="left: {left:.1f}%" title="{escape(sentence)}"></i>')
    picture = f'<img src="{svg_address(svg)}" alt="{escape(says)}">'
    named = []
    for level in levels(bottom, top):
        place = 100 * down(level) / HEIGHT
        text = percent(level, signed=level != 0.0, digits=0)
        named.append(f'<span style="top: {place:.1f}%">{text}</span>')
    return (
        f'<div class="tb-spark"><div class="tb-levels" aria-hidden="true">{"".join(named)}</div>'
        f'<div class="tb-drawn">{picture}{"".join(lines)}</div></div>'
    )


def levels(bottom: float, top: float) -> list[float]:
    """No lift, and a round one above and below it where there is room for its name."""
    room = 0.25 * (top - bottom)
    ends = [sign * _round(end) for sign, end in ((1.0, top), (-1.0, -bottom)) if end > room]
    return [level for level in ends if abs(level) >= room] + [0.0]


def _round(most: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that leaves room for half a line above."""
    most *= 0.93
    unit = 10.0 ** floor(log10(most))
    return max(step * unit for step in (1.0, 2.0, 5.0) if step * unit <= most)
