"""Decisions: made, durable, and answered; alone, several of one request, and those of several
requests side by side."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from topbill.domain.errors import AlreadyDecided, BadRequest, Conflict, TopbillError
from topbill.domain.records import NULL, Decision
from topbill.engine import Answer, Asked, DecideRequest, payloads_of
from topbill.log import Entry, Receipt
from topbill.service import telemetry
from topbill.service.backend import Backend
from topbill.service.bodies import LARGEST_WORK, DecideBatch, DecideBatchAnswer
from topbill.service.rewards import Rewards
from topbill.service.turns import Turn
from topbill.service.writer import Done
from topbill.spec import audited

_NO_KEYS: frozenset[str] = frozenset()


class Decisions:
    """Decides for a backend. `rewards` are told what was shown."""

    def __init__(self, backend: Backend, rewards: Rewards) -> None:
        self._backend = backend
        self._engine = backend.engine
        self._rewards = rewards

    # ------------------------------------------------------------------ one

    async def one(self, request: DecideRequest) -> Answer:
        """One decision, durable; the stored one where its id was used before with the same
        request.
        """
        request = self._with_stored_unit(request)
        decision = await self._made(request)
        receipt = await self._backend.writer.put(_entry(request, decision))
        return await self._settle(decision, receipt)

    def make_each(self, asked: Sequence[Asked]) -> list[Decision | TopbillError]:
        """The decision for each request, not yet durable, or why there is none: for one that names
        its decision `one` may know better, for it looks into the log.
        """
        refused: dict[int, TopbillError] = {}
        known: list[Asked] = []
        for at, (request, context) in enumerate(asked):
            try:
                if request.decision_id is not None:
                    self._backend.refuse_old("decision_id", request.decision_id)
                known.append((self._with_stored_unit(request), context))
            except TopbillError as error:
                refused[at] = error
        decided = iter(self._engine.decide_each(known))
        return [refused.get(at) or next(decided) for at in range(len(asked))]

    def submit(self, request: DecideRequest, decision: Decision, done: Done) -> None:
        """Have `done` called when the decision is durable; then `settled` has the answer. Raises
        LogError where too many wait.
        """
        self._backend.writer.submit(_entry(request, decision), done)

    def settled(self, decision: Decision, receipt: Receipt) -> Answer | None:
        """The answer for a decision that is durable now, by this request or by an earlier one; None
        where `late_answer` has to look for what it showed then.

        Of several requests with one id the first to be committed is stored: the log's receipt has
        the last word, and all get the same answer, whichever policy decided for the others.
        """
        if receipt.let_go is not None:
            raise AlreadyDecided.under("decision_id", receipt.let_go)
        if receipt.conflict is not None:
            raise _used_before(receipt.conflict)
        stored = receipt.stored.get(decision.decision_id)
        if stored is None:
            self._rewards.remember(decision)
            telemetry.count_decision(decision)
            return self._engine.answer(decision)
        experiment = self._engine.experiments.get(stored.experiment)
        changed = experiment is None or experiment.revision != stored.revision
        # Offered actions carry their payloads; the experiment's own are those of its revision then.
        if changed and stored.actions == NULL:
            return None
        return self._engine.answer(stored)

    async def late_answer(self, stored: Decision) -> Answer:
        """The answer for a decision of an earlier revision of its experiment."""
        return self._engine.answer(stored, await self._payloads_then(stored))

    # ------------------------------------------------------------------ several of one request

    async def batch(self, batch: DecideBatch) -> DecideBatchAnswer:
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
                decisions.append(await self._made(self._with_stored_unit(request)))
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

    # ------------------------------------------------------------------ parts

    def _with_stored_unit(self, request: DecideRequest) -> DecideRequest:
        """The request with its unit as it is stored: nothing behind this knows another id."""
        if request.unit is None or not self._backend.unit_ids.hashed:
            return request
        return msgspec.structs.replace(request, unit=self._backend.unit_ids.stored(request.unit))

    async def _made(self, request: DecideRequest) -> Decision:
        """Decided now. Where its id was used before, the log's receipt has the stored decision, and
        nobody sees this one; so an id is looked up once, by the commit. Here only what cannot be
        decided any more is looked up: it may have been before.
        """
        if request.decision_id is None:
            return self._engine.decide(request)
        try:
            self._backend.refuse_old("decision_id", request.decision_id)
            return self._engine.decide(request)
        except TopbillError:
            found = await self._backend.stored([request.decision_id])
            stored = found.get(request.decision_id)
            if stored is None:
                raise
            if stored.request_hash != request.fingerprint:
                raise _used_before(request.decision_id) from None
            return stored

    async def _settle(self, decision: Decision, receipt: Receipt) -> Answer:
        answer = self.settled(decision, receipt)
        if answer is not None:
            return answer
        return await self.late_answer(receipt.stored[decision.decision_id])

    async def _payloads_then(self, decision: Decision) -> dict[str, msgspec.Raw]:
        audit = await self._backend.read(lambda log: log.revisions(decision.experiment))
        for revision in audit:
            if revision.revision == decision.revision:
                then = audited(revision.spec, f"{decision.experiment} (audit)")
                return payloads_of(then["actions"])
        return {}


def _entry(request: DecideRequest, decision: Decision) -> Entry:
    # An id of our own making is new: only a caller's has to be looked up by the log.
    keyed = frozenset((decision.decision_id,)) if request.decision_id else _NO_KEYS
    return Entry((decision,), keyed_decisions=keyed)


def _used_before(decision_id: str) -> Conflict:
    return Conflict(
        f"decision_id {decision_id!r} was used before with another request; use a new id"
    )
