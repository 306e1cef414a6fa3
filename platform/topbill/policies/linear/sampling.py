"""Who wins, compiled: the shares of wins among joint samples of scores, and the exact ones of
independent scores.
"""

from __future__ import annotations

import math

import numpy as np

from topbill.domain.records import Indices
from topbill.policies.linear.compiled import Matrix, Vector, compiled, part
from topbill.policies.linear.kernels import dot

_AT_ONCE = 256
"""Numbers that are looked at in one go: so many stay in a processor's nearest cache."""
_LN2, _LN2_REST = float.fromhex("0x1.62e42feep-1"), 1.90821492927058770002e-10
"""ln 2, with so few digits that its multiples are exact, and the rest of it."""
_DOUBLINGS = 1.0 / math.log(2.0)
_WHOLE = 1.5 * 2.0**52
_EXPONENT_OF_ONE = 1023 << 52
_EXP = tuple([1.0 / math.factorial(k) for k in range(3, 13)])
"""The series of exp from its third power on, for at most half of ln 2."""
_SCALE = 2.0 * (8.5 + 5.0) / 8.5
_MILLS = (
    0.49845871482726334,
    -0.06421151579258591,
    -0.00778326458212414,
    0.025738302086622724,
    -0.018348899001197374,
    0.008059762862934491,
    -0.002348505057485726,
    0.00039911015436116355,
    -7.240118319228565e-06,
    -1.3297131897957374e-05,
    2.002359244872213e-06,
    3.5349466439172394e-07,
    -1.0874265867452485e-07,
    -1.1498988213193798e-08,
    5.1504381508248815e-09,
    4.592000993199455e-10,
    -2.0085095731840404e-10,
)
"""(1 + x)·(1 − Φ(x))·exp(x²/2) as a polynomial, by Chebyshev interpolation."""


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


@part
def normal_into(z: Vector, below: Vector, density: Vector, work: Vector) -> None:
    """Φ(z) into `below`, and exp(−z²/2) into `density`, for z ≥ −8.5. All four are as long.

    By plain arithmetic, of which a processor does several numbers at a time, where `erfc` and `exp`
    take one by one: within 1e-14 and 1e-15 of them. Φ is the density times what Mills' ratio is a
    part of, a polynomial in x/(x + 5) over 1 + x (Shepherd and Laframboise 1981, with x up to 8.5
    mapped to [−1, 1]); past that Φ rounds to 1.
    """
    exponents = work.view(np.int64)
    # Each by its name: a loop over them would keep the loop over numbers from being several wide.
    # In four parts, none of which waits for another one.
    e3, e4, e5, e6, e7, e8, e9, e10, e11, e12 = _EXP
    m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15, m16 = _MILLS
    for i in range(z.size):
        h = max(-0.5 * z[i] * z[i], -700.0)
        # Added to this, a double has no fraction: its last bits are the number of doublings.
        work[i] = h * _DOUBLINGS + _WHOLE
        doublings = work[i] - _WHOLE
        r = (h - doublings * _LN2) - doublings * _LN2_REST
        r2 = r * r
        r4 = r2 * r2
        first, second = 1.0 + r4 * (e4 + r4 * (e8 + r4 * e12)), 1.0 + r4 * (e5 + r4 * e9)
        third, fourth = 0.5 + r4 * (e6 + r4 * e10), e3 + r4 * (e7 + r4 * e11)
        density[i] = (first + r * second) + r2 * (third + r * fourth)
    for i in range(z.size):
        exponents[i] = (exponents[i] << 52) + _EXPONENT_OF_ONE
    for i in range(z.size):
        density[i] *= work[i]
        x = min(abs(z[i]), 8.5)
        part = 1.0 / ((x + 5.0) * (1.0 + x))
        y = _SCALE * x * (1.0 + x) * part - 1.0
        y2 = y * y
        y4 = y2 * y2
        first = m0 + y4 * (m4 + y4 * (m8 + y4 * (m12 + y4 * m16)))
        second = m1 + y4 * (m5 + y4 * (m9 + y4 * m13))
        third = m2 + y4 * (m6 + y4 * (m10 + y4 * m14))
        fourth = m3 + y4 * (m7 + y4 * (m11 + y4 * m15))
        mills = (first + y * second) + y2 * (third + y * fourth)
        tail = density[i] * mills * (x + 5.0) * part
        below[i] = 1.0 - tail if z[i] > 0.0 else tail


