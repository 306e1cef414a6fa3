"""The views of the analytics database, as SQL: the tables of the lake, and what is computed of
them when somebody reads.

A view's definition cannot have parameters: DuckDB stores its text. So names and values stand in it,
and enter through `identifier`, `quoted` and `number` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from topbill.domain.decision import (
    DECISION_COLUMNS,
    EVENT_COLUMNS,
    REWARD_COLUMNS,
    RecordColumn,
    sql_types,
)
from topbill.domain.metric import Metric, metric_column, values_sql
from topbill.domain.objective import Objective
from topbill.domain.sql import identifier, number, quoted
from topbill.domain.table_source import TableSource
from topbill.spec import Experiment

_COLUMNS: Mapping[str, Sequence[RecordColumn[Any]]] = {
    "decisions": DECISION_COLUMNS,
    "rewards": REWARD_COLUMNS,
    "events": EVENT_COLUMNS,
}
_OF_DECISION = (
    "decision_id",
    "variant",
    "unit",
    "decided_at",
    "reason",
    "policy",
    "policy_version",
    "slate",
    "propensity",
)
"""What view `feedback` shows of the decision itself."""

_PUBLISHED = "(SELECT epoch_us(published_at) FROM published)"
PLACEMENTS = """
CREATE VIEW placements AS
SELECT decision_id, experiment, variant, unit, decided_at, reason, policy, policy_version,
    unnest(range(len(slate))) AS position,
    unnest(slate) AS action,
    unnest(propensities) AS propensity
FROM decisions
"""
UNITS = """
CREATE VIEW units AS
SELECT experiment, unit, arg_min(variant, seq) AS variant, min(decided_at) AS first_at,
    count(*) AS decisions
FROM decisions WHERE variant IS NOT NULL GROUP BY experiment, unit
"""


class PinnedTable(NamedTuple):
    """A Delta table at one version: its Parquet files, and whether some of them lack columns."""

    files: Sequence[str]
    version: int
    widened: bool


EMPTY = PinnedTable((), 0, widened=False)


def table_types(name: str) -> dict[str, str]:
    """The columns of view `decisions`, `rewards` or `events`, in order, with their types in
    DuckDB's words."""
    return sql_types(_COLUMNS[name])


def base_view(name: str, table: PinnedTable) -> str:
    """View `decisions`, `rewards` or `events`: a Delta table's files. An empty lake has the same
    columns and no row.

    It takes the place of the view of that name, if there is one: views that read it read the new
    one.

    The files are named one by one. So the view goes on showing the very rows of its version while
    newer ones are appended or files are merged beside it, and readers need no Delta extension.
    """
    types = table_types(name)
    columns = []
    for column, kind in types.items():
        sql = identifier(column)
        if not table.files:
            columns.append(f"NULL::{kind} AS {sql}")
        elif kind == "TIMESTAMP":
            # Files hold times with a zone, which DuckDB shows in that of the reader's session.
            columns.append(f"make_timestamp(epoch_us({sql})) AS {sql}")
        else:
            columns.append(sql)
    selected = f"CREATE OR REPLACE VIEW {name} AS SELECT {', '.join(columns)}"
    if not table.files:
        return f"{selected} WHERE false"
    options = ["hive_partitioning = false"]
    if "experiment" in types:
        options = ["hive_partitioning = true", "hive_types = {'experiment': VARCHAR}"]
    if table.widened:
        # Older files lack columns that newer ones have. Looking into each costs time: only then.
        options.append("union_by_name = true")
    files = ", ".join(map(quoted, table.files))
    source = f"read_parquet([{files}], {', '.join(options)})"
    if table.widened:
        # Until the next rows are written no file at all may have a new column.
        lacking = []
        for column, kind in types.items():
            if kind != "TIMESTAMP":
                lacking.append(f"NULL::{kind} AS {identifier(column)}")
        source = f"(FROM {source} UNION ALL BY NAME SELECT {', '.join(lacking)} WHERE false)"
    return f"{selected} FROM {source}"


