"""What logged decisions teach: examples for policies, and the policies updated with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from topbill.domain.errors import BadRequest
from topbill.domain.records import Actions, Decision, Example, Floats, RewardEvent, TakenActions
from topbill.domain.rewards import examined, item_rewards
from topbill.domain.slate import choices
from topbill.engine.compiled import CompiledExperiment
from topbill.engine.logged import (
    LoggedOffers,
    OfferedActions,
    encode_shown,
    encoded_contexts,
)
from topbill.policies import learns

CHUNK = 256
"""Decisions that are decoded and encoded together: more would be faster by little, and take more
memory.
"""
Matured = tuple[Decision, Sequence[RewardEvent]]
"""A decision and the events that had come by the time at which it is learned."""


class _Offer(NamedTuple):
    """What was offered: the actions, the row of each by its id, and those that were eligible."""

    actions: Actions
    row_of: dict[str, int]
    eligible: list[int]


def examples(
    compiled: CompiledExperiment, decision: Decision, events: Iterable[RewardEvent]
) -> list[Example]:
    """What one matured decision teaches: an example for each shown item that the viewer can have
    judged.

    An example offers the actions that could still be drawn at its position, not all of the slate's:
    its propensity was taken over those, and a policy that learned from the others as well would
    take what stood above for refused.
    """
    return _examples_of(compiled, [(decision, list(events))])[0]


def _examples_of(compiled: CompiledExperiment, matured: Sequence[Matured]) -> list[list[Example]]:
    """What each of these decisions teaches."""
    offers = LoggedOffers(compiled)
    contexts = encoded_contexts(compiled, [decision for decision, _ in matured])
    taught: list[list[Example]] = []
    shown: list[tuple[OfferedActions, int]] = []
    for x, (decision, events) in zip(contexts, matured, strict=True):
        offer = None if x is None else _offer(offers, decision)
        if x is None or offer is None:
            taught.append([])
            continue
        rewards = item_rewards(compiled.experiment, decision, events)
        taught.append(_examples(decision, x, offer, rewards))
        if isinstance(offer.actions, OfferedActions):
            shown += [(offer.actions, offer.row_of[p.action]) for p in decision.slate]
    encode_shown(shown)
    return taught


def _offer(offers: LoggedOffers, decision: Decision) -> _Offer | None:
    """What a decision offered; None where it was logged under another schema, or with actions that
    are gone since: there is nothing in it that these policies could use.
    """
    try:
        actions = offers.of(decision)
        row_of = {action: row for row, action in enumerate(actions.ids)}
        return _Offer(actions, row_of, [row_of[action] for action in decision.eligible])
    except (BadRequest, KeyError):
        return None


def _examples(
    decision: Decision, x: Floats, offer: _Offer, rewards: Sequence[float | None]
) -> list[Example]:
    actions, row_of, eligible = offer
    at = decision.decided_at / 1e6
    reach = decision.stops[0].reach if decision.stops else 0.0
    everything = len(eligible) == len(actions) and not decision.masks
    # Where rules may say something else than at the position above.
    changes = set[int]().union(*[(mask.start, mask.stop) for mask in decision.masks])
    before = -2
    remaining, above = list(eligible), list[int]()
    found = []
    for placement, reward in zip(decision.slate, rewards, strict=True):
        placed = row_of[placement.action]
        if decision.masks:
            if placement.position != before + 1 or placement.position in changes:
                # The masks count in places among the eligible, not in rows of actions.
                possible = choices(decision.masks, len(eligible), placement.position, above)
                remaining = [eligible[place] for place in possible.tolist()]
            above.append(eligible.index(placed))
            before = placement.position
        index = remaining.index(placed)
        if reward is not None:
            # The first position of an unfiltered slate has all actions: policies cache what they
            # derive from that one object.
            whole = everything and placement.position == 0
            found.append(
                Example(
                    x=x,
                    actions=actions if whole else TakenActions(actions, tuple(remaining)),
                    index=index,
                    propensity=placement.propensity,
                    reward=reward,
                    position=placement.position,
                    at=at,
                    reach=reach,
                )
            )
        del remaining[index]
    return found


def teach(compiled: CompiledExperiment, decisions: Iterable[Matured]) -> int:
    """Update the policies with what these matured decisions teach, in their order.

    A decision teaches the variant that made it, and every variant with `training: shared`. Returns
    the number of examples, each counted once for each policy that learned it.
    """
    learners = {name for name, policy in compiled.policies.items() if learns(policy)}
    shared = {v.name for v in compiled.experiment.variants if v.training == "shared"}
    count = 0
    chunk: list[Matured] = []
    for decision, events in decisions:
        # A fallback, or a variant that is gone, was drawn from no policy of this experiment: its
        # propensities would teach it something false.
        if decision.reason != "policy" or decision.variant not in compiled.policies:
            continue
        taught = {decision.variant} | shared
        if taught & learners:
            chunk.append((decision, events))
        else:
            # Nobody learns from it, and most of the work would be to make examples of it.
            count += len(taught) * sum(examined(compiled.experiment, decision, events))
        if len(chunk) == CHUNK:
            count += _teach(compiled, chunk, shared)
            chunk = []
    return count + _teach(compiled, chunk, shared)


def _teach(compiled: CompiledExperiment, matured: Sequence[Matured], shared: set[str]) -> int:
    batches: dict[str, list[Example]] = {name: [] for name in compiled.policies}
    for (decision, _), lessons in zip(matured, _examples_of(compiled, matured), strict=True):
        for name in {decision.variant or ""} | shared:
            batches[name] += lessons
    for name, batch in batches.items():
        if batch:
            compiled.policies[name].update(batch)
    return sum(map(len, batches.values()))
