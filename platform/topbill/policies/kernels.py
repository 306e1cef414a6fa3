"""What a policy computes per decision and per example, compiled: the only module that imports Numba.

Covariances are read where they lie, row by row, and stay symmetric to the last bit. Each function has one signature and
is compiled, or read from the cache on disk, when this module is imported: so no request ever waits for a compiler, and
processes that compile at the same time write the same files. Floating point is strict (no fastmath): a machine gives
the same bits in every process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from topbill.records import Floats, Indices

F = TypeVar("F", bound=Callable[..., Any])
_1, _2 = numba.float64[::1], numba.float64[:, ::1]
_3, _4 = numba.float64[:, :, ::1], numba.float64[:, :, :, ::1]
_rows = numba.types.Array(numba.intp, 1, "A", readonly=True)
_number, _flag, _row, _none = numba.float64, numba.boolean, numba.intp, numba.void

_FLOOR = 1e-12
"""The least variance that a step divides by."""


def compiled(signature: Any) -> Callable[[F], F]:
    """Compile for one signature; without a folder that can hold the cache, in memory only."""

    def decorate(function: F) -> F:
        for cache in (True, False):
            try:
                return cast(F, numba.njit(signature, cache=cache, error_model="numpy")(function))
            except (RuntimeError, OSError):  # no writable folder, or no space left in it
                if not cache:
                    raise
        return function

    return decorate


@compiled(_number(_1, _1))
def dot(a: Floats, b: Floats) -> float:
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


@compiled(_number(_2, _1, _1))
def gain(cov: Floats, phi: Floats, g: Floats) -> float:
    """C·φ into `g` (p,), and φᵀ·C·φ."""
    g[:] = 0.0
    for i in range(phi.size):
        for j in range(phi.size):
            g[j] += phi[i] * cov[i, j]
    return dot(g, phi)


@compiled(_none(_1, _2, _1, _number, _number))
def absorb(mean: Floats, cov: Floats, g: Floats, slope: float, curvature: float) -> None:
    """mean += slope·g and C −= curvature·g gᵀ (Sherman and Morrison 1950), in place; `g` is scaled on the way.

    Both factors carry the root of the curvature, so that entries (i, j) and (j, i) get the very same number.
    """
    size, sign = math.sqrt(abs(curvature)), math.copysign(1.0, curvature)
    for i in range(g.size):
        mean[i] += slope * g[i]
        g[i] *= size
    for i in range(g.size):
        scaled = sign * g[i]
        for j in range(g.size):
            cov[i, j] -= scaled * g[j]


@compiled(_number(_number))
def sigmoid(eta: float) -> float:
    """The logistic function, safe for any finite eta."""
    return 1.0 / (1.0 + math.exp(-eta)) if eta >= 0.0 else 1.0 - 1.0 / (1.0 + math.exp(eta))


@compiled("UniTuple(float64, 2)(float64, float64, float64)")
def newton(mean: float, variance: float, reward: float) -> tuple[float, float]:
    """Slope and curvature of the Laplace step of a logistic likelihood along one direction.

    Solves η = m + v·(r − σ(η)) for the posterior mode; slope = r − σ(η), curvature = h/(1 + h·v) with
    h = σ′(η). Newton's steps are damped by the convexity of the problem; a handful converges.
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


@compiled(_number(_number, _number, _1, _1))
def faded(keep: float, variance: float, phi: Floats, prior: Floats) -> float:
    """By what share the variance along φ grows before an update.

    Directional forgetting (Kulhavý 1987): evidence fades only where new evidence comes in, and only as far as the
    prior, so that confident predictions don't wind variances up.
    """
    if keep == 1.0:
        return 0.0
    most = 0.0
    for i in range(phi.size):
        most += phi[i] * phi[i] * prior[i]
    return (1.0 / keep - 1.0) * max(0.0, 1.0 - variance / most)


