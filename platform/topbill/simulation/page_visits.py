"""Simulated viewers served in process, page after page, with what they teach learned as the worker
would; and what the same viewers would have made of other pages at the same moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from topbill.candidates import Play, learn
from topbill.catalog import Catalog
from topbill.domain.records import Example, RewardEvent
from topbill.engine import examples
from topbill.pages import CompiledPage, PageAnswer, PageRequest, compose
from topbill.pages.credit import cells_of, spread
from topbill.simulation.arrivals import Arrivals
from topbill.simulation.page_oracle import Choice, Oracle, decided_by
from topbill.simulation.page_viewers import PageViewers

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class JudgedPage:
    """A page as far as it is judged: what was to be expected of it, and its titles and pictures in
    reading order.
    """

    expected: float
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
    compiled_page: CompiledPage, viewers: PageViewers, pages: int, course: PageRun | None = None
) -> list[PageVisit]:
    """Serve `pages` pages to the viewers, learn from what they do as the worker would, and tell
    what was seen.

    What is learned changes the compiled_page, its engine and its signals: give a fresh one.
    """
    course = course or PageRun()
    run = _Run(compiled_page, viewers, course)
    return [run.visit(number) for number in range(pages)]


class _Run:
    """One simulation under way."""

    def __init__(self, compiled_page: CompiledPage, viewers: PageViewers, course: PageRun) -> None:
        self.compiled_page, self.viewers, self.course = compiled_page, viewers, course
        self.lives = {
            layer: compiled_page.engine.find(key)
            for layer, key in compiled_page.file.layers.items()
        }
        self.declared = {
            feature.name for live in self.lives.values() for feature in live.experiment.context
        }
        self.coming = Arrivals(viewers)
        self.plays: list[Play] = []
        self.watched: dict[int, list[str]] = {}
        self.batch: dict[tuple[str, str], list[Example]] = {}

    def visit(self, number: int) -> PageVisit:
        """Serve one page, and learn when it is time."""
        compiled_page, course, ways = self.compiled_page, self.course, self.viewers.ways
        now = ways.start + number / ways.pages_a_day * _DAY
        if number in course.catalogues:
            catalog = course.catalogues[number]
            compiled_page = CompiledPage(
                compiled_page.file, compiled_page.engine, catalog, learn(self.plays, catalog, now)
            )
            self.compiled_page = compiled_page
        viewer = self.coming.who(number)
        first, before = viewer not in self.watched, tuple(self.watched.get(viewer, ())[-10:])
        request, page_id = self._request(viewer, before), f"page-{self.viewers.seed}-{number}"
        made = compose(compiled_page, request, compiled_page.viewer(request, page_id), page_id, now)
        title, share = self.viewers.react(viewer, made.answer)
        self.coming.left(number, share)
        arms = self._arms(viewer, request, page_id, now) if course.judged(number, first) else {}
        self.watched.setdefault(viewer, [])
        if title is not None:
            self.watched[viewer].append(title)
            self.plays.append(Play(f"viewer-{viewer}", title, now, compiled_page.file.region))
        events = _events(made.answer, title, share, now)
        for decision in made.decisions[1:]:
            if decision.variant is not None and decision.reason == "policy":
                told = examples(
                    self.lives[decision.layer],
                    msgspec.structs.replace(decision, decided_at=int(now * 1e6)),
                    events.get(decision.decision_id, []),
                )
                self.batch.setdefault((decision.layer, decision.variant), []).extend(told)
        self._learn(number, now)
        variants: dict[str, str | None] = {
            layer.layer: layer.variant for layer in made.answer.layers
        }
        return PageVisit(
            number,
            now,
            viewer,
            first,
            before,
            variants,
            self._seen(viewer, made.answer),
            title,
            share,
            arms,
        )

    def _request(self, viewer: int, watched: Sequence[str]) -> PageRequest:
        context = {
            name: v for name, v in self.viewers.context(viewer).items() if name in self.declared
        }
        asked = {
            "page": self.compiled_page.file.key,
            "profile": f"viewer-{viewer}",
            "region": self.compiled_page.file.region,
        }
        request = msgspec.convert(
            {**asked, "watched": list(watched), **self.course.request}, PageRequest
        )
        return msgspec.structs.replace(request, context=msgspec.Raw(msgspec.json.encode(context)))

    def _arms(
        self, viewer: int, request: PageRequest, page_id: str, now: float
    ) -> dict[str, JudgedPage]:
        """What others would have made of the page, all with the same luck."""
        found = {}
        for name, choice in self.course.arms.items():
            for what in choice.values():
                if isinstance(what, Oracle):
                    what.compiled_page, what.viewer, what.now = self.compiled_page, viewer, now
            with decided_by(self.compiled_page, choice):
                made = compose(
                    self.compiled_page,
                    request,
                    self.compiled_page.viewer(request, page_id),
                    page_id,
                    now,
                )
            found[name] = self._seen(viewer, made.answer)
        return found

    def _seen(self, viewer: int, answer: PageAnswer) -> JudgedPage:
        tiles = [tile for row in answer.rows for tile in row.titles]
        pictures = tuple(tile.picture for tile in tiles)
        return JudgedPage(
            self.viewers.expected(viewer, answer), tuple(tile.title for tile in tiles), pictures
        )

    def _learn(self, number: int, now: float) -> None:
        course = self.course
        if number % course.learn_every == course.learn_every - 1:
            for (layer, variant), found in self.batch.items():
                self.lives[layer].policies[variant].update(found)
            self.batch = {}
        if number % course.signals_every == course.signals_every - 1 and self.plays:
            self.compiled_page.renew(learn(self.plays, self.compiled_page.catalog, now))


def _events(
    answer: PageAnswer, title: str | None, share: float, now: float
) -> dict[str, list[RewardEvent]]:
    """What every decision of the page is told, by its id."""
    found: dict[str, list[RewardEvent]] = {}
    if title is None:
        return found
    for name, value in (("play", 1.0), ("watch_fraction", share)):
        event = RewardEvent(
            decision_id=answer.page_id,
            event_id=name,
            event=name,
            value=value,
            action=title,
            received_at=int(now * 1e6),
        )
        for one in spread(event, answer, cells_of(answer)):
            found.setdefault(one.decision_id, []).append(one)
    return found


def concentration(pages: Sequence[JudgedPage]) -> tuple[int, float]:
    """(titles shown at all, share of all placements that the ten most shown titles have)."""
    shown: dict[str, int] = {}
    for page in pages:
        for title in page.titles:
            shown[title] = shown.get(title, 0) + 1
    most = sorted(shown.values(), reverse=True)
    return len(most), sum(most[:10]) / max(sum(most), 1)
