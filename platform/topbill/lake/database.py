"""Opening DuckDB: in memory for computing, or read-only on the analytics database for reading the
record."""

from __future__ import annotations

import atexit
import re
import shutil
import threading
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Protocol, TypeAlias

import duckdb
import pyarrow as pa

from topbill.domain.engine_url import engine_memory
from topbill.domain.errors import BadRequest, LogError, NotFound
from topbill.domain.lake_url import lake_url
from topbill.domain.schema_version import SCHEMA_VERSION
from topbill.domain.sql import identifier, quoted
from topbill.lake.causes import cause, without_traceback
from topbill.lake.files import let_read
from topbill.lake.places import CACHE, LAKE, lake_place

Connection: TypeAlias = duckdb.DuckDBPyConnection
Error: TypeAlias = duckdb.Error
OutOfMemoryError: TypeAlias = duckdb.OutOfMemoryException
_VERSION = """SELECT count(*) FILTER (column_name = 'schema_version') FROM duckdb_columns()
WHERE database_name = 'lake' AND schema_name = 'main' AND table_name = 'published'"""
_TABLES = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake'"
_PARQUET = re.compile(r"'((?:[^']|'')*\.parquet)'")
"""A file's name in a view's text."""
_VIEWS = """SELECT sql FROM duckdb_views() WHERE database_name = 'lake' AND NOT internal
ORDER BY view_name = 'feedback' AND schema_name = 'main', schema_name <> 'main', view_name"""
"""Every view after those that it reads: feedback reads those of schema metrics, they read the
others.
"""


def connect(
    path: Path | str | None = None, *, memory_limit: str = "", threads: int | None = None
) -> Connection:
    """A DuckDB connection: in memory, or read-only on the analytics database at `path`.
    Times are UTC. It holds at most `memory_limit`, or what `MEMORY_VARIABLE` says, and writes what
    is more to temporary files.

    A data folder that was moved or copied since is read where it is now. Any number of processes
    may hold the file open. The worker replaces it rather than changing it, so a connection keeps
    showing the state of the moment it was opened at: connect anew for a newer one. `cursor()`
    starts outside the database; use another `connect` per thread. Raises NotFound when nothing was
    published yet, LogError when the file cannot be read or is of another schema version.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit or engine_memory(),
        "temp_directory": _temporary_folder(),
        "autoinstall_known_extensions": False,
        # Files are local. To fetch whole columns ahead, as pays where they are far away, copies
        # every byte once more.
        "disable_parquet_prefetching": True,
    }
    if threads is not None:
        config["threads"] = threads
    connection = duckdb.connect(":memory:", config=config)
    connection.execute("SET TimeZone = 'UTC'")
    # It would stand amid what a command prints, JSON too, once a query takes two seconds.
    connection.execute("SET enable_progress_bar = false")
    url = lake_url()
    if url and not url.startswith("file:"):
        let_read(connection, url)
    if path is None:
        return connection
    if not Path(path).exists():
        connection.close()
        raise NotFound(
            f"{path}: no such file; expected the analytics database that `topbill worker` writes; "
            "name its folder by --data, or start the worker first"
        )
    try:
        # Attached, not opened: DuckDB shares one instance per path and process, which would show a
        # replaced file's old content for as long as anybody in the process still holds it.
        connection.execute(f"ATTACH {quoted(str(path))} AS lake (READ_ONLY)")
        connection.execute("USE lake")
        check_version(connection, Path(path))
        _follow_moved(connection, files_of(Path(path)))
    except LogError:
        connection.close()
        raise
    except duckdb.Error as error:
        connection.close()
        raise LogError(
            f"{path}: cannot be opened: {error}; expected a file written by `topbill worker`"
        ) from error
    return connection


@cache
def _temporary_folder() -> str:
    """Where this process may put what does not fit into memory: a folder that nobody else can read.
    Empty where there is none; it has to do with its memory then."""
    try:
        # DuckDB's own is below wherever the process was started.
        folder = mkdtemp(prefix="topbill-")
    except OSError:
        return ""
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def connect_for_long() -> Connection:
    """A connection in memory for a process that goes on for weeks and asks little at a time: with
    one thread, which then has not to wake others. Nothing of the files that it reads is kept, since
    it reads others each time.
    """
    connection = connect(threads=1)
    connection.execute("SET enable_external_file_cache = false")
    return connection


def check_version(connection: Connection, path: Path) -> None:
    """Raises LogError where the database attached as `lake` is of another schema version."""
    ((has_version,),) = connection.execute(_VERSION).fetchall()
    version = 1  # 0.1.0 had none
    if has_version:
        ((version,),) = connection.execute("SELECT schema_version FROM lake.published").fetchall()
    if version < SCHEMA_VERSION:
        raise LogError(
            f"{path}: is of schema version {version}, as Topbill 0.1.0 wrote it; expected "
            f"{SCHEMA_VERSION}: start `topbill worker`, or run "
            f"`topbill migrate --data {path.parent}`"
        )
    if version > SCHEMA_VERSION:
        raise LogError(
            f"{path}: is of schema version {version}; expected at most {SCHEMA_VERSION}: "
            "a newer Topbill wrote it, install that one"
        )


class Answering(Protocol):
    """What answers a statement."""

    def execute(self, statement: str, parameters: dict[str, object], /) -> Any: ...


def view_files(connection: Answering, view: str) -> list[str]:
    """The Parquet files that a view of the analytics database reads."""
    query = """SELECT sql FROM duckdb_views() WHERE database_name = current_database()
    AND schema_name = 'main' AND view_name = $view"""
    ((sql,),) = connection.execute(query, {"view": view}).fetchall()
    return [path.replace("''", "'") for path in _PARQUET.findall(sql)]


def files_of(database: Path) -> str:
    """The folder in which the files lie that a database's views read."""
    if database.parent.name == CACHE:
        return lake_place(database.parent.parent).root
    return str((database.parent / LAKE).resolve())


