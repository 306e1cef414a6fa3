"""The embedded log: one SQLite file that API processes and the worker share, with a journal as its
head.

A commit goes into the journal and is durable before it is acknowledged. Draining moves the
journal's rows into the tables, each exactly once, and gives them their place: `seq` grows and the
stamps along it never decrease, so that whoever holds a barrier knows that no row with an earlier
stamp can still appear.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import starmap
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from topbill.domain.chance import is_learned
from topbill.domain.errors import LogError
from topbill.domain.records import (
    Decision,
    Offer,
    QuarantinedRow,
    RewardEvent,
    RowKind,
    UnitEvent,
)
from topbill.log.bundle_table import BundleTable
from topbill.log.database import LogDatabase
from topbill.log.entries import Entry, KeyedIds, Receipt, Rows, admit
from topbill.log.file_guard import FileGuard
from topbill.log.journal import Journal
from topbill.log.leases import FileLease
from topbill.log.log_time import (
    SETTLED,
    ClockStep,
    LogTimePrediction,
    Stamps,
    boot_id,
    now_steady,
    offset_at,
    trouble,
)
from topbill.log.protocol import (
    Clock,
    Ends,
    Matured,
    Named,
    now_micros,
)
from topbill.log.recent_ids import RecentIds
from topbill.log.sql_database import ROWS, checksum
from topbill.log.table_log import TableLog

_NEWEST_STAMP = """SELECT max((SELECT at FROM clock),
    coalesce((SELECT at FROM decisions ORDER BY seq DESC LIMIT 1), 0),
    coalesce((SELECT at FROM reward_events ORDER BY seq DESC LIMIT 1), 0),
    coalesce((SELECT at FROM unit_events ORDER BY seq DESC LIMIT 1), 0))"""
_OFFSET = 'SELECT "offset" FROM clock_steps ORDER BY at DESC LIMIT 1'
_LAST_SEQ = "coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{}'), 0)"
_LAST_SEQS = (
    f"SELECT {_LAST_SEQ.format('decisions')}, {_LAST_SEQ.format('reward_events')}, "
    f"{_LAST_SEQ.format('unit_events')}"
)
_ROWS_PER_STATEMENT = 128
"""Rows of one INSERT: SQLite works on a statement without the interpreter's lock, so that decisions
go on meanwhile, and takes at most 32,766 values.
"""
_VALUES_PER_DECISION = len(ROWS["decisions"]) + 2
_REST = 1e-3
"""Seconds between two of them while the journal is drained: to make one takes about a millisecond,
so that who decides has most of the processor's time meanwhile."""
_FEW_BYTES = 16_384
"""Of the journal, which are moved with it locked;"""
_MOST_PASSES = 4
"""and how often more is looked for before that is so."""
_ROWS_PER_CHECKPOINT = 4_000

# A row's `seq`, stamp and body, and by what it is known where the body cannot be read.
_DECISIONS = "SELECT seq, at, body, experiment, decision_id, '' FROM decisions"
_EVENTS = "SELECT e.seq, e.at, e.body, '', e.event_id, e.decision_id FROM reward_events"
_UNIT_EVENTS = "SELECT seq, at, body, '', event_id, unit FROM unit_events"
# The same with the time that the clock gave: the stamp, less what log time was ahead of it then.
_CLOCK_TIME = (
    'at - coalesce((SELECT s."offset" FROM clock_steps s WHERE s.at <= {0}.at '
    "ORDER BY s.at DESC LIMIT 1), 0)"
)
_READ_DECISIONS = _DECISIONS.replace("at,", f"{_CLOCK_TIME.format('decisions')},", 1)
_READ_EVENTS = _EVENTS.replace("e.at,", f"e.{_CLOCK_TIME.format('e')},", 1)
_READ_UNIT_EVENTS = _UNIT_EVENTS.replace("at,", f"{_CLOCK_TIME.format('unit_events')},", 1)
_UNREADABLE = (msgspec.DecodeError, ValueError, TypeError, RecursionError)
"""What decoding a body raises that is no record."""

_T = TypeVar("_T")
_decode_event = msgspec.json.Decoder(RewardEvent).decode
_decode_unit_event = msgspec.json.Decoder(UnitEvent).decode


