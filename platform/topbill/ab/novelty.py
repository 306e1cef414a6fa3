"""Does an effect wear off, or grow, as units get used to it? Effects by days since a unit's first
exposure, and a test of their trend.

By days since the first exposure, not by calendar days: each calendar day mixes newcomers with old
hands. A unit counts on a day after its first only where that whole day is over and mature, so that
both variants have the same cohorts on each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from math import inf, sqrt
from typing import Any, NamedTuple

import msgspec
import numpy as np

from topbill.ab import reasons
from topbill.ab.core.effect import ArmEstimate, Rule, adjusted, checked_rule, effect, within
from topbill.ab.core.units import SUMMED, check_columns, count_column, resolve
from topbill.domain.errors import BadData
from topbill.domain.reading import Method
from topbill.domain.records import Floats
from topbill.domain.sql import identifier, quoted
from topbill.domain.zones import checked_zone, day_sql
from topbill.lake.frames import relation_of
from topbill.stats.moments import Moments

SPANS: tuple[tuple[int, int], ...] = (
    *((day, day) for day in range(7)),
    *((7, 13), (14, 20), (21, 27)),
)
"""Days since the first exposure that are told apart: one by one in the first week, then by week."""
LEAST_UNITS = 100
"""Units that each of two variants must have on a span for its effect to be told."""
LEAST_SPANS = 3
"""Spans without which there is no trend."""
_ROWS = 2_000_000
"""Rows that are looked at at once, about: where each is of a unit of its own, that takes half a
gigabyte."""
_DAYS = ("TIMESTAMP", "DATE", "TINYINT", "SMALLINT", "INTEGER", "BIGINT")
"""Types of columns that tell a day."""


class ExposureSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A variant's effect on the days from `since` to `until` after a unit's first exposure (0 is
    the day of it). `n` and `n_control` are the units that had a row then.
    """

    since: int
    until: int
    n: int = 0
    n_control: int = 0
    value: float | None = None
    control_value: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    relative: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    reason: str = ""


class Novelty(msgspec.Struct, frozen=True, kw_only=True):
    """A variant's effect by days since the first exposure, and whether it changes.

    `slope` is the change of the difference from one span to the next (weighted least squares, by
    units). `p_value` is the larger of the p-values of a trend in the difference and in the lift:
    where base rates move, one of the two has a trend although nobody gets used to anything.
    `p_adjusted` (Holm) is over variants. `reason` says why there is no trend. `is_proportion` as in
    `Effect`.
    """

    variant: str
    metric: str
    spans: list[ExposureSpan]
    slope: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    reason: str = ""
    is_proportion: bool = False


class _Curve(NamedTuple):
    """A variant's mean on each span, their covariance by unit, and how many units had a row."""

    values: Floats
    covariance: Floats
    units: Floats


def novelty(
    data: Any,
    *,
    unit: str,
    variant: str,
    control: object,
    value: str,
    time: str,
    time_zone: str = "UTC",
    metric: str = "",
    bounds: tuple[float, float] | None = None,
    method: Method = "sequential",
    alpha: float = 0.05,
    looks: Sequence[float] = (1.0,),
) -> list[Novelty]:
    """Each variant's effect on the mean of `value` by days since a unit's first row.

    Args:
        data: what `compare` takes: a row per decision.
        unit: the column of what was randomised. Units seen in several variants are left out.
        variant: the column that names the variant; rows without one do not count.
        control: the variant to compare with.
        value: the column of the metric, NULL where it is not known yet: days from the first such
            row on, and the last day of all, are not over and do not count.
        time: the column of the moment (without a zone: UTC), or of the date.
        time_zone: whose days are counted, such as `Europe/Oslo`.
        metric: what to call the metric; the column's name unless said.
        bounds: the least and the largest value that there can be; intervals are cut to what two
            such values can differ by.
        method, alpha, looks: those of `compare`.

    Returns:
        One a variant, by name. Weak data never raises: numbers are None then, with a reason.

    Raises:
        BadRequest: for columns that are missing, an unknown time zone, and wrong arguments.
        BadData: for a column of times that tells no day.
    """
    rule = checked_rule(method, alpha, looks=looks)
    relation = relation_of(data)
    check_columns(relation.columns, [unit, variant, value, time])
    kind = str(relation.types[relation.columns.index(time)])
    if not kind.startswith(_DAYS):
        raise BadData(f"data.{time}", f"got a column of {kind}; expected moments, dates or days")
    day = day_sql(time, kind, checked_zone(time_zone))
    curves = _curves(relation, unit, variant, value, day)
    reference = curves.pop(resolve(control, curves), None)
    results = []
    for name in sorted(curves, key=str):
        results.append(_novelty(str(name), metric or value, curves[name], reference, rule, bounds))
    p_adjusted = adjusted([result.p_value for result in results], "holm")
    return [
        msgspec.structs.replace(result, p_adjusted=p)
        for result, p in zip(results, p_adjusted, strict=True)
    ]


# --- The rows


