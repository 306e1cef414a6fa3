"""Two rates from counts, where the normal distribution fails: few successes, or none in an arm.

One measure of evidence against a pair of true rates answers everything about them, so that p-value,
difference and lift never contradict each other: an interval holds what evidence does not refute.

The score test of statsmodels is not taken here: it finds no interval where an arm has no success,
and it calls more than α of nothing where one arm is much larger than the other. One rate by itself
has Wilson's interval, which is statsmodels'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, log
from typing import TYPE_CHECKING

from topbill import late
from topbill.ab.core.units import Rate
from topbill.stats.bounded import rate_concentration, rate_log_e

if TYPE_CHECKING:
    from scipy.optimize import brentq, minimize_scalar
    from scipy.special import ndtri_exp
    from scipy.stats import binom
    from statsmodels.stats.proportion import proportion_confint
else:
    brentq = late.name("scipy.optimize", "brentq")
    minimize_scalar = late.name("scipy.optimize", "minimize_scalar")
    ndtri_exp = late.name("scipy.special", "ndtri_exp")
    binom = late.name("scipy.stats", "binom")
    proportion_confint = late.name("statsmodels.stats.proportion", "proportion_confint")

Evidence = Callable[[Rate, float], float]
"""How much a rate's counts speak against a true value: 0 or below at the observed one."""


def tail_evidence(rate: Rate, value: float) -> float:
    """The square of the normal deviate of Clopper and Pearson's two-sided exact p-value (1934)."""
    k, n = rate.successes, rate.n
    tail = min(float(binom.logcdf(k, n, value)), float(binom.logsf(k - 1, n, value)))
    # Twice the smaller tail; by logarithms, as tails are far smaller than numbers go.
    return float(ndtri_exp(min(tail, log(0.5)))) ** 2


def sequential_evidence(alpha: float, tuning: float) -> Evidence:
    """The logarithm of an e-value, which holds however often one looks (`stats.bounded`)."""
    weight = rate_concentration(tuning, alpha)

    def evidence(rate: Rate, value: float) -> float:
        # 0 and 1 themselves have no logarithm; next to them the evidence is the same.
        inside = min(max(value, 1e-15), 1.0 - 1e-15)
        return float(rate_log_e(float(rate.successes), rate.n, inside, weight))

    return evidence


def rate_interval(rate: Rate, alpha: float = 0.05) -> tuple[float, float]:
    """Wilson's (1927) interval of one rate, which holds from a handful of units on, and for none or
    all of them."""
    low, high = proportion_confint(rate.successes, rate.n, alpha=alpha, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


@dataclass(frozen=True, slots=True)
class RatePair:
    """Two arms' counts, and the evidence that is gathered from both, being independent."""

    treated: Rate
    control: Rate
    evidence: Evidence

    def against_difference(self, difference: float) -> float:
        """The least evidence against any two rates with that difference."""
        low, high = max(0.0, -difference), min(1.0, 1.0 - difference)
        return self._least(lambda c: c + difference, low, high, self.treated.value - difference)

    def against_ratio(self, ratio: float) -> float:
        """The least evidence against any two rates with that ratio."""
        high = min(1.0, 1.0 / ratio) if ratio > 0.0 else 1.0
        middle = self.treated.value / ratio if ratio > 0.0 else high
        return self._least(lambda c: c * ratio, 0.0, high, middle)

    def difference_interval(self, limit: float) -> tuple[float, float]:
        """The differences that evidence up to `limit` leaves standing."""
        middle = self.treated.value - self.control.value
        return (
            _edge(self.against_difference, middle, -1.0, limit),
            _edge(self.against_difference, middle, 1.0, limit),
        )

    def ratio_interval(self, limit: float) -> tuple[float, float] | None:
        """The ratios that evidence up to `limit` leaves standing; None where they have no end."""
        if not self.control.successes:
            return None
        middle = self.treated.value / self.control.value
        most = max(1.0, middle)
        while self.against_ratio(most) <= limit:
            most *= 4.0
            if most > 1e12:
                return None
        return (
            _edge(self.against_ratio, middle, 0.0, limit),
            _edge(self.against_ratio, middle, most, limit),
        )

    def _least(
        self, treated_at: Callable[[float], float], low: float, high: float, other: float
    ) -> float:
        """The least evidence over the control's rates from low to high; it lies between what the
        control shows and `other`, which the treated arm shows."""
        one, other = (min(max(x, low), high) for x in (self.control.value, other))

        def total(c: float) -> float:
            treated = min(max(treated_at(c), 0.0), 1.0)
            return self.evidence(self.treated, treated) + self.evidence(self.control, c)

        ends = min(total(one), total(other))
        if one == other:
            return ends
        found = minimize_scalar(
            total,
            bounds=(min(one, other), max(one, other)),
            method="bounded",
            options={"xatol": 1e-12},
        )
        return min(ends, float(found.fun))


def _edge(against: Callable[[float], float], middle: float, end: float, limit: float) -> float:
    """Where, from the middle to the end, the evidence passes the limit; the end if nowhere."""
    if middle == end or against(end) <= limit:
        return end

    def beyond(x: float) -> float:
        evidence = against(x) - limit
        return min(evidence, 1e9) if evidence < inf else 1e9

    return float(brentq(beyond, middle, end, xtol=1e-13))
