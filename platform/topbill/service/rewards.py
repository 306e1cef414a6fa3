"""Reward events on the fast path: checked against what was shown, durable before they are
answered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

from topbill.domain.errors import BadRequest
from topbill.domain.records import Decision, RewardEvent
from topbill.engine import Engine, new_id
from topbill.log import Entry, Log
from topbill.service import telemetry
from topbill.service.bodies import (
    RewardAnswer,
    RewardBatch,
    RewardBatchAnswer,
    RewardRequest,
    RewardStatus,
)
from topbill.service.writer import GroupWriter
from topbill.spec.fields import listed, nearest

_REMEMBERED = 50_000
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
"""What the lake's readers can all hold: an offset may carry a time past the last year that they
know.
"""


@lru_cache(1_024)
def _warning(experiment: str, event: str, read: frozenset[str]) -> str:
    hint = nearest(event, read)
    return f"stored, but no metric of {experiment} reads event {event[:64]!r}" + (
        f"; {hint}" if hint else ""
    )


_Shown = tuple[str, tuple[str, ...]]
"""A decision's experiment, and the actions that it showed, in order."""


class Rewards:
    """Takes rewards. `spread` gives the events that one stands for, itself first."""

    def __init__(self) -> None:
        self.engine: Engine
        self.log: Log
        self.writer: GroupWriter
        self.spread: Callable[[RewardEvent], list[RewardEvent]] = lambda event: [event]
        self._known: OrderedDict[str, _Shown] = OrderedDict()

    async def one(self, request: RewardRequest) -> RewardAnswer:
        """One reward event, durable where it was stored."""
        return (await self._store([request], lambda _: "$"))[0]

    async def batch(self, batch: RewardBatch) -> RewardBatchAnswer:
        """Reward events, durable together; one of the wrong form refuses the whole batch."""
        return RewardBatchAnswer(
            await self._store(batch.rewards, lambda index: f"$.rewards[{index}]")
        )

    async def _store(
        self, requests: list[RewardRequest], path: Callable[[int], str]
    ) -> list[RewardAnswer]:
        events = [self._event(request, path, index) for index, request in enumerate(requests)]
        spread = [[] if event is None else self.spread(event) for event in events]
        keyed = frozenset(
            (e.decision_id, e.event_id)
            for some, request in zip(spread, requests, strict=True)
            for e in some
            if request.event_id
        )
        known = [event for some in spread for event in some]
        receipt = await self.writer.put(Entry(events=known, keyed_events=keyed)) if known else None
        duplicate = iter(receipt.duplicates if receipt else ())
        answers = []
        for event, request, some in zip(events, requests, spread, strict=True):
            if event is None:
                answers.append(
                    RewardAnswer("unknown_decision", request.decision_id, request.event_id)
                )
            else:
                old = [next(duplicate) for _ in some]
                status: RewardStatus = "duplicate" if old[0] else "stored"
                answers.append(
                    RewardAnswer(status, event.decision_id, event.event_id, self._unread(event))
                )
            telemetry.REWARDS.labels(answers[-1].status).inc()
        return answers

    def _event(
        self, request: RewardRequest, path: Callable[[int], str], index: int
    ) -> RewardEvent | None:
        shown = self._shown(request.decision_id)
        if shown is None:
            return None
        slate = shown[1]
        action, position = request.action, request.position
        if action is not None and action not in slate:
            raise BadRequest(
                f"{path(index)}.action",
                f"{action!r} was not shown; expected one of {listed(slate, 10)}",
            )
        if position is not None and position >= len(slate):
            raise BadRequest(
                f"{path(index)}.position", f"{position}; expected 0 to {len(slate) - 1}"
            )
        if action is not None and position is not None and slate[position] != action:
            raise BadRequest(
                f"{path(index)}.position", f"{position} showed {slate[position]!r}, not {action!r}"
            )
        if action is not None:
            position = slate.index(action)
        elif position is not None:
            action = slate[position]
        at = request.at
        if at is not None:
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            if not _FIRST <= at <= _LAST:
                raise BadRequest(
                    f"{path(index)}.at", f"{at.isoformat()}; expected a time from 1970 to 9999, UTC"
                )
        return RewardEvent(
            decision_id=request.decision_id,
            event_id=request.event_id or new_id(),
            event=request.event,
            value=request.value,
            action=action,
            position=position,
            occurred_at=None if at is None else int(at.timestamp() * 1e6),
        )

    def _unread(self, event: RewardEvent) -> str | None:
        """What to say of an event that no metric of its experiment reads: of a page's nothing, its
        layers read it.
        """
        shown = self._shown(event.decision_id)
        live = None if shown is None else self.engine.experiments.get(shown[0])
        if live is None or event.event in live.events:
            return None
        telemetry.UNREAD.labels(live.experiment.key).inc()
        return _warning(live.experiment.key, event.event, live.events)

    def _shown(self, decision_id: str) -> _Shown | None:
        shown = self._known.get(decision_id)
        if shown is None:
            decision = self.log.decision(decision_id)
            if decision is not None:
                shown = self.remember(decision)
        return shown

    def remember(self, decision: Decision) -> _Shown:
        """Know what a decision showed without asking the log."""
        shown = decision.experiment, tuple([p.action for p in decision.slate])
        self._known[decision.decision_id] = shown
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return shown
