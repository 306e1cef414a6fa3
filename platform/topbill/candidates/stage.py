"""The first stage: from tens of thousands of titles to the few dozen of a row, each with the
sources that named it.

Titles in a pool lie in the order of their popularity: that is the order without a policy.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from topbill.candidates.signals import EVIDENCE, HUNCH, Matrix, Signals, unit_length
from topbill.catalog import Bools, Catalog
from topbill.domain.chance import hash64
from topbill.domain.records import Floats, Indices

SOURCES = ("trending", "popular", "new", "similar", "watched")
"""What names candidates; each is a feature of the titles that it names."""
NAMED = 100
"""How many titles a source names."""
DEPTH = 400
"""How many titles are alike enough to be named, and how many are likely enough to be mixed."""
NEW_FOR = 90 * 86_400.0
"""Seconds after which a title that was added is new no more."""
SPARE = 0.2
"""Share of a pool kept for new titles and for any title: what no signal speaks of yet must be seen
to earn one.
"""
PRIOR_PLAYS = 20.0
"""Plays that the catalogue's own popularity is worth."""
_FEW = 10.0
"""Plays with which a region, or the last days, would say as much as all plays do of a title's
share.
"""
_WORDS = 32


@dataclass(frozen=True)
class Row:
    """What a row is made of: one of SOURCES, `genre` (popular titles of `genres`), `titles` (an
    editors' list), or `mixed` (what all evidence together speaks for)."""

    source: str
    genres: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()


class Stage:
    """The first stage compiled for one catalogue and one state of the signals. Immutable; replaced
    as a whole.
    """

    def __init__(
        self, catalog: Catalog, signals: Signals | None = None, content: Matrix | None = None
    ) -> None:
        self.catalog = catalog
        self.content = _content(catalog) if content is None else content
        size, names = len(catalog), catalog.region_names
        heat, plays, regional = np.zeros(size), np.zeros(size), np.zeros((len(names), size))
        self.factors: Matrix = np.zeros((size, 1), dtype=np.float32)
        self.weights = HUNCH
        if signals is not None:
            rows, there = _align(signals, catalog)
            heat[rows], plays[rows] = signals.trending[there], signals.popular[there]
            for j, name in enumerate(signals.regions):
                if name in names:
                    regional[names.index(name), rows] = signals.regional[j, there]
            self.factors = np.zeros((size, signals.factors.shape[1]), dtype=np.float32)
            self.factors[rows] = signals.factors[there]
            self.weights = signals.weights
        popular = PRIOR_PLAYS * catalog.popularity + plays + 0.05
        share = popular / popular.sum()
        self.heat: Floats = heat / max(float(heat.max()), 1e-12)
        self.popular: Indices = np.argsort(-popular, kind="stable")
        self._regional = [
            np.argsort(-(counts + 100.0 * share), kind="stable") for counts in regional
        ]
        self._trending: Indices = np.argsort(-heat, kind="stable")[: int((heat > 0.0).sum())]
        self._newest: Indices = np.argsort(-catalog.added, kind="stable")
        # How alike titles are says little of how likely each is played: the two together find most
        # (benchmarks).
        self._played: Matrix = (popular / float(popular.max())).astype(np.float32)
        self._place = np.empty(size, dtype=np.intp)
        self._place[self.popular] = np.arange(size)
        self._shared: Matrix = np.array([np.log(popular), _lift(heat, share)], dtype=np.float32)
        self._lifts: Matrix = np.array(
            [_lift(counts, share) for counts in regional], dtype=np.float32
        )

    def renewed(self, signals: Signals | None) -> Stage:
        """The same catalogue with other signals."""
        return Stage(self.catalog, signals, self.content)

    def evidence(self, region: str, now: float, rows: Indices | slice = slice(None)) -> Matrix:
        """(4 × T) what speaks for each title whoever looks: EVIDENCE up to `new`. `popular` is the
        logarithm of its plays; `regional` and `trending` how much greater its share of the
        region's, of the last days' plays is than of all plays, as logarithms; `new` 1 or 0."""
        names, age = self.catalog.region_names, now - self.catalog.added[rows]
        new = ((age >= 0.0) & (age < NEW_FOR)).astype(np.float32)
        lift = self._lifts[names.index(region)][rows] if region in names else np.zeros_like(new)
        return np.stack([self._shared[0][rows], lift, self._shared[1][rows], new])

    def likeness(self, watched: Sequence[int], rows: Indices | slice = slice(None)) -> Matrix:
        """(2 × T) EVIDENCE from `similar` on: the cosine of each title's content, and of its
        factors, with what was watched; zero for nothing."""
        seen = list(watched)
        alike = [
            v[rows] @ unit_length(v[seen].sum(axis=0, keepdims=True))[0]
            for v in (self.content, self.factors)
        ]
        return np.array(alike)

    def merit(self, evidence: Matrix, likeness: Matrix) -> Matrix:
        """(T,) how much all evidence together speaks for each title: the logarithm of its odds to
        be played.
        """
        return np.asarray(
            np.array(self.weights, dtype=np.float32) @ np.concatenate([evidence, likeness])
        )

    def look(
        self, region: str, watched: Sequence[int], open_: Bools, now: float, seed: str
    ) -> Sight:
        """What one viewer's page may be made of. `watched`: rows of recent plays; `open_` (T,):
        what the rules let through; `now` in seconds; `seed` decides which titles fill the pools'
        spare places."""
        evidence, likeness = self.evidence(region, now), self.likeness(watched)
        new = evidence[EVIDENCE.index("new")] > 0.0
        local = self.popular
        if region in self.catalog.region_names:
            local = self._regional[self.catalog.region_names.index(region)]
        orders = [
            order[open_[order]]
            for order in (self._trending, local, self._newest[new[self._newest]])
        ]
        may = open_.copy()
        may[list(watched)] = False
        for alike in likeness:
            rows = np.flatnonzero(may & (alike > 1e-6))
            orders.append(_best(rows, alike[rows] * self._played[rows], DEPTH))
        merit = self.merit(evidence, likeness)
        return Sight(self, dict(zip(SOURCES, orders, strict=True)), likeness, merit, open_, seed)

    def plain(self, open_: Bools, seed: str) -> Sight:
        """The candidates without any signal: every source names the popular titles."""
        popular = self.popular[open_[self.popular]]
        blank = np.zeros((2, len(self.catalog)), dtype=np.float32)
        return Sight(self, dict.fromkeys(SOURCES, popular), blank, self._shared[0], open_, seed)

    def in_order(self, rows: Indices) -> Indices:
        """The rows by falling popularity."""
        return rows[np.argsort(self._place[rows], kind="stable")]


