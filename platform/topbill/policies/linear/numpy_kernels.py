"""What stands in for compiled functions where Numba is not installed: the same arithmetic over
whole arrays.

`compiled` takes the function of the same name from here. Those that have none here run as Python:
they loop over a handful of models and call these. Sums are added up in another order than the
compiled ones, so that the last bits differ; probabilities agree to 1e-12.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import erfc

from topbill.domain.chance import inverse_gap as inverse_gap
from topbill.domain.records import Floats, Indices
from topbill.policies.linear.chances import expected_rewards as expected_rewards


def dot(a: Floats, b: Floats) -> float:
    """Σ a·b of two vectors (p,)."""
    return float(a @ b)


def gain(cov: Floats, phi: Floats, g: Floats) -> float:
    """C·φ into `g` (p,), and φᵀ·C·φ."""
    np.matmul(phi, cov, out=g)
    return float(g @ phi)


def absorb(mean: Floats, cov: Floats, g: Floats, slope: float, curvature: float) -> None:
    """mean += slope·g and C −= curvature·g gᵀ, in place; `g` is scaled on the way."""
    mean += slope * g
    g *= math.sqrt(abs(curvature))
    # Entries (i, j) and (j, i) of an outer product with itself are the very same number.
    cov -= math.copysign(1.0, curvature) * np.multiply.outer(g, g)


def faded(keep: float, variance: float, phi: Floats, prior: Floats) -> float:
    """By what share the variance along φ grows before an update."""
    if keep == 1.0:
        return 0.0
    most = float((phi * phi) @ prior)
    if most == 0.0:
        return 0.0
    return (1.0 / keep - 1.0) * max(0.0, 1.0 - variance / most)


def together(
    cov: Floats,
    context: Floats,
    weight: float,
    room: Floats,  # noqa: ARG001  # where the compiled one adds up
    common: Floats,
) -> None:
    """Add weight·(c ⊗ I)ᵀ·C·(c ⊗ I) of shared weights to `common` (q × q), for a context c (r)."""
    r, q = context.size, common.shape[0]
    rows = np.tensordot(context, cov.reshape(r, q, r, q), axes=(0, 0))
    common += weight * np.tensordot(context, rows, axes=(0, 1))


def predict(
    own_mean: Floats,
    own_cov: Floats,
    shared_mean: Floats,
    shared_cov: Floats,
    weights: Floats,
    rows: Indices,
    basis: Floats,
    context: Floats,
    Z: Floats,
    mean: Floats,
    own: Floats,
    common: Floats,
) -> None:
    """Add what E models with `weights` (E) expect of K actions to `mean` (K), `own` (K) and
    `common` (q × q).
    """
    q = Z.shape[1]
    if shared_mean.shape[1]:
        coefficients = np.zeros(q)
        for e in np.flatnonzero(weights > 0.0):
            coefficients += weights[e] * (context @ shared_mean[e].reshape(context.size, q))
            together(shared_cov[e], context, weights[e], coefficients, common)
        mean += Z @ coefficients
    mean += (own_mean[rows] @ basis) @ weights
    # Actions that nobody has seen share row 0: each row is evaluated once, not once an action.
    unique, positions = np.unique(rows, return_inverse=True)
    # The quadratic form of each model at each row; one call multiplies them all.
    forms = (own_cov[unique] @ basis) @ basis
    variance = forms @ weights
    own += variance[positions]


def variances(own: Floats, common: Floats, Z: Floats) -> Floats:
    """(K,) own + zᵀ·common·z of each action."""
    return np.asarray(np.maximum(own + ((Z @ common) * Z).sum(axis=1), 1e-300))


def bounds(
    mean: Floats, own: Floats, common: Floats, Z: Floats, noise: float, alpha: float
) -> Floats:
    """(K,) mean + alpha·sd of each action, its variance being `noise` times that of `variances`."""
    return np.asarray(mean + alpha * np.sqrt(variances(own, common, Z) * noise))


def root(common: Floats) -> Floats:
    """The lower L with L·Lᵀ = common (q × q, positive semi-definite); directions without variance
    get a zero column.
    """
    q = common.shape[0]
    L = np.zeros((q, q))
    for j in range(q):
        remaining = common[j, j] - L[j] @ L[j]
        if remaining > 1e-14 * common[j, j]:
            L[j, j] = math.sqrt(remaining)
            L[j + 1 :, j] = (common[j + 1 :, j] - L[j + 1 :] @ L[j]) / L[j, j]
    return L


def sample(
    mean: Floats,
    own: Floats,
    common: Floats,
    Z: Floats,
    normals: Floats,
    rank: Indices,
    scale: float,
) -> Floats:
    """(K × 2n) draws from N(mean, scale²·(diag(own) + Z·common·Zᵀ)), antithetic in pairs."""
    q = Z.shape[1]
    shared = (Z @ root(common)) @ normals[:q]
    alone = np.sqrt(np.maximum(own, 0.0))[:, None] * normals[q + rank]
    half = scale * (shared + alone)
    return np.concatenate([mean[:, None] + half, mean[:, None] - half], axis=1)


def shares(draws: Floats, remaining: Indices) -> Floats:
    """(len(remaining),) shares of wins of those rows among `draws` (K × n), lifted so that none is
    at zero.
    """
    size, n = len(remaining), draws.shape[1]
    # The first of equals wins, as in the compiled loop.
    winners = draws[remaining].argmax(axis=0)
    return np.asarray((np.bincount(winners, minlength=size) + 1.0 / size) / (1.0 + n))


def wins(mean: Floats, sd: Floats) -> Floats:
    """(K,) P(score k is the highest) for independent scores N(mean, sd²), K ≥ 1, sd > 0."""
    reach, ramp, stride = 6.0, 0.1, 0.45
    lo, hi = (mean - reach * sd).max(), (mean + reach * sd).max()
    finest = float((sd[mean + reach * sd >= lo] / ramp).min())
    top = math.asinh((hi - lo) / finest) / ramp
    n = int(top / stride) + 2
    u = np.arange(n) * (ramp * top / (n - 1))
    z = (lo + finest * np.sinh(u)[:, None] - mean) / sd
    # From 8.3 standard deviations on, Φ rounds to 1.
    below = np.where(z < 8.3, 0.5 * erfc(-z * math.sqrt(0.5)), 1.0)
    weight = np.cosh(u) * below.prod(axis=1)
    p = (weight[:, None] * np.exp(-0.5 * z * z) / (below * sd)).sum(axis=0)
    return np.asarray(p / p.sum())
