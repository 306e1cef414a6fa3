"""Who opens the next page: viewers who come back, the likelier the more of the last play they
watched, and whoever comes anyway."""

from __future__ import annotations

import heapq

import numpy as np

from topbill.domain.chance import hash64
from topbill.simulation.page_viewers import PageViewers

ANYWAY, FOR_MORE = 0.1, 0.5
"""The probability of coming back soon after nothing was played; what all of a play adds to it."""
SOON = 40.0
"""Pages, in the mean, that others open until then."""


class Arrivals:
    """The order in which a page's viewers open it. Ask for every number in turn, and tell what came
    of each page before the next."""

    def __init__(self, viewers: PageViewers) -> None:
        self._viewers = viewers
        self._back: list[tuple[int, int, int]] = []
        self._came: dict[int, int] = {}

    def who(self, number: int) -> int:
        """The viewer who opens page `number`: at most every other page is that of one who comes
        back, so that there is room for others."""
        if number not in self._came:
            due = number % 2 == 1 and bool(self._back) and self._back[0][0] <= number
            self._came[number] = heapq.heappop(self._back)[2] if due else self._viewers.who(number)
        return self._came[number]

    def left(self, number: int, share: float) -> None:
        """The viewer of page `number` watched that share of what it led to (0.0 for no play)."""
        rng = np.random.default_rng(hash64(str(self._viewers.seed), "back", str(number)))
        if rng.random() < ANYWAY + FOR_MORE * share:
            heapq.heappush(
                self._back, (number + 1 + int(rng.exponential(SOON)), number, self.who(number))
            )
