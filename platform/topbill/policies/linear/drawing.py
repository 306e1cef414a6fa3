"""Slates that are drawn in compiled calls."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from topbill.domain.errors import OverBudget
from topbill.domain.records import Floats, Indices
from topbill.domain.slate import (
    LARGEST_MATRIX,
    Slate,
    SlateRequest,
    SlateRules,
    SlatesRequest,
    TurnsRequest,
)
from topbill.policies.linear.chances import SHARES, Chances
from topbill.policies.linear.models import ActionIndex, LinearModels

_AT_ONCE = 4_096
"""Positions times actions of one call: between two calls somebody looks at the clock."""
_AT_ONCE_RULED = 16_384
"""Positions times actions up to which a slate under rules is drawn in one call."""
OF_X = np.zeros(0)
"""In place of what is made of x, which a compiled call makes itself."""


class Weighed(NamedTuple):
    """Models side by side, and how much each of them counts (E,)."""

    models: LinearModels
    weights: Floats

    @property
    def arrays(self) -> tuple[Floats, ...]:
        """What a compiled call reads of them."""
        own, shared = self.models.own, self.models.shared
        return self.weights, own.mean, own.cov, shared.mean, shared.cov


_NO_BLOCK = (np.zeros((1, 0, 0)), np.zeros((1, 0, 0, 0)))
_NO_MODELS = (np.zeros(0), *_NO_BLOCK, *_NO_BLOCK)
"""The arrays of no model."""


class Drawing:
    """Draws slates of K actions: what is the same from decision to decision, put together once.
    Good as long as its policy learns nothing.

    Attributes:
        index: Where the actions are.
        has_more: Whether it has models over a basis that it is to be given.
        arrays: What compiled calls read, kept for them.
    """

    __slots__ = ("_addresses", "_chances", "_compiled", "_room", "arrays", "has_more", "index")

    def __init__(
        self,
        index: ActionIndex,
        chances: Chances,
        models: Weighed | None = None,
        more: Weighed | None = None,
        scores: Floats | None = None,
    ) -> None:
        """`chances` are how scores become probabilities: (K,) `scores`, if there are, and what
        models expect. Own weights of the first `models` are over (1, x, 0), those of `more` over a
        basis that `slate` is given.
        """
        K = len(index.rows)
        self.index, self._chances, self._compiled = index, chances, load()
        self.has_more = more is not None
        settings = np.array(chances[:-1], dtype=np.float64)
        before = np.zeros(K) if scores is None else scores
        rank = index.rank if chances.kind == SHARES else index.rows
        of_actions = (settings, before, index.rows, rank, index.Z, chances.normals)
        own = _NO_MODELS if models is None else models.arrays
        others = _NO_MODELS if more is None else more.arrays
        self.arrays = (*of_actions, *own, *others)
        self._addresses = None if self._compiled is None else self._compiled.packed(*self.arrays)
        self._room = K * (2 + 2 * chances.normals.shape[2])

    def of_others(self, index: ActionIndex) -> Drawing | None:
        """The same for other actions, with what is not about actions as it is put together here;
        None where how scores become probabilities depends on the actions.
        """
        compiled = self._compiled
        if compiled is None or self._addresses is None or self._chances.kind == SHARES:
            return None
        K = len(index.rows)
        other = object.__new__(Drawing)
        other.index, other.has_more = index, self.has_more
        other._chances, other._compiled, other._room = self._chances, self._compiled, 2 * K
        before = np.zeros(K)
        of_actions = (before, index.rows, index.rows, index.Z)
        other.arrays = (self.arrays[0], *of_actions, *self.arrays[1 + len(of_actions) :])
        other._addresses = compiled.packed_of_others(self._addresses, before, index.rows, index.Z)
        return other

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # Addresses are of these very arrays: a copy of a policy puts its own together.
        return type(None), ()

    def slate(
        self,
        x: Floats,
        request: SlateRequest,
        basis: Floats = OF_X,
        context: Floats = OF_X,
    ) -> Slate | None:
        """What `domain.slate.rank` makes of the same scores (`slates`). None where it has to
        be asked itself: there is no compiler, nothing may be drawn, or the probabilities are no
        simplex, of which it says what is wrong.

        Args:
            x: (d,) the context.
            request: What to draw.
            basis: (p,) what own weights of `more` models are over.
            context: (r,) what shared weights are over, where that is not (1, x, 0).

        Raises:
            OverBudget: time is up between two positions.
        """
        eligible, slots = request.eligible, request.slots
        size = len(eligible)
        compiled = self._compiled
        if compiled is None or size == 0:
            return None
        if request.rules is not None:
            return self._ruled(compiled, x, request, basis, context, request.rules)
        if slots > size:
            slots = size
        total = slots * size
        has_matrix = total <= LARGEST_MATRIX
        out = np.empty(2 * slots + total if has_matrix else 2 * slots)
        room = np.empty(self._room)
        stop = slots if total <= _AT_ONCE else max(1, _AT_ONCE // size)
        count = compiled.score_and_draw(
            self._addresses, x, basis, context,
            request.decision_id.encode(), eligible, request.least, slots, stop, room, out,
        )  # fmt: skip
        if count == stop < slots:
            count = self._draw_more(compiled, request, slots, stop, room, out)
        if count < slots:
            return None
        return _slate_of(out.tolist(), slots, size)

    def slates(
        self, xs: Floats, request: SlatesRequest, bases: Floats | None, contexts: Floats | None
    ) -> list[Slate] | None:
        """`slate` of several decisions, in one call. None where one of them cannot be drawn so, or
        where it would take as long as somebody should look at the clock meanwhile.

        Args:
            xs: (n × d) their contexts.
            request: What to draw.
            bases: (n × p) for each what `slate` has as `basis`; None for OF_X.
            contexts: (n × r) the same of `context`.
        """
        eligible, ids = request.eligible, request.decision_ids
        count, size = len(ids), len(eligible)
        slots = min(request.slots, size)
        total = slots * size
        compiled = self._compiled
        if compiled is None or not 0 < total * count <= _AT_ONCE:
            return None
        texts = [each.encode() for each in ids]
        out = np.empty((count, 2 * slots + total if total <= LARGEST_MATRIX else 2 * slots))
        of_x = np.empty((count, 0))
        drawn = compiled.score_and_draw_each(
            self._addresses, xs,
            of_x if bases is None else bases, of_x if contexts is None else contexts,
            b"".join(texts), np.fromiter(accumulate(map(len, texts)), np.intp, count),
            eligible, request.least, slots, np.empty(self._room), out,
        )  # fmt: skip
        if drawn < count:
            return None
        return [_slate_of(line, slots, size) for line in out.tolist()]

    def turns(self, x: Floats, request: TurnsRequest, basis: Floats = OF_X) -> list[Slate] | None:
        """The slates of several decisions in one context, in one call (`DrawsTurns`). None where
        one of them cannot be drawn so, or where it would take as long as somebody should look at
        the clock meanwhile.
        """
        compiled, K = self._compiled, len(self.index.rows)
        if compiled is None or self._chances.kind == SHARES or not 0 < K <= _AT_ONCE:
            return None
        texts = [each.encode() for each in request.decision_ids]
        count = len(request.starts) - 1
        rows, propensities = np.empty(count, dtype=np.intp), np.empty(count)
        drawn = compiled.score_and_draw_turns(
            self._addresses, x, basis, OF_X,
            b"".join(texts), np.fromiter(accumulate(map(len, texts)), np.intp, len(texts)),
            np.array(request.ends, dtype=np.intp), request.starts,
            request.least, np.empty(self._room), rows, propensities,
        )  # fmt: skip
        if drawn < count:
            return None
        slates, start = [], 0
        all_rows, chances = rows.tolist(), propensities.tolist()
        for end in request.ends:
            own, first = tuple(chances[start:end]), int(request.starts[start])
            drawn_rows = tuple([row - first for row in all_rows[start:end]])
            slates.append(Slate(drawn_rows, own, None, math.prod(own)))
            start = end
        return slates

    def _draw_more(
        self,
        compiled: _Compiled,
        request: SlateRequest,
        slots: int,
        start: int,
        room: Floats,
        out: Floats,
    ) -> int:
        """Draw the positions from `start` on, of scores that are in `room`; how many are drawn."""
        eligible, late = request.eligible, request.late
        K, step = len(self.index.rows), max(1, _AT_ONCE // len(eligible))
        scores, spread, draws = room[:K], room[K : 2 * K], room[2 * K :].reshape(K, -1)
        while start < slots:
            if late is not None and late():
                raise OverBudget(f"{start} of {slots} positions were drawn when time was up")
            stop = min(start + step, slots)
            count = compiled.draw_positions(
                self._chances.kind, self._chances.chance, scores, spread, draws,
                request.decision_id.encode(), eligible, request.least, slots, start, stop, out,
            )  # fmt: skip
            if count < stop:
                return count
            start = stop
        return start

    def _ruled(
        self,
        compiled: _Compiled,
        x: Floats,
        request: SlateRequest,
        basis: Floats,
        context: Floats,
        rules: SlateRules,
    ) -> Slate | None:
        """The same under rules."""
        slots = len(rules.starts) - 1
        # Nobody looks at the clock before it is done.
        if slots * len(self.index.rows) > _AT_ONCE_RULED:
            return None
        rows, propensities = np.empty(slots, dtype=np.intp), np.empty(slots)
        count = compiled.score_and_draw_ruled(
            self._addresses, x, basis, context, request.decision_id.encode(), request.least,
            np.empty(self._room), *rules, rows, propensities,
        )  # fmt: skip
        if count < 0:
            return None
        drawn = tuple(propensities[:count].tolist())
        return Slate(tuple(rows[:count].tolist()), drawn, None, math.prod(drawn))


def _slate_of(drawn: list[float], slots: int, size: int) -> Slate:
    """What `slates.draw_positions` put into its `out`."""
    # Most slates are of one position.
    if slots == 1:
        row, propensity, *line = drawn
        return Slate((int(row),), (propensity,), (tuple(line),) if line else None, propensity)
    propensities = tuple(drawn[slots : 2 * slots])
    matrix = None
    if len(drawn) > 2 * slots:
        starts = range(2 * slots, len(drawn), size)
        matrix = tuple([tuple(drawn[start : start + size]) for start in starts])
    rows = tuple([int(row) for row in drawn[:slots]])
    return Slate(rows, propensities, matrix, math.prod(propensities))


class _Compiled(NamedTuple):
    """The compiled functions that are called from here, and those that pages call."""

    packed: Callable[..., Indices]
    packed_of_others: Callable[..., Indices]
    score_and_draw: Callable[..., int]
    score_and_draw_each: Callable[..., int]
    draw_positions: Callable[..., int]
    score_and_draw_ruled: Callable[..., int]
    score_and_draw_turns: Callable[..., int]
    fill_pool: Callable[..., int]
    kept: Callable[..., Indices]
    caps_of_pool: Callable[..., Indices]
    closings: Callable[..., Indices]
    stretches: Callable[..., Indices]
    tell_titles: Callable[..., int]


@cache
def load() -> _Compiled | None:
    """The compiled functions, None where there is no compiler. Policies load them when they are
    made, so that no decision waits for them; who only reads specs or writes reports makes none.
    """
    from topbill.policies.linear.compiled import IS_COMPILED

    if not IS_COMPILED:
        return None
    from topbill.policies.linear.addresses import packed, packed_of_others
    from topbill.policies.linear.rows import (
        caps_of_pool,
        closings,
        fill_pool,
        kept,
        stretches,
        tell_titles,
    )
    from topbill.policies.linear.ruled import score_and_draw_ruled, score_and_draw_turns
    from topbill.policies.linear.slates import (
        draw_positions,
        score_and_draw,
        score_and_draw_each,
    )

    return _Compiled(
        packed,
        packed_of_others,
        score_and_draw,
        score_and_draw_each,
        draw_positions,
        score_and_draw_ruled,
        score_and_draw_turns,
        fill_pool,
        kept,
        caps_of_pool,
        closings,
        stretches,
        tell_titles,
    )
