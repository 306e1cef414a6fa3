"""From rows to moments by arm: the rows handed to an analysis, checked once, described once, and
grouped by unit in one DuckDB pass.

What was randomised is the unit, so whatever is compared is a sum or two per unit. This module is
the only one in `ab` that speaks SQL about rows (`quantile` asks through it).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from math import isfinite
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from topbill.ab.metrics import Mean, Metric, Proportion, Quantile, Ratio, Sum
from topbill.domain.errors import BadData, BadRequest
from topbill.domain.sql import identifier, number
from topbill.domain.zones import UTC, local_sql
from topbill.lake.frames import relation_of
from topbill.stats.moments import Moments, Statistic, mean, product_columns, ratio

Covariates = Mapping[str, "str | Sequence[str]"]
"""A column measured before the experiment, or several, by metric."""
Key = tuple[Any, ...]
"""(variant, segment values…)"""

_NUMERIC = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
    "BOOLEAN",
    "U",
    "BIGNUM",
)
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
PLACE = "@place"
"""A row's place in the data: a column of data that does not lie in its order."""
_PLACE, _UNITS = identifier(PLACE), '"@units"'
"""A row's place in the data and the count of units, columns that nobody's data has."""
SUMMED, LAST = "@rows", "@last"
"""Columns of data whose rows are sums: how many rows each stands for, and the last one's time.

Such rows are of one unit and variant. A numeric column with a `count_column` beside it holds the
sum of its values, all of which are finite (NULL where there is none), and `low_column` and
`high_column` the ends of them or of more; one without is the same in all rows of a unit.
"""
_SORTABLE = 50_000_000
"""Above this many rows the check for one row a unit would take more memory than grouping does."""
_SAMPLE = 200_000
"""So many rows nearly always show a unit twice, where units have several."""


# --- The rows: checked and described


def count_column(column: str) -> str:
    """Of rows that are sums: how many values a column is the sum of."""
    return f"@n {column}"


def low_column(column: str) -> str:
    """Of rows that are sums: the least of the values."""
    return f"@low {column}"


def high_column(column: str) -> str:
    """Of rows that are sums: the greatest of the values."""
    return f"@high {column}"


@dataclass(frozen=True, slots=True)
class ColumnSummary:
    """What one look at a numeric column says. `shift` is a value near the data, taken off before
    squaring.
    """

    missing: int
    infinite: int
    low: float
    high: float
    shift: float


class UnitTerm(NamedTuple):
    """A number per unit, in SQL: over the row where each unit has one, over the group elsewhere."""

    name: str
    of_row: str
    of_unit: str


class UnitQuery(NamedTuple):
    """SQL of a query by unit, and the metrics whose terms it reads."""

    sql: str
    terms: dict[str, MetricTerms]


@dataclass(slots=True)
class UnitCheck:
    """Whether each row is a unit of its own. `passed` is None until the number of units is counted,
    by the SQL aggregate `units`.
    """

    passed: bool | None
    units: str = ""


