"""What a page under way keeps of each layer, and the editors' pins of whole rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from topbill.domain.errors import BadRequest
from topbill.domain.features import REST
from topbill.domain.records import Decision, Indices, Mask
from topbill.domain.slate import SlateRules
from topbill.domain.sums import plain_sum
from topbill.engine import Candidate, CompiledExperiment, DecisionInput, Engine, Turns
from topbill.rules import PoolCaps, RowConstraints

_encode = msgspec.json.Encoder().encode
_NO_CAPS: Indices = np.zeros(0, dtype=np.intp)


class Layer:
    """One layer's experiment as the engine holds it now, with the page's context encoded for it.

    Attributes:
        file: The experiment as its file says, for which actions are encoded. A page keeps the one
            that it began with, so that all its rows are decided by the same policies, whatever is
            loaded meanwhile.
        compiled: What decides: the same, or what ran before where its launch has not come to the
            viewer. Where that reads other features, actions or slots than the file, it cannot.
        admitted: Which of its variants decides for the viewer, and why.
        declared: The features of its context that a request may send.
        values: Those that this one sent, and what tables say of the viewer.
        x: The context as numbers.
        context: The context as JSON: the part that the experiment declares.
        entities: What was looked up of the context.
        log_propensity: Of all that the layer has chosen on this page.
        length_propensity: Of how many there are of what it chose, where that is drawn.
        variant: Whose choices they were.
        failed: Whether one of them was not the policy's.
    """

    def __init__(
        self,
        compiled: CompiledExperiment,
        context: Mapping[str, Any],
        unit: str | None = None,
        viewer: str = "",
    ) -> None:
        """`unit` is whose features are looked up by id; None where it is nobody's id. `viewer` is
        who is assigned to a variant."""
        self.file, experiment = compiled, compiled.experiment
        self.declared = {feature.name for feature in experiment.context} - experiment.looked_up
        # A feature of this name takes whatever no other one is declared for.
        takes_any = REST in self.declared
        own = {name: value for name, value in context.items() if takes_any or name in self.declared}
        self.values, self.entities = compiled.lookup.context(own, unit)
        self.x = compiled.encoder.encode(self.values)
        self.context = msgspec.Raw(_encode(self.values))
        former = compiled.former_of(viewer, self.context) if compiled.former_reads_alike else None
        self.compiled = former or compiled
        # All of its choices are one viewer's, in one context.
        self.admitted = self.compiled.admit(viewer, self.context)
        self.log_propensity = 0.0
        self.length_propensity = 1.0
        self.variant: str | None = None
        self.failed = False

    def choose(self, engine: Engine, inputs: DecisionInput, deadline: float) -> Decision:
        """The layer's choice, with what the variants of its launch make of it unseen."""
        candidate = Candidate(self.file, inputs)
        return self.note(engine.choose(self.compiled, inputs, deadline, candidate, self.admitted))

    def choose_turns(
        self, engine: Engine, choices: Sequence[DecisionInput], turns: Turns, deadline: float
    ) -> list[Decision]:
        """`choose` of several decisions whose positions have choices of their own."""
        # Who decides unseen is asked beside each.
        if choices and not self.file.shadows:
            compiled, admitted = self.compiled, self.admitted
            decisions = engine.choose_turns(compiled, choices, turns, deadline, admitted)
            if decisions is not None:
                return list(map(self.note, decisions))
        return [self.choose(engine, inputs, deadline) for inputs in choices]

    def note(self, decision: Decision) -> Decision:
        """Add what was chosen to the layer's account."""
        self.log_propensity += plain_sum([math.log(placed.propensity) for placed in decision.slate])
        if decision.stops:
            self.length_propensity *= decision.length_propensity
            self.log_propensity += math.log(decision.length_propensity)
        self.variant = decision.variant
        self.failed |= decision.reason == "fallback"
        return decision

    def declares_vector(self, name: str) -> bool:
        """Whether the experiment declares this feature of the context as a vector."""
        for feature in self.compiled.experiment.context:
            if feature.name == name:
                return feature.kind == "vector"
        return False


def refuse_unknown(context: Mapping[str, Any], layers: Iterable[Layer]) -> None:
    """Raises BadRequest for a context feature that no layer declares."""
    declared: set[str] = set()
    for layer in layers:
        declared |= layer.declared
    for name in context:
        if name not in declared and REST not in declared:
            raise BadRequest(
                f"$.context.{name[:64]}",
                f"no layer declares it; expected one of {', '.join(sorted(declared))}",
            )


class PinnedRows:
    """Rows with the editors' pins (`slate.Allowed`), over the rows of the experiment that are
    `eligible`; `pins` maps positions to rows.

    RowConstraints does the work: it speaks of places among the eligible, the engine of rows of the
    experiment, and this translates.
    """

    def __init__(self, eligible: Indices, slots: int, pins: Mapping[int, int]) -> None:
        self._eligible = eligible
        self._place = {row: place for place, row in enumerate(eligible.tolist())}
        self._constraints = RowConstraints(
            PoolCaps(_NO_CAPS, (), _NO_CAPS, np.zeros(len(eligible), dtype=np.intp)),
            slots,
            cap_left=_NO_CAPS,
            pins={position: self._place[row] for position, row in pins.items()},
        )

    @property
    def masks(self) -> tuple[Mask, ...]:
        """What the pins did."""
        return self._constraints.masks

    def ahead(self) -> SlateRules:
        """What the pins say before the first draw (`slate.AllowedAhead`)."""
        rules = self._constraints.ahead()
        is_open = np.zeros(int(self._eligible.max(initial=-1)) + 1, dtype=np.intp)
        is_open[self._eligible] = rules.is_open
        nothing = np.zeros_like(is_open)
        return rules._replace(
            only=self._eligible[rules.only], is_open=is_open, caps_end=nothing, fresh=nothing
        )

    def note(self, placed: Sequence[int]) -> None:
        """Note what the pins did (`slate.AllowedAhead`)."""
        self._constraints.note([self._place[row] for row in placed])

    def rows(self, position: int, placed: Sequence[int]) -> Indices:
        """The rows that may stand at `position`."""
        places = self._constraints.rows(position, [self._place[row] for row in placed])
        return self._eligible[places]
