"""Δ-OPE: how much better one policy is than another, estimated as one paired difference on one log.

What both policies' weights share cancels row by row, so the difference is often known far better
than either value. Paper: Jeunen & Ustimenko 2024, "Δ-OPE: Off-policy estimation with pairs of
policies": mean((w_π − w_π′) r), and the same pairing of any two formulas here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from topbill.domain.errors import BadRequest
from topbill.domain.records import Indices
from topbill.ope.diagnostics import OPEN, Gates
from topbill.ope.estimation import checked, from_columns, summarise
from topbill.ope.estimators import chosen
from topbill.ope.estimators.estimator import Estimator
from topbill.ope.estimators.formula import Env, Formula, Symbols, named
from topbill.ope.inputs import refuse_misaligned, row_weights, unit_codes
from topbill.ope.intervals import Interval, Lam, Planned, assess, check_options, columns_of
from topbill.ope.result import Estimate, Estimates

_BASELINE = Symbols(w=named("w_b"), dm=named("dm_b"))


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
    paired = dict(target)
    for name in ("w", "dm"):
        if name in baseline:
            paired[f"{name}_b"] = baseline[name]
    differences = Estimates()
    for each in chosen(estimators):
        name = each.name
        differences[name] = _difference(
            each, ours[name], theirs[name], paired, codes, alpha, interval, replicates
        )
    return differences


def _difference(
    estimator: Estimator,
    ours: Estimate,
    theirs: Estimate,
    env: Env,
    codes: Indices | None,
    alpha: float,
    interval: Interval,
    replicates: int,
) -> Estimate:
    weaker = min((ours, theirs), key=lambda e: (e.reason is None, e.diagnostics.ess))
    if weaker.reason:
        return weaker
    # One formula over both policies' columns: what their weights share cancels in each row, which
    # two estimates subtracted would not do.
    own = estimator.formula(Symbols(), ours.lam or 0.0)
    formula: Formula = own - estimator.formula(_BASELINE, theirs.lam or 0.0)
    planned = [Planned(replace(estimator, lambdas=()), {0.0: formula}, None)]
    summary = summarise(
        env, codes, columns_of(planned, Symbols()), bootstrap=interval == "bootstrap"
    )
    results = assess(
        planned,
        summary,
        weaker.diagnostics,
        alpha=alpha,
        interval=interval,
        gates=OPEN,  # both policies passed the caller's gates above
        replicates=replicates,
    )
    return results[estimator.name]
