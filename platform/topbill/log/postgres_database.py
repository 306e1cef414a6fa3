"""A connection to the PostgreSQL database of a log, with transactions and errors that say where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import StrDumperUnknown, TextLoader

from topbill.domain.errors import LogError, NotFound
from topbill.domain.log_url import without_secrets
from topbill.log.postgres_schema import FUNCTIONS, OLDEST_SERVER, TABLES, UPGRADES, VERSION
from topbill.log.sql_database import Existing, SqlCursor, Value, checksum, insert_statement

_DEFAULTS = {
    "application_name": "topbill",
    "connect_timeout": "5",
    # A cable that was cut is noticed within seconds, so that leases do not hang on it.
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "10000",
}
"""Parameters of a connection that a URL may set otherwise."""
# Each statement of a function must see what was committed before it: the barrier rests on this.
# Acknowledged is durable, whatever the role's default is. And nobody's transaction may hold up the
# feed of all others for long.
_SESSION = """SELECT set_config('default_transaction_isolation', 'read committed', false),
    set_config('idle_in_transaction_session_timeout', '5s', false),
    CASE current_setting('synchronous_commit')
        WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END"""
_APPEND = b"""SELECT append(%s, %s::bytea[], %s::bytea[],
    %s::text[], %s::text[], %s::int[], %s::bytea[], %s::bigint[], %s::bytea[],
    %s::text[], %s::text[], %s::bytea[], %s::bigint[],
    %s::text[], %s::text[], %s::text[], %s::bytea[], %s::bigint[])"""
# Where the planner does not know how much lies behind the last row that was read, it takes it for
# little, and would sort all there is, over and over, to give the next rows.
IN_ORDER = "SET LOCAL enable_sort = off"
# It holds up nobody's feed, and whoever works on what it reads may be slow.
_SNAPSHOT = f"""BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; {IN_ORDER};
    SET LOCAL idle_in_transaction_session_timeout = '10min'"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.tables', 0))"
_STAMP = "INSERT INTO schema_stamp VALUES (%s, gen_random_uuid())"
_TEXT_OID = 25
_AT_ONCE = 2_000
"""Rows of a long answer that are fetched together."""
_NUL, _ESCAPE = "\0", "\uffff"


class _NulDumper(StrDumperUnknown):
    """Texts may have a NUL in them, which PostgreSQL refuses: it is written as U+FFFF (in Unicode
    no character) and 0; what is U+FFFF already is doubled."""

    def dump(self, obj: str) -> Buffer | None:
        if _NUL in obj or _ESCAPE in obj:
            obj = obj.replace(_ESCAPE, _ESCAPE * 2).replace(_NUL, f"{_ESCAPE}0")
        return super().dump(obj)


class _NulLoader(TextLoader):
    def load(self, data: Buffer) -> str:
        text = str(super().load(data))
        if _ESCAPE in text:
            parts = text.split(_ESCAPE * 2)
            text = _ESCAPE.join([part.replace(f"{_ESCAPE}0", _NUL) for part in parts])
        return text


