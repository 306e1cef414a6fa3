"""Writing the analytics database: a tiny DuckDB file whose views are pinned to the lake's files of
one version.

It is written under another name and renamed into place, so that a reader sees one consistent state
or the next. A reader that holds the file open keeps the state that it opened.

A publication comes every two seconds, and experiments change every few days. So a file begins as a
copy of one that holds all that follows from the experiments and the audit, and gets what is new.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import duckdb
import msgspec

from topbill.domain.alarm import AlarmLine
from topbill.domain.errors import LogError
from topbill.domain.records import QuarantinedRow
from topbill.domain.schema_version import SCHEMA_VERSION
from topbill.domain.sql import quoted
from topbill.lake import views
from topbill.lake.database import Connection, confine, connect, connect_for_long, files_of
from topbill.lake.views import PinnedTable
from topbill.log.protocol import ConclusionLine, Order, Retention
from topbill.spec import Experiment

_TABLES = """
CREATE TABLE experiments (
    key VARCHAR, revision VARCHAR, title VARCHAR, owner VARCHAR, hypothesis VARCHAR,
    surface VARCHAR, status VARCHAR, unit VARCHAR, slots BIGINT, traffic DOUBLE, holdout DOUBLE,
    revised_at TIMESTAMP, spec JSON);
CREATE TABLE variants (
    experiment VARCHAR, variant VARCHAR, policy VARCHAR, share DOUBLE, control BOOLEAN,
    min_probability DOUBLE, evaluable BOOLEAN, training VARCHAR);
CREATE TABLE metrics (
    experiment VARCHAR, metric VARCHAR, event VARCHAR, kind VARCHAR, window_seconds DOUBLE,
    cap DOUBLE, floor DOUBLE, weight DOUBLE, better VARCHAR, margin DOUBLE, "default" DOUBLE,
    covariate_seconds DOUBLE, covariate_feature VARCHAR, per VARCHAR, capped BOOLEAN,
    scope VARCHAR, day BIGINT, time_zone VARCHAR, margin_unit VARCHAR,
    winsorise DOUBLE, numerator VARCHAR, denominator VARCHAR, quantile_of VARCHAR,
    quantile_of_kind VARCHAR, q DOUBLE, from_table JSON);
CREATE TABLE revisions (
    experiment VARCHAR, revision VARCHAR, revised_at TIMESTAMP, who VARCHAR, spec JSON);
CREATE TABLE conclusions (
    experiment VARCHAR, revision VARCHAR, made VARCHAR, concluded_at TIMESTAMP, who VARCHAR,
    winner VARCHAR, because VARCHAR, report BLOB);
CREATE TABLE orders (
    experiment VARCHAR, revision VARCHAR, made VARCHAR, ordered_at TIMESTAMP, who VARCHAR,
    status VARCHAR, because VARCHAR, winner VARCHAR, kind VARCHAR, step BIGINT, traffic DOUBLE,
    about VARCHAR[]);
CREATE TABLE launches (
    experiment VARCHAR, revision VARCHAR, step BIGINT, stage VARCHAR, traffic DOUBLE,
    since TIMESTAMP, reason VARCHAR, sentence VARCHAR, until TIMESTAMP, next_traffic DOUBLE,
    needs_approval BOOLEAN, ramp DOUBLE[], launched VARCHAR[], beside VARCHAR);
CREATE TABLE published (
    published_at TIMESTAMP, decisions_version BIGINT, rewards_version BIGINT,
    events_version BIGINT, files VARCHAR, schema_version BIGINT,
    kept_since TIMESTAMP, retained_at TIMESTAMP);
CREATE TABLE problems (kind VARCHAR, subject VARCHAR, path VARCHAR, message VARCHAR);
CREATE TABLE quarantine (
    kind VARCHAR, stage VARCHAR, experiment VARCHAR, id VARCHAR, belongs_to VARCHAR, seq BIGINT,
    reason VARCHAR, quarantined_at TIMESTAMP);
CREATE TABLE alarms (
    alarm VARCHAR, kind VARCHAR, experiment VARCHAR, subject VARCHAR, cause VARCHAR,
    message VARCHAR, raised_at TIMESTAMP, resolved_at TIMESTAMP);
