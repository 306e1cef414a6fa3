"""What follows a world that suddenly is another one: models that forget quickly learn beside those
that forget nothing, and take their place once they predict better by far.
"""

from __future__ import annotations

import numpy as np

from topbill.domain.errors import PolicyError
from topbill.domain.records import Floats, Indices
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


class RecentModels:
    """Models of the same weights with a short memory.

    `models` are they, `lead` the nats by which they are ahead, and `since` how many examples there
    were since that was looked at.
    """

    def __init__(self, untrained: LinearModels) -> None:
        own, shared = untrained.own.prior, untrained.shared.prior
        self.models = LinearModels(own, shared, np.full(len(untrained), KEEP))
        self.lead, self.since = 0.0, 0

    def learn(
        self,
        lasting: LinearModels,
        rows: Indices,
        bases: Floats,
        contexts: Floats,
        features: Floats,
        rewards: Floats,
    ) -> None:
        """Fold n examples into both, as `LinearModels.learn` does, and take the place of the
        `lasting` ones when it is time to.
        """
        lead = np.array([self.lead, float(self.since)])
        while len(rows):
            done = lasting.learn_beside(
                self.models, rows, bases, contexts, features, rewards, lead, AHEAD, EVERY
            )
            if lead[1] == 0.0 and lead[0] > AHEAD:
                lasting.take_over(self.models)
                lead[0] = 0.0
            rows, bases, contexts = rows[done:], bases[done:], contexts[done:]
            features, rewards = features[done:], rewards[done:]
        self.lead, self.since = float(lead[0]), int(lead[1])

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
