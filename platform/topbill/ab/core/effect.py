"""From two arms' moments to one effect: estimates (plain, CUPED or Lin's, post-stratified), their
difference and lift, intervals and p-values by the chosen rule, and p-values adjusted for being
several.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import copysign, exp, inf, isfinite, log, pi, sqrt
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from topbill import late
from topbill.ab import reasons
from topbill.ab.core.bayes import beta_binomial
from topbill.ab.core.rates import RatePair, sequential_evidence, tail_evidence
from topbill.ab.core.units import ArmMoments, MetricTerms, Rate, are_few
from topbill.ab.metrics import Metric, Proportion, Sum
from topbill.domain.errors import BadRequest
from topbill.domain.reading import METHODS, Method, are_looks
from topbill.domain.records import Floats
from topbill.stats import sequential
from topbill.stats.moments import (
    Adjusted,
    LinearEstimate,
    Moments,
    lin,
    lin_of_several,
    regressed,
    regression_slope,
)

if TYPE_CHECKING:
    from scipy import stats
    from scipy.special import ndtr, ndtri
    from statsmodels.stats.multitest import multipletests
else:
    stats = late.name("scipy.stats")
    ndtr = late.name("scipy.special", "ndtr")
    ndtri = late.name("scipy.special", "ndtri")
    multipletests = late.name("statsmodels.stats.multitest", "multipletests")

Adjustment = Literal["cuped", "lin"]

Correction = Literal[
    "holm",
    "holm-sidak",
    "simes-hochberg",
    "hommel",
    "bonferroni",
    "sidak",
    "fdr_bh",
    "fdr_by",
    "fdr_tsbh",
    "fdr_tsbky",
]


_NOTHING_LEFT = 1e-9
"""The share of the variance below which a covariate leaves nothing of the metric."""
COVERAGE_ALPHA = 0.01
"""The level at which a covariate's coverage is said to differ between two variants."""
THIN = 10
"""A phase counts where each of two variants has so many units in it: of fewer, the spread that
their weight is to be judged by cannot be told."""


RATE = (0.0, 1.0)
"""The bounds of a rate."""


def is_share(metric: Metric, of: Metric) -> bool:
    """Whether `metric`, which is compared of or instead of the metric `of`, is a share of rows or
    units: what people read as a percentage.
    """
    # Of 0s and 1s the mean of units' own shares is one still, but not what units have in total.
    return isinstance(of, Proportion) and not isinstance(metric, Sum)


# --- An arm's estimate


@dataclass(frozen=True, slots=True)
class ArmEstimate:
    """One arm's estimate, the variance of it, and the units behind it.

    `below` and `above` are the variances of its two sides, where what is estimated may be farther
    off on the one than on the other; None where they are alike.
    """

    value: float
    variance: float
    n: int
    below: float | None = None
    above: float | None = None

    @property
    def is_lopsided(self) -> bool:
        """Whether its sides have variances of their own."""
        return self.below is not None or self.above is not None

    def one_sided(self, sign: float) -> ArmEstimate:
        """The estimate with the variance of its side above (`sign` > 0) or below."""
        side = self.above if sign > 0.0 else self.below
        return ArmEstimate(self.value, self.variance if side is None else side, self.n)


@dataclass(frozen=True, slots=True)
class Pair:
    """A variant and the control on one metric; where `reason` is not empty they cannot be compared.

    `saved` is the share of the difference's variance that the covariate took away; None without
    one. `remark` is a reason that leaves the numbers standing. `rates` are the counts (variant,
    control) where both values are shares of independent units, unadjusted. `bounds` are the least
    and the largest value that there can be, None where nothing bounds them. `is_proportion` says
    that the values are shares of rows or units. `information` is Σ n·n_control / (n + n_control)
    over strata of shares, to which the difference's precision is in proportion; None where shares
    were one throughout."""

    treated: ArmEstimate | None
    control: ArmEstimate | None
    reason: str
    n: int
    n_control: int
    saved: float | None = None
    remark: str = reasons.OK
    rates: tuple[Rate, Rate] | None = None
    bounds: tuple[float, float] | None = None
    is_proportion: bool = False
    information: float | None = None


Strata = list[tuple[ArmMoments, ArmMoments]]


