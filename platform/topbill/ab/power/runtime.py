"""How long an experiment must run: units and days until its interval can be expected to leave zero
out.
"""

from __future__ import annotations

from math import ceil, inf, sqrt

import msgspec
from scipy import stats
from scipy.optimize import brentq

from topbill.ab.core.effect import Rule
from topbill.domain.errors import BadRequest


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to find a relative effect: units of both arms together, and days at the given
    traffic.

    None where no number of units would do, or (days) without traffic.
    """

    relative: float
    units: int | None
    days: float | None


def units_needed(
    effect: float,
    sd: float,
    rule: Rule,
    *,
    shares: tuple[float, float] = (0.5, 0.5),
    power: float = 0.8,
) -> int | None:
    """Units of both arms together until the interval leaves zero out with probability `power` at a
    true `effect`.

    `sd` is a unit's standard deviation, `shares` the control's and the variant's (any scale). At a
    planned look of method "fixed" this is the normal sample size; with "sequential" it is the N
    whose look alone has that power, an upper bound, for the sequence may decide earlier.
    """
    if not (sd >= 0.0 and 0.0 < power < 1.0 and min(shares) > 0.0):
        raise BadRequest(
            "power",
            f"got sd {sd}, power {power}, shares {shares}; expected positive numbers, and a power "
            "below 1",
        )
    # Of N units in all, an arm with share s has N·s: Var = σ²/N · (1/s₀ + 1/s₁).
    total = sum(shares)
    spread = sd * sqrt(total / shares[0] + total / shares[1])
    return _least_units(abs(effect), spread, rule, float(stats.norm.isf(1.0 - power)))


def runtime(
    baseline: float,
    sd: float,
    relative: float,
    rule: Rule,
    *,
    units_a_day: float,
    shares: tuple[float, float] = (0.5, 0.5),
    power: float = 0.8,
) -> Runtime:
    """Units and days to find a `relative` effect on a metric with that baseline and standard
    deviation by unit.

    `units_a_day` are the new units of both arms together.
    """
    units = units_needed(relative * baseline, sd, rule, shares=shares, power=power)
    days = None if units is None or units_a_day <= 0.0 else units / units_a_day
    return Runtime(relative=relative, units=units, days=days)


def detectable_effect(
    sd: float,
    units: int,
    rule: Rule,
    *,
    shares: tuple[float, float] = (0.5, 0.5),
    power: float = 0.8,
) -> float | None:
    """The least true difference that `units` (both arms) show with probability `power`; None below
    two units an arm.
    """
    if units < 4 or min(shares) <= 0.0:
        return None
    total = sum(shares)
    se = sd * sqrt((total / shares[0] + total / shares[1]) / units)
    # The interval must leave zero out although the estimate falls short by z of the power.
    return (rule.reach(units, inf) - float(stats.norm.isf(power))) * se


def days_to_decision(
    difference: float, se: float, units: int, units_a_day: float, rule: Rule
) -> float | None:
    """Days until the interval leaves zero out if the difference stays as it is; 0 when it does
    already.

    None without traffic, or when ten years would not do. It extrapolates one noisy number: a plan,
    not a promise.
    """
    if units < 4 or se <= 0.0 or units_a_day <= 0.0:
        return None
    needed = _least_units(abs(difference), se * sqrt(units), rule, 0.0)
    if needed is None:
        return None
    days = max(0.0, (needed - units) / units_a_day)
    return days if days <= 3_650.0 else None


def _least_units(effect: float, spread: float, rule: Rule, z_power: float) -> int | None:
    """The least N with effect ≥ (reach(N) + z_power) · spread/√N."""

    def missing(log_n: float) -> float:
        n = 10.0**log_n
        return (rule.reach(round(n), inf) + z_power) * spread / sqrt(n) - effect

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
