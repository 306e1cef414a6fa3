"""What the experts of `auto` promise one by one, and how their opinions are mixed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from topbill.domain.records import Actions, Example
from topbill.policies.auto import EXPERTS, STEADY, STEADY_LOG_WEIGHT, Auto, AutoParams
from topbill.policies.linear.models import LinearModels


def expert(keep: float) -> LinearModels:
    made = LinearModels(
        np.array([[0.5, 1.0, 1.0, 1.0]]), np.array([[10.0, 0.05]]), np.array([keep])
    )
    made.own.add()
    return made


def learn(e, basis, context, reward):
    """Fold one reward in; what was predicted before."""
    one = np.ones((1, 1))
    predicted = e.learn(np.array([1]), basis[None], context[None], one, np.array([reward]))
    return predicted[0, 0]


@pytest.mark.parametrize("keep", [1.0, 0.99, 0.8, 0.5])
@pytest.mark.parametrize("clicks", [0.0, 0.02, 0.5, 1.0])
def test_forgetting_keeps_covariances_between_zero_and_the_prior(keep, clicks):
    e, rng = expert(keep), np.random.default_rng(3)
    one = np.ones(4)
    for _ in range(3_000):
        basis = np.array([1.0, *rng.normal(size=2), 0.0]) * 3.0 ** rng.integers(-2, 3)
        learn(e, basis, np.array([1.0, basis[1]]), float(rng.random() < clicks))
    cov = e.own.cov[1, 0]
    assert np.linalg.eigvalsh(cov).min() > 0.0
    assert np.array_equal(cov, cov.T)
    # Each direction fades at most to the prior; their sum along any other may be larger, but stays
    # bounded.
    assert one @ cov @ one < 4.0 * e.own.prior.sum()


def test_what_moved_is_learned_anew_only_by_the_one_that_forgets():
    rng = np.random.default_rng(5)
    faithful, moving = expert(1.0), expert(0.8)
    lost = {id(faithful): 0.0, id(moving): 0.0}
    for t in range(1_200):
        x = rng.normal()
        reward = float((x > 0) == (t < 800))
        for e in (faithful, moving):
            score = learn(e, np.array([1.0, x, 0.0, 0.0]), np.array([1.0, 0.0]), reward)
            lost[id(e)] -= score if t >= 1_000 else 0.0
    assert lost[id(moving)] < 0.8 * lost[id(faithful)]


def test_the_prior_of_a_whole_context_does_not_depend_on_how_many_features_it_has():
    for size in (1, 10, 100):
        auto = Auto(AutoParams(), context_size=size, action_size=0)
        basis = np.array([0.0, *np.ones(size), 0.0])
        for expert, cov in zip(auto.experts, auto.straight.own.cov[0], strict=False):
            assert basis @ cov @ basis == pytest.approx(expert.signal)


def noisy_auto() -> tuple[Auto, Actions, np.random.Generator]:
    """`auto` after 60 rewards that no context explains."""
    auto = Auto(AutoParams(), context_size=2, action_size=0)
    actions = Actions(["a", "b", "c"], np.zeros((3, 0)))
    rng = np.random.default_rng(1)
    for _ in range(60):
        auto.update(
            [
                Example(
                    rng.normal(size=2),
                    actions,
                    int(rng.integers(3)),
                    1 / 3,
                    float(rng.random() < 0.3),
                )
            ]
        )
    return auto, actions, rng


def test_mixed_widths_are_those_of_the_blended_variance():
    auto, actions, _ = noisy_auto()
    x = np.array([0.5, -1.0])
    linear, _ = auto._bases(x, 0)
    rows = auto.action_index(actions).rows
    straight = range(len(auto.straight))
    covs = [auto.straight.own.cov[rows, e] for e in straight] + [auto.curved.own.cov[rows, 0]]
    bases = [linear for _ in straight] + [auto._curved_basis(linear)]
    blended = sum(w * (cov @ b @ b) for w, cov, b in zip(auto.weights, covs, bases, strict=True))
    np.testing.assert_allclose(auto.score(x, actions, 0).sd ** 2, blended)
    assert len(EXPERTS) == len(auto.weights)


def test_who_expects_nothing_is_trusted_where_there_is_nothing_and_the_silenced_are_heard_again():
    auto, actions, rng = noisy_auto()
    little = [expert.signal < 1.0 for expert in auto.experts]
    assert auto.weights[little].sum() > 0.5
    for _ in range(400):
        x, index = rng.normal(size=2), int(rng.integers(3))
        auto.update([Example(x, actions, index, 1 / 3, float(x[index % 2] > 0.0))])
    assert auto.weights[little].sum() < 0.1


def without_context(trusts: bool) -> Auto:
    """What learned 400 rankings of plain titles, with or without more trust in the steady one."""
    auto, rng = Auto(AutoParams(), context_size=0, action_size=0), np.random.default_rng(8)
    actions = Actions(["a", "b", "c"], np.zeros((3, 0)))
    if not trusts:
        auto._trust = None
    for t in range(400):
        index = int(rng.integers(3))
        reward = float(rng.random() < 0.02 * (1 + index))
        auto.update([Example(np.zeros(0), actions, index, 0.3, reward, position=t % 2, reach=0.7)])
    return auto


def test_without_a_context_the_expert_that_forgets_nothing_counts_more_in_decisions():
    auto = without_context(trusts=True)
    weights, decisions = auto.weights, auto._weights_in_decisions()
    names = [expert.name for expert in auto.experts]
    steady, tight = names.index(STEADY), names.index("tight")
    assert decisions.sum() == pytest.approx(1.0)
    assert decisions[steady] / decisions[tight] == pytest.approx(
        math.exp(STEADY_LOG_WEIGHT) * weights[steady] / weights[tight]
    )


def test_how_decisions_weigh_the_experts_changes_nothing_that_is_learned():
    assert without_context(trusts=True).dump() == without_context(trusts=False).dump()


def test_with_a_context_experts_count_by_their_predictions_alone():
    auto = Auto(AutoParams(), context_size=1, action_size=0)
    assert auto._weights_in_decisions() is auto.weights
