"""Effects of several experiments, each drawn towards what experiments like it are worth: whoever
launches what looked best has, on average, looked at luck as well (the winner's curse).

Empirical Bayes: true effects are taken for draws from one normal distribution, whose mean and
spread the measured effects themselves tell. An effect y with standard error √V becomes
(1 − B) y + B μ; the more of the spread of all effects is chance, the larger B is. A posterior mean
is not biased by having been picked, as long as those that were not picked are in the fit too: so
the losers count as much as the winners.

Paper: Morris, "Parametric Empirical Bayes Inference: Theory and Applications", JASA 78 (1983),
whose intervals allow for mean and spread being estimates. Of equal variances it is the estimator of
James & Stein towards the mean (Efron & Morris, JASA 70, 1975).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from topbill import late
from topbill.domain.records import Floats

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = late.name("scipy.stats")

FEWEST = 4
"""Effects that it takes: of fewer nobody can tell spread from chance."""
_STEPS, _CLOSE = 1_000, 1e-12


class ShrunkenEffect(NamedTuple):
    """An effect as it is to be believed, with the interval that holds with `level`; `kept` is the
    share of its distance from the mean that is left, 1 − B.
    """

    value: float
    low: float
    high: float
    kept: float


class Shrinkage(NamedTuple):
    """What effects have in common: their mean, the standard deviation of the true ones, and each as
    it is to be believed."""

    mean: float
    spread: float
    effects: list[ShrunkenEffect]


def shrink(
    effects: Sequence[float] | Floats, errors: Sequence[float] | Floats, level: float = 0.95
) -> Shrinkage | None:
    """Each effect drawn towards all of them; None where they are fewer than four.

    Args:
        effects: One a comparison, whatever came of it: also of those that lost.
        errors: Their standard errors, above 0. The effects are taken to be independent.
        level: Of the intervals.
    """
    if len(effects) < FEWEST:
        return None
    y, v = np.asarray(effects, float), np.square(np.asarray(errors, float))
    k = len(y)
    between = _between(y, v)
    weights = 1.0 / (v + between)
    mean = float(weights @ y / weights.sum())
    typical = float(weights @ v / weights.sum())
    # B, a little less than v / (v + between), which would be too much where that is an estimate.
    drawn = (k - 3) / (k - 1) * v * weights
    middles = (1.0 - drawn) * y + drawn * mean
    own = v * (1.0 - (k - 1) / k * drawn)
    of_spread = 2.0 / (k - 3) * np.square(drawn) * (typical + between) * weights
    half = stats.norm.isf((1.0 - level) / 2.0) * np.sqrt(own + of_spread * np.square(y - mean))
    shrunken = []
    for middle, reach, share in zip(middles.tolist(), half.tolist(), drawn.tolist(), strict=True):
        shrunken.append(ShrunkenEffect(middle, middle - reach, middle + reach, 1.0 - share))
    return Shrinkage(mean, sqrt(between), shrunken)


def _between(y: Floats, v: Floats) -> float:
    """The variance of the true effects: what the spread of the measured ones is more than chance
    explains (Morris' equation for it, solved by iteration), 0 at least.
    """
    k, between = len(y), 0.0
    for _ in range(_STEPS):
        weights = 1.0 / (v + between)
        mean = weights @ y / weights.sum()
        excess = k / (k - 1) * np.square(y - mean) - v
        last, between = between, max(0.0, float(weights @ excess / weights.sum()))
        if abs(between - last) <= _CLOSE * float(v.max()):
            break
    return between
