"""Who wins, compiled: the shares of wins among joint samples of scores, and the exact ones of
independent scores.
"""

from __future__ import annotations

import math

import numpy as np

from topbill.domain.records import Indices
from topbill.policies.linear.compiled import Matrix, Vector, compiled, part
from topbill.policies.linear.kernels import dot


@part
def root(common: Matrix) -> Matrix:
    """The lower L with L·Lᵀ = common (q × q, positive semi-definite); directions without variance
    get a zero column.
    """
    q = common.shape[0]
    L = np.zeros((q, q))
    for j in range(q):
        remaining = common[j, j] - dot(L[j], L[j])
        if remaining > 1e-14 * common[j, j]:
            L[j, j] = math.sqrt(remaining)
            for i in range(j + 1, q):
                L[i, j] = (common[i, j] - dot(L[i], L[j])) / L[j, j]
    return L


@part
def sample_into(
    mean: Vector,
    own: Vector,
    common: Matrix,
    Z: Matrix,
    normals: Matrix,
    rank: Indices,
    scale: float,
    out: Matrix,
) -> None:
    """What `sample` returns, into `out`."""
    (K, q), n = Z.shape, normals.shape[1]
    # Apart from `out`, so that a processor adds several at a time.
    L, line = root(common), np.empty(n)
    for k in range(K):
        spread, own_normals = scale * math.sqrt(max(own[k], 0.0)), q + rank[k]
        for s in range(n):
            line[s] = spread * normals[own_normals, s]
        for b in range(q):
            pull = 0.0
            for a in range(b, q):
                pull += Z[k, a] * L[a, b]
            pull *= scale
            for s in range(n):
                line[s] += pull * normals[b, s]
        for s in range(n):
            out[k, s] = line[s] + mean[k]
            out[k, n + s] = mean[k] - line[s]


@compiled
def sample(
    mean: Vector,
    own: Vector,
    common: Matrix,
    Z: Matrix,
    normals: Matrix,
    rank: Indices,
    scale: float,
) -> Matrix:
    """(K × 2n) draws from N(mean, scale²·(diag(own) + Z·common·Zᵀ)), antithetic in pairs.

    `normals` (q + K × n): the first q rows drive what actions share, row q + rank[k] what is action
    k's own.
    """
    out = np.empty((mean.size, 2 * normals.shape[1]))
    sample_into(mean, own, common, Z, normals, rank, scale, out)
    return out


@part
def count_winners(draws: Matrix, remaining: Indices, counts: Vector) -> None:
    """Count into `counts` (len(remaining),), zeros, how often each of those rows has the highest
    of `draws` (K × n); the first of equals has it.
    """
    n = draws.shape[1]
    # Floats beside floats: a processor compares and keeps several at a time.
    best, who = draws[remaining[0]].copy(), np.zeros(n)
    for j in range(1, remaining.size):
        row = draws[remaining[j]]
        for s in range(n):
            better = row[s] > best[s]
            best[s] = row[s] if better else best[s]
            who[s] = j if better else who[s]
    for s in range(n):
        counts[int(who[s])] += 1.0


@part
def shares_of(counts: Vector, n: int) -> Vector:
    """(K,) the shares of n wins, with one more that all have an equal part of."""
    out = np.empty(counts.size)
    for j in range(counts.size):
        # Counted first: the only one that remains then has 1, and not a trifle more.
        out[j] = (counts[j] + 1.0 / counts.size) / (1.0 + n)
    return out


@compiled
def shares(draws: Matrix, remaining: Indices) -> Vector:
    """(len(remaining),) shares of wins of those rows among `draws` (K × n), lifted so that none is
    at zero.

    The lift mixes with even chances, as if one more draw were shared by all.
    """
    counts = np.zeros(remaining.size)
    count_winners(draws, remaining, counts)
    return shares_of(counts, draws.shape[1])


@compiled
def inverse_gap(scores: Vector, gamma: float) -> Vector:
    """`domain.chance.inverse_gap` of as many scores."""
    p, size, highest, ties, others = np.empty(scores.size), scores.size, scores[0], 0, 0.0
    for score in scores:
        highest = max(highest, score)
    for i in range(size):
        gap = highest - scores[i]
        p[i] = 0.0 if gap == 0.0 else 1.0 / (size + gamma * gap)
        others += p[i]
        ties += gap == 0.0
    for i in range(size):
        if scores[i] == highest:
            p[i] = (1.0 - others) / ties
    return p


@compiled
def wins(mean: Vector, sd: Vector) -> Vector:
    """(K,) P(score k is the highest) for independent scores N(mean, sd²), K ≥ 1, sd > 0; sums to 1.

    P_k = ∫ φ_k(t) ∏_{j≠k} Φ_j(t) dt by the trapezoid rule on one grid for all k. The highest score
    almost surely exceeds lo = max(mean − 6·sd), and above lo no score that matters has structure
    finer than a twelfth of its distance to lo; so t = lo + a·sinh(u) with even steps in u resolves
    narrow and wide scores alike, and the rule converges exponentially (Trefethen and Weideman
    2014). Above lo no Φ underflows.
    """
    K, reach, ramp, stride = mean.size, 6.0, 0.1, 0.45
    lo, hi, finest = -math.inf, -math.inf, math.inf
    for k in range(K):
        lo, hi = max(lo, mean[k] - reach * sd[k]), max(hi, mean[k] + reach * sd[k])
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
            # From 8.3 standard deviations on, Φ rounds to 1.
            below[k] = 0.5 * math.erfc(-z * math.sqrt(0.5)) if z < 8.3 else 1.0
            density[k] = math.exp(-0.5 * z * z)
            weight *= below[k]
        for k in range(K):
            p[k] += weight * density[k] / (below[k] * sd[k])
    for k in range(K):
        total += p[k]
    for k in range(K):
        p[k] /= total
    return p
