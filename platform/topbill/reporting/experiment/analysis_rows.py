"""The decisions of one experiment as one table that everything in a report is computed from."""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted` and `identifier`)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from topbill.domain.metric import Metric, metric_column
from topbill.domain.sql import identifier, number, quoted
from topbill.lake import Connection, metric_of, objective_of
from topbill.reporting.experiment import covariates

Row = Mapping[str, Any]

ROWS = "report_rows"
UNIT, VARIANT, DAY, OBJECTIVE = "@unit", "@variant", "@day", "@objective"
"""Column names that no metric and no feature can have."""


def gather(
    connection: Connection, key: str, metrics: Sequence[Row], segments: Sequence[str], at: int
) -> dict[str, str]:
    """Make temporary table `report_rows`: a row per decision of a variant, as of `at` µs. Answers
    which column of it is a metric's covariate, measured before the experiment (see
    `covariates.covariates`).

    A column for each of `metrics` (rows of table `metrics`) and for the objective, NULL while a
    window is not over: what may still come is unknown, not zero. A column for each of `segments`,
    features of the context. Units are hashed to 64 bits, which takes a quarter of the memory; two
    of a million collide once in 40 million.
    """
    past = covariates.covariates(connection, key, metrics, UNIT)
    goal = objective_of(metrics)
    columns = [
        f"hash(d.unit) AS {identifier(UNIT)}",
        f"d.variant AS {identifier(VARIANT)}",
        f"d.decided_at::DATE AS {identifier(DAY)}",
        _mature("e.objective", goal.default, goal.mature_sql("d.decided_at", at), OBJECTIVE),
        *(_metric_column(metric_of(row), at) for row in metrics),
        *(f"b.{identifier(column)}" for column in past.values()),
        *(f"d.context->>{quoted(covariates.json_path(s))} AS {identifier(s)}" for s in segments),
    ]
    joined = (
        f"LEFT JOIN {covariates.BEFORE} b ON b.{identifier(UNIT)} = hash(d.unit) " if past else ""
    )
    # CREATE answers with a count, and DuckDB wants every answer fetched before the next statement.
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {ROWS} AS SELECT {', '.join(columns)} "
        f"FROM decisions d LEFT JOIN metrics.{identifier(key)} e ON d.decision_id = e.decision_id {joined}"
        f"WHERE d.experiment = {quoted(key)} AND d.variant IS NOT NULL"
    ).fetchall()
    return past


def _metric_column(metric: Metric, at: int) -> str:
    mature = metric.mature_sql("d.decided_at", at)
    return _mature(f"e.{metric_column(metric.name)}", metric.default, mature, metric.name)


def _mature(column: str, default: float, mature: str, name: str) -> str:
    """A column where the window is over: what was earned, or the default without an event."""
    value = f"coalesce({column}, {number(default)})"
    return f"CASE WHEN {mature} THEN {value} END AS {identifier(name)}"
