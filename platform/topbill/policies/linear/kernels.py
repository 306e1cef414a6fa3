"""What the Bayesian models compute per decision and per example, compiled.

Covariances are read where they lie, row by row, and stay symmetric to the last bit.
"""

from __future__ import annotations

import math

import numpy as np

from topbill.domain.records import Indices
from topbill.policies.linear.compiled import (
    Cube,
    Cubes,
    Matrix,
    Places,
    Vector,
    compiled,
    part,
)

_FLOOR = 1e-12
"""The least variance that a step divides by, and the least probability that a logarithm is taken
of."""


@part
def dot(a: Vector, b: Vector) -> float:
    """Σ a·b of two vectors (p,), over four sums that the processor adds side by side."""
    p = a.size
    s0 = s1 = s2 = s3 = 0.0
    for i in range(0, p - 3, 4):
        s0 += a[i] * b[i]
        s1 += a[i + 1] * b[i + 1]
        s2 += a[i + 2] * b[i + 2]
        s3 += a[i + 3] * b[i + 3]
    for i in range(p - p % 4, p):
        s0 += a[i] * b[i]
    return (s0 + s1) + (s2 + s3)


@part
def gain(cov: Matrix, phi: Vector, g: Vector) -> float:
    """C·φ into `g` (p,), and φᵀ·C·φ."""
    g[:] = 0.0
    for i in range(phi.size):
        # Most are 0 where features are categories and genres, and add nothing, to the last bit.
        if phi[i] != 0.0:
            for j in range(phi.size):
                g[j] += phi[i] * cov[i, j]
    return dot(g, phi)


@part
def absorb(mean: Vector, cov: Matrix, g: Vector, slope: float, curvature: float) -> None:
    """mean += slope·g and C −= curvature·g gᵀ (Sherman and Morrison 1950), in place; `g` is scaled
    on the way.

    Both factors carry the root of the curvature, so that entries (i, j) and (j, i) get the very
    same number.
    """
    size, sign = math.sqrt(abs(curvature)), math.copysign(1.0, curvature)
    for i in range(g.size):
        mean[i] += slope * g[i]
        g[i] *= size
    for i in range(g.size):
        scaled = sign * g[i]
        for j in range(g.size):
            cov[i, j] -= scaled * g[j]


@part
def sigmoid(eta: float) -> float:
    """The logistic function, safe for any finite eta."""
    return 1.0 / (1.0 + math.exp(-eta)) if eta >= 0.0 else 1.0 - 1.0 / (1.0 + math.exp(eta))


@part
def newton(mean: float, variance: float, reward: float) -> tuple[float, float]:
    """Slope and curvature of the Laplace step of a logistic likelihood along one direction.

    Solves η = m + v·(r − σ(η)) for the posterior mode; slope = r − σ(η), curvature = h/(1 + h·v)
    with h = σ′(η). Newton's steps are damped by the convexity of the problem; a handful converges.
    """
    eta, p = mean, sigmoid(mean)
    for _ in range(20):
        step = (mean + variance * (reward - p) - eta) / (1.0 + variance * p * (1.0 - p))
        eta += max(-2.0, min(2.0, step))
        p = sigmoid(eta)
        if abs(step) < 1e-6:
            break
    h = p * (1.0 - p)
    return reward - p, h / (1.0 + h * variance)


@part
def faded(keep: float, variance: float, phi: Vector, prior: Vector) -> float:
    """By what share the variance along φ grows before an update.

    Directional forgetting (Kulhavý 1987): evidence fades only where new evidence comes in, and only
    as far as the prior, so that confident predictions don't wind variances up.
    """
    if keep == 1.0:
        return 0.0
    most = 0.0
    for i in range(phi.size):
        most += phi[i] * phi[i] * prior[i]
    return (1.0 / keep - 1.0) * max(0.0, 1.0 - variance / most)