@dataclass(frozen=True, slots=True)
class UnitRows:
    """A checked relation: which column is the unit and the variant, what every numeric column
    holds, and by which column rows come one after the other (None: as they stand), which
    `is_moment` where it says more than the day.
    """

    relation: Any
    unit: str | None
    variant: str
    count: int
    unit_check: UnitCheck
    columns: dict[str, ColumnSummary]
    time: str | None = None
    is_moment: bool = False
    zone: str = UTC
    """Whose days are counted where rows have moments."""
    is_summed: bool = False
    """Whether rows are sums of several."""

    @property
    def one_row_a_unit(self) -> bool:
        """Whether no unit has two rows; counts the units if nobody has yet."""
        if self.unit_check.passed is None:
            (units,) = _ask_one(self.relation, self.unit_check.units)
            self.unit_check.passed = units == self.count
        return self.unit_check.passed

    def value(self, column: str) -> str:
        """SQL for the column as a double, NULL where it is missing, not a number or infinite."""
        summary = self.columns[column]
        number = _as_double(column)
        if summary.missing == self.count:
            return "CAST(NULL AS DOUBLE)"
        # A column that is whole needs no CASE, which would cost a third of the pass.
        if summary.missing or summary.infinite:
            return f"CASE WHEN isfinite({number}) THEN {number} END"
        return number

    def weight(self, column: str) -> str:
        """SQL for how many values of a column a row has."""
        if self.is_summed:
            return f"CAST({identifier(count_column(column))} AS DOUBLE)"
        return f"CAST({self.value(column)} IS NOT NULL AS DOUBLE)"

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of an SQL query over `unit_rows`."""
        answer: list[tuple[Any, ...]] = self.relation.query("unit_rows", sql).fetchall()
        return answer

    def ask_by_unit(
        self, query_of: Callable[[UnitRows], UnitQuery]
    ) -> tuple[UnitQuery, list[tuple[Any, ...]]]:
        """The query that `query_of` writes for these rows, and its answer.

        While nobody knows whether each row is a unit, as nearly always, it is asked as if so,
        beside the count of units, and anew if it turns out that some unit has several rows.
        """
        if self.unit_check.passed is None:
            query = query_of(replace(self, unit_check=UnitCheck(True)))
            answer = self._ask_and_count(query.sql)
            if self.one_row_a_unit:
                return query, answer
        query = query_of(self)
        return query, self.ask(query.sql)

    def _ask_and_count(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, beside which units are counted."""
        # DuckDB works on both sides of a union at once, and each of these reads columns of its own.
        counted = f"SELECT {self.unit_check.units} AS {_UNITS} FROM unit_rows"  # noqa: S608  (identifiers are quoted)
        answer = self.ask(f"SELECT * FROM ({sql}) UNION ALL BY NAME {counted}")  # noqa: S608  (our own query)
        (units,) = [row[-1] for row in answer if row[-1] is not None]
        self.unit_check.passed = units == self.count
        return [row[:-1] for row in answer if row[-1] is None]

    def by_unit(self, terms: Iterable[UnitTerm], segments: Sequence[str] = ()) -> str:
        """SQL of a query with a row per unit: `variant`, `mixed` (seen in several variants), the
        segments as s0, s1…, and each term under its name."""
        variant = identifier(self.variant)
        source = "unit_rows"
        if self.one_row_a_unit:
            # No GROUP BY: proving that units are unique is far cheaper than grouping by them.
            picked = [f"{variant} AS variant", "FALSE AS mixed"]
            picked += [f"{identifier(s)} AS s{i}" for i, s in enumerate(segments)]
            picked += [f"{term.of_row} AS {term.name}" for term in terms]
            grouping = ""
        else:
            picked = [f"min({variant}) AS variant", f"min({variant}) <> max({variant}) AS mixed"]
            # A unit belongs to one segment only, so that segments add up: that of its first row, as
            # later ones may be the variant's doing.
            picked += [f"{self._first(s)} AS s{i}" for i, s in enumerate(segments)]
            if any(s != self.time for s in segments):
                source = f"({placed(self.relation)})"
            picked += [f"{term.of_unit} AS {term.name}" for term in terms]
            grouping = f" GROUP BY {identifier(str(self.unit))}"
        columns = ", ".join(picked)
        return f"SELECT {columns} FROM {source} WHERE {variant} IS NOT NULL{grouping}"  # noqa: S608  (identifiers are quoted)

    def first_in(self, column: str, values: Sequence[int]) -> UnitRows:
        """The rows of units whose first row has one of those numbers in `column`."""
        unit, variant = identifier(str(self.unit)), identifier(self.variant)
        listing = ", ".join(str(int(value)) for value in values)
        if self.unit is None or self.one_row_a_unit:
            inside = f"{identifier(column)} IN ({listing})"
        else:
            rows = placed(self.relation)
            inside = (
                f"{unit} IN (SELECT {unit} FROM ({rows}) WHERE {variant} IS NOT NULL "  # noqa: S608  (identifiers are quoted)
                f"GROUP BY {unit} HAVING {self._first(column)} IN ({listing}))"
            )
        query = f"SELECT * FROM unit_rows WHERE {inside}"  # noqa: S608  (whole numbers)
        return replace(self, relation=self.relation.query("unit_rows", query))

    def _first(self, column: str) -> str:
        """SQL for a column's value, NULL too, in a unit's first row."""
        if column == self.time:
            return f"min({identifier(column)})"
        # Where times are equal, as those of one day are, the first is the one that stands first.
        place = _PLACE
        if self.time is not None:
            place = f"{{'time': {identifier(self.time)}, 'place': {_PLACE}}}"
        return f"arg_min_null({identifier(column)}, {place})"

    def label(self, column: str, value: str) -> str:
        """SQL for what a column's value is called: of a moment, its day in the zone."""
        if column == self.time and self.is_moment:
            return f"CAST(CAST({local_sql(value, self.zone)} AS DATE) AS VARCHAR)"
        return f"CAST({value} AS VARCHAR)"

    def span(self) -> tuple[float, float]:
        """When the first row was and the last, in days of one count (of moments: since 1970); equal
        where nothing says when rows were."""
        if self.time is None:
            return 0.0, 0.0
        time, variant = identifier(self.time), identifier(self.variant)
        day = f"epoch_us({time}) / 86400e6" if self.is_moment else self._day_number()
        last = f"epoch_us({identifier(LAST)}) / 86400e6" if self.is_summed else day
        days = (
            f"SELECT {day} AS day, {last} AS last FROM unit_rows "  # noqa: S608  (identifiers are quoted)
            f"WHERE {variant} IS NOT NULL AND {time} IS NOT NULL"
        )
        query = f"SELECT min(day), max(last) FROM ({days})"  # noqa: S608  (our own query)
        first, last = self.ask(query)[0]
        return float(first or 0.0), float(last or 0.0)

    def elapsed_days(self) -> float:
        """How many days passed from the first row to the last; 0 where less than a whole one did,
        or nothing says when rows were.

        Of days without a time, the first and the last count as whole, unless they are one.
        """
        first, last = self.span()
        passed = last - first
        if passed < 1.0:
            return 0.0
        return passed if self.is_moment else passed + 1.0

    def _day_number(self) -> str:
        """SQL for the number of a row's day, which days that nobody came on count in."""
        time = identifier(str(self.time))
        kind = str(self.relation.types[self.relation.columns.index(self.time)])
        if kind == "DATE":
            return f"({time} - DATE '1970-01-01')"
        if is_numeric(kind):
            return time
        # Names of days can only be counted; days without a row are missing from them.
        return f"dense_rank() OVER (ORDER BY {time})"

    def mixed_units(self) -> int:
        """How many units were seen in more than one variant."""
        if self.one_row_a_unit:
            return 0
        return int(self.ask(f"SELECT count(*) FROM ({self.mixed_query()})")[0][0])  # noqa: S608  (our own query)

    def mixed_query(self) -> str:
        """SQL of the units that were seen in more than one variant."""
        unit, variant = identifier(str(self.unit)), identifier(self.variant)
        return (
            f"SELECT {unit} FROM unit_rows GROUP BY {unit} "  # noqa: S608  (identifiers are quoted)
            f"HAVING min({variant}) <> max({variant})"
        )


def read_rows(
    data: Any,
    *,
    unit: str | None,
    variant: str,
    metrics: Mapping[str, Metric],
    covariates: Covariates | None,
    adjust: str,
    strata: str | None = None,
    labels: Sequence[str] = (),
    time: str | None = None,
) -> UnitRows:
    """The data, with the columns that metrics, covariates, strata and labels read, checked.

    Raises:
        BadRequest: for metrics, covariates and adjustments that do not go together, and as `read`
            does.
        BadData: as `read` does.
    """
    _check_metrics(metrics, covariates, adjust, strata)
    numeric: list[str] = []
    for metric in metrics.values():
        numeric += columns_of(metric)
    for name in covariates or {}:
        numeric += covariates_of(covariates, name)
    binary = [m.column for m in metrics.values() if isinstance(m, Proportion)]
    labels = [strata, *labels] if strata else labels
    return read(
        data,
        unit=unit,
        variant=variant,
        numeric=numeric,
        binary=binary,
        labels=labels,
        time=time,
    )


