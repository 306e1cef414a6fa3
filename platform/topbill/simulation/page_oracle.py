"""What a policy would choose that knows the viewers: each layer's best known, under the same rules
and from the same candidates as every other policy's choice.

Pictures are the best there is: a higher appeal always raises what a page is worth. Titles are
sorted by the chance of a completed play, rows by what their best titles are worth to who looks
along them; where titles differ in how well they hold, an exhaustive search finds orders that are
better by a trifle (the tests say how much).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from scipy.special import expit

from topbill.domain.chance import greedy
from topbill.domain.records import Actions, Floats, Indices, Scored
from topbill.pages import CompiledPage
from topbill.simulation.page_viewers import PageViewers


class Scorer(Protocol):
    """What of a policy it takes to decide."""

    def score(self, x: Floats, actions: Actions, seed: int) -> Scored: ...


Choice = Mapping[str, "str | Scorer"]
"""Layer → the variant that is to decide it for everybody, or who else."""


class _Ranked:
    """The highest value that remains, surely."""

    width: Floats | None = None

    def __init__(self, values: Floats) -> None:
        self.mean: Floats | None = values
        self._values = values

    def probabilities(self, remaining: Indices) -> Floats:
        """All on the best."""
        return greedy(self._values[remaining])


class FixedOrder:
    """Decides for the actions named in `order`, in that order."""

    def __init__(self, order: Sequence[str]) -> None:
        self._place = {action: i for i, action in enumerate(order)}

    def score(self, x: Floats, actions: Actions, seed: int) -> _Ranked:  # noqa: ARG002
        """The earlier, the higher."""
        last = len(self._place)
        return _Ranked(np.array([-float(self._place.get(action, last)) for action in actions.ids]))


class Oracle:
    """Decides a layer with the truth in hand. Set `compiled_page`, `viewer` and `now` before each
    page.
    """

    compiled_page: CompiledPage
    viewer: int
    now: float

    def __init__(self, layer: str, viewers: PageViewers) -> None:
        self._viewers = viewers
        self._worth = {"rows": self._rows, "titles": self._titles, "artwork": self._pictures}[layer]

    def score(self, x: Floats, actions: Actions, seed: int) -> _Ranked:  # noqa: ARG002
        """The worth of each action to the viewer."""
        return _Ranked(self._worth(actions.ids))

    def _pictures(self, ids: Sequence[str]) -> Floats:
        return np.array([self._viewers.appeal(self.viewer, picture) for picture in ids])

    def _titles(self, ids: Sequence[str]) -> Floats:
        index = self._viewers.catalog.index
        return self._of([index[title] for title in ids])

    def _of(self, rows: Sequence[int]) -> Floats:
        """(K,) the chance of a completed play of each title, with its middling picture."""
        logit, done = self._viewers.wish(self.viewer, rows)
        return np.asarray(expit(logit + self._viewers.middling(self.viewer)[list(rows)]) * done)

    def _rows(self, ids: Sequence[str]) -> Floats:
        """What the best titles of each row are worth, looked at as far as this viewer looks."""
        compiled_page, file = self.compiled_page, self.compiled_page.file
        lets = compiled_page.rules.allowed_by_rule(file.region, 99, self.now, ())
        sight = compiled_page.candidate_model.candidates_for(
            file.region, (), np.logical_and.reduce(list(lets.values())), self.now, ""
        )
        looks = self._viewers.ways.glance ** np.arange(file.titles)
        worth = np.zeros(len(ids))
        for j, row in enumerate(ids):
            best = np.sort(self._of(sight.members(file.sources[row])[: file.candidates].tolist()))[
                ::-1
            ][: file.titles]
            worth[j] = self._viewers.interest(self.viewer, row) * (best @ looks[: len(best)])
        return worth


@contextmanager
def decided_by(compiled_page: CompiledPage, choice: Choice) -> Iterator[None]:
    """Let these decide for everybody while it lasts; what they have learned stays theirs."""
    held = {}
    try:
        for layer, what in choice.items():
            live = compiled_page.engine.find(compiled_page.file.layers[layer])
            held[layer] = (live, live.bounds, live.policies)
            control = live.experiment.control.name
            name = what if isinstance(what, str) else control
            at = [variant.name for variant in live.experiment.variants].index(name)
            live.bounds = [float(j >= at) for j in range(len(live.bounds))]
            if not isinstance(what, str):
                live.policies = {**live.policies, control: what}  # type: ignore[dict-item]
        yield
    finally:
        for live, bounds, policies in held.values():
            live.bounds, live.policies = bounds, policies
