"""Mergeable sufficient statistics of randomised units, and the estimates that are functions of
them.

A mean, a ratio, a self-normalised estimate, CUPED and Lin's adjustment each have a gradient with
respect to the column means; one quadratic form with the scatter matrix then gives every standard
error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from topbill.domain.records import Floats


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """Count, means and centred cross-products of k columns over n units: the whole data, for our
    purposes.

    `mean` (k,) and `scatter` (k, k) = Σ (z − mean)(z − mean)ᵀ. Adding two gives the moments of the
    union (Chan, Golub & LeVeque 1983), so shards and days combine in any order.
    """

    columns: tuple[str, ...]
    n: int
    mean: Floats
    scatter: Floats

    @classmethod
    def of(cls, columns: Sequence[str], rows: Floats) -> Moments:
        """The moments of `rows` (n × k), a row per unit."""
        rows = np.asarray(rows, dtype=np.float64).reshape(-1, len(columns))
        mean = rows.mean(axis=0) if len(rows) else np.zeros(len(columns))
        centred = rows - mean
        return cls(tuple(columns), len(rows), mean, centred.T @ centred)

    @classmethod
    def from_sums(cls, columns: Sequence[str], n: int, sums: Floats, products: Floats) -> Moments:
        """From raw Σz (k,) and Σzzᵀ (k, k). Columns far from zero should be shifted towards it
        before summing.
        """
        mean = np.asarray(sums, dtype=np.float64) / max(n, 1)
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # what overflows stays non-finite, for the caller to see
            scatter = np.asarray(products, dtype=np.float64) - n * np.outer(mean, mean)
        # What rounding made negative is a column that did not vary.
        scatter[np.diag_indices_from(scatter)] = np.maximum(scatter.diagonal(), 0.0)
        return cls(tuple(columns), n, mean, scatter)

    def __add__(self, other: Moments) -> Moments:
        if self.columns != other.columns:
            raise ValueError(
                f"moments of {self.columns} cannot be added to those of {other.columns}"
            )
        n = self.n + other.n
        if n == 0:
            return self
        # Two sets about their own means, and what lies between the means: no sum of squares, whose
        # digits would cancel.
        shift = other.mean - self.mean
        between = np.outer(shift, shift) * (self.n * other.n / n)
        return Moments(
            self.columns,
            n,
            self.mean + shift * (other.n / n),
            self.scatter + other.scatter + between,
        )

    def scaled(self, factor: float) -> Moments:
        """The moments of the same rows, all columns times `factor`."""
        return Moments(self.columns, self.n, self.mean * factor, self.scatter * factor * factor)

    def unit(self, column: str) -> Floats:
        """The gradient (k,) of a column's mean."""
        gradient = np.zeros(len(self.columns))
        gradient[self.columns.index(column)] = 1.0
        return gradient

    def total(self, column: str) -> float:
        """The sum of a column over all units."""
        return float(self.n * self.mean[self.columns.index(column)])

    def covariance(self, g: Floats, h: Floats) -> float:
        """The sample covariance (divisor n − 1) of the linear combinations g·z and h·z; 0 below two
        units.
        """
        return float(g @ self.scatter @ h) / (self.n - 1) if self.n > 1 else 0.0


@dataclass(frozen=True, eq=False, slots=True)
class LinearEstimate:
    """An estimate and its gradient (k,) with respect to the column means: all that its standard
    error needs.
    """

    value: float
    gradient: Floats

    def variance(self, moments: Moments, *, divisor: int | None = None) -> float:
        """Var(value) ≈ gᵀ S g / n, S the covariance by unit (divisor n − 1 unless told)."""
        if moments.n < 2:
            return 0.0
        # Rounding may leave a form that is 0 a trifle below it.
        squares = float(self.gradient @ moments.scatter @ self.gradient)
        return max(squares, 0.0) / (divisor or moments.n - 1) / moments.n

    def rounding(self, moments: Moments) -> float:
        """What rounding alone may make of the variance when the moments came from raw sums: below
        it, take it as 0.
        """
        size = np.abs(self.gradient) @ (
            np.sqrt(moments.scatter.diagonal()) + np.sqrt(moments.n) * np.abs(moments.mean)
        )
        return 1e-13 * float(size) ** 2 / max(moments.n, 1) ** 2


Statistic: TypeAlias = Callable[[Moments], LinearEstimate]