def estimate_pair(
    terms: MetricTerms,
    treated: Mapping[Any, ArmMoments],
    control: Mapping[Any, ArmMoments],
    adjust: Adjustment = "cuped",
    *,
    phases: bool = False,
) -> Pair:
    """The estimates of two arms, each given by stratum (one stratum when there are none).

    Of `phases` the strata are those of shares: units came into them with different chances of
    either arm. So strata that are too thin are left out rather than pooled, and the rest is weighed
    by precision, see `_precisions`.
    """
    if phases:
        every, every_control = units_of(_total(treated)), units_of(_total(control))
        treated, control = without_thin(treated, control)
        if every and every_control and not treated:
            return Pair(None, None, reasons.THIN_STRATA, every, every_control)
    is_proportion = is_share(terms.metric, terms.metric)
    t, c = _total(treated), _total(control)
    n, n_control = units_of(t), units_of(c)
    reason = _reason(terms, t, c)
    if t is None or c is None or reason:
        # One arm may still have a value to show although there is nothing to compare it with.
        one, other = _usable(terms, t), _usable(terms, c)
        return Pair(one, other, reason, n, n_control, is_proportion=is_proportion)
    if not phases and strata_differ(treated, control):
        # Which stratum a unit is in tells the variants apart, so it is none of before.
        pair = estimate_pair(terms, {None: t}, {None: c}, adjust)
        return dataclasses.replace(pair, remark=pair.remark or reasons.STRATA_DIFFER)
    strata = _paired_strata(treated, control)
    # Of other strata the arms have the same shares throughout, and can be looked at as one.
    if terms.covariate is not None and coverage_differs(strata if phases else [(t, c)]):
        # Where the covariate is there tells the variants apart, so it is no covariate.
        pair = estimate_pair(terms.unadjusted(), treated, control, phases=phases)
        return dataclasses.replace(pair, remark=reasons.COVARIATE_MISSING)
    pair = _estimated(terms, t, c, strata, adjust, phases=phases)
    if pair.saved is not None and pair.saved > 1.0 - _NOTHING_LEFT:
        # The metric itself, or made of it: what is left is rounding, not a difference.
        pair = estimate_pair(terms.unadjusted(), treated, control, phases=phases)
        return dataclasses.replace(pair, remark=reasons.COVARIATE_IS_METRIC)
    return dataclasses.replace(
        pair, bounds=RATE if is_proportion else None, is_proportion=is_proportion
    )


def _estimated(
    terms: MetricTerms,
    treated: ArmMoments,
    control: ArmMoments,
    strata: Strata,
    adjust: Adjustment,
    *,
    phases: bool,
) -> Pair:
    """Two arms that can be compared, by strata where there are several."""
    weights = _precisions(terms, strata) if phases else _post_strata(terms, strata)
    is_one = len(strata) < 2
    if is_one:
        one, other = _adjusted_pair(terms, treated, control, adjust)
    else:
        one, other = _stratified(terms, strata, weights, adjust)
    variance = one.variance + other.variance
    rates = None
    # What was adjusted is a share no more, but where nothing varies there was nothing to adjust.
    if (terms.covariate is None and is_one) or variance == 0.0:
        rates = _rates(terms, treated, control)
    parts = strata or [(treated, control)]
    return Pair(
        one,
        other,
        reasons.OK,
        units_of(treated),
        units_of(control),
        _saved(terms, parts, weights, variance),
        rates=rates,
        information=sum(information_of(a.n, b.n) for a, b in parts) if phases else None,
    )


def information_of(n: float, n_control: float) -> float:
    """How precise the difference of two arms of so many units is, in proportion."""
    whole = n + n_control
    return n * n_control / whole if whole else 0.0


def pooled_pair(pairs: Sequence[Pair], sizes: Sequence[tuple[float, float]] | None = None) -> Pair:
    """The pairs of several strata as one, weighed by precision as `_precisions` does with units, or
    with `sizes`, those of each pair's arms in what the values are means over; the first reason
    where none of them can be read."""
    ones, others, weights = [], [], []
    information = 0.0
    for pair, (n, m) in zip(pairs, sizes or [(p.n, p.n_control) for p in pairs], strict=True):
        if pair.reason or min(pair.n, pair.n_control) < THIN:
            continue
        if pair.treated is not None and pair.control is not None:
            ones.append(pair.treated)
            others.append(pair.control)
            weights.append(information_of(n, m))
            information += information_of(pair.n, pair.n_control)
    if not weights:
        unread = [p for p in pairs if p.reason]
        return unread[0] if unread else Pair(None, None, reasons.THIN_STRATA, 0, 0)
    shares = np.array(weights) / sum(weights)
    one, other = _weighted(ones, shares), _weighted(others, shares)
    return Pair(one, other, reasons.OK, one.n, other.n, information=information)


def by_stratum(arms: Mapping[Any, ArmMoments], strata: Mapping[int, int]) -> dict[Any, ArmMoments]:
    """Arms by phase (the last part of their keys), added up by the stratum of each phase."""
    totals: dict[Any, ArmMoments] = {}
    for key, arm in arms.items():
        stratum = strata[key[-1]]
        totals[stratum] = totals[stratum] + arm if stratum in totals else arm
    return totals


def without_thin(
    treated: Mapping[Any, ArmMoments], control: Mapping[Any, ArmMoments]
) -> tuple[dict[Any, ArmMoments], dict[Any, ArmMoments]]:
    """The strata in which both arms have `THIN` units; all of them where there is one stratum, in
    which nothing has to be weighed."""
    keys = dict.fromkeys([*treated, *control])
    if len(keys) < 2:
        return dict(treated), dict(control)
    thick = [k for k in keys if min(units_of(treated.get(k)), units_of(control.get(k))) >= THIN]
    return {k: treated[k] for k in thick}, {k: control[k] for k in thick}


