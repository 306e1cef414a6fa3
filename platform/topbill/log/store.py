"""The log's SQLite file: its tables, its transactions, and what is kept there beside the intake:
policy snapshots and the audit of revisions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from topbill.domain.errors import Conflict, LogError
from topbill.domain.records import Snapshot

_SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    decision_id TEXT NOT NULL UNIQUE,
    experiment TEXT NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS decisions_feed ON decisions (experiment, seq);
CREATE TABLE IF NOT EXISTS reward_events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    decision_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (decision_id, event_id));
CREATE TABLE IF NOT EXISTS policy_snapshots (
    experiment TEXT NOT NULL,
    version INTEGER NOT NULL,
    watermark INTEGER NOT NULL,
    at INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    start INTEGER NOT NULL,
    refit_at INTEGER NOT NULL,
    blob BLOB NOT NULL,
    PRIMARY KEY (experiment, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revisions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    experiment TEXT NOT NULL,
    revision TEXT NOT NULL,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    spec TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY CHECK (id = 0), at INTEGER NOT NULL);
INSERT OR IGNORE INTO clock VALUES (0, 0);
CREATE TABLE IF NOT EXISTS journal (id INTEGER PRIMARY KEY CHECK (id = 0), generation INTEGER NOT NULL);
INSERT OR IGNORE INTO journal VALUES (0, random() & 0xfffffffffffff);
"""


class Revision(NamedTuple):
    """One line of the audit: from `at` (µs) on, `experiment` was what `spec` (JSON text) says."""

    experiment: str
    revision: str
    at: int
    who: str
    spec: str


def now_micros() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1_000


class Store:
    """One connection to the file. Not for several threads at once: a thread opens its own.

    Raises LogError where the file cannot be opened, read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path,
                timeout=30.0,
                isolation_level=None,
                cached_statements=1_024,
                check_same_thread=False,
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise LogError(
                f"{path}: cannot open the log: {error}; expected a SQLite file in a folder to write to"
            ) from error

    def close(self) -> None:
        """Close the connection; what was acknowledged is durable already."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Hold the write lock; commit durably or not at all."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LogError(
                f"{self.path}: cannot write: {error}; nothing of this batch was stored"
            ) from error

    def _ask(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query; LogError where the file can't be read."""
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise LogError(f"{self.path}: cannot read: {error}") from error

    # ------------------------------------------------------------------ snapshots

    def version(self, experiment: str) -> int:
        """The newest policy version of an experiment; 0 where nothing was learned yet."""
        newest = "SELECT coalesce(max(version), 0) FROM policy_snapshots WHERE experiment = ?"
        return int(self._ask(newest, (experiment,))[0][0])

    def snapshot(self, experiment: str, version: int | None = None) -> Snapshot | None:
        """The newest snapshot of an experiment, or that of `version`; None when there is none."""
        rows = self._ask(
            """SELECT version, watermark, fingerprint, blob, at, start, refit_at FROM policy_snapshots
               WHERE experiment = ?1 AND version = coalesce(?2,
                   (SELECT max(version) FROM policy_snapshots WHERE experiment = ?1))""",
            (experiment, version),
        )
        if not rows:
            return None
        row = rows[0]
        try:
            states = msgspec.msgpack.decode(row[3], type=dict[str, bytes])
        except msgspec.DecodeError as error:
            raise LogError(
                f"{self.path}: snapshot {experiment} v{row[0]} is damaged: {error}; run topbill rebuild"
            ) from error
        return Snapshot(
            experiment=experiment,
            version=row[0],
            watermark=row[1],
            fingerprint=row[2],
            states=states,
            start=row[5],
            refit_at=row[6],
            at=row[4],
        )

    def write_snapshot(self, snapshot: Snapshot) -> None:
        """Store state, watermark and version at once. Raises Conflict unless it is the successor of
        the newest one: a learner that was overtaken must not write over its successor's work."""
        blob = msgspec.msgpack.encode(snapshot.states)
        with self._transaction():
            newest = self.version(snapshot.experiment)
            if snapshot.version != newest + 1:
                raise Conflict(
                    f"snapshot {snapshot.experiment} v{snapshot.version}: the log holds v{newest} already; "
                    "another keeper is at work on this data folder: stop one of them"
                )
            self._db.execute(
                "INSERT INTO policy_snapshots VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    snapshot.experiment,
                    snapshot.version,
                    snapshot.watermark,
                    now_micros(),
                    snapshot.fingerprint,
                    snapshot.start,
                    snapshot.refit_at,
                    blob,
                ),
            )

    # ------------------------------------------------------------------ audit and upkeep

    def revise(self, experiment: str, revision: str, who: str, spec: str) -> bool:
        """Note in the audit that `experiment` is now what `spec` says; False when it was so
        already.
        """
        newest = "SELECT revision FROM revisions WHERE experiment = ? ORDER BY seq DESC LIMIT 1"
        held = self._ask(newest, (experiment,))
        if held and held[0][0] == revision:
            return False
        with self._transaction():
            held = self._ask(newest, (experiment,))
            if held and held[0][0] == revision:
                return False
            self._db.execute(
                "INSERT INTO revisions (experiment, revision, at, who, spec) VALUES (?, ?, ?, ?, ?)",
                (experiment, revision, now_micros(), who, spec),
            )
        return True

    def revisions(self, experiment: str | None = None) -> list[Revision]:
        """The audit, oldest first: of one experiment, or of all."""
        rows = self._ask(
            """SELECT experiment, revision, at, who, spec FROM revisions
               WHERE ?1 IS NULL OR experiment = ?1 ORDER BY seq""",
            (experiment,),
        )
        return [Revision(*row) for row in rows]

    def forget_snapshots(self, before: int) -> int:
        """Delete the snapshots that had a successor by `before` µs: nothing was decided from them
        since. Returns how many went; the newest of each experiment stays, and so does the one that
        was the newest then."""
        with self._transaction():
            cursor = self._db.execute(
                """DELETE FROM policy_snapshots WHERE version < (SELECT max(s.version) FROM policy_snapshots s
                   WHERE s.experiment = policy_snapshots.experiment AND s.at < ?)""",
                (before,),
            )
        return cursor.rowcount

    def checkpoint(self) -> None:
        """Move the WAL into the file as far as readers allow, so that no API process has to."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            raise LogError(f"{self.path}: cannot checkpoint: {error}") from error
