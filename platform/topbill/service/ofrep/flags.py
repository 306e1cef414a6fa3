"""Experiments evaluated as flags: one at a time, which is a decision like any other, or all for a
page that may show some of them later.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from topbill.domain.errors import BadRequest, TopbillError
from topbill.domain.records import NULL, Decision, Reason
from topbill.engine import Answer, AnswerItem, Asked, CompiledExperiment, DecideRequest, Engine
from topbill.log import Entry
from topbill.service.backend import Backend
from topbill.service.deferred import StoredEvent, row_of
from topbill.service.ofrep.bodies import (
    BulkEvaluation,
    Context,
    EvaluationFailure,
    EvaluationRequest,
    FlagEvaluation,
    FlagReason,
    Metadata,
    SlateItem,
)
from topbill.service.ofrep.context import TARGETING_KEY, declared, targeting_key
from topbill.service.ofrep.refusals import NoTargetingKey, refusal
from topbill.service.turns import Turn

_TARGETED = frozenset({"excluded_unit", "excluded_context", "not_in_audience", "override"})
"""Reasons of decisions that were made for what the viewer is."""
request_body = msgspec.json.Decoder(EvaluationRequest)
encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_encode_in_order = msgspec.json.Encoder(order="deterministic").encode


class FlagDoor:
    """One flag, over an engine: a decision like any other, which counts from now on.

    Raises NotFound for a flag that is not there, BadRequest for a context that it cannot read.
    """

    def __init__(self, engine: Engine, key: str) -> None:
        self._engine, self._key = engine, key

    def read(self, said: Any, raw: bytes) -> Asked:
        """The request for a decision in the body of one for an evaluation."""
        context = request_body.decode(raw).context
        compiled, values = self._engine.find(self._key), said["context"]
        request = _request(compiled, context, targeting_key(values))
        return request, declared(values, compiled)

    def write(self, answer: Answer) -> bytes:
        """The flag's value."""
        # Its file may have gone meanwhile; the decision stands.
        compiled = self._engine.experiments.get(self._key)
        is_running = compiled is not None and compiled.experiment.status == "running"
        metadata: Metadata = {"decisionId": answer.decision_id}
        return encode(_evaluation(self._key, is_running, answer, metadata))

    def refuse(self, error: TopbillError | msgspec.ValidationError) -> tuple[int, bytes]:
        """Status and body for an error."""
        status, body = refusal(error, self._key)
        return status, encode(body)


class Flags:
    """Evaluates all flags over a backend. Raises BadRequest for a context that it cannot read."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def all(self, context: Context) -> BulkEvaluation:
        """The values of all flags that can be had for a context. What is decided here counts from
        its first reward on: of most flags nothing will be shown.
        """
        unit = targeting_key({n: _decode(v) for n, v in context.items() if n == TARGETING_KEY})
        stored = None if unit is None else self._backend.unit_ids.stored(unit)
        flags: list[FlagEvaluation | EvaluationFailure] = []
        rows: list[Decision] = []
        turn = Turn()
        for compiled in self._flags():
            await turn.end_if_long()
            key = compiled.experiment.key
            try:
                decision = self._backend.engine.decide(_request(compiled, context, stored))
            except NoTargetingKey as error:
                flags.append(EvaluationFailure(key, "TARGETING_KEY_MISSING", str(error)))
                continue
            except BadRequest as error:
                flags.append(EvaluationFailure(key, "INVALID_CONTEXT", str(error)))
                continue
            metadata: Metadata = {}
            # One that is not running has nothing to find out.
            if compiled.experiment.status == "running":
                metadata["decisionId"] = decision.decision_id
                event = StoredEvent({"": decision}, active=False, shown_by_reward=True)
                rows.append(row_of(decision.decision_id, event, decision.unit))
            answer = self._backend.engine.answer(decision)
            is_running = compiled.experiment.status == "running"
            flags.append(_evaluation(key, is_running, answer, metadata))
        if rows:
            await self._backend.writer.put(Entry(rows))
        return BulkEvaluation(flags)

    def etag(self, context: Context) -> bytes:
        """What changes when the values for a context may: the context, or an experiment's file or
        launch. What policies learn meanwhile does not change what a viewer sees of a page.
        """
        said = {name: _decode(value) for name, value in context.items()}
        files = [(one.experiment.key, one.revision) for one in self._flags()]
        digest = blake2b(_encode_in_order([said, files]), digest_size=16).hexdigest()
        return f'"{digest}"'.encode()

    def _flags(self) -> list[CompiledExperiment]:
        """The experiments that have actions of their own: others are told them by each request."""
        experiments = self._backend.engine.experiments.values()
        return [compiled for compiled in experiments if compiled.experiment.actions]


def _request(compiled: CompiledExperiment, context: Context, unit: str | None) -> DecideRequest:
    experiment = compiled.experiment
    if unit is None and experiment.unit is not None:
        raise NoTargetingKey(
            f"$.context.{TARGETING_KEY}",
            f"nothing; {experiment.key} is decided by {experiment.unit}: expected its id",
        )
    text = msgspec.Raw(encode(declared(context, compiled)))
    return DecideRequest(experiment.key, unit=unit, context=text)


def _evaluation(key: str, is_running: bool, answer: Answer, metadata: Metadata) -> FlagEvaluation:
    has_value = is_running or answer.reason == "override"
    metadata |= {
        "propensity": answer.propensity,
        "policy": answer.policy,
        "policyVersion": answer.policy_version,
        "reason": answer.reason,
    }
    if answer.variant is not None:
        metadata["experimentVariant"] = answer.variant
    return FlagEvaluation(
        key=key,
        reason=_reason(answer.reason) if has_value else "DISABLED",
        value=_value(answer.slate),
        variant=",".join([item.action for item in answer.slate]),
        metadata=metadata,
    )


def _reason(reason: Reason) -> FlagReason:
    """OpenFeature's word for the reason of a decision."""
    if reason == "fallback":
        return "UNKNOWN"
    if reason == "no_exploration":
        return "STATIC"
    return "TARGETING_MATCH" if reason in _TARGETED else "SPLIT"


def _value(slate: tuple[AnswerItem, ...]) -> Any:
    if len(slate) == 1:
        payload = slate[0].payload
        return slate[0].action if payload == NULL else payload
    items = [SlateItem(one.action, None if one.payload == NULL else one.payload) for one in slate]
    return {"slate": items}
