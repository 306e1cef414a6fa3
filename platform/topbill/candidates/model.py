"""The first stage of a page: from tens of thousands of titles to the few dozen of a row, each with
the sources that named it.

Titles in a pool lie in the order of their merit, what all evidence together says for each to this
viewer: that is the order without a policy.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from topbill.candidates.cowatching import CoWatching, Likeness, Matrix, unit_length
from topbill.candidates.signals import DEFAULT_WEIGHTS, EVIDENCE, Signals
from topbill.catalog import Bools, Catalog
from topbill.domain.chance import sample, uniforms
from topbill.domain.records import Floats, Indices
from topbill.policies.linear.drawing import load

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
REGIONAL_PRIOR_PLAYS = 100.0
"""Plays of all regions that count in a region's own order, so that a small one has an order too."""
_FEW = 10.0
"""Plays with which a region, or the last days, would say as much as all plays do of a title's
share.
"""
_ALIKE = 1e-6
"""Cosine above which a title is alike at all: what has no vector has 0."""
_WORDS = 32
GIVEN = ("unfinished", "list", "again", "because", "external")
"""Sources of which each viewer has titles of one's own: whoever composes the page says which."""
_AS_GIVEN = ("unfinished", "list", "because", "external")
"""Those whose order is that in which the titles are given."""
_TRENDING_HERE = "trending in the viewer's region"
"""The order of titles that no source of SOURCES has."""
_A_TREND = 0.5
"""Decayed plays in a region from which on something is trending there: one of two days ago."""
_NOTHING: Indices = np.zeros(0, dtype=np.intp)
SHORT_TERM = 5.0
"""Later plays after which one says half as much of what a viewer is after at the moment."""
_SHORT_TERM_PLAYS = 30
"""Last plays that say it at all: what is before them would count a hundredth."""


@dataclass(frozen=True)
class RowSource:
    """What a row is made of.

    Attributes:
        source: One of SOURCES, `genre` (titles of `genres`), `titles` (an editors' list), `mixed`
            (what all evidence together speaks for), or one of GIVEN: `unfinished`, `list`, `again`
            (what the viewer began, wants to watch, has watched), `because` (what is like a title
            that the viewer liked) and `external` (what the request brings).
        genres: Which, for `genre`.
        titles: Which, for `titles`.
        within: Seconds for which a title stays `unfinished`.
        after: Seconds after which a watched title may come `again`; None: as the rule `seen` says.
        by_region: Whether `trending` is what is trending in the viewer's region.
        seed: Like which of the titles that the viewer liked, for `because`: 0 is the last one.
        row: Whose candidates, for `external`: each such row has its own.
    """

    source: str
    genres: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    within: float = math.inf
    after: float | None = None
    by_region: bool = False
    seed: int = 0
    row: str = ""


