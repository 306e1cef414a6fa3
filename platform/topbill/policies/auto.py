"""`auto`: the policy without settings, a small ensemble that finds out what kind of stream it is
on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from topbill.domain.chance import greedy
from topbill.domain.example_batch import ExampleBatch
from topbill.domain.records import Actions, Example, Floats, Indices
from topbill.domain.slate import Slate, SlateRequest, SlatesRequest
from topbill.domain.sums import plain_sum
from topbill.policies import codec
from topbill.policies.linear.chances import GREEDY, Chances
from topbill.policies.linear.drawing import OF_X, Drawing, Weighed, load
from topbill.policies.linear.fourier import Fourier
from topbill.policies.linear.models import (
    ActionIndex,
    LinearModels,
    Prediction,
    check_context,
    check_contexts,
    check_features,
    extended,
    extended_contexts,
    extended_features,
)
from topbill.policies.linear.policy import Parts
from topbill.policies.linear.prior import ActionPrior
from topbill.policies.linear.scaling import ContextScale
from topbill.policies.places import OPTIONAL, Places


@dataclass(frozen=True, slots=True)
class Expert:
    """What makes one of the models. Prior variances are on the logit scale.

    Attributes:
        name: What it is good at.
        fourier: An action's own weights are over random Fourier features of the context (Rahimi and
            Recht 2007), which make any smooth taste linear; otherwise over the context itself.
        signal: The prior variance of what a whole context of unit scale adds to an action's logit,
            however many features it has.
        intercept: Of one weight: how much actions differ in popularity.
        shared: Of one shared weight.
        keep: The share of older evidence that an update leaves in the directions it informs.
        prior_log_weight: Most streams have little taste, until rewards show otherwise.
    """

    name: str
    fourier: bool
    signal: float
    intercept: float
    shared: float
    keep: float
    prior_log_weight: float = 0.0


EXPERTS = (
    Expert(
        "tight",
        fourier=False,
        signal=0.5,
        intercept=0.05,
        shared=0.03,
        keep=0.998,
        prior_log_weight=1.5,
    ),
    Expert("popular", fourier=False, signal=0.5, intercept=1.0, shared=0.03, keep=0.998),
    Expert("wide", fourier=False, signal=15.0, intercept=0.2, shared=0.05, keep=1.0),
    Expert("moving", fourier=False, signal=15.0, intercept=0.2, shared=0.05, keep=0.8),
    Expert("curved", fourier=True, signal=20.0, intercept=0.2, shared=0.05, keep=0.99),
)
"""One setting for all streams: little taste per action, the same with actions that differ much in
popularity, much taste, much that changes, and taste that is not linear."""

INTERCEPT_PRIOR = 10.0
"""Prior variance of the common intercept: base rates from 0.2% to 99.8% lie within two standard
deviations.
"""
FREQUENCIES = 40
"""Random frequencies of the Fourier features, each a cosine and a sine."""
MEMORY = 0.998
"""What is left per example of the log scores that weigh the experts: the last few hundred count.
Where rewards are rare, or nearly sure, an example tells less, and more of them count: (1 −
MEMORY)·4p(1 − p) is lost."""
TEMPERATURE = 0.8
"""The power of a log score. Below 1, since experts are judged only on the actions that were chosen:
the one that expects nothing predicts well where it explores nothing, and must not silence those who
could know better."""
MIN_PROBABILITY = 1e-12
"""No log score is of less probability."""
LEAST_WEIGHT = 0.01
"""Experts below it are left out of decisions."""
STEADY, STEADY_LOG_WEIGHT = "wide", 2.0
"""Without a context there is no taste, and three experts say the same of popularity but for what
they forget. The one that forgets nothing counts by so much more in decisions: titles of one article
live for some thousand views and tens of clicks, of which none can be spared."""
PRODUCT_LIMIT = 320
"""Shared weights; larger products of context and action features are sketched by random
projection.
"""
MOST_SKETCHED_FEATURES = 15
"""Action features that a sketch keeps at most."""
_SEED = 20_231
_ONE = np.ones(1)


class AutoParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`auto` needs no parameters."""

    alpha: Annotated[
        float,
        msgspec.Meta(ge=0.0, description="optimism: posterior standard deviations above the mean"),
    ] = 0.8


