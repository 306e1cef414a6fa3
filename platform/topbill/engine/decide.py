"""From a request to the decision to log.

The engine holds no state but compiled experiments and policy snapshots. It neither writes the log
nor speaks HTTP: whoever calls `decide` makes the decision durable before giving it away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np

from topbill.domain.chance import hash64, uniforms
from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.records import NULL, Actions, Decision, Indices, Placement, Snapshot
from topbill.domain.slate import Allowed, Slate, rank
from topbill.engine.api import (
    Answer,
    AnswerItem,
    DecideRequest,
    DecisionInput,
    decode,
    decode_context,
    new_id,
)
from topbill.engine.compiled import CompiledExperiment, offered, offers
from topbill.spec import Experiment, Variant

_logger = logging.getLogger("topbill")


class Engine:
    """Decides for a set of experiments. Reloading and adopting snapshots swap whole objects, so
    that a decision under way sees one consistent state. `clock` gives seconds for the time
    budget."""

    def __init__(
        self, experiments: Iterable[Experiment], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock = clock
        self.experiments: dict[str, CompiledExperiment] = {}
        self.reload(experiments)

    def reload(self, experiments: Iterable[Experiment]) -> None:
        """Take over changed experiments; those whose file did not change keep their policies."""
        fresh: dict[str, CompiledExperiment] = {}
        for experiment in experiments:
            held = self.experiments.get(experiment.key)
            same = held is not None and held.experiment == experiment
            fresh[experiment.key] = (
                held if held is not None and same else CompiledExperiment(experiment)
            )
        self.experiments = fresh

    def find(self, key: str) -> CompiledExperiment:
        """The compiled experiment. Raises NotFound with the keys that there are."""
        live = self.experiments.get(key)
        if live is None:
            raise NotFound(
                f"experiment {key!r} is not there; expected one of {', '.join(self.experiments) or '(none)'}"
            )
        return live

    def decide(self, request: DecideRequest) -> Decision:
        """The decision for a request, not yet logged. Raises NotFound and BadRequest for what the
        caller got wrong; a policy that fails or overruns its budget is answered with the control's
        order, flagged `fallback`."""
        start = self._clock()
        live = self.find(request.experiment)
        x = live.encoder.encode(decode_context(request.context))
        actions, eligible = _candidates(live, request)
        decision_id = request.decision_id or new_id()
        return self.choose(
            live,
            DecisionInput(
                decision_id=decision_id,
                unit=request.unit or decision_id,
                x=x,
                actions=actions,
                eligible=eligible,
                slots=request.slots or live.experiment.slots,
                context=request.context,
                offered=request.actions,
                request_hash=request.fingerprint if request.decision_id else "",
                start=start,
            ),
        )

    def choose(
        self, live: CompiledExperiment, asked: DecisionInput, deadline: float | None = None
    ) -> Decision:
        """The decision for an encoded question, not yet logged. Past `deadline` (seconds of the
        engine's clock) no policy is asked: the control's order steps in as it does for one that
        fails."""
        experiment = live.experiment
        actions, eligible, rules = asked.actions, asked.eligible, asked.rules
        variant, reason = live.assign(asked.unit)
        slate, policy = None, "fixed"
        allowed = None if rules is None else rules()
        if variant is not None:
            policy = variant.policy
            if deadline is None or self._clock() < deadline:
                slate = _rank(live, variant, asked, allowed)
            if slate is None or self._clock() - asked.start > experiment.budget_ms / 1e3:
                slate, reason = None, "fallback"
                allowed = None if rules is None else rules()
        if slate is None:
            slate = live.control_order(actions, eligible, asked.slots, allowed)
        ids = actions.ids
        return Decision(
            decision_id=asked.decision_id,
            experiment=experiment.key,
            revision=live.revision,
            variant=None if variant is None else variant.name,
            unit=asked.unit,
            context=asked.context,
            actions=asked.offered,
            eligible=ids if len(eligible) == len(ids) else tuple(ids[row] for row in eligible),
            slate=tuple(
                Placement(k, ids[row], p)
                for k, (row, p) in enumerate(zip(slate.rows, slate.propensities, strict=True))
            ),
            propensity=slate.propensity,
            probabilities=slate.probabilities,
            policy=policy,
            policy_version=live.version,
            reason=reason,
            request_hash=asked.request_hash,
            latency_us=int((self._clock() - asked.start) * 1e6),
            page=asked.page,
            layer=asked.layer,
            place=asked.place,
            masks=() if allowed is None else allowed.masks,
        )

    def now(self) -> float:
        """Seconds of the engine's clock, for `DecisionInput.start` and deadlines."""
        return self._clock()

    def answer(self, decision: Decision, payloads: dict[str, msgspec.Raw] | None = None) -> Answer:
        """What the caller gets for a decision. `payloads` are those of an earlier revision, where
        it is one.
        """
        if payloads is None:
            if decision.actions == NULL:
                payloads = self.find(decision.experiment).payloads
            else:
                payloads = {a.id: a.payload for a in offers.decode(decision.actions)}
        placed = decision.slate
        return Answer(
            decision.decision_id,
            decision.variant,
            tuple(
                AnswerItem(p.position, p.action, payloads.get(p.action, NULL), p.propensity)
                for p in placed
            ),
            decision.propensity,
            decision.policy,
            decision.policy_version,
            decision.reason,
        )

    def explain(self, decision: Decision, snapshot: Snapshot | None) -> dict[str, Any] | None:
        """Scores, widths and each feature's contribution as the policy saw them, from the very
        version that decided.

        None where they can't be had again: no policy decided, the experiment's revision has changed
        since, or the snapshot of that version is gone.
        """
        live = self.experiments.get(decision.experiment)
        if live is None or decision.variant is None or live.revision != decision.revision:
            return None
        seen = CompiledExperiment(live.experiment)
        if decision.policy_version and (snapshot is None or not seen.adopt(snapshot)):
            return None
        policy = seen.policies[decision.variant]
        x = seen.encoder.encode(decode(decision.context, "$.context"))
        actions = offered(seen, decision.actions)
        rows = [actions.ids.index(action) for action in decision.eligible]
        actions = actions.take(rows)
        scored = policy.score(x, actions, hash64(decision.decision_id))
        why = policy.explain(x, actions, (seen.encoder.names, seen.action_encoder.names))
        mean = [None] * len(rows) if scored.mean is None else [float(v) for v in scored.mean]
        width = [None] * len(rows) if scored.width is None else [float(v) for v in scored.width]
        return {
            action: {"score": mean[i], "width": width[i], "contributions": why[i]}
            for i, action in enumerate(decision.eligible)
        }


def _candidates(live: CompiledExperiment, request: DecideRequest) -> tuple[Actions, Indices]:
    actions = offered(live, request.actions)
    if request.actions == NULL and not request.exclude:
        return actions, live.rows
    excluded = set(request.exclude)
    eligible = np.array(
        [i for i, action in enumerate(actions.ids) if action not in excluded], dtype=np.intp
    )
    if not eligible.size:
        raise BadRequest(
            "$.exclude",
            f"leaves none of the {len(actions)} actions; expected at least one to remain",
        )
    return actions, eligible


def _rank(
    live: CompiledExperiment, variant: Variant, asked: DecisionInput, allowed: Allowed | None
) -> Slate | None:
    """The policy's slate, or None when the policy fails: in whatever way it does, a viewer still
    gets a page.
    """
    decision_id = asked.decision_id
    try:
        scored = live.policies[variant.name].score(asked.x, asked.actions, hash64(decision_id))
        return rank(
            scored,
            asked.eligible,
            asked.slots,
            variant.min_probability,
            uniforms("draw", decision_id),
            allowed,
        )
    except Exception as error:
        if live.failures.get(variant.name) != repr(error):
            live.failures[variant.name] = repr(error)
            where = f"{live.experiment.key}: policy of variant {variant.name} v{live.version}"
            _logger.exception("%s failed; its viewers get the control's order", where)
        return None
