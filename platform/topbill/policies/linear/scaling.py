"""The scale on which linear models read a context that is not written on a reasonable one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from topbill.domain.errors import PolicyError
from topbill.domain.example_batch import ExampleBatch
from topbill.domain.records import Floats
from topbill.policies import codec

ENOUGH = 32
"""Examples after which it is decided how contexts are read."""
NARROW, BROAD = 1.0 / 16.0, 16.0
"""A column whose values are all of less than the one, or differ by more than the other, is not of
unit scale, roughly."""
FAR = 8.0
"""How many standard deviations, and at least as much, a column's mean may lie from 0."""
MIXED = 0.5
"""Half the mean square of steps from example to example, in variances, is 1 where examples come in
no order (von Neumann 1941). Below this a column follows the clock: then the first examples don't
say how far it will go."""
MOST = 8.0
"""How many standard deviations from its mean a standardised column is read at most: the first
examples may have been too much alike."""
MOMENTS, SCALE = "context_moments", "context_scale"
"""What a state calls what was seen, and what was decided."""


class ContextScale:
    """What is taken off each column of a context (d), and what the rest is multiplied with.

    Weights have priors for columns of unit scale: of one whose values differ by a thousandth, or by
    one beside 2,026, a model learns nothing for long. So the first examples say which columns are
    far from that, and these are standardised from then on; all others are read as they are
    written, those too that follow the clock. It is decided once, after `ENOUGH` examples, because
    weights mean nothing on another scale: where a column was far off, what those few taught is
    given up.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._count = 0 if size else ENOUGH
        self._mean, self._squares = np.zeros(size), np.zeros(size)
        self._last, self._steps = np.zeros(size), np.zeros(size)
        self._scale: tuple[Floats, Floats] | None = None
        self._most = np.full(size, np.inf)

    @classmethod
    def as_written(cls, size: int) -> ContextScale:
        """One that reads contexts as they are written, whatever comes."""
        scale = cls(size)
        scale._count = ENOUGH
        return scale

    @property
    def undecided(self) -> int:
        """How many examples are missing until it is decided."""
        return ENOUGH - self._count

    def fold(
        self,
        batch: ExampleBatch,
        update: Callable[[ExampleBatch], None],
        begin_anew: Callable[[], None],
    ) -> None:
        """Have examples folded in, in order, by `update`, which is given such as are read on one
        scale; where the first of them decide on another, `begin_anew` is called between.
        """
        undecided = self.undecided
        if undecided:
            first, batch = batch[:undecided], batch[undecided:]
            update(first)
            if self.note(first.contexts):
                begin_anew()
        update(batch)

    def note(self, contexts: Floats) -> bool:
        """Contexts (n × d) of at most `undecided` examples; whether these decide that some columns
        are read on another scale.
        """
        # One after the other, so that it is no matter in which batches they come (Welford 1962).
        for x in contexts:
            self._count += 1
            apart = x - self._mean
            self._mean = self._mean + apart / self._count
            self._squares = self._squares + apart * (x - self._mean)
            if self._count > 1:
                self._steps = self._steps + (x - self._last) ** 2
            self._last = np.array(x)
        if self._count == ENOUGH:
            self._decide()
        return self._scale is not None

    def _decide(self) -> None:
        deviation = np.sqrt(self._squares / self._count)
        magnitude = np.abs(self._mean) + deviation
        varies = deviation > 1e-12 * np.maximum(1.0, np.abs(self._mean))
        is_mixed = self._steps >= 2.0 * MIXED * self._squares
        # What is near 1 and hardly varies may be a cosine of the hour: it is no narrow column.
        is_off = varies & is_mixed & ((magnitude < NARROW) | (deviation > BROAD))
        is_far = is_mixed & (np.abs(self._mean) > FAR * np.maximum(deviation, 1.0))
        if not (is_off | is_far).any():
            return
        offset = np.where(is_off | is_far, self._mean, 0.0)
        # Beside a constant that is far a narrow column may be the clock too.
        is_multiplied = is_off | (is_far & (deviation >= NARROW))
        factor = np.where(is_multiplied, 1.0 / np.where(varies, deviation, 1.0), 1.0)
        self._read_by(offset, factor)

    def _read_by(self, offset: Floats, factor: Floats) -> None:
        is_written = (offset == 0.0) & (factor == 1.0)
        self._most = np.where(is_written, np.inf, MOST)
        self._scale = offset, factor

    def of(self, contexts: Floats) -> Floats:
        """Contexts (… × d) as the model reads them; the same object where that is as written."""
        if self._scale is None:
            return contexts
        offset, factor = self._scale
        scaled = (contexts - offset) * factor
        return np.asarray(np.minimum(np.maximum(scaled, -self._most), self._most))

    def arrays(self) -> dict[str, Floats]:
        """What a state holds of it: nothing before the first example, and nothing once it is
        decided that contexts are read as they are written.
        """
        if self._scale is not None:
            return {SCALE: np.array(self._scale)}
        if 0 < self._count < ENOUGH:
            count = np.full(self.size, float(self._count))
            seen = count, self._mean, self._squares, self._last, self._steps
            return {MOMENTS: np.array(seen)}
        return {}

    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """What a state may hold of it, as `codec.load` wants it."""
        return {MOMENTS: (5, self.size), SCALE: (2, self.size)}

    def restore(self, state: codec.PolicyState, is_new: bool) -> None:
        """Take over what `arrays` gave; `is_new` says that nothing was decided before it. Raises
        PolicyError for numbers that can be none.
        """
        moments, scale = state.arrays.get(MOMENTS), state.arrays.get(SCALE)
        if scale is not None:
            if not (scale[1] > 0.0).all():
                raise PolicyError(f"state: {SCALE} has factors of 0 or below; {codec.LEARN_ANEW}")
            self._count = ENOUGH
            self._read_by(scale[0], scale[1])
        elif moments is not None:
            count = float(moments[0, 0])
            if not 0.0 < count < ENOUGH:
                raise PolicyError(f"state: {MOMENTS} count {count:g}; {codec.LEARN_ANEW}")
            self._count = int(count)
            self._mean, self._squares, self._last, self._steps = moments[1:]
        elif not is_new:
            self._count = ENOUGH
