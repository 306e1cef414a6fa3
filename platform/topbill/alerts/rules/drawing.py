"""Propensity mismatch: actions are drawn more or less often than the probabilities say that are
logged with them.

Of each variant and action the exact e-process of `stats.bennett`, over the window and over the day;
of a variant the mean over its actions, which is an e-value again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import inf

from topbill.alerts.rules.look import CALM_LOG_E, LEAST, LOG_LEVEL, RecordLook, RuleReading
from topbill.alerts.sums import ActionSums, HourSums, VariantSums, merged_actions
from topbill.stats.bennett import log_e_of_draws, log_mean_exp


def propensity_mismatch(look: RecordLook) -> list[RuleReading]:
    """A reading of each variant's spans."""
    readings = []
    for variant in look.variants:
        size = partial(_decisions, variant)
        spans = look.spans("propensity_mismatch", variant, size)
        for span, hours in spans.items():
            own = [hour.variants[variant] for hour in hours if variant in hour.variants]
            readings.append(_reading(look, variant, span, hours, own))
    return readings


def _decisions(variant: str, hour: HourSums) -> float:
    return hour.variants.get(variant, VariantSums()).decisions


def _reading(
    look: RecordLook,
    variant: str,
    span: str,
    hours: Sequence[HourSums],
    own: Sequence[VariantSums],
) -> RuleReading:
    actions = merged_actions(own)
    evidence = _evidence(actions)
    reading = RuleReading("propensity_mismatch", variant, span, "unknown")
    if evidence >= LOG_LEVEL:
        cause, message = _explained(look, variant, hours, actions)
        return reading._replace(state="fault", cause=cause, message=message)
    if sum(part.decisions for part in own) >= LEAST and evidence < CALM_LOG_E:
        return reading._replace(state="sound")
    return reading


def _evidence(actions: Mapping[str, ActionSums]) -> float:
    """ln of the e-value against the logged probabilities; infinite after an impossible draw."""
    if not actions:
        return 0.0
    if any(sums.impossible for sums in actions.values()):
        return inf
    gaps = [sums.drawn - sums.expected for sums in actions.values()]
    variances = [sums.variance for sums in actions.values()]
    return float(log_mean_exp(log_e_of_draws(gaps, variances)))


def _explained(
    look: RecordLook, variant: str, hours: Sequence[HourSums], actions: Mapping[str, ActionSums]
) -> tuple[str, str]:
    impossible = sum(sums.impossible for sums in actions.values())
    if impossible:
        times = "once" if impossible == 1 else f"{impossible:,} times"
        return (
            "shown_not_drawn",
            f"{variant} shows actions that had no probability, {times} in the last {len(hours)} h.",
        )
    worst = max(actions, key=lambda name: _z(actions[name]))
    sums = actions[worst]
    message = (
        f"{variant} drew {worst} {sums.drawn:,} times in the last {len(hours)} h where its "
        f"probabilities say {sums.expected:,.0f}."
    )
    changed = look.changed_in(hours) is not None
    return "file_changed" if changed else "draw_differs", message


def _z(sums: ActionSums) -> float:
    return (sums.drawn - sums.expected) ** 2 / max(sums.variance, 1e-9)
