"""What statsmodels does well, in one place: power at one planned look, and intervals and tests
of proportions.
"""

from __future__ import annotations

from math import exp, sqrt
from typing import Literal

import numpy as np
from scipy.stats import chi2_contingency, fisher_exact, norm
from statsmodels.stats.power import NormalIndPower, TTestIndPower
from statsmodels.stats.proportion import (
    confint_proportions_2indep,
    proportion_confint,
    proportion_effectsize,
    samplesize_proportions_2indep_onetail,
)

from topbill.domain.errors import BadRequest


def sample_size(
    effect: float, sd: float, *, alpha: float = 0.05, power: float = 0.8, ratio: float = 1.0
) -> float:
    """Units the control needs to find a difference `effect` of means at one planned look (two-sided
    t-test); the variant needs `ratio` times as many. Raises BadRequest unless effect and sd are
    positive."""
    if not (abs(effect) > 0.0 and sd > 0.0 and ratio > 0.0):
        raise BadRequest(
            "effect", f"got effect {effect}, sd {sd}, ratio {ratio}; expected positive numbers"
        )
    return float(
        TTestIndPower().solve_power(abs(effect) / sd, alpha=alpha, power=power, ratio=ratio)
    )


def detectable(
    n: float, sd: float, *, alpha: float = 0.05, power: float = 0.8, ratio: float = 1.0
) -> float:
    """The least difference of means that n control units (and ratio·n of the variant) find with
    that power.
    """
    return (
        float(TTestIndPower().solve_power(None, nobs1=n, alpha=alpha, power=power, ratio=ratio))
        * sd
    )


def power_of(
    effect: float,
    sd: float,
    n: float,
    *,
    alpha: float = 0.05,
    ratio: float = 1.0,
    df: float | None = None,
) -> float:
    """The chance that n control units (and ratio·n of the variant) show a true difference `effect`
    at one planned look (two-sided t-test); `df` are the degrees of freedom where they are not those
    of equal variances, as with Welch's t.
    """
    return float(TTestIndPower().power(abs(effect) / sd, n, alpha, ratio=ratio, df=df))


def sample_size_of_rates(
    base: float,
    rate: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    by: Literal["difference", "arcsine"] = "difference",
) -> float:
    """Units an arm needs to tell two rates apart, by the difference's variance or by Cohen's h."""
    if not (0.0 < base < 1.0 and 0.0 < rate < 1.0 and base != rate):
        raise BadRequest(
            "rate", f"got base {base} and rate {rate}; expected two different rates between 0 and 1"
        )
    if by == "arcsine":
        size = proportion_effectsize(rate, base)
        return float(NormalIndPower().solve_power(size, alpha=alpha, power=power))
    return float(
        samplesize_proportions_2indep_onetail(
            rate - base, base, power, alpha=alpha, alternative="two-sided"
        )
    )


def rate_interval(
    control: tuple[int, int],
    treated: tuple[int, int],
    *,
    alpha: float = 0.05,
    kind: str = "newcomb",
    relative: bool = False,
) -> tuple[float, float]:
    """Interval of the difference of two rates from (successes, units): better than Wald's when
    counts are small.

    `kind` is "newcomb", "score", "agresti-caffo" or "wald"; with `relative`, of the relative lift,
    "log", "log-adjusted" or "score".
    """
    (k0, n0), (k1, n1) = control, treated
    compare = "ratio" if relative else "diff"
    low, high = confint_proportions_2indep(
        k1, n1, k0, n0, method=kind, compare=compare, alpha=alpha
    )
    return (float(low) - 1.0, float(high) - 1.0) if relative else (float(low), float(high))


def rate_test(
    control: tuple[int, int],
    treated: tuple[int, int],
    *,
    exact: bool = False,
    correction: bool = False,
) -> float:
    """p-value that two rates (successes, units) are one: by Pearson's chi-square (the pooled z),
    with Yates' `correction` for continuity, or Fisher's exact."""
    table = np.array([[wins, n - wins] for wins, n in (treated, control)])
    return float(
        fisher_exact(table).pvalue
        if exact
        else chi2_contingency(table, correction=correction).pvalue
    )


def yates_interval(
    control: tuple[int, int],
    treated: tuple[int, int],
    *,
    alpha: float = 0.05,
    relative: bool = False,
) -> tuple[float, float]:
    """Interval that goes with the Yates-corrected test: pooled variance, widened by half a success;
    of the difference, or of the relative lift on the log scale."""
    (k0, n0), (k1, n1) = control, treated
    pooled, inverse, z = (k0 + k1) / (n0 + n1), 1.0 / n0 + 1.0 / n1, float(norm.isf(alpha / 2.0))
    if not relative:
        half = z * sqrt(pooled * (1.0 - pooled) * inverse) + inverse / 2.0
        return k1 / n1 - k0 / n0 - half, k1 / n1 - k0 / n0 + half
    if not min(k0, k1) > 0:
        raise BadRequest(
            "rate",
            f"got {k0} and {k1} successes; expected some in both variants for a relative lift",
        )
    # On the log scale half a success is half a success of the control's rate.
    half = z * sqrt((1.0 - pooled) / pooled * inverse) + inverse / 2.0 / (k0 / n0)
    ratio = k1 / n1 / (k0 / n0)
    return ratio * exp(-half) - 1.0, ratio * exp(half) - 1.0


def wilson(successes: int, n: int, *, alpha: float = 0.05) -> tuple[float, float]:
    """Wilson's interval of one rate."""
    low, high = proportion_confint(successes, n, alpha=alpha, method="wilson")
    return float(np.asarray(low)), float(np.asarray(high))
