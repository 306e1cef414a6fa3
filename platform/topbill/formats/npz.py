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
            self.headers = self._read_headers()
        except _TORN as error:
            raise self._torn(error) from None

    def __contains__(self, name: str) -> bool:
        return name in self.headers

    def length(self, name: str) -> int:
        """The rows of an array. Raises BadData where it is not there or has none."""
        head = self.headers.get(name)
        if head is None or not head.shape:
            raise BadData(
                f"{self._path.name}.{name}",
                "no such array of numbers; expected obp's bandit_feedback",
            )
        return head.shape[0]

    def number(self, name: str) -> int | None:
        """A single whole number; None where it is not there."""
        if name not in self.headers or math.prod(self.headers[name].shape) != 1:
            return None
        number = float(self._whole(name).reshape(()))
        if not number.is_integer():
            raise BadData(f"{self._path.name}.{name}", f"got {number:g}; expected a whole number")
        return int(number)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[Arrays]:
        """At most `rows` rows of the arrays at a time; they must be of one length."""
        total = max(map(self.length, names))
        for name in names:
            length = self.length(name)
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
        head = self.headers[name]
        total = head.shape[0]
        if head.fortran and len(head.shape) > 1:
            whole = self._whole(name)
            for start in range(0, total, rows):
                yield whole[start : start + rows]
            return
        # Read as a stream: a compressed member can't be entered in its middle.
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

    def _read_headers(self) -> dict[str, _Header]:
        """Array → its header, of arrays of flags and numbers. Objects would have to be unpickled,
        which may run anything: they are never read.
        """
        headers: dict[str, _Header] = {}
        for member in self._zip.namelist():
            if not member.endswith(".npy"):
                continue
            with self._zip.open(member) as file:
                header = _read_header(file)
            if header.dtype.kind in "biuf":
                headers[member.removesuffix(".npy")] = header
        return headers

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
            # A context of no columns has no bytes: it has as many rows as there are rounds.
            rows = path.stat().st_size // each if each else numbers["n_rounds"]
            # A member's size must be foreseen: above 4 GB the zip format needs 64 bits for it.
            with out.open(f"{name}.npy", "w", force_zip64=True) as file, path.open("rb") as raw:
                npy.write_array_header_2_0(
                    file, {"descr": dtype, "fortran_order": False, "shape": (rows, *row)}
                )
                while part := raw.read(1 << 20):
                    file.write(part)
