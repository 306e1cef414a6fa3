"""What tables of features by id are like: their versions, columns and drift, and how often an id
was unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from topbill import lake
from topbill.domain.errors import NotFound
from topbill.entities import HistoryLine, KeptTables

_USES = """
SELECT e."table", e.version, sum(e.asked), sum(e.unknown)
FROM decisions, unnest(entities) AS t(e) GROUP BY ALL
"""
MOST_VERSIONS = 10
"""Versions of a table that are told, the newest ones."""


class TableVersion(msgspec.Struct, frozen=True):
    """One version that was taken over, or refused, and how its columns moved since the one before.

    `asked` and `unknown`: how many ids the decisions of the lake looked up in it, and how many of
    them were not there.
    """

    line: HistoryLine
    asked: int = 0
    unknown: int = 0

    @property
    def unknown_share(self) -> float | None:
        """Of the ids that were looked up; None where none was."""
        return self.unknown / self.asked if self.asked else None


class TableReport(msgspec.Struct, frozen=True):
    """A declared table: the version in force (None where none ever was), what was refused since,
    and its versions, newest first."""

    table: str
    file: str
    of: str
    current: TableVersion | None
    refused: HistoryLine | None
    versions: list[TableVersion]


def tables(data: Path) -> list[TableReport]:
    """Every table of features that services of this data folder have taken over or refused, by
    name.

    Raises LogError where the folder cannot be read.
    """
    history = KeptTables(data).history()
    uses = _uses(data)
    by_declaration: dict[str, list[HistoryLine]] = {}
    for line in history:
        by_declaration.setdefault(line.declaration, []).append(line)
    reports = []
    for declaration, lines in by_declaration.items():
        state = KeptTables(data).state(declaration, history)
        versions = [_version(line, uses) for line in _changes(lines)[:MOST_VERSIONS]]
        last = lines[-1]
        current = None if state.current is None else _version(state.current, uses)
        reports.append(
            TableReport(last.table, last.file, last.of, current, state.refused, versions)
        )
    return sorted(reports, key=lambda report: (report.table, report.file))


def _changes(lines: Sequence[HistoryLine]) -> list[HistoryLine]:
    """The versions that were taken over and what was refused, newest first; a file that was written
    anew with the same content is no change."""
    changes: list[HistoryLine] = []
    before: tuple[str, str] | None = None
    for line in lines:
        if before != (line.version, line.refused):
            changes.append(line)
        before = (line.version, line.refused)
    return changes[::-1]


def _version(line: HistoryLine, uses: Mapping[tuple[str, str], tuple[int, int]]) -> TableVersion:
    asked, unknown = uses.get((line.table, line.version), (0, 0))
    return TableVersion(line, asked, unknown)


def _uses(data: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """(table, version) → how many ids were looked up, and how many unknown."""
    try:
        connection = lake.connect(lake.database_of(data))
    except NotFound:
        return {}  # nothing was published yet
    try:
        rows = connection.execute(_USES).fetchall()
    finally:
        connection.close()
    return {(table, version): (int(asked), int(n)) for table, version, asked, n in rows}