def _rates(
    terms: MetricTerms, treated: ArmMoments, control: ArmMoments
) -> tuple[Rate, Rate] | None:
    """The counts of a proportion; None where its rows are not independent of each other."""
    if not isinstance(terms.metric, Proportion):
        return None
    rates = []
    for arm in (treated, control):
        share = _plain(terms, arm).value
        # Units whose rows are all alike count once, however many rows they have.
        if terms.divisor is not None and terms.metric.per == "row" and share not in (0.0, 1.0):
            return None
        rates.append(Rate(round(share * arm.n), arm.n))
    return rates[0], rates[1]


def coverage_differs(strata: Strata) -> bool:
    """Whether a covariate is there for another share of the one variant's units than of the
    other's, within strata: Pearson's chi-square, added up over strata as Mantel & Haenszel (1959)
    do, at `COVERAGE_ALPHA`, for each covariate.

    At one look's level however often one looks: taken for a difference by chance, it costs some
    precision; overlooked, it would make an effect of nothing.
    """
    covariates = len(strata[0][0].covered) if strata else 0
    return any(_coverage_differs(strata, i) for i in range(covariates))


def _coverage_differs(strata: Strata, i: int) -> bool:
    gap = variance = 0.0
    for treated, control in strata:
        n, n_control = treated.moments.n, control.moments.n
        whole = n + n_control
        covered = (treated.covered[i] + control.covered[i]) / whole
        gap += treated.covered[i] - n * covered
        variance += n * n_control / whole * covered * (1.0 - covered)
    if variance <= 0.0:
        return False  # all units have it, or none
    return bool(stats.chi2.sf(gap**2 / variance, 1) <= COVERAGE_ALPHA)


def strata_differ(treated: Mapping[Any, ArmMoments], control: Mapping[Any, ArmMoments]) -> bool:
    """Whether the one variant's units are in other strata than the other's: Pearson's chi-square at
    `COVERAGE_ALPHA`. What was so before the split is alike in both, nothing known included.
    """
    counts = [
        (units_of(treated.get(key)), units_of(control.get(key)))
        for key in dict.fromkeys([*treated, *control])
    ]
    n, n_control = sum(t for t, _ in counts), sum(c for _, c in counts)
    smaller = min(n, n_control) / (n + n_control)
    # Where less than five are expected of a cell, its square is no chi-square's: those are one.
    thick = [(t, c) for t, c in counts if (t + c) * smaller >= 5.0]
    thin = [(t, c) for t, c in counts if (t + c) * smaller < 5.0]
    cells = [*thick, (sum(t for t, _ in thin), sum(c for _, c in thin))] if thin else thick
    if len(cells) < 2:
        return False
    return bool(stats.chi2_contingency(np.array(cells), correction=False).pvalue <= COVERAGE_ALPHA)


def _saved(terms: MetricTerms, strata: Strata, weights: Floats, variance: float) -> float | None:
    """The share of the difference's variance that the covariate took away."""
    if terms.covariate is None:
        return None
    unadjusted = 0.0
    for weight, pair in zip(weights, strata, strict=True):
        for arm in pair:
            plain = _estimate(terms, terms.statistic(arm.moments), arm, None)
            unadjusted += float(weight) ** 2 * plain.variance
    return 1.0 - variance / unadjusted if unadjusted > 0.0 else None


def _adjusted_pair(
    terms: MetricTerms, treated: ArmMoments, control: ArmMoments, adjust: Adjustment
) -> tuple[ArmEstimate, ArmEstimate]:
    """The two estimates without strata, adjusted where there is a covariate."""
    if terms.covariate is None:
        return _plain(terms, treated), _plain(terms, control)
    # Lin's regression is of one value a unit: where something is divided by, CUPED it is.
    if adjust == "lin" and terms.divisor is None:
        a = _lin(terms, treated.moments, control.moments)
        return (
            ArmEstimate(a.treated + terms.shift, a.treated_variance, treated.n),
            ArmEstimate(a.control + terms.shift, a.control_variance, control.n),
        )
    # θ is of both arms together: one slope, so that the difference stays unbiased.
    merged = treated.moments + control.moments
    slope = regression_slope(merged, terms.statistic, terms.covariate)
    # Each covariate after the first costs a degree of freedom, which few units would miss.
    spent = (merged.n - 2) / max(merged.n - 1 - len(terms.covariate), 1)
    estimates = []
    for arm in (treated, control):
        linear = regressed(arm.moments, merged, terms.statistic, slope)
        estimate = _estimate(terms, linear, arm, None)
        if len(terms.covariate) > 1:
            estimate = dataclasses.replace(estimate, variance=estimate.variance * spent)
        estimates.append(estimate)
    return estimates[0], estimates[1]


def _lin(terms: MetricTerms, treated: Moments, control: Moments) -> Adjusted:
    """Lin's regression on the metric's covariates."""
    y, covariates = terms.terms[0].name, terms.covariate or ()
    if len(covariates) == 1:
        return lin(treated, control, y, covariates[0])
    return lin_of_several(treated, control, y, covariates)


