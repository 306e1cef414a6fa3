"""Viewers of whole pages for the demo: what they ask for, what they do with the page they get, and
how far each of the page's layers came from a uniform choice towards the best known.

A layer is judged with the layers below it held plain, so that nothing but its own choice counts:
rows with popular titles and any picture, titles with any picture in the rows as they were served,
pictures on the page as it was served. The best and the uniform choice are made by a compiled page
of the demo's own, under the same rules.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from scipy.special import expit

from topbill import pages, spec
from topbill.catalog import Catalog
from topbill.domain.records import Floats
from topbill.engine import Engine
from topbill.pages import CompiledPage, PageAnswer, PageRequest, compose
from topbill.policies.uniform import Uniform, UniformParams
from topbill.simulation.arrivals import Arrivals
from topbill.simulation.environment import Response
from topbill.simulation.page_oracle import Choice, FixedOrder, Oracle, decided_by
from topbill.simulation.page_viewers import PageViewers, along
from topbill.simulation.scoreboard import ExpectedReward, Scoreboard, reward

RECENT = 60.0
"""Judged pages that count as recent, or so: a quarter of what a demo's minute has."""
JUDGED = 4
"""Every so manieth page is judged: that takes five more pages, and the demo shares the machine with
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
        self._compiled_page, self._name = compiled_page, name
        self.viewers = PageViewers(compiled_page.catalog, seed, sources=compiled_page.file.sources)
        self._lives = {
            layer: compiled_page.engine.find(key)
            for layer, key in compiled_page.file.layers.items()
        }
        self.scoreboard = Scoreboard([live.experiment for live in self._lives.values()], RECENT)
        self._returned = any(
            m.event == BACK for live in self._lives.values() for m in live.experiment.metrics
        )
        self._declared = {f.name for live in self._lives.values() for f in live.experiment.context}
        self._coming = Arrivals(self.viewers)
        self._watched: dict[int, list[str]] = {}
        self._last: dict[int, str] = {}

    @property
    def key(self) -> str:
        """The page's key."""
        return self._compiled_page.file.key

    def request(self, number: int) -> dict[str, Any]:
        """What the service is asked for visit `number`."""
        viewer = self._coming.who(number)
        return {
            "page": self.key,
            "page_id": f"{self._name}-{number}",
            "profile": f"viewer-{viewer}",
            "region": self._compiled_page.file.region,
            "watched": self._watched.get(viewer, [])[-10:],
            "context": {
                k: v for k, v in self.viewers.context(viewer).items() if k in self._declared
            },
        }

    def react(self, number: int, answer: PageAnswer) -> list[tuple[float, dict[str, Any]]]:
        """What the viewer does with a page: (seconds until it arrives, reward event). Who was there
        before has come back, and that page before gets the credit. Counts the page, too."""
        viewer = self._coming.who(number)
        title, share = self.viewers.react(viewer, answer)
        self._coming.left(number, share)
        before = self._last.get(viewer) if self._returned else None
        self._last[viewer] = answer.page_id
        responses: list[tuple[str, float]] = []
        if title is not None:
            self._watched.setdefault(viewer, []).append(title)
            responses = [("play", 1.0), ("watch_fraction", round(share, 3))]
        if number % JUDGED == 0:
            self._judge(viewer, number, answer, responses)
        window = min(
            m.window
            for live in self._lives.values()
            for m in live.experiment.metrics
            if m.event == "play"
        )
        events = [
            (part * window, _event(answer.page_id, name, value) | {"action": title})
            for part, (name, value) in zip(_PARTS, responses, strict=False)
        ]
        return events if before is None else [(0.0, _event(before, BACK, 1.0)), *events]

    def _judge(
        self, viewer: int, number: int, answer: PageAnswer, responses: Sequence[tuple[str, float]]
    ) -> None:
        worths = self._worths(viewer, number, answer)
        shown = {
            "rows": [row.row for row in answer.rows],
            "titles": [tile.title for row in answer.rows for tile in row.titles],
            "artwork": [
                (tile.picture or "/").rpartition("/")[2]
                for row in answer.rows
                for tile in row.titles
            ],
        }
        for layer in answer.layers:
            if layer.variant is not None:
                experiment = self._lives[layer.layer].experiment
                earned = reward(
                    experiment, [Response(name, value, 0.0) for name, value in responses]
                )
                unit = f"viewer-{viewer}"
                self.scoreboard.count(
                    layer.experiment,
                    layer.variant,
                    unit,
                    worths[layer.layer],
                    earned,
                    shown[layer.layer],
                )

    def _worths(self, viewer: int, number: int, answer: PageAnswer) -> dict[str, ExpectedReward]:
        """Each layer's choice beside the best known and a uniform one."""
        asked = self.request(number)
        context = msgspec.Raw(msgspec.json.encode(asked.pop("context")))
        request = msgspec.structs.replace(msgspec.convert(asked, PageRequest), context=context)
        as_served = FixedOrder([row.row for row in answer.rows])
        found: dict[str, ExpectedReward] = {}

        def made(choice: Choice) -> PageAnswer:
            now, page_id = time.time(), answer.page_id
            for one in choice.values():
                if isinstance(one, Oracle):
                    one.compiled_page, one.viewer, one.now = self._compiled_page, viewer, now
            with decided_by(self._compiled_page, choice):
                return compose(
                    self._compiled_page,
                    request,
                    self._compiled_page.viewer(request, page_id),
                    page_id,
                    now,
                ).answer

        even = Uniform(UniformParams())
        plain = {name: live.experiment.control.name for name, live in self._lives.items()}
        rows = [{**plain, "rows": who} for who in (as_served, Oracle("rows", self.viewers), even)]
        found["rows"] = ExpectedReward(
            *(self._plain("rows", viewer, made(choice)) for choice in rows)
        )
        titles = [
            {**plain, "rows": as_served, "titles": who}
            for who in (Oracle("titles", self.viewers), even)
        ]
        others = [answer, *(made(choice) for choice in titles)]
        found["titles"] = ExpectedReward(*(self._plain("titles", viewer, page) for page in others))
        if "artwork" in self._lives:
            found["artwork"] = self._artwork(viewer, answer)
        return found

    def _each(self, layer: str, done: Floats) -> Floats:
        """(cells,) the layer's expected objective of a title that is played, by the probability
        that it is completed: 70% to all of it watched, or 2 to 60%."""
        experiment = self._lives[layer].experiment
        full, part = (
            reward(experiment, [Response("play", 1.0, 0.0), Response("watch_fraction", share, 0.0)])
            for share in (0.85, 0.31)
        )
        return part + (full - part) * done

    def _plain(self, layer: str, viewer: int, page: PageAnswer) -> float:
        """What a page is worth if of each title any picture is shown."""
        chances, done = self._pictures(viewer, page)
        return along(np.array([own.mean() for own in chances]), self._each(layer, done))

    def _artwork(self, viewer: int, page: PageAnswer) -> ExpectedReward:
        """The pictures as they are, the best of all, and any. A better picture is always worth
        showing but where a title holds less than what is left below it; so the best are chosen from
        the last place to the first."""
        chances, done = self._pictures(viewer, page)
        worth = self._each("artwork", done)
        best = 0.0
        for own, each in zip(reversed(chances), worth[::-1].tolist(), strict=True):
            best = max(float(p) * each + (1.0 - float(p)) * best for p in own)
        play, _, _ = self.viewers.cells(viewer, page)
        return ExpectedReward(
            along(play, worth), best, along(np.array([own.mean() for own in chances]), worth)
        )

    def _pictures(self, viewer: int, page: PageAnswer) -> tuple[list[Floats], Floats]:
        """Each cell's chances of a play with each of its title's pictures, and (cells,) of being
        completed.
        """
        catalog = self.viewers.catalog
        rows = [catalog.index[tile.title] for row in page.rows for tile in row.titles]
        logit, done = self.viewers.wish(viewer, rows)
        looks = self.viewers.looks(viewer, page)
        chances = [
            looks[i]
            * expit(
                logit[i]
                + np.array([self.viewers.appeal(viewer, p.id) for p in catalog.pictures[row]])
            )
            for i, row in enumerate(rows)
        ]
        return chances, done


def _event(page_id: str, name: str, value: float) -> dict[str, Any]:
    return {"decision_id": page_id, "event": name, "value": value, "event_id": name}


def page_drivers(experiments: Path, name: str, seed: int = 0) -> list[PageDriver]:
    """Viewers for each page of an experiments' folder all of whose experiments are running."""
    known = spec.load_all(pages.experiment_folders(experiments))
    running = {experiment.key for experiment in known if experiment.status == "running"}
    return [
        PageDriver(
            CompiledPage(file, Engine(known), Catalog.read(file.catalogue, file.table)),
            f"{name}-{file.key}",
            seed,
        )
        for file in pages.load_all(experiments, known)
        if running.issuperset(file.layers.values())
    ]