class _Scored:
    """Blended logits `eta` and their standard deviations `sd`."""

    __slots__ = ("alpha", "eta", "sd")

    def __init__(self, prediction: Prediction, alpha: float) -> None:
        self.eta = prediction.mean
        self.alpha = alpha
        if _all_alike(prediction.action_index):
            prediction.common[:] = 0.0
        self.sd: Floats = np.sqrt(prediction.variance)

    @property
    def mean(self) -> Floats:
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(self.eta, -500.0, 500.0))))

    @property
    def width(self) -> Floats:
        p = self.mean
        return np.asarray(p * (1.0 - p) * self.sd)

    def shifted(self, by: Floats) -> _Scored:
        """The same with `by` (K,) added to the scores, in logits."""
        other = copy(self)
        other.eta = self.eta + by
        return other

    def probabilities(self, remaining: Indices) -> Floats:
        return greedy(self.eta[remaining] + self.alpha * self.sd[remaining])


class Auto:
    """An upper confidence bound on a blend of five Bayesian logistic models, weighted by how well
    they predict.

    Weights are proportional to exp(prior log weight + `TEMPERATURE` · discounted sum of log scores)
    (Vovk 1990; Raftery, Kárný and Ettler 2010), the blend is on the logit scale, and the bound adds
    `alpha` times the root of the blended variances. The logit scale is what adapts priors and
    exploration to the base rate. Deterministic: only min_probability makes its log evaluable.

    `straight` and `curved` are the models over the context and over its Fourier features, `experts`
    what they are in that order, `weights` (experts,) how much each counts.
    """

    kind: ClassVar[str] = "auto"
    Params: ClassVar[type[msgspec.Struct]] = AutoParams
    deterministic: ClassVar[bool] = True
    default_spread: ClassVar[float] = 0.02

    @staticmethod
    def own_spread(params: AutoParams) -> float:  # noqa: ARG004
        """Nothing: it shows the highest bound."""
        return 0.0

    @staticmethod
    def covariances(
        params: AutoParams,  # noqa: ARG004
        context_size: int,
        action_size: int,  # noqa: ARG004
        actions: int,
    ) -> int:
        """How many numbers the covariances of its weights are once it has met so many actions,
        without the shared ones, which stay few.
        """
        straight = sum(not expert.fourier for expert in EXPERTS)
        return (actions + 1) * straight * (context_size + 2) ** 2

    def __init__(
        self,
        params: AutoParams,
        *,
        context_size: int,
        action_size: int,
        seed: int = 0,  # noqa: ARG002
    ) -> None:
        load()
        self.params = params
        self.d, self.da = context_size, action_size
        # The same for all seeds: a policy's state must mean the same in every process that loads
        # it. The order of these draws is part of that meaning.
        random = np.random.default_rng(_SEED)
        self._fourier = Fourier(random, FREQUENCIES, context_size)
        r, q = _sketch_sizes(context_size, action_size)
        self._context_sketch = _sketch(random, context_size, r)
        self._feature_sketch = _sketch(random, action_size, q)
        straight = [expert for expert in EXPERTS if not expert.fourier]
        curved = [expert for expert in EXPERTS if expert.fourier]
        self.experts = (*straight, *curved)
        self.scale = ContextScale(context_size)
        self._begin_anew()
        self._trust = _trust(self.experts, context_size)
        self.places = Places()

    def _begin_anew(self) -> None:
        """Models with their priors."""
        d = self.d
        r, q = _sketch_sizes(d, self.da)
        count = sum(not expert.fourier for expert in self.experts)
        straight, curved = self.experts[:count], self.experts[count:]
        self.straight = _models(straight, d + 2, d, r + 2, q + 1)
        self.curved = _models(curved, 2 * FREQUENCIES + 2, FREQUENCIES, r + 2, q + 1)
        self.log_scores = np.zeros(len(self.experts))
        self.index: dict[str, int] = {}
        self.weights = _weights(self.log_scores.tolist(), self.experts)
        self._action_index = self._empty_index()
        self._drawing: Drawing | None = None

    def _empty_index(self) -> ActionIndex:
        return self._index_of(Actions((), np.zeros((0, self.da))))

    def _index_of(self, actions: Actions) -> ActionIndex:
        index = ActionIndex(actions, self.index)
        if self._feature_sketch is not None:
            sketched = actions.features @ self._feature_sketch
            index.Z = np.concatenate([index.Z[:, :1], sketched], axis=1)
        return index

    def action_index(self, actions: Actions) -> ActionIndex:
        """Rows and features of `actions`, derived once per object and catalogue."""
        index = self._action_index
        if not index.is_for(actions, self.index):
            check_features(actions, self.da)
            index = self._action_index = self._index_of(actions)
        return index

    def _bases(self, x: Floats, position: int) -> tuple[Floats, Floats]:
        """The basis of straight experts' own weights and the context of shared ones: (1, …, how far
        down).
        """
        check_context(x, self.d)
        linear = extended(self.scale.of(x), self.d, position)
        return linear, self._shared(linear)

    def _shared(self, linear: Floats) -> Floats:
        """The context of shared weights, from the basis of straight experts' own."""
        if self._context_sketch is None:
            return linear
        return np.concatenate([_ONE, linear[1:-1] @ self._context_sketch, linear[-1:]])

    def _curved_basis(self, linear: Floats) -> Floats:
        """The same over random Fourier features."""
        out = np.empty(2 * FREQUENCIES + 2)
        out[0] = 1.0
        out[-1] = linear[-1]
        self._fourier.into(out[1:-1], linear[1:-1])
        return out

    def score(self, x: Floats, actions: Actions, seed: int) -> _Scored:  # noqa: ARG002
        return self._scored(x, actions, self._weights_in_decisions())

    def _scored(self, x: Floats, actions: Actions, weights: Floats) -> _Scored:
        """The experts blended with `weights` (experts,)."""
        prediction = Prediction.empty(self.action_index(actions))
        linear, shared = self._bases(x, 0)
        straight, curved = self._by_basis(weights)
        self.straight.predict(straight, linear, shared, prediction)
        if curved.any():
            self.curved.predict(curved, self._curved_basis(linear), shared, prediction)
        return _Scored(prediction, self.params.alpha)

    def slate(self, x: Floats, actions: Actions, request: SlateRequest) -> Slate | None:
        """The slate that `domain.slate.rank` draws of `score`, in compiled calls; None where it has
        to.
        """
        check_context(x, self.d)
        drawing = self._drawing_of(actions)
        if not drawing.has_more and self._context_sketch is None:
            return drawing.slate(self.scale.of(x), request)
        linear, context = self._bases(x, 0)
        basis = self._curved_basis(linear) if drawing.has_more else OF_X
        return drawing.slate(linear[1:-1], request, basis, context)

    def slates(self, xs: Floats, actions: Actions, request: SlatesRequest) -> list[Slate] | None:
        """`slate` of several contexts (n × d), in one compiled call; None where it takes one for
        each.
        """
        check_contexts(xs, self.d)
        drawing = self._drawing_of(actions)
        if not drawing.has_more and self._context_sketch is None:
            return drawing.slates(self.scale.of(xs), request, None, None)
        made = [self._bases(x, 0) for x in xs]
        bases = None
        if drawing.has_more:
            bases = np.array([self._curved_basis(linear) for linear, _ in made])
        contexts = np.array([context for _, context in made])
        return drawing.slates(self.scale.of(xs), request, bases, contexts)

    def _drawing_of(self, actions: Actions) -> Drawing:
        """What draws slates of these, until something is learned."""
        index = self.action_index(actions)
        drawing = self._drawing
        if drawing is None or drawing.index is not index:
            straight, curved = self._by_basis(self._weights_in_decisions())
            chances = Chances(GREEDY, self.params.alpha, alone=_all_alike(index))
            models = Weighed(self.straight, straight), Weighed(self.curved, curved)
            # Sines and cosines cost more than all else: not where nobody listens to them.
            drawing = Drawing(index, chances, *(models if curved.any() else models[:1]))
            self._drawing = drawing
        return drawing

    def _weights_in_decisions(self) -> Floats:
        """(experts,) how much each counts when somebody waits for a decision."""
        if self._trust is None:
            return self.weights
        weights = self.weights * self._trust
        return np.asarray(weights / weights.sum(), dtype=np.float64)

    def _by_basis(self, weights: Floats) -> tuple[Floats, Floats]:
        """Those of the experts that are over the context, and over its Fourier features."""
        count = len(self.straight)
        return weights[:count], weights[count:]

    def begin(self, prior: ActionPrior) -> None:
        """Expect of actions what earlier experiments tell, before anything is learned. What
        features tell is left out where the models see a mix of them.
        """
        self._drawing = None
        if self._feature_sketch is not None:
            prior = msgspec.structs.replace(prior, means=(), variances=())
        self.straight.begin(prior)
        self.curved.begin(prior)
        # Beginning anew would lose it.
        self.scale = ContextScale.as_written(self.d)

    def update(self, examples: Sequence[Example]) -> None:
        self._drawing = None
        batch = ExampleBatch.of(examples, self.d, self.da)
        self.scale.fold(batch, self._update, self._begin_anew)

    def _update(self, batch: ExampleBatch) -> None:
        """Fold examples in that are read on one scale."""
        folded = 0
        for i in np.flatnonzero(batch.reaches).tolist():
            # What comes now reads what all before it have taught.
            self._fold(batch[folded:i])
            folded = i
            example = batch[i]
            alone = example.actions.take([example.index])
            # Not as decisions weigh them: what is learned follows from predictions alone.
            mean = self._scored(example.x, alone, self.weights).mean[0]
            expected = example.reach * float(mean)
            self.places.note(example.position, expected, example.reward)
        self._fold(batch[folded:])

    def _fold(self, batch: ExampleBatch) -> None:
        """Fold in examples, the models in one compiled call each."""
        if not len(batch):
            return
        linear = extended_contexts(batch)
        linear[:, 1:-1] = self.scale.of(batch.contexts)
        chosen = batch.features
        if self._feature_sketch is not None:
            chosen = np.array([z @ self._feature_sketch for z in chosen])
        features = extended_features(chosen)
        shared = linear
        if self._context_sketch is not None:
            shared = np.array([self._shared(xt) for xt in linear])
        curved = np.array([self._curved_basis(xt) for xt in linear])
        rows = np.array([self._row(name) for name in batch.ids], dtype=np.intp)
        rewards = batch.rewards
        # Prequential: each is scored by what it expected before it learned.
        predicted = np.concatenate(
            [
                self.straight.learn(rows, linear, shared, features, rewards),
                self.curved.learn(rows, curved, shared, features, rewards),
            ],
            axis=1,
        )
        self._weigh(predicted, rewards)

    def _weigh(self, predicted: Floats, rewards: Floats) -> None:
        """Weigh the experts by what they expected of n rewards, `predicted` (n × experts), one
        after the other.
        """
        spread = predicted * (1.0 - predicted)
        earned = rewards[:, None] * np.log(np.maximum(predicted, MIN_PROBABILITY))
        missed = (1.0 - rewards)[:, None] * np.log(np.maximum(1.0 - predicted, MIN_PROBABILITY))
        scores, weights = self.log_scores.tolist(), self.weights
        for own, gain, loss in zip(spread, earned.tolist(), missed.tolist(), strict=True):
            informative = min(1.0, 4.0 * float(weights @ own))
            left = 1.0 - (1.0 - MEMORY) * informative
            scores = [left * s + a + b for s, a, b in zip(scores, gain, loss, strict=True)]
            weights = _weights(scores, self.experts)
        self.log_scores, self.weights = np.array(scores), weights

    def _row(self, name: str) -> int:
        """The row of an action's own weights, the same in all models."""
        row = self.index.get(name)
        if row is None:
            row = self.index[name] = self.straight.own.add()
            self.curved.own.add()
        return row

    def dump(self) -> bytes:
        arrays = {
            "log_scores": self.log_scores,
            **self.straight.arrays("straight_"),
            **self.curved.arrays("curved_"),
            **self.places.arrays(),
            **self.scale.arrays(),
        }
        return codec.dump(self.kind, ids=list(self.index), arrays=arrays)

    def load(self, blob: bytes) -> None:
        shapes: dict[str, tuple[int | None, ...]] = {
            "log_scores": self.log_scores.shape,
            **self.straight.shapes("straight_"),
            **self.curved.shapes("curved_"),
        }
        scale = ContextScale(self.d)
        optional = {
            **OPTIONAL,
            **scale.shapes(),
            **self.straight.optional("straight_"),
            **self.curved.optional("curved_"),
        }
        state = codec.load(self.kind, blob, arrays=shapes, numbers=(), optional=optional)
        self.straight.check(state, "straight_")
        self.curved.check(state, "curved_")
        codec.check_rows(state, self.kind)
        places = Places()
        places.restore(state)
        is_new = not state.ids and "straight_spread" not in state.arrays
        scale.restore(state, is_new)
        # Everything is checked: from here on nothing fails, so that no half of a state is taken.
        self.places = places
        self.scale = scale
        self.straight.restore(state, "straight_")
        self.curved.restore(state, "curved_")
        self.log_scores = state.arrays["log_scores"]
        self.index = {name: i + 1 for i, name in enumerate(state.ids)}
        self.weights = _weights(self.log_scores.tolist(), self.experts)
        self._action_index = self._empty_index()
        self._drawing = None

    def explain(
        self, x: Floats, actions: Actions, names: tuple[Sequence[str], Sequence[str]]
    ) -> list[dict[str, float]]:
        """Per action, what each feature adds to the blended logit; `fourier_features` is what is
        not linear in the context.
        """
        index = self.action_index(actions)
        linear, shared = self._bases(x, 0)
        parts = [Parts() for _ in actions.ids]
        straight, curved = self._by_basis(self._weights_in_decisions())
        context, features = self._labels(names)
        for models, weights, basis, labels in (
            (self.straight, straight, linear, names[0]),
            (
                self.curved,
                curved,
                self._curved_basis(linear),
                ["fourier_features"] * 2 * FREQUENCIES,
            ),
        ):
            for e, weight in enumerate(weights.tolist()):
                own = weight * models.own.mean[index.rows, e] * basis
                coefficients = models.shared.mean[0, e].reshape(len(shared), -1)
                mixed = weight * coefficients * shared[:, None]
                # The last of each basis is how far down, which is 0 in a decision.
                for k, part in enumerate(parts):
                    for label, value in zip(["", *labels], own[k, :-1].tolist(), strict=True):
                        part.add(label, value)
                    part.add_products(context, features, mixed[:-1] * index.Z[k])
        return [part.by_label for part in parts]

    def _labels(
        self, names: tuple[Sequence[str], Sequence[str]]
    ) -> tuple[Sequence[str], Sequence[str]]:
        """What shared weights are over: names, or that it is a mix of them."""
        context, features = names
        if self._context_sketch is not None:
            context = ["context mix"] * self._context_sketch.shape[1]
        if self._feature_sketch is not None:
            features = ["action mix"] * self._feature_sketch.shape[1]
        return ["", *context], ["", *features]


