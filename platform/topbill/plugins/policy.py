"""The policy that a package of your own brings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from topbill.domain.features import FeatureColumns
from topbill.domain.records import Actions, Example, Floats

State: TypeAlias = Mapping[str, Any]
"""What a policy has learned, by name: NumPy arrays of float64, float32, int64, int32, uint8 or
bool, and whatever JSON can hold. Everything in it is finite."""


class NoParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy without parameters."""


class OwnPolicy(ABC):
    """A policy of an installed package. Name the class as an entry point of the group
    `topbill.policies`, and variants may name it as they name a shipped one.

    It says how probable each action is; Topbill draws from these very numbers, logs them, and tells
    it later what was earned. Of what it is given nothing may be changed: the arrays are read-only.
    What it raises, or returns that is no probability of each action, makes a decision fall back on
    the control's order, flagged and counted; so does one that takes longer than `budget_ms`.

    Attributes:
        params: What the variant says beside its policy, as an object of `Params`.
        columns: Which numbers the declared features became.
        seed: Of this experiment and variant: the same in every process.
    """

    Params: ClassVar[type[msgspec.Struct]] = NoParams
    """A frozen struct of the parameters that a variant may set; other keys are refused by name."""
    deterministic: ClassVar[bool] = True
    """Whether it may give an action probability 0: then a variant must say `min_probability`, or
    nobody could evaluate from its log. Say False only of one that never does."""

    def __init__(self, params: Any, columns: FeatureColumns, seed: int) -> None:
        self.params, self.columns, self.seed = params, columns, seed

    @abstractmethod
    def probabilities(self, x: Floats, actions: Actions, seed: int) -> Floats:
        """How probable each action is at the next position.

        It is asked anew for each position of a slate, with the actions that remain. Equal arguments
        must give equal numbers for as long as nothing was learned: take any chance from `seed`.

        Args:
            x: (d,) the encoded context.
            actions: The K actions that may be drawn: `ids`, and `features` (K × da).
            seed: Of this decision, 64 bits.

        Returns:
            (K,) at least 0, their sum 1 within 1e-6.
        """

    def update(self, examples: Sequence[Example]) -> None:  # noqa: B027 (what learns nothing)
        """Learn from matured choices in their order; one batch or many must lead to the same state.
        By default it learns nothing.
        """

    def state(self) -> State:
        """What it has learned; equal states must give equal arrays and values."""
        return {}

    def restore(self, state: State) -> None:  # noqa: B027 (what keeps nothing)
        """Go on from what `state` gave, maybe in another process. Raise ValueError for one that
        does not fit, and change nothing then.
        """


def readonly(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """A view of an array that can't be written to."""
    view = array.view()
    view.flags.writeable = False
    return view
