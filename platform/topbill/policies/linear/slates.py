"""A whole slate in one compiled call: scores from the encoded context, and at each position the
probabilities over what remains, their floor, and the draw.

It says what `domain.slate.rank` says of what the policy scores, in a fraction of the time: to the
last bit, but for who wins among independent scores, which is within 1e-12. What must be asked from
position to position (rules, foreign policies) goes there.
"""

from __future__ import annotations

import math

import numpy as np

from topbill.domain.records import Indices
from topbill.policies.linear.addresses import (
    MODELS,
    MORE_MODELS,
    cube_at,
    cubes_at,
    matrix_at,
    places_at,
    vector_at,
)
from topbill.policies.linear.chances import GAPS, GREEDY, SHARES, WINS
from topbill.policies.linear.compiled import (
    Given,
    Matrix,
    Places,
    Text,
    Vector,
    compiled,
    part,
)
from topbill.policies.linear.hashing import choice_of, piece_of, uniforms_of
from topbill.policies.linear.kernels import (
    add_common,
    add_means,
    add_own,
    bounds,
    expected_rewards,
)
from topbill.policies.linear.sampling import (
    at_one,
    count_winners,
    extent,
    integrals,
    inverse_gap,
    places_of,
    sample_into,
    shares_of,
    tabulate,
)

_LONGEST_USED = 16
"""Draws after which a grid is tabulated anew: no product that rounds to 0 would be one that matters
without what so many took from it."""


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


@part
def remaining(eligible: Indices, rows: Vector) -> Indices:
    """The places among the eligible of what is not at `rows`."""
    rest = np.empty(eligible.size - rows.size, np.intp)
    count = 0
    for i in range(eligible.size):
        is_placed = False
        for row in rows:
            is_placed = is_placed or row == eligible[i]
        if not is_placed:
            rest[count] = i
            count += 1
    return rest


@part
def draw_slate(
    kind: int,
    chance: float,
    scores: Vector,
    spread: Vector,
    draws: Matrix,
    decision_id: Text,
    eligible: Indices,
    least: float,
    slots: int,
    start: int,
    stop: int,
    out: Vector,
) -> int:
    """Draw the positions from `start` to before `stop`, and return how many of a slate are drawn
    then: less than `stop` where the probabilities are no simplex.

    Args:
        kind: How scores become probabilities; this and the next as in `Chances`.
        chance: The share of chance.
        scores: (K,) of all actions.
        spread: (K,) their standard deviations, for WINS.
        draws: (K × n) joint draws of them, for SHARES.
        decision_id: What each position's chance follows from.
        eligible: The rows that may be drawn.
        least: The floor.
        slots: How many positions there are, at most as many as are eligible.
        start: The first that is drawn; those before it are in `out`.
        stop: Past the last one.
        out: (slots × 2, or slots × (2 + the eligible)) gets the rows that are drawn, with what
            probabilities, and after these all probabilities of each position.
    """
    uniforms, width = uniforms_of(decision_id, start, stop), eligible.size
    has_matrix = out.size > 2 * slots
    rest = remaining(eligible, out[:start])
    size = rest.size
    may, some, widths = np.empty(size, np.intp), np.empty(size), np.empty(size)
    for i in range(size):
        may[i] = eligible[rest[i]]
    counts, is_counted = np.empty(size), False
    # Of who wins: the grid, what was tabulated on it, and which of its columns remain.
    lo, hi, finest, rates = 0.0, 0.0, 0.0, np.empty(0)
    below, ratio, weight, columns = np.empty((0, 0)), np.empty((0, 0)), np.empty(0), rest.copy()
    age = _LONGEST_USED
    for k in range(start, stop):
        for i in range(size):
            some[i] = scores[may[i]]
        if kind == GREEDY:
            now = greedy(some[:size], chance)
        elif kind == GAPS:
            now = inverse_gap(some[:size], chance)
        elif kind == WINS:
            for i in range(size):
                widths[i] = spread[may[i]]
            grid = extent(some[:size], widths[:size])
            if age == _LONGEST_USED or grid != (lo, hi, finest):
                lo, hi, finest = grid
                n, step = places_of(lo, hi, finest)
                below, ratio, weight = np.empty((n, size)), np.empty((n, size)), np.empty(n)
                rates, age = 1.0 / widths[:size], 0
                tabulate(some[:size], rates, lo, finest, step, below, ratio, weight)
                for i in range(size):
                    columns[i] = i
            whole = integrals(ratio, weight, rates)
            for i in range(size):
                widths[i] = whole[columns[i]]
            now = at_one(widths[:size].copy())
        else:
            if not is_counted:
                counts[:size] = 0.0
                count_winners(draws, may[:size], counts)
            now = shares_of(counts[:size], draws.shape[1])
        if not lifted(now, least):
            return k
        j = drawn(now, uniforms[k - start])
        out[k], out[slots + k] = may[j], now[j]
        if has_matrix:
            line = out[2 * slots + k * width : 2 * slots + (k + 1) * width]
            line[:] = 0.0
            for i in range(size):
                line[rest[i]] = now[i]
        # Without what won no draw, all others win as many as before.
        is_counted = counts[j] == 0.0
        if kind == WINS:
            # The others have nothing more to fear of it.
            for i in range(weight.size):
                weight[i] /= below[i, columns[j]]
            age += 1
        size -= 1
        for i in range(j, size):
            rest[i], may[i], counts[i] = rest[i + 1], may[i + 1], counts[i + 1]
            columns[i] = columns[i + 1]
    return stop