class Sight:
    """The candidates of one page: each source's titles in its own order, how alike all are to what
    was watched, and how much all evidence together speaks for each."""

    def __init__(
        self,
        stage: Stage,
        orders: dict[str, Indices],
        likeness: Matrix,
        merit: Matrix,
        open_: Bools,
        seed: str,
    ) -> None:
        self._stage, self._orders, self._merit, self._open, self._seed = (
            stage,
            orders,
            merit,
            open_,
            seed,
        )
        self._members: dict[Row, Indices] = {}
        self.similar, self.together = likeness
        self.sources: Bools = np.zeros((len(open_), len(SOURCES)), dtype=bool)
        for j, source in enumerate(SOURCES):
            self.sources[orders[source][:NAMED], j] = True

    def members(self, row: Row) -> Indices:
        """Every open title that the row may be made of, first choice first. A page asks twice for
        each row.
        """
        found = self._members.get(row)
        if found is None:
            found = self._members[row] = self._find(row)
        return found

    def _find(self, row: Row) -> Indices:
        catalog = self._stage.catalog
        if row.source == "genre":
            popular = self._orders["popular"]
            return popular[catalog.genre(row.genres)[popular]]
        if row.source == "titles":
            listed = np.array(
                [catalog.index[t] for t in row.titles if t in catalog.index], dtype=np.intp
            )
            return listed[self._open[listed]]
        if row.source == "mixed":
            return self._mixed()
        return self._orders[row.source]

    def _mixed(self) -> Indices:
        """The titles that all evidence together speaks for most, and after them the new ones, of
        which it can't yet.
        """
        rows = np.flatnonzero(self._open)
        likely = _best(rows, self._merit[rows], DEPTH)
        new = self._orders["new"][:NAMED]
        return np.concatenate([likely, new[~np.isin(new, likely)]])

    def pool(self, row: str, definition: Row, taken: Bools, most: int) -> Indices:
        """At most `most` titles for a row, none of them `taken` (T,), by falling popularity. Where
        there is a choice, a tenth of the pool is new titles and a tenth any title."""
        members = self.members(definition)
        members = members[~taken[members]]
        if len(members) <= most or definition.source == "titles":
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


def _align(signals: Signals, catalog: Catalog) -> tuple[Indices, Indices]:
    """Rows of the catalogue, and of the signals, that speak of the same title."""
    pairs = [
        (catalog.index[title], j) for j, title in enumerate(signals.ids) if title in catalog.index
    ]
    both = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _lift(plays: Floats, share: Floats) -> Floats:
    """(T,) the logarithm of how much greater each title's share of these plays is than its `share`
    of all.
    """
    return np.asarray(np.log((plays + _FEW * share) / (plays.sum() + _FEW) / share))


def _best(rows: Indices, scores: Matrix, most: int) -> Indices:
    """At most `most` of the rows, those with the highest scores, best first."""
    if len(rows) > most:
        first = np.argpartition(-scores, most)[:most]
        rows, scores = rows[first], scores[first]
    return rows[np.argsort(-scores, kind="stable")]


def _content(catalog: Catalog) -> Matrix:
    """(T × c) unit vectors of how a title differs from the titles that are played: its genres, its
    decade, and the words of its name, less their mean by popularity."""
    decades = (catalog.years[:, None] // 10 == np.unique(catalog.years // 10)[None, :]).astype(
        np.float32
    )
    words = np.zeros((len(catalog), _WORDS), dtype=np.float32)
    for row, name in enumerate(catalog.names):
        for word in name.lower().split():
            if len(word) > 3:
                words[row, zlib.crc32(word.encode()) % _WORDS] += 1.0
    rarity = np.log(len(catalog) / np.maximum(catalog.genres.sum(axis=0), 1)).astype(np.float32)
    found = unit_length(
        np.concatenate([catalog.genres * rarity, 0.5 * decades, 0.5 * unit_length(words)], axis=1)
    )
    weight = (catalog.popularity + 1e-6).astype(np.float32)
    return unit_length(found - (weight / weight.sum()) @ found)