def _all_alike(index: ActionIndex) -> bool:
    """Whether actions have no features: then what is shared is the same for all of them. How
    uncertain that is moves no comparison, and would only make all bounds equal.
    """
    return bool(index.Z.shape[1] == 1)


def _weights(log_scores: Sequence[float], experts: Sequence[Expert]) -> Floats:
    """(experts,) how much each expert counts, summing to 1; those below `LEAST_WEIGHT` at 0.

    In Python's floats: for five numbers that is faster than NumPy.
    """
    scores = [
        TEMPERATURE * score + expert.prior_log_weight
        for score, expert in zip(log_scores, experts, strict=True)
    ]
    # Less the best one, so that no exponential overflows and one is at least 1.
    best = max(scores)
    weights = [math.exp(score - best) for score in scores]
    least = LEAST_WEIGHT * plain_sum(weights)
    weights = [weight if weight >= least else 0.0 for weight in weights]
    total = plain_sum(weights)
    return np.array([weight / total for weight in weights])


def _trust(experts: Sequence[Expert], context_size: int) -> Floats | None:
    """(experts,) by what factor each counts more in decisions than by its predictions; None where
    all count by these alone.
    """
    if context_size:
        return None
    return np.array([math.exp(STEADY_LOG_WEIGHT * (e.name == STEADY)) for e in experts])


