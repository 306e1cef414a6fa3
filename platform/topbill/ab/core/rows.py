"""Rows handed to an analysis, as one relation that DuckDB reads: checked once, cleaned, and grouped
by unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from topbill import lake
from topbill.domain.errors import BadData, BadRequest

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
_SORTABLE = 50_000_000
"""Above this many rows the check for one row a unit would take more memory than grouping does."""
_SAMPLE = 200_000
"""So many rows nearly always show a unit twice, where units have several."""


def quoted(name: str) -> str:
    """A column name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def relation_of(data: Any) -> Any:
    """`data` (pandas DataFrame, Arrow table, DuckDB relation) as a DuckDB relation. Copies nothing.

    Raises BadRequest for anything else.
    """
    if hasattr(data, "sql_query") and hasattr(data, "query"):
        return data
    if isinstance(data, pd.DataFrame):
        return lake.connect().from_df(data)
    if isinstance(data, pa.Table):
        return lake.connect().from_arrow(data)
    raise BadRequest(
        "data",
        f"got {type(data).__name__}; expected a pandas DataFrame, an Arrow table or a DuckDB relation",
    )


@dataclass(frozen=True, slots=True)
class Column:
    """What one look at a numeric column says. `shift` is a value near the data, taken off before
    squaring.
    """

    missing: int
    infinite: int
    low: float
    high: float
    shift: float


