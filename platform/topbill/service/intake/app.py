"""Takes what other tools send on. What one message has wrong concerns no other, since who sends
them on cannot mend them: each has its own result, and what is left out is counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, TypeVar

import msgspec

from topbill.domain.errors import BadRequest
from topbill.service import telemetry
from topbill.service.bodies import (
    EventAnswer,
    EventBatch,
    EventRequest,
    RewardAnswer,
    RewardBatch,
    RewardRequest,
)
from topbill.service.events import UnitEvents
from topbill.service.intake import segment, snowplow
from topbill.service.intake.segment import SegmentBody
from topbill.service.intake.sent import LeftOut, SentEvent, left_out, request_of
from topbill.service.intake.snowplow import SnowplowBody
from topbill.service.rewards import Rewards
from topbill.service.turns import Turn

_Request = TypeVar("_Request", RewardRequest, EventRequest)
_Answer = RewardAnswer | EventAnswer
IntakeStatus = Literal["stored", "duplicate", "unknown_decision", "erased", "ignored", "refused"]


class IntakeResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one message: `stored`, a `duplicate` of what came before under its id, of an
    `unknown_decision`, of an `erased` unit; `ignored`, as it is no event, or `refused`, as it
    cannot be read: `reason` says why.
    """

    status: IntakeStatus
    reason: str | None = None


class IntakeAnswer(msgspec.Struct, frozen=True):
    """What became of each message, in the order in which they were sent."""

    results: list[IntakeResult]


class Intake:
    """Takes events as rewards and events of units."""

    def __init__(self, rewards: Rewards, events: UnitEvents) -> None:
        self._rewards = rewards
        self._events = events

    async def segment(self, body: SegmentBody) -> IntakeAnswer:
        """Messages in Segment's form."""
        return await self._take("segment", segment.read(body), segment.NAMES)

    async def snowplow(self, body: SnowplowBody) -> IntakeAnswer:
        """Events in Snowplow's form."""
        return await self._take("snowplow", snowplow.read(body), snowplow.NAMES)

    async def _take(
        self, source: str, sent: Sequence[SentEvent | LeftOut], names: Mapping[str, str]
    ) -> IntakeAnswer:
        results: list[IntakeResult | None] = [None] * len(sent)
        rewards: dict[int, RewardRequest] = {}
        events: dict[int, EventRequest] = {}
        turn = Turn()
        for place, one in enumerate(sent):
            await turn.end_if_long()
            if isinstance(one, LeftOut):
                results[place] = _result(one)
                continue
            try:
                request = request_of(one)
            except BadRequest as error:
                results[place] = _result(left_out(error, names))
                continue
            if isinstance(request, RewardRequest):
                rewards[place] = request
            else:
                events[place] = request
        await _store(rewards, self._reward, results, names)
        await _store(events, self._tell, results, names)
        done = [result for result in results if result is not None]
        for result in done:
            telemetry.INTAKE.labels(source, result.status).inc()
        return IntakeAnswer(done)

    async def _reward(self, requests: list[RewardRequest]) -> Sequence[_Answer]:
        return (await self._rewards.batch(RewardBatch(requests))).results

    async def _tell(self, requests: list[EventRequest]) -> Sequence[_Answer]:
        return (await self._events.batch(EventBatch(requests))).results


def _result(one: LeftOut) -> IntakeResult:
    return IntakeResult("refused" if one.refused else "ignored", one.reason)


async def _store(
    requests: dict[int, _Request],
    store: Callable[[list[_Request]], Awaitable[Sequence[_Answer]]],
    results: list[IntakeResult | None],
    names: Mapping[str, str],
) -> None:
    """Store requests, by their places among the results: together, and one by one where one of them
    cannot be stored."""
    if not requests:
        return
    try:
        answers = await store(list(requests.values()))
    except BadRequest as error:
        if len(requests) > 1:
            for place, request in requests.items():
                await _store({place: request}, store, results, names)
            return
        (place,) = requests
        results[place] = _result(left_out(error, names))
        return
    for place, answer in zip(requests, answers, strict=True):
        results[place] = IntakeResult(answer.status, answer.warning)
