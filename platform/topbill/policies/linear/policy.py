"""What the linear policies are: one Bayesian (generalised) linear model with what it needs to run
for years, and scores that each policy turns into probabilities in its own way.

The model's bases open with 1 and end with k = position/(1 + position), which is 0 at the first
position: what a lower place costs is learned, and every decision is scored as if for the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from topbill.domain.errors import PolicyError
from topbill.domain.example_batch import ExampleBatch
from topbill.domain.records import Actions, Example, Floats, Indices
from topbill.domain.slate import Slate, SlateRequest, SlatesRequest, TurnsRequest
from topbill.policies import codec
from topbill.policies.linear import widening
from topbill.policies.linear.chances import Chances, expected_rewards
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
from topbill.policies.linear.prior import ActionPrior
from topbill.policies.linear.recent import LEAD, RecentModels
from topbill.policies.linear.scaling import ContextScale
from topbill.policies.places import OPTIONAL, Places

SIGNAL = 30.0
"""Prior variance of what a whole context of unit scale adds to an action's score, however many
features it has;
"""
WEIGHT = 1.5
"""but a single weight's variance is at most this."""
INTERCEPT, SHARED = 0.1, 0.0625
"""Prior variances of an action's own intercept, and of a shared weight."""
BASE_RATE_LOGIT, BASE_RATE_LINEAR = 10.0, 1.0
"""Prior variances of the intercept that stands for the base rate, by link."""
FREQUENCIES, SMALL_CONTEXT = 16, 10
"""Fourier frequencies by default, in contexts of at most so many numbers;"""
FOURIER_SIGNAL = 1.0
"""what they add to an action's score has this prior variance, little: where taste is linear they
must not disturb.
"""
_VAGUE_RESIDUALS = (2.0, 0.5, 1.0)
"""Count, sum of squared errors and sum of rewards before any: a noise of 0.25, a mean of one
half."""
_FORGET_EVERY = 1.0 / 16.0
"""Forgetting inverts every matrix: it is done this often per half-life, and not at each example."""
_SEED = 20_231
_LOGIT_IN_REWARD = 0.25
"""What a logit is at most worth in rewards: the steepest slope of the logistic function."""
_ONE = np.ones(1)

Positive = Annotated[float, msgspec.Meta(gt=0.0)]


class LinearParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all linear policies share."""

    model: Annotated[
        Literal["disjoint", "shared", "hybrid"],
        msgspec.Meta(
            description="weights per action, weights on context × action features, or both"
        ),
    ] = "hybrid"
    link: Annotated[
        Literal["linear", "logistic"],
        msgspec.Meta(description="how a score becomes an expected reward"),
    ] = "logistic"
    half_life: Annotated[
        Positive | None,
        msgspec.Meta(
            description="learned examples after which an example counts half; never if absent"
        ),
    ] = None
    half_life_seconds: Annotated[
        Positive | None,
        msgspec.Meta(description="the same in seconds of decision time; at most one of the two"),
    ] = None
    prior_scale: Annotated[
        Positive | None,
        msgspec.Meta(
            description="prior standard deviation of a weight, in standard deviations of the "
            "reward's noise (linear link) or in logits (logistic link); if absent, what suits the "
            "number of features"
        ),
    ] = None
    fourier_features: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=256)] | None,
        msgspec.Meta(
            description="random Fourier frequencies among the features of an action's own weights, "
            "for taste that is not linear; if absent, 16 where a hybrid model meets a context of "
            "at most 10 numbers and actions without features, else none",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.fourier_features and self.model == "shared":
            raise ValueError(
                "fourier_features are of an action's own weights, which model: shared has not; "
                "choose hybrid"
            )
        if self.half_life is not None and self.half_life_seconds is not None:
            raise ValueError("half_life and half_life_seconds exclude each other; give one")


class ExploringParams(LinearParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the policies share whose exploration follows from what they believe."""

    adaptive: Annotated[
        bool,
        msgspec.Meta(
            description="whether exploration widens with what has been learned, and a short memory "
            "takes over where the world has suddenly changed; false keeps both as they are"
        ),
    ] = True