@part
def product(values: Vector) -> float:
    """Their product: eight of them side by side, each of which waits for no other."""
    a, b, c, d, e, f, g, h = 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0
    whole = values.size - values.size % 8
    for i in range(0, whole, 8):
        a, b, c, d = a * values[i], b * values[i + 1], c * values[i + 2], d * values[i + 3]
        e, f, g, h = e * values[i + 4], f * values[i + 5], g * values[i + 6], h * values[i + 7]
    for i in range(whole, values.size):
        a *= values[i]
    return ((a * b) * (c * d)) * ((e * f) * (g * h))


@part
def extent(mean: Vector, sd: Vector) -> tuple[float, float, float]:
    """What the grid of `tabulate` follows from: where it begins and ends, and how fine it is."""
    reach, ramp = 6.0, 0.1
    lo, hi, finest = -math.inf, -math.inf, math.inf
    for k in range(mean.size):
        lo, hi = max(lo, mean[k] - reach * sd[k]), max(hi, mean[k] + reach * sd[k])
    for k in range(mean.size):
        if mean[k] + reach * sd[k] >= lo:
            finest = min(finest, sd[k] / ramp)
    return lo, hi, finest


@part
def places_of(lo: float, hi: float, finest: float) -> tuple[int, float]:
    """How many places a grid has, and how far apart they are, in u."""
    ramp, stride = 0.1, 0.45
    top = math.asinh((hi - lo) / finest) / ramp
    n = max(0, int(top / stride) + 2)
    return n, ramp * top / (n - 1)


@part
def tabulate(
    mean: Vector,
    rates: Vector,
    lo: float,
    finest: float,
    step: float,
    below: Matrix,
    ratio: Matrix,
    weight: Vector,
) -> None:
    """What `wins` integrates, at the places t = lo + finest·sinh(u) of a grid with even steps in u.

    Args:
        mean: (K,) of the scores,
        rates: (K,) one over their standard deviations.
        lo: This and the next two: the grid.
        finest:
        step:
        below: (n × K) gets Φ_k(t),
        ratio: (n × K) exp(−z²/2)/Φ_k(t),
        weight: (n,) the product of all Φ_k(t), times what a step in u is of t.
    """
    (n, K) = below.shape
    # Few scores at several places are as many numbers as many scores at one.
    places = max(1, min(n, _AT_ONCE // K))
    z, chance = np.empty(places * K), np.empty(places * K)
    density, work = np.empty(places * K), np.empty(places * K)
    for first in range(0, n, places):
        size = min(places, n - first)
        for i in range(size):
            t = lo + finest * math.sinh((first + i) * step)
            for k in range(K):
                z[i * K + k] = (t - mean[k]) * rates[k]
        normal_into(z[: size * K], chance[: size * K], density[: size * K], work[: size * K])
        for i in range(size):
            line, quotients = below[first + i], ratio[first + i]
            for k in range(K):
                line[k] = chance[i * K + k]
                quotients[k] = density[i * K + k] / line[k]
            weight[first + i] = math.cosh((first + i) * step) * product(line)


@part
def integrals(ratio: Matrix, weight: Vector, rates: Vector) -> Vector:
    """(K,) the integrals by what `tabulate` says, times a factor that is the same for all."""
    out = np.zeros(rates.size)
    for i in range(weight.size):
        quotients, scale = ratio[i], weight[i]
        for k in range(out.size):
            out[k] += scale * quotients[k]
    for k in range(out.size):
        out[k] *= rates[k]
    return out


@part
def at_one(p: Vector) -> Vector:
    """The same with the sum 1."""
    total = 0.0
    for k in range(p.size):
        total += p[k]
    for k in range(p.size):
        p[k] /= total
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
    lo, hi, finest = extent(mean, sd)
    n, step = places_of(lo, hi, finest)
    below, ratio, weight = np.empty((n, mean.size)), np.empty((n, mean.size)), np.empty(n)
    rates = 1.0 / sd
    tabulate(mean, rates, lo, finest, step, below, ratio, weight)
    return at_one(integrals(ratio, weight, rates))
