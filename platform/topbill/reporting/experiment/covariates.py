"""What units did before the experiment: a number a unit and metric that takes noise out of
comparisons (CUPED, Deng et al. 2013).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from topbill.ab import OBJECTIVE
from topbill.domain.metric import METRIC_KINDS, microseconds
from topbill.domain.objective import WeightedMetric, WeightedSum
from topbill.domain.sql import identifier
from topbill.reporting.queries.database import AnalyticsDatabase

MetricRow = Mapping[str, Any]
"""A row of the database's table `metrics`."""
COVARIATES = "report_covariates"
UNIT = "@unit"


def column(metric: str) -> str:
    """The covariate's column; no metric and no feature has such a name."""
    return f"@before {metric}"


def json_path(feature: str) -> str:
    """The JSON path of a context feature."""
    return '$."' + feature.replace("\\", "\\\\").replace('"', '\\"') + '"'


def make_covariates(
    database: AnalyticsDatabase, key: str, metrics: Sequence[MetricRow]
) -> dict[str, str]:
    """Make temporary table `report_covariates`, a row per unit by its hash in column `@unit`.

    A metric's covariate is the number in context that its `covariate` names, as it came with the
    unit's first decision; or, where that is a time, the metric's own events in that time before
    the unit's first decision, in any experiment: how many, or the sum of their values. The
    objective's is the sum of its metrics' by their weights. Nothing of it can be an effect of the
    experiment.

    Args:
        database: the analytics database.
        key: the experiment's key.
        metrics: its rows of table `metrics`.

    Returns:
        The covariate's column by metric; empty, and there is no table, where no metric has one.
    """
    adjusted, values, columns = [], [], {}
    parameters: dict[str, object] = {"key": key}
    events: set[str] = set()
    of_units: set[str] = set()
    longest = 0
    for number, metric in enumerate(metrics):
        if not _looks_back(metric) and metric["covariate_feature"] is None:
            continue
        adjusted.append(metric)
        columns[metric["metric"]] = column(metric["metric"])
        value, own_parameters = _value(metric, number)
        values.append(f"{value} AS {identifier(column(metric['metric']))}")
        parameters.update(own_parameters)
        if _looks_back(metric):
            (of_units if _is_of_unit(metric) else events).add(metric["event"])
            longest = max(longest, _reach(metric))
    if not adjusted:
        return {}
    # The record's events are read only where some metric looks back for them.
    sources = []
    if events:
        sources.append(_REWARDS)
        parameters["events"] = sorted(events)
    if of_units:
        sources.append(_UNIT_EVENTS)
        parameters["of_units"] = sorted(of_units)
    if sources:
        parameters["longest"] = longest
    database.execute(
        f"""CREATE OR REPLACE TEMP TABLE {COVARIATES} AS
        SELECT *, {_objective(adjusted)} AS {identifier(column(OBJECTIVE))}
        FROM (
            SELECT hash(f.unit) AS {identifier(UNIT)}, {", ".join(values)}
            FROM (
                SELECT unit, epoch_us(min(decided_at)) AS since, arg_min(context, seq) AS context
                FROM decisions
                WHERE experiment = $key AND variant IS NOT NULL GROUP BY unit
            ) f {_EVENTS.format(" UNION ALL ".join(sources)) if sources else ""}
            GROUP BY f.unit
        )""",  # noqa: S608  (names of columns, through `identifier`)
        **parameters,
    )
    weighted = [m["metric"] for m in metrics if m["weight"]]
    # An objective of one metric is that metric to the analysis, with its covariate.
    if len(weighted) > 1 and not columns.keys().isdisjoint(weighted):
        columns[OBJECTIVE] = column(OBJECTIVE)
    return columns


_EVENTS = """
    LEFT JOIN ({}) r
        ON r.unit = f.unit AND r.moment < f.since AND r.moment >= f.since - $longest"""
"""The events that some metric looks back for, joined to their unit."""
_REWARDS = """
        SELECT unit, event, value, epoch_us(occurred_at) AS moment, 'decision' AS scope FROM rewards
        WHERE unit IS NOT NULL AND list_contains($events, event)"""
_UNIT_EVENTS = """
        SELECT unit, event, value, epoch_us(occurred_at) AS moment, 'unit' AS scope FROM events
        WHERE list_contains($of_units, event)
            AND unit_type = (SELECT unit FROM experiments WHERE key = $key)"""


def _looks_back(metric: MetricRow) -> bool:
    return metric["covariate_seconds"] is not None


def _is_of_unit(metric: MetricRow) -> bool:
    return metric.get("scope") == "unit"


def _reach(metric: MetricRow) -> int:
    """How far the metric looks back, in µs."""
    return microseconds(metric["covariate_seconds"])


def _value(metric: MetricRow, number: int) -> tuple[str, dict[str, object]]:
    """SQL for a unit's covariate, and the values of the parameters in it."""
    if not _looks_back(metric):
        return (
            f"any_value(TRY_CAST(f.context->>$feature{number} AS DOUBLE))",
            {f"feature{number}": json_path(metric["covariate_feature"])},
        )
    takes_value = METRIC_KINDS[metric["kind"]].takes_value
    aggregate = "sum(r.value)" if takes_value else "count(*)"
    scope = "unit" if _is_of_unit(metric) else "decision"
    inside = (
        f"r.event = $event{number} AND r.scope = '{scope}' AND r.moment >= f.since - $reach{number}"
    )
    return (
        f"coalesce({aggregate} FILTER ({inside}), 0.0)::DOUBLE",
        {f"event{number}": metric["event"], f"reach{number}": _reach(metric)},
    )


def _objective(metrics: Sequence[MetricRow]) -> str:
    """The weighted sum, not clipped: a covariate need not lie between 0 and 1."""
    weighted = []
    for m in metrics:
        if m["weight"]:
            floor = m.get("floor") or 0.0
            weighted.append(WeightedMetric(m["metric"], m["weight"], m["cap"], floor))
    return WeightedSum.of(weighted).unclipped_sql(lambda name: identifier(column(name)))
