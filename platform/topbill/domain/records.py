"""The frozen records that travel between modules, and the protocols that modules meet each other
by.

One vocabulary for the whole project: what a word means is said here once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]
NULL = msgspec.Raw(b"null")
"""JSON text that says nothing. (msgspec decodes no union with Raw, so an optional Raw is NULL, not
None.)
"""
Reason = Literal[
    "policy",
    "fallback",
    "not_in_experiment",
    "holdout",
    "excluded_unit",
    "excluded_context",
    "not_in_audience",
    "override",
    "no_exploration",
]


class Action(msgspec.Struct, frozen=True):
    """Something that may be shown: its id, its raw features, and what the caller needs to render
    it.
    """

    id: str
    features: dict[str, Any] = {}
    payload: Any = None


class Offer(msgspec.Struct, frozen=True, gc=False):
    """An action that a decision brought along, as its text says it: the features as they came."""

    id: str
    features: msgspec.Raw = msgspec.Raw(b"{}")


class Actions:
    """The encoded actions of one decision: `ids` (K) and their feature matrix `features` (K × da,
    float64).

    Immutable by convention. Policies may keep what they derive from it, keyed by the object itself:
    an experiment's static actions are one such object for the life of a revision.
    """

    __slots__ = ("__weakref__", "features", "ids")

    def __init__(self, ids: Iterable[str], features: Floats) -> None:
        self.ids: tuple[str, ...] = tuple(ids)
        self.features = features

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int] | Indices) -> Actions:
        """The actions at `rows`, in that order."""
        return Actions([self.ids[i] for i in rows], self.features[np.asarray(rows, dtype=np.intp)])

    def at(self, row: int) -> tuple[str, Floats]:
        """The id of one action, and its features (da,)."""
        return self.ids[row], self.features[row]


class TakenActions(Actions):
    """Some of other actions, as `Actions.take` gives them, put together when somebody asks for more
    than one: most policies learn from the action alone that was drawn. They are those at `rows` of
    the others, `of`.
    """

    __slots__ = ("_taken", "of", "rows")

    def __init__(self, of: Actions, rows: Sequence[int]) -> None:
        self.of, self.rows = of, rows
        self._taken: Actions | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def _together(self) -> Actions:
        if self._taken is None:
            self._taken = self.of.take(self.rows)
        return self._taken

    @property
    def ids(self) -> tuple[str, ...]:  # type: ignore[override]  # as good as the attribute
        return self._together().ids

    @property
    def features(self) -> Floats:  # type: ignore[override]
        return self._together().features

    def at(self, row: int) -> tuple[str, Floats]:
        return self.of.at(self.rows[row])


class Placement(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An action shown at a position (0 is the first), and the propensity it was drawn with there,
    given the positions before it."""

    position: int
    action: str
    propensity: float


