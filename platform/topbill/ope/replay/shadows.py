"""What a variant in shadow would have done, as the log has it: nothing is scored again, so that its
probabilities are those that it had then, whatever it has learned since.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Floats, RewardEvent, ShadowDecision


class ShadowPolicy:
    """A variant by what it logged unseen, in the shadow step of a launch."""

    reward_delay: float | None = None
    since = 0

    def __init__(self, experiment: str, variant: str) -> None:
        self.name = f"{experiment}/{variant} in shadow"
        self._variant = variant

    def unfit(self, decision: Decision) -> str | None:
        """Why a decision cannot be scored for it; None where it can."""
        shadow = self._of(decision)
        if shadow is None:
            return f"without a shadow of {self._variant}"
        if shadow.failure:
            return f"where {self._variant} failed in shadow"
        if shadow.probabilities is None:
            return "too large for all probabilities of a shadow"
        return None

    def probabilities(self, decision: Decision) -> list[Floats]:
        """(len(eligible),) for each position; see `TargetPolicy`."""
        shadow = self._of(decision)
        if shadow is None or shadow.probabilities is None:
            raise BadData("policy", f"got a decision {self.unfit(decision)}; expected its shadow")
        return [np.array(position) for position in shadow.probabilities]

    def learn(self, decision: Decision, events: Sequence[RewardEvent]) -> None:
        """Nothing."""

    def _of(self, decision: Decision) -> ShadowDecision | None:
        return next((s for s in decision.shadows if s.variant == self._variant), None)
