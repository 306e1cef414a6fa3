"""Slates position by position without replacement: the draw, its propensities, and those of a given
slate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import numpy as np

from topbill.domain.chance import FEW, draw, invert, with_min_probability
from topbill.domain.errors import OverBudget, PolicyError
from topbill.domain.records import Floats, Indices, Mask, Scored

LARGEST_MATRIX = 1024
"""Above this many numbers (positions × eligible actions) a slate does not carry its probability
matrix.
"""


class Slate(msgspec.Struct, frozen=True, gc=False):
    """Rows placed (first position first), the propensity of each given those before it, and their
    product.

    `probabilities[k][j]` is the probability of `eligible[j]` at position k, 0 for what was placed
    above; None when it would hold more than `LARGEST_MATRIX` numbers.
    """

    rows: tuple[int, ...]
    propensities: tuple[float, ...]
    probabilities: tuple[tuple[float, ...], ...] | None
    propensity: float


class Best:
    """What a policy holds to be the best of those that remain, for certain: the first of the
    highest mean, or of the highest probability where the policy estimates no means."""

    def __init__(self, scored: Scored) -> None:
        self._scored = scored

    @property
    def mean(self) -> Floats | None:
        """(K,) the policy's own."""
        return self._scored.mean

    @property
    def width(self) -> Floats | None:
        """(K,) the policy's own."""
        return self._scored.width

    def probabilities(self, remaining: Indices) -> Floats:
        """(len(remaining),) 1 for the best, 0 for the others."""
        mean = self._scored.mean
        worth = self._scored.probabilities(remaining) if mean is None else mean[remaining]
        certain = np.zeros(len(remaining))
        certain[int(np.argmax(worth))] = 1.0
        return certain


class Allowed(Protocol):
    """Rules over one slate, asked position by position before each draw; one object serves one
    slate.
    """

    def rows(self, position: int, placed: Sequence[int]) -> Indices:
        """The rows that may stand at `position` below those `placed` above; none of these, and none
        at all where the slate ends here."""
        ...

    @property
    def masks(self) -> tuple[Mask, ...]:
        """What the rules did up to now, for the log."""
        ...


def rank(
    scored: Scored,
    eligible: Indices,
    slots: int,
    least: float,
    uniforms: Callable[[int], float] | Sequence[float],
    allowed: Allowed | None = None,
    late: Callable[[], bool] | None = None,
) -> Slate:
    """Draw min(slots, len(eligible)) of the rows in `eligible`, each position from what remains.

    At each position the policy's probabilities are taken anew over the remaining rows, lifted to
    `least`, and drawn from with the position's own uniform in [0, 1). Under rules, `allowed` says
    in place of `eligible` what may be drawn at each position; such a slate carries no matrix and
    may end early. Raises PolicyError when the policy's vector is no simplex, and OverBudget once
    `late`, asked before every position after the first, says so.
    """
    uniform = uniforms if callable(uniforms) else uniforms.__getitem__
    if allowed is not None:
        return _rank_allowed(scored, allowed, slots, least, uniform, late)
    size = len(eligible)
    # Most decisions are of one slot: without the loop below, they take half the time.
    if slots == 1 and size:
        p = distribution(scored, eligible, least)
        j = draw(p, uniform(0))
        drawn = float(p[j])
        matrix = (tuple(p.tolist()),) if size <= LARGEST_MATRIX else None
        return Slate((int(eligible[j]),), (drawn,), matrix, drawn)
    return _rank_many(scored, eligible, min(slots, size), least, uniform, late)


def _rank_many(
    scored: Scored,
    eligible: Indices,
    slots: int,
    least: float,
    uniform: Callable[[int], float],
    late: Callable[[], bool] | None,
) -> Slate:
    remaining = np.arange(len(eligible))
    rows: list[int] = []
    propensities: list[float] = []
    matrix: list[tuple[float, ...]] | None = [] if slots * len(eligible) <= LARGEST_MATRIX else None
    joint = 1.0
    for position in range(slots):
        if position and late is not None and late():
            raise OverBudget(f"{position} of {slots} positions were drawn when time was up")
        p = distribution(scored, eligible[remaining], least)
        j = draw(p, uniform(position))
        rows.append(int(eligible[remaining[j]]))
        propensities.append(float(p[j]))
        joint *= propensities[-1]
        if matrix is not None:
            # In places of the eligible, not of what remained: every position's line has the same
            # columns, with 0 for what was placed above.
            full = np.zeros(len(eligible))
            full[remaining] = p
            matrix.append(tuple(full.tolist()))
        remaining = np.delete(remaining, j)
    return Slate(tuple(rows), tuple(propensities), None if matrix is None else tuple(matrix), joint)