CREATE SCHEMA metrics;
"""
_ATTACHED = "written"
"""What the file is called while it is written."""
_BLOCK = 16_384
"""Bytes of a block, the smallest that there is: the file holds views and a few rows."""
_UNFIT = (LookupError, ValueError)
"""What a metric kind raises whose SQL names something that there is not."""


class Problem(NamedTuple):
    """What is wrong while this is published: a `file` that was not taken over, an experiment whose
    `learning` is stuck, whose newest `snapshot` cannot be read, or whose `metrics` cannot be
    computed; rows in `quarantine`; the machine's `clock`, which was set; what must be known of a
    `page`; why old rows stay (`retention`); or a channel of `alerts` that cannot be reached, and an
    experiment that cannot be looked at for them. `subject` is the file's name, the experiment's
    key, the channel, or the kind of row; `path` the place in the file, or the stage at which rows
    were set aside."""

    kind: Literal[
        "file",
        "learning",
        "snapshot",
        "metrics",
        "quarantine",
        "clock",
        "page",
        "retention",
        "alerts",
    ]
    subject: str
    path: str
    message: str


class LaunchLine(NamedTuple):
    """Where the launch of an experiment stands, and what it waits for; times in µs since the epoch.

    `revision` is that of its file, `since` when its present stage began, `until` when the wait ends
    if nothing else happens, `next_traffic` that of the next step, `ramp` all of its steps,
    `launched` the variants that it brings, `beside` the revision that ran before and goes on for
    whoever it has not come to; empty where none does.
    """

    experiment: str
    revision: str
    step: int
    stage: str
    traffic: float | None
    since: int | None
    reason: str
    sentence: str
    until: int | None
    next_traffic: float | None
    needs_approval: bool
    ramp: tuple[float, ...]
    launched: tuple[str, ...] = ()
    beside: str = ""


class AuditLine(Protocol):
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


@dataclass(frozen=True)
class Publication:
    """What one analytics database shows.

    Attributes:
        tables: `decisions`, `rewards` and `events` at their versions.
        experiments: Those that have metrics, also such as have no file any more.
        at: µs since the epoch: every row of the log stamped up to then is in the tables.
        revisions: The audit, oldest first.
        problems: What is wrong at that time.
        removed: Keys of those experiments that have no file any more.
        quarantine: Rows of the log that were set aside, oldest first.
        retention: When rows were last removed because of their age, where any were.
        conclusions: How experiments ended, oldest first.
        orders: What was said of experiments without their files, oldest first.
        launches: Where launches stand.
        alarms: Lines of alarms, oldest first.
    """

    tables: Mapping[str, PinnedTable]
    experiments: Sequence[Experiment]
    at: int
    revisions: Sequence[AuditLine] = ()
    problems: Sequence[Problem] = ()
    removed: Collection[str] = ()
    quarantine: Sequence[QuarantinedRow] = ()
    retention: Retention | None = None
    conclusions: Sequence[ConclusionLine] = ()
    orders: Sequence[Order] = ()
    launches: Sequence[LaunchLine] = ()
    alarms: Sequence[AlarmLine] = ()


class DatabaseWriter:
    """Writes the analytics database at a path, again and again. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fresh = path.with_name(f"{path.name}.tmp")
        self._connection: Connection | None = None
        """In memory: the file is attached to it while it is written, which takes a fraction of what
        DuckDB needs to start."""
        self._begun: tuple[Any, bytes] | None = None
        """What the last file began with, and what that follows from."""

    def write(self, publication: Publication) -> None:
        """Write the file, replacing the one before.

        An experiment whose metrics cannot be computed is told among the problems and has none; it
        keeps no other from being published. Raises LogError where the file can't be written; the
        one before is then still there.
        """
        try:
            self._write(publication, publication.experiments, publication.problems)
        except (OSError, duckdb.Error, *_UNFIT) as error:
            # Which experiment it was is looked for only now: as a rule there is none, and this file
            # is written every two seconds.
            unfit = _without_metrics(publication.experiments)
            if not unfit:
                raise LogError(f"{self._path}: cannot be written: {error}") from error
            keys = {problem.subject for problem in unfit}
            computed = [e for e in publication.experiments if e.key not in keys]
            try:
                self._write(publication, computed, [*publication.problems, *unfit])
            except (OSError, duckdb.Error) as other:
                raise LogError(f"{self._path}: cannot be written: {other}") from other

    def _write(
        self,
        publication: Publication,
        computed: Sequence[Experiment],
        problems: Sequence[Problem],
    ) -> None:
        """Write the file; only the `computed` experiments get metrics."""
        begun = self._beginning(publication, computed)
        self._clear()
        self._fresh.write_bytes(begun)
        with self._attached() as connection:
            for name, table in publication.tables.items():
                # The file begins with views of empty tables.
                if table.files:
                    connection.execute(views.base_view(name, table))
            _fill_with_news(connection, publication)
            _insert(connection, "problems", problems)
            _insert(connection, "published", [_published(self._path, publication)])
        # Detached, so the write-ahead log is merged into the file. The rename is atomic: whoever
        # opens the path gets the whole file before or the whole file after, never a part.
        os.replace(self._fresh, self._path)

    def _beginning(self, publication: Publication, computed: Sequence[Experiment]) -> bytes:
        """The bytes of a file of these experiments, in which nothing is published yet."""
        follows_from = (
            list(publication.experiments),
            list(computed),
            set(publication.removed),
            list(publication.revisions),
            list(publication.conclusions),
        )
        if self._begun is None or self._begun[0] != follows_from:
            self._clear()
            with self._attached() as connection:
                connection.execute(_TABLES)
                _create_views(connection, computed)
                _fill(connection, publication)
            self._begun = (follows_from, self._fresh.read_bytes())
        return self._begun[1]

    def _clear(self) -> None:
        """Remove what a killed writer left, which would be taken for the beginning of this file,
        its write-ahead log above all.
        """
        for leftover in (self._fresh, self._fresh.with_name(f"{self._fresh.name}.wal")):
            leftover.unlink(missing_ok=True)

    @contextmanager
    def _attached(self) -> Iterator[Connection]:
        """A transaction on the file: each statement of its own would be synced to the disk by
        itself.
        """
        if self._connection is None:
            self._connection = connect_for_long()
        connection = self._connection
        try:
            connection.execute(
                f"ATTACH {quoted(str(self._fresh))} AS {_ATTACHED} (BLOCK_SIZE {_BLOCK})"
            )
            connection.execute(f"USE {_ATTACHED}")
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")
            connection.execute("USE memory")
            connection.execute(f"DETACH {_ATTACHED}")
        except BaseException:
            # Whatever state it is in, the next one begins anew.
            connection.close()
            self._connection = None
            raise