class CandidateModel:
    """The first stage compiled for one catalogue (T titles) and one state of the signals.

    Immutable; replaced as a whole. `trending` (T) is each title's share of the most trending one's
    decayed plays, `popular` (T) the rows by falling popularity, `content` and `factors` (T × …)
    unit vectors of what a title is and of who watches it, `weights` what each kind of EVIDENCE is
    worth.
    """

    def __init__(
        self, catalog: Catalog, signals: Signals | None = None, content: Matrix | None = None
    ) -> None:
        self.catalog = catalog
        self.content = _content(catalog) if content is None else content
        size = len(catalog)
        names = catalog.region_names
        decayed, plays = np.zeros(size), np.zeros(size)
        regional = np.zeros((len(names), size))
        together = CoWatching.none(size, 1)
        self.weights = DEFAULT_WEIGHTS
        if signals is not None:
            # Signals may be older than the catalogue: only titles that both have are taken.
            rows, columns = _align(signals, catalog)
            decayed[rows] = signals.trending[columns]
            plays[rows] = signals.popular[columns]
            for j, name in enumerate(signals.regions):
                if name in names:
                    regional[names.index(name), rows] = signals.regional[j, columns]
            together = signals.together.renumbered(rows, columns, size)
            self.weights = signals.weights
        self.factors = together.factors
        self._histories = Likeness(together)
        # The last term keeps logarithms of titles that nobody knows finite.
        popular = PRIOR_PLAYS * catalog.popularity + plays + 0.05
        share = popular / popular.sum()
        self.trending: Floats = decayed / max(float(decayed.max()), 1e-12)
        # Every sort is stable: equal titles keep the catalogue's order, in every process.
        self.popular: Indices = np.argsort(-popular, kind="stable")
        self._regional = [
            np.argsort(-(counts + REGIONAL_PRIOR_PLAYS * share), kind="stable")
            for counts in regional
        ]
        trending_titles = int((decayed > 0.0).sum())
        self._trending: Indices = np.argsort(-decayed, kind="stable")[:trending_titles]
        # Region → how trending each title is there; their order is worked out when first asked for.
        self._trending_in: dict[str, Floats] = {}
        if signals is not None:
            for region, plays_there in zip(
                signals.trending_in, signals.regional_trending, strict=True
            ):
                of_region = np.zeros(size)
                of_region[rows] = plays_there[columns]
                self._trending_in[region] = of_region
        self._regional_trending: dict[str, Indices] = {}
        # Genres → the titles that have any of them; worked out when first asked for.
        self._of_genres: dict[tuple[str, ...], Bools] = {}
        self._newest: Indices = np.argsort(-catalog.added, kind="stable")
        # How alike titles are says little of how likely each is played: the two together find most
        # (benchmarks).
        self._popularity: Matrix = (popular / float(popular.max())).astype(np.float32)
        self._log_popular: Matrix = np.log(popular).astype(np.float32)
        self._trending_lift: Matrix = _lift(decayed, share).astype(np.float32)
        self._regional_lifts: Matrix = np.array(
            [_lift(counts, share) for counts in regional], dtype=np.float32
        )

    def renewed(self, signals: Signals | None) -> CandidateModel:
        """The same catalogue with other signals."""
        return CandidateModel(self.catalog, signals, self.content)

    def of_genres(self, genres: tuple[str, ...]) -> Bools:
        """(T,) the titles that have any of these genres."""
        titles = self._of_genres.get(genres)
        if titles is None:
            titles = self._of_genres[genres] = self.catalog.genre(genres)
        return titles

    def has_trends(self, region: str) -> bool:
        """Whether enough was played in a region of late to say what is trending there."""
        plays = self._trending_in.get(region)
        return plays is not None and float(plays.sum()) >= _A_TREND

    def _trending_order(self, region: str) -> Indices:
        """What is trending in a region first, and then what is trending anywhere; that alone where
        nothing is said of the region.
        """
        if not self.has_trends(region):
            return self._trending
        order = self._regional_trending.get(region)
        if order is None:
            # Sorted by what is trending anywhere already: equal titles keep that order.
            here = self._trending_in[region][self._trending]
            order = self._trending[np.argsort(-here, kind="stable")]
            self._regional_trending[region] = order
        return order

    def evidence(self, region: str, now: float, rows: Indices | slice = slice(None)) -> Matrix:
        """What speaks for each title whoever looks: EVIDENCE up to `new`.

        Args:
            region: The viewer's; one that the catalogue doesn't know has no evidence of its own.
            now: Seconds since the epoch.
            rows: The titles asked for, all by default.

        Returns:
            (4 × T) `popular`, the logarithm of its plays; `regional` and `trending`, how much
            greater its share of the region's, of the last days' plays is than of all plays, as
            logarithms; `new`, 1 or 0.
        """
        names = self.catalog.region_names
        age = now - self.catalog.added[rows]
        new = ((age >= 0.0) & (age < NEW_FOR)).astype(np.float32)
        regional = np.zeros_like(new)
        if region in names:
            regional = self._regional_lifts[names.index(region)][rows]
        return np.stack([self._log_popular[rows], regional, self._trending_lift[rows], new])

    def likeness(
        self,
        watched: Sequence[int],
        rows: Indices | slice = slice(None),
        worth: Sequence[float] = (),
    ) -> Matrix:
        """What a viewer's history says for each title: EVIDENCE from `similar` on.

        Args:
            watched: Rows of what was watched, newest last.
            rows: The titles asked for, all by default.
            worth: What each of `watched` says of the viewer's taste, 1 for a fresh play; all the
                same by default.

        Returns:
            (5 × T) `similar` and `watched`, the cosine of each title's content, and of its factors,
            with what was watched; `items`, `peers` and `next`, how much the ridge regression, the
            viewers alike and what follows the last plays speak for it (`Likeness.scores`). All 0
            for nobody.
        """
        played = np.array(watched, dtype=np.intp)
        each = np.array(worth or np.ones(len(played)))
        said = []
        for vectors in (self.content, self.factors):
            sum_ = each.astype(np.float32) @ vectors[played]
            said.append(vectors[rows] @ unit_length(sum_[None, :])[0])
        others = self._histories.scores(played, each)[:, rows]
        return np.concatenate([np.array(said), others])

    def short_term(self, watched: Sequence[int], worth: Sequence[float] = ()) -> Matrix:
        """How well each title goes with what a viewer is after at the moment. That is no evidence
        of the first stage, which is fitted to any play of a viewer and not to the next ones.

        Args:
            watched: Rows of what was watched, newest last.
            worth: What each of `watched` says of the viewer's taste, as for `likeness`.

        Returns:
            (T,) the cosine of its factors with those of the last plays, where a play says half as
            much as one that is SHORT_TERM plays newer, from -1 to 1; all 0 for nobody.
        """
        last = np.array(watched[-_SHORT_TERM_PLAYS:], dtype=np.intp)
        each = np.array(worth[-_SHORT_TERM_PLAYS:] or np.ones(len(last)))
        fading = np.exp2(np.arange(1.0 - len(last), 1.0) / SHORT_TERM)
        sum_ = (each * fading).astype(np.float32) @ self.factors[last]
        return np.asarray(self.factors @ unit_length(sum_[None, :])[0])

    def score(self, evidence: Matrix, likeness: Matrix) -> Matrix:
        """(T,) how much all evidence together speaks for each title: the logarithm of its odds to
        be played.
        """
        return self._score(np.concatenate([evidence, likeness]))

    def _score(self, said: Matrix) -> Matrix:
        """(T,) the same of all kinds of EVIDENCE together (EVIDENCE × T)."""
        return np.asarray(np.array(self.weights, dtype=np.float32) @ said)

    def candidates_for(
        self,
        region: str,
        watched: Sequence[int],
        allowed: Bools,
        now: float,
        seed: str,
        worth: Sequence[float] = (),
    ) -> Candidates:
        """What one viewer's page may be made of.

        Args:
            region: The viewer's.
            watched: Rows of all that was played, newest last; none is named again for being alike.
            allowed: (T,) what the rules let through.
            now: Seconds since the epoch.
            seed: Decides which titles fill the pools' spare positions.
            worth: What each of `watched` says of the viewer's taste, as for `likeness`.
        """
        evidence, likeness = self.evidence(region, now), self.likeness(watched, worth=worth)
        new = evidence[EVIDENCE.index("new")] > 0.0
        local = self.popular
        if region in self.catalog.region_names:
            local = self._regional[self.catalog.region_names.index(region)]
        newest = _kept(self._newest, new)
        # In the order of SOURCES: what is alike, and what was watched together, follow below.
        orders = [_kept(order, allowed) for order in (self._trending, local, newest)]
        unwatched = allowed.copy()
        unwatched[list(watched)] = False
        for cosine in likeness[:2]:
            rows = np.flatnonzero(unwatched & (cosine > _ALIKE))
            orders.append(_best(rows, cosine[rows] * self._popularity[rows], DEPTH))
        said = np.concatenate([evidence, likeness])
        order_of = dict(zip(SOURCES, orders, strict=True))
        trending_here = self._trending_order(region)
        order_of[_TRENDING_HERE] = _kept(trending_here, allowed)
        score, short_term = self._score(said), self.short_term(watched, worth)
        return Candidates(self, order_of, said, score, short_term, allowed, seed)

    def like(self, title: int, allowed: Bools) -> Indices:
        """At most NAMED allowed titles that are most like one: in what they are and in who watches
        them, as much as each is worth. Popularity counts with its fourth root: more of it, and what
        everybody watches would be like everything.
        """
        # The cosines alone: the other kinds speak of viewers, and a title is none.
        first = EVIDENCE.index("similar")
        weights = np.array(self.weights[first : first + 2], dtype=np.float32)
        worth = weights @ self.likeness([title])[:2]
        others = allowed.copy()
        others[title] = False
        rows = np.flatnonzero(others & (worth > _ALIKE))
        return _best(rows, worth[rows] * np.sqrt(np.sqrt(self._popularity[rows])), NAMED)

    def popular_only(self, allowed: Bools, seed: str) -> Candidates:
        """The candidates without any signal: every source names the popular titles."""
        popular = _kept(self.popular, allowed)
        nothing = np.zeros((len(EVIDENCE), len(self.catalog)), dtype=np.float32)
        return Candidates(
            self,
            dict.fromkeys((*SOURCES, _TRENDING_HERE), popular),
            nothing,
            self._log_popular,
            nothing[0],
            allowed,
            seed,
        )


