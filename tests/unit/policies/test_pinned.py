"""What each kind learned in 0.1.0 from the same rewards: means, probabilities, and what a stored
state holds. Bits may differ from processor to processor; the digits below don't.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from topbill.domain.records import Actions, Example, Policy
from topbill.policies import KINDS


class Pinned(NamedTuple):
    """`arrays` are the shapes of a state's, by name."""

    given: dict
    mean: list[float]
    probabilities: list[float]
    arrays: dict[str, list[int]]


LINEAR = {
    "own_cov": [5, 1, 5, 5],
    "own_mean": [5, 1, 5],
    "residuals": [3],
    "shared_cov": [1, 1, 15, 15],
    "shared_mean": [1, 1, 15],
}
PINNED = {
    "auto": Pinned(
        {},
        [0.305121681463, 0.292958245062, 0.307009091988, 0.300057956065],
        [1.0, 0.0, 0.0, 0.0],
        {
            "curved_own_cov": [5, 1, 82, 82],
            "curved_own_mean": [5, 1, 82],
            "curved_shared_cov": [1, 1, 15, 15],
            "curved_shared_mean": [1, 1, 15],
            "log_scores": [5],
            "straight_own_cov": [5, 4, 5, 5],
            "straight_own_mean": [5, 4, 5],
            "straight_shared_cov": [1, 4, 15, 15],
            "straight_shared_mean": [1, 4, 15],
        },
    ),
    "squarecb": Pinned(
        {"adaptive": False},
        [0.314807576921, 0.304683838462, 0.316804423362, 0.298952104246],
        [0.219600245155, 0.135850014684, 0.532823876451, 0.11172586371],
        LINEAR,
    ),
    "linucb": Pinned(
        {"half_life": 20.0, "adaptive": False},
        [0.317438671213, 0.316302060554, 0.331440512367, 0.284459870162],
        [0.0, 0.0, 1.0, 0.0],
        LINEAR,
    ),
    "thompson": Pinned(
        {"model": "disjoint", "adaptive": False},
        [0.417098587697, 0.252541860387, 0.45036239708, 0.317884836813],
        [0.282843671218, 7.97207886945e-06, 0.716934344188, 0.000214012514541],
        {**LINEAR, "shared_cov": [1, 1, 0, 0], "shared_mean": [1, 1, 0]},
    ),
    "epsilon_greedy": Pinned(
        {"link": "linear"},
        [0.3868167529, 0.31819993042, 0.44343383732, 0.341697206036],
        [0.025, 0.025, 0.925, 0.025],
        LINEAR,
    ),
    "vw": Pinned(
        {"exploration": "squarecb"},
        [],
        [0.04113428287, 0.0106096733164, 0.938409326713, 0.00984671710088],
        {},
    ),
}


def learned(kind: str, actions: Actions, rng: np.random.Generator) -> Policy:
    params = msgspec.convert(PINNED[kind].given, KINDS[kind].Params)
    policy = KINDS[kind](params, context_size=3, action_size=2, seed=7)
    for t in range(40):
        x = rng.normal(size=3)
        index = int(rng.integers(4))
        reward = float(rng.random() < 0.5 if x[0] > 0 else 0.1)
        policy.update([Example(x, actions, index, 0.25, reward, position=t % 3, at=1e9 + t)])
    return policy


@pytest.mark.parametrize("kind", PINNED)
def test_each_kind_learns_what_it_learned_in_0_1_0(kind):
    rng = np.random.default_rng(1)
    actions = Actions(["a", "b", "c", "d"], rng.normal(size=(4, 2)))
    policy = learned(kind, actions, rng)
    scored = policy.score(np.array([0.5, -1.0, 0.25]), actions, 3)
    # VW adds up in another order in each of its builds.
    tolerance = 1e-3 if kind == "vw" else 1e-9
    np.testing.assert_allclose(
        scored.probabilities(np.arange(4)), PINNED[kind].probabilities, atol=tolerance
    )
    if scored.mean is not None:
        np.testing.assert_allclose(scored.mean, PINNED[kind].mean, rtol=1e-9)
    state = msgspec.msgpack.decode(policy.dump())
    assert {name: array[1] for name, array in state["arrays"].items()} == PINNED[kind].arrays
    assert state["kind"] == kind


def test_every_kind_that_learns_is_pinned():
    assert PINNED.keys() == KINDS.keys() - {"uniform", "fixed", "scored"}
