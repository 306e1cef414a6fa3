"""`estimate_table`: off-policy estimates of files and tables of any size, in one pass of DuckDB.

Only scalars per row are formed (w, r, q̂, dm and what the formulas make of them); their sums and
products, by unit where units are given, are all that comes back. Memory is bounded by a setting:
past it, DuckDB spills to disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from topbill import lake
from topbill.domain.chance import ROUNDING
from topbill.domain.errors import BadData, BadRequest
from topbill.domain.records import Floats
from topbill.domain.sql import quoted
from topbill.lake.delta import delta_relation, is_table
from topbill.ope.diagnostics import Gates
from topbill.ope.estimators import DEFAULT, chosen
from topbill.ope.estimators.formula import ONE, Column, Formula, Symbols
from topbill.ope.inputs import rows_text, values_text
from topbill.ope.intervals import (
    Interval,
    Lam,
    Summary,
    assess,
    check_options,
    columns_of,
    in_order,
    plan,
)
from topbill.ope.result import Estimates
from topbill.stats.intervals import BUCKETS
from topbill.stats.moments import Moments

# isfinite everywhere: Parquet's minima and maxima pass over NaN, and DuckDB trusts them when it
# simplifies comparisons.
_RULES = {
    "reward": ("isfinite({0})", "a finite number"),
    "propensity": (
        f"isfinite({{0}}) AND {{0}} > 0 AND {{0}} <= {1 + ROUNDING!r}",
        "a probability in (0, 1], as the action was drawn with",
    ),
    "target": (
        f"isfinite({{0}}) AND {{0}} >= 0 AND {{0}} <= {1 + ROUNDING!r}",
        "a probability in [0, 1]",
    ),
    "q_logged": ("isfinite({0})", "a finite number"),
    "q_target": ("isfinite({0})", "a finite number"),
    "weights": ("isfinite({0}) AND {0} > 0", "a positive number"),
}

_BROKEN = "a row breaks a rule"
_ROWS = "rows_in_memory"
"""What rows in memory are called in SQL."""


class _Pass(NamedTuple):
    """One pass over the table: its relation, the scalars by name, the summed columns, and the pairs
    multiplied.
    """

    relation: str
    scalars: Mapping[str, str]
    columns: tuple[Column, ...]
    pairs: tuple[tuple[int, int], ...]
    unit: str | None
    rows: Any = None
    """An Arrow table that the relation's name stands for; None where it is a file or SQL."""


def estimate_table(
    source: str | Path | Any,
    *,
    reward: str = "reward",
    propensity: str = "propensity",
    target: str = "target_propensity",
    q_logged: str | None = None,
    q_target: str | None = None,
    unit: str | None = None,
    weights: str | None = None,
    estimators: Sequence[str] = DEFAULT,
    lam: Lam | Mapping[str, Lam] = None,
    alpha: float = 0.05,
    interval: Interval = "normal",
    replicates: int = 1000,
    gates: Gates | None = None,
    database: Path | None = None,
    memory_limit: str = "4GB",
    threads: int | None = None,
) -> Estimates:
    """`estimate` over a table of any size, in one pass of DuckDB.

    Numbers are those of `estimate` on the same rows.

    Args:
        source: a Parquet file or glob, a Delta table's folder (a Path), any SQL relation (a table's
            name, or a query in parentheses), or rows in memory: whatever `ab.compare` takes.
        reward, propensity, target, q_logged, q_target, unit: columns of it, or SQL expressions of
            them.
        weights: likewise, how many decisions each row stands for; see `estimate`.
        estimators, lam, alpha, replicates, gates: as in `estimate`.
        interval: "normal", "bootstrap" or "sequence".
        database: a DuckDB file (read-only) for the relation to live in, `topbill.duckdb` say.
        memory_limit: bounds the process: past it DuckDB spills to disk.
        threads: of DuckDB; None for one a core.

    Raises:
        BadData: naming rows (counted from 0 as they are stored), or when the source cannot be read.
        BadRequest: for an unknown name or option.
    """
    check_options(alpha, interval)
    if interval == "betting":
        raise BadRequest(
            "interval", "got 'betting'; expected another here; betting needs each row: use estimate"
        )
    if (q_logged is None) != (q_target is None):
        raise BadData(
            "q_target" if q_target is None else "q_logged",
            "got nothing; expected it with its other half",
        )
    scalars = {"reward": reward, "propensity": propensity, "target": target}
    available = {"w", "r"}
    if q_logged is not None and q_target is not None:
        scalars |= {"q_logged": q_logged, "q_target": q_target}
        available |= {"q", "dm"}
    if weights is not None:
        scalars["weights"] = weights
    x, selected = Symbols(), chosen(estimators)
    planned, missing = plan(selected, lam, available, x)
    columns = columns_of(planned, x)
    formulas: list[Formula] = []
    for each in planned:
        formulas += each.all_formulas
    pairs = _pairs(formulas, columns)
    task = _Pass(_relation(source), scalars, columns, pairs, unit, _rows_in_memory(source))
    summary = _run(task, database, memory_limit, threads, bootstrap=interval == "bootstrap")
    diagnostics = summary.diagnose(x, {})
    results = assess(
        planned,
        summary,
        diagnostics,
        alpha=alpha,
        interval=interval,
        gates=gates or Gates(),
        replicates=replicates,
    )
    return in_order(selected, results, missing, diagnostics, alpha)


