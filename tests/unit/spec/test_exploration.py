"""How much of the draws a least probability leaves to the policy, at each position."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.chance import with_min_probability
from topbill.policies import KINDS
from topbill.spec import Variant
from topbill.spec.exploration import (
    default_min_probability,
    little_is_left,
    may_vanish,
    policy_shares,
)


@pytest.mark.parametrize(
    ("min_probability", "candidates", "slots", "shares"),
    [
        (0.02, 60, 2, (0.0, 0.0)),
        (0.01, 60, 3, (0.4, 0.41, 0.42)),
        (0.001, 60, 1, (0.94,)),
        (0.02, 8, 10, (0.84, 0.86, 0.88, 0.9, 0.92, 0.94, 0.96, 0.98)),
        (0.0, 60, 1, (1.0,)),
        (0.02, 0, 1, ()),
    ],
)
def test_what_is_left_position_by_position(
    min_probability: float, candidates: int, slots: int, shares: tuple[float, ...]
) -> None:
    assert policy_shares(min_probability, candidates, slots) == pytest.approx(shares)


@given(st.floats(0.0, 0.2), st.integers(1, 60))
def test_it_is_what_a_sure_policy_keeps_of_its_favourite(least: float, candidates: int) -> None:
    """A policy that is sure of one candidate gives it all that it decides, beside the least."""
    sure = np.zeros(candidates)
    sure[0] = 1.0
    drawn = with_min_probability(sure, least)
    (left,) = policy_shares(least, candidates, 1)
    assert drawn[0] - min(least, 1 / candidates) == pytest.approx(left, abs=1e-12)


def test_little_is_told_with_its_figures_and_enough_is_not() -> None:
    assert little_is_left("linucb", 0.02, 60, 12) == (
        "linucb: min_probability 2% for each of 60 candidates takes 100% of the draws at position "
        "1 and leaves its policy 0% (2% at position 12); lower it to leave more to what was learned"
    )
    assert little_is_left("linucb", 0.01, 60, 1) == (
        "linucb: min_probability 1% for each of 60 candidates takes 60% of the draws at position "
        "1 and leaves its policy 40%; lower it to leave more to what was learned"
    )
    assert little_is_left("linucb", 0.001, 60, 12) is None
    assert little_is_left("linucb", 0.02, 0, 1) is None


def variant(kind: str, least: float = 0.0, **params: Any) -> Variant:
    return Variant(kind, kind, KINDS[kind].Params(**params), 1.0, min_probability=least)


def test_auto_and_thompson_keep_a_little_chance_unless_a_file_says_otherwise() -> None:
    assert default_min_probability("auto", 4) == default_min_probability("thompson", 4) == 0.005
    assert default_min_probability("squarecb", 4) == 0.0
    # Where requests bring the actions, 2% each may be all of it: only auto, which explores by
    # nothing else, gets it.
    assert default_min_probability("auto", 0) == 0.02
    assert default_min_probability("thompson", 0) == 0.0


@pytest.mark.parametrize(
    ("parts", "candidates", "told"),
    [
        (variant("thompson"), 4, True),
        (variant("thompson", 0.005), 4, False),
        (variant("thompson", 0.00001), 4, True),
        (variant("thompson", 0.00001), 0, False),
        (variant("squarecb", gamma_scale=1000.0), 4, True),
        (variant("epsilon_greedy"), 4, False),
        (variant("epsilon_greedy", epsilon=0.0), 4, True),
        (variant("epsilon_greedy", decay=100.0), 4, True),
        (variant("linucb"), 4, True),
        (variant("linucb", 0.02), 4, False),
        (variant("uniform"), 4, False),
        (variant("fixed"), 4, False),
        (variant("vw"), 4, False),
        (variant("vw", exploration="squarecb"), 4, True),
        (variant("vw", exploration="bag"), 4, False),
        (variant("vw", exploration="epsilon", epsilon=0.0), 4, True),
    ],
)
def test_a_policy_whose_probabilities_may_vanish_is_told(
    parts: Variant, candidates: int, told: bool
) -> None:
    sentence = may_vanish(parts, candidates)
    assert (sentence is not None) == told
    if sentence:
        assert sentence.startswith(f"{parts.name}: {parts.policy} may stop showing an action")
        assert "write min_probability: 0.5%" in sentence
