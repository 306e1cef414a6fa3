"""What a design judges each of its metrics by: the metric as `compare` knows it, over columns that
hold values as they count: never above the metric's cap, or above its pooled quantile.

Policies learn from values between 0 and the cap, so those are what variants must be compared by:
else one order of 250,000 hides what all the others show. The values as they came are compared
beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from topbill.ab.core.effect import Effect
from topbill.ab.core.units import SUMMED, check_columns, columns_of, count_column, is_numeric
from topbill.ab.metrics import Mean, Metric, Proportion, Quantile, Ratio, Sum
from topbill.ab.results import Per
from topbill.domain.errors import BadRequest
from topbill.domain.formatting import label, significant
from topbill.domain.sql import identifier, number

Direction = Literal["higher", "lower"]


class MetricDesign(msgspec.Struct, frozen=True, kw_only=True):
    """A metric as the analysis needs it: 0/1 or a number, the good direction, its weight in the
    objective.

    Attributes:
        name: what it is called, and the column of its values.
        binary: whether it is 0 or 1.
        better: which direction is good; None where the weight says it: higher, or lower of a
            weight below 0.
        weight: in the objective, 0 where it is not in it.
        cap: the value of a decision that counts as 1 in the objective; larger ones count as it,
            and where there is a weight those below `floor` count as that. None: 1 is the value
            that counts as 1, and the metric is judged as it came.
        floor: the value of a decision that counts as 0 in the objective.
        per: whether it is a number of each decision, or of each unit: whether the unit ever had a
            1 where it is binary, else the sum over its decisions.
        winsorise: the quantile, between 0 and 1, above which values count as it: of all variants'
            values together, of units where it is per unit.
        q: makes it the q-quantile of its column.
        numerator, denominator: make it the ratio of two columns' totals, where both have a value;
            they are the names of other metrics of the design, or of columns.
        metric: what to compare as it is, where it is no column of the metric's name; `cap` and
            what follows it then say nothing.

    Raises:
        BadRequest: for numbers that cannot be meant.
    """

    name: str
    binary: bool = False
    better: Direction | None = None
    weight: float = 0.0
    cap: float | None = None
    floor: float = 0.0
    per: Per = "decision"
    winsorise: float | None = None
    q: float | None = None
    numerator: str | None = None
    denominator: str | None = None
    metric: Metric | None = None

    def __post_init__(self) -> None:
        where = f"design.metrics.{self.name}"
        if self.cap is not None and not self.cap > self.floor:
            raise BadRequest(f"{where}.cap", f"got {self.cap!r}; expected one above {self.floor}")
        for name, share in (("winsorise", self.winsorise), ("q", self.q)):
            if share is not None and not 0.0 < share < 1.0:
                raise BadRequest(f"{where}.{name}", f"got {share!r}; expected one between 0 and 1")
        if self.winsorise is not None and (self.cap is not None or self.weight):
            raise BadRequest(
                f"{where}.winsorise",
                "got one beside a cap or a weight; expected none, since policies learn from values "
                "up to the cap",
            )
        if (self.numerator is None) != (self.denominator is None):
            raise BadRequest(where, "got half a ratio; expected a numerator and a denominator")

    @property
    def direction(self) -> Direction:
        """Which direction is good."""
        if self.better is not None:
            return self.better
        return "lower" if self.weight < 0.0 else "higher"

    @property
    def scale(self) -> float:
        """The value that counts as 1 in the objective."""
        return 1.0 if self.cap is None else self.cap

    @property
    def is_of_decisions(self) -> bool:
        """Whether it divides by something that variants may move: decisions, or a denominator."""
        return self.read_per != "unit"

    @property
    def read_per(self) -> str:
        """What it is a number of: the decision, the unit, or what a ratio divides by."""
        if self.metric is None:
            return self.denominator or self.per
        if isinstance(self.metric, Ratio):
            return self.metric.denominator
        is_of_rows = not isinstance(self.metric, Sum) and self.metric.per == "row"
        return "decision" if is_of_rows else "unit"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        if self.metric is not None:
            return columns_of(self.metric)
        if self.numerator is not None and self.denominator is not None:
            return self.numerator, self.denominator
        return (self.name,)


class Limit(NamedTuple):
    """From which value on a metric's values count as it, and up to which; how many of how many were
    above, and below.
    """

    value: float
    floor: float
    above: int
    below: int
    values: int

    @property
    def outside(self) -> int:
        """How many values were cut off."""
        return self.above + self.below


class Judged(NamedTuple):
    """Rows with the columns that metrics are judged by: the metrics by name, those that some value
    was cut off of as it came, and where."""

    relation: Any
    metrics: dict[str, Metric]
    as_they_came: dict[str, Metric]
    limits: dict[str, Limit]


def judged(
    relation: Any, designs: Iterable[MetricDesign], *, unit: str | None, variant: str
) -> Judged:
    """The rows and metrics that a design is judged by.

    Raises:
        BadRequest: for columns that are missing.
    """
    designs = list(designs)
    if SUMMED in relation.columns:
        return _judged_sums(relation, designs)
    columns = [name for design in designs for name in design.columns]
    check_columns(relation.columns, [variant, *([] if unit is None else [unit]), *columns])
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    # What isn't numeric is left as it is, for the reader of the rows to refuse by name.
    own = [design for design in designs if design.metric is None]
    designs_by_column = {d.name: d for d in own if is_numeric(types.get(d.name, ""))}
    limits: dict[str, Limit] = {}
    values: dict[str, str] = {}
    for name, design in designs_by_column.items():
        limit = _limit(relation, design, unit, variant)
        if limit is not None:
            limits[name] = limit
        values[name] = _value(design, limit)
    metrics: dict[str, Metric] = {}
    as_they_came: dict[str, Metric] = {}
    derived: dict[str, str] = {}
    for design in designs:
        metrics[design.name] = _metric(design, values, derived, limits.get(design.name))
        if design.name in limits and limits[design.name].outside:
            as_they_came[design.name] = _plain(design, design.name)
    if derived:
        picked = ", ".join(f"{sql} AS {identifier(name)}" for name, sql in derived.items())
        relation = relation.query("unit_rows", f"SELECT *, {picked} FROM unit_rows")  # noqa: S608  (numbers and quoted identifiers)
    return Judged(relation, metrics, as_they_came, limits)


# --- Rows that are sums


class JudgedColumns(NamedTuple):
    """SQL by name of columns of a row: `values`, of which metrics are judged, beside those that
    the rows have, and `outside`, whether a metric's value is cut off."""

    values: dict[str, str]
    outside: dict[str, str]