def _rows_in_memory(source: str | Path | Any) -> Any:
    if isinstance(source, str | Path):
        return None
    # Here, as frames take more memory than an estimate over files, which does without.
    from topbill.lake.frames import relation_of

    return relation_of(source).to_arrow_table()


def _relation(source: str | Path | Any) -> str:
    if not isinstance(source, str | Path):
        return _ROWS
    if isinstance(source, Path) and is_table(source):
        return delta_relation(source)
    text = str(source)
    if isinstance(source, Path) or text.endswith(".parquet"):
        return f"read_parquet({quoted(text)})"
    return text


def _pairs(formulas: Sequence[Formula], columns: Sequence[Column]) -> tuple[tuple[int, int], ...]:
    """The products that any standard error needs: within each formula, and of the weights with the
    count. All pairs of all columns would be several times as many.
    """
    index = {column: i for i, column in enumerate(columns)}
    pairs: set[tuple[int, int]] = set()
    for group in [(ONE, columns[1]), *(formula.columns for formula in formulas)]:
        members = [index[column] for column in group]
        for i, j in combinations_with_replacement(sorted(members), 2):
            pairs.add((i, j))
    return tuple(sorted(pairs))


def _run(
    task: _Pass, database: Path | None, memory_limit: str, threads: int | None, *, bootstrap: bool
) -> Summary:
    with TemporaryDirectory(prefix="topbill-") as spill:
        connection = lake.connect(database, memory_limit=_share(memory_limit), threads=threads)
        try:
            connection.execute("SET temp_directory = ?", [spill])
            # Rows may come in any order: sums do not mind, and memory stays small.
            connection.execute("SET preserve_insertion_order = false")
            if task.rows is not None:
                connection.register(_ROWS, task.rows)
            query = _sql(task, bootstrap=bootstrap)
            result: dict[str, Any] = connection.execute(query).fetchnumpy()
        except lake.Error as error:
            if _BROKEN in str(error):
                _name_bad_rows(connection, task)
            raise BadData(task.relation, f"cannot be read: {error}") from error
        finally:
            connection.close()
    sums = {name: np.ma.filled(np.ma.asarray(column), 0) for name, column in result.items()}
    if not sums["units"].sum():
        raise BadData(
            "reward",
            "got no rows; expected at least one decision with its reward; is the filter too "
            "narrow?",
        )
    if sums["orphans"].any():
        raise BadData(
            str(task.unit),
            "got rows without a unit; expected one per decision; use the decision's id",
        )
    return _summary(task, sums, bootstrap=bootstrap)


def _share(memory_limit: str) -> str:
    """Three quarters of the limit: what DuckDB may hold so that the process as a whole stays within
    it.
    """
    size = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B)\s*", memory_limit, flags=re.IGNORECASE)
    if size is None:
        raise BadRequest(
            "memory_limit", f"got {memory_limit!r}; expected a size such as '4GB' or '500MB'"
        )
    return f"{0.75 * float(size[1]):.3f}{size[2]}"


def _sql(task: _Pass, *, bootstrap: bool) -> str:
    """One query, one scan: rows → scalars → columns (→ units) (→ buckets) → sums and products.

    A row that breaks a rule ends it with an error; only then are such rows looked for.
    """
    level = _columns_sql(task, _scalars_sql(task, bootstrap=bootstrap))
    sums = [f"c{i}" for i in range(len(task.columns))]
    picked = [f"sum({name}) AS {name}" for name in [*sums, "hits", "square", "row_count"]]
    picked.append("max(largest) AS largest")
    if task.unit:
        level = f"SELECT unit, {', '.join(picked)} FROM ({level}) GROUP BY unit"  # noqa: S608  (our own names)
    picked += [f"sum(c{i} * c{j}) AS p{i}_{j}" for i, j in task.pairs]
    # count(unit) leaves out NULL: the difference counts rows that belong to nobody.
    picked += ["count(*) AS units", "count(*) - count(unit) AS orphans"]
    if not bootstrap:
        return f"SELECT {', '.join(picked)} FROM ({level})"  # noqa: S608  (our own names)
    bucket = f"hash(unit) & {BUCKETS - 1}"
    return f"SELECT {bucket} AS bucket, {', '.join(picked)} FROM ({level}) GROUP BY bucket"  # noqa: S608  (our own names)


