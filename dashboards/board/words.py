"""Numbers and names for people: `+6.2%`, `1.2 M`."""

from __future__ import annotations

import math
from datetime import datetime, timedelta


def percent(x: float | None, *, signed: bool = False, digits: int = 1) -> str:
    """0.062 → `+6.2%` (signed) or `6.2%`; None → `–`."""
    if x is None or math.isnan(x):
        return "–"
    if abs(x) >= 9.995:
        return f"{1 + x:.0f}×" if signed and x > 0 else f"{x:.0%}"
    text = f"{abs(x):.{0 if abs(x) >= 0.9995 else digits}%}"
    sign = "−" if x < 0 else "+" if signed else ""
    return sign + text


def chance(p: float | None) -> str:
    """0.62 → `62%`; never more certain than three nines."""
    if p is None or math.isnan(p):
        return "–"
    return (
        "> 99.9%"
        if p > 0.999
        else "< 0.1%"
        if p < 0.001
        else f"{p:.1%}"
        if not 0.01 < p < 0.99
        else f"{p:.0%}"
    )


def count(n: float | None) -> str:
    """1234567 → `1.2 M`, 24500 → `24.5 k`, 812 → `812`."""
    if n is None:
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(n) >= size:
            scale = 1e3 if unit == "k" else size
            return f"{n / scale:.1f} {unit}"
    return f"{n:,.0f}"


def value(x: float | None) -> str:
    """A reward or metric: 0.0568, 0.312, 12.30, 1,240."""
    if x is None or math.isnan(x):
        return "–"
    size = abs(x)
    if size < 1e-12:
        return "0"
    digits = 6 if size < 0.001 else 4 if size < 0.1 else 3 if size < 1 else 2 if size < 100 else 0
    return f"{x:,.{digits}f}".replace("-", "−")


def signed(x: float | None) -> str:
    """A difference: +0.0127."""
    return value(x) if x is None or math.isnan(x) or x <= 0 else f"+{value(x)}"


def interval(low: float | None, high: float | None, *, lift: bool = False) -> str:
    """`+1.2% to +9.0%`, or `0.031 to 0.044`."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return "–"
    return (
        f"{percent(low, signed=True)} to {percent(high, signed=True)}"
        if lift
        else f"{value(low)} to {value(high)}"
    )


def milliseconds(ms: float | None) -> str:
    """0.34 → `0.34 ms`, 1234 → `1.2 s`."""
    if ms is None:
        return "–"
    return f"{ms / 1e3:.1f} s" if ms >= 1000 else f"{ms:.2g} ms" if ms < 10 else f"{ms:.0f} ms"


def duration(seconds: float | None) -> str:
    """90061 → `25 h`, 4000 → `67 min`, 12 → `12 s`."""
    if seconds is None:
        return "–"
    for size, unit in ((172_800, "days"), (5_400, "h"), (90, "min")):
        if seconds >= size:
            return f"{seconds / {'days': 86_400, 'h': 3_600, 'min': 60}[unit]:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 2 else f"{seconds:.1f} s"


def span(first: datetime | None, last: datetime | None) -> str:
    """How long an experiment has been running, in words."""
    return (
        "not started"
        if first is None or last is None
        else duration((last - first) / timedelta(seconds=1))
    )


def moment(at: datetime | None) -> str:
    """20 Nov 2026, 16:06:05 UTC."""
    return "–" if at is None else f"{at.day} {at:%b %Y, %H:%M:%S} UTC"


def units(unit: str | None) -> str:
    """What is randomised, in the plural: `profile_id` → `profiles`."""
    return f"{label((unit or 'decision').removesuffix('_id'))}s"


def label(name: str) -> str:
    """`watch_fraction` → `watch fraction`."""
    return name.replace("_", " ")


def plain(sentence: str) -> str:
    """Text in which nothing is taken for markdown."""
    return sentence.replace("_", r"\_").replace("*", r"\*").replace("$", r"\$").replace("~", r"\~")
