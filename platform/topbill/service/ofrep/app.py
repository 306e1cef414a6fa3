"""Which request below `/ofrep/v1/` is what, and how it is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec

from topbill.domain.errors import Malformed, TopbillError
from topbill.domain.json_text import check_json
from topbill.engine import Answer, DecideRequest
from topbill.service.asgi import LARGEST_BODY, Header, Reply
from topbill.service.backend import Backend
from topbill.service.ofrep.flags import FlagDoor, Flags, encode, request_body
from topbill.service.ofrep.refusals import refusal

FLAGS = "/ofrep/v1/evaluate/flags"
"""Where all flags are evaluated, and, below it, one."""


class Ofrep:
    """Answers requests for `FLAGS` and what is below it, over a backend; `decide` is what makes one
    decision durable."""

    def __init__(
        self, backend: Backend, decide: Callable[[DecideRequest], Awaitable[Answer]]
    ) -> None:
        self._engine, self._decide = backend.engine, decide
        self._flags = Flags(backend)

    def door_of(self, path: str) -> FlagDoor | None:
        """What one flag is evaluated through; None where the path is for none."""
        key = _key_of(path) if route_of(path) else None
        return None if key is None else FlagDoor(self._engine, key)

    async def reply(self, path: str, headers: Iterable[Header], raw: bytes | None) -> Reply:
        """The answer to a body; None is one over the limit."""
        key = _key_of(path)
        try:
            if raw is None:
                raise Malformed("$", f"over {LARGEST_BODY:,} bytes; send less")
            said = check_json(raw)
            if key is not None:
                door = FlagDoor(self._engine, key)
                request, _ = door.read(said, raw)
                return Reply(200, door.write(await self._decide(request)))
            context = request_body.decode(raw).context
            etag = self._flags.etag(context)
            more = ((b"etag", etag),)
            if _matches(headers, etag):
                return Reply(304, b"", more)
            return Reply(200, encode(await self._flags.all(context)), more)
        except (TopbillError, msgspec.ValidationError) as error:
            status, body = refusal(error, key)
            return Reply(status, encode(body))


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
