"""Where exports go: files of lines, folders of parts, Delta tables, NumPy archives. Each knows how
far it has come.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from topbill.domain.errors import BadRequest, LogError
from topbill.formats import arrow_rows, npz
from topbill.formats.obp_columns import ObpColumns
from topbill.formats.rows import ActionFeatures, Row
from topbill.lake.exchange import append_delta, delta_position

_LAST_SEQ = (1 << 63) - 1


class Survey(msgspec.Struct, frozen=True):
    """What a first pass over the log found, for formats whose columns must be known before the
    first row; what came after the decision `upto` (a `seq`) is not in it. `features` and
    `events` are names: of all that contexts hold, and of all events.
    """

    # In files it is called as 0.1.0 called it: an export that it began can be gone on with.
    columns: ObpColumns = msgspec.field(name="layout")
    upto: int
    features: tuple[str, ...] = ()
    events: tuple[str, ...] = ()


class Export(NamedTuple):
    """What a writer needs to know: where to, the features of the experiment's actions, and how to
    survey the log, for formats that have to: its numbered columns, or its names alone.
    """

    target: Path
    features: ActionFeatures
    survey: Callable[[], Survey]
    survey_names: Callable[[], Survey]


class ExportProgress(msgspec.Struct, frozen=True):
    """How far an export to a file has come: the last `seq`, the rows, the bytes of each part, what
    each array holds, and the survey if any.
    """

    after: int = 0
    rows: int = 0
    sizes: dict[str, int] = {}
    kinds: dict[str, npz.ArrayKind] = {}
    survey: Survey | None = None


class Writer:
    """Where an export goes, the `seq` after which it goes on, and the last that it takes."""

    after: int = 0
    upto: int = _LAST_SEQ

    def write(self, rows: Sequence[Row], through: int) -> None:
        """Add rows, durably, and remember that they reach `through`."""
        raise NotImplementedError

    def finish(self) -> None:
        """All is written."""

    def close(self) -> None:
        """Let go of files, whether all is written or not."""


class ExportNote:
    """The progress of an export, kept beside its target until that is whole."""

    def __init__(self, target: Path, survey: Callable[[], Survey] | None = None) -> None:
        """Go on where the note says, or begin.

        Raises:
            BadRequest: The target is there, and is whole: it has no note.
            LogError: The note is damaged.
        """
        self._path = target.with_name(f"{target.name}.progress")
        if not self._path.exists():
            if target.exists():
                raise BadRequest("target", f"{target} is there already; expected a new name")
            target.parent.mkdir(parents=True, exist_ok=True)
            self.put(ExportProgress(survey=survey() if survey else None))
            return
        try:
            self.progress = msgspec.json.decode(self._path.read_bytes(), type=ExportProgress)
        except msgspec.DecodeError as error:
            raise LogError(
                f"{self._path}: {error}; delete it and {target.name}, and export again"
            ) from None

    def put(self, progress: ExportProgress) -> None:
        """Remember it, whatever dies."""
        self.progress = progress
        draft = self._path.with_name(f"{self._path.name}.tmp")
        draft.write_bytes(msgspec.json.encode(progress))
        draft.replace(self._path)

    @property
    def upto(self) -> int:
        """The last `seq` that belongs to the export: what the survey knows."""
        survey = self.progress.survey
        return _LAST_SEQ if survey is None else survey.upto

    @property
    def columns(self) -> ObpColumns:
        """What the survey found."""
        survey = self.progress.survey
        return ObpColumns() if survey is None else survey.columns

    @property
    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of the contexts' features, and of the events."""
        survey = self.progress.survey
        return ((), ()) if survey is None else (survey.features, survey.events)

    def drop(self) -> None:
        """The export is whole."""
        self._path.unlink()


