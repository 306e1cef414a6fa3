"""What logged decisions teach: examples for policies, and the policies updated with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from topbill.domain.errors import BadRequest
from topbill.domain.records import Decision, Example, RewardEvent
from topbill.domain.rewards import item_rewards
from topbill.domain.slate import choices
from topbill.engine.compiled import CompiledExperiment, logged_actions


def examples(
    compiled: CompiledExperiment, decision: Decision, events: Iterable[RewardEvent]
) -> Iterator[Example]:
    """What one matured decision teaches: an example for each shown item that the viewer can have
    judged.

    An example offers the actions that could still be drawn at its position, not all of the slate's:
    its propensity was taken over those, and a policy that learned from the others as well would
    take what stood above for refused.
    """
    try:
        x = compiled.encoder.encode(msgspec.json.decode(decision.context))
        actions = logged_actions(compiled, decision)
        row_of = {action: row for row, action in enumerate(actions.ids)}
        eligible = [row_of[action] for action in decision.eligible]
    except (BadRequest, KeyError):
        # Logged under another schema, or with actions that are gone since: there is nothing in it
        # that this policy could use.
        return

    rewards = item_rewards(compiled.experiment, decision, list(events))
    everything = len(eligible) == len(actions) and not decision.masks
    remaining, above = list(eligible), list[int]()
    for placement, reward in zip(decision.slate, rewards, strict=True):
        placed = row_of[placement.action]
        if decision.masks:
            # What rules left at this position differs from position to position, so it is computed
            # anew for each. The masks count in places among the eligible, not in rows of actions.
            possible = choices(decision.masks, len(eligible), placement.position, above)
            remaining = [eligible[place] for place in possible.tolist()]
            above.append(eligible.index(placed))
        if reward is not None:
            # The first position of an unfiltered slate has all actions: policies cache what they
            # derive from that one object.
            whole = everything and placement.position == 0
            yield Example(
                x=x,
                actions=actions if whole else actions.take(remaining),
                index=remaining.index(placed),
                propensity=placement.propensity,
                reward=reward,
                position=placement.position,
                at=decision.decided_at / 1e6,
                reach=decision.stops[0].reach if decision.stops else 0.0,
            )
        remaining.remove(placed)


def teach(
    compiled: CompiledExperiment, decisions: Iterable[tuple[Decision, Sequence[RewardEvent]]]
) -> int:
    """Update the policies with what these matured decisions teach, in their order.

    A decision teaches the variant that made it, and every variant with `training: shared`. Returns
    the number of examples, each counted once for each policy that learned it.
    """
    batches: dict[str, list[Example]] = {name: [] for name in compiled.policies}
    shared = {v.name for v in compiled.experiment.variants if v.training == "shared"}
    for decision, events in decisions:
        # A fallback, or a variant that is gone, was drawn from no policy of this experiment: its
        # propensities would teach it something false.
        if decision.reason != "policy" or decision.variant not in batches:
            continue
        lessons = list(examples(compiled, decision, events))
        for name in {decision.variant} | shared:
            batches[name].extend(lessons)
    return _update(compiled, batches)


def _update(compiled: CompiledExperiment, batches: dict[str, list[Example]]) -> int:
    """Let each policy learn its batch; returns how many examples that were."""
    count = 0
    for name, batch in batches.items():
        if batch:
            compiled.policies[name].update(batch)
            count += len(batch)
    return count