def _usable(terms: MetricTerms, arm: ArmMoments | None) -> ArmEstimate | None:
    return None if arm is None or _unusable(terms, arm) else _plain(terms, arm)


def _plain(terms: MetricTerms, arm: ArmMoments) -> ArmEstimate:
    # A proportion of units has variance p(1 − p)/n exactly: divisor n, not n − 1.
    divisor = arm.moments.n if terms.binomial else None
    return _estimate(terms, terms.statistic(arm.moments), arm, divisor)


def _estimate(
    terms: MetricTerms, linear: LinearEstimate, arm: ArmMoments, divisor: int | None
) -> ArmEstimate:
    variance = linear.variance(arm.moments, divisor=divisor)
    # A variance that rounding alone may have made is none, else a constant metric had an interval.
    if variance <= linear.rounding(arm.moments):
        variance = 0.0
    return ArmEstimate(linear.value + terms.shift, variance, arm.n)


def _total(by_stratum: Mapping[Any, ArmMoments]) -> ArmMoments | None:
    total: ArmMoments | None = None
    for arm in by_stratum.values():
        total = _sum(total, arm)
    return total


def units_of(arm: ArmMoments | ArmEstimate | None) -> int:
    """How many units an arm has; 0 where there is none."""
    return 0 if arm is None else arm.n


def _sum(one: ArmMoments | None, other: ArmMoments | None) -> ArmMoments | None:
    if one is None or other is None:
        return one or other
    return one + other


def _unusable(terms: MetricTerms, arm: ArmMoments) -> str:
    if arm.infinite or not np.all(np.isfinite(arm.moments.scatter)):
        return reasons.INFINITE_VALUES
    # A column that nobody of an arm has is one that was not sent, rather than 0 for everybody.
    if arm.n == 0 or arm.measured == 0 or _weight(terms, arm) == 0.0:
        return reasons.NO_VALUES
    return reasons.OK


def _reason(terms: MetricTerms, treated: ArmMoments | None, control: ArmMoments | None) -> str:
    if control is None:
        return reasons.MISSING_CONTROL if treated else reasons.NO_TRAFFIC
    if treated is None:
        return reasons.NO_TRAFFIC
    reason = _unusable(terms, treated) or _unusable(terms, control)
    if not reason and min(treated.n, control.n) < 2:
        reason = reasons.TOO_FEW_UNITS
    return reason


def _weight(terms: MetricTerms, arm: ArmMoments) -> float:
    """What the statistic divides by: the denominator's total, or the number of units."""
    if terms.divisor is not None:
        return arm.moments.total(terms.divisor)
    return float(arm.moments.n)


def _paired_strata(treated: Mapping[Any, ArmMoments], control: Mapping[Any, ArmMoments]) -> Strata:
    """Strata in which both arms have two units; the rest is pooled, and joins the largest if still
    too thin.
    """
    strata: Strata = []
    rest_t: ArmMoments | None = None
    rest_c: ArmMoments | None = None
    # In one order, not a set's: sums in another order have other last bits.
    for key in dict.fromkeys([*treated, *control]):
        t, c = treated.get(key), control.get(key)
        if t and c and _enough(t, c):
            strata.append((t, c))
        else:
            rest_t, rest_c = _sum(rest_t, t), _sum(rest_c, c)
    if rest_t and rest_c and _enough(rest_t, rest_c):
        strata.append((rest_t, rest_c))
    elif strata:
        # Alone it would have no variance; left out, its units would be missing from the estimate.
        strata.sort(key=lambda pair: pair[0].n + pair[1].n)
        largest_t, largest_c = strata.pop()
        strata.append((_sum(largest_t, rest_t) or largest_t, _sum(largest_c, rest_c) or largest_c))
    return strata


def _enough(treated: ArmMoments, control: ArmMoments) -> bool:
    return treated.n >= 2 and control.n >= 2


def _post_strata(terms: MetricTerms, strata: Strata) -> Floats:
    """W_s, the stratum's share of both arms together (Miratrix, Sekhon & Yu 2013, eq. 3)."""
    weights = np.array([_weight(terms, t + c) for t, c in strata] or [1.0])
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _precisions(terms: MetricTerms, strata: Strata) -> Floats:
    """W_s ∝ n_ts·n_cs / (n_ts + n_cs), with the units (or rows) of the two arms: what least squares
    with a fixed effect for each stratum weighs it by (Cochran 1954; Angrist 1998).

    The variance is the least where the effect is the same throughout, and a phase in which one arm
    got 5% does not drown one in which both got half, as it would by its size.
    """
    weights = []
    for t, c in strata:
        one, other = _weight(terms, t), _weight(terms, c)
        weights.append(one * other / (one + other) if one + other > 0.0 else 0.0)
    total = sum(weights)
    if not total > 0.0:
        return _post_strata(terms, strata)
    return np.asarray(weights, dtype=np.float64) / total


