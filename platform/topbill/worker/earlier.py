"""What earlier experiments of the record tell of a new one's actions, where a variant says `prior:
{from: [KEY, …]}`: their decisions summed by action, of which `policies.linear.prior` makes the
prior.

What stood first is counted, judged by the new experiment's objective. Each decision counts as often
as its propensity says, 1 ÷ (p·K) times and at most `LARGEST_WEIGHT`: a policy that shows an action
only where it does well must not make it look good everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from topbill.domain.errors import BadRequest
from topbill.domain.records import Decision, Offer
from topbill.domain.rewards import item_rewards
from topbill.log import Log, Matured
from topbill.policies.linear.prior import EarlierAction, EarlierExperiment
from topbill.spec import Experiment

LARGEST_WEIGHT = 10.0
"""No decision counts as if it were more than so many."""

_offers = msgspec.json.Decoder(list[Offer])
_Features = tuple[float, ...] | None
"""An action's, encoded; None where the new experiment can't read them."""


class EarlierSums:
    """The sums of one earlier experiment, whose matured decisions are given to `add` in any order.

    Actions are told apart by their ids. Their features are those of the first decision that showed
    them; those that the new experiment does not declare are left out, and actions whose features it
    can't read too.
    """

    def __init__(self, key: str, experiment: Experiment, log: Log) -> None:
        self._experiment = experiment
        self._of_file = _features_by_revision(log, key)
        self._declared = {feature.name for feature in experiment.action_features}
        self._features: dict[str, _Features] = {}
        # By action Σ w, Σ w² and Σ w·r; and Σ w·r² over all.
        self._sums: dict[str, list[float]] = {}
        self._squared = 0.0

    def add(self, rows: Iterable[Matured]) -> None:
        """Count these decisions; those that no policy made are left out."""
        for _, decision, events, *_ in rows:
            if decision.reason != "policy" or not decision.slate:
                continue
            first = decision.slate[0]
            reward = item_rewards(self._experiment, decision, events)[0]
            if reward is None or first.position or self._encoded(decision, first.action) is None:
                continue
            weight = min(1.0 / (first.propensity * len(decision.eligible)), LARGEST_WEIGHT)
            sums = self._sums.setdefault(first.action, [0.0, 0.0, 0.0])
            sums[0] += weight
            sums[1] += weight * weight
            sums[2] += weight * reward
            self._squared += weight * reward * reward

    def result(self) -> EarlierExperiment:
        """What was counted."""
        actions = []
        for action in sorted(self._sums):
            features = self._features[action]
            assert features is not None  # noqa: S101 (only such are counted)
            weight, squares, reward = self._sums[action]
            actions.append(EarlierAction(weight, squares, reward, features))
        total = sum(action.weight for action in actions)
        mean = sum(action.reward for action in actions) / total if total else 0.0
        variance = self._squared / total - mean * mean if total else 0.0
        return EarlierExperiment(actions, mean, max(variance, 0.0))

    def _encoded(self, decision: Decision, action: str) -> _Features:
        if action not in self._features:
            own = self._of_file.get(decision.revision, {})
            self._features[action] = self._row(_sent(decision, action) or own.get(action, {}))
        return self._features[action]

    def _row(self, features: Mapping[str, Any]) -> _Features:
        known = {name: value for name, value in features.items() if name in self._declared}
        try:
            row = self._experiment.action_encoder.encode(known, "$.actions")
        except BadRequest:
            return None
        return tuple(np.asarray(row).tolist())


def _sent(decision: Decision, action: str) -> Mapping[str, Any]:
    """The features that came with a decision; empty where it chose among a file's actions."""
    try:
        offers: Sequence[Offer] = _offers.decode(decision.actions) or ()
    except msgspec.ValidationError:
        return {}
    for offer in offers:
        if offer.id == action:
            features: Mapping[str, Any] = msgspec.json.decode(offer.features)
            return features
    return {}


def _features_by_revision(log: Log, key: str) -> dict[str, dict[str, Mapping[str, Any]]]:
    """By revision and action the features that the experiment's file said."""
    by_revision = {}
    for line in log.revisions(key):
        actions = msgspec.json.decode(line.spec).get("actions") or ()
        by_revision[line.revision] = {
            str(action["id"]): action.get("features") or {} for action in actions
        }
    return by_revision
