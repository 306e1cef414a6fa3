"""Altair charts of one look: intervals drawn, units on axes, grey for the control, one colour for one name."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd
import streamlit as st

GREY = "#8A93A1"
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6BB1", "#B8A100", "#5A9E9E", "#A65E2E")
HEAT = "blues"
_RULE = alt.value(GREY)
_PADDING = {"left": 0, "top": 4, "right": 8, "bottom": 0}
_LIFT = "datum.value === 0 ? '0%' : replace(format(datum.value, '+,.0%'), '-', '−')"
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


def lifts(frame: pd.DataFrame, names: Sequence[str], control: str, title: str, *, lift: bool = True) -> alt.LayerChart:
    """Lift (or plain difference) with interval, a row for each name. Columns: name, relative, low, high, text."""
    axis = alt.Axis(labelExpr=_LIFT, tickCount=6) if lift else alt.Axis(format="+.3~f", tickCount=6)
    y = alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=150, labelFontSize=13))
    base = alt.Chart(frame).encode(y=y, color=colours(names, control).legend(None))
    zero = alt.Chart(pd.DataFrame({"x": [0.0]})).mark_rule(strokeDash=[4, 4]).encode(x="x:Q", color=_RULE)
    tips = [alt.Tooltip("name:N"), alt.Tooltip("text:N", title="lift")]
    bars = base.mark_rule(strokeWidth=5, opacity=0.45, clip=True).encode(
        x=alt.X("low:Q", title=title, axis=axis),
        x2="high:Q",
        tooltip=tips,
    )
    points = base.mark_point(filled=True, size=130, opacity=1, clip=True).encode(x="relative:Q", tooltip=tips)
    return zero + bars + points


def funnel(frame: pd.DataFrame, names: Sequence[str], control: str) -> alt.LayerChart:
    """Lift over time with its narrowing interval. Columns: till, name, relative, relative_low, relative_high."""
    last = frame.groupby("name").tail(1)
    reach = float(last[["relative_low", "relative_high"]].abs().max().max())
    top = max(0.02, 1.6 * reach)
    low = max(-1.0, min(0.0, 1.6 * float(last["relative_low"].min())) - 0.05)
    y = alt.Y(
        "relative_low:Q",
        title="lift over the control",
        scale=alt.Scale(domain=[low, top]),
        axis=alt.Axis(labelExpr=_LIFT, tickCount=6),
    )
    tips = [
        alt.Tooltip("name:N"),
        alt.Tooltip("till:T", format="%d %b %H:%M:%S"),
        alt.Tooltip("relative:Q", format="+.1%", title="lift"),
        alt.Tooltip("relative_low:Q", format="+.1%", title="from"),
        alt.Tooltip("relative_high:Q", format="+.1%", title="to"),
    ]
    pick = alt.selection_point(fields=["name"], bind="legend")
    base = alt.Chart(frame).encode(x=time_axis(), color=colours(names, control), tooltip=tips)
    band = base.mark_area(clip=True).encode(
        y=y, y2="relative_high:Q", opacity=alt.condition(pick, alt.value(0.18), alt.value(0.02))
    )
    line = base.mark_line(clip=True, strokeWidth=2.5).encode(
        y="relative:Q", opacity=alt.condition(pick, alt.value(1), alt.value(0.1))
    )
    zero = alt.Chart(pd.DataFrame({"y": [0.0]})).mark_rule(strokeDash=[4, 4]).encode(y="y:Q", color=_RULE)
    return alt.layer(zero, band.add_params(pick), line)


def spark(frame: pd.DataFrame) -> alt.LayerChart:
    """A small funnel without axes. Columns: till, relative, relative_low, relative_high."""
    last = frame.tail(1)
    top = max(0.02, 1.8 * float(last[["relative_low", "relative_high"]].abs().max().max()))
    low = max(-1.0, min(0.0, 1.8 * float(last["relative_low"].min())) - 0.02)
    scale = alt.Scale(domain=[low, top])
    base = alt.Chart(frame.assign(zero=0.0)).encode(x=alt.X("till:T", axis=None))
    zero = base.mark_line(strokeDash=[3, 3], strokeWidth=1, color=GREY).encode(
        y=alt.Y("zero:Q", axis=None, scale=scale)
    )
    band = base.mark_area(clip=True, opacity=0.22, color=PALETTE[0]).encode(
        y=alt.Y("relative_low:Q", axis=None, scale=scale), y2="relative_high:Q"
    )
    line = base.mark_line(clip=True, strokeWidth=2, color=PALETTE[0])
    return zero + band + line.encode(y=alt.Y("relative:Q", axis=None, scale=scale))


def lines(
    frame: pd.DataFrame, names: Sequence[str], control: str | None, column: str, title: str, form: str = "~s"
) -> alt.LayerChart:
    """Lines over time, with a band where the frame has low and high. Columns: till, name, `column`."""
    tips = [alt.Tooltip("name:N"), alt.Tooltip("till:T", format="%d %b %H:%M:%S")]
    tips.append(alt.Tooltip(f"{column}:Q", format=".3s", title=title))
    base = alt.Chart(frame).encode(x=time_axis(), color=colours(names, control), tooltip=tips)
    y = alt.Y(f"{column}:Q", title=title, axis=alt.Axis(format=form, tickCount=5))
    layers = [base.mark_line(strokeWidth=2.2, interpolate="monotone").encode(y=y)]
    if {"low", "high"} <= set(frame.columns):
        low = alt.Y("low:Q", title=title)
        layers.insert(0, base.mark_area(opacity=0.13, interpolate="monotone").encode(y=low, y2="high:Q"))
    return alt.layer(*layers)


def stacked(frame: pd.DataFrame, names: Sequence[str]) -> alt.Chart:
    """Shares over time that add up to 100%. Columns: till, name, share, shown."""
    tips = [
        alt.Tooltip("name:N"),
        alt.Tooltip("till:T", format="%d %b %H:%M:%S"),
        alt.Tooltip("share:Q", format=".1%"),
        alt.Tooltip("shown:Q", format=","),
    ]
    order = {name: i for i, name in enumerate(names)}
    return (
        alt.Chart(frame.assign(order=frame["name"].map(order)))
        .mark_area(interpolate="monotone")
        .encode(
            x=time_axis(),
            y=alt.Y("share:Q", stack="normalize", title="share of decisions", axis=alt.Axis(format=".0%", tickCount=5)),
            color=colours(names),
            order=alt.Order("order:Q"),
            tooltip=tips,
        )
    )


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
        y=alt.Y(f"{y}:N", title=None, sort=list(y_order), axis=alt.Axis(labelLimit=150, labelOverlap=False)),
        tooltip=[alt.Tooltip(f"{x}:O", title=x_title), alt.Tooltip(f"{y}:N"), alt.Tooltip("share:Q", format=".1%")],
    )
    most = float(frame["share"].max() or 1.0)
    scale = alt.Scale(scheme=HEAT, domain=[0, most])
    cells = base.mark_rect(cornerRadius=3, stroke="white", strokeWidth=1).encode(
        color=alt.Color("share:Q", scale=scale, title=title, legend=None)
    )
    dark = alt.condition(f"datum.share > {0.55 * most!r}", alt.value("white"), alt.value("#17202E"))
    return cells + base.mark_text(fontSize=11).encode(text=alt.Text("share:Q", format=".0%"), color=dark)


def worths(frame: pd.DataFrame, title: str) -> alt.LayerChart:
    """Value with interval, a row for each action. Columns: action, value, low, high, plain, shown."""
    order = frame.sort_values("value", ascending=False, na_position="last")["action"].tolist()
    tips = [
        alt.Tooltip("action:N"),
        alt.Tooltip("value:Q", format=".3f", title="worth"),
        alt.Tooltip("low:Q", format=".3f", title="from"),
        alt.Tooltip("high:Q", format=".3f", title="to"),
        alt.Tooltip("plain:Q", format=".3f", title="mean when shown"),
        alt.Tooltip("shown:Q", format=",", title="times first"),
    ]
    y = alt.Y("action:N", sort=order, title=None, axis=alt.Axis(labelLimit=150, labelOverlap=False))
    base = alt.Chart(frame).encode(y=y, tooltip=tips)
    axis = alt.Axis(format=".2~f", tickCount=6)
    bars = base.mark_rule(strokeWidth=5, opacity=0.5, color=PALETTE[0]).encode(
        x=alt.X("low:Q", title=title, axis=axis), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=100, opacity=1, color=PALETTE[0]).encode(x="value:Q")
    ticks = base.mark_tick(thickness=2.5, size=13, color=PALETTE[1]).encode(x=alt.X("plain:Q", title=title, axis=axis))
    return bars + points + ticks


def bars(frame: pd.DataFrame, highlight: str | None = None) -> alt.LayerChart:
    """Horizontal bars of shares with their numbers, one of them highlighted. Columns: name, value."""
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=130, labelOverlap=False))
    base = alt.Chart(frame).encode(y=y, tooltip=[alt.Tooltip("name:N"), alt.Tooltip("value:Q", format=".2%")])
    colour = alt.condition(f"datum.name === {highlight!r}", alt.value(PALETTE[1]), alt.value(PALETTE[0]))
    most = max(float(frame["value"].max()), 1e-9)
    x = alt.X("value:Q", scale=alt.Scale(domain=[0, most * 1.25]), axis=None)
    shapes = base.mark_bar(cornerRadiusEnd=3).encode(x=x, color=colour)
    return shapes + base.mark_text(align="left", dx=4, color=GREY).encode(x=x, text=alt.Text("value:Q", format=".1%"))


def contributions(frame: pd.DataFrame) -> alt.Chart:
    """What features add (blue) or take away (orange). Columns: name, value."""
    order = frame.sort_values("value", ascending=False)["name"].tolist()
    colour = alt.condition("datum.value >= 0", alt.value(PALETTE[0]), alt.value(PALETTE[5]))
    return (
        alt.Chart(frame)
        .mark_bar(cornerRadiusEnd=3)
        .encode(
            y=alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=150, labelOverlap=False)),
            x=alt.X("value:Q", title="adds to the score", axis=alt.Axis(tickCount=5)),
            color=colour,
            tooltip=[alt.Tooltip("name:N"), alt.Tooltip("value:Q", format="+.4f")],
        )
    )


def segments(frame: pd.DataFrame, names: Sequence[str], control: str) -> alt.LayerChart:
    """Effects in groups, variants beside each other. Columns: segment, name, value, low, high, n."""
    tips = [
        alt.Tooltip("segment:N"),
        alt.Tooltip("name:N"),
        alt.Tooltip("value:Q", format="+.4f", title="effect"),
        alt.Tooltip("low:Q", format="+.4f", title="from"),
        alt.Tooltip("high:Q", format="+.4f", title="to"),
        alt.Tooltip("n:Q", format=",", title="units"),
    ]
    shown = [n for n in names if n != control]
    base = alt.Chart(frame).encode(
        y=alt.Y("segment:N", title=None, axis=alt.Axis(labelLimit=150, labelFontSize=12, grid=True)),
        yOffset=alt.YOffset("name:N", sort=shown),
        color=colours(shown, control),
        tooltip=tips,
    )
    zero = alt.Chart(pd.DataFrame({"x": [0.0]})).mark_rule(strokeDash=[4, 4]).encode(x="x:Q", color=_RULE)
    rules = base.mark_rule(strokeWidth=4, opacity=0.45).encode(
        x=alt.X("low:Q", title="difference from the control, in the metric's unit", axis=alt.Axis(tickCount=6)),
        x2="high:Q",
    )
    return zero + rules + base.mark_point(filled=True, size=70, opacity=1).encode(x="value:Q")


def by_position(frame: pd.DataFrame, names: Sequence[str], control: str | None) -> alt.LayerChart:
    """Exploration per position. Columns: name, position, explored."""
    tips = [alt.Tooltip("name:N"), alt.Tooltip("position:O"), alt.Tooltip("explored:Q", format=".1%")]
    base = alt.Chart(frame).encode(
        x=alt.X("position:O", title="position", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("explored:Q", title="explored", axis=alt.Axis(format=".0%", tickCount=5)),
        color=colours(names, control),
        tooltip=tips,
    )
    return base.mark_line(strokeWidth=2) + base.mark_point(filled=True, size=60, opacity=1)


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
                "name:N", title=None, scale=alt.Scale(range=list(PALETTE)), legend=alt.Legend(orient="top")
            ),
            tooltip=[
                alt.Tooltip("name:N"),
                alt.Tooltip("seconds_after:Q", format=".2f"),
                alt.Tooltip("value:Q", format=".3f"),
            ],
        )
    )


def calibration(frame: pd.DataFrame) -> alt.LayerChart:
    """Draws beside what was to be expected of them, on logarithmic axes. Columns: name, drawn, expected, verdict."""
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
            x=alt.X("expected:Q", scale=scale, title="expected draws (sum of logged probabilities)", axis=axis),
            y=alt.Y("drawn:Q", scale=scale, title="draws", axis=axis),
            color=alt.Color(
                "verdict:N",
                title=None,
                scale=alt.Scale(domain=["as logged", "off"], range=[PALETTE[0], PALETTE[5]]),
                legend=alt.Legend(orient="top"),
            ),
            shape=alt.Shape(
                "verdict:N", scale=alt.Scale(domain=["as logged", "off"], range=["circle", "cross"]), legend=None
            ),
            tooltip=[
                alt.Tooltip("name:N"),
                alt.Tooltip("drawn:Q", format=","),
                alt.Tooltip("expected:Q", format=",.1f"),
            ],
        )
    )
    return same + points


def estimates(frame: pd.DataFrame, reference: str) -> alt.LayerChart:
    """Values with intervals; that of `reference` runs through as a band. Columns: name, value, low, high."""
    tips = [
        alt.Tooltip("name:N"),
        alt.Tooltip("value:Q", format=".4f"),
        alt.Tooltip("low:Q", format=".4f", title="from"),
        alt.Tooltip("high:Q", format=".4f", title="to"),
    ]
    colour = alt.condition(f"datum.name === {reference!r}", alt.value(GREY), alt.value(PALETTE[0]))
    base = alt.Chart(frame).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=150)), color=colour, tooltip=tips
    )
    band = alt.Chart(frame[frame["name"] == reference]).mark_rect(opacity=0.13, color=GREY)
    bars_ = base.mark_rule(strokeWidth=5, opacity=0.45).encode(
        x=alt.X("low:Q", title="objective per decision", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6)),
        x2="high:Q",
    )
    points = base.mark_point(filled=True, size=110, opacity=1).encode(x="value:Q")
    return band.encode(x="low:Q", x2="high:Q") + bars_ + points
