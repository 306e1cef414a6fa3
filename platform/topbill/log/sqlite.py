"""The embedded log: one SQLite file in WAL mode that API processes and the keeper share.

A commit is durable before it is acknowledged (`synchronous=FULL`). Every row is stamped inside the transaction
that commits it, under SQLite's write lock, so that stamps never decrease along `seq`: whoever holds a barrier
knows that no row with an earlier stamp can still appear.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from topbill.errors import Conflict, LogError
from topbill.records import Decision, RewardEvent, Snapshot

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
"""
_STAMP = """SELECT max(?, (SELECT at FROM clock),
    coalesce((SELECT at FROM decisions ORDER BY seq DESC LIMIT 1), 0),
    coalesce((SELECT at FROM reward_events ORDER BY seq DESC LIMIT 1), 0))"""
_ROWS_PER_STATEMENT = 256
_CHECKPOINT_PAGES = 1_000
"""A short WAL is written over and over: a commit into it takes 190 µs, one that extends the file 320."""

_T = TypeVar("_T")
_encode = msgspec.json.Encoder().encode
_decision = msgspec.json.Decoder(Decision)
_event = msgspec.json.Decoder(RewardEvent)


class Entry(NamedTuple):
    """Rows that are stored together or not at all.

    `keyed_decisions` and `keyed_events` say which ids the callers chose: only those can have been used before.
    """

    decisions: Sequence[Decision] = ()
    events: Sequence[RewardEvent] = ()
    keyed_decisions: frozenset[str] = frozenset()
    keyed_events: frozenset[tuple[str, str]] = frozenset()


class Receipt(NamedTuple):
    """What the log says of an entry: the decisions that were stored before it, by id; of each event, whether it is a
    duplicate; or the id that was used before with another content (then nothing of the entry was stored)."""

    stored: dict[str, Decision]
    duplicates: tuple[bool, ...]
    conflict: str | None = None


Matured = tuple[int, Decision, list[RewardEvent]]
"""A decision that reached an age, after its `seq`, and the events that had come by then."""


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


