"""Choosing an estimator's λ from the log itself: by SLOPE, or by a bound on its mean squared
error.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from typing import TYPE_CHECKING, NamedTuple

from topbill import late

if TYPE_CHECKING:
    from scipy.special import stdtrit
else:
    stdtrit = late.name("scipy.special", "stdtrit")


DELTA = 0.1
_WIDEN = sqrt(6) - 1


class LambdaEstimate(NamedTuple):
    """An estimate at one λ."""

    lam: float
    value: float
    se: float
    units: int


def slope(candidates: Sequence[LambdaEstimate]) -> float:
    """SLOPE of Su, Srinath & Krishnamurthy 2020, with the wider constant √6 − 1 of Tucker & Lee
    2021 (SLOPE++).

    Walks from the widest interval to the narrowest and stops before the first estimate whose
    interval no longer meets all before it: less variance is taken as long as no bias shows.
    Intervals are Student's t at δ = 0.1.
    """
    widths: dict[float, float] = {}
    for c in candidates:
        widths[c.lam] = c.se * float(stdtrit(max(c.units - 1, 1), 1 - DELTA))
    # From wide to narrow, which is from little bias to much; of equals, the larger λ first.
    ordered = sorted(candidates, key=lambda c: (-widths[c.lam], -c.lam))
    for i, c in enumerate(ordered):
        for before in ordered[:i]:
            if abs(before.value - c.value) > widths[c.lam] + _WIDEN * widths[before.lam]:
                return ordered[i - 1].lam
    return ordered[-1].lam


def mse_bound(
    candidates: Sequence[LambdaEstimate], unbiased: LambdaEstimate, square: float, largest: float
) -> float:
    """Su et al. 2020, "Doubly robust off-policy evaluation with shrinkage", section 5: the
     λ of least variance + squared upper bound of the bias.

    The bias is |value(λ) − value(unbiased)| plus Bernstein's radius at δ = 0.1, `square` the mean
    of w² and `largest` the largest w; the first of equals wins.
    """
    # Bernstein: the unbiased estimate has noise, so the observed gap may be short by as much.
    n = unbiased.units
    radius = sqrt(2 * square * log(2 / DELTA) / n) + 2 * largest * log(2 / DELTA) / (3 * n)

    def bound(c: LambdaEstimate) -> float:
        variance = c.se**2 * (c.units - 1) / c.units
        return variance + (abs(c.value - unbiased.value) + radius) ** 2

    return min(candidates, key=bound).lam
