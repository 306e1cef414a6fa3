"""An experiment compiled for deciding, with its policies of one version."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec
import numpy as np

from topbill.domain.chance import throws, uniform
from topbill.domain.errors import BadRequest, PolicyError
from topbill.domain.features import Encoder, Feature
from topbill.domain.json_text import at_path
from topbill.domain.patience import Patience
from topbill.domain.records import (
    NULL,
    Actions,
    Decision,
    EntityUse,
    Indices,
    Policy,
    Reason,
    Snapshot,
)
from topbill.domain.slate import LARGEST_MATRIX, Allowed, Slate, in_order
from topbill.engine.api import MOST_ACTIONS, OfferedAction
from topbill.engine.forced import FORCED_VARIANTS
from topbill.engine.lookup import NOTHING, EntityLookup, Tables
from topbill.entities import NO_TABLES, EntityStore
from topbill.policies import FOREIGN, AbsentPolicy
from topbill.spec import LEARNS_NOTHING, WITHOUT_FEATURES, Experiment, Variant
from topbill.spec.own_models import build_variant

Admitted: TypeAlias = tuple[Variant | None, Reason]
"""The variant that decides, and why; None where no variant does."""
offers = msgspec.json.Decoder(
    Annotated[list[OfferedAction], msgspec.Meta(min_length=1, max_length=MOST_ACTIONS)], strict=True
)


class _LoggedAction(msgspec.Struct):
    """An action that a logged decision brought along: of a foreign log any text is an id."""

    id: str
    features: dict[str, Any] = {}


_logged = msgspec.json.Decoder(list[_LoggedAction])


def build_policies(experiment: Experiment) -> dict[str, Policy]:
    """Each variant's policy as it is before it has learned anything: version 0. One whose package
    or model is not here, as of a file of before, is an AbsentPolicy.
    """
    policies: dict[str, Policy] = {}
    for variant in experiment.variants:
        try:
            policies[variant.name] = build_variant(variant, experiment)
        except PolicyError as error:
            policies[variant.name] = AbsentPolicy(error)
    return policies


class Shadow(NamedTuple):
    """A variant that decides unseen, and the patience with its policy as such."""

    variant: Variant
    patience: Patience


def shadowed(experiment: Experiment) -> tuple[Variant, ...]:
    """The variants that decide unseen: those that a launch brings, if it has a `shadow` and has not
    begun its first step.
    """
    launch = experiment.launch
    if launch is None or not launch.shadow or experiment.status != "running":
        return ()
    return experiment.launched


class CompiledExperiment:
    """An experiment compiled for deciding: encoders, encoded actions, assignment bounds, policies
    of one version.

    Attributes:
        revision: Fingerprint of the file; decisions carry it.
        actions: The experiment's own actions, encoded: one object for the life of the revision, so
            that policies can keep what they derive from it. What tables give to them is 0 here.
        lookup: Looks features up by id, for calls and for decisions of the log.
        leaves_out: Whether the file leaves units out for what they are.
        rows: The rows of all of them.
        variants: By name.
        payloads: JSON text of each action's payload, by id.
        bounds: Running sums of the variants' shares.
        events: The names of the reward events that some metric reads.
        unit_events: The names of the events of units that some metric reads.
        foreign: The variants that models decide for which Topbill did not make.
        version: Of the policies; 0 before anything was learned.
        failures: Each variant's last failure, as text.
        patience: With each variant's policy, where it is slow.
        shadows: Those that decide beside what is shown, unseen; none but in a launch before its
            first step.
        shadow_failures: The last failure of each of them, as text.
        former: What ran before and goes on beside its launch, which decides for whoever the launch
            has not come to; None where there is none.
        former_reads_alike: Whether the former takes what is encoded for this one as it is.
        is_plain: Whether its decisions may be drawn together: nothing is looked up, nobody decides
            beside its policies, and all of these draw slates of several decisions at once.
    """

    def __init__(
        self,
        experiment: Experiment,
        tables: EntityStore = NO_TABLES,
        beside: Experiment | None = None,
    ) -> None:
        """`beside`: the experiment beside whose launch this one goes on. Callers send what that one
        declares, and what it alone declares is ignored here.
        """
        self.experiment = experiment
        self.revision = experiment.fingerprint
        self.encoder = experiment.context_encoder
        others_actions: frozenset[str] = frozenset()
        if beside is not None:
            others = _others(experiment.context, beside.context)
            self.encoder = Encoder(experiment.in_learning_order.context, others)
            others_actions = _others(experiment.action_features, beside.action_features)
        self.action_encoder = experiment.action_encoder
        self.actions = experiment.encoded_actions
        self.lookup = EntityLookup(experiment, tables, others_actions)
        self.leaves_out = bool(experiment.exclude or experiment.audience)
        self.rows: Indices = np.arange(len(self.actions))
        self.payloads: dict[str, msgspec.Raw] = {}
        for action in experiment.actions:
            self.payloads[action.id] = msgspec.Raw(msgspec.json.encode(action.payload))
        self.variants = {variant.name: variant for variant in experiment.variants}
        self._overrides: dict[str, Variant] = {}
        for override in experiment.overrides:
            self._overrides |= dict.fromkeys(override.units, self.variants[override.variant])
        self.bounds = list(accumulate(variant.share for variant in experiment.variants))
        self.events = frozenset(metric.event for metric in experiment.metrics)
        self.unit_events = frozenset(
            metric.event for metric in experiment.unit_metrics if metric.table is None
        )
        self.version = 0
        self.policies = build_policies(experiment)
        self.foreign = frozenset(
            name for name, policy in self.policies.items() if isinstance(policy, FOREIGN)
        )
        self.failures: dict[str, str] = {}
        self.patience = {variant.name: Patience() for variant in experiment.variants}
        # Patience of their own: one that is slow unseen must not rest where it is asked for.
        self.shadows = [Shadow(variant, Patience()) for variant in shadowed(experiment)]
        self.shadow_failures: dict[str, str] = {}
        self.former: CompiledExperiment | None = None
        self.former_reads_alike = False
        if experiment.former is not None:
            self.former = CompiledExperiment(experiment.former, tables, experiment)
            self.former_reads_alike = _form(experiment) == _form(experiment.former)
        alone = self.former or self.shadows or self.lookup.looks_up
        self.is_plain = not alone and all(
            hasattr(policy, "slates") for policy in self.policies.values()
        )
        self._place_of = throws("variant", experiment.key)
        # Where the control has each action; actions that it doesn't name come after all of those.
        self._control_rank: dict[str, int] = {}
        for rank, action_id in enumerate(getattr(experiment.control.params, "order", [])):
            self._control_rank[action_id] = rank

    def takes(self, name: str) -> bool:
        """Whether calls may send a feature of that name as part of the context."""
        return self.encoder.takes(name) and name not in self.experiment.looked_up

    def adopt(self, snapshot: Snapshot) -> bool:
        """Serve from `snapshot` from now on; False when it belongs to other features, metrics or
        policies.
        """
        if snapshot.fingerprint != self.experiment.learning_fingerprint:
            return False
        if snapshot.states.keys() != self.policies.keys():
            return False
        # Loaded into new objects, and swapped in one statement: a decision under way in another
        # thread goes on with the policies that it began with.
        policies = build_policies(self.experiment)
        for name, policy in policies.items():
            policy.load(snapshot.states[name])
        self.policies, self.version = policies, snapshot.version
        return True

    def take_over(self, before: CompiledExperiment) -> None:
        """Go on from what an earlier revision of the experiment has learned, where both learn the
        same: so no decision falls between a change of the file and the next look at the log.
        """
        self._take_over(before)
        if self.former is not None:
            for earlier in (before, before.former):
                if earlier is not None and earlier.revision == self.former.revision:
                    self.former._take_over(earlier)

    def _take_over(self, before: CompiledExperiment) -> None:
        own, other = self.experiment, before.experiment
        if own.learning_fingerprint != other.learning_fingerprint:
            return
        for variant in own.variants:
            if variant.policy not in (*LEARNS_NOTHING, *WITHOUT_FEATURES):
                self.policies[variant.name] = before.policies[variant.name]
        self.version = before.version

    def former_of(self, unit: str, context: msgspec.Raw) -> CompiledExperiment | None:
        """What decides for a unit in place of this one: the former, where the launch has not come
        to the unit; None where this one does."""
        if self.former is None or self.admit(unit, context)[0] is not None:
            return None
        return self.former

    def of_revision(self, revision: str) -> CompiledExperiment:
        """The former where the revision is its, or else this one."""
        former = self.former
        return former if former is not None and former.revision == revision else self

    def admit(self, unit: str, context: msgspec.Raw) -> Admitted:
        """The variant that decides for the unit, and why: its own (`policy`), one that the file or
        the request gives it for a look (`override`), or none, where units like it take no part.
        """
        experiment = self.experiment
        forced = self._forced(unit)
        if forced is not None and experiment.status != "stopped":
            return forced, "override"
        if self.leaves_out and experiment.status == "running":
            sent = msgspec.json.decode(context)
            reason = experiment.exclude.reason(unit, sent) or experiment.audience.reason(sent)
            if reason is not None:
                return None, reason
        return self.assign(unit)

    def _forced(self, unit: str) -> Variant | None:
        """The variant that the request asks to see, or that the file lets the unit see."""
        name = FORCED_VARIANTS.get().get(self.experiment.key)
        return self._overrides.get(unit) if name is None else self.variants.get(name)

    def assign(self, unit: str) -> tuple[Variant | None, Reason]:
        """The unit's variant: the same for the same unit as long as layer, traffic and shares stay
        as they are, and nobody has won.
        """
        experiment = self.experiment
        # One with a `launch` has not begun it: an order that gives a step of it takes it out.
        is_waiting = experiment.launch is not None and experiment.conclusion is None
        if experiment.status != "running" or is_waiting:
            return None, "not_in_experiment"
        # Three throws under three names, so that they are independent: who is held out of a layer
        # says nothing about which experiment or variant the others get.
        if experiment.holdout and uniform("holdout", experiment.layer, unit) < experiment.holdout:
            return None, "holdout"
        if experiment.conclusion is not None:
            # Whoever is not held out: also those that were outside its traffic while it was a test.
            winner = experiment.winner
            return winner, "not_in_experiment" if winner is None else "policy"
        if experiment.traffic < 1.0 or experiment.layer_start:
            # Experiments of one layer take stretches of the same throw that don't overlap.
            place = uniform("layer", experiment.layer, unit) - experiment.layer_start
            if not 0.0 <= place < experiment.traffic:
                return None, "not_in_experiment"
        if len(self.bounds) == 1:
            return experiment.variants[0], "policy"
        place = self._place_of(unit) * self.bounds[-1]
        # Rounding can make the product equal to the last bound, past which there is no variant.
        index = min(bisect_right(self.bounds, place), len(self.bounds) - 1)
        return experiment.variants[index], "policy"

    def control_order(
        self, actions: Actions, eligible: Indices, slots: int, allowed: Allowed | None = None
    ) -> Slate:
        """The control's own order (or the order given), which needs no policy and has propensity
        1.
        """
        last = len(self._control_rank)
        candidates = eligible.tolist()

        def rank(row: int) -> int:
            return self._control_rank.get(actions.ids[row], last)

        # Sorting is stable: actions that the control doesn't name keep the order they came in.
        order = sorted(candidates, key=rank)
        if allowed is not None:
            return in_order(order, allowed, slots)
        rows = order[:slots]
        matrix = None
        if len(rows) * len(candidates) <= LARGEST_MATRIX:
            matrix = tuple(_certain(row, candidates) for row in rows)
        return Slate(tuple(rows), (1.0,) * len(rows), matrix, 1.0)


def _form(experiment: Experiment) -> tuple[Any, ...]:
    """What the encoding of a request follows from."""
    features = experiment.in_learning_order
    encoded = (features.context, features.action_features, experiment.entities)
    return (*encoded, experiment.actions, experiment.slots)


def _others(own: Sequence[Feature], others: Sequence[Feature]) -> frozenset[str]:
    """The names of features that only others declare, or declare as another kind."""
    kinds = {feature.name: feature.kind for feature in own}
    return frozenset(f.name for f in others if kinds.get(f.name) != f.kind)


def _certain(placed: int, rows: Sequence[int]) -> tuple[float, ...]:
    """Probabilities of `rows` where `placed` is drawn for sure."""
    return tuple([float(row == placed) for row in rows])


def offered(
    compiled: CompiledExperiment, raw: msgspec.Raw, tables: Tables = NOTHING
) -> tuple[Actions, tuple[EntityUse, ...]]:
    """The encoded actions that a request offers, or the experiment's own, with what these tables
    say of them; and what was looked up."""
    return _encoded(compiled, raw, offers, tables)


def logged_actions(compiled: CompiledExperiment, decision: Decision) -> Actions:
    """The encoded actions that a decision of the log brought along, or the experiment's own, with
    what the tables said of them then.

    Raises MissingVersion where a version of a table is gone that the decision names.
    """
    tables = compiled.lookup.of_actions_at(decision.entities)
    return _encoded(compiled, decision.actions, _logged, tables)[0]


def _encoded(
    compiled: CompiledExperiment,
    raw: msgspec.Raw,
    decoder: msgspec.json.Decoder[Any],
    tables: Tables,
) -> tuple[Actions, tuple[EntityUse, ...]]:
    if raw == NULL:
        return compiled.lookup.own_actions(compiled.actions, tables)
    try:
        actions = decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise at_path(error, "$.actions") from error
    encoded = compiled.lookup.sent_actions_encoder.encode_actions(actions)
    if len(set(encoded.ids)) != len(encoded.ids):
        seen: set[str] = set()
        for double in encoded.ids:
            if double in seen:
                break
            seen.add(double)
        raise BadRequest("$.actions", f"id {double!r} is there twice; expected each id once")
    return compiled.lookup.with_features(encoded, tables)


def payloads_of(actions: Sequence[dict[str, Any]]) -> dict[str, msgspec.Raw]:
    """The payloads of the actions in an audited revision's spec."""
    payloads: dict[str, msgspec.Raw] = {}
    for action in actions:
        payload = msgspec.json.encode(action.get("payload"))
        payloads[str(action["id"])] = msgspec.Raw(payload)
    return payloads
