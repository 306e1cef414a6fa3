"""What the steps of a launch can show of its guardrails, before anybody has come: from the file
alone, so for rates only, whose spread follows from their value.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

from topbill.ab.harm import ALPHA, fixed_horizon, shown_harm
from topbill.ab.judged import Direction
from topbill.ab.planning import Outlook
from topbill.domain.formatting import label
from topbill.domain.margin import Margin, amount
from topbill.spec import Experiment

RATE = 0.1
"""A file does not say how often something happens: one in ten is what is reckoned with."""


def hold_notes(experiment: Experiment) -> Iterator[str]:
    """A sentence for each guardrail that a step's units cannot show to be kept within its margin:
    the units that this takes, and the harm that a step does show (with 80% power)."""
    launch, control = experiment.launch, experiment.control
    if launch is None or not experiment.guardrails:
        return
    if not launch.hold.units:
        yield (
            "hold asks for no number of units: a step may be over before its guardrails can be "
            "read; write hold: {units: 5000}, say"
        )
        return
    others = [v.share for v in experiment.variants if not v.control and v.share > 0.0]
    if not others or not control.share:
        return
    alpha = ALPHA / (len(experiment.guardrails) * len(others))
    better: dict[str, Direction] = {}
    for metric in experiment.metrics:
        if metric.definition.is_proportion:
            better[metric.name] = metric.better or "higher"
    for guardrail in experiment.guardrails:
        margin = Margin(guardrail.margin, guardrail.margin_unit)
        if guardrail.metric in better and margin.value:
            direction = better[guardrail.metric]
            shares = (control.share, min(others))
            sentence = _sentence(margin, direction, shares, launch.hold.units, alpha)
            if sentence:
                yield f"that {label(guardrail.metric)} is not worse by {margin} {sentence}"


def _sentence(
    margin: Margin, better: Direction, shares: tuple[float, float], units: int, alpha: float
) -> str:
    """What a step of so many units of all variants shows; empty where it shows all there is."""
    horizon = fixed_horizon(Outlook(RATE, sqrt(RATE * (1.0 - RATE)), True), margin, better, shares)
    own = round(units * sum(shares))
    if horizon is None or own >= horizon:
        return ""
    harm = margin.value * shown_harm(max(own, 2), horizon, alpha)
    # A rate can only fall by all of it, and rise to 1.
    most = RATE if better == "higher" else 1.0 - RATE
    least = "none" if harm * (RATE if margin.is_relative else 1.0) > most else ""
    least = least or f"harm from {amount(harm, margin.unit)} on"
    # Three digits, as the rate is an example.
    every = float(f"{horizon / sum(shares):.3g}")
    return (
        f"takes some {every:,.0f} units where {RATE:.0%} have it; a step of {units:,} shows {least}"
    )
