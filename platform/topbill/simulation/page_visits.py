"""Simulated viewers served in process, page after page, with what they teach learned as the worker
would; and what the same viewers would have made of other pages at the same moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from topbill.candidates import Play
from topbill.candidates.fitting import learn
from topbill.catalog import Catalog
from topbill.domain.records import Example, RewardEvent
from topbill.engine import CompiledExperiment, examples
from topbill.pages import CompiledPage, ComposedPage, PageAnswer, PageRequest, compose
from topbill.pages.credit import cells_of, spread
from topbill.simulation.arrivals import Arrivals
from topbill.simulation.page_oracle import Choice, Oracle, decided_by
from topbill.simulation.page_viewers import PageViewers, along, tiles_of
from topbill.simulation.scoreboard import worth_of_play

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class JudgedPage:
    """A page as far as it is judged: what was to be expected of it, in completed plays and in units
    of the titles' objective, its rows, and its titles and pictures in reading order.
    """

    expected: float
    objective: float
    rows: int
    titles: tuple[str, ...]
    pictures: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class PageVisit:
    """One page as it was seen: by whom, at what time, which variant each layer served, what was
    played to which share (None, 0.0 where nothing was). `watched`: plays of this viewer before.
    `arms`: other pages for the same viewer at the same moment, where the visit was judged."""

    number: int
    at: float
    viewer: int
    first: bool
    watched: tuple[str, ...]
    variants: Mapping[str, str | None]
    seen: JudgedPage
    played: str | None
    share: float
    arms: Mapping[str, JudgedPage] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PageRun:
    """How a simulation goes: pages between two lessons and two refreshes of the signals; what every
    request says besides; catalogues that replace the one there is at a page (the same titles, with
    other pictures); which `arms` are judged, and at which visits."""

    learn_every: int = 40
    signals_every: int = 500
    request: Mapping[str, Any] = field(default_factory=dict)
    catalogues: Mapping[int, Catalog] = field(default_factory=dict)
    arms: Mapping[str, Choice] = field(default_factory=dict)
    judged: Callable[[int, bool], bool] = lambda number, first: True  # noqa: ARG005


def browse(
    compiled_page: CompiledPage, viewers: PageViewers, pages: int, settings: PageRun | None = None
) -> list[PageVisit]:
    """Serve `pages` pages to the viewers, learn from what they do as the worker would, and report
    each visit.

    What is learned changes the compiled_page, its engine and its signals: give a fresh one.
    """
    session = _Session(compiled_page, viewers, settings or PageRun())
    return [session.visit(number) for number in range(pages)]


class _Session:
    """One simulation under way."""

    def __init__(
        self, compiled_page: CompiledPage, viewers: PageViewers, settings: PageRun
    ) -> None:
        self.compiled_page, self.viewers, self.settings = compiled_page, viewers, settings
        self.lessons = Lessons(compiled_page)
        # The service refuses features that no layer declares.
        self.declared: set[str] = set()
        for live in self.lessons.live.values():
            self.declared |= {feature.name for feature in live.experiment.context}
        self.arrivals = Arrivals(viewers)
        self.plays: list[Play] = []
        self.watched: dict[int, list[str]] = {}

    def visit(self, number: int) -> PageVisit:
        """Serve one page, and learn when it is time."""
        browsing = self.viewers.browsing
        now = browsing.start + number / browsing.pages_a_day * _DAY
        if number in self.settings.catalogues:
            self._replace_catalog(self.settings.catalogues[number], now)
        viewer = self.arrivals.who(number)
        first = viewer not in self.watched
        watched_before = tuple(self.watched.get(viewer, ())[-10:])
        request = self._request(viewer, watched_before)
        page_id = f"page-{self.viewers.seed}-{number}"

        page = self._compose(request, page_id, now)
        title, share = self.viewers.react(viewer, page.answer)
        self.arrivals.watched(number, share)
        # Before anything is learned from this page: the others decide at the same moment.
        arms: dict[str, JudgedPage] = {}
        if self.settings.judged(number, first):
            arms = self._arms(viewer, request, page_id, now)

        self.watched.setdefault(viewer, [])
        if title is not None:
            self.watched[viewer].append(title)
            region = self.compiled_page.file.region
            self.plays.append(Play(f"viewer-{viewer}", title, now, region))
        played = {} if title is None else {title: share}
        self.lessons.note(page, credited_events(page.answer, played, now), now)
        self._learn(number, now)
        return PageVisit(
            number=number,
            at=now,
            viewer=viewer,
            first=first,
            watched=watched_before,
            variants={layer.layer: layer.variant for layer in page.answer.layers},
            seen=self._judged(viewer, page.answer),
            played=title,
            share=share,
            arms=arms,
        )

    def _replace_catalog(self, catalog: Catalog, now: float) -> None:
        """Go on with another catalogue and the same engine: what policies have learned stays."""
        page, signals = self.compiled_page, learn(self.plays, catalog, now)
        self.compiled_page = CompiledPage(page.file, page.engine, catalog, signals)

    def _request(self, viewer: int, watched: Sequence[str]) -> PageRequest:
        body = {
            "page": self.compiled_page.file.key,
            "profile": f"viewer-{viewer}",
            "region": self.compiled_page.file.region,
            "watched": list(watched),
            **self.settings.request,
        }
        context = self.viewers.context(viewer)
        declared = {name: context[name] for name in context if name in self.declared}
        request = msgspec.convert(body, PageRequest)
        return msgspec.structs.replace(request, context=msgspec.Raw(msgspec.json.encode(declared)))

    def _compose(self, request: PageRequest, page_id: str, now: float) -> ComposedPage:
        page = self.compiled_page
        return compose(page, request, page.viewer(request, page_id), page_id, now)

    def _arms(
        self, viewer: int, request: PageRequest, page_id: str, now: float
    ) -> dict[str, JudgedPage]:
        """What others would have made of the page, all with the same luck."""
        arms: dict[str, JudgedPage] = {}
        for name, choice in self.settings.arms.items():
            for decider in choice.values():
                if isinstance(decider, Oracle):
                    decider.compiled_page = self.compiled_page
                    decider.viewer = viewer
                    decider.now = now
            with decided_by(self.compiled_page, choice):
                page = self._compose(request, page_id, now)
            arms[name] = self._judged(viewer, page.answer)
        return arms

    def _judged(self, viewer: int, answer: PageAnswer) -> JudgedPage:
        tiles = tiles_of(answer)
        play, completed, _ = self.viewers.cells(viewer, answer)
        titles = self.lessons.live["titles"].experiment
        return JudgedPage(
            expected=along(play, completed),
            objective=along(play, worth_of_play(titles, completed)),
            rows=len(answer.rows),
            titles=tuple(tile.title for tile in tiles),
            pictures=tuple(tile.picture for tile in tiles),
        )

    def _learn(self, number: int, now: float) -> None:
        settings = self.settings
        if number % settings.learn_every == settings.learn_every - 1:
            self.lessons.learn()
        if number % settings.signals_every == settings.signals_every - 1 and self.plays:
            self.compiled_page.renew(learn(self.plays, self.compiled_page.catalog, now))


def credited_events(
    answer: PageAnswer, played: Mapping[str, float], now: float
) -> dict[str, list[RewardEvent]]:
    """The events of each decision of the page, by its id: a play is credited to every layer that
    had a part in it, as the service does. `played`: title → the share of it that was watched."""
    by_decision: dict[str, list[RewardEvent]] = {}
    cells = cells_of(answer)
    for title, share in played.items():
        for name, value in (("play", 1.0), ("watch_fraction", share)):
            event = RewardEvent(
                decision_id=answer.page_id,
                event_id=f"{name}-{title}",
                event=name,
                value=value,
                action=title,
                received_at=int(now * 1e6),
            )
            for credited in spread(event, answer, cells):
                by_decision.setdefault(credited.decision_id, []).append(credited)
    return by_decision


class Lessons:
    """What pages teach the policies of their layers, put aside until the next lesson."""

    def __init__(self, compiled_page: CompiledPage) -> None:
        engine, layers = compiled_page.engine, compiled_page.file.layers
        self.live: dict[str, CompiledExperiment] = {
            layer: engine.find(key) for layer, key in layers.items()
        }
        # (layer, variant) → what it has to learn at the next lesson.
        self._pending: dict[tuple[str, str], list[Example]] = {}

    def note(self, page: ComposedPage, events: Mapping[str, list[RewardEvent]], now: float) -> None:
        """Put aside what the page's decisions teach; the first one is the page's own, which no
        policy made."""
        for decision in page.decisions[1:]:
            if decision.variant is None or decision.reason != "policy":
                continue
            # The log would have stamped it.
            stamped = msgspec.structs.replace(decision, decided_at=int(now * 1e6))
            own = events.get(decision.decision_id, [])
            lessons = self._pending.setdefault((decision.layer, decision.variant), [])
            lessons.extend(examples(self.live[decision.layer], stamped, own))

    def learn(self) -> None:
        """Teach all that was put aside."""
        for (layer, variant), lessons in self._pending.items():
            self.live[layer].policies[variant].update(lessons)
        self._pending = {}


def concentration(pages: Sequence[JudgedPage]) -> tuple[int, float]:
    """(titles shown at all, share of all placements that the ten most shown titles have)."""
    placements: Counter[str] = Counter()
    for page in pages:
        placements.update(page.titles)
    top_ten = sum(count for _, count in placements.most_common(10))
    return len(placements), top_ten / max(placements.total(), 1)
