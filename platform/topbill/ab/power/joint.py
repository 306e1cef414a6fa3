"""How many units until several things are shown at one look: a call and each guardrail."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from typing import TYPE_CHECKING

import numpy as np

from topbill import late
from topbill.ab.core.effect import Rule
from topbill.ab.power.runtime import Aim, looked_at, units_for
from topbill.domain.records import Floats

if TYPE_CHECKING:
    from scipy.stats import qmc
else:
    qmc = late.name("scipy.stats", "qmc")

_DRAWS = 2**13
"""Low-discrepancy draws, whose chances are right to some 0.1%."""


def units_for_all(
    aims: Sequence[Aim],
    correlation: Floats,
    rule: Rule,
    power: float = 0.8,
    *,
    beside: float = 0.0,
) -> int | None:
    """Units of both arms together until all `aims` are called at one look with probability `power`;
    None where no number would do.

    `correlation` (k, k) says how the aims' metrics go together within a unit, in the directions
    that the aims look. The first aim is called as one of its `tests`; each of the others stands for
    itself. `beside` as for `units_for`.
    """
    least = [units_for(aim, rule, power, beside=beside) for aim in aims]
    # If each fails with (1 − power)/k at most, all are there with `power` (Bonferroni).
    surer = 1.0 - (1.0 - power) / len(aims)
    most = [units_for(aim, rule, surer, beside=beside) for aim in aims]
    if len(aims) == 1:
        return least[0]
    low, high = _largest(least), _largest(most)
    if low is None or high is None:
        return None
    draws = _draws(_of_estimates(aims, correlation))
    # Of one set of draws the chance only grows with units, so that halving finds where it is
    # enough.
    while low < high:
        middle = (low + high) // 2
        if _chance(aims, draws, rule, middle, beside) >= power:
            high = middle
        else:
            low = middle + 1
    return low


def _largest(units: Sequence[int | None]) -> int | None:
    """The largest; None where one of them is None."""
    largest = 0
    for n in units:
        if n is None:
            return None
        largest = max(largest, n)
    return largest


def _of_estimates(aims: Sequence[Aim], correlation: Floats) -> Floats:
    """The estimates' correlation (k, k) from that within a unit: both arms' noise, each as large as
    it enters."""
    total = sum(aims[0].shares)
    by_arm = []
    for arm, share in enumerate(aims[0].shares):
        sds = np.array([aim.sds[arm] for aim in aims])
        by_arm.append(np.outer(sds, sds) * correlation * total / share)
    covariance = by_arm[0] + by_arm[1]
    size = np.sqrt(covariance.diagonal())
    return np.asarray(covariance / np.outer(size, size), dtype=np.float64)


def _draws(correlation: Floats) -> Floats:
    """Standard normal draws (n, k) with that correlation, always the same."""
    k = len(correlation)
    # Correlations estimated one by one may be no correlation matrix by a hair.
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    independent = qmc.MultivariateNormalQMC(np.zeros(k), seed=np.random.default_rng(0))
    return np.asarray(independent.random(_DRAWS) @ root.T, dtype=np.float64)


def _chance(aims: Sequence[Aim], draws: Floats, rule: Rule, units: int, beside: float) -> float:
    """The chance that all aims are called at that many units."""
    there = np.ones(len(draws), dtype=bool)
    for aim, z in zip(aims, draws.T, strict=True):
        drift = aim.room * sqrt(units) / aim.spread if aim.spread > 0.0 else inf
        there &= z + drift > rule.call_reach(looked_at(units, beside), inf, aim.tests)
    return float(there.mean())
