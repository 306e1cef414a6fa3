"""The embedded log's SQLite file: its tables, and one connection with transactions and errors that
say where.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from topbill.domain.errors import LogError
from topbill.log import schema_stamp
from topbill.log.sql_database import CHECKED, ROWS, Existing, Value, checksum, insert_statement
from topbill.log.wal import wal_damage

# With a rowid, although the key tells all: without one whole rows lie in the tree of keys, and each
# key that a look-up compares with is read with its state, which may be megabytes.
_STATES = """
CREATE TABLE IF NOT EXISTS policy_snapshots (
    experiment TEXT NOT NULL,
    version INTEGER NOT NULL,
    watermark INTEGER NOT NULL,
    at INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    start INTEGER NOT NULL,
    refit_at INTEGER NOT NULL,
    blob BLOB NOT NULL,
    PRIMARY KEY (experiment, version))"""
# AUTOINCREMENT, not a plain rowid: a plain one would give the `seq` of a forgotten row once more,
# and a reader who remembers how far it has read would miss the new row.
# The generation starts at a random number: a journal file that was left beside a deleted database
# must not pass for one of the new database.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    decision_id TEXT NOT NULL UNIQUE,
    experiment TEXT NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL,
    checksum INTEGER);
CREATE INDEX IF NOT EXISTS decisions_feed ON decisions (experiment, seq);
-- Decisions that are stored as one; see `bundle_table`.
CREATE TABLE IF NOT EXISTS bundles (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    content BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS decisions_bundled ON decisions (seq) WHERE substr(body, 1, 1) = x'00';
CREATE TABLE IF NOT EXISTS reward_events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    decision_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL,
    checksum INTEGER,
    UNIQUE (decision_id, event_id));
CREATE TABLE IF NOT EXISTS unit_events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    unit_type TEXT NOT NULL,
    unit TEXT NOT NULL,
    event_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL,
    checksum INTEGER,
    UNIQUE (unit_type, unit, event_id));
-- A table of its own, so that files of every earlier version take it without being rewritten.
CREATE TABLE IF NOT EXISTS policy_engines (
    experiment TEXT NOT NULL,
    version INTEGER NOT NULL,
    variant TEXT NOT NULL,
    engine TEXT NOT NULL,
    PRIMARY KEY (experiment, version, variant)) WITHOUT ROWID;
-- Likewise: 0.1.0 writes snapshots without naming their columns.
CREATE TABLE IF NOT EXISTS snapshot_checksums (
    experiment TEXT NOT NULL,
    version INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (experiment, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revisions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    experiment TEXT NOT NULL,
    revision TEXT NOT NULL,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    spec TEXT NOT NULL);
-- As above: a table of its own costs a file of an earlier version nothing. An empty `status` is the
-- file's own.
CREATE TABLE IF NOT EXISTS orders (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    experiment TEXT NOT NULL,
    revision TEXT NOT NULL,
    made TEXT NOT NULL,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    status TEXT NOT NULL,
    because TEXT NOT NULL,
    conclusion TEXT NOT NULL DEFAULT '',
    kind TEXT NOT NULL DEFAULT 'status',
    step INTEGER NOT NULL DEFAULT 0,
    traffic TEXT NOT NULL DEFAULT '',
    about TEXT NOT NULL DEFAULT '',
    checksum INTEGER);
-- How experiments ended; an empty `winner` is nobody.
CREATE TABLE IF NOT EXISTS conclusions (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    experiment TEXT NOT NULL,
    revision TEXT NOT NULL,
    made TEXT NOT NULL,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    winner TEXT NOT NULL,
    because TEXT NOT NULL,
    report BLOB NOT NULL,
    checksum INTEGER);
-- Likewise: what was found wrong and when it was over, which channel took which message, and what
-- has to be remembered of an experiment between two looks.
CREATE TABLE IF NOT EXISTS alarms (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    alarm TEXT NOT NULL,
    state TEXT NOT NULL,
    kind TEXT NOT NULL,
    experiment TEXT NOT NULL,
    subject TEXT NOT NULL,
    cause TEXT NOT NULL,
    message TEXT NOT NULL,
    at INTEGER NOT NULL,
    checksum INTEGER,
    UNIQUE (alarm, state));
CREATE TABLE IF NOT EXISTS alarm_messages (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    alarm TEXT NOT NULL,
    state TEXT NOT NULL,
    channel TEXT NOT NULL,
    at INTEGER NOT NULL,
    checksum INTEGER,
    UNIQUE (alarm, state, channel));
CREATE TABLE IF NOT EXISTS alarm_watches (
    experiment TEXT PRIMARY KEY,
    through INTEGER NOT NULL,
    memory BLOB NOT NULL,
    checksum INTEGER);
CREATE TABLE IF NOT EXISTS quarantine (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    stage TEXT NOT NULL,
    experiment TEXT NOT NULL,
    id TEXT NOT NULL,
    belongs_to TEXT NOT NULL,
    seq INTEGER NOT NULL,
    reason TEXT NOT NULL,
    body BLOB NOT NULL,
    at INTEGER NOT NULL,
    UNIQUE (kind, stage, seq));
CREATE TABLE IF NOT EXISTS heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    at INTEGER NOT NULL,
    published_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS duties (
    name TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    body BLOB NOT NULL,
    checksum INTEGER);
-- Likewise. `place` is the order in which ids were let go, `seq` that of a decision.
CREATE TABLE IF NOT EXISTS remembered_ids (
    place INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL);
-- Which policy version stood when a unit was erased: the fold is verified from there.
CREATE TABLE IF NOT EXISTS erasures (
    place INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    unit_hash TEXT NOT NULL,
    experiment TEXT NOT NULL,
    version INTEGER NOT NULL,
    decisions INTEGER NOT NULL,
    rewards INTEGER NOT NULL);
-- What was removed because of its age; the policy versions that stood then are `erasures` too.
CREATE TABLE IF NOT EXISTS retentions (
    place INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    kept_since INTEGER NOT NULL,
    decisions INTEGER NOT NULL,
    rewards INTEGER NOT NULL,
    events INTEGER NOT NULL,
    quarantined INTEGER NOT NULL);
-- What profiles may see; -1 is no age limit, an empty text no region.
CREATE TABLE IF NOT EXISTS profiles (
    unit TEXT PRIMARY KEY,
    unit_type TEXT NOT NULL,
    kids INTEGER NOT NULL,
    maturity INTEGER NOT NULL,
    region TEXT NOT NULL,
    at INTEGER NOT NULL,
    checksum INTEGER NOT NULL) WITHOUT ROWID;
-- Whose history is a profile's as well, since a guest signed in.
CREATE TABLE IF NOT EXISTS merges (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    unit TEXT NOT NULL,
    unit_type TEXT NOT NULL,
    merged TEXT NOT NULL,
    at INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    UNIQUE (unit, merged));
CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY CHECK (id = 0), at INTEGER NOT NULL);
INSERT OR IGNORE INTO clock VALUES (0, 0);
CREATE TABLE IF NOT EXISTS clock_steps (
    at INTEGER PRIMARY KEY,
    "offset" INTEGER NOT NULL,
    decisions INTEGER NOT NULL,
    events INTEGER NOT NULL);
-- What log time was when the clock that nobody sets was looked at last, and in which boot.
CREATE TABLE IF NOT EXISTS clock_look (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    boot TEXT NOT NULL,
    steady INTEGER NOT NULL,
    at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS journal (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    generation INTEGER NOT NULL);
INSERT OR IGNORE INTO journal VALUES (0, random() & 0xfffffffffffff);
-- Up to which byte the tables hold the journal's frames of a generation, which goes on behind it.
CREATE TABLE IF NOT EXISTS journal_moved (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    generation INTEGER NOT NULL,
    byte INTEGER NOT NULL);
"""

