"""From two arms' estimates to one effect: difference, relative lift, intervals and p-value by the
chosen rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import copysign, exp, inf, isfinite, log, sqrt
from typing import Literal

import msgspec
from scipy import stats

from topbill.ab import reasons
from topbill.ab.core import bayes
from topbill.stats import sequential

Method = Literal["sequential", "fixed", "group-sequential", "bayes"]
METHODS: tuple[Method, ...] = ("sequential", "fixed", "group-sequential", "bayes")


@dataclass(frozen=True, slots=True)
class ArmEstimate:
    """One arm's estimate, the variance of it, and the units behind it."""

    value: float
    variance: float
    n: int


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
        return float(stats.norm.isf(self.alpha / 2.0))

    def p_value(self, z: float, n: int, df: float) -> float | None:
        if self.method == "sequential":
            return float(sequential.always_valid_p(z, n, self.alpha, self.tuning))
        if self.method == "group-sequential":
            return sequential.repeated_p(z, self.looks, self.spending)
        return float(2.0 * stats.t.sf(abs(z), df)) if self.method == "fixed" else None


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """A variant against the control on one metric. Relative numbers are fractions (0.05 is +5%).

    A number that the data cannot bear is None and `reason` says why (see `reasons.REASONS`).
    `chance_to_win` is P(difference > 0) and `expected_loss` what choosing the variant loses in
    expectation, in the metric's own unit: of the Gaussian posterior, whose prior is flat unless
    method "bayes" was given one.
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


def welch_df(treated: ArmEstimate, control: ArmEstimate) -> float:
    """Welch–Satterthwaite degrees of freedom of a difference."""
    below = sum(e.variance**2 / (e.n - 1) for e in (treated, control) if e.n > 1)
    return (treated.variance + control.variance) ** 2 / below if below > 0.0 else inf


def fieller(treated: ArmEstimate, control: ArmEstimate, z: float) -> tuple[float, float] | None:
    """Interval of the relative lift treated/control − 1 by Fieller (1954), arms independent; None
    when unbounded.

    It holds the control's noise in full, and leaves zero out exactly when the difference does at
    the same z.
    """
    c = control.value
    g = z * z * control.variance / (c * c) if c else inf
    if g >= 1.0:
        return None
    r = treated.value / c
    spread = treated.variance * (1.0 - g) + r * r * control.variance
    half = z / abs(c) * sqrt(spread)
    low, high = (r - half) / (1.0 - g) - 1.0, (r + half) / (1.0 - g) - 1.0
    return (low, high) if c > 0.0 else (-high, -low)


def log_ratio(
    treated: ArmEstimate, control: ArmEstimate, reach: float
) -> tuple[float, float] | None:
    """Interval of the relative lift on the log scale; None unless both values are positive."""
    if treated.value <= 0.0 or control.value <= 0.0:
        return None
    half = reach * sqrt(treated.variance / treated.value**2 + control.variance / control.value**2)
    middle = log(treated.value / control.value)
    return exp(middle - half) - 1.0, exp(middle + half) - 1.0


def log_ratio_df(treated: ArmEstimate, control: ArmEstimate) -> float:
    """Welch's degrees of freedom on the log scale."""
    scaled = [ArmEstimate(0.0, e.variance / e.value**2, e.n) for e in (treated, control)]
    return welch_df(scaled[0], scaled[1])


def relative_se(treated: ArmEstimate, control: ArmEstimate) -> float:
    """The delta method's standard error of treated/control − 1 (its symmetric interval is not
    shown: Fieller's is).
    """
    r = treated.value / control.value
    return sqrt(treated.variance + r * r * control.variance) / abs(control.value)


def effect(
    metric: str, variant: object, treated: ArmEstimate, control: ArmEstimate, rule: Rule
) -> Effect:
    """The effect of two arms with at least two units each; without numbers and with a reason when
    nothing varies.
    """
    difference = treated.value - control.value
    se = sqrt(treated.variance + control.variance)
    shown = Effect(
        metric=metric,
        variant=variant,
        value=treated.value,
        control_value=control.value,
        difference=difference,
        n=treated.n,
        n_control=control.n,
    )
    if not (isfinite(difference) and isfinite(se)):
        return Effect(
            metric=metric,
            variant=variant,
            n=treated.n,
            n_control=control.n,
            reason=reasons.INFINITE_VALUES,
        )
    if se == 0.0:
        zero = treated.value == control.value == 0.0
        return msgspec.structs.replace(
            shown, reason=reasons.ALL_ZERO if zero else reasons.CONSTANT_METRIC
        )
    if rule.method == "bayes":
        return _posterior(shown, treated, control, se, rule)
    n, df = treated.n + control.n, welch_df(treated, control)
    reach, flat_posterior = rule.reach(n, df), bayes.gaussian(difference, se)
    return _with_relative(
        msgspec.structs.replace(
            shown,
            difference_low=difference - reach * se,
            difference_high=difference + reach * se,
            se=se,
            p_value=rule.p_value(difference / se, n, df),
            chance_to_win=flat_posterior.chance_to_win,
            expected_loss=flat_posterior.loss_of_treatment,
        ),
        treated,
        control,
        # Fieller's statistic t − ρc has other degrees of freedom at each ρ, so a fixed horizon
        # takes the normal's.
        float(stats.norm.isf(rule.alpha / 2.0)) if rule.method == "fixed" else reach,
    )


def _with_relative(shown: Effect, treated: ArmEstimate, control: ArmEstimate, z: float) -> Effect:
    bounds = fieller(treated, control, z)
    if bounds is None:
        return msgspec.structs.replace(shown, reason=reasons.CONTROL_NEAR_ZERO)
    lift = copysign(1.0, control.value) * (treated.value / control.value - 1.0)
    return msgspec.structs.replace(
        shown, relative=lift, relative_low=bounds[0], relative_high=bounds[1]
    )


def _posterior(
    shown: Effect, treated: ArmEstimate, control: ArmEstimate, se: float, rule: Rule
) -> Effect:
    """The Gaussian posterior of the difference. Its relative interval divides by the control as
    Fieller does with a flat prior; with a prior the relative effect is the shrunken difference over
    the control."""
    sd = None if rule.prior is None or control.value == 0.0 else rule.prior * abs(control.value)
    posterior = bayes.gaussian(treated.value - control.value, se, sd)
    low, high = posterior.interval(rule.alpha)
    shown = msgspec.structs.replace(
        shown,
        difference=posterior.mean,
        difference_low=low,
        difference_high=high,
        se=posterior.sd,
        chance_to_win=posterior.chance_to_win,
        expected_loss=posterior.loss_of_treatment,
    )
    weight = posterior.weight
    moved = ArmEstimate(control.value + posterior.mean, treated.variance * weight, treated.n)
    kept = ArmEstimate(control.value, control.variance * weight, control.n)
    return _with_relative(shown, moved, kept, float(stats.norm.isf(rule.alpha / 2.0)))
