"""The frozen `Experiment` and its parts: what an experiment file says, once it was found valid."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

import msgspec

from topbill.domain.entity import ACTION, EntitySource
from topbill.domain.exclusion import EVERYBODY, NOBODY, Exclusion, TargetAudience
from topbill.domain.features import Encoder, Feature, FeatureColumns
from topbill.domain.margin import MarginUnit
from topbill.domain.metric import Metric
from topbill.domain.objective import Objective
from topbill.domain.reading import Method
from topbill.domain.records import Action, Actions
from topbill.spec import canonical
from topbill.spec.alerts import EVERYONE, ExperimentAlerts
from topbill.spec.conclusion import Conclusion
from topbill.spec.launch import Launch

Surface = Literal["rows", "titles", "artwork"]
ClickModelName = Literal["independent", "cascade", "examined"]
Status = Literal["draft", "running", "paused", "stopped"]


@dataclass(frozen=True)
class Guardrail:
    """A metric that must not get worse by more than `margin`: relative (0.02 is 2% of the control's
    value), or in `margin_unit` (0.02 points are 2 percentage points)."""

    metric: str
    margin: float
    margin_unit: MarginUnit = "relative"


@dataclass(frozen=True)
class StartFrom:
    """What a variant's policy has learned before its first decision: the file of a trained policy
    (`snapshot`, of that `sha256`), or what was decided in experiment `log` before `until` (seconds
    since the epoch).
    """

    snapshot: str = ""
    sha256: str = ""
    log: str = ""
    until: float = 0.0

    def __str__(self) -> str:
        """As a report says it, after "starts from"."""
        if self.snapshot:
            return f"{self.snapshot} (SHA-256 {self.sha256[:12]}…)"
        at = datetime.fromtimestamp(self.until, UTC)
        return f"the log of {self.log} before {at:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True)
class PriorFrom:
    """The earlier experiments that tell how much actions differ and which features of them told: by
    what was decided in them before `until` (seconds since the epoch); 0 for before this experiment
    was first read.
    """

    experiments: tuple[str, ...]
    until: float = 0.0

    def __str__(self) -> str:
        """As a report says it, after "starts from"."""
        count = len(self.experiments)
        named = ", ".join(self.experiments)
        return f"{count} earlier experiment{'s' * (count > 1)} ({named})"


@dataclass(frozen=True)
class Variant:
    """One side of the A/B test: a policy (kind and its frozen params) and a share of units."""

    name: str
    policy: str
    params: msgspec.Struct
    share: float
    control: bool = False
    min_probability: float = 0.0
    evaluable: bool = True
    training: Literal["own", "shared"] = "own"
    start_from: StartFrom | None = None
    prior: PriorFrom | None = None


@dataclass(frozen=True)
class Override:
    """Units that see a variant whatever their own is: testers. Their decisions count nowhere."""

    name: str
    units: tuple[str, ...]
    variant: str


@dataclass(frozen=True)
class LearnedAs:
    """How an earlier revision that learned the same ordered its features and metrics: the columns
    of what policies have learned, which a file that only reorders them goes on with. `fingerprint`
    is its learning fingerprint.
    """

    fingerprint: str
    context: tuple[Feature, ...]
    action_features: tuple[Feature, ...]
    metrics: tuple[Metric, ...]


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
    # Apart from `metrics`, which are those of decisions: whatever learns, simulates or evaluates
    # reads those alone.
    unit_metrics: tuple[Metric, ...] = ()
    title: str = ""
    owner: str = ""
    hypothesis: str = ""
    unit: str | None = None
    time_zone: str = "UTC"
    status: Status = "running"
    traffic: float = 1.0
    layer: str = ""
    # Where its slice of the layer begins: not of the file, but of all files together.
    layer_start: float = 0.0
    holdout: float = 0.0
    exclude: Exclusion = NOBODY
    audience: TargetAudience = EVERYBODY
    overrides: tuple[Override, ...] = ()
    launch: Launch | None = None
    conclusion: Conclusion | None = None
    # Who is told makes no other experiment: no fingerprint reads it.
    alerts: ExperimentAlerts = EVERYONE
    slots: int = 1
    context: tuple[Feature, ...] = ()
    action_features: tuple[Feature, ...] = ()
    # Tables of features by id: what they give stands among the features above too, after those
    # that calls send.
    entities: tuple[EntitySource, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    feedback: Literal["item", "slate"] = "item"
    click_model: ClickModelName = "independent"
    reward_delay: float = 0.0
    refit: Literal["never", "daily"] = "never"
    learn_share: float = 1.0
    method: Method = "sequential"
    looks: tuple[float, ...] = (1.0,)
    personalizer: bool = False
    budget_ms: float = 50.0
    # Not part of what the experiment is: two files with the same content are equal.
    source: str = ""
    raw: dict[str, Any] = field(default_factory=dict, compare=False, hash=False)
    # What ran before under the same key and goes on beside its launch: not of the file, but of the
    # log (`log.former`).
    former: Experiment | None = field(default=None, hash=False)
    # Of the log too (`log.learning`); None where it learns in the file's own order.
    learned_as: LearnedAs | None = None

    @cached_property
    def launched(self) -> tuple[Variant, ...]:
        """The variants that its launch brings: those that what ran before did not have, or had
        otherwise; all but the control where nothing ran before.
        """
        before = self.former
        if before is None:
            return tuple(variant for variant in self.variants if not variant.control)
        known = {canonical.variant_fingerprint(before, variant) for variant in before.variants}
        return tuple(
            variant
            for variant in self.variants
            if canonical.variant_fingerprint(self, variant) not in known
        )

    @cached_property
    def control(self) -> Variant:
        """The variant the others are compared with, and whose order is served when a policy
        fails.
        """
        # There is exactly one: the loader refuses files with none or several.
        return next(v for v in self.variants if v.control)

    @cached_property
    def winner(self) -> Variant | None:
        """The variant that everybody gets since the experiment was concluded; None where it was
        not, or nobody won.
        """
        if self.conclusion is None or self.conclusion.winner is None:
            return None
        return next(v for v in self.variants if v.name == self.conclusion.winner)

    @property
    def shares_in_force(self) -> dict[str, float]:
        """The share of the units that take part which each variant gets: all of them the winner's,
        once there is one.
        """
        if self.winner is not None:
            return {self.winner.name: 1.0}
        return {variant.name: variant.share for variant in self.variants}

    @property
    def traffic_in_force(self) -> float:
        """The share of its layer that takes part: nobody before the first step of its launch, and
        everybody since somebody won.
        """
        if self.winner is not None:
            return 1.0
        is_waiting = self.launch is not None and self.conclusion is None
        return 0.0 if is_waiting else self.traffic

    @cached_property
    def context_encoder(self) -> Encoder:
        """Encodes a request's context."""
        return Encoder(self.in_learning_order.context)

    @cached_property
    def action_encoder(self) -> Encoder:
        """Encodes a request's own actions."""
        return Encoder(self.in_learning_order.action_features)

    @cached_property
    def feature_columns(self) -> FeatureColumns:
        """Which numbers its features become."""
        return FeatureColumns.of(
            self.in_learning_order.context, self.in_learning_order.action_features
        )

    @property
    def in_learning_order(self) -> Experiment | LearnedAs:
        """Whose order of features and metrics holds where something is learned."""
        return self.learned_as or self

    @cached_property
    def context_entities(self) -> tuple[EntitySource, ...]:
        """The tables whose features belong to the context."""
        return tuple(source for source in self.entities if source.of != ACTION)

    @cached_property
    def action_entities(self) -> tuple[EntitySource, ...]:
        """The tables whose features are the actions'."""
        return tuple(source for source in self.entities if source.of == ACTION)

    @cached_property
    def looked_up(self) -> frozenset[str]:
        """The features of the context that tables give, which no call may send."""
        return frozenset(f.name for source in self.context_entities for f in source.features)

    @cached_property
    def sent_action_features(self) -> tuple[Feature, ...]:
        """The actions' features that come with them: those that no table gives."""
        given = {f.name for source in self.action_entities for f in source.features}
        own = self.in_learning_order.action_features
        return tuple(feature for feature in own if feature.name not in given)

    @cached_property
    def encoded_actions(self) -> Actions:
        """The file's actions, encoded once: one object for the life of the revision, so policies
        may key on it.
        """
        return self.action_encoder.encode_actions(self.actions)

    @cached_property
    def goal(self) -> Objective:
        """What the weights in `objective` make of the metrics."""
        return Objective.of(self.in_learning_order.metrics, self.objective)

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits that change with anything that the file says: the revision logged with each
        decision.
        """
        return canonical.fingerprint(self)

    @cached_property
    def learning_fingerprint(self) -> str:
        """What is learned is stored under it: it changes with features, objective, metrics,
        policies and their params, and with their order, unless that is an earlier revision's.
        """
        if self.learned_as is not None:
            return self.learned_as.fingerprint
        return canonical.learning_fingerprint(self)

    @cached_property
    def learning_content(self) -> str:
        """Changes only with what learning depends on, in whatever order the file says it."""
        return canonical.learning_content(self)
