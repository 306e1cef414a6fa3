"""Experiments evaluated as flags: one at a time, which is a decision like any other, or all for a
page that may show some of them later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any

import msgspec

from topbill.domain.errors import BadRequest
from topbill.domain.records import NULL, Decision, Reason
from topbill.engine import Answer, AnswerItem, CompiledExperiment, DecideRequest
from topbill.log import Entry
from topbill.service.backend import Backend
from topbill.service.deferred import StoredEvent, row_of
from topbill.service.ofrep.bodies import (
    BulkEvaluation,
    Context,
    EvaluationFailure,
    FlagEvaluation,
    FlagReason,
    Metadata,
    SlateItem,
)
from topbill.service.ofrep.context import TARGETING_KEY, declared, targeting_key
from topbill.service.turns import Turn

_TARGETED = frozenset({"excluded_unit", "excluded_context", "not_in_audience", "override"})
"""Reasons of decisions that were made for what the viewer is."""
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="deterministic").encode


class NoTargetingKey(BadRequest):
    """A context that does not say who asks, where an experiment needs to know."""


class Flags:
    """Evaluates flags over a backend; `decide` is what makes one decision durable.

    Raises NotFound for a flag that is not there, BadRequest for a context that it cannot read.
    """

    def __init__(
        self, backend: Backend, decide: Callable[[DecideRequest], Awaitable[Answer]]
    ) -> None:
        self._backend = backend
        self._decide = decide

    async def one(self, key: str, context: Context) -> FlagEvaluation:
        """The flag's value for a context: a decision, which counts from now on."""
        compiled = self._backend.engine.find(key)
        answer = await self._decide(_request(compiled, context, targeting_key(context)))
        return _evaluation(compiled, answer, {"decisionId": answer.decision_id})

    async def all(self, context: Context) -> BulkEvaluation:
        """The values of all flags that can be had for a context. What is decided here counts from
        its first reward on: of most flags nothing will be shown.
        """
        unit = targeting_key(context)
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
            flags.append(_evaluation(compiled, answer, metadata))
        if rows:
            await self._backend.writer.put(Entry(rows))
        return BulkEvaluation(flags)

    def etag(self, context: Context) -> bytes:
        """What changes when the values for a context may: the context, or an experiment's file or
        launch. What policies learn meanwhile does not change what a viewer sees of a page.
        """
        said = {name: _decode(value) for name, value in context.items()}
        files = [(one.experiment.key, one.revision) for one in self._flags()]
        digest = blake2b(_encode([said, files]), digest_size=16).hexdigest()
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
    return DecideRequest(experiment.key, unit=unit, context=declared(context, compiled))


def _evaluation(compiled: CompiledExperiment, answer: Answer, metadata: Metadata) -> FlagEvaluation:
    experiment = compiled.experiment
    is_running = experiment.status == "running" or answer.reason == "override"
    metadata |= {
        "propensity": answer.propensity,
        "policy": answer.policy,
        "policyVersion": answer.policy_version,
        "reason": answer.reason,
    }
    if answer.variant is not None:
        metadata["experimentVariant"] = answer.variant
    return FlagEvaluation(
        key=experiment.key,
        reason=_reason(answer.reason) if is_running else "DISABLED",
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
