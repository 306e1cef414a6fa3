"""The bodies of Azure Personalizer's API, as its published reference (v1.0 and v1.1-preview) has
them, to and from what the engine takes and gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from topbill.domain.errors import BadRequest
from topbill.domain.records import Decision

MOST = 50
"""Most actions and most slots of a request, as in the reference."""
LARGEST_RANK = 500_000
"""Bytes of a body: features cost more than what other doors are sent, and the reference's own limit
is far below."""
LARGEST_WORK = 5_000_000
"""Most bytes × slots of a multi-slot rank: each slot's decision is made, and stored, with all
features."""
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]*$")]
Features = list[dict[str, Any]]
Code = Literal[
    "BadRequest",
    "InvalidRankRequest",
    "InvalidRewardRequest",
    "InvalidEventIdToActivate",
    "PayloadSizeExceeded",
    "ResourceNotFound",
    "InternalServerError",
    "OperationNotAllowed",
]


class RankableAction(msgspec.Struct, frozen=True):
    """An action with its features."""

    id: Text
    features: Features


class RankRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Actions to be ranked. The first that is not excluded is the baseline."""

    actions: Annotated[list[RankableAction], msgspec.Meta(min_length=1, max_length=MOST)]
    context_features: Features | None = None
    excluded_actions: list[str] | None = None
    event_id: Text | None = None
    defer_activation: bool | None = False


class RankedAction(msgspec.Struct, frozen=True):
    """A ranked action and the probability with which it could have been chosen."""

    id: str
    probability: float


class RankResponse(msgspec.Struct, frozen=True, rename="camel"):
    """`reward_action_id` is to be shown. It is the first of the ranking, except that excluded
    actions keep their places, with probability 0."""

    ranking: list[RankedAction]
    event_id: str
    reward_action_id: str


class SlotRequest(msgspec.Struct, frozen=True, rename="camel"):
    """A slot to be filled. `baseline_action` is what would be there without Topbill, another one in
    each slot.
    """

    id: Text
    baseline_action: str
    features: Features | None = None
    excluded_actions: list[str] | None = None


class MultiSlotRankRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Actions to be placed in slots, each at most once."""

    actions: Annotated[list[RankableAction], msgspec.Meta(min_length=1, max_length=MOST)]
    slots: Annotated[list[SlotRequest], msgspec.Meta(min_length=1, max_length=MOST)]
    context_features: Features | None = None
    event_id: Text | None = None
    defer_activation: bool | None = False


class SlotResponse(msgspec.Struct, frozen=True, rename="camel"):
    """What to show in a slot."""

    id: str
    reward_action_id: str


class MultiSlotRankResponse(msgspec.Struct, frozen=True, rename="camel"):
    """What to show in each slot."""

    slots: list[SlotResponse]
    event_id: str


Reward = Annotated[float, msgspec.Meta(ge=-1.0, le=1.0)]


class RewardRequest(msgspec.Struct, frozen=True):
    """What came of an event."""

    value: Reward


class SlotReward(msgspec.Struct, frozen=True, rename="camel"):
    """What came of one slot."""

    slot_id: Text
    value: Reward


class MultiSlotRewardRequest(msgspec.Struct, frozen=True):
    """What came of some slots of an event."""

    reward: Annotated[list[SlotReward], msgspec.Meta(min_length=1, max_length=MOST)]


class PersonalizerError(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with a request; `target` is the path of the culprit."""

    code: Code
    message: str
    target: str | None = None


class ErrorResponse(msgspec.Struct, frozen=True):
    """The body of every refusal."""

    error: PersonalizerError


def context(features: Features | None) -> msgspec.Raw:
    """A request's features as the context that a `personalizer: true` experiment declares."""
    return msgspec.Raw(msgspec.json.encode({"features": features or []}))


def offer(actions: list[RankableAction]) -> msgspec.Raw:
    """The actions as the engine takes them."""
    return msgspec.Raw(
        msgspec.json.encode(
            [{"id": action.id, "features": {"features": action.features}} for action in actions]
        )
    )


def excluded_ids(excluded: list[str] | None, actions: list[RankableAction]) -> list[str]:
    """The excluded ids that are actions at all, each once; others do no harm."""
    names = {action.id for action in actions}
    return sorted(names & set(excluded or ()))


def ranking(decision: Decision, ids: list[str]) -> RankResponse:
    """Excluded actions keep their places; in the others stands the chosen one first, then the rest
    by probability.
    """
    chosen = decision.slate[0].action
    matrix = decision.probabilities or ((),)
    # Of a slate of one, the first position is all there is.
    p = dict(zip(decision.eligible, matrix[0], strict=True))
    rest: Iterator[str] = iter(sorted(p, key=lambda action: (action != chosen, -p[action])))
    order = [next(rest) if action in p else action for action in ids]
    return RankResponse(
        [RankedAction(a, p.get(a, 0.0)) for a in order], decision.decision_id, chosen
    )


def check_work(request: MultiSlotRankRequest, size: int) -> None:
    """Raises BadRequest where a body of so many bytes has too many slots."""
    work = size * len(request.slots)
    if work > LARGEST_WORK:
        raise BadRequest(
            "$.slots",
            f"{len(request.slots)} with {size:,} bytes; expected bytes × slots of at most "
            f"{LARGEST_WORK:,}: send fewer features or slots at once",
        )


def check_slots(request: MultiSlotRankRequest) -> None:
    """Raises BadRequest unless slots and their baselines are different ones, and baselines may be
    shown.
    """
    ids = {action.id for action in request.actions}
    slots: set[str] = set()
    baselines: set[str] = set()
    for i, slot in enumerate(request.slots):
        where = f"$.slots[{i}]"
        if slot.id in slots:
            raise BadRequest(f"{where}.id", f"{slot.id!r} is there twice; expected each slot once")
        if slot.baseline_action not in ids:
            raise BadRequest(
                f"{where}.baselineAction", f"{slot.baseline_action!r} is none of the actions"
            )
        if slot.baseline_action in baselines:
            raise BadRequest(
                f"{where}.baselineAction",
                f"{slot.baseline_action!r} is another slot's; expected its own",
            )
        if slot.baseline_action in (slot.excluded_actions or ()):
            raise BadRequest(
                f"{where}.baselineAction", f"{slot.baseline_action!r} is excluded from the slot"
            )
        slots.add(slot.id)
        baselines.add(slot.baseline_action)
