"""Which request below `/ofrep/v1/` is what, and how it is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec

from topbill.domain.errors import BadRequest, LogError, Malformed, NotFound, TopbillError
from topbill.domain.json_text import at_path, check_json
from topbill.engine import Answer, DecideRequest
from topbill.service.asgi import LARGEST_BODY, Header, Reply
from topbill.service.backend import Backend
from topbill.service.ofrep.bodies import (
    BulkEvaluationFailure,
    ErrorCode,
    EvaluationFailure,
    EvaluationRequest,
    GeneralErrorResponse,
)
from topbill.service.ofrep.flags import Flags, NoTargetingKey

FLAGS = "/ofrep/v1/evaluate/flags"
"""Where all flags are evaluated, and, below it, one."""
_encode = msgspec.json.Encoder().encode
_request = msgspec.json.Decoder(EvaluationRequest)


class Ofrep:
    """Answers requests for `FLAGS` and what is below it, over a backend; `decide` is what makes one
    decision durable."""

    def __init__(
        self, backend: Backend, decide: Callable[[DecideRequest], Awaitable[Answer]]
    ) -> None:
        self._flags = Flags(backend, decide)

    async def reply(self, path: str, headers: Iterable[Header], raw: bytes | None) -> Reply:
        """The answer to a body; None is one over the limit."""
        key = _key_of(path)
        try:
            if raw is None:
                raise Malformed("$", f"over {LARGEST_BODY:,} bytes; send less")
            check_json(raw)
            context = _request.decode(raw).context
            if key is not None:
                return Reply(200, _encode(await self._flags.one(key, context)))
            etag = self._flags.etag(context)
            more = ((b"etag", etag),)
            if _matches(headers, etag):
                return Reply(304, b"", more)
            return Reply(200, _encode(await self._flags.all(context)), more)
        except (TopbillError, msgspec.ValidationError) as error:
            status, body = _refusal(error, key)
            return Reply(status, _encode(body))


def route_of(path: str) -> str:
    """What a path is counted as; "" where it is none of these."""
    if path == FLAGS:
        return FLAGS
    head, _, key = path.rpartition("/")
    return f"{FLAGS}/{{key}}" if head == FLAGS and key else ""


def _key_of(path: str) -> str | None:
    """The flag that a path names; None where it is for all."""
    return path[len(FLAGS) + 1 :] or None


def _matches(headers: Iterable[Header], etag: bytes) -> bool:
    """Whether the caller has that state already."""
    for name, value in headers:
        if name == b"if-none-match":
            held = [each.strip().removeprefix(b"W/") for each in value.split(b",")]
            return etag in held
    return False


def _refusal(error: Exception, key: str | None) -> tuple[int, msgspec.Struct]:
    """Status and body of an error, in OFREP's words. `key` is the flag, None for all."""
    if isinstance(error, msgspec.ValidationError):
        error = at_path(error)
    if isinstance(error, LogError):
        return 503, GeneralErrorResponse(str(error))
    code: ErrorCode | None = None
    if isinstance(error, NotFound):
        code = "FLAG_NOT_FOUND"
    elif isinstance(error, Malformed):
        code = "PARSE_ERROR"
    elif isinstance(error, NoTargetingKey):
        code = "TARGETING_KEY_MISSING"
    elif isinstance(error, BadRequest):
        code = "INVALID_CONTEXT"
    if code is None:
        return 500, GeneralErrorResponse(str(error))
    status = 404 if code == "FLAG_NOT_FOUND" else 400
    if key is None:
        return status, BulkEvaluationFailure(code, str(error))
    return status, EvaluationFailure(key, code, str(error))
