"""Numbers as people read them, said once for reports, verdicts and dashboards: `+6.2%`, `1.2 M`.

A minus sign is a minus sign, not a hyphen, and what is missing is a dash.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

MISSING = "–"


def _is_missing(x: float | None) -> bool:
    return x is None or math.isnan(x)


def with_minus(text: str) -> str:
    """The text with minus signs for hyphens."""
    return text.replace("-", "−")


NOTHING = 1e-12
"""What is smaller is what rounding left of 0."""


def percent(x: float | None, *, signed: bool = False, digits: int = 1) -> str:
    """A fraction: 0.062 → `6.2%`, or `+6.2%` where it is `signed`."""
    if x is None or math.isnan(x):
        return MISSING
    return with_minus(f"{x:{'+' if signed else ''},.{digits}%}")


def change(x: float, *, signed: bool = True) -> str:
    """A relative change in a sentence: +6.2%, −0.31%, +1,234.5%; small ones with two digits."""
    return percent(x, signed=signed, digits=2 if abs(x) < 0.01 else 1)


def _hundredths(x: float) -> str:
    """A fraction as a percentage without its sign: 12.34, 0.57, 0.040. Two decimals, or more where
    it takes them for two digits; never 0 for what is not 0, nor 100 for what is not 1.
    """
    size = 100.0 * abs(x)
    if abs(x) < NOTHING:
        return "0"
    if abs(abs(x) - 1.0) < NOTHING:
        return "100"
    if size < 1e-5:
        return f"{size:.1e}"
    # Near 1 what is missing to 1 is what tells something: 99.997%.
    smallest = min(size, abs(100.0 - size)) if size <= 100.0 else size
    decimals = max(2, 1 - math.floor(math.log10(smallest)))
    return f"{size:,.{decimals}f}"


def rate(x: float | None) -> str:
    """A share of decisions or units: 0.1234 → `12.34%`, 0.0004 → `0.040%`, 0 → `0%`, 1 → `100%`."""
    if x is None or math.isnan(x):
        return MISSING
    return with_minus(f"{'-' if x <= -NOTHING else ''}{_hundredths(x)}%")


def rate_interval(low: float | None, high: float | None) -> str:
    """`3.12% to 4.40%`"""
    if _is_missing(low) or _is_missing(high):
        return MISSING
    return f"{rate(low)} to {rate(high)}"


def _points(x: float, *, signed: bool) -> str:
    if abs(x) < NOTHING:
        return "0"
    plus = "+" if signed else ""
    return with_minus(f"{'-' if x < 0.0 else plus}{_hundredths(x)}")


def points(x: float | None, *, signed: bool = True) -> str:
    """A difference of two rates: 0.012 → `+1.20 pp`, percentage points."""
    if x is None or math.isnan(x):
        return MISSING
    return f"{_points(x, signed=signed)} pp"


def points_interval(low: float | None, high: float | None, *, signed: bool = True) -> str:
    """`+0.31 to +4.40 pp`"""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return MISSING
    return f"{_points(low, signed=signed)} to {_points(high, signed=signed)} pp"


def lift(x: float | None) -> str:
    """A relative change, shortened where it is huge: `+6.2%`, `+240%`, `12×`."""
    if x is None or math.isnan(x):
        return MISSING
    if x >= 9.995:
        return f"{1 + x:.0f}×"
    return percent(x, signed=True, digits=0 if abs(x) >= 0.9995 else 1)


def share(x: float | None, *, digits: int = 1) -> str:
    """A part of a whole, without digits that nobody reads: `6.2%`, `100%`."""
    if x is None or math.isnan(x):
        return MISSING
    return percent(x, digits=0 if abs(x) >= 0.9995 else digits)


def chance(p: float | None) -> str:
    """0.62 → `62%`; never more certain than three nines."""
    if p is None or math.isnan(p):
        return MISSING
    if p > 0.999:
        return "> 99.9%"
    if p < 0.001:
        return "< 0.1%"
    return f"{p:.0%}" if 0.01 <= p <= 0.99 else f"{p:.1%}"


def count(n: float | None) -> str:
    """1234567 → `1.2 M`, 24500 → `24.5 k`, 812 → `812`."""
    if n is None:
        return MISSING
    if abs(n) >= 1e9:
        return f"{n / 1e9:.1f} G"
    if abs(n) >= 1e6:
        return f"{n / 1e6:.1f} M"
    if abs(n) >= 1e4:
        return f"{n / 1e3:.1f} k"
    return f"{n:,.0f}"


def value(x: float | None) -> str:
    """A reward or metric with as many digits as tell something: 0.0568, 0.312, 12.30, 1,240."""
    if x is None or math.isnan(x):
        return MISSING
    if abs(x) < NOTHING:
        return "0"
    if abs(x) < 1e-5:
        return with_minus(f"{x:.2g}")
    for below, digits in ((0.001, 6), (0.1, 4), (1.0, 3), (100.0, 2)):
        if abs(x) < below:
            return with_minus(f"{x:,.{digits}f}")
    return with_minus(f"{x:,.0f}")


def signed(x: float | None) -> str:
    """A difference: +0.0127."""
    if x is None or math.isnan(x) or x < NOTHING:
        return value(x)
    return f"+{value(x)}"


def fixed(x: float | None, digits: int = 4) -> str:
    """A number of a column in which all have as many digits: 0.0621."""
    return MISSING if x is None else with_minus(f"{x:.{digits}f}")


def interval(low: float | None, high: float | None) -> str:
    """`0.031 to 0.044`"""
    if _is_missing(low) or _is_missing(high):
        return MISSING
    return f"{value(low)} to {value(high)}"


def significant(x: float | None) -> str:
    """A difference that is no percentage, in three digits: +0.0124, −0.1, +1,240."""
    if x is None or math.isnan(x):
        return MISSING
    if abs(x) < NOTHING:
        return "0"
    if abs(x) >= 1000.0:
        return with_minus(f"{x:+,.0f}")
    if 1e-7 <= abs(x) < 1e-4:
        # Three digits here too, and not as a power of ten.
        return with_minus(f"{x:+.{2 - math.floor(math.log10(abs(x)))}f}")
    return with_minus(f"{x:+.3g}")


def significant_interval(low: float | None, high: float | None) -> str:
    """`−0.0031 to +0.044`"""
    if _is_missing(low) or _is_missing(high):
        return MISSING
    return f"{significant(low)} to {significant(high)}"


def metric_value(x: float | None, is_proportion: bool) -> str:
    """A metric's value: a percentage where it is a share of decisions or units, else a number."""
    return rate(x) if is_proportion else value(x)


