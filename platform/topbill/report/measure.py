"""What the lake says of an experiment's variants: objective and metrics, from moments by unit in one pass."""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted` and `identifier`)

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from scipy import stats

from topbill.lake import Connection, identifier, quoted
from topbill.report.model import Estimate
from topbill.stats.moments import Moments, ratio

OBJECTIVE = "objective_"
"""The objective's column in `earned."KEY"`, beside the metrics' own."""


class Measured(NamedTuple):
    """A column of `earned."KEY"` and the age (seconds) at which a decision's value is final."""

    column: str
    window: float


class Seen(NamedTuple):
    """How many units a variant saw, and how many decisions it made."""

    units: int = 0
    decisions: int = 0


def estimates(
    connection: Connection, key: str, columns: list[Measured], at: int
) -> tuple[dict[str, Seen], dict[tuple[str, str], Estimate]]:
    """Per variant what was seen at any age; per (column, variant) the mean per mature decision.

    A metric is the sum over mature decisions ÷ their number, each summed by unit first: a ratio of unit totals with
    its delta-method variance (Deng, Knoblich & Lu 2018) and Student's t with units − 1 degrees of freedom.
    """
    windows = sorted({round(c.window * 1e6) for c in columns})
    counted = ", ".join(f"count(*) FILTER ({_mature('at', w, at)}) AS n{i}" for i, w in enumerate(windows))
    earned = ", ".join(
        f"coalesce(sum({identifier(c.column)}) FILTER ({_mature('at_', round(c.window * 1e6), at)}), 0.0) AS x{i}"
        for i, c in enumerate(columns)
    )
    # Rewards carry their decision's variant and unit, so both sides are summed apart: no join of millions of ids.
    nothing = ", ".join(f"0.0 AS x{i}" for i in range(len(columns)))
    nobody = ", ".join(f"0 AS n{i}" for i in range(len(windows)))
    names = [f"n{i}" for i in range(len(windows))] + [f"x{i}" for i in range(len(columns))]
    sums = ", ".join(f"sum({c})::DOUBLE AS {c}" for c in names)
    moments = []
    for i, column in enumerate(columns):
        x, n = f"x{i}", f"n{windows.index(round(column.window * 1e6))}"
        moments += [f"count(*) FILTER ({n} > 0)", f"sum({x})", f"sum({n})"]
        moments += [f"sum({x} * {x})", f"sum({x} * {n})", f"sum({n} * {n})"]
    found = connection.sql(
        f"WITH seen AS (SELECT variant, unit, count(*) AS decisions, {counted}, {nothing} FROM decisions "
        f"WHERE experiment = {quoted(key)} AND variant IS NOT NULL GROUP BY variant, unit), "
        f"paid AS (SELECT variant_, unit_, 0, {nobody}, {earned} FROM earned.{identifier(key)} "
        f"WHERE variant_ IS NOT NULL GROUP BY variant_, unit_), "
        f"units AS (SELECT variant, unit, sum(decisions) AS decisions, {sums} "
        f"FROM (SELECT * FROM seen UNION ALL SELECT * FROM paid) GROUP BY variant, unit) "
        f"SELECT variant, count(*), sum(decisions)::BIGINT, {', '.join(moments)} FROM units GROUP BY variant"
    ).fetchall()
    seen = {variant: Seen(units, decisions) for variant, units, decisions, *_ in found}
    return seen, {
        (column.column, row[0]): _estimate(row[3 + 6 * i : 9 + 6 * i])
        for row in found
        for i, column in enumerate(columns)
    }


def _mature(column: str, window: int, at: int) -> str:
    return f'epoch_us("{column}") + {window} < {at}'


def _estimate(row: tuple[float, ...]) -> Estimate:
    """From units, Σx, Σn, Σx², Σxn, Σn² over units."""
    units, x, n, xx, xn, nn = row
    units, decisions = int(units), int(n)
    if decisions == 0:
        return Estimate(reason="immature")
    moments = Moments.from_sums(("x", "n"), units, np.array([x, n]), np.array([[xx, xn], [xn, nn]]))
    linear = ratio("x", "n")(moments)
    found = Estimate(value=linear.value, units=units, decisions=decisions)
    if units < 2:
        return replace(found, reason="too_few_units")
    se = float(np.sqrt(linear.variance(moments)))
    if x == 0.0 and xx == 0.0:
        return replace(found, reason="no_events")
    if se < 1e-12 * max(abs(linear.value), 1e-12):
        return replace(found, reason="constant_metric")
    half = float(stats.t.isf(0.025, units - 1)) * se
    return replace(found, low=linear.value - half, high=linear.value + half, se=se)
