"""The embedded log: one SQLite file that API processes and the keeper share, with a journal as its
head.

A commit goes into the journal and is durable before it is acknowledged. Draining moves the
journal's rows into the tables, each exactly once, and gives them their place: `seq` grows and the
stamps along it never decrease, so that whoever holds a barrier knows that no row with an earlier
stamp can still appear.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from topbill.domain.errors import Conflict, LogError
from topbill.domain.records import Decision, RewardEvent
from topbill.log.entries import Entry, Receipt, admit, all_keyed
from topbill.log.file_guard import Place
from topbill.log.journal import Journal, Rows
from topbill.log.store import Store, now_micros

_NEWEST = """SELECT max((SELECT at FROM clock),
    coalesce((SELECT at FROM decisions ORDER BY seq DESC LIMIT 1), 0),
    coalesce((SELECT at FROM reward_events ORDER BY seq DESC LIMIT 1), 0))"""
_INSERT = {
    "decisions": "decisions (decision_id, experiment, body, at)",
    "reward_events": "reward_events (decision_id, event_id, body, at)",
}
_ROWS_PER_STATEMENT = 256
_ROWS_PER_CHECKPOINT = 4_000

_T = TypeVar("_T")
_decision = msgspec.json.Decoder(Decision)
_event = msgspec.json.Decoder(RewardEvent)

Matured = tuple[int, Decision, list[RewardEvent]]
"""A decision that reached an age, after its `seq`, and the events that had come by then."""


class SqliteLog(Store):
    """One handle on the log. Not for several threads at once: a thread opens its own.

    Raises LogError where the file cannot be opened, read or written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._db.execute(
                "PRAGMA wal_autocheckpoint=0"
            )  # it would run with the journal's lock held
            self._journal = Journal(path.with_suffix(".journal"), self._generation)
        except (OSError, sqlite3.Error) as error:
            self._db.close()
            raise LogError(
                f"{path}: cannot open the log: {error}; expected a SQLite file in a folder to write to"
            ) from error
        self._files, self._head = Place(path, *self._journal.paths), Place(self._journal.path)
        self._decisions: dict[str, Decision]
        self._bodies: dict[
            str, tuple[int, bytes]
        ]  # of those that other handles wrote, until somebody asks for one
        self._events: set[tuple[str, str]]
        self._place: tuple[int, int]
        self._heed(0)
        self._unchecked = 0

    def close(self) -> None:
        """Close the files; what was acknowledged is durable already."""
        self._journal.close()
        super().close()

    def check(self) -> None:
        """Raises LogError where its files are no longer those that lie at its path."""
        self._files.check()

    # ------------------------------------------------------------------ intake

    def append(
        self, decisions: Sequence[Decision] = (), events: Sequence[RewardEvent] = ()
    ) -> Receipt:
        """Store one entry durably. Every id counts as the caller's. Raises Conflict where one was
        used before.
        """
        receipt = self.commit([all_keyed(decisions, events)])[0]
        if receipt.conflict is not None:
            raise Conflict(
                f"decision_id {receipt.conflict!r} was used before with another request; use a new id"
            )
        return receipt

    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        """Store a group of entries; returns when they are durable, a receipt an entry. An entry is
        stored whole or not at all."""
        decision_ids = {i for entry in entries for i in entry.keyed_decisions}
        event_keys = {k for entry in entries for k in entry.keyed_events}
        rows = Rows([], [])
        with self._journal.locked():
            at = now_micros()
            try:
                self._head.check()
                self._follow(index=bool(decision_ids or event_keys))
                self._look_up(decision_ids, event_keys)
                receipts = [
                    admit(entry, at, self._decisions, self._events, rows) for entry in entries
                ]
                if rows.decisions or rows.events:
                    followed = self._place == self._journal.position
                    self._journal.write(rows, at)
                    self._place = self._journal.position if followed else self._place
            except BaseException:
                self._heed(0)  # what was noted of a group that wasn't written is forgotten
                raise
        return receipts

    def probe(self) -> None:
        """Write what every commit and every drain writes, without any row. Raises LogError where
        that fails.
        """
        with self._journal.locked():
            self._journal.write(Rows([], []), now_micros())
        self.drain()

    def _follow(self, index: bool) -> None:
        """Know what the journal holds: drop what was drained, and `index` what other processes
        wrote since.
        """
        generation, end = self._journal.position
        if self._place[0] != generation:
            self._heed(generation)
        if index and self._place[1] != end:
            for frame in self._journal.read(self._place[1], end):
                self._bodies.update((row[0], (frame.at, row[2])) for row in frame.rows.decisions)
                self._events.update((event[0], event[1]) for event in frame.rows.events)
            self._place = (generation, end)

    def _heed(self, generation: int) -> None:
        self._decisions, self._bodies, self._events, self._place = {}, {}, set(), (generation, 0)

    def _noted(self, decision_id: str) -> Decision | None:
        """What is known of it without the tables."""
        if decision_id in self._bodies:
            self._decisions[decision_id] = _stamped_decision(*self._bodies.pop(decision_id))
        return self._decisions.get(decision_id)

    def _look_up(self, decision_ids: set[str], event_keys: set[tuple[str, str]]) -> None:
        """Note which of these the tables hold."""
        for chunk in _chunks(sorted(i for i in decision_ids if self._noted(i) is None)):
            marks = ",".join("?" * len(chunk))
            query = f"SELECT at, body FROM decisions WHERE decision_id IN ({marks})"  # noqa: S608 (placeholders only)
            for at, body in self._ask(query, chunk):
                decision = _stamped_decision(at, body)
                self._decisions[decision.decision_id] = decision
        for pairs in _chunks(sorted(event_keys - self._events)):
            marks = ",".join(["(?,?)"] * len(pairs))
            query = f"""SELECT decision_id, event_id FROM reward_events
                        WHERE (decision_id, event_id) IN (VALUES {marks})"""  # noqa: S608 (placeholders only)
            self._events.update(self._ask(query, [part for key in pairs for part in key]))

    def decision(self, decision_id: str) -> Decision | None:
        """The stored decision of that id, or None."""
        generation = self._journal.position[0]
        if self._place[0] != generation:
            self._heed(generation)
        held = self._noted(decision_id) or self._drained_decision(decision_id)
        if held is None and self._journal.position != (generation, 0):
            with self._journal.locked():
                self._follow(index=True)
            held = self._noted(decision_id)
            if held is None and self._place[0] != generation:  # it was moved between the two looks
                held = self._drained_decision(decision_id)
        return held

    def _drained_decision(self, decision_id: str) -> Decision | None:
        rows = self._ask("SELECT at, body FROM decisions WHERE decision_id = ?", (decision_id,))
        return _stamped_decision(*rows[0]) if rows else None

    # ------------------------------------------------------------------ draining

    def drain(self) -> None:
        """Move what the journal holds into the tables."""
        if not self._journal.empty:
            with self._drained():
                pass
        if self._unchecked >= _ROWS_PER_CHECKPOINT:
            self.checkpoint()
            self._unchecked = 0

    def barrier(self) -> int:
        """A time (µs) such that every row stamped at or before it is in the tables, and every later
        one after it.
        """
        with self._drained() as newest:
            at = max(now_micros(), newest)
            self._db.execute("UPDATE clock SET at = ?", (at,))
        return at - 1

    @contextmanager
    def _drained(self) -> Iterator[int]:
        """A transaction that moves the journal into the tables, each row once; yields the newest
        stamp there.

        Most is moved while others go on writing; what came meanwhile, and the commit, with the
        journal locked.
        """
        with ExitStack() as alone:
            with self._transaction():
                newest, generation = (
                    int(self._db.execute(_NEWEST).fetchone()[0]),
                    self._generation(),
                )
                moved = self._journal.position[1] if self._journal.certain else 0
                newest = self._move(0, moved, newest)
                alone.enter_context(self._journal.locked())
                end = self._journal.position[1]
                newest = self._move(moved, end, newest)
                yield newest
                if end:
                    self._db.execute("UPDATE journal SET generation = ?", (generation + 1,))
                    self._journal.doubt()
            if end:
                self._journal.restart(generation + 1)

    def _move(self, start: int, end: int, newest: int) -> int:
        """Insert the journal's rows between two positions; returns the newest stamp. None is before
        `newest`.
        """
        values: dict[str, list[Any]] = {table: [] for table in _INSERT}
        for frame in self._journal.read(start, end):
            newest = max(newest, frame.at)
            for rows, target in zip(frame.rows, values.values(), strict=True):
                for row in rows:
                    target += (*row, newest)
        for table, target in values.items():
            self._unchecked += len(target) // 4
            for chunk in _chunks(
                target, 4 * _ROWS_PER_STATEMENT
            ):  # SQLite works without the interpreter lock
                marks = ",".join(["(?,?,?,?)"] * (len(chunk) // 4))
                self._db.execute(
                    f"INSERT INTO {_INSERT[table]} VALUES {marks} ON CONFLICT DO NOTHING",  # noqa: S608
                    chunk,
                )
        return newest

    def _generation(self) -> int:
        return int(self._ask("SELECT generation FROM journal")[0][0])

    # ------------------------------------------------------------------ reading

    def _feed(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query to the tables, which hold everything then."""
        self.drain()
        return self._ask(query, values)

    def events(self, decision_id: str) -> list[RewardEvent]:
        """All reward events of a decision, in the order in which they came."""
        rows = self._feed(
            "SELECT at, body FROM reward_events WHERE decision_id = ? ORDER BY seq", (decision_id,)
        )
        return [_stamped_event(at, body) for at, body in rows]

    def read_decisions(self, after_seq: int, limit: int) -> list[tuple[int, Decision]]:
        """Committed decisions of all experiments with seq > `after_seq`, in order, at most
        `limit`.
        """
        rows = self._feed(
            "SELECT seq, at, body FROM decisions WHERE seq > ? ORDER BY seq LIMIT ?",
            (after_seq, limit),
        )
        return [(seq, _stamped_decision(at, body)) for seq, at, body in rows]

    def read_events(self, after_seq: int, limit: int) -> list[tuple[int, RewardEvent]]:
        """Committed reward events with seq > `after_seq`, in order, at most `limit`."""
        rows = self._feed(
            "SELECT seq, at, body FROM reward_events WHERE seq > ? ORDER BY seq LIMIT ?",
            (after_seq, limit),
        )
        return [(seq, _stamped_event(at, body)) for seq, at, body in rows]

    def matured(
        self, experiment: str, after_seq: int, age: int, barrier: int, limit: int
    ) -> list[Matured]:
        """The next decisions of an experiment that were `age` µs old at `barrier`, in order, at
        most `limit`, each with the events that had come when it reached that age: the same whenever
        it is asked."""
        rows = self._feed(
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

    def first_seq(self) -> int | None:
        """The `seq` of the oldest decision that the log still holds; None when it holds none."""
        seq: int | None = self._feed("SELECT min(seq) FROM decisions")[0][0]
        return seq

    def next_seq(self, experiment: str, after_seq: int) -> int | None:
        """The `seq` of an experiment's first decision after `after_seq`; None when there is
        none.
        """
        query = "SELECT min(seq) FROM decisions WHERE experiment = ? AND seq > ?"
        seq: int | None = self._feed(query, (experiment, after_seq))[0][0]
        return seq

    def forget(
        self, decisions_through: int, events_through: int, older_than: int, limit: int = 2_000
    ) -> int:
        """Delete at most `limit` decisions (with their events) that have seq ≤ `decisions_through`
        and were stamped before `older_than` µs, up to the first that has an event with seq >
        `events_through`; returns how many went. What remains is the whole end of the log."""
        self.drain()
        with self._transaction():
            ids = [
                row[0]
                for row in self._db.execute(
                    "SELECT decision_id FROM decisions WHERE seq <= ? AND at < ? ORDER BY seq LIMIT ?",
                    (decisions_through, older_than, limit),
                )
            ]
            pending = "SELECT 1 FROM reward_events WHERE decision_id = ? AND seq > ?"
            ids = list(
                takewhile(
                    lambda i: not self._db.execute(pending, (i, events_through)).fetchone(), ids
                )
            )
            self._db.executemany("DELETE FROM decisions WHERE decision_id = ?", [(i,) for i in ids])
            self._db.executemany(
                "DELETE FROM reward_events WHERE decision_id = ?", [(i,) for i in ids]
            )
        return len(ids)


def _chunks(items: Sequence[_T], size: int = _ROWS_PER_STATEMENT) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _stamped_decision(at: int, body: bytes) -> Decision:
    return msgspec.structs.replace(_decision.decode(body), decided_at=at)


def _stamped_event(at: int, body: bytes) -> RewardEvent:
    return msgspec.structs.replace(_event.decode(body), received_at=at)
