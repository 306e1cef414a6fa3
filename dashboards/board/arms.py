"""Charts of a whole page's layers: each variant against its control, and one goal against
another.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from board.style import colours, drawing, label_colour, palette
from topbill import charts


@drawing
def gaps(frame: pd.DataFrame) -> alt.LayerChart:
    """What variants add to the whole page, with intervals. Columns: name, layer, value, low, high,
    reading.
    """
    return charts.gaps(frame, palette())


@drawing
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
        .mark_text(align="left", dx=9, dy=-9, color=label_colour())
        .encode(x="x:Q", y="y:Q", text="name:N")
    )
    return wide + tall + points + words
