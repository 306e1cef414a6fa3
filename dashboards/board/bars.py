"""Bars with their names and numbers beside each other, as a table that screen readers read and no
chart has to be drawn for.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from board import words


def shares(names: Sequence[str], values: Sequence[float], strong: str) -> None:
    """Shares with their numbers, of which that of `strong` is solid and the others faint."""
    _show(names, values, [words.share(value) for value in values], strong)


def contributions(names: Sequence[str], values: Sequence[float]) -> None:
    """What adds to a score (blue) and what takes away from it (orange), from the most to the
    least.
    """
    ranked = sorted(zip(names, values, strict=True), key=lambda part: -part[1])
    _show(
        [name for name, _ in ranked],
        [value for _, value in ranked],
        [words.signed(value) for _, value in ranked],
        None,
    )


def _show(
    names: Sequence[str], values: Sequence[float], numbers: Sequence[str], strong: str | None
) -> None:
    # From the least below nought, if there is any, to the most above it.
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    lines = []
    for name, value, number in zip(names, values, numbers, strict=True):
        left = 100 * (min(value, 0.0) - low) / span
        width = 100 * abs(value) / span
        kind = "tb-less" if value < 0 else ""
        if strong is not None and name != strong:
            kind += " tb-faint"
        lines.append(
            f'<tr><th scope="row">{escape(name)}</th><td><i class="{kind}" '
            f'style="margin-left: {left:.1f}%; width: {width:.1f}%"></i></td>'
            f"<td>{escape(number)}</td></tr>"
        )
    st.html(f'<table class="tb-bars">{"".join(lines)}</table>')
