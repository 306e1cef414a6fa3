"""Personalizer's events as decisions.

A single-slot rank is a decision called by its event, a multi-slot rank one decision a slot, made in
order, each with its own slot features and with what earlier slots took excluded: so every slot has
its exact propensity and earns its own reward. What is ranked with `deferActivation` is kept apart,
and becomes decisions when it is activated.
"""

from __future__ import annotations

import msgspec

from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.records import Decision, RewardEvent
from topbill.engine import CompiledExperiment, DecideRequest, new_id
from topbill.log import Entry
from topbill.service import telemetry
from topbill.service.backend import Backend
from topbill.service.deferred import (
    DeferredDecisions,
    StoredEvent,
    count,
    row_of,
    stored_event,
)
from topbill.service.personalizer.bodies import (
    MultiSlotRankRequest,
    MultiSlotRankResponse,
    MultiSlotRewardRequest,
    RankableAction,
    RankRequest,
    RankResponse,
    RewardRequest,
    SlotRequest,
    SlotResponse,
    check_slots,
    context,
    excluded_ids,
    offer,
    ranking,
)
from topbill.service.personalizer.matching import unsafe
from topbill.service.turns import Turn

_encode = msgspec.json.Encoder().encode


class PersonalizerEvents:
    """Ranks, rewards and activates over a backend.

    Raises NotFound for an event that is not there, BadRequest for what the caller got wrong.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._deferred = DeferredDecisions(backend)

    # ------------------------------------------------------------------ one slot

    async def rank(self, request: RankRequest) -> RankResponse:
        """Decide, or say again what was decided under that id."""
        decide = DecideRequest(
            experiment=self._experiment().experiment.key,
            unit=request.event_id,
            context=context(request.context_features),
            actions=offer(request.actions),
            exclude=excluded_ids(request.excluded_actions, request.actions),
            decision_id=request.event_id,
        )
        decision = await self._earlier_decision(request.event_id, decide.fingerprint)
        if decision is None:
            decision = self._backend.engine.decide(decide)
            if request.defer_activation:
                event = StoredEvent({"": decision}, active=False)
                event = await self._store_event(decision.decision_id, event)
                decision = event.decisions[""]
            else:
                decision = await self._store_decision(decision, bool(request.event_id))
        return ranking(decision, [action.id for action in request.actions])

    async def _store_decision(self, decision: Decision, keyed: bool) -> Decision:
        """Make it durable; returns what stands under its id, maybe by an earlier request."""
        ids = frozenset((decision.decision_id,)) if keyed else frozenset[str]()
        receipt = await self._backend.writer.put(Entry((decision,), keyed_decisions=ids))
        if receipt.conflict is not None or receipt.let_go is not None:
            raise _used_before(decision.decision_id)
        stored = receipt.stored.get(decision.decision_id, decision)
        count([stored])
        return stored

    async def _earlier_decision(self, event_id: str | None, fingerprint: str) -> Decision | None:
        """What was decided before under that id. Raises BadRequest where it was for another
        request.
        """
        if event_id is None:
            return None
        decision = await self._find(event_id)
        if decision is None:
            event = await self._deferred.find(event_id)
            if event is None:
                return None
            decision = event.decisions.get("")
        # An event with slots has none without a slot: that was another kind of request.
        if decision is None or decision.request_hash != fingerprint:
            raise _used_before(event_id)
        return decision

    async def reward(self, event_id: str, request: RewardRequest) -> None:
        """Store what came of an event, active or not."""
        if await self._find(event_id) is None:
            event = await self._deferred.find(event_id)
            if event is None or "" not in event.decisions:
                raise _not_there(event_id)
        await self._store_rewards([(event_id, request.value)])

    # ------------------------------------------------------------------ several slots

    async def rank_slots(self, request: MultiSlotRankRequest) -> MultiSlotRankResponse:
        """Decide slot by slot, or say again what was decided under that id."""
        check_slots(request)
        event_id = request.event_id or new_id()
        # Whether it is to be activated later is no part of what was asked.
        content = msgspec.structs.replace(request, event_id=None, defer_activation=None)
        fingerprint = DecideRequest(
            experiment="", context=msgspec.Raw(_encode(content))
        ).fingerprint

        event = await self._deferred.find(event_id) if request.event_id else None
        if event is None:
            if request.event_id and await self._find(request.event_id) is not None:
                raise _used_before(request.event_id)
            decisions = await self._fill(request, event_id, fingerprint)
            event = StoredEvent(decisions, active=not request.defer_activation)
            event = await self._store_event(event_id, event)
        if any(decision.request_hash != fingerprint for decision in event.decisions.values()):
            raise _used_before(event_id)
        slots = [
            SlotResponse(slot, decision.slate[0].action)
            for slot, decision in event.decisions.items()
        ]
        return MultiSlotRankResponse(slots, event_id)

    async def _fill(
        self, request: MultiSlotRankRequest, event_id: str, fingerprint: str
    ) -> dict[str, Decision]:
        """A decision a slot, in order. Every slot of an event goes to the same variant: its unit is
        the event.
        """
        key = self._experiment().experiment.key
        placed: set[str] = set()
        decisions: dict[str, Decision] = {}
        turn = Turn()
        for i, slot in enumerate(request.slots):
            await turn.end_if_long()
            described = {"id": slot.id, "features": slot.features or []}
            decide = DecideRequest(
                experiment=key,
                unit=event_id,
                context=context([*(request.context_features or []), {"slot": described}]),
                actions=offer(_baseline_first(request.actions, slot.baseline_action)),
                exclude=_excluded(request.actions, request.slots[i:], placed),
                decision_id=_slot_id(event_id, slot.id),
            )
            decision = self._backend.engine.decide(decide)
            # All slots are one request: whoever comes with the event's id again must have sent all
            # of it.
            decisions[slot.id] = msgspec.structs.replace(decision, request_hash=fingerprint)
            placed.add(decision.slate[0].action)
        return decisions

    async def reward_slots(self, event_id: str, request: MultiSlotRewardRequest) -> None:
        """Store what came of some slots of an event."""
        event = await self._deferred.find(event_id)
        if event is None:
            raise _not_there(event_id)
        rewards = []
        for i, reward in enumerate(request.reward):
            if reward.slot_id not in event.decisions:
                expected = ", ".join(event.decisions)
                raise BadRequest(
                    f"$.reward[{i}].slotId",
                    f"{reward.slot_id!r} is no slot of it; expected {expected}",
                )
            rewards.append((_slot_id(event_id, reward.slot_id), reward.value))
        await self._store_rewards(rewards)

    # ------------------------------------------------------------------ both

    async def activate(self, event_id: str, slots: bool) -> None:
        """Its decisions go into the log now, and the wait for its reward begins. Twice is as good
        as once.
        """
        event = await self._deferred.find(event_id)
        if event is None and not slots and await self._find(event_id) is not None:
            return  # it was ranked without deferring
        if event is None or ("" in event.decisions) == slots:
            raise _not_there(event_id)
        if event.active:
            return
        await self._deferred.activate(event)

    async def _store_rewards(self, rewards: list[tuple[str, float]]) -> None:
        """Store (decision id, value) pairs. Their API has no ids of rewards: each one is new."""
        events = [
            RewardEvent(decision_id=decision_id, event_id=new_id(), event="reward", value=value)
            for decision_id, value in rewards
        ]
        await self._backend.writer.put(Entry(events=events))
        telemetry.REWARDS.labels("stored").inc(len(events))

    async def _store_event(self, event_id: str, event: StoredEvent) -> StoredEvent:
        """Store an event, with its decisions if it is active; returns it as stored, maybe by an
        earlier request.
        """
        row = row_of(event_id, event, unit=event_id)
        decisions = list(event.decisions.values()) if event.active else []
        rows = [row, *decisions]
        ids = frozenset(decision.decision_id for decision in rows)
        receipt = await self._backend.writer.put(Entry(rows, keyed_decisions=ids))
        if receipt.conflict is not None or receipt.let_go is not None:
            raise _used_before(event_id)
        earlier = stored_event(receipt, event_id)
        if earlier is not None:
            return earlier
        count(decisions)
        return event

    async def _find(self, decision_id: str) -> Decision | None:
        """The stored decision of that id, also where the log has let it go: rewards come late."""
        return (await self._backend.find([decision_id])).get(decision_id)

    def _experiment(self) -> CompiledExperiment:
        for compiled in self._backend.engine.experiments.values():
            if compiled.experiment.personalizer:
                return compiled
        raise NotFound("no experiment file says personalizer: true; see docs/from-personalizer.md")


def _baseline_first(actions: list[RankableAction], baseline: str) -> list[RankableAction]:
    """The actions with the baseline in front: that is the order of a fixed control."""
    return sorted(actions, key=lambda action: action.id != baseline)


def _excluded(
    actions: list[RankableAction], slots: list[SlotRequest], placed: set[str]
) -> list[str]:
    """What the first of `slots` may not show: what it excludes, what earlier slots took (`placed`),
    and what would leave a later slot with nothing.
    """
    allowed = []
    for slot in slots:
        barred = placed.union(slot.excluded_actions or ())
        allowed.append([action.id for action in actions if action.id not in barred])
    possible = set(allowed[0]) - unsafe(allowed)
    return [action.id for action in actions if action.id not in possible]


def _slot_id(event_id: str, slot_id: str) -> str:
    # A separator that neither of the two ids can contain.
    return f"{event_id}\x1f{slot_id}"


def _not_there(event_id: str) -> NotFound:
    return NotFound(f"event {event_id!r} is not there; rank it first")


def _used_before(event_id: str) -> BadRequest:
    return BadRequest(
        "$.eventId", f"{event_id!r} was used before with another request; use a new id"
    )