def _stratified(
    terms: MetricTerms, strata: Strata, weights: Floats, adjust: Adjustment
) -> tuple[ArmEstimate, ArmEstimate]:
    """Σ W_s · estimate_s of each arm."""
    ones, others = [], []
    for t, c in strata:
        one, other = _adjusted_pair(terms, t, c, adjust)
        ones.append(one)
        others.append(other)
    return _weighted(ones, weights), _weighted(others, weights)


def _weighted(estimates: Sequence[ArmEstimate], weights: Any) -> ArmEstimate:
    """Σ w·value with variance Σ w²·variance: strata are independent of each other."""
    value = variance = below = above = 0.0
    n = 0
    for weight, estimate in zip(weights, estimates, strict=True):
        square = weight * weight
        value += float(weight * estimate.value)
        variance += float(square * estimate.variance)
        below += float(square * estimate.one_sided(-1.0).variance)
        above += float(square * estimate.one_sided(1.0).variance)
        n += estimate.n
    if not any(estimate.is_lopsided for estimate in estimates):
        return ArmEstimate(value, variance, n)
    return ArmEstimate(value, variance, n, below, above)


# --- The rule


@dataclass(frozen=True, slots=True)
class Rule:
    """How intervals are made. `tuning` is where a confidence sequence is tightest (units of both
    arms); `looks` the information fractions at which was looked, the present one last; `prior` the
    standard deviation of the relative effect before the data (None is flat)."""

    method: Method = "sequential"
    alpha: float = 0.05
    tuning: float = sequential.TUNING
    looks: tuple[float, ...] = (1.0,)
    spending: sequential.Spending = "obrien-fleming"
    prior: float | None = None

    def reach(self, n: int, df: float) -> float:
        """How many standard errors the interval of the difference reaches to either side."""
        if self.method == "sequential":
            return float(sequential.multiplier(n, self.alpha, self.tuning))
        if self.method == "group-sequential":
            return float(sequential.boundaries(self.looks, self.alpha, self.spending)[-1])
        if self.method == "fixed":
            return float(stats.t.isf(self.alpha / 2.0, df))
        return self.normal_reach

    def call_reach(self, n: int, df: float, tests: int = 1) -> float:
        """How many standard errors from zero an estimate is called: where its p-value, being one of
        `tests` that Holm has still to reject, is at most α/tests. With 1 that is `reach`."""
        if self.method == "sequential":
            return float(sequential.multiplier(n, self.alpha, self.tuning, tests=tests))
        # Elsewhere Holm asks for what an interval of level 1 − α/tests leaves out.
        return dataclasses.replace(self, alpha=self.alpha / tests).reach(n, df)

    @property
    def normal_reach(self) -> float:
        """The normal quantile of a two-sided interval."""
        return float(stats.norm.isf(self.alpha / 2.0))

    @property
    def evidence_limit(self) -> float:
        """How much evidence (`rates`) an interval leaves standing: of one look squared normal
        deviates, of looking always the logarithm of an e-value."""
        if self.method == "sequential":
            return log(1.0 / self.alpha)
        return self.reach(0, inf) ** 2

    def p_of_evidence(self, evidence: float) -> float | None:
        """The p-value of the evidence against there being no difference."""
        if self.method == "sequential":
            return exp(-max(0.0, evidence))
        return self.p_value(sqrt(evidence), 0, inf)

    def p_value(self, z: float, n: int, df: float) -> float | None:
        """The p-value of a standardised difference; None with method "bayes", which has none."""
        if self.method == "sequential":
            return float(sequential.always_valid_p(z, n, self.alpha, self.tuning))
        if self.method == "group-sequential":
            return sequential.repeated_p(z, self.looks, self.spending)
        if self.method == "fixed":
            return float(2.0 * stats.t.sf(abs(z), df))
        return None


def checked_rule(
    method: Method,
    alpha: float,
    tuning: float = sequential.TUNING,
    looks: Sequence[float] = (1.0,),
    spending: sequential.Spending = "obrien-fleming",
    prior: float | None = None,
) -> Rule:
    """The arguments as a Rule.

    Raises:
        BadRequest: for what cannot be meant.
    """
    if method not in METHODS:
        raise BadRequest("method", f"got {method!r}; expected one of {', '.join(METHODS)}")
    if not 0.0 < alpha < 0.5:
        raise BadRequest(
            "alpha", f"got {alpha!r}; expected a number between 0 and 0.5, such as 0.05"
        )
    if not tuning > 0.0:
        raise BadRequest("tuning", f"got {tuning!r}; expected a positive number of units")
    times = _fractions(looks)
    if spending not in sequential.SPENDING:
        raise BadRequest(
            "spending", f"got {spending!r}; expected one of {', '.join(sequential.SPENDING)}"
        )
    if prior is not None and not prior > 0.0:
        raise BadRequest(
            "prior",
            f"got {prior!r}; expected a positive standard deviation, or None for a flat prior",
        )
    return Rule(method, alpha, tuning, times, spending, prior)