def metrics_view(experiment: Experiment) -> str:
    """View `metrics."KEY"`: a row for each decision that got an event, with a column for each
    metric, and the objective.
    """
    query = metrics_sql(experiment.key, experiment.metrics, experiment.goal)
    return f"CREATE VIEW metrics.{identifier(experiment.key)} AS {query}"


def metrics_sql(key: str, metrics: Sequence[Metric], goal: Objective) -> str:
    """What that view shows, of whatever view `rewards` does."""
    values = values_sql(metrics, f"r.experiment = {quoted(key)}")
    return f"SELECT *, {goal.sql(metric_column)} AS objective FROM ({values})"  # noqa: S608  (quoted)


def feedback_view(experiments: Sequence[Experiment]) -> str:
    """View `feedback`: every decision with its metrics and objective, and whether that is final at
    the time of the publication. What has no experiment any more has no metrics.
    """
    branches = [_feedback_of(experiment) for experiment in experiments]
    # A branch for each experiment, with its key as a constant: a condition on `experiment` then
    # reads the files of that one alone.
    others = (
        f"SELECT d.experiment, {_shown('d')}, "  # noqa: S608  (quoted)
        "NULL::MAP(VARCHAR, DOUBLE), NULL::DOUBLE, NULL::BOOLEAN FROM decisions d"
    )
    if experiments:
        keys = ", ".join(quoted(experiment.key) for experiment in experiments)
        others += f" WHERE d.experiment NOT IN ({keys})"
    branches.append(others)
    names = ["experiment", *_OF_DECISION, "metrics", "objective", "mature"]
    return (
        f"CREATE VIEW feedback ({', '.join(map(identifier, names))}) AS "
        f"{' UNION ALL '.join(branches)}"
    )


def _feedback_of(experiment: Experiment) -> str:
    """The decisions of one experiment. Only those with an event have a row in its view of metrics:
    the others are at the metrics' defaults."""
    key, goal = experiment.key, experiment.goal
    pairs = []
    for metric in experiment.metrics:
        if not metric.is_of_decisions:
            continue
        value = f"coalesce(e.{metric_column(metric.name)}, {number(metric.default)})"
        pairs.append(f"{quoted(metric.name)}: {value}")
    is_mature = goal.mature_sql("d.decided_at", _PUBLISHED)
    return (
        f"SELECT {quoted(key)}, {_shown('d')}, MAP {{{', '.join(pairs)}}}, "  # noqa: S608  (quoted)
        f"coalesce(e.objective, {number(goal.default)}), {is_mature} "
        f"FROM decisions d LEFT JOIN metrics.{identifier(key)} e ON d.decision_id = e.decision_id "
        f"WHERE d.experiment = {quoted(key)}"
    )


def _shown(table: str) -> str:
    return ", ".join(f"{table}.{column}" for column in _OF_DECISION)


def metric_of(row: Mapping[str, Any]) -> Metric:
    """The metric that a row of table `metrics` describes."""
    return Metric(
        name=row["metric"],
        event=row["event"],
        kind=row["kind"],
        window=row["window_seconds"],
        cap=row["cap"],
        better=row["better"],
        default=row["default"],
        # A database that an earlier version published has no such columns.
        floor=row.get("floor") or 0.0,
        per=row.get("per") or "decision",
        capped=bool(row.get("capped")),
        scope=row.get("scope") or "decision",
        day=row.get("day"),
        time_zone=row.get("time_zone") or "UTC",
        winsorise=row.get("winsorise"),
        numerator=row.get("numerator"),
        denominator=row.get("denominator"),
        of=row.get("quantile_of"),
        of_kind=row.get("quantile_of_kind"),
        q=row.get("q"),
        table=_table_of(row.get("from_table")),
    )


def _table_of(source: str | None) -> TableSource | None:
    return None if source is None else msgspec.json.decode(source, type=TableSource)


def objective_of(rows: Sequence[Mapping[str, Any]]) -> Objective:
    """The objective that the rows of table `metrics` of one experiment describe."""
    weights = {row["metric"]: row["weight"] for row in rows if row["weight"] is not None}
    return Objective.of(map(metric_of, rows), weights)