class Mask(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a rule did before the draw: at positions `start` ≤ k < `stop`, of the `eligible` only
    those at `rows` could be drawn (`only`), or those at `rows` could not."""

    rule: str
    start: int
    stop: int
    rows: tuple[int, ...]
    only: bool = False


class EntityUse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Which version of a table of features by id a decision saw: `asked` ids were looked up in it,
    of which `unknown` were not there. `version` is empty where the table had none yet."""

    table: str
    version: str
    asked: int = 0
    unknown: int = 0


class Stop(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A slate of no fixed length before its `position` was drawn: one more was expected to be worth
    `worth`, in units of the objective, and with `probability` the slate ended there. `reach`: how
    much more is earned where the slate stands than elsewhere, as far as it was known; `cost`: what
    one more had to be worth."""

    position: int
    worth: float
    probability: float
    reach: float = 1.0
    cost: float = 0.0


class ShadowDecision(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a variant that nobody sees yet would have done where another policy decided.

    `propensities` are those that it gives to the items which were shown, each given those above;
    `probabilities` all of its probabilities, as a decision's are. Both are left out where it has
    none to give, for the reason in `failure`: `late`, `resting` (too slow lately to be asked), or
    the name of the error. `latency_us` is its own time.
    """

    variant: str
    propensities: tuple[float, ...] = ()
    probabilities: tuple[tuple[float, ...], ...] | None = None
    latency_us: int = 0
    failure: str = ""


class Terms(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was added to the scores of K `eligible` actions before each draw of a slate, in logits:
    `boosts` (row → how much, where it is not 0), and less for what is alike what stands above:
    `diversity` times the largest of the likenesses in `alike` (for each placement from the first on
    that had another one below it, K hundredths, of 0 or less 0)."""

    boosts: tuple[tuple[int, float], ...] = ()
    diversity: float = 0.0
    alike: tuple[tuple[int, ...], ...] = ()

    def at(self, position: int, size: int) -> Floats:
        """(size,) what was added at a position."""
        by: Floats = np.zeros(size)
        for row, logits in self.boosts:
            by[row] = logits
        above = self.alike[:position]
        if above:
            by -= self.diversity * (np.array(above).max(axis=0) / 100.0)
        return by


class Decision(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    gc=False,
    rename={"decided_at": "at", "latency_us": "micros"},
):
    """What was decided, and all that is needed to reproduce and to evaluate it.

    `probabilities[k][j]` is the probability of `eligible[j]` at position k (0 for what was placed
    above); None when the matrix would be large: it is then reproducible from `policy_version`.
    `context` and `actions` are the JSON text as the caller sent it; `actions` is NULL where the
    experiment's own were offered. `decided_at` (microseconds since the epoch, UTC) is stamped by
    the log inside the committing transaction; `latency_us` is the engine's own time. A decision of
    a page names the `page` (the id of its page decision), its `layer` there, the row in which it
    has its `place`, and the `masks` that rules put on its positions. A slate whose length was drawn
    has `stops`, one for each position at which it could have ended, and ended by chance where the
    last of them is below its last placement. A placement's propensity is that of the action, given
    that there was one; `propensity` is of all, the length with it.
    `terms`: what was added to the scores, None where nothing was.
    `entities` are the tables that features were looked up in by id: those of the context stand in
    it as they were found, those of actions are in the versions that are named.
    `row_weight`: how many decisions an imported one stands for, where its log was sub-sampled; None
    is 1, as for all of our own.
    `shadows`: what variants in the shadow step of a launch would have done here.

    Encoded it has the names of 0.1.0 (`at`, `micros`), so that the rows of a log are the same
    whichever version wrote them; `msgspec.convert` takes those too.
    """

    decision_id: str
    experiment: str
    revision: str
    variant: str | None
    unit: str
    context: msgspec.Raw = msgspec.Raw(b"{}")
    actions: msgspec.Raw = NULL
    eligible: tuple[str, ...] = ()
    slate: tuple[Placement, ...] = ()
    propensity: float = 1.0
    probabilities: tuple[tuple[float, ...], ...] | None = None
    policy: str
    policy_version: int = 0
    reason: Reason
    request_hash: str = ""
    latency_us: int = 0
    decided_at: int = 0
    page: str = ""
    layer: str = ""
    place: str = ""
    masks: tuple[Mask, ...] = ()
    row_weight: float | None = None
    entities: tuple[EntityUse, ...] = ()
    stops: tuple[Stop, ...] = ()
    shadows: tuple[ShadowDecision, ...] = ()
    terms: Terms | None = None

    @property
    def length_propensity(self) -> float:
        """The probability with which the slate got as long as it is; 1 where that was fixed."""
        return length_propensity(self.stops, len(self.slate))


def length_propensity(stops: Sequence[Stop], length: int) -> float:
    """The probability that a slate with these `stops` went on until its `length`, and ended there
    where that was drawn.
    """
    propensity = 1.0
    for stop in stops:
        propensity *= stop.probability if stop.position == length else 1.0 - stop.probability
    return propensity


class RewardEvent(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    gc=False,
    rename={"received_at": "at"},
):
    """One reward event as it came. It belongs to a decision, or to one item of its slate.

    `occurred_at` is the caller's time, `received_at` the log's stamp (both microseconds since the
    epoch, UTC); encoded the latter is called `at`, as in 0.1.0.
    """

    decision_id: str
    event_id: str
    event: str
    value: float = 1.0
    action: str | None = None
    position: int | None = None
    occurred_at: int | None = None
    received_at: int = 0


class UnitEvent(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    gc=False,
    rename={"received_at": "at"},
):
    """Something that a unit did, which belongs to no decision: it came back, answered a survey,
    cancelled.

    `unit_type` is what experiments call their `unit` (profile_id), so that profile 7 and account 7
    stay apart. `occurred_at` is the caller's time, `received_at` the log's stamp, both as in
    `RewardEvent`.
    """

    unit: str
    unit_type: str
    event_id: str
    event: str
    value: float = 1.0
    action: str | None = None
    occurred_at: int | None = None
    received_at: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same event when it comes again: its id, under its unit."""
        return self.unit_type, self.unit, self.event_id


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The learned state of all policies of an experiment, and the log position that it includes.

    `watermark` is the last `seq` of `decisions` folded in; `states` maps variant to the policy's
    own bytes, `engines` the variants that a foreign library learns for to its package and version.
    A refit folds anew from after `start`, and learns what was fully matured at
    `refit_at` (µs) from all its rewards.
    """

    experiment: str
    version: int
    watermark: int
    fingerprint: str
    states: dict[str, bytes]
    start: int = 0
    refit_at: int = 0
    at: int = 0
    engines: dict[str, str] = {}


class SnapshotHead(NamedTuple):
    """What stands beside the state of a snapshot, which can be read also where the state cannot;
    the fields are those of `Snapshot`.
    """

    version: int
    watermark: int
    fingerprint: str
    start: int
    refit_at: int


RowKind = Literal["decision", "reward", "event"]
QuarantineStage = Literal["read", "publish", "learn"]


class QuarantinedRow(NamedTuple):
    """A row of the log that was set aside, so that the others could go on.

    `stage` says what could not be done with it: `read` it from the log, `publish` it to the lake,
    or `learn` from it. `id` is its decision_id or event_id, `belongs_to` what that is unique under:
    the decision of a reward, the unit of an event, nothing for a decision. `body` is the row's JSON
    where it would be lost otherwise. `quarantined_at` (µs since the epoch) is stamped by the log.
    """

    kind: RowKind
    stage: QuarantineStage
    experiment: str
    id: str
    belongs_to: str
    seq: int
    reason: str
    body: bytes = b""
    quarantined_at: int = 0


class Example(msgspec.Struct, frozen=True, gc=False):
    """One matured choice to learn from: `actions.ids[index]` was drawn with `propensity` from
    `actions` (those still eligible at its position) in context `x` (d), and earned `reward` in [0,
    1].

    `at` is in seconds since the epoch, for forgetting by time. `reach`: of a slate
    whose length was drawn, so that what an item earns at its place is to be learned too, how much
    more is earned where it stands than elsewhere; 0 for any other.
    """

    x: Floats
    actions: Actions
    index: int
    propensity: float
    reward: float
    position: int = 0
    at: float = 0.0
    reach: float = 0.0


class Scored(Protocol):
    """A policy's view of one decision: scores of all K actions, and probabilities of any that
    remain.
    """

    @property
    def mean(self) -> Floats | None:
        """(K,) expected reward per action, None for policies that do not estimate one."""

    @property
    def width(self) -> Floats | None:
        """(K,) one posterior standard deviation of the mean, None likewise."""

    def probabilities(self, remaining: Indices) -> Floats:
        """(len(remaining),) probabilities of the actions at those rows, summing to 1. Draws
        nothing.
        """
        ...


class Policy(Protocol):
    """Maps context and eligible actions to probabilities, and learns by folding examples in order.

    A policy never draws and never logs. `score` reads state and must not change it. `update` folds
    sequentially: one batch or many give the same state. `dump`/`load` restore bit-equal
    probabilities and never use pickle.
    """

    kind: ClassVar[str]
    Params: ClassVar[type[msgspec.Struct]]
    deterministic: ClassVar[bool]
    """Whether it may give an action probability 0, so that only `min_probability` makes its log
    evaluable."""
    default_spread: ClassVar[float]
    """Share of the draws that a file which says no `min_probability` spreads evenly over all
    actions: above 0 where a policy could otherwise settle on one for good."""

    @staticmethod
    def own_spread(params: Any) -> float:
        """Share of the draws that the policy itself spreads evenly over all actions, whatever it
        has learned, in [0, 1]; 0 where the probability of an action may fall to nothing.
        """
        ...

    def __init__(self, params: Any, *, context_size: int, action_size: int, seed: int) -> None: ...

    def score(self, x: Floats, actions: Actions, seed: int) -> Scored:
        """Score every action in context x. `seed` (from the decision id) drives any sampling
        inside.
        """
        ...

    def update(self, examples: Sequence[Example]) -> None: ...

    def dump(self) -> bytes: ...

    def load(self, blob: bytes) -> None: ...

    def explain(
        self, x: Floats, actions: Actions, names: tuple[Sequence[str], Sequence[str]]
    ) -> list[dict[str, float]]:
        """Per action, what each named feature (context names, action-feature names) adds to its
        score on the link scale; the values sum to it. Empty dicts where a policy has no such
        notion."""
        ...