def mean(column: str) -> Statistic:
    """The mean of a column over units."""

    def of(moments: Moments) -> LinearEstimate:
        gradient = moments.unit(column)
        return LinearEstimate(float(gradient @ moments.mean), gradient)

    return of


def ratio(numerator: str, denominator: str) -> Statistic:
    """Σ numerator / Σ denominator by the delta method over units (Deng, Knoblich & Lu 2018).

    With the number of rows as the denominator this is the mean of rows with its cluster-robust
    standard error; with weights as the denominator it is a self-normalised mean. A zero denominator
    gives value 0.
    """

    def of(moments: Moments) -> LinearEstimate:
        # d(A/B) = (dA − (A/B)·dB)/B: the gradient of the ratio at the means.
        a, b = moments.unit(numerator), moments.unit(denominator)
        below = float(b @ moments.mean)
        if below == 0.0:
            return LinearEstimate(0.0, np.zeros(len(moments.columns)))
        value = float(a @ moments.mean) / below
        return LinearEstimate(value, (a - value * b) / below)

    return of


def cuped_theta(merged: Moments, statistic: Statistic, covariate: str) -> float:
    """θ = Cov(statistic, covariate) / Var(covariate) over `merged` arms (Deng et al. 2013, eq. 4).

    0 if the covariate is constant.
    """
    x = merged.unit(covariate)
    variance = merged.covariance(x, x)
    return merged.covariance(statistic(merged).gradient, x) / variance if variance > 0.0 else 0.0


def cuped(
    arm: Moments, merged: Moments, statistic: Statistic, covariate: str, theta: float
) -> LinearEstimate:
    """The arm's statistic moved to the covariate mean of `merged`: value − θ (x̄_arm − x̄).

    Works on means and ratios alike, for it corrects the linearised statistic.
    """
    return regressed(arm, merged, statistic, theta * arm.unit(covariate))


def regressed(arm: Moments, merged: Moments, statistic: Statistic, slope: Floats) -> LinearEstimate:
    """CUPED with any number of covariates: `slope` (k,) is Σ θ_j x_j, a combination of columns."""
    plain = statistic(arm)
    return LinearEstimate(
        plain.value - float(slope @ (arm.mean - merged.mean)), plain.gradient - slope
    )


def regression_slope(merged: Moments, statistic: Statistic, covariates: Sequence[str]) -> Floats:
    """Σ θ_j x_j (k,) with θ = Var(x)⁻¹ Cov(x, statistic) over `merged` arms: least squares of the
    linearised statistic on all covariates at once (Deng et al. 2013, section 3.3).

    Covariates that say the same as others, or that do not vary, share what they say or get 0.
    """
    if len(covariates) == 1:
        (covariate,) = covariates
        return cuped_theta(merged, statistic, covariate) * merged.unit(covariate)
    gradient = statistic(merged).gradient
    return _slope(merged, gradient, covariates)


def _slope(moments: Moments, outcome: Floats, covariates: Sequence[str]) -> Floats:
    places = [moments.columns.index(name) for name in covariates]
    sizes = np.sqrt(moments.scatter.diagonal()[places])
    sizes = np.where(sizes > 0.0, sizes, 1.0)
    # Of correlations, so that what each is measured in does not matter to what counts as 0.
    correlations = moments.scatter[np.ix_(places, places)] / np.outer(sizes, sizes)
    covariances = (moments.scatter @ outcome)[places] / sizes
    theta = np.linalg.pinv(correlations, rcond=1e-9, hermitian=True) @ covariances / sizes
    slope = np.zeros(len(moments.columns))
    slope[places] = theta
    return slope


@dataclass(frozen=True, slots=True)
class Adjusted:
    """A regression-adjusted mean of each arm and its HC2 variance."""

    treated: float
    control: float
    treated_variance: float
    control_variance: float


def product_columns(y: str, x: str) -> tuple[str, str, str, str]:
    """Names of the columns y·x, x², y·x² and x³ that HC2 needs besides y and x."""
    return f"{y}*{x}", f"{x}*{x}", f"{y}*{x}*{x}", f"{x}*{x}*{x}"


def lin(treated: Moments, control: Moments, y: str, x: str) -> Adjusted:
    """Lin's (2013) interacted regression adjustment: each arm's own slope, predicted at the common
    covariate mean.

    The difference is the coefficient of treatment in y ~ T + (x − x̄) + T·(x − x̄), the variances
    are HC2's.
    """
    centre = (treated + control).mean[treated.columns.index(x)]
    # With the interaction the regression falls apart into one for each arm.
    value_t, var_t = _regression(treated, y, x, float(centre))
    value_c, var_c = _regression(control, y, x, float(centre))
    return Adjusted(value_t, value_c, var_t, var_c)


