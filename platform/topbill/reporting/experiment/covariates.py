"""What units did before the experiment: a number a unit and metric that takes noise out of
comparisons (CUPED).
"""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted`, `identifier` and numbers)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from topbill.ab import OBJECTIVE
from topbill.domain.metric import METRIC_KINDS
from topbill.domain.objective import WeightedMetric, WeightedSum
from topbill.lake import Connection, identifier, quoted

Row = Mapping[str, Any]

BEFORE = "report_before"


def column(metric: str) -> str:
    """The covariate's column; no metric and no feature has such a name."""
    return f"@before {metric}"


def json_path(feature: str) -> str:
    """The JSON path of a context feature."""
    return '$."' + feature.replace("\\", "\\\\").replace('"', '\\"') + '"'


def covariates(
    connection: Connection, key: str, metrics: Sequence[Row], unit: str
) -> dict[str, str]:
    """Make temporary table `report_before`, a row per unit by its hash in column `unit`, and name
    each metric's column.

    A metric's covariate is the number in context that its `covariate` names, as it came with the
    unit's first decision; or, where it is a time, the metric's own events in that time before
    the unit's first decision, in any
    experiment: how many, or the sum of their values. The objective's is the sum of its metrics' by
    their weights. Nothing of it can be an effect of the experiment. `metrics` are rows of the
    face's table; without any there is no table, and {} is answered.
    """
    found = [
        m
        for m in metrics
        if m["covariate_seconds"] is not None or m["covariate_feature"] is not None
    ]
    if not found:
        return {}
    shown = [f"{_value(m)} AS {identifier(column(m['metric']))}" for m in found]
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {BEFORE} AS SELECT *, {_objective(found)} FROM ("
        f"SELECT hash(f.unit) AS {identifier(unit)}, {', '.join(shown)} FROM ("
        "SELECT unit, epoch_us(min(decided_at)) AS since, arg_min(context, seq) AS context FROM decisions "
        f"WHERE experiment = {quoted(key)} AND variant IS NOT NULL GROUP BY unit) f"
        f"{_past([m for m in found if m['covariate_seconds'] is not None])} GROUP BY f.unit)"
    ).fetchall()
    columns = {m["metric"]: column(m["metric"]) for m in found}
    if sum(bool(m["weight"]) for m in metrics) > 1 and any(m["weight"] for m in found):
        columns[OBJECTIVE] = column(OBJECTIVE)
    return columns


def _past(metrics: Sequence[Row]) -> str:
    """The events that some metric looks back for, joined to their unit."""
    if not metrics:
        return ""
    events = ", ".join(sorted({quoted(m["event"]) for m in metrics}))
    longest = round(max(m["covariate_seconds"] for m in metrics) * 1e6)
    return (
        " LEFT JOIN (SELECT unit, event, value, epoch_us(occurred_at) AS moment FROM rewards "
        f"WHERE unit IS NOT NULL AND event IN ({events})) r "
        f"ON r.unit = f.unit AND r.moment < f.since AND r.moment >= f.since - {longest}"
    )


def _value(metric: Row) -> str:
    if metric["covariate_seconds"] is None:
        return f"any_value(TRY_CAST(f.context->>{quoted(json_path(metric['covariate_feature']))} AS DOUBLE))"
    inside = f"r.event = {quoted(metric['event'])} AND r.moment >= f.since - {round(metric['covariate_seconds'] * 1e6)}"
    what = "sum(r.value)" if METRIC_KINDS[metric["kind"]].takes_value else "count(*)"
    return f"coalesce({what} FILTER ({inside}), 0.0)::DOUBLE"


def _objective(metrics: Sequence[Row]) -> str:
    weighted = [WeightedMetric(m["metric"], m["weight"], m["cap"]) for m in metrics if m["weight"]]
    total = WeightedSum.of(weighted).unclipped_sql(lambda name: identifier(column(name)))
    return f"{total} AS {identifier(column(OBJECTIVE))}"
