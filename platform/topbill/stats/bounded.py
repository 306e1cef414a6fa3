"""Confidence sequences for the mean of values in [0, 1] that hold for any number of them, however
often one looks.

Nothing is approximated, so they may be trusted from the first value on; the price is some width.
Each answers a bound for every prefix of the values, which come in the order in which they were
seen. `intervals.betting_lower` is tighter than those from values, and slower; `rate_sequence` needs
only counts.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import numpy as np

from topbill import late
from topbill.domain.records import Floats
from topbill.stats.intervals import plug_in_bets
from topbill.stats.sequential import mixture_rho

if TYPE_CHECKING:
    from scipy.optimize import brentq
    from scipy.special import betaln
else:
    brentq = late.name("scipy.optimize", "brentq")
    betaln = late.name("scipy.special", "betaln")


def bernstein_lower(x: Floats, alpha: float = 0.05) -> Floats:
    """Lower bounds (n,) that shrink with the observed variance, for values ≥ 0 without an upper
    end.

    The predictable plug-in empirical Bernstein bound (Waudby-Smith & Ramdas 2024, eq. 13), bets cut
    at ½. With importance weights w and rewards r in [0, 1], of w·r it bounds a policy's value from
    below, and 1 minus that of w·(1 − r) from above (Waudby-Smith et al. 2024, "Anytime-valid
    off-policy inference", §3).
    """
    # ψ(λ) = −log(1 − λ) − λ of each bet is what the squared surprises cost.
    bets = np.minimum(0.5, plug_in_bets(x, alpha, anytime=True, top=1.0))
    before = np.concatenate([[0.0], _running_mean(x)[:-1]])
    spent = np.square(x - before) * (-np.log1p(-bets) - bets)
    return np.asarray(
        (np.cumsum(bets * x) - np.cumsum(spent) + log(alpha)) / np.cumsum(bets), dtype=np.float64
    )


def bernstein_sequence(x: Floats, alpha: float = 0.05) -> tuple[Floats, Floats]:
    """Lower and upper bounds (n,): `bernstein_lower` of the values and of their mirror image."""
    low, high = (bernstein_lower(side, alpha / 2.0) for side in (x, 1.0 - x))
    return np.maximum(low, 0.0), np.minimum(1.0 - high, 1.0)


def rate_log_e(
    wins: Floats | float, n: Floats | float, rate: float, concentration: float
) -> Floats:
    """ln of the e-value against a chance `rate` in (0, 1) after `wins` of n, the mixture being Beta
    with mean `rate`.

    Howard & Ramdas 2022 ("Sequential estimation of quantiles"), eq. 3.3, which is the beta-binomial
    Bayes factor.
    """
    a, b = concentration * rate, concentration * (1.0 - rate)
    losses = np.asarray(n, dtype=np.float64) - wins
    gain = betaln(a + wins, b + losses) - betaln(a, b)
    return np.asarray(gain - wins * log(rate) - losses * np.log1p(-rate), dtype=np.float64)


def rate_concentration(tuning: float, alpha: float) -> float:
    """The Beta mixture's weight that makes sequences tightest near `tuning` values."""
    return max(mixture_rho(alpha, tuning) - 1.0, 1e-3)


def rate_sequence(
    wins: int, n: int, alpha: float = 0.05, *, tuning: float = 500.0
) -> tuple[float, float]:
    """Bounds of a chance after `wins` of n draws; those of all n hold at once with probability 1 −
    alpha.
    """
    tiny = 1e-12
    weight = rate_concentration(tuning, alpha / 2.0)
    # The e-value is small at the observed rate and grows to both sides, with a root on each.
    observed = min(max(wins / max(n, 1), tiny), 1.0 - tiny)

    def excess(rate: float) -> float:
        return float(rate_log_e(wins, n, rate, weight)) + log(alpha)

    low, high = 0.0, 1.0
    if wins > 0 and excess(tiny) > 0.0:
        low = float(brentq(excess, tiny, observed, xtol=1e-13))
    if wins < n and excess(1.0 - tiny) > 0.0:
        high = float(brentq(excess, observed, 1.0 - tiny, xtol=1e-13))
    return low, high


def _running_mean(x: Floats) -> Floats:
    return np.asarray(np.cumsum(x) / np.arange(1, x.size + 1), dtype=np.float64)