def metric_interval(low: float | None, high: float | None, is_proportion: bool) -> str:
    """The interval of a metric's value."""
    return rate_interval(low, high) if is_proportion else interval(low, high)


def metric_difference(x: float | None, is_proportion: bool) -> str:
    """How far apart two values of a metric are: in percentage points where they are shares."""
    return points(x) if is_proportion else significant(x)


def metric_difference_interval(low: float | None, high: float | None, is_proportion: bool) -> str:
    """The interval of such a difference."""
    return points_interval(low, high) if is_proportion else significant_interval(low, high)


def lift_interval(low: float | None, high: float | None) -> str:
    """`+1.2% to +9.0%`"""
    if _is_missing(low) or _is_missing(high):
        return MISSING
    return f"{lift(low)} to {lift(high)}"


def milliseconds(ms: float | None) -> str:
    """0.34 → `0.34 ms`, 1234 → `1.2 s`."""
    if ms is None:
        return MISSING
    if ms >= 1000:
        return f"{ms / 1e3:.1f} s"
    return f"{ms:.2g} ms" if ms < 10 else f"{ms:.0f} ms"


def duration(seconds: float | None) -> str:
    """About how long: 90061 → `25 h`, 4000 → `67 min`, 12 → `12 s`."""
    if seconds is None:
        return MISSING
    for least, size, unit in ((172_800, 86_400, "days"), (5_400, 3_600, "h"), (90, 60, "min")):
        if seconds >= least:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 2 else f"{seconds:.1f} s"


def window(seconds: float) -> str:
    """Exactly how long, in the largest unit: 7 days, 48 h, 30 min, 5 s."""
    for size, unit, least in ((86_400.0, "days", 3.0), (3_600.0, "h", 1.0), (60.0, "min", 1.0)):
        if seconds >= size * least:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def span(first: datetime | None, last: datetime | None) -> str:
    """How long something has been running."""
    if first is None or last is None:
        return "not started"
    return duration((last - first) / timedelta(seconds=1))


def moment(at: datetime | None) -> str:
    """20 Nov 2026, 16:06:05 UTC."""
    return MISSING if at is None else f"{at.day} {at:%b %Y, %H:%M:%S} UTC"


def minute(at: datetime | int) -> str:
    """2026-12-01 20:06 UTC: of a time in UTC, or of µs since the epoch."""
    if isinstance(at, int):
        at = datetime.fromtimestamp(at / 1e6, UTC)
    return f"{at:%Y-%m-%d %H:%M} UTC"


def label(name: str) -> str:
    """`watch_fraction` → `watch fraction`."""
    return name.replace("_", " ")


def condition(status: str) -> str:
    """What an experiment is: `running`, `a draft`."""
    return "a draft" if status == "draft" else status


def several(number: int, one: str, more: str = "") -> str:
    """`1 experiment`, `3 experiments`."""
    if number == 1:
        return f"{number:,} {one}"
    return f"{number:,} {more or f'{one}s'}"


def listing(names: list[str], most: int = 4) -> str:
    """`a, b and c`; the rest beyond `most` as a number."""
    parts = list(names[:most])
    if len(names) > most:
        parts.append(f"{len(names) - most} more")
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
