"""A unit's rows in a log: found, and taken out of its tables, and out of every byte of its files
where these are here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from topbill.domain.records import Decision, QuarantinedRow
from topbill.log.entries import EventKey, UnitEventKey
from topbill.log.protocol import Retention, now_micros
from topbill.log.remembered_ids import RememberedIds
from topbill.log.row_tables import RowTables, open_row_tables
from topbill.log.snapshots import SnapshotTable
from topbill.log.sql_database import SqlDatabase
from topbill.log.tombstones import Tombstone

_decode = msgspec.json.Decoder(Decision).decode
_UNREADABLE = (msgspec.DecodeError, ValueError, TypeError, RecursionError)
_REWARDS = "FROM reward_events WHERE decision_id"
_EVENTS = "FROM unit_events WHERE unit_type = ? AND unit = ? AND event_id = ?"
_PROFILE = "FROM profiles WHERE unit = ?"
_MERGE = "FROM merges WHERE unit = ? AND merged = ?"
_SET_ASIDE = "FROM quarantine WHERE place = ?"
_CHUNK = 256
"""Ids of one statement."""


class StoredRows(NamedTuple):
    """What is stored of one unit: by id its decisions and its rewards, each with its experiment,
    its events, the places in the quarantine of rows that were set aside, the unit itself where
    limits of it as a profile are set, the tables of features of whose kept versions it is, and its
    merges: (profile, guest), of which it is one.
    """

    decisions: dict[str, str]
    rewards: dict[EventKey, str]
    events: set[UnitEventKey]
    quarantined: list[int]
    profiles: frozenset[str] = frozenset()
    tables: frozenset[str] = frozenset()
    merges: frozenset[tuple[str, str]] = frozenset()

    def by_experiment(self) -> dict[str, tuple[int, int]]:
        """How many decisions and rewards each experiment has of it."""
        counts = {}
        for key in sorted({*self.decisions.values(), *self.rewards.values()}):
            decisions = sum(experiment == key for experiment in self.decisions.values())
            rewards = sum(experiment == key for experiment in self.rewards.values())
            counts[key] = (decisions, rewards)
        return counts

    def __or__(self, other: object) -> StoredRows:
        if not isinstance(other, StoredRows):
            return NotImplemented
        return StoredRows(
            self.decisions | other.decisions,
            self.rewards | other.rewards,
            self.events | other.events,
            self.quarantined + other.quarantined,
            self.profiles | other.profiles,
            self.tables | other.tables,
            self.merges | other.merges,
        )


def find_in_log(
    place: str | Path,
    unit: str,
    unit_type: str | None,
    spared: Collection[str],
    more: Iterable[str] = (),
) -> StoredRows:
    """What the tables of the log at `place` hold of a unit; what lies in its journal is not seen.

    Args:
        place: The log: its path, or its URL.
        unit: The unit.
        unit_type: Of events and limits, only those of this type.
        spared: Experiments that are left alone.
        more: Decisions of the unit that the log has let go.
    """
    with closing(open_row_tables(place)) as tables:
        database = tables.database
        decisions = _decisions(tables, unit, spared)
        by_id = dict.fromkeys(more, "") | decisions
        rewards = {}
        for decision_id, event_id in _rewards(database, list(by_id)):
            rewards[decision_id, event_id] = by_id[decision_id]
        events = set(
            database.rows(
                "SELECT unit_type, unit, event_id FROM unit_events "
                "WHERE unit = ? AND unit_type = coalesce(?, unit_type)",
                (unit, unit_type),
            )
        )
        profiles = database.rows(
            "SELECT unit FROM profiles WHERE unit = ? AND unit_type = coalesce(?, unit_type)",
            (unit, unit_type),
        )
        merges = database.rows(
            "SELECT unit, merged FROM merges "
            "WHERE ? IN (unit, merged) AND unit_type = coalesce(?, unit_type)",
            (unit, unit_type),
        )
        return StoredRows(
            decisions,
            rewards,
            events,
            _quarantined(database, unit, by_id),
            frozenset(unit for (unit,) in profiles),
            merges=frozenset(merges),
        )


def units_in_log(place: str | Path) -> set[str]:
    """The ids of all units of which the tables of the log at `place` hold something."""
    with closing(open_row_tables(place)) as tables:
        database = tables.database
        units = {unit for (unit,) in database.rows("SELECT DISTINCT unit FROM unit_events")}
        units.update(unit for (unit,) in database.rows("SELECT unit FROM profiles"))
        for pair in database.rows("SELECT unit, merged FROM merges"):
            units.update(pair)
        for _, decisions in tables.bundles():
            units.update(decision.unit for decision in decisions)
        units |= tables.units_let_go()
        for body in tables.bodies():
            with suppress(*_UNREADABLE):
                units.add(_decode(body).unit)
        return units


def _decisions(tables: RowTables, unit: str, spared: Collection[str]) -> dict[str, str]:
    """A decision's unit stands in its body alone: looked for as bytes, then read. Bundles are read
    one by one.
    """
    found = {}
    for decision_id, experiment, body in tables.bodies_with(msgspec.json.encode(unit)):
        if experiment in spared or not _is_of(body, unit):
            continue
        found[decision_id] = experiment
    for _, decisions in tables.bundles():
        for decision in decisions:
            if decision.unit == unit and decision.experiment not in spared:
                found[decision.decision_id] = decision.experiment
    return found | {i: key for i, key in tables.let_go_of(unit) if key not in spared}


def _is_of(body: bytes, unit: str) -> bool:
    """Whether a decision's body is the unit's. One that cannot be read but has the id in it is."""
    try:
        return _decode(body).unit == unit
    except _UNREADABLE:
        return True


def _rewards(database: SqlDatabase, decision_ids: Sequence[str]) -> list[EventKey]:
    found: list[EventKey] = []
    for start in range(0, len(decision_ids), _CHUNK):
        chunk = decision_ids[start : start + _CHUNK]
        marks = ",".join("?" * len(chunk))
        query = f"SELECT decision_id, event_id FROM reward_events WHERE decision_id IN ({marks})"  # noqa: S608 (marks only)
        found += database.rows(query, chunk)
    return found


def _quarantined(database: SqlDatabase, unit: str, decisions: Collection[str]) -> list[int]:
    """The places of rows that were set aside and are the unit's, or speak of it."""
    text = msgspec.json.encode(unit)
    found = []
    for place, kind, row_id, belongs_to, reason, body in database.rows(
        "SELECT place, kind, id, belongs_to, reason, body FROM quarantine"
    ):
        own = {"decision": row_id in decisions, "reward": belongs_to in decisions}
        is_own = own.get(kind, belongs_to == unit)
        if is_own or text in body or repr(unit) in reason or text.decode() in reason:
            found.append(place)
    return found


