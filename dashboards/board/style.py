"""What all charts share: colours, the time axis, labels, and how one is put on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import streamlit as st

from topbill import charts
from topbill.charts import GREY, LIFT, NUMBER, PALETTE, POINTS, RULE

__all__ = [
    "GREY",
    "LIFT",
    "NUMBER",
    "POINTS",
    "RULE",
    "colours",
    "dark",
    "draw",
    "heat_scale",
    "label_colour",
    "palette",
    "text_on",
    "time_axis",
]

_DARK = (
    "#56B4E9",
    "#E69F00",
    "#1FBF92",
    "#E08CC0",
    "#F0E442",
    "#F07F3C",
    "#A88BD4",
    "#4A93D6",
    "#7FC4C4",
    "#C98A5A",
)
_HEAT = ("#EAF2FA", "#075085"), ("#1A2C40", "#97C5E8")
_WRITTEN = "#17202E", "#FFFFFF"
_LABELS = "#545E6C", "#A9B4C2"
"""What is written on a chart, on a light and on a dark page, as captions are (`--tb-dim` of
page.css): at least 4.5 to 1 (WCAG AA), which Streamlit's own grey is not.
"""
_PADDING = {"left": 0, "top": 4, "right": 8, "bottom": 6}


def dark() -> bool:
    """Whether the viewer looks at a dark page."""
    return bool(st.context.theme.type == "dark")


def palette() -> tuple[str, ...]:
    """The charts' ten colours; lighter ones on a dark page."""
    return _DARK if dark() else PALETTE


def label_colour() -> str:
    """The colour of what is written on a chart and its axes."""
    return _LABELS[dark()]


def heat_scale(most: float) -> alt.Scale:
    """The more, the further from the page's own colour."""
    return alt.Scale(range=list(_HEAT[dark()]), domain=[0, most])


def text_on(column: str, most: float) -> Any:
    """The colour of what is written on such a cell."""
    few, many = reversed(_WRITTEN) if dark() else _WRITTEN
    # Beyond a little more than half of the scale the cell is nearer to its far end.
    return alt.condition(f"datum.{column} > {0.55 * most!r}", alt.value(many), alt.value(few))


def colours(
    names: Sequence[str],
    control: str | None = None,
    *,
    title: str | None = None,
    shown: Sequence[str] | None = None,
) -> alt.Color:
    """A colour for each name, in the given order; the control and `(others)` are grey. The legend
    has all of them, or those that are `shown`.
    """
    return charts.colours(names, control, title=title, palette=palette(), shown=shown)


def draw(
    chart: alt.Chart | alt.LayerChart | alt.FacetChart,
    height: int | None = None,
    alt_text: str = "",
) -> None:
    """Show a chart at the width of its place."""
    # Without a height the chart has Altair's own, or that of its rows.
    sized = chart if height is None else chart.properties(height=height)
    colour = label_colour()
    st.altair_chart(
        sized.properties(padding=_PADDING)
        .configure_view(strokeWidth=0)
        .configure_axis(labelColor=colour, titleColor=colour)
        .configure_legend(labelColor=colour, titleColor=colour),
        width="stretch",
        alt=alt_text or None,
    )


def time_axis(grid: bool = False) -> alt.X:
    """Time on the horizontal axis."""
    # Midnight is told as a day, a whole minute without its seconds.
    moments = (
        "timeFormat(datum.value, "
        "hours(datum.value) + minutes(datum.value) + seconds(datum.value) == 0 ? '%d %b' : "
        "seconds(datum.value) == 0 ? '%H:%M' : '%H:%M:%S')"
    )
    return alt.X(
        "till:T",
        title="time (UTC)",
        axis=alt.Axis(grid=grid, tickCount=5, labelOverlap=True, labelExpr=moments),
    )
