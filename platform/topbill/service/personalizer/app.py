"""Azure Personalizer's HTTP API over the same engine: paths, bodies, status codes and errors of the
published reference (v1.0 and v1.1-preview)."""

from __future__ import annotations

import re
import time
from typing import Any
from urllib.parse import unquote

import msgspec

from topbill.domain.errors import BadRequest, LogError, NotFound, TopbillError
from topbill.engine import at_path
from topbill.service import telemetry
from topbill.service.fast_path import LARGEST_BODY, FastPath, Receive, Scope, Send, read_body
from topbill.service.personalizer.bodies import (
    Code,
    ErrorResponse,
    MultiSlotRankRequest,
    MultiSlotRewardRequest,
    PersonalizerError,
    RankRequest,
    RewardRequest,
    Text,
)
from topbill.service.personalizer.events import Events

_PATH = re.compile(
    r"/personalizer/v1\.(?:0|1-preview\.\d{1,2})/(?:rank|events/(?P<event>[^/]+)/(?P<verb>reward|activate))"
)
_SLOTS_PATH = re.compile(
    r"/personalizer/v1\.1-preview\.\d{1,2}/multislot/(?:rank|events/(?P<event>[^/]+)/(?P<verb>reward|activate))"
)
_encode = msgspec.json.Encoder().encode
_rank = msgspec.json.Decoder(RankRequest)
_rank_slots = msgspec.json.Decoder(MultiSlotRankRequest)
_reward = msgspec.json.Decoder(RewardRequest)
_reward_slots = msgspec.json.Decoder(MultiSlotRewardRequest)


class Personalizer:
    """An ASGI application for the paths below `/personalizer/`."""

    def __init__(self, hot: FastPath) -> None:
        self._events = Events(hot)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        code: Code = "BadRequest"
        try:
            path = (
                scope["raw_path"].split(b"?")[0].decode("ascii")
                if scope.get("raw_path")
                else scope["path"]
            )
            slots = "/multislot/" in path
            found = (_SLOTS_PATH if slots else _PATH).fullmatch(path)
            if found is None:
                return await _refuse(send, 404, "ResourceNotFound", f"no such path: {path[:200]}")
            if scope["method"] != "POST":
                return await _refuse(send, 405, "BadRequest", f"{scope['method']}; expected POST")
            raw = await read_body(receive)
            start = time.perf_counter()
            if raw is None:
                return await _refuse(
                    send, 400, "PayloadSizeExceeded", f"over {LARGEST_BODY:,} bytes; send less"
                )
            if found["event"] is None:
                code = "InvalidRankRequest"
                await _answer(send, 201, await self._rank(slots, raw))
                telemetry.SECONDS.labels("/personalizer/rank").observe(time.perf_counter() - start)
                return None
            code = (
                "InvalidEventIdToActivate"
                if found["verb"] == "activate"
                else "InvalidRewardRequest"
            )
            event = _event_id(found["event"])
            if found["verb"] == "activate":
                await self._events.activate(event, slots)
            else:
                await self._reward(event, slots, raw)
            await _answer(send, 204)
            telemetry.SECONDS.labels(f"/personalizer/{found['verb']}").observe(
                time.perf_counter() - start
            )
            return None
        except msgspec.ValidationError as error:
            wrong = at_path(error)
            return await _refuse(send, 400, code, wrong.message, wrong.path)
        except BadRequest as error:
            target = "$.excludedActions" if error.path == "$.exclude" else error.path
            return await _refuse(send, 400, code, error.message, target)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            return await _refuse(send, 400, code, f"{error}; expected a JSON object")
        except NotFound as error:
            return await _refuse(send, 404, "ResourceNotFound", str(error))
        except LogError as error:
            return await _refuse(send, 503, "OperationNotAllowed", str(error))
        except TopbillError as error:
            return await _refuse(send, 500, "InternalServerError", str(error))

    async def _rank(self, slots: bool, raw: bytes) -> Any:
        if slots:
            return await self._events.rank_slots(_rank_slots.decode(raw))
        return await self._events.rank(_rank.decode(raw))

    async def _reward(self, event: str, slots: bool, raw: bytes) -> None:
        if slots:
            await self._events.reward_slots(event, _reward_slots.decode(raw))
        else:
            await self._events.reward(event, _reward.decode(raw))


def _event_id(quoted: str) -> str:
    try:
        return msgspec.convert(unquote(quoted, errors="strict"), Text)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        raise BadRequest("eventId", str(error)) from error


async def _answer(send: Send, status: int, body: Any = None) -> None:
    raw = b"" if body is None else _encode(body)
    headers = (
        []
        if body is None
        else [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(raw))]
    )
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": raw})


async def _refuse(
    send: Send, status: int, code: Code, message: str, target: str | None = None
) -> None:
    telemetry.REFUSED.labels(str(status)).inc()
    await _answer(send, status, ErrorResponse(PersonalizerError(code, message, target)))
