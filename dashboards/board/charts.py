"""Altair charts of one look: intervals drawn, units on axes, grey for the control, one colour for
one name.
"""

from board.amounts import (
    action_values,
    bars,
    by_position,
    calibration,
    estimates,
    heat,
    segments,
)
from board.arms import gaps, trade
from board.effects import (
    events,
    funnel,
    lifts,
    lines,
    past,
    stacked,
    with_milestones,
)
from board.style import GREY, LIFT, NUMBER, POINTS, Drawing, draw
from topbill.charts import estimate_frame, gap_frame

__all__ = [
    "GREY",
    "LIFT",
    "NUMBER",
    "POINTS",
    "Drawing",
    "action_values",
    "bars",
    "by_position",
    "calibration",
    "draw",
    "estimate_frame",
    "estimates",
    "events",
    "funnel",
    "gap_frame",
    "gaps",
    "heat",
    "lifts",
    "lines",
    "past",
    "segments",
    "stacked",
    "trade",
    "with_milestones",
]
