"""From a request to the decision to log.

The engine holds no state but compiled experiments and policy snapshots. It neither writes the log
nor speaks HTTP: whoever calls `decide` makes the decision durable before giving it away.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias, cast

import msgspec
import numpy as np

from topbill.domain.chance import draws_of, seed_of, uniforms
from topbill.domain.entity import EntitySource
from topbill.domain.errors import (
    BadRequest,
    NotFound,
    OverBudget,
    PolicyError,
    TopbillError,
)
from topbill.domain.records import (
    NULL,
    Actions,
    Decision,
    EntityUse,
    Floats,
    Indices,
    Mask,
    Placement,
    Policy,
    Reason,
    Scored,
    ShadowDecision,
    Snapshot,
)
from topbill.domain.slate import (
    Allowed,
    AllowedAhead,
    Best,
    DrawsSlates,
    DrawsTogether,
    DrawsTurns,
    Slate,
    SlateRequest,
    SlatesRequest,
    Stopping,
    TurnsRequest,
    rank,
)
from topbill.engine.api import (
    Answer,
    AnswerItem,
    DecideRequest,
    DecisionInput,
    decode,
    new_id,
)
from topbill.engine.compiled import Admitted, CompiledExperiment, logged_actions, offered, offers
from topbill.engine.shadow import Candidate, Shown, shadow_decisions
from topbill.entities import NO_TABLES, EntityStore, MissingVersion
from topbill.policies import AbsentPolicy
from topbill.spec import Experiment, Variant

_logger = logging.getLogger("topbill")
_encode = msgspec.json.Encoder().encode
_MOST_AT_ONCE = 64
"""Decisions of one compiled call,"""
_MOST_WORK = 4_096
"""and their positions times actions: nobody looks at the clock meanwhile."""


class Turns(NamedTuple):
    """The choices of several decisions whose positions have choices of their own: all `actions`,
    and where those of each position begin, after the last position too.
    """

    actions: Actions
    starts: Sequence[int]


Asked: TypeAlias = tuple[DecideRequest, Any]
"""A request, and what its context says, decoded."""


class Engine:
    """Decides for a set of experiments. Reloading and adopting snapshots swap whole objects, so
    that a decision under way sees one consistent state. `clock` gives seconds for the time
    budget."""

    def __init__(
        self,
        experiments: Iterable[Experiment],
        clock: Callable[[], float] = time.perf_counter,
        tables: EntityStore = NO_TABLES,
    ) -> None:
        self._clock = clock
        self.tables = tables
        self.experiments: dict[str, CompiledExperiment] = {}
        self.reload(experiments)

    def reload(self, experiments: Iterable[Experiment]) -> None:
        """Take over changed experiments; those whose file did not change keep their policies."""
        reloaded: dict[str, CompiledExperiment] = {}
        for experiment in experiments:
            before = self.experiments.get(experiment.key)
            if before is not None and before.experiment == experiment:
                reloaded[experiment.key] = before
                continue
            reloaded[experiment.key] = compiled = CompiledExperiment(experiment, self.tables)
            if before is not None:
                compiled.take_over(before)
            for name, policy in compiled.policies.items():
                if isinstance(policy, AbsentPolicy):
                    compiled.failures[name] = policy.why
                    _logger.warning(
                        "%s: policy of variant %s: %s", experiment.key, name, policy.why
                    )
        self.experiments = reloaded

    def find(self, key: str) -> CompiledExperiment:
        """The compiled experiment. Raises NotFound with the keys that there are."""
        compiled = self.experiments.get(key)
        if compiled is None:
            keys = ", ".join(self.experiments) or "(none)"
            raise NotFound(f"experiment {key!r} is not there; expected one of {keys}")
        return compiled

    def now(self) -> float:
        """Seconds of the engine's clock, for `DecisionInput.start` and deadlines."""
        return self._clock()

    def warm_up(self) -> None:
        """Have each variant draw once, for nobody. What is loaded and compiled for a first decision
        is so before a viewer waits for it, or gets the control's order for want of time."""
        for compiled in self._deciding():
            inputs = _nobodys(compiled)
            for variant in compiled.experiment.variants:
                # Models of others were tried when the file was read.
                if variant.name not in compiled.foreign:
                    _rank(compiled, variant, inputs, None, lambda: False)

    def _deciding(self) -> Iterator[CompiledExperiment]:
        """All that may decide: each former before the experiment that it goes on beside."""
        for compiled in self.experiments.values():
            if compiled.former is not None:
                yield compiled.former
            yield compiled

    def follow_tables(self) -> bool:
        """Take over tables of features that have changed; whether any has."""
        tables: dict[tuple[str, str], EntitySource] = {}
        for compiled in self._deciding():
            experiment = compiled.experiment
            for source in experiment.entities:
                tables[experiment.source or experiment.key, source.name] = source
        return self.tables.follow(tables)

    # ------------------------------------------------------------------ deciding

    def decide(self, request: DecideRequest) -> Decision:
        """The decision for a request, not yet logged. Raises NotFound and BadRequest for what the
        caller got wrong; a policy that fails or overruns its budget is answered with the control's
        order, flagged `fallback`."""
        start = self._clock()
        compiled = self.find(request.experiment)
        decision_id = request.decision_id or new_id()
        inputs = _inputs(compiled, request, decision_id, start)
        former = compiled.former_of(inputs.unit, inputs.context)
        if former is None:
            return self.choose(compiled, inputs)
        candidate = Candidate(compiled, inputs)
        if not compiled.former_reads_alike:
            try:
                inputs = _inputs(former, request, decision_id, start)
            except BadRequest:
                # Callers send what today's file asks for: they are not to blame.
                return self.choose(compiled, inputs)
        return self.choose(former, inputs, candidate=candidate)

    def choose(
        self,
        compiled: CompiledExperiment,
        inputs: DecisionInput,
        deadline: float | None = None,
        candidate: Candidate | None = None,
        admitted: Admitted | None = None,
    ) -> Decision:
        """The decision for an encoded request, not yet logged. Past `deadline` (seconds of the
        engine's clock) no policy is asked: the control's order steps in as it does for one that
        fails. `candidate`: the launch whose variants decide unseen beside it, where they are not
        those of `compiled`. `admitted`: what `compiled.admit` says, where that is known."""
        variant, reason = admitted or compiled.admit(inputs.unit, inputs.context)
        if reason == "policy" and not inputs.explore:
            reason = "no_exploration"
        # What was not left to the policy and to chance is nobody's result: it is in no variant.
        judged = variant if reason == "policy" else None
        allowed = inputs.new_attempt()
        slate = None
        if variant is not None:
            slate = self._by_policy(compiled, variant, inputs, allowed, deadline)
            if slate is None:
                reason = "fallback"
                # Rules remember what was placed, and an attempt that failed may have placed
                # something: the control begins with fresh ones.
                allowed = inputs.new_attempt()
        if slate is None:
            slate = compiled.control_order(inputs.actions, inputs.eligible, inputs.slots, allowed)
        masks = () if allowed is None else allowed.masks
        latency_us = int((self._clock() - inputs.start) * 1e6)
        shadows: tuple[ShadowDecision, ...] = ()
        shadowing = compiled if candidate is None else candidate.compiled
        if shadowing.shadows:
            # Last, when nothing of the decision can change any more.
            read = inputs if candidate is None else candidate.inputs
            shown = Shown.of(inputs, slate.rows, masks, read)
            shadows = shadow_decisions(shadowing, shown, self._clock, deadline)
        name = "fixed" if variant is None else variant.policy
        return _record(compiled, inputs, judged, name, reason, slate, latency_us, masks, shadows)

    def choose_turns(
        self,
        compiled: CompiledExperiment,
        choices: Sequence[DecisionInput],
        turns: Turns,
        deadline: float,
        admitted: Admitted,
    ) -> list[Decision] | None:
        """What `choose` says of each of several decisions for one unit in one context, drawn in one
        call; None where they have to be chosen one after the other. The time of each begins and
        ends with that of all.
        """
        variant, reason = admitted
        first = choices[0]
        if variant is None or compiled.shadows or not first.explore:
            return None
        asked = self._clock()
        if asked >= deadline or not compiled.patience[variant.name].may_ask(asked):
            return None
        slates = _turns(compiled, variant, choices, turns)
        if slates is None:
            return None
        now = self._clock()
        if now > first.start + compiled.experiment.budget_ms / 1e3:
            # What took too long is thrown away, and no policy is asked again.
            return [self.choose(compiled, each, -math.inf, admitted=admitted) for each in choices]
        latency_us = int((now - first.start) * 1e6)
        judged = variant if reason == "policy" else None
        decisions = []
        for inputs, slate in zip(choices, slates, strict=True):
            rules = cast("AllowedAhead", inputs.new_attempt())
            rules.note(slate.rows)
            decisions.append(
                _record(
                    compiled, inputs, judged, variant.policy, reason, slate, latency_us, rules.masks
                )
            )
        return decisions

    def decide_each(self, asked: Sequence[Asked]) -> list[Decision | TopbillError]:
        """What `decide` says of each request, or why it cannot be decided. Those of one variant are
        drawn in one call where that is so for everything that is said of them: then the time of
        each begins and ends with that of all.
        """
        start = self._clock()
        decided: list[Decision | TopbillError | None] = [None] * len(asked)
        together: dict[tuple[str, str, int], list[_Waiting]] = {}
        for at, (request, context) in enumerate(asked):
            try:
                compiled = self.find(request.experiment)
                if not (compiled.is_plain and _is_plain(request)):
                    decided[at] = self.decide(request)
                    continue
                decision_id = request.decision_id or new_id()
                unit = request.unit or decision_id
                row = compiled.encoder.row(context)
                admitted = compiled.admit(unit, request.context)
            except TopbillError as error:
                decided[at] = error
                continue
            variant, _ = admitted
            # Only a caller's id can come again, and then has to be of the same request.
            digest = request.fingerprint_with(context) if request.decision_id else ""
            one = _Waiting(at, request, decision_id, digest, row, admitted)
            key = compiled.experiment.key, "" if variant is None else variant.name
            together.setdefault((*key, request.slots or 0), []).append(one)
        for waiting in together.values():
            compiled = self.find(waiting[0].request.experiment)
            most = _most_at_once(compiled, waiting[0].request)
            for first in range(0, len(waiting), most):
                some = waiting[first : first + most]
                for one, decision in zip(some, self._drawn(compiled, some, start), strict=True):
                    decided[one.at] = decision
        return [one for one in decided if one is not None]

    def _drawn(
        self, compiled: CompiledExperiment, waiting: Sequence[_Waiting], start: float
    ) -> Iterator[Decision]:
        """The decisions of one variant that asked for as many slots."""
        variant, _ = waiting[0].admitted
        xs = np.array([one.row for one in waiting], dtype=np.float64)
        xs = xs.reshape(len(waiting), compiled.encoder.size)
        slots = waiting[0].request.slots or compiled.experiment.slots
        slates, late = None, False
        if variant is not None:
            ids = [one.decision_id for one in waiting]
            least = variant.min_probability
            slates = _slates(compiled, variant, xs, SlatesRequest(ids, compiled.rows, slots, least))
            late = self._clock() > start + compiled.experiment.budget_ms / 1e3
        if variant is None or slates is None or late:
            for one, x in zip(waiting, xs, strict=True):
                # What is decided by itself has its own time.
                begun = start if late else self._clock()
                inputs = _plain_inputs(compiled, one, x, slots, begun)
                yield self.choose(compiled, inputs, start if late else None, admitted=one.admitted)
            return
        latency_us = int((self._clock() - start) * 1e6)
        for one, x, slate in zip(waiting, xs, slates, strict=True):
            reason = one.admitted[1]
            judged = variant if reason == "policy" else None
            inputs = _plain_inputs(compiled, one, x, slots, start)
            yield _record(compiled, inputs, judged, variant.policy, reason, slate, latency_us)

    def _by_policy(
        self,
        compiled: CompiledExperiment,
        variant: Variant,
        inputs: DecisionInput,
        allowed: Allowed | None,
        deadline: float | None,
    ) -> Slate | None:
        """The policy's slate; None where it failed or came too late."""
        asked = self._clock()
        if deadline is not None and asked >= deadline:
            return None
        if not compiled.patience[variant.name].may_ask(asked):
            return None
        end = inputs.start + compiled.experiment.budget_ms / 1e3

        def late() -> bool:
            return self._clock() > end

        slate = _rank(compiled, variant, inputs, allowed, late)
        # A slate that took too long is thrown away though it is there: were it used, the slow
        # moments of a policy would go unnoticed, in latency and in what is logged.
        if variant.name in compiled.foreign:
            self._note_time(compiled, variant, asked)
        return None if late() else slate

    def _note_time(self, compiled: CompiledExperiment, variant: Variant, asked: float) -> None:
        """How long a model that is not ours took, since it was `asked`."""
        budget, now = compiled.experiment.budget_ms, self._clock()
        if compiled.patience[variant.name].in_time(asked, now, budget):
            return
        message = f"took longer than budget_ms: {budget:g}"
        if compiled.failures.get(variant.name) != message:
            compiled.failures[variant.name] = message
            where = f"{compiled.experiment.key}: policy of variant {variant.name}"
            _logger.warning("%s %s; its viewers get the control's order", where, message)

    # ------------------------------------------------------------------ answering

    def answer(self, decision: Decision, payloads: dict[str, msgspec.Raw] | None = None) -> Answer:
        """What the caller gets for a decision. `payloads` are those of an earlier revision, where
        it is one.
        """
        if payloads is None:
            payloads = self._payloads(decision)
        items = []
        for placement in decision.slate:
            payload = payloads.get(placement.action, NULL)
            items.append(
                AnswerItem(placement.position, placement.action, payload, placement.propensity)
            )
        return Answer(
            decision.decision_id,
            decision.variant,
            tuple(items),
            decision.propensity,
            decision.policy,
            decision.policy_version,
            decision.reason,
        )

    def _payloads(self, decision: Decision) -> dict[str, msgspec.Raw]:
        if decision.actions == NULL:
            return self.find(decision.experiment).of_revision(decision.revision).payloads
        return {action.id: action.payload for action in offers.decode(decision.actions)}

    def explain(self, decision: Decision, snapshot: Snapshot | None) -> dict[str, Any] | None:
        """Scores, widths and each feature's contribution as the policy saw them, from the very
        version that decided.

        None where they can't be had again: no policy decided, the experiment's revision has changed
        since, or the snapshot of that version is gone.
        """
        live = self.experiments.get(decision.experiment)
        if live is None or decision.variant is None:
            return None
        current = live.of_revision(decision.revision)
        if current.revision != decision.revision:
            return None
        # Compiled anew, for the version that decides now must go on deciding.
        beside = None if current is live else live.experiment
        compiled = CompiledExperiment(current.experiment, self.tables, beside)
        if decision.policy_version and not _adopts(compiled, snapshot):
            return None
        try:
            return _explain(compiled, compiled.policies[decision.variant], decision)
        except (MissingVersion, PolicyError):
            return None  # what it knew, or its model, is not here any more