def judged_columns(designs: Iterable[MetricDesign]) -> JudgedColumns:
    """What has to be added up of rows, so that `judged` can read the sums in their place. The
    designs have no quantiles, and are of numbers.
    """
    values: dict[str, str] = {}
    outside: dict[str, str] = {}
    counts: dict[str, str] = {}
    designs = list(designs)
    for design in designs:
        limit = _limit_of_sums(design)
        if limit is None:
            continue
        counts[design.name] = _value(design, limit)
        x = f"isfinite({_as_double(design)}) AND {_as_double(design)}"
        outside[_above(design)] = f"{x} > {number(limit.value)}"
        if design.weight:
            outside[_below(design)] = f"{x} < {number(limit.floor)}"
    for design in designs:
        _metric(design, counts, values, _limit_of_sums(design))
    return JudgedColumns(values, outside)


def _judged_sums(relation: Any, designs: Sequence[MetricDesign]) -> Judged:
    """The metrics of rows that are sums of `judged_columns`."""
    limits: dict[str, Limit] = {}
    metrics: dict[str, Metric] = {}
    as_they_came: dict[str, Metric] = {}
    counts: dict[str, str] = {}
    for design in designs:
        limit = _limit_of_sums(design)
        if limit is None:
            continue
        counts[design.name] = _value(design, limit)
        below = identifier(_below(design)) if design.weight else "0"
        picked = f"sum({identifier(_above(design))}), sum({below}), " + (
            f"sum({identifier(count_column(design.name))})"
        )
        numbers = relation.aggregate(picked).fetchall()[0]
        above, below_floor, values = (int(n or 0) for n in numbers)
        if values:
            limits[design.name] = Limit(limit.value, limit.floor, above, below_floor, values)
    for design in designs:
        metrics[design.name] = _metric(design, counts, {}, None)
        if design.name in limits and limits[design.name].outside:
            as_they_came[design.name] = _plain(design, design.name)
    return Judged(relation, metrics, as_they_came, limits)


def _limit_of_sums(design: MetricDesign) -> Limit | None:
    """Where a metric's values are cut off, as if some were."""
    if design.binary or design.cap is None:
        return None
    return Limit(design.cap, design.floor, 1, 0, 1)


def _above(design: MetricDesign) -> str:
    return f"@above {design.name}"


def _below(design: MetricDesign) -> str:
    return f"@below {design.name}"


# --- The metric of a design


