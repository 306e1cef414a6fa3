"""The face of the lake: a tiny DuckDB file whose views are pinned to the lake's files of one
version.

It is written under another name and renamed into place, so that a reader sees one consistent state
or the next.
"""

# ruff: noqa: S608  (names and values enter the SQL below only through `quoted`, `identifier` and `number`)

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import duckdb
import msgspec

from topbill.domain.errors import LogError
from topbill.domain.metric import Metric, metric_column, values_sql
from topbill.domain.objective import Objective
from topbill.domain.sql import identifier, number, quoted
from topbill.lake.database import files_of
from topbill.spec import Experiment

DECISIONS = {
    "decision_id": "VARCHAR",
    "decided_at": "TIMESTAMP",
    "experiment": "VARCHAR",
    "revision": "VARCHAR",
    "variant": "VARCHAR",
    "unit": "VARCHAR",
    "context": "VARCHAR",
    "actions": "VARCHAR",
    "eligible": "VARCHAR[]",
    "slate": "VARCHAR[]",
    "propensities": "DOUBLE[]",
    "propensity": "DOUBLE",
    "probabilities": "DOUBLE[][]",
    "policy": "VARCHAR",
    "policy_version": "BIGINT",
    "reason": "VARCHAR",
    "latency_us": "BIGINT",
    "page": "VARCHAR",
    "layer": "VARCHAR",
    "place": "VARCHAR",
    "masks": 'STRUCT("rule" VARCHAR, "start" BIGINT, "stop" BIGINT, "rows" BIGINT[], "only" BOOLEAN)[]',
    "seq": "BIGINT",
}
"""The columns of view `decisions`. Times in the face are UTC, without a time zone."""
REWARDS = {
    "decision_id": "VARCHAR",
    "event_id": "VARCHAR",
    "event": "VARCHAR",
    "value": "DOUBLE",
    "action": "VARCHAR",
    "position": "BIGINT",
    "occurred_at": "TIMESTAMP",
    "received_at": "TIMESTAMP",
    "experiment": "VARCHAR",
    "variant": "VARCHAR",
    "unit": "VARCHAR",
    "decided_at": "TIMESTAMP",
    "item": "VARCHAR",
    "seq": "BIGINT",
}
"""The columns of view `rewards`. `item` is the action that the event speaks of, where that is
known.
"""
_TABLES = """
CREATE TABLE experiments (key VARCHAR, revision VARCHAR, title VARCHAR, owner VARCHAR, hypothesis VARCHAR,
    surface VARCHAR, status VARCHAR, unit VARCHAR, slots BIGINT, traffic DOUBLE, holdout DOUBLE,
    revised_at TIMESTAMP, spec JSON);
CREATE TABLE variants (experiment VARCHAR, variant VARCHAR, policy VARCHAR, share DOUBLE, control BOOLEAN,
    min_probability DOUBLE, evaluable BOOLEAN, training VARCHAR);
CREATE TABLE metrics (experiment VARCHAR, metric VARCHAR, event VARCHAR, kind VARCHAR, window_seconds DOUBLE,
    cap DOUBLE, weight DOUBLE, better VARCHAR, margin DOUBLE,
    "default" DOUBLE, covariate_seconds DOUBLE, covariate_feature VARCHAR);
CREATE TABLE revisions (experiment VARCHAR, revision VARCHAR, revised_at TIMESTAMP, who VARCHAR, spec JSON);
CREATE TABLE published (published_at TIMESTAMP, decisions_version BIGINT, rewards_version BIGINT, files VARCHAR);
CREATE TABLE problems (kind VARCHAR, subject VARCHAR, path VARCHAR, message VARCHAR);
CREATE SCHEMA metrics;
"""
_PLACEMENTS = """CREATE VIEW placements AS
    SELECT decision_id, experiment, variant, unit, decided_at, reason, policy, policy_version,
    unnest(range(len(slate))) AS position, unnest(slate) AS action, unnest(propensities) AS propensity FROM decisions"""
_UNITS = """CREATE VIEW units AS SELECT experiment, unit, arg_min(variant, seq) AS variant, min(decided_at) AS first_at,
    count(*) AS decisions FROM decisions WHERE variant IS NOT NULL GROUP BY experiment, unit"""


_UNFIT = (LookupError, ValueError)
"""What a metric kind raises whose SQL names something that there is not."""


class Table(NamedTuple):
    """A Delta table at one version: its Parquet files, and whether some of them lack columns."""

    files: Sequence[str]
    version: int
    widened: bool