def _models(
    experts: Sequence[Expert], basis_size: int, norm: int, context_size: int, features_size: int
) -> LinearModels:
    """Models over one basis; `norm` is its expected square but for the intercept.

    What actions' features explain is no longer their own: each feature takes an equal part of the
    signal away.
    """
    own = np.empty((len(experts), basis_size))
    shared = np.empty((len(experts), context_size * features_size))
    for e, expert in enumerate(experts):
        own[e] = expert.signal / (max(norm, 1) * features_size)
        own[e, 0] = expert.intercept
        shared[e] = expert.shared
        shared[e, 0] = INTERCEPT_PRIOR
    keep = np.array([expert.keep for expert in experts])
    return LinearModels(own, shared, keep)


def _sketch_sizes(d: int, da: int) -> tuple[int, int]:
    """How many context and action features the shared weights see: all, if the product is within
    the limit.
    """
    if (d + 2) * (da + 1) <= PRODUCT_LIMIT:
        return d, da
    q = min(da, MOST_SKETCHED_FEATURES)
    return min(d, PRODUCT_LIMIT // (q + 1) - 2), q


def _sketch(random: np.random.Generator, size: int, target: int) -> Floats | None:
    """(size × target) a projection that keeps lengths on average (Johnson and Lindenstrauss 1984);
    None where nothing has to be sketched.
    """
    if size == target:
        return None
    return np.asarray(random.standard_normal((size, target)) / target**0.5)
