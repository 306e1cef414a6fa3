"""A log that lives in this process's memory: for tests, of Topbill and of those who build on it.

It keeps the whole contract of `Log` but for one thing: what it acknowledged ends with the process.
Handles that were opened by one name share one log, as handles on one file do.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

import msgspec

from topbill.domain.alarm import AlarmLine, AlarmMessage, AlarmWatch
from topbill.domain.chance import is_learned
from topbill.domain.errors import Conflict, LogError
from topbill.domain.profile import Merge, MergedProfile, ProfileChange, ProfileLimits
from topbill.domain.records import (
    Decision,
    QuarantinedRow,
    QuarantineStage,
    RewardEvent,
    RowKind,
    Snapshot,
    SnapshotHead,
    UnitEvent,
)
from topbill.log.bundles import decisions_of
from topbill.log.entries import Entry, EventKey, KeyedIds, Receipt, Rows, UnitEventKey, admit
from topbill.log.log_time import SETTLED, ClockStep, Stamps, offset_at, trouble
from topbill.log.orders import check_order
from topbill.log.protocol import (
    Clock,
    ConclusionLine,
    Duty,
    Ends,
    Heartbeat,
    Lease,
    Log,
    Matured,
    Named,
    Order,
    Revision,
    now_micros,
)
from topbill.log.quarantine import short_reason
from topbill.log.snapshots import not_the_successor

_S = TypeVar("_S", Decision, RewardEvent, UnitEvent)
_decode_decision = msgspec.json.Decoder(Decision).decode
_decode_event = msgspec.json.Decoder(RewardEvent).decode
_decode_unit_event = msgspec.json.Decoder(UnitEvent).decode


class _Store:
    """What all handles of one name share. Every access is by the holder of `lock`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.newest_stamp = 0
        """No row is stamped before it. All stamps in here are of log time."""
        self.steps: list[ClockStep] = []
        self.decisions: list[tuple[int, Decision]] = []
        self.events: list[tuple[int, RewardEvent]] = []
        self.unit_events: list[tuple[int, UnitEvent]] = []
        self.next_decision = 1
        self.next_event = 1
        self.next_unit_event = 1
        self.by_id: dict[str, tuple[int, Decision]] = {}
        self.by_decision: dict[str, list[tuple[int, RewardEvent]]] = {}
        self.event_keys: set[EventKey] = set()
        self.unit_event_keys: set[UnitEventKey] = set()
        self.snapshots: dict[str, dict[int, Snapshot]] = {}
        self.revisions: list[Revision] = []
        self.orders: list[Order] = []
        self.conclusions: list[ConclusionLine] = []
        self.alarms: list[AlarmLine] = []
        self.alarm_messages: dict[tuple[str, str, str], AlarmMessage] = {}
        self.alarm_watches: dict[str, AlarmWatch] = {}
        self.quarantine: dict[tuple[RowKind, QuarantineStage, int], QuarantinedRow] = {}
        self.heartbeat: Heartbeat | None = None
        self.duties: dict[str, Duty] = {}
        self.profiles: dict[str, ProfileLimits] = {}
        self.merges: list[Merge] = []
        self.leases: dict[str, list[_MemoryLease]] = {}
        """Who has each: one, or several who share it."""

        self.remembered: dict[tuple[str, ...], tuple[int, int]] = {}
        """(seq, at) of decisions let go by (decision_id,), and of their events by both ids."""

    def stamps(self) -> Stamps:
        """What stamps go on from."""
        return Stamps(self.newest_stamp, self.steps[-1].offset if self.steps else 0)

    def take(self, stamps: Stamps) -> None:
        """Go on from the last stamp."""
        self.newest_stamp = stamps.newest
        if stamps.stepped:
            last = self.next_decision - 1, self.next_event - 1
            self.steps.append(ClockStep(stamps.newest, stamps.offset, *last))

    def read(self, record: _S) -> _S:
        """A record with the time that the clock gave."""
        if not self.steps:
            return record
        if isinstance(record, Decision):
            at = record.decided_at
            return msgspec.structs.replace(record, decided_at=at - offset_at(self.steps, at))
        at = record.received_at
        return msgspec.structs.replace(record, received_at=at - offset_at(self.steps, at))

    def in_log_time(self, event: RewardEvent) -> RewardEvent:
        """An event as `matured` gives it."""
        if not self.steps or event.occurred_at is None:
            return event
        offset = offset_at(self.steps, event.received_at)
        return msgspec.structs.replace(event, occurred_at=event.occurred_at + offset)

    def remove(self, oldest: set[str]) -> None:
        """Let go of the oldest decisions."""
        for seq, decision in self.decisions[: len(oldest)]:
            self.remembered.setdefault((decision.decision_id,), (seq, decision.decided_at))
            del self.by_id[decision.decision_id]
        del self.decisions[: len(oldest)]

    def remove_events(self, events: list[RewardEvent]) -> None:
        """Let go of events."""
        for event in events:
            key = (event.decision_id, event.event_id)
            self.remembered.setdefault(key, (0, event.received_at))
            self.event_keys.remove(key)
        self.events = [row for row in self.events if self._holds(row[1])]
        for decision_id in {event.decision_id for event in events}:
            rows = [row for row in self.by_decision.pop(decision_id) if self._holds(row[1])]
            if rows:
                self.by_decision[decision_id] = rows

    def _holds(self, event: RewardEvent) -> bool:
        return (event.decision_id, event.event_id) in self.event_keys


