"""Reward events on the fast path: checked against what was shown, durable before they are
answered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import lru_cache

from topbill.domain.errors import BadRequest
from topbill.domain.records import Decision, RewardEvent
from topbill.domain.rewards import IMPRESSIONS, SEEN
from topbill.domain.suggestion import nearest
from topbill.engine import new_id
from topbill.log import Entry
from topbill.service import telemetry
from topbill.service.backend import Backend
from topbill.service.bodies import (
    UNREAD_BECAME,
    RewardAnswer,
    RewardBatch,
    RewardBatchAnswer,
    RewardRequest,
    RewardStatus,
    micros,
)
from topbill.service.deferred import DeferredDecisions
from topbill.service.turns import Turn
from topbill.spec.fields import listed

_REMEMBERED = 50_000
_MOST_ITEMS = 500_000
"""Of all remembered slates together: some 50 MB where each item has an id of its own."""

_Slate = tuple[str, tuple[str, ...], int]
"""A decision's experiment, the actions that it showed, in order, and when it was made (µs)."""
Spread = Callable[[RewardEvent], list[RewardEvent]]
"""Gives the events that one event stands for, itself first; or those that it has follow."""


def _nothing(_event: RewardEvent) -> list[RewardEvent]:
    return []


class Rewards:
    """Takes rewards, for a backend. `spread` says which events one stands for: on a page, one for
    each layer; `impressions_sent` what an impression says of the page's other decisions;
    `is_at_hand` whether both know that of a decision without asking the log.
    """

    def __init__(
        self,
        backend: Backend,
        spread: Spread,
        impressions_sent: Spread = _nothing,
        is_at_hand: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._backend = backend
        self._deferred = DeferredDecisions(backend)
        self._is_at_hand = is_at_hand
        self._spread = spread
        self._impressions_sent = impressions_sent
        # Decisions of which it is stored already that their impressions are sent.
        self._marked: OrderedDict[str, None] = OrderedDict()
        # Most rewards are of decisions that this process made a moment ago: those cost no look-up.
        self._slates: OrderedDict[str, _Slate] = OrderedDict()
        self._items = 0
        backend.on_erasure.append(self.forget)

    async def one(self, request: RewardRequest) -> RewardAnswer:
        """One reward event, durable where it was stored."""
        answers = await self._store([request], ["$"])
        return answers[0]

    async def batch(self, batch: RewardBatch) -> RewardBatchAnswer:
        """Reward events, durable together; one of the wrong form refuses the whole batch."""
        paths = [f"$.rewards[{index}]" for index in range(len(batch.rewards))]
        return RewardBatchAnswer(await self._store(batch.rewards, paths))

    async def _store(self, requests: list[RewardRequest], paths: list[str]) -> list[RewardAnswer]:
        """Store requests in one entry, and answer each. `paths` lead to them, for messages."""
        if not self._backend.is_remote:
            return await self._store_each(requests, paths)
        async with self._backend.at_hand(self._not_at_hand(requests)):
            return await self._store_each(requests, paths)

    def _not_at_hand(self, requests: list[RewardRequest]) -> set[str]:
        """The decisions that can only be known by a look into the log."""
        return {
            request.decision_id
            for request in requests
            if self._known_slate(request.decision_id) is None
            or not self._is_at_hand(request.decision_id)
        }

    async def _store_each(
        self, requests: list[RewardRequest], paths: list[str]
    ) -> list[RewardAnswer]:
        await self._recall(requests)
        # Everything is checked before anything is stored: all of a batch or nothing.
        spread: list[list[RewardEvent]] = []
        keyed: set[tuple[str, str]] = set()
        turn = Turn()
        for request, path in zip(requests, paths, strict=True):
            await turn.end_if_long()
            event = self._event(request, path)
            events = [] if event is None else self._spread(event)
            if request.event_id is not None:
                keyed.update((e.decision_id, e.event_id) for e in events)
            spread.append(events)

        stored = [event for events in spread for event in events]
        duplicates: tuple[bool, ...] = ()
        if stored:
            # Last, so that the requests' own events stand in the receipt where they are looked for.
            marks = self._marks(events[0] for events in spread if events)
            keyed.update(marks)
            entry = Entry(events=[*stored, *marks.values()], keyed_events=frozenset(keyed))
            receipt = await self._backend.writer.put(entry)
            duplicates = receipt.duplicates
            self._remember_marks(marks)

        answers = []
        position = 0
        for request, events in zip(requests, spread, strict=True):
            # The events of one request stand side by side in the receipt, the request's own first.
            duplicate = bool(events) and duplicates[position]
            position += len(events)
            answer = self._answer(request, events, duplicate)
            telemetry.REWARDS.labels(answer.status).inc()
            if answer.status == "stored" and request.event == SEEN:
                self._count_impression(request.decision_id)
            answers.append(answer)
        return answers

    def _marks(self, events: Iterable[RewardEvent]) -> dict[tuple[str, str], RewardEvent]:
        """What these events have follow and is not known to be stored, each once."""
        marks = {}
        for event in events:
            if event.event == SEEN and event.decision_id not in self._marked:
                for mark in self._impressions_sent(event):
                    marks[mark.decision_id, mark.event_id] = mark
        return marks

    def _remember_marks(self, marks: Iterable[tuple[str, str]]) -> None:
        """Only now that they are stored: where that failed, the next impression says it again."""
        for decision_id, _ in marks:
            self._marked[decision_id] = None
        while len(self._marked) > _REMEMBERED:
            self._marked.popitem(last=False)

    async def _recall(self, requests: list[RewardRequest]) -> None:
        """Know the slates of decisions that the log has let go, as a reward may come late, and of
        those that waited for one to say that they were shown.
        """
        unknown = set()
        turn = Turn()
        for request in requests:
            await turn.end_if_long()
            if self._slate(request.decision_id) is None:
                unknown.add(request.decision_id)
        if not unknown:
            return
        origins = await self._backend.origins(unknown)
        for decision_id, origin in origins.items():
            slate = origin.experiment or "", origin.slate, origin.decided_at
            self._remember_slate(decision_id, slate)
        # Of a page the lake has which decision each of its tiles is of.
        unknown = {i for i in unknown if i not in origins or not self._is_at_hand(i)}
        if unknown:
            unknown -= (await self._backend.recall(unknown)).keys() | origins.keys()
        if unknown:
            for decision in await self._deferred.shown(unknown):
                self.remember(decision)

    def _answer(
        self, request: RewardRequest, events: list[RewardEvent], duplicate: bool
    ) -> RewardAnswer:
        if not events:
            return RewardAnswer("unknown_decision", request.decision_id, request.event_id)
        event = events[0]
        status: RewardStatus = "duplicate" if duplicate else "stored"
        warning = self._warning_for(event, status)
        return RewardAnswer(status, event.decision_id, event.event_id, warning)

    def _event(self, request: RewardRequest, path: str) -> RewardEvent | None:
        """The event of a request; None where its decision is unknown. Raises BadRequest where it
        speaks of something that was not shown.
        """
        slate = self._slate(request.decision_id)
        if slate is None:
            return None
        action, position = _item(request, slate[1], path)
        return RewardEvent(
            decision_id=request.decision_id,
            event_id=request.event_id or new_id(),
            event=request.event,
            value=request.value,
            action=action,
            position=position,
            occurred_at=None if request.at is None else micros(request.at, path),
        )

    def _warning_for(self, event: RewardEvent, status: RewardStatus) -> str | None:
        """What to say of an event that no metric of its experiment reads: of a page's nothing, its
        layers read it.
        """
        slate = self._slate(event.decision_id)
        compiled = None if slate is None else self._backend.engine.experiments.get(slate[0])
        if compiled is None or event.event in compiled.events or event.event in IMPRESSIONS:
            return None
        key = compiled.experiment.key
        if status == "stored":
            telemetry.UNREAD.labels(key).inc()
        return f"{UNREAD_BECAME[status]} {_unread(key, event.event, compiled.events)}"

    def _count_impression(self, decision_id: str) -> None:
        slate = self._slate(decision_id)
        if slate is not None:
            telemetry.IMPRESSIONS.labels(slate[0]).inc()

    def _known_slate(self, decision_id: str) -> _Slate | None:
        """What a decision showed, where that is in memory."""
        slate = self._slates.get(decision_id)
        # As of a recalled decision: what is forgotten there must not be known here.
        is_known = slate is not None and self._backend.is_remembered(slate[2])
        return slate if is_known else None

    def _slate(self, decision_id: str) -> _Slate | None:
        slate = self._known_slate(decision_id)
        if slate is not None:
            return slate
        decision = self._backend.decision(decision_id)
        return None if decision is None else self.remember(decision)

    def forget(self) -> None:
        """Know of no decision what it showed: the log is asked again."""
        self._slates.clear()
        self._marked.clear()
        self._items = 0

    def remember(self, decision: Decision) -> _Slate:
        """Know what a decision showed without asking the log."""
        shown = tuple([p.action for p in decision.slate])
        slate = decision.experiment, shown, decision.decided_at
        self._remember_slate(decision.decision_id, slate)
        return slate

    def _remember_slate(self, decision_id: str, slate: _Slate) -> None:
        before = self._slates.pop(decision_id, None)
        self._slates[decision_id] = slate
        self._items += len(slate[1]) - (0 if before is None else len(before[1]))
        while len(self._slates) > _REMEMBERED or self._items > _MOST_ITEMS:
            self._items -= len(self._slates.popitem(last=False)[1][1])


def _item(
    request: RewardRequest, slate: tuple[str, ...], path: str
) -> tuple[str | None, int | None]:
    """The action and the position that a reward speaks of, each from the other where only one was
    named; neither for a reward of the whole slate. Raises BadRequest for what was not shown.
    """
    action, position = request.action, request.position
    if action is not None and action not in slate:
        raise BadRequest(
            f"{path}.action", f"{action!r} was not shown; expected one of {listed(slate, 10)}"
        )
    if position is not None and position >= len(slate):
        raise BadRequest(f"{path}.position", f"{position}; expected 0 to {len(slate) - 1}")
    if action is None:
        return (None, None) if position is None else (slate[position], position)
    if position is not None and slate[position] != action:
        raise BadRequest(
            f"{path}.position", f"{position} showed {slate[position]!r}, not {action!r}"
        )
    return action, slate.index(action)


@lru_cache(1_024)
def _unread(experiment: str, event: str, read: frozenset[str]) -> str:
    message = f"no metric of {experiment} reads event {event[:64]!r}"
    hint = nearest(event, read)
    return f"{message}; {hint}" if hint else message