@compiled
def draw_positions(
    kind: int,
    chance: float,
    scores: Vector,
    spread: Vector,
    draws: Matrix,
    decision_id: Text,
    eligible: Indices,
    least: float,
    slots: int,
    start: int,
    stop: int,
    out: Vector,
) -> int:
    """`draw_slate`, for who has the scores."""
    return draw_slate(
        kind, chance, scores, spread, draws, decision_id, eligible, least, slots, start, stop, out
    )


@part
def score(
    arrays: Places, x: Given, basis: Vector, context: Vector, decision_id: Text, room: Vector
) -> None:
    """What the models expect, as what is drawn from.

    Args:
        arrays: What `addresses.packed` makes of `Drawing.arrays`.
        x: The context.
        basis: What own weights of the second models are over; those of the first are over the first
            of (1, x, 0).
        context: What shared weights are over, where that is not (1, x, 0).
        decision_id: What joint draws follow from.
        room: Gets the scores (K), what they vary by (K), and joint draws of them (K × n).
    """
    settings, before = vector_at(arrays, 0), vector_at(arrays, 2)
    action_rows, rank = places_at(arrays, 4), places_at(arrays, 6)
    Z, normals = matrix_at(arrays, 8), cube_at(arrays, 11)
    kind, factor, noise = int(settings[0]), settings[1], settings[2]
    alone, logistic = settings[3] > 0.0, settings[5] > 0.0
    extended = np.zeros(x.size + 2)
    extended[0], extended[1:-1] = 1.0, x
    if not context.size:
        context = extended
    scores, spread, draws = parts_of(room, before.size)
    # What is about the means alone has no use for what is costly, their variances.
    varies = kind in (WINS, SHARES) or factor > 0.0
    scores[:], spread[:] = before, 0.0
    common = np.zeros((Z.shape[1], Z.shape[1]))
    for group in (MODELS, MORE_MODELS):
        weights = vector_at(arrays, group)
        if not weights.size:
            continue
        own_mean, own_cov = cube_at(arrays, group + 2), cubes_at(arrays, group + 6)
        shared_mean, shared_cov = cube_at(arrays, group + 11), cubes_at(arrays, group + 15)
        over = extended[: own_mean.shape[2]] if group == MODELS else basis
        add_means(own_mean, shared_mean[0], weights, action_rows, over, context, Z, scores)
        if varies and not alone:
            add_common(shared_cov[0], weights, context, common)
        if varies:
            add_own(own_cov, weights, action_rows, over, spread)
    if kind == WINS:
        for k in range(spread.size):
            spread[k] = math.sqrt(max(spread[k], 1e-300)) * factor
    elif kind == SHARES:
        table = normals[choice_of(decision_id, len(normals))]
        sample_into(scores, spread, common, Z, table, rank, factor, draws)
    elif kind == GAPS:
        scores[:] = expected_rewards(scores, logistic)
    elif varies:
        scores[:] = bounds(scores, spread, common, Z, noise, factor)


@part
def parts_of(room: Vector, K: int) -> tuple[Vector, Vector, Matrix]:
    """The scores, what they vary by, and joint draws of them."""
    return room[:K], room[K : 2 * K], room[2 * K :].reshape((K, room.size // K - 2))


@compiled
def score_and_draw(
    arrays: Places,
    x: Given,
    basis: Vector,
    context: Vector,
    decision_id: Text,
    eligible: Indices,
    least: float,
    slots: int,
    stop: int,
    room: Vector,
    out: Vector,
) -> int:
    """`draw_slate` of the first positions, from what `score` says; `room` is for that."""
    score(arrays, x, basis, context, decision_id, room)
    settings = vector_at(arrays, 0)
    scores, spread, draws = parts_of(room, vector_at(arrays, 2).size)
    return draw_slate(
        int(settings[0]), settings[4], scores, spread, draws,
        decision_id, eligible, least, slots, 0, stop, out,
    )  # fmt: skip


@compiled
def score_and_draw_each(
    arrays: Places,
    xs: Matrix,
    bases: Matrix,
    contexts: Matrix,
    decision_ids: Text,
    ends: Places,
    eligible: Indices,
    least: float,
    slots: int,
    room: Vector,
    out: Matrix,
) -> int:
    """`score_and_draw` of whole slates of n decisions between the same actions; how many were
    drawn, up to the first whose probabilities are no simplex.

    Args:
        arrays: As in `score`, and row by row
        xs: (n × d),
        bases: (n × p)
        contexts: and (n × r).
        decision_ids: One behind the other,
        ends: (n,) where each ends.
        eligible: This and the next two as in `draw_slate`.
        least: The floor.
        slots: How many positions there are, at most as many as are eligible.
        room: As in `score`, for one after the other.
        out: (n × …) as in `draw_slate`.
    """
    settings = vector_at(arrays, 0)
    scores, spread, draws = parts_of(room, vector_at(arrays, 2).size)
    start = 0
    for i in range(ends.size):
        decision_id = piece_of(decision_ids, start, ends[i])
        start = ends[i]
        score(arrays, xs[i], bases[i], contexts[i], decision_id, room)
        count = draw_slate(
            int(settings[0]), settings[4], scores, spread, draws,
            decision_id, eligible, least, slots, 0, slots, out[i],
        )  # fmt: skip
        if count < slots:
            return i
    return ends.size