def _fractions(looks: Sequence[float]) -> tuple[float, ...]:
    times = tuple(float(t) for t in looks)
    if not are_looks(times):
        raise BadRequest(
            "looks", f"got {times}; expected information fractions that increase within (0, 1]"
        )
    return times


def adjusted(
    p_values: Sequence[float | None], correction: Correction = "holm"
) -> list[float | None]:
    """p-values adjusted for being several: "holm" keeps the chance of any false call, "fdr_bh"
    (Benjamini & Hochberg) the share of false calls, below α when called at α. None stays None and
    counts for nothing."""
    present = [p for p in p_values if p is not None]
    # One alone is adjusted for nothing.
    if len(present) < 2:
        return list(p_values)
    if correction == "holm":
        corrected = iter(_holm(np.array(present)))
    else:
        with np.errstate(divide="ignore"):  # Šidák's logarithm of 1 − p where p is 1
            corrected = iter(multipletests(present, method=correction)[1])
    return [None if p is None else float(min(1.0, next(corrected))) for p in p_values]


def _holm(p_values: Floats) -> Floats:
    """Holm (1979): the i-th smallest of n times n − i + 1, never less than the one before.

    The same as statsmodels', which collects all garbage at each call: that made half of a report.
    """
    order = np.argsort(p_values)
    stepped = np.sort(p_values) * np.arange(len(p_values), 0, -1)
    results = np.empty_like(stepped)
    results[order] = np.maximum.accumulate(stepped)
    return results