def _check_metrics(
    metrics: Mapping[str, Metric],
    covariates: Covariates | None,
    adjust: str,
    strata: str | None,
) -> None:
    """Raises BadRequest naming the argument that does not go with the others."""
    if not metrics or not isinstance(metrics, Mapping):
        raise BadRequest(
            "metrics",
            f"got {metrics or 'none'}; "
            "expected a dict of name to Mean, Proportion, Sum, Ratio or Quantile",
        )
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise BadRequest(
                f"metrics.{name}",
                f"got {metric!r}; expected Mean, Proportion, Sum, Ratio or Quantile",
            )
        if isinstance(metric, Quantile) and strata is not None:
            raise BadRequest(
                f"metrics.{name}",
                "a Quantile cannot be post-stratified; compare it without `strata`",
            )
    if adjust not in ("cuped", "lin"):
        raise BadRequest("adjust", f"got {adjust!r}; expected cuped or lin")
    if not isinstance(covariates or {}, Mapping):
        raise BadRequest("covariates", f"got {covariates!r}; expected a dict of metric to columns")
    for name in covariates or {}:
        _check_covariate(name, metrics, adjust)
        own = covariates_of(covariates, name)
        if len(set(own)) < len(own) or not own:
            raise BadRequest(
                f"covariates.{name}", f"got {', '.join(own) or 'none'}; expected columns, each once"
            )


def covariates_of(covariates: Covariates | None, metric: str) -> tuple[str, ...]:
    """The covariates of a metric."""
    own = (covariates or {}).get(metric, ())
    if not isinstance(own, str | list | tuple):
        raise BadRequest(f"covariates.{metric}", f"got {own!r}; expected a column, or several")
    return (own,) if isinstance(own, str) else tuple(own)


def _check_covariate(name: str, metrics: Mapping[str, Metric], adjust: str) -> None:
    if name not in metrics:
        raise BadRequest(
            f"covariates.{name}", f"no such metric; the metrics are {', '.join(metrics)}"
        )
    if adjust == "lin" and isinstance(metrics[name], Ratio):
        raise BadRequest("adjust", "lin adjusts one value a unit, not a Ratio; use adjust='cuped'")
    if isinstance(metrics[name], Quantile):
        raise BadRequest(f"covariates.{name}", "a Quantile takes no covariate; leave it out")


def columns_of(metric: Metric) -> tuple[str, ...]:
    """The data columns that a metric reads."""
    if isinstance(metric, Ratio):
        return metric.numerator, metric.denominator
    return (metric.column,)


def read(
    data: Any,
    *,
    unit: str | None,
    variant: str,
    numeric: Iterable[str],
    binary: Iterable[str] = (),
    labels: Sequence[str] = (),
    time: str | None = None,
) -> UnitRows:
    """Check that the columns are there and of the right kind, and look at them once.

    `unit=None` makes each row its own unit. `time` is the column by which a unit's rows come one
    after the other; without it, as they stand.

    Raises:
        BadRequest: for columns that are missing.
        BadData: for columns that are not numeric, rows without a unit, and other values than 0 and
            1 in `binary` columns.
    """
    relation = with_read_times(relation_of(data), time)
    numeric = list(dict.fromkeys(numeric))
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    if unit is not None:
        check_columns(types, [unit])
    ordering = [] if time is None else [time]
    check_columns(types, [variant, *labels, *ordering, *numeric])
    for name in [*([] if unit is None else [unit]), variant, *labels, *ordering]:
        _check_plain(name, types[name])
    for name in [variant, *labels]:
        if name != time and types[name].endswith("WITH TIME ZONE"):
            raise BadData(
                f"data.{name}",
                f"got a column of {types[name]}; expected labels; write moments as text",
            )
    numbers = [name for name in numeric if is_numeric(types[name])]
    whole = unit is not None and types[unit] in _INTEGERS
    # Rows that each stand for themselves are none that anything was added up in.
    is_summed = SUMMED in types and bool(_ask_one(relation, f"max({identifier(SUMMED)}) > 1")[0])
    if is_summed:
        count, unit_check, columns = _describe_sums(relation, str(unit), numbers)
    else:
        count, unit_check, columns = _describe(relation, unit, whole, numbers)
    for name in dict.fromkeys(binary):
        # What the sums are of was looked at before it was added up.
        if name in columns and not is_summed:
            _check_binary(relation, name, columns[name])
    for name in numeric:
        if name not in columns:
            _check_empty(relation, name, types[name])
            columns[name] = ColumnSummary(count, 0, 0.0, 0.0, 0.0)
    is_moment = time is not None and types[time].startswith("TIMESTAMP")
    return UnitRows(
        relation,
        unit,
        variant,
        count,
        unit_check,
        columns,
        time,
        is_moment,
        is_summed=is_summed,
    )


def placed(relation: Any) -> str:
    """SQL of a relation's rows with the place of each, as it says or as they stand."""
    if PLACE in relation.columns:
        return "SELECT * FROM unit_rows"
    return f"SELECT *, row_number() OVER () AS {_PLACE} FROM unit_rows"  # noqa: S608  (our own name)


