"""Quantiles per variant with standard errors by unit: Woodruff's interval turned into a standard
error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
from scipy import stats

from topbill.ab import reasons
from topbill.ab.core.effect import ArmEstimate, Pair, units_of
from topbill.ab.core.units import MomentsByArm, UnitRows, UnitTerm, resolve
from topbill.ab.metrics import Quantile
from topbill.domain.sql import identifier, number
from topbill.stats.moments import Moments, ratio

_TIED = 0.5
"""Where fewer than this share of the values differ from all others, quantiles move in steps."""
_Z = float(stats.norm.isf(0.025))


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
    # An infinite value has a rank but no distance, so a quantile of them has no standard error.
    estimates = {} if infinite else quantiles(rows, metric)
    steps = variance_of_ties(rows, metric, estimates, reference) if estimates else {}
    pairs = {}
    for variant in variants:
        own = resolve(variant, units)
        t, c = _with_steps(estimates.get(own), estimates.get(reference), steps.get(own, 0.0))
        reason = _quantile_reason(t, c, units.get(own, 0), units.get(reference, 0))
        if infinite:
            reason = reasons.INFINITE_VALUES
        pairs[variant] = Pair(t, c, reason, units_of(t), units_of(c))
    return pairs


def quantiles(rows: UnitRows, metric: Quantile) -> dict[Any, ArmEstimate]:
    """The q-quantile of each variant. Variance 0 means that ties hide it.

    The share F of values at or below the quantile is a ratio over units, so its standard error s is
    clustered by unit. The quantiles at q ± 1.96 s bound the quantile (Woodruff 1952), and a quarter
    turn of that width, width / (2·1.96), is its standard error.
    """
    source = _source(rows, metric)
    # Per unit: b values, a of them at or below its variant's quantile c.
    answer = rows.ask(
        f"""WITH source AS ({source}),
        middle AS (
            SELECT variant, quantile_cont(v, {number(metric.q)}) AS c FROM source GROUP BY variant
        ),
        below AS (
            SELECT source.variant, any_value(c) AS c, count(*) AS b,
                count(*) FILTER (WHERE v <= c) AS a
            FROM source JOIN middle ON source.variant = middle.variant
            GROUP BY source.variant, unit
        )
        SELECT variant, any_value(c), count(*), sum(a), sum(b), sum(a * a), sum(a * b), sum(b * b)
        FROM below GROUP BY variant ORDER BY variant"""  # noqa: S608  (our own query and a number)
    )
    values: dict[Any, tuple[float, int]] = {}
    errors: dict[Any, float] = {}
    for variant, value, n, a, b, aa, ab, bb in answer:
        sums = np.array([a, b], dtype=np.float64)
        products = np.array([[aa, ab], [ab, bb]], dtype=np.float64)
        moments = Moments.from_sums(("a", "b"), int(n), sums, products)
        values[variant] = (float(value), int(n))
        errors[variant] = ratio("a", "b")(moments).variance(moments) ** 0.5
    widths = _widths(rows, source, metric.q, errors)
    estimates = {}
    for variant, (value, n) in values.items():
        se = widths[variant] / (2.0 * _Z)
        estimates[variant] = ArmEstimate(value, se * se, n)
    return estimates


def variance_of_ties(
    rows: UnitRows, metric: Quantile, estimates: dict[Any, ArmEstimate], control: object
) -> dict[Any, float]:
    """By variant, the least variance that its quantile's difference from the control's must have
    where many values are equal; nothing where few are.

    Between steps a quantile does not move and its width says nothing. The share of values up to the
    pooled quantile is smooth there: with z its standardised difference (clustered by unit), a
    difference d of quantiles has no smaller standard error than |d / z|, so that it is called no
    more often than the shares are.
    """
    source = _source(rows, metric)
    counts: dict[Any, dict[float, int]] = {}
    # A unit that shows the same value again says nothing of steps.
    values = f"SELECT DISTINCT variant, unit, v FROM ({source})"  # noqa: S608  (our own query)
    (distinct, total) = rows.ask(f"SELECT count(DISTINCT v), count(*) FROM ({values})")[0]  # noqa: S608  (our own query)
    if control not in estimates or distinct > _TIED * total:
        return {}
    for variant, v, n in rows.ask(
        f"SELECT variant, v, count(*) FROM ({source}) GROUP BY variant, v"  # noqa: S608  (our own query)
    ):
        counts.setdefault(variant, {})[float(v)] = int(n)
    thresholds = {
        variant: _threshold(counts[variant], counts[control], metric.q)
        for variant in estimates
        if variant != control
    }
    shares = _shares(rows, source, sorted(set(thresholds.values())))
    least = {}
    for variant, x in thresholds.items():
        (one, own), (other, others) = shares[variant, x], shares[control, x]
        difference = estimates[variant].value - estimates[control].value
        # At less than one standard error the difference is a step that chance took: then its own
        # size is error enough, and the interval stays one that can be read.
        z_squared = (one - other) ** 2 / (own + others) if own + others > 0.0 else inf
        least[variant] = difference**2 / max(z_squared, 1.0)
    return least


def _threshold(one: dict[float, int], other: dict[float, int], q: float) -> float:
    """The value up to which the share of both arms' values is nearest to q."""
    both = dict(one)
    for v, n in other.items():
        both[v] = both.get(v, 0) + n
    values = np.array(sorted(both))
    shares = np.cumsum([both[v] for v in values]) / sum(both.values())
    return float(values[np.argmin(np.abs(shares - q))])


