"""One pass through a published log: score each decision by the policies to evaluate, keep scalars
only, and let those that learn take in what has matured.

The log is read once, in its order, in batches. Before a batch is scored, what had matured by its
first decision is learned from; so nothing is ever scored by a model that has seen it (Dawid 1984
calls this prequential).
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

from topbill.domain.chance import at_most_one
from topbill.domain.errors import BadData, BadRequest, PolicyError
from topbill.domain.records import Actions, Decision, Floats, Indices
from topbill.domain.rewards import Looks, clipped_metrics, examined, item_rewards
from topbill.engine import CompiledExperiment, logged_actions
from topbill.entities import EntityStore, MissingVersion
from topbill.ope.replay.logged_data import LoggedData, LoggedDecision, weight_of
from topbill.ope.replay.reward_model import Link, RewardModel
from topbill.ope.replay.selection import Selection
from topbill.ope.replay.shadows import ShadowPolicy
from topbill.ope.replay.targets import TargetPolicy, remaining
from topbill.spec import Experiment

_BATCHES, _SMALLEST, _LARGEST = 50, 100, 5_000
"""Some fifty batches, none smaller or larger than these: between batches only is learned."""

LARGEST_MOMENT = 1e100
"""No moment of a weight is larger: its sum is still a number."""

Progress = Callable[[int, int], None]
"""Called with the decisions done and the decisions in all."""


class Scalars:
    """A growing column of float64, eight bytes a number, read as one array in the end."""

    def __init__(self) -> None:
        self._numbers = array("d")

    def __len__(self) -> int:
        return len(self._numbers)

    def append(self, value: float) -> None:
        """One more number."""
        self._numbers.append(value)

    @classmethod
    def of(cls, numbers: bytes) -> Scalars:
        """A column of numbers that there are, as they lie in memory."""
        column = cls()
        column._numbers.frombytes(numbers)
        return column

    @property
    def values(self) -> Floats:
        """(n,) the numbers, not copied."""
        return np.frombuffer(self._numbers, dtype=np.float64)

    @property
    def whole(self) -> Indices:
        """(n,) the same as whole numbers, for counting and indexing."""
        return self.values.astype(np.intp)


@dataclass(frozen=True)
class LogColumns:
    """What the log and the reward model say of each scored placement: one row a placement, those of
    a decision from its first position down.

    `slate` numbers the scored decisions from 0, `walk` the passes that they were scored in.
    `choices` is how many actions could have been
    drawn, `inverse_variance` the variance of 1/(p·K) as all logged probabilities foresee it.
    `feature_propensity` is the probability of the shown action's features, which several
    actions may share; it has fewer rows where some decisions did not log all probabilities.
    """

    reward: Scalars = field(default_factory=Scalars)
    propensity: Scalars = field(default_factory=Scalars)
    modelled: Scalars = field(default_factory=Scalars)
    position: Scalars = field(default_factory=Scalars)
    slate: Scalars = field(default_factory=Scalars)
    choices: Scalars = field(default_factory=Scalars)
    inverse_variance: Scalars = field(default_factory=Scalars)
    variant: Scalars = field(default_factory=Scalars)
    batch: Scalars = field(default_factory=Scalars)
    walk: Scalars = field(default_factory=Scalars)
    feature_propensity: Scalars = field(default_factory=Scalars)


@dataclass(frozen=True)
class TargetColumns:
    """What one target says of each scored placement, in the rows of `LogColumns`.

    `propensity` is π of the shown action, `modelled` Σ_a π(a) q̂(a), `unsupported` π on what the
    log could not have shown, `weight_moment` Σ_a π(a)²/p(a).
    """

    propensity: Scalars = field(default_factory=Scalars)
    modelled: Scalars = field(default_factory=Scalars)
    unsupported: Scalars = field(default_factory=Scalars)
    weight_moment: Scalars = field(default_factory=Scalars)
    feature_propensity: Scalars = field(default_factory=Scalars)


@dataclass(frozen=True)
class _Learner:
    """What learns from the log, so many seconds after each decision; `queue` waits for that."""

    delay: float
    learn: Callable[[list[LoggedDecision]], None]
    queue: deque[LoggedDecision] = field(default_factory=deque)

    def learn_until(self, now: int) -> None:
        """Learn what had matured at `now` (µs since the epoch)."""
        matured = []
        while self.queue and self.queue[0].decision.decided_at + self.delay * 1e6 <= now:
            matured.append(self.queue.popleft())
        if matured:
            self.learn(matured)


class LogFacts(NamedTuple):
    """What a pass has to know of a log whose decisions it is given."""

    key: str
    experiment: Experiment
    judged: Experiment
    published: int
    decisions: int
    window: float
    buckets: int
    tables: EntityStore

    @classmethod
    def of(cls, data: LoggedData) -> LogFacts:
        """Those of a log."""
        return cls(*(getattr(data, name) for name in cls._fields))


class ProgressivePass:
    """The pass and what it keeps: `log` and, in the order of `targets`, `of_target`; `units` and
    `ids` per scored decision; `left_out` counts the others by cause, `clipped` the scored ones with
    a metric beyond the objective's ends, `looks` what of them was looked at.
    """

    def __init__(
        self,
        data: LoggedData | LogFacts,
        targets: Sequence[TargetPolicy],
        variants: Sequence[str],
        link: Link,
        selection: Selection | None = None,
        *,
        with_unseen: bool = False,
    ) -> None:
        """`with_unseen`: also decisions of which nobody looked at anything."""
        self.key, self.targets = data.key, targets
        self.log = LogColumns()
        self.of_target = [TargetColumns() for _ in targets]
        self.units: list[str] = []
        self.ids: list[str] = []
        self.seqs: list[int] = []
        """Where in the log each of them is."""
        self.weights = Scalars()
        """How many decisions each scored one stands for, as a sub-sampled log says."""
        self.left_out: Counter[str] = Counter()
        self.clipped: Counter[str] = Counter()
        self.looks = Looks()
        self.first_misfit = ""
        """The first decision of another schema, and what of it the experiment does not know."""
        self.first_at = self.last_at = 0
        self.ranking = False
        self._data, self._variants, self._selection = data, set(variants), selection
        self._with_unseen = with_unseen
        self._variant_code = {name: i for i, name in enumerate(sorted(self._variants))}
        # A stored policy may be scored only on what came after all that it learned from.
        self._since = max([target.since for target in targets], default=0)
        self._compiled = CompiledExperiment(data.experiment, data.tables)
        self._model = RewardModel(
            self._compiled.encoder.size,
            self._compiled.action_encoder.size,
            tuple(a.id for a in data.experiment.actions),
            link=link,
        )
        self._batch = 0
        self._waiting: list[LoggedDecision] = []
        # Of as many in each walk of several, whoever walks.
        total = data.decisions // data.buckets
        self._batch_size = min(max(total // _BATCHES, _SMALLEST), _LARGEST)
        self.versions: set[int] = set()
        self.explored: Counter[int] = Counter()
        self.displayed: Counter[int] = Counter()
        self._learners = [_Learner(data.window, self._teach_model)]
        for target in targets:
            if target.reward_delay is not None:
                self._learners.append(_Learner(target.reward_delay, _teacher(target)))

    @property
    def decisions(self) -> int:
        """How many decisions were scored."""
        return len(self.units)

    def complete(self, column: Scalars) -> Floats | None:
        """(placements,) the column where every placement has a number in it, else None."""
        return column.values if len(column) == len(self.log.reward) else None

    def run(self, progress: Progress | None) -> None:
        """Pass through the whole log.

        Raises:
            BadData: naming the decisions that a target cannot decide about.
        """
        if not isinstance(self._data, LoggedData):
            raise TypeError("a pass that knows a log's facts alone is given decisions by `take`")
        total = self._data.decisions
        for done, logged in enumerate(self._data, 1):
            self.take(logged)
            if progress and done % self._batch_size == 0:
                progress(done, total)
        self.finish()
        if progress:
            progress(total, total)

    def take(self, logged: LoggedDecision) -> None:
        """The next decision of the log. Raises BadData as `run` does."""
        self._waiting.append(logged)
        if len(self._waiting) == self._batch_size:
            self.finish()

    def finish(self) -> None:
        """Score what was taken and waits for its batch to be full. Raises BadData as `run` does."""
        if self._waiting:
            self._pass_batch(self._waiting)
            self._waiting = []

    @property
    def row_weights(self) -> Floats | None:
        """(decisions,) what `weights` say, None where every decision stands for itself alone."""
        weights = self.weights.values
        return weights if weights.size and (weights != weights[0]).any() else None

    def mean_of_items(self, values: Floats) -> float:
        """The mean of a number of each placement, its decision counting as `row_weights` say."""
        weights = self.row_weights
        own = None if weights is None else weights[self.log.slate.whole]
        return float(np.average(values, weights=own)) if values.size else 0.0

    @property
    def items_per_decision(self) -> float:
        """How many items of a scored decision earn a reward, on average; 1 where the slate does."""
        if self._data.judged.feedback == "slate":
            return 1.0
        items = np.bincount(self.log.slate.whole)
        return float(np.average(items, weights=self.row_weights))

    @property
    def unrewarded(self) -> float:
        """What an item without an event is worth on the objective's scale, where 0 is the floor of
        a metric that goes below 0; else 0.
        """
        goal = self._data.judged.goal
        return goal.default if goal.own_units is not None else 0.0

    def facts(self) -> dict[str, Any]:
        """What only the log can tell about itself, for the diagnostics."""
        old_enough = self.decisions + self.left_out["immature"]
        exploration = [self.explored[k] / n for k, n in sorted(self.displayed.items())]
        return {
            "mature_share": self.decisions / old_enough if old_enough else 0.0,
            "policy_versions": len(self.versions),
            "exploration": tuple(exploration),
        }

    def predictable_moments(self, moments: Floats) -> Floats:
        """(n,) Σ_a π²/p as it could be foreseen: the mean over the same variant's last batch, K at
        the start.

        Taken from the row itself it would depend on the very choice that it is to weigh.
        """
        batch, walk = self.log.batch.whole, self.log.walk.whole
        # A walk of several foresees by what it has seen itself.
        stream = self.log.variant.whole + walk * (1 + len(self._variant_code))
        foreseen = self.log.choices.values.copy()
        for code in np.unique(stream):
            own_rows = np.flatnonzero(stream == code)
            # Batches are numbered as they came, so a step in the number begins the next one.
            starts = np.flatnonzero(np.diff(batch[own_rows])) + 1
            last_mean: float | None = None
            for rows in np.split(own_rows, starts):
                if last_mean is not None:
                    foreseen[rows] = last_mean
                batch_mean = float(moments[rows].mean())
                if batch_mean > 0:
                    last_mean = batch_mean
        return foreseen

    # Batches

    def _pass_batch(self, batch: list[LoggedDecision]) -> None:
        now = batch[0].decision.decided_at
        for learner in self._learners:
            learner.learn_until(now)
        failures: list[tuple[str, Exception]] = []
        for logged in batch:
            cause = self._unfit(logged)
            if cause is not None:
                self.left_out[cause] += 1
            else:
                try:
                    self._score(logged)
                except (BadRequest, PolicyError) as error:
                    failures.append((logged.decision.decision_id, error))
            # What was not scored may still teach: only a fallback says nothing of what is worth
            # showing.
            if logged.decision.reason == "policy":
                for learner in self._learners:
                    learner.queue.append(logged)
        if failures:
            raise self._failed(failures) from failures[0][1]
        self._batch += 1

    def _failed(self, failures: list[tuple[str, Exception]]) -> BadData:
        names = ", ".join(name for name, _ in failures[:5])
        if len(failures) > 5:
            names += f" and {len(failures) - 5} more"
        return BadData("policy", f"decisions {names} of {self.key}: {failures[0][1]}")

    def _unfit(self, logged: LoggedDecision) -> str | None:
        """Why a decision is not scored; None where it is."""
        decision = logged.decision
        if decision.reason != "policy":
            return decision.reason
        if decision.variant not in self._variants:
            return "other variants"
        if not decision.slate:
            return "showed nothing"
        if logged.seq <= self._since:
            return "before the snapshot"
        outside = None if self._selection is None else self._selection.cause(decision)
        if outside is not None:
            return outside
        if not self._data.judged.goal.is_mature(decision.decided_at, self._data.published):
            return "immature"
        looked_at = examined(self._data.judged, decision, logged.events)
        if not self._with_unseen and not any(looked_at):
            return "not looked at"
        shadows = [target for target in self.targets if isinstance(target, ShadowPolicy)]
        return next(filter(None, [target.unfit(decision) for target in shadows]), None)

    # Decisions

    def _score(self, logged: LoggedDecision) -> None:
        """Keep what every target and the model say of each placement of one decision."""
        decision = logged.decision
        rewards = [reward or 0.0 for reward in self._rewards(logged)]
        rows = _rows(decision)
        try:
            x, actions = self._encoded(decision)
        except BadRequest as error:
            self.left_out["of another schema"] += 1
            self.first_misfit = self.first_misfit or f"{decision.decision_id}: {error}"
            return
        except MissingVersion:
            self.left_out["of a lost version of a table"] += 1
            return
        modelled = self._modelled(decision, x, actions)
        # All before the first append, so that a target that fails leaves no row half written.
        probabilities = [target.probabilities(decision) for target in self.targets]
        choices = _choices(decision)
        for k, placement in enumerate(decision.slate):
            p = at_most_one(placement.propensity)
            if not 0 < p <= 1:
                raise BadData(
                    "propensities", f"position {k}: got {p}; expected a probability in (0, 1]"
                )
            logged_p: Floats | None = None
            if decision.probabilities:
                logged_p = np.array(decision.probabilities[k])
            self._append_log(decision, k, p, rewards[k], modelled[k][rows[k]], choices[k])
            self.log.inverse_variance.append(_inverse_variance(p, choices[k], logged_p))
            pis = [positions[k] for positions in probabilities]
            for columns, pi in zip(self.of_target, pis, strict=True):
                unsupported, moment = _overlap(pi, pi[rows[k]] / p, logged_p, rows[:k])
                # Rounding may take a sum of probabilities past 1, which is none.
                columns.propensity.append(min(pi[rows[k]], 1.0))
                columns.modelled.append(pi @ modelled[k])
                columns.unsupported.append(unsupported)
                columns.weight_moment.append(moment)
            if logged_p is not None and actions.features.size:
                self._append_features(actions.features, rows[k], logged_p, pis)
            self.displayed[k] += 1
            self.explored[k] += p < 1
        self.ranking = self.ranking or len(decision.slate) > 1
        self.clipped.update(clipped_metrics(self._data.judged, decision, logged.events))
        self.looks.note(self._data.judged, decision, logged.events)
        self.weights.append(weight_of(decision))
        self.units.append(decision.unit)
        self.ids.append(decision.decision_id)
        self.seqs.append(logged.seq)
        self.versions.add(decision.policy_version)
        self.first_at = self.first_at or decision.decided_at
        self.last_at = decision.decided_at

    def _modelled(self, decision: Decision, x: Floats, actions: Actions) -> Floats:
        """(positions × K) q̂ of the eligible actions."""
        return self._model.predict(x, actions, len(decision.slate)).T

    def _append_log(
        self, decision: Decision, k: int, p: float, reward: float, modelled: float, choices: int
    ) -> None:
        log = self.log
        log.reward.append(reward)
        log.propensity.append(p)
        log.modelled.append(modelled)
        log.position.append(k)
        log.slate.append(len(self.units))
        log.choices.append(choices)
        log.variant.append(self._variant_code[decision.variant or ""])
        log.batch.append(self._batch)
        log.walk.append(0)

    def _append_features(
        self, features: Floats, row: int, logged_p: Floats, pis: Sequence[Floats]
    ) -> None:
        """The probabilities of the shown action's features: of all actions that look alike."""
        alike = (features == features[row]).all(axis=1)
        self.log.feature_propensity.append(min(logged_p[alike].sum(), 1.0))
        for columns, pi in zip(self.of_target, pis, strict=True):
            columns.feature_propensity.append(min(pi[alike].sum(), 1.0))

    def _rewards(self, logged: LoggedDecision) -> list[float | None]:
        """The objective of each item, None of one that nobody looked at: it earned nothing, and
        teaches nothing. A slate's own counts once, at its end.
        """
        experiment = self._data.judged
        rewards = item_rewards(experiment, logged.decision, logged.events)
        if experiment.feedback == "slate":
            # One and the same for each item that was looked at.
            of_slate = next((reward for reward in rewards if reward is not None), None)
            return [*[0.0] * (len(rewards) - 1), of_slate][: len(rewards)]
        return rewards

    def _encoded(self, decision: Decision) -> tuple[Floats, Actions]:
        """Context and eligible actions as the experiment encodes them."""
        x = self._compiled.encoder.encode(msgspec.json.decode(decision.context))
        actions = logged_actions(self._compiled, decision)
        if decision.eligible == actions.ids:
            return x, actions
        row_of = {action: row for row, action in enumerate(actions.ids)}
        if any(action not in row_of for action in decision.eligible):
            raise BadData("actions", "got actions that the experiment no longer has")
        rows = [row_of[action] for action in decision.eligible]
        return x, actions.take(np.array(rows, dtype=np.intp))

    def _teach_model(self, matured: list[LoggedDecision]) -> None:
        placed: list[tuple[Floats, Actions, int, int]] = []
        rewards: list[float] = []
        weights: list[float] = []
        for logged in matured:
            decision = logged.decision
            try:
                x, actions = self._encoded(decision)
            except (BadRequest, MissingVersion):
                continue  # of a revision with another schema, or of a table that is lost
            for k, reward in enumerate(self._rewards(logged)):
                if reward is None:
                    continue
                row = decision.eligible.index(decision.slate[k].action)
                placed.append((x, actions, row, k))
                rewards.append(reward)
                weights.append(weight_of(decision))
        if rewards:
            features = self._model.features(placed)
            self._model.learn(features, np.array(rewards), np.array(weights))