def with_read_times(relation: Any, time: str | None) -> Any:
    """The relation, with times that are written out as dates, moments or whole numbers as what they
    are, if all of them are: as text, day 10 would be before day 9."""
    if time is None or time not in relation.columns:
        return relation
    if str(relation.types[relation.columns.index(time)]) != "VARCHAR":
        return relation
    name = identifier(time)
    longest, are_moments, are_numbers = _ask_one(
        relation,
        f"max(length({name})), count(TRY_CAST({name} AS TIMESTAMP)) = count({name}), "
        f"count(TRY_CAST({name} AS BIGINT)) = count({name})",
    )
    # Longer numbers, such as 20260301, are no count of days.
    if longest is None or not (are_moments or (are_numbers and longest <= len("20000"))):
        return relation
    kind = "DATE" if longest <= len("2026-03-01") else "TIMESTAMP"
    if not are_moments:
        kind = "BIGINT"
    query = f"SELECT * REPLACE (CAST({name} AS {kind}) AS {name}) FROM unit_rows"  # noqa: S608  (identifiers are quoted)
    return relation.query("unit_rows", query)


def check_columns(present: Collection[str], names: Iterable[str]) -> None:
    """Raises BadRequest for the first of `names` that is no column of the data."""
    for name in names:
        # A list of names, say, where one is expected.
        if not isinstance(name, str) or name not in present:
            raise BadRequest(f"data.{name}", f"no such column; the data has {', '.join(present)}")


def _check_plain(name: str, kind: str) -> None:
    """Raises BadData for a column whose values hold several values each."""
    if "[" in kind or kind.startswith(("STRUCT", "MAP", "UNION")):
        raise BadData(f"data.{name}", f"got a column of {kind}; expected one value a row")


def _check_empty(relation: Any, name: str, kind: str) -> None:
    # A column without any value has whatever type its container gives to nothing.
    if _ask_one(relation, f"count({identifier(name)})")[0]:
        raise BadData(f"data.{name}", f"got a column of {kind}; expected numbers or booleans")


def is_numeric(kind: str) -> bool:
    return kind.startswith(_NUMERIC) and not kind.startswith(("UUID", "UNION")) and "[" not in kind


def _as_double(column: str) -> str:
    return f"CAST({identifier(column)} AS DOUBLE)"


def _ask_one(relation: Any, picked: str) -> tuple[Any, ...]:
    """The one row of aggregates over all rows."""
    # Not as a query over a view of the rows, which takes DuckDB three times as long to plan. All of
    # them fetched, for DuckDB keeps an answer open until its end.
    rows: list[tuple[Any, ...]] = relation.aggregate(picked).fetchall()
    return rows[0]


def _describe(
    relation: Any, unit: str | None, whole: bool, numeric: list[str]
) -> tuple[int, UnitCheck, dict[str, ColumnSummary]]:
    """How many rows, whether each is its own unit, and what the numeric columns are like; `whole`
    says that units are whole numbers.
    """
    # Counts, least and greatest values only: files answer these from their statistics, without
    # being read.
    picked = ["count(*)", *_unit_aggregates(unit, whole)]
    for name in numeric:
        x = _as_double(name)
        picked += [f"count({x})", f"min({x})", f"max({x})"]
    count, with_unit, least, most, *numbers = _ask_one(relation, ", ".join(picked))
    if with_unit < count:
        raise BadData(
            f"data.{unit}",
            f"{count - with_unit} of {count} rows have no unit; give each row one or drop it",
        )
    columns = {}
    for i, name in enumerate(numeric):
        present, low, high = numbers[3 * i : 3 * i + 3]
        columns[name] = _summary(count - present, 0, low, high)
        # NaN sorts above everything in DuckDB, so one look at the ends finds it.
        if not (isfinite(columns[name].low) and isfinite(columns[name].high)):
            columns[name] = _describe_finite(relation, name, count)
    check = UnitCheck(True) if unit is None else _check_units(relation, unit, count, least, most)
    return count, check, columns


def _describe_sums(
    relation: Any, unit: str, numeric: list[str]
) -> tuple[int, UnitCheck, dict[str, ColumnSummary]]:
    """The same of rows that are sums, as of the rows that they stand for."""
    rows = f"coalesce(sum({identifier(SUMMED)}), 0)"
    picked = [rows, f"count(DISTINCT {identifier(unit)}) = count(*)"]
    for name in numeric:
        x = _as_double(name)
        if count_column(name) in relation.columns:
            n = f"sum({identifier(count_column(name))})"
            low, high = identifier(low_column(name)), identifier(high_column(name))
        else:
            n = f"sum({identifier(SUMMED)}) FILTER ({x} IS NOT NULL)"
            low = high = x
        picked += [f"coalesce({n}, 0)", f"min({low})", f"max({high})"]
    count, differ, *numbers = _ask_one(relation, ", ".join(picked))
    columns = {}
    for i, name in enumerate(numeric):
        present, least, most = numbers[3 * i : 3 * i + 3]
        columns[name] = _summary(int(count - present), 0, least, most)
    return int(count), UnitCheck(bool(differ)), columns


def _summary(missing: int, infinite: int, low: float | None, high: float | None) -> ColumnSummary:
    """`low` and `high` are None where the column has no value."""
    # The least value serves as the shift: sums of squares of minutes since 1970 would keep no digit
    # of their variance.
    return ColumnSummary(missing, infinite, low or 0.0, high or 0.0, low or 0.0)


def _unit_aggregates(unit: str | None, whole: bool) -> list[str]:
    """SQL of how many rows have a unit, and of the least and greatest where units are numbers."""
    if unit is None:
        return ["count(*)", "NULL", "NULL"]
    name = identifier(unit)
    if whole:
        return [f"count({name})", f"min({name})", f"max({name})"]
    return [f"count({name})", "NULL", "NULL"]


def _describe_finite(relation: Any, name: str, count: int) -> ColumnSummary:
    x = _as_double(name)
    finite = f"FILTER (WHERE isfinite({x}))"
    infinite_values = f"count(*) FILTER (WHERE isinf({x}))"
    picked = f"count(*) {finite}, {infinite_values}, min({x}) {finite}, max({x}) {finite}"
    usable, infinite, low, high = _ask_one(relation, picked)
    return _summary(count - usable - infinite, infinite, low, high)


