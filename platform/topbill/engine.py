"""The only place that decides: assign → eligible → score → probabilities → draw → the decision to log.

The engine holds no state but compiled experiments and policy snapshots. It neither writes the log nor speaks HTTP:
whoever calls `decide` makes the decision durable before giving it away.
"""

from __future__ import annotations

import logging
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Annotated, Any

import msgspec
import numpy as np

from topbill.chance import hash64, uniform
from topbill.errors import BadRequest, NotFound
from topbill.policies import KINDS
from topbill.records import NULL, Actions, Decision, Floats, Indices, Placement, Policy, Reason, Snapshot
from topbill.slates import LARGEST_MATRIX, Allowed, Slate, in_order, rank
from topbill.spec import Experiment, Variant

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128, description="1 to 128 characters")]
MOST_ACTIONS = 5_000
_logger = logging.getLogger("topbill")
_EMPTY = msgspec.Raw(b"{}")


class OfferedAction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action that the caller offers for this decision in place of the experiment's own."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    features: dict[str, Any] = {}
    payload: msgspec.Raw = msgspec.field(default_factory=lambda: NULL)


class DecideRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What to decide. `context` and `actions` stay JSON text until the experiment's schema reads them."""

    experiment: Id
    unit: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    context: msgspec.Raw = msgspec.field(default_factory=lambda: _EMPTY)
    actions: msgspec.Raw = msgspec.field(default_factory=lambda: NULL)
    exclude: Annotated[list[Id], msgspec.Meta(max_length=MOST_ACTIONS)] = []
    slots: Annotated[int, msgspec.Meta(ge=1, le=200)] | None = None
    decision_id: Id | None = None

    @property
    def fingerprint(self) -> str:
        """A digest of the request's content, equal for bodies that differ only in the order of keys or in spaces."""
        parts = {name: getattr(self, name) for name in self.__struct_fields__}
        for name in ("context", "actions"):
            parts[name] = _decode(parts[name], f"$.{name}")
        return blake2b(msgspec.json.encode(parts, order="deterministic"), digest_size=12).hexdigest()


class AnswerItem(msgspec.Struct, frozen=True, gc=False):
    """One item of an answered slate."""

    position: int
    action: str
    payload: msgspec.Raw
    propensity: float


