"""Numbers and names for people, as everywhere in Topbill; and text that no page takes for
markdown.
"""

from __future__ import annotations

import re

from topbill.domain.formatting import (
    MISSING,
    chance,
    count,
    duration,
    interval,
    label,
    lift,
    listing,
    metric_difference,
    metric_difference_interval,
    metric_interval,
    metric_value,
    milliseconds,
    minute,
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
    "code",
    "count",
    "duration",
    "interval",
    "label",
    "lift",
    "listing",
    "metric_difference",
    "metric_difference_interval",
    "metric_interval",
    "metric_value",
    "milliseconds",
    "minute",
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


_JOINER = "\u2060"
"""Seen by nobody: it only keeps apart what Streamlit looks for in text, escaped or not."""
_BREAKS = re.compile(r"[\x00-\x20\x7f\x85\u2028\u2029]+")
_MARKS = re.compile(r"[\\`*_{}\[\]<~$&|]")
_MARKS_IN_FRONT = re.compile(r"^(\d*)([#>+=.)-])")
"""What begins a heading, a quotation or a list."""
# Addresses become links, and `:name:` an icon or an emoji, after all escapes were read.
_FOUND_LATER = re.compile(r":(?=[\w/+-])|(?<=\bwww)\.|@", re.IGNORECASE)


def plain(sentence: str) -> str:
    """Text in which nothing is taken for markdown: no link, picture, colour, icon, formula, list or
    heading, whoever wrote it. It may stand within markdown of ours, on one line."""
    sentence = _BREAKS.sub(" ", sentence).strip(" ")
    sentence = _MARKS.sub(r"\\\g<0>", sentence)
    sentence = _MARKS_IN_FRONT.sub(r"\1\\\2", sentence)
    return _FOUND_LATER.sub(rf"\g<0>{_JOINER}", sentence)


def code(text: str) -> str:
    """Text as code, within markdown of ours: nothing in it ends it."""
    text = _BREAKS.sub(" ", text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest else f"`{text}`"