def _check_binary(relation: Any, name: str, summary: ColumnSummary) -> None:
    kind = str(relation.types[relation.columns.index(name)])
    within = {summary.low, summary.high} <= {0.0, 1.0}
    between = 0
    if within and kind.startswith(("DOUBLE", "FLOAT", "DECIMAL")):
        # Whole numbers from 0 to 1 are 0 and 1; only fractions need another look.
        x = _as_double(name)
        (between,) = _ask_one(
            relation, f"count(*) FILTER (WHERE {x} NOT IN (0, 1) AND isfinite({x}))"
        )
    if between or not within:
        raise BadData(
            f"data.{name}",
            f"got values from {summary.low:g} to {summary.high:g}; expected 0 and 1, or use Mean",
        )


def _check_units(
    relation: Any, unit: str, count: int, least: int | None, most: int | None
) -> UnitCheck:
    """Whether no unit occurs twice; `least` and `most` are those of whole numbers. To prove it is
    several times faster than to group by unit."""
    if least is not None and most is not None:
        if most - least + 1 < count:
            return UnitCheck(False)  # more rows than numbers: some number is there twice
        if most - least < 8 * count:  # a bit per possible unit is little
            return UnitCheck(None, f"bit_count(bitstring_agg({identifier(unit)}, {least}, {most}))")
    if count > _SORTABLE or not _hashes_differ(relation.limit(_SAMPLE), unit):
        return UnitCheck(False)
    return UnitCheck(count <= _SAMPLE or _hashes_differ(relation, unit))


def _hashes_differ(relation: Any, unit: str) -> bool:
    """Hashes that all differ prove that the units do; two that agree send us to grouping, which is
    always right.
    """
    query = f"SELECT hash({identifier(unit)}) AS h FROM unit_rows"  # noqa: S608  (identifiers are quoted)
    # Sorted, so that equal ones are neighbours.
    hashes = np.sort(np.asarray(relation.query("unit_rows", query).fetchnumpy()["h"]))
    return bool(np.all(hashes[1:] != hashes[:-1]))


# --- The metrics: terms per unit, and moments of them


@dataclass(frozen=True, slots=True)
class MetricTerms:
    """How a metric is read off its unit-level columns: its statistic, to which `shift` is added
    back.

    `derived` are (name, SQL over terms). `empty` says that a column it reads has no value at all.
    """

    metric: Metric
    terms: tuple[UnitTerm, ...]
    statistic: Statistic
    shift: float = 0.0
    covariate: tuple[str, ...] | None = None
    derived: tuple[tuple[str, str], ...] = ()
    empty: bool = False

    def unadjusted(self) -> MetricTerms:
        """The same metric, read without its covariates."""
        own = tuple(term for term in self.terms if term.name not in (self.covariate or ()))
        return replace(self, covariate=None, terms=own)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of its moments, in order."""
        own = [term.name for term in self.terms]
        return (*own, *dict(self.derived))

    @property
    def binomial(self) -> bool:
        """A proportion of units: its variance is p(1 − p)/n, with divisor n."""
        return isinstance(self.metric, Proportion)

    @property
    def divisor(self) -> str | None:
        """The term that the statistic divides by; None where it divides by the number of units."""
        if len(self.terms) > 1 and self.terms[1].name not in (self.covariate or ()):
            return self.terms[1].name
        return None


@dataclass(frozen=True, slots=True)
class ArmMoments:
    """One variant's (or one segment of a variant's) moments of one metric; `n` units have a value,
    or count as 0 where that is what none means, but `measured` units have one; `infinite` of their
    values are not finite, `covered` units have each of the covariates."""

    moments: Moments
    n: int
    infinite: int
    covered: tuple[int, ...]
    measured: int

    def __add__(self, other: ArmMoments) -> ArmMoments:
        return ArmMoments(
            self.moments + other.moments,
            self.n + other.n,
            self.infinite + other.infinite,
            tuple(n + more for n, more in zip(self.covered, other.covered, strict=True)),
            self.measured + other.measured,
        )


@dataclass(frozen=True, slots=True)
class MomentsByArm:
    """All arms: `arms[metric][key]`; `units[key]` counts units, `mixed` those seen in several
    variants (left out).
    """

    terms: dict[str, MetricTerms]
    arms: dict[str, dict[Key, ArmMoments]]
    units: dict[Key, int]
    mixed: int

    def of_variant(self, metric: str, variant: object) -> dict[Key, ArmMoments]:
        """A variant's arms on a metric by the values of segments; labels compare by value."""
        own = resolve(variant, self.variants)
        return {key[1:]: arm for key, arm in self.arms[metric].items() if key[0] == own}

    @property
    def variants(self) -> list[object]:
        """The variants that have units, as the data calls them."""
        return list(dict.fromkeys(key[0] for key in self.units))

    def units_of_variants(self) -> dict[object, int]:
        """Units by variant, segments added up."""
        units: dict[object, int] = {}
        for key, n in self.units.items():
            units[key[0]] = units.get(key[0], 0) + n
        return units


def terms_of(
    name: str,
    metric: Metric,
    rows: UnitRows,
    covariates: Sequence[tuple[str, float]],
    *,
    products: bool = False,
) -> MetricTerms:
    """The unit-level columns that `metric` needs, `name` being an SQL prefix of its own.

    `covariates` are (column, its mean); units without a value of it count as having the mean.
    `products` adds the columns that HC2 needs, of one covariate.
    """
    empty = any(rows.columns[column].missing == rows.count for column in columns_of(metric))
    a, b = f"{name}_a", f"{name}_b"
    # A shift takes the column near zero before it is squared; `MetricTerms.shift` gives it back.
    shift = 0.0
    if isinstance(metric, Ratio):
        terms, shift = _ratio_terms(metric, rows, a, b)
    elif isinstance(metric, Sum):
        shift = _near_total(rows, metric.column)
        terms = _sum_terms(metric, rows, a, b, shift)
    else:
        shift = rows.columns[metric.column].shift
        terms = _mean_terms(metric, rows, a, b, shift)
    statistic = ratio(a, b) if len(terms) == 2 else mean(a)
    if not covariates:
        return MetricTerms(metric, tuple(terms), statistic, shift, empty=empty)
    names = []
    for i, (column, centre) in enumerate(covariates):
        names.append(f"{name}_x{i}")
        # Centred on its mean, so that a unit without a value is given 0 and counts as average.
        from_centre = f"{rows.value(column)} - {number(centre)}"
        terms.append(UnitTerm(names[-1], _or0(from_centre), _or0(f"avg({from_centre})")))
    # HC2's columns are named by the SQL that makes them: products of the two.
    of_two = product_columns(a, names[0]) if products and len(names) == 1 else ()
    derived = tuple((product, product) for product in of_two)
    return MetricTerms(metric, tuple(terms), statistic, shift, tuple(names), derived, empty)


