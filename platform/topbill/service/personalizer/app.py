"""The ASGI application for the paths below `/personalizer/`: which request is what, and how it is
refused.
"""

from __future__ import annotations

import re
import time
from typing import Any
from urllib.parse import unquote

import msgspec

from topbill.domain.errors import BadRequest, LogError, NotFound, TopbillError
from topbill.domain.json_text import at_path, check_json
from topbill.service import telemetry
from topbill.service.asgi import JSON, SOON, Receive, Scope, Send, read_body
from topbill.service.backend import Backend
from topbill.service.personalizer.bodies import (
    LARGEST_RANK,
    Code,
    ErrorResponse,
    MultiSlotRankRequest,
    MultiSlotRewardRequest,
    PersonalizerError,
    RankRequest,
    RewardRequest,
    Text,
    check_work,
)
from topbill.service.personalizer.events import PersonalizerEvents

_VERB = r"(?:rank|events/(?P<event>[^/]+)/(?P<verb>reward|activate))"
_PATH = re.compile(rf"/personalizer/v1\.(?:0|1-preview\.\d{{1,2}})/{_VERB}")
_SLOTS_PATH = re.compile(rf"/personalizer/v1\.1-preview\.\d{{1,2}}/multislot/{_VERB}")
_INVALID: dict[str, Code] = {
    "rank": "InvalidRankRequest",
    "reward": "InvalidRewardRequest",
    "activate": "InvalidEventIdToActivate",
}
"""The code of a request of the wrong form, by what it asks for."""
_encode = msgspec.json.Encoder().encode
_rank = msgspec.json.Decoder(RankRequest)
_rank_slots = msgspec.json.Decoder(MultiSlotRankRequest)
_reward = msgspec.json.Decoder(RewardRequest)
_reward_slots = msgspec.json.Decoder(MultiSlotRewardRequest)


class Personalizer:
    """An ASGI application for the paths below `/personalizer/`."""

    def __init__(self, backend: Backend) -> None:
        self._events = PersonalizerEvents(backend)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path_of(scope)
        if path is None:
            return await _refuse(send, 400, "BadRequest", "the path is not ASCII")
        slots = "/multislot/" in path
        route = (_SLOTS_PATH if slots else _PATH).fullmatch(path)
        if route is None:
            return await _refuse(send, 404, "ResourceNotFound", f"no such path: {path[:200]}")
        if scope["method"] != "POST":
            return await _refuse(send, 405, "BadRequest", f"{scope['method']}; expected POST")
        raw = await read_body(receive)
        start = time.perf_counter()
        if raw is None or len(raw) > LARGEST_RANK:
            message = f"over {LARGEST_RANK:,} bytes; send less"
            return await _refuse(send, 400, "PayloadSizeExceeded", message)
        verb = route["verb"] or "rank"
        try:
            answer = await self._handle(verb, route["event"], slots, raw)
        except (TopbillError, msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            return await _refuse(send, *_refusal(error, _INVALID[verb]))
        await _answer(send, 204 if answer is None else 201, answer)
        elapsed = time.perf_counter() - start
        telemetry.SECONDS.labels(f"/personalizer/{verb}").observe(elapsed)
        return None

    async def _handle(self, verb: str, quoted_event: str | None, slots: bool, raw: bytes) -> Any:
        """What a request is answered with; None where its status says it all."""
        if verb != "activate":
            check_json(raw)
        if quoted_event is None:
            if slots:
                request = _rank_slots.decode(raw)
                check_work(request, len(raw))
                return await self._events.rank_slots(request)
            return await self._events.rank(_rank.decode(raw))
        event = _event_id(quoted_event)
        if verb == "activate":
            await self._events.activate(event, slots)
        elif slots:
            await self._events.reward_slots(event, _reward_slots.decode(raw))
        else:
            await self._events.reward(event, _reward.decode(raw))
        return None


def _path_of(scope: Scope) -> str | None:
    """The path as it was sent, since event ids may contain quoted slashes; None for one that is not
    ASCII.
    """
    if not scope.get("raw_path"):
        return str(scope["path"])
    try:
        return bytes(scope["raw_path"]).split(b"?")[0].decode("ascii")
    except UnicodeDecodeError:
        return None


def _event_id(quoted: str) -> str:
    try:
        return msgspec.convert(unquote(quoted, errors="strict"), Text)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        raise BadRequest("eventId", str(error)) from error


def _refusal(error: Exception, invalid: Code) -> tuple[int, Code, str, str | None]:
    """Status, code, message and target of an error, in the words of the published reference;
    `invalid` is the code for a request of the wrong form.
    """
    if isinstance(error, msgspec.ValidationError):
        error = at_path(error)
    if isinstance(error, BadRequest):
        # The engine calls it `exclude`; their callers know it by their own name.
        target = "$.excludedActions" if error.path == "$.exclude" else error.path
        return 400, invalid, error.message, target
    if isinstance(error, NotFound):
        return 404, "ResourceNotFound", str(error), None
    if isinstance(error, LogError):
        return 503, "OperationNotAllowed", str(error), None
    if isinstance(error, TopbillError):
        return 500, "InternalServerError", str(error), None
    return 400, invalid, f"{error}; expected a JSON object", None


async def _answer(send: Send, status: int, body: Any = None) -> None:
    raw = b""
    headers = []
    if body is not None:
        raw = _encode(body)
        headers = [JSON, (b"content-length", b"%d" % len(raw))]
        if status == 503:
            headers.append(SOON)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": raw})


async def _refuse(
    send: Send, status: int, code: Code, message: str, target: str | None = None
) -> None:
    telemetry.REFUSED.labels(str(status)).inc()
    await _answer(send, status, ErrorResponse(PersonalizerError(code, message, target)))
