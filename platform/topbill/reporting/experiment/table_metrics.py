"""Numbers of a warehouse, and of SQL over the record: tables joined by unit, read when a report is
made, as if their rows were events of the units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from topbill import lake
from topbill.domain.errors import BadData, BadRequest, FileProblem, LogError
from topbill.domain.formatting import minute
from topbill.domain.metric import Metric
from topbill.domain.sql import identifier, quoted
from topbill.domain.suggestion import nearest
from topbill.domain.table_source import DATABASES, TABLES, TableSource
from topbill.lake.engine import DuckDBEngine
from topbill.log.unit_ids import UnitIds, known_unit_ids
from topbill.reporting.experiment.model import Note
from topbill.reporting.queries.database import AnalyticsDatabase
from topbill.spec import Experiment
from topbill.spec.fields import listed

_ROWS, _STAGED = "report_table_rows", "report_table_staged"
_ANSWER = "report_table_answer"
_DATABASE = "report_warehouse"
_SECONDS = 60.0
"""How long the SQL of a metric may take: one that never ends must not keep a report from all else.
"""
_TEXT = "VARCHAR"
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", *("UTINYINT", "USMALLINT"))
_UNITS = (_TEXT, "UUID", *_INTEGERS, "UINTEGER", "UBIGINT", "UHUGEINT")
"""Types that name a unit as its service does: a float or a date would be written otherwise."""
_NUMBERS = (_TEXT, "BOOLEAN", "FLOAT", "DOUBLE", "DECIMAL", *_INTEGERS, "UINTEGER", "UBIGINT")
_TIMES = (_TEXT, "DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS")
_TIMES_OF_A_ZONE = "TIMESTAMP WITH TIME ZONE"
_REASONS = {
    "no_unit": "without a unit",
    "foreign": "of units that are not in this report",
    "no_value": "whose value is missing, no number, or not finite",
    "no_time": "whose time is missing or cannot be read",
}
"""Why a row does not count, in the order in which it is asked."""


class TableEvents(NamedTuple):
    """What was read of the tables: a query in brackets for all events of units, theirs among them;
    what to say of each; and the metrics that nothing could be read for.
    """

    events: str = "events"
    notes: Sequence[Note] = ()
    unreadable: frozenset[str] = frozenset()


def read_tables(
    database: AnalyticsDatabase, key: str, metrics: Sequence[Metric], unit_type: str, zone: str
) -> TableEvents:
    """The rows of the metrics' tables that are of the experiment's units.

    A table that cannot be read takes no other metric with it: its own has no numbers, and a note
    says why.

    Args:
        database: The analytics database of a data folder.
        key: The experiment's key.
        metrics: Those with a table are read.
        unit_type: What the experiment calls its unit.
        zone: The time zone whose days a table's days are.
    """
    of_tables = [(metric, metric.table) for metric in metrics if metric.table is not None]
    if not of_tables:
        return TableEvents()
    database.execute(
        f"""CREATE OR REPLACE TEMP TABLE {_ROWS} (
            unit VARCHAR, event VARCHAR, value DOUBLE, occurred_at TIMESTAMP, event_id VARCHAR)"""
    )
    notes, unreadable = [], set()
    for metric, source in of_tables:
        try:
            sentence = _read(database, key, metric, source, zone)
            code = "table"
        except (BadData, LogError, lake.Error, OSError) as error:
            # What DuckDB adds below its first line shows where in our own query it was.
            reason = str(error).strip().splitlines()[0]
            sentence, code = f"{metric.name} has no numbers: {reason}", "table_unreadable"
            unreadable.add(metric.name)
        notes.append(Note(code=code, sentence=sentence))
    events = (
        "(SELECT unit, unit_type, event, value, action, occurred_at, event_id FROM events "  # noqa: S608  (quoted)
        f"UNION ALL SELECT unit, {quoted(unit_type)}, event, value, NULL, occurred_at, event_id "
        f"FROM {_ROWS})"
    )
    return TableEvents(events, notes, frozenset(unreadable))


def _read(
    database: AnalyticsDatabase, key: str, metric: Metric, source: TableSource, zone: str
) -> str:
    """Adds the rows of one metric's table; says what was read."""
    if database.folder is None:
        raise BadData(_place(metric), "no data folder to read it from")
    stage = _stage_sql if source.sql else _stage_file
    written = stage(database, database.folder, key, metric, source, zone)
    counted = database.row(_COUNTS)
    _check_readable(metric, source, counted)
    database.execute(
        f"""INSERT INTO {_ROWS} SELECT unit, $event, value, occurred_at, event_id
        FROM {_STAGED} WHERE reason IS NULL""",  # noqa: S608  (our own names)
        event=metric.event,
    )
    return _sentence(metric.name, source, written, counted)


