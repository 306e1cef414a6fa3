"""Viewers who browse whole pages: they scroll down, look along the rows, and play what suits them; all of it is known.

The click model, a cascade over the page. A viewer reaches row r and looks at position k with probability
scroll^r · glance^k, and plays the title there, if nothing above was played, with probability
    ceiling · σ(b + 2.5·match(viewer, title) + quality(title) + appeal(viewer, picture)).
A play is completed (70% watched) with probability σ(h + 2·match). Taste is told to the service, quality and appeal are
not. So the expected completed plays of any page have a closed form, and each layer has a best of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from scipy.special import expit

from topbill.candidates import Play, learn
from topbill.catalog import Catalog
from topbill.chance import hash64
from topbill.keeper.learner import examples
from topbill.pages import Composer, PageAnswer, PageRequest
from topbill.pages.credit import spots, spread
from topbill.records import Example, Floats, RewardEvent

GENRES = ("action", "comedy", "crime", "drama", "horror", "romance", "science-fiction", "thriller")
"""What viewers have a taste for; as the example page's experiments declare it."""
_TONES = ("warm", "cold", "dark")
_DAY = 86_400.0


@dataclass(frozen=True)
class Ways:
    """How viewers browse: see the module. `start` is when the simulation begins (seconds since the epoch)."""

    viewers: int = 600
    scroll: float = 0.8
    glance: float = 0.88
    ceiling: float = 0.5
    base: float = -2.6
    start: float = 1_790_000_000.0
    pages_a_day: float = 200.0


@dataclass(frozen=True, slots=True)
class Visit:
    """One page as it was seen: who, which variant each layer served, what was to be expected of it, and what was
    played to which share (None, 0.0 where nothing was)."""

    number: int
    viewer: int
    first: bool
    variants: Mapping[str, str | None]
    expected: float
    titles: tuple[str, ...]
    played: str | None
    watched: float


class Browsers:
    """Simulated viewers of one catalogue. Everything follows from the catalogue, the ways and the seed."""

    def __init__(self, catalog: Catalog, seed: int = 0, ways: Ways | None = None) -> None:
        self.catalog, self.seed, self.ways = catalog, seed, ways or Ways()
        rng = np.random.default_rng(hash64(str(seed), "browsers"))
        self.taste: Floats = rng.dirichlet(np.full(len(GENRES), 0.35), self.ways.viewers).round(3)
        columns = [catalog.genre_names.index(g) if g in catalog.genre_names else -1 for g in GENRES]
        has = np.array([catalog.genres[:, j] if j >= 0 else np.zeros(len(catalog), dtype=bool) for j in columns]).T
        self._genres: Floats = has / np.maximum(has.sum(axis=1, keepdims=True), 1.0)
        self.quality: Floats = rng.normal(0.0, 0.5, len(catalog)) + 0.8 * (catalog.popularity - 0.25)
        self._tone: Floats = rng.normal(0.0, 1.0, (len(GENRES), len(_TONES)))
        self._faces: Floats = rng.normal(0.0, 0.5, len(GENRES))
        self._arrivals = np.cumsum(rng.dirichlet(np.full(self.ways.viewers, 0.8)))
        self._pictures = {p.id: p.features for own in catalog.pictures for p in own}

    def who(self, number: int) -> int:
        """The viewer who opens page `number`."""
        u = np.random.default_rng(hash64(str(self.seed), "who", str(number))).random()
        return min(int(np.searchsorted(self._arrivals, u)), self.ways.viewers - 1)

    def context(self, viewer: int) -> dict[str, Any]:
        """What the service is told of a viewer."""
        return {"taste": dict(zip(GENRES, self.taste[viewer].tolist(), strict=True)), "device": "tv"}

    def appeal(self, viewer: int, picture: str | None) -> float:
        """What a picture adds to the wish to play, on the logit scale."""
        features = self._pictures.get(picture or "", {})
        tone = features.get("tone")
        added = float(self.taste[viewer] @ self._tone[:, _TONES.index(tone)]) if tone else 0.0
        return added + float(self.taste[viewer] @ self._faces) * (float(features.get("faces", 0)) - 1.0)

    def wish(self, viewer: int, titles: Sequence[int]) -> tuple[Floats, Floats]:
        """(K,) each: the logit of a play without a picture's appeal, and the probability that a play is completed."""
        match = self._genres[list(titles)] @ self.taste[viewer]
        return self.ways.base + 2.5 * match + self.quality[list(titles)], expit(-0.6 + 2.0 * match)

    def cells(self, viewer: int, page: PageAnswer) -> tuple[Floats, Floats, list[str]]:
        """(cells,) in reading order: probability of a play if nothing above was played, of completing it; titles."""
        titles = [tile.title for row in page.rows for tile in row.titles]
        logit, done = self.wish(viewer, [self.catalog.index[title] for title in titles])
        appeal = [self.appeal(viewer, tile.picture) for row in page.rows for tile in row.titles]
        looks = [
            self.ways.scroll**r * self.ways.glance**k for r, row in enumerate(page.rows) for k in range(len(row.titles))
        ]
        play = self.ways.ceiling * np.array(looks) * expit(logit + np.array(appeal))
        return play, done, titles

    def expected(self, viewer: int, page: PageAnswer) -> float:
        """The expected completed plays of a page: at most one."""
        play, done, _ = self.cells(viewer, page)
        nothing_above = np.concatenate([[1.0], np.cumprod(1.0 - play)[:-1]])
        return float((nothing_above * play * done).sum())

    def react(self, viewer: int, page: PageAnswer) -> tuple[str | None, float]:
        """The title that the viewer plays, and the share of it watched; (None, 0.0) for nothing."""
        play, done, titles = self.cells(viewer, page)
        rng = np.random.default_rng(hash64(str(self.seed), "luck", page.page_id))
        hit = np.flatnonzero(rng.random(len(play)) < play)
        if not hit.size:
            return None, 0.0
        first = int(hit[0])
        return titles[first], float(rng.uniform(0.7, 1.0) if rng.random() < done[first] else rng.uniform(0.02, 0.6))