def _follows(params: LinearParams) -> bool:
    """Whether models with a short memory learn beside: not where somebody says how fast to forget,
    and not with the linear link, whose errors say nothing of likelihoods."""
    forgets = params.half_life is not None or params.half_life_seconds is not None
    adaptive = isinstance(params, ExploringParams) and params.adaptive
    return adaptive and not forgets and params.link == "logistic"


class LinearScored:
    """One decision's scores. `mean` and `width` are in rewards, `eta` and `sd` on the link
    scale.
    """

    __slots__ = ("_logistic", "_noise", "_sd", "eta", "prediction")

    def __init__(self, prediction: Prediction, noise: float, logistic: bool) -> None:
        self.prediction = prediction
        self.eta: Floats = prediction.mean
        self._noise = noise
        self._logistic = logistic
        self._sd: Floats | None = None

    @property
    def sd(self) -> Floats:
        """(K,) one posterior standard deviation of each score on the link scale."""
        if self._sd is None:
            self._sd = np.sqrt(self.prediction.variance * self._noise)
        return self._sd

    @property
    def mean(self) -> Floats:
        """(K,) expected reward of each action."""
        return expected_rewards(self.eta, self._logistic)

    @property
    def width(self) -> Floats:
        """(K,) one posterior standard deviation of the mean (delta method for the logistic
        link).
        """
        if not self._logistic:
            return self.sd
        p = self.mean
        return p * (1.0 - p) * self.sd

    def shifted(self, by: Floats) -> LinearScored:
        """The same with `by` (K,) added to the scores, in logits; with the linear link, a
        quarter of that in rewards.
        """
        other = copy(self)
        if not self._logistic:
            by = _LOGIT_IN_REWARD * by
        other.prediction = self.prediction._replace(mean=self.prediction.mean + by)
        other.eta = other.prediction.mean
        other.forget_drawn(by)
        return other

    def forget_drawn(self, by: Floats) -> None:
        """Take back what was derived from the scores, `by` (K,) having been added to them."""

    def probabilities(self, remaining: Indices) -> Floats:
        raise NotImplementedError


