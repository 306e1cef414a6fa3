"""How long an experiment must run: units and days until what is aimed at can be expected to be
called, by the very rule that calls it.

The rule is the report's: Holm over the treatments, the boundary of the method, and for a guardrail
the same boundary around its margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, inf, isfinite, sqrt
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from topbill import late
from topbill.ab.core.effect import Rule
from topbill.domain.errors import BadRequest
from topbill.stats import sequential

if TYPE_CHECKING:
    from scipy import stats
    from scipy.optimize import brentq
    from statsmodels.stats.power import TTestIndPower
else:
    stats = late.name("scipy.stats")
    brentq = late.name("scipy.optimize", "brentq")
    TTestIndPower = late.name("statsmodels.stats.power", "TTestIndPower")

_LARGE = 1_000.0
"""Units of the smaller arm from which Student's t and the normal distribution ask for the same
sample, to 0.2%."""


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to find a relative effect: units of both arms together, and days at the given
    traffic.

    None where no number of units would do, or (days) without traffic.
    """

    relative: float
    units: int | None
    days: float | None


@dataclass(frozen=True, slots=True)
class Aim:
    """What is to be shown of a variant and the control.

    Attributes:
        room: How far the true value is from what is tested: the effect, or what a guardrail's
            margin leaves.
        sds: A unit's standard deviation, the control's and the variant's, as they enter the
            difference.
        shares: The control's and the variant's, on any scale.
        tests: One of how many that Holm has still to reject.
    """

    room: float
    sds: tuple[float, float]
    shares: tuple[float, float] = (0.5, 0.5)
    tests: int = 1

    def __post_init__(self) -> None:
        if not (min(self.sds) >= 0.0 and min(self.shares) > 0.0):
            raise BadRequest(
                "power", f"got sd {self.sds}, shares {self.shares}; expected positive numbers"
            )

    @property
    def spread(self) -> float:
        """The difference's standard error at one unit in all; at N it is spread/√N."""
        total = sum(self.shares)
        # Of N units in all, an arm with share s has N·s/total.
        variances = [
            sd * sd * total / share for sd, share in zip(self.sds, self.shares, strict=True)
        ]
        return sqrt(sum(variances))

    @property
    def least_units(self) -> float:
        """Two units in the smaller arm: below that no variance can be estimated."""
        return 2.0 / self.smaller_share

    @property
    def smaller_share(self) -> float:
        """The smaller arm's part of all units."""
        return min(self.shares) / sum(self.shares)

    def power(self, units: float, alpha: float) -> float:
        """The chance that Welch's t calls it at one planned look, by the noncentral t distribution
        (statsmodels)."""
        total = sum(self.shares)
        control, treated = (units * share / total for share in self.shares)
        noise_c, noise_t = self.sds[0] ** 2 / control, self.sds[1] ** 2 / treated
        # Welch's degrees of freedom, as `effect.welch_df` has them of estimates.
        below = noise_c**2 / (control - 1.0) + noise_t**2 / (treated - 1.0)
        df = (noise_c + noise_t) ** 2 / below
        # The one standard deviation with which both arms would have this spread.
        sd = self.spread / sqrt(total / self.shares[0] + total / self.shares[1])
        power = TTestIndPower().power(
            abs(self.room) / sd, control, alpha, ratio=treated / control, df=df
        )
        if isfinite(power):
            return float(power)
        # So far out the noncentral t is not computed, nor is there anything left to chance.
        drift = abs(self.room) * sqrt(units) / self.spread
        return 1.0 if drift > float(stats.t.isf(alpha / 2.0, df)) else 0.0


