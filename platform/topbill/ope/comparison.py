"""From one pass through a log to estimates of each target, and to how much more each earns than the
log and than the others, on the same decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from topbill.domain.records import Floats, Indices
from topbill.ope.diagnostics import Gates, foreseen_se, option_for
from topbill.ope.differences import Side, difference
from topbill.ope.estimation import columns_from, estimate, from_columns
from topbill.ope.estimators import ESTIMATORS, chosen
from topbill.ope.estimators.estimator import Estimator
from topbill.ope.estimators.formula import Formula, Symbols, mean, named
from topbill.ope.estimators.slate import SLATE_ESTIMATORS
from topbill.ope.intervals import Interval, Lam
from topbill.ope.replay.progressive import ProgressivePass, TargetColumns
from topbill.ope.replay.targets import FunctionPolicy, TargetPolicy, VariantPolicy
from topbill.ope.result import Estimate, Estimates
from topbill.ope.slate_estimation import chosen_slate, from_slate_columns, slate_columns

THE_LOG = "the log"
"""What the decisions themselves earned, as a baseline."""
ALL_PAIRS = 8
"""Up to so many targets each is compared with each other; of more, each with the first."""


class EvaluationOptions(NamedTuple):
    """What every estimate of one evaluation is made with."""

    alpha: float
    interval: Interval
    gates: Gates | None
    lam: Lam | Mapping[str, Lam] = None


class PairOfNames(NamedTuple):
    """A target, and what it is compared with."""

    target: str
    baseline: str


class Compared(NamedTuple):
    """What the log earned per decision, each target's estimates, and the differences of pairs."""

    logged: Estimate
    by_target: dict[str, Estimates]
    differences: dict[PairOfNames, Estimates]


class _Weighed(NamedTuple):
    """A target's estimates, and by estimator what a difference to another is made of."""

    estimates: Estimates
    sides: dict[str, Side]
    log: Formula
    units: Indices | None


def compare_targets(
    scored: ProgressivePass, names: Sequence[str], options: EvaluationOptions
) -> Compared:
    """The estimates of every target by the estimators of these names, and their differences."""
    totals = np.bincount(scored.log.slate.whole, weights=scored.log.reward.values).astype(float)
    units = np.array(scored.units, dtype=object)
    weigh = _ranking if scored.ranking else _single
    by_name: dict[str, _Weighed] = {}
    noted: dict[str, Estimates] = {}
    for target, columns in zip(scored.targets, scored.of_target, strict=True):
        name = _unique(target.name, by_name)
        weighed = by_name[name] = weigh(scored, columns, totals, units, names, options)
        notes = (*_dependence(scored, weighed.estimates), *notes_of(target))
        noted[name] = weighed.estimates.noted(*notes)
    half = options._replace(alpha=options.alpha / 2)
    # Two betting intervals hold together where each has half the level.
    log_options = half if options.interval == "betting" else options
    baseline = _of_log(scored, totals, units, log_options)
    differences: dict[PairOfNames, Estimates] = {}
    for name, weighed in by_name.items():
        sides = {each: _log_side(weighed, each, baseline) for each in weighed.sides}
        differences[PairOfNames(name, THE_LOG)] = _difference(weighed, sides, options)
    for earlier, later in _pairs(list(by_name)):
        pair = PairOfNames(later, earlier)
        differences[pair] = _difference(by_name[later], by_name[earlier].sides, options)
    return Compared(_of_log(scored, totals, units, options), noted, differences)


def notes_of(target: TargetPolicy) -> tuple[str, ...]:
    """What must be known of a target beside its numbers; a caller's own says nothing."""
    return target.notes if isinstance(target, FunctionPolicy | VariantPolicy) else ()


def _unique(name: str, names: Mapping[str, Any]) -> str:
    """The name; with a number where two files have an experiment and variant of one name."""
    count = 2
    label = name
    while label in names:
        label = f"{name} ({count})"
        count += 1
    return label


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    if len(names) <= ALL_PAIRS:
        return list(combinations(names, 2))
    return [(names[0], later) for later in names[1:]]


def _dependence(scored: ProgressivePass, estimates: Estimates) -> list[str]:
    """What to make of a log that a learning policy wrote."""
    if scored.facts()["policy_versions"] < 2:
        return []
    if scored.ranking:
        return [
            "a learning policy wrote this log: intervals of rankings may be somewhat too narrow; "
            f"wider ones are those of {option_for('sequence')}"
        ]
    adaptive = estimates.get("adaptive-dr")
    if adaptive is not None and adaptive.reason == "value_drifts":
        return ["the policy's value drifted with the log's probabilities: read dr, not adaptive-dr"]
    return [
        "a learning policy wrote this log: adaptive-dr allows for that where values do not drift, "
        "which is checked against dr"
    ]


