"""When a model that is not ours is asked: one that is slow is asked rarely, as its process answers
nobody while it computes.
"""

from __future__ import annotations

_IN_A_ROW, _FAR_TOO_LONG = 3, 10.0
"""A model is slow that was too late so often without being in time once, or that took so many times
its budget: else a busy machine would be taken for it."""
_RESTS, _LONGEST_REST = 9, 60.0
"""For how many times as long as it took a slow model is not asked, and for how many seconds at
most: so it has a tenth of the time, and the others have the rest."""


class Patience:
    """With one model, in seconds of one clock."""

    def __init__(self) -> None:
        self._times_late = 0
        self._rests_until = 0.0

    def may_ask(self, now: float) -> bool:
        """Whether it does not rest."""
        return now >= self._rests_until

    def in_time(self, asked: float, answered: float, budget_ms: float) -> bool:
        """Whether it took no longer than its budget; noted for the next time."""
        took = answered - asked
        if took * 1e3 <= budget_ms:
            self._times_late = 0
            return True
        self._times_late += 1
        if self._times_late >= _IN_A_ROW or took * 1e3 > _FAR_TOO_LONG * budget_ms:
            self._rests_until = answered + min(_RESTS * took, _LONGEST_REST)
        return False
