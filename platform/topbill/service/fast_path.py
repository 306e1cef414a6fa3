"""Decide, reward and event: an ASGI app in front of FastAPI's router, so that a request costs only
its own work.

A body is decoded by msgspec into the structs that also make the OpenAPI entries; an answer goes out
when the writer's commit is durable, and not before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import msgspec

from topbill.domain.errors import (
    AlreadyDecided,
    BadRequest,
    Conflict,
    LogError,
    Malformed,
    NotFound,
    TopbillError,
)
from topbill.domain.json_text import at_path, check_json
from topbill.domain.records import Decision
from topbill.engine import Answer, Asked, DecideRequest
from topbill.log import Receipt
from topbill.pages import PageRequest
from topbill.process_log import REQUEST_ID
from topbill.service import ofrep, telemetry
from topbill.service.admission import Admission, Refusal
from topbill.service.asgi import (
    LARGEST_BODY,
    App,
    Header,
    Receive,
    Reply,
    Scope,
    Send,
    read_body,
    send_reply,
)
from topbill.service.backend import Backend
from topbill.service.bodies import (
    DecideBatch,
    EventBatch,
    EventRequest,
    RewardBatch,
    RewardRequest,
    problem,
)
from topbill.service.decisions import Decisions
from topbill.service.direct import DirectRequest
from topbill.service.events import UnitEvents
from topbill.service.few_a_second import FewASecond
from topbill.service.intake import Intake, SegmentBody, SnowplowBody
from topbill.service.override_header import OverrideHeaders
from topbill.service.page import PageService
from topbill.service.request_id import header_of, identify, presented, with_header
from topbill.service.rewards import Rewards
from topbill.service.turns import let_others

_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (Malformed, 400, "malformed"),
    (BadRequest, 422, "invalid"),
    (NotFound, 404, "not_found"),
    (AlreadyDecided, 409, "already_decided"),
    (Conflict, 409, "conflict"),
    (LogError, 503, "log_unavailable"),
    (TopbillError, 500, "internal"),
)
"""Status and code of each error; the first that fits, so subclasses stand before their bases."""
_logger = logging.getLogger("topbill")
_LONG_BODY = 100_000
_DECIDE = "/v1/decide"
_Route = tuple[msgspec.json.Decoder[Any], Callable[[Any], Awaitable[Any]]]
"""How a body is decoded, and what answers it."""

_encode = msgspec.json.Encoder().encode


class FastPath:
    """The routes that viewers wait for, over a backend; every other path goes to `rest`."""

    def __init__(
        self, rest: App, backend: Backend, pages: PageService, admission: Admission
    ) -> None:
        """Raises TopbillError where the settings' secret of overrides cannot be used."""
        self._rest = rest
        self._admission = admission
        self._overrides = OverrideHeaders(backend.settings.override_file, backend.engine)
        self._backend = backend
        self._pages = pages
        self.engine = backend.engine
        self._refusals = FewASecond(time.time)
        self.rewards = Rewards(backend, pages.spread, pages.impressions_sent, pages.is_at_hand)
        self._decisions = Decisions(backend, self.rewards)
        self._decide_door = _DecideDoor()
        events = UnitEvents(backend, pages)
        intake = Intake(self.rewards, events)
        self._routes: dict[str, _Route] = {
            _DECIDE: (msgspec.json.Decoder(DecideRequest), self._decisions.one),
            "/v1/decide/batch": (msgspec.json.Decoder(DecideBatch), self._decisions.batch),
            "/v1/page": (msgspec.json.Decoder(PageRequest), pages.page),
            "/v1/reward": (msgspec.json.Decoder(RewardRequest), self.rewards.one),
            "/v1/reward/batch": (msgspec.json.Decoder(RewardBatch), self.rewards.batch),
            "/v1/event": (msgspec.json.Decoder(EventRequest), events.one),
            "/v1/event/batch": (msgspec.json.Decoder(EventBatch), events.batch),
            "/v1/intake/segment": (msgspec.json.Decoder(SegmentBody), intake.segment),
            "/v1/intake/snowplow": (msgspec.json.Decoder(SnowplowBody), intake.snowplow),
        }
        self._ofrep = ofrep.Ofrep(backend, self._decisions.one)

    def route_of(self, path: str) -> str:
        """What a path is counted as; "" where it is not answered here."""
        return path if path in self._routes else ofrep.route_of(path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._rest(scope, receive, send)
        request_id = identify(scope["headers"])
        reply = self._refused(scope)
        if reply is None and not self.route_of(scope["path"]):
            return await self._rest(scope, receive, with_header(send, request_id))
        if reply is None:
            reply = await self._answered(scope, await read_body(receive))
        return await send_reply(send, reply.with_header(request_id))

    def take(self, requests: list[DirectRequest]) -> None:
        """Answer requests that came together: decisions side by side, stage by stage,
        so that what a stage needs is in the processor's caches."""
        asked: list[_Asked] = []
        is_crowded = self._admission.is_crowded
        for request in requests:
            try:
                read = request.head.read
                if read is None:
                    read = request.head.read = self._read_head(request)
                door = read.door
                if door is None or is_crowded or len(request.body) > _LONG_BODY:
                    request.answer_later(self._reply(request.scope, request.body))
                else:
                    asked.append(_Asked(request, door, header_of(read.request_id)))
            except Exception:
                request.fail()
        if asked:
            self._admission.count_let_in(len(asked))
        asked = [one for one in asked if self._read(one)]
        if asked:
            self._decide(asked)

    def _read_head(self, request: DirectRequest) -> _HeadRead:
        """What a request's head says to the stages below. Where keys are asked for, or a variant is
        asked to be seen, each request is looked at by itself.
        """
        scope = request.scope
        door = self._door_of(request.head.path)
        if self._overrides.is_sent(scope) or not self._admission.lets_in_all(scope):
            door = None
        return _HeadRead(door, presented(scope["headers"]))

    def _door_of(self, path: str) -> Door | None:
        """What single decisions are asked for through; None where a path is for others."""
        return self._decide_door if path == _DECIDE else self._ofrep.door_of(path)

    def _read(self, asked: _Asked) -> bool:
        """The first stage: what is asked; whether that can be read."""
        try:
            raw = asked.request.body
            asked.wanted = asked.door.read(check_json(raw), raw)
        except Exception as error:
            self._fail(asked, error)
            return False
        return True

    def _decide(self, asked: list[_Asked]) -> None:
        """The second one: decisions, which the writer then makes durable."""
        # Also for whatever is logged meanwhile, where that is about one of them.
        REQUEST_ID.set(asked[0].request_id if len(asked) == 1 else None)
        try:
            made = self._decisions.make_each([one.wanted for one in asked])
        except Exception as error:
            if len(asked) == 1:
                self._fail(asked[0], error)
                return
            # Only that request fails which has the defect.
            for one in asked:
                self._decide([one])
            return
        for one, decision in zip(asked, made, strict=True):
            request = one.wanted[0]
            try:
                if isinstance(decision, TopbillError):
                    raise decision
                one.decision = decision
                self._decisions.submit(request, decision, partial(self._answer, one))
            except TopbillError as error:
                if request.decision_id is None:
                    self._fail(one, error)
                else:
                    # It may have been decided before, which takes a look into the log.
                    one.request.answer_later(
                        self._admitted(one.header, one.request.scope, one.request.body)
                    )
            except Exception as error:
                self._fail(one, error)

    def _answer(self, asked: _Asked, receipt: Receipt | LogError) -> None:
        """The last one: the answer, when the commit is durable."""
        try:
            if isinstance(receipt, LogError):
                raise receipt
            decision = asked.decision
            answer = self._decisions.settled(decision, receipt)
            if answer is None:
                stored = receipt.stored[decision.decision_id]
                asked.request.answer_later(self._late_reply(asked, stored))
            else:
                self._send(asked, 200, asked.door.write(answer))
        except Exception as error:
            self._fail(asked, error)

    async def _late_reply(self, asked: _Asked, stored: Decision) -> Reply:
        answer = await self._decisions.late_answer(stored)
        return Reply(200, asked.door.write(answer), (asked.header,))

    def _fail(self, asked: _Asked, error: Exception) -> None:
        """Answer what was wrong, by the error that is being handled."""
        REQUEST_ID.set(asked.request_id)
        if isinstance(error, TopbillError | msgspec.ValidationError):
            self._send(asked, *asked.door.refuse(error))
        else:
            asked.request.fail()

    def _send(self, asked: _Asked, status: int, body: bytes) -> None:
        self._note(asked.request.head.path, status, time.perf_counter() - asked.start)
        asked.request.answer(Reply(status, body, (asked.header,)))

    async def _reply(self, scope: Scope, raw: bytes) -> Reply:
        """The answer to a request that is here as a whole."""
        request_id = identify(scope["headers"])
        reply = self._refused(scope)
        if reply is not None:
            return reply.with_header(request_id)
        return await self._admitted(request_id, scope, raw)

    async def _admitted(self, header: Header, scope: Scope, raw: bytes) -> Reply:
        """The same to one that is let in; `header` says its id."""
        REQUEST_ID.set(header[1].decode())
        return (await self._answered(scope, raw)).with_header(header)

    def _refused(self, scope: Scope) -> Reply | None:
        """Why a request is not let in, before its body is read; None where it is."""
        refusal = self._admission.refusal(scope) or self._overrides.refusal(scope)
        if refusal is not None:
            return _refused_by(refusal)
        method, path = scope["method"], scope["path"]
        if method != "POST" and self.route_of(path):
            body = problem("method_not_allowed", f"{method} {path}; expected POST")
            return Reply(405, body, ((b"allow", b"POST"),))
        return None

    async def _answered(self, scope: Scope, raw: bytes | None) -> Reply:
        """The answer to a body; None is one over the limit."""
        start = time.perf_counter()
        path = scope["path"]
        route = self._routes.get(path)
        if route is None:
            reply = await self._ofrep.reply(path, scope["headers"], raw)
        elif raw is None:
            body = problem("too_large", f"body over {LARGEST_BODY:,} bytes; send less at once")
            reply = Reply(413, body)
        else:
            reply = Reply(*await self._handle(route, raw))
        self._note(path, reply.status, time.perf_counter() - start)
        return reply

    def _note(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        telemetry.observe(telemetry.seconds(self.route_of(path)), seconds)
        if status >= 400:
            telemetry.REFUSED.labels(str(status)).inc()
            self._note_refusal(path, status, seconds)

    def _note_refusal(self, path: str, status: int, seconds: float) -> None:
        """A line by which a caller's request id is found. Nothing of the body is in it: it may hold
        ids of viewers.
        """
        left_out = self._refusals.ask()
        if left_out is not None:
            fields = {"path": path, "status": status, "milliseconds": round(seconds * 1e3, 3)}
            if left_out:
                fields["left_out"] = left_out
            _logger.info("%s refused with %d", path, status, extra={"fields": fields})

    async def _handle(self, route: _Route, raw: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. Nothing of a request is held back: what is not written
        here was not written at all.
        """
        decoder, handler = route
        try:
            # Before anything of it is decided or stored: parts of the body go into the log as the
            # text that came, which nobody looks at again until the worker reads it.
            check_json(raw)
            if len(raw) > _LONG_BODY:
                await let_others()
            body = decoder.decode(raw)
            if len(raw) > _LONG_BODY:
                await let_others()
            return 200, _encode(await handler(body))
        except (TopbillError, msgspec.ValidationError) as error:
            return _refusal(error)


class Door(Protocol):
    """A way in which single decisions are asked for and answered."""

    def read(self, said: Any, raw: bytes) -> Asked:
        """The request in a body and its context; `said` is the body, decoded. Raises TopbillError
        and ValidationError.
        """
        ...

    def write(self, answer: Answer) -> bytes:
        """The body of the answer."""
        ...

    def refuse(self, error: TopbillError | msgspec.ValidationError) -> tuple[int, bytes]:
        """Status and body for an error."""
        ...


class _DecideDoor:
    """`/v1/decide`."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(DecideRequest).decode

    def read(self, said: Any, raw: bytes) -> Asked:
        """The request as it is, which is an object where it can be decoded."""
        return self._decode(raw), said.get("context", {})

    def write(self, answer: Answer) -> bytes:
        """The answer as it is."""
        return _encode(answer)

    def refuse(self, error: TopbillError | msgspec.ValidationError) -> tuple[int, bytes]:
        """As all errors are told."""
        return _refusal(error)


class _HeadRead(NamedTuple):
    """What a head says of each of its requests: through which door it comes, None where that is to
    be found out each time, and the id that its caller gave it.
    """

    door: Door | None
    request_id: str | None


class _Asked:
    """A decision that is asked for, on its way to the answer."""

    __slots__ = ("decision", "door", "header", "request", "start", "wanted")
    wanted: Asked
    decision: Decision

    def __init__(self, request: DirectRequest, door: Door, header: Header) -> None:
        self.request, self.door, self.header = request, door, header
        self.start = time.perf_counter()

    @property
    def request_id(self) -> str:
        """That of the request, by which log lines are found."""
        return self.header[1].decode()


def _refused_by(refusal: Refusal) -> Reply:
    """What is answered to who is not let in."""
    telemetry.REFUSED.labels(str(refusal.status)).inc()
    return Reply(refusal.status, problem(refusal.code, refusal.message), refusal.headers)


def _refusal(error: TopbillError | msgspec.ValidationError) -> tuple[int, bytes]:
    """Status and body for an error."""
    if isinstance(error, msgspec.ValidationError):
        error = at_path(error)
    status, code = next((s, c) for kind, s, c in _STATUS if isinstance(error, kind))
    if isinstance(error, BadRequest):
        return status, problem(code, error.message, error.path)
    return status, problem(code, str(error))
