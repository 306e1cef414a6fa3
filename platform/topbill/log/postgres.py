"""The shared log: a PostgreSQL database that API processes and workers of many machines share.

A group is one statement, in a transaction of its own. Groups of several machines end in another
order than they began; so a reader reads only behind a *fence*, a time that it writes down before it
takes a transaction number. Whoever has a later number sees the fence and stamps after it; once all
that have an earlier one have ended, nothing at or before the fence can come any more.
"""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import takewhile
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from topbill.domain.chance import is_learned
from topbill.domain.errors import LogError
from topbill.domain.origin import Origin
from topbill.domain.records import (
    Decision,
    QuarantinedRow,
    RewardEvent,
    RowKind,
    Snapshot,
    UnitEvent,
)
from topbill.log.bundles import decisions_of
from topbill.log.entries import (
    Entry,
    EventKey,
    KeyedIds,
    Receipt,
    Rows,
    UnitEventKey,
    admit,
    all_keyed,
)
from topbill.log.log_time import SETTLED, TOLERANCE, ClockStep
from topbill.log.postgres_database import IN_ORDER, PostgresDatabase
from topbill.log.postgres_leases import AdvisoryLease
from topbill.log.postgres_listener import CHANNEL, SnapshotListener
from topbill.log.postgres_schema import LOW_BITS, PLACE_IN_BUNDLE, SPAN
from topbill.log.protocol import Clock, Ends, Matured, Named, now_micros
from topbill.log.remembered_ids import digest
from topbill.log.sql_database import checksum
from topbill.log.stubs import LET_GO, packed_origin, unpacked_origin
from topbill.log.table_log import TableLog

_NO_LIMIT = 2**62
_TRIES = 5
"""Looks at what is stored of a group whose ids others store at the same time."""
_PAUSES = (0.001, 0.002, 0.004, 0.008, 0.0)
"""Seconds to wait for the transactions that are under way at a fence: most end within them."""
_FENCES = 64
_LONGEST_WAIT = 20.0
"""Seconds for which a new handle waits for transactions that were under way before it. Ours are
ended after some 5 s in which they do nothing."""
_TEND_EVERY = 60.0
"""Seconds between two looks whether the next hours have their tables."""

# A row's `seq`, checksum and bundle, then what its checksum is of (see `sql_database.ROWS`).
_DECISIONS = "SELECT d.seq, d.checksum, d.bundle, d.decision_id, d.experiment, d.body"
_EVENTS = "SELECT e.seq, e.checksum, NULL, e.decision_id, e.event_id, e.body"
_UNIT_EVENTS = "SELECT u.seq, u.checksum, NULL, u.unit_type, u.unit, u.event_id, u.body"
_FEEDS: Mapping[RowKind, str] = {
    "decision": f"{_DECISIONS} FROM decisions d",
    "reward": f"{_EVENTS} FROM reward_events e",
    "event": f"{_UNIT_EVENTS} FROM unit_events u",
}
_BY_ID = f"{_DECISIONS} FROM stubs s JOIN decisions d USING (seq) WHERE s.decision_id = ANY(?)"
_UNREADABLE = (msgspec.DecodeError, ValueError, TypeError, RecursionError)
"""What decoding a body raises that is no record."""

_decode_decision = msgspec.json.Decoder(Decision).decode
_decode_event = msgspec.json.Decoder(RewardEvent).decode
_decode_unit_event = msgspec.json.Decoder(UnitEvent).decode


class _Fence(NamedTuple):
    """A fence at `at` (ms) holds once all transactions before `number` have ended."""

    at: int
    number: int


class _StoredIds:
    """What is known to be stored of a group's ids; see `Stored`."""

    def __init__(self) -> None:
        self.decisions: dict[str, Decision] = {}
        self.events: set[EventKey] = set()
        self.unit_events: set[UnitEventKey] = set()
        self.let_go: set[str] = set()


def migrate(url: str) -> str:
    """Make the tables of a log, or bring them to this version; what was done, in a sentence.
    Services and workers may be at work. Raises LogError.
    """
    database = PostgresDatabase(url, create=True)
    database.close()
    if database.found_version == database.version:
        return f"{database.name}: nothing to do"
    made = f"is of schema version {database.version} now"
    if not database.found_version:
        made = f"a log was made, of schema version {database.version}"
    return f"{database.name}: {made}"


