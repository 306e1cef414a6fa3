"""Charts of a whole page's layers: each variant against its control, and one goal against
another.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from board.style import GREY, NUMBER, RULE, colours, palette


def gaps(frame: pd.DataFrame) -> alt.LayerChart:
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
        domain=["better", "worse", "inconclusive"], range=[palette()[2], palette()[5], GREY]
    )
    base = alt.Chart(frame).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, labelFontSize=12)),
        color=alt.Color(
            "reading:N", scale=scale, title=None, legend=alt.Legend(orient="top", symbolOpacity=1)
        ),
        tooltip=tips,
    )
    zero = (
        alt.Chart(pd.DataFrame({"x": [0.0]}))
        .mark_rule(strokeDash=[4, 4])
        .encode(x="x:Q", color=RULE)
    )
    axis = alt.Axis(labelExpr=NUMBER, tickCount=5)
    bars = base.mark_rule(strokeWidth=5, opacity=0.45).encode(
        x=alt.X("low:Q", title="difference per page", axis=axis), x2="high:Q"
    )
    return zero + bars + base.mark_point(filled=True, size=120, opacity=1).encode(x="value:Q")


def trade(
    frame: pd.DataFrame, names: Sequence[str], control: str | None, x: str, y: str
) -> alt.LayerChart:
    """One goal against another, a cross of intervals for each variant. Columns: name, x and y with
    _low and _high.
    """
    base = alt.Chart(frame).encode(
        color=colours(names, control), tooltip=[alt.Tooltip("name:N"), "x:Q", "y:Q"]
    )
    # Not from zero: it is the difference of variants that is looked at.
    across = alt.X(
        "x_low:Q", title=f"{x} per page", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)
    )
    up = alt.Y(
        "y_low:Q", title=f"{y} per page", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)
    )
    wide = base.mark_rule(strokeWidth=3, opacity=0.45).encode(x=across, x2="x_high:Q", y="y:Q")
    tall = base.mark_rule(strokeWidth=3, opacity=0.45).encode(x="x:Q", y=up, y2="y_high:Q")
    points = base.mark_point(filled=True, size=140, opacity=1).encode(x="x:Q", y="y:Q")
    words = (
        alt.Chart(frame)
        .mark_text(align="left", dx=9, dy=-9, color=GREY)
        .encode(x="x:Q", y="y:Q", text="name:N")
    )
    return wide + tall + points + words
