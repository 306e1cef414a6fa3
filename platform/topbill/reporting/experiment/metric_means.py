"""Objective and metrics of each variant: means per decision with intervals by unit, from moments in
one pass.
"""

# ruff: noqa: S608  (names enter the SQL only through `identifier`)

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from scipy import stats

from topbill.lake import Connection, identifier
from topbill.reporting.experiment.analysis_rows import ROWS, UNIT, VARIANT
from topbill.reporting.experiment.model import MeanEstimate
from topbill.stats.moments import Moments, ratio


class Seen(NamedTuple):
    """How many units a variant saw, and how many decisions it made."""

    units: int = 0
    decisions: int = 0


def estimates(
    connection: Connection, columns: Sequence[str]
) -> tuple[dict[str, Seen], dict[tuple[str, str], MeanEstimate]]:
    """Per variant what was seen at any age; per (column of `report_rows`, variant) the mean per
    mature decision.

    The mean is the sum over mature decisions ÷ their number, each summed by unit first: a ratio of
    unit totals with its delta-method variance (Deng, Knoblich & Lu 2018) and Student's t with units
    − 1 degrees of freedom.
    """
    sums = [
        f"coalesce(sum({identifier(c)}), 0.0) AS x{i}, count({identifier(c)}) AS n{i}"
        for i, c in enumerate(columns)
    ]
    moments = [
        f"count(*) FILTER (n{i} > 0), sum(x{i}), sum(n{i})::DOUBLE, sum(x{i} * x{i}), sum(x{i} * n{i}), "
        f"sum(n{i} * n{i})::DOUBLE"
        for i in range(len(columns))
    ]
    found = connection.sql(
        f"SELECT variant, count(*), sum(decisions)::BIGINT, {', '.join(moments)} FROM ("
        f"SELECT {identifier(VARIANT)} AS variant, count(*) AS decisions, {', '.join(sums)} "
        f"FROM {ROWS} GROUP BY {identifier(VARIANT)}, {identifier(UNIT)}) GROUP BY variant"
    ).fetchall()
    seen = {variant: Seen(units, decisions) for variant, units, decisions, *_ in found}
    return seen, {
        (column, row[0]): _estimate(row[3 + 6 * i : 9 + 6 * i])
        for row in found
        for i, column in enumerate(columns)
    }


def _estimate(row: tuple[float, ...]) -> MeanEstimate:
    """From units, Σx, Σn, Σx², Σxn, Σn² over units."""
    units, x, n, xx, xn, nn = row
    units, decisions = int(units), int(n)
    if decisions == 0:
        return MeanEstimate(reason="immature")
    if not all(map(isfinite, (x * x, xx, xn))):
        return MeanEstimate(reason="infinite_values", units=units, decisions=decisions)
    moments = Moments.from_sums(("x", "n"), units, np.array([x, n]), np.array([[xx, xn], [xn, nn]]))
    linear = ratio("x", "n")(moments)
    found = MeanEstimate(value=linear.value, units=units, decisions=decisions)
    if units < 2:
        return replace(found, reason="too_few_units")
    se = float(np.sqrt(linear.variance(moments)))
    if x == 0.0 and xx == 0.0:
        return replace(found, reason="no_events")
    if se < 1e-12 * max(abs(linear.value), 1e-12):
        return replace(found, reason="constant_metric")
    half = float(stats.t.isf(0.025, units - 1)) * se
    return replace(found, low=linear.value - half, high=linear.value + half, se=se)
