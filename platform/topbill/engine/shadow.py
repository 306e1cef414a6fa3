"""What variants in the shadow step of a launch would have done: their probabilities of what was
shown, beside a decision that they have no part in.

A shadow is asked when the decision is made, and draws nothing. It has what is left of the
decision's time, and whatever goes wrong with it stays with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from topbill.domain.chance import hash64
from topbill.domain.errors import OverBudget
from topbill.domain.records import Floats, Mask, ShadowDecision
from topbill.domain.slate import LARGEST_MATRIX, choices, distribution, shifted
from topbill.engine.api import DecisionInput
from topbill.engine.compiled import CompiledExperiment, Shadow
from topbill.spec import Variant

LATE, RESTING = "late", "resting"
"""Failures that are no error of the policy: it ran out of time, or was too slow to be asked."""
OTHER_ACTIONS = "other_actions"
"""The same of a decision between actions that the candidate's file does not have."""
_logger = logging.getLogger("topbill")


class Candidate(NamedTuple):
    """A launch whose variants decide unseen, and a request as it reads it."""

    compiled: CompiledExperiment
    inputs: DecisionInput


class Shown(NamedTuple):
    """A decision as it was made: its inputs, the rows that were drawn, first position first, and
    what the rules did.
    """

    inputs: DecisionInput
    rows: Sequence[int]
    masks: Sequence[Mask]

    @classmethod
    def of(
        cls,
        inputs: DecisionInput,
        rows: Sequence[int],
        masks: Sequence[Mask],
        candidate: DecisionInput,
    ) -> Shown | None:
        """A decision made of `inputs`, as a candidate reads the same request; None where it does
        not know all of the actions that could be shown.
        """
        if candidate is inputs:
            return cls(inputs, rows, masks)
        row_of = {action: row for row, action in enumerate(candidate.actions.ids)}
        ids = inputs.actions.ids
        try:
            eligible = [row_of[ids[row]] for row in inputs.eligible.tolist()]
        except KeyError:
            return None
        as_shown = msgspec.structs.replace(candidate, eligible=np.array(eligible, dtype=np.intp))
        return cls(as_shown, [row_of[ids[row]] for row in rows], masks)

    @property
    def places(self) -> list[int]:
        """Where the drawn rows are among the eligible."""
        place_of = {row: place for place, row in enumerate(self.inputs.eligible.tolist())}
        return [place_of[row] for row in self.rows]


def shadow_decisions(
    compiled: CompiledExperiment,
    shown: Shown | None,
    clock: Callable[[], float],
    deadline: float | None = None,
) -> tuple[ShadowDecision, ...]:
    """What each variant in shadow makes of a decision; nothing where it is None. `clock` is the
    engine's, in seconds; past `deadline` none is asked, as no policy is.
    """
    if shown is None:
        names = [shadow.variant.name for shadow in compiled.shadows]
        return tuple([ShadowDecision(name, failure=OTHER_ACTIONS) for name in names])
    end = shown.inputs.start + compiled.experiment.budget_ms / 1e3
    if deadline is not None:
        end = min(end, deadline)
    return tuple([_asked(compiled, shadow, shown, clock, end) for shadow in compiled.shadows])


def _asked(
    compiled: CompiledExperiment,
    shadow: Shadow,
    shown: Shown,
    clock: Callable[[], float],
    end: float,
) -> ShadowDecision:
    """One variant's answer, or why it has none."""
    name, asked = shadow.variant.name, clock()
    if asked >= end:
        return ShadowDecision(name, failure=LATE)
    if not shadow.patience.may_ask(asked):
        return ShadowDecision(name, failure=RESTING)
    failure, positions = "", list[Floats]()
    try:
        positions = _positions(compiled, shadow.variant, shown, lambda: clock() > end)
    except OverBudget:
        failure = LATE
    except Exception as error:
        failure = type(error).__name__
        _note(compiled, name, error)
    answered = clock()
    in_time = shadow.patience.in_time(asked, answered, compiled.experiment.budget_ms)
    if not failure and (answered > end or not in_time):
        failure = LATE
    micros = int((answered - asked) * 1e6)
    if failure:
        return ShadowDecision(name, latency_us=micros, failure=failure)
    at = zip(positions, shown.places, strict=True)
    propensities = tuple([float(p[place]) for p, place in at])
    return ShadowDecision(name, propensities, _matrix(positions), micros)


def _positions(
    compiled: CompiledExperiment, variant: Variant, shown: Shown, late: Callable[[], bool]
) -> list[Floats]:
    """For each position of what was shown, (len(eligible),) the variant's probabilities given the
    shown items above.
    """
    inputs = shown.inputs
    # The seed of the decision, as where the variant decides itself: it gives the same sample.
    policy = compiled.policies[variant.name]
    scored = policy.score(inputs.x, inputs.actions, hash64(inputs.decision_id))
    terms = None if inputs.terms is None else inputs.terms()
    positions = []
    above: list[int] = []
    for k, place in enumerate(shown.places):
        if k and late():
            raise OverBudget(f"{k} of {len(shown.rows)} positions were known when time was up")
        places = choices(shown.masks, len(inputs.eligible), k, above)
        now = scored if terms is None else shifted(scored, terms.at(shown.rows[:k]))
        probabilities = np.zeros(len(inputs.eligible))
        remaining = inputs.eligible[places]
        probabilities[places] = distribution(now, remaining, variant.min_probability)
        positions.append(probabilities)
        above.append(place)
    return positions


def _matrix(positions: Sequence[Floats]) -> tuple[tuple[float, ...], ...] | None:
    """All probabilities, where they are not too many for the log."""
    if sum(map(len, positions)) > LARGEST_MATRIX:
        return None
    return tuple([tuple(p.tolist()) for p in positions])


def _note(compiled: CompiledExperiment, name: str, error: Exception) -> None:
    """Say what went wrong, when it changes: one that fails each time would fill the disk."""
    if compiled.shadow_failures.get(name) == repr(error):
        return
    compiled.shadow_failures[name] = repr(error)
    where = f"{compiled.experiment.key}: policy of variant {name} v{compiled.version}"
    _logger.warning("%s failed in shadow; no viewer notices", where, exc_info=error)
