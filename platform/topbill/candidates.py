"""The first stage: from tens of thousands of titles to the few dozen of a row, each with the sources that named it.

What is popular, trending and watched together comes from the log (`Signals`, made by the keeper); what is alike comes
from the catalogue. Titles in a pool lie in the order of their popularity: that is the order without a policy.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from topbill.catalog import Bools, Catalog
from topbill.chance import hash64
from topbill.errors import BadData
from topbill.records import Floats, Indices

Matrix = NDArray[np.float32]
SOURCES = ("trending", "popular", "new", "similar", "watched")
"""What names candidates; each is a feature of the titles that it names."""
NAMED = 100
"""How many titles a source names."""
NEW_FOR = 90 * 86_400.0
"""Seconds after which a title that was added is new no more."""
SPARE = 0.2
"""Share of a pool kept for new titles and for any title: what no signal speaks of yet must be seen to earn one."""
FACTORS = 32
HALF_LIFE = 2 * 86_400.0
"""Seconds after which a play counts half in what is trending."""
PRIOR_PLAYS = 20.0
"""Plays that the catalogue's own popularity is worth."""
_WORDS = 64


class Play(NamedTuple):
    """A viewer played a title: `unit` who, `at` seconds since the epoch, `region` where known."""

    unit: str
    title: str
    at: float
    region: str = ""


@dataclass(frozen=True)
class Signals:
    """What the log says of titles `ids` (N): `trending` (N) and `popular` (N) decayed and plain plays, `regional`
    (R × N) plays by region, `factors` (N × f) unit vectors of titles that are watched together lie close."""

    ids: tuple[str, ...]
    regions: tuple[str, ...]
    trending: Floats
    popular: Floats
    regional: Floats
    factors: Matrix
    at: float = 0.0
    plays: int = 0

    def save(self, path: Path) -> None:
        """Write to `path`, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        with fresh.open("wb") as file:
            np.savez(
                file,
                ids=np.array(self.ids),
                regions=np.array(self.regions),
                trending=self.trending,
                popular=self.popular,
                regional=self.regional,
                factors=self.factors,
                numbers=np.array([self.at, float(self.plays)]),
            )
        os.replace(fresh, path)

    @classmethod
    def load(cls, path: Path) -> Signals:
        """What `save` wrote. Raises BadData where it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as held:
                at, plays = held["numbers"].tolist()
                return cls(
                    tuple(held["ids"].tolist()),
                    tuple(held["regions"].tolist()),
                    held["trending"],
                    held["popular"],
                    held["regional"],
                    held["factors"],
                    at,
                    int(plays),
                )
        except (OSError, ValueError, KeyError, EOFError, zlib.error) as error:
            raise BadData(path.name, f"{error}; expected what the keeper writes; delete the file") from error


def signals_path(data: Path, page: str) -> Path:
    """Where in the data folder the keeper leaves a page's signals."""
    return data / "pages" / f"{page}.npz"


def learn(plays: Iterable[Play], catalog: Catalog, now: float, factors: int = FACTORS) -> Signals:
    """Signals of plays, in any order; plays of titles that the catalogue doesn't have are left out.

    Co-watching is a truncated SVD of the log-damped, viewer-normalised play matrix (PureSVD: Cremonesi, Koren and
    Turrin 2010), which ranks as well as weighted implicit factorisations and needs no library beside SciPy.
    """
    index = catalog.index
    known = [play for play in plays if play.title in index]
    size, regions = len(catalog), catalog.region_names
    rows = np.array([index[play.title] for play in known], dtype=np.intp)
    ages = np.array([max(0.0, now - play.at) for play in known])
    region = {name: j for j, name in enumerate(regions)}
    regional = np.zeros((len(regions), size))
    for play, row in zip(known, rows.tolist(), strict=True):
        if play.region in region:
            regional[region[play.region], row] += 1.0
    return Signals(
        catalog.ids,
        regions,
        _sums(rows, np.exp2(-ages / HALF_LIFE), size),
        _sums(rows, np.ones(len(rows)), size),
        regional,
        _factors([play.unit for play in known], rows, size, factors),
        now,
        len(known),
    )


def _sums(rows: Indices, weights: Floats, size: int) -> Floats:
    return np.asarray(np.bincount(rows, weights=weights, minlength=size), dtype=np.float64)


def _factors(units: Sequence[str], rows: Indices, size: int, factors: int) -> Matrix:
    """(size × factors) unit vectors; zero for titles without plays, and everywhere when there is too little to tell."""
    out = np.zeros((size, factors), dtype=np.float32)
    names, who = np.unique(np.array(units), return_inverse=True) if units else (np.zeros(0), np.zeros(0, dtype=np.intp))
    played = np.unique(rows)
    k = min(factors, len(names) - 1, len(played) - 1)
    if k < 1:
        return out
    column = np.searchsorted(played, rows)
    counts = csr_array((np.ones(len(rows)), (who, column)), shape=(len(names), len(played)))
    counts.sum_duplicates()
    damped = np.log1p(counts.data)
    viewer = np.repeat(np.arange(len(names)), np.diff(counts.indptr))
    norm = np.sqrt(np.bincount(viewer, weights=damped * damped, minlength=len(names)))
    scaled = csr_array((damped / norm[viewer], counts.indices, counts.indptr), shape=counts.shape)
    start = np.random.default_rng(0).standard_normal(min(scaled.shape))
    _, values, right = svds(scaled, k=k, v0=start)
    out[played, :k] = _unit((right.T * values).astype(np.float32))
    return out


def _unit(vectors: Matrix) -> Matrix:
    """Vectors of length 1; those of length 0 stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 1e-12, length, 1.0), dtype=np.float32)


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
            orders.append(_best(scores, may, 4 * NAMED))
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
        """Every source's titles in turn, each title once."""
        heads = [order[:NAMED] for order in self._orders.values()]
        deepest = max(len(head) for head in heads)
        turns = np.full((deepest, len(heads)), -1, dtype=np.intp)
        for j, head in enumerate(heads):
            turns[: len(head), j] = head
        flat = turns.ravel()
        flat = flat[flat >= 0]
        _, first = np.unique(flat, return_index=True)
        return flat[np.sort(first)]

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


def _best(scores: Matrix, may: Bools, most: int) -> Indices:
    """The rows with the highest positive scores, best first, at most `most`."""
    rows = np.flatnonzero(may & (scores > 1e-6))
    if len(rows) > most:
        rows = rows[np.argpartition(-scores[rows], most)[:most]]
    return rows[np.argsort(-scores[rows], kind="stable")]


def _content(catalog: Catalog) -> Matrix:
    """(T × c) unit vectors of what a title is: its genres, its decade, and the words of its name."""
    decades = (catalog.years[:, None] // 10 == np.unique(catalog.years // 10)[None, :]).astype(np.float32)
    words = np.zeros((len(catalog), _WORDS), dtype=np.float32)
    for row, name in enumerate(catalog.names):
        for word in name.lower().split():
            if len(word) > 3:
                words[row, zlib.crc32(word.encode()) % _WORDS] += 1.0
    rarity = np.log(len(catalog) / np.maximum(catalog.genres.sum(axis=0), 1)).astype(np.float32)
    return _unit(np.concatenate([catalog.genres * rarity, 0.5 * decades, 0.5 * _unit(words)], axis=1))
