"""Slates that are drawn in compiled calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from topbill.domain.errors import OverBudget
from topbill.domain.records import Indices
from topbill.domain.slate import LARGEST_MATRIX, Slate
from topbill.policies.linear.chances import Chances

_NO_MATRIX = np.zeros((0, 0))
_AT_ONCE = 4_096
"""Positions times actions of one call: between two calls somebody looks at the clock."""


def draw_slate(
    chances: Chances,
    eligible: Indices,
    slots: int,
    least: float,
    uniform: Callable[[int], float],
    late: Callable[[], bool] | None,
) -> Slate | None:
    """What `domain.slate.rank` makes of the same probabilities, to the last bit. None where it has
    to be asked itself: there is no compiler, or the probabilities are no simplex, of which it says
    what is wrong.

    Raises OverBudget.
    """
    compiled = load()
    if compiled is None:
        return None
    size = len(eligible)
    places, propensities = np.empty(slots, dtype=np.intp), np.empty(slots)
    has_matrix = slots * size <= LARGEST_MATRIX
    matrix = np.zeros((slots, size)) if has_matrix else _NO_MATRIX
    step = max(1, _AT_ONCE // size)
    rest = np.arange(size)
    for start in range(0, slots, step):
        if start and late is not None and late():
            raise OverBudget(f"{start} of {slots} positions were drawn when time was up")
        stop = min(start + step, slots)
        uniforms = np.array([uniform(position) for position in range(start, stop)])
        count = compiled.draw_positions(
            *chances, eligible, least, uniforms, rest, start, places, propensities, matrix
        )
        if count < len(uniforms):
            return None
    joint = 1.0
    drawn = propensities.tolist()
    for propensity in drawn:
        joint *= propensity
    return Slate(
        tuple(eligible[places].tolist()),
        tuple(drawn),
        tuple(map(tuple, matrix.tolist())) if has_matrix else None,
        joint,
    )


@cache
def load() -> Any:
    """The compiled functions, None where there is no compiler. Policies load them when they are
    made, so that no decision waits for them; who only reads specs or writes reports makes none.
    """
    from topbill.policies.linear import compiled, slates

    return slates if compiled.numba is not None else None