def _choices(decision: Decision) -> list[int]:
    """Of how many each position was drawn: where the log doesn't say that, of all that could be."""
    if decision.probabilities:
        return [len(p) - p.count(0.0) for p in decision.probabilities]
    return [len(candidates) for candidates in remaining(decision)]


def _inverse_variance(p: float, choices: int, logged: Floats | None) -> float:
    """Var 1/(p·K) of a draw from the logged probabilities, whose mean is 1; its square where they
    are not known.
    """
    if logged is None:
        return float((1.0 / (p * choices) - 1.0) ** 2)
    with np.errstate(over="ignore"):
        moment = float((1.0 / logged[logged > 0]).sum()) / choices**2
    return min(max(moment - 1.0, 0.0), LARGEST_MOMENT)


def _teacher(target: TargetPolicy) -> Callable[[list[LoggedDecision]], None]:
    def teach(matured: list[LoggedDecision]) -> None:
        for logged in matured:
            target.learn(logged.decision, logged.events)

    return teach


def _rows(decision: Decision) -> list[int]:
    """Where the placed actions are among the eligible. Raises BadData for one that is not there, or
    twice.
    """
    rows: list[int] = []
    row_of = {action: row for row, action in enumerate(decision.eligible)}
    for placement in decision.slate:
        row = row_of.pop(placement.action, None)
        if row is None:
            first_eight = ", ".join(decision.eligible[:8])
            raise BadData(
                "slate",
                f"got unknown action {placement.action!r}; expected one that remains of "
                f"{first_eight}",
            )
        rows.append(row)
    return rows


def _overlap(
    pi: Floats, weight: float, logged: Floats | None, above: list[int]
) -> tuple[float, float]:
    """The target's probability on what the log could not have shown, and Σ_a π²/p (w² where p is
    not known).
    """
    # What it lacks to 1 the target gives to actions that were not offered at all.
    unsupported = 1.0 - float(pi.sum())
    if logged is None:
        return min(max(unsupported, 0.0), 1.0), weight * weight
    possible = logged > 0
    # What stands above could not be drawn again, and a target that knows it has none of it either.
    unsupported += float(pi[~possible].sum() - pi[above].sum())
    with np.errstate(over="ignore"):
        moment = float((pi[possible] ** 2 / logged[possible]).sum())
    return min(max(unsupported, 0.0), 1.0), min(moment, LARGEST_MOMENT)
