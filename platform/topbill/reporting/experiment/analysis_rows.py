"""The decisions of one experiment as one table that everything in a report is computed from."""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted` and `identifier`)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from topbill.lake import Connection, identifier, quoted
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

    A column for each of `metrics` (rows of the face's table) and for the objective, NULL while a
    window is not over: what may still come is unknown, not zero. A column for each of `segments`,
    features of the context. Units are hashed to 64 bits, which takes a quarter of the memory; two
    of a million collide once in 40 million.
    """
    past = covariates.covariates(connection, key, metrics, UNIT)
    windows = {m["metric"]: round(m["window_seconds"] * 1e6) for m in metrics}
    whole = max((windows[m["metric"]] for m in metrics if m["weight"]), default=0)
    columns = [
        f"hash(d.unit) AS {identifier(UNIT)}",
        f"d.variant AS {identifier(VARIANT)}",
        f'd."at"::DATE AS {identifier(DAY)}',
        _known("e.objective_", whole, at, OBJECTIVE, _unrewarded(metrics)),
        *(
            _known(
                f"e.{identifier(m['metric'])}",
                windows[m["metric"]],
                at,
                m["metric"],
                m["unrewarded"],
            )
            for m in metrics
        ),
        *(f"b.{identifier(column)}" for column in past.values()),
        *(f"d.context->>{quoted(covariates.json_path(s))} AS {identifier(s)}" for s in segments),
    ]
    joined = (
        f"LEFT JOIN {covariates.BEFORE} b ON b.{identifier(UNIT)} = hash(d.unit) " if past else ""
    )
    # CREATE answers with a count, and DuckDB wants every answer fetched before the next statement.
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {ROWS} AS SELECT {', '.join(columns)} "
        f"FROM decisions d LEFT JOIN earned.{identifier(key)} e ON d.decision_id = e.decision_id_ {joined}"
        f"WHERE d.experiment = {quoted(key)} AND d.variant IS NOT NULL"
    ).fetchall()
    return past


def _unrewarded(metrics: Sequence[Row]) -> float:
    """The objective of a decision without an event, as `Experiment.objective_value` has it."""
    weighted = [m for m in metrics if m["weight"]]
    earned = sum(m["weight"] * min(1.0, max(0.0, m["unrewarded"] / m["cap"])) for m in weighted)
    wanted = sum(m["weight"] for m in weighted if m["weight"] > 0.0)
    return min(1.0, max(0.0, earned / wanted)) if wanted else 0.0


def _known(column: str, window: int, at: int, shown: str, without: float) -> str:
    """A column where the window is over: what was earned, or what there is `without` an event."""
    known = f"coalesce({column}, {without!r}::DOUBLE)"
    return f'CASE WHEN epoch_us(d."at") + {window} < {at} THEN {known} END AS {identifier(shown)}'