def _follow_moved(connection: Connection, files: str) -> None:
    """The views name their files by full paths. Where those are of another place, read through
    copies of the views that name `files`."""
    ((before,),) = connection.execute("SELECT files FROM published").fetchall()
    if before == files:
        return
    tables = connection.execute(_TABLES).fetchall()
    views = connection.execute(_VIEWS).fetchall()
    connection.execute("USE memory")
    connection.execute("CREATE SCHEMA metrics")
    for (table,) in tables:
        connection.execute(f"CREATE VIEW {identifier(table)} AS FROM lake.{identifier(table)}")
    # Without the closing quote: each file's path begins with the folder's.
    old_start, new_start = quoted(f"{before}/")[:-1], quoted(f"{files}/")[:-1]
    for (view,) in views:
        connection.execute(view.replace(old_start, new_start))


_RENAMED = {
    "at": "decided_at (decisions, placements, feedback), occurred_at (rewards), revised_at "
    "(experiments, revisions) or published_at (published)",
    "micros": "latency_us",
    "unrewarded": '"default"',
    "worse_by_at_most": "margin",
    "before_seconds": "covariate_seconds",
    "before_feature": "covariate_feature",
    "floor": "min_probability",
    "earned": "metrics",
    "troubles": "problems",
}
"""Columns, views and a schema that 0.1 called otherwise."""
_RESERVED_COLUMN = re.compile(r'(?<![\w".])(at|default)(?![\w"(])', re.IGNORECASE)
"""Names of columns, today or once, that DuckDB's grammar takes for something else where they stand
bare.
"""
_UNKNOWN_NAME = re.compile(
    r'column "(\w+)" not found|column named "(\w+)"|'
    r'Table with name (\w+) does not exist!|schema "(\w+)" does not exist'
)
"""How DuckDB says that it does not know a name."""


_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(ANALY[SZ]E\s+)?(.*)", re.IGNORECASE | re.DOTALL)
_RUNS_OTHERS = re.compile(r'"name"\s*:\s*"[^"]*(COPY|JSON_EXECUTE|EXTERNAL_RESOURCE)')
"""Operators of a plan that write, or that run what no plan shows."""
_LINE = re.compile(r"^LINE (\d+):", re.MULTILINE)
"""How DuckDB says where in a statement something is wrong."""


def sql(
    path: Path | str, query: str, *, memory_limit: str = "", seconds: float | None = None
) -> pa.Table:
    """The result of one reading statement (SELECT, EXPLAIN, SHOW, DESCRIBE, SUMMARIZE) on the
    analytics database at `path`.

    The statement sees the record and nothing else: no other file, no network, no setting.
    Raises BadRequest with DuckDB's words when the statement is wrong, would do more than read, or
    takes longer than `seconds`.
    """
    connection = connect(path, memory_limit=memory_limit)
    try:
        confine(connection, Path(path))
        return read(connection, query, seconds=seconds)
    except duckdb.IOException as error:
        raise LogError(
            f"{path}: {error}; run the query again: the files may have been compacted"
        ) from error
    finally:
        connection.close()