def lin_of_several(
    treated: Moments, control: Moments, y: str, covariates: Sequence[str]
) -> Adjusted:
    """Lin's adjustment with several covariates: each arm's own slopes, predicted at the common
    means.

    The variance of an arm's prediction at distance d from its covariates' means is
    s² (1/n + dᵀ Sxx⁻¹ d), s² the residuals' with divisor n − 1 − k: HC2's needs fourth moments of
    all pairs, from which it differs by order n⁻¹.
    """
    centre = (treated + control).mean
    value_t, var_t = _plane(treated, y, covariates, centre)
    value_c, var_c = _plane(control, y, covariates, centre)
    return Adjusted(value_t, value_c, var_t, var_c)


def _plane(arm: Moments, y: str, covariates: Sequence[str], centre: Floats) -> tuple[float, float]:
    outcome = arm.unit(y)
    slope = _slope(arm, outcome, covariates)
    away = centre - arm.mean
    value = float(outcome @ arm.mean + slope @ away)
    free = arm.n - 1 - len(covariates)
    if free < 1:
        return value, 0.0
    residual = outcome - slope
    s2 = max(float(residual @ arm.scatter @ residual), 0.0) / free
    places = [arm.columns.index(name) for name in covariates]
    inverse = np.linalg.pinv(arm.scatter[np.ix_(places, places)], hermitian=True)
    return value, s2 * (1.0 / arm.n + float(away[places] @ inverse @ away[places]))


def _regression(arm: Moments, y: str, x: str, centre: float) -> tuple[float, float]:
    ex, ey = arm.unit(x), arm.unit(y)
    sxx = float(ex @ arm.scatter @ ex)
    theta = float(ey @ arm.scatter @ ex) / sxx if sxx > 0.0 else 0.0
    away = centre - float(ex @ arm.mean)
    lever = away / sxx if sxx > 0.0 else 0.0
    return float(ey @ arm.mean) + theta * away, _hc2(arm, y, x, theta, lever, sxx)


def _hc2(arm: Moments, y: str, x: str, theta: float, lever: float, sxx: float) -> float:
    """Σ cᵢ² eᵢ² / (1 − hᵢ), cᵢ = 1/n + lever·dᵢ, hᵢ = 1/n + dᵢ²/sxx, d = x − x̄, e the residual.

    1/(1 − hᵢ) is expanded to second order in dᵢ²/sxx, which leaves a relative error of order n⁻³
    and needs only Σe²dʲ for j ≤ 4: quadratic forms of columns, since e, e·d and e·d² are linear in
    y, x and their products.
    """
    # Of two units a line with a slope leaves no residual.
    n = arm.n
    if n < 3:
        return 0.0
    ex, ey = arm.unit(x), arm.unit(y)
    yx, xx, yxx, xxx = (arm.unit(name) for name in product_columns(y, x))
    x0, y0 = float(ex @ arm.mean), float(ey @ arm.mean)
    d2 = xx - 2.0 * x0 * ex  # d² up to a constant, and so below
    e = ey - theta * ex
    ed = yx - y0 * ex - x0 * ey - theta * d2
    ed2 = (
        yxx
        - 2.0 * x0 * yx
        + x0 * x0 * ey
        - y0 * d2
        - theta * (xxx - 3.0 * x0 * xx + 3.0 * x0 * x0 * ex)
    )
    mean_ed, mean_ed2 = float(e @ arm.scatter @ ex) / n, float(e @ arm.scatter @ d2) / n
    s0 = float(e @ arm.scatter @ e)
    s1 = float(e @ arm.scatter @ ed)
    s2 = float(ed @ arm.scatter @ ed) + n * mean_ed**2
    s3 = float(ed @ arm.scatter @ ed2) + n * mean_ed * mean_ed2
    s4 = float(ed2 @ arm.scatter @ ed2) + n * mean_ed2**2
    keep = 1.0 / (1.0 - 1.0 / n)
    k = keep / sxx if sxx > 0.0 else 0.0
    squares = s0 / n**2 + 2.0 * lever * s1 / n + lever**2 * s2
    leverage = k * (s2 / n**2 + 2.0 * lever * s3 / n + lever**2 * s4) + k**2 * s4 / n**2
    return keep * (squares + leverage)
