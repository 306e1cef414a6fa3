"""What follows a world that suddenly is another one: models that forget quickly learn beside those
that forget nothing, and take their place once they predict better by far.
"""

from __future__ import annotations

import math

import numpy as np

from topbill.domain.errors import PolicyError
from topbill.domain.records import Floats
from topbill.policies.codec import LEARN_ANEW, PolicyState
from topbill.policies.linear.models import LinearModels

KEEP = 0.5
"""The share of older evidence that an example leaves in the directions it informs: some fifty
examples of an action count."""
AHEAD = 15.0
"""By how many nats recent models must have predicted better since they last were no worse: a
cumulative sum (Page 1954). Where the lasting ones predict right, that takes e¹⁵ examples, three
million, on average or more (Lorden 1971)."""
EVERY = 64
"""Examples after which it is looked at, counted from the first: so that it is no matter in which
batches they come."""
PREFIX, LEAD = "recent_", "recent_lead"
"""What a state calls the models, and how far they are ahead after how many examples."""
NAMES = (LEAD, *(f"{PREFIX}{name}" for name in LinearModels.NAMES))
"""All that a state has of them."""
_LEAST = 1e-12


class RecentModels:
    """Models of the same weights with a short memory.

    `models` are they, `lead` the nats by which they are ahead, and `since` how many examples there
    were since that was looked at.
    """

    def __init__(self, untrained: LinearModels) -> None:
        own, shared = untrained.own.prior, untrained.shared.prior
        self.models = LinearModels(own, shared, np.full(len(untrained), KEEP))
        self.lead, self.since = 0.0, 0

    @property
    def until_next(self) -> int:
        """How many examples are learned before it is looked at again."""
        return EVERY - self.since

    def note(self, rewards: Floats, lasting: Floats, recent: Floats) -> bool:
        """What both expected (n) of rewards (n), of which at most `until_next` are told at once;
        whether the recent models take over now.
        """
        for reward, p, q in zip(rewards.tolist(), lasting.tolist(), recent.tolist(), strict=True):
            self.lead = max(0.0, self.lead + _log_score(reward, q) - _log_score(reward, p))
        self.since += len(rewards)
        if self.since < EVERY:
            return False
        self.since = 0
        takes_over = self.lead > AHEAD
        if takes_over:
            self.lead = 0.0
        return takes_over

    def arrays(self) -> dict[str, Floats]:
        """What a state holds of them."""
        return {LEAD: np.array([self.lead, self.since]), **self.models.arrays(PREFIX)}

    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """What a state may hold of them, as `codec.load` wants it."""
        return {LEAD: (2,), **self.models.shapes(PREFIX), **self.models.optional(PREFIX)}

    def restore(self, state: PolicyState) -> None:
        """Take over what `arrays` gave. Raises PolicyError for numbers that can be none."""
        missing = set(NAMES) - {f"{PREFIX}spread"} - set(state.arrays)
        if missing:
            raise PolicyError(f"state: no {', '.join(sorted(missing))}; {LEARN_ANEW}")
        lead, since = state.arrays[LEAD].tolist()
        if lead < 0.0 or since not in range(EVERY):
            raise PolicyError(f"state: {LEAD} {lead:g}, {since:g}; {LEARN_ANEW}")
        self.models.check(state, PREFIX)
        self.models.restore(state, PREFIX)
        self.lead, self.since = lead, int(since)


def _log_score(reward: float, p: float) -> float:
    """The log likelihood of a reward in [0, 1] that was expected with p."""
    p = min(max(p, _LEAST), 1.0 - _LEAST)
    return reward * math.log(p) + (1.0 - reward) * math.log(1.0 - p)
