"""The frozen `Experiment` and its parts: what an experiment file says, once it was found valid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import msgspec

from topbill.domain.features import Encoder, Feature
from topbill.domain.records import Action, Actions
from topbill.spec import canonical

Surface = Literal["rows", "titles", "artwork"]
Status = Literal["draft", "running", "paused", "stopped"]
MetricKind = Literal["binary", "max", "sum", "count", "mean", "last", "earliest"]


@dataclass(frozen=True)
class Metric:
    """What is computed of a decision's events of one name inside a window (seconds after the
    decision).

    kind: binary (any event) | max | sum | count | mean | last | earliest. `cap` scales it to [0, 1]
    in the objective, `default` is its value without an event. `better` says which direction is
    good, for reading the report; `covariate` what of a unit's past takes noise out of it: so many
    seconds of its own events before the unit's first decision, or a number of the context as it
    came with that decision.
    """

    name: str
    event: str
    kind: MetricKind
    window: float
    cap: float = 1.0
    better: Literal["higher", "lower"] = "higher"
    default: float = 0.0
    covariate: float | str | None = None

    def value(self, events: Iterable[tuple[float, float]]) -> float:
        """The metric of a decision's events `(value, seconds after the decision)`; `default` if
        none is in the window.

        An event counts when it came at most `window` seconds after the decision. A caller's clock
        may be a little behind, so an event dated before its decision counts as well. `last` is the
        event with the latest time, `earliest` that with the earliest.
        """
        inside = [(at, value) for value, at in events if at <= self.window]
        if not inside:
            return self.default
        values = [value for _, value in inside]
        if self.kind == "binary":
            return 1.0
        if self.kind == "count":
            return float(len(values))
        if self.kind == "max":
            return max(values)
        if self.kind == "last":
            return max(enumerate(inside), key=lambda e: (e[1][0], e[0]))[1][1]
        if self.kind == "earliest":
            return min(inside, key=lambda e: e[0])[1]
        try:
            total = math.fsum(values)
        except OverflowError:  # an imported log may hold any number: it must not stop learning
            total = math.inf if sum(value / len(values) for value in values) > 0.0 else -math.inf
        return total if self.kind == "sum" else total / len(values)


@dataclass(frozen=True)
class Guardrail:
    """A metric that must not get worse by more than `margin` (relative, 0.02 is 2%)."""

    metric: str
    margin: float


@dataclass(frozen=True)
class Variant:
    """An arm of the A/B test: a policy (kind and its frozen params) and a share of units."""

    name: str
    policy: str
    params: msgspec.Struct
    share: float
    control: bool = False
    min_probability: float = 0.0
    evaluable: bool = True
    training: Literal["own", "shared"] = "own"


@dataclass(frozen=True)
class Experiment:
    """One experiment file. `source` is its file name, `raw` the parsed YAML for audit and
    display.
    """

    key: str
    surface: Surface
    actions: tuple[Action, ...]
    metrics: tuple[Metric, ...]
    objective: dict[str, float] = field(hash=False)
    variants: tuple[Variant, ...]
    title: str = ""
    owner: str = ""
    hypothesis: str = ""
    unit: str | None = None
    status: Status = "running"
    traffic: float = 1.0
    layer: str = ""
    layer_start: float = 0.0
    holdout: float = 0.0
    slots: int = 1
    context: tuple[Feature, ...] = ()
    action_features: tuple[Feature, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    feedback: Literal["item", "slate"] = "item"
    click_model: Literal["independent", "cascade"] = "independent"
    reward_delay: float = 0.0
    refit: Literal["never", "daily"] = "never"
    personalizer: bool = False
    budget_ms: float = 50.0
    source: str = ""
    raw: dict[str, Any] = field(default_factory=dict, compare=False, hash=False)

    @cached_property
    def control(self) -> Variant:
        """The variant the others are compared with, and whose order is served when a policy
        fails.
        """
        return next(v for v in self.variants if v.control)

    @cached_property
    def context_encoder(self) -> Encoder:
        """Encodes a request's context."""
        return Encoder(self.context)

    @cached_property
    def action_encoder(self) -> Encoder:
        """Encodes a request's own actions."""
        return Encoder(self.action_features)

    @cached_property
    def encoded_actions(self) -> Actions:
        """The file's actions, encoded once: one object for the life of the revision, so policies
        may key on it.
        """
        return self.action_encoder.encode_actions(self.actions)

    def objective_value(self, metric_values: Mapping[str, float]) -> float:
        """The objective in [0, 1]: Σ weight · clip(metric / cap, 0, 1) ÷ Σ positive weights,
        clipped to [0, 1].

        A negative weight is a penalty: it takes away from what positive ones earn, never below 0.
        So 1 means that every wanted metric reached its cap and no penalty fell due. A metric
        without a value counts as 0.
        """
        earned = 0.0
        for metric in self.metrics:
            weight = self.objective.get(metric.name)
            if weight:
                earned += weight * min(
                    1.0, max(0.0, metric_values.get(metric.name, 0.0) / metric.cap)
                )
        return min(1.0, max(0.0, earned / sum(w for w in self.objective.values() if w > 0.0)))

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits that change with anything that the file says: the revision logged with each
        decision.
        """
        return canonical.fingerprint(self)

    @cached_property
    def learning_fingerprint(self) -> str:
        """Changes only with what learning depends on: features, objective, metrics, policies and
        their params.
        """
        return canonical.learning_fingerprint(self)