class LinesWriter(Writer):
    """A line a decision, after an optional first line."""

    def __init__(
        self, path: Path, note: ExportNote, dump: Callable[[Row], bytes], head: bytes = b""
    ) -> None:
        self._path, self._note, self._dump = path, note, dump
        self.after, self.upto = note.progress.after, note.upto
        self._file = path.open("ab")
        # What was written after the last note may be half a line: it is written anew.
        self._file.truncate(note.progress.sizes.get("", 0))
        if not note.progress.sizes:
            self._file.write(head)

    def write(self, rows: Sequence[Row], through: int) -> None:
        for row in rows:
            self._file.write(self._dump(row))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.after = through
        # The note comes after the lines are durable, never before.
        sizes = {"": self._path.stat().st_size}
        self._note.put(msgspec.structs.replace(self._note.progress, after=through, sizes=sizes))

    def finish(self) -> None:
        self._note.drop()

    def close(self) -> None:
        self._file.close()


class PartsWriter(Writer):
    """A folder of files, each called by the `seq` that it reaches: so their names are the note."""

    def __init__(
        self, path: Path, suffix: str, write_table: Callable[[pa.Table, Path], None]
    ) -> None:
        self._path, self._suffix, self._write_table = path, suffix, write_table
        path.mkdir(parents=True, exist_ok=True)
        for part in path.glob(f"part-*{suffix}"):
            self.after = max(self.after, int(part.stem.removeprefix("part-")))

    def write(self, rows: Sequence[Row], through: int) -> None:
        draft = self._path / "writing.tmp"
        self._write_table(arrow_rows.to_table(rows), draft)
        draft.replace(self._path / f"part-{through:012d}{self._suffix}")
        self.after = through


class DeltaWriter(Writer):
    """A Delta table, which itself knows how far it has come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.after = delta_position(path)

    def write(self, rows: Sequence[Row], through: int) -> None:
        append_delta(self._path, arrow_rows.to_table(rows), through)
        self.after = through


class ArchiveWriter(Writer):
    """A NumPy archive: raw columns in a folder beside it, put together at the end.

    `arrays` makes the columns of a batch, given how many rows were written before; `numbers` are
    single numbers that the archive holds too.
    """

    def __init__(
        self,
        path: Path,
        note: ExportNote,
        arrays: Callable[[Sequence[Row], int], Mapping[str, Any]],
        numbers: Mapping[str, int],
    ) -> None:
        self._path, self._note, self._arrays, self._numbers = path, note, arrays, numbers
        self.after, self.upto = note.progress.after, note.upto
        self._folder = path.with_name(f"{path.name}.columns")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, BinaryIO] = {}

    def write(self, rows: Sequence[Row], through: int) -> None:
        progress = self._note.progress
        sizes, kinds = dict(progress.sizes), dict(progress.kinds)
        for name, array in self._arrays(rows, progress.rows).items():
            # Numbers and what is absent are no columns.
            if not isinstance(array, np.ndarray):
                continue
            kinds[name] = npz.ArrayKind(array.dtype.str, array.shape[1:])
            file = self._open(name, sizes.get(name, 0))
            file.write(np.ascontiguousarray(array).tobytes())
            file.flush()
            os.fsync(file.fileno())
            sizes[name] = file.tell()
        self.after = through
        self._note.put(
            ExportProgress(
                after=through,
                rows=progress.rows + len(rows),
                sizes=sizes,
                kinds=kinds,
                survey=progress.survey,
            )
        )

    def _open(self, name: str, size: int) -> BinaryIO:
        """The column's file; what was written after the last note is cut off first."""
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = (self._folder / name).open("ab")
            file.truncate(size)
            file.seek(size)
        return file

    def finish(self) -> None:
        progress = self._note.progress
        columns = {name: (self._folder / name, kind) for name, kind in progress.kinds.items()}
        draft = self._path.with_name(f"{self._path.name}.tmp")
        npz.pack(draft, columns, {"n_rounds": progress.rows, **self._numbers})
        draft.replace(self._path)
        # In this order: without its note, a whole archive beside its columns is still whole.
        self._note.drop()
        shutil.rmtree(self._folder)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
