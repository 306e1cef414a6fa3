"""Charts of actions, features and estimates beside each other: shares, values with intervals,
calibration.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from board.style import GREY, colours, drawing, heat_scale, label_colour, palette, text_on
from topbill import charts


@drawing
def heat(
    frame: pd.DataFrame,
    x: str,
    y: str,
    title: str,
    *,
    x_title: str,
    y_order: Sequence[str],
    x_order: Sequence[str] | None,
) -> alt.LayerChart:
    """A grid of shares, each cell with its number. Columns: x, y, share."""
    horizontal = alt.X(
        f"{x}:O",
        title=x_title,
        sort=list(x_order) if x_order else None,
        axis=alt.Axis(labelAngle=0, labelLimit=90, orient="top"),
    )
    base = alt.Chart(frame).encode(
        x=horizontal,
        y=alt.Y(
            f"{y}:N",
            title=None,
            sort=list(y_order),
            axis=alt.Axis(labelLimit=200, labelOverlap=False),
        ),
        tooltip=[
            alt.Tooltip(f"{x}:O", title=x_title),
            alt.Tooltip(f"{y}:N"),
            alt.Tooltip("share:Q", format=".1%"),
        ],
    )
    # The strongest colour is the largest share here, so that small differences show too.
    most = float(frame["share"].max() or 1.0)
    scale = heat_scale(most)
    cells = base.mark_rect(cornerRadius=3, strokeWidth=0).encode(
        color=alt.Color("share:Q", scale=scale, title=title, legend=None)
    )
    written = base.mark_text(fontSize=11).encode(
        text=alt.Text("share:Q", format=".0%"), color=text_on("share", most)
    )
    return cells + written


@drawing
def action_values(frame: pd.DataFrame, title: str) -> alt.LayerChart:
    """Value with interval, a row for each action. Columns: action, value, low, high, plain,
    shown.
    """
    # The best on top, whatever was shown most.
    order = frame.sort_values("value", ascending=False, na_position="last")["action"].tolist()
    tips = [
        alt.Tooltip("action:N"),
        alt.Tooltip("value:Q", format=".3f", title="off-policy value"),
        alt.Tooltip("low:Q", format=".3f", title="from"),
        alt.Tooltip("high:Q", format=".3f", title="to"),
        alt.Tooltip("plain:Q", format=".3f", title="observed mean"),
        alt.Tooltip("shown:Q", format=",", title="shown at position 1"),
    ]
    y = alt.Y("action:N", sort=order, title=None, axis=alt.Axis(labelLimit=200, labelOverlap=False))
    base = alt.Chart(frame).encode(y=y, tooltip=tips)
    axis = alt.Axis(format=".2~f", tickCount=6)
    bars = base.mark_rule(strokeWidth=5, opacity=0.5, color=palette()[0]).encode(
        x=alt.X("low:Q", title=title, axis=axis), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=100, opacity=1, color=palette()[0]).encode(
        x="value:Q"
    )
    ticks = base.mark_tick(thickness=2.5, size=13, color=palette()[1]).encode(
        x=alt.X("plain:Q", title=title, axis=axis)
    )
    return bars + points + ticks


@drawing
def bars(
    frame: pd.DataFrame,
    highlight: str | None = None,
    names: Sequence[str] = (),
    control: str | None = None,
) -> alt.LayerChart:
    """Horizontal bars of shares with their numbers, one of them highlighted; in the colours of
    variants where their `names` are given. Columns: name, value.
    """
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=130, labelOverlap=False))
    base = alt.Chart(frame).encode(
        y=y, tooltip=[alt.Tooltip("name:N"), alt.Tooltip("value:Q", format=".2%")]
    )
    # Solid against faint: another colour would be that of another variant.
    solid = alt.condition(
        f"datum.name === {highlight!r}",
        alt.value(1.0),
        alt.value(1.0 if highlight is None else 0.4),
    )
    # Room at the right for the number of the longest bar.
    most = max(float(frame["value"].max()), 1e-9)
    x = alt.X("value:Q", scale=alt.Scale(domain=[0, most * 1.25]), axis=None)
    colour = colours(names, control).legend(None) if names else alt.value(palette()[0])
    shapes = base.mark_bar(cornerRadiusEnd=3).encode(x=x, color=colour, opacity=solid)
    return shapes + base.mark_text(align="left", dx=4, color=label_colour()).encode(
        x=x, text=alt.Text("value:Q", format=".1%")
    )


@drawing
def segments(
    frame: pd.DataFrame, names: Sequence[str], control: str, title: str, form: str
) -> alt.LayerChart:
    """Effects in groups, variants beside each other; `form` labels the axis called `title`.
    Columns: segment, name, value, low, high, n, text.
    """
    tips = [
        alt.Tooltip("segment:N"),
        alt.Tooltip("name:N"),
        alt.Tooltip("text:N", title="effect"),
        alt.Tooltip("n:Q", format=",", title="units"),
    ]
    variants = [name for name in names if name != control]
    base = alt.Chart(frame).encode(
        y=alt.Y(
            "segment:N",
            title=None,
            axis=alt.Axis(labelLimit=200, labelFontSize=12, grid=True, labelOverlap=False),
        ),
        yOffset=alt.YOffset("name:N", sort=variants),
        color=colours(variants, control),
        tooltip=tips,
    )
    rules = base.mark_rule(strokeWidth=4, opacity=0.45).encode(
        x=alt.X(
            "low:Q",
            title=title,
            axis=alt.Axis(labelExpr=form, tickCount=6),
        ),
        x2="high:Q",
    )
    return (
        charts.zero() + rules + base.mark_point(filled=True, size=70, opacity=1).encode(x="value:Q")
    )


@drawing
def by_position(frame: pd.DataFrame, names: Sequence[str], control: str | None) -> alt.LayerChart:
    """Exploration per position. Columns: name, position, explored."""
    tips = [
        alt.Tooltip("name:N"),
        alt.Tooltip("position:O"),
        alt.Tooltip("explored:Q", format=".1%"),
    ]
    base = alt.Chart(frame).encode(
        x=alt.X("position:O", title="position", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("explored:Q", title="explored", axis=alt.Axis(format=".0%", tickCount=5)),
        color=colours(names, control),
        tooltip=tips,
    )
    return base.mark_line(strokeWidth=2) + base.mark_point(filled=True, size=60, opacity=1)


@drawing
def calibration(frame: pd.DataFrame) -> alt.LayerChart:
    """Draws beside what was to be expected of them, on logarithmic axes. Columns: name, drawn,
    expected, verdict.
    """
    # Logarithmic, because rare actions matter as much as common ones; one axis for both numbers.
    top = float(max(frame["drawn"].max(), frame["expected"].max(), 1))
    low = float(max(1.0, min(frame["drawn"].min(), frame["expected"].min())))
    scale = alt.Scale(type="log", domain=[low * 0.8, top * 1.25], nice=False)
    line = pd.DataFrame({"a": [low * 0.8, top * 1.25]})
    axis = alt.Axis(format="~s", tickCount=5)
    same = (
        alt.Chart(line)
        .mark_line(strokeDash=[5, 4], color=GREY)
        .encode(x=alt.X("a:Q", scale=scale), y=alt.Y("a:Q", scale=scale))
    )
    points = (
        alt.Chart(frame)
        .mark_point(filled=True, size=60, opacity=0.75)
        .encode(
            x=alt.X(
                "expected:Q",
                scale=scale,
                title="expected draws",
                axis=axis,
            ),
            y=alt.Y("drawn:Q", scale=scale, title="draws", axis=axis),
            color=alt.Color(
                "verdict:N",
                title=None,
                scale=alt.Scale(domain=["as logged", "off"], range=[palette()[0], palette()[5]]),
                legend=alt.Legend(orient="top"),
            ),
            shape=alt.Shape(
                "verdict:N",
                scale=alt.Scale(domain=["as logged", "off"], range=["circle", "cross"]),
                legend=None,
            ),
            tooltip=[
                alt.Tooltip("name:N"),
                alt.Tooltip("drawn:Q", format=","),
                alt.Tooltip("expected:Q", format=",.1f"),
            ],
        )
    )
    return same + points


@drawing
def estimates(frame: pd.DataFrame, reference: str) -> alt.LayerChart:
    """Values with intervals; that of `reference` runs through as a band. Columns: name, value, low,
    high.
    """
    return charts.estimates(frame, reference, palette=palette())
