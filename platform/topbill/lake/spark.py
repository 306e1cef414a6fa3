"""The record on a Spark Connect server: Spark, Databricks, or Sail.

Nothing else in Topbill imports `pyspark`. Questions are those that DuckDB is asked, in its SQL.
Those of the analytics database alone (experiments, the audit) are answered by DuckDB, here; those
of the lake's tables, and of what was made of them, by the server.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa

from topbill.domain.engine_url import SCRATCH_VARIABLE, address_of
from topbill.domain.errors import LogError
from topbill.domain.sql import identifier
from topbill.lake import spark_sql
from topbill.lake.buckets import BucketWalk
from topbill.lake.database import Connection, confine, files_of, read, reading, view_files
from topbill.lake.spark_sql import Query, Source, Table
from topbill.lake.views import table_types


@contextmanager
def _main_with_a_file() -> Iterator[None]:
    """Spark's client takes a main module that has none, as that of `python -c` is, for the run of
    its own doctests, and ends the process."""
    main = sys.modules["__main__"]
    if hasattr(main, "__file__") or main.__spec__ is not None:
        yield
        return
    main.__file__ = ""
    try:
        yield
    finally:
        del main.__file__


with _main_with_a_file(), warnings.catch_warnings():
    # It was not told of pandas 3 yet.
    warnings.simplefilter("ignore", FutureWarning)
    import pyspark.sql.connect.session  # noqa: F401  (looks at the main module once)
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
    from pyspark.sql.types import StructType

if TYPE_CHECKING:
    import pandas as pd

_TABLES = ("decisions", "rewards", "events")
_VIEWS = """SELECT schema_name, view_name, sql FROM duckdb_views()
WHERE database_name = 'lake' AND NOT internal"""
_WORD = re.compile(r"[\w@]+")
_MAKES = re.compile(r"\s*CREATE OR REPLACE TEMP (?:TABLE|VIEW) (\w+)")
_WAIT = 5.0
"""Seconds in which a server has to take a connection."""
_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    # Out of a list's bounds is nothing, and so is what is divided by 0, as DuckDB has it.
    "spark.sql.ansi.enabled": "false",
    # An experiment's key is text, whatever it looks like.
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    # Spark's own way to write times is older than Parquet's.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}
_NO_DELTA = "DATA_SOURCE_NOT_FOUND"
"""How Spark calls that it lacks what reads Delta tables."""
_TYPES = {
    "string": "VARCHAR",
    "bigint": "BIGINT",
    "int": "INTEGER",
    "smallint": "SMALLINT",
    "tinyint": "TINYINT",
    "double": "DOUBLE",
    "float": "FLOAT",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamp_ntz": "TIMESTAMP",
    "binary": "BLOB",
}
"""What DuckDB calls Spark's types."""


