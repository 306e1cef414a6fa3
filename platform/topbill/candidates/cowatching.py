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

import numpy as np
from numpy.typing import NDArray

from topbill.candidates.sparse import SparseRows
from topbill.domain.records import Floats, Indices

Matrix = NDArray[np.float32]
FACTORS = 48
"""Length of the vectors of titles that are watched together."""
NEXT_PLAYS, NEXT_TITLES = 5, 50
"""Plays after one that count as next, and titles that are kept after each."""
_PEER_PRIOR = 10.0
"""Plays that a title has beside its own where likeness of viewers counts it: rare ones say more."""
_LOUDEST = 200
"""Titles that a kind of evidence speaks for most, beside whose mean the others are measured."""
_QUIET = 0.1
"""What is added to each share of that mean: what nothing speaks of is a tenth as likely, and not
impossible.
"""
TASTE_HALF_LIFE = 5 * 365 * 86_400.0
"""Seconds before a viewer's last play at which one says half as much of the viewer's taste: tastes
change, and old plays still count.
"""


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
    peers: SparseRows
    following: SparseRows

    @classmethod
    def none(cls, titles: int, factors: int = FACTORS) -> CoWatching:
        """Nothing is known of any title."""
        return cls(
            np.zeros((titles, factors), dtype=np.float32),
            np.zeros(0, dtype=np.intp),
            np.zeros((0, 1), dtype=np.float32),
            SparseRows.none(0, titles),
            SparseRows.none(titles, titles),
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
        every_peer = np.arange(self.peers.rows)
        return CoWatching(
            factors,
            place[self.ridge_titles[known]],
            self.ridge[known],
            self.peers.moved(every_peer, place, (len(every_peer), titles)),
            self.following.moved(place, place, (titles, titles)),
        )

    @property
    def titles(self) -> int:
        """N."""
        return len(self.factors)


def taste_worth(plays: Floats, ages: Floats) -> Floats:
    """What plays of a title say of a viewer's taste: the fifth less than the first one, and those
    of TASTE_HALF_LIFE ago half as much as fresh ones.

    Args:
        plays: How many plays each is worth.
        ages: Seconds by which each is older than the viewer's last one: who is away for a year has
            the same taste.
    """
    return np.asarray(np.log2(1.0 + plays * np.exp2(-ages / TASTE_HALF_LIFE)))


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
        popular = np.bincount(of.peers.indices, weights=of.peers.data, minlength=of.titles)
        self._rarity: Floats = np.asarray((popular + _PEER_PRIOR) ** -0.5, dtype=np.float64)
        self._peer_length = np.sqrt(np.maximum(of.peers.dot(self._rarity), 1e-12))
        self._peers_of = of.peers.transposed

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
        # Only who has played one of them is alike at all.
        query = np.zeros(self.of.titles)
        query[watched] = worth * self._rarity[watched]
        titles = np.unique(watched)
        alike = self._peers_of.sum_of(titles, query[titles]) / self._peer_length
        peers = alike.nonzero()[0]
        closest = max(float(alike.max(initial=0.0)), 1e-12)
        return self.of.peers.sum_of(peers, (alike[peers] / closest) ** 4)

    def _next(self, watched: Indices) -> Floats:
        """What is watched after the last plays, the less of each the longer it is ago."""
        last = watched[-2 * NEXT_PLAYS :]
        weight = np.arange(len(last), 0, -1) ** -0.5
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