@compiled
def learn(
    own_mean: Cube,
    own_cov: Cubes,
    own_prior: Matrix,
    shared_mean: Matrix,
    shared_cov: Cube,
    shared_prior: Matrix,
    keep: Vector,
    row: int,
    basis: Vector,
    product: Vector,
    reward: float,
    logistic: bool,
    predicted: Vector,
) -> None:
    """Fold a reward in [0, 1] of the action at `row` into E experts, in place.

    An action's own weights (rows × E × p) are over `basis` (p), the shared ones (E × m) over
    `product` (m); either may be empty. `predicted` (E,) gets the probability that each expert gave
    before (logistic link), or its squared error in units of the predictive variance (linear link).
    """
    g, common = np.empty(basis.size), np.empty(product.size)
    for e in range(keep.size):
        own_variance = gain(own_cov[row, e], basis, g)
        shared_variance = gain(shared_cov[e], product, common)
        mean = dot(own_mean[row, e], basis) + dot(shared_mean[e], product)
        v, u = max(own_variance, _FLOOR), max(shared_variance, _FLOOR)
        fade, shared_fade = (
            faded(keep[e], v, basis, own_prior[e]),
            faded(keep[e], u, product, shared_prior[e]),
        )
        grown, shared_grown = 1.0 + fade, 1.0 + shared_fade
        if logistic:
            slope, curvature = newton(
                mean, own_variance * grown + shared_variance * shared_grown, reward
            )
            predicted[e] = sigmoid(mean)
        else:
            total = 1.0 + own_variance * grown + shared_variance * shared_grown
            slope, curvature = (reward - mean) / total, 1.0 / total
            predicted[e] = (reward - mean) * slope
        absorb(
            own_mean[row, e],
            own_cov[row, e],
            g,
            slope * grown,
            curvature * grown * grown - fade / v,
        )
        absorb(
            shared_mean[e],
            shared_cov[e],
            common,
            slope * shared_grown,
            curvature * shared_grown * shared_grown - shared_fade / u,
        )