class _Stored:
    """What a store has of a group's keyed ids, in collections of its own: `admit` adds to them."""

    def __init__(self, store: _Store, ids: KeyedIds) -> None:
        self.decisions: dict[str, Decision] = {}
        for decision_id in ids.decisions & store.by_id.keys():
            self.decisions[decision_id] = store.by_id[decision_id][1]
        remembered = store.remembered
        self.let_go = {i for i in ids.decisions - self.decisions.keys() if (i,) in remembered}
        self.events = ids.events & (store.event_keys | remembered.keys())
        self.unit_events = ids.unit_events & store.unit_event_keys


class _MemoryLease(Lease):
    """A name in a store."""

    def __init__(self, store: _Store, name: str, *, shared: bool) -> None:
        self._store, self._name, self._is_shared = store, name, shared
        with store.lock:
            others = store.leases.setdefault(name, [])
            if others and not (shared and others[0]._is_shared):
                raise Conflict(f"{name}: another one holds it")
            others.append(self)

    def check(self) -> None:
        """Raises LogError after its end."""
        if self not in self._store.leases[self._name]:
            raise LogError(f"{self._name}: was given back")

    def release(self) -> None:
        """Give it back."""
        with self._store.lock:
            holders = self._store.leases[self._name]
            self._store.leases[self._name] = [one for one in holders if one is not self]


_STORES: dict[str, _Store] = {}
_STORES_LOCK = threading.Lock()


