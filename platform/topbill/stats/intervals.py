"""Intervals for means and ratios of sums over units: normal, bucket bootstrap, betting, and
confidence sequences.

The linearised standard errors that they start from are those of `moments`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from topbill import late
from topbill.domain.records import Floats, Indices
from topbill.stats.sequential import multiplier

if TYPE_CHECKING:
    from scipy import optimize
    from scipy.special import ndtri
else:
    optimize = late.name("scipy.optimize")
    ndtri = late.name("scipy.special", "ndtri")

BUCKETS = 4096
"""Units are hashed into this many buckets for the bootstrap; a power of two, so that SQL can mask
the hash.
"""

_CHUNK = 1 << 16


def by_unit(columns: Floats, units: Indices | None) -> Floats:
    """(k × m) the columns (k × n) summed by unit, in the order of the codes 0…m−1; the columns
    themselves if None.
    """
    if units is None:
        return columns
    count = int(units.max()) + 1 if units.size else 0
    return np.stack(
        [np.bincount(units, weights=c, minlength=count).astype(np.float64) for c in columns]
    )


def by_bucket(unit_sums: Floats, seed: int = 0) -> Floats:
    """(4096 × k) unit sums (k × m) added up in fixed pseudo-random buckets of units."""
    # By the chunk's number and size alone: the same log gives the same buckets, always.
    count = unit_sums.shape[1]
    bucket = np.random.default_rng([seed, count]).integers(0, BUCKETS, size=count)
    return np.stack(
        [np.bincount(bucket, weights=c, minlength=BUCKETS).astype(np.float64) for c in unit_sums],
        axis=1,
    )


def chunks(units: Indices | None, rows: int) -> Iterator[tuple[Indices | slice, Indices | None]]:
    """Row selections of some 65,536 rows that never split a unit, each with its own unit codes from
    0.
    """
    if units is None:
        for start in range(0, rows, _CHUNK):
            yield slice(start, min(start + _CHUNK, rows)), None
        return
    # By unit, so that each is whole in one chunk.
    order = np.argsort(units, kind="stable")
    ordered = units[order]
    start = 0
    while start < rows:
        stop = min(start + _CHUNK, rows)
        stop = int(np.searchsorted(ordered, ordered[stop - 1], side="right"))
        yield order[start:stop], ordered[start:stop] - ordered[start]
        start = stop


@lru_cache(maxsize=8)
def bootstrap_weights(replicates: int, seed: int = 0) -> NDArray[np.float64]:
    """(replicates × 4096) multinomial weights, each row summing to 4096: resampling whole buckets
    of units with replacement, the grouped bootstrap of Chamandy et al. 2012, "Estimating
    uncertainty for massive data"."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(BUCKETS, np.full(BUCKETS, 1.0 / BUCKETS), size=replicates).astype(
        np.float64
    )


def normal(value: float, se: float, alpha: float) -> tuple[float, float]:
    """value ± z·se."""
    half = -float(ndtri(alpha / 2)) * se
    return value - half, value + half


def percentile(replicates: Floats, alpha: float) -> tuple[float, float]:
    """The central 1 − α of bootstrap replicates that are finite."""
    low, high = np.quantile(replicates[np.isfinite(replicates)], [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def asymptotic_sequence(value: float, se: float, units: int, alpha: float) -> tuple[float, float]:
    """Asymptotic confidence sequence (`sequential.multiplier`): one may look at it as often as one
    likes.
    """
    half = float(multiplier(units, alpha)) * se
    return value - half, value + half


def betting_lower(
    gains: Floats,
    counts: Floats,
    alpha: float,
    *,
    scale: float = 1.0,
    anytime: bool = False,
    largest: float | None = None,
    cut: float = 0.75,
    running: bool = False,
) -> float:
    """A lower confidence bound at level 1 − α for m = E[gains]/E[counts], for non-negative `gains`
    without upper bound.

    Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting" (the
    positive half of their hedged capital): if the mean were m, the capital Π_t (1 + λ_t(m)(gains_t
    − m·counts_t)) would be a non-negative martingale from 1, and by Ville exceeds 1/α with
    probability at most α. The bound is the smallest m that is not refuted. λ_t is the predictable
    plug-in √(2 log(1/α) / (n σ̂²_{t−1})), cut at `cut`/(m·largest count); the capital falls in m,
    so one root is sought.

    `gains`, `counts` (m units in the order of the log); `scale` is the size of a typical large
    gain, `largest` an upper bound of the counts (default: the largest seen). With `anytime` the
    bets are those of a confidence sequence (n replaced by t·log(t+1)) and the bound holds at every
    prefix at once. With `running` what any prefix refuted stays refuted, which Ville's inequality
    allows for either kind of bet. Finite-sample; nothing is approximated.
    """
    # Without a gain there is nothing to bet on, and any m ≥ 0 stands.
    n = gains.size
    if n == 0 or not gains.any():
        return 0.0
    largest = float(counts.max()) if largest is None else largest
    bets = plug_in_bets(gains / scale, alpha, anytime) / scale
    goal = -np.log(alpha)

    def surplus(m: float) -> float:
        # Cut so that no loss takes more than `cut` of the capital: it stays above 0.
        stake = np.minimum(bets, cut / (m * largest)) if m > 0 else bets
        growth = np.log1p(stake * (gains - m * counts))
        return float((growth.cumsum().max() if running else growth.sum()) - goal)

    top = float(gains.sum() / counts.sum())
    if surplus(0.0) <= 0:
        return 0.0
    if surplus(top) >= 0:  # the sample mean itself is refuted only by bets that happened to fit
        return top
    return float(optimize.brentq(surplus, 0.0, top, xtol=1e-12 * max(scale, 1.0), rtol=1e-10))


def betting_upper(
    gains: Floats,
    counts: Floats,
    bound: float,
    alpha: float,
    *,
    anytime: bool = False,
    largest: float | None = None,
    cut: float = 0.75,
    running: bool = False,
) -> float:
    """`betting_lower` mirrored, for gains that never exceed `bound` per count: bound −
    lower(bound·counts − gains).
    """
    mirrored = bound * counts - gains
    lower = betting_lower(
        mirrored,
        counts,
        alpha,
        scale=bound,
        anytime=anytime,
        largest=largest,
        cut=cut,
        running=running,
    )
    return bound - lower


def plug_in_bets(x: Floats, alpha: float, anytime: bool, top: float = np.inf) -> Floats:
    """(n,) bets that use only what came before: √(2 log(1/α) / (horizon · σ̂²_{t−1})), σ̂² shrunk
    towards ¼, around running means of at most `top`."""
    # Half a success and a quarter of variance before the first value: bets must not look ahead, and
    # so the variance is that of the values before each.
    t = np.arange(1, x.size + 1, dtype=np.float64)
    mean = np.minimum(top, (0.5 + np.cumsum(x)) / (t + 1))
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (t + 1)
    before = np.concatenate([[0.25], variance[:-1]])
    horizon = t * np.log1p(t) if anytime else np.full_like(t, x.size)
    return np.asarray(np.sqrt(2 * -np.log(alpha) / (horizon * before)), dtype=np.float64)
