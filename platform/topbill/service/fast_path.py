"""Decide and reward: an ASGI app in front of FastAPI's router, so that a request costs only its own
work.

A body is decoded by msgspec into the structs that also make the OpenAPI entries; an answer goes out
when the writer's commit is durable, and not before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from topbill.domain.errors import BadRequest, Conflict, LogError, NotFound, TopbillError
from topbill.domain.records import NULL, Decision
from topbill.engine import Answer, DecideRequest, Engine, at_path, payloads_of
from topbill.log import Entry, Log, Receipt
from topbill.service import auth, telemetry
from topbill.service.bodies import (
    DecideBatch,
    DecideBatchAnswer,
    RewardBatch,
    RewardRequest,
    problem,
)
from topbill.service.page import PageService
from topbill.service.rewards import Rewards
from topbill.service.writer import GroupWriter

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST_BODY = 1_000_000
LARGEST_BATCH = 1_000
_JSON = (b"content-type", b"application/json")
_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (BadRequest, 422, "invalid"),
    (NotFound, 404, "not_found"),
    (Conflict, 409, "conflict"),
    (LogError, 503, "log_unavailable"),
    (TopbillError, 500, "internal"),
)
_encode = msgspec.json.Encoder().encode


class FastPath:
    """The fast path over an engine, a log to read and a writer; every other path goes to `rest`."""

    def __init__(self, rest: App, keys: tuple[bytes, ...] = ()) -> None:
        self._rest = rest
        self._keys = keys
        self.engine: Engine
        self.log: Log
        self.writer: GroupWriter
        self.pages: PageService
        self.rewards = Rewards()
        self._routes: dict[
            str, tuple[msgspec.json.Decoder[Any], Callable[[Any], Awaitable[Any]]]
        ] = {
            "/v1/decide": (msgspec.json.Decoder(DecideRequest), self.decide),
            "/v1/decide/batch": (msgspec.json.Decoder(DecideBatch), self.decide_batch),
            "/v1/reward": (msgspec.json.Decoder(RewardRequest), self.rewards.one),
            "/v1/reward/batch": (msgspec.json.Decoder(RewardBatch), self.rewards.batch),
        }

    def add(self, path: str, request: type, handler: Callable[[Any], Awaitable[Any]]) -> None:
        """Answer POSTs to `path`, decoded into a struct, by what `handler` returns."""
        self._routes[path] = (msgspec.json.Decoder(request), handler)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._rest(scope, receive, send)
        path = scope["path"]
        if (
            self._keys
            and path not in auth.OPEN_PATHS
            and not auth.allowed(scope["headers"], self._keys)
        ):
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
            telemetry.REFUSED.labels("413").inc()
            body = problem("too_large", f"body over {LARGEST_BODY:,} bytes; send less at once")
            return await _respond(send, 413, body)
        start = time.perf_counter()
        status, answer = await self._handle(route, raw)
        await _respond(send, status, answer)
        telemetry.seconds(path).observe(time.perf_counter() - start)
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
            message, path = (
                (error.message, error.path) if isinstance(error, BadRequest) else (str(error), None)
            )
            answer = problem(code, message, path)
        telemetry.REFUSED.labels(str(status)).inc()
        return status, answer

    # ------------------------------------------------------------------ decide

    async def decide(self, request: DecideRequest) -> Answer:
        """One decision, durable; the stored one where its id was used before with the same
        request.
        """
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
                    raise BadRequest(
                        "$.decision_id",
                        f"{request.decision_id!r} is there twice; expected each id once",
                    )
                decisions.append(self._decide(request))
            except BadRequest as error:
                raise BadRequest(
                    f"$.decisions[{index}]{error.path.removeprefix('$')}", error.message
                ) from error
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
            self.rewards.remember(decision)
            telemetry.decided(decision.experiment, decision.variant, decision.reason).inc()
            return self.engine.answer(decision)
        live = self.engine.experiments.get(held.experiment)
        if held.actions == NULL and (live is None or live.revision != held.revision):
            return self.engine.answer(held, self._old_payloads(held))
        return self.engine.answer(held)

    def _old_payloads(self, decision: Decision) -> dict[str, msgspec.Raw]:
        for revision in self.log.revisions(decision.experiment):
            if revision.revision == decision.revision:
                return payloads_of(json.loads(revision.spec)["actions"])
        return {}


_NO_KEYS: frozenset[str] = frozenset()


def _reused(decision_id: str) -> Conflict:
    return Conflict(
        f"decision_id {decision_id!r} was used before with another request; use a new id"
    )


def _malformed(raw: bytes, error: Exception) -> tuple[int, bytes]:
    """400, or 422 where only NaN or an infinity keeps the body from being JSON."""
    found: list[str] = []
    try:
        json.loads(raw, parse_constant=found.append)
    except (ValueError, RecursionError):
        found.clear()
    if found:
        return 422, problem(
            "invalid", f"{found[0]} is no JSON number; expected a finite number", "$"
        )
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
    await send(
        {"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]}
    )
    await send({"type": "http.response.body", "body": body})