def _stage_sql(
    database: AnalyticsDatabase,
    folder: Path,
    key: str,
    metric: Metric,
    source: TableSource,
    zone: str,
) -> None:
    """The answer of a metric's SQL, which sees no more than `topbill sql` does."""
    try:
        answer = lake.sql(lake.database_of(folder), source.sql, seconds=_SECONDS)
    except BadRequest as error:
        raise BadData(_place(metric, "sql"), _in_one_line(error)) from error
    database.connection.register(_ANSWER, answer)
    try:
        _stage(database, key, metric, source, _ANSWER, zone)
    finally:
        database.connection.unregister(_ANSWER)


def _stage_file(
    database: AnalyticsDatabase,
    folder: Path,
    key: str,
    metric: Metric,
    source: TableSource,
    zone: str,
) -> datetime:
    """The rows of a metric's file; when that was written."""
    path = folder / TABLES / source.file
    if not path.is_file():
        raise BadData(
            _place(metric, "file"),
            f"got no file {source.described}; expected one in {folder}",
        )
    attached = source.file.endswith(DATABASES)
    if attached:
        database.execute(f"ATTACH {quoted(str(path))} AS {_DATABASE} (TYPE duckdb, READ_ONLY)")
    try:
        _stage(database, key, metric, source, _relation(path, source), zone)
    finally:
        if attached:
            database.execute(f"DETACH {_DATABASE}")
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def sql_problems(experiment: Experiment, beside: Sequence[Experiment]) -> list[FileProblem]:
    """What is wrong with the SQL of an experiment's metrics, as far as that shows without data: its
    grammar, the views and columns that it names, and the columns that it gives.

    Args:
        experiment: The one whose metrics are looked at.
        beside: It and the other experiments of its folder, whose views it may read.
    """
    problems = []
    for metric in experiment.unit_metrics:
        source = metric.table
        if source is None or not source.sql:
            continue
        with lake.empty(beside) as connection:
            try:
                answer = lake.read(connection, source.sql, seconds=_SECONDS)
                connection.register(_ANSWER, answer)
                _check_columns(
                    metric, source, _types(AnalyticsDatabase(DuckDBEngine(connection)), _ANSWER)
                )
            except BadRequest as error:
                # A BadData says at which key it is; all else is of the SQL.
                path = error.path if isinstance(error, BadData) else _place(metric, "sql")
                message = _in_one_line(error)
                expected = "one SELECT over the lake's views, with the columns that it is to have"
                problem = FileProblem(experiment.source, path, message, expected)
                problems.append(problem)
    return problems


def _in_one_line(error: BadRequest) -> str:
    """What DuckDB says, and of which line, without the drawing below it."""
    # A reason, its candidates, an empty line, then the line of the statement with a caret below.
    lines = str(error).removeprefix(f"{error.path}: ").strip().splitlines()
    said = lines[: lines.index("")] if "" in lines else lines
    place = [f"({line.strip()})" for line in lines if line.startswith("LINE ")]
    return " ".join([*map(str.strip, said), *place[:1]])


def _relation(path: Path, source: TableSource) -> str:
    """SQL for the table. A CSV's columns are text: whatever looks like a number may be an id with
    zeros in front."""
    if source.table is not None:
        return ".".join(map(identifier, (_DATABASE, *source.table.split("."))))
    if path.suffix == ".csv":
        return f"read_csv({quoted(str(path))}, header = true, all_varchar = true)"
    return f"read_parquet({quoted(str(path))}, hive_partitioning = false)"


def _stage(
    database: AnalyticsDatabase,
    key: str,
    metric: Metric,
    source: TableSource,
    relation: str,
    zone: str,
) -> None:
    """One pass over the table: all that is counted and used is then of one state of it."""
    types = _types(database, relation)
    _check_columns(metric, source, types)
    # A warehouse knows units by the ids that services send.
    unit_ids = UnitIds() if database.folder is None else known_unit_ids(database.folder)
    unit, parameters = unit_ids.stored_sql(f"{identifier(source.unit)}::VARCHAR")
    value, at = "1.0", "NULL::TIMESTAMP"
    if source.value is not None:
        value = f"TRY_CAST({identifier(source.value)} AS DOUBLE)"
    if source.at is not None:
        at = _moment(identifier(source.at), types[source.at], zone)
    untimed = "NOT coalesce(isfinite(occurred_at), false)" if source.at is not None else "false"
    # A row that is nobody's is counted as that alone, whatever else it lacks.
    database.execute(
        f"""CREATE OR REPLACE TEMP TABLE {_STAGED} AS
        WITH units AS (
            SELECT DISTINCT unit FROM decisions WHERE experiment = $key AND variant IS NOT NULL),
        entries AS (
            SELECT {unit} AS unit, {value} AS value,
                {at} AS occurred_at, lpad((row_number() OVER ())::VARCHAR, 19, '0') AS event_id
            FROM {relation})
        SELECT g.*, CASE WHEN g.unit IS NULL OR g.unit = '' THEN 'no_unit'
            WHEN u.unit IS NULL THEN 'foreign'
            WHEN NOT coalesce(isfinite(g.value), false) THEN 'no_value'
            WHEN {untimed} THEN 'no_time' END AS reason
        FROM entries g LEFT JOIN units u ON u.unit = g.unit""",  # noqa: S608  (quoted)
        key=key,
        **parameters,
    )


