"""What estimators take for granted: each assumption once, with what the log can say of it."""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple


class Assumption(NamedTuple):
    """An assumption as a sentence, and how the log is asked whether it holds; empty where it cannot
    be asked.
    """

    sentence: str
    test: str


ASSUMPTIONS = MappingProxyType(
    {
        "propensities": Assumption(
            "the logged propensities are those that the actions were drawn with",
            "weights average 1, and so does 1/(p·K)",
        ),
        "positivity": Assumption(
            "the log could have shown whatever the policy may choose",
            "the policy's probability on what it never showed, the effective sample, the largest "
            "weight",
        ),
        "own_past": Assumption("q̂ was not fitted on the rows that it scores", ""),
        "model": Assumption("the reward model is right", "compared with dr, which needs no model"),
        "light_tails": Assumption(
            "what is cut off the largest weights would add little",
            "λ is raised until the estimate no longer moves (SLOPE)",
        ),
        "embedding": Assumption(
            "an action moves the reward only through its features", "compared with ips"
        ),
        "stationary": Assumption(
            "the policy's value does not drift while the log's probabilities move",
            "compared with dr, which needs no such thing",
        ),
        "top_down": Assumption(
            "viewers go from top to bottom: a reward depends on its item and those above",
            "compared with sips, where whole slates have propensities",
        ),
        "item_alone": Assumption(
            "a position's reward depends on its own item alone",
            "compared with rips, where cascades have propensities",
        ),
        "additive": Assumption(
            "a slate's reward is a sum of what its positions earn, which were drawn independently",
            "compared with sips, where whole slates have propensities",
        ),
        "any_length": Assumption("how long a slate is does not depend on its items", ""),
    }
)
"""Assumption → what it says and how it is tested, by the names that estimators refer to."""