def _ratio_terms(metric: Ratio, rows: UnitRows, a: str, b: str) -> tuple[list[UnitTerm], float]:
    """Numerator and denominator of a ratio, and its shift R₀: Σ(a − R₀ b) / Σ b is the ratio less
    R₀, and near zero however large a and b are."""
    above, below = _or0(rows.value(metric.numerator)), _or0(rows.value(metric.denominator))
    query = f"SELECT sum({above}) / nullif(sum({below}), 0) FROM unit_rows"  # noqa: S608  (identifiers are quoted)
    (overall,) = rows.ask(query)[0]
    shift = float(overall) if overall is not None and isfinite(overall) else 0.0
    rest = f"{above} - {number(shift)} * {below}"
    return [
        UnitTerm(a, rest, _or0(f"sum({rest})")),
        _total(b, rows.value(metric.denominator)),
    ], shift


def _near_total(rows: UnitRows, column: str) -> float:
    """A value near units' totals of a column, where they are near each other: one unit's own."""
    if rows.one_row_a_unit:
        return rows.columns[column].low
    unit, value = identifier(str(rows.unit)), rows.value(column)
    one = f"(SELECT min({unit}) FROM unit_rows)"  # noqa: S608  (identifiers are quoted)
    query = f"SELECT sum({value}) FROM unit_rows WHERE {unit} = {one}"  # noqa: S608  (identifiers are quoted)
    (total,) = rows.ask(query)[0]
    return float(total) if total is not None and isfinite(total) else 0.0


def _total(name: str, value: str) -> UnitTerm:
    return UnitTerm(name, _or0(value), _or0(f"sum({value})"))


def _sum_terms(metric: Sum, rows: UnitRows, a: str, b: str, shift: float) -> list[UnitTerm]:
    """Terms of a total per unit: the total `a`, and whether there is one `b` where units without a
    value are left out."""
    value = rows.value(metric.column)
    of_row, of_unit = _at_most(value, metric.cap), _at_most(f"sum({value})", metric.cap)
    less = f" - {number(shift)}" if shift else ""
    totals = UnitTerm(a, f"{_or0(of_row)}{less}", f"{_or0(of_unit)}{less}")
    summary = rows.columns[metric.column]
    if not metric.known_only or not (summary.missing or summary.infinite):
        return [totals]
    # A unit without a value must add nothing, also where others are shifted.
    totals = totals._replace(of_row=_or0(f"{of_row}{less}"), of_unit=_or0(f"{of_unit}{less}"))
    present = UnitTerm(
        b, f"CAST({value} IS NOT NULL AS DOUBLE)", f"CAST(count({value}) > 0 AS DOUBLE)"
    )
    return [totals, present]


def _at_most(value: str, cap: float | None) -> str:
    """SQL for a value, or the cap where it is larger; NULL stays NULL, which `least` would lose."""
    if cap is None:
        return value
    return f"CASE WHEN {value} > {number(cap)} THEN {number(cap)} ELSE {value} END"


def _mean_terms(
    metric: Mean | Proportion | Quantile, rows: UnitRows, a: str, b: str, shift: float
) -> list[UnitTerm]:
    """Terms of a mean: the sum `a`, and the count `b` unless each unit has exactly one value."""
    if rows.is_summed:
        return _mean_terms_of_sums(metric, rows, a, b, shift)
    value = rows.value(metric.column)
    summary = rows.columns[metric.column]
    shifted = f"{value} - {number(shift)}" if shift else value
    present = f"CAST({value} IS NOT NULL AS DOUBLE)"
    complete = not (summary.missing or summary.infinite)
    of_row = shifted if complete else _or0(shifted)
    if metric.per == "row":
        sums = UnitTerm(a, of_row, _or0(f"sum({shifted})"))
        counts = UnitTerm(b, present, f"CAST(count({value}) AS DOUBLE)")
        one_value_a_unit = complete and rows.one_row_a_unit
    else:
        aggregate = "max" if isinstance(metric, Proportion) else "avg"
        sums = UnitTerm(a, of_row, _or0(f"{aggregate}({shifted})"))
        counts = UnitTerm(b, present, f"CAST(count({value}) > 0 AS DOUBLE)")
        one_value_a_unit = complete
    return [sums] if one_value_a_unit else [sums, counts]


def _mean_terms_of_sums(
    metric: Mean | Proportion | Quantile, rows: UnitRows, a: str, b: str, shift: float
) -> list[UnitTerm]:
    """The same over rows that are sums of several values each."""
    value, weight = rows.value(metric.column), rows.weight(metric.column)
    if metric.per == "row":
        shifted = f"{value} - {number(shift)} * {weight}" if shift else value
        sums = UnitTerm(a, _or0(shifted), _or0(f"sum({shifted})"))
        return [sums, UnitTerm(b, weight, _or0(f"sum({weight})"))]
    of_row, of_unit = f"{value} / {weight}", f"sum({value}) / sum({weight})"
    if isinstance(metric, Proportion):
        # The largest of zeros and ones.
        of_row, of_unit = (f"CAST({x} > 0 AS DOUBLE)" for x in (value, f"sum({value})"))
    less = f" - {number(shift)}" if shift else ""
    sums = UnitTerm(a, _or0(f"{of_row}{less}"), _or0(f"{of_unit}{less}"))
    counts = UnitTerm(b, f"CAST({weight} > 0 AS DOUBLE)", f"CAST(sum({weight}) > 0 AS DOUBLE)")
    return [sums] if not rows.columns[metric.column].missing else [sums, counts]


