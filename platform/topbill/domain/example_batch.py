"""Examples column by column: what policies that fold many of them in compiled calls read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

import numpy as np

from topbill.domain.errors import PolicyError
from topbill.domain.records import Example, Floats


class ExampleBatch(Sequence[Example]):
    """n examples, and as columns what most policies learn of them.

    Attributes:
        contexts: (n × d).
        ids: (n) of the actions that were drawn.
        features: (n × da) of those actions.
        rewards: (n,) in [0, 1].
        positions: (n,) from 0.
        times: (n,) in seconds since the epoch.
        reaches: (n,) as `Example.reach`.

    An example itself is put together when somebody asks for it: who learns from columns pays for
    none.
    """

    def __init__(
        self,
        contexts: Floats,
        ids: Sequence[str],
        features: Floats,
        rewards: Floats,
        positions: Floats,
        times: Floats,
        reaches: Floats,
        example: Callable[[int], Example],
    ) -> None:
        self.contexts, self.ids, self.features = contexts, ids, features
        self.rewards, self.positions = rewards, positions
        self.times, self.reaches = times, reaches
        self._example = example

    @classmethod
    def of(cls, examples: Sequence[Example], context_size: int, action_size: int) -> ExampleBatch:
        """These examples, of contexts (d) and action features (da) of those sizes. Raises
        PolicyError for others.
        """
        if isinstance(examples, cls):
            _check("context has", examples.contexts.shape[1:], context_size)
            _check("action features have", examples.features.shape[1:], action_size)
            return examples
        chosen = [example.actions.at(example.index) for example in examples]
        for example, (_, features) in zip(examples, chosen, strict=True):
            _check("context has", example.x.shape, context_size)
            _check("action features have", features.shape, action_size)
        size = len(examples)
        return cls(
            np.array([e.x for e in examples], dtype=np.float64).reshape(size, context_size),
            [name for name, _ in chosen],
            np.array([z for _, z in chosen], dtype=np.float64).reshape(size, action_size),
            np.array([e.reward for e in examples], dtype=np.float64),
            np.array([e.position for e in examples], dtype=np.float64),
            np.array([e.at for e in examples], dtype=np.float64),
            np.array([e.reach for e in examples], dtype=np.float64),
            examples.__getitem__,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> ExampleBatch: ...
    def __getitem__(self, index: int | slice) -> Example | ExampleBatch:
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        return self._example(range(len(self))[index])

    def take(self, rows: Sequence[int]) -> ExampleBatch:
        """The examples at `rows`, in that order."""
        if len(rows) == len(self) and list(rows) == list(range(len(self))):
            return self
        at = np.asarray(rows, dtype=np.intp)
        return ExampleBatch(
            self.contexts[at],
            [self.ids[row] for row in rows],
            self.features[at],
            self.rewards[at],
            self.positions[at],
            self.times[at],
            self.reaches[at],
            lambda index: self._example(rows[index]),
        )


def _check(what: str, shape: tuple[int, ...], size: int) -> None:
    if shape != (size,):
        raise PolicyError(f"{what} shape {shape}, expected ({size},)")
