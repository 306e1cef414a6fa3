"""How much more one policy earns than another on one log, as one paired estimate.

What both policies' weights share cancels row by row, so the difference is often known far better
than either value. Paper: Jeunen & Ustimenko 2024, "Δ-OPE: Off-policy estimation with pairs of
policies": mean((w_π − w_π′) r), and the same pairing of any two formulas here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from topbill.domain.records import Indices
from topbill.ope.diagnostics import OPEN
from topbill.ope.estimation import summarise
from topbill.ope.estimators.estimator import Estimator
from topbill.ope.estimators.formula import Env, Formula, Symbols
from topbill.ope.intervals import Interval, Planned, assess, columns_of
from topbill.ope.result import Estimate, refused

_THEIRS = "theirs_"


class Side(NamedTuple):
    """One of the two policies: its own estimate, the formula that gave it over the columns of
    `env`, and the formula that one is checked against, where there is one.
    """

    estimate: Estimate
    formula: Formula
    env: Env
    check: Formula | None = None


def difference(
    estimator: Estimator,
    ours: Side,
    theirs: Side,
    units: Indices | None,
    *,
    alpha: float,
    interval: Interval,
    replicates: int = 1000,
    drift_z: float = 2.0,
) -> Estimate:
    """The value of one policy minus that of another, both by one estimator on the same rows.

    Either's refusal is the difference's. With `interval="betting"` the bounds are those of the two
    estimates, which must have been made at alpha/2 each, so that both hold together.
    """
    weaker = min((ours.estimate, theirs.estimate), key=_strength)
    if weaker.reason:
        return refused(estimator.name, weaker.reason, weaker.diagnostics, alpha)
    if interval == "betting":
        return _of_bounds(estimator.name, ours.estimate, theirs.estimate, alpha)
    # One formula over both policies' columns: what their weights share cancels in each row, which
    # two estimates subtracted would not do.
    paired = {**ours.env, **{_THEIRS + name: each for name, each in theirs.env.items()}}
    # Rankings have weights by position; the diagnostics that these are for are there already.
    paired.setdefault("w", np.ones(paired["r"].size))
    formula = ours.formula - theirs.formula.under(_THEIRS)
    check = None
    if ours.check is not None and theirs.check is not None:
        check = ours.check - theirs.check.under(_THEIRS)
    planned = [Planned(replace(estimator, lambdas=()), {0.0: formula}, None, check)]
    summary = summarise(
        paired, units, columns_of(planned, Symbols()), bootstrap=interval == "bootstrap"
    )
    results = assess(
        planned,
        summary,
        weaker.diagnostics,
        alpha=alpha,
        interval=interval,
        # Both policies passed the caller's gates by themselves.
        gates=replace(OPEN, drift_z=drift_z),
        replicates=replicates,
    )
    return results[estimator.name]


def _strength(e: Estimate) -> tuple[bool, float]:
    return e.reason is None, e.diagnostics.ess


def _of_bounds(name: str, ours: Estimate, theirs: Estimate, alpha: float) -> Estimate:
    """What two intervals that hold together say of the difference."""
    low, high = ours.low or 0.0, ours.high or 0.0
    value = (ours.value or 0.0) - (theirs.value or 0.0)
    weaker = min((ours, theirs), key=_strength)
    return Estimate(
        name,
        value,
        None,
        low - (theirs.high or 0.0),
        high - (theirs.low or 0.0),
        None,
        weaker.diagnostics,
        method="betting intervals of both at half the level, finite-sample, by unit",
        alpha=alpha,
    )
