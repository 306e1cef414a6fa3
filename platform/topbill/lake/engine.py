"""What answers the questions of reports, evaluations and dashboards: DuckDB in this process, or a
Spark Connect server, which reads the lake's tables on as many machines as it has.

A question is SQL in DuckDB's dialect, the same for both, and its answer is sums. What follows from
them is computed here, so that no number depends on who added up, but for the last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from topbill.domain.engine_url import engine_url
from topbill.domain.errors import BadRequest, LogError
from topbill.domain.sql import identifier
from topbill.lake.buckets import BucketWalk, bucket
from topbill.lake.causes import cause
from topbill.lake.database import Connection, Error, connect, sql

if TYPE_CHECKING:
    from topbill.lake.spark import SparkEngine


class RecordEngine(Protocol):
    """The analytics database and what can be asked of it.

    Relations are DuckDB's, or what has the same methods: `query`, `aggregate`, `limit`, `columns`,
    `types`, `fetchall`, `fetchnumpy`, `to_arrow_table`, `df`.

    Attributes:
        is_embedded: Whether it is DuckDB in this process, which reads and writes its files.
    """

    is_embedded: bool

    def sql(self, query: str, params: Mapping[str, object] | None = None) -> Any:
        """The relation that a query answers with."""

    def execute(self, statement: str, params: Mapping[str, object] | None = None) -> Any:
        """Make a temporary table or view, or answer a query."""

    def keep(self, name: str, query: str) -> None:
        """Make a temporary table of an answer that is small and asked of several times, as sums
        are."""

    def table(self, name: str) -> Any:
        """A table, as a relation."""

    def register(self, name: str, rows: Any) -> None:
        """Let Arrow data of this process be asked of as a table."""

    def unregister(self, name: str) -> None:
        """Forget it."""

    def batches(self, query: str, params: Mapping[str, object]) -> Iterator[pa.RecordBatch]:
        """The rows of an answer, some thousand at a time, however many there are."""

    def rows(self, query: str, params: Mapping[str, object]) -> Iterator[dict[str, Any]]:
        """The same one after the other."""

    def by_bucket(
        self,
        query: str,
        params: Mapping[str, object],
        buckets: int,
        walk: Callable[[], BucketWalk],
    ) -> list[bytes]:
        """What a walk of its own makes of each bucket of units, in the order of the buckets; of
        those without rows nothing. The query has columns `seq`, `unit` and `decision_id`."""

    def close(self) -> None:
        """Let go of the record."""


class DuckDBEngine:
    """DuckDB, in this process."""

    is_embedded = True

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def sql(self, query: str, params: Mapping[str, object] | None = None) -> Any:
        """See `RecordEngine`."""
        return self._connection.sql(query, params=dict(params) if params else None)

    def execute(self, statement: str, params: Mapping[str, object] | None = None) -> Any:
        """See `RecordEngine`."""
        return self._connection.execute(statement, dict(params) if params else None)

    def keep(self, name: str, query: str) -> None:
        """See `RecordEngine`."""
        # CREATE answers with a count, and DuckDB wants every answer fetched before the next
        # statement.
        self.execute(f"CREATE OR REPLACE TEMP TABLE {identifier(name)} AS {query}").fetchall()

    def table(self, name: str) -> Any:
        """See `RecordEngine`."""
        return self._connection.table(name)

    def register(self, name: str, rows: Any) -> None:
        """See `RecordEngine`."""
        self._connection.register(name, rows)

    def unregister(self, name: str) -> None:
        """See `RecordEngine`."""
        self._connection.unregister(name)

    def batches(self, query: str, params: Mapping[str, object]) -> Iterator[pa.RecordBatch]:
        """See `RecordEngine`."""
        # By way of Arrow, which makes lists of Python's own in half the time.
        yield from self._connection.sql(query, params=dict(params)).to_arrow_reader(2_000)

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
        """See `RecordEngine`: all at once, side by side, as the rows come."""
        walks: dict[int, BucketWalk] = {}
        for row in self.rows(f"SELECT * FROM ({query}) ORDER BY seq", params):  # noqa: S608  (our own query)
            number = bucket(row["unit"] or row["decision_id"], buckets)
            if number not in walks:
                walks[number] = walk()
            walks[number].take(row)
        return [walks[number].finish() for number in sorted(walks)]

    def close(self) -> None:
        """See `RecordEngine`."""
        self._connection.close()


def open_engine(path: Path, *, memory_limit: str = "") -> RecordEngine:
    """The engine that this process is to ask (see `ENGINE_VARIABLE`), on the analytics database at
    `path`. `memory_limit` is DuckDB's (see `connect`).

    Raises:
        NotFound: nothing was published yet.
        LogError: the database cannot be read.
        BadRequest: the engine's URL is none, or what speaks to it is not installed.
    """
    url = engine_url()
    connection = connect(path, memory_limit=memory_limit)
    return _on_spark(url, path, connection) if url else DuckDBEngine(connection)


def answer(path: Path, query: str, *, memory_limit: str = "") -> pa.Table:
    """The answer to one statement that reads, by the engine that this process is to ask, as
    `lake.sql` says of DuckDB.
    """
    url = engine_url()
    if not url:
        return sql(path, query, memory_limit=memory_limit)
    engine = _on_spark(url, path, connect(path, memory_limit=memory_limit))
    try:
        return engine.read(query)
    except Error as error:
        raise LogError(f"{path}: {cause(error)}; run the query again") from error
    finally:
        engine.close()


@contextmanager
def sent(relation: Any, place: str) -> Iterator[Any]:
    """The rows of a DuckDB relation, where the engine that this process is to ask answers about
    them: as they are, or sent to the server, with a column `place` of where each stood, as rows
    have no order there.

    Raises:
        LogError: the server cannot be reached, or cannot answer.
        BadRequest: the engine's URL is none, or what speaks to it is not installed.
    """
    url = engine_url()
    if not url:
        yield relation
        return
    numbered = f"SELECT *, row_number() OVER () AS {identifier(place)} FROM sent_rows"  # noqa: S608  (identifiers are quoted)
    rows = relation.query("sent_rows", numbered).to_arrow_table()
    connection = connect()
    server = _spark(url, connection).SparkServer(url, connection)
    try:
        yield server.rows_sent("sent_rows", rows)
    finally:
        server.close()


def _on_spark(url: str, path: Path, connection: Connection) -> SparkEngine:
    engine: SparkEngine = _spark(url, connection).SparkEngine(url, path, connection)
    return engine


def _spark(url: str, connection: Connection) -> Any:
    """What speaks to a server at `url`. `connection` is closed where it is not installed."""
    try:
        # Here, since few have it and it takes a second to load.
        from topbill.lake import spark
    except ImportError as error:
        connection.close()
        raise BadRequest(
            "engine",
            f"got {url.partition(';')[0]}, and {error.name} is not installed; expected it: "
            "pip install 'topbill[spark]'",
        ) from error
    return spark