@part
def multiply(context: Vector, features: Vector, product: Vector) -> None:
    """A context (r) ⊗ features (q) into `product` (r·q)."""
    q = features.size
    for i in range(product.size // q):
        for j in range(q):
            product[i * q + j] = context[i] * features[j]


@compiled
def learn_each(
    own_mean: Cube,
    own_cov: Cubes,
    own_prior: Matrix,
    shared_mean: Matrix,
    shared_cov: Cube,
    shared_prior: Matrix,
    keep: Vector,
    rows: Places,
    bases: Matrix,
    contexts: Matrix,
    features: Matrix,
    rewards: Vector,
    logistic: bool,
    predicted: Matrix,
) -> None:
    """`learn` for each of n examples, one after the other.

    The shared weights of one are over its context (n × r) ⊗ its features (n × q). `predicted` is
    (n × E).
    """
    product = np.empty(shared_prior.shape[1])
    for n in range(rows.size):
        multiply(contexts[n], features[n], product)
        learn(
            own_mean, own_cov, own_prior, shared_mean, shared_cov, shared_prior, keep,
            rows[n], bases[n], product, rewards[n], logistic, predicted[n],
        )  # fmt: skip


@part
def log_score(reward: float, p: float) -> float:
    """The log likelihood of a reward in [0, 1] that was expected with p."""
    p = min(max(p, _FLOOR), 1.0 - _FLOOR)
    return reward * math.log(p) + (1.0 - reward) * math.log(1.0 - p)


@compiled
def learn_beside(
    own_mean: Cube,
    own_cov: Cubes,
    own_prior: Matrix,
    shared_mean: Matrix,
    shared_cov: Cube,
    shared_prior: Matrix,
    keep: Vector,
    recent_own_mean: Cube,
    recent_own_cov: Cubes,
    recent_shared_mean: Matrix,
    recent_shared_cov: Cube,
    recent_keep: Vector,
    rows: Places,
    bases: Matrix,
    contexts: Matrix,
    features: Matrix,
    rewards: Vector,
    lead: Vector,
    ahead: float,
    every: int,
) -> int:
    """`learn` each of n examples with one expert, and with another of the same priors that forgets;
    link logistic. Returns how many were learned: all, or as many as it took until the other one was
    `ahead` when that was looked at, once in `every` examples.

    `lead` (2,) are the nats by which the other is ahead, and the examples since that was looked at.
    """
    product, told, recently = np.empty(shared_prior.shape[1]), np.empty(1), np.empty(1)
    for n in range(rows.size):
        multiply(contexts[n], features[n], product)
        learn(
            own_mean, own_cov, own_prior, shared_mean, shared_cov, shared_prior, keep,
            rows[n], bases[n], product, rewards[n], True, told,
        )  # fmt: skip
        learn(
            recent_own_mean, recent_own_cov, own_prior,
            recent_shared_mean, recent_shared_cov, shared_prior, recent_keep,
            rows[n], bases[n], product, rewards[n], True, recently,
        )  # fmt: skip
        gained = lead[0] + log_score(rewards[n], recently[0])
        lead[0] = max(0.0, gained - log_score(rewards[n], told[0]))
        lead[1] += 1.0
        if lead[1] == every:
            lead[1] = 0.0
            if lead[0] > ahead:
                return n + 1
    return rows.size


@part
def together(cov: Matrix, context: Vector, weight: float, room: Matrix, common: Matrix) -> None:
    """Add weight·(c ⊗ I)ᵀ·C·(c ⊗ I) of shared weights to `common` (q × q), for a context c (r);
    `room` is (q × r·q).
    """
    r, q = context.size, common.shape[0]
    room[:] = 0.0
    for i in range(r):
        scaled = weight * context[i]
        for a in range(q):
            for j in range(r * q):
                room[a, j] += scaled * cov[i * q + a, j]
    for a in range(q):
        for i in range(r):
            for b in range(q):
                common[a, b] += context[i] * room[a, i * q + b]


@part
def add_means(
    own_mean: Cube,
    shared_mean: Matrix,
    weights: Vector,
    rows: Indices,
    basis: Vector,
    context: Vector,
    Z: Matrix,
    mean: Vector,
) -> None:
    """The part of `predict` that adds to `mean`."""
    q, E = Z.shape[1], weights.size
    coefficients = np.zeros(q)
    for e in range(E):
        if weights[e] > 0.0 and shared_mean.shape[1]:
            for i in range(context.size):
                for a in range(q):
                    coefficients[a] += weights[e] * context[i] * shared_mean[e, i * q + a]
    for k in range(rows.size):
        row = rows[k]
        for a in range(q):
            mean[k] += Z[k, a] * coefficients[a]
        for e in range(E):
            mean[k] += weights[e] * dot(own_mean[row, e], basis)


@part
def add_common(shared_cov: Cube, weights: Vector, context: Vector, common: Matrix) -> None:
    """The part of `predict` that adds to `common`."""
    room = np.empty((common.shape[0], shared_cov.shape[1]))
    for e in range(weights.size):
        if weights[e] > 0.0 and shared_cov.shape[1]:
            together(shared_cov[e], context, weights[e], room, common)


@part
def add_own(own_cov: Cubes, weights: Vector, rows: Indices, basis: Vector, own: Vector) -> None:
    """The part of `predict` that adds to `own`."""
    E, g = weights.size, np.empty(basis.size)
    if E == 1:
        for k in range(rows.size):
            own[k] += weights[0] * gain(own_cov[rows[k], 0], basis, g)
        return
    mixed = np.empty((basis.size, basis.size))
    flat, into = own_cov.reshape((own_cov.shape[0], E, mixed.size)), mixed.ravel()
    for k in range(rows.size):
        # One blended form to evaluate instead of E.
        row, into[:] = rows[k], 0.0
        for e in range(E):
            weight = weights[e]
            if weight > 0.0:
                for i in range(into.size):
                    into[i] += weight * flat[row, e, i]
        own[k] += gain(mixed, basis, g)


@compiled
def predict(
    own_mean: Cube,
    own_cov: Cubes,
    shared_mean: Matrix,
    shared_cov: Cube,
    weights: Vector,
    rows: Indices,
    basis: Vector,
    context: Vector,
    Z: Matrix,
    mean: Vector,
    own: Vector,
    common: Matrix,
) -> None:
    """Add what E experts with `weights` (E) expect of K actions to `mean` (K), `own` (K) and
    `common` (q × q).

    The variance of an action's score is own + zᵀ·common·z, with z (q) its row of Z, (1, features).
    """
    add_means(own_mean, shared_mean, weights, rows, basis, context, Z, mean)
    add_common(shared_cov, weights, context, common)
    add_own(own_cov, weights, rows, basis, own)


@compiled
def variances(own: Vector, common: Matrix, Z: Matrix) -> Vector:
    """(K,) own + zᵀ·common·z of each action."""
    out = np.empty(own.size)
    for k in range(own.size):
        total = own[k]
        for a in range(Z.shape[1]):
            for b in range(Z.shape[1]):
                total += Z[k, a] * Z[k, b] * common[a, b]
        out[k] = max(total, 1e-300)
    return out


@compiled
def bounds(
    mean: Vector, own: Vector, common: Matrix, Z: Matrix, noise: float, alpha: float
) -> Vector:
    """(K,) mean + alpha·sd of each action, its variance being `noise` times that of `variances`."""
    out = variances(own, common, Z)
    for k in range(out.size):
        out[k] = mean[k] + alpha * math.sqrt(out[k] * noise)
    return out


@compiled
def expected_rewards(eta: Vector, logistic: bool) -> Vector:
    """(K,) the rewards that scores on the link scale stand for."""
    out = eta.copy()
    if logistic:
        for k in range(out.size):
            # Beyond 500 the exponential overflows, and the probability is 0 or 1 anyway. What is no
            # number stays none.
            if abs(out[k]) > 500.0:
                out[k] = math.copysign(500.0, out[k])
            out[k] = 1.0 / (1.0 + math.exp(-out[k]))
    return out
