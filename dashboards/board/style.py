"""What all charts share: colours, the time axis, labels, and how one is put on the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

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
    "Chart",
    "Drawing",
    "colours",
    "dark",
    "draw",
    "drawing",
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
P = ParamSpec("P")
Chart = alt.Chart | alt.LayerChart | alt.FacetChart


@dataclass(frozen=True)
class Drawing:
    """A chart that is still to be made: to make and to check one takes Altair a twentieth of a
    second, and most are as they were when the page was last looked at.

    Attributes:
        make: makes the chart, of arguments of which some may be drawings themselves.
        arguments: by their places,
        named: and by their names.
    """

    make: Callable[..., Chart]
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]

    def chart(self) -> Chart:
        """The chart."""
        arguments = [_made(argument) for argument in self.arguments]
        return self.make(*arguments, **self.named)

    def key(self) -> list[Any]:
        """What the chart depends on, but for whether the page is dark."""
        arguments = [_key(argument) for argument in self.arguments]
        return [self.make.__module__, self.make.__name__, arguments, self.named]


def _made(argument: Any) -> Any:
    return argument.chart() if isinstance(argument, Drawing) else argument


def _key(argument: Any) -> Any:
    return argument.key() if isinstance(argument, Drawing) else argument


def drawing(make: Callable[P, Chart]) -> Callable[P, Drawing]:
    """The function as one that gives a drawing; it may depend on its arguments and on `dark()`
    alone.
    """

    @wraps(make)
    def drawn(*arguments: P.args, **named: P.kwargs) -> Drawing:
        return Drawing(make, arguments, named)

    return drawn


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


def draw(drawing: Drawing, height: int | None = None, alt_text: str = "") -> None:
    """Show a drawing at the width of its place."""
    _draw(drawing.key(), dark(), height, alt_text, drawing)


# Streamlit keeps with the answer, which is none, what was shown on the way to it.
@st.cache_data(max_entries=512, show_spinner=False)
def _draw(
    key: list[Any],  # noqa: ARG001  (a key of the cache)
    is_dark: bool,  # noqa: ARG001  (likewise)
    height: int | None,
    alt_text: str,
    _drawing: Drawing,
) -> None:
    chart = _drawing.chart()
    # Without a height the chart has Altair's own, or that of its rows.
    sized = chart if height is None else chart.properties(height=height)
    colour = label_colour()
    st.altair_chart(
        sized.properties(padding=_PADDING)
        .configure_view(strokeWidth=0)
        .configure_axis(labelColor=colour, titleColor=colour)
        # Streamlit's theme moves the first and the last label inwards, away from their rows.
        .configure_axisY(labelFlush=False)
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