class PostgresDatabase:
    """One connection, made anew where it was lost. Not for several threads at once: a thread opens
    its own.

    Args:
        url: What libpq takes; the log lies in the first schema of the connection's `search_path`.
        create: Whether its tables are made where there are none, and brought to this version where
            they are of an older one.

    Raises:
        NotFound: There is no log, and `create` is false.
        LogError: The server cannot be reached, or is not one that this works with.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.name = without_secrets(url)
        self.connections = 0
        """How many were made: what was known of the server's transactions ends with each."""
        self.found_version = 0
        """Of the schema that `create` met; 0 where there was none."""
        self.version = 0
        """Of the schema that is there."""
        try:
            self._parameters: dict[str, Any] = {**_DEFAULTS, **conninfo_to_dict(url)}
        except psycopg.ProgrammingError:
            # Its message quotes the URL with its password.
            raise LogError(
                f"{self.name}: is no URL of PostgreSQL; "
                "expected postgresql://USER@HOST:5432/DATABASE, as libpq reads it"
            ) from None
        self.identity = ""
        """Of the log that lies there; no other has it."""
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._connected(create=create)

    def close(self) -> None:
        """Close the connection; what was committed is durable already."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ------------------------------------------------------------------ opening

    def _connected(self, *, create: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        try:
            connection = psycopg.connect(autocommit=True, **self._parameters)
        except psycopg.Error as error:
            raise self._cannot_open(error) from error
        try:
            self._prepare(connection, create=create)
        except psycopg.Error as error:
            connection.close()
            raise self._cannot_open(error) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self.connections += 1
        return connection

    def _prepare(self, connection: psycopg.Connection[tuple[Any, ...]], *, create: bool) -> None:
        server = connection.info.server_version
        if server < OLDEST_SERVER * 10_000:
            raise LogError(
                f"{self.name}: is PostgreSQL {server // 10_000}; expected {OLDEST_SERVER} or newer"
            )
        connection.adapters.register_dumper(str, _NulDumper)
        connection.adapters.register_loader(_TEXT_OID, _NulLoader)
        connection.execute(_SESSION)
        if create:
            self._migrate(connection)
        elif not has_log(connection):
            raise NotFound(
                f"{self.name}: no log there; expected one that was made: run "
                "`topbill migrate --log URL`"
            )
        self.version, identity = self._stamp(connection)
        if self.version != VERSION:
            instead = "run `topbill migrate --log URL`"
            if self.version > VERSION:
                instead = "a newer Topbill made it, install that one"
            raise LogError(
                f"{self.name}: the log is of schema version {self.version}; expected {VERSION}: "
                f"{instead}"
            )
        if self.identity not in ("", identity):
            raise self._replaced()
        self.identity = identity

    def _migrate(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        """Make the tables, or bring them to this version, all or nothing."""
        try:
            with connection.transaction():
                # One at a time: another process may be at it.
                connection.execute(_LOCK)
                if not has_log(connection):
                    connection.execute(TABLES.encode())
                    connection.execute(_STAMP, (VERSION,))
                    connection.execute(FUNCTIONS.encode())
                    connection.execute("SELECT tend_partitions(NULL)")
                    return
                self.found_version, _ = self._stamp(connection)
                for version in range(self.found_version, VERSION):
                    connection.execute(UPGRADES[version].encode())
                    connection.execute("UPDATE schema_stamp SET version = %s", (version + 1,))
                if self.found_version < VERSION:
                    connection.execute(FUNCTIONS.encode())
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidSchemaName) as error:
            raise LogError(
                f"{self.name}: the log's tables cannot be made: {_reason(error)}; "
                "expected a role that may CREATE in its schema"
            ) from error

    def _stamp(self, connection: psycopg.Connection[tuple[Any, ...]]) -> tuple[int, str]:
        (row,) = connection.execute("SELECT version, id::text FROM schema_stamp").fetchall()
        return row[0], row[1]

    def check(self) -> None:
        """Raises LogError where another log lies there by now."""
        identity = self.rows("SELECT id::text FROM schema_stamp")
        if identity != [(self.identity,)]:
            raise self._replaced()

    def _replaced(self) -> LogError:
        return LogError(
            f"{self.name}: another log lies there than the one that was opened; start again"
        )

    def _cannot_open(self, error: psycopg.Error) -> LogError:
        return LogError(
            f"{self.name}: cannot open the log: {_reason(error)}; "
            f"expected a PostgreSQL {OLDEST_SERVER} or newer that takes this role and its writes"
        )

    # ------------------------------------------------------------------ statements

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all others from writing to the tables beside the rows; commit durably or not at
        all. Appending goes on meanwhile.
        """
        try:
            with self._connected().transaction():
                self.execute(_LOCK)
                yield
        except psycopg.Error as error:
            raise self._failed("write", error) from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read several times from one state, whatever others write meanwhile, and in the order of
        an index where one is asked for.
        """
        self.rows(_SNAPSHOT, prepare=False)
        try:
            yield
        finally:
            self.rows("COMMIT")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> SqlCursor:
        """Run a statement inside of a transaction, which names what goes wrong."""
        return self._connected().execute(_marked(statement), values or None)

    def insert(
        self, table: str, rows: Iterable[Sequence[Value]], existing: Existing = "refuse"
    ) -> None:
        """Insert rows with their checksums; see `SqlDatabase.insert`."""
        values = [(*row, checksum(row)) for row in rows]
        self._connected().cursor().executemany(_marked(insert_statement(table, existing)), values)

    def rows(
        self, query: str, values: Sequence[Any] = (), *, prepare: bool | None = None
    ) -> list[Any]:
        """All rows of a query; LogError where the database can't be read. A connection that was
        lost since it was last used is made anew.
        """
        connection = self._connected()
        under_way = connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
        try:
            return self._rows(connection, query, values, prepare)
        except psycopg.Error as error:
            if not connection.closed or under_way:
                raise self._failed("read", error) from error
        try:
            return self._rows(self._connected(), query, values, prepare)
        except psycopg.Error as error:
            raise self._failed("read", error) from error

    def _rows(
        self,
        connection: psycopg.Connection[tuple[Any, ...]],
        query: str,
        values: Sequence[Any],
        prepare: bool | None,
    ) -> list[Any]:
        cursor = connection.execute(_marked(query), values or None, prepare=prepare)
        return [] if cursor.description is None else cursor.fetchall()

    def copy_out(
        self, table: str, columns: Iterable[str], write: Callable[[bytes], object]
    ) -> None:
        """Give columns of all rows of a table, in the server's own binary form, block by block."""
        query = f"COPY (SELECT {', '.join(columns)} FROM {table}) TO STDOUT (FORMAT binary)"  # noqa: S608
        try:
            with self._connected().cursor().copy(query.encode()) as copy:
                for block in copy:
                    write(bytes(block))
        except psycopg.Error as error:
            raise self._failed("read", error) from error

    def copy_in(self, table: str, columns: Iterable[str], blocks: Iterable[bytes]) -> None:
        """Insert the rows that `copy_out` gave, inside of a transaction."""
        statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT binary)"
        with self._connected().cursor().copy(statement.encode()) as copy:
            for block in blocks:
                copy.write(block)

    def stream(self, query: str) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, however many, inside of `snapshot`: not all of them at once."""
        try:
            with self._connected().cursor("rows") as cursor:
                cursor.itersize = _AT_ONCE
                yield from cursor.execute(query.encode())
        except psycopg.Error as error:
            raise self._failed("read", error) from error

    def is_notified(self, seconds: float) -> bool:
        """Whether something came of what this connection listens to, waiting for it for so long.
        Raises LogError where the connection was lost: one that was made anew does not listen.
        """
        connection = self._connection
        if connection is None or connection.closed:
            raise LogError(f"{self.name}: the connection was lost")
        try:
            return any(True for _ in connection.notifies(timeout=seconds, stop_after=1))
        except psycopg.Error as error:
            self.close()
            reason = _reason(error)
            raise LogError(f"{self.name}: cannot hear of new versions: {reason}") from error

    def append(self, values: Sequence[Any]) -> int | None:
        """Call the function `append`; returns the stamp in milliseconds. None where an id was there
        already, or where nobody knows what became of it: the ids then have to be looked up.
        """
        connection = self._connected()
        try:
            cursor = connection.execute(_APPEND, values, prepare=True)
            return int(cursor.fetchall()[0][0])
        except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
            return None
        except psycopg.Error as error:
            if connection.closed:
                return None
            raise self._failed("write", error) from error

    def _failed(self, what: str, error: psycopg.Error) -> LogError:
        """The error of a statement. After some, the connection is of no more use."""
        if isinstance(error, psycopg.OperationalError | psycopg.errors.ReadOnlySqlTransaction):
            self.close()
        return LogError(f"{self.name}: cannot {what}: {_reason(error)}; nothing was acknowledged")


def has_log(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
    """Whether the connection's schema has the tables of a log."""
    (row,) = connection.execute("SELECT to_regclass('schema_stamp') IS NOT NULL").fetchall()
    return bool(row[0])


@lru_cache(maxsize=256)
def _marked(statement: str) -> bytes:
    """A statement with the marks of psycopg."""
    return statement.replace("?", "%s").encode()


def _reason(error: psycopg.Error) -> str:
    """What the server says in one line, or else libpq."""
    return " ".join((error.diag.message_primary or str(error)).split())
