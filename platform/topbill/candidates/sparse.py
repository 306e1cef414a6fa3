"""Matrices that are mostly zero, for who reads them: services do without SciPy, which takes a
seventh of a second and 17 MB to import.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topbill.domain.records import Floats, Indices


class SparseRows(NamedTuple):
    """A matrix (m × n), row by row.

    Attributes:
        data: The numbers that are not zero, those of one row after those of the other.
        indices: In which column each stands.
        indptr: (m + 1,) where those of each row begin, and the last one's end.
        columns: n.
    """

    data: NDArray[np.float32]
    indices: NDArray[np.integer[Any]]
    indptr: NDArray[np.integer[Any]]
    columns: int

    @classmethod
    def none(cls, rows: int, columns: int) -> SparseRows:
        """Zeros alone."""
        nowhere = np.zeros(0, dtype=np.intp)
        starts = np.zeros(rows + 1, dtype=np.intp)
        return cls(np.zeros(0, dtype=np.float32), nowhere, starts, columns)

    @classmethod
    def of(
        cls,
        data: NDArray[np.float32],
        rows: NDArray[np.integer[Any]],
        indices: NDArray[np.integer[Any]],
        shape: tuple[int, int],
    ) -> SparseRows:
        """Numbers in any order, each with its row and its column, of which no two are the same."""
        order = np.lexsort((indices, rows))
        counts = np.bincount(rows, minlength=shape[0])
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)
        return cls(data[order], indices[order], starts, shape[1])

    @property
    def rows(self) -> int:
        """m."""
        return len(self.indptr) - 1

    @property
    def row_of_each(self) -> Indices:
        """In which row each number stands."""
        return np.repeat(np.arange(self.rows), np.diff(self.indptr))

    @property
    def transposed(self) -> SparseRows:
        """(n × m) the same with rows for columns."""
        return SparseRows.of(self.data, self.indices, self.row_of_each, (self.columns, self.rows))

    def check(self) -> None:
        """Raises ValueError for numbers that say of places outside the matrix."""
        size = len(self.indices)
        ends = (self.indptr[0], self.indptr[-1]) if len(self.indptr) else None
        if ends != (0, size) or len(self.data) != size or (np.diff(self.indptr) < 0).any():
            raise ValueError(f"damaged: rows do not share out {size:,} numbers")
        if size and not 0 <= self.indices.min() <= self.indices.max() < self.columns:
            raise ValueError(f"damaged: a column is none of {self.columns:,}")

    def dot(self, vector: Floats) -> Floats:
        """(m,) each row's product with a vector (n,)."""
        products = self.data * vector[self.indices]
        return _sums(self.row_of_each, products, self.rows)

    def sum_of(self, rows: Indices, weights: Floats) -> Floats:
        """(n,) the sum of some rows, each as much as its weight: what only looks at those."""
        ends = self.indptr[rows + 1]
        counts = ends - self.indptr[rows]
        # Each row's are a stretch of all: its last one stands at the sum of the counts so far.
        shift = np.repeat(ends - counts.cumsum(), counts)
        places = np.arange(len(shift)) + shift
        products = self.data[places] * np.repeat(weights, counts)
        return _sums(self.indices[places], products, self.columns)

    def moved(self, rows: Indices, columns: Indices, shape: tuple[int, int]) -> SparseRows:
        """The same in another matrix of that shape, where row i is `rows[i]` and column j is
        `columns[j]`; what is below 0 there is left out.
        """
        new_rows, new_columns = rows[self.row_of_each], columns[self.indices]
        known = (new_rows >= 0) & (new_columns >= 0)
        return SparseRows.of(self.data[known], new_rows[known], new_columns[known], shape)


def _sums(places: NDArray[np.integer[Any]], numbers: Floats, size: int) -> Floats:
    """(size,) the sum of the numbers at each place, added up in their order."""
    return np.asarray(np.bincount(places, weights=numbers, minlength=size), dtype=np.float64)