class Candidates:
    """The candidates of one page: each source's titles in its own order, what each kind of evidence
    says for each, and how much all of it together does.

    `evidence` (EVIDENCE × T) is what each kind says (`CandidateModel`), `sources` (T × SOURCES)
    which of them named a title. `merit` (T) is the logarithm of how much likelier each is to be
    played than one allowed title is on average, as all evidence together has it; `short_term` (T)
    how well each goes with the viewer's last plays (`CandidateModel.short_term`).
    """

    def __init__(
        self,
        model: CandidateModel,
        orders: dict[str, Indices],
        evidence: Matrix,
        score: Matrix,
        short_term: Matrix,
        allowed: Bools,
        seed: str,
    ) -> None:
        self.short_term = short_term
        self._model = model
        self._orders = orders
        self.merit: Matrix = score - _mean_odds(score[allowed])
        self._allowed = allowed
        self._seed = seed
        self._members: dict[RowSource, Indices] = {}
        self._sorted: Indices | None = None
        self._given: Mapping[RowSource, Indices] = {}
        # (T,) by what titles are ordered first; those without a score come after all others.
        self._scores: Floats | None = None
        self.evidence = evidence
        self.sources: Bools = np.zeros((len(allowed), len(SOURCES)), dtype=bool)
        for j, source in enumerate(SOURCES):
            self.sources[orders[source][:NAMED], j] = True
        # In one piece: rows of all titles ask for it.
        self._is_new: Bools = np.ascontiguousarray(self.sources[:, SOURCES.index("new")])

    def give(self, titles: Mapping[RowSource, Indices], scores: Mapping[int, float]) -> None:
        """Say what the rows of GIVEN sources are made of, first choice first; and, title → score,
        what all rows are ordered by before merit.
        """
        self._given = titles
        if scores:
            self._scores = np.full(len(self._allowed), -np.inf)
            self._scores[list(scores)] = list(scores.values())

    def members(self, row_source: RowSource) -> Indices:
        """Every allowed title that the row may be made of, first choice first.

        Kept, since a page asks twice for each row.
        """
        rows = self._members.get(row_source)
        if rows is None:
            rows = self._members[row_source] = self._rows_of(row_source)
        return rows

    def _rows_of(self, row_source: RowSource) -> Indices:
        catalog = self._model.catalog
        if row_source.source == "genre":
            may_be = self._allowed & self._model.of_genres(row_source.genres)
            return _kept(self._order(), may_be)
        if row_source.source == "titles":
            # A list may name titles that the catalogue no longer has.
            listed = np.array(
                [catalog.index[t] for t in row_source.titles if t in catalog.index], dtype=np.intp
            )
            return listed[self._allowed[listed]]
        if row_source.source == "mixed":
            return self._mixed()
        if row_source.source in GIVEN:
            return self._given.get(row_source, _NOTHING)
        if row_source.by_region:
            return self._orders[_TRENDING_HERE]
        return self._orders[row_source.source]

    def _mixed(self) -> Indices:
        """The titles that all evidence together speaks for most, and after them the new ones, of
        which it can't yet.
        """
        rows = np.flatnonzero(self._allowed)
        likely = _best(rows, self.merit[rows], DEPTH)
        new = self._orders["new"][:NAMED]
        is_likely = np.zeros(len(self._allowed), dtype=bool)
        is_likely[likely] = True
        return np.concatenate([likely, new[~is_likely[new]]])

    def _order(self) -> Indices:
        """(T,) all titles `in_order`, sorted once for a page's rows."""
        if self._sorted is None:
            if self._scores is None:
                self._sorted = _falling(self.merit)
            else:
                self._sorted = self.in_order(np.arange(len(self.merit)))
        return self._sorted

    def in_order(self, rows: Indices) -> Indices:
        """The rows by falling score, where there are scores, and then by falling merit; equal ones
        in the catalogue's order.
        """
        rows = np.sort(rows)
        if self._scores is not None:
            return rows[np.lexsort((-self.merit[rows], -self._scores[rows]))]
        return rows[np.argsort(-self.merit[rows], kind="stable")]

    def pool(self, row: str, row_source: RowSource, taken: Bools, most: int) -> Indices:
        """At most `most` titles for a row, by falling merit.

        Where there is a choice, a tenth of the pool is new titles and a tenth any title: what
        nobody was shown can't earn a signal.

        Args:
            row: Its key, which with the page's seed decides what the spare positions hold.
            row_source: What it is made of.
            taken: (T,) titles that stand on the page already.
            most: How many.
        """
        members = self.members(row_source)
        source, compiled = row_source.source, load()
        is_by_merit = source not in (*_AS_GIVEN, "titles") and self._scores is None
        if compiled is not None and is_by_merit:
            pool = np.empty(most, dtype=np.intp)
            seed = "".join([f"{part}\x1f" for part in self._seed_of(row)]).encode()
            size = compiled.fill_pool(
                members, taken, self._is_new, self.merit, most, _spare(most), seed, pool
            )
            return pool[:size]
        members = members[~taken[members]]
        if source in _AS_GIVEN:
            return members[:most]
        # Editors' lists are taken as they are: nothing of chance between their titles.
        if len(members) <= most or source == "titles":
            return self.in_order(members[:most])
        spare = _spare(most)
        head, rest = members[: most - 2 * spare], members[most - 2 * spare :]
        new = self._is_new[rest].nonzero()[0][:spare]
        others = len(rest) - len(new)
        count = min(others, most - len(head) - len(new))
        drawn = sample(others, count, uniforms(*self._seed_of(row)))
        chance = np.array(drawn, dtype=np.intp)
        # Counted among the others: each new title above moves those below it down by one.
        for place in new.tolist():
            chance[chance >= place] += 1
        return self.in_order(np.concatenate([head, rest[new], rest[chance]]))

    def _seed_of(self, row: str) -> tuple[str, str, str]:
        """What draws a row's spare titles: the page's seed alone, so that the same page asked for
        again is the same.
        """
        return "pool", self._seed, row


