"""What the kill benchmark finds in a data folder: what of the acknowledged is lost, doubled or
different, and where an erased unit still stands.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from benchmarks.kill_viewers import Ledger, Marks

from topbill import lake
from topbill.domain.errors import TopbillError
from topbill.lake.delta import delta_relation
from topbill.log import LOG_FILE

_UNIT = re.compile(r"viewer-\d{4}")


def problems_of(
    data: Path, ledgers: Sequence[Ledger], marks: Sequence[Marks] | None, gone: Collection[str]
) -> list[str]:
    """What is wrong with the record of a folder that nobody writes to.

    Args:
        data: The folder, with all that its log has published.
        ledgers: What was acknowledged.
        marks: How much of each must be there; None for all.
        gone: Units that were erased.
    """
    expected = marks or [ledger.marks() for ledger in ledgers]
    shown, unit_of = {}, {}
    must: set[str] = set()
    rewards: set[tuple[str, str]] = set()
    events: set[tuple[str, str]] = set()
    for ledger, mark in zip(ledgers, expected, strict=True):
        # Copies, since their viewers go on.
        shown |= dict(ledger.shown)
        unit_of |= dict(ledger.unit_of)
        must.update(islice(list(ledger.shown), mark.shown))
        rewards.update(islice(list(ledger.rewards), mark.rewards))
        events.update(islice(list(ledger.events), mark.events))

    decisions = _table(data, "decision_id, slate, page, layer", "decisions").to_pylist()
    stored = {row["decision_id"]: row["slate"] for row in decisions}
    problems = _twice("decision", [row["decision_id"] for row in decisions])
    problems += _lost("decision", {key for key in must if unit_of[key] not in gone} - stored.keys())
    problems += [
        f"different: {key} was answered {shown[key]}, the record has {stored[key]}"
        for key in stored.keys() & shown.keys()
        if shown[key] != stored[key]
    ]
    problems += [f"half a page: {page}" for page in _broken_pages(decisions)]

    of_decisions = _keys(data, "decision_id, event_id", "rewards")
    problems += _twice("reward", of_decisions)
    rewards = {key for key in rewards if unit_of[key[0]] not in gone}
    # A reward of a page is one of its rows too.
    rewards |= {(f"{page}:rows", event) for page, event in rewards if f"{page}:rows" in shown}
    problems += _lost("reward", rewards - set(of_decisions))
    of_units = _keys(data, "unit, event_id", "events")
    problems += _twice("event", of_units)
    problems += _lost("event", {key for key in events if key[0] not in gone} - set(of_units))
    return problems + _unpublished(data)


def units_in(data: Path) -> set[str]:
    """The units that stand anywhere in the files of a folder: in their bytes, in the columns of
    Parquet files, in the tables of the log.
    """
    units: set[str] = set()
    for path in sorted(data.rglob("*")):
        if path.is_file():
            units.update(_UNIT.findall(path.read_bytes().decode("latin-1")))
            if path.suffix == ".parquet" and "_delta_log" not in path.parts:
                units.update(_units_of_columns(path))
    with closing(sqlite3.connect(data / LOG_FILE)) as log:
        tables = log.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in log.execute(f"SELECT * FROM {table}"):  # noqa: S608 (its own name)
                units.update(_UNIT.findall(str(row)))
    return units


def _units_of_columns(path: Path) -> Iterator[str]:
    try:
        table = pq.ParquetFile(path).read()
    except (OSError, ValueError):
        return  # what a killed writer left; its bytes were searched
    for column in table.columns:
        while pa.types.is_list(column.type):
            column = pc.list_flatten(column)
        if pa.types.is_string(column.type):
            yield from _UNIT.findall(" ".join(filter(None, column.unique().to_pylist())))
        elif pa.types.is_nested(column.type):
            yield from _UNIT.findall(str(column.to_pylist()))


def _table(data: Path, columns: str, name: str) -> pa.Table:
    """Columns of a table of the lake as it lies there, whatever views show of it."""
    query = f"SELECT {columns} FROM {delta_relation(data / 'lake' / name)}"  # noqa: S608 (own names)
    with lake.connect() as connection:
        return connection.sql(query).to_arrow_table()


def _keys(data: Path, columns: str, name: str) -> list[tuple[str, ...]]:
    table = _table(data, columns, name)
    return list(zip(*[column.to_pylist() for column in table.columns], strict=True))


def _twice(what: str, keys: list[Any]) -> list[str]:
    return [f"doubled: {what} {key}, {n} times" for key, n in Counter(keys).items() if n > 1]


def _lost(what: str, keys: Iterable[object]) -> list[str]:
    return [f"lost: {what} {key}" for key in keys]


def _broken_pages(decisions: list[dict[str, Any]]) -> set[str]:
    """Pages of which there is a decision, and not the page's own."""
    whole = {row["decision_id"] for row in decisions if row["layer"] == "page"}
    return {row["page"] for row in decisions if row["page"] is not None} - whole


def _unpublished(data: Path) -> list[str]:
    """The rows of the log that the lake lacks."""
    tables = {
        "decisions": ("decisions", "decision_id"),
        "reward_events": ("rewards", "decision_id, event_id"),
        "unit_events": ("events", "unit, event_id"),
    }
    problems = []
    with closing(sqlite3.connect(data / LOG_FILE)) as log:
        for table, (name, columns) in tables.items():
            query = f"SELECT DISTINCT {columns} FROM {table}"  # noqa: S608 (own names)
            in_log = set(log.execute(query).fetchall())
            # What is removed by its age may be in the log until it is learned.
            in_log = {key for key in in_log if not key[0].startswith("old-")}
            in_lake = set(_keys(data, columns, name))
            problems += _lost(f"{table}, not published", in_log - in_lake)
    return problems


def experiments(data: Path) -> list[str]:
    """Those that have decisions; a page's own decision is of none, and others have no layer."""
    query = """SELECT DISTINCT experiment FROM decisions
        WHERE layer IS DISTINCT FROM 'page' ORDER BY ALL"""
    rows = lake.sql(lake.database_of(data), query).to_pylist()
    return [row["experiment"] for row in rows]


def old_decisions(data: Path) -> set[str]:
    """The ids of those that were stored before the benchmark."""
    return {key for (key,) in _keys(data, "decision_id", "decisions") if key.startswith("old-")}


def is_published(data: Path) -> bool:
    """Whether the record can be read: after a migration a worker writes it first."""
    try:
        return bool(experiments(data))
    except TopbillError:
        return False
