"""An experiment compiled for deciding, with its policies of one version."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Any

import msgspec
import numpy as np

from topbill.domain.chance import hash64, uniform
from topbill.domain.errors import BadRequest
from topbill.domain.records import NULL, Actions, Indices, Policy, Reason, Snapshot
from topbill.domain.slate import LARGEST_MATRIX, Allowed, Slate, in_order
from topbill.engine.api import MOST_ACTIONS, OfferedAction, at_path
from topbill.policies import KINDS
from topbill.spec import Experiment, Variant

offers = msgspec.json.Decoder(
    Annotated[list[OfferedAction], msgspec.Meta(min_length=1, max_length=MOST_ACTIONS)], strict=True
)


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


class CompiledExperiment:
    """An experiment compiled for deciding: encoders, encoded actions, assignment bounds, policies
    of one version.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.revision = experiment.fingerprint
        self.encoder = experiment.context_encoder
        self.action_encoder = experiment.action_encoder
        self.actions = experiment.encoded_actions
        self.rows: Indices = np.arange(len(self.actions))
        self.payloads = {
            a.id: msgspec.Raw(msgspec.json.encode(a.payload)) for a in experiment.actions
        }
        self.bounds = list(accumulate(v.share for v in experiment.variants))
        self.events = frozenset(metric.event for metric in experiment.metrics)
        """The names of the reward events that some metric reads."""
        self.version = 0
        self.policies = build_policies(experiment)
        order = getattr(experiment.control.params, "order", [])
        self._place = {action: i for i, action in enumerate(order)}
        self.failures: dict[str, str] = {}

    def adopt(self, snapshot: Snapshot) -> bool:
        """Serve from `snapshot` from now on; False when it belongs to other features, metrics or
        policies.
        """
        if snapshot.fingerprint != self.experiment.learning_fingerprint or set(
            snapshot.states
        ) != set(self.policies):
            return False
        policies = build_policies(self.experiment)
        for name, policy in policies.items():
            policy.load(snapshot.states[name])
        self.policies, self.version = policies, snapshot.version
        return True

    def assign(self, unit: str) -> tuple[Variant | None, Reason]:
        """The unit's variant: the same for the same unit as long as layer, traffic and shares stay
        as they are.
        """
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
        return experiment.variants[
            min(bisect_right(self.bounds, spot), len(self.bounds) - 1)
        ], "policy"

    def control_order(
        self, actions: Actions, eligible: Indices, slots: int, allowed: Allowed | None = None
    ) -> Slate:
        """The control's own order (or the order given), which needs no policy and has propensity
        1.
        """
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


def offered(live: CompiledExperiment, raw: msgspec.Raw) -> Actions:
    """The encoded actions that a request offers, or the experiment's own."""
    if raw == NULL:
        return live.actions
    try:
        actions = offers.decode(raw)
    except msgspec.ValidationError as error:
        raise at_path(error, "$.actions") from error
    encoded = live.action_encoder.encode_actions(actions)
    if len(set(encoded.ids)) != len(encoded.ids):
        twice = next(i for i in encoded.ids if encoded.ids.count(i) > 1)
        raise BadRequest("$.actions", f"id {twice!r} is there twice; expected each id once")
    return encoded


def payloads_of(actions: Sequence[dict[str, Any]]) -> dict[str, msgspec.Raw]:
    """The payloads of the actions in an audited revision's spec."""
    return {str(a["id"]): msgspec.Raw(msgspec.json.encode(a.get("payload"))) for a in actions}
