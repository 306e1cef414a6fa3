"""Viewers who browse whole pages: they scroll down, look along the rows whose headings interest
them, and play what suits them; all of it is known.

The click model, a cascade over the page. A viewer reaches row r and looks at position k with
probability scroll^r · interest(viewer, row) · glance^k, and plays the title there, if nothing above
was played, with probability
    ceiling · σ(b + 2.5·match(viewer, title) + quality(title) + appeal(viewer, picture)).
A play is completed (70% watched) with probability σ(h + 2·match). What interests a viewer in a row
is its genres, the kind of row, which some like and others don't, and a habit of the viewer's own.
Taste is told to the service, interest, quality and appeal are not. So the expected completed plays
of any page have a closed form, and each layer has a best of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from topbill.candidates import RowSource
from topbill.catalog import Catalog
from topbill.domain.chance import hash64
from topbill.domain.records import Floats
from topbill.pages import PageAnswer, Tile

GENRES = ("action", "comedy", "crime", "drama", "horror", "romance", "science-fiction", "thriller")
"""What viewers have a taste for; as the example page's experiments declare it."""
_TONES = ("warm", "cold", "dark")


@dataclass(frozen=True)
class Browsing:
    """How viewers browse: see the module. `base_rate` is the mean of σ over viewers and the 200
    most popular titles; `start` is when the simulation begins (seconds since the epoch)."""

    viewers: int = 600
    scroll: float = 0.8
    glance: float = 0.88
    ceiling: float = 0.7
    base_rate: float = 0.08
    start: float = 1_790_000_000.0
    pages_a_day: float = 200.0


