"""A unit's rows in the lake: found, deleted, and taken out of every file that lies there.

A delete alone would leave much: the files that it replaced, which vacuum removes, and Delta's own
commits, whose statistics name the smallest and largest unit of each file and whose predicates name
the one that was deleted. So all commits before a new checkpoint go as well, and with them the
history of the table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from deltalake.exceptions import DeltaError

from topbill.domain.errors import LogError
from topbill.domain.sql import quoted
from topbill.lake.appending import WRITER
from topbill.lake.causes import cause
from topbill.lake.database import Error, connect
from topbill.lake.delta import TablePlace, relation_of, table_of
from topbill.lake.places import lake_place
from topbill.lake.tables import Table, schemas
from topbill.log.erasing import StoredRows

_CHUNK = 500
"""Ids in the condition of one delete."""


def find_in_lake(
    data: Path, unit: str, unit_type: str | None, spared: Collection[str]
) -> StoredRows:
    """What the lake of a data folder holds of a unit; arguments as of `find_in_log`. A reward that
    was published without its decision's unit is told by the decision.
    """
    decisions = dict(_rows(data, "decisions", "decision_id, experiment", _own(unit, spared)))
    condition = f"unit IS NULL AND decision_id IN ({_listed(decisions)})" if decisions else "false"
    rewards = {}
    for decision_id, event_id, experiment in [
        *_rows(data, "rewards", "decision_id, event_id, experiment", _own(unit, spared)),
        *_rows(data, "rewards", "decision_id, event_id, experiment", condition),
    ]:
        rewards[decision_id, event_id] = experiment or decisions[decision_id]
    events = _rows(data, "events", "unit_type, unit, event_id", _own_events(unit, unit_type))
    return StoredRows(decisions, rewards, set(events), [])


def units_in_lake(data: Path) -> set[str]:
    """The ids of all units of which the lake of a data folder holds something."""
    units: set[str] = set()
    for name in schemas():
        rows = _rows(data, name, "DISTINCT unit", "unit IS NOT NULL")
        units.update(unit for (unit,) in rows)
    return units


def lake_rows(
    data: Path, unit: str, unit_type: str | None, spared: Collection[str]
) -> dict[str, list[dict[str, Any]]]:
    """The same rows, whole, by table; for whoever asks what is stored of them."""
    own = _own(unit, spared)
    rows = {"decisions": _whole_rows(data, "decisions", own)}
    rewards = own
    if rows["decisions"]:
        ids = _listed(row["decision_id"] for row in rows["decisions"])
        rewards = f"({own} OR unit IS NULL AND decision_id IN ({ids}))"
    rows["rewards"] = _whole_rows(data, "rewards", rewards)
    rows["events"] = _whole_rows(data, "events", _own_events(unit, unit_type))
    return rows


def _whole_rows(data: Path, name: Table, condition: str) -> list[dict[str, Any]]:
    names = [column for column in schemas()[name].names if column != "seq"]
    columns = ", ".join(f'"{column}"' for column in names)
    return list(_select(data, name, columns, condition).to_pylist())


def erase_from_lake(
    data: Path, rows: StoredRows, unit: str, unit_type: str | None, spared: Collection[str]
) -> None:
    """Delete a unit's rows from the tables of a data folder's lake. Raises LogError."""
    # Rewards before their decisions, by which some of them are found: killed here, the next run
    # finds the rest.
    _delete(data, "rewards", _own(unit, spared))
    decisions = list(rows.decisions)
    for start in range(0, len(decisions), _CHUNK):
        ids = _listed(decisions[start : start + _CHUNK])
        _delete(data, "rewards", f"unit IS NULL AND decision_id IN ({ids})")
    _delete(data, "decisions", _own(unit, spared))
    _delete(data, "events", _own_events(unit, unit_type))


_BY_TIME: tuple[tuple[Table, str], ...] = (
    ("decisions", "decided_at"),
    # Of its decision: a reward of a decision that stays stays, whenever it came.
    ("rewards", "decided_at"),
    ("events", "received_at"),
)
"""By which time a row is old."""


class AgedRows(NamedTuple):
    """How many rows are older than a moment: decisions and rewards by experiment, and events."""

    by_experiment: dict[str, tuple[int, int]]
    events: int

    @property
    def decisions(self) -> int:
        """Of all experiments."""
        return sum(decisions for decisions, _ in self.by_experiment.values())

    @property
    def rewards(self) -> int:
        """Of all experiments, and those of no experiment."""
        return sum(rewards for _, rewards in self.by_experiment.values())


def aged_rows(data: Path, before: int) -> AgedRows:
    """What the lake of a data folder holds from before a moment (µs since the epoch)."""
    counts: dict[str, dict[str, int]] = {}
    for name, column in _BY_TIME[:2]:
        grouped = f"{_is_older(column, before)} GROUP BY ALL"
        rows = _rows(data, name, "coalesce(experiment, ''), count(*)", grouped)
        counts[name] = dict(rows)
    by_experiment = {}
    for key in sorted({*counts["decisions"], *counts["rewards"]}):
        by_experiment[key] = (counts["decisions"].get(key, 0), counts["rewards"].get(key, 0))
    events = _rows(data, "events", "count(*)", _is_older("received_at", before))
    return AgedRows(by_experiment, events[0][0] if events else 0)


def has_newer_decisions(data: Path, since: int) -> bool:
    """Whether the lake of a data folder holds any decision from that moment on (µs since the
    epoch).
    """
    newer = f"NOT ({_is_older('decided_at', since)}) LIMIT 1"
    return len(_select(data, "decisions", "seq", newer)) > 0


def delete_aged(data: Path, before: int) -> None:
    """Delete what the lake of a data folder holds from before a moment (µs since the epoch); files
    without any such row stay as they are. Raises LogError.
    """
    # Each by its own time: killed between two tables, the next run deletes the rest.
    for name, column in _BY_TIME:
        _delete(data, name, _is_older(column, before))


def _is_older(column: str, before: int) -> str:
    # Text, which DuckDB and Delta alike take for a time where they compare it with one.
    return f"{column} < {quoted(datetime.fromtimestamp(before / 1e6, UTC).isoformat())}"


def take_history_away(data: Path) -> None:
    """Leave of each table in the lake of a data folder its newest version alone. Readers that have
    the lake open must open it anew. Raises LogError.
    """
    for name in schemas():
        _take_history_away(table_of(lake_place(data), name))


def _own(unit: str, spared: Collection[str]) -> str:
    condition = f"unit = {quoted(unit)}"
    if spared:
        condition += f" AND experiment NOT IN ({_listed(spared)})"
    return condition


def _own_events(unit: str, unit_type: str | None) -> str:
    condition = f"unit = {quoted(unit)}"
    return condition if unit_type is None else f"{condition} AND unit_type = {quoted(unit_type)}"


def _listed(values: Iterable[str]) -> str:
    return ", ".join(map(quoted, values))


def _rows(data: Path, name: str, columns: str, condition: str) -> list[tuple[Any, ...]]:
    table = _select(data, name, columns, condition)
    return list(zip(*[column.to_pylist() for column in table.columns], strict=True))


def _select(data: Path, name: str, columns: str, condition: str) -> pa.Table:
    place = table_of(lake_place(data), name)
    relation = relation_of(place) if place.is_there() else None
    if relation is None:
        return pa.table({})
    query = f"SELECT {columns} FROM {relation} WHERE {condition}"  # noqa: S608 (quoted)
    with connect() as connection:
        try:
            return connection.sql(query).to_arrow_table()
        except Error as error:
            raise LogError(f"{place.root}: cannot be read: {cause(error)}") from error


def _delete(data: Path, name: str, condition: str) -> None:
    place = table_of(lake_place(data), name)
    # Without a row to delete, no commit and no file is written.
    if not len(_select(data, name, "seq", f"{condition} LIMIT 1")):
        return
    try:
        place.open().delete(condition, writer_properties=WRITER)
    except (OSError, DeltaError) as error:
        raise LogError(
            f"{place.root}: cannot be deleted from: {cause(error)}; run it again"
        ) from error


def _take_history_away(place: TablePlace) -> None:
    if not place.is_there():
        return
    try:
        table = place.open()
        table.vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)
        table = place.open()
        table.create_checkpoint()
    except (OSError, DeltaError) as error:
        raise LogError(f"{place.root}: cannot be tidied: {cause(error)}; run it again") from error
    for path in place.log():
        name = path.rpartition("/")[2]
        is_earlier = name[:20].isdigit() and int(name[:20]) < table.version()
        # What a killed writer left is a commit under another name.
        if is_earlier or name.startswith(("_commit_", ".")):
            place.files.delete(path)
