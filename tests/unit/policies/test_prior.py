"""A prior of actions from earlier experiments: closed forms, statsmodels, and what policies make of
it.
"""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.meta_analysis import combine_effects

from topbill.domain.errors import PolicyError
from topbill.domain.records import Actions, Example
from topbill.policies import KINDS
from topbill.policies.linear.prior import (
    LEAST_VARIANCE,
    ActionPrior,
    EarlierAction,
    EarlierExperiment,
    empirical_prior,
    variance_between,
)

ABLE = [kind for kind, policy in KINDS.items() if hasattr(policy, "begin")]


def experiment(
    rates: np.ndarray, shown: float, features: np.ndarray | None = None
) -> EarlierExperiment:
    """Each action shown equally often, with exactly these rates."""
    rows = np.zeros((len(rates), 0)) if features is None else features
    actions = [
        EarlierAction(shown, shown, shown * rate, tuple(row))
        for rate, row in zip(rates.tolist(), rows.tolist(), strict=True)
    ]
    mean = float(rates.mean())
    return EarlierExperiment(actions, mean, mean * (1 - mean))


def test_the_variance_of_one_experiment_is_that_of_dersimonian_and_laird() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = rng.uniform(0.1, 2.0, 9)
        values = rng.normal(0.3, np.sqrt(noise + 0.8))
        expected = combine_effects(values, noise, method_re="chi2").tau2
        assert variance_between(values, noise, np.ones((9, 1))) == pytest.approx(max(expected, 0))


def test_equal_noise_leaves_the_sample_variance_less_the_noise() -> None:
    """Normal-normal, balanced: the pooled variance within experiments less that of the noise."""
    shown, base = 4_000.0, 0.1
    one = experiment(base + np.array([-0.03, 0.0, 0.03, 0.01, -0.01]), shown)
    other = experiment(base + np.array([-0.02, 0.02, 0.04, -0.04]), shown)
    prior = empirical_prior([one, other])
    odds = base * (1 - base)
    squares = sum(d * d for d in (0.03, 0.03, 0.01, 0.01, 0.02, 0.02, 0.04, 0.04)) / odds**2
    assert prior is not None
    assert prior.spread == pytest.approx(squares / 7 - 1 / (shown * odds), rel=1e-5)
    assert (prior.experiments, prior.actions, prior.means) == (2, 9, ())


def test_too_few_actions_tell_nothing() -> None:
    assert empirical_prior([experiment(np.array([0.1, 0.2, 0.3, 0.1, 0.2]), 1e4)]) is None
    assert empirical_prior([]) is None
    # Who was alone was compared with nobody, and equal rewards tell nothing.
    alone = [experiment(np.array([0.1]), 1e4)] * 10
    none = [experiment(np.zeros(4), 1e4)] * 10
    assert empirical_prior([*alone, *none]) is None


def test_actions_that_do_not_differ_keep_the_least_variance() -> None:
    prior = empirical_prior([experiment(np.full(8, 0.2), 1e3)])
    assert prior is not None
    assert prior.spread == LEAST_VARIANCE


def world(seed: int, effects: np.ndarray, spread: float) -> list[EarlierExperiment]:
    rng = np.random.default_rng(seed)
    earlier = []
    for _ in range(60):
        z = rng.normal(size=(6, len(effects)))
        logit = rng.normal(-2, 0.3) + z @ effects + rng.normal(0, spread**0.5, 6)
        rates = rng.binomial(20_000, 1 / (1 + np.exp(-logit))) / 20_000
        earlier.append(experiment(rates, 20_000.0, z))
    return earlier


def test_features_that_told_are_found_and_others_are_not() -> None:
    """One of three features tells; the rest of how actions differ is their own."""
    effects = np.array([0.2, 0.0, 0.0])
    prior = empirical_prior(world(1, effects, 0.03))
    assert prior is not None
    deviations = (np.array(prior.means) - effects) / np.sqrt(prior.variances)
    assert np.abs(deviations).max() < 3.0
    assert prior.means[0] > 0.15
    assert prior.spread == pytest.approx(0.03, rel=0.25)
    assert max(prior.variances) < 0.01


def test_a_feature_that_is_always_the_same_is_not_held_to_be_known() -> None:
    z = np.column_stack([np.random.default_rng(2).normal(size=40), np.ones(40)])
    rates = 0.1 * np.exp(0.4 * z[:, 0])
    prior = empirical_prior([experiment(rates, 1e4, z)])
    assert prior is not None
    assert prior.means[1] == 0.0
    assert prior.variances[1] > 10 * prior.variances[0]


@pytest.mark.parametrize("kind", ABLE)
def test_a_policy_begins_as_it_is_told_and_keeps_it(kind: str) -> None:
    policy_class = KINDS[kind]

    def fresh() -> object:
        return policy_class(policy_class.Params(), context_size=2, action_size=2, seed=0)

    policy, plain = fresh(), fresh()
    prior = ActionPrior(
        experiments=3, actions=20, spread=0.02, means=(0.5, -0.5), variances=(0.01, 0.01)
    )
    policy.begin(prior)  # type: ignore[attr-defined]
    actions = Actions(("good", "bad"), np.array([[1.0, 0.0], [0.0, 1.0]]))
    x = np.zeros(2)
    scored = policy.score(x, actions, 0)  # type: ignore[attr-defined]
    # One logit apart, before anybody has seen either.
    assert scored.eta[0] - scored.eta[1] == pytest.approx(1.0)
    assert (scored.sd < plain.score(x, actions, 0).sd).all()  # type: ignore[attr-defined]
    # What was stored goes on alike, also with actions to come.
    again = fresh()
    again.load(policy.dump())  # type: ignore[attr-defined]
    assert again.dump() == policy.dump()  # type: ignore[attr-defined]
    for one in (policy, again):
        for row in (0, 1, 0):
            one.update([Example(x, actions, row, 0.5, 1.0)])  # type: ignore[attr-defined]
    assert again.dump() == policy.dump()  # type: ignore[attr-defined]
    # Who began without one has a state as before.
    assert b"spread" not in plain.dump()  # type: ignore[attr-defined]


def test_a_state_with_a_spread_that_is_no_variance_is_refused() -> None:
    policy_class = KINDS["linucb"]
    policy = policy_class(policy_class.Params(), context_size=1, action_size=0, seed=0)
    policy.begin(ActionPrior(experiments=1, actions=9, spread=-1.0))  # type: ignore[attr-defined]
    with pytest.raises(PolicyError, match=r"spread is -1\.0; expected a variance"):
        policy.load(policy.dump())
