"""A whole slate in one compiled call: at each position the probabilities over what remains, their
floor, and the draw.

It says what `domain.slate.rank` says of the same scores, to the last bit, in a fraction of the
time; what must be asked from position to position (rules, foreign policies) goes there.
"""

from __future__ import annotations

import math

import numpy as np

from topbill.domain.records import Indices
from topbill.policies.linear.chances import GREEDY, WINS
from topbill.policies.linear.compiled import Matrix, Places, Vector, compiled, part
from topbill.policies.linear.sampling import shares, wins


@part
def greedy(scores: Vector, chance: float) -> Vector:
    """`mostly_greedy` of as many scores."""
    p, highest, ties = np.empty(scores.size), scores[0], 0
    for score in scores:
        # Where one is no number the highest is none, and nothing equals it: p is no simplex then.
        if score > highest or math.isnan(score):
            highest = score
    for score in scores:
        ties += score == highest
    for i in range(p.size):
        best = 1.0 / ties if scores[i] == highest else 0.0
        p[i] = (1.0 - chance) * best + chance / p.size
    return p


@part
def lifted(p: Vector, least: float) -> bool:
    """Whether `p` is a simplex; it is lifted in place, as `with_min_probability` says."""
    total, size = 0.0, p.size
    for i in range(size):
        # NaN fails the comparison, which is why it is not turned round.
        if not p[i] >= 0.0:
            return False
        total += p[i]
    if not abs(total - 1.0) <= 1e-6:
        return False
    if least > 0.0:
        f = min(least, 1.0 / size)
        for i in range(size):
            p[i] = (1.0 - size * f) * p[i] + f
    return True


@part
def drawn(p: Vector, u: float) -> int:
    """The index that u draws from p, as `domain.chance.draw` says."""
    total, below, last = 0.0, 0.0, 0
    for i in range(p.size):
        total += p[i]
    for i in range(p.size):
        below += p[i]
        if below > u * total:
            return i
        if p[i] > 0.0:
            last = i
    return last


@compiled
def draw_positions(
    kind: int,
    scores: Vector,
    spread: Vector,
    draws: Matrix,
    chance: float,
    eligible: Indices,
    least: float,
    uniforms: Vector,
    rest: Places,
    start: int,
    places: Places,
    propensities: Vector,
    matrix: Matrix,
) -> int:
    """Draw a position for each of `uniforms`, and return how many could be drawn: fewer where the
    probabilities are no simplex.

    Args:
        kind: How scores become probabilities; this and the next four as in `Chances`.
        eligible: The rows that may be drawn.
        least: The floor.
        uniforms: Each position's own.
        rest: What remains at position `start`, in places of the eligible: the first of these, of
            which what is drawn is taken out.
        places: Gets what is drawn, in places of the eligible.
        propensities: Gets with what probability.
        matrix: (positions × eligible), zeros, or without rows; gets all probabilities.
    """
    size = eligible.size - start
    rows = np.empty(size, np.intp)
    for i in range(size):
        rows[i] = eligible[rest[i]]
    some, widths = np.empty(size), np.empty(size)
    for k in range(uniforms.size):
        for i in range(size):
            some[i] = scores[rows[i]]
        if kind == GREEDY:
            now = greedy(some[:size], chance)
        elif kind == WINS:
            for i in range(size):
                widths[i] = spread[rows[i]]
            now = wins(some[:size], widths[:size])
        else:
            now = shares(draws, rows[:size])
        if not lifted(now, least):
            return k
        j = drawn(now, uniforms[k])
        places[start + k], propensities[start + k] = rest[j], now[j]
        if matrix.shape[0]:
            for i in range(size):
                matrix[start + k, rest[i]] = now[i]
        size -= 1
        for i in range(j, size):
            rest[i], rows[i] = rest[i + 1], rows[i + 1]
    return uniforms.size
