"""Charts of what variants do, and of how things went over time: intervals drawn, units on axes."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from board.style import (
    GREY,
    LIFT,
    RULE,
    Chart,
    Drawing,
    colours,
    drawing,
    label_colour,
    palette,
    time_axis,
)
from topbill import charts


@drawing
def lifts(
    frame: pd.DataFrame, names: Sequence[str], control: str, title: str, form: str = LIFT
) -> alt.LayerChart:
    """Lift (or plain difference) with interval, a row for each name; `form` labels the axis.
    Columns: name, relative, low, high, text.
    """
    return charts.lifts(frame, names, control, title, form, palette())


@drawing
def past(frame: pd.DataFrame) -> alt.LayerChart:
    """A lift as it is to be believed with its interval, and hollow as it was measured, a row for
    each experiment. Columns: name, relative, low, high, measured, text.
    """
    y = alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=260, labelFontSize=13))
    base = alt.Chart(frame).encode(y=y, tooltip=[alt.Tooltip("name:N"), alt.Tooltip("text:N")])
    axis = alt.Axis(labelExpr=LIFT, tickCount=6)
    bars = base.mark_rule(strokeWidth=5, opacity=0.45, color=palette()[0]).encode(
        x=alt.X("low:Q", title="lift over the control", axis=axis), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=130, opacity=1, color=palette()[0])
    hollow = base.mark_point(filled=False, size=110, color=GREY)
    return charts.zero() + bars + hollow.encode(x="measured:Q") + points.encode(x="relative:Q")


@drawing
def funnel(
    frame: pd.DataFrame, names: Sequence[str], control: str
) -> alt.LayerChart | alt.FacetChart:
    """Lift over time with its narrowing interval. Columns: till, name, relative, relative_low,
    relative_high.
    """
    # Scaled to the intervals as they are now: the first ones are so wide that nothing else would be
    # seen.
    last = frame.groupby("name").tail(1)
    reach = float(last[["relative_low", "relative_high"]].abs().max().max())
    top = max(0.02, 1.6 * reach)
    low = max(-1.0, min(0.0, 1.6 * float(last["relative_low"].min())) - 0.05)
    y = alt.Y(
        "relative_low:Q",
        title="lift over the control",
        scale=alt.Scale(domain=[low, top], nice=False),
        axis=alt.Axis(labelExpr=LIFT, tickCount=6),
    )
    tips = [
        alt.Tooltip("name:N"),
        alt.Tooltip("till:T", format="%d %b %H:%M:%S"),
        alt.Tooltip("relative:Q", format="+.1%", title="lift"),
        alt.Tooltip("relative_low:Q", format="+.1%", title="from"),
        alt.Tooltip("relative_high:Q", format="+.1%", title="to"),
    ]
    # A click on the legend shows one variant alone.
    pick = alt.selection_point(fields=["name"], bind="legend")
    base = alt.Chart(frame).encode(x=time_axis(), color=colours(names, control), tooltip=tips)
    band = base.mark_area(clip=True).encode(
        y=y, y2="relative_high:Q", opacity=alt.condition(pick, alt.value(0.18), alt.value(0.02))
    )
    line = base.mark_line(clip=True, strokeWidth=2.5).encode(
        y="relative:Q", opacity=alt.condition(pick, alt.value(1), alt.value(0.1))
    )
    zero = (
        alt.Chart(pd.DataFrame({"y": [0.0]}))
        .mark_rule(strokeDash=[4, 4])
        .encode(y="y:Q", color=RULE)
    )
    return alt.layer(zero, band.add_params(pick), line)


MARGIN = 0.15
"""What is told of before the first point and after the last one, as a share of the time between."""
MOST_LABELS = 25
"""Labels for which a time axis has room, at most."""


def with_milestones(
    drawing: Drawing,
    marks: pd.DataFrame,
    times: pd.Series,
    *,
    colour: str = GREY,
) -> Drawing:
    """A drawing over time with a dashed line at each milestone in its time. `marks` has at, label
    and sentence; `times` are those that the drawing shows.
    """
    return Drawing(_with_milestones, (drawing, marks, times, colour), {})


def _with_milestones(
    chart: Chart,
    marks: pd.DataFrame,
    times: pd.Series,
    colour: str,
) -> Chart:
    marks = near(marks, times)
    if marks.empty:
        return chart
    tips = [
        alt.Tooltip("at:T", format="%d %b %H:%M:%S", title="since"),
        alt.Tooltip("sentence:N", title="what"),
    ]
    base = alt.Chart(marks).encode(x=alt.X("at:T"), tooltip=tips)
    lines = base.mark_rule(strokeDash=[2, 3], strokeWidth=1.2, color=colour)
    named = alt.Chart(_apart(marks, times.max() - times.min())).mark_text(
        angle=270,
        align="right",
        baseline="top",
        dx=-3,
        dy=3,
        fontSize=10,
        color=label_colour() if colour == GREY else colour,
    )
    return alt.layer(
        chart,
        lines,
        named.encode(x="at:T", y=alt.value(0), text="label:N", tooltip=tips),
    )


def near(marks: pd.DataFrame, times: pd.Series) -> pd.DataFrame:
    """The milestones of the time that a drawing shows: what began it all lies a little before its
    first point, and what ended it behind its last.
    """
    first, last = times.min(), times.max()
    margin = (last - first) * MARGIN
    return marks[marks["at"].between(first - margin, last + margin)]


def _apart(marks: pd.DataFrame, span: pd.Timedelta) -> pd.DataFrame:
    """Those whose labels do not cover that of the one before."""
    kept: list[int] = []
    last = None
    for i, at in enumerate(marks["at"]):
        if last is None or at - last >= span / MOST_LABELS:
            kept.append(i)
            last = at
    return marks.iloc[kept]


@drawing
def lines(
    frame: pd.DataFrame,
    names: Sequence[str],
    control: str | None,
    column: str,
    title: str,
    form: str = "~s",
    shown: Sequence[str] | None = None,
) -> alt.LayerChart | alt.FacetChart:
    """Lines over time, with a band where the frame has low and high. Columns: till, name,
    `column`. Colours are by `names`; of them those that are `shown` have a line, all unless said.
    """
    tips = [alt.Tooltip("name:N"), alt.Tooltip("till:T", format="%d %b %H:%M:%S")]
    tips.append(alt.Tooltip(f"{column}:Q", format=".3s", title=title))
    hues = colours(names, control, shown=shown)
    base = alt.Chart(frame).encode(x=time_axis(), color=hues, tooltip=tips)
    y = alt.Y(f"{column}:Q", title=title, axis=alt.Axis(format=form, tickCount=5))
    layers = [base.mark_line(strokeWidth=2.2, interpolate="monotone").encode(y=y)]
    # The band lies below its line.
    if {"low", "high"} <= set(frame.columns):
        low = alt.Y("low:Q", title=title)
        layers.insert(
            0, base.mark_area(opacity=0.13, interpolate="monotone").encode(y=low, y2="high:Q")
        )
    return alt.layer(*layers)


@drawing
def stacked(frame: pd.DataFrame, names: Sequence[str]) -> alt.Chart:
    """Shares over time that add up to 100%. Columns: till, name, share, shown."""
    tips = [
        alt.Tooltip("name:N"),
        alt.Tooltip("till:T", format="%d %b %H:%M:%S"),
        alt.Tooltip("share:Q", format=".1%"),
        alt.Tooltip("shown:Q", format=","),
    ]
    # Altair would stack by the alphabet; the most shown belongs at the bottom of the stack.
    order = {name: i for i, name in enumerate(names)}
    return (
        alt.Chart(frame.assign(order=frame["name"].map(order)))
        .mark_area(interpolate="monotone")
        .encode(
            x=time_axis(),
            y=alt.Y(
                "share:Q",
                stack="normalize",
                title="share of decisions",
                axis=alt.Axis(format=".0%", tickCount=5),
            ),
            color=colours(names),
            order=alt.Order("order:Q"),
            tooltip=tips,
        )
    )


@drawing
def events(frame: pd.DataFrame) -> alt.Chart:
    """Reward events of one decision on a line of time. Columns: name, seconds_after, value."""
    return (
        alt.Chart(frame)
        .mark_point(filled=True, size=160, opacity=0.9)
        .encode(
            x=alt.X(
                "seconds_after:Q",
                title="seconds after the decision",
                scale=alt.Scale(zero=True),
                axis=alt.Axis(tickCount=6),
            ),
            color=alt.Color(
                "name:N",
                title=None,
                scale=alt.Scale(range=list(palette())),
                legend=alt.Legend(orient="top"),
            ),
            tooltip=[
                alt.Tooltip("name:N"),
                alt.Tooltip("seconds_after:Q", format=".2f"),
                alt.Tooltip("value:Q", format=".3f"),
            ],
        )
    )