def _or0(sql: str) -> str:
    return f"coalesce({sql}, 0)"


def gather(
    rows: UnitRows,
    metrics: Mapping[str, Metric],
    covariates: Covariates | None = None,
    *,
    segments: Sequence[str] = (),
    products: bool = False,
) -> MomentsByArm:
    """Moments of all metrics but quantiles, per variant and values of `segments`, in one pass.

    `products` adds the columns that HC2 needs. Units seen in more than one variant are counted and
    left out.
    """
    columns = {name: covariates_of(covariates, name) for name in metrics}
    centres = _means(rows, [column for own in columns.values() for column in own])
    keys = ["variant", *(f"s{i}" for i in range(len(segments)))]

    def query_of(rows: UnitRows) -> UnitQuery:
        terms: dict[str, MetricTerms] = {}
        counts: dict[str, ExtraCounts] = {}
        for i, (name, metric) in enumerate(metrics.items()):
            centred = [(column, centres[column]) for column in columns[name]]
            terms[name] = terms_of(f"m{i}", metric, rows, centred, products=products)
            covered = [_present_term(rows, f"c{i}_{j}", c) for j, c in enumerate(columns[name])]
            measured = None
            if isinstance(metric, Sum | Ratio):
                measured = _present_term(rows, f"v{i}", columns_of(metric)[0])
            infinite = _infinite_term(rows, f"i{i}", metric)
            counts[name] = ExtraCounts(infinite, measured, tuple(covered))
        return UnitQuery(_moments_query(rows, terms, counts, segments, keys), terms)

    query, answer = rows.ask_by_unit(query_of)
    # Sums are added up in one order, so that the same rows give the same bits, always.
    answer.sort(key=lambda row: [str(value) for value in row[: 1 + len(keys)]])
    return _collect(answer, query.terms, len(keys))


def joint_moments(rows: UnitRows, terms: Sequence[MetricTerms], variant: object) -> Moments | None:
    """The moments of several metrics' columns together, over a variant's units: how they go
    together. None without units.
    """
    unit_terms = list(dict.fromkeys(term for one in terms for term in one.terms))
    names = [term.name for term in unit_terms]
    picked = [f"sum({name})" for name in names]
    for i, left in enumerate(names):
        picked += [f"sum({left} * {right})" for right in names[i:]]
    source = rows.by_unit(unit_terms)
    answer = rows.ask(
        f"SELECT variant, count(*), {', '.join(picked)} FROM ({source}) WHERE NOT mixed "  # noqa: S608  (our own query)
        "GROUP BY variant"
    )
    by_variant = {row[0]: row[1:] for row in answer}
    row = by_variant.get(resolve(variant, by_variant))
    if row is None:
        return None
    n, k = int(row[0]), len(names)
    upper = np.zeros((k, k))
    upper[np.triu_indices(k)] = row[1 + k :]
    products = upper + np.triu(upper, 1).T
    return Moments.from_sums(tuple(names), n, np.array(row[1 : 1 + k], dtype=np.float64), products)


def _moments_query(
    rows: UnitRows,
    terms: Mapping[str, MetricTerms],
    counts: Mapping[str, ExtraCounts],
    segments: Sequence[str],
    keys: Sequence[str],
) -> str:
    """SQL with a row per arm: mixed, the keys, the count of units, and for each metric its sums,
    products, units with a value, infinite values, units that have a value of their own and units
    with each covariate. `_collect` reads them in that order.
    """
    unit_terms: list[UnitTerm] = []
    derived: list[str] = []
    picked = ["count(*)"]
    for name, metric_terms in terms.items():
        unit_terms += metric_terms.terms
        derived += [f"{sql} AS {identifier(product)}" for product, sql in metric_terms.derived]
        picked += _sums_and_products(metric_terms)
        picked.append(_units_with_value(metric_terms))
        infinite, measured, covered = counts[name]
        picked.append("0" if infinite is None else f"sum({infinite.name})")
        # Where every unit has the column, all units are counted.
        present = (measured, *covered)
        picked += ["count(*)" if term is None else f"sum({term.name})" for term in present]
        unit_terms += [term for term in (infinite, *present) if term is not None]
    source = rows.by_unit(unit_terms, segments)
    if derived:
        source = f"SELECT *, {', '.join(derived)} FROM ({source})"  # noqa: S608  (identifiers are quoted)
    by = list(keys) if rows.one_row_a_unit else ["mixed", *keys]
    mixed = "FALSE" if rows.one_row_a_unit else "mixed"
    columns = ", ".join([mixed, *keys, *picked])
    return f"SELECT {columns} FROM ({source}) GROUP BY {', '.join(by)}"  # noqa: S608  (identifiers are quoted)


def _units_with_value(terms: MetricTerms) -> str:
    if isinstance(terms.metric, Mean | Proportion | Sum) and terms.divisor is not None:
        return f"count(*) FILTER (WHERE {terms.divisor} <> 0)"
    return "count(*)"


class ExtraCounts(NamedTuple):
    """What is counted beside a metric's moments; None where nothing has to be counted."""

    infinite: UnitTerm | None
    measured: UnitTerm | None
    covered: tuple[UnitTerm | None, ...]


def _present_term(rows: UnitRows, name: str, column: str) -> UnitTerm | None:
    """Whether a unit has a value of a column; None where all have."""
    summary = rows.columns[column]
    if not (summary.missing or summary.infinite):
        return None
    value = rows.value(column)
    return UnitTerm(
        name, f"CAST({value} IS NOT NULL AS INTEGER)", f"CAST(count({value}) > 0 AS INTEGER)"
    )


