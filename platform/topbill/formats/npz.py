"""NumPy's .npz some rows at a time, so that arrays larger than memory can be read and written."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from topbill.domain.errors import BadData

Arrays = dict[str, NDArray[Any]]
_TORN = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError)


class ArrayKind(NamedTuple):
    """What an array holds: NumPy's name of its type, and the shape of a row."""

    dtype: str
    row: tuple[int, ...]


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


class Npz:
    """A file of numeric arrays; those of Python objects are taken as absent. Raises BadData for
    what is no such.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
            names = [name for name in self._zip.namelist() if name.endswith(".npy")]
            heads = {name.removesuffix(".npy"): self._head(name) for name in names}
        except _TORN as error:
            raise self._torn(error) from None
        self.heads = {name: head for name, head in heads.items() if head.dtype.kind in "biuf"}

    def __contains__(self, name: str) -> bool:
        return name in self.heads

    def length(self, name: str) -> int:
        """The rows of an array. Raises BadData where it is not there or has none."""
        head = self.heads.get(name)
        if head is None or not head.shape:
            raise BadData(
                f"{self._path.name}.{name}",
                "no such array of numbers; expected obp's bandit_feedback",
            )
        return head.shape[0]

    def number(self, name: str) -> int | None:
        """A single whole number; None where it is not there."""
        if name not in self.heads or math.prod(self.heads[name].shape) != 1:
            return None
        found = float(self._whole(name).reshape(()))
        if not found.is_integer():
            raise BadData(f"{self._path.name}.{name}", f"got {found:g}; expected a whole number")
        return int(found)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[Arrays]:
        """At most `rows` rows of the arrays at a time; they must be of one length."""
        lengths = {name: self.length(name) for name in names}
        total = max(lengths.values())
        for name, length in lengths.items():
            if length != total:
                raise BadData(
                    f"{self._path.name}.{name}",
                    f"got {length} rows; expected {total}, as many as others",
                )
        columns = {name: self._rows(name, rows) for name in names}
        for _ in range(0, total, rows):
            yield {name: next(column) for name, column in columns.items()}

    def _rows(self, name: str, rows: int) -> Iterator[NDArray[Any]]:
        """An array's rows in parts; one that is kept column by column has to be read whole."""
        head = self.heads[name]
        total = head.shape[0]
        if head.fortran and len(head.shape) > 1:
            whole = self._whole(name)
            yield from (whole[start : start + rows] for start in range(0, total, rows))
            return
        each = head.dtype.itemsize * math.prod(head.shape[1:])
        try:
            with self._zip.open(f"{name}.npy") as file:
                _read_header(file)
                for start in range(0, total, rows):
                    count = min(rows, total - start)
                    raw = file.read(count * each)
                    yield np.frombuffer(raw, head.dtype, count * math.prod(head.shape[1:])).reshape(
                        count, *head.shape[1:]
                    )
        except _TORN as error:
            raise self._torn(error) from None

    def _whole(self, name: str) -> NDArray[Any]:
        try:
            with self._zip.open(f"{name}.npy") as file:
                return npy.read_array(file, allow_pickle=False)
        except _TORN as error:
            raise self._torn(error) from None

    def _head(self, member: str) -> _Header:
        with self._zip.open(member) as file:
            return _read_header(file)

    def _torn(self, error: Exception) -> BadData:
        return BadData(
            str(self._path), f"cannot be read ({error}); expected .npz as numpy.savez writes it"
        )

    def __enter__(self) -> Npz:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._zip.close()


def _read_header(file: IO[bytes]) -> _Header:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return _Header(*read(file))


def pack(
    target: Path, columns: Mapping[str, tuple[Path, ArrayKind]], numbers: Mapping[str, int]
) -> None:
    """Put files of raw rows together as one .npz, with single numbers beside them."""
    with zipfile.ZipFile(target, "w", allowZip64=True) as out:
        for name, number in numbers.items():
            with out.open(f"{name}.npy", "w") as file:
                npy.write_array(file, np.array(number), allow_pickle=False)
        for name, (path, (dtype, row)) in columns.items():
            each = np.dtype(dtype).itemsize * math.prod(row)
            rows = path.stat().st_size // each if each else numbers["n_rounds"]
            with out.open(f"{name}.npy", "w", force_zip64=True) as file, path.open("rb") as raw:
                npy.write_array_header_2_0(
                    file, {"descr": dtype, "fortran_order": False, "shape": (rows, *row)}
                )
                while part := raw.read(1 << 20):
                    file.write(part)
