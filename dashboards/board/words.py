"""Numbers and names for people, as everywhere in Topbill; and text that no page takes for
markdown.
"""

from __future__ import annotations

from topbill.domain.formatting import (
    MISSING,
    chance,
    count,
    duration,
    interval,
    label,
    lift,
    lift_interval,
    listing,
    metric_difference,
    metric_difference_interval,
    metric_interval,
    metric_value,
    milliseconds,
    moment,
    several,
    share,
    signed,
    span,
    value,
)

__all__ = [
    "MISSING",
    "chance",
    "count",
    "duration",
    "interval",
    "label",
    "lift",
    "lift_interval",
    "listing",
    "metric_difference",
    "metric_difference_interval",
    "metric_interval",
    "metric_value",
    "milliseconds",
    "moment",
    "plain",
    "several",
    "share",
    "signed",
    "span",
    "units",
    "value",
]


def units(unit: str | None) -> str:
    """What is randomised, in the plural: `profile_id` → `profiles`."""
    return f"{label((unit or 'decision').removesuffix('_id'))}s"


def plain(sentence: str) -> str:
    """Text in which nothing is taken for markdown."""
    for mark in ("_", "*", "$", "~"):
        sentence = sentence.replace(mark, f"\\{mark}")
    return sentence