class _Waiting(NamedTuple):
    """A request that is decided with others: where it stands among these, its id, the digest of its
    content where the id is its caller's, its context as numbers, and which variant decides, and
    why.
    """

    at: int
    request: DecideRequest
    decision_id: str
    request_hash: str
    row: list[float]
    admitted: Admitted


def _plain_inputs(
    compiled: CompiledExperiment, one: _Waiting, x: Floats, slots: int, start: float
) -> DecisionInput:
    """A request that `_is_plain`, read."""
    request = one.request
    return DecisionInput(
        decision_id=one.decision_id,
        unit=request.unit or one.decision_id,
        x=x,
        actions=compiled.actions,
        eligible=compiled.rows,
        slots=slots,
        context=request.context,
        offered=request.actions,
        request_hash=one.request_hash,
        start=start,
    )


def _most_at_once(compiled: CompiledExperiment, request: DecideRequest) -> int:
    """How many decisions with as many slots as that one may be drawn together."""
    slots = min(request.slots or compiled.experiment.slots, len(compiled.rows))
    work = max(1, slots * len(compiled.rows))
    return max(1, min(_MOST_AT_ONCE, _MOST_WORK // work))


def _is_plain(request: DecideRequest) -> bool:
    """Whether it is about the experiment's own actions, all of them, and left to chance."""
    return request.actions == NULL and not request.exclude and request.explore


def _slates(
    compiled: CompiledExperiment, variant: Variant, xs: Floats, request: SlatesRequest
) -> Sequence[Slate] | None:
    """What the variant's policy draws; None where it has to be asked for one decision after the
    other, which also tells what is wrong with it.
    """
    try:
        policy = compiled.policies[variant.name]
        if not hasattr(policy, "slates"):
            return None
        return cast("DrawsTogether", policy).slates(xs, compiled.actions, request)
    except Exception:
        return None


def _turns(
    compiled: CompiledExperiment, variant: Variant, choices: Sequence[DecisionInput], turns: Turns
) -> Sequence[Slate] | None:
    """The same of decisions whose positions have choices of their own."""
    policy = compiled.policies[variant.name]
    if not hasattr(policy, "turns") or variant.name in compiled.foreign:
        return None
    request = TurnsRequest(
        [inputs.decision_id for inputs in choices],
        list(accumulate([inputs.slots for inputs in choices])),
        np.array(turns.starts, dtype=np.intp),
        variant.min_probability,
    )
    try:
        return cast("DrawsTurns", policy).turns(choices[0].x, turns.actions, request)
    except Exception:
        return None


def _record(
    compiled: CompiledExperiment,
    inputs: DecisionInput,
    judged: Variant | None,
    policy: str,
    reason: Reason,
    slate: Slate,
    latency_us: int,
    masks: tuple[Mask, ...] = (),
    shadows: tuple[ShadowDecision, ...] = (),
) -> Decision:
    """The decision to log. `judged`: the variant whose result it is, if it is any's."""
    ids = inputs.actions.ids
    return Decision(
        decision_id=inputs.decision_id,
        experiment=compiled.experiment.key,
        revision=compiled.revision,
        variant=None if judged is None else judged.name,
        unit=inputs.unit,
        context=inputs.context,
        actions=inputs.offered,
        eligible=_ids_at(ids, inputs.eligible),
        slate=_placements(ids, slate),
        propensity=slate.propensity,
        probabilities=slate.probabilities,
        policy=policy,
        policy_version=compiled.version,
        reason=reason,
        request_hash=inputs.request_hash,
        latency_us=latency_us,
        page=inputs.page,
        layer=inputs.layer,
        place=inputs.place,
        masks=masks,
        entities=inputs.entities,
        stops=slate.stops,
        shadows=shadows,
        terms=slate.terms,
    )


def _inputs(
    compiled: CompiledExperiment, request: DecideRequest, decision_id: str, start: float
) -> DecisionInput:
    """A request as an experiment reads it. Raises BadRequest for what it cannot read."""
    context, text = decode(request.context, "$.context"), request.context
    uses: tuple[EntityUse, ...] = ()
    if compiled.lookup.has_context:
        context, uses = compiled.lookup.context(context, request.unit)
        text = msgspec.Raw(_encode(context))
    x = compiled.encoder.encode(context)
    actions, eligible, of_actions = _candidates(compiled, request)
    return DecisionInput(
        decision_id=decision_id,
        # Without a unit every decision is its own: nobody is promised the same variant.
        unit=request.unit or decision_id,
        x=x,
        actions=actions,
        eligible=eligible,
        slots=request.slots or compiled.experiment.slots,
        context=text,
        offered=request.actions,
        # Only a caller's id can come again, and then has to be of the same request.
        request_hash=request.fingerprint if request.decision_id else "",
        start=start,
        entities=uses + of_actions,
        explore=request.explore,
    )


def _nobodys(compiled: CompiledExperiment) -> DecisionInput:
    """A decision between two actions of which nothing is known, in a context of which nothing is
    known."""
    return DecisionInput(
        decision_id="warm-up",
        unit="warm-up",
        x=np.zeros(compiled.encoder.size),
        actions=Actions(("a", "b"), np.zeros((2, compiled.action_encoder.size))),
        eligible=np.arange(2),
        slots=1,
        context=NULL,
        offered=NULL,
        start=0.0,
    )


def _adopts(compiled: CompiledExperiment, snapshot: Snapshot | None) -> bool:
    try:
        return snapshot is not None and compiled.adopt(snapshot)
    except PolicyError:
        return False  # it can't be read any more


def _explain(
    compiled: CompiledExperiment, policy: Policy, decision: Decision
) -> dict[str, dict[str, Any]]:
    """What the policy makes of a decision's actions, by action."""
    x = compiled.encoder.encode(decode(decision.context, "$.context"))
    actions = logged_actions(compiled, decision)
    actions = actions.take([actions.ids.index(action) for action in decision.eligible])
    # The same seed as when it was decided: a policy that samples gives the same sample.
    scored = policy.score(x, actions, seed_of(decision.decision_id))
    names = (compiled.encoder.names, compiled.action_encoder.names)
    contributions = policy.explain(x, actions, names)
    explanations: dict[str, dict[str, Any]] = {}
    for row, action in enumerate(decision.eligible):
        explanations[action] = {
            "score": _value(scored.mean, row),
            "width": _value(scored.width, row),
            "contributions": contributions[row],
        }
    return explanations


def _stopping(policy: Policy, scored: Scored, inputs: DecisionInput) -> Stopping | None:
    """What ends the slate before its last position; None where its length is fixed, and where the
    policy can't tell what one more is worth: such a slate is as long as it may be.
    """
    # First of all, for most slates have no length to decide, and means take a while to compute.
    if inputs.length is None:
        return None
    places, mean = getattr(policy, "places", None), scored.mean
    if places is None or mean is None:
        return None
    draws = uniforms("stop", inputs.decision_id)
    return Stopping(inputs.length, mean, places.worth, draws, explore=inputs.explore)


def _value(values: Floats | None, row: int) -> float | None:
    return None if values is None else float(values[row])


def _ids_at(ids: tuple[str, ...], rows: Indices) -> tuple[str, ...]:
    """The ids of some rows; the same object where it is all of them, as it nearly always is."""
    if len(rows) == len(ids):
        return ids
    return tuple([ids[row] for row in rows])


def _placements(ids: tuple[str, ...], slate: Slate) -> tuple[Placement, ...]:
    # Most slates are of one position.
    if len(slate.rows) == 1:
        return (Placement(0, ids[slate.rows[0]], slate.propensities[0]),)
    shown = [ids[row] for row in slate.rows]
    return tuple(map(Placement, range(len(shown)), shown, slate.propensities))


def _candidates(
    compiled: CompiledExperiment, request: DecideRequest
) -> tuple[Actions, Indices, tuple[EntityUse, ...]]:
    """The actions of a request, the rows of those that it does not exclude, and what was looked up
    of them."""
    actions, uses = offered(compiled, request.actions, compiled.lookup.of_actions())
    if request.actions == NULL and not request.exclude:
        return actions, compiled.rows, uses
    excluded = set(request.exclude)
    rows = [row for row, action in enumerate(actions.ids) if action not in excluded]
    if not rows:
        raise BadRequest(
            "$.exclude",
            f"leaves none of the {len(actions)} actions; expected at least one to remain",
        )
    return actions, np.array(rows, dtype=np.intp), uses


def _is_drawn_at_once(policy: Policy, inputs: DecisionInput, allowed: Allowed | None) -> bool:
    """Whether the policy may be asked for the whole slate: nothing has to be looked at from
    position to position.
    """
    if not inputs.explore or inputs.length is not None or inputs.terms is not None:
        return False
    return hasattr(policy, "slate") and (allowed is None or hasattr(allowed, "ahead"))


def _rank(
    compiled: CompiledExperiment,
    variant: Variant,
    inputs: DecisionInput,
    allowed: Allowed | None,
    late: Callable[[], bool],
) -> Slate | None:
    """The policy's slate, or None when the policy fails or is late: in whatever way it does, a
    viewer still gets a page.
    """
    decision_id = inputs.decision_id
    try:
        # Chance follows from the decision's id: whoever has id, version and inputs can draw again,
        # and gets the same slate with the same propensities.
        policy = compiled.policies[variant.name]
        if _is_drawn_at_once(policy, inputs, allowed):
            rules = None if allowed is None else cast("AllowedAhead", allowed)
            request = SlateRequest(
                decision_id,
                inputs.eligible,
                inputs.slots,
                variant.min_probability,
                late,
                None if rules is None else rules.ahead(),
            )
            drawing = cast("DrawsSlates", policy)
            slate = drawing.slate(inputs.x, inputs.actions, request)
            if slate is not None:
                if rules is not None:
                    rules.note(slate.rows)
                return slate
        scored = policy.score(inputs.x, inputs.actions, seed_of(decision_id))
        return rank(
            scored if inputs.explore else Best(scored),
            inputs.eligible,
            inputs.slots,
            variant.min_probability if inputs.explore else 0.0,
            draws_of(decision_id),
            allowed,
            late,
            _stopping(policy, scored, inputs),
            None if inputs.terms is None else inputs.terms(),
        )
    except OverBudget:
        return None
    except Exception as error:
        # Logged when it changes: one that fails for every viewer would fill the disk.
        if compiled.failures.get(variant.name) != repr(error):
            compiled.failures[variant.name] = repr(error)
            key, version = compiled.experiment.key, compiled.version
            where = f"{key}: policy of variant {variant.name} v{version}"
            _logger.exception("%s failed; its viewers get the control's order", where)
        return None