class LinearPolicy:
    """A policy over one linear model. Subclasses say how scores become probabilities.

    `residuals` (3,) are the count of rewards, the sum of their squared errors (linear link) and
    their sum, all fading with the half-life. Raises PolicyError on contexts and actions of another
    size than `context_size` and `action_size`.
    """

    kind: ClassVar[str]
    default_spread: ClassVar[float] = 0.0

    @staticmethod
    def own_spread(params: Any) -> float:  # noqa: ARG004
        """Nothing, unless a subclass explores by chance alone."""
        return 0.0

    @staticmethod
    def covariances(params: LinearParams, context_size: int, action_size: int, actions: int) -> int:
        """How many numbers the covariances of its weights are once it has met so many actions."""
        own, shared = _sizes(params, context_size, action_size)
        memories = 2 if _follows(params) else 1
        return memories * (shared**2 + (actions + 1) * own**2)

    def __init__(
        self,
        params: LinearParams,
        *,
        context_size: int,
        action_size: int,
        seed: int = 0,  # noqa: ARG002
    ) -> None:
        load()
        self.params = params
        self.d, self.da = context_size, action_size
        self.logistic = params.link == "logistic"
        self.index: dict[str, int] = {}
        # The same for all seeds: a policy's state must mean the same in every process that loads
        # it.
        self.fourier = Fourier(
            np.random.default_rng(_SEED),
            _frequencies(params, context_size, action_size),
            context_size,
        )
        # Who says how large weights are says so for contexts as they are written.
        self.scale = ContextScale(context_size if params.prior_scale is None else 0)
        self.models = self._untrained()
        self.recent = RecentModels(self._untrained()) if _follows(params) else None
        self._weights_of_action, self._weights_of_all = self._numbers_of_weights()
        self.learned = 0
        self.residuals = np.array(_VAGUE_RESIDUALS)
        self.places = Places()
        self.forgot_at = 0.0
        self._action_index = self._empty_index()
        self._drawing: Drawing | None = None

    def _untrained(self) -> LinearModels:
        """The model with its priors."""
        params = self.params
        base_rate = BASE_RATE_LOGIT if self.logistic else BASE_RATE_LINEAR
        of_shared, of_own, of_fourier = _priors(params, self.d, self.da, self.fourier.count)
        own_size, shared_size = _sizes(params, self.d, self.da)
        shared = np.full((1, shared_size), of_shared)
        # Slices, since a model may be without these weights.
        shared[:, :1] = base_rate
        own = np.full((1, own_size), of_own)
        own[:, self.d + 2 :] = of_fourier
        if params.prior_scale is None:
            own[:, :1] = INTERCEPT
        # A disjoint model has no shared intercept: each action learns the base rate by itself.
        if params.model == "disjoint" and self.logistic:
            own[:, :1] = base_rate
        return LinearModels(own, shared, np.ones(1), self.logistic)

    def _numbers_of_weights(self) -> tuple[float, float]:
        """How many weights tell an action from the others, in effect: of its own, and of those
        shared by all. How far down it was shown is none of them.
        """
        own = self.models.own.prior[0]
        own = np.concatenate([own[: self.d + 1], own[self.d + 2 :]])
        shared = 0 if self.params.model == "disjoint" else (self.d + 1) * self.da
        return widening.effective_number(own), float(shared)

    @property
    def evidence(self) -> float:
        """How much there was to learn the weights from that tell actions apart (`widening`)."""
        count = float(self.residuals[0]) - _VAGUE_RESIDUALS[0]
        return widening.evidence(
            count,
            self.base_rate_variance,
            max(len(self.index), 1),
            self._weights_of_action,
            self._weights_of_all,
        )

    def _empty_index(self) -> ActionIndex:
        return ActionIndex(Actions((), np.zeros((0, self.da))), {})

    @property
    def noise(self) -> float:
        """Estimated variance of a reward around its mean; 1 for the logistic link, whose likelihood
        knows it.
        """
        return 1.0 if self.logistic else float(self.residuals[1] / self.residuals[0])

    @property
    def base_rate_variance(self) -> float:
        """Variance of a click at the base rate seen so far, μ(1 − μ): the most that rewards in [0,
        1] can vary.
        """
        base = float(self.residuals[2] / self.residuals[0])
        return max(base * (1.0 - base), 1e-6)

    @property
    def independent(self) -> bool:
        """Whether scores of different actions vary independently, but for what moves no
        comparison.
        """
        return self.params.model == "disjoint" or self.da == 0

    def action_index(self, actions: Actions) -> ActionIndex:
        """Rows and features of `actions`, derived once per object and catalogue."""
        index = self._action_index
        if not index.is_for(actions, self.index):
            check_features(actions, self.da)
            index = self._action_index = ActionIndex(actions, self.index)
        return index

    def _basis(self, xt: Floats) -> Floats:
        """What an action's own weights are over: nothing, `xt`, or `xt` and its Fourier
        features.
        """
        if not self.fourier.count:
            return xt[: self.models.own.prior.shape[1]]
        out = np.empty(len(xt) + 2 * self.fourier.count)
        out[: len(xt)] = xt
        self.fourier.into(out[len(xt) :], xt[1:-1])
        return out

    def _bases(self, contexts: Floats) -> Floats:
        """(n × p) the same of many."""
        if not self.fourier.count:
            return np.ascontiguousarray(contexts[:, : self.models.own.prior.shape[1]])
        return np.array([self._basis(xt) for xt in contexts])

    def _extended(self, x: Floats) -> Floats:
        """(d + 2,) a context as the model reads it at the first position."""
        check_context(x, self.d)
        return extended(self.scale.of(x), self.d, 0)

    def predict(self, x: Floats, actions: Actions) -> Prediction:
        """Scores of `actions` in context x (d), in O(K·d²) and O(d²·da²)."""
        prediction = Prediction.empty(self.action_index(actions))
        xt = self._extended(x)
        self.models.predict(_ONE, self._basis(xt), xt, prediction)
        return prediction

    def slate(self, x: Floats, actions: Actions, request: SlateRequest) -> Slate | None:
        """The slate that `domain.slate.rank` draws of `score`, in compiled calls; None where it has
        to.
        """
        xt = self._extended(x)
        basis = self._basis(xt) if self.fourier.count else OF_X
        return self._drawing_of(actions).slate(xt[1:-1], request, basis)

    def slates(self, xs: Floats, actions: Actions, request: SlatesRequest) -> list[Slate] | None:
        """`slate` of several contexts (n × d), in one compiled call; None where it takes one for
        each.
        """
        check_contexts(xs, self.d)
        xs = self.scale.of(xs)
        bases = None
        if self.fourier.count:
            bases = np.array([self._basis(extended(x, self.d, 0)) for x in xs])
        return self._drawing_of(actions).slates(xs, request, bases, None)

    def turns(self, x: Floats, actions: Actions, request: TurnsRequest) -> list[Slate] | None:
        """`slate` of several decisions whose positions have their own choices of all `actions`, in
        one compiled call; None where it takes one for each.
        """
        xt = self._extended(x)
        basis = self._basis(xt) if self.fourier.count else OF_X
        return self._drawing_of(actions).turns(xt[1:-1], request, basis)

    def _drawing_of(self, actions: Actions) -> Drawing:
        """What draws slates of these, until something is learned."""
        drawing = self._drawing
        index = self.action_index(actions)
        if drawing is not None and drawing.index is not index:
            # Those of a page are others with each row.
            drawing = self._drawing = drawing.of_others(index)
        if drawing is None:
            models, chances = Weighed(self.models, _ONE), self.chances(index)
            if self.fourier.count:
                drawing = Drawing(index, chances, more=models)
            else:
                drawing = Drawing(index, chances, models)
            self._drawing = drawing
        return drawing

    def chances(self, index: ActionIndex) -> Chances:
        """How compiled calls make probabilities of scores."""
        raise NotImplementedError

    def begin(self, prior: ActionPrior) -> None:
        """Expect of actions what earlier experiments tell, before anything is learned."""
        self._drawing = None
        self.models.begin(prior)
        if self.recent is not None:
            self.recent.models.begin(prior)
        # Beginning anew would lose it.
        self.scale = ContextScale.as_written(self.scale.size)

    def update(self, examples: Sequence[Example]) -> None:
        """Fold examples in, in order. Raises PolicyError for contexts and actions of other
        sizes.
        """
        self._drawing = None
        batch = ExampleBatch.of(examples, self.d, self.da)
        self.scale.fold(batch, self._update, self._begin_anew)

    def _begin_anew(self) -> None:
        """Give up all weights: contexts are read on another scale from now on."""
        self.models = self._untrained()
        if self.recent is not None:
            self.recent = RecentModels(self._untrained())
        self.index = {}
        self._action_index = self._empty_index()

    def _update(self, batch: ExampleBatch) -> None:
        """Fold examples in that are read on one scale."""
        if not self._forgets and not batch.reaches.any():
            self._fold(batch)
            self.learned += len(batch)
            return
        folded = 0
        reaches = batch.reaches.tolist()
        for i, at in enumerate(batch.times.tolist()):
            keep = self._kept(at)
            if keep < 1.0 or reaches[i]:
                # What comes now reads what all before it have taught.
                self._fold(batch[folded:i])
                folded = i
            if keep < 1.0:
                self._forget(keep)
            if reaches[i]:
                example = batch[i]
                expected = example.reach * self._at_first(example)
                self.places.note(example.position, expected, example.reward)
            self.learned += 1
        self._fold(batch[folded:])

    def learn(self, example: Example) -> None:
        """Fold one example in."""
        self.update([example])

    def _fold(self, batch: ExampleBatch) -> None:
        """Fold in examples between which nothing is forgotten, in one compiled call."""
        if not len(batch):
            return
        contexts = extended_contexts(batch)
        contexts[:, 1:-1] = self.scale.of(batch.contexts)
        rows = np.array([self._row(name) for name in batch.ids], dtype=np.intp)
        features = extended_features(batch.features)
        told = rows, self._bases(contexts), contexts, features, batch.rewards
        count, squared, total = self.residuals.tolist()
        if self.recent is not None:
            self.recent.learn(self.models, *told)
        else:
            errors = self.models.learn(*told)[:, 0]
            if not self.logistic:
                # What the linear link predicts is its squared error; the logistic link knows its
                # noise.
                for error in errors.tolist():
                    squared += error
        for reward in batch.rewards.tolist():
            count += 1.0
            total += reward
        self.residuals = np.array([count, squared, total])

    def _at_first(self, example: Example) -> float:
        """The mean of an example's action at the first place, as it is before it is learned."""
        prediction = self.predict(example.x, example.actions.take([example.index]))
        return float(LinearScored(prediction, self.noise, self.logistic).mean[0])

    def _row(self, name: str) -> int:
        """The row of an action's own weights, new with the prior if need be; 0 where actions have
        none.
        """
        if self.params.model == "shared":
            return 0
        row = self.index.get(name)
        if row is None:
            row = self.index[name] = self.models.own.add()
            if self.recent is not None:
                self.recent.models.own.add()
        return row

    @property
    def _forgets(self) -> bool:
        """Whether it has a half-life."""
        return self.params.half_life is not None or self.params.half_life_seconds is not None

    def _kept(self, at: float) -> float:
        """The share of all evidence that the half-life leaves of what there was the last time that
        it said so; `at` in seconds.
        """
        by_count, by_seconds = self.params.half_life, self.params.half_life_seconds
        if by_count is not None:
            return self._faded(float(self.learned), by_count)
        if by_seconds is not None:
            # The first example starts the clock.
            if self.forgot_at == 0.0:
                self.forgot_at = at
            return self._faded(at, by_seconds)
        return 1.0

    def _forget(self, keep: float) -> None:
        """Keep that share of all evidence."""
        vague = np.array(_VAGUE_RESIDUALS)
        self.residuals = keep * self.residuals + (1.0 - keep) * vague
        self.models.forget(keep)
        self.places.forget(keep)

    def _faded(self, now: float, half_life: float) -> float:
        """The share of evidence that is left of what was there when it last faded; 1 where that is
        too short ago to be worth it.
        """
        age = now - self.forgot_at
        if age < half_life * _FORGET_EVERY:
            return 1.0
        self.forgot_at = now
        return float(0.5 ** (age / half_life))

    def dump(self) -> bytes:
        """The state as bytes."""
        numbers = {"learned": float(self.learned), "forgot_at": self.forgot_at}
        arrays = {
            "residuals": self.residuals,
            **self.models.arrays(),
            **self.places.arrays(),
            **self.scale.arrays(),
        }
        if self.recent is not None:
            arrays.update(self.recent.arrays())
        return codec.dump(self.kind, ids=list(self.index), arrays=arrays, numbers=numbers)

    def load(self, blob: bytes) -> None:
        """Restore what `dump` wrote, or raise PolicyError and change nothing."""
        shapes: dict[str, tuple[int | None, ...]] = {"residuals": (3,), **self.models.shapes()}
        scale = ContextScale(self.scale.size)
        recent = RecentModels(self._untrained()) if _follows(self.params) else None
        state = codec.load(
            self.kind,
            blob,
            arrays=shapes,
            numbers=("learned", "forgot_at"),
            optional={
                **OPTIONAL,
                **self.models.optional(),
                **scale.shapes(),
                **({} if recent is None else recent.shapes()),
            },
        )
        self.models.check(state)
        learned = codec.number(state, "learned")
        codec.check_rows(state, self.kind)
        count = state.arrays["residuals"][0]
        if count <= 0.0:
            raise PolicyError(f"state of {self.kind}: residuals count {count}; {codec.LEARN_ANEW}")
        places = Places()
        places.restore(state)
        scale.restore(state, is_new=learned == 0.0 and "spread" not in state.arrays)
        # A state of before there was a short memory goes on without one.
        if recent is not None and LEAD in state.arrays:
            recent.restore(state)
        else:
            recent = None
        # Everything is checked: from here on nothing fails, so that no half of a state is taken.
        self.places = places
        self.scale = scale
        self.recent = recent
        self.models.restore(state)
        self.index = {name: i + 1 for i, name in enumerate(state.ids)}
        self.residuals = state.arrays["residuals"]
        self.learned = int(learned)
        self.forgot_at = state.numbers["forgot_at"]
        self._action_index = self._empty_index()
        self._drawing = None

    def explain(
        self, x: Floats, actions: Actions, names: tuple[Sequence[str], Sequence[str]]
    ) -> list[dict[str, float]]:
        """Per action, what each feature adds to its score on the link scale; `a×b` are
        interactions.
        """
        index = self.action_index(actions)
        xt = self._extended(x)
        context = ["", *names[0], "position"]
        features = ["", *names[1]]
        basis = self._basis(xt)
        labels = context + ["fourier_features"] * 2 * self.fourier.count
        out = []
        for k in range(len(actions)):
            parts = Parts()
            own = self.models.own.mean[index.rows[k], 0] * basis
            # A shared model has no own weights, and fewer values than labels.
            for label, value in zip(labels, own.tolist(), strict=False):
                parts.add(label, value)
            if self.params.model != "disjoint":
                weights = self.models.shared.mean.reshape(self.d + 2, self.da + 1)
                products = weights * np.multiply.outer(xt, index.Z[k])
                parts.add_products(context, features, products)
            out.append(parts.by_label)
        return out


