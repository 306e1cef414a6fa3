"""Evaluation on a log that a learning policy wrote: its rows depend on each other, so the plain
mean is biased and the plain interval too narrow.

Weighting the doubly robust scores Γ_t = dm_t + w_t(r_t − q̂_t) by h_t = (Σ_a
π(a|x_t)²/p_t(a|x_t))^(−½), the inverse of their predictable standard deviation up to a factor,
makes the variance of the sum settle, and the studentised mean normal again. q̂ must come from the
past only.
"""

from __future__ import annotations

from topbill.ope.estimators.estimator import Estimator
from topbill.ope.estimators.formula import Column, Formula, Symbols, mean, ratio


def _score(x: Symbols) -> Column:
    """Γ, whose mean is the policy's value whatever q̂ is."""
    return x.dm + x.w * (x.r - x.q)


def _stabilised(x: Symbols, _: float) -> Formula:
    # h is known before the row's action is drawn, so that the weighted sum stays a martingale.
    return ratio(x.h * _score(x), x.h)


ADAPTIVE_DR = Estimator(
    name="adaptive-dr",
    title="Stabilised doubly robust for adaptive logs",
    paper="Hadad et al. 2021 (one action), Zhan et al. 2021 (StableVar): Σ h(dm + w(r − q̂)) / Σ h",
    assumes="propensities as drawn; q̂ and p predictable; a policy value that does not drift",
    formula=_stabilised,
    assumptions=("propensities", "positivity", "own_past", "stationary"),
    # Each row's score has the value of its own time. Where the value drifts and h moves with the
    # log's probabilities, the h-weighted mean is of other times than the plain one.
    check=lambda x: mean(_score(x)),
    check_name="dr",
    breach="value_drifts",
)
FAMILY = (ADAPTIVE_DR,)
