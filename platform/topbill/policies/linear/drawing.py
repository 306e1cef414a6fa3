"""Slates that are drawn in compiled calls."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from topbill.domain.chance import draws_of
from topbill.domain.errors import OverBudget
from topbill.domain.slate import LARGEST_MATRIX, Slate, SlateRequest, SlateRules
from topbill.policies.linear.chances import SHARES, Chances
from topbill.policies.linear.models import Contribution, Prediction

_NO_MATRIX = np.zeros((0, 0))
_NO_ROWS = np.zeros(0, dtype=np.intp)
_AT_ONCE = 4_096
"""Positions times actions of one call: between two calls somebody looks at the clock."""
_AT_ONCE_RULED = 16_384
"""Positions times actions up to which a slate under rules is drawn in one call."""


class _Compiled(NamedTuple):
    """The modules of compiled functions."""

    slates: Any
    ruled: Any


def draw_slate(
    contribution: Contribution, prediction: Prediction, chances: Chances, request: SlateRequest
) -> Slate | None:
    """What `domain.slate.rank` makes of the same scores, to the last bit. None where it has to be
    asked itself: there is no compiler, or the probabilities are no simplex, of which it says what
    is wrong.

    Args:
        contribution: What is expected of the actions,
        prediction: beside what is in here already; it is used up.
        chances: How scores become probabilities.
        request: What to draw.

    Raises:
        OverBudget: time is up between two positions.
    """
    compiled = load()
    decision_id, eligible, slots, least, late, rules = request
    size = len(eligible)
    if compiled is None or size == 0:
        return None
    if rules is not None:
        return _draw_ruled(compiled.ruled, contribution, prediction, chances, request, rules)
    slots = min(slots, size)
    rows, propensities = np.empty(slots, dtype=np.intp), np.empty(slots)
    has_matrix = slots * size <= LARGEST_MATRIX
    matrix = np.zeros((slots, size)) if has_matrix else _NO_MATRIX
    index, scores, spread, common = prediction
    kind, factor, noise, alone, chance, normals = chances
    draws = _NO_MATRIX
    if kind == SHARES:
        draws = np.empty((len(scores), 2 * normals.shape[2]))
    rest = np.empty(size, dtype=np.intp)
    step = max(1, _AT_ONCE // size)
    positions = min(step, slots)
    models, weights, basis, context = contribution
    own, shared = models.own, models.shared
    count = compiled.slates.score_and_draw(
        own.mean, own.cov, shared.mean, shared.cov,
        weights, basis, context, index.rows, index.Z, scores, spread, common,
        kind, factor, noise, alone, chance, normals, index.rank, draws,
        np.frombuffer(decision_id.encode(), np.uint8), positions,
        eligible, least, rest, rows, propensities, matrix,
    )  # fmt: skip
    for start in range(step, slots, step):
        if count < positions:
            break
        if late is not None and late():
            raise OverBudget(f"{start} of {slots} positions were drawn when time was up")
        uniform = draws_of(decision_id)
        uniforms = np.array([uniform(k) for k in range(start, min(start + step, slots))])
        positions = len(uniforms)
        count = compiled.slates.draw_positions(
            kind, chance, scores, spread, draws,
            eligible, least, uniforms, rest, start, rows, propensities, matrix,
        )  # fmt: skip
    if count < positions:
        return None
    joint = 1.0
    drawn = propensities.tolist()
    for propensity in drawn:
        joint *= propensity
    return Slate(
        tuple(rows.tolist()),
        tuple(drawn),
        tuple(map(tuple, matrix.tolist())) if has_matrix else None,
        joint,
    )


def _draw_ruled(
    ruled: Any,
    contribution: Contribution,
    prediction: Prediction,
    chances: Chances,
    request: SlateRequest,
    rules: SlateRules,
) -> Slate | None:
    """The same under rules."""
    index, scores, spread, common = prediction
    kind, factor, noise, alone, chance, normals = chances
    slots = len(rules.starts) - 1
    # Nobody looks at the clock before it is done.
    if slots * len(scores) > _AT_ONCE_RULED:
        return None
    draws, rank = _NO_MATRIX, _NO_ROWS
    if kind == SHARES:
        # A page brings its titles anew for each row: their places by id are for who needs them.
        draws, rank = np.empty((len(scores), 2 * normals.shape[2])), index.rank
    rows, propensities = np.empty(slots, dtype=np.intp), np.empty(slots)
    models, weights, basis, context = contribution
    own, shared = models.own, models.shared
    count = ruled.score_and_draw_ruled(
        own.mean, own.cov, shared.mean, shared.cov,
        weights, basis, context, index.rows, index.Z, scores, spread, common,
        kind, factor, noise, alone, chance, normals, rank, draws,
        np.frombuffer(request.decision_id.encode(), np.uint8), request.least,
        *rules, rows, propensities,
    )  # fmt: skip
    if count < 0:
        return None
    joint = 1.0
    drawn = propensities[:count].tolist()
    for propensity in drawn:
        joint *= propensity
    return Slate(tuple(rows[:count].tolist()), tuple(drawn), None, joint)


@cache
def load() -> _Compiled | None:
    """The compiled functions, None where there is no compiler. Policies load them when they are
    made, so that no decision waits for them; who only reads specs or writes reports makes none.
    """
    from topbill.policies.linear import compiled, ruled, slates

    return _Compiled(slates, ruled) if compiled.IS_COMPILED else None
