"""What histories say of titles together, found by the worker: the matrices of `cowatching`, with
SciPy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from topbill.candidates.cowatching import (
    FACTORS,
    NEXT_PLAYS,
    NEXT_TITLES,
    TASTE_HALF_LIFE,
    CoWatching,
    Matrix,
    taste_worth,
    unit_length,
)
from topbill.candidates.sparse import SparseRows
from topbill.domain.records import Floats, Indices

DAMPING = 5.0
"""Plays of a title that are worth half of what co-watching says of it: a title with fewer is
damped.
"""
RANK = 200
"""Length of the vectors of the item-item ridge: the leading singular vectors that it is made of."""
RIDGE = 400.0
"""Plays that the ridge regression is drawn to zero by."""
RIDGE_TITLES = 10_000
"""Titles that the ridge knows, the most played ones."""
PEERS, PEER_PLAYS = 4_000, 300
"""Viewers that others are compared with, and of how many of their last plays."""
_NEXT_PRIOR = 3.0
"""Plays after a title with which half of what follows it is believed."""
_DENSE = 1_000
"""Viewers or titles up to which all singular vectors at once are faster than the leading ones."""


class History(NamedTuple):
    """Plays of many viewers, of any order: `viewers` (n) from 0 to `viewer_count`, `titles` (n)
    from 0 to `title_count`, `worth` (n) in plays, `ages` (n) in seconds."""

    viewers: Indices
    titles: Indices
    worth: Floats
    ages: Floats
    viewer_count: int
    title_count: int


def cowatching_of(history: History, factors: int = FACTORS) -> CoWatching:
    """What the plays say."""
    if not len(history.titles):
        return CoWatching.none(history.title_count, factors)
    worth = _by_viewer(history)
    ridge_titles, ridge = _ridge(worth)
    return CoWatching(
        _factors(worth, factors),
        ridge_titles,
        ridge,
        _kept(_peers(history)),
        _kept(_following(history)),
    )


def _kept(matrix: csr_array) -> SparseRows:
    """The matrix for who reads it."""
    return SparseRows(matrix.data, matrix.indices, matrix.indptr, matrix.shape[1])


def _by_viewer(history: History) -> csr_array:
    """(viewers × titles) what each viewer's plays of each title say."""
    last = np.full(history.viewer_count, np.inf)
    np.minimum.at(last, history.viewers, history.ages)
    fresh = history.worth * np.exp2(-(history.ages - last[history.viewers]) / TASTE_HALF_LIFE)
    shape = (history.viewer_count, history.title_count)
    counts = csr_array((fresh, (history.viewers, history.titles)), shape=shape)
    counts.sum_duplicates()
    counts.data = taste_worth(counts.data, np.zeros(1))
    return counts


def _factors(worth: csr_array, size: int) -> Matrix:
    """(N × size) unit vectors; zero for titles without plays, and everywhere where there is too
    little to tell.

    Co-watching is a truncated SVD (PureSVD: Cremonesi, Koren and Turrin 2010) of the play matrix,
    normalised by viewer and by title as in spectral co-clustering (Dhillon 2001), so that what is
    played much does not lie close to everything. It finds as much as alternating least squares does
    (benchmarks) and needs no library beside SciPy.
    """
    out = np.zeros((worth.shape[1], size), dtype=np.float32)
    squares = worth.multiply(worth)
    by_viewer, by_title = squares.sum(axis=1), squares.sum(axis=0)
    viewer = np.repeat(np.arange(worth.shape[0]), np.diff(worth.indptr))
    scaled = worth.data / np.sqrt(by_viewer[viewer] * (by_title[worth.indices] + DAMPING))
    matrix = csr_array((scaled, worth.indices, worth.indptr), shape=worth.shape)
    values, right = _leading(matrix, size)
    out[:, : len(values)] = unit_length((right * values).astype(np.float32))
    return out