class SparkServer:
    """A session on a server, and the tables of `local` that are asked of there: each is sent when
    the first question for it comes. What the server cannot do is a LogError then.
    """

    def __init__(self, url: str, local: Connection) -> None:
        self._url = url
        self._where = url.partition(";")[0]
        self._local = local
        self._uploaded: set[str] = set()
        self._numbers = count()
        self._scratch = ""
        if folder := os.environ.get(SCRATCH_VARIABLE, ""):
            self._scratch = f"{folder.rstrip('/')}/topbill-{uuid4().hex}"

    @cached_property
    def _session(self) -> SparkSession:
        return self._new_session()

    def _new_session(self) -> SparkSession:
        """A session of one's own.

        Raises:
            LogError: the server cannot be reached.
        """
        try:
            # Spark's own client tries for minutes.
            socket.create_connection(address_of(self._url), timeout=_WAIT).close()
        except OSError as error:
            raise LogError(
                f"{self._where}: cannot be reached: {error}; expected a Spark Connect server there"
            ) from error
        with self._asked(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            session = SparkSession.builder.remote(self._url).create()
            for setting, value in _SETTINGS.items():
                session.conf.set(setting, value)
        return session

    def rows_sent(self, name: str, rows: pa.Table) -> SparkRelation:
        """Rows of this process, to be asked of there."""
        self._local.register(name, rows)
        return SparkRelation(self, self._upload(name))

    def kept(self, relation: SparkRelation) -> SparkRelation:
        """A relation's answer, worked out once: in the folder for that, or by what the server can
        hold (Spark; Sail works it out each time)."""
        name = f"kept_{next(self._numbers)}"
        frame = relation.frame
        with self._asked():
            if self._scratch:
                frame.write.parquet(f"{self._scratch}/{name}")
                # Of no rows there may be no file that says the columns.
                read = self._session.read.schema(frame.schema)
                frame = read.parquet(f"{self._scratch}/{name}")
            else:
                frame = frame.persist()
            frame.createOrReplaceTempView(name)
        return SparkRelation(self, spark_sql.table_named(name))

    def close(self) -> None:
        """Let go of the session."""
        self._local.close()
        if "_session" not in self.__dict__:
            return
        if self._scratch:
            # Where it is a folder of this machine; object stores have rules for what is old.
            shutil.rmtree(self._scratch, ignore_errors=True)
        try:
            self._session.stop()
        except PySparkException:
            return  # a server that is gone has let go already

    def _upload(self, name: str) -> Query:
        """A table that was made here, on the server."""
        if name not in self._uploaded:
            rows = self._local.sql(f"FROM {identifier(name)}").to_arrow_table()
            with self._asked():
                frame = self._session.createDataFrame(*_for_spark(rows))
                frame.createOrReplaceTempView(f"local_{name}")
            self._uploaded.add(name)
        return spark_sql.table_named(f"local_{name}")

    def frame_of(self, query: Query) -> Any:
        """The server's own frame of a query."""
        with self._asked():
            return self._session.sql(spark_sql.spark_sql(query))

    def types_of(self, frame: Any) -> list[tuple[str, str]]:
        """Names and types of a frame's columns, in Spark's words."""
        with self._asked():
            return list(frame.dtypes)

    def pandas_of(self, table: pa.Table) -> pd.DataFrame:
        """Rows as a pandas frame, of the types that DuckDB gives."""
        frame: pd.DataFrame = self._local.from_arrow(table).df()
        return frame

    def answer(self, frame: Any) -> pa.Table:
        """The rows of a frame, as DuckDB would give them."""
        with self._asked():
            return _like_duckdb(frame.toArrow())

    @property
    def _expected(self) -> str:
        """What would have answered."""
        return "Spark 4, or what speaks its language"

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Say whose error it is."""
        try:
            yield
        except PySparkException as error:
            raise LogError(
                f"{self._where}: cannot answer: {_reason(error)}; expected {self._expected}"
            ) from error


class SparkEngine(SparkServer):
    """The analytics database at `path`, open as `local`, whose lake a server reads. It is spoken to
    when the first question for it comes; what it cannot do is a LogError then."""

    is_embedded = False

    def __init__(self, url: str, path: Path, local: Connection) -> None:
        super().__init__(url, local)
        self._path = path
        self._lake = files_of(path)
        self._made: dict[str, Query] = {}
        """What the server has under a name: the lake's tables, and what was made of them."""
        self._views: dict[str, str] = {}
        """The database's views, which read what others are made over them by then."""
        self._columns: dict[str, list[str]] = {}
        for name in _TABLES:
            table = spark_sql.table_named(f"lake_{name}")
            self._made[name] = self._made[f"main.{name}"] = table
        for schema, name, text in self._local.execute(_VIEWS).fetchall():
            key = name if schema == "main" else f"{schema}.{name}"
            if key not in self._made:
                self._views[key] = text

    def _new_session(self) -> SparkSession:
        """A session of one's own, with the lake's tables at the versions that were published.

        Raises:
            LogError: the server cannot be reached, or cannot read the lake.
        """
        session = super()._new_session()
        published = self._local.sql("FROM published")
        versions = dict(zip(published.columns, published.fetchall()[0], strict=True))
        try:
            for name in _TABLES:
                rows = self._table(session, name, versions[f"{name}_version"])
                columns = spark_sql.columns_of(table_types(name), rows.columns)
                rows.selectExpr(*columns).createOrReplaceTempView(f"lake_{name}")
        except PySparkException as error:
            raise LogError(
                f"{self._where}: cannot read {self._lake}: {_reason(error)}; expected a server "
                "that reads Delta tables and sees that folder under the same path"
            ) from error
        return session

    def _table(self, session: SparkSession, name: str, version: int) -> Any:
        """A table of the lake as it was published: by Delta, or where the server has not that, by
        the files that the analytics database names."""
        folder = f"{self._lake}/{name}"
        rows = session.read.format("delta").option("versionAsOf", str(version)).load(folder)
        try:
            rows.columns  # noqa: B018  (asks the server)
        except PySparkException as error:
            if _NO_DELTA not in str(error):
                raise
        else:
            return rows
        files = view_files(self._local, name)
        if not files:
            return session.sql("SELECT 1 AS nothing WHERE false")
        parquet = session.read.option("basePath", folder).option("mergeSchema", "true")
        return parquet.parquet(*files)

    # --- What is asked

    def sql(self, query: str, params: Mapping[str, object] | None = None) -> Any:
        """The answer to a query: DuckDB's relation, or one that is like it."""
        parsed = self._parsed(query, params)
        if parsed is None:
            return self._local.sql(query, params=dict(params) if params else None)
        return SparkRelation(self, self._resolved(parsed.query))

    def execute(self, statement: str, params: Mapping[str, object] | None = None) -> Any:
        """Make a temporary table or view, or answer a query."""
        parsed = self._parsed(statement, params)
        if parsed is None:
            made = _MAKES.match(statement)
            if made is not None:
                self._forget(made[1])
            return self._local.execute(statement, dict(params) if params else None)
        relation = SparkRelation(self, self._resolved(parsed.query))
        name = parsed.makes
        if name is None:
            return relation
        if not parsed.is_view:
            relation = self.kept(relation)
        self._columns.pop(name, None)
        self._made[name] = relation.asked
        return _NOTHING

    def keep(self, name: str, query: str) -> None:
        """A temporary table of an answer that is small, to be asked of here from then on."""
        answer = self.sql(query).to_arrow_table()
        self._forget(name)
        self._local.register(name, answer)

    def read(self, statement: str) -> pa.Table:
        """The answer to a statement that somebody else wrote: one that reads, and the record alone.

        Raises:
            BadRequest: It is another, or is wrong, in DuckDB's words, which looks at it first.
        """
        confine(self._local, self._path)
        text = reading(self._local, statement)
        if spark_sql.is_query(text):
            # Of what has no name each engine makes one of its own.
            names = self._local.sql(text).columns
            answer = self.sql(text).to_arrow_table().rename_columns(names)
        else:
            # EXPLAIN, SHOW and the like are of DuckDB.
            answer = read(self._local, text)
        return answer

    def write(self, query: str, folder: str) -> pa.Schema:
        """Write an answer into a new folder that the server sees, as Parquet files; returns their
        columns."""
        frame = self.sql(query).frame
        with self._asked():
            frame.write.parquet(folder)
            return to_arrow_schema(frame.schema, timezone="UTC")

    def show(self, name: str, files: Sequence[str], schema: pa.Schema) -> None:
        """Let Parquet files with these columns be asked of under a name."""
        with self._asked():
            rows = self._session.read.schema(from_arrow_schema(schema)).parquet(*files)
            rows.createOrReplaceTempView(name)
        self._columns.pop(name, None)
        self._made[name] = spark_sql.table_named(name)

    def _forget(self, name: str) -> None:
        """What a name stood for."""
        self._made.pop(name, None)
        self._uploaded.discard(name)

    def batches(self, query: str, params: Mapping[str, object]) -> Iterator[pa.RecordBatch]:
        """See `RecordEngine`: all are fetched first."""
        yield from self.sql(query, params).to_arrow_table().to_batches(2_000)

    def rows(self, query: str, params: Mapping[str, object]) -> Iterator[dict[str, Any]]:
        """See `RecordEngine`."""
        for batch in self.batches(query, params):
            yield from batch.to_pylist()

    def by_bucket(
        self,
        query: str,
        params: Mapping[str, object],
        buckets: int,
        walk: Callable[[], BucketWalk],
    ) -> list[bytes]:
        """See `RecordEngine`: on the server's machines, which need this Topbill too."""
        number = f"crc32(coalesce(unit, decision_id)) % {buckets}"
        rows = self.sql(f"SELECT *, {number} AS bucket FROM ({query})", params)  # noqa: S608  (our own query)

        def walked(table: pa.Table) -> pa.Table:
            own = walk()
            table = table.sort_by("seq")
            for batch in _like_duckdb(table).to_batches(2_000):
                for row in batch.to_pylist():
                    own.take(row)
            answer = pa.array([own.finish()], pa.binary())
            return pa.table({"bucket": table["bucket"][:1].combine_chunks(), "answer": answer})

        with self._asked():
            frame = rows.frame.groupBy("bucket").applyInArrow(
                walked, "bucket bigint, answer binary"
            )
            answers = frame.toArrow().sort_by("bucket")
        return list(answers["answer"].to_pylist())

    def table(self, name: str) -> Any:
        """A table that was made before."""
        if name in self._made:
            return SparkRelation(self, self._made[name])
        return self._local.table(name)

    def register(self, name: str, rows: Any) -> None:
        """Rows from here, as a table."""
        self._forget(name)
        self._local.register(name, rows)

    def unregister(self, name: str) -> None:
        """Forget them."""
        self._forget(name)
        self._local.unregister(name)

    # --- Who answers

    def _parsed(
        self, statement: str, params: Mapping[str, object] | None
    ) -> spark_sql.Statement | None:
        """The statement, if the server has to answer it."""
        words = set(_WORD.findall(statement))
        names = {name.partition(".")[0] for name in (*self._made, *self._views)}
        # Most questions are of the analytics database alone; to parse takes a millisecond or more.
        if not words & names:
            return None
        parsed = spark_sql.parse(statement, params)
        read = {self._name(table) for table in spark_sql.tables_of(parsed.query)}
        return None if read.isdisjoint({*self._made, *self._views}) else parsed

    def _name(self, table: Any) -> str:
        """The name of a mention: with its schema, unless that is the one that is searched."""
        if table.db in ("", "temp"):
            return str(table.name)
        return f"{table.db}.{table.name}"

    def _resolved(self, query: Query) -> Query:
        """The query, which names nothing but what the server has."""
        return spark_sql.with_tables(query, self._source, self._columns_of)

    def _source(self, table: Any) -> Query:
        name = self._name(table)
        if name in self._made:
            return self._made[name]
        if name in self._views:
            return self._resolved(spark_sql.parse(self._views[name]).query)
        return self._upload(name)

    def _columns_of(self, table: Source) -> Sequence[str]:
        if not isinstance(table, Table):
            return SparkRelation(self, self._resolved(table.this)).columns
        name = self._name(table)
        if name not in self._columns:
            self._columns[name] = SparkRelation(self, self._source(table)).columns
        return self._columns[name]

    @property
    def _expected(self) -> str:
        return f"{super()._expected}, with {self._lake} in sight"


def _reason(error: Exception) -> str:
    """The first line of what went wrong."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class SparkRelation:
    """A query that a server answers, asked as DuckDB's relations are."""

    def __init__(self, engine: SparkServer, query: Query) -> None:
        self._engine = engine
        self.asked = query

    @cached_property
    def frame(self) -> Any:
        """The server's own."""
        return self._engine.frame_of(self.asked)

    @cached_property
    def columns(self) -> list[str]:
        """The names of its columns."""
        return [name for name, _ in self._engine.types_of(self.frame)]

    @cached_property
    def types(self) -> list[str]:
        """DuckDB's names of their types."""
        return [_type_of(kind) for _, kind in self._engine.types_of(self.frame)]

    @property
    def sql_query(self) -> str:
        """The query as the server gets it."""
        return spark_sql.spark_sql(self.asked)

    def query(self, name: str, sql: str) -> SparkRelation:
        """A query that calls this one's answer `name`."""

        def source(table: Any) -> Query | None:
            return self.asked if table.name == name and not table.db else None

        def columns(_table: Source) -> Sequence[str]:
            return self.columns

        parsed = spark_sql.parse(sql).query
        return SparkRelation(self._engine, spark_sql.with_tables(parsed, source, columns))

    def aggregate(self, picked: str) -> SparkRelation:
        """Sums over all rows."""
        return self.query("unit_rows", f"SELECT {picked} FROM unit_rows")  # noqa: S608  (our own query)

    def limit(self, rows: int) -> SparkRelation:
        """The first so many rows."""
        return self.query("unit_rows", f"SELECT * FROM unit_rows LIMIT {rows}")  # noqa: S608  (a number)

    def worked_out(self) -> SparkRelation:
        """Its answer, kept by the server, if that can."""
        return self._engine.kept(self)

    def to_arrow_table(self) -> pa.Table:
        """The answer."""
        return self._engine.answer(self.frame)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The answer, a tuple a row."""
        table = self.to_arrow_table()
        if not table.num_columns:
            return []
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def fetchnumpy(self) -> dict[str, Any]:
        """The answer, an array a column."""
        table = self.to_arrow_table()
        return {name: table[name].to_numpy() for name in table.column_names}

    def df(self) -> pd.DataFrame:
        """The answer as a pandas frame."""
        return self._engine.pandas_of(self.to_arrow_table())


class _Nothing:
    """The answer to a statement that makes something."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """No rows."""
        return []


_NOTHING = _Nothing()


def _type_of(kind: str) -> str:
    if kind.startswith("array"):
        return f"{_type_of(kind[6:-1])}[]"
    return _TYPES.get(kind, kind.upper())


def _for_spark(table: pa.Table) -> tuple[pa.Table, StructType]:
    """The rows in types that Spark has, which it would guess from the first; times without a zone
    are in UTC."""
    columns = []
    for column in table.columns:
        kind = column.type
        if isinstance(kind, pa.BaseExtensionType):
            column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        elif pa.types.is_timestamp(kind):
            column = column.cast(pa.timestamp("us", "UTC"))
        elif pa.types.is_unsigned_integer(kind) or pa.types.is_decimal(kind):
            column = column.cast(pa.int64())
        columns.append(column)
    rows = pa.table(columns, names=table.column_names)
    return rows, from_arrow_schema(rows.schema)


def _like_duckdb(table: pa.Table) -> pa.Table:
    """The rows in the types that DuckDB gives: times without a zone, no decimals."""
    columns = []
    for column in table.columns:
        kind = column.type
        if pa.types.is_timestamp(kind):
            column = column.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
        elif pa.types.is_decimal(kind):
            column = column.cast(pa.float64() if kind.scale else pa.int64())
        columns.append(column)
    return pa.table(columns, names=table.column_names)
