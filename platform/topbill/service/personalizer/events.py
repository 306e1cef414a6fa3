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
from topbill.service.fast_path import FastPath
from topbill.service.personalizer.bodies import (
    MultiSlotRankRequest,
    MultiSlotRankResponse,
    MultiSlotRewardRequest,
    RankRequest,
    RankResponse,
    RewardRequest,
    SlotResponse,
    check_slots,
    context,
    known,
    offer,
    ranking,
)
from topbill.service.personalizer.matching import unsafe

_EVENTS = ".events"


class Kept(msgspec.Struct, frozen=True):
    """An event as it is kept: its decisions by slot ("" for the one of a single-slot rank), active
    or not yet.
    """

    decisions: dict[str, Decision]
    active: bool


_encode = msgspec.json.Encoder().encode
_kept = msgspec.json.Decoder(Kept)


class Events:
    """Ranks, rewards and activates over the engine, the log and the writer of the fast path.

    Raises NotFound for an event that is not there, BadRequest for what the caller got wrong.
    """

    def __init__(self, hot: FastPath) -> None:
        self._hot = hot

    # ------------------------------------------------------------------ one slot

    async def rank(self, request: RankRequest) -> RankResponse:
        """Decide, or say again what was decided under that id."""
        decide = DecideRequest(
            experiment=self._live().experiment.key,
            unit=request.event_id,
            context=context(request.context_features),
            actions=offer(request.actions),
            exclude=known(request.excluded_actions, request.actions),
            decision_id=request.event_id,
        )
        decision = self._held(request.event_id, decide.fingerprint)
        if decision is None:
            decision = self._hot.engine.decide(decide)
            if request.defer_activation:
                kept = await self._keep(decision.decision_id, Kept({"": decision}, active=False))
                decision = kept.decisions[""]
            else:
                keyed = frozenset((decision.decision_id,)) if request.event_id else frozenset()
                receipt = await self._hot.writer.put(Entry((decision,), keyed_decisions=keyed))
                decision = receipt.stored.get(decision.decision_id, decision)
                if receipt.conflict is not None:
                    raise _reused(receipt.conflict)
                _count(decision)
        return ranking(decision, [action.id for action in request.actions])

    def _held(self, event_id: str | None, fingerprint: str) -> Decision | None:
        """What was decided before under that id. Raises BadRequest where it was for another
        request.
        """
        if event_id is None:
            return None
        held = self._hot.log.decision(event_id)
        if held is None and (kept := self._kept(event_id)) is not None:
            held = kept.decisions.get("")
            if held is None:
                raise _reused(event_id)
        if held is not None and held.request_hash != fingerprint:
            raise _reused(event_id)
        return held

    async def reward(self, event_id: str, request: RewardRequest) -> None:
        """Store what came of an event, active or not."""
        held = self._hot.log.decision(event_id)
        if held is None:
            kept = self._kept(event_id)
            if kept is None or "" not in kept.decisions:
                raise NotFound(f"event {event_id!r} is not there; rank it first")
        await self._store([(event_id, request.value)])

    # ------------------------------------------------------------------ several slots

    async def rank_slots(self, request: MultiSlotRankRequest) -> MultiSlotRankResponse:
        """Decide slot by slot, or say again what was decided under that id."""
        check_slots(request)
        event_id = request.event_id or new_id()
        kept = self._kept(event_id) if request.event_id else None
        same = msgspec.structs.replace(request, event_id=None, defer_activation=None)
        fingerprint = DecideRequest(experiment="", context=msgspec.Raw(_encode(same))).fingerprint
        if (
            kept is None
            and request.event_id
            and self._hot.log.decision(request.event_id) is not None
        ):
            raise _reused(request.event_id)
        if kept is None:
            kept = Kept(
                self._fill(request, event_id, fingerprint), active=not request.defer_activation
            )
            kept = await self._keep(event_id, kept)
        if any(decision.request_hash != fingerprint for decision in kept.decisions.values()):
            raise _reused(event_id)
        slots = [
            SlotResponse(slot, decision.slate[0].action)
            for slot, decision in kept.decisions.items()
        ]
        return MultiSlotRankResponse(slots, event_id)

    def _fill(
        self, request: MultiSlotRankRequest, event_id: str, fingerprint: str
    ) -> dict[str, Decision]:
        """A decision a slot, in order. Every slot of an event goes to the same variant: its unit is
        the event.
        """
        key = self._live().experiment.key
        ids = [action.id for action in request.actions]
        barred = [set(slot.excluded_actions or ()) for slot in request.slots]
        placed: set[str] = set()
        decisions: dict[str, Decision] = {}
        for i, slot in enumerate(request.slots):
            allowed = [[a for a in ids if a not in placed and a not in bars] for bars in barred[i:]]
            excluded = {a for a in ids if a not in allowed[0]} | unsafe(allowed)
            described = {"id": slot.id, "features": slot.features or []}
            first = [action for action in request.actions if action.id == slot.baseline_action]
            decide = DecideRequest(
                experiment=key,
                unit=event_id,
                context=context([*(request.context_features or []), {"slot": described}]),
                actions=offer(
                    [*first, *(a for a in request.actions if a.id != slot.baseline_action)]
                ),
                exclude=[action for action in ids if action in excluded],
                decision_id=_slot_id(event_id, slot.id),
            )
            decision = msgspec.structs.replace(
                self._hot.engine.decide(decide), request_hash=fingerprint
            )
            placed.add(decision.slate[0].action)
            decisions[slot.id] = decision
        return decisions

    async def reward_slots(self, event_id: str, request: MultiSlotRewardRequest) -> None:
        """Store what came of some slots of an event."""
        kept = self._kept(event_id)
        if kept is None:
            raise NotFound(f"event {event_id!r} is not there; rank it first")
        for i, reward in enumerate(request.reward):
            if reward.slot_id not in kept.decisions:
                expected = ", ".join(kept.decisions)
                raise BadRequest(
                    f"$.reward[{i}].slotId",
                    f"{reward.slot_id!r} is no slot of it; expected {expected}",
                )
        await self._store(
            [(_slot_id(event_id, reward.slot_id), reward.value) for reward in request.reward]
        )

    # ------------------------------------------------------------------ both

    async def activate(self, event_id: str, slots: bool) -> None:
        """Its decisions go into the log now, and the wait for its reward begins. Twice is as good
        as once.
        """
        kept = self._kept(event_id)
        if kept is None and not slots and self._hot.log.decision(event_id) is not None:
            return
        if kept is None or ("" in kept.decisions) == slots:
            raise NotFound(f"event {event_id!r} is not there; rank it first")
        if not kept.active:
            decisions = list(kept.decisions.values())
            keyed = frozenset(decision.decision_id for decision in decisions)
            receipt = await self._hot.writer.put(Entry(decisions, keyed_decisions=keyed))
            _count(
                *(decision for decision in decisions if decision.decision_id not in receipt.stored)
            )

    async def _store(self, rewards: list[tuple[str, float]]) -> None:
        events = [
            RewardEvent(decision_id=name, event_id=new_id(), event="reward", value=value)
            for name, value in rewards
        ]
        await self._hot.writer.put(Entry(events=events))
        telemetry.REWARDS.labels("stored").inc(len(events))

    async def _keep(self, event_id: str, kept: Kept) -> Kept:
        """Store an event, with its decisions if it is active; returns it as stored, maybe by an
        earlier request.

        It stands in the log as a row of its own, under a name that no experiment can have: who
        learns from or analyses the experiment does not meet it.
        """
        first = next(iter(kept.decisions.values()))
        row = Decision(
            decision_id=_row_id(event_id),
            experiment=first.experiment + _EVENTS,
            revision=first.revision,
            variant=None,
            unit=event_id,
            context=msgspec.Raw(_encode(kept)),
            policy="",
            reason="not_in_experiment",
        )
        decisions = list(kept.decisions.values()) if kept.active else []
        rows = [row, *decisions]
        receipt = await self._hot.writer.put(
            Entry(rows, keyed_decisions=frozenset(decision.decision_id for decision in rows))
        )
        if receipt.conflict is not None:
            raise _reused(event_id)
        stored = receipt.stored.get(row.decision_id)
        if stored is not None:
            return _kept.decode(stored.context)
        _count(*decisions)
        return kept

    def _kept(self, event_id: str) -> Kept | None:
        row = self._hot.log.decision(_row_id(event_id))
        return None if row is None else _kept.decode(row.context)

    def _live(self) -> CompiledExperiment:
        for live in self._hot.engine.experiments.values():
            if live.experiment.personalizer:
                return live
        raise NotFound("no experiment file says personalizer: true; see docs/from-personalizer.md")


def _slot_id(event_id: str, slot_id: str) -> str:
    return f"{event_id}\x1f{slot_id}"


def _row_id(event_id: str) -> str:
    return f"{event_id}\x1f"


def _reused(event_id: str) -> BadRequest:
    return BadRequest(
        "$.eventId", f"{event_id!r} was used before with another request; use a new id"
    )


def _count(*decisions: Decision) -> None:
    for decision in decisions:
        telemetry.DECISIONS.labels(
            decision.experiment, decision.variant or "", decision.reason
        ).inc()
