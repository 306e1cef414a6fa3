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
    """The order in which a page's viewers open it. Ask for every number in turn, and report what
    came of each page before the next."""

    def __init__(self, viewers: PageViewers) -> None:
        self._viewers = viewers
        # (page before which nobody returns, page that was left, viewer), the earliest first. The
        # page that was left breaks ties, so that the order does not hang on a heap's internals.
        self._returning: list[tuple[int, int, int]] = []
        self._viewer_of: dict[int, int] = {}

    def who(self, number: int) -> int:
        """The viewer who opens page `number`: at most every other page is that of one who comes
        back, so that there is room for others."""
        if number not in self._viewer_of:
            returns = number % 2 == 1 and bool(self._returning) and self._returning[0][0] <= number
            if returns:
                _, _, viewer = heapq.heappop(self._returning)
            else:
                viewer = self._viewers.who(number)
            # Noted, since a page is asked for more than once and a return happens only once.
            self._viewer_of[number] = viewer
        return self._viewer_of[number]

    def watched(self, number: int, share: float) -> None:
        """The viewer of page `number` watched that share of what it led to (0.0 for no play)."""
        # A generator for each page, not one for all: what other pages lead to must not change
        # whether this viewer returns, or two policies could not be compared on the same viewers.
        rng = np.random.default_rng(hash64(str(self._viewers.seed), "back", str(number)))
        if rng.random() < ANYWAY + FOR_MORE * share:
            earliest = number + 1 + int(rng.exponential(SOON))
            heapq.heappush(self._returning, (earliest, number, self.who(number)))