def browse(
    composer: Composer,
    browsers: Browsers,
    pages: int,
    *,
    learn_every: int = 40,
    signals_every: int = 500,
    request: Mapping[str, Any] | None = None,
) -> list[Visit]:
    """Serve `pages` pages to the viewers, learn from what they do as the keeper would, and tell what was seen.

    What is learned changes the composer's engine and signals: give a fresh one.
    """
    ways, engine = browsers.ways, composer.engine
    lives = {layer: engine.find(key) for layer, key in composer.file.layers.items()}
    declared = {feature.name for live in lives.values() for feature in live.experiment.context}
    visits: list[Visit] = []
    plays: list[Play] = []
    watched: dict[int, list[str]] = {}
    batch: dict[tuple[str, str], list[Example]] = {}
    for number in range(pages):
        now = ways.start + number / ways.pages_a_day * _DAY
        viewer = browsers.who(number)
        asked = msgspec.convert(
            {
                "page": composer.file.key,
                "profile": f"viewer-{viewer}",
                "region": composer.file.region,
                "watched": watched.get(viewer, [])[-10:],
                **(request or {}),
            },
            PageRequest,
        )
        told_of = {name: value for name, value in browsers.context(viewer).items() if name in declared}
        asked = msgspec.structs.replace(asked, context=msgspec.Raw(msgspec.json.encode(told_of)))
        page_id = f"page-{browsers.seed}-{number}"
        made = composer.compose(asked, composer.viewer(asked, page_id), page_id, now)
        title, share = browsers.react(viewer, made.answer)
        visits.append(
            Visit(
                number,
                viewer,
                viewer not in watched,
                {layer.layer: layer.variant for layer in made.answer.layers},
                browsers.expected(viewer, made.answer),
                tuple(tile.title for row in made.answer.rows for tile in row.titles),
                title,
                share,
            )
        )
        seen = watched.setdefault(viewer, [])
        if title is not None:
            seen.append(title)
            plays.append(Play(f"viewer-{viewer}", title, now, composer.file.region))
        for decision in made.decisions[1:]:
            live = lives[decision.layer]
            if decision.variant is not None and decision.reason == "policy":
                events = _events(made.answer, title, share, now).get(decision.decision_id, [])
                told = examples(live, msgspec.structs.replace(decision, at=int(now * 1e6)), events)
                batch.setdefault((decision.layer, decision.variant), []).extend(told)
        if number % learn_every == learn_every - 1:
            for (layer, variant), found in batch.items():
                lives[layer].policies[variant].update(found)
            batch = {}
        if number % signals_every == signals_every - 1 and plays:
            composer.renew(learn(plays, composer.catalog, now))
    return visits


def _events(answer: PageAnswer, title: str | None, share: float, now: float) -> dict[str, list[RewardEvent]]:
    """What every decision of the page is told, by its id."""
    found: dict[str, list[RewardEvent]] = {}
    if title is None:
        return found
    for name, value in (("play", 1.0), ("watch_fraction", share)):
        event = RewardEvent(
            decision_id=answer.page_id, event_id=name, event=name, value=value, action=title, at=int(now * 1e6)
        )
        for one in spread(event, answer, spots(answer)):
            found.setdefault(one.decision_id, []).append(one)
    return found


def concentration(visits: Sequence[Visit]) -> tuple[int, float]:
    """(titles shown at all, share of all placements that the ten most shown titles have)."""
    shown: dict[str, int] = {}
    for visit in visits:
        for title in visit.titles:
            shown[title] = shown.get(title, 0) + 1
    most = sorted(shown.values(), reverse=True)
    return len(most), sum(most[:10]) / max(sum(most), 1)
