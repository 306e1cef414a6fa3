"""What a page under way keeps of each layer, and the editors' pins of whole rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from topbill.domain.errors import BadRequest
from topbill.domain.records import Decision, Indices, Mask
from topbill.engine import CompiledExperiment
from topbill.rules import Counts, RowConstraints

_encode = msgspec.json.Encoder().encode
_NONE: Counts = np.zeros(0, dtype=np.int64)


class Layer:
    """One layer's experiment as the engine holds it now, with the page's context encoded for it."""

    def __init__(self, live: CompiledExperiment, context: Mapping[str, Any]) -> None:
        self.live = live
        declared = {feature.name for feature in live.experiment.context}
        own = {name: value for name, value in context.items() if name in declared}
        self.x = live.encoder.encode(own)
        self.context = msgspec.Raw(_encode(own))
        self.log_propensity = 0.0
        self.variant: str | None = None
        self.failed = False

    def note(self, decision: Decision) -> Decision:
        """Add what was chosen to the layer's account."""
        self.log_propensity += sum(math.log(placed.propensity) for placed in decision.slate)
        self.variant = decision.variant
        self.failed |= decision.reason == "fallback"
        return decision


def refuse_unknown(context: Mapping[str, Any], layers: Iterable[Layer]) -> None:
    """Raises BadRequest for a context feature that no layer declares."""
    declared = {feature.name for layer in layers for feature in layer.live.experiment.context}
    for name in context:
        if name not in declared:
            raise BadRequest(
                f"$.context.{name[:64]}",
                f"no layer declares it; expected one of {', '.join(sorted(declared))}",
            )


class PinnedRows:
    """Rows with the editors' pins (`slates.Allowed`), over the rows of the experiment that are
    `eligible`.
    """

    def __init__(self, eligible: Indices, slots: int, pins: Mapping[int, int]) -> None:
        self._eligible = eligible
        place = {row: i for i, row in enumerate(eligible.tolist())}
        groups = np.zeros((len(eligible), 0), dtype=bool)
        self._filling = RowConstraints(
            groups,
            [()] * len(eligible),
            (),
            slots,
            left=_NONE,
            pins={k: place[row] for k, row in pins.items()},
        )
        self._place = place

    @property
    def masks(self) -> tuple[Mask, ...]:
        """What the pins did."""
        return self._filling.masks

    def rows(self, position: int, placed: Sequence[int]) -> Indices:
        """The rows that may stand at `position`."""
        return self._eligible[self._filling.rows(position, [self._place[row] for row in placed])]
