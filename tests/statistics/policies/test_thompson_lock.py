"""`thompson` as a file has it that says nothing more: where early luck misleads, it finds back."""

from __future__ import annotations

import numpy as np
import pytest

from topbill.domain.records import Actions, Example
from topbill.domain.slate import rank
from topbill.policies import KINDS
from topbill.spec.exploration import default_min_probability

ARMS = Actions(("a", "b", "c"), np.zeros((3, 0)))


def share_of_the_right_arm(seed: int, constant: float, least: float, decisions: int) -> float:
    """Two groups, each with an arm of its own that pays 12% where all else pays 3%; rewards come in
    batches of 50. The share of the right arm among the last thousand.
    """
    # The world's chance is no policy's: a stream shared with it shows locks that are none.
    world, draws = np.random.default_rng(seed + 777), np.random.default_rng([seed, 1])
    kind = KINDS["thompson"]
    policy = kind(kind.Params(), context_size=2, action_size=0, seed=seed)
    batch, right = [], []
    for _ in range(decisions):
        group = int(world.integers(2))
        x = np.array([constant, group])
        scored = policy.score(x, ARMS, int(draws.integers(2**32)))
        slate = rank(scored, np.arange(3), 1, least, (draws.random(),))
        arm, best = slate.rows[0], (0, 2)[group]
        reward = float(world.random() < (0.12 if arm == best else 0.03))
        batch.append(Example(x, ARMS, arm, slate.propensity, reward))
        right.append(arm == best)
        if len(batch) == 50:
            policy.update(batch)
            batch = []
    return float(np.mean(right[-1000:]))


@pytest.mark.slow
@pytest.mark.parametrize("constant", [0.0, 1.0, 5.0])
def test_thompson_does_not_lock_onto_one_arm(constant: float) -> None:
    least = default_min_probability("thompson", 3)
    shares = [share_of_the_right_arm(seed, constant, least, 10_000) for seed in range(8)]
    # Of an arm's pull 2 in 100 are spread evenly, so no one is right oftener than .987.
    assert sorted(shares)[1] > 0.9, shares
    assert np.mean(shares) > 0.9, shares
