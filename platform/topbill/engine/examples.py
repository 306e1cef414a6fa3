"""What logged decisions teach: examples for policies, and the policies updated with them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np

from topbill.domain.errors import BadRequest
from topbill.domain.example_batch import ExampleBatch
from topbill.domain.records import (
    Actions,
    Decision,
    Example,
    Floats,
    Offer,
    RewardEvent,
    TakenActions,
)
from topbill.domain.rewards import examined, item_rewards
from topbill.domain.slate import choices
from topbill.engine.compiled import CompiledExperiment
from topbill.engine.logged import LoggedOffers, Offered, encoded_contexts
from topbill.policies import learns

CHUNK = 256
"""Decisions that are decoded and encoded together: more would be faster by little, and take more
memory.
"""


class _Matured(NamedTuple):
    """A decision and the events that had come by the time at which it is learned; and what it
    offered, where somebody has read that already.
    """

    decision: Decision
    events: Sequence[RewardEvent]
    offers: Sequence[Offer] | None = None


_Pair: TypeAlias = tuple[Decision, Sequence[RewardEvent]]
_Triple: TypeAlias = tuple[Decision, Sequence[RewardEvent], Sequence[Offer] | None]
"""As `_Matured`."""


class _Lesson:
    """What one decision teaches: an example for each item that has a reward, put together when
    somebody asks for one. `rows` are those of what was placed, among what was offered.

    Raises ValueError where something was placed that could not be drawn there, KeyError where it
    was not offered.
    """

    def __init__(
        self, decision: Decision, x: Floats, offer: _Offer, rewards: Sequence[float | None]
    ) -> None:
        self.decision, self.x, self.offer, self.rewards = decision, x, offer, rewards
        row_of = offer.offered.row_of
        self.rows = [row_of[placement.action] for placement in decision.slate]
        _check_placed(decision, self.rows, offer.eligible)

    @cached_property
    def examples(self) -> list[Example]:
        """The examples."""
        return _examples(self)


class _Offer(NamedTuple):
    """What was offered, and the rows of what was eligible."""

    offered: Offered
    eligible: Sequence[int]


def _check_placed(decision: Decision, rows: Sequence[int], eligible: Sequence[int]) -> None:
    """ValueError unless each of these `rows` is placed once, is eligible, and is where the masks
    let it stand."""
    # The masks count in places among the eligible, not in rows of actions.
    places = rows if isinstance(eligible, range) else [eligible.index(row) for row in rows]
    if len(set(places)) != len(places):
        raise ValueError("an action is placed twice; expected each once")
    if not decision.masks:
        return
    place_at = {p.position: place for p, place in zip(decision.slate, places, strict=True)}
    end = max(place_at, default=-1) + 1
    for mask in decision.masks:
        for position in range(mask.start, min(mask.stop, end)):
            place = place_at.get(position)
            if place is not None and (place in mask.rows) != mask.only:
                raise ValueError(
                    f"position {position} has an action that rule {mask.rule!r} kept from it; "
                    "expected one that could be drawn there"
                )


def examples(
    compiled: CompiledExperiment, decision: Decision, events: Iterable[RewardEvent]
) -> list[Example]:
    """What one matured decision teaches: an example for each shown item that the viewer can have
    judged.

    An example offers the actions that could still be drawn at its position, not all of the slate's:
    its propensity was taken over those, and a policy that learned from the others as well would
    take what stood above for refused.
    """
    matured = [_Matured(decision, list(events))]
    (lesson,) = _lessons(compiled, LoggedOffers(compiled), matured)
    return [] if lesson is None else lesson.examples


def _lessons(
    compiled: CompiledExperiment, reader: LoggedOffers, matured: Sequence[_Matured]
) -> list[_Lesson | None]:
    """What each of these decisions teaches; None for one in which there is nothing that these
    policies could use.
    """
    contexts, readable = encoded_contexts(compiled, [one.decision for one in matured])
    lessons: list[_Lesson | None] = []
    for x, can_read, (decision, events, offers) in zip(contexts, readable, matured, strict=True):
        offer = _offer(reader, decision, offers) if can_read else None
        if offer is None:
            lessons.append(None)
        else:
            rewards = item_rewards(compiled.experiment, decision, events)
            lessons.append(_Lesson(decision, x, offer, rewards))
    return lessons


def _offer(
    reader: LoggedOffers, decision: Decision, offers: Sequence[Offer] | None
) -> _Offer | None:
    """What a decision offered; None where it was logged under another schema, or with actions that
    are gone since.
    """
    try:
        offered = reader.of(decision, offers)
        if decision.eligible == offered.actions.ids:
            return _Offer(offered, range(len(decision.eligible)))
        return _Offer(offered, [offered.row_of[action] for action in decision.eligible])
    except (BadRequest, KeyError):
        return None


def _examples(lesson: _Lesson) -> list[Example]:
    """What could be drawn at each position is found going down the slate, as it was drawn."""
    decision, eligible = lesson.decision, lesson.offer.eligible
    actions = lesson.offer.offered.actions
    at = decision.decided_at / 1e6
    reach = _reach(decision)
    everything = len(eligible) == len(actions) and not decision.masks
    # Where rules may say something else than at the position above.
    changes = set[int]().union(*[(mask.start, mask.stop) for mask in decision.masks])
    before = -2
    remaining, above = list(eligible), list[int]()
    examples = []
    for placement, placed, reward in zip(decision.slate, lesson.rows, lesson.rewards, strict=True):
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
            examples.append(
                Example(
                    x=lesson.x,
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
    return examples


def _batch(
    reader: LoggedOffers, lessons: Sequence[_Lesson | None]
) -> tuple[ExampleBatch, list[int]]:
    """All examples of these lessons, and where those of each begin among them; the last number is
    where they end.
    """
    taught = [lesson for lesson in lessons if lesson is not None]
    shown: list[tuple[Actions, list[int]]] = []
    ids, positions, rewards = list[str](), list[int](), list[float]()
    starts, counts = list[int](), list[int]()
    for lesson in taught:
        rows, slate, earned = lesson.rows, lesson.decision.slate, lesson.rewards
        if None in earned:
            judged = [k for k, reward in enumerate(earned) if reward is not None]
            rows, slate = [rows[k] for k in judged], tuple([slate[k] for k in judged])
        starts.append(len(ids))
        counts.append(len(rows))
        ids += [placement.action for placement in slate]
        positions += [placement.position for placement in slate]
        rewards += [reward for reward in earned if reward is not None]
        shown.append((lesson.offer.offered.actions, rows))

    def example(index: int) -> Example:
        number = bisect_right(starts, index) - 1
        return taught[number].examples[index - starts[number]]

    decisions = [lesson.decision for lesson in taught]
    batch = ExampleBatch(
        contexts=np.repeat(np.array([lesson.x for lesson in taught]), counts, axis=0),
        ids=ids,
        features=reader.shown_features(shown),
        rewards=np.array(rewards, dtype=np.float64),
        positions=np.array(positions, dtype=np.float64),
        times=np.repeat([decision.decided_at / 1e6 for decision in decisions], counts),
        reaches=np.repeat([_reach(decision) for decision in decisions], counts),
        example=example,
    )
    of_lesson = iter(counts)
    bounds = [0]
    for each in lessons:
        bounds.append(bounds[-1] + (0 if each is None else next(of_lesson)))
    return batch, bounds


def _reach(decision: Decision) -> float:
    return decision.stops[0].reach if decision.stops else 0.0


def teach(compiled: CompiledExperiment, decisions: Iterable[_Pair | _Triple]) -> int:
    """Update the policies with what these matured decisions teach, in their order.

    A decision teaches the variant that made it, and every variant with `training: shared`. Returns
    the number of examples, each counted once for each policy that learned it.
    """
    learners = {name for name, policy in compiled.policies.items() if learns(policy)}
    shared = {v.name for v in compiled.experiment.variants if v.training == "shared"}
    reader = LoggedOffers(compiled)
    count = 0
    chunk: list[_Matured] = []
    for each in decisions:
        matured = _Matured(*each)
        decision = matured.decision
        # A fallback, or a variant that is gone, was drawn from no policy of this experiment: its
        # propensities would teach it something false.
        if decision.reason != "policy" or decision.variant not in compiled.policies:
            continue
        taught = {decision.variant} | shared
        if taught & learners:
            chunk.append(matured)
        else:
            # Nobody learns from it, and most of the work would be to make examples of it.
            count += len(taught) * sum(examined(compiled.experiment, decision, matured.events))
        if len(chunk) == CHUNK:
            count += _teach(compiled, reader, chunk, shared)
            chunk = []
    return count + _teach(compiled, reader, chunk, shared)


def _teach(
    compiled: CompiledExperiment,
    reader: LoggedOffers,
    matured: Sequence[_Matured],
    shared: set[str],
) -> int:
    lessons = _lessons(compiled, reader, matured)
    if not any(lessons):
        return 0
    batch, bounds = _batch(reader, lessons)
    rows: dict[str, list[int]] = {name: [] for name in compiled.policies}
    for place, (decision, *_) in enumerate(matured):
        for name in {decision.variant or ""} | shared:
            rows[name] += range(bounds[place], bounds[place + 1])
    for name, own in rows.items():
        if own:
            compiled.policies[name].update(batch.take(own))
    return sum(map(len, rows.values()))
