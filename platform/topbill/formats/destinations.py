"""Where exports go: files of lines, folders of parts, Delta tables, NumPy archives. Each knows how
far it has come.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa

from topbill.domain.errors import BadRequest, LogError
from topbill.formats import arrow, npz
from topbill.formats.obp_columns import Layout, Row
from topbill.lake.exchange import append_delta, delta_position


class Survey(msgspec.Struct, frozen=True):
    """What a first pass over the log found, for formats whose columns must be known before the
    first row; what came after the decision `upto` (a `seq`) is not in it."""

    layout: Layout
    upto: int


class Progress(msgspec.Struct, frozen=True):
    """How far an export to a file has come: the last `seq`, the rows, the bytes of each part, and
    the survey if any.
    """

    after: int = 0
    rows: int = 0
    sizes: dict[str, int] = {}
    kinds: dict[str, npz.Kind] = {}
    survey: Survey | None = None


class Target:
    """Where an export goes, the `seq` after which it goes on, and the last that it takes."""

    after: int = 0
    upto: int = (1 << 63) - 1

    def write(self, rows: Sequence[Row], through: int) -> None:
        """Add rows, durably, and remember that they reach `through`."""
        raise NotImplementedError

    def finish(self) -> None:
        """All is written."""

    def close(self) -> None:
        """Let go of files, whether all is written or not."""


class Note:
    """The progress of an export, kept beside its target until that is whole."""

    def __init__(self, target: Path, survey: Callable[[], Survey] | None = None) -> None:
        self._path = target.with_name(f"{target.name}.progress")
        if not self._path.exists():
            if target.exists():
                raise BadRequest("target", f"{target} is there already; expected a new name")
            target.parent.mkdir(parents=True, exist_ok=True)
            self.put(Progress(survey=survey() if survey else None))
            return
        try:
            self.held = msgspec.json.decode(self._path.read_bytes(), type=Progress)
        except msgspec.DecodeError as error:
            raise LogError(
                f"{self._path}: {error}; delete it and {target.name}, and export again"
            ) from None

    def put(self, progress: Progress) -> None:
        """Remember it, whatever dies."""
        self.held = progress
        fresh = self._path.with_name(f"{self._path.name}.tmp")
        fresh.write_bytes(msgspec.json.encode(progress))
        fresh.replace(self._path)

    @property
    def upto(self) -> int:
        """The last `seq` that belongs to the export: what the survey knows."""
        return Target.upto if self.held.survey is None else self.held.survey.upto

    def drop(self) -> None:
        """The export is whole."""
        self._path.unlink()


class Lines(Target):
    """A line a decision, after an optional first line."""

    def __init__(
        self, path: Path, note: Note, line: Callable[[Row], bytes], head: bytes = b""
    ) -> None:
        self._path, self._note, self._line = path, note, line
        self.after, self.upto = note.held.after, note.upto
        self._file = path.open("ab")
        self._file.truncate(note.held.sizes.get("", 0))
        if not note.held.sizes:
            self._file.write(head)

    def write(self, rows: Sequence[Row], through: int) -> None:
        self._file.write(b"".join(map(self._line, rows)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.after = through
        self._note.put(
            msgspec.structs.replace(
                self._note.held, after=through, sizes={"": self._path.stat().st_size}
            )
        )

    def finish(self) -> None:
        self._note.drop()

    def close(self) -> None:
        self._file.close()


class Parts(Target):
    """A folder of files, each called by the `seq` that it reaches."""

    def __init__(self, path: Path, suffix: str, write: Callable[[pa.Table, Path], None]) -> None:
        self._path, self._suffix, self._write = path, suffix, write
        path.mkdir(parents=True, exist_ok=True)
        self.after = max(
            (int(part.stem.removeprefix("part-")) for part in path.glob(f"part-*{suffix}")),
            default=0,
        )

    def write(self, rows: Sequence[Row], through: int) -> None:
        fresh = self._path / "writing.tmp"
        self._write(arrow.to_table(rows), fresh)
        fresh.replace(self._path / f"part-{through:012d}{self._suffix}")
        self.after = through


class Delta(Target):
    """A Delta table, which itself knows how far it has come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.after = delta_position(path)

    def write(self, rows: Sequence[Row], through: int) -> None:
        append_delta(self._path, arrow.to_table(rows), through)
        self.after = through


class Arrays(Target):
    """A NumPy archive: raw columns in a folder beside it, put together at the end."""

    def __init__(
        self,
        path: Path,
        note: Note,
        arrays: Callable[[Sequence[Row], int], Mapping[str, Any]],
        numbers: Mapping[str, int],
    ) -> None:
        self._path, self._note, self._arrays, self._numbers = path, note, arrays, numbers
        self.after, self.upto = note.held.after, note.upto
        self._folder = path.with_name(f"{path.name}.columns")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, BinaryIO] = {}

    def write(self, rows: Sequence[Row], through: int) -> None:
        held = self._note.held
        sizes, kinds = dict(held.sizes), dict(held.kinds)
        for name, array in self._arrays(rows, held.rows).items():
            if not isinstance(array, np.ndarray):
                continue
            kinds[name] = npz.Kind(array.dtype.str, array.shape[1:])
            file = self._open(name, sizes.get(name, 0))
            file.write(np.ascontiguousarray(array).tobytes())
            file.flush()
            os.fsync(file.fileno())
            sizes[name] = file.tell()
        self.after = through
        progress = Progress(
            after=through, rows=held.rows + len(rows), sizes=sizes, kinds=kinds, survey=held.survey
        )
        self._note.put(progress)

    def _open(self, name: str, size: int) -> BinaryIO:
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = (self._folder / name).open("ab")
            file.truncate(size)
            file.seek(size)
        return file

    def finish(self) -> None:
        held = self._note.held
        columns = {name: (self._folder / name, kind) for name, kind in held.kinds.items()}
        fresh = self._path.with_name(f"{self._path.name}.tmp")
        npz.pack(fresh, columns, {"n_rounds": held.rows, **self._numbers})
        fresh.replace(self._path)
        self._note.drop()
        shutil.rmtree(self._folder)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
