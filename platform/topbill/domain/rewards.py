"""What reward events mean to each item of a slate that was shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from topbill.domain.metric import TimedValue
from topbill.domain.objective import Objective
from topbill.domain.records import Decision, RewardEvent


class RewardRules(Protocol):
    """What an experiment says about its rewards."""

    @property
    def goal(self) -> Objective:
        """What is to be raised."""

    @property
    def feedback(self) -> str:
        """Whether an event belongs to the `item` that it names, or always to the `slate`."""

    @property
    def click_model(self) -> str:
        """One of `CLICK_MODELS`."""


def _all_examined(rewarded: Sequence[bool]) -> int:
    return len(rewarded)


def _examined_to_last_click(rewarded: Sequence[bool]) -> int:
    for position in reversed(range(len(rewarded))):
        if rewarded[position]:
            return position + 1
    # Who clicked nothing has seen it all: otherwise a slate that nobody liked would teach nothing.
    return len(rewarded)


CLICK_MODELS: Mapping[str, Callable[[Sequence[bool]], int]] = MappingProxyType(
    {"independent": _all_examined, "cascade": _examined_to_last_click}
)
"""By name, how many of a slate's positions a viewer looked at, given which of them got an event.

`independent` takes it that each was. Under `cascade` a viewer looks down the slate and stops at the
last item with an event (Craswell et al. 2008, "An experimental comparison of click position-bias
models"): what is below was not examined, unless nothing was rewarded at all.
"""


def item_rewards(
    experiment: RewardRules, decision: Decision, events: Sequence[RewardEvent]
) -> list[float | None]:
    """The objective in [0, 1] of each shown item; None for one that, by the click model, nobody
    looked at.

    An event without a position belongs to all of the slate. With `feedback: slate` every event
    does.
    """
    by_position = _by_position(experiment, decision, events)
    examined = CLICK_MODELS[experiment.click_model]([bool(own) for own in by_position])
    rewards: list[float | None] = []
    for position, own in enumerate(by_position):
        reward = decision_reward(experiment.goal, decision, own) if position < examined else None
        rewards.append(reward)
    return rewards


def _by_position(
    experiment: RewardRules, decision: Decision, events: Sequence[RewardEvent]
) -> list[list[RewardEvent]]:
    """The events of each shown item."""
    slots = len(decision.slate)
    by_position: list[list[RewardEvent]] = [[] for _ in range(slots)]
    for event in events:
        if event.position is None or experiment.feedback == "slate":
            for of_position in by_position:
                of_position.append(event)
        elif event.position < slots:
            by_position[event.position].append(event)
    return by_position


def clipped_metrics(
    experiment: RewardRules, decision: Decision, events: Sequence[RewardEvent]
) -> frozenset[str]:
    """Which metrics of the objective some shown item has outside [floor, cap], so that they
    count as an end: as `Objective.clipped` says it."""
    # Most decisions have no event, and then nothing but the defaults, which the file's check knows.
    if not events:
        return frozenset()
    sides: set[str] = set()
    for own in _by_position(experiment, decision, events):
        sides |= experiment.goal.clipped(_timed(decision, own))
    return frozenset(sides)


def decision_reward(
    objective: Objective, decision: Decision, events: Sequence[RewardEvent]
) -> float:
    """The objective in [0, 1] of a decision with these events, in the order of the log."""
    return objective.of_events(_timed(decision, events))


def _timed(decision: Decision, events: Sequence[RewardEvent]) -> dict[str, list[TimedValue]]:
    """Values by event name, each with its seconds after the decision."""
    by_name: dict[str, list[TimedValue]] = {}
    for event in events:
        # The caller's time, where there is one: an event that was long on its way (a phone without
        # network) still counts from when it happened.
        happened = event.occurred_at if event.occurred_at is not None else event.received_at
        seconds = (happened - decision.decided_at) / 1e6
        by_name.setdefault(event.event, []).append((event.value, seconds))
    return by_name
