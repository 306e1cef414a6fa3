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
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import expit

from topbill.domain.chance import greedy
from topbill.domain.records import Actions, Floats, Indices, Scored
from topbill.pages import CompiledPage
from topbill.simulation.page_viewers import PageViewers


class Scorer(Protocol):
    """What of a policy it takes to decide."""

    def score(self, x: Floats, actions: Actions, seed: int) -> Scored: ...


class FixedLengths(NamedTuple):
    """So many rows of so many titles for everybody, whatever the page file says."""

    rows: int
    titles: int


LENGTHS = "lengths"
"""What a choice says of lengths."""
Choice = Mapping[str, "str | Scorer | FixedLengths"]
"""Layer → the variant that is to decide it for everybody, or who else; and LENGTHS → those."""


class _Ranking:
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
        self._position = {action: position for position, action in enumerate(order)}

    def score(self, x: Floats, actions: Actions, seed: int) -> _Ranking:  # noqa: ARG002
        """The earlier, the higher."""
        # Actions that the order does not name come last, in the order in which they are offered.
        last = len(self._position)
        positions = [self._position.get(action, last) for action in actions.ids]
        return _Ranking(-np.array(positions, dtype=np.float64))


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

    def score(self, x: Floats, actions: Actions, seed: int) -> _Ranking:  # noqa: ARG002
        """The worth of each action to the viewer."""
        return _Ranking(self._worth(actions.ids))

    def _pictures(self, ids: Sequence[str]) -> Floats:
        return np.array([self._viewers.appeal(self.viewer, picture) for picture in ids])

    def _titles(self, ids: Sequence[str]) -> Floats:
        index = self._viewers.catalog.index
        return self._completed([index[title] for title in ids])

    def _completed(self, titles: Sequence[int]) -> Floats:
        """(K,) the chance of a completed play of each title, with its middling picture."""
        logit, completed = self._viewers.wish(self.viewer, titles)
        appeal = self._viewers.mean_appeal(self.viewer)[list(titles)]
        return np.asarray(expit(logit + appeal) * completed)

    def _rows(self, ids: Sequence[str]) -> Floats:
        """What the best titles of each row are worth, looked at as far as this viewer looks."""
        compiled_page, file = self.compiled_page, self.compiled_page.file
        # The same rules and the same candidates as every policy's choice has: the best row is the
        # best that this page could have shown, not the best in the catalogue.
        allowed_by_rule = compiled_page.rules.allowed_by_rule(file.region, 99, self.now)
        allowed = np.logical_and.reduce(list(allowed_by_rule.values()))
        candidates = compiled_page.candidate_model.candidates_for(
            file.region, (), allowed, self.now, ""
        )
        looks = self._viewers.browsing.glance ** np.arange(file.titles)
        worth = np.zeros(len(ids))
        for position, row in enumerate(ids):
            members = candidates.members(file.sources[row])[: file.candidates]
            best_first = np.sort(self._completed(members.tolist()))[::-1]
            best = best_first[: file.titles]
            # A row of few titles has fewer places to look at.
            worth[position] = self._viewers.interest(self.viewer, row) * (best @ looks[: len(best)])
        return worth


@contextmanager
def decided_by(compiled_page: CompiledPage, choice: Choice) -> Iterator[None]:
    """Let these decide for everybody while it lasts; what they have learned stays theirs.

    The experiments themselves are changed for the time, not copied: a page is composed from them,
    and a copy would not hold what their policies have learned.
    """
    before = []
    file = compiled_page.file
    try:
        for layer, decider in choice.items():
            if isinstance(decider, FixedLengths):
                compiled_page.file = replace(
                    file,
                    rows=decider.rows,
                    titles=decider.titles,
                    row_length=None,
                    title_length=None,
                )
                continue
            live = compiled_page.engine.find(compiled_page.file.layers[layer])
            before.append((live, live.bounds, live.policies))
            control = live.experiment.control.name
            name = decider if isinstance(decider, str) else control
            # Everybody's spot in [0, 1) falls to that variant: the bounds below it are 0, those
            # from it on are 1.
            bounds, bound = [], 0.0
            for variant in live.experiment.variants:
                if variant.name == name:
                    bound = 1.0
                bounds.append(bound)
            live.bounds = bounds
            if not isinstance(decider, str):
                live.policies = {**live.policies, control: decider}  # type: ignore[dict-item]
        yield
    finally:
        compiled_page.file = file
        for live, own_bounds, own_policies in before:
            live.bounds, live.policies = own_bounds, own_policies
