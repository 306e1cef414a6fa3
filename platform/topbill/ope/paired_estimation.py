"""Δ-OPE on arrays: how much better one policy is than another (see `differences`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from topbill.domain.errors import BadRequest
from topbill.ope.diagnostics import Gates
from topbill.ope.differences import Side, difference
from topbill.ope.estimation import checked, from_columns
from topbill.ope.estimators import chosen
from topbill.ope.estimators.estimator import Estimator
from topbill.ope.estimators.formula import Env, Symbols
from topbill.ope.inputs import refuse_misaligned, row_weights, unit_codes
from topbill.ope.intervals import Interval, Lam, check_options
from topbill.ope.result import Estimate, Estimates


def delta_ope(
    rewards: Any,
    propensities: Any,
    target_propensities: Any,
    baseline_propensities: Any,
    *,
    q_logged: Any = None,
    q_target: Any = None,
    q_baseline: Any = None,
    units: Any = None,
    weights: Any = None,
    estimators: Sequence[str] = ("ips", "snips", "dr"),
    lam: Lam | Mapping[str, Lam] = None,
    alpha: float = 0.05,
    interval: Interval = "normal",
    replicates: int = 1000,
    gates: Gates | None = None,
) -> Estimates:
    """Value of the target minus value of the baseline, per decision.

    Args:
        rewards, propensities, target_propensities, q_logged, q_target, units, weights: columns as
            in `estimate` (n each).
        baseline_propensities: the baseline's probability of the logged action.
        q_baseline: Σ_a π′(a|x) q̂(x, a) of the baseline.
        estimators, alpha, replicates, gates: as in `estimate`. Either policy's failing gate refuses
            the difference.
        lam: as in `estimate`; a λ to be chosen is chosen for each policy by itself.
        interval: "normal", "bootstrap" or "sequence".

    Returns:
        A difference by estimator. The diagnostics shown are those of the policy with the smaller
        effective sample.

    Raises:
        BadData: naming the rows of a column that cannot be used.
        BadRequest: for an unknown name or option.
    """
    check_options(alpha, interval)
    if interval == "betting":
        raise BadRequest(
            "interval",
            "got 'betting'; expected 'normal', 'bootstrap' or 'sequence' for a difference",
        )
    refuse_misaligned(
        rewards=rewards,
        propensities=propensities,
        target_propensities=target_propensities,
        baseline_propensities=baseline_propensities,
        q_logged=q_logged,
        q_target=q_target,
        q_baseline=q_baseline,
        units=units,
        weights=weights,
    )
    target = checked(rewards, propensities, target_propensities, q_logged, q_target)
    baseline = checked(rewards, propensities, baseline_propensities, q_logged, q_baseline)
    if weights is not None:
        target["weight"] = baseline["weight"] = row_weights(weights, target["r"].size)
    codes = unit_codes(units, target["r"].size)
    options: dict[str, Any] = {"estimators": estimators, "lam": lam, "alpha": alpha, "gates": gates}
    # Each policy alone first: its λ, and whether the log can speak for it at all.
    ours = from_columns(target, codes, {}, **options)
    theirs = from_columns(baseline, codes, {}, **options)
    differences = Estimates()
    for each in chosen(estimators):
        name = each.name
        differences[name] = difference(
            each,
            _side(each, ours[name], target),
            _side(each, theirs[name], baseline),
            codes,
            alpha=alpha,
            interval=interval,
            replicates=replicates,
        )
    return differences


def _side(estimator: Estimator, estimate: Estimate, env: Env) -> Side:
    return Side(estimate, estimator.formula(Symbols(), estimate.lam or 0.0), env)
