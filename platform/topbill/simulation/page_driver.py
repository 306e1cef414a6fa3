"""Viewers of whole pages for the demo: what they ask for, what they do with the page they get, and
how far each of the page's layers came from a uniform choice towards the best known.

A layer is judged with the layers below it held plain, so that nothing but its own choice counts:
rows with popular titles and any picture, titles with any picture in the rows as they were served,
pictures on the page as it was served. The best and the uniform choice are made by a compiled page
of the demo's own, under the same rules.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from scipy.special import expit

from topbill import pages
from topbill.domain.records import Floats
from topbill.engine import Engine
from topbill.pages import CompiledPage, PageAnswer, PageRequest, compose
from topbill.policies.uniform import Uniform, UniformParams
from topbill.simulation.arrivals import Arrivals
from topbill.simulation.environment import Response
from topbill.simulation.page_oracle import Choice, FixedOrder, Oracle, decided_by
from topbill.simulation.page_viewers import PageViewers, along
from topbill.simulation.scoreboard import ExpectedReward, Scoreboard, reward, worth_of_play
from topbill.spec import Experiment

RECENT = 60.0
"""Judged pages that count as recent, or so: a quarter of what a demo's minute has."""
JUDGED = 4
"""One page in so many is judged: that takes five more pages, and the demo shares the machine with
the service.
"""
BACK = "session_start"
"""The event that says of a page that its viewer has come back."""
_PARTS = (0.35, 0.8)
"""When a play and the share watched arrive, in parts of their metric's window."""


