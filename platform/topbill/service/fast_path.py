"""Decide, reward and event: an ASGI app in front of FastAPI's router, so that a request costs only
its own work.

A body is decoded by msgspec into the structs that also make the OpenAPI entries; an answer goes out
when the writer's commit is durable, and not before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

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
from topbill.domain.records import NULL, Decision
from topbill.engine import Answer, DecideRequest, payloads_of
from topbill.log import Entry, Receipt
from topbill.pages import PageRequest
from topbill.service import telemetry
from topbill.service.admission import Admission
from topbill.service.asgi import (
    LARGEST_BODY,
    App,
    Receive,
    Reply,
    Scope,
    Send,
    read_body,
    send_reply,
)
from topbill.service.backend import Backend
from topbill.service.bodies import (
    LARGEST_WORK,
    DecideBatch,
    DecideBatchAnswer,
    EventBatch,
    EventRequest,
    RewardBatch,
    RewardRequest,
    problem,
)
from topbill.service.events import UnitEvents
from topbill.service.few_a_second import FewASecond
from topbill.service.override_header import OverrideHeaders
from topbill.service.page import PageService
from topbill.service.request_id import identify, with_header
from topbill.service.rewards import Rewards
from topbill.service.turns import Turn, let_others, next_stage
from topbill.spec import audited

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
_NO_KEYS: frozenset[str] = frozenset()
_LONG_BODY = 100_000
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
        events = UnitEvents(backend, pages)
        self._routes: dict[str, _Route] = {
            "/v1/decide": (msgspec.json.Decoder(DecideRequest), self.decide),
            "/v1/decide/batch": (msgspec.json.Decoder(DecideBatch), self.decide_batch),
            "/v1/page": (msgspec.json.Decoder(PageRequest), pages.page),
            "/v1/reward": (msgspec.json.Decoder(RewardRequest), self.rewards.one),
            "/v1/reward/batch": (msgspec.json.Decoder(RewardBatch), self.rewards.batch),
            "/v1/event": (msgspec.json.Decoder(EventRequest), events.one),
            "/v1/event/batch": (msgspec.json.Decoder(EventBatch), events.batch),
        }
        self.paths = frozenset(self._routes)
        """Those that are answered here."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._rest(scope, receive, send)
        request_id = identify(scope["headers"])
        reply = self._refused(scope)
        if reply is None and scope["path"] not in self._routes:
            return await self._rest(scope, receive, with_header(send, request_id))
        if reply is None:
            reply = await self._answered(scope["path"], await read_body(receive))
        return await send_reply(send, reply.with_header(request_id))

    async def reply(self, scope: Scope, raw: bytes) -> Reply:
        """The answer to a request, for one of `paths`, that is here as a whole."""
        request_id = identify(scope["headers"])
        reply = self._refused(scope)
        if reply is None:
            reply = await self._answered(scope["path"], raw)
        return reply.with_header(request_id)

    def _refused(self, scope: Scope) -> Reply | None:
        """Why a request is not let in, before its body is read; None where it is."""
        refusal = self._admission.refusal(scope) or self._overrides.refusal(scope)
        if refusal is not None:
            telemetry.REFUSED.labels(str(refusal.status)).inc()
            return Reply(refusal.status, problem(refusal.code, refusal.message), refusal.headers)
        method, path = scope["method"], scope["path"]
        if method != "POST" and path in self._routes:
            body = problem("method_not_allowed", f"{method} {path}; expected POST")
            return Reply(405, body, ((b"allow", b"POST"),))
        return None

    async def _answered(self, path: str, raw: bytes | None) -> Reply:
        """The answer to a body; None is one over the limit."""
        if raw is None:
            telemetry.REFUSED.labels("413").inc()
            body = problem("too_large", f"body over {LARGEST_BODY:,} bytes; send less at once")
            return Reply(413, body)
        start = time.perf_counter()
        status, answer = await self._handle(self._routes[path], raw)
        seconds = time.perf_counter() - start
        telemetry.observe(telemetry.seconds(path), seconds)
        if status != 200:
            self._note_refusal(path, status, seconds)
        return Reply(status, answer)

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
        except msgspec.ValidationError as error:
            wrong = at_path(error)
            status, answer = 422, problem("invalid", wrong.message, wrong.path)
        except TopbillError as error:
            status, answer = _refusal(error)
        telemetry.REFUSED.labels(str(status)).inc()
        return status, answer

    # ------------------------------------------------------------------ decide

    async def decide(self, request: DecideRequest) -> Answer:
        """One decision, durable; the stored one where its id was used before with the same
        request.
        """
        request = self._with_stored_unit(request)
        await next_stage()
        decision = await self._decide(request)
        # An id of our own making is new: only a caller's has to be looked up by the log.
        keyed = frozenset((decision.decision_id,)) if request.decision_id else _NO_KEYS
        receipt = await self._backend.writer.put(Entry((decision,), keyed_decisions=keyed))
        return await self._settle(decision, receipt)

    async def decide_batch(self, batch: DecideBatch) -> DecideBatchAnswer:
        """Decisions, durable together; a request that can't be decided refuses the whole batch."""
        decisions: list[Decision] = []
        keyed: set[str] = set()
        work = 0
        turn = Turn()
        for index, request in enumerate(batch.decisions):
            await turn.end_if_long()
            try:
                if request.decision_id in keyed:
                    raise BadRequest(
                        "$.decision_id",
                        f"{request.decision_id!r} is there twice; expected each id once",
                    )
                decisions.append(await self._decide(self._with_stored_unit(request)))
                work += len(decisions[-1].eligible) * len(decisions[-1].slate)
                if work > LARGEST_WORK:
                    raise BadRequest(
                        "$",
                        f"actions × slots are {work:,} up to here; expected at most "
                        f"{LARGEST_WORK:,} in a batch: send less at once",
                    )
            except BadRequest as error:
                path = f"$.decisions[{index}]{error.path.removeprefix('$')}"
                raise BadRequest(path, error.message) from error
            if request.decision_id:
                keyed.add(request.decision_id)
        receipt = await self._backend.writer.put(Entry(decisions, keyed_decisions=frozenset(keyed)))
        answers: list[Answer] = []
        for decision in decisions:
            await turn.end_if_long()
            answers.append(await self._settle(decision, receipt))
        return DecideBatchAnswer(answers)

    def _with_stored_unit(self, request: DecideRequest) -> DecideRequest:
        """The request with its unit as it is stored: nothing behind this knows another id."""
        if request.unit is None or not self._backend.unit_ids.hashed:
            return request
        return msgspec.structs.replace(request, unit=self._backend.unit_ids.stored(request.unit))

    async def _decide(self, request: DecideRequest) -> Decision:
        """Decided now. Where its id was used before, the log's receipt has the stored decision, and
        nobody sees this one; so an id is looked up once, by the commit. Here only what cannot be
        decided any more is looked up: it may have been before.
        """
        if request.decision_id is None:
            return self.engine.decide(request)
        try:
            self._backend.refuse_old("decision_id", request.decision_id)
            return self.engine.decide(request)
        except TopbillError:
            found = await self._backend.stored([request.decision_id])
            stored = found.get(request.decision_id)
            if stored is None:
                raise
            if stored.request_hash != request.fingerprint:
                raise _used_before(request.decision_id) from None
            return stored

    async def _settle(self, decision: Decision, receipt: Receipt) -> Answer:
        """The answer for a decision that is durable now, by this request or by an earlier one.

        Of several requests with one id the first to be committed is stored: the log's receipt has
        the last word, and all get the same answer, whichever policy decided for the others.
        """
        if receipt.let_go is not None:
            raise AlreadyDecided.under("decision_id", receipt.let_go)
        if receipt.conflict is not None:
            raise _used_before(receipt.conflict)
        stored = receipt.stored.get(decision.decision_id)
        if stored is None:
            self.rewards.remember(decision)
            telemetry.count_decision(decision)
            return self.engine.answer(decision)
        experiment = self.engine.experiments.get(stored.experiment)
        changed = experiment is None or experiment.revision != stored.revision
        # Offered actions carry their payloads; the experiment's own are those of its revision then.
        if changed and stored.actions == NULL:
            return self.engine.answer(stored, await self._payloads_then(stored))
        return self.engine.answer(stored)

    async def _payloads_then(self, decision: Decision) -> dict[str, msgspec.Raw]:
        audit = await self._backend.read(lambda log: log.revisions(decision.experiment))
        for revision in audit:
            if revision.revision == decision.revision:
                then = audited(revision.spec, f"{decision.experiment} (audit)")
                return payloads_of(then["actions"])
        return {}


def _used_before(decision_id: str) -> Conflict:
    return Conflict(
        f"decision_id {decision_id!r} was used before with another request; use a new id"
    )


def _refusal(error: TopbillError) -> tuple[int, bytes]:
    status, code = next((s, c) for kind, s, c in _STATUS if isinstance(error, kind))
    if isinstance(error, BadRequest):
        return status, problem(code, error.message, error.path)
    return status, problem(code, str(error))
