"""The charts of the HTML report as inline SVG: intervals of lift, and shares. Text only, no script,
no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import floor, log10
from typing import NamedTuple

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
"""Okabe & Ito's colours, which colour-blind readers can tell apart; the last is for all the
others.
"""
_CALLS = {"better": PALETTE[0], "worse": PALETTE[5], "no_call": "#808080"}
_WIDTH, _ROW, _LABEL = 760, 26, 220
"""Pixels of a chart's width, a row's height, and the room for labels at the left."""
_LEGEND_ROW, _LEGEND_COLUMNS = 20, 4


class Bar(NamedTuple):
    """One interval of a forest plot, as fractions (0.05 is +5%); `call` is better, worse or
    no_call.
    """

    label: str
    value: float
    low: float
    high: float
    call: str


def forest(bars: Sequence[Bar]) -> str:
    """Intervals below each other around a line at zero; wider than ±100% is cut, and marked by an
    open end.
    """
    if not bars:
        return ""
    widest = max(max(abs(bar.low), abs(bar.high)) for bar in bars)
    # A little room beyond the widest, and never nothing, which could not be divided by.
    reach = min(1.0, widest * 1.08) or 0.01
    height = _ROW * len(bars) + 34
    parts = [_open(height, "Lift with interval for each metric and variant")]
    for tick in _ticks(reach):
        x = _x(tick, reach)
        kind = "zero" if tick == 0.0 else "grid"
        label = f"{100 * tick:+.3g}%" if tick else "0"
        parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 26}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 10}" text-anchor="middle">{label}</text>')
    for i, bar in enumerate(bars):
        parts.append(_interval(bar, _ROW * i + _ROW / 2 + 4, reach))
    parts.append("</svg>")
    return "".join(parts)


def shares(rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """A full-width bar for each label, cut into named shares; the colours of names are the same in
    every bar.
    """
    totals: dict[str, float] = {}
    for _, cuts in rows:
        for name, share in cuts:
            totals[name] = totals.get(name, 0.0) + share
    # One colour less than there are: the last is for all the others together.
    largest = sorted(totals, key=lambda name: (-totals[name], name))[: len(PALETTE) - 1]
    colours = dict(zip(largest, PALETTE, strict=False))
    legend = dict(colours)
    if len(totals) > len(largest):
        legend["others"] = PALETTE[-1]
    legend_rows = -(-len(legend) // _LEGEND_COLUMNS)
    height = _ROW * len(rows) + _LEGEND_ROW * legend_rows + 14
    parts = [_open(height, "Share of each action by variant")]
    for i, (label, cuts) in enumerate(rows):
        parts.append(_share_bar(label, cuts, _ROW * i + 4, colours))
    for i, (name, fill) in enumerate(legend.items()):
        x = _LABEL + (i % _LEGEND_COLUMNS) * 135
        y = _ROW * len(rows) + _LEGEND_ROW * (i // _LEGEND_COLUMNS) + 12
        parts.append(f'<rect x="{x}" y="{y}" width="11" height="11" fill="{fill}"/>')
        parts.append(f'<text x="{x + 16}" y="{y + 10}">{escape(name[:18])}</text>')
    parts.append("</svg>")
    return "".join(parts)


def _share_bar(
    label: str, cuts: Sequence[tuple[str, float]], y: int, colours: dict[str, str]
) -> str:
    """One bar, its cuts in the order of the colours so that bars can be compared."""
    order = {name: i for i, name in enumerate(colours)}
    parts = [f'<text x="{_LABEL - 12}" y="{y + 15}" text-anchor="end">{escape(label)}</text>']
    x = float(_LABEL)
    for name, share in sorted(cuts, key=lambda cut: order.get(cut[0], len(order))):
        width = share * (_WIDTH - _LABEL - 10)
        fill = colours.get(name, PALETTE[-1])
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.2f}" height="20" fill="{fill}">'
            f"<title>{escape(name)}: {share:.1%}</title></rect>"
        )
        x += width
    return "".join(parts)


def _interval(bar: Bar, y: float, reach: float) -> str:
    colour = _CALLS[bar.call]
    low, value, high = (_x(_cut(v, reach), reach) for v in (bar.low, bar.value, bar.high))
    hint = f"{bar.label}: {bar.value:+.1%}, between {bar.low:+.1%} and {bar.high:+.1%}"
    parts = [
        f"<g><title>{escape(hint)}</title>",
        f'<text x="{_LABEL - 12}" y="{y + 4}" text-anchor="end">{escape(bar.label)}</text>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="{colour}" '
        'stroke-width="2"/>',
    ]
    # An end that was cut has no stroke across it, which says that it goes on.
    for x, end in ((low, bar.low), (high, bar.high)):
        if abs(end) <= reach:
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 5}" y2="{y + 5}" '
                f'stroke="{colour}" stroke-width="2"/>'
            )
    # Last, so that it lies above the line.
    parts.append(f'<circle cx="{value:.1f}" cy="{y}" r="4.5" fill="{colour}"/></g>')
    return "".join(parts)


def _cut(value: float, reach: float) -> float:
    return max(-reach, min(reach, value))


def _x(value: float, reach: float) -> float:
    return _LABEL + 10 + (value + reach) / (2 * reach) * (_WIDTH - _LABEL - 40)


def _ticks(reach: float) -> list[float]:
    """Round numbers between ±reach, five to nine of them, zero among them."""
    # The step of 1, 2 or 5 times a power of ten that is next above a rough one.
    rough = reach / 3.5
    power = 10.0 ** floor(log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    count = int(reach / step)
    return [i * step for i in range(-count, count + 1)]


def _open(height: float, label: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">'
