"""An e-process for counts that were drawn with known probabilities, exact at any sample size."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from topbill.domain.records import Floats

_STEPS: Floats = 2.0 ** np.arange(-12.0, 3.0)
_THETAS: Floats = np.concatenate([_STEPS, -_STEPS])
"""Bets on more and on fewer draws than expected: each twice the one before, so that for any size of
a deviation one of them is within √2 of the best.
"""


def log_e_of_draws(gap: ArrayLike, variance: ArrayLike) -> Floats:
    """ln of the e-value (same shape) that draws had the probabilities p which are said of them.

    Bennett's inequality (1962): E exp(θ(X − p)) ≤ exp(p(1 − p)(e^|θ| − 1 − |θ|)) for X drawn with
    p. So exp(θ·gap − variance·(e^|θ| − 1 − |θ|)) is a supermartingale whatever p follows from the
    past, and so is the mean over several θ: it passes 1/α with probability α at most, however often
    one looks (Ville 1939).

    Args:
        gap: Σ(X − p): how much more often it was drawn than was to be expected.
        variance: Σp(1 − p).
    """
    difference = np.asarray(gap, dtype=np.float64)[..., None]
    spread = np.asarray(variance, dtype=np.float64)[..., None]
    size = np.abs(_THETAS)
    bets = _THETAS * difference - spread * (np.expm1(size) - size)
    return log_mean_exp(bets)


def log_mean_exp(logs: Floats) -> Floats:
    """ln of the mean of e^x over the last axis: of e-values, an e-value again."""
    largest = logs.max(axis=-1)
    return np.asarray(largest + np.log(np.exp(logs - largest[..., None]).mean(axis=-1)))
