"""The first stage: from tens of thousands of titles to the few dozen of a row, each with the sources that named it.

Titles in a pool lie in the order of their popularity: that is the order without a policy.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from topbill.candidates.signals import Matrix, Signals, unit_length
from topbill.catalog import Bools, Catalog
from topbill.chance import hash64
from topbill.records import Floats, Indices

SOURCES = ("trending", "popular", "new", "similar", "watched")
"""What names candidates; each is a feature of the titles that it names."""
NAMED = 100
"""How many titles a source names."""
DEPTH = 400
"""How far down each source is read when all are taken together."""
_FUSION = 60.0
NEW_FOR = 90 * 86_400.0
"""Seconds after which a title that was added is new no more."""
SPARE = 0.2
"""Share of a pool kept for new titles and for any title: what no signal speaks of yet must be seen to earn one."""
PRIOR_PLAYS = 20.0
"""Plays that the catalogue's own popularity is worth."""
_WORDS = 64


@dataclass(frozen=True)
class Row:
    """What a row is made of: one of SOURCES, `genre` (popular titles of `genres`), `titles` (an editors' list), or
    `mixed` (all sources together)."""

    source: str
    genres: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()


class Stage:
    """The first stage compiled for one catalogue and one state of the signals. Immutable; replaced as a whole."""

    def __init__(self, catalog: Catalog, signals: Signals | None = None) -> None:
        self.catalog = catalog
        size = len(catalog)
        self.heat: Floats = np.zeros(size)
        popular = PRIOR_PLAYS * catalog.popularity
        regional = np.zeros((len(catalog.region_names), size))
        self._factors: Matrix = np.zeros((size, 1), dtype=np.float32)
        if signals is not None:
            rows, there = _align(signals, catalog)
            self.heat[rows] = signals.trending[there]
            popular[rows] += signals.popular[there]
            for j, name in enumerate(signals.regions):
                if name in catalog.region_names:
                    regional[catalog.region_names.index(name), rows] = signals.regional[j, there]
            self._factors = np.zeros((size, signals.factors.shape[1]), dtype=np.float32)
            self._factors[rows] = signals.factors[there]
        self.heat /= max(float(self.heat.max()), 1e-12)
        self.popular: Indices = np.argsort(-popular, kind="stable")
        share = popular / popular.sum()
        self._regional = [np.argsort(-(counts + 100.0 * share), kind="stable") for counts in regional]
        self._trending: Indices = np.argsort(-self.heat, kind="stable")[: int((self.heat > 0.0).sum())]
        self._newest: Indices = np.argsort(-catalog.added, kind="stable")
        # How alike titles are says little of how likely each is played: the two together find most (benchmarks).
        self._played: Matrix = (popular / max(float(popular.max()), 1e-12)).astype(np.float32)
        self._place = np.empty(size, dtype=np.intp)
        self._place[self.popular] = np.arange(size)
        self._content = _content(catalog)

    def look(self, region: str, watched: Sequence[int], open_: Bools, now: float, seed: str) -> Sight:
        """What one viewer's page may be made of. `watched`: rows of recent plays; `open_` (T,): what the rules let
        through; `now` in seconds; `seed` decides which titles fill the pools' spare places."""
        catalog = self.catalog
        named = [self._trending, self.popular, self._newest]
        if region in catalog.region_names:
            named[1] = self._regional[catalog.region_names.index(region)]
        age = now - catalog.added
        named[2] = named[2][(age[named[2]] >= 0.0) & (age[named[2]] < NEW_FOR)]
        orders = [order[open_[order]] for order in named]
        likeness = [np.zeros(len(catalog), dtype=np.float32)] * 2
        if watched:
            seen = list(watched)
            likeness = [vectors @ vectors[seen].mean(axis=0) for vectors in (self._content, self._factors)]
        for scores in likeness:
            may = open_.copy()
            may[list(watched)] = False
            orders.append(_best(scores, self._played, may, DEPTH))
        return Sight(self, dict(zip(SOURCES, orders, strict=True)), likeness, open_, seed)

    def plain(self, open_: Bools, seed: str) -> Sight:
        """The candidates without any signal: every source names the popular titles."""
        popular = self.popular[open_[self.popular]]
        blank = np.zeros(len(self.catalog), dtype=np.float32)
        return Sight(self, dict.fromkeys(SOURCES, popular), [blank, blank], open_, seed)

    def in_order(self, rows: Indices) -> Indices:
        """The rows by falling popularity."""
        return rows[np.argsort(self._place[rows], kind="stable")]