def _rank_allowed(
    scored: Scored,
    allowed: Allowed,
    slots: int,
    least: float,
    uniform: Callable[[int], float],
    late: Callable[[], bool] | None,
) -> Slate:
    rows: list[int] = []
    propensities: list[float] = []
    joint = 1.0
    for position in range(slots):
        if position and late is not None and late():
            raise OverBudget(f"{position} of {slots} positions were drawn when time was up")
        may = allowed.rows(position, rows)
        if not len(may):
            break
        j, drawn = _take(scored, may, least, uniform(position))
        rows.append(int(may[j]))
        propensities.append(drawn)
        joint *= drawn
    return Slate(tuple(rows), tuple(propensities), None, joint)


def _take(scored: Scored, may: Indices, least: float, u: float) -> tuple[int, float]:
    """Which of `may` is drawn, and its probability: what `distribution` and `draw` say, bit for
    bit. A page draws some 400 times from few actions each, where plain Python is several times
    faster than NumPy."""
    size = len(may)
    if size > FEW:
        p = distribution(scored, may, least)
        j = draw(p, u)
        return j, float(p[j])
    values = scored.probabilities(may).tolist()
    if len(values) != size or not (min(values) >= 0.0 and abs(sum(values) - 1.0) <= 1e-6):
        distribution(scored, may, least)  # raises, and says what is wrong
    if least > 0.0:
        f = min(least, 1.0 / size)
        keep = 1.0 - size * f
        values = [keep * p + f for p in values]
    j = invert(values, u)
    return j, values[j]


def in_order(order: Sequence[int], allowed: Allowed, slots: int) -> Slate:
    """The first of `order` that the rules allow at each position: surely, so with propensity 1."""
    rows: list[int] = []
    for position in range(slots):
        may = set(allowed.rows(position, rows).tolist())
        first = next((row for row in order if row in may), None)
        if first is None:
            break  # the slate ends here: nothing that is left fits
        rows.append(first)
    return Slate(tuple(rows), (1.0,) * len(rows), None, 1.0)


def choices(masks: Sequence[Mask], size: int, position: int, above: Sequence[int]) -> Indices:
    """Which of `size` eligible rows could be drawn at `position`, below the rows placed `above`,
    under a decision's `masks`."""
    may = np.ones(size, dtype=bool)
    may[list(above)] = False
    for mask in masks:
        if mask.start <= position < mask.stop:
            rows = np.array(mask.rows, dtype=np.intp)
            if mask.only:
                # Several rules may narrow one position: what is left is what all of them allow.
                among = np.zeros(size, dtype=bool)
                among[rows] = True
                may &= among
            else:
                may[rows] = False
    return np.flatnonzero(may)


def propensities(
    scored: Scored, eligible: Indices, slate_rows: Sequence[int] | Indices, least: float
) -> Floats:
    """(len(slate_rows),) the probability of each placed row given those above it, had this policy
    decided.

    For off-policy evaluation of another policy on a logged slate. A row that is not eligible, or
    placed twice, raises PolicyError.
    """
    remaining = np.asarray(eligible, dtype=np.intp)
    out = np.empty(len(slate_rows))
    for position, row in enumerate(slate_rows):
        at = np.flatnonzero(remaining == row)
        if at.size != 1:
            raise PolicyError(
                f"slate position {position} holds row {row}, "
                "which is not among the eligible that remain"
            )
        out[position] = distribution(scored, remaining, least)[at[0]]
        remaining = np.delete(remaining, at[0])
    return out


def distribution(scored: Scored, remaining: Indices, least: float) -> Floats:
    """(len(remaining),) the policy's probabilities over `remaining`, checked to be a simplex,
    lifted to `least`.
    """
    p = scored.probabilities(remaining)
    if p.shape != (len(remaining),):
        raise PolicyError(
            f"policy returned probabilities of shape {p.shape} for {len(remaining)} actions"
        )
    total, lowest = float(np.add.reduce(p)), float(np.minimum.reduce(p))
    # NaN fails both comparisons, which is why they are not turned round.
    if not (lowest >= 0.0 and abs(total - 1.0) <= 1e-6):
        raise PolicyError(
            f"policy returned no probability simplex: sum {total}, least {lowest}; "
            "expected sum 1 within 1e-6, least ≥ 0"
        )
    return with_min_probability(p, least)