def read(connection: Connection, query: str, *, seconds: float | None = None) -> pa.Table:
    """The result of one reading statement on a connection that is confined, as `sql` says.

    Raises BadRequest, and DuckDB's own error where a file cannot be read.
    """
    timer = threading.Timer(seconds or 0.0, connection.interrupt)
    if seconds is not None:
        timer.start()
    try:
        return connection.sql(reading(connection, query)).to_arrow_table()
    except duckdb.IOException:
        raise
    except OutOfMemoryError as error:
        raise BadRequest("sql", cause(error)) from error
    except duckdb.InterruptException as error:
        raise BadRequest("sql", f"took longer than {seconds:g} s; expected less") from error
    except duckdb.Error as error:
        message = _with_name_of_today(str(error)) + _reserved_word(str(error), query)
        raise BadRequest("sql", message) from error
    finally:
        timer.cancel()


def reading(connection: Connection, query: str) -> str:
    """The text of a statement that reads and nothing else, without what ends it.

    Raises BadRequest for any other, and DuckDB's own error for one that is wrong.
    """
    kind, text = _single(connection, query)
    explain = _EXPLAIN.fullmatch(text)
    if kind == duckdb.StatementType.EXPLAIN:
        if explain is None or explain[2].startswith("("):
            raise BadRequest(
                "sql", "got EXPLAIN with options or a comment; expected EXPLAIN or EXPLAIN ANALYZE"
            )
        # EXPLAIN ANALYZE does what it explains, so that has to be a SELECT as well.
        analyze, inner = explain.groups()
        kind, text = _single(connection, inner)
        _check_select(connection, kind, text)
        return f"EXPLAIN {'ANALYZE ' if analyze else ''}{text}"
    _check_select(connection, kind, text)
    return text


def _single(connection: Connection, query: str) -> tuple[duckdb.StatementType, str]:
    """The kind and the text of the one statement of a query."""
    statements = connection.extract_statements(query)
    if len(statements) != 1:
        raise BadRequest("sql", f"got {len(statements)} statements; expected one SELECT")
    # Bytes, as DuckDB counts them.
    text = query.encode()
    for offset, kind in duckdb.tokenize(query):
        if kind == duckdb.token_type.operator and text[offset : offset + 1] == b";":
            text = text[:offset]
            break
    try:
        return statements[0].type, text.decode()
    except ValueError as error:  # of a kind that DuckDB's own list for Python does not have
        raise BadRequest("sql", "got another kind of statement; expected one SELECT") from error


def _check_select(connection: Connection, kind: duckdb.StatementType, text: str) -> None:
    """Raises BadRequest for a statement that does more than read, and DuckDB's own error for one
    that is wrong; nothing is executed.
    """
    expected = "expected a statement that only reads, such as SELECT"
    if kind != duckdb.StatementType.SELECT:
        raise BadRequest("sql", f"got {kind.name}; {expected}")
    # What is wrong with names and types is told here, in words of the statement itself.
    try:
        ((_, plan),) = connection.execute(f"EXPLAIN (FORMAT json)\n{text}").fetchall()
    except duckdb.IOException:
        raise
    except duckdb.Error as error:
        message = _LINE.sub(lambda line: f"LINE {int(line[1]) - 1}:", str(error))
        message = _with_name_of_today(message) + _reserved_word(message, text)
        raise BadRequest("sql", message) from error
    if _RUNS_OTHERS.search(plan):
        raise BadRequest("sql", f"got a SELECT that would write or run other SQL; {expected}")
    try:
        # A SELECT may hold a COPY or an INSERT, in a WITH, and only at its top: inside another it
        # cannot be bound.
        connection.sql(f"FROM (\n{text}\n) LIMIT 0")
    except duckdb.Error as error:
        raise BadRequest("sql", f"{error}; {expected}") from error


def _reserved_word(message: str, query: str) -> str:
    """What to write of a column whose name SQL keeps for itself, where the parser may have stumbled
    over it; nothing else.
    """
    bare = _RESERVED_COLUMN.search(query)
    if bare is None or not ("Parser Error" in message or "DEFAULT clause" in message):
        return ""
    name = bare[0].lower()
    if name in _RENAMED:
        return f"\n{_is_called(name)}"
    return f'\n{name} is a word of SQL: write the column as "{name}", in double quotes'


def _is_called(name: str) -> str:
    return f"{name} is called {_RENAMED[name]} today; write that instead"


def _with_name_of_today(message: str) -> str:
    """DuckDB's message, without Python's own lines of where a store's library raised it, and what
    the name that it does not know is called since 0.2, if it is.
    """
    message = without_traceback(message)
    unknown = _UNKNOWN_NAME.search(message)
    name = next(filter(None, unknown.groups())) if unknown else ""
    if name not in _RENAMED:
        return message
    return f"{message}\n{_is_called(name)}"


def confine(connection: Connection, path: Path | None = None) -> None:
    """Let the connection read the lake beside the database and nothing else, and lock that. Without
    a `path` it may read no file.
    """
    if path is not None:
        connection.execute(f"SET allowed_directories = [{quoted(files_of(path) + '/')}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
