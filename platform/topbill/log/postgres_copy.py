"""The tables of a log in PostgreSQL as files of a backup, and a log made of such files.

    tables.json            which tables there are, and what else makes them go on as they were
    decision_rows.copy     the rows of a table, in PostgreSQL's own binary form
    …

A copy is of one moment, and nobody waits for it: it is one transaction that only reads. What is
made of it is all there or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import msgspec

from topbill.domain.errors import BadRequest, LogError
from topbill.log.postgres import PostgresLog, first_seq
from topbill.log.postgres_database import PostgresDatabase
from topbill.log.postgres_schema import NAMES, SPAN, VERSION
from topbill.log.sql_database import LATER, WITHOUT_SNAPSHOT

CONTENTS = "tables.json"
COPIED = tuple(name for name in NAMES if name != "schema_stamp")
"""The stamp says which log it is, and to which folder it belongs: what is made of a copy is another
one."""
_OF_THE_PROCESSES = {"clock", "forgotten", "heartbeat", "duties"}
"""What is in a log that nobody has used yet."""
_SEQ_TABLES = ("bundles", "decision_rows", "stubs", "reward_events", "unit_events")
"""Those whose rows have their stamp in their `seq`."""
_BLOCK = 1 << 20

_COLUMNS = """SELECT c.relname, a.attname,
    CASE a.attidentity WHEN '' THEN NULL ELSE
        pg_sequence_last_value(pg_get_serial_sequence(c.relname, a.attname)::regclass) END
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY(?)
        AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY c.relname, a.attnum"""
_HOURS = r"""SELECT DISTINCT substring(c.relname FROM '_(\d+)$')::bigint
    FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
    WHERE inhparent IN ('decision_rows'::regclass, 'bundles'::regclass) AND c.relname ~ '_\d+$'"""


class _Contents(msgspec.Struct, frozen=True):
    """What `tables.json` says."""

    schema_version: int
    columns: dict[str, list[str]]
    """Of each table, in the order in which its file has them."""
    counters: dict[str, tuple[str, int]]
    """The column of a table that counts its rows, and how far it is."""
    hours: list[int]
    """Those that have tables of their own (`seq` / `SPAN`)."""


def copy_tables(url: str, into: Path) -> tuple[int, int]:
    """Write the log at a URL into a new folder; services and workers may be at work.

    Returns the moment up to which it holds everything (µs since the epoch), and the last `seq` that
    a row of until then may have.

    Raises:
        NotFound: There is no log.
        LogError: It cannot be read.
        OSError: A file cannot be written.
    """
    with closing(PostgresLog(url, create=False)) as log:
        # Behind it nothing can be added; what is begun after it sees all that is before it.
        at = log.barrier()
    into.mkdir(parents=True)
    with closing(PostgresDatabase(url, create=False)) as database:
        connections = database.connections
        with database.snapshot():
            contents = _contents(database)
            for table, columns in contents.columns.items():
                with (into / f"{table}.copy").open("wb") as file:
                    database.copy_out(table, columns, file.write)
        if database.connections != connections:
            raise LogError(f"{database.name}: the connection was lost; nothing was copied")
    (into / CONTENTS).write_bytes(msgspec.json.encode(contents))
    return at, first_seq(at // 1_000 + 1) - 1


def _contents(database: PostgresDatabase) -> _Contents:
    columns: dict[str, list[str]] = {}
    counters = {}
    for table, column, counter in database.rows(_COLUMNS, (list(COPIED),)):
        columns.setdefault(table, []).append(column)
        if counter is not None:
            counters[table] = (column, counter)
    hours = sorted(hour for (hour,) in database.rows(_HOURS))
    return _Contents(VERSION, columns, counters, hours)


def restore_tables(url: str, source: Path, at: int | None = None) -> None:
    """Fill the log at a URL, which must be empty or not be there yet, with what was copied into
    `source`, as far as it was stored by `at` (µs since the epoch).

    Raises:
        BadRequest: The log has been used.
        LogError: The copy is of another version's tables, or the server cannot be written to.
        OSError: A file cannot be read.
    """
    try:
        contents = msgspec.json.decode((source / CONTENTS).read_bytes(), type=_Contents)
    except msgspec.DecodeError as error:
        raise LogError(f"{source / CONTENTS}: cannot be read: {error}") from error
    if contents.schema_version != VERSION:
        raise LogError(
            f"{source}: its tables are of schema version {contents.schema_version}; expected "
            f"{VERSION}: restore it with the Topbill that made it, then `topbill migrate --log URL`"
        )
    with closing(PostgresDatabase(url, create=True)) as database, database.transaction():
        _refuse_used(database)
        database.execute(f"TRUNCATE {', '.join(contents.columns)}")
        _make_hours(database, contents.hours)
        for table, columns in contents.columns.items():
            with (source / f"{table}.copy").open("rb") as file:
                database.copy_in(table, columns, _blocks(file.read))
        for table, (column, counter) in contents.counters.items():
            database.execute(
                "SELECT setval(pg_get_serial_sequence(?, ?), ?)", (table, column, counter)
            )
        if at is not None:
            _forget_after(database, at)
        # Whatever is appended from now on comes behind all that is there.
        database.execute("UPDATE clock SET at = greatest(at, newest_seq() >> 20)")


def _refuse_used(database: PostgresDatabase) -> None:
    for table in COPIED:
        if table not in _OF_THE_PROCESSES and database.rows(f"SELECT 1 FROM {table} LIMIT 1"):  # noqa: S608 (own names)
            raise BadRequest(
                "--log",
                f"{database.name} has a log that was used ({table}); expected an empty database, "
                "or a schema of its own (options=-csearch_path%3DNAME)",
            )


def _make_hours(database: PostgresDatabase, hours: Iterable[int]) -> None:
    """The tables of the hours that the copy has rows of: what had none would lie in the way of
    those to come."""
    for hour in hours:
        for parent in ("decision_rows", "bundles"):
            database.execute(
                f"CREATE TABLE IF NOT EXISTS {parent}_{hour} PARTITION OF {parent} "
                f"FOR VALUES FROM ({hour * SPAN}) TO ({(hour + 1) * SPAN})"
            )


def _forget_after(database: PostgresDatabase, at: int) -> None:
    for table in _SEQ_TABLES:
        database.execute(f"DELETE FROM {table} WHERE seq >= ?", (first_seq(at // 1_000 + 1),))  # noqa: S608
    for statement in LATER:
        database.execute(statement, (at,))
    for statement in WITHOUT_SNAPSHOT:
        database.execute(statement)


def _blocks(read: Callable[[int], bytes]) -> Iterable[bytes]:
    while block := read(_BLOCK):
        yield block
