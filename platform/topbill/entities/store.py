"""The tables in force, taken over as their files change, and the kept versions of before."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from topbill.domain.entity import ACTION, UNIT, EntitySource
from topbill.domain.errors import BadData, FileProblem, LogError
from topbill.domain.table_source import TABLES
from topbill.entities.drift import SAMPLE, Drift, FeatureSummary, drift, mean_cosine, summary
from topbill.entities.kept import HistoryLine, KeptTables, TableState
from topbill.entities.reading import TableRows, read_table
from topbill.entities.table import EMPTY, EntityTable, MissingVersion, table_of, version_of

_logger = logging.getLogger("topbill")
_AT_HAND = 8
"""Versions of the past that are in memory."""
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_Mark = tuple[Any, ...]


class EntityStore:
    """The tables of one data folder.

    Two threads use it: decisions look ids up in `current`, and the follower puts a new table in the
    place of one that changed, in one statement. Neither waits for the other.
    """

    def __init__(self, data: Path | None, stored: Callable[[str], str] | None = None) -> None:
        """`stored` gives ids of units as the data folder has them, where that is not as they come;
        without a data folder there is no table."""
        self._data, self._stored = data, stored
        self._kept = None if data is None else KeptTables(data)
        self._current: dict[str, EntityTable] = {}
        self._marks: dict[str, _Mark] = {}
        self._erased: set[str] = set()
        """Tables in memory that hold ids which were erased."""
        self._at_hand: OrderedDict[str, EntityTable] = OrderedDict()
        self._lock = threading.Lock()
        self._refused: dict[str, BadData] = {}
        self.problems: dict[tuple[str, str], FileProblem] = {}
        """What is wrong with a table, by experiment and table."""
        self.places: dict[tuple[str, str], str] = {}
        """Of it the place alone: which file, row and column."""

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, also on another machine, reads the folder itself."""
        return EntityStore, (self._data, self._stored)

    @property
    def has_data(self) -> bool:
        """Whether there is a data folder, and so tables."""
        return self._data is not None

    def current(self, source: EntitySource) -> EntityTable:
        """The version in force; EMPTY where there is none yet."""
        return self._current.get(source.declaration, EMPTY)

    def at(self, version: str) -> EntityTable:
        """A version as it was. Raises MissingVersion where it is not kept any more."""
        if not version:
            return EMPTY
        with self._lock:
            table = self._at_hand.get(version)
            if table is None:
                if self._kept is None:
                    raise MissingVersion(
                        f"version {version} of a table of features: no data folder to read it "
                        "from; expected the one whose decisions these are"
                    )
                table = self._at_hand[version] = self._kept.load(version)
            self._at_hand.move_to_end(version)
            if len(self._at_hand) > _AT_HAND:
                self._at_hand.popitem(last=False)
            return table

    # ------------------------------------------------------------------ following

    def resume(self, sources: Iterable[EntitySource]) -> None:
        """Have the kept versions in force, without a look at the tables themselves."""
        for source in sources:
            self._resume(source.declaration)

    def follow(self, tables: Mapping[tuple[str, str], EntitySource]) -> bool:
        """Take over what has changed; whether anything was. A table that is broken leaves the last
        good version in force, which is told in `problems`.

        `tables` are the declared ones, by experiment and name.
        """
        if self._data is None:
            return False
        changed = False
        for source in tables.values():
            changed |= self._follow(source)
        problems, places = {}, {}
        for (experiment, name), source in tables.items():
            error = self._refused.get(source.declaration)
            if error is not None:
                problems[experiment, name] = self._problem(experiment, source, error)
                places[experiment, name] = error.path
        self.problems, self.places = problems, places
        return changed

    def _problem(self, experiment: str, source: EntitySource, error: BadData) -> FileProblem:
        expected = "a table that can be read; its last good version goes on"
        if not self.current(source).version:
            expected = "a table that can be read; until then every id is unknown"
        return FileProblem(experiment, f"entities.{source.name}", str(error), expected)

    def _follow(self, source: EntitySource) -> bool:
        declaration = source.declaration
        mark = self._mark(source)
        if self._marks.get(declaration) == mark:
            return False
        before = self._current.get(declaration)
        try:
            if not self._take_over(source, mark):
                return False  # another process reads it now: this one takes what that one keeps
        except LogError as error:
            # It could not be kept, and no decision must name what is not kept.
            _logger.warning("table %s: %s; trying again", source.name, error)
            return False
        # What was written while it was read is looked at again in the next step.
        self._marks[declaration] = mark
        return self._current.get(declaration) is not before

    def _take_over(self, source: EntitySource, mark: _Mark) -> bool:
        """Take over what the file is now, or note why not; False where another process is at it.
        Raises LogError.
        """
        if self._kept is None:
            return True
        with self._kept.reading(source.declaration) as is_mine:
            if not is_mine:
                return False
            state = self._kept.state(source.declaration)
            known = state.refused or state.current
            # Of several processes one reads a file, which may take seconds and gigabytes.
            if known is None or known.mark != repr(mark) or not self._take_known(source, state):
                self._read(source, mark)
        return True

    def _take_known(self, source: EntitySource, state: TableState) -> bool:
        """Take what another process, or this one before a restart, has made of the same file."""
        if state.current is not None and self._kept is not None:
            before = self._current.get(source.declaration)
            is_other = before is None or before.version != state.current.version
            if is_other or source.declaration in self._erased:
                try:
                    table = self._kept.load(state.current.version)
                except MissingVersion as error:
                    _logger.warning("%s", error)
                    return False
                self._put(source, table)
        self._note_problem(source, None if state.refused is None else _error_of(state.refused))
        return True

    def _read(self, source: EntitySource, mark: _Mark) -> None:
        if self._kept is None or self._data is None:
            return
        try:
            rows = read_table(source, self._data, self._stored if source.of == UNIT else None)
        except BadData as error:
            if source.declaration not in self._current:
                self._resume(source.declaration)
            self._kept.add(self._line(source, mark, refused=str(error), where=error.path))
            self._note_problem(source, error)
            return
        version = version_of(rows.ids, rows.texts)
        # On the disk before the first decision names it.
        self._kept.save(version, rows.ids, rows.texts)
        state = self._kept.state(source.declaration)
        is_new = state.current is None or state.current.version != version
        if is_new:
            self._kept.add(self._described(source, rows, version, mark))
        elif state.current is not None:
            self._kept.add(msgspec.structs.replace(state.current, mark=repr(mark)))
        before = self._current.get(source.declaration)
        if before is None or before.version != version:
            self._put(source, table_of(rows.ids, rows.texts, version))
        self._note_problem(source, None)

    def _put(self, source: EntitySource, table: EntityTable) -> None:
        if source.of == ACTION:
            # Now, in this thread, and not with the first decision.
            table.encoded(source.features)
        self._current[source.declaration] = table
        self._erased.discard(source.declaration)
        _logger.info("table %s: version %s, %d rows", source.name, table.version, len(table))

    def _note_problem(self, source: EntitySource, error: BadData | None) -> None:
        if error is None:
            self._refused.pop(source.declaration, None)
            return
        self._refused[source.declaration] = error
        _logger.warning("table %s: %s; its last good version goes on", source.name, error)

    def _resume(self, declaration: str) -> None:
        """Go on with the last good version, as after a restart."""
        state = None if self._kept is None else self._kept.state(declaration)
        if self._kept is None or state is None or state.current is None:
            return
        try:
            self._current[declaration] = self._kept.load(state.current.version)
        except MissingVersion as error:
            _logger.warning("%s", error)

    def _line(self, source: EntitySource, mark: _Mark, **parts: Any) -> HistoryLine:
        return HistoryLine(
            source.declaration,
            source.name,
            source.described,
            source.of,
            time.time(),
            mark=repr(mark),
            **parts,
        )

    def _described(
        self, source: EntitySource, rows: TableRows, version: str, mark: _Mark
    ) -> HistoryLine:
        """The line of a version: what its columns are like, and how they moved."""
        # Evenly over the rows, which lie in the order of their ids.
        step = max(1, len(rows.ids) // SAMPLE)
        ids = rows.ids[::step]
        values = [_decode(text) for text in rows.texts[::step]]
        columns: dict[str, FeatureSummary] = {}
        for feature in source.features:
            known = [row[feature.name] for row in values if feature.name in row]
            columns[feature.name] = summary(feature, rows.missing[feature.name], known)
        last = None if self._kept is None else self._kept.state(source.declaration).current
        return self._line(
            source,
            mark,
            version=version,
            rows=len(rows.ids),
            columns=columns,
            before="" if last is None else last.version,
            drift={} if last is None else self._drift(source, last, columns, ids, values),
        )

    def _drift(
        self,
        source: EntitySource,
        last: HistoryLine,
        columns: Mapping[str, FeatureSummary],
        ids: Sequence[str],
        values: Sequence[dict[str, Any]],
    ) -> dict[str, Drift]:
        """How each column moved since the last version; `values` are those of some `ids`."""
        names = [f.name for f in source.features if f.kind == "embedding"]
        before = self._values_before(last.version, ids) if names else []
        drifts = {}
        for feature in source.features:
            name = feature.name
            if name not in last.columns:
                continue
            cosine = None
            if name in names and before:
                old, new = ([row.get(name) for row in rows] for rows in (before, values))
                cosine = mean_cosine(old, new)
            drifts[name] = drift(feature, last.columns[name], columns[name], cosine)
        return drifts

    def _values_before(self, version: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """What an earlier version said of these ids; empty where it is lost."""
        if self._kept is None:
            return []
        try:
            before = self._kept.load(version)
        except MissingVersion:
            return []
        found = before.rows(ids).tolist()
        return [before.values(row) if row >= 0 else {} for row in found]

    def _mark(self, source: EntitySource) -> _Mark:
        """Another answer, another state of the file: costs a `stat`, of a Delta table a listing."""
        path = (self._data or Path()) / TABLES / source.file
        if path.is_dir():
            path = max((path / "_delta_log").glob("*"), default=path)
        try:
            status = path.stat()
        except OSError:
            return ()
        return path.name, status.st_mtime_ns, status.st_size, status.st_ino

    def forget(self) -> None:
        """Have the kept versions read again: ids were erased from them."""
        self._erased.update(self._current)
        self._marks.clear()


def _error_of(refused: HistoryLine) -> BadData:
    """What another process has said of a file."""
    return BadData(refused.where, refused.refused.removeprefix(f"{refused.where}: "))


NO_TABLES = EntityStore(None)