def _ridge(worth: csr_array) -> tuple[Indices, Matrix]:
    """The titles that the ridge knows, and (n × r) their vectors.

    The inverse of the Gram matrix plus RIDGE is written by its leading singular vectors: as good as
    the whole one, without a matrix of all titles by all titles.
    """
    by_title = worth.sum(axis=0)
    titles = np.argsort(-by_title, kind="stable")[:RIDGE_TITLES]
    titles = np.sort(titles[by_title[titles] > 0.0])
    values, right = _leading(csr_array(worth[:, titles]), RANK)
    share = np.sqrt(values**2 / (values**2 + RIDGE))
    return titles, (right * share).astype(np.float32)


def _leading(matrix: csr_array, most: int) -> tuple[Floats, Floats]:
    """The largest singular values (k) of a matrix (m × n), k ≤ `most`, and its right singular
    vectors (n × k).
    """
    # As many as there can be, less one: `svds` finds no more.
    k = min(most, min(matrix.shape) - 1)
    if k < 1:
        return np.zeros(0), np.zeros((matrix.shape[1], 0))
    viewers, titles = matrix.shape
    if min(viewers, titles) > _DENSE:
        # A fixed start makes the same plays give the same vectors.
        start = np.random.default_rng(0).standard_normal(min(viewers, titles))
        # "vh": the left ones, as long as there are viewers, are never made.
        _, values, right = svds(matrix, k=k, v0=start, return_singular_vectors="vh")  # type: ignore[arg-type]
        return np.asarray(values, dtype=np.float64), right.T
    by_titles = titles <= viewers
    gram = (matrix.T @ matrix if by_titles else matrix @ matrix.T).toarray()
    squares, vectors = eigh(gram, subset_by_index=(len(gram) - k, len(gram) - 1))
    values = np.sqrt(np.maximum(squares, 0.0))
    if not by_titles:
        # A singular value of nothing has no vector of its own.
        vectors = (matrix.T @ vectors) / np.where(values > 1e-6, values, np.inf)
    return values, vectors


def _peers(history: History) -> csr_array:
    """(P × N) which titles the viewers of a sample have played last."""
    rng = np.random.default_rng(0)
    number = np.full(history.viewer_count, -1, dtype=np.intp)
    chosen = rng.permutation(history.viewer_count)[:PEERS]
    number[chosen] = np.arange(len(chosen))
    own = number[history.viewers]
    newest_first = np.lexsort((history.ages, own))
    newest_first = newest_first[own[newest_first] >= 0]
    viewers, titles = own[newest_first], history.titles[newest_first]
    recent = np.arange(len(viewers)) - np.searchsorted(viewers, viewers) < PEER_PLAYS
    shape = (len(chosen), history.title_count)
    ones = np.ones(int(recent.sum()), dtype=np.float32)
    played = csr_array((ones, (viewers[recent], titles[recent])), shape=shape)
    played.sum_duplicates()
    played.data[:] = 1.0
    return played


def _following(history: History) -> csr_array:
    """(N × N) the share of each title's next plays that another has, at most NEXT_TITLES each; a
    play counts the less the more came in between.
    """
    order = np.lexsort((-history.ages, history.viewers))
    viewers, titles = history.viewers[order], history.titles[order]
    size = history.title_count
    counts = csr_array((size, size), dtype=np.float32)
    for later in range(1, NEXT_PLAYS + 1):
        same = (viewers[:-later] == viewers[later:]) & (titles[:-later] != titles[later:])
        before, after = titles[:-later][same], titles[later:][same]
        weight = np.full(len(before), later**-0.5, dtype=np.float32)
        counts = counts + csr_array((weight, (before, after)), shape=(size, size))
    total = counts.sum(axis=1) + _NEXT_PRIOR
    kept = _most_of_each_row(csr_array(counts), NEXT_TITLES)
    kept.data /= np.repeat(total, np.diff(kept.indptr)).astype(np.float32)
    return kept


def _most_of_each_row(matrix: csr_array, most: int) -> csr_array:
    """The matrix with the `most` largest numbers of each row alone."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    # The column decides between equal ones: the same plays keep the same titles.
    order = np.lexsort((matrix.indices, -matrix.data, row))
    kept = np.sort(order[np.arange(len(row)) - matrix.indptr[row] < most])
    ends = np.searchsorted(row[kept], np.arange(matrix.shape[0] + 1))
    return csr_array((matrix.data[kept], matrix.indices[kept], ends), shape=matrix.shape)