class Question(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request as it is decided: encoded. `rules` makes the rules for one attempt at the slate; without them all of
    `eligible` may stand anywhere. `page`, `layer` and `place` are of a page's decisions."""

    decision_id: str
    unit: str
    x: Floats
    actions: Actions
    eligible: Indices
    slots: int
    context: msgspec.Raw
    offered: msgspec.Raw
    start: float
    request_hash: str = ""
    rules: Callable[[], Allowed] | None = None
    page: str = ""
    layer: str = ""
    place: str = ""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a caller gets for a decision."""

    decision_id: str
    variant: str | None
    slate: tuple[AnswerItem, ...]
    propensity: float
    policy: str
    policy_version: int
    reason: Reason


_offers = msgspec.json.Decoder(
    Annotated[list[OfferedAction], msgspec.Meta(min_length=1, max_length=MOST_ACTIONS)], strict=True
)


_digits: list[str] = []
os.register_at_fork(after_in_child=_digits.clear)


def new_id() -> str:
    """A fresh decision id, 32 hex digits: milliseconds first, so that indexes grow at their end, then chance.

    The kernel is asked for chance by the thousand: asking it gives the interpreter lock away.
    """
    if not _digits:
        chance = os.urandom(10_000).hex()
        _digits.extend(chance[start : start + 20] for start in range(0, len(chance), 20))
    return f"{time.time_ns() // 1_000_000:012x}{_digits.pop()}"


def build_policies(experiment: Experiment) -> dict[str, Policy]:
    """Each variant's policy as it is before it has learned anything: version 0."""
    return {
        variant.name: KINDS[variant.policy](
            variant.params,
            context_size=experiment.context_encoder.size,
            action_size=experiment.action_encoder.size,
            seed=hash64(experiment.key, variant.name),
        )
        for variant in experiment.variants
    }


class Live:
    """An experiment compiled for deciding: encoders, encoded actions, assignment bounds, policies of one version."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.revision = experiment.fingerprint
        self.encoder = experiment.context_encoder
        self.action_encoder = experiment.action_encoder
        self.actions = experiment.encoded_actions
        self.rows: Indices = np.arange(len(self.actions))
        self.payloads = {a.id: msgspec.Raw(msgspec.json.encode(a.payload)) for a in experiment.actions}
        self.bounds = list(accumulate(v.share for v in experiment.variants))
        self.version = 0
        self.policies = build_policies(experiment)
        order = getattr(experiment.control.params, "order", [])
        self._place = {action: i for i, action in enumerate(order)}
        self.failures: dict[str, str] = {}

    def adopt(self, snapshot: Snapshot) -> bool:
        """Serve from `snapshot` from now on; False when it belongs to other features, metrics or policies."""
        if snapshot.fingerprint != self.experiment.learning_fingerprint or set(snapshot.states) != set(self.policies):
            return False
        policies = build_policies(self.experiment)
        for name, policy in policies.items():
            policy.load(snapshot.states[name])
        self.policies, self.version = policies, snapshot.version
        return True

    def assign(self, unit: str) -> tuple[Variant | None, Reason]:
        """The unit's variant: the same for the same unit as long as layer, traffic and shares stay as they are."""
        experiment = self.experiment
        if experiment.status != "running":
            return None, "not_in_experiment"
        if experiment.holdout and uniform("holdout", experiment.layer, unit) < experiment.holdout:
            return None, "holdout"
        if experiment.traffic < 1.0 or experiment.layer_start:
            spot = uniform("layer", experiment.layer, unit) - experiment.layer_start
            if not 0.0 <= spot < experiment.traffic:
                return None, "not_in_experiment"
        spot = uniform("variant", experiment.key, unit) * self.bounds[-1]
        return experiment.variants[min(bisect_right(self.bounds, spot), len(self.bounds) - 1)], "policy"

    def control_order(self, actions: Actions, eligible: Indices, slots: int, allowed: Allowed | None = None) -> Slate:
        """The control's own order (or the order given), which needs no policy and has propensity 1."""
        last = len(self._place)
        order = sorted(eligible.tolist(), key=lambda row: self._place.get(actions.ids[row], last))
        if allowed is not None:
            return in_order(order, allowed, slots)
        rows = order[:slots]
        matrix = None
        if len(rows) * len(eligible) <= LARGEST_MATRIX:
            spots = eligible.tolist()
            matrix = tuple(tuple(float(row == placed) for row in spots) for placed in rows)
        return Slate(tuple(rows), (1.0,) * len(rows), matrix, 1.0)


class Engine:
    """Decides for a set of experiments. Reloading and adopting snapshots swap whole objects, so that a decision
    under way sees one consistent state. `clock` gives seconds for the time budget."""

    def __init__(self, experiments: Iterable[Experiment], clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.live: dict[str, Live] = {}
        self.reload(experiments)

    def reload(self, experiments: Iterable[Experiment]) -> None:
        """Take over changed experiments; those whose file did not change keep their policies."""
        fresh: dict[str, Live] = {}
        for experiment in experiments:
            held = self.live.get(experiment.key)
            same = held is not None and held.experiment == experiment
            fresh[experiment.key] = held if held is not None and same else Live(experiment)
        self.live = fresh

    def find(self, key: str) -> Live:
        """The compiled experiment. Raises NotFound with the keys that there are."""
        live = self.live.get(key)
        if live is None:
            raise NotFound(f"experiment {key!r} is not there; expected one of {', '.join(self.live) or '(none)'}")
        return live

    def decide(self, request: DecideRequest) -> Decision:
        """The decision for a request, not yet logged. Raises NotFound and BadRequest for what the caller got wrong;
        a policy that fails or overruns its budget is answered with the control's order, flagged `fallback`."""
        start = self._clock()
        live = self.find(request.experiment)
        x = live.encoder.encode(_decode(request.context, "$.context"))
        actions, eligible = _candidates(live, request)
        decision_id = request.decision_id or new_id()
        return self.choose(
            live,
            Question(
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

    def choose(self, live: Live, asked: Question, deadline: float | None = None) -> Decision:
        """The decision for an encoded question, not yet logged. Past `deadline` (seconds of the engine's clock) no
        policy is asked: the control's order steps in as it does for one that fails."""
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
                Placement(k, ids[row], p) for k, (row, p) in enumerate(zip(slate.rows, slate.propensities, strict=True))
            ),
            propensity=slate.propensity,
            probabilities=slate.probabilities,
            policy=policy,
            policy_version=live.version,
            reason=reason,
            request_hash=asked.request_hash,
            micros=int((self._clock() - asked.start) * 1e6),
            page=asked.page,
            layer=asked.layer,
            place=asked.place,
            masks=() if allowed is None else allowed.masks,
        )

    def now(self) -> float:
        """Seconds of the engine's clock, for `Question.start` and deadlines."""
        return self._clock()

    def answer(self, decision: Decision, payloads: dict[str, msgspec.Raw] | None = None) -> Answer:
        """What the caller gets for a decision. `payloads` are those of an earlier revision, where it is one."""
        if payloads is None:
            if decision.actions == NULL:
                payloads = self.find(decision.experiment).payloads
            else:
                payloads = {a.id: a.payload for a in _offers.decode(decision.actions)}
        placed = decision.slate
        return Answer(
            decision.decision_id,
            decision.variant,
            tuple(AnswerItem(p.position, p.action, payloads.get(p.action, NULL), p.propensity) for p in placed),
            decision.propensity,
            decision.policy,
            decision.policy_version,
            decision.reason,
        )

    def explain(self, decision: Decision, snapshot: Snapshot | None) -> dict[str, Any] | None:
        """Scores, widths and each feature's contribution as the policy saw them, from the very version that decided.

        None where they can't be had again: no policy decided, the experiment's revision has changed since, or the
        snapshot of that version is gone.
        """
        live = self.live.get(decision.experiment)
        if live is None or decision.variant is None or live.revision != decision.revision:
            return None
        seen = Live(live.experiment)
        if decision.policy_version and (snapshot is None or not seen.adopt(snapshot)):
            return None
        policy = seen.policies[decision.variant]
        x = seen.encoder.encode(_decode(decision.context, "$.context"))
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


def offered(live: Live, raw: msgspec.Raw) -> Actions:
    """The encoded actions that a request offers, or the experiment's own."""
    if raw == NULL:
        return live.actions
    try:
        actions = _offers.decode(raw)
    except msgspec.ValidationError as error:
        raise at_path(error, "$.actions") from error
    encoded = live.action_encoder.encode_actions(actions)
    if len(set(encoded.ids)) != len(encoded.ids):
        twice = next(i for i in encoded.ids if encoded.ids.count(i) > 1)
        raise BadRequest("$.actions", f"id {twice!r} is there twice; expected each id once")
    return encoded


def at_path(error: msgspec.ValidationError, root: str = "$") -> BadRequest:
    """msgspec's message as a BadRequest: the message and the path of the culprit, below `root`."""
    message, _, path = str(error).partition(" - at `")
    return BadRequest(root + path.rstrip("`").removeprefix("$"), message)


def _candidates(live: Live, request: DecideRequest) -> tuple[Actions, Indices]:
    actions = offered(live, request.actions)
    if request.actions == NULL and not request.exclude:
        return actions, live.rows
    excluded = set(request.exclude)
    eligible = np.array([i for i, action in enumerate(actions.ids) if action not in excluded], dtype=np.intp)
    if not eligible.size:
        raise BadRequest("$.exclude", f"leaves none of the {len(actions)} actions; expected at least one to remain")
    return actions, eligible


def _rank(live: Live, variant: Variant, asked: Question, allowed: Allowed | None) -> Slate | None:
    """The policy's slate, or None when the policy fails: in whatever way it does, a viewer still gets a page."""
    decision_id = asked.decision_id
    try:
        scored = live.policies[variant.name].score(asked.x, asked.actions, hash64(decision_id))
        draws = lambda k: uniform("draw", decision_id, str(k))  # noqa: E731
        return rank(scored, asked.eligible, asked.slots, variant.floor, draws, allowed)
    except Exception as error:
        if live.failures.get(variant.name) != repr(error):
            live.failures[variant.name] = repr(error)
            where = f"{live.experiment.key}: policy of variant {variant.name} v{live.version}"
            _logger.exception("%s failed; its viewers get the control's order", where)
        return None


def _decode(raw: msgspec.Raw, path: str) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise BadRequest(path, f"{error}; expected JSON") from error


def payloads_of(actions: Sequence[dict[str, Any]]) -> dict[str, msgspec.Raw]:
    """The payloads of the actions in an audited revision's spec."""
    return {str(a["id"]): msgspec.Raw(msgspec.json.encode(a.get("payload"))) for a in actions}
