"""One walk through a published log: score each decision by the targets, keep scalars only, and let
those that learn take in what has matured."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from topbill.domain.errors import BadData, BadRequest, PolicyError
from topbill.domain.records import Actions, Decision, Floats
from topbill.domain.rewards import item_rewards
from topbill.engine import CompiledExperiment, offered
from topbill.ope.replay.logged_data import Logged, Record
from topbill.ope.replay.reward_model import Link, RewardModel
from topbill.ope.replay.targets import Target, remaining

_BATCHES, _SMALLEST, _LARGEST = 50, 100, 5_000

Progress = Callable[[int, int], None]
"""Called with the decisions done and the decisions in all."""


class Walk:
    """The scalars of every scored placement: r, p, q, position, slate, support, and per target i
    its pi, dm, …; `embedded` are the probabilities of the shown action's features, which several
    actions may share.

    `units` and `ids` per scored decision; `left_out` counts the others by cause.
    """

    def __init__(
        self, record: Record, targets: Sequence[Target], variants: Sequence[str], link: Link
    ) -> None:
        self.key, self.targets = record.key, targets
        self.units: list[str] = []
        self.ids: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.first_at = self.last_at = 0
        self.ranking = False
        self._record, self._used = record, set(variants)
        self._since = max(target.since for target in targets)
        self._live = CompiledExperiment(record.experiment)
        experiment = record.experiment
        self._model = RewardModel(
            self._live.encoder.size,
            self._live.action_encoder.size,
            tuple(a.id for a in experiment.actions),
            link=link,
        )
        self._columns: dict[str, array[float]] = {}
        self._batch = 0
        self._versions: set[int] = set()
        self._explored: Counter[int] = Counter()
        self._shown: Counter[int] = Counter()
        self._waiting: list[tuple[float, deque[Logged], Callable[[list[Logged]], None]]] = [
            (record.window, deque(), self._teach_model)
        ]
        for target in targets:
            if target.reward_delay is not None:
                self._waiting.append((target.reward_delay, deque(), _teacher(target)))

    @property
    def decisions(self) -> int:
        """How many decisions were scored."""
        return len(self.units)

    def column(self, name: str) -> Floats:
        """(placements,) a kept scalar."""
        return np.frombuffer(self._columns[name], dtype=np.float64)

    def complete(self, name: str) -> Floats | None:
        """The scalar where every placement has it, else None."""
        kept = self._columns.get(name)
        return (
            self.column(name) if kept is not None and len(kept) == len(self._columns["r"]) else None
        )

    def run(self, progress: Progress | None) -> None:
        """Walk the whole log. Raises BadData naming the decisions that a target cannot decide
        about.
        """
        total, done, batch = self._record.decisions, 0, list[Logged]()
        size = min(max(total // _BATCHES, _SMALLEST), _LARGEST)
        for logged in self._record:
            batch.append(logged)
            if len(batch) == size:
                done += self._step(batch)
                batch = []
                if progress:
                    progress(done, total)
        if batch:
            self._step(batch)
        if progress:
            progress(total, total)

    def facts(self) -> dict[str, Any]:
        """What only the log can tell about itself, for the diagnostics."""
        ripe = self.decisions + self.left_out["immature"]
        return {
            "mature_share": self.decisions / ripe if ripe else 0.0,
            "policy_versions": len(self._versions),
            "exploration": tuple(self._explored[k] / self._shown[k] for k in sorted(self._shown)),
        }

    def predictable(self, moments: Floats) -> Floats:
        """(n,) Σ_a π²/p as it could be foreseen: the mean over the same variant's last batch, K at
        the start.

        Taken from the row itself it would depend on the very choice that it is to weigh.
        """
        batch, variant = (
            self.column("batch").astype(np.intp),
            self.column("variant").astype(np.intp),
        )
        foreseen = self.column("support").copy()
        for v in np.unique(variant):
            mine = np.flatnonzero(variant == v)
            known: float | None = None
            for rows in np.split(mine, np.flatnonzero(np.diff(batch[mine])) + 1):
                if known is not None:
                    foreseen[rows] = known
                found = float(moments[rows].mean())
                known = found if found > 0 else known
        return foreseen

    def _step(self, batch: list[Logged]) -> int:
        now = batch[0].decision.decided_at
        for age, queue, teach in self._waiting:
            ripe = []
            while queue and queue[0].decision.decided_at + age * 1e6 <= now:
                ripe.append(queue.popleft())
            if ripe:
                teach(ripe)
        failed: list[tuple[str, Exception]] = []
        for logged in batch:
            decision = logged.decision
            if (cause := self._unfit(logged)) is not None:
                self.left_out[cause] += 1
            else:
                try:
                    self._score(logged)
                except (BadRequest, PolicyError) as error:
                    failed.append((decision.decision_id, error))
            if decision.reason == "policy":
                for _, queue, _ in self._waiting:
                    queue.append(logged)
        if failed:
            names = ", ".join(name for name, _ in failed[:5]) + (
                f" and {len(failed) - 5} more" if failed[5:] else ""
            )
            raise BadData("policy", f"decisions {names} of {self.key}: {failed[0][1]}") from failed[
                0
            ][1]
        self._batch += 1
        return len(batch)

    def _unfit(self, logged: Logged) -> str | None:
        decision = logged.decision
        if decision.reason != "policy":
            return decision.reason
        if decision.variant not in self._used:
            return "other variants"
        if logged.seq <= self._since:
            return "before the snapshot"
        if not self._record.experiment.goal.is_mature(decision.decided_at, self._record.published):
            return "immature"
        return None

    def _score(self, logged: Logged) -> None:
        """Keep what every target and the model say of each placement of one decision."""
        decision = logged.decision
        rewards = self._rewards(logged)
        chosen = _rows(decision)
        try:
            x, actions = self._encoded(decision)
        except BadRequest:
            self.left_out["of another schema"] += 1
            return
        modelled = self._model.predict(x, actions, len(decision.slate)).T
        believed = [target.probabilities(decision) for target in self.targets]
        slate, self.ranking = len(self.units), self.ranking or len(decision.slate) > 1
        variant = float(sorted(self._used).index(decision.variant or ""))
        could = [len(may) for may in remaining(decision)]
        for k, placement in enumerate(decision.slate):
            p, j, q = placement.propensity, chosen[k], modelled[k]
            if not 0 < p <= 1:
                raise BadData(
                    "propensities", f"position {k}: got {p}; expected a probability in (0, 1]"
                )
            logged_p = np.array(decision.probabilities[k]) if decision.probabilities else None
            support = could[k] if logged_p is None else int(np.count_nonzero(logged_p))
            self._keep(r=rewards[k], p=p, q=q[j], position=k, slate=slate, support=support)
            self._keep(variant=variant, batch=self._batch)
            for i, positions in enumerate(believed):
                pi = positions[k]
                gap, moment = _overlap(pi, pi[j] / p, logged_p, chosen[:k])
                self._keep(
                    **{
                        f"pi{i}": min(pi[j], 1.0),
                        f"dm{i}": pi @ q,
                        f"unsupported{i}": gap,
                        f"moment{i}": moment,
                    }
                )
            if logged_p is not None and actions.features.size:
                alike = (actions.features == actions.features[j]).all(axis=1)
                self._keep(embedded=min(logged_p[alike].sum(), 1.0))
                self._keep(
                    **{
                        f"embedded{i}": min(pi[k][alike].sum(), 1.0)
                        for i, pi in enumerate(believed)
                    }
                )
            self._shown[k] += 1
            self._explored[k] += p < 1
        self.units.append(decision.unit)
        self.ids.append(decision.decision_id)
        self._versions.add(decision.policy_version)
        self.first_at, self.last_at = self.first_at or decision.decided_at, decision.decided_at

    def _keep(self, **values: float) -> None:
        for name, value in values.items():
            self._columns.setdefault(name, array("d")).append(value)

    def _rewards(self, logged: Logged) -> list[float]:
        """The objective of each item, what nobody looked at earning nothing; a slate's own counts
        once, at its end.
        """
        experiment = self._record.experiment
        found = [
            reward or 0.0 for reward in item_rewards(experiment, logged.decision, logged.events)
        ]
        if experiment.feedback == "slate":
            return [0.0] * (len(found) - 1) + found[-1:]
        return found

    def _encoded(self, decision: Decision) -> tuple[Floats, Actions]:
        """Context and eligible actions as the experiment encodes them."""
        x = self._live.encoder.encode(msgspec.json.decode(decision.context))
        actions = offered(self._live, decision.actions)
        if decision.eligible == actions.ids:
            return x, actions
        row_of = {action: row for row, action in enumerate(actions.ids)}
        if any(action not in row_of for action in decision.eligible):
            raise BadData("actions", "got actions that the experiment no longer has")
        return x, actions.take(
            np.array([row_of[action] for action in decision.eligible], dtype=np.intp)
        )

    def _teach_model(self, ripe: list[Logged]) -> None:
        features, rewards = [], []
        for logged in ripe:
            decision = logged.decision
            try:
                x, actions = self._encoded(decision)
            except BadRequest:
                continue  # of a revision with another schema
            for k, reward in enumerate(self._rewards(logged)):
                row = decision.eligible.index(decision.slate[k].action)
                features.append(self._model.features(x, actions, row, k))
                rewards.append(reward)
        if rewards:
            self._model.learn(np.stack(features), np.array(rewards))


def _teacher(target: Target) -> Callable[[list[Logged]], None]:
    def teach(ripe: list[Logged]) -> None:
        for logged in ripe:
            target.learn(logged.decision, logged.events)

    return teach


def _rows(decision: Decision) -> list[int]:
    """Where the placed actions are among the eligible. Raises BadData for one that is not there, or
    twice.
    """
    rows: list[int] = []
    for placement in decision.slate:
        if placement.action not in decision.eligible or placement.action in {
            decision.eligible[row] for row in rows
        }:
            shown = ", ".join(decision.eligible[:8])
            raise BadData(
                "slate",
                f"got unknown action {placement.action!r}; expected one that remains of {shown}",
            )
        rows.append(decision.eligible.index(placement.action))
    return rows


def _overlap(
    pi: Floats, weight: float, logged: Floats | None, above: list[int]
) -> tuple[float, float]:
    """The target's probability on what the log could not have shown, and Σ_a π²/p (w² where p is
    not known).
    """
    if logged is None:
        return 0.0, weight * weight
    possible = logged > 0
    gap = pi[~possible].sum() - pi[above].sum()
    return min(max(float(gap), 0.0), 1.0), float((pi[possible] ** 2 / logged[possible]).sum())
