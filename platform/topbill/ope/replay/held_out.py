"""Decisions that a frozen policy has not seen, scored many at a time, and the segments that they
fall into.

What scores a batch is fixed before it, policy and reward model alike: so contexts are encoded for
all of the batch in one call, and nothing waits for rewards to mature.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import fields
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from topbill.domain.errors import PolicyError
from topbill.domain.features import Feature
from topbill.domain.records import NULL, Actions, Decision, Floats
from topbill.domain.slate import SlatesRequest
from topbill.engine import CompiledExperiment, logged_actions
from topbill.engine.logged import encoded_contexts
from topbill.entities import EntityStore
from topbill.ope.replay.logged_data import LoggedData, LoggedDecision, Offers
from topbill.ope.replay.progressive import ProgressivePass, Scalars
from topbill.ope.replay.targets import VariantPolicy
from topbill.spec import Experiment

THIN = 0.5
"""Below this share of chance's own probability the log is thin."""
NOT_SAID = "(none)"
"""The segment of decisions whose context does not have the feature."""


_TOGETHER = 4_000
"""Actions times decisions that are scored in one call."""


class FrozenPolicy(VariantPolicy):
    """A variant's policy that learns nothing while it is scored: what it has learned is in
    `compiled`.
    """

    def __init__(
        self,
        compiled: CompiledExperiment,
        variant: str,
        offers: Offers,
        tables: EntityStore,
        name: str,
    ) -> None:
        super().__init__(compiled.experiment, variant, offers, tables=tables)
        self._compiled = compiled
        self.reward_delay, self.name = None, name
        self._contexts: dict[str, Floats] = {}
        self._drawn: dict[str, Floats] = {}

    @property
    def experiment(self) -> Experiment:
        """What it learned by."""
        return self._compiled.experiment

    def read(self, decisions: Sequence[Decision]) -> None:
        """Encode the contexts of decisions that will be asked for, and score those that are alike
        together: one at a time takes several times as long.
        """
        self._contexts = _by_id(self._compiled, decisions)
        self._drawn = {}
        policy = self._compiled.policies[self._variant.name]
        if self._unseen.ids or not hasattr(policy, "slates"):
            return
        ids, xs = _plain(self._compiled, decisions, self._contexts)
        actions = self._compiled.actions
        everything, least = np.arange(len(actions)), self._variant.min_probability
        step = max(1, _TOGETHER // max(1, len(actions)))
        for start in range(0, len(ids), step):
            chunk = ids[start : start + step]
            request = SlatesRequest(chunk, everything, 1, least)
            try:
                slates = policy.slates(xs[start : start + step], actions, request)
            except PolicyError:
                slates = None
            if slates is None:
                continue  # asked for one after the other, which tells what is wrong with it
            for name, slate in zip(chunk, slates, strict=True):
                if slate.probabilities is not None:
                    self._drawn[name] = np.array(slate.probabilities[0])

    def probabilities(self, decision: Decision) -> list[Floats]:
        drawn = self._drawn.get(decision.decision_id)
        return super().probabilities(decision) if drawn is None else [drawn]

    def encoded(self, decision: Decision) -> Floats:
        known = self._contexts.get(decision.decision_id)
        return super().encoded(decision) if known is None else known


class HeldOutPass(ProgressivePass):
    """A pass over decisions that nobody learns from, given to `take` in the order of the log.

    `segments` names, by feature of the context, the value of each scored decision.
    """

    def __init__(
        self,
        data: LoggedData,
        targets: Sequence[FrozenPolicy],
        variants: Sequence[str],
        by: Iterable[Feature] = (),
    ) -> None:
        super().__init__(data, targets, variants, "linear")
        self._learners = []
        self._frozen = targets
        self._by = tuple(by)
        self._contexts: dict[str, Floats] = {}
        self._expected: dict[str, Floats] = {}
        self.segments: dict[str, list[str]] = {feature.name: [] for feature in self._by}

    def teach(self, earlier: list[LoggedDecision]) -> None:
        """Let the reward model learn what came before."""
        # All contexts in one call, where one by one takes longer than to learn from them.
        self._contexts = _by_id(self._compiled, [logged.decision for logged in earlier])
        self._teach_model(earlier)

    def _pass_batch(self, batch: list[LoggedDecision]) -> None:
        decisions = [logged.decision for logged in batch]
        self._contexts = _by_id(self._compiled, decisions)
        for target in self._frozen:
            target.read(decisions)
        self._modelled_together(decisions)
        super()._pass_batch(batch)

    def _encoded(self, decision: Decision) -> tuple[Floats, Actions]:
        x = self._contexts.get(decision.decision_id)
        if x is None or decision.actions != msgspec.Raw(b"null"):
            return super()._encoded(decision)
        actions = logged_actions(self._compiled, decision)
        if decision.eligible == actions.ids:
            return x, actions
        return super()._encoded(decision)

    def _modelled_together(self, decisions: Sequence[Decision]) -> None:
        """What the reward model expects of those that are alike, in one call."""
        ids, xs = _plain(self._compiled, decisions, self._contexts)
        expected = self._model.predict_each(xs, self._compiled.actions)
        self._expected = dict(zip(ids, expected[:, None, :], strict=True))

    def _modelled(self, decision: Decision, x: Floats, actions: Actions) -> Floats:
        """q̂ where the log shows an action at least `THIN` as often as chance would, and the less of
        it the thinner the log is below that; nothing where the log does not say how thin.

        Any q̂ that is known before the draw leaves dr unbiased. But where the log hardly ever shows
        what the policy chooses, the draws that would contradict q̂ are likely all missing, and no
        standard error tells: there a certificate counts the rewards that were seen.
        """
        modelled = self._expected.get(decision.decision_id)
        if modelled is None:
            modelled = super()._modelled(decision, x, actions)
        if decision.probabilities is None:
            return np.zeros_like(modelled)
        for k, logged in enumerate(decision.probabilities):
            p = np.array(logged)
            modelled[k] *= np.minimum(p * (np.count_nonzero(p) / THIN), 1.0)
        return modelled

    def _score(self, logged: LoggedDecision) -> None:
        before = self.decisions
        super()._score(logged)
        if self._by and self.decisions > before:
            context = msgspec.json.decode(logged.decision.context)
            for feature in self._by:
                self.segments[feature.name].append(_value(context, feature))

    def part(self, rows: NDArray[np.bool_]) -> ProgressivePass:
        """The same pass as if only some of the scored decisions had been: (decisions,) which."""
        part = copy(self)
        slate = self.log.slate.whole
        placed = rows[slate]
        number = np.cumsum(rows) - 1
        part.log = _taken(self.log, placed)
        part.log.slate._numbers = Scalars.of(
            number[slate[placed]].astype(np.float64).tobytes()
        )._numbers
        part.of_target = [_taken(columns, placed) for columns in self.of_target]
        part.weights = Scalars.of(self.weights.values[rows].tobytes())
        keep = np.flatnonzero(rows).tolist()
        for name in ("units", "ids", "seqs"):
            own = getattr(self, name)
            setattr(part, name, [own[row] for row in keep])
        return part


def _by_id(compiled: CompiledExperiment, decisions: Sequence[Decision]) -> dict[str, Floats]:
    """The contexts of those that the experiment can read, encoded."""
    contexts, readable = encoded_contexts(compiled, decisions)
    by_id = {}
    for decision, x, can_read in zip(decisions, contexts, readable, strict=True):
        if can_read:
            by_id[decision.decision_id] = x
    return by_id


def _plain(
    compiled: CompiledExperiment, decisions: Sequence[Decision], contexts: Mapping[str, Floats]
) -> tuple[list[str], Floats]:
    """The ids and contexts (n × d) of those that drew one item of all of the experiment's own
    actions, where no rule, no editor and no table had a say.
    """
    ids = []
    for decision in () if compiled.experiment.action_entities else decisions:
        if (
            len(decision.slate) == 1
            and decision.actions == NULL
            and not decision.masks
            and decision.terms is None
            and decision.eligible == compiled.actions.ids
            and decision.decision_id in contexts
        ):
            ids.append(decision.decision_id)
    xs = np.array([contexts[name] for name in ids])
    return ids, xs.reshape(len(ids), compiled.encoder.size)


def _taken(columns: Any, placed: NDArray[np.bool_]) -> Any:
    """Some of the placements of columns of a pass."""
    parts = {}
    for one in fields(columns):
        column: Scalars = getattr(columns, one.name)
        # A column that some decisions lack is read by nobody.
        whole = len(column) == placed.size
        parts[one.name] = Scalars.of(column.values[placed].tobytes()) if whole else Scalars()
    return type(columns)(**parts)


def _value(context: Mapping[str, Any], feature: Feature) -> str:
    value = context.get(feature.name)
    if value is None:
        return NOT_SAID
    if feature.kind == "flag":
        return str(bool(value)).lower()
    return str(value)
