"""The linear model is ridge regression, Thompson's quadrature is exact, and forgetting forgets."""

from __future__ import annotations

from itertools import cycle, islice, pairwise

import msgspec
import numpy as np
import pytest
from scipy import integrate, stats

from topbill.domain.errors import PolicyError
from topbill.domain.records import Actions, Example
from topbill.policies.epsilon_greedy import EpsilonGreedy
from topbill.policies.linear.kernels import newton, sigmoid
from topbill.policies.linear.policy import LinearParams, LinearPolicy
from topbill.policies.linear.sampling import wins as win_probabilities
from topbill.policies.linucb import LinUCB
from topbill.policies.thompson import Thompson

RNG = np.random.default_rng(0)
D, DA, K = 4, 2, 3
ACTIONS = Actions(["a", "b", "c"], RNG.normal(size=(K, DA)))


def told(n: int, position: int = 0, seed: int = 1) -> list[Example]:
    rng = np.random.default_rng(seed)
    return [
        Example(
            rng.normal(size=D),
            ACTIONS,
            int(rng.integers(K)),
            1 / K,
            float(rng.random()),
            position,
            at=1e9 + t,
        )
        for t in range(n)
    ]


def ridge(phi: np.ndarray, r: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    A = phi.T @ phi + np.diag(1 / prior)
    return np.linalg.solve(A, phi.T @ r), np.linalg.inv(A)


def test_disjoint_linucb_is_ridge_regression_per_action():
    policy = LinUCB(
        LinUCB.Params(model="disjoint", link="linear", alpha=0.8, prior_scale=0.7, adaptive=False),
        context_size=D,
        action_size=DA,
    )
    data = told(200)
    policy.update(data)
    x = RNG.normal(size=D)
    scored = policy.score(x, ACTIONS, 0)
    xt = np.r_[1.0, x, 0.0]
    for k in range(K):
        mine = [e for e in data if e.index == k]
        phi = np.array([np.r_[1.0, e.x, 0.0] for e in mine])
        theta, inverse = ridge(phi, np.array([e.reward for e in mine]), np.full(D + 2, 0.49))
        assert scored.mean[k] == pytest.approx(theta @ xt, rel=1e-9)
        assert scored.width[k] == pytest.approx(
            np.sqrt(policy.noise * (xt @ inverse @ xt)), rel=1e-9
        )
    upper = scored.mean + 0.8 * scored.width
    assert np.array_equal(scored.probabilities(np.arange(K)), upper == upper.max())


def test_shared_model_is_ridge_regression_on_the_products():
    model = LinearPolicy(
        LinearParams(model="shared", link="linear"), context_size=D, action_size=DA
    )
    prior = model.models.shared.prior[0]
    data = told(150)
    for example in data:
        model.learn(example)
    design = lambda x, k: np.outer(np.r_[1.0, x, 0.0], np.r_[1.0, ACTIONS.features[k]]).ravel()  # noqa: E731
    phi = np.array([design(e.x, e.index) for e in data])
    theta, inverse = ridge(phi, np.array([e.reward for e in data]), prior)
    x = RNG.normal(size=D)
    prediction = model.predict(x, ACTIONS)
    rows = np.array([design(x, k) for k in range(K)])
    np.testing.assert_allclose(prediction.mean, rows @ theta, rtol=1e-8)
    np.testing.assert_allclose(prediction.variance, np.diag(rows @ inverse @ rows.T), rtol=1e-8)
    Z = prediction.action_index.Z
    np.testing.assert_allclose(
        Z @ prediction.common @ Z.T, rows @ inverse @ rows.T, rtol=1e-7, atol=1e-12
    )


def test_noise_is_estimated():
    rng = np.random.default_rng(4)
    model = LinearPolicy(
        LinearParams(model="disjoint", link="linear", prior_scale=1.0),
        context_size=1,
        action_size=0,
    )
    alone = Actions(["a"], np.zeros((1, 0)))
    for _ in range(4000):
        model.learn(Example(np.zeros(1), alone, 0, 1.0, float(rng.random() < 0.05)))
    assert model.noise == pytest.approx(0.05 * 0.95, rel=0.15)
    assert model.base_rate_variance == pytest.approx(0.05 * 0.95, rel=0.15)


def test_position_bias_stays_out_of_action_scores():
    """The lower position earns less; an action shown there three times in four must not look worse
    for it.
    """
    rng = np.random.default_rng(2)
    model = LinearPolicy(
        LinearParams(model="disjoint", link="linear", prior_scale=1.0),
        context_size=1,
        action_size=0,
    )
    pair = Actions(["a", "b"], np.zeros((2, 0)))
    for _ in range(4000):
        index = int(rng.random() < 0.5)
        position = int(rng.random() < (0.75 if index else 0.25))
        model.learn(
            Example(
                np.zeros(1), pair, index, 0.5, float(rng.random() < 0.5 - 0.3 * position), position
            )
        )
    a, b = model.predict(np.zeros(1), pair).mean
    # Without the position's weight the two would differ by 0.15; the noise of a mean is about 0.02.
    assert abs(a - b) < 0.06
    assert a == pytest.approx(0.5, abs=0.05)


def test_logistic_step_finds_the_mode():
    for mean, variance, reward in [
        (0.0, 1.0, 1.0),
        (-3.0, 9.0, 1.0),
        (4.0, 50.0, 0.0),
        (30.0, 400.0, 0.0),
        (0.5, 1e-6, 0.3),
    ]:
        slope, curvature = newton(mean, variance, reward)
        mode = mean + variance * slope
        assert reward - sigmoid(mode) == pytest.approx(slope, abs=1e-6)
        assert 0.0 <= curvature * variance < 1.0


def test_logistic_model_recovers_its_weights():
    rng = np.random.default_rng(8)
    model = LinearPolicy(
        LinearParams(model="disjoint", link="logistic", prior_scale=1.0),
        context_size=2,
        action_size=0,
    )
    alone = Actions(["a"], np.zeros((1, 0)))
    for _ in range(20_000):
        x = rng.normal(size=2)
        model.learn(
            Example(x, alone, 0, 1.0, float(rng.random() < sigmoid(-2.0 + x[0] - 0.5 * x[1])))
        )
    own = model.models.own
    sd = np.sqrt(np.diag(own.cov[1, 0])[:3])
    assert (np.abs(own.mean[1, 0, :3] - [-2.0, 1.0, -0.5]) < 4 * sd).all()
    assert sd.max() < 0.05


def test_curves_learn_what_is_not_linear():
    """Which of two actions earns depends on whether two features agree: no line divides that."""
    pair = Actions(["a", "b"], np.zeros((2, 0)))
    earned = {}
    for count in (0, None):
        rng = np.random.default_rng(9)
        policy = LinUCB(LinUCB.Params(fourier_features=count), context_size=2, action_size=0)
        right = []
        for _ in range(1_500):
            x = rng.normal(size=2)
            index = int(policy.score(x, pair, 0).probabilities(np.arange(2)).argmax())
            right.append(index == int(x[0] * x[1] > 0.0))
            policy.update([Example(x, pair, index, 1.0, float(right[-1]))])
        earned[count] = np.mean(right[-500:])
    assert earned[0] < 0.65
    assert earned[None] > 0.8


def test_curves_need_weights_of_actions_own():
    with pytest.raises(msgspec.ValidationError, match="hybrid"):
        msgspec.convert({"fourier_features": 8, "model": "shared"}, LinUCB.Params)


@pytest.mark.parametrize("timed", [False, True])
def test_forgetting_follows_a_change_and_stays_within_the_prior(timed):
    given = {"half_life_seconds": 200.0} if timed else {"half_life": 200.0}
    model = LinearPolicy(
        LinearParams(model="disjoint", link="linear", prior_scale=1.0, **given),
        context_size=1,
        action_size=0,
    )
    still = LinearPolicy(
        LinearParams(model="disjoint", link="linear", prior_scale=1.0),
        context_size=1,
        action_size=0,
    )
    alone = Actions(["a"], np.zeros((1, 0)))
    for t in range(4000):
        example = Example(np.ones(1), alone, 0, 1.0, 1.0 if t < 2000 else 0.0, at=1e9 + t)
        model.learn(example)
        still.learn(example)
    x = np.ones(1)
    assert model.predict(x, alone).mean[0] < 0.02
    assert still.predict(x, alone).mean[0] == pytest.approx(0.5, abs=0.01)
    own = model.models.own
    assert (np.linalg.eigvalsh(own.cov[1, 0]) > 0).all()
    assert (np.linalg.eigvalsh(np.diag(own.prior[0]) - own.cov[1, 0]) > -1e-9).all()


def test_both_half_lives_at_once_are_refused():
    with pytest.raises(msgspec.ValidationError, match="exclude each other"):
        msgspec.convert({"half_life": 5, "half_life_seconds": 5}, LinUCB.Params)


def test_wrong_shapes_are_named():
    policy = LinUCB(LinUCB.Params(), context_size=D, action_size=DA)
    with pytest.raises(PolicyError, match="expected"):
        policy.score(np.zeros(D + 1), ACTIONS, 0)
    with pytest.raises(PolicyError, match="expected"):
        policy.score(np.zeros(D), Actions(["a"], np.zeros((1, DA + 1))), 0)


def test_epsilon_greedy_shares_ties_and_decays():
    policy = EpsilonGreedy(
        EpsilonGreedy.Params(epsilon=0.3, decay=100.0, model="disjoint"),
        context_size=D,
        action_size=DA,
    )
    three = np.arange(3)
    np.testing.assert_allclose(
        policy.score(np.zeros(D), ACTIONS, 0).probabilities(three), np.full(3, 1 / 3)
    )
    policy.update(told(100))
    p = policy.score(np.ones(D), ACTIONS, 0).probabilities(three)
    np.testing.assert_allclose(sorted(p), [0.05, 0.05, 0.9])


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0, 3.0])
def test_thompson_probabilities_agree_with_adaptive_integration(spread):
    rng = np.random.default_rng(int(10 * spread))
    for K in (2, 3, 12):
        mean, sd = rng.normal(size=K), np.exp(spread * rng.normal(size=K))

        def integrand(t, k, mean=mean, sd=sd):
            z = (t - mean) / sd
            return stats.norm.pdf(z[k]) / sd[k] * np.prod(np.delete(stats.norm.cdf(z), k))

        knots = np.unique(np.concatenate([mean + c * sd for c in (-8, -4, -2, -1, 0, 1, 2, 4, 8)]))
        expected = [
            sum(
                integrate.quad(integrand, a, b, args=(k,), epsabs=1e-12)[0]
                for a, b in pairwise(knots)
            )
            if K < 12
            else np.nan
            for k in range(K)
        ]
        p = win_probabilities(mean, sd)
        assert p.sum() == pytest.approx(1.0, abs=1e-12)
        if K < 12:
            np.testing.assert_allclose(p, expected, atol=1e-6)
        else:
            n = 400_000
            wins = (
                np.bincount((mean + sd * rng.standard_normal((n, K))).argmax(axis=1), minlength=K)
                / n
            )
            # Five binomial standard errors.
            assert (np.abs(p - wins) < 5 * np.sqrt(p * (1 - p) / n) + 1e-6).all()