def _infinite_term(rows: UnitRows, name: str, metric: Metric) -> UnitTerm | None:
    """How many values of a metric are infinite, None where its columns have none."""
    tests = [
        f"isinf({_as_double(column)})"
        for column in columns_of(metric)
        if rows.columns[column].infinite
    ]
    if not tests:
        return None
    # Counted apart, as they are NULL in the metric itself: an arm with one has no mean.
    return _total(name, f"CAST(({' OR '.join(tests)}) AS INTEGER)")


def _sums_and_products(terms: MetricTerms) -> list[str]:
    """The sums of the columns, and the upper triangle of their products, row by row."""
    names = [identifier(name) for name in terms.names]
    picked = [f"sum({name})" for name in names]
    for i, left in enumerate(names):
        picked += [f"sum({left} * {right})" for right in names[i:]]
    return picked


def _collect(
    answer: list[tuple[Any, ...]], terms: dict[str, MetricTerms], keys: int
) -> MomentsByArm:
    arms: dict[str, dict[Key, ArmMoments]] = {name: {} for name in terms}
    units: dict[Key, int] = {}
    mixed = 0
    for row in answer:
        is_mixed, key, n = row[0], tuple(row[1 : 1 + keys]), int(row[1 + keys])
        if is_mixed:
            mixed += n
            continue
        units[key] = n
        start = 2 + keys
        for name, metric_terms in terms.items():
            k = len(metric_terms.names)
            end = start + k + k * (k + 1) // 2
            sums = np.array(row[start : start + k], dtype=np.float64)
            upper = np.zeros((k, k))
            upper[np.triu_indices(k)] = row[start + k : end]
            products = upper + np.triu(upper, 1).T
            moments = Moments.from_sums(metric_terms.names, n, sums, products)
            with_value = 0 if metric_terms.empty else int(row[end])
            start = end + 3 + len(metric_terms.covariate or ())
            infinite, measured, *covered = (int(n) for n in row[end + 1 : start])
            arms[name][key] = ArmMoments(moments, with_value, infinite, tuple(covered), measured)
    return MomentsByArm(terms, arms, units, mixed)


def _means(rows: UnitRows, columns: Iterable[str]) -> dict[str, float]:
    """The mean of each covariate over the units that have it; 0 where none has.

    Over units, never over rows: it stands in for the covariate of units without one, and those who
    come often, of whom there are more rows, are not like the rest.
    """
    names = list(dict.fromkeys(columns))
    if not names:
        return {}
    terms = []
    for i, name in enumerate(names):
        value = rows.value(name)
        terms.append(UnitTerm(f"x{i}", value, f"avg({value})"))
    picked = ", ".join(f"avg({term.name})" for term in terms)

    def query_of(rows: UnitRows) -> UnitQuery:
        sql = f"SELECT {picked} FROM ({rows.by_unit(terms)}) WHERE NOT mixed"  # noqa: S608  (our own query)
        return UnitQuery(sql, {})

    _, (means,) = rows.ask_by_unit(query_of)
    return {name: float(value or 0.0) for name, value in zip(names, means, strict=True)}


# --- Rates: counts of independent units

FEW = 5.0
"""The normal distribution is trusted where as many successes and failures are expected (Cochran
1954)."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Successes out of n independent units."""

    successes: int
    n: int

    @property
    def value(self) -> float:
        """The share of successes."""
        return self.successes / self.n

    @property
    def is_constant(self) -> bool:
        """Whether all units are alike, which leaves Wald's variance at 0."""
        return self.successes in (0, self.n)

    @property
    def is_few(self) -> bool:
        """Whether it has fewer successes, or failures, than the normal distribution asks for."""
        return min(self.successes, self.n - self.successes) < FEW


def are_few(one: Rate, other: Rate) -> bool:
    """Whether a count of the 2 × 2 table is expected to be below `FEW` were the rates equal."""
    share = (one.successes + other.successes) / (one.n + other.n)
    return min(share, 1.0 - share) * min(one.n, other.n) < FEW


# --- Labels: which of a column's values one means, whatever type it was written in

Test = Callable[[object, object], bool]


def resolve(label: object, values: Iterable[object]) -> object:
    """The one of a column's `values` that is meant by `label`; the label itself if none is.

    The strictest sense in which some value is meant counts, so that values that differ in any way
    stay apart.
    """
    present = list(values)
    for test in _TESTS:
        for value in present:
            if value is not None and test(value, label):
                return value
    return label


def _same_value(value: object, label: object) -> bool:
    # Arrays and the like compare with more than a truth value; they are nobody's label.
    return (value == label) is True or bool(_number(value) == _number(label) is not None)


def _same_text(value: object, label: object) -> bool:
    return _text(value) == _text(label)


def _same_moment(value: object, label: object) -> bool:
    """2024-01-01 00:00 and "2024-01-01"."""
    if not isinstance(value, date) or not isinstance(label, str):
        return False
    try:
        return value == type(value).fromisoformat(label)
    except (TypeError, ValueError):
        return False


def _same_word(value: object, label: object) -> bool:
    """True and "true", "FALSE" and "false": as one tool writes them and another."""
    word = str(value).casefold()
    return word in ("true", "false") and word == str(label).casefold()


def _same_number_written(value: object, label: object) -> bool:
    """1.0 and "1"."""
    one, other = _number(value, written=True), _number(label, written=True)
    return one is not None and one == other


_TESTS: tuple[Test, ...] = (
    _same_value,
    _same_text,
    _same_moment,
    _same_word,
    _same_number_written,
)
"""From strict to lenient."""
_WORDS = {"true": 1, "false": 0}


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _number(value: object, *, written: bool = False) -> float | int | None:
    """The value as a number, also where it is one's text or true or false are if `written`; None
    if it is none."""
    if isinstance(value, str) and not written:
        return None
    if isinstance(value, str) and value.casefold() in _WORDS:
        return _WORDS[value.casefold()]
    if isinstance(value, Integral):
        return int(value)  # no float, in which large ones are alike
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if isfinite(number) else None
