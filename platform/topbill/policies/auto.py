"""`auto`: the policy without settings, a small ensemble that finds out what kind of stream it is
on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from topbill.domain.chance import greedy
from topbill.domain.errors import PolicyError
from topbill.domain.records import Actions, Example, Floats, Indices
from topbill.policies import codec
from topbill.policies.linear.fourier import Fourier
from topbill.policies.linear.models import Experts, Layout, Prediction, extended


@dataclass(frozen=True, slots=True)
class Design:
    """What makes an expert. Prior variances are on the logit scale.

    `fourier`: an action's own weights are over random Fourier features of the context (Rahimi and
    Recht 2007), which make any smooth taste linear; otherwise over the context itself. `signal` is
    the prior variance of what a whole context of unit scale adds to an action's logit, however many
    features it has; `intercept` and `shared` are of one weight. `keep` is the share of older
    evidence that an update leaves in the directions it informs. `favour` is the expert's prior log
    weight: most streams have little taste, until rewards tell otherwise.
    """

    name: str
    fourier: bool
    signal: float
    intercept: float
    shared: float
    keep: float
    favour: float = 0.0


DESIGNS = (
    Design("tight", fourier=False, signal=0.5, intercept=0.05, shared=0.03, keep=0.998, favour=1.5),
    Design("popular", fourier=False, signal=0.5, intercept=1.0, shared=0.03, keep=0.998),
    Design("wide", fourier=False, signal=15.0, intercept=0.2, shared=0.05, keep=1.0),
    Design("moving", fourier=False, signal=15.0, intercept=0.2, shared=0.05, keep=0.8),
    Design("curved", fourier=True, signal=20.0, intercept=0.2, shared=0.05, keep=0.99),
)
"""One setting for all streams: little taste per action, the same with actions that differ much in
popularity, much taste, much that changes, and taste that is not linear."""

WIDE = 10.0
"""Prior variance of the common intercept: base rates from 0.2% to 99.8% lie within two standard
deviations.
"""
FREQUENCIES = 40
"""Random frequencies of the Fourier features, each a cosine and a sine."""
MEMORY = 0.998
"""What is left per example of the log scores that weigh the experts: the last few hundred count.
Where rewards are rare, or nearly sure, an example tells less, and more of them count: (1 −
MEMORY)·4p(1 − p) is lost."""
TEMPER = 0.8
"""The power of a log score. Below 1, since experts are judged only on the actions that were chosen:
the one that expects nothing predicts well where it explores nothing, and must not silence those who
could know better."""
SURE = 1e-12
"""No log score is of less probability."""
LEAST_WEIGHT = 0.01
"""Experts below it are left out of decisions."""
PRODUCT_LIMIT = 320
"""Shared weights; larger products of context and action features are sketched by random
projection.
"""
_SEED = 20_231


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
        self.eta, self.alpha = prediction.mean, alpha
        # Without action features, what is shared is the same for all actions.
        together = prediction.at.Z.shape[1] == 1
        self.sd: Floats = np.sqrt(prediction.own if together else prediction.variance)

    @property
    def mean(self) -> Floats:
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(self.eta, -500.0, 500.0))))

    @property
    def width(self) -> Floats:
        p = self.mean
        return np.asarray(p * (1.0 - p) * self.sd)

    def probabilities(self, remaining: Indices) -> Floats:
        return greedy(self.eta[remaining] + self.alpha * self.sd[remaining])


class Auto:
    """An upper confidence bound on a blend of five Bayesian logistic models, weighted by how well
    they predict.

    Weights are proportional to exp(favour + `TEMPER` · discounted sum of log scores) (Vovk 1990;
    Raftery, Kárný and Ettler 2010), the blend is on the logit scale, and the bound adds `alpha`
    times the root of the blended variances. The logit scale is what adapts priors and exploration
    to the base rate. Deterministic: only min_probability makes its log evaluable.
    """

    kind: ClassVar[str] = "auto"
    Params: ClassVar[type[msgspec.Struct]] = AutoParams
    deterministic: ClassVar[bool] = True

    def __init__(
        self,
        params: AutoParams,
        *,
        context_size: int,
        action_size: int,
        seed: int = 0,  # noqa: ARG002
    ) -> None:
        self.params = params
        self.d, self.da = context_size, action_size
        # The same for all seeds: a policy's state must mean the same in every process that loads
        # it.
        random = np.random.default_rng(_SEED)
        self._fourier = Fourier(random, FREQUENCIES, context_size)
        r, q = _sketch_sizes(context_size, action_size)
        self._narrow_context = _sketch(random, context_size, r)
        self._narrow_features = _sketch(random, action_size, q)
        straight = [d for d in DESIGNS if not d.fourier]
        curved = [d for d in DESIGNS if d.fourier]
        self.designs = *straight, *curved
        self.straight = _experts(straight, context_size + 2, context_size, r + 2, q + 1)
        self.curved = _experts(curved, 2 * FREQUENCIES + 2, FREQUENCIES, r + 2, q + 1)
        self.log_scores = np.zeros(len(DESIGNS))
        self.index: dict[str, int] = {}
        self._weigh()
        self._layout = self._arrange(Actions((), np.zeros((0, action_size))))

    def _weigh(self) -> None:
        """(experts,) `weights`: how much each expert counts, summing to 1; those below
        `LEAST_WEIGHT` at 0.
        """
        told = zip(self.log_scores.tolist(), self.designs, strict=True)
        scores = [TEMPER * score + design.favour for score, design in told]
        best = max(scores)
        raw = [math.exp(score - best) for score in scores]
        least = LEAST_WEIGHT * sum(raw)
        kept = [w if w >= least else 0.0 for w in raw]
        total = sum(kept)
        self.weights = np.array([w / total for w in kept])

    def _arrange(self, actions: Actions) -> Layout:
        at = Layout(actions, self.index)
        if self._narrow_features is not None:
            at.Z = np.concatenate([at.Z[:, :1], actions.features @ self._narrow_features], axis=1)
        return at

    def _at(self, actions: Actions) -> Layout:
        at = self._layout
        if at.actions is not actions or at.known != len(self.index):
            if actions.features.shape != (len(actions), self.da):
                raise PolicyError(
                    f"actions.features is {actions.features.shape}, expected {(len(actions), self.da)}"
                )
            at = self._layout = self._arrange(actions)
        return at

    def _bases(self, x: Floats, position: int) -> tuple[Floats, Floats]:
        """The basis of straight experts' own weights and the context of shared ones: (1, …, how far
        down).
        """
        linear = extended(x, self.d, position)
        if self._narrow_context is None:
            return linear, linear
        return linear, np.concatenate([_ONE, x @ self._narrow_context, linear[-1:]])

    def _waves(self, linear: Floats) -> Floats:
        """The same over random Fourier features."""
        out = np.empty(2 * FREQUENCIES + 2)
        out[0], out[-1] = 1.0, linear[-1]
        self._fourier.into(out[1:-1], linear[1:-1])
        return out

    def score(self, x: Floats, actions: Actions, seed: int) -> _Scored:  # noqa: ARG002
        out = Prediction.empty(self._at(actions))
        linear, shared = self._bases(x, 0)
        cut = len(self.straight)
        self.straight.predict(self.weights[:cut], linear, shared, out)
        if self.weights[cut:].any():
            self.curved.predict(self.weights[cut:], self._waves(linear), shared, out)
        return _Scored(out, self.params.alpha)

    def update(self, examples: Sequence[Example]) -> None:
        for example in examples:
            self._learn(example)

    def _learn(self, example: Example) -> None:
        linear, shared = self._bases(example.x, example.position)
        z = example.actions.features[example.index]
        if self._narrow_features is not None:
            z = z @ self._narrow_features
        product = np.multiply.outer(shared, np.concatenate([_ONE, z])).ravel()
        name = example.actions.ids[example.index]
        row = self.index.get(name)
        if row is None:
            row = self.index[name] = self.straight.own.add()
            self.curved.own.add()
        p = np.concatenate(
            [
                self.straight.learn(row, linear, product, example.reward),
                self.curved.learn(row, self._waves(linear), product, example.reward),
            ]
        )
        self.log_scores *= 1.0 - (1.0 - MEMORY) * min(
            1.0, 4.0 * float(self.weights @ (p * (1.0 - p)))
        )
        self.log_scores += example.reward * np.log(np.maximum(p, SURE))
        self.log_scores += (1.0 - example.reward) * np.log(np.maximum(1.0 - p, SURE))
        self._weigh()

    def dump(self) -> bytes:
        arrays = (
            {"log_scores": self.log_scores}
            | self.straight.arrays("straight_")
            | self.curved.arrays("curved_")
        )
        return codec.dump(self.kind, ids=list(self.index), arrays=arrays)

    def load(self, blob: bytes) -> None:
        shapes: dict[str, tuple[int | None, ...]] = {"log_scores": self.log_scores.shape}
        shapes |= self.straight.shapes("straight_") | self.curved.shapes("curved_")
        state = codec.load(self.kind, blob, arrays=shapes, numbers=())
        codec.check_rows(state, self.kind)
        self.straight.restore(state, "straight_")
        self.curved.restore(state, "curved_")
        self.log_scores = state.arrays["log_scores"]
        self.index = {name: i + 1 for i, name in enumerate(state.ids)}
        self._weigh()
        self._layout = self._arrange(Actions((), np.zeros((0, self.da))))

    def explain(
        self, x: Floats, actions: Actions, names: tuple[Sequence[str], Sequence[str]]
    ) -> list[dict[str, float]]:
        """Per action, what each feature adds to the blended logit; `fourier_features` is what is not linear
        in the context.
        """
        at = self._at(actions)
        linear, shared = self._bases(x, 0)
        cut = len(self.straight)
        counted = [(w, self.straight, e, linear) for e, w in enumerate(self.weights[:cut].tolist())]
        counted += [
            (w, self.curved, e, self._waves(linear))
            for e, w in enumerate(self.weights[cut:].tolist())
        ]
        left = (
            ["", *names[0]]
            if self._narrow_context is None
            else ["", *["context mix"] * (len(shared) - 2)]
        )
        right = (
            ["", *names[1]]
            if self._narrow_features is None
            else ["", *["action mix"] * (at.Z.shape[1] - 1)]
        )
        out: list[dict[str, float]] = [{} for _ in actions.ids]
        for weight, experts, e, basis in counted:
            own = weight * experts.own.mean[at.rows, e] * basis
            mixed = weight * experts.shared.mean[0, e].reshape(len(shared), -1) * shared[:, None]
            labels = [
                "intercept",
                *(["fourier_features"] * 2 * FREQUENCIES if experts is self.curved else names[0]),
            ]
            for k, told in enumerate(out):
                for label, value in zip(labels, own[k, :-1].tolist(), strict=True):
                    told[label] = told.get(label, 0.0) + value
                for i, row in enumerate((mixed[:-1] * at.Z[k]).tolist()):
                    for j, value in enumerate(row):
                        label = "×".join(filter(None, (left[i], right[j]))) or "intercept"
                        told[label] = told.get(label, 0.0) + value
        return out


_ONE = np.ones(1)


def _experts(
    designs: list[Design], basis_size: int, norm: int, context_size: int, features_size: int
) -> Experts:
    """Experts over one basis; `norm` is its expected square but for the intercept.

    What actions' features explain is no longer their own: each feature takes an equal part of the
    signal away.
    """
    own = np.empty((len(designs), basis_size))
    own[:] = [[d.signal / (max(norm, 1) * features_size)] for d in designs]
    own[:, 0] = [d.intercept for d in designs]
    shared = np.empty((len(designs), context_size * features_size))
    shared[:] = [[d.shared] for d in designs]
    shared[:, 0] = WIDE
    return Experts(own, shared, np.array([d.keep for d in designs]))


def _sketch_sizes(d: int, da: int) -> tuple[int, int]:
    """How many context and action features the shared weights see: all, if the product is within
    the limit.
    """
    if (d + 2) * (da + 1) <= PRODUCT_LIMIT:
        return d, da
    q = min(da, 15)
    return min(d, PRODUCT_LIMIT // (q + 1) - 2), q


def _sketch(random: np.random.Generator, size: int, target: int) -> Floats | None:
    return None if size == target else random.standard_normal((size, target)) / target**0.5