class PostgresLog(TableLog):
    """One handle on the shared log. Not for several threads at once: a thread opens its own.

    Stamps are of the server's clock, also beside the rows, since clocks of machines differ; those
    of rows are whole milliseconds.

    Args:
        url: Where it lies.
        clock: Gives the time in µs, for tests.
        create: Whether it is made where there is none, and brought to this version where it is of
            an older one.

    Raises:
        NotFound: There is no log, and `create` is false.
        LogError: The server cannot be reached, or is not one that this works with.
    """

    is_remote = True
    keeps_origins = True

    def __init__(self, url: str, clock: Clock = now_micros, *, create: bool = True) -> None:
        self._url = url
        self._database = PostgresDatabase(url, create=create)
        self.identity = self._database.identity
        self._own_clock = None if clock is now_micros else clock
        super().__init__(self._database, self.now)
        self._set_aside: set[tuple[RowKind, int]] = set()
        """Rows that this handle could not read, and has noted."""
        self._settled = 0
        """The last fence (ms) that is known to hold."""
        self._waiting: deque[_Fence] = deque(maxlen=_FENCES)
        """Fences that do not hold yet, in their order."""
        self._connection_number = self._database.connections
        self._tended_at = 0.0
        self._tended_hour = 0
        """The hour (`seq` / `SPAN`) of what was let go when tables were last dropped."""

    def close(self) -> None:
        """Close the connection; what was acknowledged is durable already."""
        self._database.close()

    def check(self) -> None:
        """Raises LogError where another log lies there by now, or the server can't be reached."""
        self._database.check()

    def belong_to(self, home: str) -> str:
        """The id of the data folder that the log belongs to; see `Log.belong_to`."""
        with self._database.transaction():
            self._database.execute("UPDATE schema_stamp SET home = ? WHERE home = ''", (home,))
            ((noted,),) = self._database.rows("SELECT home FROM schema_stamp")
        return str(noted)

    def lease(self, name: str, *, shared: bool = False) -> AdvisoryLease:
        """An advisory lock of a connection of its own; see `Log.lease`."""
        return AdvisoryLease(self._url, name, shared=shared)

    def listen(self) -> SnapshotListener:
        """Hears of new versions at once; see `Log.listen`."""
        return SnapshotListener(self._url)

    def write_snapshot(self, snapshot: Snapshot) -> None:
        """Store the successor of the newest version, and tell who listens."""
        with self._database.transaction():
            super().write_snapshot(snapshot)
            # It is heard when this is committed.
            self._database.execute(f"SELECT pg_notify({CHANNEL}, '')")

    def tend(self, *, thorough: bool = False) -> None:
        """With `thorough` make the next hours' tables, once a minute. What was committed can be
        read anyway.
        """
        if thorough and time.monotonic() - self._tended_at >= _TEND_EVERY:
            self._tend_partitions()
            self._tended_at = time.monotonic()

    def _tend_partitions(self) -> None:
        self._database.rows("SELECT tend_partitions(?)", (self._reading(),))

    def probe(self) -> None:
        """Write what every reader writes, without any row; raises LogError where that fails."""
        self._fence()

    def _reading(self) -> int | None:
        """The clock in milliseconds; None for the server's own."""
        return None if self._own_clock is None else self._own_clock() // 1_000

    def now(self) -> int:
        """The time of the server's clock, µs."""
        if self._own_clock is not None:
            return self._own_clock()
        query = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        return int(self._database.rows(query)[0][0])

    # ------------------------------------------------------------------ intake

    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        """Store a group of entries; see `Log.commit`.

        First as if all ids were new, which nearly always they are. Only where the database says
        that one is not, or the answer was lost, they are looked up.
        """
        receipts = self._commit(entries, None)
        for _ in range(_TRIES):
            if receipts is not None:
                return receipts
            # Others may store the same ids between the look and the group.
            receipts = self._commit(entries, self._look_up(_all_ids(entries)))
        if receipts is None:
            raise LogError(
                f"{self.name}: cannot write: others store the same ids again and again; nothing "
                "was acknowledged, and the same ids may be sent once more"
            )
        return receipts

    def _commit(self, entries: Sequence[Entry], stored: _StoredIds | None) -> list[Receipt] | None:
        """Store what is new of a group; None where not all that seems so is. `stored` is None where
        nothing was looked up.
        """
        known = stored or _StoredIds()
        before = set(known.decisions)
        events, unit_events = set(known.events), set(known.unit_events)
        # The server's stamp takes its place, where it is stored.
        at = now_micros() if self._own_clock is None else self._own_clock()
        rows = Rows.none()
        receipts = [admit(entry, at, known, rows) for entry in entries]
        if stored is not None:
            # Ids that nobody called keyed were not compared with what is there.
            rows = _without(rows, before | stored.let_go, events, unit_events)
        if rows:
            new = {each.decision_id: each for entry in entries for each in entry.decisions}
            # Of several with one id, the one that was admitted.
            new |= {i: each for i, each in known.decisions.items() if i not in before}
            stamp = self._database.append(self._values(rows, KeyedIds.of(entries), new))
            if stamp is None:
                return None
            for decision in new.values():
                msgspec.structs.force_setattr(decision, "decided_at", stamp * 1_000)
        return receipts

    def _values(self, rows: Rows, ids: KeyedIds, new: Mapping[str, Decision]) -> list[Any]:
        """The arguments of the function `append`: columns, not rows."""
        remembered: list[bytes] = []
        contents: list[bytes] = []
        decisions: list[tuple[str, str, int | None, bytes, int, bytes]] = []
        for decision_id, experiment, body in rows.decisions:
            if decision_id in ids.decisions:
                remembered.append(digest(decision_id))
            crc = checksum((decision_id, experiment, body))
            origin = packed_origin(new[decision_id])
            decisions.append((decision_id, experiment, None, body, crc, origin))
        for names, bundle in rows.bundles:
            contents.append(bundle)
            for index, (decision_id, experiment) in enumerate(names):
                body = PLACE_IN_BUNDLE.pack(index, zlib.crc32(bundle))
                if decision_id in ids.decisions:
                    remembered.append(digest(decision_id))
                if decision_id:
                    crc = checksum((decision_id, experiment, body))
                    origin = packed_origin(new[decision_id])
                    decisions.append((decision_id, experiment, len(contents), body, crc, origin))
        remembered += [digest(*row[:2]) for row in rows.events if row[:2] in ids.events]
        events = [(*row, checksum(row)) for row in rows.events]
        unit_events = [(*row, checksum(row)) for row in rows.unit_events]
        columns = [*_columns(decisions, 6), *_columns(events, 4), *_columns(unit_events, 5)]
        return [self._reading(), remembered, contents, *columns]

    def _look_up(self, ids: KeyedIds) -> _StoredIds:
        """What is stored of these, and what is remembered."""
        stored = _StoredIds()
        if ids.decisions:
            rows, decisions = self._records("decision", _BY_ID, (list(ids.decisions),))
            stored.decisions = {decision.decision_id: decision for _, decision in decisions}
            # One that can't be read is as one that was let go: what its id was used for can't be
            # said.
            stored.let_go = {row[3] for row in rows} - stored.decisions.keys()
            stored.let_go.update(self.places(ids.decisions - stored.decisions.keys()))
        if ids.events:
            query = (
                "SELECT decision_id, event_id FROM reward_events WHERE (decision_id, event_id) IN "
                "(SELECT * FROM unnest(?::text[], ?::text[]))"
            )
            stored.events = set(self._database.rows(query, _columns(list(ids.events), 2)))
            stored.events.update(self._remembered.events(ids.events - stored.events))
        if ids.unit_events:
            query = (
                "SELECT unit_type, unit, event_id FROM unit_events WHERE (unit_type, unit, "
                "event_id) IN (SELECT * FROM unnest(?::text[], ?::text[], ?::text[]))"
            )
            stored.unit_events = set(self._database.rows(query, _columns(list(ids.unit_events), 3)))
        return stored

    # ------------------------------------------------------------------ look-ups

    def decisions(self, decision_ids: Collection[str]) -> dict[str, Decision]:
        """The stored decisions of these ids, by id; see `Log.decisions`."""
        if not decision_ids:
            return {}
        _, decisions = self._records("decision", _BY_ID, (list(decision_ids),))
        return {decision.decision_id: decision for _, decision in decisions}

    def places(self, decision_ids: Collection[str]) -> dict[str, int]:
        """The `seq` of decisions that are only remembered; see `Log.places`."""
        if not decision_ids:
            return {}
        query = f"SELECT decision_id, seq {LET_GO} AND decision_id = ANY(?)"
        places = dict(self._database.rows(query, (list(decision_ids),)))
        return places | self._remembered.places(decision_ids)

    def origins(self, decision_ids: Collection[str]) -> dict[str, Origin]:
        """What a late reward needs of decisions that were let go; see `Log.origins`."""
        if not decision_ids:
            return {}
        query = f"SELECT decision_id, seq, origin {LET_GO} AND decision_id = ANY(?)"
        origins = {}
        for decision_id, seq, packed in self._database.rows(query, (list(decision_ids),)):
            origin = unpacked_origin(packed)
            if origin is not None:
                origins[decision_id] = origin._replace(decided_at=_stamp(seq))
        return origins

    def events(self, decision_id: str) -> list[RewardEvent]:
        """All reward events of a decision, in the order in which they came."""
        query = f"{_FEEDS['reward']} WHERE e.decision_id = ? ORDER BY seq"
        _, events = self._records("reward", query, (decision_id,))
        return [event for _, event in events]

    # ------------------------------------------------------------------ the barrier

    def barrier(self) -> int:
        """A time at or before which nothing can be added any more; while transactions are under
        way that began before now, one of a moment ago.

        Where this handle knows of none yet it waits for them: with no time at all nothing would
        be there to read, and who folds the log again would take that for all there is. Raises
        LogError where that takes too long.
        """
        deadline = time.monotonic() + _LONGEST_WAIT
        while not self._settle():
            if time.monotonic() > deadline:
                raise LogError(
                    f"{self.name}: others have been writing for {_LONGEST_WAIT:g} s, and until "
                    "they end nobody knows what is complete; see who has a backend_xid in "
                    "pg_stat_activity, or try again"
                )
        return self._settled * 1_000

    def _fence(self) -> int:
        ((at,),) = self._database.rows("SELECT fence(?)", (self._reading(),))
        return int(at)

    def _settle(self) -> int:
        """The last fence (ms) that holds, of now if may be."""
        at = self._fence()
        # Only now, and in a transaction of its own: whoever gets a later number sees the fence.
        ((number,),) = self._database.rows("SELECT pg_current_xact_id()::text::bigint")
        if self._connection_number != self._database.connections:
            # The numbers of another server, perhaps, say nothing of this one's.
            self._waiting.clear()
            self._connection_number = self._database.connections
        self._waiting.append(_Fence(at, number))
        for pause in _PAUSES:
            # All transactions before this number have ended.
            ((oldest,),) = self._database.rows(
                "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
            )
            while self._waiting and self._waiting[0].number <= oldest:
                self._settled = self._waiting.popleft().at
            if not self._waiting:
                break
            time.sleep(pause)
        return self._settled

    def ends(self) -> Ends:
        """The last `seq` that the last barrier leaves room for, of each kind; see `Log.ends`."""
        # A `seq` begins with the milliseconds of its stamp, whatever kind of row it is of.
        last = first_seq(self._settled + 1) - 1
        return Ends(last, last, last)

    def clock_steps(self) -> list[ClockStep]:
        """None: the stamps are the times of the rows."""
        return []

    def clock_trouble(self, within: int = SETTLED) -> str | None:  # noqa: ARG002 (the contract's)
        """That the server's clock is behind the log, for as long as it is."""
        query = "SELECT at, clock_reading(?) FROM clock"
        ((at, reading),) = self._database.rows(query, (self._reading(),))
        behind = (at - reading) // 1_000
        if behind * 1_000_000 < TOLERANCE:
            return None
        return (
            f"{self.name}: the clock of the server is {behind:,} s behind the newest rows, which "
            "are stamped one after the other until it has caught up. Set the clock right, if it "
            "isn't"
        )

    # ------------------------------------------------------------------ feed

    def read_decisions(self, after_seq: int, limit: int) -> list[tuple[int, Decision]]:
        """Decisions with seq > `after_seq`, in order, at most `limit`."""
        return self._read("decision", after_seq, limit)

    def read_events(self, after_seq: int, limit: int) -> list[tuple[int, RewardEvent]]:
        """Reward events with seq > `after_seq`, in order, at most `limit`."""
        return self._read("reward", after_seq, limit)

    def read_unit_events(self, after_seq: int, limit: int) -> list[tuple[int, UnitEvent]]:
        """Events of units with seq > `after_seq`, in order, at most `limit`."""
        return self._read("event", after_seq, limit)

    def _read(self, kind: RowKind, after_seq: int, limit: int) -> list[tuple[int, Any]]:
        """The next rows that can be read and that are final."""
        query = f"{_FEEDS[kind]} WHERE seq > ? AND seq < ? ORDER BY seq LIMIT ?"
        end = first_seq(self._settled + 1)
        is_settled = False
        while True:
            rows, records = self._records(kind, query, (after_seq, end, limit))
            if len(rows) < limit and not is_settled:
                end = first_seq(self._settle() + 1)
                is_settled = True
            elif records or not rows:
                return records
            else:
                # None of them could be read: behind them may be others.
                after_seq = rows[-1][0]

    def _records(
        self,
        kind: RowKind,
        query: str,
        values: Sequence[Any],
        wanted: Callable[[str], bool] | None = None,
    ) -> tuple[list[Any], list[tuple[int, Any]]]:
        """The rows of a query, and the records of those that can be read, with their `seq`; only
        of decisions whose id is `wanted`. One that cannot be read is set aside: the others must
        not wait for it.
        """
        with ExitStack() as snapshot:
            if kind == "decision":
                # Their bundles are read after them: both as of one moment.
                snapshot.enter_context(self._database.snapshot())
            rows = self._database.rows(query, values)
            chosen = [row for row in rows if wanted is None or wanted(row[3])]
            packed = self._packed({row[2] for row in chosen if row[2] is not None})
        # Outside of the transaction: to open those of two thousand pages takes a while.
        bundles = _opened(packed)
        records = []
        unreadable = []
        for row in chosen:
            try:
                records.append((row[0], _record(kind, row, bundles)))
            except _UNREADABLE as error:
                if (kind, row[0]) not in self._set_aside:
                    unreadable.append(_quarantined(kind, row, error))
        if unreadable:
            self.set_aside(unreadable)
            self._set_aside.update((row.kind, row.seq) for row in unreadable)
        return rows, records

    def _packed(self, places: Collection[int]) -> list[tuple[int, bytes]]:
        """The bundles at these places."""
        if not places:
            return []
        query = "SELECT seq, content FROM bundles WHERE seq = ANY(?)"
        return self._database.rows(query, (list(places),))

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
        end = first_seq((barrier - age) // 1_000 + 1)
        while True:
            rows, decisions = self._records(
                "decision",
                f"{_FEEDS['decision']} WHERE experiment = ? AND seq > ? AND seq < ? "
                "ORDER BY seq LIMIT ?",
                (experiment, after_seq, end, limit),
                lambda decision_id: is_learned(decision_id, share),
            )
            if decisions or not rows:
                break
            after_seq = rows[-1][0]
        by_decision: dict[str, list[RewardEvent]] = {}
        for _, decision in decisions:
            by_decision[decision.decision_id] = []
        if not decisions:
            return []
        _, events = self._records(
            "reward",
            f"""{_EVENTS} FROM unnest(?::text[], ?::bigint[]) AS d (decision_id, seq)
                JOIN reward_events e USING (decision_id)
                WHERE (e.seq >> {LOW_BITS}) - (d.seq >> {LOW_BITS}) <= ?""",
            (list(by_decision), [seq for seq, _ in decisions], age // 1_000),
        )
        for _, event in sorted(events, key=itemgetter(0)):
            by_decision[event.decision_id].append(event)
        matured = []
        for seq, decision in decisions:
            matured.append(Matured(seq, decision, by_decision[decision.decision_id]))
        return matured

    def named(self, experiment: str, after_seq: int, barrier: int, limit: int) -> list[Named]:
        """The next decisions by their ids; see `Log.named`."""
        query = (
            "SELECT seq, decision_id FROM decisions "
            "WHERE experiment = ? AND seq > ? AND seq < ? ORDER BY seq LIMIT ?"
        )
        end = first_seq(barrier // 1_000 + 1)
        with self._database.snapshot():
            rows = self._database.rows(query, (experiment, after_seq, end, limit))
        return [Named(seq, decision_id, _stamp(seq)) for seq, decision_id in rows]

    def last_matured(self, experiment: str, after_seq: int, age: int, barrier: int) -> int | None:
        """The last decision that reached an age; see `Log.last_matured`."""
        query = "SELECT max(seq) FROM decisions WHERE experiment = ? AND seq > ? AND seq < ?"
        end = first_seq((barrier - age) // 1_000 + 1)
        seq: int | None = self._database.rows(query, (experiment, after_seq, end))[0][0]
        return seq

    def first_seq(self) -> int | None:
        """The `seq` of the oldest decision that the log still holds; None when it holds none."""
        seq: int | None = self._database.rows("SELECT min(seq) FROM decisions")[0][0]
        return seq

    def next_seq(self, experiment: str, after_seq: int) -> int | None:
        """The `seq` of an experiment's first decision after `after_seq`; None when there is none.
        It is final: none can come before it.
        """
        query = "SELECT min(seq) FROM decisions WHERE experiment = ? AND seq > ? AND seq < ?"
        end = first_seq(self._settle() + 1)
        seq: int | None = self._database.rows(query, (experiment, after_seq, end))[0][0]
        return seq

    # ------------------------------------------------------------------ letting go

    def forget(
        self, decisions_through: int, events_through: int, older_than: int, limit: int = 2_000
    ) -> int:
        """Let go of the oldest decisions with their events; see `Log.forget`. No row of a decision
        is touched: their tables go as a whole.
        """
        database = self._database
        end = min(first_seq(-(-older_than // 1_000)), decisions_through + 1)
        with database.transaction():
            database.execute(IN_ORDER)
            ((through,),) = database.rows("SELECT through FROM forgotten")
            oldest = database.rows(
                "SELECT seq FROM decisions WHERE seq < ? ORDER BY seq LIMIT ?", (end, limit)
            )
            last = oldest[-1][0] if oldest else through
            events = database.rows(
                """SELECT e.decision_id, e.event_id, e.seq, s.seq FROM stubs s
                JOIN reward_events e USING (decision_id) WHERE s.seq > ? AND s.seq <= ?""",
                (through, last),
            )
            # The first one with an event that is not safe elsewhere ends it, so that what remains
            # has no gap.
            needed = min([seq for *_, at, seq in events if at > events_through], default=last + 1)
            forgotten = [seq for (seq,) in oldest if seq < needed]
            if forgotten:
                through = forgotten[-1]
                database.execute("UPDATE forgotten SET through = ?", (through,))
            events = [row[:3] for row in events if row[3] <= through]
            # And the oldest events whose decision is gone already.
            events += database.rows(
                """SELECT decision_id, event_id, seq FROM (SELECT * FROM reward_events
                    WHERE seq <= ? AND seq < ? ORDER BY seq LIMIT ?) e
                WHERE seq <> ALL(?) AND NOT EXISTS (SELECT FROM stubs s
                    WHERE s.decision_id = e.decision_id AND s.seq > ?)""",
                (
                    *(events_through, first_seq(-(-older_than // 1_000)), limit),
                    *([row[2] for row in events], through),
                ),
            )
            database.execute(
                "DELETE FROM reward_events WHERE seq = ANY(?)", ([row[2] for row in events],)
            )
            self._remembered.add([], [(*key, _stamp(seq)) for *key, seq in events], behind=through)
        if through // SPAN > self._tended_hour:
            self._tend_partitions()
            self._tended_hour = through // SPAN
        return len(forgotten)

    def forget_ids(self, older_than: int, limit: int = 20_000) -> int:
        """Forget remembered ids; see `Log.forget_ids`."""
        database = self._database
        with database.transaction():
            # In the order in which they were let go: of each time first the decisions.
            query = f"SELECT seq {LET_GO} ORDER BY seq LIMIT ?"
            queue = [(seq, 0, _stamp(seq)) for (seq,) in database.rows(query, (limit,))]
            query = "SELECT seq, place, at FROM remembered_ids ORDER BY place LIMIT ?"
            queue = sorted([*queue, *database.rows(query, (limit,))])[:limit]
            forgotten = list(takewhile(lambda row: row[2] < older_than, queue))
            seqs = [seq for seq, place, _ in forgotten if not place]
            database.execute("DELETE FROM stubs WHERE seq = ANY(?)", (seqs,))
            places = [place for _, place, _ in forgotten if place]
            database.execute("DELETE FROM remembered_ids WHERE place = ANY(?)", (places,))
        return len(forgotten)

    def forget_unit_events(self, through: int, older_than: int, limit: int = 2_000) -> int:
        """Delete the oldest events of units; see `Log.forget_unit_events`."""
        with self._database.transaction():
            deleted = self._database.execute(
                """DELETE FROM unit_events WHERE seq IN (SELECT seq FROM unit_events
                    WHERE seq <= ? AND seq < ? ORDER BY seq LIMIT ?)""",
                (through, first_seq(-(-older_than // 1_000)), limit),
            )
        return deleted.rowcount


def _stamp(seq: int) -> int:
    """The stamp of a row, µs."""
    return (seq >> LOW_BITS) * 1_000


def first_seq(milliseconds: int) -> int:
    """The first `seq` that a row stamped then can have."""
    return min(milliseconds << LOW_BITS, _NO_LIMIT)


def _columns(rows: Sequence[Sequence[Any]], count: int) -> list[list[Any]]:
    """The `count` columns of rows."""
    return [[row[i] for row in rows] for i in range(count)]


def _all_ids(entries: Iterable[Entry]) -> KeyedIds:
    """Every id of a group, as if all were the callers'."""
    return KeyedIds.of(
        [all_keyed(entry.decisions, entry.events, entry.unit_events) for entry in entries]
    )


def _without(
    rows: Rows,
    decisions: set[str],
    events: set[EventKey],
    unit_events: set[UnitEventKey],
) -> Rows:
    """The rows whose ids are none of these, each id once. In a bundle, the name of one that is left
    out is empty.
    """
    new = Rows.none()
    for row in rows.decisions:
        if row[0] not in decisions:
            decisions.add(row[0])
            new.decisions.append(row)
    for names, bundle in rows.bundles:
        kept = []
        for decision_id, experiment in names:
            kept.append(("" if decision_id in decisions else decision_id, experiment))
            decisions.add(decision_id)
        if any(decision_id for decision_id, _ in kept):
            new.bundles.append((kept, bundle))
    for event in rows.events:
        if event[:2] not in events:
            events.add(event[:2])
            new.events.append(event)
    for unit_event in rows.unit_events:
        if unit_event[:3] not in unit_events:
            unit_events.add(unit_event[:3])
            new.unit_events.append(unit_event)
    return new


def _record(
    kind: RowKind, row: Sequence[Any], bundles: Mapping[int, tuple[int, list[Decision]]]
) -> Decision | RewardEvent | UnitEvent:
    """The record of a row. Raises one of `_UNREADABLE` where it can't be read."""
    seq, expected, bundle, *values = row
    if checksum(values) != expected:
        raise ValueError("it is not what was stored")
    at, body = _stamp(seq), values[-1]
    if kind == "reward":
        return msgspec.structs.replace(_decode_event(body), received_at=at)
    if kind == "event":
        return msgspec.structs.replace(_decode_unit_event(body), received_at=at)
    decision = _decode_decision(body) if bundle is None else _of_bundle(bundle, body, bundles)
    return msgspec.structs.replace(decision, decided_at=at)


def _opened(bundles: Iterable[tuple[int, bytes]]) -> dict[int, tuple[int, list[Decision]]]:
    """The CRC-32 and the decisions of bundles, by place; those that can't be read are left out."""
    opened = {}
    for place, content in bundles:
        try:
            opened[place] = zlib.crc32(content), decisions_of(content)
        except _UNREADABLE:
            continue
    return opened


def _of_bundle(
    bundle: int, body: bytes, bundles: Mapping[int, tuple[int, list[Decision]]]
) -> Decision:
    index: int
    index, crc = PLACE_IN_BUNDLE.unpack(body)
    if bundle not in bundles:
        raise ValueError(f"bundle {bundle} is missing or damaged")
    found, decisions = bundles[bundle]
    if found != crc or index >= len(decisions):
        raise ValueError(f"bundle {bundle} is another one than the decision was stored in")
    return decisions[index]


def _quarantined(kind: RowKind, row: Sequence[Any], error: Exception) -> QuarantinedRow:
    seq, _, _, *names, body = row
    if kind == "decision":
        row_id, experiment = names
        belongs_to = ""
    else:
        # Of a unit's event the type comes first.
        *_, belongs_to, row_id = names
        experiment = ""
    reason = f"{type(error).__name__}: {error}"
    return QuarantinedRow(kind, "read", experiment, row_id, belongs_to, seq, reason, body)