# --- The posterior of a difference


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Posterior of a difference (treatment − control). `weight` is the data's share of it, 1 with a
    flat prior.
    """

    mean: float
    sd: float
    weight: float = 1.0

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """The central credible interval."""
        half = -float(ndtri(alpha / 2.0)) * self.sd
        return self.mean - half, self.mean + half

    @property
    def chance_to_win(self) -> float:
        """P(difference > 0)."""
        return float(ndtr(self.mean / self.sd))

    @property
    def loss_of_treatment(self) -> float:
        """E[(−difference)⁺]: what choosing the treatment loses where it is the worse one."""
        z = self.mean / self.sd
        return float(max(0.0, self.sd * (_density(z) - z * ndtr(-z))))

    @property
    def loss_of_control(self) -> float:
        """E[difference⁺]: what staying with the control loses."""
        z = self.mean / self.sd
        return float(max(0.0, self.sd * (_density(z) + z * ndtr(z))))


def _density(z: float) -> float:
    return exp(-0.5 * z * z) / sqrt(2.0 * pi)


def gaussian(difference: float, se: float, prior_sd: float | None = None) -> Gaussian:
    """Posterior of a difference estimated with standard error `se`, under N(0, prior_sd²) or a flat
    prior.

    Raises:
        BadRequest: for a prior whose standard deviation is not positive.
    """
    if prior_sd is None:
        return Gaussian(difference, se)
    if not prior_sd > 0.0:
        raise BadRequest(
            "prior",
            f"got a standard deviation of {prior_sd}; expected a positive number, or None for flat",
        )
    weight = prior_sd**2 / (prior_sd**2 + se**2)
    return Gaussian(weight * difference, sqrt(weight) * se, weight)


# --- The effect


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """A variant against the control on one metric. Relative numbers are fractions (0.05 is +5%).

    A number that the data cannot bear is None and `reason` says why (see `reasons.REASONS`).
    `chance_to_win` is P(difference > 0) and `expected_loss` what choosing the variant loses in
    expectation, in the metric's own unit: of the Gaussian posterior, whose prior is flat unless
    method "bayes" was given one; of rates that are too few for the normal distribution by their
    Beta posteriors. Where `is_proportion`, values are shares of rows or units, and people read them
    as percentages and their difference in percentage points.
    """

    metric: str
    variant: object
    value: float | None = None
    control_value: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    relative: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    se: float | None = None
    p_value: float | None = None
    n: int = 0
    reason: str = reasons.OK
    n_control: int = 0
    chance_to_win: float | None = None
    expected_loss: float | None = None
    is_proportion: bool = False


def effect_of(metric: str, variant: object, pair: Pair, rule: Rule, mixed: int = 0) -> Effect:
    """The effect of a pair, or what there is of it with the reason; `mixed` units were left out,
    which an effect without another reason says.
    """
    t, c = pair.treated, pair.control
    if t is not None and c is not None and not pair.reason:
        pair_of_rates = rate_pair(pair, rule)
        if pair_of_rates is None:
            result = _two_sided(metric, variant, t, c, rule)
        else:
            result = _effect_of_rates(metric, variant, t, c, rule, pair_of_rates)
    else:
        result = _without_interval(metric, variant, pair)
    if pair.bounds is not None:
        result = within(result, *pair.bounds)
    remark = pair.remark or (reasons.CROSSOVER_UNITS if mixed else reasons.OK)
    if remark and not result.reason:
        result = msgspec.structs.replace(result, reason=remark)
    return msgspec.structs.replace(result, is_proportion=pair.is_proportion)


def facing(
    treated: ArmEstimate, control: ArmEstimate, sign: float
) -> tuple[ArmEstimate, ArmEstimate]:
    """Two arms with the variances of the sides that they turn to each other where the treated one
    is the larger (`sign` > 0), or the smaller."""
    return treated.one_sided(-sign), control.one_sided(sign)


def _two_sided(
    metric: str, variant: object, treated: ArmEstimate, control: ArmEstimate, rule: Rule
) -> Effect:
    """The effect of two arms. Of lopsided ones zero is as far off as the sides that face each other
    say, and the interval's other end as the sides that don't (Zou & Donner 2008)."""
    if not (treated.is_lopsided or control.is_lopsided):
        return effect(metric, variant, treated, control, rule)
    sign = copysign(1.0, treated.value - control.value)
    near = effect(metric, variant, *facing(treated, control, sign), rule)
    far = effect(metric, variant, *facing(treated, control, -sign), rule)
    low, high = (near, far) if sign > 0.0 else (far, near)
    result = msgspec.structs.replace(
        near, difference_low=low.difference_low, difference_high=high.difference_high
    )
    if near.relative is None or far.relative is None:
        # One of the ends divides by a control that may be zero.
        reason = near.reason or far.reason
        return msgspec.structs.replace(
            result, relative=None, relative_low=None, relative_high=None, reason=reason
        )
    return msgspec.structs.replace(
        result, relative_low=low.relative_low, relative_high=high.relative_high
    )


def within(effect: Effect, low: float, high: float) -> Effect:
    """The effect with its intervals cut to what can be: two values between `low` and `high` differ
    by no more than these do, and what cannot be below 0 loses no more than all of it."""
    reach = high - low
    changes: dict[str, float] = {}
    if effect.difference_low is not None and effect.difference_high is not None:
        changes["difference_low"] = max(effect.difference_low, -reach)
        changes["difference_high"] = min(effect.difference_high, reach)
    if low >= 0.0 and effect.relative_low is not None:
        changes["relative_low"] = max(effect.relative_low, -1.0)
    return msgspec.structs.replace(effect, **changes)


def rate_pair(pair: Pair, rule: Rule, *, equal: bool = False) -> RatePair | None:
    """The pair's counts with the evidence that the rule asks for, where its rates are too few for
    the normal distribution; else None. Of arms that both have all only where `equal`: what they
    differ by at most can be asked, while nothing is to be told of a difference. Of arms that both
    have none never: so it looks where nobody sends the event, too."""
    if pair.rates is None:
        return None
    treated, control = pair.rates
    are_alike = treated.value == control.value and treated.is_constant
    if are_alike and not (equal and treated.successes):
        return None
    looks_once = rule.method in ("fixed", "group-sequential")
    is_constant = treated.is_constant or control.is_constant
    if not is_constant and not (looks_once and are_few(treated, control)):
        return None
    if rule.method == "sequential":
        return RatePair(treated, control, sequential_evidence(rule.alpha, rule.tuning))
    return RatePair(treated, control, tail_evidence)


def _effect_of_rates(
    metric: str,
    variant: object,
    treated: ArmEstimate,
    control: ArmEstimate,
    rule: Rule,
    rates: RatePair,
) -> Effect:
    """The effect of two rates from their counts; its standard error is the interval's where the
    arms' own variances are nothing."""
    limit, difference = rule.evidence_limit, treated.value - control.value
    low, high = rates.difference_interval(limit)
    reach = rule.reach(treated.n + control.n, inf)
    se = sqrt(treated.variance + control.variance) or (high - low) / (2.0 * reach)
    posterior = beta_binomial(rates.control, rates.treated)
    result = Effect(
        metric=metric,
        variant=variant,
        n=treated.n,
        n_control=control.n,
        value=treated.value,
        control_value=control.value,
        difference=difference,
        difference_low=low,
        difference_high=high,
        se=se,
        p_value=rule.p_of_evidence(rates.against_difference(0.0)),
        chance_to_win=posterior.chance_to_win,
        expected_loss=posterior.loss_of_treatment,
    )
    ratios = rates.ratio_interval(limit)
    if ratios is None:
        return msgspec.structs.replace(result, reason=reasons.CONTROL_NEAR_ZERO)
    return msgspec.structs.replace(
        result,
        relative=treated.value / control.value - 1.0,
        relative_low=ratios[0] - 1.0,
        relative_high=ratios[1] - 1.0,
    )


def loss_of_control(effect: Effect, pair: Pair, rule: Rule) -> float | None:
    """What staying with the control loses in expectation, by the effect's own posterior."""
    if effect.expected_loss is None or effect.difference is None:
        return None
    rates = rate_pair(pair, rule)
    if rates is not None:
        return beta_binomial(rates.control, rates.treated).loss_of_control
    # E[d⁺] = E[(−d)⁺] + E[d]
    return effect.expected_loss + effect.difference


