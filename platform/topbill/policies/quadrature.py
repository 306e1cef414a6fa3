"""The probability that each of K independent Gaussian scores is the highest: Thompson sampling without sampling."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

from topbill.records import Floats

_REACH = 6.0
_RAMP = 0.1
_STEP = 0.45


def win_probabilities(mean: Floats, sd: Floats) -> Floats:
    """(K,) P(score k is the highest) for independent scores N(mean, sd²), K ≥ 1, sd > 0; sums to 1.

    P_k = ∫ φ_k(t) ∏_{j≠k} Φ_j(t) dt by the trapezoid rule on one grid for all k. The highest score almost surely
    exceeds lo = max(mean − 6·sd), and above lo no score that matters has structure finer than a twelfth of its
    distance to lo; so t = lo + a·sinh(u) with even steps in u resolves narrow and wide scores alike, and the
    rule converges exponentially (Trefethen and Weideman 2014). Above lo no Φ underflows.
    """
    if mean.size == 1:
        return np.ones(1)
    reach = _REACH * sd
    lo = float((mean - reach).max())
    tops = mean + reach
    hi = float(tops.max())
    finest = float(sd[tops >= lo].min()) / _RAMP
    top = math.asinh((hi - lo) / finest) / _RAMP
    n = int(top / _STEP) + 2
    u = np.arange(n) * (_RAMP * top / (n - 1))
    z = (lo + finest * np.sinh(u) - mean[:, None]) / sd[:, None]
    below = ndtr(z)
    weight = np.cosh(u) * np.multiply.reduce(below, axis=0)
    density = np.exp(-0.5 * z * z)
    density /= below
    p = (density @ weight) / sd
    return np.asarray(p / p.sum())
