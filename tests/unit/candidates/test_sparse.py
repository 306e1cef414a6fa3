"""Matrices that are mostly zero are what SciPy makes of them, to the bit where sums are asked
for.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from topbill.candidates.sparse import SparseRows


@st.composite
def matrices(draw: st.DrawFn) -> SparseRows:
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    cells = draw(st.lists(st.integers(0, rows * columns - 1), unique=True))
    at = np.array(cells, dtype=np.intp)
    data = np.arange(1.0, len(cells) + 1.0, dtype=np.float32) / 7
    return SparseRows.of(data, at // columns, at % columns, (rows, columns))


def scipys(matrix: SparseRows) -> csr_array:
    shape = (matrix.rows, matrix.columns)
    return csr_array((matrix.data, matrix.indices, matrix.indptr), shape=shape)


@given(matrices(), st.integers(0, 100))
def test_products_and_sums_are_those_of_scipy(matrix: SparseRows, seed: int) -> None:
    matrix.check()
    rng = np.random.default_rng(seed)
    vector = rng.random(matrix.columns)
    assert matrix.dot(vector).tolist() == (scipys(matrix) @ vector).tolist()
    transposed = matrix.transposed
    assert (scipys(transposed) != csr_array(scipys(matrix).T)).nnz == 0
    weights = rng.random(matrix.rows) * (rng.random(matrix.rows) < 0.5)
    some = weights.nonzero()[0]
    expected = scipys(transposed) @ weights
    assert matrix.sum_of(some, weights[some]).tolist() == expected.tolist()


@given(matrices(), st.integers(0, 100))
def test_what_moves_stands_where_it_is_put(matrix: SparseRows, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.permutation(8)[: matrix.rows] - 1
    columns = rng.permutation(9)[: matrix.columns] - 1
    moved = matrix.moved(rows, columns, (7, 8))
    moved.check()
    expected = np.zeros((7, 8), dtype=np.float32)
    for i, row in enumerate(scipys(matrix).toarray()):
        for j, value in enumerate(row):
            if rows[i] >= 0 and columns[j] >= 0:
                expected[rows[i], columns[j]] = value
    assert scipys(moved).toarray().tolist() == expected.tolist()


@pytest.mark.parametrize(
    "damaged",
    [
        {"indptr": np.array([0, 2, 1, 3])},
        {"indptr": np.array([0, 1, 2, 4])},
        {"indptr": np.array([], dtype=np.intp)},
        {"indices": np.array([0, 1, 3])},
        {"indices": np.array([0, -1, 2])},
        {"data": np.ones(2, dtype=np.float32)},
    ],
)
def test_places_that_are_not_there_are_told(damaged: dict[str, np.ndarray]) -> None:
    good = SparseRows(np.ones(3, dtype=np.float32), np.array([0, 1, 2]), np.array([0, 1, 2, 3]), 3)
    good.check()
    with pytest.raises(ValueError, match="damaged"):
        good._replace(**damaged).check()