def _without_metrics(experiments: Sequence[Experiment]) -> list[Problem]:
    """A problem for each experiment whose metrics DuckDB cannot compute, and why."""
    problems = []
    with duckdb.connect() as connection:
        connection.execute(views.base_view("rewards", views.EMPTY))
        connection.execute("CREATE SCHEMA metrics")
        for experiment in experiments:
            try:
                connection.execute(views.metrics_view(experiment))
            except (duckdb.Error, *_UNFIT) as error:
                problems.append(Problem("metrics", experiment.key, "metrics", str(error)))
    return problems


def empty(experiments: Sequence[Experiment]) -> Connection:
    """An analytics database in memory as one without a decision is, for checking SQL; it can read
    no file.
    """
    connection = connect()
    unfit = {problem.subject for problem in _without_metrics(experiments)}
    computed = [experiment for experiment in experiments if experiment.key not in unfit]
    connection.execute(_TABLES)
    _create_views(connection, computed)
    confine(connection)
    return connection


def _create_views(connection: duckdb.DuckDBPyConnection, computed: Sequence[Experiment]) -> None:
    """Every view, over tables that are empty yet."""
    # Each after those that it reads.
    for name in ("decisions", "rewards", "events"):
        connection.execute(views.base_view(name, views.EMPTY))
    connection.execute(views.PLACEMENTS)
    connection.execute(views.UNITS)
    for experiment in computed:
        connection.execute(views.metrics_view(experiment))
    connection.execute(views.feedback_view(computed))


def _published(path: Path, publication: Publication) -> tuple[Any, ...]:
    versions = [publication.tables[name].version for name in ("decisions", "rewards", "events")]
    retention = publication.retention
    kept_since = None if retention is None else _moment(retention.kept_since)
    retained_at = None if retention is None else _moment(retention.at)
    about = (files_of(path), SCHEMA_VERSION, kept_since, retained_at)
    return (_moment(publication.at), *versions, *about)


def _fill(connection: duckdb.DuckDBPyConnection, publication: Publication) -> None:
    """The tables that change with the experiments: what their files say, and the audit."""
    # Backwards, so that a revision that came back counts from its first time.
    since = {}
    for line in reversed(publication.revisions):
        since[line.experiment, line.revision] = line.at

    experiments, variants, metrics = [], [], []
    for experiment in publication.experiments:
        is_removed = experiment.key in publication.removed
        revised_at = since.get((experiment.key, experiment.fingerprint))
        experiments.append(_experiment_row(experiment, is_removed, revised_at))
        variants += _variant_rows(experiment)
        metrics += _metric_rows(experiment)
    revisions = []
    for line in publication.revisions:
        revisions.append((line.experiment, line.revision, _moment(line.at), line.who, line.spec))
    _insert(connection, "experiments", experiments)
    _insert(connection, "variants", variants)
    _insert(connection, "metrics", metrics)
    _insert(connection, "revisions", revisions)
    conclusions = []
    for ended in publication.conclusions:
        conclusions.append((*ended[:3], _moment(ended.at), *ended[4:]))
    _insert(connection, "conclusions", conclusions)


