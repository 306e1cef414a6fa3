"""Exploration collapsed: a variant's draws were open, and all at once they are not.

A bandit that learns becomes sure by and by; that is no fault. What is looked for is a fall: the
mean entropy of a window, four standard errors up, is below a third of what nearly all hours of the
day before had (all but the two lowest). As long as that day brought more than a third of all that
the policy ever decided, such a fall may be learning, and is told only where the policy has no part
in it: fallbacks, and decisions with one eligible action, count as entropy 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from topbill.alerts.rules.look import LEAST, RecordLook, RuleReading
from topbill.alerts.sums import HourSums, VariantSums, shortest_run
from topbill.domain.formatting import percent

FALLEN = 1.0 / 3.0
"""Of what it was before."""
_ERRORS = 4.0
_OPEN = 0.05
"""Entropy below which there is no exploration that could collapse."""
_REMEMBERED = 6
"""Hours of the day before that there must be."""
_LEFT_OUT = 2
"""Of the lowest hours: those in which a fault began."""
_MOST_NEW = 1.0 / 3.0
_CAUSED = 0.5
"""A part of the decisions from which on it is the cause."""


def exploration_collapsed(look: RecordLook) -> list[RuleReading]:
    """A reading of each variant."""
    return [_reading(look, variant) for variant in look.variants]


def mean_entropy(sums: Sequence[VariantSums]) -> float | None:
    """Of the decisions of some hours; None where there are few."""
    decisions = sum(part.decisions for part in sums)
    return sum(part.entropy for part in sums) / decisions if decisions >= LEAST // 10 else None


def _reading(look: RecordLook, variant: str) -> RuleReading:
    unknown = RuleReading("exploration_collapsed", variant, "window", "unknown")
    sizes = [float(hour.variants.get(variant, VariantSums()).decisions) for hour in look.hours]
    run = shortest_run(look.hours, sizes, LEAST)
    before = sorted(look.usual.entropies.get(variant, ()))
    if not run or len(before) < _REMEMBERED:
        return unknown
    own = [hour.variants[variant] for hour in run if variant in hour.variants]
    decisions = sum(part.decisions for part in own)
    least = before[_LEFT_OUT]
    mean = sum(part.entropy for part in own) / decisions
    squares = sum(part.entropy_squares for part in own) / decisions
    error = sqrt(max(squares - mean * mean, 0.0) / decisions)
    if least < _OPEN:
        return unknown
    if mean >= FALLEN * least:
        return unknown._replace(state="sound")
    cause = _cause(look, run, own)
    may_be_learning = sum(sizes) > _MOST_NEW * look.usual.learned.get(variant, 0)
    if may_be_learning and cause not in ("policy_fails", "few_eligible"):
        return unknown
    if mean + _ERRORS * error >= FALLEN * least:
        return unknown
    message = (
        f"{variant} drew with {percent(mean)} of the largest entropy in the last {len(run)} h; "
        f"before it was {percent(least)} or more."
    )
    return unknown._replace(state="fault", cause=cause, message=message)


def _cause(look: RecordLook, hours: Sequence[HourSums], own: Sequence[VariantSums]) -> str:
    decisions = sum(part.decisions for part in own)
    if sum(part.fallbacks for part in own) > _CAUSED * decisions:
        return "policy_fails"
    if sum(part.single for part in own) > _CAUSED * decisions:
        return "few_eligible"
    if "reward_silence" in look.faults:
        return "rewards_silent"
    if look.changed_in(hours) is not None:
        return "file_changed"
    return "one_action_leads"