def _of_log(
    scored: ProgressivePass, totals: Floats, units: Any, options: EvaluationOptions
) -> Estimate:
    """What the log earned: the policy that chose it weighs one."""
    certain = np.ones(totals.size)
    return estimate(
        totals,
        certain,
        certain,
        units=units,
        weights=scored.row_weights,
        estimators=("ips",),
        facts=scored.facts(),
        alpha=options.alpha,
        interval=options.interval,
        gates=options.gates,
    )["ips"]


def _log_side(weighed: _Weighed, name: str, logged: Estimate) -> Side:
    return Side(logged, weighed.log, weighed.sides[name].env, weighed.log)


def _difference(
    ours: _Weighed, theirs: Mapping[str, Side], options: EvaluationOptions
) -> Estimates:
    differences = Estimates()
    gates = options.gates or Gates()
    for name, side in ours.sides.items():
        differences[name] = difference(
            _registered(name),
            side,
            theirs[name],
            ours.units,
            alpha=options.alpha,
            interval=options.interval,
            drift_z=gates.drift_z,
        )
    return differences


def _registered(name: str) -> Estimator:
    return ESTIMATORS[name] if name in ESTIMATORS else SLATE_ESTIMATORS[name].at(1)


def _single(
    scored: ProgressivePass,
    columns: TargetColumns,
    totals: Floats,
    units: Any,
    names: Sequence[str],
    options: EvaluationOptions,
) -> _Weighed:
    # One slot: a row a decision, so that the placements' columns are the decisions'.
    log, weights = scored.log, scored.row_weights
    variances = np.maximum(columns.weight_moment.values - 1.0, 0.0)
    foreseen = {
        "foreseen_se": foreseen_se(variances, weights),
        "calibration_foreseen": foreseen_se(log.inverse_variance.values, weights),
    }
    env, codes, facts = columns_from(
        totals,
        log.propensity.values,
        columns.propensity.values,
        q_logged=log.modelled.values,
        q_target=columns.modelled.values,
        units=units,
        eligible=log.choices.values,
        unsupported=columns.unsupported.values,
        weight_moments=scored.predictable_moments(columns.weight_moment.values),
        embedding_propensities=scored.complete(log.feature_propensity),
        target_embedding_propensities=scored.complete(columns.feature_propensity),
        weights=weights,
        facts=scored.facts() | foreseen,
    )

    env["unrewarded"] = np.full(env["r"].size, scored.unrewarded)

    def at(alpha: float) -> Estimates:
        return from_columns(
            env,
            codes,
            facts,
            estimators=names,
            lam=options.lam,
            alpha=alpha,
            interval=options.interval,
            gates=options.gates,
        )

    estimates = at(options.alpha)
    halves = at(options.alpha / 2) if options.interval == "betting" else estimates
    x = Symbols()
    sides = {}
    for each in chosen(names):
        own = halves[each.name]
        check = each.check(x) if each.breach and each.check is not None else None
        sides[each.name] = Side(own, each.formula(x, own.lam or 0.0), env, check)
    return _Weighed(estimates, sides, mean(x.r), codes)


def _ranking(
    scored: ProgressivePass,
    columns: TargetColumns,
    totals: Floats,  # noqa: ARG001  (a ranking's rewards are its items')
    units: Any,
    names: Sequence[str],
    options: EvaluationOptions,
) -> _Weighed:
    """The logged propensities are given the items above, so slate and cascade levels are their
    products.
    """
    estimators = chosen_slate(names)
    log, weights = scored.log, scored.row_weights
    slate, position = log.slate.whole, log.position.whole
    logged = _cascade(log.propensity.values, position)
    target = _cascade(columns.propensity.values, position)
    # The product down to a slate's last position is the slate's own propensity.
    last_rows = np.append(np.flatnonzero(position == 0)[1:], position.size) - 1
    facts = scored.facts() | {"unsupported": scored.mean_of_items(columns.unsupported.values)}
    spread = slate_columns(
        log.reward.values,
        slate_id=slate,
        position=position,
        propensities=logged[last_rows][slate],
        target_propensities=target[last_rows][slate],
        cascade_propensities=logged,
        target_cascade_propensities=target,
        q_logged=log.modelled.values,
        q_target=columns.modelled.values,
        units=units[slate],
        weights=None if weights is None else weights[slate],
        weight_moments=columns.weight_moment.values,
    )
    items = np.bincount(slate).astype(np.float64)
    spread.env["unrewarded"] = items * scored.unrewarded
    estimates = from_slate_columns(
        spread,
        estimators,
        alpha=options.alpha,
        interval=options.interval,
        facts=facts,
        gates=options.gates,
    )
    sides = {}
    for each in estimators:
        sides[each.name] = Side(estimates[each.name], each.formula(spread.positions), spread.env)
    return _Weighed(estimates, sides, mean(named("reward")), spread.units)


def _cascade(p: Floats, position: Indices) -> Floats:
    """(n,) products of `p` from each slate's first position down; rows are in the order of slates
    and positions.
    """
    products = p.copy()
    for k in range(1, int(position.max()) + 1):
        rows = np.flatnonzero(position == k)
        products[rows] *= products[rows - 1]
    return products