class SqliteLog:
    """One connection to the log. Not for several threads at once: a thread opens its own.

    Raises LogError where the file cannot be opened, read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, timeout=30.0, isolation_level=None, cached_statements=1_024, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise LogError(
                f"{path}: cannot open the log: {error}; expected a SQLite file in a folder to write to"
            ) from error

    def close(self) -> None:
        """Close the connection; what was acknowledged is durable already."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[int]:
        """Hold the write lock, yield the stamp for everything written, commit durably or not at all."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db.execute(_STAMP, (now_micros(),)).fetchone()[0]
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LogError(f"{self.path}: cannot write: {error}; nothing of this batch was stored") from error

    # ------------------------------------------------------------------ intake

    def append(self, decisions: Sequence[Decision] = (), events: Sequence[RewardEvent] = ()) -> Receipt:
        """Store one entry durably. Every id counts as the caller's. Raises Conflict where one was used before."""
        entry = Entry(
            decisions,
            events,
            frozenset(d.decision_id for d in decisions),
            frozenset((e.decision_id, e.event_id) for e in events),
        )
        receipt = self.commit([entry])[0]
        if receipt.conflict is not None:
            raise Conflict(f"decision_id {receipt.conflict!r} was used before with another request; use a new id")
        return receipt

    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        """Store a group of entries; returns when they are durable, a receipt an entry. An entry is stored whole or not
        at all: all in one transaction, or in a statement a table where none of them can have been stored before."""
        if all(_is_new(entry) for entry in entries) and sum(map(_size, entries)) <= _ROWS_PER_STATEMENT * 4:
            return self._commit_new(entries)
        with self._transaction() as at:
            known = self._known_decisions({i for entry in entries for i in entry.keyed_decisions})
            seen = self._known_events({k for entry in entries for k in entry.keyed_events})
            decision_rows: list[Any] = []
            event_rows: list[Any] = []
            receipts = [_admit(entry, at, known, seen, decision_rows, event_rows) for entry in entries]
            self._insert("decisions (decision_id, experiment, at, body)", 4, decision_rows)
            self._insert("reward_events (decision_id, event_id, at, body)", 4, event_rows)
        return receipts

    def _commit_new(self, entries: Sequence[Entry]) -> list[Receipt]:
        """A statement a table, which is a transaction of its own: the fewest calls that make the rows durable."""
        decisions = [(d.decision_id, d.experiment, _encode(d)) for entry in entries for d in entry.decisions]
        events = [(e.decision_id, e.event_id, _encode(e)) for entry in entries for e in entry.events]
        try:
            for table, key, rows in (("decisions", "experiment", decisions), ("reward_events", "event_id", events)):
                if rows:
                    marks = ",".join(["(?,?,?)"] * len(rows))
                    statement = f"""INSERT INTO {table} (at, decision_id, {key}, body)
                        SELECT ({_STAMP}), column1, column2, column3 FROM (VALUES {marks})"""  # noqa: S608 (constants)
                    self._db.execute(statement, [now_micros(), *chain.from_iterable(rows)])
        except sqlite3.Error as error:
            raise LogError(f"{self.path}: cannot write: {error}; nothing of this batch was stored") from error
        return [Receipt({}, (False,) * len(entry.events)) for entry in entries]

    def _insert(self, target: str, width: int, values: list[Any]) -> None:
        """Many rows a statement: SQLite works through them without the interpreter lock."""
        row = "(" + ",".join("?" * width) + ")"
        step = width * _ROWS_PER_STATEMENT
        for start in range(0, len(values), step):
            chunk = values[start : start + step]
            rows = ",".join([row] * (len(chunk) // width))
            self._db.execute(f"INSERT INTO {target} VALUES {rows}", chunk)  # noqa: S608 (placeholders only)

    def _known_decisions(self, ids: set[str]) -> dict[str, Decision]:
        found: dict[str, Decision] = {}
        for chunk in _chunks(sorted(ids)):
            marks = ",".join("?" * len(chunk))
            query = f"SELECT at, body FROM decisions WHERE decision_id IN ({marks})"  # noqa: S608 (placeholders only)
            for at, body in self._db.execute(query, chunk):
                decision = _stamped_decision(at, body)
                found[decision.decision_id] = decision
        return found

    def _known_events(self, keys: set[tuple[str, str]]) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for chunk in _chunks(sorted(keys)):
            marks = ",".join(["(?,?)"] * len(chunk))
            query = f"""SELECT decision_id, event_id FROM reward_events
                        WHERE (decision_id, event_id) IN (VALUES {marks})"""  # noqa: S608 (placeholders only)
            found.update(self._db.execute(query, [part for key in chunk for part in key]))
        return found

    # ------------------------------------------------------------------ reading

    def _ask(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query; LogError where the file can't be read."""
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise LogError(f"{self.path}: cannot read: {error}") from error

    def decision(self, decision_id: str) -> Decision | None:
        """The stored decision of that id, or None."""
        rows = self._ask("SELECT at, body FROM decisions WHERE decision_id = ?", (decision_id,))
        return _stamped_decision(*rows[0]) if rows else None

    def events(self, decision_id: str) -> list[RewardEvent]:
        """All reward events of a decision, in the order in which they came."""
        rows = self._ask("SELECT at, body FROM reward_events WHERE decision_id = ? ORDER BY seq", (decision_id,))
        return [_stamped_event(at, body) for at, body in rows]

    def read_decisions(self, after_seq: int, limit: int) -> list[tuple[int, Decision]]:
        """Committed decisions of all experiments with seq > `after_seq`, in order, at most `limit`."""
        rows = self._ask("SELECT seq, at, body FROM decisions WHERE seq > ? ORDER BY seq LIMIT ?", (after_seq, limit))
        return [(seq, _stamped_decision(at, body)) for seq, at, body in rows]

    def read_events(self, after_seq: int, limit: int) -> list[tuple[int, RewardEvent]]:
        """Committed reward events with seq > `after_seq`, in order, at most `limit`."""
        rows = self._ask(
            "SELECT seq, at, body FROM reward_events WHERE seq > ? ORDER BY seq LIMIT ?", (after_seq, limit)
        )
        return [(seq, _stamped_event(at, body)) for seq, at, body in rows]

    def matured(self, experiment: str, after_seq: int, age: int, barrier: int, limit: int) -> list[Matured]:
        """The next decisions of an experiment that were `age` µs old at `barrier`, in order, at most `limit`, each
        with the events that had come when it reached that age: the same whenever it is asked."""
        rows = self._ask(
            "SELECT seq, at, body FROM decisions WHERE experiment = ? AND seq > ? AND at <= ? ORDER BY seq LIMIT ?",
            (experiment, after_seq, barrier - age, limit),
        )
        found: dict[str, list[RewardEvent]] = {}
        if rows:
            joined = self._ask(
                """SELECT e.at, e.body FROM decisions d JOIN reward_events e USING (decision_id)
                   WHERE d.experiment = ? AND d.seq BETWEEN ? AND ? AND e.at <= d.at + ? ORDER BY e.seq""",
                (experiment, rows[0][0], rows[-1][0], age),
            )
            for at, body in joined:
                event = _stamped_event(at, body)
                found.setdefault(event.decision_id, []).append(event)
        decisions = [(seq, _stamped_decision(at, body)) for seq, at, body in rows]
        return [(seq, decision, found.get(decision.decision_id, [])) for seq, decision in decisions]

    def barrier(self) -> int:
        """A time (µs) such that every row stamped at or before it is committed and readable."""
        with self._transaction() as at:
            self._db.execute("UPDATE clock SET at = ?", (at,))
        return int(at) - 1

    def first_seq(self) -> int | None:
        """The `seq` of the oldest decision that the log still holds; None when it holds none."""
        seq: int | None = self._ask("SELECT min(seq) FROM decisions")[0][0]
        return seq

    def next_seq(self, experiment: str, after_seq: int) -> int | None:
        """The `seq` of an experiment's first decision after `after_seq`; None when there is none."""
        query = "SELECT min(seq) FROM decisions WHERE experiment = ? AND seq > ?"
        seq: int | None = self._ask(query, (experiment, after_seq))[0][0]
        return seq

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
        """Store state, watermark and version at once. Raises Conflict unless it is the successor of the newest one:
        a learner that was overtaken must not write over its successor's work."""
        blob = msgspec.msgpack.encode(snapshot.states)
        with self._transaction() as at:
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
                    at,
                    snapshot.fingerprint,
                    snapshot.start,
                    snapshot.refit_at,
                    blob,
                ),
            )

    # ------------------------------------------------------------------ audit and upkeep

    def revise(self, experiment: str, revision: str, who: str, spec: str) -> bool:
        """Note in the audit that `experiment` is now what `spec` says; False when it was so already."""
        newest = "SELECT revision FROM revisions WHERE experiment = ? ORDER BY seq DESC LIMIT 1"
        held = self._ask(newest, (experiment,))
        if held and held[0][0] == revision:
            return False
        with self._transaction() as at:
            held = self._ask(newest, (experiment,))
            if held and held[0][0] == revision:
                return False
            self._db.execute(
                "INSERT INTO revisions (experiment, revision, at, who, spec) VALUES (?, ?, ?, ?, ?)",
                (experiment, revision, at, who, spec),
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

    def forget(self, decisions_through: int, events_through: int, older_than: int, limit: int = 2_000) -> int:
        """Delete at most `limit` decisions (with their events) that have seq ≤ `decisions_through` and were stamped
        before `older_than` µs, up to the first that has an event with seq > `events_through`; returns how many went.
        What remains is the whole end of the log."""
        with self._transaction():
            ids = [
                row[0]
                for row in self._db.execute(
                    "SELECT decision_id FROM decisions WHERE seq <= ? AND at < ? ORDER BY seq LIMIT ?",
                    (decisions_through, older_than, limit),
                )
            ]
            pending = "SELECT 1 FROM reward_events WHERE decision_id = ? AND seq > ?"
            ids = list(takewhile(lambda i: not self._db.execute(pending, (i, events_through)).fetchone(), ids))
            self._db.executemany("DELETE FROM decisions WHERE decision_id = ?", [(i,) for i in ids])
            self._db.executemany("DELETE FROM reward_events WHERE decision_id = ?", [(i,) for i in ids])
        return len(ids)

    def forget_snapshots(self, experiment: str, before: int) -> int:
        """Delete the snapshots older than `before` µs that no decision in the log names; the newest always stays."""
        with self._transaction():
            cursor = self._db.execute(
                """DELETE FROM policy_snapshots WHERE experiment = ?1 AND at < ?2
                   AND version < (SELECT max(version) FROM policy_snapshots WHERE experiment = ?1)""",
                (experiment, before),
            )
        return cursor.rowcount

    def checkpoint(self) -> None:
        """Move the WAL into the file as far as readers allow, so that no API process has to."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            raise LogError(f"{self.path}: cannot checkpoint: {error}") from error


def _is_new(entry: Entry) -> bool:
    """Whether no id of the entry is a caller's, and one statement a table can take it whole."""
    keyed = entry.keyed_decisions or entry.keyed_events
    return not keyed and not (entry.decisions and entry.events)


def _size(entry: Entry) -> int:
    return len(entry.decisions) + len(entry.events)


def _admit(
    entry: Entry,
    at: int,
    known: dict[str, Decision],
    seen: set[tuple[str, str]],
    decision_rows: list[Any],
    event_rows: list[Any],
) -> Receipt:
    """Add an entry's new rows to the statement's values, or nothing of it when an id has another content."""
    stored: dict[str, Decision] = {}
    for decision in entry.decisions:
        held = known.get(decision.decision_id)
        if held is not None:
            if held.request_hash != decision.request_hash:
                return Receipt({}, (), conflict=decision.decision_id)
            stored[decision.decision_id] = held
    for decision in entry.decisions:
        if decision.decision_id not in known:
            decision_rows += (decision.decision_id, decision.experiment, at, _encode(decision))
            if decision.decision_id in entry.keyed_decisions:
                known[decision.decision_id] = decision
    duplicates = []
    for event in entry.events:
        key = (event.decision_id, event.event_id)
        duplicates.append(key in seen)
        if not duplicates[-1]:
            event_rows += (event.decision_id, event.event_id, at, _encode(event))
            if key in entry.keyed_events:
                seen.add(key)
    return Receipt(stored, tuple(duplicates))


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _ROWS_PER_STATEMENT):
        yield items[start : start + _ROWS_PER_STATEMENT]


def _stamped_decision(at: int, body: bytes) -> Decision:
    return msgspec.structs.replace(_decision.decode(body), at=at)


def _stamped_event(at: int, body: bytes) -> RewardEvent:
    return msgspec.structs.replace(_event.decode(body), at=at)