def _metric(
    design: MetricDesign, values: Mapping[str, str], derived: dict[str, str], limit: Limit | None
) -> Metric:
    """The metric of a design; columns that it needs and the data has not are added to `derived`."""
    if design.metric is not None:
        return design.metric
    if design.numerator is not None and design.denominator is not None:
        parts = []
        for name, other in (design.columns, design.columns[::-1]):
            own = values.get(name, identifier(name))
            # Both or none: of a decision whose other number is still to come neither counts.
            column = f"@{name} of {design.name}"
            derived[column] = f"CASE WHEN {identifier(other)} IS NOT NULL THEN {own} END"
            parts.append(column)
        return Ratio(parts[0], parts[1])
    own = values.get(design.name, identifier(design.name))
    column = design.name
    if own != identifier(design.name):
        column = f"@{design.name} as it counts"
        derived[column] = own
    metric = _plain(design, column)
    if isinstance(metric, Sum) and design.winsorise is not None and limit is not None:
        return msgspec.structs.replace(metric, cap=limit.value)
    return metric


def _plain(design: MetricDesign, column: str) -> Metric:
    if design.q is not None:
        return Quantile(column, design.q, "unit" if design.per == "unit" else "row")
    if design.per == "unit":
        return Proportion(column, "unit") if design.binary else Sum(column, known_only=True)
    return Proportion(column) if design.binary else Mean(column)


def _value(design: MetricDesign, limit: Limit | None) -> str:
    """SQL for a row's value as it counts."""
    column = identifier(design.name)
    # A unit's total is cut off as a whole, not by its rows.
    if limit is None or not limit.outside:
        return column
    if design.winsorise is not None and design.per == "unit":
        return column
    x, top = _as_double(design), number(limit.value)
    cut = f"CASE WHEN {x} > {top} THEN {top}"
    # Policies learn from nothing below the floor.
    if design.weight:
        cut += f" WHEN {x} < {number(design.floor)} THEN {number(design.floor)}"
    # NaN, which DuckDB sorts above all numbers, is no value rather than a large one.
    return f"CASE WHEN NOT isnan({x}) THEN {cut} ELSE {x} END END"


def _limit(relation: Any, design: MetricDesign, unit: str | None, variant: str) -> Limit | None:
    """Where a metric's values are cut off; None where nowhere, or there is no value."""
    if design.binary or (design.cap is None and design.winsorise is None):
        return None
    x, grouping = _as_double(design), ""
    if design.winsorise is not None and design.per == "unit" and unit is not None:
        x, grouping = f"sum({x}) FILTER (WHERE isfinite({x}))", f"GROUP BY {identifier(unit)}"
    # Of all variants together: a quantile of each its own would cut off the effect itself.
    top = f"quantile_cont(x, {number(design.winsorise or 1.0)})"
    if design.cap is not None:
        top = f"CASE WHEN count(*) > 0 THEN {number(design.cap)} END"
    below = f"x < {number(design.floor)}" if design.weight else "false"
    query = f"""WITH finite AS (
            SELECT x FROM (
                SELECT {x} AS x FROM unit_rows WHERE {identifier(variant)} IS NOT NULL {grouping}
            ) WHERE isfinite(x)
        )
        SELECT any_value(top), count(*) FILTER (x > top), count(*) FILTER ({below}), count(*)
        FROM finite, (SELECT {top} AS top FROM finite)"""  # noqa: S608  (numbers and quoted identifiers)
    ((top, above, below, count),) = relation.query("unit_rows", query).fetchall()
    if top is None:
        return None
    return Limit(float(top), design.floor, int(above), int(below), int(count))


def _as_double(design: MetricDesign) -> str:
    return f"CAST({identifier(design.name)} AS DOUBLE)"


def sentence(name: str, limit: Limit, effects: Iterable[Effect]) -> str:
    """What was cut off, and what the metric says without."""
    clauses = []
    for effect in effects:
        if effect.difference is None:
            clauses.append(f"{effect.variant} cannot be compared")
            continue
        clause = f"{effect.variant} {significant(effect.difference)}"
        if effect.difference_low is not None and effect.difference_high is not None:
            low, high = significant(effect.difference_low), significant(effect.difference_high)
            clause += f" (between {low} and {high})"
        clauses.append(clause)
    ends = []
    for side, end, count in (
        ("above", limit.value, limit.above),
        ("below", limit.floor, limit.below),
    ):
        if count:
            ends.append(
                f"values {side} {end:,.6g} count as {end:,.6g} ({count:,} of {limit.values:,})"
            )
    return f"{label(name)}: {', '.join(ends)}; as they came, {', '.join(clauses)}"