def _fill_with_news(connection: duckdb.DuckDBPyConnection, publication: Publication) -> None:
    """The tables that may change with every publication."""
    quarantine = []
    for row in publication.quarantine:
        at = _moment(row.quarantined_at)
        # All but the body, which is whatever was wrong with it.
        quarantine.append((*row[:7], at))
    _insert(connection, "quarantine", quarantine)
    _insert(connection, "orders", [_order_row(order) for order in publication.orders])
    _insert(connection, "launches", [_launch_row(line) for line in publication.launches])
    _insert(connection, "alarms", _alarm_rows(publication.alarms))


def _alarm_rows(lines: Sequence[AlarmLine]) -> list[tuple[Any, ...]]:
    """A row for each alarm, with the time at which it was resolved."""
    resolved = {line.alarm: line.at for line in lines if line.state == "resolved"}
    rows = []
    for line in lines:
        if line.state == "raised":
            about = (line.experiment or None, line.subject or None, line.cause or None)
            times = (_moment(line.at), _moment(resolved.get(line.alarm)))
            rows.append((line.alarm, line.kind, *about, line.message, *times))
    return rows


def _order_row(order: Order) -> tuple[Any, ...]:
    winner = None if order.conclusion is None else order.conclusion.winner
    about = (order.experiment, order.revision, order.made, _moment(order.at), order.who)
    launch = (order.kind, order.step, order.traffic, list(order.about))
    return (*about, order.status, order.because, winner, *launch)


def _launch_row(line: LaunchLine) -> tuple[Any, ...]:
    row = line._asdict()
    row |= {"since": _moment(line.since), "until": _moment(line.until)}
    row |= {"ramp": list(line.ramp), "launched": list(line.launched)}
    return tuple(row.values())


def _experiment_row(
    experiment: Experiment, is_removed: bool, revised_at: int | None
) -> tuple[Any, ...]:
    return (
        experiment.key,
        experiment.fingerprint,
        experiment.title,
        experiment.owner,
        experiment.hypothesis,
        experiment.surface,
        "removed" if is_removed else _status(experiment),
        experiment.unit,
        experiment.slots,
        experiment.traffic,
        experiment.holdout,
        _moment(revised_at),
        msgspec.json.encode(experiment.raw).decode(),
    )


def _status(experiment: Experiment) -> str:
    """A concluded one goes on deciding, and is no test any more."""
    is_over = experiment.conclusion is not None and experiment.status == "running"
    return "concluded" if is_over else experiment.status


def _variant_rows(experiment: Experiment) -> list[tuple[Any, ...]]:
    rows = []
    for variant in experiment.variants:
        rows.append(
            (
                experiment.key,
                variant.name,
                variant.policy,
                variant.share,
                variant.control,
                variant.min_probability,
                variant.evaluable,
                variant.training,
            )
        )
    return rows


def _metric_rows(experiment: Experiment) -> list[tuple[Any, ...]]:
    guardrails = {guardrail.metric: guardrail for guardrail in experiment.guardrails}
    rows = []
    for metric in (*experiment.metrics, *experiment.unit_metrics):
        covariate = metric.covariate
        guardrail = guardrails.get(metric.name)
        rows.append(
            (
                experiment.key,
                metric.name,
                metric.event,
                metric.kind,
                metric.window,
                metric.cap,
                metric.floor,
                experiment.objective.get(metric.name),
                metric.better,
                None if guardrail is None else guardrail.margin,
                metric.default,
                covariate if isinstance(covariate, float) else None,
                covariate if isinstance(covariate, str) else None,
                metric.per,
                metric.capped,
                metric.scope,
                metric.day,
                metric.time_zone,
                None if guardrail is None else guardrail.margin_unit,
                metric.winsorise,
                metric.numerator,
                metric.denominator,
                metric.of,
                metric.of_kind,
                metric.q,
                None if metric.table is None else msgspec.json.encode(metric.table).decode(),
            )
        )
    return rows


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Iterable[tuple[Any, ...]]
) -> None:
    """All rows in one statement: each statement costs DuckDB 2 ms."""
    values: list[Any] = []
    places: list[str] = []
    for row in rows:
        values += row
        places.append(f"({', '.join('?' * len(row))})")
    if places:
        connection.execute(f"INSERT INTO {table} VALUES {', '.join(places)}", values)  # noqa: S608


def _moment(microseconds: int | None) -> datetime | None:
    if microseconds is None:
        return None
    return datetime(1970, 1, 1) + timedelta(microseconds=microseconds)