def _curves(relation: Any, unit: str, variant: str, value: str, day: str) -> dict[object, _Curve]:
    """The curve of each variant."""
    u, v, x = identifier(unit), identifier(variant), identifier(value)
    # How many values a row has, and whether all are known; of a row that is a sum, it may be some.
    n, is_known = f"CAST({x} IS NOT NULL AS INTEGER)", f"{x} IS NOT NULL"
    if SUMMED in relation.columns:
        n = identifier(count_column(value))
        is_known = f"{n} = {identifier(SUMMED)}"
    dated = f"""SELECT {u} AS u, {v} AS v, CAST({x} AS DOUBLE) AS x, {n} AS n,
        {is_known} AS known, {day} AS day FROM unit_rows WHERE {v} IS NOT NULL"""  # noqa: S608  (identifiers are quoted)
    # What a variant is called in SQL, whatever type its column has.
    variants = relation.query(
        "unit_rows",
        f"""SELECT v, CAST(v AS VARCHAR) AS name, count(*) AS n,
            min(day) FILTER (NOT known) AS unknown, max(day) AS newest
        FROM ({dated}) GROUP BY v ORDER BY v""",  # noqa: S608  (identifiers are quoted)
    ).fetchall()
    if not variants:
        return {}
    # The first day of which something is not known, and the last of all, are not over.
    unknown = [row[3] for row in variants if row[3] is not None]
    newest = [row[4] for row in variants if row[4] is not None]
    ending = min([max(newest), *unknown]) if newest else None
    end, passed = "NULL" if ending is None else str(ending), "day - first"
    if isinstance(ending, date):
        # What is between two dates is a number to DuckDB, and an interval to Spark.
        end, passed = f"DATE {quoted(end)}", "date_diff('day', first, day)"
    numbered = "CASE name"
    for number, (_, name, *_) in enumerate(variants):
        numbered += f" WHEN {quoted(name)} THEN {number}"
    numbered += " END"
    # The whole span must be over for a unit to count on any of its days.
    spans = "CASE"
    for k, (since, until) in enumerate(SPANS):
        spans += f" WHEN {passed} BETWEEN {since} AND {until}"
        spans += f" AND first + {until} < {end} THEN {k}"
    spans += f" ELSE {len(SPANS)} END"
    parts = 1 + sum(row[2] for row in variants) // _ROWS
    sums: dict[int, Floats] = {}
    reached: dict[int, Floats] = {}
    for part in range(parts):
        # Sums by unit and span are made in NumPy: in SQL each would be a pass over all rows.
        columns = relation.query(
            "unit_rows",
            f"""WITH dated AS (SELECT * FROM ({dated}) WHERE hash(u) % {parts} = {part}),
            units AS (
                SELECT u, first, {numbered} AS arm, row_number() OVER () - 1 AS code FROM (
                    SELECT u, CAST(min(v) AS VARCHAR) AS name, min(day) AS first FROM dated
                    GROUP BY u HAVING min(v) = max(v)
                )
            )
            SELECT code, arm, coalesce(x, 0.0) AS x, n::DOUBLE AS n, ({spans})::TINYINT AS span
            FROM dated JOIN units USING (u)""",  # noqa: S608  (identifiers are quoted)
        ).fetchnumpy()
        for arm, matrix in _by_unit(columns):
            sums[arm] = sums.get(arm, 0.0) + matrix.T @ matrix
            reached[arm] = reached.get(arm, 0.0) + np.count_nonzero(matrix[:, 2::2], axis=0)
    names = [f"{letter}{k}" for k in range(len(SPANS)) for letter in "xn"]
    curves: dict[object, _Curve] = {}
    for arm, products in sums.items():
        count = int(products[0, 0])
        moments = Moments.from_sums(names, count, products[0, 1:], products[1:, 1:])
        curves[variants[arm][0]] = _curve(moments, reached[arm])
    return curves


def _by_unit(columns: Mapping[str, Any]) -> Iterator[tuple[int, Floats]]:
    """Of rows with the code of their unit and variant, x, n and the number of their span (the last
    for none): each variant's units with 1, and x and n of each span by turns."""
    codes, size = columns["code"], len(SPANS) + 1
    if not codes.size:
        return
    units = int(codes.max()) + 1
    arms = np.empty(units, dtype=np.int64)
    arms[codes] = columns["arm"]
    places = codes * size + columns["span"]
    sums = np.empty((units, 2 * size - 1))
    sums[:, 0] = 1.0
    for column, name in enumerate("xn"):
        of_spans = np.bincount(places, columns[name], units * size).reshape(units, size)
        sums[:, 1 + column :: 2] = of_spans[:, :-1]
    for arm in np.unique(arms):
        yield int(arm), sums[arms == arm]


