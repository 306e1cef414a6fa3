"""Decide and reward: an ASGI app in front of FastAPI's router, so that a request costs only its own work.

A body is decoded by msgspec into the structs that also make the OpenAPI entries; an answer goes out when the
writer's commit is durable, and not before.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from topbill.engine import Answer, DecideRequest, Engine, Id, at_path, new_id, payloads_of
from topbill.errors import BadRequest, Conflict, LogError, NotFound, TopbillError
from topbill.log.entries import Entry, Receipt
from topbill.log.sqlite import SqliteLog
from topbill.records import NULL, Decision, RewardEvent
from topbill.service import auth, meters
from topbill.service.page import Desk
from topbill.service.writer import GroupWriter

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST_BODY = 1_000_000
LARGEST_BATCH = 1_000
_REMEMBERED = 50_000
_JSON = (b"content-type", b"application/json")
_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (BadRequest, 422, "invalid"),
    (NotFound, 404, "not_found"),
    (Conflict, 409, "conflict"),
    (LogError, 503, "log_unavailable"),
    (TopbillError, 500, "internal"),
)
_encode = msgspec.json.Encoder().encode
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
"""What the lake's readers can all hold: an offset may carry a time past the last year that they know."""


class DecideBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several decisions, all stored together or none."""

    decisions: Annotated[list[DecideRequest], msgspec.Meta(min_length=1, max_length=LARGEST_BATCH)]


class DecideBatchAnswer(msgspec.Struct, frozen=True):
    """The answers, in the order of the requests."""

    decisions: list[Answer]


Value = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
"""Far from where sums of values and of their squares would overflow."""


class RewardRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A reward event of a decision, or of one item of its slate. `at` is when it happened (RFC 3339), if not now."""

    decision_id: Id
    event: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    value: Value = 1.0
    action: Id | None = None
    position: Annotated[int, msgspec.Meta(ge=0, le=10_000)] | None = None
    event_id: Id | None = None
    at: datetime | None = None


class RewardBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several reward events, all stored together or none."""

    rewards: Annotated[list[RewardRequest], msgspec.Meta(min_length=1, max_length=LARGEST_BATCH)]


RewardStatus = Literal["stored", "duplicate", "unknown_decision"]


class RewardAnswer(msgspec.Struct, frozen=True, gc=False):
    """What became of an event: `stored`, a `duplicate` of one stored before, of an `unknown_decision` (not stored)."""

    status: RewardStatus
    decision_id: str
    event_id: str | None


class RewardBatchAnswer(msgspec.Struct, frozen=True):
    """What became of each event, in the order in which they were sent."""

    results: list[RewardAnswer]


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with a request: a stable code, the path of the culprit, and a sentence."""

    code: str
    message: str
    path: str | None = None


class ProblemAnswer(msgspec.Struct, frozen=True):
    """The body of every answer that isn't 2xx."""

    error: Problem


def problem(code: str, message: str, path: str | None = None) -> bytes:
    """The body of a refusal."""
    return _encode(ProblemAnswer(Problem(code, message, path)))


