"""Non-inferiority: is a variant shown to be worse on a guardrail by no more than its margin?"""

from __future__ import annotations

from math import copysign, sqrt
from typing import Literal

from topbill.ab import reasons
from topbill.ab.core.arms import Pair
from topbill.ab.core.effect import ArmEstimate, Rule, effect, welch_df
from topbill.ab.results import GuardrailResult, GuardrailStatus


def guardrail(
    metric: str,
    variant: str,
    pair: Pair,
    rule: Rule,
    *,
    margin: float,
    better: Literal["higher", "lower"] = "higher",
) -> GuardrailResult:
    """Judge one variant on one guardrail.

    With margin m the tested quantity is t − (1 − m)c (or (1 + m)c − t where lower is better), which
    is positive when the variant is worse by less than m. No division, so the control's noise is in
    and a control near zero is no problem. "not_worse" when its whole interval is positive, "worse"
    when it is negative, else "undecided".
    """
    t, c = pair.treated, pair.control
    shown = {"metric": metric, "variant": variant, "margin": margin}
    if pair.reason or t is None or c is None:
        return GuardrailResult(**shown, status="unknown", reason=pair.reason)  # type: ignore[arg-type]
    plain = effect(metric, variant, t, c, rule)
    if plain.se is None:
        return GuardrailResult(**shown, status="unknown", reason=plain.reason)  # type: ignore[arg-type]
    status, p = _status(t, c, rule, margin, better)
    sign = -1.0 if better == "higher" else 1.0
    bounds = sorted(sign * x for x in (plain.relative_low, plain.relative_high) if x is not None)
    return GuardrailResult(
        metric=metric,
        variant=variant,
        margin=margin,
        status=status,
        worse_by=None if plain.relative is None else sign * plain.relative,
        worse_by_low=bounds[0] if bounds else None,
        worse_by_high=bounds[1] if bounds else None,
        p_value=p,
        reason=reasons.OK if bounds else reasons.CONTROL_NEAR_ZERO,
    )


def _status(
    t: ArmEstimate, c: ArmEstimate, rule: Rule, m: float, better: str
) -> tuple[GuardrailStatus, float | None]:
    direction = 1.0 if better == "higher" else -1.0
    k = 1.0 - direction * m * copysign(1.0, c.value)
    scaled = ArmEstimate(k * c.value, k * k * c.variance, c.n)
    room = direction * (t.value - scaled.value)
    se = sqrt(t.variance + scaled.variance)
    n, df = t.n + c.n, welch_df(t, scaled)
    reach = rule.reach(n, df)
    status: GuardrailStatus = "undecided"
    if room > reach * se:
        status = "not_worse"
    elif room < -reach * se:
        status = "worse"
    return status, rule.p_value(room / se, n, df)