class Sight:
    """The candidates of one page: each source's titles in its own order, and how alike all are to what was watched."""

    def __init__(
        self, stage: Stage, orders: dict[str, Indices], likeness: list[Matrix], open_: Bools, seed: str
    ) -> None:
        self._stage, self._orders, self._open, self._seed = stage, orders, open_, seed
        self.similar, self.together = likeness
        self.sources: Bools = np.zeros((len(open_), len(SOURCES)), dtype=bool)
        for j, source in enumerate(SOURCES):
            self.sources[orders[source][:NAMED], j] = True

    def members(self, row: Row) -> Indices:
        """Every open title that the row may be made of, first choice first."""
        catalog = self._stage.catalog
        if row.source == "genre":
            popular = self._orders["popular"]
            return popular[catalog.genre(row.genres)[popular]]
        if row.source == "titles":
            listed = np.array([catalog.index[t] for t in row.titles if t in catalog.index], dtype=np.intp)
            return listed[self._open[listed]]
        if row.source == "mixed":
            return self._mixed()
        return self._orders[row.source]

    def _mixed(self) -> Indices:
        """The first titles of all sources together, by reciprocal rank fusion (Cormack, Clarke and Büttcher 2009): what
        several sources name comes first."""
        merit = np.zeros(len(self._open))
        for order in self._orders.values():
            head = order[:DEPTH]
            merit[head] += 1.0 / (_FUSION + np.arange(len(head)))
        rows = merit.nonzero()[0]
        return rows[np.argsort(-merit[rows], kind="stable")]

    def pool(self, row: str, made_of: Row, taken: Bools, most: int) -> Indices:
        """At most `most` titles for a row, none of them `taken` (T,), by falling popularity. Where there is a choice, a
        tenth of the pool is new titles and a tenth any title."""
        members = self.members(made_of)
        members = members[~taken[members]]
        if len(members) <= most or made_of.source == "titles":
            return self._stage.in_order(members[:most])
        spare = int(SPARE * most / 2)
        head, rest = members[: most - 2 * spare], members[most - 2 * spare :]
        new = self.sources[rest, SOURCES.index("new")]
        fresh = rest[new][:spare]
        left = np.ones(len(self._open), dtype=bool)
        left[fresh] = False
        rest = rest[left[rest]]
        rng = np.random.Generator(np.random.SFC64(hash64(self._seed, row)))
        chance = rng.choice(rest, size=min(len(rest), most - len(head) - len(fresh)), replace=False)
        return self._stage.in_order(np.concatenate([head, fresh, chance]))


def recall(stage: Stage, held_out: Iterable[tuple[Sequence[int], int]], now: float, most: int = 200) -> tuple[int, int]:
    """(found, asked): of held-out plays (rows watched before, row played next), how many are among the `most` first
    candidates of all sources together."""
    found = asked = 0
    everything = np.ones(len(stage.catalog), dtype=bool)
    for watched, played in held_out:
        sight = stage.look("", watched, everything, now, "")
        found += played in set(sight.members(Row("mixed"))[:most].tolist())
        asked += 1
    return found, asked


def _align(signals: Signals, catalog: Catalog) -> tuple[Indices, Indices]:
    """Rows of the catalogue, and of the signals, that speak of the same title."""
    pairs = [(catalog.index[title], j) for j, title in enumerate(signals.ids) if title in catalog.index]
    both = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _best(alike: Matrix, played: Matrix, may: Bools, most: int) -> Indices:
    """Rows that are alike (positive), by how alike and how played they are, best first, at most `most`."""
    rows = np.flatnonzero(may & (alike > 1e-6))
    scores = alike[rows] * played[rows]
    if len(rows) > most:
        first = np.argpartition(-scores, most)[:most]
        rows, scores = rows[first], scores[first]
    return rows[np.argsort(-scores, kind="stable")]


def _content(catalog: Catalog) -> Matrix:
    """(T × c) unit vectors of what a title is: its genres, its decade, and the words of its name."""
    decades = (catalog.years[:, None] // 10 == np.unique(catalog.years // 10)[None, :]).astype(np.float32)
    words = np.zeros((len(catalog), _WORDS), dtype=np.float32)
    for row, name in enumerate(catalog.names):
        for word in name.lower().split():
            if len(word) > 3:
                words[row, zlib.crc32(word.encode()) % _WORDS] += 1.0
    rarity = np.log(len(catalog) / np.maximum(catalog.genres.sum(axis=0), 1)).astype(np.float32)
    return unit_length(np.concatenate([catalog.genres * rarity, 0.5 * decades, 0.5 * unit_length(words)], axis=1))