class Problem(NamedTuple):
    """What is wrong while this is published: a `file` that was not taken over, an experiment whose
    `learning` is stuck, or one whose `metrics` cannot be computed. `subject` is the file's name or
    the experiment's key, `path` the place in the file."""

    kind: Literal["file", "learning", "metrics"]
    subject: str
    path: str
    message: str


class Revision(Protocol):
    """A line of the log's audit: from `at` (µs since the epoch) on, `experiment` was what `spec`
    (JSON) says.
    """

    @property
    def experiment(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def at(self) -> int: ...
    @property
    def who(self) -> str: ...
    @property
    def spec(self) -> str: ...


def write(
    path: Path,
    tables: Mapping[str, Table],
    experiments: Sequence[Experiment],
    at: int,
    revisions: Sequence[Revision],
    problems: Sequence[Problem] = (),
    removed: Collection[str] = (),
) -> None:
    """Write the face over `tables` (`decisions` and `rewards`) as of `at` µs, replacing the old
    one. `removed`: keys of those experiments that have no file any more.

    An experiment whose metrics cannot be computed is told among the problems and has none; it
    keeps no other from being published. Raises LogError where the file can't be written; the old
    face is then still there.
    """
    contents = (tables, experiments, at, revisions, removed)
    try:
        _write(path, *contents, problems, without=set())
    except (OSError, duckdb.Error, *_UNFIT) as error:
        # Which experiment it was is looked for only now: as a rule there is none, and this file is
        # written every two seconds.
        unfit = _without_metrics(experiments)
        if not unfit:
            raise LogError(f"{path}: cannot be written: {error}") from error
        try:
            _write(path, *contents, [*problems, *unfit], without={one.subject for one in unfit})
        except (OSError, duckdb.Error) as other:
            raise LogError(f"{path}: cannot be written: {other}") from other


def _without_metrics(experiments: Sequence[Experiment]) -> list[Problem]:
    """A problem for each experiment whose metrics DuckDB cannot compute, and why."""
    problems = []
    with duckdb.connect() as connection:
        connection.execute(_base_view("rewards", REWARDS, Table((), 0, widened=False)))
        connection.execute("CREATE SCHEMA metrics")
        for experiment in experiments:
            try:
                connection.execute(_metrics_view(experiment))
            except (duckdb.Error, *_UNFIT) as error:
                problems.append(Problem("metrics", experiment.key, "metrics", str(error)))
    return problems


def _write(
    path: Path,
    tables: Mapping[str, Table],
    experiments: Sequence[Experiment],
    at: int,
    revisions: Sequence[Revision],
    removed: Collection[str],
    problems: Sequence[Problem],
    without: Collection[str],
) -> None:
    """Write the file. `without`: keys of those experiments that get no metrics."""
    fresh = path.with_name(f"{path.name}.tmp")
    computed = [experiment for experiment in experiments if experiment.key not in without]
    # What a killed writer left would be taken for the beginning of this one, its write-ahead
    # log above all.
    for left in (fresh, fresh.with_name(f"{fresh.name}.wal")):
        left.unlink(missing_ok=True)
    with duckdb.connect(str(fresh), config={"default_block_size": "16384"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("BEGIN")
        connection.execute(_TABLES)
        connection.execute(_base_view("decisions", DECISIONS, tables["decisions"]))
        connection.execute(_base_view("rewards", REWARDS, tables["rewards"]))
        connection.execute(_PLACEMENTS)
        connection.execute(_UNITS)
        for experiment in computed:
            connection.execute(_metrics_view(experiment))
        connection.execute(_feedback_view(computed, at))
        _fill(connection, experiments, revisions, removed)
        _insert(connection, "problems", problems)
        connection.execute(
            "INSERT INTO published VALUES (make_timestamp(?), ?, ?, ?)",
            [at, tables["decisions"].version, tables["rewards"].version, files_of(path)],
        )
        connection.execute("COMMIT")
    os.replace(fresh, path)


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
    )


def objective_of(rows: Sequence[Mapping[str, Any]]) -> Objective:
    """The objective that the rows of table `metrics` of one experiment describe."""
    weights = {row["metric"]: row["weight"] for row in rows if row["weight"] is not None}
    return Objective.of(map(metric_of, rows), weights)


def _base_view(view: str, columns: Mapping[str, str], table: Table) -> str:
    """A Delta table's files as a view; an empty lake has the same columns and no row."""
    if not table.files:
        blanks = ", ".join(f'NULL::{kind} AS "{column}"' for column, kind in columns.items())
        return f"CREATE VIEW {view} AS SELECT {blanks} WHERE false"
    shown = ", ".join(
        f'make_timestamp(epoch_us("{column}")) AS "{column}"'
        if kind == "TIMESTAMP"
        else f'"{column}"'
        for column, kind in columns.items()
    )
    listed = ", ".join(map(quoted, table.files))
    options = "hive_partitioning = true, hive_types = {'experiment': VARCHAR}"
    if table.widened:
        options += ", union_by_name = true"
    source = f"read_parquet([{listed}], {options})"
    return f"CREATE VIEW {view} AS SELECT {shown} FROM {source}"


def _metrics_view(experiment: Experiment) -> str:
    """`metrics."KEY"`: a row for each decision that got an event, with a column for each metric, and
    the objective.
    """
    mine = f"r.experiment = {quoted(experiment.key)}"
    return (
        f"CREATE VIEW metrics.{identifier(experiment.key)} AS "
        f"SELECT *, {experiment.goal.sql(metric_column)} AS objective "
        f"FROM ({values_sql(experiment.metrics, mine)})"
    )


def _feedback_view(experiments: Sequence[Experiment], at: int) -> str:
    """Every decision with its metrics and objective. What has no experiment file any more has no
    metrics.
    """
    columns = [
        "decision_id",
        "variant",
        "unit",
        "decided_at",
        "reason",
        "policy",
        "policy_version",
        "slate",
        "propensity",
    ]
    shown = ", ".join(f"d.{column}" for column in columns)
    branches = []
    for experiment in experiments:
        pairs = ", ".join(
            f"{quoted(m.name)}: coalesce(e.{metric_column(m.name)}, {number(m.default)})"
            for m in experiment.metrics
        )
        branches.append(
            f"SELECT {quoted(experiment.key)}, {shown}, MAP {{{pairs}}}, coalesce(e.objective, {number(experiment.goal.default)}), "
            f"{experiment.goal.mature_sql('d.decided_at', at)} "
            f"FROM decisions d LEFT JOIN metrics.{identifier(experiment.key)} e ON d.decision_id = e.decision_id "
            f"WHERE d.experiment = {quoted(experiment.key)}"
        )
    known = ", ".join(quoted(experiment.key) for experiment in experiments)
    branches.append(
        f"SELECT d.experiment, {shown}, NULL::MAP(VARCHAR, DOUBLE), NULL::DOUBLE, NULL::BOOLEAN FROM decisions d"
        + (f" WHERE d.experiment NOT IN ({known})" if known else "")
    )
    names = ", ".join(map(identifier, ["experiment", *columns, "metrics", "objective", "mature"]))
    return f"CREATE VIEW feedback ({names}) AS " + " UNION ALL ".join(branches)


def _fill(
    connection: duckdb.DuckDBPyConnection,
    experiments: Sequence[Experiment],
    revisions: Sequence[Revision],
    removed: Collection[str],
) -> None:
    """The small tables: what the experiment files say, and the audit."""
    since = {(r.experiment, r.revision): r.at for r in reversed(revisions)}
    files = [
        (
            *(e.key, e.fingerprint, e.title, e.owner, e.hypothesis, e.surface),
            *("removed" if e.key in removed else e.status, e.unit),
            *(e.slots, e.traffic, e.holdout, _moment(since.get((e.key, e.fingerprint)))),
            msgspec.json.encode(e.raw).decode(),
        )
        for e in experiments
    ]
    variants = [
        (e.key, v.name, v.policy, v.share, v.control, v.min_probability, v.evaluable, v.training)
        for e in experiments
        for v in e.variants
    ]
    metrics = [
        (
            *(
                e.key,
                m.name,
                m.event,
                m.kind,
                m.window,
                m.cap,
                e.objective.get(m.name),
                m.better,
                limits.get(m.name),
            ),
            m.default,
            *((m.covariate, None) if isinstance(m.covariate, float) else (None, m.covariate)),
        )
        for e in experiments
        for limits in [{g.metric: g.margin for g in e.guardrails}]
        for m in e.metrics
    ]
    _insert(connection, "experiments", files)
    _insert(connection, "variants", variants)
    _insert(connection, "metrics", metrics)
    _insert(
        connection,
        "revisions",
        [(r.experiment, r.revision, _moment(r.at), r.who, r.spec) for r in revisions],
    )


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[tuple[Any, ...]]
) -> None:
    """All rows in one statement: each costs DuckDB 2 ms."""
    if rows:
        holes = ", ".join(["(" + ", ".join("?" * len(rows[0])) + ")"] * len(rows))
        connection.execute(
            f"INSERT INTO {table} VALUES {holes}", [value for row in rows for value in row]
        )


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else datetime(1970, 1, 1) + timedelta(microseconds=micros)
