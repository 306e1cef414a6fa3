"""What a log keeps beside its rows, in tables of one database: snapshots, the audit, orders,
alarms, profiles. It is the same for every log that has a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from topbill.domain.alarm import AlarmLine, AlarmMessage, AlarmWatch
from topbill.domain.errors import Conflict
from topbill.domain.profile import Merge, MergedProfile, ProfileChange, ProfileLimits
from topbill.domain.records import (
    QuarantinedRow,
    QuarantineStage,
    RowKind,
    Snapshot,
    SnapshotHead,
)
from topbill.log.alarms import AlarmTable
from topbill.log.conclusions import ConclusionTable
from topbill.log.duties import DutyTable
from topbill.log.orders import OrderTable
from topbill.log.profiles import ProfileTable
from topbill.log.protocol import (
    Clock,
    ConclusionLine,
    Duty,
    Erasure,
    Heartbeat,
    Log,
    Order,
    Retention,
    Revision,
)
from topbill.log.quarantine import HeartbeatTable, QuarantineTable
from topbill.log.remembered_ids import RememberedIds
from topbill.log.revisions import RevisionTable
from topbill.log.snapshots import SnapshotTable
from topbill.log.sql_database import CHECKED, COPIED, SNAPSHOTS, SqlDatabase


class TableLog(Log):
    """The part of a log that is tables beside the rows, each with a class of its own.

    Args:
        database: Where they lie; who inherits opens and closes it.
        clock: Gives the time in µs at which something was said.
    """

    def __init__(self, database: SqlDatabase, clock: Clock) -> None:
        self.name = database.name
        self._clock = clock
        self._tables = database
        self._snapshots = SnapshotTable(database, clock)
        self._revisions = RevisionTable(database, clock)
        self._orders = OrderTable(database, clock)
        self._conclusions = ConclusionTable(database, self._orders, clock)
        self._alarms = AlarmTable(database)
        self._quarantine = QuarantineTable(database, clock)
        self._heartbeat = HeartbeatTable(database, clock)
        self._duties = DutyTable(database, clock)
        self._profiles = ProfileTable(database, clock)
        self._remembered = RememberedIds(database)

    def go_on_from(self, other: TableLog) -> bool:
        """Take over all that another log knows beside its rows: policies, the audit, orders,
        conclusions, alarms, erasures, profiles; and the ids of its decisions and rewards, so that a
        late reward finds its decision and nothing is stored twice. Whole or not at all. Returns
        whether it did: not where it has just that already.

        Raises Conflict where this log has something of its own.
        """
        if self.revisions():
            if self.revisions() == other.revisions():
                return False
            raise Conflict(
                f"{self.name}: has experiments of its own; expected a log that nothing has used yet"
            )
        with self._tables.transaction():
            for table, place in COPIED.items():
                columns = ", ".join(CHECKED[table])
                rows = other._tables.rows(f"SELECT {columns} FROM {table} ORDER BY {place}")  # noqa: S608
                self._tables.insert(table, rows)
            for table, names in SNAPSHOTS.items():
                columns, marks = ", ".join(names), ", ".join("?" * len(names))
                for row in other._tables.rows(f"SELECT {columns} FROM {table}"):  # noqa: S608
                    self._tables.execute(
                        f"INSERT INTO {table} ({columns}) VALUES ({marks})",  # noqa: S608
                        row,
                    )
            self._remembered.go_on_from(other._tables)
        return True

    # ------------------------------------------------------------------ snapshots

    def versions(self) -> dict[str, int]:
        """The newest policy version of every experiment that has one."""
        return self._snapshots.versions()

    def version(self, experiment: str) -> int:
        """The newest policy version of an experiment; 0 where nothing was learned yet."""
        return self._snapshots.version(experiment)

    def snapshot(self, experiment: str, version: int | None = None) -> Snapshot | None:
        """The newest snapshot of an experiment, or that of `version`; None when there is none."""
        return self._snapshots.read(experiment, version)

    def snapshot_heads(self, experiment: str) -> list[SnapshotHead]:
        """What is known of an experiment's snapshots, newest first."""
        return self._snapshots.heads(experiment)

    def write_snapshot(self, snapshot: Snapshot) -> None:
        """Store the successor of the newest version; see `Log.write_snapshot`."""
        self._snapshots.write(snapshot)

    def forget_snapshots(self, before: int) -> int:
        """Delete the snapshots that had a successor by `before` µs; returns how many went."""
        return self._snapshots.forget(before)

    # ------------------------------------------------------------------ quarantine, heartbeat

    def set_aside(self, rows: Sequence[QuarantinedRow]) -> int:
        """Note rows, each once for each stage; returns how many are new."""
        return self._quarantine.add(rows)

    def quarantine(
        self, experiment: str | None = None, limit: int = 1_000_000
    ) -> list[QuarantinedRow]:
        """The last rows that were set aside; see `Log.quarantine`."""
        return self._quarantine.read(experiment, limit)

    def quarantine_counts(self) -> dict[tuple[RowKind, QuarantineStage], int]:
        """How many there are, by kind and stage."""
        return self._quarantine.counts()

    def beat(self, published_at: int) -> None:
        """Note that the worker is at work now."""
        self._heartbeat.beat(published_at)

    def heartbeat(self) -> Heartbeat | None:
        """The worker's last sign of life."""
        return self._heartbeat.read()

    def note_duties(self, duties: Sequence[Duty]) -> None:
        """Note what a worker does and how it gets on."""
        self._duties.note(duties)

    def duties(self) -> dict[str, Duty]:
        """What was said last of each duty, by its name."""
        return self._duties.read()

    # ------------------------------------------------------------------ audit

    def revise(self, experiment: str, revision: str, who: str, spec: str) -> bool:
        """Note in the audit what an experiment is now; False when it was so already."""
        return self._revisions.note(experiment, revision, who, spec)

    def revisions(self, experiment: str | None = None) -> list[Revision]:
        """The audit, oldest first: of one experiment, or of all."""
        return self._revisions.read(experiment)

    def newest_revisions(self) -> dict[str, str]:
        """The newest revision of every experiment in the audit, by key."""
        return self._revisions.newest()

    def give_order(self, order: Order, after: int | None = None) -> None:
        """Store an order, stamped now; see `Log.give_order`."""
        self._orders.give(order, after)

    def orders(self) -> list[Order]:
        """All orders that were given, oldest first."""
        return self._orders.read()

    def conclude(self, line: ConclusionLine, order: Order | None = None) -> None:
        """Store how an experiment ended, and the order that says so."""
        self._conclusions.conclude(line, order)

    def conclusions(self, experiment: str | None = None) -> list[ConclusionLine]:
        """How experiments ended, oldest first."""
        return self._conclusions.read(experiment)

    def erasures(self, experiment: str) -> list[Erasure]:
        """What was erased from an experiment, oldest first."""
        rows = self._tables.rows(
            "SELECT at, experiment, version, decisions, rewards, unit_hash = '' FROM erasures "
            "WHERE experiment = ? ORDER BY place",
            (experiment,),
        )
        return [Erasure(*row) for row in rows]

    def retention(self) -> Retention | None:
        """When rows were last removed because of their age."""
        rows = self._tables.rows(
            "SELECT at, kept_since, decisions, rewards, events, quarantined FROM retentions "
            "ORDER BY place DESC LIMIT 1"
        )
        return Retention(*rows[0]) if rows else None

    # ------------------------------------------------------------------ alarms

    def note_alarms(self, lines: Sequence[AlarmLine], watch: AlarmWatch | None = None) -> None:
        """Store what was found, and up to where was looked, in one step."""
        self._alarms.note(lines, watch)

    def alarms(self, limit: int = 1_000) -> list[AlarmLine]:
        """The last lines of alarms, and those of alarms that stand, oldest first."""
        return self._alarms.read(limit)

    def alarm_watch(self, experiment: str) -> AlarmWatch | None:
        """Up to where an experiment was looked at; None where it never was."""
        return self._alarms.watch(experiment)

    def note_message(self, message: AlarmMessage) -> None:
        """Note that a channel took a message."""
        self._alarms.note_message(message)

    def alarm_messages(self, limit: int = 10_000) -> list[AlarmMessage]:
        """The last messages that channels took, oldest first."""
        return self._alarms.messages(limit)

    # ------------------------------------------------------------------ profiles

    def profile(self, unit: str) -> ProfileLimits | None:
        """What a profile may see; None where nothing was set."""
        return self._profiles.read(unit)

    def change_profile(self, unit: str, unit_type: str, change: ProfileChange) -> ProfileLimits:
        """Change what a profile may see; see `Log.change_profile`."""
        return self._profiles.change(unit, unit_type, change)

    def remove_profile(self, unit: str) -> bool:
        """Remove what was set of a profile; returns whether anything was."""
        return self._profiles.remove(unit)

    def merge_profile(
        self, unit: str, unit_type: str, merged: str, limited_by: Iterable[str]
    ) -> MergedProfile:
        """What a guest did is a profile's as well; see `Log.merge_profile`."""
        return self._profiles.merge(unit, unit_type, merged, limited_by)

    def merges(self, after: int = 0, limit: int = 2**62) -> list[Merge]:
        """The next merges; see `Log.merges`."""
        return self._profiles.merges(after, limit)
