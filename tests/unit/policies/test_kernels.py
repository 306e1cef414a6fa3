"""The compiled kernels give what plain NumPy gives, and the same bits every time, with a cache on
disk or without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erfc

import topbill
from topbill.policies.linear import kernels, numpy_kernels, sampling
from topbill.policies.linear.compiled import IS_COMPILED

SIZES = st.integers(0, 40)
SEEDS = st.integers(0, 2**32 - 1)


def covariance(rng: np.random.Generator, *shape: int) -> np.ndarray:
    root = rng.normal(size=(*shape, shape[-1]))
    return root @ root.swapaxes(-1, -2) / max(shape[-1], 1)


def close(got: np.ndarray, wanted: np.ndarray) -> None:
    scale = max(1.0, np.abs(wanted).max(initial=0.0))
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12 * scale)


def sigmoid(eta: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-eta))


@given(
    seed=SEEDS,
    p=SIZES,
    r=st.integers(1, 6),
    q=st.integers(1, 4),
    E=st.integers(1, 4),
    K=st.integers(1, 9),
)
def test_predictions_are_those_of_the_blended_forms(seed, p, r, q, E, K):
    rng = np.random.default_rng(seed)
    n, m = K + 1, r * q
    own_mean, own_cov = rng.normal(size=(n, E, p)), covariance(rng, n, E, p)
    shared_mean, shared_cov = rng.normal(size=(E, m)), covariance(rng, E, m)
    weights = rng.random(E) * (rng.random(E) < 0.7)
    rows, basis, context = rng.integers(0, n, K), rng.normal(size=p), rng.normal(size=r)
    Z = rng.normal(size=(K, q))
    mean, own, common = np.zeros(K), np.zeros(K), np.zeros((q, q))
    kernels.predict(
        own_mean,
        own_cov,
        shared_mean,
        shared_cov,
        weights,
        rows,
        basis,
        context,
        Z,
        mean,
        own,
        common,
    )
    close(own, np.einsum("e,p,kepo,o->k", weights, basis, own_cov[rows], basis))
    M = shared_mean.reshape(E, r, q)
    close(
        mean,
        np.einsum("e,kep,p->k", weights, own_mean[rows], basis)
        + np.einsum("e,r,erq,kq", weights, context, M, Z),
    )
    C = shared_cov.reshape(E, r, q, r, q)
    close(common, np.einsum("e,r,s,erasb->ab", weights, context, context, C))
    close(
        kernels.variances(own, common, Z),
        np.maximum(own + np.einsum("ka,ab,kb->k", Z, common, Z), 1e-300),
    )
    np.testing.assert_array_equal(
        kernels.bounds(mean, own, common, Z, 0.3, 0.8),
        mean + 0.8 * np.sqrt(kernels.variances(own, common, Z) * 0.3),
    )


def learned(mean, cov, g, slope, curvature, grown, lost):
    """One block after a step, in NumPy."""
    return mean + slope * grown * g, cov - (curvature * grown**2 - lost) * np.outer(g, g)


@given(
    seed=SEEDS,
    p=st.integers(1, 40),
    m=SIZES,
    E=st.integers(1, 4),
    reward=st.floats(0.0, 1.0),
    logistic=st.booleans(),
    keep=st.sampled_from([1.0, 0.9, 0.5]),
)
def test_a_step_of_learning_is_the_textbooks(seed, p, m, E, reward, logistic, keep):
    rng = np.random.default_rng(seed)
    own_prior, shared_prior = 5.0 + rng.random((E, p)), 5.0 + rng.random((E, m))
    own_mean, own_cov = rng.normal(size=(2, E, p)), covariance(rng, 2, E, p)
    shared_mean, shared_cov = rng.normal(size=(E, m)), covariance(rng, E, m)
    before = own_mean.copy(), own_cov.copy(), shared_mean.copy(), shared_cov.copy()
    basis, product, told = rng.normal(size=p), rng.normal(size=m), np.empty(E)
    keeps, predicted = np.full(E, keep), np.empty((1, E))
    kernels.learn_each(
        own_mean, own_cov, own_prior, shared_mean, shared_cov, shared_prior, keeps,
        np.array([1]), basis[None], product[None], np.ones((1, 1)), np.array([reward]), logistic,
        predicted,
    )  # fmt: skip
    told = predicted[0]
    assert np.array_equal(own_cov, own_cov.swapaxes(2, 3))
    assert np.array_equal(shared_cov, shared_cov.swapaxes(1, 2))
    assert np.array_equal(own_mean[0], before[0][0])
    for e in range(E):
        g, h = before[1][1, e] @ basis, before[3][e] @ product
        v, u, eta = g @ basis, h @ product, before[0][1, e] @ basis + before[2][e] @ product
        fade, other = (
            (1.0 / keep - 1.0) * max(0.0, 1.0 - a / (phi**2 @ prior))
            if phi.size and keep < 1.0
            else 0.0
            for a, phi, prior in ((v, basis, own_prior[e]), (u, product, shared_prior[e]))
        )
        total = v * (1.0 + fade) + u * (1.0 + other)
        if logistic:
            slope, curvature = kernels.newton(eta, total, reward)
            mode = eta + total * slope
            assert reward - sigmoid(mode) == pytest.approx(slope, abs=1e-6)
        else:
            slope, curvature = (reward - eta) / (1.0 + total), 1.0 / (1.0 + total)
            assert told[e] == pytest.approx((reward - eta) ** 2 / (1.0 + total))
        mean, cov = learned(
            before[0][1, e], before[1][1, e], g, slope, curvature, 1.0 + fade, fade / v
        )
        close(own_mean[1, e], mean)
        close(own_cov[1, e], cov)
        if m:
            mean, cov = learned(
                before[2][e], before[3][e], h, slope, curvature, 1.0 + other, other / u
            )
            close(shared_mean[e], mean)
            close(shared_cov[e], cov)


class Folded:
    """A model of two actions, one that forgets beside it, and n examples of which many columns are
    0."""

    def __init__(self, seed: int, r: int, q: int, n: int) -> None:
        rng = np.random.default_rng(seed)
        p, m = rng.integers(0, 4), r * q
        self.priors = 0.5 + rng.random((1, p)), 0.5 + rng.random((1, m))
        self.models = []
        for _ in range(2):
            own, shared = (np.eye(prior.size) * prior[0] for prior in self.priors)
            means = np.zeros((2, 1, p)), np.zeros((1, m))
            covs = np.array([[own], [own]]), np.array([shared])
            self.models.append((means[0], covs[0], means[1], covs[1]))
        self.keeps = np.ones(1), np.full(1, 0.5)
        sparse = rng.random((n, q)) < 0.4
        self.told: tuple[Any, ...] = (
            rng.integers(0, 2, n), rng.normal(size=(n, p)), rng.normal(size=(n, r)),
            rng.normal(size=(n, q)) * sparse, rng.random(n),
        )  # fmt: skip
        self.lead = np.zeros(2)

    def learn(self, which: int, n: int, until: int) -> np.ndarray:
        """Examples from one to another, in one call; what was predicted."""
        own_mean, own_cov, shared_mean, shared_cov = self.models[which]
        own_prior, shared_prior = self.priors
        predicted = np.empty((until - n, 1))
        rows, bases, contexts, features, rewards = (column[n:until] for column in self.told)
        kernels.learn_each(
            own_mean, own_cov, own_prior, shared_mean, shared_cov, shared_prior, self.keeps[which],
            rows, bases, contexts, features, rewards, True, predicted,
        )  # fmt: skip
        return predicted[:, 0]

    def learn_beside(self, ahead: float, every: int) -> int:
        """All of them with both; how many were learned."""
        (own_mean, own_cov, shared_mean, shared_cov), recent = self.models
        return kernels.learn_beside(
            own_mean, own_cov, self.priors[0], shared_mean, shared_cov, self.priors[1],
            self.keeps[0], *recent, self.keeps[1], *self.told, self.lead, ahead, every,
        )  # fmt: skip


@given(seed=SEEDS, r=st.integers(1, 5), q=st.integers(1, 8), n=st.integers(1, 70))
def test_examples_of_one_call_are_learned_as_one_after_the_other(seed, r, q, n):
    whole, single, both = (Folded(seed, r, q, n) for _ in range(3))
    for which in range(2):
        predicted = whole.learn(which, 0, n)
        told = [single.learn(which, i, i + 1)[0] for i in range(n)]
        assert predicted.tolist() == told
    assert both.learn_beside(1e9, n + 1) == n
    for other in (single, both):
        for one, same in zip(whole.models, other.models, strict=True):
            for array, equal in zip(one, same, strict=True):
                assert array.tobytes() == equal.tobytes()


@given(seed=SEEDS, every=st.integers(1, 20))
def test_who_predicts_better_by_far_is_told_after_so_many_examples(seed, every):
    n, ahead = 60, 0.5
    folded, single = Folded(seed, 2, 3, n), Folded(seed, 2, 3, n)
    learned = folded.learn_beside(ahead, every)
    lead, rewards = 0.0, single.told[-1]
    for i in range(n):
        p, q = (single.learn(which, i, i + 1)[0] for which in range(2))
        scores = [
            rewards[i] * np.log(one) + (1.0 - rewards[i]) * np.log(1.0 - one) for one in (p, q)
        ]
        lead = max(0.0, lead + scores[1] - scores[0])
        if (i + 1) % every == 0 and lead > ahead:
            break
    assert learned == i + 1
    assert folded.lead == pytest.approx([lead, (i + 1) % every], abs=1e-9)


@given(seed=SEEDS, K=st.integers(1, 60), q=st.integers(1, 5), singular=st.booleans())
def test_joint_samples_have_the_covariance_they_are_drawn_from(seed, K, q, singular):
    rng = np.random.default_rng(seed)
    common = covariance(rng, q)
    if singular:
        common[:, 0] = common[0] = 0.0
    Z, own, mean, rank = (
        rng.normal(size=(K, q)),
        rng.random(K),
        rng.normal(size=K),
        rng.permutation(K),
    )
    normals = rng.normal(size=(q + K, 7))
    L = sampling.root(common)
    close(L @ L.T, common)
    draws = sampling.sample(mean, own, common, Z, normals, rank, 0.3)
    half = 0.3 * (Z @ L @ normals[:q] + np.sqrt(own)[:, None] * normals[q + rank])
    close(draws, mean[:, None] + np.concatenate([half, -half], axis=1))
    remaining = rng.choice(K, rng.integers(1, K + 1), replace=False)
    wins = np.bincount(draws[remaining].argmax(axis=0), minlength=len(remaining))
    close(sampling.shares(draws, remaining), (wins + 1.0 / len(remaining)) / (draws.shape[1] + 1.0))
    assert sampling.shares(draws, remaining[:1]).tolist() == [1.0]


@given(seed=SEEDS, K=st.integers(1, 300), spread=st.floats(0.0, 2.0), gap=st.floats(0.0, 20.0))
def test_who_wins_among_independent_scores_is_what_the_error_function_says(seed, K, spread, gap):
    rng = np.random.default_rng(seed)
    mean, sd = gap * rng.normal(size=K), np.exp(spread * rng.normal(size=K))
    p = sampling.wins(mean, sd)
    close(p, numpy_kernels.wins(mean, sd))
    assert (p >= 0.0).all()


@given(st.lists(st.floats(-8.5, 36.0), min_size=1, max_size=40))
def test_normal_probabilities_and_densities_are_those_of_scipy(z):
    z = np.array(z)
    below, density, work = np.empty((3, z.size))
    sampling.normal_into(z, below, density, work)
    np.testing.assert_allclose(below, 0.5 * erfc(-z * np.sqrt(0.5)), rtol=2e-14)
    np.testing.assert_allclose(density, np.exp(-0.5 * z * z), rtol=2e-13)


PROGRAM = """
import numpy as np
from topbill.policies.linear import sampling
rng = np.random.default_rng(0)
draws = rng.normal(size=(40, 128))
print(sampling.wins(rng.normal(size=9), np.exp(rng.normal(size=9))).tobytes().hex())
print(sampling.shares(draws, np.arange(40)).tobytes().hex())
"""


def run(folder: Path, **environment: str) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "XDG", "HOME"))}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=kept | {"PYTHONPATH": str(folder)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_processes_that_compile_at_once_and_one_that_cannot_write_give_the_same_bits(tmp_path):
    source = Path(topbill.__file__).parent
    fresh, sealed = tmp_path / "fresh", tmp_path / "sealed"
    for folder in (fresh, sealed):
        shutil.copytree(source, folder / "topbill", ignore=shutil.ignore_patterns("__pycache__"))
    # A file in the folder's place cannot be written into, not even by root.
    (sealed / "topbill" / "policies" / "linear" / "__pycache__").touch()
    (sealed / "home").touch()
    started = [run(fresh), run(fresh), run(sealed, HOME=str(sealed / "home"))]
    ended = [(process.communicate(timeout=300), process.returncode) for process in started]
    assert [code for _, code in ended] == [0, 0, 0], ended
    assert len({out for (out, _), _ in ended}) == 1
    assert list((fresh / "topbill" / "policies" / "linear" / "__pycache__").glob("sampling.*.nbc"))
    assert not list(sealed.rglob("*.nbc"))
    again = run(fresh)
    assert again.communicate(timeout=300)[0] == ended[0][0][0]


@given(seed=SEEDS, p=SIZES, share=st.floats(0.0, 1.0))
def test_what_is_zero_adds_nothing_to_the_last_bit(seed, p, share):
    rng = np.random.default_rng(seed)
    cov = covariance(rng, p)
    phi = np.where(rng.random(p) < share, 0.0, rng.normal(size=p))
    g, plain = np.full(p, np.nan), np.zeros(p)
    kernels.gain(cov, phi, g)
    for i in range(p):
        plain += phi[i] * cov[i]
    if IS_COMPILED:
        assert g.tobytes() == plain.tobytes()
    close(g, plain)
