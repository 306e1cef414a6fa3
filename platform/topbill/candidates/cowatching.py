"""What histories say of titles together: which lie close, which belong to the same taste, whose
viewers are alike, and what is watched next after what.

Everything is bounded, so that a large catalogue and many viewers take no more than some ten
megabytes of a file and some milliseconds of a page: FACTORS and RANK numbers a title, of at most
RIDGE_TITLES titles; PEERS viewers with at most PEER_PLAYS plays each; NEXT_TITLES titles after
each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from topbill.domain.records import Floats, Indices

Matrix = NDArray[np.float32]
FACTORS = 48
"""Length of the vectors of titles that are watched together."""
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
NEXT_PLAYS, NEXT_TITLES = 5, 50
"""Plays after one that count as next, and titles that are kept after each."""
_NEXT_PRIOR = 3.0
"""Plays after a title with which half of what follows it is believed."""
_PEER_PRIOR = 10.0
"""Plays that a title has beside its own where likeness of viewers counts it: rare ones say more."""
_LOUDEST = 200
"""Titles that a kind of evidence speaks for most, beside whose mean the others are measured."""
_QUIET = 0.1
"""What is added to each share of that mean: what nothing speaks of is a tenth as likely, and not
impossible.
"""
_DENSE = 1_000
"""Viewers or titles up to which all singular vectors at once are faster than the leading ones."""
TASTE_HALF_LIFE = 5 * 365 * 86_400.0
"""Seconds before a viewer's last play at which one says half as much of the viewer's taste: tastes
change, and old plays still count.
"""


class History(NamedTuple):
    """Plays of many viewers, of any order: `viewers` (n) from 0 to `viewer_count`, `titles` (n)
    from 0 to `title_count`, `worth` (n) in plays, `ages` (n) in seconds."""

    viewers: Indices
    titles: Indices
    worth: Floats
    ages: Floats
    viewer_count: int
    title_count: int


@dataclass(frozen=True)
class CoWatching:
    """What histories say of N titles together.

    Attributes:
        factors: (N × f) unit vectors: those of titles that are watched together lie close.
        ridge_titles: (n,) the titles that the ridge knows.
        ridge: (n × r) their vectors: those of an item-item ridge regression without a title's own
            weight, so that what a history says of title j is (v_j · Σ v_i) / (1 - v_j · v_j) over
            the titles i of it (EASE: Steck 2019).
        peers: (P × N) 1 where a viewer of the sample has played a title.
        following: (N × N) the share of each title's next plays that another has.
    """

    factors: Matrix
    ridge_titles: Indices
    ridge: Matrix
    peers: csr_array
    following: csr_array

    @classmethod
    def none(cls, titles: int, factors: int = FACTORS) -> CoWatching:
        """Nothing is known of any title."""
        return cls(
            np.zeros((titles, factors), dtype=np.float32),
            np.zeros(0, dtype=np.intp),
            np.zeros((0, 1), dtype=np.float32),
            _empty(0, titles),
            _empty(titles, titles),
        )

    @classmethod
    def of(cls, history: History, factors: int = FACTORS) -> CoWatching:
        """What the plays say."""
        if not len(history.titles):
            return cls.none(history.title_count, factors)
        worth = _by_viewer(history)
        ridge_titles, ridge = _ridge(worth)
        return cls(
            _factors(worth, factors), ridge_titles, ridge, _peers(history), _following(history)
        )

    def renumbered(self, rows: Indices, columns: Indices, titles: int) -> CoWatching:
        """The same of a catalogue of so many titles, where title `columns[k]` is `rows[k]` and all
        others are unknown.
        """
        place = np.full(len(self.factors), -1, dtype=np.intp)
        place[columns] = rows
        factors = np.zeros((titles, self.factors.shape[1]), dtype=np.float32)
        factors[rows] = self.factors[columns]
        known = place[self.ridge_titles] >= 0
        moved = csr_array(
            (np.ones(len(rows), dtype=np.float32), (columns, rows)), shape=(len(place), titles)
        )
        return CoWatching(
            factors,
            place[self.ridge_titles[known]],
            self.ridge[known],
            csr_array(self.peers @ moved),
            csr_array(moved.T @ self.following @ moved),
        )

    @property
    def titles(self) -> int:
        """N."""
        return len(self.factors)


def _empty(rows: int, columns: int) -> csr_array:
    """A matrix of zeros."""
    nowhere = np.zeros(0, dtype=np.intp)
    values = np.zeros(0, dtype=np.float32)
    return csr_array((values, (nowhere, nowhere)), shape=(rows, columns))


def taste_worth(plays: Floats, ages: Floats) -> Floats:
    """What plays of a title say of a viewer's taste: the fifth less than the first one, and those
    of TASTE_HALF_LIFE ago half as much as fresh ones.

    Args:
        plays: How many plays each is worth.
        ages: Seconds by which each is older than the viewer's last one: who is away for a year has
            the same taste.
    """
    return np.asarray(np.log2(1.0 + plays * np.exp2(-ages / TASTE_HALF_LIFE)))


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
    # Services, which only read what was found, do without these.
    from scipy.linalg import eigh
    from scipy.sparse.linalg import svds

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


def unit_length(vectors: Matrix) -> Matrix:
    """Vectors of length 1; those of length 0 stay."""
    # What `np.linalg.norm` does, which takes longer to find out that it has to than to do it.
    length = np.sqrt(np.add.reduce(vectors * vectors, axis=1, keepdims=True))
    return np.asarray(vectors / np.where(length > 1e-12, length, 1.0), dtype=np.float32)


class Likeness:
    """What a viewer's history says of every title of a catalogue, by CoWatching."""

    def __init__(self, of: CoWatching) -> None:
        self.of = of
        self._own: Matrix = 1.0 - np.einsum("nr,nr->n", of.ridge, of.ridge)
        self._place = np.full(of.titles, -1, dtype=np.intp)
        self._place[of.ridge_titles] = np.arange(len(of.ridge_titles))
        popular = np.asarray(of.peers.sum(axis=0)).ravel()
        self._rarity: Floats = np.asarray((popular + _PEER_PRIOR) ** -0.5, dtype=np.float64)
        self._peer_length = np.sqrt(np.maximum(of.peers @ self._rarity, 1e-12))
        self._titles_of_peers = csr_array(of.peers.T)

    def scores(self, watched: Indices, worth: Floats) -> Matrix:
        """(3 × N) `items`, `peers`, `next`: how loudly each kind speaks for a title beside those
        that it speaks for most, as logarithms from -2.3 on; 0 where it says nothing at all.
        """
        said = (self._items(watched, worth), self._peers(watched, worth), self._next(watched))
        return np.stack([_loudness(scores, watched) for scores in said])

    def _items(self, watched: Indices, worth: Floats) -> Floats:
        scores = np.zeros(self.of.titles)
        place = self._place[watched]
        known = place >= 0
        taste = worth[known].astype(np.float32) @ self.of.ridge[place[known]]
        scores[self.of.ridge_titles] = (self.of.ridge @ taste) / self._own
        return np.maximum(scores, 0.0)

    def _peers(self, watched: Indices, worth: Floats) -> Floats:
        """What viewers alike have played: each counts by the fourth power of the cosine."""
        query = np.zeros(self.of.titles)
        query[watched] = worth * self._rarity[watched]
        alike = (self.of.peers @ query) / self._peer_length
        return np.asarray(self._titles_of_peers @ (alike / max(alike.max(initial=0.0), 1e-12)) ** 4)

    def _next(self, watched: Indices) -> Floats:
        """What is watched after the last plays, the less of each the longer it is ago."""
        last = watched[-2 * NEXT_PLAYS :]
        weight = np.arange(len(last), 0, -1) ** -0.5
        # A sum of a few rows of what is sparse: SciPy takes longer to find them than to add.
        following, scores = self.of.following, np.zeros(self.of.titles)
        for title, each in zip(last.tolist(), weight.tolist(), strict=True):
            row = slice(following.indptr[title], following.indptr[title + 1])
            scores[following.indices[row]] += following.data[row].astype(np.float64) * each
        return scores


def _loudness(scores: Floats, watched: Indices) -> Matrix:
    """(N,) scores, of which none is below 0, as logarithms."""
    # What was watched itself is no answer, and must not decide how loud the others are.
    scores[watched] = 0.0
    # Most kinds speak for few titles, and a partition of thousands of equal numbers takes ten times
    # as long.
    spoken = scores.nonzero()[0]
    loud = scores[spoken]
    most = min(_LOUDEST, len(scores))
    highest = np.partition(loud, -most)[-most:] if len(loud) > most else loud
    loudest = float(highest.sum()) / max(most, 1)
    out = np.zeros(len(scores), dtype=np.float32)
    if loudest > 1e-12:
        out.fill(math.log(_QUIET))
        out[spoken] = np.log(loud / loudest + _QUIET)
    return out
