"""YAML → frozen `Experiment`: everything about an experiment, validated once, at the edge."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import msgspec

from topbill.records import Action

Surface = Literal["rows", "titles", "artwork"]
Status = Literal["draft", "running", "paused", "stopped"]


@dataclass(frozen=True)
class Feature:
    """A declared feature. kind: category(values) | number(min?, max?) | cycle(period) | vector(keys) | flag."""

    name: str
    kind: Literal["category", "number", "cycle", "vector", "flag"]
    values: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    period: float = 0.0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Metric:
    """What is computed of a decision's events of one name inside a window (seconds after the decision).

    kind: binary (any event) | max | sum | count | mean | last. `cap` scales it to [0, 1] in the objective.
    """

    name: str
    event: str
    kind: Literal["binary", "max", "sum", "count", "mean", "last"]
    window: float
    cap: float = 1.0
    better: Literal["higher", "lower"] = "higher"


@dataclass(frozen=True)
class Guardrail:
    """A metric that must not get worse by more than `worse_by_at_most` (relative, 0.02 is 2%)."""

    metric: str
    worse_by_at_most: float


@dataclass(frozen=True)
class Variant:
    """An arm of the A/B test: a policy (kind and its frozen params) and a share of units."""

    name: str
    policy: str
    params: msgspec.Struct
    share: float
    control: bool = False
    floor: float = 0.0
    evaluable: bool = True
    training: Literal["own", "shared"] = "own"


@dataclass(frozen=True)
class Experiment:
    """One experiment file. `source` is its file name, `raw` the parsed YAML for audit and display."""

    key: str
    surface: Surface
    actions: tuple[Action, ...]
    metrics: tuple[Metric, ...]
    objective: dict[str, float]
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
    learn_after: float = 0.0
    refit: Literal["never", "daily"] = "never"
    budget_ms: float = 50.0
    source: str = ""
    raw: dict[str, Any] = field(default_factory=dict, compare=False, hash=False)

    @cached_property
    def control(self) -> Variant:
        """The variant the others are compared with, and whose order is served when a policy fails."""
        return next(v for v in self.variants if v.control)

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits that change with anything in the file: the revision logged with each decision."""
        raise NotImplementedError

    @cached_property
    def learning_fingerprint(self) -> str:
        """Changes only with what learning depends on: features, objective, metrics, policies and their params."""
        raise NotImplementedError
