"""What a decision teaches: its log turned into examples for policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from topbill.domain.errors import BadRequest
from topbill.domain.records import Decision, Example, RewardEvent
from topbill.domain.rewards import item_rewards
from topbill.domain.slate import choices
from topbill.engine.compiled import CompiledExperiment, offered


def examples(
    live: CompiledExperiment, decision: Decision, events: Iterable[RewardEvent]
) -> Iterator[Example]:
    """What one matured decision teaches: an example for each shown item that the viewer can have
    judged.
    """
    experiment = live.experiment
    try:
        x = live.encoder.encode(msgspec.json.decode(decision.context))
        actions = offered(live, decision.actions)
        row_of = {action: row for row, action in enumerate(actions.ids)}
        remaining = [row_of[action] for action in decision.eligible]
    except (BadRequest, KeyError):
        return  # logged under another schema or with actions that are gone: nothing that this policy could use
    rewards = item_rewards(experiment, decision, list(events))
    whole = len(remaining) == len(actions) and not decision.masks
    rows, above = list(remaining), list[int]()
    for placement, reward in zip(decision.slate, rewards, strict=True):
        if decision.masks:
            remaining = [
                rows[j]
                for j in choices(decision.masks, len(rows), placement.position, above).tolist()
            ]
            above.append(rows.index(row_of[placement.action]))
        if reward is not None:
            at_position = actions if whole and placement.position == 0 else actions.take(remaining)
            yield Example(
                x=x,
                actions=at_position,
                index=remaining.index(row_of[placement.action]),
                propensity=placement.propensity,
                reward=reward,
                position=placement.position,
                at=decision.decided_at / 1e6,
            )
        remaining.remove(row_of[placement.action])
