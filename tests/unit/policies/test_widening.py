"""Exploration begins at its parameter, widens with the evidence, and nothing that is learned
depends on it.
"""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import lock_in
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from topbill.domain.records import Actions, Example
from topbill.policies import KINDS, codec
from topbill.policies.linear import widening
from topbill.policies.linear.recent import NAMES

AMOUNTS = st.floats(0.0, 1e9)


@given(AMOUNTS, AMOUNTS, st.floats(0.01, 3.0))
def test_more_evidence_never_narrows_exploration(one, other, parameter):
    less, more = sorted((one, other))
    assert widening.of_posterior(parameter, less) <= widening.of_posterior(parameter, more)
    assert widening.of_quantile(parameter, less) <= widening.of_quantile(parameter, more)
    assert widening.of_gaps(parameter, less) >= widening.of_gaps(parameter, more)


@given(st.floats(0.01, 3.0))
def test_it_begins_at_its_parameter_and_draws_end_at_the_posterior(parameter):
    assert widening.of_posterior(parameter, 0.0) == pytest.approx(parameter)
    assert widening.of_quantile(parameter, 0.0) == parameter
    assert widening.of_gaps(parameter, 0.0) == parameter
    assert widening.of_posterior(parameter, 1e9) == pytest.approx(max(parameter, 1.0))


@given(st.floats(0.0, 1e6))
def test_a_bound_is_the_quantile_that_it_says(evidence):
    expected = stats.norm.ppf(1.0 - 1.0 / (2.0 + 4.0 * evidence))
    assert widening.of_quantile(0.0, evidence) == pytest.approx(max(expected, 0.0), abs=1e-9)


def test_as_many_weights_count_as_vary():
    assert widening.effective_number(np.full(7, 0.3)) == pytest.approx(7.0)
    assert widening.effective_number(np.array([5.0, 1e-9, 0.0])) == pytest.approx(1.0)
    assert widening.effective_number(np.zeros(0)) == 0.0


@pytest.mark.parametrize("kind", ["thompson", "linucb", "squarecb"])
def test_what_is_learned_is_the_same_whether_exploration_widens_or_not(kind):
    actions = Actions(["a", "b"], np.zeros((2, 0)))
    rng = np.random.default_rng(5)
    examples = [
        Example(rng.normal(size=2), actions, t % 2, 0.5, float(rng.random() < 0.1))
        for t in range(200)
    ]
    states = set()
    for adaptive in (True, False):
        policy = KINDS[kind](KINDS[kind].Params(adaptive=adaptive), context_size=2, action_size=0)
        policy.update(examples)
        # But for the short memory that learns beside.
        states.add(codec.without(policy.dump(), *NAMES))
    assert len(states) == 1


@pytest.mark.parametrize("kind", ["thompson", "linucb", "squarecb", "epsilon_greedy"])
def test_a_kind_finds_each_groups_action(kind):
    world = lock_in.World(rounds=3_000, low=0.1, high=0.4)
    assert lock_in.policy(kind, world, lock_in.PLAIN["[1, g]"], 0, {}) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["thompson", "linucb", "squarecb", "epsilon_greedy"])
@pytest.mark.parametrize("name", ["two_groups", "immediate", "late", "frequent", "many_groups"])
def test_no_kind_locks_where_a_beta_posterior_does_not(kind, name):
    world = lock_in.WORLDS[name]
    for writing in (world.writings or lock_in.PLAIN).values():
        found = lock_in.shares(kind, world, writing, range(6))
        # Of six seeds one may miss: with 95% of them right, two do in three of a hundred worlds.
        assert sum(share < lock_in.RIGHT for share in found) <= 1, found