def _without_interval(metric: str, variant: object, pair: Pair) -> Effect:
    t, c = pair.treated, pair.control
    return Effect(
        metric=metric,
        variant=variant,
        value=t.value if t else None,
        control_value=c.value if c else None,
        difference=t.value - c.value if t and c else None,
        n=pair.n,
        n_control=pair.n_control,
        reason=pair.reason,
    )


def effect(
    metric: str, variant: object, treated: ArmEstimate, control: ArmEstimate, rule: Rule
) -> Effect:
    """The effect of two arms with at least two units each; without numbers and with a reason when
    nothing varies.
    """
    difference = treated.value - control.value
    # Arms are independent, as units were randomised: variances add up.
    se = sqrt(treated.variance + control.variance)
    bare = Effect(metric=metric, variant=variant, n=treated.n, n_control=control.n)
    if not (isfinite(difference) and isfinite(se)):
        return msgspec.structs.replace(bare, reason=reasons.INFINITE_VALUES)
    result = msgspec.structs.replace(
        bare, value=treated.value, control_value=control.value, difference=difference
    )
    if se == 0.0:
        zero = treated.value == control.value == 0.0
        return msgspec.structs.replace(
            result, reason=reasons.ALL_ZERO if zero else reasons.CONSTANT_METRIC
        )
    if rule.method == "bayes":
        return _with_posterior(result, treated, control, se, rule)
    n, df = treated.n + control.n, welch_df(treated, control)
    reach = rule.reach(n, df)
    flat_posterior = gaussian(difference, se)
    result = msgspec.structs.replace(
        result,
        difference_low=difference - reach * se,
        difference_high=difference + reach * se,
        se=se,
        p_value=rule.p_value(difference / se, n, df),
        chance_to_win=flat_posterior.chance_to_win,
        expected_loss=flat_posterior.loss_of_treatment,
    )
    # By the difference's own reach, so that the lift leaves 0 out exactly where the difference does
    # (at that ratio Fieller's statistic t − ρc is the difference).
    return _with_relative(result, treated, control, reach)


def _with_relative(result: Effect, treated: ArmEstimate, control: ArmEstimate, z: float) -> Effect:
    bounds = fieller(treated, control, z)
    if bounds is None:
        return msgspec.structs.replace(result, reason=reasons.CONTROL_NEAR_ZERO)
    lift = copysign(1.0, control.value) * (treated.value / control.value - 1.0)
    return msgspec.structs.replace(
        result, relative=lift, relative_low=bounds[0], relative_high=bounds[1]
    )


def _with_posterior(
    result: Effect, treated: ArmEstimate, control: ArmEstimate, se: float, rule: Rule
) -> Effect:
    """The Gaussian posterior of the difference. Its relative interval divides by the control as
    Fieller does with a flat prior; with a prior the relative effect is the shrunken difference over
    the control."""
    # The prior is of the relative effect, so it is scaled by the control; at 0 it has no meaning.
    sd = None if rule.prior is None or control.value == 0.0 else rule.prior * abs(control.value)
    posterior = gaussian(treated.value - control.value, se, sd)
    low, high = posterior.interval(rule.alpha)
    result = msgspec.structs.replace(
        result,
        difference=posterior.mean,
        difference_low=low,
        difference_high=high,
        se=posterior.sd,
        chance_to_win=posterior.chance_to_win,
        expected_loss=posterior.loss_of_treatment,
    )
    # Two arms whose difference has the posterior's mean and variance, for Fieller to divide.
    weight = posterior.weight
    shrunken = ArmEstimate(control.value + posterior.mean, treated.variance * weight, treated.n)
    reference = ArmEstimate(control.value, control.variance * weight, control.n)
    return _with_relative(result, shrunken, reference, rule.normal_reach)


def welch_df(treated: ArmEstimate, control: ArmEstimate) -> float:
    """Welch–Satterthwaite degrees of freedom of a difference."""
    below = 0.0
    for e in (treated, control):
        # An arm of one unit has no variance of its own to be unsure of.
        if e.n > 1:
            below += e.variance**2 / (e.n - 1)
    return (treated.variance + control.variance) ** 2 / below if below > 0.0 else inf


def fieller(treated: ArmEstimate, control: ArmEstimate, z: float) -> tuple[float, float] | None:
    """Interval of the relative lift treated/control − 1 by Fieller (1954), arms independent; None
    when unbounded.

    It holds the control's noise in full, and leaves zero out exactly when the difference does at
    the same z.
    """
    c = control.value
    # The square of 1e-200 is 0, too.
    g = z * z * control.variance / (c * c) if c * c else inf
    # g is the squared share of the control that its own noise makes; from 1 on zero is in reach.
    if g >= 1.0:
        return None
    r = treated.value / c
    spread = treated.variance * (1.0 - g) + r * r * control.variance
    half = z / abs(c) * sqrt(spread)
    low = (r - half) / (1.0 - g) - 1.0
    high = (r + half) / (1.0 - g) - 1.0
    # Of a negative control a larger value is a loss: signs and ends change places.
    return (low, high) if c > 0.0 else (-high, -low)
