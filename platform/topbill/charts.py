"""Altair charts of results, for dashboards and notebooks alike: intervals drawn, units on axes,
grey for the control, one colour for one name.

They take frames and give charts; what stands in a frame, and which charts a result has, says the
result (`Report.chart`, `Evaluation.chart`).
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle

import altair as alt
import pandas as pd

Chart = alt.LayerChart
GREY = "#8A93A1"
PALETTE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#8C6BB1",
    "#B8A100",
    "#5A9E9E",
    "#A65E2E",
)
"""Ten colours after Okabe & Ito (2008), told apart by colour-blind eyes too."""
RULE = alt.value(GREY)
LIFT = "datum.value === 0 ? '0%' : replace(format(datum.value, '+,.0%'), '-', '−')"
"""How an axis of lifts is labelled."""
POINTS = (
    "(datum.value === 0 ? '0' : replace(format(100 * datum.value, '+,.3~f'), '-', '−')) + ' pp'"
)
"""How an axis of differences of rates is."""
NUMBER = "datum.value === 0 ? '0' : replace(format(datum.value, '+,.3~f'), '-', '−')"
"""How one of other differences is."""
WIDTH = 480
"""Pixels of a chart in a notebook."""
_PHONE = 250
"""Pixels that a legend has on a phone."""


def colours(
    names: Sequence[str],
    control: str | None = None,
    *,
    title: str | None = None,
    palette: Sequence[str] = PALETTE,
    shown: Sequence[str] | None = None,
) -> alt.Color:
    """A colour for each name, in the given order; the control and `(others)` are grey. The legend
    has all of them, or those that are `shown`.
    """
    there = list(shown or names)
    # By the place in the list, so that a name has one colour on all charts of a page.
    rest = cycle(palette)
    # Decisions of no variant stand beside the control's: two grey lines could not be told apart.
    grey = (control, "(others)")
    scale_colours = [GREY if name in grey else next(rest) for name in names]
    scale = alt.Scale(domain=list(names), range=scale_colours)
    return alt.Color(
        "name:N",
        scale=scale,
        title=title,
        legend=alt.Legend(
            orient="top",
            columns=_legend_columns(there),
            labelLimit=140,
            symbolOpacity=1,
            values=there,
        ),
    )


def _legend_columns(names: Sequence[str]) -> int:
    """As many beside each other as a phone has room for, three at most."""
    # A sign and the gaps take some 28 pixels, a letter some 7.
    longest = min(140, 7 * max((len(name) for name in names), default=1))
    return max(1, min(3, _PHONE // (28 + longest)))


def zero() -> alt.Chart:
    """A dashed line where nothing differs."""
    nothing = alt.Chart(pd.DataFrame({"x": [0.0]}))
    return nothing.mark_rule(strokeDash=[4, 4]).encode(x="x:Q", color=RULE)


def lift_frame(
    rows: Iterable[tuple[str, float | None, float | None, float | None, str]],
) -> pd.DataFrame:
    """What `lifts` draws: name, value, bounds and a text for each row; those without an interval
    are left out.
    """
    frame = pd.DataFrame(list(rows), columns=["name", "relative", "low", "high", "text"])
    return frame.dropna(subset=["low"])


def lifts(
    frame: pd.DataFrame,
    names: Sequence[str],
    control: str,
    title: str,
    form: str = LIFT,
    palette: Sequence[str] = PALETTE,
) -> alt.LayerChart:
    """Lift (or plain difference) with interval, a row for each name; `form` labels the axis.
    Columns: name, relative, low, high, text.
    """
    axis = alt.Axis(labelExpr=form, tickCount=6)
    y = alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=150, labelFontSize=13))
    hues = colours(names, control, palette=palette).legend(None)
    base = alt.Chart(frame).encode(y=y, color=hues)
    tips = [alt.Tooltip("name:N"), alt.Tooltip("text:N", title="effect")]
    bars = base.mark_rule(strokeWidth=5, opacity=0.45, clip=True).encode(
        x=alt.X("low:Q", title=title, axis=axis),
        x2="high:Q",
        tooltip=tips,
    )
    points = base.mark_point(filled=True, size=130, opacity=1, clip=True).encode(
        x="relative:Q", tooltip=tips
    )
    return zero() + bars + points


def estimate_frame(
    rows: Iterable[tuple[str, float | None, float | None, float | None]],
) -> pd.DataFrame:
    """What `estimates` draws: name, value and bounds for each row."""
    return pd.DataFrame(list(rows), columns=["name", "value", "low", "high"])


def estimates(
    frame: pd.DataFrame,
    reference: str,
    title: str = "objective per decision",
    palette: Sequence[str] = PALETTE,
) -> alt.LayerChart:
    """Values with intervals; that of `reference` runs through as a band. Columns: name, value, low,
    high.
    """
    tips = [
        alt.Tooltip("name:N"),
        alt.Tooltip("value:Q", format=".4f"),
        alt.Tooltip("low:Q", format=".4f", title="from"),
        alt.Tooltip("high:Q", format=".4f", title="to"),
    ]
    colour = alt.condition(f"datum.name === {reference!r}", alt.value(GREY), alt.value(palette[0]))
    base = alt.Chart(frame).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=150)),
        color=colour,
        tooltip=tips,
    )
    # The reference's interval runs through all rows, so that overlaps are seen at a glance.
    band = alt.Chart(frame[frame["name"] == reference]).mark_rect(opacity=0.13, color=GREY)
    bars = base.mark_rule(strokeWidth=5, opacity=0.45).encode(
        x=alt.X("low:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6)),
        x2="high:Q",
    )
    points = base.mark_point(filled=True, size=110, opacity=1).encode(x="value:Q")
    return band.encode(x="low:Q", x2="high:Q") + bars + points


def gap_frame(rows: Iterable[tuple[str, str, float, float, float, str]]) -> pd.DataFrame:
    """What `gaps` draws: name, layer, value, bounds and reading for each row."""
    return pd.DataFrame(list(rows), columns=["name", "layer", "value", "low", "high", "reading"])


def gaps(frame: pd.DataFrame, palette: Sequence[str] = PALETTE) -> alt.LayerChart:
    """What variants add to the whole page, with intervals. Columns: name, layer, value, low, high,
    reading.
    """
    tips = [
        alt.Tooltip("name:N", title="variant"),
        alt.Tooltip("value:Q", format="+.4f", title="more than the control"),
        alt.Tooltip("low:Q", format="+.4f", title="from"),
        alt.Tooltip("high:Q", format="+.4f", title="to"),
    ]
    # Green and orange are told apart by colour-blind readers too; what is inconclusive is grey.
    scale = alt.Scale(
        domain=["better", "worse", "inconclusive"], range=[palette[2], palette[5], GREY]
    )
    base = alt.Chart(frame).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, labelFontSize=12)),
        color=alt.Color(
            "reading:N", scale=scale, title=None, legend=alt.Legend(orient="top", symbolOpacity=1)
        ),
        tooltip=tips,
    )
    axis = alt.Axis(labelExpr=NUMBER, tickCount=5)
    bars = base.mark_rule(strokeWidth=5, opacity=0.45).encode(
        x=alt.X("low:Q", title="difference per page", axis=axis), x2="high:Q"
    )
    return zero() + bars + base.mark_point(filled=True, size=120, opacity=1).encode(x="value:Q")
