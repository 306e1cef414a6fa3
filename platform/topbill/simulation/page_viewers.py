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
from topbill.pages import PageAnswer

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
    there interests all alike. Everything follows from the catalogue, the rows, the ways and the
    seed."""

    def __init__(
        self,
        catalog: Catalog,
        seed: int = 0,
        ways: Browsing | None = None,
        sources: Mapping[str, RowSource] | None = None,
    ) -> None:
        self.catalog, self.seed, self.ways = catalog, seed, ways or Browsing()
        rng = np.random.default_rng(hash64(str(seed), "browsers"))
        self.taste: Floats = rng.dirichlet(np.full(len(GENRES), 0.35), self.ways.viewers).round(3)
        columns = [catalog.genre_names.index(g) if g in catalog.genre_names else -1 for g in GENRES]
        has = np.array(
            [
                catalog.genres[:, j] if j >= 0 else np.zeros(len(catalog), dtype=bool)
                for j in columns
            ]
        ).T
        self._genres: Floats = has / np.maximum(has.sum(axis=1, keepdims=True), 1.0)
        self.quality: Floats = rng.normal(0.0, 0.5, len(catalog)) + 0.8 * (
            catalog.popularity - 0.25
        )
        self._tone: Floats = rng.normal(0.0, 1.0, (len(GENRES), len(_TONES)))
        self._faces: Floats = rng.normal(0.0, 0.5, len(GENRES))
        self._arrivals = np.cumsum(rng.dirichlet(np.full(self.ways.viewers, 0.8)))
        self._pictures = {p.id: p.features for own in catalog.pictures for p in own}
        tones = [
            [_TONES.index(p.features["tone"]) for p in own if "tone" in p.features]
            for own in catalog.pictures
        ]
        self._mean_tone: Floats = np.array(
            [np.bincount(own, minlength=len(_TONES)) / max(len(own), 1) for own in tones]
        )
        self._mean_faces: Floats = np.array(
            [
                sum(float(p.features.get("faces", 0)) - 1.0 for p in own) / max(len(own), 1)
                for own in catalog.pictures
            ]
        )
        self._interest = {row: self._interested(row, own) for row, own in (sources or {}).items()}
        self._base = self._solved()

    def _interested(self, row: str, definition: RowSource) -> Floats:
        """(viewers,) the probability that each looks along this row on reaching it. Rows differ
        little for viewers as a whole, so that no order which is the same for all is bad by chance,
        and much from viewer to viewer."""
        rng = np.random.default_rng(hash64(str(self.seed), "row", row))
        liked = self.taste[:, [g in definition.genres for g in GENRES]].sum(axis=1)
        kind = self.taste @ rng.normal(0.0, 1.5, len(GENRES))
        themed = 4.0 * (liked - 0.3) if definition.genres else kind - kind.mean()
        own, habit = rng.normal(0.0, 0.3), rng.normal(0.0, 0.5, self.ways.viewers)
        return np.asarray(expit(0.3 + own + themed + habit))

    def interest(self, viewer: int, row: str) -> float:
        """The probability that the viewer looks along a row on reaching it."""
        found = self._interest.get(row)
        return 0.5 if found is None else float(found[viewer])

    def _solved(self) -> float:
        """The b with which environments of all seeds have the same base rate."""
        match = self.taste[:500] @ self._genres[:200].T
        eta = (
            2.5 * match
            + self.quality[:200]
            + np.array([self.middling(v)[:200] for v in range(len(match))])
        )
        return float(brentq(lambda b: expit(b + eta).mean() - self.ways.base_rate, -30.0, 30.0))

    def who(self, number: int) -> int:
        """The viewer who opens page `number`."""
        u = np.random.default_rng(hash64(str(self.seed), "who", str(number))).random()
        return min(int(np.searchsorted(self._arrivals, u)), self.ways.viewers - 1)

    def context(self, viewer: int) -> dict[str, Any]:
        """What the service is told of a viewer."""
        return {
            "taste": dict(zip(GENRES, self.taste[viewer].tolist(), strict=True)),
            "device": "tv",
        }

    def appeal(self, viewer: int, picture: str | None) -> float:
        """What a picture adds to the wish to play, on the logit scale."""
        features = self._pictures.get(picture or "", {})
        tone = features.get("tone")
        added = float(self.taste[viewer] @ self._tone[:, _TONES.index(tone)]) if tone else 0.0
        return added + float(self.taste[viewer] @ self._faces) * (
            float(features.get("faces", 0)) - 1.0
        )

    def best_picture(self, viewer: int, title: str) -> str:
        """The picture of a title that appeals most."""
        return max(
            (p.id for p in self.catalog.pictures[self.catalog.index[title]]),
            key=lambda p: self.appeal(viewer, p),
        )

    def middling(self, viewer: int) -> Floats:
        """(T,) the mean appeal of each title's pictures."""
        taste = self.taste[viewer]
        return np.asarray(
            self._mean_tone @ (taste @ self._tone) + self._mean_faces * (taste @ self._faces)
        )

    def wish(self, viewer: int, titles: Sequence[int]) -> tuple[Floats, Floats]:
        """(K,) each: the logit of a play without a picture's appeal, and the probability that a
        play is completed.
        """
        match = self._genres[list(titles)] @ self.taste[viewer]
        return self._base + 2.5 * match + self.quality[list(titles)], expit(-0.6 + 2.0 * match)

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
        titles = [tile.title for row in page.rows for tile in row.titles]
        logit, done = self.wish(viewer, [self.catalog.index[title] for title in titles])
        appeal = [self.appeal(viewer, tile.picture) for row in page.rows for tile in row.titles]
        return self.looks(viewer, page) * expit(logit + np.array(appeal)), done, titles

    def looks(self, viewer: int, page: PageAnswer) -> Floats:
        """(cells,) in reading order: the most that a title there can be played if nothing above
        was.
        """
        ways = self.ways
        reach = [ways.scroll**r * self.interest(viewer, row.row) for r, row in enumerate(page.rows)]
        looks = [
            reach[r] * ways.glance**k
            for r, row in enumerate(page.rows)
            for k in range(len(row.titles))
        ]
        return ways.ceiling * np.array(looks)

    def expected(self, viewer: int, page: PageAnswer) -> float:
        """The expected completed plays of a page: at most one."""
        play, done, _ = self.cells(viewer, page)
        return along(play, done)

    def react(self, viewer: int, page: PageAnswer) -> tuple[str | None, float]:
        """The title that the viewer plays, and the share of it watched; (None, 0.0) for nothing."""
        play, done, titles = self.cells(viewer, page)
        rng = np.random.default_rng(hash64(str(self.seed), "luck", page.page_id))
        hit = np.flatnonzero(rng.random(len(play)) < play)
        if not hit.size:
            return None, 0.0
        first = int(hit[0])
        return titles[first], float(
            rng.uniform(0.7, 1.0) if rng.random() < done[first] else rng.uniform(0.02, 0.6)
        )


def along(play: Floats, worth: Floats) -> float:
    """The expected `worth` (cells) of the first cell that is played, each with probability `play`
    if none above was.
    """
    nothing_above = np.concatenate([[1.0], np.cumprod(1.0 - play)[:-1]])
    return float((nothing_above * play * worth).sum())