def _curve(moments: Moments, present: Floats) -> _Curve:
    """From x and n of each span by turns: ratios Σx/Σn, and their covariance (delta method)."""
    k = len(SPANS)
    units = moments.n
    scatter = moments.scatter / units
    x, n = moments.mean[0::2], moments.mean[1::2]
    # Spans that nobody reached have no value; their rows of the covariance are never read.
    safe = np.where(n > 0.0, n, 1.0)
    values = np.where(n > 0.0, x / safe, np.nan)
    gradient = np.zeros((k, 2 * k))
    places = np.arange(k)
    gradient[places, 2 * places] = 1.0 / safe
    gradient[places, 2 * places + 1] = -np.nan_to_num(values) / safe
    covariance = gradient @ scatter @ gradient.T / max(1, units - 1)
    # What rounding alone left of a metric that does not vary is no variance.
    size = np.nan_to_num(np.outer(values, values))
    covariance[np.abs(covariance) <= 1e-20 * np.abs(size)] = 0.0
    return _Curve(values, covariance, present)


# --- The effects


def _novelty(
    variant: str,
    metric: str,
    treated: _Curve,
    control: _Curve | None,
    rule: Rule,
    bounds: tuple[float, float] | None,
) -> Novelty:
    if control is None:
        return Novelty(variant=variant, metric=metric, spans=[], reason=reasons.MISSING_CONTROL)
    spans, usable = [], []
    for k, (since, until) in enumerate(SPANS):
        n, n_control = int(treated.units[k]), int(control.units[k])
        span = ExposureSpan(since=since, until=until, n=n, n_control=n_control)
        if min(n, n_control) < LEAST_UNITS:
            spans.append(msgspec.structs.replace(span, reason=reasons.THIN_SPAN))
            continue
        usable.append(k)
        spans.append(_span(span, metric, variant, treated, control, k, rule, bounds))
    # What nobody reached yet is not worth a line.
    while spans and not spans[-1].n and not spans[-1].n_control:
        spans.pop()
    result = Novelty(variant=variant, metric=metric, spans=spans)
    if len(usable) < LEAST_SPANS:
        return msgspec.structs.replace(result, reason=reasons.TOO_EARLY)
    return _with_trend(result, treated, control, np.array(usable), rule)


def _span(
    span: ExposureSpan,
    metric: str,
    variant: str,
    treated: _Curve,
    control: _Curve,
    k: int,
    rule: Rule,
    bounds: tuple[float, float] | None,
) -> ExposureSpan:
    t = ArmEstimate(float(treated.values[k]), float(treated.covariance[k, k]), span.n)
    c = ArmEstimate(float(control.values[k]), float(control.covariance[k, k]), span.n_control)
    measured = effect(metric, variant, t, c, rule)
    if bounds is not None:
        measured = within(measured, *bounds)
    shared = ("difference", "relative")
    cells = {f"{name}{end}": getattr(measured, f"{name}{end}") for name in shared for end in _ENDS}
    return msgspec.structs.replace(
        span, value=t.value, control_value=c.value, reason=measured.reason, **cells
    )


_ENDS = ("", "_low", "_high")


def _with_trend(
    result: Novelty, treated: _Curve, control: _Curve, usable: Any, rule: Rule
) -> Novelty:
    """The slope of the difference over the spans, and the p-value of a trend on both scales."""
    t, c = treated.values[usable], control.values[usable]
    inside = np.ix_(usable, usable)
    vt, vc = treated.covariance[inside], control.covariance[inside]
    weights = np.minimum(treated.units[usable], control.units[usable])
    slope, p_difference = _trend(t - c, vt + vc, weights, usable, treated, control, rule)
    if slope is None:
        return msgspec.structs.replace(result, reason=reasons.CONSTANT_METRIC)
    p_value = p_difference
    if np.all(c > 0.0):
        by_t, by_c = np.diag(1.0 / c), np.diag(t / c**2)
        variance = by_t @ vt @ by_t + by_c @ vc @ by_c
        _, p_lift = _trend(t / c - 1.0, variance, weights, usable, treated, control, rule)
        if p_lift is not None and p_difference is not None:
            p_value = max(p_difference, p_lift)
    return msgspec.structs.replace(result, slope=slope, p_value=p_value)


def _trend(
    effects: Floats,
    covariance: Floats,
    weights: Floats,
    usable: Any,
    treated: _Curve,
    control: _Curve,
    rule: Rule,
) -> tuple[float | None, float | None]:
    """The slope over the spans' places and its p-value; units stand in several spans, which the
    covariance knows.
    """
    places = usable.astype(np.float64)
    w = weights / weights.sum()
    centred = places - w @ places
    # A linear function of the effects: its variance follows from theirs.
    coefficients = w * centred / (w @ centred**2)
    slope = float(coefficients @ effects)
    variance = float(coefficients @ covariance @ coefficients)
    if not variance > 0.0:
        return None, None
    units = int(treated.units.max() + control.units.max())
    p_value = rule.p_value(slope / sqrt(variance), units, inf)
    if p_value is None:
        # Credible intervals have no p-value; a trend is tested all the same.
        p_value = Rule("fixed", rule.alpha).p_value(slope / sqrt(variance), units, inf)
    return slope, p_value