def _kept(rows: Indices, flags: Bools) -> Indices:
    """Those of the rows whose flags (T,) are set, in their order."""
    compiled = load()
    return rows[flags[rows]] if compiled is None else compiled.kept(rows, flags)


def _spare(most: int) -> int:
    """How many of a pool are new titles, and how many any titles."""
    return int(SPARE * most / 2)


def _align(signals: Signals, catalog: Catalog) -> tuple[Indices, Indices]:
    """Rows of the catalogue, and of the signals, that speak of the same title."""
    rows, columns = [], []
    for j, title in enumerate(signals.ids):
        row = catalog.index.get(title)
        if row is not None:
            rows.append(row)
            columns.append(j)
    return np.array(rows, dtype=np.intp), np.array(columns, dtype=np.intp)


def _lift(plays: Floats, share: Floats) -> Floats:
    """(T,) the logarithm of how much greater each title's share of these plays is than its `share`
    of all.
    """
    return np.asarray(np.log((plays + _FEW * share) / (plays.sum() + _FEW) / share))


def _mean_odds(score: Matrix) -> float:
    """The logarithm of the mean of the odds; 0 of none."""
    if not len(score):
        return 0.0
    highest = score.max()
    return float(highest + np.log(np.exp(score - highest).mean()))


def _falling(scores: Matrix) -> Indices:
    """(T,) the places of float32 scores by falling score, equal ones in their order: what a stable
    `argsort` says, in a tenth of the time.
    """
    # The bits of numbers from 0 on grow with them, those of others fall. So a score and its place
    # are one whole number, and no two are the same. Adding 0 makes -0.0 the 0.0 that it equals.
    bits = (0.0 - scores).view(np.int32)
    keys = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(np.int64) << 32
    keys |= np.arange(len(scores))
    keys.sort()
    return (keys & 0xFFFFFFFF).astype(np.intp, copy=False)