def rows_set_aside(place: str | Path, places: Collection[int]) -> list[dict[str, Any]]:
    """What stands at these places of the quarantine of the log at `place`: the fields of
    `QuarantinedRow`, the body as text.
    """
    rows = []
    with closing(open_row_tables(place)) as tables:
        for row_place, *values in tables.database.rows(
            "SELECT place, kind, stage, experiment, id, belongs_to, seq, reason, body, at "
            "FROM quarantine ORDER BY place"
        ):
            if row_place in places:
                row = QuarantinedRow(*values)._asdict()
                rows.append(row | {"body": row["body"].decode(errors="replace")})
    return rows


def erase_from_log(place: str | Path, rows: StoredRows, tombstone: Tombstone) -> None:
    """Delete a unit's rows from the tables of the log at `place`, and note of each experiment how
    many they were and which policy version stood then: `topbill verify` folds from that one. All
    of it in one transaction.

    The ids stay used for as long as those of other rows do, as digests. Raises DamagedSnapshot
    where that version of a policy cannot be read.
    """
    with closing(open_row_tables(place)) as tables:
        database = tables.database
        snapshots = SnapshotTable(database, now_micros)
        with database.transaction():
            for experiment in rows.by_experiment():
                snapshots.read(experiment, None)
            _note_checkpoints(database, rows.by_experiment(), tombstone.at, tombstone.hash)
            _remember(tables, rows)
            _unpack_bundles(tables, rows)
            tables.delete_decisions(rows.decisions)
            deleted: tuple[tuple[str, Iterable[Sequence[Any]]], ...] = (
                (f"{_REWARDS} = ? AND event_id = ?", rows.rewards),
                (_EVENTS, rows.events),
                (_SET_ASIDE, [(row_place,) for row_place in rows.quarantined]),
                (_PROFILE, [(unit,) for unit in rows.profiles]),
                (_MERGE, rows.merges),
            )
            for statement, keys in deleted:
                for values in keys:
                    database.execute(f"DELETE {statement}", values)


