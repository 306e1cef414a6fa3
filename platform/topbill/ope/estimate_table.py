"""`estimate_table`: off-policy estimates of files and tables of any size, in one pass of DuckDB.

Only scalars per row are formed (w, r, q̂, dm and what the formulas make of them); their sums and
products, by unit where units are given, are all that comes back. Memory is bounded by a setting:
past it, DuckDB spills to disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from topbill import lake
from topbill.domain.errors import BadData, BadRequest
from topbill.domain.records import Floats
from topbill.lake import delta
from topbill.ope.diagnostics import Gates
from topbill.ope.estimate import check_options
from topbill.ope.estimators import DEFAULT, chosen
from topbill.ope.estimators.formula import ONE, Column, Symbols
from topbill.ope.inputs import rows_text
from topbill.ope.intervals import Interval, Lam, Summary, assess, columns_of, plan
from topbill.ope.result import Estimate, refused
from topbill.stats.intervals import BUCKETS
from topbill.stats.moments import Moments

# isfinite everywhere: Parquet's minima and maxima pass over NaN, and DuckDB trusts them when it
# simplifies comparisons.
_RULES = {
    "reward": ("isfinite({0})", "a finite number"),
    "propensity": (
        "isfinite({0}) AND {0} > 0 AND {0} <= 1",
        "a probability in (0, 1], as the action was drawn with",
    ),
    "target": ("isfinite({0}) AND {0} >= 0 AND {0} <= 1.000000001", "a probability in [0, 1]"),
    "q_logged": ("isfinite({0})", "a finite number"),
    "q_target": ("isfinite({0})", "a finite number"),
}


_BROKEN = "a row breaks a rule"


class _Pass(NamedTuple):
    """One pass over the table: its relation, the scalars by name, the summed columns, and the pairs
    multiplied.
    """

    relation: str
    scalars: Mapping[str, str]
    columns: tuple[Column, ...]
    pairs: tuple[tuple[int, int], ...]
    unit: str | None


def estimate_table(
    source: str | Path,
    *,
    reward: str = "reward",
    propensity: str = "propensity",
    target: str = "target_propensity",
    q_logged: str | None = None,
    q_target: str | None = None,
    unit: str | None = None,
    estimators: Sequence[str] = DEFAULT,
    lam: Lam | Mapping[str, Lam] = None,
    alpha: float = 0.05,
    interval: Interval = "normal",
    replicates: int = 1000,
    gates: Gates | None = None,
    database: Path | None = None,
    memory_limit: str = "4GB",
    threads: int | None = None,
) -> dict[str, Estimate]:
    """`estimate` over a Parquet file or glob, a Delta table's folder (a Path), or any SQL relation
    (a table's name, or a query in parentheses).

    `reward` … `unit` are columns of it, or SQL expressions of them. `database` opens a DuckDB file
    (read-only) for the relation to live in, `topbill.duckdb` say. `memory_limit` bounds the
    process: past it DuckDB spills to disk. `interval` is "normal", "bootstrap" or "sequence".
    Numbers are those of `estimate` on the same rows. Raises BadData naming rows (counted from 0 as
    they are stored), or when the source cannot be read.
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
    if q_logged is not None and q_target is not None:
        scalars |= {"q_logged": q_logged, "q_target": q_target}
    x, selected = Symbols(), chosen(estimators)
    available = {"w", "r"} | ({"q", "dm"} if q_logged is not None else set())
    planned, missing = plan(selected, lam, available, x)
    columns = columns_of(planned, x)
    relation = _relation(source)
    task = _Pass(
        relation,
        scalars,
        columns,
        _pairs([f.columns for p in planned for f in p.formulas.values()], columns),
        unit,
    )
    summary = _run(task, database, memory_limit, threads, bootstrap=interval == "bootstrap")
    diagnostics = summary.diagnose(x, {})
    results = assess(
        planned,
        summary,
        diagnostics,
        alpha=alpha,
        interval=interval,
        gates=gates or Gates(),
        betting=lambda _estimator, _formula: "no_finite_sample_interval",
        replicates=replicates,
    )
    results |= {name: refused(name, reason, diagnostics, alpha) for name, reason in missing.items()}
    return {estimator.name: results[estimator.name] for estimator in selected}


def _relation(source: str | Path) -> str:
    text = str(source)
    if isinstance(source, Path) and delta.is_table(source):
        return delta.relation(source)
    if isinstance(source, Path) or text.endswith(".parquet"):
        literal = text.replace("'", "''")
        return f"read_parquet('{literal}')"
    return text


def _pairs(
    groups: Sequence[Sequence[Column]], columns: Sequence[Column]
) -> tuple[tuple[int, int], ...]:
    """The products that any standard error needs: within each formula, and of the weights with the
    count.
    """
    at = {column: i for i, column in enumerate(columns)}
    w = columns[1]
    wanted = {
        (min(at[a], at[b]), max(at[a], at[b]))
        for group in [[ONE, w], *groups]
        for a in group
        for b in group
    }
    return tuple(sorted(wanted))


def _run(
    task: _Pass, database: Path | None, memory_limit: str, threads: int | None, *, bootstrap: bool
) -> Summary:
    with TemporaryDirectory(prefix="topbill-") as spill:
        connection = lake.connect(database, memory_limit=_share(memory_limit), threads=threads)
        try:
            connection.execute("SET temp_directory = ?", [spill])
            connection.execute("SET preserve_insertion_order = false")
            connection.execute("SET enable_progress_bar = false")
            result: dict[str, Any] = connection.execute(
                _sql(task, bootstrap=bootstrap)
            ).fetchnumpy()
        except lake.Error as error:
            if _BROKEN in str(error):
                _name_bad_rows(connection, task)
            raise BadData(task.relation, f"cannot be read: {error}") from error
        finally:
            connection.close()
    found = {name: np.ma.filled(np.ma.asarray(column), 0) for name, column in result.items()}
    if not found["units"].sum():
        raise BadData(
            "reward",
            "got no rows; expected at least one decision with its reward; is the filter too narrow?",
        )
    if found["orphans"].any():
        raise BadData(
            str(task.unit),
            "got rows without a unit; expected one per decision; use the decision's id",
        )
    return _summary(task, found, bootstrap=bootstrap)


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
    casts = ", ".join(
        f"CAST({expression} AS DOUBLE) AS {name}" for name, expression in task.scalars.items()
    )
    unit = f"({task.unit})" if task.unit else "row_number() OVER ()" if bootstrap else "0"
    model = "q_logged AS q, q_target AS dm," if "q_logged" in task.scalars else ""
    sound = " AND ".join(f"({_RULES[name][0].format(name)})" for name in task.scalars)
    rows = (
        f"SELECT CASE WHEN {sound} THEN target / propensity ELSE error('{_BROKEN}') END AS w, reward AS r, {model} "  # noqa: S608
        f"1.0::DOUBLE AS one, unit FROM (SELECT {casts}, {unit} AS unit FROM {task.relation})"
    )
    each = ", ".join(f"{column.sql} AS c{i}" for i, column in enumerate(task.columns))
    level = (
        f"SELECT {each}, CAST(r <> 0 AND w > 0 AS DOUBLE) AS hits, w AS largest, unit FROM ({rows})"  # noqa: S608
    )
    sums = (*(f"c{i}" for i in range(len(task.columns))), "hits")
    summed = ", ".join([*(f"sum({name}) AS {name}" for name in sums), "max(largest) AS largest"])
    if task.unit:
        level = f"SELECT unit, {summed} FROM ({level}) GROUP BY unit"  # noqa: S608
    products = ", ".join(f"sum(c{i} * c{j}) AS p{i}_{j}" for i, j in task.pairs)
    found = f"{summed}, {products}, count(*) AS units, count(*) - count(unit) AS orphans"
    if not bootstrap:
        return f"SELECT {found} FROM ({level})"  # noqa: S608
    bucket = f"hash(unit) & {BUCKETS - 1}"
    return f"SELECT {bucket} AS bucket, {found} FROM ({level}) GROUP BY bucket"  # noqa: S608


def _summary(task: _Pass, found: Mapping[str, Floats], *, bootstrap: bool) -> Summary:
    k = len(task.columns)
    by_bucket = np.stack([found[f"c{i}"] for i in range(k)], axis=1)
    products = np.zeros((k, k))
    for i, j in task.pairs:
        products[i, j] = products[j, i] = found[f"p{i}_{j}"].sum()
    names = tuple(column.sql for column in task.columns)
    moments = Moments.from_sums(names, int(found["units"].sum()), by_bucket.sum(axis=0), products)
    buckets = None
    if bootstrap:
        buckets = np.zeros((BUCKETS, k))
        buckets[found["bucket"].astype(np.intp)] = by_bucket
    return Summary(
        moments,
        int(found["c0"].sum()),
        float(found["largest"].max()),
        int(found["hits"].sum()),
        buckets,
    )


def _name_bad_rows(connection: Any, task: _Pass) -> None:
    """Raises BadData for the first column that breaks its rule: how often it does, and where
    first.
    """
    connection.execute(
        "SET preserve_insertion_order = true"
    )  # so that rows are counted as they are stored
    for name, expression in task.scalars.items():
        rule, expected = _RULES[name]
        numbered = f"SELECT row_number() OVER () - 1 AS row, CAST({expression} AS DOUBLE) AS v FROM {task.relation}"  # noqa: S608
        first = connection.execute(
            "SELECT row, v, count(v) OVER (), count(*) OVER (), "  # noqa: S608
            f"(SELECT count(*) FROM {task.relation}) FROM ({numbered}) "
            f"WHERE NOT coalesce({rule.format('v')}, false) ORDER BY row LIMIT 5"
        ).fetchall()
        if not first:
            continue
        _, _, present, count, rows = first[0]
        if name == "reward" and not present and count == rows:
            raise BadData(
                "reward",
                f"rows 0 to {rows - 1}: got no reward at all; expected a number each; join rewards",
            )
        shown = ", ".join("missing" if v is None or np.isnan(v) else f"{v:g}" for _, v, *_ in first)
        where = rows_text(np.array([row for row, *_ in first])) + (
            f" and {count - 5} more" if count > 5 else ""
        )
        raise BadData(name, f"{where}: got {shown}; expected {expected}; correct or drop them")
