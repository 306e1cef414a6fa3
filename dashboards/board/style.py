"""What all charts share: colours, the time axis, labels, and how one is put on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import altair as alt
import streamlit as st

GREY = "#8A93A1"
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6BB1", "#B8A100", "#5A9E9E", "#A65E2E")
HEAT: Final = "blues"
RULE = alt.value(GREY)
_PADDING = {"left": 0, "top": 4, "right": 8, "bottom": 0}
LIFT = "datum.value === 0 ? '0%' : replace(format(datum.value, '+,.0%'), '-', '−')"
"""How an axis of lifts is labelled."""


def colours(names: Sequence[str], control: str | None = None, *, title: str | None = None) -> alt.Color:
    """A colour for each name, in the given order; the control and `(others)` are grey."""
    rest = iter(PALETTE * (len(names) // len(PALETTE) + 1))
    chosen = [GREY if name in (control, "(others)", "(none)") else next(rest) for name in names]
    scale = alt.Scale(domain=list(names), range=chosen)
    return alt.Color(
        "name:N", scale=scale, title=title, legend=alt.Legend(orient="top", columns=3, labelLimit=140, symbolOpacity=1)
    )


def draw(chart: alt.Chart | alt.LayerChart | alt.FacetChart, height: int | None = None, alt_text: str = "") -> None:
    """Show a chart at the width of its place."""
    sized = chart if height is None else chart.properties(height=height)
    st.altair_chart(
        sized.properties(padding=_PADDING).configure_view(strokeWidth=0), width="stretch", alt=alt_text or None
    )


def time_axis(grid: bool = False) -> alt.X:
    """Time on the horizontal axis."""
    moments = (
        "timeFormat(datum.value, hours(datum.value) + minutes(datum.value) + seconds(datum.value) == 0 ? '%d %b' : "
        "seconds(datum.value) == 0 ? '%H:%M' : '%H:%M:%S')"
    )
    return alt.X(
        "till:T", title="time (UTC)", axis=alt.Axis(grid=grid, tickCount=5, labelOverlap=True, labelExpr=moments)
    )