_COUNTS = f"""SELECT count(*)::BIGINT AS rows,
    count(*) FILTER (reason IS NULL)::BIGINT AS counted,
    count(DISTINCT unit) FILTER (reason IS NULL)::BIGINT AS units,
    {", ".join(f"count(*) FILTER (reason = '{name}')::BIGINT AS {name}" for name in _REASONS)}
FROM {_STAGED}"""  # noqa: S608  (our own names)


def _check_readable(metric: Metric, source: TableSource, counted: Mapping[str, Any]) -> None:
    """Raises BadData where units have rows of which none can be read: to take them for none would
    make everybody's number 0.
    """
    if counted["counted"] or not (counted["no_value"] or counted["no_time"]):
        return
    reasons = [
        f"{counted[code]:,} {_REASONS[code]}" for code in ("no_value", "no_time") if counted[code]
    ]
    raise BadData(
        _place(metric),
        f"{source.described}: got no row that can be read, {' and '.join(reasons)}; expected "
        "numbers and times",
    )


def _types(database: AnalyticsDatabase, relation: str) -> dict[str, str]:
    """Column → its type."""
    columns = database.rows(f"DESCRIBE SELECT * FROM {relation}")  # noqa: S608  (quoted)
    return {row["column_name"]: row["column_type"] for row in columns}


def _check_columns(metric: Metric, source: TableSource, types: Mapping[str, str]) -> None:
    _check_column(metric, source, "unit", types, _UNITS, "text, integers or UUIDs")
    if source.value is not None:
        _check_column(metric, source, "value", types, _NUMBERS, "numbers")
    if source.at is not None:
        expected = "times (UTC unless they say otherwise) or days"
        _check_column(metric, source, "at", types, (*_TIMES, _TIMES_OF_A_ZONE), expected)


def _check_column(
    metric: Metric,
    source: TableSource,
    role: str,
    types: Mapping[str, str],
    fit: Sequence[str],
    expected: str,
) -> None:
    """The column is there, and of a type that can be what it is said to be."""
    name = getattr(source, role)
    if name not in types:
        hint = nearest(name, types)
        raise BadData(
            _place(metric, role),
            f"{source.described}: got no column {name!r}; expected one of "
            f"{listed(types)}{hint and f'; {hint}'}",
        )
    # DECIMAL(18,2) → DECIMAL
    if types[name].partition("(")[0] not in fit:
        raise BadData(
            _place(metric, role),
            f"{source.described}: got column {name!r} of {types[name]}; expected {expected}",
        )


def _place(metric: Metric, role: str = "") -> str:
    return f"metrics.{metric.name}.from{role and f'.{role}'}"


def _moment(column: str, kind: str, zone: str) -> str:
    """SQL for a TIMESTAMP in UTC: a day begins when it does in the file's time zone."""
    midnight = f"timezone('UTC', timezone({quoted(zone)}, TRY_CAST({column} AS TIMESTAMP)))"
    moment = f"timezone('UTC', TRY_CAST({column} AS TIMESTAMPTZ))"
    if kind == "DATE":
        return midnight
    if kind != _TEXT:
        return moment
    return (
        rf"CASE WHEN regexp_full_match(trim({column}), '\d{{4}}-\d{{2}}-\d{{2}}') "
        f"THEN {midnight} ELSE {moment} END"
    )


def _sentence(
    name: str, source: TableSource, written: datetime | None, counted: Mapping[str, Any]
) -> str:
    at = "" if written is None else f", written {minute(written)}"
    sentence = (
        f"{name} is of {source.described}{at}: "
        f"{counted['counted']:,} of {counted['rows']:,} rows count, of {counted['units']:,} units"
    )
    excluded = [f"{counted[code]:,} {words}" for code, words in _REASONS.items() if counted[code]]
    if excluded:
        sentence += f"; left out: {', '.join(excluded)}"
    if source.at is None:
        sentence += (
            ". It has no times, so every row of a unit counts, also what was before its first "
            "decision"
        )
    return f"{sentence}."