class SqliteLog(TableLog):
    """One handle on the embedded log. Not for several threads at once: a thread opens its own.

    Made of parts, each with one job: the `LogDatabase` (connection, transactions, errors), the
    `Journal` in front of it, the index of what lies in the journal (`RecentIds`), and the tables
    beside the rows (`TableLog`). What they are together is here: commits, draining and the feed.

    Raises LogError where the file cannot be opened, read or written.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock = now_micros,
        steady: Clock | None = None,
        boot: str | None = None,
    ) -> None:
        self.path = path
        # Who brings a clock of their own moves time as they like.
        own = steady is not None or clock is not now_micros
        self._steady = (steady or clock) if own else now_steady
        # Looks at the steady clock outlive the process that took them where it is the machine's.
        self._boot = (boot or "") if own else boot_id()
        self._prediction = LogTimePrediction()
        self._database = LogDatabase(path)
        try:
            self._journal = Journal(path.with_suffix(".journal"), self._database.moved)
        except OSError as error:
            self._database.close()
            raise LogError(
                f"{path}: cannot open the log: {error}; "
                "expected a SQLite file in a folder to write to"
            ) from error
        except LogError:
            self._database.close()
            raise
        super().__init__(self._database, clock)
        self._set_aside: set[tuple[RowKind, int]] = set()
        """Rows that this handle could not read, and has noted."""
        self._barrier = 0
        """The last that it gave: up to it the tables hold everything."""
        self._is_unhurried = False
        self._bundles = BundleTable(self._database)
        self._recent = RecentIds()
        self._files_guard = FileGuard(path, *self._journal.paths)
        self._journal_guard = FileGuard(self._journal.path)
        self._rows_since_checkpoint = 0

    def close(self) -> None:
        """Close the files; what was acknowledged is durable already."""
        self._journal.close()
        self._database.close()

    def check(self) -> None:
        """Raises LogError where its files are no longer those that lie at its path, or its journal
        is damaged.
        """
        self._files_guard.check()
        self._journal.check()

    def lease(self, name: str, *, shared: bool = False) -> FileLease:
        """A lock on a file beside the log; see `Log.lease`."""
        return FileLease(self.path.with_name(f"{name}.lock"), shared=shared)

    # ------------------------------------------------------------------ intake

    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        """Store a group of entries; see `Log.commit`.

        One lock, one write and one sync for the group, whatever its size: that is why the service
        gathers callers into groups.
        """
        ids = KeyedIds.of(entries)
        rows = Rows.none()
        with self._journal.locked():
            # Stamped while holding the lock: the order of stamps is the order of the journal.
            at = self._clock()
            try:
                # The commonest accident, a deleted data folder, costs one `stat` to notice here.
                self._journal_guard.check()
                self._follow(index=bool(ids))
                if ids:
                    self._look_up(ids)
                receipts = [admit(entry, at, self._recent, rows) for entry in entries]
                if rows:
                    self._write(rows, at)
            except BaseException:
                # `admit` has noted ids of a group that wasn't written. Knowing nothing is always
                # right: the index is read again.
                self._recent.restart()
                raise
        return receipts

    def _write(self, rows: Rows, at: int) -> None:
        """Write the group's frame. An index that was complete before stays complete."""
        complete = self._recent.indexed_to == self._journal.position
        self._journal.write(rows, at)
        if complete:
            self._recent.written(rows, at, self._journal.position)

    def probe(self) -> None:
        """Write what every commit and every drain writes, without any row. Raises LogError where
        that fails.
        """
        with self._journal.locked():
            self._journal.write(Rows.none(), self._clock())
        self.drain()

    def _follow(self, index: bool) -> None:
        """Bring the index up to date: without what was drained, and with what other handles wrote
        since if ids are going to be looked up (`index`).
        """
        self._recent.follow(self._journal.drained)
        position = self._journal.position
        if index and self._recent.indexed_to != position:
            for frame in self._journal.read(self._recent.indexed_to[1], position[1]):
                self._recent.add(frame.rows, frame.at, (position[0], frame.end))

    def _look_up(self, ids: KeyedIds) -> None:
        """Add to the index which of these the tables hold."""
        recent = self._recent
        unknown_ids = [i for i in ids.decisions if recent.decision(i) is None]
        if unknown_ids:
            for chunk in _chunks(unknown_ids):
                for decision in self._drained_decisions(chunk):
                    recent.decisions[decision.decision_id] = decision
            unknown_ids = [i for i in unknown_ids if i not in recent.decisions]
            recent.let_go.update(self._remembered.places(unknown_ids))
        events = ids.events - recent.events
        if events:
            recent.events.update(self._drained_keys("reward_events", sorted(events)))
            recent.events.update(self._remembered.events(events - recent.events))
        unit_events = ids.unit_events - recent.unit_events
        if unit_events:
            recent.unit_events.update(self._drained_keys("unit_events", sorted(unit_events)))

    def _drained_keys(self, table: str, keys: Sequence[tuple[str, ...]]) -> Iterator[Any]:
        """Those of the keys that a table of events holds."""
        columns = ROWS[table][:-1]
        for chunk in _chunks(keys):
            marks = ",".join([_marks(len(columns))] * len(chunk))
            values = [part for key in chunk for part in key]
            names = ", ".join(columns)
            query = f"SELECT {names} FROM {table} WHERE ({names}) IN (VALUES {marks})"  # noqa: S608 (own names)
            yield from self._database.rows(query, values)

    def _drained_decisions(self, decision_ids: Sequence[str]) -> list[Decision]:
        """Those of the ids that the tables hold, for at most `_ROWS_PER_STATEMENT` ids. One that
        cannot be read is as one that was let go: its id is used, and what for can't be said.
        """
        query = _decisions_of(len(decision_ids))
        # Nearly always there are none.
        if not self._database.rows(query, decision_ids):
            return []
        decisions = []
        with self._database.snapshot():
            for decision_id, at, body in self._database.rows(query, decision_ids):
                try:
                    decisions.append(self._stamped_decision(at, body))
                except _UNREADABLE:
                    # Whoever reads the feed sets it aside and says so.
                    self._recent.let_go.add(decision_id)
        return decisions

    # ------------------------------------------------------------------ look-ups

    def decision(self, decision_id: str) -> Decision | None:
        """The stored decision of that id, or None."""
        drained = self._journal.drained
        self._recent.follow(drained)
        # First without the journal's lock, which a commit may hold for as long as a sync takes.
        decision = self._recent.decision(decision_id) or self._drained_decision(decision_id)
        if decision is None and self._journal.position != drained:
            with self._journal.locked():
                self._follow(index=True)
            decision = self._recent.decision(decision_id)
            # Draining may have moved it between the two looks: it was still in the journal when the
            # tables were read, and no longer when the journal was.
            if decision is None and self._recent.drained != drained:
                decision = self._drained_decision(decision_id)
        return decision

    def decisions(self, decision_ids: Collection[str]) -> dict[str, Decision]:
        """The stored decisions of these ids, by id; see `Log.decisions`."""
        with self._journal.locked():
            self._follow(index=True)
            self._look_up(KeyedIds(set(decision_ids), set(), set()))
        stored = self._recent.decisions
        return {i: stored[i] for i in decision_ids if i in stored}

    def _drained_decision(self, decision_id: str) -> Decision | None:
        return next(iter(self._drained_decisions((decision_id,))), None)

    def places(self, decision_ids: Collection[str]) -> dict[str, int]:
        """The `seq` of decisions that are only remembered; see `Log.places`."""
        return self._remembered.places(decision_ids)

    # ------------------------------------------------------------------ draining

    def tend(self, *, thorough: bool = False) -> None:
        """Drain; with `thorough` also move the WAL into the file."""
        self.drain()
        if thorough:
            self._database.checkpoint()
            self._rows_since_checkpoint = 0

    def drain(self, *, whole: bool = False) -> None:
        """Move what the journal holds into the tables; with `whole` also start it anew, so that
        none of it lies there any more but what comes from then on.
        """
        if not self._journal.empty or whole:
            with self._drained(whole=whole):
                pass
        # Without a worker nobody else would do it, and the WAL would grow for ever.
        if self._rows_since_checkpoint >= _ROWS_PER_CHECKPOINT:
            self._database.checkpoint()
            self._rows_since_checkpoint = 0

    def barrier(self) -> int:
        """A time such that every row stamped at or before it is in the tables, and every later one
        after it.
        """
        if self._is_unhurried:
            # The last that anybody gave.
            ((at,),) = self._database.rows("SELECT at FROM clock")
            self._barrier = max(self._barrier, at - 1)
            return self._barrier
        with self._drained() as (stamps, reading):
            # The clock table remembers the barrier: should the machine's clock go back, what comes
            # then is stamped no earlier than this all the same.
            at = stamps.of(reading)
            if stamps.stepped:
                self._note_step(stamps)
            self._database.execute("UPDATE clock SET at = ?", (at,))
            if self._boot:
                look = (self._boot, self._steady(), at)
                self._database.execute(
                    "INSERT OR REPLACE INTO clock_look VALUES (0, ?, ?, ?)", look
                )
        self._barrier = at - 1
        return self._barrier

    def ends(self) -> Ends:
        """The last `seq` of each kind of row; see `Log.ends`."""
        # Of one statement, and so of one moment: whoever drains meanwhile moves an event together
        # with its decision, or after it.
        (last,) = self._database.rows(_LAST_SEQS)
        return Ends(*last)

    def _stamps(self) -> Stamps:
        """What stamps go on from, as the tables say now."""
        ((newest,),) = self._database.rows(_NEWEST_STAMP)
        offset = self._database.rows(_OFFSET)
        if self._boot and not self._prediction.is_known:
            look = "SELECT at, steady FROM clock_look WHERE boot = ?"
            for at, steady in self._database.rows(look, (self._boot,)):
                self._prediction.see(at, steady)
        latest = self._prediction.latest(self._steady())
        return Stamps(newest, offset[0][0] if offset else 0, latest)

    def _note_step(self, stamps: Stamps) -> None:
        """Note that log time and clock part here, inside of the transaction that stamps so."""
        last = self.ends()
        row = (stamps.newest, stamps.offset, last.decisions, last.events)
        self._database.insert("clock_steps", [row], "replace")

    def clock_steps(self) -> list[ClockStep]:
        """Where the machine's clock was set; see `Log.clock_steps`."""
        rows = self._database.rows(
            'SELECT at, "offset", decisions, events FROM clock_steps ORDER BY at'
        )
        return [ClockStep(*row) for row in rows]

    def clock_trouble(self, within: int = SETTLED) -> str | None:
        """What is wrong with the machine's clock; see `Log.clock_trouble`."""
        stamps = self._stamps()
        reading = self._clock()
        if stamps.is_off(reading):
            self.barrier()
            stamps = self._stamps()
        now = reading + stamps.offset
        self._prediction.see(now, self._steady())
        return trouble(self.clock_steps(), now, within)

    @contextmanager
    def _drained(self, *, whole: bool = False) -> Iterator[tuple[Stamps, int]]:
        """A transaction that moves the journal into the tables, each row once; yields what stamps
        go on from then, and the clock's reading when nobody had written more.

        The journal is locked for no longer than it takes to see where it ends, so that no viewer
        waits for the commit; but where the journal is long, or is to be started anew: then the
        little that came meanwhile is moved, and committed, while nothing is stored.
        The order of the two locks is always database, then journal: `commit` takes only the
        journal's and reads the database, which needs no lock in WAL mode.
        """
        with ExitStack() as journal_lock:
            with self._database.transaction():
                stamps = self._stamps()
                generation, before = self._database.moved()
                # In doubt, read nothing before the lock has settled where the journal ends.
                moved = before
                for _ in range(_MOST_PASSES):
                    end = self._journal.position[1] if self._journal.certain else 0
                    if end - moved <= _FEW_BYTES:
                        break
                    self._move(moved, end, stamps, rest=_REST)
                    moved = end
                self._database.sync_ahead()
                journal_lock.enter_context(self._journal.locked())
                end, reading = self._journal.position[1], self._clock()
                restarts = end > 0 and (whole or self._journal.is_long)
                if not restarts:
                    journal_lock.close()
                self._move(moved, end, stamps, rest=0.0 if restarts else _REST)
                yield stamps, reading
                # The commit of this transaction is the moment at which the rows change sides.
                if restarts:
                    # Whoever dies around it leaves the doubt, and the tables answer it.
                    self._database.note_moved(generation + 1, 0)
                    self._journal.doubt()
                elif end != before:
                    self._database.note_moved(generation, end)
            if restarts:
                self._journal.restart(generation + 1)
        if not restarts:
            self._note_drained(generation, end)
        self._prediction.see(self._clock() + stamps.offset, self._steady())

    def _note_drained(self, generation: int, end: int) -> None:
        """Tell all processes up to where the tables hold the journal, unless they know of more."""
        with self._journal.locked():
            drained = self._journal.drained
            if drained[0] == generation and drained[1] < end:
                self._journal.note_moved(end)

    def _move(self, start: int, end: int, stamps: Stamps, rest: float = 0.0) -> None:
        """Insert the journal's rows between two positions, stamped in log time: a clock that went
        back must not break the promise that stamps never fall along `seq`. After each statement's
        worth of decisions, `rest` seconds: whoever shares the processor has it then.
        """
        values: dict[str, list[Any]] = {table: [] for table in ROWS}
        for frame in self._journal.read(start, end):
            newest = stamps.of(frame.at)
            if stamps.stepped:
                # What came before has its `seq`s when the step is noted.
                self._insert_all(values)
                self._note_step(stamps)
            decisions, events, unit_events, bundles = frame.rows
            for ids, bundle in bundles:
                decisions += self._bundles.add(bundle, ids)
            # In the order of `ROWS`.
            tables: Sequence[Sequence[tuple[str | bytes, ...]]] = (decisions, events, unit_events)
            for waiting, rows in zip(values.values(), tables, strict=True):
                for row in rows:
                    waiting += (*row, newest, checksum((*row, newest)))
            if len(values["decisions"]) >= _VALUES_PER_DECISION * _ROWS_PER_STATEMENT:
                self._insert_all(values)
                time.sleep(rest)
        self._insert_all(values)

    def _insert_all(self, values: dict[str, list[Any]]) -> None:
        """Insert what waits for each table, and wait for nothing more."""
        for table, waiting in values.items():
            self._insert(table, waiting)
            waiting.clear()

    def _insert(self, table: str, values: Sequence[Any]) -> None:
        """Insert rows, whose values are given one after the other.

        A row that is there already is left alone: two unkeyed rows with one id are a caller's
        mistake that must not stop draining for everybody.
        """
        columns = (*ROWS[table], "at", "checksum")
        self._rows_since_checkpoint += len(values) // len(columns)
        insert = f"INSERT INTO {table} ({', '.join(columns)})"
        for chunk in _chunks(values, len(columns) * _ROWS_PER_STATEMENT):
            marks = ",".join([_marks(len(columns))] * (len(chunk) // len(columns)))
            self._database.execute(f"{insert} VALUES {marks} ON CONFLICT DO NOTHING", chunk)

    # ------------------------------------------------------------------ feed

    @contextmanager
    def unhurried(self) -> Iterator[None]:
        """Within it nothing is drained to be read; see `Log.unhurried`."""
        self._is_unhurried = True
        try:
            yield
        finally:
            self._is_unhurried = False

    def _drain_to_read(self) -> None:
        if not self._is_unhurried:
            self.drain()

    def _feed(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query to the tables, which hold everything then."""
        self._drain_to_read()
        return self._database.rows(query, values)

    def _first(self, query: str, values: Sequence[Any] = ()) -> int | None:
        """The `seq` that a query finds first, None where there is none. What waits in the journal
        comes behind whatever the tables hold.
        """
        seq: int | None = self._database.rows(query, values)[0][0]
        return self._feed(query, values)[0][0] if seq is None else seq

    def events(self, decision_id: str) -> list[RewardEvent]:
        """All reward events of a decision, in the order in which they came."""
        self._drain_to_read()
        query = f"{_READ_EVENTS} e WHERE e.decision_id = ? ORDER BY seq"
        _, events = self._records("reward", query, (decision_id,), _stamped_event)
        return [event for _, event in events]

    def read_decisions(self, after_seq: int, limit: int) -> list[tuple[int, Decision]]:
        """Committed decisions of all experiments with seq > `after_seq`, in order, at most
        `limit`.
        """
        decode = self._stamped_decision
        return self._read("decision", _READ_DECISIONS, decode, after_seq, limit)

    def read_events(self, after_seq: int, limit: int) -> list[tuple[int, RewardEvent]]:
        """Committed reward events with seq > `after_seq`, in order, at most `limit`."""
        return self._read("reward", f"{_READ_EVENTS} e", _stamped_event, after_seq, limit)

    def read_unit_events(self, after_seq: int, limit: int) -> list[tuple[int, UnitEvent]]:
        """Committed events of units with seq > `after_seq`, in order, at most `limit`."""
        return self._read("event", _READ_UNIT_EVENTS, _stamped_unit_event, after_seq, limit)

    def _read(
        self,
        kind: RowKind,
        select: str,
        decode: Callable[[int, bytes], _T],
        after_seq: int,
        limit: int,
    ) -> list[tuple[int, _T]]:
        """The next rows of a table that can be read."""
        query = f"{select} WHERE seq > ? ORDER BY seq LIMIT ?"
        while True:
            rows, records = self._records(kind, query, (after_seq, limit), decode)
            # What waits in the journal comes behind these.
            if len(rows) < limit and not self._journal.empty and not self._is_unhurried:
                self.drain()
                rows, records = self._records(kind, query, (after_seq, limit), decode)
            if records or not rows:
                return records
            # None of them could be read: behind them may be others.
            after_seq = rows[-1][0]

    def _records(
        self,
        kind: RowKind,
        query: str,
        values: Sequence[Any],
        decode: Callable[[int, bytes], _T],
    ) -> tuple[list[Any], list[tuple[int, _T]]]:
        """The rows of a query to the tables; and the records of those that can be read, with their
        `seq`. One that cannot is set aside: the others must not wait for it.
        """
        # A row may name a bundle, which is read then: both as of one moment.
        with self._database.snapshot():
            rows = self._database.rows(query, values)
            records, unreadable = self._decoded(kind, rows, decode)
        self._note_unreadable(unreadable)
        return rows, records

    def _note_unreadable(self, unreadable: Sequence[QuarantinedRow]) -> None:
        """Set rows aside that cannot be read."""
        if unreadable:
            self.set_aside(unreadable)
            self._set_aside.update((row.kind, row.seq) for row in unreadable)

    def _decoded(
        self, kind: RowKind, rows: Sequence[Any], decode: Callable[[int, bytes], _T]
    ) -> tuple[list[tuple[int, _T]], list[QuarantinedRow]]:
        """The records of rows with their `seq`, and the rows that cannot be read and were not set
        aside before.
        """
        records = []
        unreadable = []
        for seq, at, body, experiment, row_id, belongs_to in rows:
            try:
                records.append((seq, decode(at, body)))
            except _UNREADABLE as error:
                if (kind, seq) not in self._set_aside:
                    reason = f"{type(error).__name__}: {error}"
                    unreadable.append(
                        QuarantinedRow(
                            kind, "read", experiment, row_id, belongs_to, seq, reason, body
                        )
                    )
        return records, unreadable

    def _stamped_decision(self, at: int, body: bytes) -> Decision:
        """A row's decision. The stamp is the row's: the body was written before it was final."""
        return self._bundles.decision(body, at)

    def _offering(self, at: int, body: bytes) -> tuple[Decision, list[Offer] | None]:
        """A row's decision, and what it offered where that is read with it."""
        return self._bundles.decision(body, at), self._bundles.offers(body)

    def matured(
        self,
        experiment: str,
        after_seq: int,
        age: int,
        barrier: int,
        limit: int,
        share: float = 1.0,
    ) -> list[Matured]:
        """The next decisions that reached an age, each with its events; see `Log.matured`."""
        if barrier > self._barrier:
            self.drain()
        decisions = self._matured_decisions(experiment, after_seq, barrier - age, limit, share)
        if not decisions:
            return []
        events: dict[str, list[RewardEvent]] = {}
        for _, (decision, _) in decisions:
            events[decision.decision_id] = []
        event_rows = self._database.rows(
            f"""{_EVENTS} e JOIN decisions d USING (decision_id)
                WHERE d.experiment = ? AND d.seq BETWEEN ? AND ? AND e.at <= d.at + ?
                ORDER BY e.seq""",
            (experiment, decisions[0][0], decisions[-1][0], age),
        )
        # The last of a row's columns is its decision's id.
        own_rows = [row for row in event_rows if row[-1] in events]
        steps = self.clock_steps()
        came, unreadable = self._decoded("reward", own_rows, _stamped_event)
        self._note_unreadable(unreadable)
        for _, event in came:
            if steps and event.occurred_at is not None:
                occurred_at = event.occurred_at + offset_at(steps, event.received_at)
                event = msgspec.structs.replace(event, occurred_at=occurred_at)
            events[event.decision_id].append(event)
        matured = []
        for seq, (decision, offers) in decisions:
            matured.append(Matured(seq, decision, events[decision.decision_id], offers))
        return matured

    def _matured_decisions(
        self, experiment: str, after_seq: int, until: int, limit: int, share: float
    ) -> list[tuple[int, tuple[Decision, list[Offer] | None]]]:
        """The decisions of `matured`, each with what it offered; empty where there are no more."""
        query = f"{_DECISIONS} WHERE experiment = ? AND seq > ? AND at <= ? ORDER BY seq LIMIT ?"
        while True:
            # A row may name a bundle, which is read then: both as of one moment.
            with self._database.snapshot():
                rows = self._database.rows(query, (experiment, after_seq, until, limit))
                rows = self._bundles.together(rows)
                chosen = rows
                if share < 1.0:
                    chosen = [row for row in rows if is_learned(row[4], share)]
                decisions, unreadable = self._decoded("decision", chosen, self._offering)
            self._note_unreadable(unreadable)
            if decisions or not rows:
                return decisions
            after_seq = rows[-1][0]

    def named(self, experiment: str, after_seq: int, barrier: int, limit: int) -> list[Named]:
        """The next decisions by their ids; see `Log.named`."""
        if barrier > self._barrier:
            self.drain()
        query = (
            "SELECT seq, decision_id, at FROM decisions "
            "WHERE experiment = ? AND seq > ? AND at <= ? ORDER BY seq LIMIT ?"
        )
        rows = self._database.rows(query, (experiment, after_seq, barrier, limit))
        return list(starmap(Named, rows))

    def last_matured(self, experiment: str, after_seq: int, age: int, barrier: int) -> int | None:
        """The last decision that reached an age; see `Log.last_matured`."""
        query = "SELECT max(seq) FROM decisions WHERE experiment = ? AND seq > ? AND at <= ?"
        seq: int | None = self._feed(query, (experiment, after_seq, barrier - age))[0][0]
        return seq

    def first_seq(self) -> int | None:
        """The `seq` of the oldest decision that the log still holds; None when it holds none."""
        return self._first("SELECT min(seq) FROM decisions")

    def next_seq(self, experiment: str, after_seq: int) -> int | None:
        """The `seq` of an experiment's first decision after `after_seq`; None when there is
        none.
        """
        query = "SELECT min(seq) FROM decisions WHERE experiment = ? AND seq > ?"
        return self._first(query, (experiment, after_seq))

    def forget(
        self, decisions_through: int, events_through: int, older_than: int, limit: int = 2_000
    ) -> int:
        """Delete the oldest decisions with their events; see `Log.forget`."""
        tables = {"decisions": decisions_through, "reward_events": events_through}
        if not any(self._has_old(table, through, older_than) for table, through in tables.items()):
            return 0
        # What still lies in the journal may be an event of a decision that is about to go.
        self.drain()
        with self._database.transaction():
            oldest = self._database.execute(
                """SELECT decision_id, seq, at FROM decisions
                   WHERE seq <= ? AND at < ? ORDER BY seq LIMIT ?""",
                (decisions_through, older_than, limit),
            )
            forgotten: list[tuple[str, int, int]] = []
            events: list[tuple[str, str, int]] = []
            for decision_id, seq, at in oldest.fetchall():
                own = self._database.execute(
                    "SELECT decision_id, event_id, at, seq FROM reward_events "
                    "WHERE decision_id = ?",
                    (decision_id,),
                ).fetchall()
                # The first one with an event that is not safe elsewhere ends it, so that what
                # remains has no gap.
                if any(event_seq > events_through for *_, event_seq in own):
                    break
                forgotten.append((decision_id, seq, at))
                events += [row[:3] for row in own]
            self._database.execute_many(
                "DELETE FROM decisions WHERE decision_id = ?", [row[:1] for row in forgotten]
            )
            events += self._events_alone(events_through, older_than, limit)
            self._database.execute_many(
                "DELETE FROM reward_events WHERE decision_id = ? AND event_id = ?",
                [row[:2] for row in events],
            )
            self._remembered.add(forgotten, events)
            self._bundles.forget()
        # A look-up since the last drain may have left a decision in memory that is gone now.
        with self._journal.locked():
            self._recent.restart(self._journal.drained)
        return len(forgotten)

    def forget_unit_events(self, through: int, older_than: int, limit: int = 2_000) -> int:
        """Delete the oldest events of units; see `Log.forget_unit_events`."""
        if not self._has_old("unit_events", through, older_than):
            return 0
        self.drain()
        with self._database.transaction():
            # Stamps never fall along `seq`, so what is old enough is the beginning of the table.
            deleted = self._database.execute(
                """DELETE FROM unit_events WHERE seq IN (SELECT seq FROM unit_events
                   WHERE seq <= ? AND at < ? ORDER BY seq LIMIT ?)""",
                (through, older_than, limit),
            )
        # A look-up since the last drain may have left an id in memory that is gone now.
        with self._journal.locked():
            self._recent.restart(self._journal.drained)
        return deleted.rowcount

    def _has_old(self, table: str, through: int, older_than: int) -> bool:
        """Whether there may be rows of a table up to a `seq` that are stamped before `older_than`.
        Stamps never fall along `seq`, so the first one tells, and what waits in the journal is
        stamped no earlier than anything in the tables.
        """
        first = self._database.rows(f"SELECT seq, at FROM {table} ORDER BY seq LIMIT 1")  # noqa: S608 (own names)
        if not first:
            return older_than > self._stamps().newest
        ((seq, at),) = first
        return bool(seq <= through and at < older_than)

    def _events_alone(self, through: int, older_than: int, limit: int) -> list[Any]:
        """Those of the oldest events whose decision is gone, as (decision_id, event_id, at)."""
        query = """SELECT decision_id, event_id, at
            FROM (SELECT * FROM reward_events WHERE seq <= ? AND at < ? ORDER BY seq LIMIT ?) e
            WHERE NOT EXISTS (SELECT 1 FROM decisions d WHERE d.decision_id = e.decision_id)"""
        return self._database.execute(query, (through, older_than, limit)).fetchall()

    def forget_ids(self, older_than: int, limit: int = 20_000) -> int:
        """Forget remembered ids; see `Log.forget_ids`."""
        with self._database.transaction():
            forgotten = self._remembered.forget(older_than, limit)
        if forgotten:
            with self._journal.locked():
                self._recent.restart(self._journal.drained)
        return forgotten

    def forget_recent(self) -> None:
        """Keep nothing of any row in this handle's memory."""
        self._recent.restart()


def _chunks(items: Sequence[_T], size: int = _ROWS_PER_STATEMENT) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@cache
def _decisions_of(count: int) -> str:
    """The query for the decisions of so many ids."""
    marks = _marks(count)
    stamp = _CLOCK_TIME.format("decisions")
    return f"SELECT decision_id, {stamp}, body FROM decisions WHERE decision_id IN {marks}"  # noqa: S608 (marks only)


def _marks(count: int) -> str:
    """Places for the values of one row."""
    return f"({','.join('?' * count)})"


def _stamped_event(at: int, body: bytes) -> RewardEvent:
    event = _decode_event(body)
    msgspec.structs.force_setattr(event, "received_at", at)
    return event


def _stamped_unit_event(at: int, body: bytes) -> UnitEvent:
    event = _decode_unit_event(body)
    msgspec.structs.force_setattr(event, "received_at", at)
    return event