class PageDriver:
    """The viewers of one page. `compiled_page` is the demo's own; `name` is what the ids of this
    run's pages begin with.
    """

    def __init__(self, compiled_page: CompiledPage, name: str, seed: int = 0) -> None:
        file = compiled_page.file
        self._compiled_page, self._name = compiled_page, name
        self.viewers = PageViewers(compiled_page.catalog, seed, sources=file.sources)
        self._experiments: dict[str, Experiment] = {}
        self._controls: dict[str, str] = {}
        self._declared: set[str] = set()
        # Sent only where some layer reads it: the service refuses events that no metric names.
        self._reports_returns = False
        self._play_window = math.inf
        for layer, key in file.layers.items():
            experiment = compiled_page.engine.find(key).experiment
            self._experiments[layer] = experiment
            self._controls[layer] = experiment.control.name
            self._declared |= {feature.name for feature in experiment.context}
            for metric in experiment.metrics:
                if metric.event == BACK:
                    self._reports_returns = True
                if metric.event == "play":
                    self._play_window = min(self._play_window, metric.window)
        self.scoreboard = Scoreboard(self._experiments.values(), RECENT)
        self._arrivals = Arrivals(self.viewers)
        self._watched: dict[int, list[str]] = {}
        self._last: dict[int, str] = {}

    @property
    def key(self) -> str:
        """The page's key."""
        return self._compiled_page.file.key

    def request(self, number: int) -> dict[str, Any]:
        """What the service is asked for visit `number`."""
        viewer = self._arrivals.who(number)
        context = self.viewers.context(viewer)
        return {
            "page": self.key,
            "page_id": f"{self._name}-{number}",
            "profile": f"viewer-{viewer}",
            "region": self._compiled_page.file.region,
            "watched": self._watched.get(viewer, [])[-10:],
            "context": {name: context[name] for name in context if name in self._declared},
        }

    def react(self, number: int, answer: PageAnswer) -> list[tuple[float, dict[str, Any]]]:
        """What the viewer does with a page: (seconds until it arrives, reward event). Who was there
        before has come back, and that page before gets the credit. Counts the page, too."""
        viewer = self._arrivals.who(number)
        title, share = self.viewers.react(viewer, answer)
        self._arrivals.watched(number, share)
        before = self._last.get(viewer) if self._reports_returns else None
        self._last[viewer] = answer.page_id

        responses: list[tuple[str, float]] = []
        if title is not None:
            self._watched.setdefault(viewer, []).append(title)
            responses = [("play", 1.0), ("watch_fraction", round(share, 3))]
        if number % JUDGED == 0:
            self._judge(viewer, number, answer, responses)

        events: list[tuple[float, dict[str, Any]]] = []
        if before is not None:
            events.append((0.0, _event(before, BACK, 1.0)))
        for part, (name, value) in zip(_PARTS, responses, strict=False):
            event = _event(answer.page_id, name, value)
            event["action"] = title
            events.append((part * self._play_window, event))
        return events

    def _judge(
        self, viewer: int, number: int, answer: PageAnswer, responses: Sequence[tuple[str, float]]
    ) -> None:
        """Count each layer's choice on this page."""
        expected = self._expected(viewer, number, answer)
        actions = _actions(answer)
        # Everything arrives at once here: what a page earned doesn't depend on how late it is said.
        events = [Response(name, value, 0.0) for name, value in responses]
        for layer in answer.layers:
            if layer.variant is not None:
                self.scoreboard.count(
                    layer.experiment,
                    layer.variant,
                    f"viewer-{viewer}",
                    expected[layer.layer],
                    reward(self._experiments[layer.layer], events),
                    actions[layer.layer],
                )

    def _expected(self, viewer: int, number: int, answer: PageAnswer) -> dict[str, ExpectedReward]:
        """Each layer's choice beside the best known and a uniform one."""
        as_served = FixedOrder(_actions(answer)["rows"])
        even = Uniform(UniformParams())
        # The controls stand for what is not under judgement, so that a layer's number doesn't move
        # with what another layer has learned.
        controls = self._controls
        compose_page = self._composer(viewer, number, answer.page_id)

        rows = []
        for decider in (as_served, Oracle("rows", self.viewers), even):
            page = compose_page({**controls, "rows": decider})
            rows.append(self._any_picture("rows", viewer, page))
        # The titles as they were served were chosen for the rows as they were served.
        titles = [self._any_picture("titles", viewer, answer)]
        for decider in (Oracle("titles", self.viewers), even):
            page = compose_page({**controls, "rows": as_served, "titles": decider})
            titles.append(self._any_picture("titles", viewer, page))

        expected = {"rows": ExpectedReward(*rows), "titles": ExpectedReward(*titles)}
        if "artwork" in self._experiments:
            expected["artwork"] = self._artwork(viewer, answer)
        return expected

    def _composer(self, viewer: int, number: int, page_id: str) -> Callable[[Choice], PageAnswer]:
        """A function that composes the page of this visit as others would have decided it. The page
        keeps its id, and with it its luck: what differs is the choice alone."""
        body = self.request(number)
        context = msgspec.Raw(msgspec.json.encode(body.pop("context")))
        request = msgspec.structs.replace(msgspec.convert(body, PageRequest), context=context)
        page = self._compiled_page

        def compose_page(choice: Choice) -> PageAnswer:
            now = time.time()
            for decider in choice.values():
                if isinstance(decider, Oracle):
                    decider.compiled_page, decider.viewer, decider.now = page, viewer, now
            with decided_by(page, choice):
                return compose(page, request, page.viewer(request, page_id), page_id, now).answer

        return compose_page

    def _of_play(self, layer: str, completed: Floats) -> Floats:
        """(cells,) the layer's expected objective of a title that is played, by the probability
        that it is completed: 70% to all of it watched, or 2 to 60%."""
        return worth_of_play(self._experiments[layer], completed)

    def _any_picture(self, layer: str, viewer: int, page: PageAnswer) -> float:
        """What a page is worth if of each title any picture is shown."""
        chances, completed = self._picture_chances(viewer, page)
        return along(_means(chances), self._of_play(layer, completed))

    def _artwork(self, viewer: int, page: PageAnswer) -> ExpectedReward:
        """The pictures as they are, the best of all, and any. A better picture is always worth
        showing but where a title holds less than what is left below it; so the best are chosen from
        the last place to the first."""
        chances, completed = self._picture_chances(viewer, page)
        worth = self._of_play("artwork", completed)
        best = 0.0
        for of_cell, of_play in zip(reversed(chances), worth[::-1].tolist(), strict=True):
            # `best` is what everything below this cell is worth, if nobody plays here.
            best = max(float(p) * of_play + (1.0 - float(p)) * best for p in of_cell)
        as_served, _, _ = self.viewers.cells(viewer, page)
        return ExpectedReward(along(as_served, worth), best, along(_means(chances), worth))

    def _picture_chances(self, viewer: int, page: PageAnswer) -> tuple[list[Floats], Floats]:
        """Each cell's chances of a play with each of its title's pictures, and (cells,) of being
        completed.
        """
        catalog = self.viewers.catalog
        rows = self.viewers.catalog_rows(page)
        logit, completed = self.viewers.wish(viewer, rows)
        looks = self.viewers.looks(viewer, page)
        chances: list[Floats] = []
        for cell, row in enumerate(rows):
            appeal = [self.viewers.appeal(viewer, picture.id) for picture in catalog.pictures[row]]
            chances.append(looks[cell] * expit(logit[cell] + np.array(appeal)))
        return chances, completed


def _means(chances: Sequence[Floats]) -> Floats:
    """(cells,) the chance of a play of each cell if any of its pictures is shown."""
    return np.array([of_cell.mean() for of_cell in chances])


def _actions(answer: PageAnswer) -> dict[str, list[str]]:
    """What each layer put on the page; of pictures, their name within their title, which is what
    titles have in common."""
    actions: dict[str, list[str]] = {"rows": [], "titles": [], "artwork": []}
    for row in answer.rows:
        actions["rows"].append(row.row)
        for tile in row.titles:
            actions["titles"].append(tile.title)
            actions["artwork"].append((tile.picture or "/").rpartition("/")[2])
    return actions


def _event(page_id: str, name: str, value: float) -> dict[str, Any]:
    return {"decision_id": page_id, "event": name, "value": value, "event_id": name}


def page_drivers(experiments: Path, name: str, seed: int = 0) -> list[PageDriver]:
    """Viewers for each page of an experiments' folder all of whose experiments are running."""
    specs = pages.load_experiments(experiments)
    running = {experiment.key for experiment in specs if experiment.status == "running"}
    drivers = []
    for file in pages.load_all(experiments, specs):
        if running.issuperset(file.layers.values()):
            # An engine and a catalogue for each: what one page's viewers teach stays with it.
            compiled_page = CompiledPage(file, Engine(specs), file.read_catalog())
            drivers.append(PageDriver(compiled_page, f"{name}-{file.key}", seed))
    return drivers