class MemoryLog(Log):
    """One handle on a log in memory.

    Args:
        name: Handles of the same name share a log; an empty name is a log of its own.
        clock: Gives the time in µs; a test sets its own.

    >>> with MemoryLog() as log:
    ...     log.read_decisions(0, 10)
    []
    """

    def __init__(self, name: str = "", clock: Clock = now_micros) -> None:
        self.name = f"memory:{name}"
        self._clock = clock
        self._closed = False
        self._error: LogError | None = None
        with _STORES_LOCK:
            self._store = _STORES.setdefault(name, _Store()) if name else _Store()

    @staticmethod
    def exists(name: str) -> bool:
        """Whether somebody opened a log of this name before."""
        return name in _STORES

    @staticmethod
    def discard(name: str) -> None:
        """Let go of a named log: whoever opens the name next gets an empty one."""
        with _STORES_LOCK:
            _STORES.pop(name, None)

    def fail_with(self, message: str | None) -> None:
        """Let every commit of this handle fail with a LogError from now on, as a full disk would;
        None makes it work again.
        """
        self._error = None if message is None else LogError(f"{self.name} {message}")

    def close(self) -> None:
        """End the use of this handle; the log itself stays as long as its name is known."""
        self._closed = True

    def check(self) -> None:
        """Raises LogError where the handle was closed, as a file would."""
        if self._closed:
            raise LogError(f"{self.name} was closed; open it again")

    def lease(self, name: str, *, shared: bool = False) -> Lease:
        """Held in the memory that handles share; see `Log.lease`."""
        self.check()
        return _MemoryLease(self._store, name, shared=shared)

    def tend(self, *, thorough: bool = False) -> None:  # noqa: ARG002 (the contract's)
        """There is nothing to do: what was committed can be read."""
        self.check()

    # ------------------------------------------------------------------ intake

    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        """Store a group of entries; see `Log.commit`."""
        self.check()
        if self._error is not None:
            raise self._error
        store = self._store
        ids = KeyedIds.of(entries)
        with store.lock:
            stamps = store.stamps()
            at = stamps.of(self._clock())
            # `admit` notes here what the group adds. The store is changed only when all of the
            # group could be admitted.
            stored = _Stored(store, ids)
            rows = Rows.none()
            receipts = [admit(entry, at - stamps.offset, stored, rows) for entry in entries]
            if rows:
                # A group that stores nothing has no time, as it leaves no trace in a file either.
                store.take(stamps)
            self._add(rows, at)
        return receipts

    def _add(self, rows: Rows, at: int) -> None:
        # Rows go through their JSON as on a disk: nobody shares an object with the log.
        store = self._store
        decisions = [_decode_decision(body) for _, _, body in rows.decisions]
        for _, bundle in rows.bundles:
            decisions += decisions_of(bundle)
        for stored in decisions:
            if stored.decision_id in store.by_id:
                continue
            decision = msgspec.structs.replace(stored, decided_at=at)
            store.by_id[decision.decision_id] = (store.next_decision, decision)
            store.decisions.append((store.next_decision, decision))
            store.next_decision += 1
        for decision_id, event_id, body in rows.events:
            if (decision_id, event_id) in store.event_keys:
                continue
            event = msgspec.structs.replace(_decode_event(body), received_at=at)
            store.event_keys.add((decision_id, event_id))
            store.by_decision.setdefault(decision_id, []).append((store.next_event, event))
            store.events.append((store.next_event, event))
            store.next_event += 1
        for *_, body in rows.unit_events:
            unit_event = msgspec.structs.replace(_decode_unit_event(body), received_at=at)
            if unit_event.key in store.unit_event_keys:
                continue
            store.unit_event_keys.add(unit_event.key)
            store.unit_events.append((store.next_unit_event, unit_event))
            store.next_unit_event += 1

    # ------------------------------------------------------------------ look-ups

    def decisions(self, decision_ids: Collection[str]) -> dict[str, Decision]:
        """The stored decisions of these ids, by id."""
        self.check()
        by_id = self._store.by_id
        with self._store.lock:
            return {i: self._store.read(by_id[i][1]) for i in decision_ids if i in by_id}

    def events(self, decision_id: str) -> list[RewardEvent]:
        """All reward events of a decision, in the order in which they came."""
        self.check()
        with self._store.lock:
            rows = self._store.by_decision.get(decision_id, [])
            return [self._store.read(event) for _, event in rows]

    def places(self, decision_ids: Collection[str]) -> dict[str, int]:
        """The `seq` of decisions that are only remembered."""
        self.check()
        store = self._store
        with store.lock:
            return {i: store.remembered[i,][0] for i in decision_ids if (i,) in store.remembered}

    # ------------------------------------------------------------------ feed

    def barrier(self) -> int:
        """A time at or before which nothing can be added any more."""
        self.check()
        store = self._store
        with store.lock:
            stamps = store.stamps()
            stamps.of(self._clock())
            store.take(stamps)
            # One less: rows of this very microsecond may still come, and are stamped no earlier.
            return store.newest_stamp - 1

    def ends(self) -> Ends:
        """The last `seq` of each kind of row; see `Log.ends`."""
        store = self._store
        with store.lock:
            return Ends(store.next_decision - 1, store.next_event - 1, store.next_unit_event - 1)

    def clock_steps(self) -> list[ClockStep]:
        """Where the machine's clock was set."""
        with self._store.lock:
            return list(self._store.steps)

    def clock_trouble(self, within: int = SETTLED) -> str | None:
        """What is wrong with the machine's clock."""
        with self._store.lock:
            if self._store.stamps().is_off(self._clock()):
                self.barrier()
            now = self._clock() + self._store.stamps().offset
            return trouble(self._store.steps, now, within)

    def read_decisions(self, after_seq: int, limit: int) -> list[tuple[int, Decision]]:
        """Decisions with seq > `after_seq`, in order, at most `limit`."""
        self.check()
        with self._store.lock:
            return self._after(self._store.decisions, after_seq, limit)

    def read_events(self, after_seq: int, limit: int) -> list[tuple[int, RewardEvent]]:
        """Reward events with seq > `after_seq`, in order, at most `limit`."""
        self.check()
        with self._store.lock:
            return self._after(self._store.events, after_seq, limit)

    def read_unit_events(self, after_seq: int, limit: int) -> list[tuple[int, UnitEvent]]:
        """Events of units with seq > `after_seq`, in order, at most `limit`."""
        self.check()
        with self._store.lock:
            return self._after(self._store.unit_events, after_seq, limit)

    def _after(self, rows: list[tuple[int, _S]], seq: int, limit: int) -> list[tuple[int, _S]]:
        start = bisect_right(rows, seq, key=_seq)
        return [(seq, self._store.read(record)) for seq, record in rows[start : start + limit]]

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
        self.check()
        matured: list[Matured] = []
        store = self._store
        with store.lock:
            start = bisect_right(store.decisions, after_seq, key=_seq)
            for seq, decision in store.decisions[start:]:
                if len(matured) == limit or decision.decided_at > barrier - age:
                    break
                if decision.experiment == experiment and is_learned(decision.decision_id, share):
                    events = [
                        store.in_log_time(event)
                        for _, event in store.by_decision.get(decision.decision_id, [])
                        if event.received_at <= decision.decided_at + age
                    ]
                    matured.append(Matured(seq, decision, events))
        return matured

    def named(self, experiment: str, after_seq: int, barrier: int, limit: int) -> list[Named]:
        """The next decisions by their ids; see `Log.named`."""
        return [
            Named(seq, decision.decision_id, decision.decided_at)
            for seq, decision, *_ in self.matured(experiment, after_seq, 0, barrier, limit)
        ]

    def last_matured(self, experiment: str, after_seq: int, age: int, barrier: int) -> int | None:
        """The last decision that reached an age; see `Log.last_matured`."""
        self.check()
        last = None
        with self._store.lock:
            for seq, decision in self._store.decisions:
                is_own = seq > after_seq and decision.experiment == experiment
                if is_own and decision.decided_at <= barrier - age:
                    last = seq
        return last

    def first_seq(self) -> int | None:
        """The `seq` of the oldest decision that is still here."""
        self.check()
        with self._store.lock:
            return self._store.decisions[0][0] if self._store.decisions else None

    def next_seq(self, experiment: str, after_seq: int) -> int | None:
        """The `seq` of an experiment's first decision after `after_seq`."""
        self.check()
        with self._store.lock:
            for seq, decision in self._store.decisions:
                if seq > after_seq and decision.experiment == experiment:
                    return seq
        return None

    def forget(
        self, decisions_through: int, events_through: int, older_than: int, limit: int = 2_000
    ) -> int:
        """Delete the oldest decisions with their events; see `Log.forget`."""
        self.check()
        store = self._store
        with store.lock:
            forgotten: set[str] = set()
            gone: list[RewardEvent] = []
            for seq, decision in store.decisions[:limit]:
                if seq > decisions_through or decision.decided_at >= older_than:
                    break
                events = store.by_decision.get(decision.decision_id, [])
                if events and events[-1][0] > events_through:
                    break
                forgotten.add(decision.decision_id)
                gone += [event for _, event in events]
            store.remove(forgotten)
            store.remove_events(gone)
            old = [
                event
                for seq, event in store.events[:limit]
                if seq <= events_through and event.received_at < older_than
            ]
            store.remove_events([event for event in old if event.decision_id not in store.by_id])
        return len(forgotten)

    def forget_ids(self, older_than: int, limit: int = 20_000) -> int:
        """Forget remembered ids; see `Log.forget_ids`."""
        self.check()
        remembered = self._store.remembered
        with self._store.lock:
            forgotten: list[tuple[str, ...]] = []
            for key, (_, at) in remembered.items():
                if at >= older_than or len(forgotten) == limit:
                    break
                forgotten.append(key)
            for key in forgotten:
                del remembered[key]
        return len(forgotten)

    def forget_unit_events(self, through: int, older_than: int, limit: int = 2_000) -> int:
        """Delete the oldest events of units; see `Log.forget_unit_events`."""
        self.check()
        store = self._store
        with store.lock:
            forgotten = 0
            for seq, event in store.unit_events[:limit]:
                if seq > through or event.received_at >= older_than:
                    break
                store.unit_event_keys.remove(event.key)
                forgotten += 1
            del store.unit_events[:forgotten]
        return forgotten

    # ------------------------------------------------------------------ snapshots

    def versions(self) -> dict[str, int]:
        """The newest policy version of every experiment that has one."""
        self.check()
        with self._store.lock:
            return {key: max(versions) for key, versions in self._store.snapshots.items()}

    def snapshot(self, experiment: str, version: int | None = None) -> Snapshot | None:
        """The newest snapshot of an experiment, or that of `version`."""
        self.check()
        with self._store.lock:
            versions = self._store.snapshots.get(experiment, {})
            if version is None:
                version = max(versions, default=0)
            return versions.get(version)

    def snapshot_heads(self, experiment: str) -> list[SnapshotHead]:
        """What is known of an experiment's snapshots, newest first."""
        self.check()
        with self._store.lock:
            snapshots = self._store.snapshots.get(experiment, {})
            return [_head(snapshots[version]) for version in sorted(snapshots, reverse=True)]

    def write_snapshot(self, snapshot: Snapshot) -> None:
        """Store the successor of the newest version; see `Log.write_snapshot`."""
        self.check()
        with self._store.lock:
            newest = self.version(snapshot.experiment)
            if snapshot.version != newest + 1:
                raise not_the_successor(snapshot, newest)
            stamped = msgspec.structs.replace(snapshot, at=self._clock())
            versions = self._store.snapshots.setdefault(snapshot.experiment, {})
            versions[snapshot.version] = stamped

    def forget_snapshots(self, before: int) -> int:
        """Delete the snapshots that had a successor by `before` µs; returns how many went."""
        self.check()
        forgotten = 0
        with self._store.lock:
            for versions in self._store.snapshots.values():
                newest_then = 0
                for version, snapshot in versions.items():
                    if snapshot.at < before:
                        newest_then = max(newest_then, version)
                for version in [v for v in versions if v < newest_then]:
                    del versions[version]
                    forgotten += 1
        return forgotten

    # ------------------------------------------------------------------ quarantine, heartbeat

    def set_aside(self, rows: Sequence[QuarantinedRow]) -> int:
        """Note rows, each once for each stage; returns how many are new."""
        self.check()
        with self._store.lock:
            before = len(self._store.quarantine)
            for row in rows:
                noted = row._replace(
                    reason=short_reason(row.reason), body=b"", quarantined_at=self._clock()
                )
                self._store.quarantine.setdefault((row.kind, row.stage, row.seq), noted)
            return len(self._store.quarantine) - before

    def quarantine(
        self, experiment: str | None = None, limit: int = 1_000_000
    ) -> list[QuarantinedRow]:
        """The last rows of one experiment, or of all, oldest first."""
        self.check()
        with self._store.lock:
            rows = list(self._store.quarantine.values())
        return [row for row in rows if experiment in (None, row.experiment)][-limit:]

    def quarantine_counts(self) -> dict[tuple[RowKind, QuarantineStage], int]:
        """How many there are, by kind and stage."""
        counts: dict[tuple[RowKind, QuarantineStage], int] = {}
        for row in self.quarantine():
            counts[row.kind, row.stage] = counts.get((row.kind, row.stage), 0) + 1
        return counts

    def beat(self, published_at: int) -> None:
        """Note that the worker is at work now."""
        self.check()
        self._store.heartbeat = Heartbeat(self._clock(), published_at)

    def heartbeat(self) -> Heartbeat | None:
        """The worker's last sign of life."""
        self.check()
        return self._store.heartbeat

    def note_duties(self, duties: Sequence[Duty]) -> None:
        """Note what a worker does and how it gets on."""
        self.check()
        at = self._clock()
        with self._store.lock:
            for duty in duties:
                self._store.duties[duty.name] = msgspec.structs.replace(duty, at=at)

    def duties(self) -> dict[str, Duty]:
        """What was said last of each duty, by its name."""
        self.check()
        with self._store.lock:
            return dict(self._store.duties)

    # ------------------------------------------------------------------ audit

    def revise(self, experiment: str, revision: str, who: str, spec: str) -> bool:
        """Note in the audit what an experiment is now; False when it was so already."""
        self.check()
        with self._store.lock:
            earlier = self.revisions(experiment)
            if earlier and earlier[-1].revision == revision:
                return False
            self._store.revisions.append(Revision(experiment, revision, self._clock(), who, spec))
        return True

    def revisions(self, experiment: str | None = None) -> list[Revision]:
        """The audit, oldest first: of one experiment, or of all."""
        self.check()
        with self._store.lock:
            lines = self._store.revisions
            return [line for line in lines if experiment in (None, line.experiment)]

    def give_order(self, order: Order, after: int | None = None) -> None:
        """Store an order, stamped now; see `Log.give_order`."""
        self.check()
        with self._store.lock:
            same = (order.experiment, order.revision)
            given = [one for one in self._store.orders if (one.experiment, one.revision) == same]
            check_order(order, after, len(given), max([one.step for one in given], default=0))
            self._store.orders.append(order._replace(at=self._clock()))

    def orders(self) -> list[Order]:
        """All orders that were given, oldest first."""
        self.check()
        with self._store.lock:
            return list(self._store.orders)

    def conclude(self, line: ConclusionLine, order: Order | None = None) -> None:
        """Store how an experiment ended, and the order that says so."""
        self.check()
        with self._store.lock:
            at = self._clock()
            self._store.conclusions.append(line._replace(at=at))
            if order is not None:
                self._store.orders.append(order._replace(at=at))

    def conclusions(self, experiment: str | None = None) -> list[ConclusionLine]:
        """How experiments ended, oldest first."""
        self.check()
        with self._store.lock:
            lines = self._store.conclusions
            return [line for line in lines if experiment in (None, line.experiment)]

    # ------------------------------------------------------------------ alarms

    def note_alarms(self, lines: Sequence[AlarmLine], watch: AlarmWatch | None = None) -> None:
        """Store what was found, and up to where was looked."""
        self.check()
        with self._store.lock:
            noted = {(line.alarm, line.state) for line in self._store.alarms}
            for line in lines:
                if (line.alarm, line.state) not in noted:
                    self._store.alarms.append(line)
            if watch is not None:
                self._store.alarm_watches[watch.experiment] = watch

    def alarms(self, limit: int = 1_000) -> list[AlarmLine]:
        """The last lines of alarms, and those of alarms that stand."""
        self.check()
        with self._store.lock:
            lines = list(self._store.alarms)
        over = {line.alarm for line in lines if line.state == "resolved"}
        first = len(lines) - limit
        return [line for i, line in enumerate(lines) if i >= first or line.alarm not in over]

    def alarm_watch(self, experiment: str) -> AlarmWatch | None:
        """Up to where an experiment was looked at; None where it never was."""
        self.check()
        return self._store.alarm_watches.get(experiment)

    def note_message(self, message: AlarmMessage) -> None:
        """Note that a channel took a message."""
        self.check()
        with self._store.lock:
            self._store.alarm_messages.setdefault(message[:3], message)

    def alarm_messages(self, limit: int = 10_000) -> list[AlarmMessage]:
        """The last messages that channels took."""
        self.check()
        with self._store.lock:
            return list(self._store.alarm_messages.values())[-limit:]

    # ------------------------------------------------------------------ profiles

    def profile(self, unit: str) -> ProfileLimits | None:
        """What a profile may see; None where nothing was set."""
        self.check()
        return self._store.profiles.get(unit)

    def change_profile(self, unit: str, unit_type: str, change: ProfileChange) -> ProfileLimits:  # noqa: ARG002 (the contract's)
        """Change what a profile may see."""
        self.check()
        with self._store.lock:
            limits = change.applied_to(self._store.profiles.get(unit, ProfileLimits()))
            self._store.profiles[unit] = limits
        return limits

    def remove_profile(self, unit: str) -> bool:
        """Remove what was set of a profile; returns whether anything was."""
        self.check()
        return self._store.profiles.pop(unit, None) is not None

    def merge_profile(
        self, unit: str, unit_type: str, merged: str, limited_by: Iterable[str]
    ) -> MergedProfile:
        """What a guest did is a profile's as well."""
        self.check()
        with self._store.lock:
            profiles, merges = self._store.profiles, self._store.merges
            limits = profiles.get(unit)
            if any((merge.unit, merge.merged) == (unit, merged) for merge in merges):
                return MergedProfile(limits, is_new=False)
            merges.append(Merge(len(merges) + 1, unit, unit_type, merged))
            for name in limited_by:
                if name in profiles:
                    limits = (limits or ProfileLimits()).stricter(profiles[name])
            if limits is not None:
                profiles[unit] = limits
        return MergedProfile(limits, is_new=True)

    def merges(self, after: int = 0, limit: int = 2**62) -> list[Merge]:
        """The next merges after a place."""
        self.check()
        return self._store.merges[after : after + limit]


def _seq(row: tuple[int, object]) -> int:
    return row[0]


def _head(snapshot: Snapshot) -> SnapshotHead:
    return SnapshotHead(
        snapshot.version,
        snapshot.watermark,
        snapshot.fingerprint,
        snapshot.start,
        snapshot.refit_at,
    )
