"""What may be evaluated: a variant of an experiment file, a stored snapshot, uniform, "always X", a
Python callable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import msgspec
import numpy as np

from topbill.domain.chance import hash64
from topbill.domain.errors import BadData, BadRequest, NotFound
from topbill.domain.records import Decision, Floats, Indices, RewardEvent, Snapshot
from topbill.domain.slate import choices, distribution
from topbill.engine import CompiledExperiment, examples, offered
from topbill.spec import Experiment, load

Chooser: TypeAlias = Callable[[Mapping[str, Any], Sequence[str]], Any]
"""A policy as a function: from context and the actions that remain to their probabilities, in that
order.
"""


class Target(Protocol):
    """A policy to evaluate."""

    name: str
    reward_delay: float | None
    """Seconds after which a decision may teach it; None for a policy that does not learn here."""
    since: int
    """Only decisions with a greater `seq` may be scored: it learned from the others."""

    def probabilities(self, decision: Decision) -> list[Floats]:
        """For each position of the logged slate, the probabilities (len(eligible)) that this policy
        would have given, given the logged items above; 0 for those. Raises BadData or BadRequest
        for what it cannot decide about."""
        ...

    def learn(self, decision: Decision, events: Sequence[RewardEvent]) -> None:
        """Take in one matured decision of the log."""
        ...


class ByFunction:
    """Uniform, "always X" and callables: nothing is learned, each position is asked for with what
    remains.
    """

    reward_delay: float | None = None
    since = 0

    def __init__(self, name: str, choose: Chooser) -> None:
        self.name, self._choose = name, choose

    def probabilities(self, decision: Decision) -> list[Floats]:
        context = msgspec.json.decode(decision.context)

        def over(may: Indices) -> Floats:
            offer = [decision.eligible[i] for i in may]
            p = np.asarray(self._choose(context, offer), dtype=np.float64)
            if p.shape != (len(offer),):
                raise BadData(
                    "policy",
                    f"got {p.shape} probabilities; expected {len(offer)}, one for each action",
                )
            if not (np.all(p >= 0) and abs(float(p.sum()) - 1.0) <= 1e-6):
                raise BadData(
                    "policy",
                    f"got probabilities that sum to {p.sum():g}; expected none below 0 and sum 1",
                )
            return p

        return _down(decision, over)

    def learn(self, decision: Decision, events: Sequence[RewardEvent]) -> None:
        """Nothing."""


class ByVariant:
    """A variant's policy: learning from the log as it goes, or frozen as a snapshot has it."""

    def __init__(
        self, experiment: Experiment, variant: str, snapshot: Snapshot | None = None
    ) -> None:
        self._live = CompiledExperiment(experiment)
        names = [v.name for v in experiment.variants]
        if variant not in names:
            raise NotFound(
                f"{experiment.source or experiment.key}: no variant {variant!r}; expected {', '.join(names)}"
            )
        self._variant = next(v for v in experiment.variants if v.name == variant)
        self.name = f"{experiment.key}/{variant}"
        self.reward_delay: float | None = experiment.reward_delay
        self.since = 0
        if snapshot is not None:
            if not self._live.adopt(snapshot):
                raise BadRequest(
                    "policy",
                    f"snapshot {snapshot.version} is of other features, metrics or policies",
                )
            self.name += f" v{snapshot.version}"
            self.reward_delay, self.since = None, snapshot.watermark

    def probabilities(self, decision: Decision) -> list[Floats]:
        live = self._live
        x = live.encoder.encode(msgspec.json.decode(decision.context))
        actions = offered(live, decision.actions)
        row_of = {action: row for row, action in enumerate(actions.ids)}
        unknown = [action for action in decision.eligible if action not in row_of]
        if unknown:
            raise BadData(
                "policy",
                f"got unknown action {unknown[0]!r}; expected one of {', '.join(actions.ids[:8])}",
            )
        rows = np.array([row_of[action] for action in decision.eligible], dtype=np.intp)
        scored = live.policies[self._variant.name].score(x, actions, hash64(decision.decision_id))
        return _down(
            decision, lambda may: distribution(scored, rows[may], self._variant.min_probability)
        )

    def learn(self, decision: Decision, events: Sequence[RewardEvent]) -> None:
        self._live.policies[self._variant.name].update(list(examples(self._live, decision, events)))


def _down(decision: Decision, over: Callable[[Indices], Floats]) -> list[Floats]:
    """Position by position: ask for what could be drawn there below the logged items, under the
    decision's rules.
    """
    found = []
    for may in remaining(decision):
        full = np.zeros(len(decision.eligible))
        full[may] = over(may)
        found.append(full)
    return found


def remaining(decision: Decision) -> Iterator[Indices]:
    """For each position of the logged slate, which of the eligible could be drawn there below the
    logged items.
    """
    size, above = len(decision.eligible), list[int]()
    for k, placement in enumerate(decision.slate):
        yield choices(decision.masks, size, k, above)
        above.append(decision.eligible.index(placement.action))


def uniform() -> Target:
    """Every action that remains is equally likely."""
    return ByFunction("uniform", lambda _context, offer: np.full(len(offer), 1.0 / len(offer)))


def always(action: str) -> Target:
    """`action` wherever it may be shown, else (and below it) every other one with equal chance."""

    def choose(_context: Mapping[str, Any], offer: Sequence[str]) -> Floats:
        if action in offer:
            return np.array([float(a == action) for a in offer])
        return np.full(len(offer), 1.0 / len(offer))

    return ByFunction(f"always {action}", choose)


def resolve(
    policy: str | Path | Experiment | Chooser | Target,
    *,
    variant: str | None,
    logged: Experiment,
    snapshot: Callable[[int | None], Snapshot | None],
) -> list[Target]:
    """The targets that `policy` names.

    An experiment or its file gives one for each variant (or `variant`); "snapshot" (or
    "snapshot:VERSION") the stored policies of the evaluated experiment; "uniform" and "always X"
    what they say. Raises NotFound, BadRequest, SpecError.
    """
    text = str(policy) if isinstance(policy, str | Path) else ""
    if text == "uniform":
        return [uniform()]
    if text.startswith(("always ", "always:")):
        action = text[len("always ") :].strip()
        if logged.actions and action not in (known := [a.id for a in logged.actions]):
            raise BadData(
                "policy", f"got unknown action {action!r}; expected one of {', '.join(known)}"
            )
        return [always(action)]
    if text.partition(":")[0] == "snapshot":
        number = text.partition(":")[2]
        if number and not number.isdigit():
            raise BadRequest("policy", f"got {text!r}; expected snapshot:VERSION, as snapshot:3")
        held = snapshot(int(number) if number else None)
        if held is None:
            which = f"no policy version {number}" if number else "no policy version in the log yet"
            raise NotFound(f"{logged.key}: {which}; start `topbill worker` and send rewards")
        return [ByVariant(logged, name, held) for name in ([variant] if variant else held.states)]
    if text:
        if not Path(text).exists():
            raise NotFound(
                f"{text}: no such file; expected an experiment file, uniform, 'always ACTION' or snapshot"
            )
        policy = load(Path(text))
    if isinstance(policy, Experiment):
        return [
            ByVariant(policy, name)
            for name in ([variant] if variant else [v.name for v in policy.variants])
        ]
    if callable(policy):
        return [ByFunction(getattr(policy, "__name__", "callable"), policy)]
    if hasattr(policy, "probabilities"):
        return [policy]  # type: ignore[list-item]
    raise BadRequest(
        "policy",
        f"got {policy!r}; expected a file, an experiment, a callable, uniform or 'always ACTION'",
    )
