"""Quantiles of independent values, with sequences and tests that hold for any number of them,
however often one looks.

Only order statistics and counts are used, so nothing is assumed of the distribution (Howard &
Ramdas 2022, "Sequential estimation of quantiles with applications to A/B testing").
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import exp, inf, log
from typing import TYPE_CHECKING

import numpy as np

from topbill import late
from topbill.domain.records import Floats
from topbill.stats.bounded import rate_concentration, rate_log_e
from topbill.stats.sequential import TUNING

if TYPE_CHECKING:
    from scipy.optimize import minimize_scalar
else:
    minimize_scalar = late.name("scipy.optimize", "minimize_scalar")


@dataclass(frozen=True, eq=False, slots=True)
class Ordered:
    """Values in ascending order out of n, of which `below` smaller ones (and the rest, larger) are
    not kept.
    """

    values: Floats
    n: int
    below: int = 0

    def up_to(self, x: Floats) -> Floats:
        """How many values are at most x."""
        return np.asarray(
            self.below + np.searchsorted(self.values, x, side="right"), dtype=np.float64
        )

    def less_than(self, x: Floats) -> Floats:
        """How many values are less than x."""
        return np.asarray(
            self.below + np.searchsorted(self.values, x, side="left"), dtype=np.float64
        )


def ranks(n: int, q: float, alpha: float = 0.05, tuning: float = TUNING) -> tuple[int, int]:
    """The least and greatest count of n values at or below the q-quantile that is not refuted, now
    or before.
    """
    weight, middle = rate_concentration(tuning, alpha), round(n * q)

    def stands(count: int) -> bool:
        return float(rate_log_e(float(count), n, q, weight)) <= -log(alpha)

    # The e-value falls towards the middle and rises beyond it, so each side is searched by halves.
    least = bisect_left(range(middle), True, key=stands)
    beyond = bisect_left(range(middle, n + 1), True, key=lambda count: not stands(count))
    return least, middle + beyond - 1


def quantile_sequence(
    x: Floats, q: float, alpha: float = 0.05, tuning: float = TUNING
) -> tuple[float, float]:
    """Bounds of the q-quantile from n values in ascending order; those of all n hold at once,
    chance 1 − alpha.
    """
    least, most = ranks(x.size, q, alpha, tuning)
    return (float(x[least - 1]) if least else -inf), (float(x[most]) if most < x.size else inf)


def equal_quantiles_p(
    one: Ordered,
    other: Ordered,
    q: float,
    *,
    alpha: float = 0.05,
    tuning: float = TUNING,
    shift: float = 0.0,
) -> float:
    """p-value, valid however often one looks, that the q-quantile of `one` is that of `other` plus
    `shift`.

    min over x of e₁(x + shift)·e₂(x), each arm's e-value being that of the share of its values at
    or below x (ibid., §5); `alpha` and `tuning` make the mixture tightest. The shifts with p >
    alpha are a confidence sequence.
    """
    weight = rate_concentration(tuning, alpha)
    # Counts change at values only, so the least is at one of them.
    points = np.unique(np.concatenate([one.values - shift, other.values]))
    total = np.zeros(points.size)
    for arm, at in ((one, points + shift), (other, points)):
        best = minimize_scalar(
            lambda share, n=arm.n: float(rate_log_e(share * n, n, q, weight)),
            bounds=(0.0, 1.0),
            method="bounded",
            options={"xatol": 1e-12},
        ).x
        # At a value that several units have, any count from those below to those at it will do: the
        # one nearest to the e-value's least.
        total += rate_log_e(
            np.clip(best * arm.n, arm.less_than(at), arm.up_to(at)), arm.n, q, weight
        )
    return min(1.0, exp(-float(total.min())))