def _note_checkpoints(
    database: SqlDatabase, counts: Mapping[str, tuple[int, int]], at: int, unit_hash: str
) -> None:
    """Note of each experiment how many decisions and rewards go, and its newest policy version."""
    snapshots = SnapshotTable(database, now_micros)
    for experiment, removed in counts.items():
        row = (at, unit_hash, experiment, snapshots.version(experiment), *removed)
        database.insert("erasures", [row])


_AGED = ("decisions", "reward_events", "unit_events")


def aged_rows_in_log(place: str | Path, before: int) -> int:
    """How many rows of the log at `place` are stamped before a moment (µs): what no policy has
    learned yet, or the lake does not have.
    """
    with closing(open_row_tables(place)) as tables:
        return sum(tables.count_before(table, before) for table in _AGED)


def aged_quarantine(place: str | Path, before: int) -> int:
    """How many rows were set aside before a moment (µs)."""
    with closing(open_row_tables(place)) as tables:
        query = "SELECT count(*) FROM quarantine WHERE at < ?"
        ((count,),) = tables.database.rows(query, (before,))
        return int(count)


def note_aged(place: str | Path, counts: Mapping[str, tuple[int, int]], at: int) -> None:
    """Note that so many decisions and rewards of these experiments are about to be removed because
    of their age, and which policy version stands now: `topbill verify` folds from that one.
    """
    with closing(open_row_tables(place)) as tables, tables.database.transaction():
        _note_checkpoints(tables.database, counts, at, "")


def end_retention(place: str | Path, retention: Retention) -> None:
    """Remove what was set aside before, and note that all that was older is gone, in one
    transaction.
    """
    with closing(open_row_tables(place)) as tables, tables.database.transaction():
        older = "DELETE FROM quarantine WHERE at < ?"
        tables.database.execute(older, (retention.kept_since,))
        tables.database.insert("retentions", [tuple(retention)])


def _unpack_bundles(tables: RowTables, rows: StoredRows) -> None:
    """Leave no bundle that holds a decision which is about to be deleted."""
    places = []
    for place, decisions in tables.bundles():
        if any(decision.decision_id in rows.decisions for decision in decisions):
            places.append(place)
    tables.undo_bundles(places)


def _remember(tables: RowTables, rows: StoredRows) -> None:
    """Have the ids of what is about to be deleted count as used, as of rows that are let go."""
    decisions = [row for each in rows.decisions for row in tables.stamped_decision(each)]
    events = [row for key in rows.rewards for row in tables.stamped_event(key)]
    RememberedIds(tables.database).add(decisions, events)


def wipe_log(place: str | Path) -> None:
    """Leave nothing in the files of the log at `place` that its tables do not hold, as far as they
    are here. Raises LogError.
    """
    with closing(open_row_tables(place)) as tables:
        tables.wipe()
