"""A whole slate under rules in one compiled call: what `domain.slate.rank` draws where rules say
what may stand at each position, to the last bit. Who wins among independent scores is told anew at
each position, since it is another choice.
"""

from __future__ import annotations

import numpy as np

from topbill.policies.linear.addresses import vector_at
from topbill.policies.linear.chances import GAPS, GREEDY, WINS
from topbill.policies.linear.compiled import (
    Given,
    Matrix,
    Places,
    Text,
    Vector,
    compiled,
    part,
)
from topbill.policies.linear.hashing import piece_of, uniforms_of
from topbill.policies.linear.sampling import inverse_gap, shares, wins
from topbill.policies.linear.slates import drawn, greedy, lifted, parts_of, score


@part
def must_be_fresh(position: int, quota: int, due: int, starts: Places) -> bool:
    """Whether the quota needs every position that is left before `due`, this one included.
    Positions that have rows of their own are none.
    """
    free = due - position
    for below in range(position + 1, min(due, starts.size - 1)):
        free -= starts[below] < starts[below + 1]
    return quota >= free


@part
def may_stand(
    position: int,
    only: Places,
    starts: Places,
    is_open: Places,
    fresh: Places,
    quota: int,
    due: int,
    may: Places,
) -> int:
    """How many rows may stand at a position; they are written into `may`."""
    size = 0
    for i in range(starts[position], starts[position + 1]):
        may[size] = only[i]
        size += 1
    if size:
        return size
    if quota > 0 and must_be_fresh(position, quota, due, starts):
        for row in range(is_open.size):
            if is_open[row] and fresh[row]:
                may[size] = row
                size += 1
        # Where none is left, the slate has as many as there were.
        if size:
            return size
    for row in range(is_open.size):
        if is_open[row]:
            may[size] = row
            size += 1
    return size


@part
def close(cap: int, is_open: Places, caps: Places, caps_end: Places) -> None:
    """Keep out all that counts in a cap."""
    start = 0
    for row in range(is_open.size):
        for i in range(start, caps_end[row]):
            if caps[i] == cap:
                is_open[row] = 0
        start = caps_end[row]


@part
def take(row: int, is_open: Places, caps: Places, caps_end: Places, left: Places) -> None:
    """Count a row that was drawn, and close the caps that then take no more."""
    is_open[row] = 0
    for i in range(caps_end[row - 1] if row else 0, caps_end[row]):
        left[caps[i]] -= 1
        if left[caps[i]] == 0:
            close(caps[i], is_open, caps, caps_end)


@compiled
def draw_ruled(
    kind: int,
    chance: float,
    scores: Vector,
    spread: Vector,
    draws: Matrix,
    least: float,
    uniforms: Vector,
    only: Places,
    starts: Places,
    is_open: Places,
    caps: Places,
    caps_end: Places,
    left: Places,
    fresh: Places,
    quota: int,
    due: int,
    rows: Places,
    propensities: Vector,
) -> int:
    """Draw a position for each of `uniforms`, and return how many were drawn: fewer where nothing
    may stand at one; -1 where the probabilities are no simplex.

    Args:
        kind: How scores become probabilities; this and the next as in `Chances`.
        chance: The share of chance.
        scores: (K,) of all actions.
        spread: (K,) their standard deviations, for WINS.
        draws: (K × n) joint draws of them, for SHARES.
        least: The floor.
        uniforms: Each position's own.
        only: This and the next eight are the rules, as `domain.slate.SlateRules` says of each;
        starts:
        is_open: used up, as is
        caps:
        caps_end:
        left: this one.
        fresh:
        quota:
        due:
        rows: Gets what is drawn.
        propensities: Gets with what probability.
    """
    may, some, widths = np.empty(scores.size, np.intp), np.empty(scores.size), np.empty(scores.size)
    for k in range(uniforms.size):
        size = may_stand(k, only, starts, is_open, fresh, quota, due, may)
        if size == 0:
            return k
        for i in range(size):
            some[i] = scores[may[i]]
        if kind == GREEDY:
            now = greedy(some[:size], chance)
        elif kind == WINS:
            for i in range(size):
                widths[i] = spread[may[i]]
            now = wins(some[:size], widths[:size])
        elif kind == GAPS:
            now = inverse_gap(some[:size], chance)
        else:
            now = shares(draws, may[:size])
        if not lifted(now, least):
            return -1
        j = drawn(now, uniforms[k])
        row = may[j]
        rows[k], propensities[k] = row, now[j]
        # What stands at a position of its own was counted before.
        if starts[k] == starts[k + 1]:
            take(row, is_open, caps, caps_end, left)
            quota -= fresh[row]
    return uniforms.size


@compiled
def score_and_draw_ruled(
    arrays: Places,
    x: Given,
    basis: Vector,
    context: Vector,
    decision_id: Text,
    least: float,
    room: Vector,
    only: Places,
    starts: Places,
    is_open: Places,
    caps: Places,
    caps_end: Places,
    left: Places,
    fresh: Places,
    quota: int,
    due: int,
    rows: Places,
    propensities: Vector,
) -> int:
    """`draw_ruled` of what `slates.score` says."""
    score(arrays, x, basis, context, decision_id, room)
    settings = vector_at(arrays, 0)
    scores, spread, draws = parts_of(room, vector_at(arrays, 2).size)
    return draw_ruled(
        int(settings[0]), settings[4], scores, spread, draws,
        least, uniforms_of(decision_id, 0, starts.size - 1),
        only, starts, is_open, caps, caps_end, left, fresh, quota, due, rows, propensities,
    )  # fmt: skip


@compiled
def score_and_draw_turns(
    arrays: Places,
    x: Given,
    basis: Vector,
    context: Vector,
    decision_ids: Text,
    id_ends: Places,
    ends: Places,
    starts: Places,
    least: float,
    room: Vector,
    rows: Places,
    propensities: Vector,
) -> int:
    """Draw the positions of several decisions in one context, where each position has its own
    choices, from what `slates.score` says of all of these; -1 where probabilities are no simplex.
    Not for joint draws, which are a decision's own.

    Args:
        arrays: This and the next three as in `slates.score`.
        x: The context.
        basis: What own weights are over.
        context: What shared weights are over.
        decision_ids: One behind the other,
        id_ends: (n,) where each ends.
        ends: (n,) where the positions of each decision end.
        starts: (positions + 1,) where the choices of each position begin.
        least: The floor.
        room: As in `slates.score`.
        rows: (positions,) gets what is drawn,
        propensities: and with what probability.
    """
    score(arrays, x, basis, context, decision_ids, room)
    settings = vector_at(arrays, 0)
    kind, chance = int(settings[0]), settings[4]
    scores, spread, _ = parts_of(room, vector_at(arrays, 2).size)
    position, id_start = 0, 0
    for i in range(ends.size):
        decision_id = piece_of(decision_ids, id_start, id_ends[i])
        id_start = id_ends[i]
        for u in uniforms_of(decision_id, 0, ends[i] - position):
            first, last = starts[position], starts[position + 1]
            if kind == GREEDY:
                now = greedy(scores[first:last], chance)
            elif kind == WINS:
                now = wins(scores[first:last], spread[first:last])
            else:
                now = inverse_gap(scores[first:last], chance)
            if not lifted(now, least):
                return -1
            j = drawn(now, u)
            rows[position], propensities[position] = first + j, now[j]
            position += 1
    return position
