"""Quantiles per variant with standard errors by unit: Woodruff's interval turned into a standard
error, and mid-quantiles where values move in steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Any

import numpy as np

from topbill.ab import reasons
from topbill.ab.core.effect import ArmEstimate, Pair, units_of
from topbill.ab.core.units import MomentsByArm, UnitRows, UnitTerm, resolve
from topbill.ab.metrics import Quantile
from topbill.domain.sql import identifier, number
from topbill.stats.moments import Moments, ratio

_Z = 1.9599639845400545
"""What a standard normal exceeds with 2.5%: `scipy.stats.norm.isf(0.025)`."""


def quantile_pairs(
    rows: UnitRows,
    metric: Quantile,
    moments: MomentsByArm,
    control: object,
    variants: Sequence[object],
) -> dict[Any, Pair]:
    """Each variant beside the control on a quantile; `moments` counts the units."""
    units = moments.units_of_variants()
    reference = resolve(control, units)
    infinite = rows.columns[metric.column].infinite > 0
    # An infinite value has a rank but no distance, so a quantile of them has no standard error;
    # nor has one too large to square.
    estimates = {} if infinite else quantiles(rows, metric)
    if not all(isfinite(estimate.variance) for estimate in estimates.values()):
        infinite, estimates = True, {}
    arms = list(estimates)
    pairs = {}
    for variant in variants:
        own = resolve(variant, units)
        t, c = estimates.get(own), estimates.get(reference)
        reason = _quantile_reason(t, c, units.get(own, 0), units.get(reference, 0))
        if infinite:
            reason = reasons.INFINITE_VALUES
        if not reason and t is not None and c is not None and (t.is_lopsided or c.is_lopsided):
            z = _z_of_shares(rows, metric, arms.index(own), arms.index(reference))
            t, c = called_no_more_often(t, c, z)
        pairs[variant] = Pair(t, c, reason, units_of(t), units_of(c))
    return pairs


def quantiles(rows: UnitRows, metric: Quantile) -> dict[Any, ArmEstimate]:
    """The q-quantile of each variant, in their order. Variance 0 means that ties hide it.

    Where values are unlike each other it is the usual one, on the straight line between two order
    statistics. Between two values that several units have each, as they have counts and whole
    seconds, it is the mid-quantile (Ma, Genton & Parzen 2011, "Asymptotic properties of sample
    quantiles of discrete distributions"): a value stands in the middle of the places that it takes
    up, and the line is between those. The usual one stays or jumps by a whole step, which no
    standard error can say.

    The share F of values up to the quantile is a ratio over units, so its standard error s is
    clustered by unit. The quantiles at q ± 1.96 s bound the quantile (Woodruff 1952), and width /
    (2·1.96) is its standard error. Where values move in steps, one
    half of the width may be far longer than the other, so that each side has its own.
    """
    source = _source(rows, metric)
    middles = _points(rows, source, [[metric.q]])
    if not middles:
        return {}
    shares = _shares(rows, source, [points[0] for points in middles.values()])
    reaches = []
    for share in shares.values():
        reach = _Z * share.variance**0.5
        reaches.append([max(0.0, metric.q - reach), min(1.0, metric.q + reach)])
    ends = _points(rows, source, reaches)
    estimates = {}
    for variant, (middle,) in middles.items():
        low, high = ends[variant]
        estimates[variant] = _estimate(middle, low, high, shares[variant].n)
    return estimates


def _estimate(middle: _Point, low: _Point, high: _Point, n: int) -> ArmEstimate:
    value = middle.value
    variance = _square((high.value - low.value) / (2.0 * _Z))
    if not (middle.is_tied or low.is_tied or high.is_tied):
        return ArmEstimate(value, variance, n)
    # A side without any width says nothing, and has that of the whole.
    below = _square((value - low.value) / _Z) or variance
    above = _square((high.value - value) / _Z) or variance
    return ArmEstimate(value, variance, n, below, above)


def _square(value: float) -> float:
    # Infinite where it is too large; `**` would raise an OverflowError.
    return value * value


def _z_of_shares(rows: UnitRows, metric: Quantile, arm: int, control: int) -> float:
    """The standardised difference (clustered by unit) of two arms' shares of values up to the
    quantile of both together; arms by their place in their order, from 0."""
    source = _source(rows, metric)
    both = (
        f"SELECT 0 AS variant, unit, v FROM ({_with_arms(source)}) "  # noqa: S608  (our own query)
        f"WHERE arm IN ({arm + 1}, {control + 1})"
    )
    ((point,),) = _points(rows, both, [[metric.q]]).values()
    shares = list(_shares(rows, source, [point]).values())
    one, other = shares[arm], shares[control]
    difference, variance = other.value - one.value, one.variance + other.variance
    if variance == 0.0:
        return inf if difference else 0.0
    return float(difference / variance**0.5)


def called_no_more_often(
    t: ArmEstimate, c: ArmEstimate, z: float
) -> tuple[ArmEstimate, ArmEstimate]:
    """Both estimates, their variances raised so that their difference is no more standard errors
    from zero than the shares' is.

    Of few values about the quantile, as there are in the tail of few units, the width says little:
    that no value happens to be there is no certainty. The shares are smooth there too.
    """
    # At less than one standard error the difference is a step that chance took: then its own size
    # is error enough, and the interval stays one that can be read.
    least = _square(t.value - c.value) / max(z * z, 1.0)

    def factor(one: float, other: float) -> float:
        return max(1.0, least / (one + other)) if one + other > 0.0 else 1.0

    t_low, t_high = t.one_sided(-1.0).variance, t.one_sided(1.0).variance
    c_low, c_high = c.one_sided(-1.0).variance, c.one_sided(1.0).variance
    down, up = factor(t_low, c_high), factor(t_high, c_low)
    both = factor(t.variance, c.variance)
    return (
        replace(t, variance=t.variance * both, below=t_low * down, above=t_high * up),
        replace(c, variance=c.variance * both, below=c_low * up, above=c_high * down),
    )


# --- Points of an arm's distribution


@dataclass(frozen=True, slots=True)
class _Point:
    """A point on the line from one value to the next, `weight` of the way; at the greatest value
    there is no next. `low_tied` and `high_tied` say whether several units have the value."""

    low: float
    high: float
    weight: float
    low_tied: bool
    high_tied: bool

    @property
    def value(self) -> float:
        # Not low + weight · (high − low), which may be too large.
        return (1.0 - self.weight) * self.low + self.weight * self.high

    @property
    def is_tied(self) -> bool:
        return self.low_tied or (self.weight > 0.0 and self.high_tied)

    def up_to(self) -> str:
        """SQL of how much of a value v counts as being up to the point: the mean of it over an
        arm's values is the share at which the point is."""
        if self.weight == 0.0 or not (self.low_tied and self.high_tied):
            return f"(v <= {number(self.low)})::DOUBLE"
        return (
            f"CASE WHEN v < {number(self.low)} THEN 1.0 "
            f"WHEN v = {number(self.low)} THEN {number((1.0 + self.weight) / 2.0)} "
            f"WHEN v = {number(self.high)} THEN {number(self.weight / 2.0)} ELSE 0.0 END"
        )


def _points(
    rows: UnitRows, source: str, shares: Sequence[Sequence[float]]
) -> dict[Any, list[_Point]]:
    """By variant, in their order, the points at its shares; one list of shares is everybody's."""
    picked = []
    for of_arms in zip(*shares, strict=True):
        place = f"({_by_arm([number(share) for share in of_arms])} * (total - 1))"
        picked += [
            f"any_value({place})",
            f"arg_max({{'v': v, 'tied': tied, 'last': last}}, first) FILTER (first <= {place})",
            f"arg_min({{'v': v, 'tied': tied, 'first': first}}, first) FILTER (first > {place})",
        ]
    points: dict[Any, list[_Point]] = {}
    answer = rows.ask(
        f"SELECT variant, {', '.join(picked)} FROM ({_steps(source)}) "  # noqa: S608  (our own query and numbers)
        "GROUP BY variant ORDER BY variant"
    )
    for variant, *own in answer:
        points[variant] = []
        for place, low, high in zip(own[::3], own[1::3], own[2::3], strict=True):
            if high is None or place <= low["last"]:
                point = _Point(low["v"], low["v"], 0.0, low["tied"], low["tied"])
            else:
                weight = (place - low["last"]) / (high["first"] - low["last"])
                point = _Point(low["v"], high["v"], weight, low["tied"], high["tied"])
            points[variant].append(point)
    return points


def _steps(source: str) -> str:
    """SQL of each variant's values in their order, with the places (from 0 to total − 1) at which
    a value begins and ends: the line from one to the next is between them.

    Beside another that several units have, a value that several units have is at the middle of its
    places; elsewhere, at the first or last of them.
    """
    values = (
        "SELECT variant, v, count(*) AS n, coalesce(min(unit) <> max(unit), false) AS tied "  # noqa: S608  (our own query)
        f"FROM ({source}) GROUP BY variant, v"
    )
    half = "CASE WHEN tied AND {}(tied) OVER own THEN (n - 1) / 2 ELSE 0 END"
    return (
        "SELECT variant, dense_rank() OVER (ORDER BY variant) AS arm, v, tied, "  # noqa: S608  (our own query)
        f"sum(n) OVER own - n + {half.format('lag')} AS first, "
        f"sum(n) OVER own - 1 - {half.format('lead')} AS last, "
        "sum(n) OVER (PARTITION BY variant) AS total "
        f"FROM ({values}) WINDOW own AS (PARTITION BY variant ORDER BY v)"
    )


def _with_arms(source: str) -> str:
    """SQL of the values with `arm`, their variant's place in the order of variants, from 1."""
    arms = (
        "SELECT variant, row_number() OVER (ORDER BY variant) AS arm FROM listed GROUP BY variant"
    )
    return f"WITH listed AS ({source}) SELECT * FROM listed JOIN ({arms}) USING (variant)"  # noqa: S608  (our own query)


def _shares(rows: UnitRows, source: str, points: Sequence[_Point]) -> dict[Any, ArmEstimate]:
    """By variant, in their order, the share of its values up to its point, clustered by unit; one
    point is everybody's."""
    shares = {}
    for variant, n, a, b, aa, ab, bb in rows.ask(
        f"""SELECT variant, count(*), sum(a), sum(b), sum(a * a), sum(a * b), sum(b * b)
        FROM (
            SELECT variant, count(*) AS b, sum({_by_arm([p.up_to() for p in points])}) AS a
            FROM ({_with_arms(source)}) GROUP BY variant, unit
        ) GROUP BY variant ORDER BY variant"""  # noqa: S608  (our own query and numbers)
    ):
        sums = np.array([a, b], dtype=np.float64)
        products = np.array([[aa, ab], [ab, bb]], dtype=np.float64)
        moments = Moments.from_sums(("a", "b"), int(n), sums, products)
        share = ratio("a", "b")(moments)
        shares[variant] = ArmEstimate(share.value, share.variance(moments), int(n))
    return shares


def _by_arm(picked: Sequence[str]) -> str:
    """SQL of what is for each variant, by its place in their order, as what a label is written like
    depends on its type."""
    if len(picked) == 1:
        return picked[0]
    cases = " ".join(f"WHEN {i} THEN {sql}" for i, sql in enumerate(picked, 1))
    return f"CASE arm {cases} END"


# --- Rows


def _source(rows: UnitRows, metric: Quantile) -> str:
    """SQL of `variant, unit, v`, a row per event or per unit, without missing values."""
    value = rows.value(metric.column)
    if metric.per == "unit" or rows.one_row_a_unit:
        inner = rows.by_unit([UnitTerm("v", value, f"avg({value})")])
        return (
            f"SELECT variant, row_number() OVER () AS unit, v FROM ({inner}) "  # noqa: S608  (our own query)
            "WHERE NOT mixed AND v IS NOT NULL"
        )
    unit, variant = identifier(str(rows.unit)), identifier(rows.variant)
    mixed = rows.mixed_query()
    return (
        f"SELECT {variant} AS variant, {unit} AS unit, {value} AS v FROM unit_rows "  # noqa: S608  (identifiers are quoted)
        f"WHERE {variant} IS NOT NULL AND {value} IS NOT NULL AND {unit} NOT IN ({mixed})"
    )


def _quantile_reason(
    t: ArmEstimate | None, c: ArmEstimate | None, units_t: int, units_c: int
) -> str:
    """Why two quantiles cannot be compared; "" where they can."""
    if t is None or c is None:
        if not units_t:
            return reasons.NO_TRAFFIC
        # Units without any value of the metric have no quantile; no units have no control.
        return reasons.NO_VALUES if units_c else reasons.MISSING_CONTROL
    if min(t.n, c.n) < 2:
        return reasons.TOO_FEW_UNITS
    if t.variance > 0.0 and c.variance > 0.0:
        return reasons.OK
    # No width around the quantile: all values there are the same one.
    return reasons.ALL_ZERO if t.value == c.value == 0.0 else reasons.TIED_QUANTILE