def _scalars_sql(task: _Pass, *, bootstrap: bool) -> str:
    """SQL of w, r, q, dm, one and the unit of each row, which ends with an error at one that breaks
    a rule.
    """
    casts = ", ".join(
        f"CAST({expression} AS DOUBLE) AS {name}" for name, expression in task.scalars.items()
    )
    # Buckets are drawn by the unit's hash, so without units each row needs a number of its own.
    unit = "row_number() OVER ()" if bootstrap else "0"
    if task.unit:
        unit = f"({task.unit})"
    sound = " AND ".join(f"({_RULES[name][0].format(name)})" for name in task.scalars)
    # What rounding took past 1 is 1, as in arrays.
    quotient = "least(target, 1.0::DOUBLE) / least(propensity, 1.0::DOUBLE)"
    weight = f"CASE WHEN {sound} THEN {quotient} ELSE error('{_BROKEN}') END"
    picked = [f"{weight} AS w", "reward AS r", "1.0::DOUBLE AS one", "unit"]
    if "q_logged" in task.scalars:
        picked += ["q_logged AS q", "q_target AS dm"]
    if "weights" in task.scalars:
        picked.append("weights AS weight")
    source = f"SELECT {casts}, {unit} AS unit FROM {task.relation}"  # noqa: S608  (SQL that the caller gives)
    return f"SELECT {', '.join(picked)} FROM ({source})"  # noqa: S608  (our own names)


def _columns_sql(task: _Pass, rows: str) -> str:
    """SQL of the formulas' columns of each row, by numbers: c0, c1, …"""
    # Where rows have weights, each counts so often in every sum, that of ONE included.
    times = "weight * " if "weights" in task.scalars else ""
    picked = [f"{times}({column.sql}) AS c{i}" for i, column in enumerate(task.columns)]
    picked += [
        "CAST(r <> 0 AND w > 0 AS DOUBLE) AS hits",
        f"{times}w AS largest",
        f"{times}{times}w * w AS square" if times else "0.0 AS square",
        "1 AS row_count",
        "unit",
    ]
    return f"SELECT {', '.join(picked)} FROM ({rows})"  # noqa: S608  (our own names)


def _summary(task: _Pass, sums: Mapping[str, Floats], *, bootstrap: bool) -> Summary:
    k = len(task.columns)
    by_bucket = np.stack([sums[f"c{i}"] for i in range(k)], axis=1)
    products = np.zeros((k, k))
    for i, j in task.pairs:
        products[i, j] = products[j, i] = sums[f"p{i}_{j}"].sum()
    names = tuple(column.sql for column in task.columns)
    moments = Moments.from_sums(names, int(sums["units"].sum()), by_bucket.sum(axis=0), products)
    buckets = None
    if bootstrap:
        buckets = np.zeros((BUCKETS, k))
        buckets[sums["bucket"].astype(np.intp)] = by_bucket
    rows, hits = int(sums["row_count"].sum()), int(sums["hits"].sum())
    largest, squares = float(sums["largest"].max()), None
    if "weights" in task.scalars:
        # As in arrays, where weights are scaled to mean 1; c0 is ONE, whose sum is the weights'.
        scale = rows / float(sums["c0"].sum())
        largest *= scale
        squares = float(sums["square"].sum()) * scale * scale
        moments = moments.scaled(scale)
    return Summary(moments, rows, largest, hits, buckets, squares)


def _name_bad_rows(connection: Any, task: _Pass) -> None:
    """Raises BadData for the first column that breaks its rule: how often it does, and where
    first.
    """
    # So that rows are counted as they are stored.
    connection.execute("SET preserve_insertion_order = true")
    for name, expression in task.scalars.items():
        rule, expected = _RULES[name]
        numbered = (
            f"SELECT row_number() OVER () - 1 AS row, CAST({expression} AS DOUBLE) AS v "  # noqa: S608  (SQL that the caller gives)
            f"FROM {task.relation}"
        )
        bad = connection.execute(
            "SELECT row, v, count(v) OVER (), count(*) OVER (), "  # noqa: S608  (SQL that the caller gives)
            f"(SELECT count(*) FROM {task.relation}) FROM ({numbered}) "
            f"WHERE NOT coalesce({rule.format('v')}, false) ORDER BY row LIMIT 5"
        ).fetchall()
        if not bad:
            continue
        _, _, present, count, rows = bad[0]
        if name == "reward" and not present and count == rows:
            raise BadData(
                "reward",
                f"rows 0 to {rows - 1}: got no reward at all; expected a number each; join rewards",
            )
        values = values_text(np.array([np.nan if v is None else v for _, v, *_ in bad]))
        where = rows_text(np.array([row for row, *_ in bad]))
        if count > 5:
            where += f" and {count - 5} more"
        raise BadData(name, f"{where}: got {values}; expected {expected}; correct or drop them")
