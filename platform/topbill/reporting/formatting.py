"""Numbers of a report as words that text and HTML share."""

from __future__ import annotations

from topbill.ab import (
    GUARDRAIL_WORSE,
    HUGE,
    SAMPLE_RATIO_MISMATCH,
    WORSE_THAN_CONTROL,
    Analysis,
    Comparison,
)
from topbill.ab import REASONS as AB_REASONS
from topbill.reporting.experiment.model import REASONS, Health, MeanEstimate

CALLS = {"better": "better", "worse": "worse", "no_call": "no call yet"}
GUARDRAILS = {
    "not_worse": "kept",
    "worse": "broken",
    "undecided": "undecided",
    "unknown": "unknown",
}


def tone(analysis: Analysis) -> str:
    """The colour of a verdict: green to ship, red to stop, yellow to wait."""
    if analysis.verdict.safe_to_ship:
        return "green"
    stop = {SAMPLE_RATIO_MISMATCH, GUARDRAIL_WORSE, WORSE_THAN_CONTROL}
    return "red" if stop & set(analysis.verdict.codes) else "yellow"


def comparison(c: Comparison) -> tuple[str, str, str, str, str]:
    """Value, control's value, lift, interval, call: relative where that can be said, the reason
    where nothing can.
    """
    values = number(c.value), number(c.control_value)
    relative = between(c.relative_low, c.relative_high)
    if relative:
        return *values, signed(c.relative), relative, CALLS[c.call]
    lift = "-" if c.difference is None else f"{c.difference:+.4g}".replace("-", "−")
    absolute = between(c.difference_low, c.difference_high, "{:+.4g}")
    if absolute:
        return *values, lift, absolute, CALLS[c.call]
    return *values, lift, AB_REASONS.get(c.reason, c.reason), ""


def estimate(found: MeanEstimate) -> tuple[str, str]:
    """Value and interval, or the reason why there is none."""
    return number(found.value), between(found.low, found.high, "{:.4f}") or REASONS[found.reason]


def between(low: float | None, high: float | None, form: str = "{:+.1%}") -> str:
    """`low to high`, empty where either is missing. Of lifts that may exceed +1,000% only `low or
    more`.
    """
    if low is None or high is None:
        return ""
    top = "or more" if "%" in form and high > HUGE else f"to {form.format(high)}"
    return f"{form.format(low)} {top}".replace("-", "−")


def signed(share: float | None) -> str:
    """+6.2%"""
    return "-" if share is None else f"{share:+,.1%}".replace("-", "−")


def percent(share: float | None) -> str:
    """6.21%"""
    return "-" if share is None else f"{share:.2%}"


def number(value: float | None) -> str:
    """0.0621"""
    return "-" if value is None else f"{value:.4f}"


def choices(health: Health) -> str:
    """What the sample-ratio check of choices says, all variants in a line."""
    said = []
    for c in health.choices:
        verdict = "NOT as logged" if c.alarm else "as logged"
        said.append(f"{c.variant} {verdict} (p = {c.p_sequential:.2g}, {c.decisions:,} decisions)")
    return "; ".join(said) or "nothing was left to chance yet"


def duration(seconds: float) -> str:
    """A window in words: 7 days, 48 h, 30 min, 5 s."""
    for size, unit, least in ((86_400.0, "days", 3.0), (3_600.0, "h", 1.0), (60.0, "min", 1.0)):
        if seconds >= size * least:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