class Parts:
    """What adds up to a score, by label; what has none belongs to the intercept."""

    def __init__(self) -> None:
        self.by_label: dict[str, float] = {}

    def add(self, label: str, value: float) -> None:
        """Add a value to what its label has."""
        label = label or "intercept"
        self.by_label[label] = self.by_label.get(label, 0.0) + value

    def add_products(
        self, context: Sequence[str], features: Sequence[str], products: Floats
    ) -> None:
        """Add what each context × feature makes, `products` (context × features)."""
        for left, row in zip(context, products.tolist(), strict=True):
            for right, value in zip(features, row, strict=True):
                self.add(f"{left}×{right}" if left and right else left or right, value)


def _frequencies(params: LinearParams, context_size: int, action_size: int) -> int:
    """How many frequencies `params` ask for: by default some where a context is small and tells all
    there is.
    """
    if params.fourier_features is not None:
        return params.fourier_features if context_size else 0
    small = 0 < context_size <= SMALL_CONTEXT
    return FREQUENCIES if params.model == "hybrid" and small and not action_size else 0


def _sizes(params: LinearParams, context_size: int, action_size: int) -> tuple[int, int]:
    """How many weights each action has of its own, and how many all share."""
    context = context_size + 2
    frequencies = _frequencies(params, context_size, action_size)
    own = 0 if params.model == "shared" else context + 2 * frequencies
    shared = 0 if params.model == "disjoint" else context * (action_size + 1)
    return own, shared


def _priors(
    params: LinearParams, context_size: int, action_size: int, frequencies: int
) -> tuple[float, float, float]:
    """Prior variances of a shared weight, of one of an action's own, and of one over a Fourier
    feature.

    What actions' features explain is no longer their own: each takes three parts of the signal
    away.
    """
    if params.prior_scale is not None:
        variance = params.prior_scale**2
        return 0.25 * variance, variance, variance
    parts = 1 + 3 * action_size if params.model == "hybrid" else 1
    of_own = min(WEIGHT, SIGNAL / max(context_size, 1)) / parts
    of_fourier = FOURIER_SIGNAL / max(frequencies, 1) / parts
    return SHARED, of_own, of_fourier