def test_thompson_with_correlated_scores_matches_its_posterior():
    policy = Thompson(
        Thompson.Params(model="hybrid", link="linear", samples=20_000, exploration=1.0),
        context_size=D,
        action_size=DA,
    )
    policy.update(told(30))
    x = RNG.normal(size=D)
    p = policy.score(x, ACTIONS, seed=5).probabilities(np.arange(K))
    prediction = policy.predict(x, ACTIONS)
    Z = prediction.action_index.Z
    cov = (np.diag(prediction.own) + Z @ prediction.common @ Z.T) * policy.noise
    n = 400_000
    draws = np.random.default_rng(1).multivariate_normal(prediction.mean, cov, size=n)
    wins = np.bincount(draws.argmax(axis=1), minlength=K) / n
    assert (np.abs(p - wins) < 5 * np.sqrt(wins * (1 - wins) / 10_000) + 1e-4).all()


@pytest.mark.parametrize(
    "updates", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow, id="a million")]
)
def test_many_updates_keep_covariances_positive_definite(updates):
    rng = np.random.default_rng(3)
    model = LinearPolicy(
        LinearParams(model="disjoint", link="linear", prior_scale=1.0),
        context_size=3,
        action_size=0,
    )
    alone = Actions(["a"], np.zeros((1, 0)))
    x = rng.normal(size=(64, 3)) * [1.0, 1e-3, 1e3]
    batch = [Example(x[i], alone, 0, 1.0, float(i % 2)) for i in range(64)]
    for example in islice(cycle(batch), updates):
        model.learn(example)
    cov = model.models.own.cov[1, 0]
    assert (np.linalg.eigvalsh(cov) > 0).all()
    assert np.array_equal(cov, cov.T)
