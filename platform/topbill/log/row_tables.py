"""The tables of a log's rows as far as SQLite and PostgreSQL have them otherwise, for what looks
through all of them: erasing and removing by age.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from topbill.domain.errors import LogError
from topbill.domain.log_url import without_secrets
from topbill.domain.records import Decision
from topbill.log.bundle_table import BundleTable, is_reference
from topbill.log.database import LogDatabase
from topbill.log.entries import EventKey
from topbill.log.journal import Journal
from topbill.log.sql_database import SqlDatabase
from topbill.log.sqlite import SqliteLog

_TRIES = 4
"""How often readers are waited for, each time as long as for a lock (30 s): on a busy machine some
service may read whenever it is asked."""
_BODIES = "SELECT seq, body FROM decisions WHERE seq > ? ORDER BY seq LIMIT 10000"


class RowTables(Protocol):
    """The tables, over a connection of their own."""

    @property
    def database(self) -> SqlDatabase:
        """For what both databases understand."""

    def bodies_with(self, text: bytes) -> list[tuple[str, str, bytes]]:
        """The decisions whose body, if it is no bundle's, has these bytes in it: id, experiment and
        body.
        """

    def bodies(self) -> Iterator[bytes]:
        """The bodies of decisions that are in no bundle."""

    def bundles(self) -> Iterator[tuple[int, list[Decision]]]:
        """Every bundle that can be read, by its place."""

    def undo_bundles(self, places: Collection[int]) -> None:
        """Give the decisions of bundles bodies of their own, inside of a transaction."""

    def let_go_of(self, unit: str) -> list[tuple[str, str]]:
        """The decisions of a unit that were let go and of which something was kept: id and
        experiment.
        """

    def units_let_go(self) -> set[str]:
        """The units of decisions of which something is kept beside the rows."""

    def delete_decisions(self, decision_ids: Collection[str]) -> None:
        """Delete decisions, inside of a transaction, and what is kept of those that were let go."""

    def stamped_decision(self, decision_id: str) -> list[tuple[str, int, int]]:
        """The id, the `seq` and the stamp (µs) of a decision, where it is there."""

    def stamped_event(self, key: EventKey) -> list[tuple[str, str, int]]:
        """The ids and the stamp (µs) of a reward event, where it is there."""

    def count_before(self, table: str, before: int) -> int:
        """How many rows of a table are stamped before a moment (µs)."""

    def wipe(self) -> None:
        """Leave nothing in files that the tables do not hold. Raises LogError."""

    def close(self) -> None:
        """Let go of the database."""


def open_row_tables(place: str | Path) -> RowTables:
    """Those of the log at a path or a URL. Raises LogError."""
    if isinstance(place, Path):
        return SqliteRowTables(place)
    if not place.startswith("postgresql:"):
        raise LogError(
            f"{without_secrets(place)}: its rows cannot be looked through; expected the log in a "
            "data folder, or one at postgresql://"
        )
    # psycopg is an extra.
    from topbill.log.postgres_rows import PostgresRowTables

    return PostgresRowTables(place)


class SqliteRowTables:
    """Those of the embedded log; what lies in its journal is not seen."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.database = LogDatabase(path)
        self._bundles = BundleTable(self.database)

    def bodies_with(self, text: bytes) -> list[tuple[str, str, bytes]]:
        """See `RowTables`."""
        return self.database.rows(
            "SELECT decision_id, experiment, body FROM decisions WHERE instr(body, ?)", (text,)
        )

    def bodies(self) -> Iterator[bytes]:
        """See `RowTables`."""
        after = 0
        while rows := self.database.rows(_BODIES, (after,)):
            for _, body in rows:
                if not is_reference(body):
                    yield body
            after = rows[-1][0]

    def bundles(self) -> Iterator[tuple[int, list[Decision]]]:
        """See `RowTables`."""
        return self._bundles.read_all()

    def undo_bundles(self, places: Collection[int]) -> None:
        """See `RowTables`."""
        self._bundles.undo(places)

    def let_go_of(self, unit: str) -> list[tuple[str, str]]:  # noqa: ARG002 (the contract's)
        """See `RowTables`; what is remembered here says nothing of whose it was."""
        return []

    def units_let_go(self) -> set[str]:
        """See `RowTables`."""
        return set()

    def delete_decisions(self, decision_ids: Collection[str]) -> None:
        """See `RowTables`."""
        for decision_id in decision_ids:
            self.database.execute("DELETE FROM decisions WHERE decision_id = ?", (decision_id,))

    def stamped_decision(self, decision_id: str) -> list[tuple[str, int, int]]:
        """See `RowTables`."""
        query = "SELECT decision_id, seq, at FROM decisions WHERE decision_id = ?"
        return self.database.rows(query, (decision_id,))

    def stamped_event(self, key: EventKey) -> list[tuple[str, str, int]]:
        """See `RowTables`."""
        return self.database.rows(
            "SELECT decision_id, event_id, at FROM reward_events "
            "WHERE decision_id = ? AND event_id = ?",
            key,
        )

    def count_before(self, table: str, before: int) -> int:
        """See `RowTables`."""
        query = f"SELECT count(*) FROM {table} WHERE at < ?"  # noqa: S608 (own names)
        ((count,),) = self.database.rows(query, (before,))
        return int(count)

    def wipe(self) -> None:
        """Leave nothing in the log's files that its tables do not hold: neither in free pages and
        the WAL, nor behind the end of the journal.

        Raises LogError where another process reads from it all the while.
        """
        path, database = self._path, self.database
        # What is in the tables lies in the journal too, until that is started anew.
        with closing(SqliteLog(path)) as log:
            log.drain(whole=True)
        busy: Any = 0
        try:
            database.execute("VACUUM")
            for _ in range(_TRIES):
                ((busy, _, _),) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                if not busy:
                    break
        except sqlite3.Error as error:
            raise LogError(f"{path}: cannot be written anew: {error}; run it again") from error
        if busy:
            raise LogError(
                f"{path}: another process reads from it, so that its WAL keeps what was erased; "
                "stop the service and run it again"
            )
        journal = Journal(path.with_suffix(".journal"), database.moved)
        try:
            with journal.locked():
                journal.wipe()
        finally:
            journal.close()

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()
