"""The tables in force, taken over as their files change, and the kept versions of before."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from topbill.domain.entity import ACTION, UNIT, EntitySource
from topbill.domain.errors import BadData, FileProblem, LogError
from topbill.domain.table_source import TABLES
from topbill.entities.drift import Drift, drift, mean_cosine, summary
from topbill.entities.kept import HistoryLine, KeptTables
from topbill.entities.reading import TableRows, read_table
from topbill.entities.table import EMPTY, EntityTable, MissingVersion, table_of, version_of

_logger = logging.getLogger("topbill")
_AT_HAND = 8
"""Versions of the past that are in memory."""
_COMPARED = 2_000
"""Ids whose vectors are compared with those of before."""
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
        self._at_hand: OrderedDict[str, EntityTable] = OrderedDict()
        self._lock = threading.Lock()
        self._refused: dict[str, BadData] = {}
        self.problems: dict[tuple[str, str], FileProblem] = {}
        """What is wrong with a table, by experiment and table."""
        self.places: dict[tuple[str, str], str] = {}
        """Of it the place alone: which file, row and column."""

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
        started = declaration not in self._marks
        before = self._current.get(declaration)
        try:
            self._take_over(source, declaration, before)
        except BadData as error:
            if before is None:
                self._resume(declaration)
            line = self._line(source, refused=str(error), where=error.path)
            self._note(line)
            self._refused[declaration] = error
            _logger.warning("table %s: %s; its last good version goes on", source.name, error)
        except LogError as error:
            # It is in force all the same, but could not be kept: tried again with the next step.
            _logger.warning("table %s: %s; trying again", source.name, error)
            return False
        else:
            self._refused.pop(declaration, None)
        # What was written while it was read is looked at again in the next step.
        self._marks[declaration] = mark
        after = self._current.get(declaration)
        return started or after is not before

    def _take_over(
        self, source: EntitySource, declaration: str, before: EntityTable | None
    ) -> None:
        kept = self._kept
        if kept is None or self._data is None:
            return
        rows = read_table(source, self._data, self._stored if source.of == UNIT else None)
        version = version_of(rows.ids, rows.texts)
        if before is not None and before.version == version:
            kept.add(self._line(source, version=version, rows=len(rows.ids)))
            return
        table = table_of(rows.ids, rows.texts, version)
        if source.of == ACTION:
            # Now, in this thread, and not with the first decision.
            table.encoded(source.features)
        # On the disk before the first decision names it.
        kept.save(version, rows.ids, rows.texts)
        kept.add(self._described(source, rows, version))
        self._current[declaration] = table
        _logger.info("table %s: version %s, %d rows", source.name, version, len(table))

    def _resume(self, declaration: str) -> None:
        """Go on with the last good version, as after a restart."""
        state = None if self._kept is None else self._kept.state(declaration)
        if self._kept is None or state is None or state.current is None:
            return
        try:
            self._current[declaration] = self._kept.load(state.current.version)
        except MissingVersion as error:
            _logger.warning("%s", error)

    def _note(self, line: HistoryLine) -> None:
        try:
            if self._kept is not None:
                self._kept.add(line)
        except LogError as error:
            _logger.warning("%s", error)

    def _line(self, source: EntitySource, **parts: Any) -> HistoryLine:
        declaration = source.declaration
        return HistoryLine(
            declaration, source.name, source.described, source.of, time.time(), **parts
        )

    def _described(self, source: EntitySource, rows: TableRows, version: str) -> HistoryLine:
        """The line of a version: what its columns are like, and how they moved."""
        kept = self._kept
        columns = {f.name: summary(f, rows.columns[f.name]) for f in source.features}
        drifts: dict[str, Drift] = {}
        last = None if kept is None else kept.state(source.declaration).current
        if last is not None:
            vectors = self._vectors_before(last.version, rows, source)
            for feature in source.features:
                if feature.name in last.columns:
                    cosine = vectors.get(feature.name)
                    own = columns[feature.name]
                    drifts[feature.name] = drift(feature, last.columns[feature.name], own, cosine)
        return self._line(
            source,
            version=version,
            rows=len(rows.ids),
            columns=columns,
            before="" if last is None else last.version,
            drift=drifts,
        )

    def _vectors_before(
        self, version: str, rows: TableRows, source: EntitySource
    ) -> dict[str, float]:
        """Embedding → the mean cosine with what the same ids had in an earlier version."""
        names = [f.name for f in source.features if f.kind == "embedding"]
        if not names or self._kept is None:
            return {}
        try:
            before = self._kept.load(version)
        except MissingVersion:
            return {}
        step = max(1, len(rows.ids) // _COMPARED)
        sample = range(0, len(rows.ids), step)
        found = before.rows(rows.ids[row] for row in sample).tolist()
        cosines = {}
        old = [before.values(row) if row >= 0 else {} for row in found]
        for name in names:
            now = [rows.columns[name][row] for row in sample]
            cosine = mean_cosine([values.get(name) for values in old], now)
            if cosine is not None:
                cosines[name] = cosine
        return cosines

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
        """Have every table read again: ids were erased from the kept versions."""
        self._marks.clear()


NO_TABLES = EntityStore(None)