_OPENED: Counter[Path] = Counter()
"""How many connections this process has to each file."""
_CACHED_KIB = 512
"""Of pages that a connection keeps."""
_OPENING = threading.Lock()
_TABLES = frozenset(re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", _SCHEMA))


_LAUNCH_STEPS = """CREATE UNIQUE INDEX IF NOT EXISTS launch_steps
ON orders (experiment, revision, step) WHERE step > 0"""
"""No step of a launch is given twice, whoever gives it and however often they are killed."""
ADDED = {
    "orders": {
        "conclusion": "TEXT NOT NULL DEFAULT ''",
        "kind": "TEXT NOT NULL DEFAULT 'status'",
        "step": "INTEGER NOT NULL DEFAULT 0",
        "traffic": "TEXT NOT NULL DEFAULT ''",
        "about": "TEXT NOT NULL DEFAULT ''",
    }
}
"""Columns that tables got after their first version, and how they are declared."""
_SNAPSHOT = ("experiment", "version", "watermark", "at", "fingerprint", "start", "refit_at", "blob")


class LogDatabase:
    """One connection to the file. Not for several threads at once: a thread opens its own.

    Raises LogError where the file cannot be opened, read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self._file = path.absolute()
        self._is_closed = False
        self._look_through_wal()
        try:
            self._connect()
        except BaseException:
            self._let_go()
            raise

    def _look_through_wal(self) -> None:
        """Raises LogError where what was committed into it cannot be read."""
        with _OPENING:
            # Not beside a connection of this process. To look into the index of the WAL is to close
            # it again, and whoever closes a file gives up all locks that his process has on it,
            # those of SQLite too: another process would start the index anew under it.
            if not _OPENED[self._file]:
                damage = wal_damage(self._file.with_name(f"{self._file.name}-wal"))
                if damage:
                    raise LogError(damage)
            _OPENED[self._file] += 1

    def _let_go(self) -> None:
        with _OPENING:
            _OPENED[self._file] -= 1

    def _connect(self) -> None:
        path = self.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # No implicit transactions: where one begins and ends is said in `transaction`. The
            # statement cache holds the multi-row statements, of which there are some hundreds.
            # A writer thread is handed a connection that another one made, never two at a time.
            self._connection = sqlite3.connect(
                path,
                timeout=30.0,
                isolation_level=None,
                cached_statements=1_024,
                check_same_thread=False,
            )
        except (OSError, sqlite3.Error) as error:
            raise self._cannot_open(error) from error
        try:
            self._prepare()
        except LogError:
            self._connection.close()
            raise
        # Names of columns are decoded as they are read: in a damaged schema they may be no text.
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self._connection.close()
            raise self._cannot_open(error) from error

    def _prepare(self) -> None:
        # WAL lets readers read while one writes. FULL syncs it at every commit: what draining has
        # moved out of the journal must survive a power cut as the journal did.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        # A checkpoint of SQLite's own would run inside of a commit, with the journal locked against
        # all writers. `checkpoint` is called where nobody waits for it.
        self._connection.execute("PRAGMA wal_autocheckpoint=0")
        # Of a transaction that is longer most is written before its commit.
        self._connection.execute(f"PRAGMA cache_size=-{_CACHED_KIB}")
        schema_stamp.check_or_stamp(self._connection, self.path)
        self._connection.executescript(f"{_STATES};{_SCHEMA}")
        if self._has_states_among_keys():
            self._move_states()
        if not all(self._columns(table) >= columns.keys() for table, columns in ADDED.items()):
            self._add_columns()
        # Only now: it is over columns that were added.
        self._connection.execute(_LAUNCH_STEPS)
        if not all(self._has_checksum(table) for table in CHECKED):
            self._add_checksums()

    def _check_names(self) -> None:
        """Raises LogError where there is a table that no log has. Else one whose name is damaged
        would be made anew, without its rows.
        """
        tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        for (name,) in self._connection.execute(tables):
            if name.lower() not in _TABLES:
                raise LogError(
                    f"{self.path}: damaged, or no log of this version: it has a table {name!r}; "
                    "put it back from a backup"
                )

    def _columns(self, table: str) -> set[str]:
        return {row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")}

    def _has_checksum(self, table: str) -> bool:
        return "checksum" in self._columns(table)

    def _add_columns(self) -> None:
        """Give tables of an earlier version what they lack. The checksums of their rows, which are
        of fewer columns, go."""
        with self.transaction():
            for table, columns in ADDED.items():
                # Another process may have done it meanwhile.
                for name in columns.keys() - self._columns(table):
                    self._connection.execute(
                        f"ALTER TABLE {table} ADD COLUMN {name} {columns[name]}"
                    )
                    self._connection.execute(f"UPDATE {table} SET checksum = NULL")  # noqa: S608 (own names)

    def _has_states_among_keys(self) -> bool:
        query = (
            "SELECT sql LIKE '%WITHOUT ROWID' FROM sqlite_master WHERE name = 'policy_snapshots'"
        )
        return bool(self._connection.execute(query).fetchone()[0])

    def _move_states(self) -> None:
        """Write the snapshots of an earlier version anew, into a table with a rowid."""
        with self.transaction():
            # Another process may have done it meanwhile.
            if self._has_states_among_keys():
                self._connection.execute("ALTER TABLE policy_snapshots RENAME TO old_snapshots")
                self._connection.execute(_STATES)
                self._connection.execute("INSERT INTO policy_snapshots SELECT * FROM old_snapshots")
                self._connection.execute("DROP TABLE old_snapshots")

    def _add_checksums(self) -> None:
        """Give tables of an earlier version the column; its rows have none."""
        with self.transaction():
            for table in CHECKED:
                # Another process may have done it meanwhile.
                if not self._has_checksum(table):
                    self._connection.execute(f"ALTER TABLE {table} ADD COLUMN checksum INTEGER")

    def _cannot_open(self, error: Exception) -> LogError:
        return LogError(
            f"{self.path}: cannot open the log: {error}; "
            "expected a SQLite file in a folder to write to"
        )

    def close(self) -> None:
        """Close the connection; what was committed is durable already."""
        if not self._is_closed:
            self._is_closed = True
            self._connection.close()
            self._let_go()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the write lock; commit durably or not at all."""
        try:
            # IMMEDIATE takes the write lock now: a transaction that reads first and wants it later
            # fails at once when another one wrote in between, instead of waiting its turn.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LogError(
                f"{self.path}: cannot write: {error}; nothing of this batch was stored"
            ) from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read several times from one state of the file, whatever others write meanwhile."""
        self.rows("BEGIN")
        try:
            yield
        finally:
            self.rows("COMMIT")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement inside of a transaction, which names what goes wrong."""
        return self._connection.execute(statement, values)

    def execute_many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each of `values`, inside of a transaction."""
        self._connection.executemany(statement, values)

    def insert(
        self, table: str, rows: Iterable[Sequence[Value]], existing: Existing = "refuse"
    ) -> None:
        """Insert rows with their checksums; see `SqlDatabase.insert`."""
        self._connection.executemany(
            insert_statement(table, existing), [(*row, checksum(row)) for row in rows]
        )

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query; LogError where the file can't be read."""
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise LogError(f"{self.path}: cannot read: {error}") from error

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file's pages and indexes, and the rows that are not as
        they were stored; at most ten things of each.
        """
        found = [str(row[0]) for row in self.rows("PRAGMA integrity_check(10)")]
        damaged = [f"{self.path}: damaged: {each}" for each in found if each != "ok"]
        # Where the file cannot be read in order, its rows tell nothing more.
        return damaged or [*self._damaged_counters(), *islice(self._damaged_rows(), 10)]

    def last_seqs(self) -> dict[str, int]:
        """The last number that a row of each table of `ROWS` was given."""
        given = dict(self.rows("SELECT name, seq FROM sqlite_sequence"))
        return {table: int(given.get(table, 0)) for table in ROWS}

    def _damaged_counters(self) -> Iterator[str]:
        for table, last in self.last_seqs().items():
            ((newest,),) = self.rows(f"SELECT coalesce(max(seq), 0) FROM {table}")  # noqa: S608 (own names)
            if newest > last:
                yield f"{self.path}: damaged: {table} count to {last:,}, with a row {newest:,}"

    def _damaged_rows(self) -> Iterator[str]:
        for table, columns in CHECKED.items():
            yield from self._damaged_in(table, f"FROM {table}", columns)
        snapshots = "FROM policy_snapshots JOIN snapshot_checksums USING (experiment, version)"
        yield from self._damaged_in("policy_snapshots", snapshots, _SNAPSHOT)

    def _damaged_in(self, table: str, source: str, columns: Sequence[str]) -> Iterator[str]:
        # As bytes: what is damaged may be no text.
        values = ", ".join(f"CAST({column} AS BLOB)" for column in columns)
        query = f"SELECT checksum, {values} {source} WHERE checksum IS NOT NULL"
        try:
            for number, (expected, *row) in enumerate(self._connection.execute(query), 1):
                # What is damaged may even be missing.
                if None in row or checksum(row) != expected:
                    yield f"{self.path}: damaged: row {number} of {table} is not what was stored"
        except sqlite3.Error as error:
            # Even the names of columns may be.
            yield f"{self.path}: damaged: {table}: {error}"

    def moved(self) -> tuple[int, int]:
        """Up to where the tables hold the journal's frames: all of earlier generations than that
        one, and that one's up to that byte.
        """
        query = (
            "SELECT generation, coalesce(byte, 0) FROM journal LEFT JOIN "
            "(SELECT generation, byte FROM journal_moved) USING (generation)"
        )
        ((generation, byte),) = self.rows(query)
        return generation, byte

    def note_moved(self, generation: int, byte: int) -> None:
        """Note that, inside of the transaction that moves."""
        self.execute("UPDATE journal SET generation = ?", (generation,))
        self.execute("INSERT OR REPLACE INTO journal_moved VALUES (0, ?, ?)", (generation, byte))

    def sync_ahead(self) -> None:
        """Make durable what a long transaction has written up to now, which its commit then need
        not wait for. Nothing depends on it.
        """
        wal = Path(f"{self.path}-wal")
        with suppress(OSError):
            file = os.open(wal, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(file)
            finally:
                os.close(file)

    def checkpoint(self) -> None:
        """Move the WAL into the file as far as readers allow, so that no API process has to."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            raise LogError(f"{self.path}: cannot checkpoint: {error}") from error