class Hot:
    """The fast path over an engine, a log to read and a writer; every other path goes to `rest`."""

    def __init__(self, rest: App, keys: tuple[bytes, ...] = ()) -> None:
        self._rest = rest
        self._keys = keys
        self.engine: Engine
        self.log: SqliteLog
        self.writer: GroupWriter
        self.pages: Desk
        self.spread: Callable[[RewardEvent], list[RewardEvent]] = lambda event: [event]
        self._slates: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._routes: dict[str, tuple[msgspec.json.Decoder[Any], Callable[[Any], Awaitable[Any]]]] = {
            "/v1/decide": (msgspec.json.Decoder(DecideRequest), self.decide),
            "/v1/decide/batch": (msgspec.json.Decoder(DecideBatch), self.decide_batch),
            "/v1/reward": (msgspec.json.Decoder(RewardRequest), self.reward),
            "/v1/reward/batch": (msgspec.json.Decoder(RewardBatch), self.reward_batch),
        }

    def add(self, path: str, request: type, handler: Callable[[Any], Awaitable[Any]]) -> None:
        """Answer POSTs to `path`, decoded into a struct, by what `handler` returns."""
        self._routes[path] = (msgspec.json.Decoder(request), handler)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._rest(scope, receive, send)
        path = scope["path"]
        if self._keys and path not in auth.OPEN_PATHS and not auth.allowed(scope["headers"], self._keys):
            body = problem("unauthorized", "no valid key; send Authorization: Bearer KEY")
            return await _respond(send, 401, body, (b"www-authenticate", b"Bearer"))
        route = self._routes.get(path)
        if route is None:
            return await self._rest(scope, receive, send)
        if scope["method"] != "POST":
            body = problem("method_not_allowed", f"{scope['method']} {path}; expected POST")
            return await _respond(send, 405, body, (b"allow", b"POST"))
        raw = await read_body(receive)
        if raw is None:
            meters.REFUSED.labels("413").inc()
            body = problem("too_large", f"body over {LARGEST_BODY:,} bytes; send less at once")
            return await _respond(send, 413, body)
        start = time.perf_counter()
        status, answer = await self._handle(route, raw)
        await _respond(send, status, answer)
        meters.seconds(path).observe(time.perf_counter() - start)
        return None

    async def _handle(
        self, route: tuple[msgspec.json.Decoder[Any], Callable[[Any], Awaitable[Any]]], raw: bytes
    ) -> tuple[int, bytes]:
        decoder, handler = route
        try:
            return 200, _encode(await handler(decoder.decode(raw)))
        except msgspec.ValidationError as error:
            wrong = at_path(error)
            status, answer = 422, problem("invalid", wrong.message, wrong.path)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            status, answer = _malformed(raw, error)
        except TopbillError as error:
            status, code = next((s, c) for kind, s, c in _STATUS if isinstance(error, kind))
            message, path = (error.message, error.path) if isinstance(error, BadRequest) else (str(error), None)
            answer = problem(code, message, path)
        meters.REFUSED.labels(str(status)).inc()
        return status, answer

    # ------------------------------------------------------------------ decide

    async def decide(self, request: DecideRequest) -> Answer:
        """One decision, durable; the stored one where its id was used before with the same request."""
        decision = self._decide(request)
        keyed = frozenset((decision.decision_id,)) if request.decision_id else _NO_KEYS
        receipt = await self.writer.put(Entry((decision,), keyed_decisions=keyed))
        return self._settle(decision, receipt)

    async def decide_batch(self, batch: DecideBatch) -> DecideBatchAnswer:
        """Decisions, durable together; a request that can't be decided refuses the whole batch."""
        decisions, keyed = [], set()
        for index, request in enumerate(batch.decisions):
            try:
                if request.decision_id in keyed:
                    raise BadRequest("$.decision_id", f"{request.decision_id!r} is there twice; expected each id once")
                decisions.append(self._decide(request))
            except BadRequest as error:
                raise BadRequest(f"$.decisions[{index}]{error.path.removeprefix('$')}", error.message) from error
            if request.decision_id:
                keyed.add(request.decision_id)
        receipt = await self.writer.put(Entry(decisions, keyed_decisions=frozenset(keyed)))
        return DecideBatchAnswer([self._settle(decision, receipt) for decision in decisions])

    def _decide(self, request: DecideRequest) -> Decision:
        """Decided now; or as stored, so that a retry is not decided by a newer policy."""
        if request.decision_id is not None:
            held = self.log.decision(request.decision_id)
            if held is not None:
                if held.request_hash != request.fingerprint:
                    raise _reused(request.decision_id)
                return held
        return self.engine.decide(request)

    def _settle(self, decision: Decision, receipt: Receipt) -> Answer:
        if receipt.conflict is not None:
            raise _reused(receipt.conflict)
        held = receipt.stored.get(decision.decision_id)
        if held is None:
            self._remember(decision.decision_id, tuple(p.action for p in decision.slate))
            meters.decided(decision.experiment, decision.variant, decision.reason).inc()
            return self.engine.answer(decision)
        live = self.engine.live.get(held.experiment)
        if held.actions == NULL and (live is None or live.revision != held.revision):
            return self.engine.answer(held, self._old_payloads(held))
        return self.engine.answer(held)

    def _old_payloads(self, decision: Decision) -> dict[str, msgspec.Raw]:
        for revision in self.log.revisions(decision.experiment):
            if revision.revision == decision.revision:
                return payloads_of(json.loads(revision.spec)["actions"])
        return {}

    # ------------------------------------------------------------------ reward

    async def reward(self, request: RewardRequest) -> RewardAnswer:
        """One reward event, durable where it was stored."""
        return (await self._store([request], lambda _: "$"))[0]

    async def reward_batch(self, batch: RewardBatch) -> RewardBatchAnswer:
        """Reward events, durable together; one of the wrong form refuses the whole batch."""
        return RewardBatchAnswer(await self._store(batch.rewards, lambda index: f"$.rewards[{index}]"))

    async def _store(self, requests: list[RewardRequest], path: Callable[[int], str]) -> list[RewardAnswer]:
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
                answers.append(RewardAnswer("unknown_decision", request.decision_id, request.event_id))
            else:
                old = [next(duplicate) for _ in some]
                status: RewardStatus = "duplicate" if old[0] else "stored"
                answers.append(RewardAnswer(status, event.decision_id, event.event_id))
            meters.REWARDS.labels(answers[-1].status).inc()
        return answers

    def _event(self, request: RewardRequest, path: Callable[[int], str], index: int) -> RewardEvent | None:
        slate = self._slate(request.decision_id)
        if slate is None:
            return None
        action, position = request.action, request.position
        if action is not None and action not in slate:
            raise BadRequest(f"{path(index)}.action", f"{action!r} was not shown; expected one of {', '.join(slate)}")
        if position is not None and position >= len(slate):
            raise BadRequest(f"{path(index)}.position", f"{position}; expected 0 to {len(slate) - 1}")
        if action is not None and position is not None and slate[position] != action:
            raise BadRequest(f"{path(index)}.position", f"{position} showed {slate[position]!r}, not {action!r}")
        if action is not None:
            position = slate.index(action)
        elif position is not None:
            action = slate[position]
        at = request.at
        if at is not None:
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            if not _FIRST <= at <= _LAST:
                raise BadRequest(f"{path(index)}.at", f"{at.isoformat()}; expected a time from 1970 to 9999, UTC")
        return RewardEvent(
            decision_id=request.decision_id,
            event_id=request.event_id or new_id(),
            event=request.event,
            value=request.value,
            action=action,
            position=position,
            occurred_at=None if at is None else int(at.timestamp() * 1e6),
        )

    def _slate(self, decision_id: str) -> tuple[str, ...] | None:
        slate = self._slates.get(decision_id)
        if slate is None:
            decision = self.log.decision(decision_id)
            if decision is not None:
                slate = tuple(p.action for p in decision.slate)
                self._remember(decision_id, slate)
        return slate

    def _remember(self, decision_id: str, slate: tuple[str, ...]) -> None:
        self._slates[decision_id] = slate
        if len(self._slates) > _REMEMBERED:
            self._slates.popitem(last=False)


_NO_KEYS: frozenset[str] = frozenset()


def _reused(decision_id: str) -> Conflict:
    return Conflict(f"decision_id {decision_id!r} was used before with another request; use a new id")


def _malformed(raw: bytes, error: Exception) -> tuple[int, bytes]:
    """400, or 422 where only NaN or an infinity keeps the body from being JSON."""
    found: list[str] = []
    try:
        json.loads(raw, parse_constant=found.append)
    except (ValueError, RecursionError):
        found.clear()
    if found:
        return 422, problem("invalid", f"{found[0]} is no JSON number; expected a finite number", "$")
    return 400, problem("malformed", f"{error}; expected a JSON object")


async def read_body(receive: Receive) -> bytes | None:
    """The whole body; None where it is over the limit."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        if len(body) > LARGEST_BODY:
            return None
        message = await receive()
        body += message.get("body", b"")
    return None if len(body) > LARGEST_BODY else body


async def _respond(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
    await send({"type": "http.response.body", "body": body})
