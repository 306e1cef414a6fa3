"""Contexts that are not of unit scale: which are read on another, and that it stays a fold."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.errors import PolicyError
from topbill.domain.records import Actions, Example
from topbill.domain.slate import SlateRequest, rank
from topbill.policies import KINDS, codec
from topbill.policies.linear.prior import ActionPrior
from topbill.policies.linear.scaling import ENOUGH, MOMENTS, SCALE, ContextScale

SCALED = ("auto", "thompson", "linucb", "squarecb", "epsilon_greedy")
ACTIONS = Actions(["a", "b", "c"], np.zeros((3, 0)))


def fresh(kind, size=2, **params):
    params = msgspec.convert(params, KINDS[kind].Params)
    return KINDS[kind](params, context_size=size, action_size=0, seed=1)


def examples(count, write, seed=3):
    """Groups 0 and 1 with an action each, in contexts as `write` writes them."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        group, index = int(rng.integers(2)), int(rng.integers(3))
        reward = float(rng.random() < (0.9 if index == group else 0.1))
        out.append(Example(np.array(write(group), float), ACTIONS, index, 1 / 3, reward))
    return out


def off(group):
    return [2026.0, group / 1000.0]


def decided(contexts):
    scale = ContextScale(contexts.shape[1])
    assert scale.undecided == ENOUGH
    scale.note(contexts[:ENOUGH])
    return scale


def test_columns_far_from_unit_scale_are_standardised_and_no_others():
    rng = np.random.default_rng(4)
    usual = rng.normal(size=(200, 4)) * [1.0, 0.2, 5.0, 1.0] + [0.0, 1.0, 0.0, 5.0]
    contexts = np.column_stack([usual, usual[:, 0] / 1000, 2026 + usual[:, 1], 100 * usual[:, 0]])
    scaled = decided(contexts).of(contexts)
    np.testing.assert_array_equal(scaled[:, :4], usual)
    first = contexts[:ENOUGH, 4:]
    np.testing.assert_allclose(
        scaled[:, 4:], (contexts[:, 4:] - first.mean(0)) / first.std(0), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("value", [0.0, 1.0, -5.0, 1e-9])
def test_a_constant_near_zero_is_read_as_it_is_written(value):
    contexts = np.full((ENOUGH, 1), value)
    assert decided(contexts).of(contexts) is contexts


def test_a_constant_far_from_zero_is_taken_off():
    scale = decided(np.full((ENOUGH, 1), 2026.0))
    np.testing.assert_array_equal(scale.of(np.array([2026.0, 2027.0])[:, None]), [[0.0], [1.0]])


def test_what_follows_the_clock_is_read_as_it_is_written():
    """The first examples come within an hour, and don't say what the day will bring."""
    hour = np.linspace(0.0, 0.5, ENOUGH)
    noisy = np.random.default_rng(2).normal(hour, 0.3)
    contexts = np.column_stack(
        [
            np.sin(hour / 24 * 2 * np.pi) / 10,
            np.cos(noisy / 24 * 2 * np.pi),
            1.7e9 + hour * 3600,
            2026 + hour / 9000,
        ]
    )
    assert decided(contexts).of(contexts) is contexts


def test_a_standardised_column_is_read_within_eight_standard_deviations():
    contexts = np.random.default_rng(6).normal(size=(ENOUGH, 1)) / 1000
    scale = decided(contexts)
    np.testing.assert_array_equal(scale.of(np.array([[1.0], [-1.0]])), [[8.0], [-8.0]])
    assert np.abs(scale.of(contexts)).max() < 8.0


@pytest.mark.parametrize("kind", SCALED)
def test_what_is_written_on_another_scale_is_learned_as_well(kind):
    """As of 0 and 1, which the standardised ones are an affine map of."""
    plain = fresh(kind)
    plain.update(examples(600, lambda group: [0.0, 2.0 * group - 1.0]))
    scaled = fresh(kind)
    scaled.update(examples(600, off))
    for group in (0, 1):
        mean = scaled.score(np.array(off(group)), ACTIONS, 0).mean
        expected = plain.score(np.array([0.0, 2.0 * group - 1.0]), ACTIONS, 0).mean
        assert mean.argmax() == expected.argmax() == group
        np.testing.assert_allclose(mean, expected, atol=0.1)


@pytest.mark.parametrize("kind", SCALED)
@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 3 * ENOUGH), max_size=5), stop=st.integers(0, 3 * ENOUGH))
def test_batches_and_restarts_change_nothing(kind, cuts, stop):
    all_examples = examples(3 * ENOUGH, off)
    at_once = fresh(kind)
    at_once.update(all_examples)
    policy, start = fresh(kind), 0
    for end in sorted({*cuts, stop, len(all_examples)}):
        policy.update(all_examples[start:end])
        start = end
        if end == stop:
            restored = fresh(kind)
            restored.load(policy.dump())
            policy = restored
    assert policy.dump() == at_once.dump()


@pytest.mark.parametrize("kind", SCALED)
def test_slates_of_scaled_contexts_are_those_of_the_scores(kind):
    policy = fresh(kind)
    policy.update(examples(80, off))
    eligible = np.arange(3)
    for group in (0, 1):
        x = np.array(off(group))
        scored = policy.score(x, ACTIONS, 5)
        expected = rank(scored, eligible, 1, 0.0, (0.5,)).probabilities[0]
        slate = policy.slate(x, ACTIONS, SlateRequest("id", eligible, 1, 0.0))
        if slate is not None:
            np.testing.assert_allclose(slate.probabilities[0], expected, atol=1e-9)


@pytest.mark.parametrize("kind", SCALED)
def test_states_of_contexts_of_unit_scale_hold_nothing_of_it(kind):
    policy = fresh(kind)
    assert not {MOMENTS, SCALE} & msgspec.msgpack.decode(policy.dump())["arrays"].keys()
    seen = examples(ENOUGH, lambda group: [1.0, group])
    policy.update(seen[:-1])
    assert MOMENTS in msgspec.msgpack.decode(policy.dump())["arrays"]
    policy.update(seen[-1:])
    assert not {MOMENTS, SCALE} & msgspec.msgpack.decode(policy.dump())["arrays"].keys()


def test_who_says_a_prior_scale_has_contexts_read_as_written():
    policy = fresh("linucb", prior_scale=1.0)
    policy.update(examples(80, off))
    contexts = np.array([off(0), off(1)])
    assert policy.scale.of(contexts) is contexts
    assert SCALE not in msgspec.msgpack.decode(policy.dump())["arrays"]


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("restarts", [False, True])
def test_who_begins_with_a_prior_has_contexts_read_as_written(kind, restarts):
    """Since what it began with would be given up."""
    policy = fresh(kind)
    policy.begin(ActionPrior(experiments=2, actions=9, spread=0.03, means=(), variances=()))
    if restarts:
        state, policy = policy.dump(), fresh(kind)
        policy.load(state)
    policy.update(examples(80, off))
    assert SCALE not in msgspec.msgpack.decode(policy.dump())["arrays"]


@pytest.mark.parametrize("name", [MOMENTS, SCALE])
def test_numbers_that_can_be_none_are_refused(name):
    scale = ContextScale(1)
    rows = scale.shapes()[name][0]
    state = codec.PolicyState([], {name: np.zeros((rows, 1))}, {})
    with pytest.raises(PolicyError, match=name):
        scale.restore(state, is_new=False)