@dataclass(frozen=True, slots=True)
class Rows:
    """A checked relation: which column is the unit and the variant, and what every numeric column
    holds.
    """

    relation: Any
    unit: str | None
    variant: str
    count: int
    one_row_a_unit: bool
    columns: dict[str, Column]

    def value(self, column: str) -> str:
        """SQL for the column as a double, NULL where it is missing, not a number or infinite."""
        seen, plain = self.columns[column], f"CAST({quoted(column)} AS DOUBLE)"
        if seen.missing == self.count:
            return "CAST(NULL AS DOUBLE)"
        return (
            f"CASE WHEN isfinite({plain}) THEN {plain} END"
            if seen.missing or seen.infinite
            else plain
        )

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of an SQL query over `unit_rows`."""
        answer: list[tuple[Any, ...]] = self.relation.query("unit_rows", sql).fetchall()
        return answer

    def by_unit(self, terms: Iterable[tuple[str, str, str]], segments: Sequence[str] = ()) -> str:
        """SQL of a query with a row per unit: `variant`, `mixed` (seen in several variants), the
        segments as s0, s1…, and each term `(name, SQL over one row, SQL aggregating a unit's
        rows)`."""
        variant = quoted(self.variant)
        if self.one_row_a_unit:
            keys = [f"{quoted(s)} AS s{i}" for i, s in enumerate(segments)]
            body = [f"{row} AS {name}" for name, row, _ in terms]
            picked = ", ".join([f"{variant} AS variant", "FALSE AS mixed", *keys, *body])
            return f"SELECT {picked} FROM unit_rows WHERE {variant} IS NOT NULL"  # noqa: S608
        keys = [f"min({quoted(s)}) AS s{i}" for i, s in enumerate(segments)]
        body = [f"{grouped} AS {name}" for name, _, grouped in terms]
        mixed = f"min({variant}) <> max({variant}) AS mixed"
        picked = ", ".join([f"min({variant}) AS variant", mixed, *keys, *body])
        unit = quoted(str(self.unit))
        return f"SELECT {picked} FROM unit_rows WHERE {variant} IS NOT NULL GROUP BY {unit}"  # noqa: S608


def read(
    data: Any,
    *,
    unit: str | None,
    variant: str,
    numeric: Iterable[str],
    binary: Iterable[str] = (),
    labels: Iterable[str] = (),
) -> Rows:
    """Check that the columns are there and of the right kind, and look at them once.

    `unit=None` makes each row its own unit. Raises BadRequest for columns that are missing or not
    numeric, BadData for rows without a unit and for other values than 0 and 1 in `binary` columns.
    """
    relation = relation_of(data)
    numeric, binary = list(dict.fromkeys(numeric)), set(binary)
    types = dict(zip(relation.columns, (str(t) for t in relation.types), strict=True))
    for name in [*([unit] if unit is not None else []), variant, *labels, *numeric]:
        if name not in types:
            raise BadRequest(f"data.{name}", f"no such column; the data has {', '.join(types)}")
    numbers = [
        name
        for name in numeric
        if types[name].startswith(_NUMERIC) and not types[name].startswith("UUID")
    ]
    count, lone, columns = _look(
        relation, unit, unit is not None and types[unit] in _INTEGERS, numbers, binary
    )
    for name in set(numeric) - set(numbers):
        # A column without any value has whatever type its container gives to nothing.
        if relation.query("unit_rows", f"SELECT count({quoted(name)}) FROM unit_rows").fetchall()[  # noqa: S608
            0
        ][0]:
            raise BadData(
                f"data.{name}", f"got a column of {types[name]}; expected numbers or booleans"
            )
        columns[name] = Column(count, 0, 0.0, 0.0, 0.0)
    return Rows(relation, unit, variant, count, lone, columns)


def _look(
    relation: Any, unit: str | None, whole: bool, numeric: list[str], binary: set[str]
) -> tuple[int, bool, dict[str, Column]]:
    # Counts, least and greatest values only: files answer these from their statistics, without
    # being read.
    picked = ["count(*)", f"count({quoted(unit)})" if unit is not None else "count(*)"]
    picked += (
        [f"min({quoted(str(unit))})", f"max({quoted(str(unit))})"] if whole else ["NULL", "NULL"]
    )
    for name in numeric:
        x = f"CAST({quoted(name)} AS DOUBLE)"
        picked += [f"count({x})", f"min({x})", f"max({x})"]
    question = f"SELECT {', '.join(picked)} FROM unit_rows"  # noqa: S608
    count, with_unit, least, most, *seen = relation.query("unit_rows", question).fetchall()[0]
    if with_unit < count:
        raise BadData(
            f"data.{unit}",
            f"{count - with_unit} of {count} rows have no unit; give each row one or drop it",
        )
    columns = {}
    for name, filled, low, high in zip(numeric, seen[::3], seen[1::3], seen[2::3], strict=True):
        if filled and not (isfinite(low) and isfinite(high)):  # NaN sorts above everything
            columns[name] = _look_closely(relation, name, count)
        else:
            columns[name] = Column(count - filled, 0, low or 0.0, high or 0.0, low or 0.0)
        if name in binary:
            _check_binary(relation, name, columns[name])
    return count, unit is None or _all_differ(relation, unit, count, least, most), columns


def _look_closely(relation: Any, name: str, count: int) -> Column:
    x = f"CAST({quoted(name)} AS DOUBLE)"
    finite = f"FILTER (WHERE isfinite({x}))"
    picked = f"count(*) {finite}, count(*) FILTER (WHERE isinf({x})), min({x}) {finite}, max({x}) {finite}"
    usable, infinite, low, high = relation.query(
        "unit_rows",
        f"SELECT {picked} FROM unit_rows",  # noqa: S608
    ).fetchall()[0]
    return Column(count - usable - infinite, infinite, low or 0.0, high or 0.0, low or 0.0)


def _check_binary(relation: Any, name: str, seen: Column) -> None:
    x = f"CAST({quoted(name)} AS DOUBLE)"
    odd, kind = 0, str(relation.types[relation.columns.index(name)])
    if {seen.low, seen.high} <= {0.0, 1.0} and kind.startswith(("DOUBLE", "FLOAT", "DECIMAL")):
        question = (
            f"SELECT count(*) FILTER (WHERE {x} NOT IN (0, 1) AND isfinite({x})) FROM unit_rows"  # noqa: S608
        )
        odd = relation.query("unit_rows", question).fetchall()[0][0]
    if odd or not {seen.low, seen.high} <= {0.0, 1.0}:
        raise BadData(
            f"data.{name}",
            f"got values from {seen.low:g} to {seen.high:g}; expected 0 and 1, or use Mean",
        )


def _all_differ(relation: Any, unit: str, count: int, least: int | None, most: int | None) -> bool:
    """Whether no unit occurs twice; `least` and `most` are those of whole numbers. To prove it is
    several times faster than to group by unit."""
    if least is not None and most is not None:
        if most - least + 1 < count:
            return False
        if most - least < 8 * count:  # a bit per possible unit is little
            bits = (
                f"SELECT bit_count(bitstring_agg({quoted(unit)}, {least}, {most})) FROM unit_rows"  # noqa: S608
            )
            return bool(relation.query("unit_rows", bits).fetchall()[0][0] == count)
    if count > _SORTABLE or not _hashes_differ(relation.limit(_SAMPLE), unit):
        return False
    return count <= _SAMPLE or _hashes_differ(relation, unit)


def _hashes_differ(relation: Any, unit: str) -> bool:
    """Hashes that all differ prove that the units do; two that agree send us to grouping, which is
    always right.
    """
    hashes = relation.query(
        "unit_rows",
        f"SELECT hash({quoted(unit)}) AS h FROM unit_rows",  # noqa: S608
    ).fetchnumpy()["h"]
    hashes = np.sort(np.asarray(hashes))
    return bool(np.all(hashes[1:] != hashes[:-1]))