def _shares(
    rows: UnitRows, source: str, thresholds: list[float]
) -> dict[tuple[Any, float], tuple[float, float]]:
    """The share of values up to each threshold, and its variance by unit, by variant and
    threshold."""
    shares = {}
    for x in thresholds:
        for variant, n, a, b, aa, ab, bb in rows.ask(
            f"""SELECT variant, count(*), sum(a), sum(b), sum(a * a), sum(a * b), sum(b * b)
            FROM (
                SELECT variant, count(*) AS b, count(*) FILTER (v <= {number(x)}) AS a
                FROM ({source}) GROUP BY variant, unit
            ) GROUP BY variant"""  # noqa: S608  (our own query and a number)
        ):
            sums = np.array([a, b], dtype=np.float64)
            products = np.array([[aa, ab], [ab, bb]], dtype=np.float64)
            moments = Moments.from_sums(("a", "b"), int(n), sums, products)
            estimate = ratio("a", "b")(moments)
            shares[variant, x] = (estimate.value, estimate.variance(moments))
    return shares


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


def _widths(rows: UnitRows, source: str, q: float, errors: dict[Any, float]) -> dict[Any, float]:
    """How far apart the quantiles at q ± 1.96 s are, by variant."""
    if not errors:
        return {}
    picked = []
    for i, s in enumerate(errors.values(), 1):
        low, high = max(0.0, q - _Z * s), min(1.0, q + _Z * s)
        # By place in their order, as what a label is written like depends on its type.
        own = f"FILTER (WHERE place = {i})"
        picked.append(f"quantile_cont(v, [{number(low)}, {number(high)}]) {own}")
    placed = f"SELECT v, dense_rank() OVER (ORDER BY variant) AS place FROM ({source})"  # noqa: S608  (our own query)
    (answer,) = rows.ask(f"SELECT {', '.join(picked)} FROM ({placed})")  # noqa: S608  (our own query and numbers)
    return {variant: float(high - low) for variant, (low, high) in zip(errors, answer, strict=True)}


def _with_steps(
    t: ArmEstimate | None, c: ArmEstimate | None, least: float
) -> tuple[ArmEstimate | None, ArmEstimate | None]:
    """Both estimates, their variances raised so that the difference has the least it must have."""
    if t is None or c is None or t.variance + c.variance >= least:
        return t, c
    more = (least - t.variance - c.variance) / 2.0
    return replace(t, variance=t.variance + more), replace(c, variance=c.variance + more)


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