@compiled(_none(_3, _4, _2, _2, _3, _2, _1, _row, _1, _1, _number, _flag, _1))
def learn(
    own_mean: Floats,
    own_cov: Floats,
    own_prior: Floats,
    shared_mean: Floats,
    shared_cov: Floats,
    shared_prior: Floats,
    keep: Floats,
    row: int,
    basis: Floats,
    product: Floats,
    reward: float,
    logistic: bool,
    told: Floats,
) -> None:
    """Fold a reward in [0, 1] of the action at `row` into E experts, in place.

    An action's own weights (rows × E × p) are over `basis` (p), the shared ones (E × m) over `product` (m); either may
    be empty. `told` (E,) gets the probability that each expert gave before (logistic link), or its squared error in
    units of the predictive variance (linear link).
    """
    g, common = np.empty(basis.size), np.empty(product.size)
    for e in range(keep.size):
        own_variance = gain(own_cov[row, e], basis, g)
        shared_variance = gain(shared_cov[e], product, common)
        mean = dot(own_mean[row, e], basis) + dot(shared_mean[e], product)
        v, u = max(own_variance, _FLOOR), max(shared_variance, _FLOOR)
        fade, shared_fade = faded(keep[e], v, basis, own_prior[e]), faded(keep[e], u, product, shared_prior[e])
        grown, shared_grown = 1.0 + fade, 1.0 + shared_fade
        if logistic:
            slope, curvature = newton(mean, own_variance * grown + shared_variance * shared_grown, reward)
            told[e] = sigmoid(mean)
        else:
            total = 1.0 + own_variance * grown + shared_variance * shared_grown
            slope, curvature = (reward - mean) / total, 1.0 / total
            told[e] = (reward - mean) * slope
        absorb(own_mean[row, e], own_cov[row, e], g, slope * grown, curvature * grown * grown - fade / v)
        absorb(
            shared_mean[e],
            shared_cov[e],
            common,
            slope * shared_grown,
            curvature * shared_grown * shared_grown - shared_fade / u,
        )


@compiled(_none(_2, _1, _number, _2, _2))
def together(cov: Floats, context: Floats, weight: float, room: Floats, common: Floats) -> None:
    """Add weight·(c ⊗ I)ᵀ·C·(c ⊗ I) of shared weights to `common` (q × q), for a context c (r); `room` is (q × r·q)."""
    r, q = context.size, common.shape[0]
    room[:] = 0.0
    for i in range(r):
        c = weight * context[i]
        for a in range(q):
            for j in range(r * q):
                room[a, j] += c * cov[i * q + a, j]
    for a in range(q):
        for i in range(r):
            for b in range(q):
                common[a, b] += context[i] * room[a, i * q + b]


@compiled(_none(_3, _4, _2, _3, _1, _rows, _1, _1, _2, _1, _1, _2))
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
    """Add what E experts with `weights` (E) expect of K actions to `mean` (K), `own` (K) and `common` (q × q).

    The variance of an action's score is own + zᵀ·common·z, with z (q) its row of Z, (1, features).
    """
    q, E = Z.shape[1], weights.size
    coefficients, g, mixed = np.zeros(q), np.empty(basis.size), np.empty((basis.size, basis.size))
    room = np.empty((q, shared_mean.shape[1]))
    for e in range(E):
        if weights[e] > 0.0 and shared_mean.shape[1]:
            for i in range(context.size):
                for a in range(q):
                    coefficients[a] += weights[e] * context[i] * shared_mean[e, i * q + a]
            together(shared_cov[e], context, weights[e], room, common)
    flat, into = own_cov.reshape((own_cov.shape[0], E, mixed.size)), mixed.ravel()
    for k in range(rows.size):
        row = rows[k]
        for a in range(q):
            mean[k] += Z[k, a] * coefficients[a]
        for e in range(E):
            mean[k] += weights[e] * dot(own_mean[row, e], basis)
        if E == 1:
            own[k] += weights[0] * gain(own_cov[row, 0], basis, g)
            continue
        # One blended form to evaluate instead of E.
        into[:] = 0.0
        for e in range(E):
            if weights[e] > 0.0:
                for i in range(into.size):
                    into[i] += weights[e] * flat[row, e, i]
        own[k] += gain(mixed, basis, g)


@compiled(_1(_1, _2, _2))
def variances(own: Floats, common: Floats, Z: Floats) -> Floats:
    """(K,) own + zᵀ·common·z of each action."""
    out = np.empty(own.size)
    for k in range(own.size):
        total = own[k]
        for a in range(Z.shape[1]):
            for b in range(Z.shape[1]):
                total += Z[k, a] * Z[k, b] * common[a, b]
        out[k] = max(total, 1e-300)
    return out


