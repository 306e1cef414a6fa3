"""Inference that survives looking early: asymptotic confidence sequences and group-sequential
boundaries.

Everything here works on standardised numbers (an estimate over its standard error), for scalars or
arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import inf, log, sqrt
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from topbill import late
from topbill.domain.records import Floats

if TYPE_CHECKING:
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri
    from scipy.stats import norm
else:
    brentq = late.name("scipy.optimize", "brentq")
    ndtr = late.name("scipy.special", "ndtr")
    ndtri = late.name("scipy.special", "ndtri")
    norm = late.name("scipy.stats", "norm")

TUNING = 5_000.0
"""Units at which a confidence sequence is tightest, unless told."""

STAGES = ((0.143, 0.42), (0.49, 0.52), (1.0, 0.06))
"""The stages of `staged_multiplier`: until which fraction of the planned information, and the part
of the error that is spent there, in proportion. They end before 15% and 50% of a sample planned for
one margin, so that harm of four and of two margins shows by then, with room for those who come
while rewards mature; and at its end, where little is left to be spent.

A level that falls within its stage finds no more by then at the same error, and half of it later.
"""
UNSTAGED = 0.06
"""The part of the error that is left for a sequence beside the stages, which never ends and is
narrow at first."""

Spending = Literal["obrien-fleming", "quadratic"]


def mixture_scale(alpha: float, tuning: float = TUNING) -> float:
    """ρ that makes the sequence tightest near `tuning` units (Waudby-Smith et al. 2024, eq. 21)."""
    bits = -2.0 * log(alpha)
    return float(np.sqrt((bits + log(bits + 1.0)) / tuning))


def multiplier(
    n: ArrayLike, alpha: float = 0.05, tuning: float = TUNING, *, tests: int = 1
) -> Floats:
    """How many standard errors the confidence sequence reaches to either side at n units (all arms
    together).

    √(2 (nρ² + 1)/(nρ²) · ln(√(nρ² + 1)/α)): the asymptotic confidence sequence of Waudby-Smith et
    al. (2024, eq. 14). The intervals of all n hold at once with probability 1 − α. With `tests`,
    where `always_valid_p` reaches α/tests, as Holm's first step asks; ρ stays that of α.
    """
    # In units of the standard error: √n of the paper's σ/√n has cancelled.
    nr = np.asarray(n, dtype=np.float64) * mixture_scale(alpha, tuning) ** 2
    return np.asarray(
        np.sqrt(2.0 * (nr + 1.0) / nr * (0.5 * np.log1p(nr) + log(tests / alpha))),
        dtype=np.float64,
    )


def log_e_value(z: ArrayLike, n: ArrayLike, alpha: float = 0.05, tuning: float = TUNING) -> Floats:
    """ln of the e-value against no effect, for a standardised estimate z at n units."""
    nr = np.asarray(n, dtype=np.float64) * mixture_scale(alpha, tuning) ** 2
    return np.asarray(nr * np.square(z) / (2.0 * (nr + 1.0)) - 0.5 * np.log1p(nr), dtype=np.float64)


def always_valid_p(
    z: ArrayLike, n: ArrayLike, alpha: float = 0.05, tuning: float = TUNING
) -> Floats:
    """min(1, 1/e): below α exactly when the confidence sequence leaves zero out."""
    return np.asarray(np.exp(np.minimum(0.0, -log_e_value(z, n, alpha, tuning))), dtype=np.float64)


def staged_multiplier(fraction: float, alpha: float = 0.05) -> float:
    """How many standard errors one side of an estimate reaches at a `fraction` of the planned
    information, at level α · (1 − `UNSTAGED`) at all looks together; infinite after the last stage.

    With z·√fraction a Brownian motion, each stage has a level for that to pass: so it asks much at
    its beginning, and at its end little more than a test that looks once.
    """
    for (end, _), level in zip(STAGES, _stage_levels(alpha), strict=True):
        if 0.0 < fraction <= end:
            return level / sqrt(fraction)
    return inf


@lru_cache(maxsize=64)
def _stage_levels(alpha: float) -> tuple[float, ...]:
    """The level of each stage that W, a Brownian motion without drift, is to pass before its end,
    such that any is passed with probability α · (1 − `UNSTAGED`). They rise from stage to stage.
    """

    def levels(scale: float) -> list[float]:
        return [-float(ndtri(scale * alpha * part / 2.0)) * sqrt(end) for end, part in STAGES]

    def excess(scale: float) -> float:
        return _passing_probability(levels(scale)) - (1.0 - UNSTAGED) * alpha

    # By reflection each alone is passed with probability scale · α · part. A path that passes one
    # may pass others: with scale 1 − UNSTAGED all together are passed less often than they may be.
    return tuple(levels(float(brentq(excess, 0.9, 2.0, xtol=1e-12))))


def _passing_probability(levels: Sequence[float]) -> float:
    """The chance that a Brownian motion passes the level of a stage before that ends, by its
    density from end to end, without what passed in between (reflection)."""
    scores, mass, before = np.zeros(1), np.ones(1), 0.0
    for (end, _), level in zip(STAGES, levels, strict=True):
        step, reach = sqrt(end - before), 6.0 * sqrt(end)
        following = level - reach * (1.0 - _NODES)
        direct = norm.pdf((following[:, None] - scores) / step)
        reflected = norm.pdf((2.0 * level - following[:, None] - scores) / step)
        mass = reach * _WEIGHTS * ((direct - reflected) / step @ mass)
        scores, before = following, end
    return 1.0 - float(mass.sum())


def mixture_rho(alpha: float, v_opt: float, *, two_sided: bool = True) -> float:
    """ρ that makes a mixture's boundary tightest near intrinsic time v_opt (Howard et al. 2021,
    prop. 3).
    """
    bits = -2.0 * log(alpha if two_sided else 2.0 * alpha)
    return v_opt / (bits + log(1.0 + bits))


def _obrien_fleming(t: float, alpha: float) -> float:
    return float(4.0 * norm.sf(norm.isf(alpha / 4.0) / np.sqrt(t)))  # each side spends its own α/2


def _quadratic(t: float, alpha: float) -> float:
    return alpha * t * t


SPENDING: dict[str, Callable[[float, float], float]] = {
    "obrien-fleming": _obrien_fleming,
    "quadratic": _quadratic,
}
"""Error spent (both sides together) by information fraction t in (0, 1]: Lan & DeMets (1983); α
t².
"""


def boundaries(
    fractions: Sequence[float], alpha: float = 0.05, spending: Spending = "obrien-fleming"
) -> Floats:
    """Two-sided critical values (len(fractions),) of |z| at increasing information fractions in (0,
    1].

    Each solves P(first crossing at this look) = what the spending function releases there, by the
    recursive integration of Armitage, McPherson & Rowe (1969) on a grid of the score process.
    """
    times = np.asarray(fractions, dtype=np.float64)
    if (
        times.size == 0
        or times[0] <= 0.0
        or times[-1] > 1.0 + 1e-12
        or np.any(np.diff(times) <= 0.0)
    ):
        raise ValueError(f"information fractions {list(fractions)} must increase within (0, 1]")
    spent = np.array([SPENDING[spending](float(min(t, 1.0)), alpha) for t in times])
    critical = [float(norm.isf(spent[0] / 2.0))]
    # Scores √t·z have independent increments: the density of those that go on is carried from look
    # to look, and what leaves at each is its share of α.
    scores, density = _grid(critical[0] * np.sqrt(times[0]))
    mass = density * norm.pdf(scores / np.sqrt(times[0])) / np.sqrt(times[0])
    for k in range(1, times.size):
        step = np.sqrt(times[k] - times[k - 1])
        release = spent[k] - spent[k - 1]
        edge = _edge(scores, mass, step, release)
        critical.append(edge / float(np.sqrt(times[k])))
        following, weights = _grid(edge)
        kernel = norm.pdf((following[:, None] - scores[None, :]) / step) / step
        scores, mass = following, weights * (kernel @ mass)
    return np.array(critical)


def crossing_probability(fractions: Sequence[float], critical: ArrayLike, drift: float) -> float:
    """The chance that z passes its upper critical value (len(fractions),) at one of the looks at
    least, where the last z has mean `drift`.

    By the recursion of `boundaries` with the scores' drift in it (Jennison & Turnbull 2000, ch.
    19). The lower boundary ends a path as well.
    """
    times = np.asarray(fractions, dtype=np.float64)
    edges = np.asarray(critical, dtype=np.float64) * np.sqrt(times)
    slope = drift / float(np.sqrt(times[-1]))
    # Before the first look there is one score, 0, with all of the mass.
    scores, mass, before, crossed = np.zeros(1), np.ones(1), 0.0, 0.0
    for time, edge in zip(times, edges, strict=True):
        step, moved = np.sqrt(time - before), slope * (time - before)
        crossed += float(mass @ ndtr((scores + moved - edge) / step))
        following, weights = _grid(float(edge))
        kernel = norm.pdf((following[:, None] - scores[None, :] - moved) / step) / step
        scores, mass, before = following, weights * (kernel @ mass), float(time)
    return crossed


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(160)


def _grid(edge: float) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights on (−edge, edge), cut where a standard score has no mass
    left.
    """
    reach = min(edge, 9.0)
    return reach * _NODES, reach * _WEIGHTS


def _edge(scores: Floats, mass: Floats, step: float, release: float) -> float:
    """The score beyond which (either side) the continuing paths leave with probability
    `release`.
    """

    def excess(edge: float) -> float:
        outside = ndtr((scores - edge) / step) + ndtr((-edge - scores) / step)
        return float(mass @ outside) - release

    return float(brentq(excess, 0.0, 12.0, xtol=1e-13)) if release > 0.0 else 12.0


def repeated_p(
    z: float, fractions: Sequence[float], spending: Spending = "obrien-fleming"
) -> float:
    """The least α at which |z| at the last of `fractions` reaches its boundary (Jennison & Turnbull
    2000, §9.5).
    """

    def short(logit: float) -> float:
        return float(boundaries(fractions, float(np.exp(logit)), spending)[-1]) - abs(z)

    # On the log scale, where p-values differ by orders of magnitude.
    low, high = log(1e-12), log(0.999)
    if short(low) <= 0.0:
        return 1e-12
    if short(high) >= 0.0:
        return 1.0
    return float(np.exp(brentq(short, low, high, xtol=1e-9)))