class PageViewers:
    """Simulated viewers of one catalogue and of rows that are made of `sources`; a row that isn't
    there interests all alike. Everything follows from the catalogue, the rows, how they browse and
    the seed."""

    def __init__(
        self,
        catalog: Catalog,
        seed: int = 0,
        browsing: Browsing | None = None,
        sources: Mapping[str, RowSource] | None = None,
    ) -> None:
        self.catalog = catalog
        self.seed = seed
        self.browsing = browsing or Browsing()
        viewers = self.browsing.viewers
        # The order of these draws is part of what a seed means: a new one goes to the end.
        rng = np.random.default_rng(hash64(str(seed), "browsers"))
        # Few genres a viewer: with a concentration well below 1, a taste lies in one or two.
        self.taste: Floats = rng.dirichlet(np.full(len(GENRES), 0.35), viewers).round(3)
        self._genres = _genre_shares(catalog)
        # What is popular tends to be good, but far from always.
        noise = rng.normal(0.0, 0.5, len(catalog))
        self.quality: Floats = noise + 0.8 * (catalog.popularity - 0.25)
        # Who likes a genre likes certain pictures, which is what makes artwork personal.
        self._tone: Floats = rng.normal(0.0, 1.0, (len(GENRES), len(_TONES)))
        self._faces: Floats = rng.normal(0.0, 0.5, len(GENRES))
        self._arrivals = np.cumsum(rng.dirichlet(np.full(viewers, 0.8)))

        self._pictures: dict[str, dict[str, Any]] = {}
        for of_title in catalog.pictures:
            for picture in of_title:
                self._pictures[picture.id] = picture.features
        self._mean_tone, self._mean_faces = _mean_pictures(catalog)
        self._interest: dict[str, Floats] = {}
        for row, source in (sources or {}).items():
            self._interest[row] = self._draw_interest(row, source)
        self._intercept = self._solve_intercept()

    def _draw_interest(self, row: str, source: RowSource) -> Floats:
        """(viewers,) the probability that each looks along this row on reaching it. Rows differ
        little for viewers as a whole, so that no order which is the same for all is bad by chance,
        and much from viewer to viewer."""
        rng = np.random.default_rng(hash64(str(self.seed), "row", row))
        in_row = np.isin(GENRES, list(source.genres))
        liking = self.taste[:, in_row].sum(axis=1)
        kind = self.taste @ rng.normal(0.0, 1.5, len(GENRES))
        # A row without genres of its own is liked for what kind of row it is; taken off is what all
        # viewers have in common.
        theme = 4.0 * (liking - 0.3) if source.genres else kind - kind.mean()
        own = rng.normal(0.0, 0.3)
        habit = rng.normal(0.0, 0.5, self.browsing.viewers)
        return np.asarray(expit(0.3 + own + theme + habit))

    def interest(self, viewer: int, row: str) -> float:
        """The probability that the viewer looks along a row on reaching it."""
        of_row = self._interest.get(row)
        return 0.5 if of_row is None else float(of_row[viewer])

    def _solve_intercept(self) -> float:
        """The b with which viewers of all seeds have the same base rate."""
        # The popular titles, for those are the ones that pages are full of.
        match = self.taste[:500] @ self._genres[:200].T
        appeal = np.array([self.mean_appeal(viewer)[:200] for viewer in range(len(match))])
        eta = 2.5 * match + self.quality[:200] + appeal
        rate = self.browsing.base_rate
        return float(brentq(lambda b: expit(b + eta).mean() - rate, -30.0, 30.0))

    def who(self, number: int) -> int:
        """The viewer who opens page `number`."""
        u = np.random.default_rng(hash64(str(self.seed), "who", str(number))).random()
        # Rounding may leave the last sum a little below 1, and u above it.
        return min(int(np.searchsorted(self._arrivals, u)), self.browsing.viewers - 1)

    def context(self, viewer: int) -> dict[str, Any]:
        """What the service is told of a viewer."""
        taste = dict(zip(GENRES, self.taste[viewer].tolist(), strict=True))
        return {"taste": taste, "device": "tv"}

    def appeal(self, viewer: int, picture: str | None) -> float:
        """What a picture adds to the wish to play, on the logit scale."""
        features = self._pictures.get(picture or "", {})
        taste = self.taste[viewer]
        tone = features.get("tone")
        of_tone = float(taste @ self._tone[:, _TONES.index(tone)]) if tone else 0.0
        # One face is the middle: a picture without any counts as far below as one with two above.
        faces = float(features.get("faces", 0)) - 1.0
        return of_tone + float(taste @ self._faces) * faces

    def best_picture(self, viewer: int, title: str) -> str:
        """The picture of a title that appeals most."""
        pictures = self.catalog.pictures[self.catalog.index[title]]
        return max((p.id for p in pictures), key=lambda picture: self.appeal(viewer, picture))

    def mean_appeal(self, viewer: int) -> Floats:
        """(T,) the mean appeal of each title's pictures."""
        taste = self.taste[viewer]
        return np.asarray(
            self._mean_tone @ (taste @ self._tone) + self._mean_faces * (taste @ self._faces)
        )

    def wish(self, viewer: int, titles: Sequence[int]) -> tuple[Floats, Floats]:
        """(K,) each: the logit of a play without a picture's appeal, and the probability that a
        play is completed.
        """
        rows = list(titles)
        match = self._genres[rows] @ self.taste[viewer]
        logit = self._intercept + 2.5 * match + self.quality[rows]
        return logit, expit(-0.6 + 2.0 * match)

    def choose(self, viewer: int, plays: int, luck: np.random.Generator) -> list[int]:
        """What a viewer plays who looks for titles instead of being shown any, all different: of
        each the odds are its popularity's times those of the wish."""
        odds = self.reach(viewer)
        return [int(row) for row in luck.choice(len(odds), size=plays, replace=False, p=odds)]

    def reach(self, viewer: int) -> Floats:
        """(T,) the probability of each title in `choose`, for the first play."""
        logit, _ = self.wish(viewer, range(len(self.catalog)))
        odds = (0.02 + self.catalog.popularity) ** 2 * np.exp(1.5 * logit)
        return np.asarray(odds / odds.sum())

    def cells(self, viewer: int, page: PageAnswer) -> tuple[Floats, Floats, list[str]]:
        """(cells,) in reading order: probability of a play if nothing above was played, of
        completing it; titles.
        """
        tiles = tiles_of(page)
        appeal = [self.appeal(viewer, tile.picture) for tile in tiles]
        logit, completed = self.wish(viewer, self.catalog_rows(page))
        play = self.looks(viewer, page) * expit(logit + np.array(appeal))
        return play, completed, [tile.title for tile in tiles]

    def catalog_rows(self, page: PageAnswer) -> list[int]:
        """(cells,) in reading order: the row that each title has in the catalogue."""
        return [self.catalog.index[tile.title] for tile in tiles_of(page)]

    def looks(self, viewer: int, page: PageAnswer) -> Floats:
        """(cells,) in reading order: the most that a title there can be played if nothing above
        was.
        """
        browsing = self.browsing
        looks: list[float] = []
        for r, row in enumerate(page.rows):
            reach = browsing.scroll**r * self.interest(viewer, row.row)
            # Along the row as down the page, attention falls by one share from each to the next.
            looks += [reach * browsing.glance**k for k in range(len(row.titles))]
        return browsing.ceiling * np.array(looks)

    def expected(self, viewer: int, page: PageAnswer) -> float:
        """The expected completed plays of a page: at most one."""
        play, completed, _ = self.cells(viewer, page)
        return along(play, completed)

    def react(self, viewer: int, page: PageAnswer) -> tuple[str | None, float]:
        """The title that the viewer plays, and the share of it watched; (None, 0.0) for nothing."""
        play, completed, titles = self.cells(viewer, page)
        # By the page's id: the same page shown again meets the same luck.
        rng = np.random.default_rng(hash64(str(self.seed), "luck", page.page_id))
        plays = np.flatnonzero(rng.random(len(play)) < play)
        if not plays.size:
            return None, 0.0
        first = int(plays[0])
        low, high = (0.7, 1.0) if rng.random() < completed[first] else (0.02, 0.6)
        return titles[first], float(rng.uniform(low, high))