@compiled(_2(_2))
def root(common: Floats) -> Floats:
    """The lower L with L·Lᵀ = common (q × q, positive semi-definite); directions without variance get a zero column."""
    q = common.shape[0]
    L = np.zeros((q, q))
    for j in range(q):
        left = common[j, j] - dot(L[j], L[j])
        if left > 1e-14 * common[j, j]:
            L[j, j] = math.sqrt(left)
            for i in range(j + 1, q):
                L[i, j] = (common[i, j] - dot(L[i], L[j])) / L[j, j]
    return L


@compiled(_2(_1, _1, _2, _2, _2, _rows, _number))
def sample(
    mean: Floats, own: Floats, common: Floats, Z: Floats, normals: Floats, rank: Indices, scale: float
) -> Floats:
    """(K × 2n) draws from N(mean, scale²·(diag(own) + Z·common·Zᵀ)), antithetic in pairs.

    `normals` (q + K × n): the first q rows drive what actions share, row q + rank[k] what is action k's own.
    """
    (K, q), n = Z.shape, normals.shape[1]
    L, out = root(common), np.empty((K, 2 * n))
    for k in range(K):
        draws = out[k]
        spread = scale * math.sqrt(max(own[k], 0.0))
        for s in range(n):
            draws[s] = spread * normals[q + rank[k], s]
        for b in range(q):
            c = 0.0
            for a in range(b, q):
                c += Z[k, a] * L[a, b]
            c *= scale
            for s in range(n):
                draws[s] += c * normals[b, s]
        for s in range(n):
            draws[n + s] = mean[k] - draws[s]
            draws[s] += mean[k]
    return out


@compiled(_1(_2, _rows))
def shares(draws: Floats, remaining: Indices) -> Floats:
    """(len(remaining),) shares of wins of those rows among `draws` (K × n), lifted so that none is at zero.

    The lift mixes with even chances, as if one more draw were shared by all.
    """
    n, size = draws.shape[1], remaining.size
    best, who = draws[remaining[0]].copy(), np.zeros(draws.shape[1])
    for j in range(1, size):
        row = draws[remaining[j]]
        for s in range(n):
            better = row[s] > best[s]
            best[s] = row[s] if better else best[s]
            who[s] = j if better else who[s]
    out = np.full(size, 1.0 / size)
    for s in range(n):
        out[int(who[s])] += 1.0
    for j in range(size):
        out[j] /= 1.0 + n  # counted first: the only one that remains then has 1, and not a trifle more
    return out


@compiled(_1(_1, _1))
def wins(mean: Floats, sd: Floats) -> Floats:
    """(K,) P(score k is the highest) for independent scores N(mean, sd²), K ≥ 1, sd > 0; sums to 1.

    P_k = ∫ φ_k(t) ∏_{j≠k} Φ_j(t) dt by the trapezoid rule on one grid for all k. The highest score almost surely
    exceeds lo = max(mean − 6·sd), and above lo no score that matters has structure finer than a twelfth of its
    distance to lo; so t = lo + a·sinh(u) with even steps in u resolves narrow and wide scores alike, and the
    rule converges exponentially (Trefethen and Weideman 2014). Above lo no Φ underflows.
    """
    K, reach, ramp, stride = mean.size, 6.0, 0.1, 0.45
    lo, hi = (mean - reach * sd).max(), (mean + reach * sd).max()
    finest = math.inf
    for k in range(K):
        if mean[k] + reach * sd[k] >= lo:
            finest = min(finest, sd[k] / ramp)
    top = math.asinh((hi - lo) / finest) / ramp
    n = int(top / stride) + 2
    p, below, density, total = np.zeros(K), np.empty(K), np.empty(K), 0.0
    for i in range(n):
        u = i * (ramp * top / (n - 1))
        t, weight = lo + finest * math.sinh(u), math.cosh(u)
        for k in range(K):
            z = (t - mean[k]) / sd[k]
            # From 8.3 standard deviations on, rounding leaves 1 and nothing.
            below[k] = 0.5 * math.erfc(-z * math.sqrt(0.5)) if z < 8.3 else 1.0
            density[k] = math.exp(-0.5 * z * z) if z < 8.3 else 0.0
            weight *= below[k]
        for k in range(K):
            p[k] += weight * density[k] / (below[k] * sd[k])
    for k in range(K):
        total += p[k]
    for k in range(K):
        p[k] /= total
    return p
