"""A whole slate in one compiled call: scores from the encoded context, and at each position the
probabilities over what remains, their floor, and the draw.

It says what `domain.slate.rank` says of what the policy scores, to the last bit, in a fraction of
the time; what must be asked from position to position (rules, foreign policies) goes there.
"""

from __future__ import annotations

import math

import numpy as np

from topbill.domain.records import Indices
from topbill.policies.linear.chances import GREEDY, SHARES, WINS
from topbill.policies.linear.compiled import (
    Cube,
    Cubes,
    Matrix,
    Places,
    Text,
    Vector,
    compiled,
    part,
)
from topbill.policies.linear.hashing import choice_of, uniforms_of
from topbill.policies.linear.kernels import add_common, add_means, add_own, bounds
from topbill.policies.linear.sampling import sample_into, shares, wins


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
    chance: float,
    scores: Vector,
    spread: Vector,
    draws: Matrix,
    eligible: Indices,
    least: float,
    uniforms: Vector,
    rest: Places,
    start: int,
    rows: Places,
    propensities: Vector,
    matrix: Matrix,
) -> int:
    """Draw a position for each of `uniforms`, and return how many could be drawn: fewer where the
    probabilities are no simplex.

    Args:
        kind: How scores become probabilities; this and the next as in `Chances`.
        chance: The share of chance.
        scores: (K,) of all actions.
        spread: (K,) their standard deviations, for WINS.
        draws: (K × n) joint draws of them, for SHARES.
        eligible: The rows that may be drawn.
        least: The floor.
        uniforms: Each position's own.
        rest: What remains at position `start`, in places of the eligible: the first of these, of
            which what is drawn is taken out.
        start: The first position.
        rows: Gets what is drawn.
        propensities: Gets with what probability.
        matrix: (positions × eligible), zeros, or without rows; gets all probabilities.
    """
    size = eligible.size - start
    may = np.empty(size, np.intp)
    for i in range(size):
        may[i] = eligible[rest[i]]
    some, widths = np.empty(size), np.empty(size)
    for k in range(uniforms.size):
        for i in range(size):
            some[i] = scores[may[i]]
        if kind == GREEDY:
            now = greedy(some[:size], chance)
        elif kind == WINS:
            for i in range(size):
                widths[i] = spread[may[i]]
            now = wins(some[:size], widths[:size])
        else:
            now = shares(draws, may[:size])
        if not lifted(now, least):
            return k
        j = drawn(now, uniforms[k])
        rows[start + k], propensities[start + k] = may[j], now[j]
        if matrix.shape[0]:
            for i in range(size):
                matrix[start + k, rest[i]] = now[i]
        size -= 1
        for i in range(j, size):
            rest[i], may[i] = rest[i + 1], may[i + 1]
    return uniforms.size


@part
def score(
    own_mean: Cube,
    own_cov: Cubes,
    shared_mean: Cube,
    shared_cov: Cubes,
    weights: Vector,
    basis: Vector,
    context: Vector,
    action_rows: Indices,
    Z: Matrix,
    mean: Vector,
    own: Vector,
    common: Matrix,
    kind: int,
    factor: float,
    noise: float,
    alone: bool,
    normals: Cube,
    rank: Indices,
    draws: Matrix,
    decision_id: Text,
) -> None:
    """What the models expect, as what is drawn from.

    The first twelve are those of `kernels.predict`, shared weights with the one row that they have;
    then `Chances`, with the places of the actions by id. `mean` becomes the scores, `own` for WINS
    what they vary by, and `draws` are made for SHARES.
    """
    add_means(own_mean, shared_mean[0], weights, action_rows, basis, context, Z, mean)
    # What is greedy about the means alone has no use for what is costly, their variances.
    if kind != GREEDY or factor > 0.0:
        if alone:
            common[:] = 0.0
        else:
            add_common(shared_cov[0], weights, context, common)
        add_own(own_cov, weights, action_rows, basis, own)
    if kind == WINS:
        for k in range(own.size):
            own[k] = math.sqrt(max(own[k], 1e-300)) * factor
    elif kind == SHARES:
        table = normals[choice_of(decision_id, len(normals))]
        sample_into(mean, own, common, Z, table, rank, factor, draws)
    elif factor > 0.0:
        mean[:] = bounds(mean, own, common, Z, noise, factor)


@compiled
def score_and_draw(
    own_mean: Cube,
    own_cov: Cubes,
    shared_mean: Cube,
    shared_cov: Cubes,
    weights: Vector,
    basis: Vector,
    context: Vector,
    action_rows: Indices,
    Z: Matrix,
    mean: Vector,
    own: Vector,
    common: Matrix,
    kind: int,
    factor: float,
    noise: float,
    alone: bool,
    chance: float,
    normals: Cube,
    rank: Indices,
    draws: Matrix,
    decision_id: Text,
    positions: int,
    eligible: Indices,
    least: float,
    rest: Places,
    rows: Places,
    propensities: Vector,
    matrix: Matrix,
) -> int:
    """`draw_positions` of the first positions, from what the models expect.

    The first eighteen are those of `score`, with the decision's id; `rest` becomes what remains.
    """
    score(
        own_mean, own_cov, shared_mean, shared_cov, weights, basis, context, action_rows, Z, mean,
        own, common, kind, factor, noise, alone, normals, rank, draws, decision_id,
    )  # fmt: skip
    uniforms = uniforms_of(decision_id, positions)
    for i in range(rest.size):
        rest[i] = i
    return draw_positions(
        kind, chance, mean, own, draws,
        eligible, least, uniforms, rest, 0, rows, propensities, matrix,
    )  # fmt: skip