def _genre_shares(catalog: Catalog) -> Floats:
    """(T × genres) the part that each of `GENRES` has in a title: even among those it has."""
    has = np.zeros((len(catalog), len(GENRES)), dtype=bool)
    for column, genre in enumerate(GENRES):
        if genre in catalog.genre_names:
            has[:, column] = catalog.genres[:, catalog.genre_names.index(genre)]
    # A title without any of them matches nobody in particular.
    shares: Floats = has / np.maximum(has.sum(axis=1, keepdims=True), 1.0)
    return shares


def _mean_pictures(catalog: Catalog) -> tuple[Floats, Floats]:
    """(T × tones) the share of each tone among a title's pictures, and (T,) their mean number of
    faces, less one."""
    tones = np.zeros((len(catalog), len(_TONES)))
    faces = np.zeros(len(catalog))
    for row, pictures in enumerate(catalog.pictures):
        for picture in pictures:
            if "tone" in picture.features:
                tones[row, _TONES.index(picture.features["tone"])] += 1.0
            faces[row] += float(picture.features.get("faces", 0)) - 1.0
        tones[row] /= max(tones[row].sum(), 1.0)
        faces[row] /= max(len(pictures), 1)
    return tones, faces


def tiles_of(page: PageAnswer) -> list[Tile]:
    """The tiles of a page in reading order."""
    return [tile for row in page.rows for tile in row.titles]


def along(play: Floats, worth: Floats) -> float:
    """The expected `worth` (cells) of the first cell that is played, each with probability `play`
    if none above was.
    """
    nothing_above = np.concatenate([[1.0], np.cumprod(1.0 - play)[:-1]])
    return float((nothing_above * play * worth).sum())
