"""The versions of tables that a data folder keeps, in `entities/`: a file each, named by what is in
it, and a journal of what was taken over or refused, when.

    entities/history.jsonl     a line each, newest last, with its own checksum
             0f3c….sealed       a version: ids and features, behind its checksum

API processes write, each a line when it takes a table over; the worker removes what no decision
names any more.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import pyarrow as pa

from topbill.domain.durable import (
    sealed,
    sync,
    unsealed,
    with_checksum,
    without_checksum,
)
from topbill.domain.entity import ACTION, UNIT
from topbill.domain.errors import LogError
from topbill.entities.drift import Drift, FeatureSummary
from topbill.entities.table import EntityTable, MissingVersion, kept_table, rows_of, to_bytes

_T = TypeVar("_T")
FOLDER, HISTORY = "entities", "history.jsonl"
LINES = 100
"""Lines of the journal that are kept of each table, the newest ones."""
RESTS = 86_400.0
"""Seconds for which a version that another one replaced is kept in any case: a process that is slow
to follow may still decide with it."""


class HistoryLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One table taken over, or refused.

    Attributes:
        declaration: Which declaration of a table it is of (`EntitySource.declaration`).
        table, file, of: What the experiment calls it, where it lies, and whose ids it has.
        at: When, in seconds since the epoch.
        version: What was taken over; empty where it was refused.
        rows: How many rows it has.
        columns: What each column is like.
        before: The version that it replaced.
        drift: How each column moved since.
        refused: Where and why, in place of a version.
        where: Of it the place alone, which anybody may read.
        mark: What the file looked like from outside: one that looks the same need not be read.
    """

    declaration: str
    table: str
    file: str
    of: str
    at: float
    version: str = ""
    rows: int = 0
    columns: dict[str, FeatureSummary] = {}
    before: str = ""
    drift: dict[str, Drift] = {}
    refused: str = ""
    where: str = ""
    mark: str = ""


class TableState(msgspec.Struct, frozen=True):
    """A declared table as it stands: what is in force, and what was refused since."""

    current: HistoryLine | None
    refused: HistoryLine | None