def _best(rows: Indices, scores: Matrix, most: int) -> Indices:
    """At most `most` of the rows, those with the highest scores, best first."""
    if len(rows) > most:
        # A partition is linear in the number of titles; only what it lets through is sorted.
        first = np.argpartition(-scores, most)[:most]
        rows, scores = rows[first], scores[first]
    return rows[np.argsort(-scores, kind="stable")]


def _content(catalog: Catalog) -> Matrix:
    """(T × c) unit vectors of how a title differs from the titles that are played: its genres, its
    decade, and the words of its name, less their mean by popularity."""
    decade = catalog.years // 10
    decades = (decade[:, None] == np.unique(decade)[None, :]).astype(np.float32)
    words = np.zeros((len(catalog), _WORDS), dtype=np.float32)
    for row, name in enumerate(catalog.names):
        for word in name.lower().split():
            if len(word) > 3:
                # crc32 and not hash(), which differs from process to process.
                words[row, zlib.crc32(word.encode()) % _WORDS] += 1.0
    # A genre that few titles have says more of them (inverse document frequency).
    rarity = np.log(len(catalog) / np.maximum(catalog.genres.sum(axis=0), 1)).astype(np.float32)
    vectors = unit_length(
        np.concatenate([catalog.genres * rarity, 0.5 * decades, 0.5 * unit_length(words)], axis=1)
    )
    # Less the mean of what is played: else all that is popular would be like all that is popular.
    weight = (catalog.popularity + 1e-6).astype(np.float32)
    return unit_length(vectors - (weight / weight.sum()) @ vectors)