def units_for(aim: Aim, rule: Rule, power: float = 0.8, *, beside: float = 0.0) -> int | None:
    """Units of both arms together until the aim is called with probability `power`; None where no
    number would do.

    At the planned look of method "fixed" this is the sample size of Welch's t (statsmodels). With
    "group-sequential" a call at any of the rule's looks counts, the last being planned for. With
    "sequential" it is the N whose look alone has that power, an upper bound: who looks earlier may
    have called earlier. Its intervals widen with all units that there are: `beside` says how many
    these are more than what they tell counts for (see `Progress`).

    Raises:
        BadRequest: unless 0 < power < 1.
    """
    _check_power(power)
    room = abs(aim.room)
    if room == 0.0:
        return None
    if aim.spread == 0.0:
        return ceil(aim.least_units)
    if rule.method == "sequential":
        z_power = float(stats.norm.isf(1.0 - power))
        least = _least_units(room, aim.spread, rule, aim.tests, z_power, beside)
        return None if least is None else max(ceil(aim.least_units), least)
    units = (planned_drift(rule, aim.tests, power) * aim.spread / room) ** 2
    if units > 1e13:
        return None
    if rule.method == "fixed" and units * aim.smaller_share < _LARGE:
        units = _welch_units(aim, rule.alpha / aim.tests, power, units)
    # What a solver's tolerance added must not cost a whole unit.
    return max(ceil(aim.least_units), ceil(units - 1e-6))


def _welch_units(aim: Aim, alpha: float, power: float, about: float) -> float:
    """Units with that power at one look of Welch's t; `about` is what the normal distribution says,
    which is too few."""
    least = max(aim.least_units, about)
    if aim.power(least, alpha) >= power:
        return least
    # Student's t with one degree of freedom reaches far: the smaller arm's few units are doubled
    # until they do.
    most = 2.0 * least
    while aim.power(most, alpha) < power:
        most *= 2.0
    return float(brentq(lambda n: aim.power(n, alpha) - power, least, most, xtol=1e-9))


def units_needed(
    effect: float,
    sd: float,
    rule: Rule,
    *,
    shares: tuple[float, float] = (0.5, 0.5),
    power: float = 0.8,
    tests: int = 1,
) -> int | None:
    """Units of both arms together until a true `effect` is called with probability `power`, see
    `units_for`.

    `sd` is a unit's standard deviation, `shares` the control's and the variant's (any scale),
    `tests` the treatments that Holm calls over.
    """
    return units_for(Aim(effect, (sd, sd), shares, tests), rule, power)


def runtime(
    baseline: float,
    sd: float,
    relative: float,
    rule: Rule,
    *,
    units_a_day: float,
    shares: tuple[float, float] = (0.5, 0.5),
    power: float = 0.8,
    tests: int = 1,
) -> Runtime:
    """Units and days to find a `relative` effect on a metric with that baseline and standard
    deviation by unit.

    `units_a_day` are the new units of both arms together, `tests` the treatments that Holm calls
    over.
    """
    units = units_needed(relative * baseline, sd, rule, shares=shares, power=power, tests=tests)
    days = None if units is None or units_a_day <= 0.0 else units / units_a_day
    return Runtime(relative=relative, units=units, days=days)


def detectable_effect(
    sd: float,
    units: float,
    rule: Rule,
    *,
    shares: tuple[float, float] = (0.5, 0.5),
    power: float = 0.8,
    tests: int = 1,
    beside: float = 0.0,
) -> float | None:
    """The least true difference that `units` (both arms) show with probability `power`; None below
    two units in the smaller arm. `beside` as for `units_for`.
    """
    if min(shares) <= 0.0:
        return None
    aim = Aim(0.0, (sd, sd), shares, tests)
    if units < aim.least_units:
        return None
    if rule.method == "sequential":
        # The interval must leave zero out although the estimate falls short by z of the power.
        reach = rule.call_reach(looked_at(units, beside), inf, tests)
        drift = reach - float(stats.norm.isf(power))
    else:
        drift = planned_drift(rule, tests, power)
    effect = drift * aim.spread / sqrt(units)
    if rule.method != "fixed" or units * aim.smaller_share >= _LARGE or effect == 0.0:
        return effect

    def short(log_factor: float) -> float:
        larger = replace(aim, room=effect * 10.0**log_factor)
        return larger.power(units, rule.alpha / tests) - power

    # Of few units Student's t asks for more than the normal distribution, by orders of magnitude
    # where a variance has one degree of freedom.
    log_factor = float(brentq(short, -0.01, 6.0, xtol=1e-9))
    return float(effect * 10.0**log_factor)


