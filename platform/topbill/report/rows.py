"""The decisions of one experiment as one table that everything in a report is computed from."""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted` and `identifier`)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from topbill.lake import Connection, identifier, quoted

Row = Mapping[str, Any]

ROWS = "report_rows"
UNIT, VARIANT, DAY, OBJECTIVE = "@unit", "@variant", "@day", "@objective"
"""Column names that no metric and no feature can have."""


def gather(connection: Connection, key: str, metrics: Sequence[Row], segments: Sequence[str], at: int) -> None:
    """Make temporary table `report_rows`: a row per decision of a variant, as of `at` µs.

    A column for each of `metrics` (rows of the face's table) and for the objective, NULL while a window is not over:
    what may still come is unknown, not zero. A column for each of `segments`, features of the context.
    Units are hashed to 64 bits, which takes a quarter of the memory; two of a million collide once in 40 million.
    """
    windows = {m["metric"]: round(m["window_seconds"] * 1e6) for m in metrics}
    whole = max((windows[m["metric"]] for m in metrics if m["weight"]), default=0)
    columns = [
        f"hash(d.unit) AS {identifier(UNIT)}",
        f"d.variant AS {identifier(VARIANT)}",
        f'd."at"::DATE AS {identifier(DAY)}',
        _known("e.objective_", whole, at, OBJECTIVE),
        *(_known(f"e.{identifier(m)}", window, at, m) for m, window in windows.items()),
        *(f"d.context->>{quoted(_path(s))} AS {identifier(s)}" for s in segments),
    ]
    # CREATE answers with a count, and DuckDB wants every answer fetched before the next statement.
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {ROWS} AS SELECT {', '.join(columns)} "
        f"FROM decisions d LEFT JOIN earned.{identifier(key)} e ON d.decision_id = e.decision_id_ "
        f"WHERE d.experiment = {quoted(key)} AND d.variant IS NOT NULL"
    ).fetchall()


def _known(column: str, window: int, at: int, shown: str) -> str:
    return f'CASE WHEN epoch_us(d."at") + {window} < {at} THEN coalesce({column}, 0.0) END AS {identifier(shown)}'


def _path(feature: str) -> str:
    """The JSON path of a context feature."""
    return '$."' + feature.replace("\\", "\\\\").replace('"', '\\"') + '"'