class KeptTables:
    """The versions in one data folder."""

    def __init__(self, data: Path) -> None:
        self.folder = data / FOLDER
        self._read: tuple[object, list[HistoryLine]] = (None, [])

    @property
    def path(self) -> Path:
        """The journal's file."""
        return self.folder / HISTORY

    def history(self) -> list[HistoryLine]:
        """Every line, oldest first; of equal ones in a row, as several processes write, the first.
        A line that was cut short, by a full disk or a kill, is left out.
        """
        try:
            status = self.path.stat() if self.path.exists() else None
            mark = status and (status.st_mtime_ns, status.st_size, status.st_ino)
            if mark is not None and mark == self._read[0]:
                return self._read[1]
            texts = self.path.read_bytes().splitlines() if status else []
        except OSError as error:
            raise LogError(
                f"{self.path}: {error.strerror}; expected a file that can be read"
            ) from error
        lines: list[HistoryLine] = []
        last: dict[str, tuple[str, str, str]] = {}
        for text in texts:
            try:
                line = msgspec.json.decode(without_checksum(text), type=HistoryLine)
            except (msgspec.MsgspecError, ValueError):
                continue
            said = (line.version, line.refused, line.mark)
            if last.get(line.declaration) != said:
                last[line.declaration] = said
                lines.append(line)
        self._read = (mark, lines)
        return lines

    def state(self, declaration: str, history: Sequence[HistoryLine] | None = None) -> TableState:
        """What stands of a declared table."""
        current = refused = None
        for line in self.history() if history is None else history:
            if line.declaration != declaration:
                continue
            if line.version:
                current, refused = line, None
            else:
                refused = line
        return TableState(current, refused)

    def load(self, version: str) -> EntityTable:
        """A kept version. Raises MissingVersion where it is not there, or not what was written."""
        return self._sound(version, lambda content: kept_table(content, version))

    def rows(self, version: str) -> tuple[list[str], list[bytes]]:
        """The ids and features of a kept version. Raises as `load` does."""
        return self._sound(version, rows_of)

    def _sound(self, version: str, read: Callable[[bytes], _T]) -> _T:
        """What a version's file holds, where it is what was written."""
        path = self._path(version)
        try:
            return read(unsealed(path.read_bytes()))
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise MissingVersion(
                f"{FOLDER}/{path.name}: {reason}; expected the version that the service kept, with "
                "which decisions were made: put it back from a backup"
            ) from error

    def save(self, version: str, ids: Sequence[str], texts: Sequence[bytes]) -> None:
        """Keep a version, on the disk when this returns. Raises LogError."""
        path = self._path(version)
        if path.exists():
            try:
                self.rows(version)
                return
            except MissingVersion:
                pass  # written anew
        self.replace(version, ids, texts)

    def replace(self, version: str, ids: Sequence[str], texts: Sequence[bytes]) -> None:
        """Write a version's file anew, whole. Raises LogError."""
        self._write(self._path(version), sealed(to_bytes(ids, texts)))

    def _write(self, path: Path, content: bytes) -> None:
        # Every API process writes: each a file of its own, put in place whole.
        draft = path.with_suffix(f".{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(content)
            sync(draft)
            draft.replace(path)
            sync(self.folder)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise LogError(f"{path}: {error.strerror}; expected a folder to write to") from error

    def add(self, line: HistoryLine) -> None:
        """Note what was taken over or refused, unless the last line of that table says the same.
        Raises LogError."""
        with self._alone():
            state = self.state(line.declaration)
            last = state.refused or state.current
            if last is not None and (last.version, last.refused, last.mark) == (
                line.version,
                line.refused,
                line.mark,
            ):
                return
            with self.path.open("ab") as file:
                # The break in front ends a line that was cut short.
                lead = b"\n" if file.tell() else b""
                file.write(lead + _text_of(line))
                file.flush()
                os.fsync(file.fileno())

    @contextmanager
    def reading(self, declaration: str) -> Iterator[bool]:
        """While one process reads a table: whether it is this one. Raises LogError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / f".{declaration}.lock").open("w")
        except OSError as error:
            raise LogError(f"{self.folder}: {error.strerror}; expected a folder to write to") from (
                error
            )
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While one process writes the journal the others wait. Raises LogError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise LogError(f"{self.path}: {error.strerror}; expected a file to write to") from error

    def _trim(self) -> None:
        """Leave the newest lines of each table."""
        with self._alone():
            lines = self.history()
            left: list[HistoryLine] = []
            counts: Counter[str] = Counter()
            current = {line.declaration: line for line in lines if line.version}
            for line in reversed(lines):
                counts[line.declaration] += 1
                if counts[line.declaration] <= LINES or line is current.get(line.declaration):
                    left.append(line)
            if len(left) < len(lines):
                self._write(self.path, b"\n".join(map(_text_of, reversed(left))))

    def candidates(self, now: float | None = None) -> list[str]:
        """The versions of tables of actions that go where no decision names them. Of other tables
        decisions have the values themselves.
        """
        resting = self._in_force(time.time() if now is None else now)
        # Of one that the journal does not know any more nobody can tell: it may be of actions.
        others = {line.version for line in self.history() if line.of != ACTION}
        return [v for v in self.versions() if v not in resting and v not in others]

    def find(self, name: str) -> dict[str, dict[str, object]]:
        """What the versions in force of tables of units say of an id, by the tables' files."""
        found = {}
        current = {line.declaration: line for line in self.history() if line.version}
        for line in current.values():
            if line.of != UNIT or line.version not in self.versions():
                continue
            table = self.load(line.version)
            row = int(table.rows([name])[0])
            if row >= 0:
                found[line.file] = table.values(row)
        return found

    def unit_ids(self) -> set[str]:
        """The ids of every kept version of a table of units."""
        ids: set[str] = set()
        for version in self.versions_of_units():
            ids.update(self.rows(version)[0])
        return ids

    def versions_of_units(self) -> list[str]:
        """The kept versions of tables of units."""
        of_units = {line.version for line in self.history() if line.of == UNIT}
        return [version for version in self.versions() if version in of_units]

    def versions(self) -> list[str]:
        """Those whose files lie there."""
        return sorted(path.stem for path in self.folder.glob("*.sealed"))

    def collect(self, needed: Collection[str], now: float | None = None) -> list[str]:
        """Remove the versions that no decision needs, but those in force and those that were until
        a day ago; which ones went. Raises LogError."""
        if not self.path.exists():
            return []  # no table was ever taken over
        now = time.time() if now is None else now
        keep = self._in_force(now) | set(needed)
        removed = [version for version in self.versions() if version not in keep]
        for version in removed:
            self._path(version).unlink(missing_ok=True)
        self._trim()
        return removed

    def _in_force(self, now: float) -> set[str]:
        """The versions in force, and those that were within RESTS."""
        keep: set[str] = set()
        current: dict[str, HistoryLine] = {}
        for line in self.history():
            if not line.version:
                continue
            replaced = current.get(line.declaration)
            if replaced is not None and line.at > now - RESTS:
                keep.add(replaced.version)
            current[line.declaration] = line
        return keep | {line.version for line in current.values()}

    def _path(self, version: str) -> Path:
        return self.folder / f"{version}.sealed"


def erase_ids(data: Path, erased: Iterable[str]) -> list[str]:
    """Take ids out of every kept version of a table of units; which versions had them. What a
    version is called stays: its other rows are as they were."""
    kept, changed = KeptTables(data), []
    gone = set(erased)
    for version in kept.versions_of_units():
        ids, texts = kept.rows(version)
        left = [row for row, name in enumerate(ids) if name not in gone]
        if len(left) < len(ids):
            kept.replace(version, [ids[row] for row in left], [texts[row] for row in left])
            changed.append(version)
    return changed


def _text_of(line: HistoryLine) -> bytes:
    return with_checksum(msgspec.json.encode(line))
