"""Two arms' moments become two estimates: plain, CUPED or Lin's, post-stratified when there are
strata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from topbill.ab import reasons
from topbill.ab.core.effect import ArmEstimate
from topbill.ab.core.gather import Arm, Plan
from topbill.stats.moments import Linear, Moments, cuped, cuped_theta, lin

Adjustment = Literal["cuped", "lin"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A variant and the control on one metric; where `reason` is not empty they cannot be compared.

    `saved` is the share of the difference's variance that the covariate took away; None without
    one."""

    treated: ArmEstimate | None
    control: ArmEstimate | None
    reason: str
    n: int
    n_control: int
    saved: float | None = None


def estimate(
    plan: Plan, treated: Mapping[Any, Arm], control: Mapping[Any, Arm], adjust: Adjustment = "cuped"
) -> Pair:
    """The estimates of two arms, each given by stratum (one stratum when there are none)."""
    t, c = _total(treated), _total(control)
    n, n_control = (arm.n if arm else 0 for arm in (t, c))
    reason = _reason(plan, t, c)
    if t is None or c is None or reason:
        shown = [
            None if arm is None or _unusable(plan, arm) else _plain(plan, arm) for arm in (t, c)
        ]
        return Pair(shown[0], shown[1], reason, n, n_control)
    strata = _paired_strata(treated, control)
    one, other = (
        pair_of(plan, t, c, adjust) if len(strata) < 2 else _stratified(plan, strata, adjust)
    )
    saved = None
    if plan.covariate is not None and (whole := _unadjusted(plan, t) + _unadjusted(plan, c)) > 0.0:
        saved = 1.0 - (one.variance + other.variance) / whole
    return Pair(one, other, reason, n, n_control, saved)


def pair_of(
    plan: Plan, treated: Arm, control: Arm, adjust: Adjustment = "cuped"
) -> tuple[ArmEstimate, ArmEstimate]:
    """The two estimates without strata, adjusted where the plan has a covariate."""
    if plan.covariate is None:
        return _plain(plan, treated), _plain(plan, control)
    if (
        adjust == "lin" and plan.terms[1][0] == plan.covariate
    ):  # nothing is divided by: one value a unit
        a = lin(treated.moments, control.moments, plan.terms[0][0], plan.covariate)
        return (
            ArmEstimate(a.treated + plan.shift, a.treated_variance, treated.n),
            ArmEstimate(a.control + plan.shift, a.control_variance, control.n),
        )
    merged = treated.moments + control.moments
    theta = cuped_theta(merged, plan.statistic, plan.covariate)
    found = []
    for arm in (treated, control):
        adjusted = cuped(arm.moments, merged, plan.statistic, plan.covariate, theta)
        found.append(_estimate(plan, adjusted, arm))
    return found[0], found[1]


def _plain(plan: Plan, arm: Arm) -> ArmEstimate:
    return _estimate(
        plan, plan.statistic(arm.moments), arm, arm.moments.n if plan.binomial else None
    )


def _unadjusted(plan: Plan, arm: Arm) -> float:
    return _estimate(plan, plan.statistic(arm.moments), arm).variance


def _estimate(plan: Plan, found: Linear, arm: Arm, divisor: int | None = None) -> ArmEstimate:
    variance = found.variance(arm.moments, divisor=divisor)
    real = variance > found.rounding(arm.moments)
    return ArmEstimate(found.value + plan.shift, variance if real else 0.0, arm.n)


def _total(by_stratum: Mapping[Any, Arm]) -> Arm | None:
    total: Arm | None = None
    for arm in by_stratum.values():
        total = arm if total is None else total + arm
    return total


def _unusable(plan: Plan, arm: Arm) -> str:
    if arm.infinite or not np.all(np.isfinite(arm.moments.scatter)):
        return reasons.INFINITE_VALUES
    return reasons.NO_VALUES if arm.n == 0 or _weight(plan, arm.moments) == 0.0 else reasons.OK


def _reason(plan: Plan, treated: Arm | None, control: Arm | None) -> str:
    if control is None and treated is None:
        return reasons.NO_TRAFFIC
    if control is None:
        return reasons.MISSING_CONTROL
    if treated is None:
        return reasons.NO_TRAFFIC
    for arm in (treated, control):
        if (reason := _unusable(plan, arm)) != reasons.OK:
            return reason
    return reasons.TOO_FEW_UNITS if min(treated.n, control.n) < 2 else reasons.OK


def _weight(plan: Plan, moments: Moments) -> float:
    """What the statistic divides by: the denominator's total, or the number of units."""
    if len(plan.terms) > 1 and plan.terms[1][0] != plan.covariate:
        return moments.total(plan.terms[1][0])
    return float(moments.n)


def _paired_strata(treated: Mapping[Any, Arm], control: Mapping[Any, Arm]) -> list[tuple[Arm, Arm]]:
    """Strata in which both arms have two units; the rest is pooled, and joins the largest if still
    too thin.
    """
    whole: list[tuple[Arm, Arm]] = []
    thin: dict[str, Arm | None] = {"t": None, "c": None}
    for key in {*treated, *control}:
        t, c = treated.get(key), control.get(key)
        if t and c and min(t.n, c.n) >= 2:
            whole.append((t, c))
            continue
        for side, arm in (("t", t), ("c", c)):
            old = thin[side]
            thin[side] = arm if old is None else old if arm is None else old + arm
    t, c = thin["t"], thin["c"]
    if t is None and c is None:
        return whole
    if t and c and min(t.n, c.n) >= 2:
        return [*whole, (t, c)]
    if not whole:
        return []
    whole.sort(key=lambda pair: pair[0].n + pair[1].n)
    last_t, last_c = whole[-1]
    return [*whole[:-1], (last_t + t if t else last_t, last_c + c if c else last_c)]


def _stratified(
    plan: Plan, strata: list[tuple[Arm, Arm]], adjust: Adjustment
) -> tuple[ArmEstimate, ArmEstimate]:
    """Σ W_s · estimate_s, W_s the stratum's share of both arms together (Miratrix, Sekhon & Yu
    2013, eq. 3).
    """
    weights = np.array([_weight(plan, t.moments + c.moments) for t, c in strata])
    weights = weights / weights.sum()
    pairs = [pair_of(plan, t, c, adjust) for t, c in strata]
    found = []
    for side in (0, 1):
        value = sum(w * p[side].value for w, p in zip(weights, pairs, strict=True))
        variance = sum(w * w * p[side].variance for w, p in zip(weights, pairs, strict=True))
        found.append(
            ArmEstimate(float(value), float(variance), sum(pair[side].n for pair in strata))
        )
    return found[0], found[1]
