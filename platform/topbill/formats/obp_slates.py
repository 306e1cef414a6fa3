"""obp's slate `bandit_feedback` (a row for each position of a slate), to and from decisions and
reward events.

`pscore_cascade` is the probability of a slate down to its position, `pscore` that of the whole
slate; a placement's propensity is the quotient of two neighbours. `reward` is the sum of the values
of the position's events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from topbill.domain.chance import ROUNDING
from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Floats, Indices, Placement, RewardEvent
from topbill.formats.obp_columns import (
    ObpColumns,
    context_features,
    context_of,
    names_of,
    survey,
    take_position,
    vector,
)
from topbill.formats.rows import Row

_REQUIRED = ("slate_id", "action", "position", "reward", "pscore_cascade")
_INTEGERS = ("slate_id", "action", "position")
# How much above its neighbour a probability may be, relatively: sums of logarithms round.
_SLACK = ROUNDING


def from_slate_feedback(feedback: Mapping[str, Any], experiment: str) -> Iterator[Row]:
    """Each slate as a decision of `experiment`; action a is called `str(a)`, the context is {"x0":
    …}; a reward of 0 has no event.

    Raises:
        BadData: Naming the slate, for rows out of order or impossible probabilities.
    """
    for name in _REQUIRED:
        if feedback.get(name) is None:
            raise BadData(
                name, "got nothing; expected obp's slate bandit_feedback with pscore_cascade"
            )
    slate_id, action, position, reward, cascade = (
        vector(name, feedback[name]) for name in _REQUIRED
    )
    context = feedback.get("context")
    contexts = np.zeros((len(slate_id), 0)) if context is None else np.asarray(context)
    n_actions = int(feedback.get("n_unique_action") or action.max() + 1)
    eligible = names_of(n_actions)
    # A slate is a run of rows with one id.
    edges = np.flatnonzero(np.diff(slate_id)) + 1
    for rows in np.split(np.arange(len(slate_id)), edges):
        number = slate_id[rows[0]]
        _check_slate(f"slate {number}", position[rows], cascade[rows])
        # obp has a context for each slate, or one for each row.
        own = contexts[rows[0] if len(contexts) == len(slate_id) else int(number)]
        yield _slate(
            f"{experiment}-{number}", experiment, eligible, own, action[rows], reward[rows],
            cascade[rows],
        )  # fmt: skip


def _check_slate(where: str, position: Indices, cascade: Floats) -> None:
    """Raises BadData for positions out of order and for probabilities that rise."""
    size = len(position)
    if position.tolist() != list(range(size)):
        raise BadData(
            where, f"got positions {position.tolist()}; expected 0 to {size - 1} in order"
        )
    above = np.concatenate([[1.0], cascade[:-1]])
    if not (np.all(cascade > 0) and np.all(cascade <= above * (1 + _SLACK))):
        raise BadData(
            where,
            f"got pscore_cascade {cascade.tolist()}; expected falling probabilities in (0, 1]",
        )


def _slate(
    key: str,
    experiment: str,
    eligible: tuple[str, ...],
    context: Floats,
    action: Indices,
    reward: Floats,
    cascade: Floats,
) -> Row:
    """One slate's rows as a decision with its events."""
    propensities = cascade / np.concatenate([[1.0], cascade[:-1]])
    slate: list[Placement] = []
    events: list[RewardEvent] = []
    for position, name in enumerate(map(str, action)):
        # Rounding may have left a little more than 1.
        propensity = min(1.0, float(propensities[position]))
        slate.append(Placement(position, name, propensity))
        if reward[position]:
            events.append(
                RewardEvent(
                    decision_id=key,
                    event_id=f"reward-{position}",
                    event="reward",
                    value=float(reward[position]),
                    action=name,
                    position=position,
                )
            )
    decision = Decision(
        decision_id=key,
        experiment=experiment,
        revision="",
        variant="logged",
        unit=key,
        context=msgspec.Raw(msgspec.json.encode(context_of(context))),
        eligible=eligible,
        slate=tuple(slate),
        propensity=min(1.0, float(cascade[-1])),
        policy="imported",
        reason="policy",
    )
    return decision, events


def to_slate_feedback(
    rows: Iterable[Row],
    *,
    actions: tuple[str, ...] | None = None,
    columns: ObpColumns | None = None,
    first: int = 0,
) -> dict[str, Any]:
    """Slates as the dictionary that obp's slate estimators take.

    Args:
        rows: Decisions with their events.
        actions: Numbers the actions, where there are no `columns`.
        columns: Numbers actions and names the context's columns; by default as they are first met.
        first: The number of the first slate.

    Raises:
        BadData: An action is not numbered.
    """
    if columns is None:
        rows = list(rows)
        columns = survey(rows, actions)
    arrays: dict[str, list[Any]] = {name: [] for name in (*_REQUIRED, "pscore")}
    contexts: list[dict[str, Any]] = []
    slates = 0
    for slate_id, (decision, events) in enumerate(rows, first):
        slates += 1
        context = context_features(decision)
        take_position(decision, context)
        cascade = 1.0
        for placed in decision.slate:
            cascade *= placed.propensity
            # What belongs to no position of a slate of several is in no row's reward.
            at_position = (e.value for e in events if _position(e, decision) == placed.position)
            arrays["slate_id"].append(slate_id)
            arrays["action"].append(columns.number(decision, placed.action))
            arrays["position"].append(placed.position)
            arrays["reward"].append(sum(at_position))
            arrays["pscore_cascade"].append(cascade)
            contexts.append(context)
        arrays["pscore"] += [cascade] * len(decision.slate)
    feedback: dict[str, Any] = {
        "n_rounds": slates,
        "n_unique_action": len(columns.actions),
        "context": columns.matrix(contexts),
    }
    for name, values in arrays.items():
        feedback[name] = np.array(values, dtype=np.intp if name in _INTEGERS else np.float64)
    return feedback


def _position(event: RewardEvent, decision: Decision) -> int | None:
    """The position that an event speaks of; an event of a slate of one speaks of that one."""
    if event.position is None and len(decision.slate) == 1:
        return 0
    return event.position