class Progress(NamedTuple):
    """How far one treatment's comparison is.

    Attributes:
        difference: Between the two arms, so far.
        se: Its standard error.
        units: Those of both arms.
        units_a_day: The new ones of both arms.
        worth: How many units, split as those to come will be, would tell as much as those that
            there are; None where they were split so. Of a phase in which one arm got 5% many units
            tell little.
    """

    difference: float
    se: float
    units: int
    units_a_day: float
    worth: float | None = None


def days_to_decision(progress: Progress, rule: Rule, tests: int = 1) -> float | None:
    """Days until a difference is called if it stays as it is, being one of `tests`; 0 when it is
    already.

    None without traffic, or when ten years would not do. It extrapolates one noisy number: a plan,
    not a promise.
    """
    difference, se, units, units_a_day, worth = progress
    if worth is None:
        worth = float(units)
    if units < 4 or se <= 0.0 or units_a_day <= 0.0:
        return None
    # Variance falls as what units are worth grows; what is collected keeps its own.
    spread = se * sqrt(worth)
    needed = _least_units(abs(difference), spread, rule, tests, 0.0, units - worth)
    if needed is None:
        return None
    days = max(0.0, (needed - worth) / units_a_day)
    return days if days <= 3_650.0 else None


def days_by_holm(treatments: Sequence[Progress], rule: Rule) -> list[float | None]:
    """`days_to_decision` of each of one metric's treatments as Holm calls them: the surest first,
    each other not before the surer ones."""
    order = sorted(
        range(len(treatments)),
        key=lambda i: -abs(treatments[i].difference) / treatments[i].se if treatments[i].se else 0,
    )
    days: list[float | None] = [None] * len(treatments)
    earliest: float | None = 0.0
    for rank, i in enumerate(order):
        own = days_to_decision(treatments[i], rule, tests=len(order) - rank)
        # Whoever waits for one that is never called is never called.
        earliest = None if own is None or earliest is None else max(own, earliest)
        days[i] = earliest
    return days


def _check_power(power: float) -> None:
    if not 0.0 < power < 1.0:
        raise BadRequest("power", f"got {power!r}; expected a number between 0 and 1, such as 0.8")


@lru_cache(maxsize=256)
def planned_drift(rule: Rule, tests: int, power: float) -> float:
    """How many standard errors from what is tested the true value must be for a call with
    probability `power` at a planned end, by the normal distribution."""
    level = rule.alpha / tests
    z_power = float(stats.norm.isf(1.0 - power))
    if rule.method != "group-sequential" or len(rule.looks) < 2:
        return rule.call_reach(0, inf, tests) + z_power
    critical = sequential.boundaries(rule.looks, level, rule.spending)

    def short(drift: float) -> float:
        return sequential.crossing_probability(rule.looks, critical, drift) - power

    # The last look alone has at most the power of all together.
    return float(brentq(short, 0.0, float(critical[-1]) + max(z_power, 0.0) + 1e-6, xtol=1e-10))


def _least_units(
    effect: float, spread: float, rule: Rule, tests: int, z_power: float, beside: float = 0.0
) -> int | None:
    """The least N with effect ≥ (reach(N + beside) + z_power) · spread/√N."""

    def missing(log_n: float) -> float:
        n = 10.0**log_n
        reach = rule.call_reach(looked_at(n, beside), inf, tests)
        return (reach + z_power) * spread / sqrt(n) - effect

    # The root is sought in log₁₀ N, over which the reach changes evenly: from 5 units to 10¹³.
    least, most = 0.7, 13.0
    if effect <= 0.0:
        return None
    if missing(least) <= 0.0:
        return 5
    if missing(most) > 0.0:
        return None
    root = float(brentq(missing, least, most, xtol=1e-10))
    # What the solver's tolerance added must not cost a whole unit.
    return ceil(float(10.0**root) - 1e-6)


def looked_at(units: float, beside: float) -> int:
    """How many units there are where so many are worth what all tell."""
    return max(4, round(units + beside))
