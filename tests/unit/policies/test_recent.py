"""Where the world suddenly is another one, models with a short memory take over, at the same
example in whatever batches they come; elsewhere they only watch.
"""

from __future__ import annotations

import numpy as np
import pytest

from topbill.domain.errors import PolicyError
from topbill.domain.records import Actions, Example
from topbill.policies import codec
from topbill.policies.comparison import compare_states
from topbill.policies.linear.models import LinearModels
from topbill.policies.linear.recent import LEAD, NAMES
from topbill.policies.linucb import LinUCB

ACTIONS = Actions(["a", "b", "c"], np.zeros((3, 0)))


def fresh(**given: object) -> LinUCB:
    return LinUCB(LinUCB.Params(**given), context_size=3, action_size=0)


def examples(n: int, turned: bool, seed: int) -> list[Example]:
    """What each action earns follows one number of the context: after the turn, its opposite."""
    rng = np.random.default_rng(seed)
    told = []
    for _ in range(n):
        x, k = rng.normal(size=3), int(rng.integers(3))
        is_good = (x[k] > 0.0) != turned
        told.append(Example(x, ACTIONS, k, 1 / 3, float(rng.random() < (0.9 if is_good else 0.1))))
    return told


def right(policy: LinUCB, turned: bool) -> float:
    """The share of contexts in which the best action is shown."""
    rng, found = np.random.default_rng(9), 0
    for _ in range(200):
        x = rng.normal(size=3)
        worth = -x if turned else x
        found += worth[policy.score(x, ACTIONS, 0).probabilities(np.arange(3)).argmax()] > 0.0
    return found / 200


@pytest.fixture
def takeovers(monkeypatch: pytest.MonkeyPatch) -> list[LinearModels]:
    seen: list[LinearModels] = []
    take_over = LinearModels.take_over

    def counted(self: LinearModels, other: LinearModels) -> None:
        seen.append(other)
        take_over(self, other)

    monkeypatch.setattr(LinearModels, "take_over", counted)
    return seen


def test_a_sudden_change_is_followed_and_nothing_else_is(takeovers: list[LinearModels]) -> None:
    policy, lasting = fresh(), fresh(adaptive=False)
    for one in (policy, lasting):
        one.update(examples(1_500, False, 1))
    assert not takeovers
    for one in (policy, lasting):
        one.update(examples(400, True, 2))
    assert takeovers
    assert right(policy, True) > right(lasting, True) + 0.1


def test_batches_and_restarts_change_nothing() -> None:
    told = [*examples(400, False, 1), *examples(300, True, 2)]
    whole, parts = fresh(), fresh()
    whole.update(told)
    for start in range(0, len(told), 37):
        parts.update(told[start : start + 37])
        state = parts.dump()
        parts = fresh()
        parts.load(state)
    assert parts.dump() == whole.dump()


def test_an_old_state_goes_on_without_a_short_memory_and_verifies() -> None:
    told = examples(200, False, 1)
    policy = fresh()
    policy.update(told)
    old = codec.without(policy.dump(), *NAMES)
    assert compare_states(policy, old, policy.dump(), ACTIONS).same
    continued = fresh()
    continued.load(old)
    continued.update(examples(50, False, 3))
    policy.update(examples(50, False, 3))
    assert continued.dump() == codec.without(policy.dump(), *NAMES)


def test_half_a_state_is_refused() -> None:
    policy = fresh()
    policy.update(examples(50, False, 1))
    with pytest.raises(PolicyError, match="recent_shared_cov"):
        fresh().load(codec.without(policy.dump(), "recent_shared_cov"))


@pytest.mark.parametrize("given", [{"half_life": 50.0}, {"adaptive": False}, {"link": "linear"}])
def test_who_says_how_to_forget_gets_no_other_memory(given: dict[str, object]) -> None:
    policy = fresh(**given)
    policy.update(examples(10, False, 1))
    assert policy.recent is None
    assert LEAD.encode() not in policy.dump()
