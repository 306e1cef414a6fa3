"""`auto`: the policy without settings, a small ensemble that finds out what kind of stream it is on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from topbill.chance import greedy
from topbill.errors import PolicyError
from topbill.policies import codec
from topbill.policies.experts import Design, Expert
from topbill.policies.linear import Layout
from topbill.records import Actions, Example, Floats, Indices

DESIGNS = (
    Design("tight", fourier=False, signal=0.5, intercept=0.1, shared=0.03, keep=1.0),
    Design("wide", fourier=False, signal=15.0, intercept=0.2, shared=0.05, keep=1.0),
    Design("moving", fourier=False, signal=15.0, intercept=0.2, shared=0.05, keep=0.8),
    Design("curved", fourier=True, signal=20.0, intercept=0.2, shared=0.05, keep=0.99),
)
"""One setting for all streams: little taste per action, much, much that changes, and taste that is not linear."""

FREQUENCIES = 40
"""Random frequencies of the Fourier features, each a cosine and a sine."""
BANDWIDTH = 0.7
"""Their scale: standardised contexts this far apart, per √d, look different."""
MEMORY = 0.998
"""What is left per example of the log scores that weigh the experts: the last few hundred count."""
TEMPER = 0.5
"""The power of a log score. Below 1, since experts are judged only on the actions that were chosen: the one that
expects nothing predicts well where it explores nothing, and must not silence those who could know better."""
LEAST_WEIGHT = 0.01
"""Experts below it are left out of decisions."""
PRODUCT_LIMIT = 320
"""Shared weights; larger products of context and action features are sketched by random projection."""
ALL_EXACT = 32
"""Up to so many actions all get exact widths; of more,"""
SCREEN = 16
"""so many of the most promising."""
_SEED = 20_231


class AutoParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`auto` needs no parameters."""

    alpha: Annotated[
        float, msgspec.Meta(ge=0.0, description="optimism: posterior standard deviations above the mean")
    ] = 0.4


class _Scored:
    """Blended logits `eta` and their standard deviations `sd`."""

    __slots__ = ("alpha", "eta", "sd")

    def __init__(self, eta: Floats, sd: Floats, alpha: float) -> None:
        self.eta, self.sd, self.alpha = eta, sd, alpha

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
    """An upper confidence bound on a blend of four Bayesian logistic models, weighted by how well they predict.

    Weights are proportional to exp(`TEMPER` · discounted sum of log scores) (Vovk 1990; Raftery, Kárný and Ettler
    2010), the blend is on the logit scale, and the bound adds `alpha` times the root of the blended variances. The
    logit scale is what adapts priors and exploration to the base rate. Deterministic: only a floor makes its log
    evaluable.
    """

    kind: ClassVar[str] = "auto"
    Params: ClassVar[type[msgspec.Struct]] = AutoParams
    deterministic: ClassVar[bool] = True

    def __init__(self, params: AutoParams, *, context_size: int, action_size: int, seed: int = 0) -> None:  # noqa: ARG002
        self.params = params
        self.d, self.da = context_size, action_size
        # The same for all seeds: a policy's state must mean the same in every process that loads it.
        random = np.random.default_rng(_SEED)
        self._frequencies = random.standard_normal((FREQUENCIES, context_size))
        self._frequencies /= BANDWIDTH * max(context_size, 1) ** 0.5
        r, q = _sketch_sizes(context_size, action_size)
        self._narrow_context = _sketch(random, context_size, r)
        self._narrow_features = _sketch(random, action_size, q)
        self.experts = [
            Expert(design, 2 * FREQUENCIES + 2, FREQUENCIES, r + 2, q + 1)
            if design.fourier
            else Expert(design, context_size + 2, context_size, r + 2, q + 1)
            for design in DESIGNS
        ]
        self.log_scores = np.zeros(len(self.experts))
        self.index: dict[str, int] = {}
        self._layout = self._arrange(Actions((), np.zeros((0, action_size))))

    @property
    def weights(self) -> Floats:
        """(experts,) how much each expert counts, summing to 1; those below `LEAST_WEIGHT` at 0."""
        w = np.exp(TEMPER * (self.log_scores - self.log_scores.max()))
        w /= w.sum()
        w[w < LEAST_WEIGHT] = 0.0
        return np.asarray(w / w.sum())

    def _arrange(self, actions: Actions) -> Layout:
        at = Layout(actions, self.index)
        if self._narrow_features is not None:
            at.Z = np.concatenate([at.Z[:, :1], actions.features @ self._narrow_features], axis=1)
        return at

    def _at(self, actions: Actions) -> Layout:
        at = self._layout
        if at.actions is not actions or at.known != len(self.index):
            if actions.features.shape != (len(actions), self.da):
                raise PolicyError(f"actions.features is {actions.features.shape}, expected {(len(actions), self.da)}")
            at = self._layout = self._arrange(actions)
        return at

    def _bases(self, x: Floats, position: int, curved: bool = True) -> tuple[Floats, Floats, Floats]:
        """Linear basis, Fourier basis and the context of shared weights: each opens with 1 and ends with the place."""
        if x.shape != (self.d,):
            raise PolicyError(f"context has shape {x.shape}, expected ({self.d},)")
        place = position / (1.0 + position)
        linear = np.empty(self.d + 2)
        linear[0], linear[1:-1], linear[-1] = 1.0, x, place
        shared = linear if self._narrow_context is None else np.concatenate([[1.0], x @ self._narrow_context, [place]])
        if not curved:
            return linear, linear, shared
        phase = self._frequencies @ x
        fourier = np.empty(2 * FREQUENCIES + 2)
        fourier[0], fourier[-1] = 1.0, place
        np.cos(phase, out=fourier[1 : FREQUENCIES + 1])
        np.sin(phase, out=fourier[FREQUENCIES + 1 : -1])
        return linear, fourier, shared

    def score(self, x: Floats, actions: Actions, seed: int) -> _Scored:  # noqa: ARG002
        at, weights = self._at(actions), self.weights.tolist()
        counted = [(w, e) for w, e in zip(weights, self.experts, strict=True) if w]
        linear, fourier, shared = self._bases(x, 0, any(e.design.fourier for _, e in counted))
        bases = [(w, e, fourier if e.design.fourier else linear) for w, e in counted]
        eta = sum(w * e.mean(basis, shared, at) for w, e, basis in bases)
        if len(actions) <= ALL_EXACT:
            sd = _spread(sum(w * e.variance(basis, shared, at) for w, e, basis in bases))
        else:
            sd = self._screened(bases, shared, at, np.asarray(eta))
        return _Scored(np.asarray(eta), sd, self.params.alpha)

    def _screened(self, bases: list[tuple[float, Expert, Floats]], shared: Floats, at: Layout, eta: Floats) -> Floats:
        """(K,) standard deviations, exact for the `SCREEN` most promising actions; others stay below those."""
        alpha = self.params.alpha
        sd = _spread(sum(w * e.rough_variance(basis, shared, at) for w, e, basis in bases))
        best = np.argpartition(eta + alpha * sd, -SCREEN)[-SCREEN:]
        few = at.take(best)
        exact = _spread(sum(w * e.variance(basis, shared, few) for w, e, basis in bases))
        sd[best] = exact
        if alpha:
            limit = float((eta[best] + alpha * sd[best]).min())
            sd = np.where(eta + alpha * sd > limit, np.maximum((limit - eta) / alpha, 0.0), sd)
            sd[best] = exact
        return sd

    def update(self, examples: Sequence[Example]) -> None:
        for example in examples:
            self._learn(example)

    def _learn(self, example: Example) -> None:
        linear, fourier, shared = self._bases(example.x, example.position)
        z = example.actions.features[example.index]
        if self._narrow_features is not None:
            z = z @ self._narrow_features
        product = np.multiply.outer(shared, np.concatenate([_ONE, z])).ravel()
        name = example.actions.ids[example.index]
        row = self.index.get(name)
        if row is None:
            for expert in self.experts:
                expert.own.add()
            self.index[name] = row = self.experts[0].own.size - 1
        scores = [e.learn(row, fourier if e.design.fourier else linear, product, example.reward) for e in self.experts]
        self.log_scores *= MEMORY
        self.log_scores += scores

    def dump(self) -> bytes:
        arrays = {"log_scores": self.log_scores}
        for e in self.experts:
            n, name = e.own.size, e.design.name
            arrays |= {f"{name}_own_mean": e.own.mean[:n], f"{name}_own_cov": e.own.cov[:n]}
            arrays |= {f"{name}_shared_mean": e.shared.mean, f"{name}_shared_cov": e.shared.cov}
        return codec.dump(self.kind, ids=list(self.index), arrays=arrays)

    def load(self, blob: bytes) -> None:
        shapes: dict[str, tuple[int | None, ...]] = {"log_scores": self.log_scores.shape}
        for e in self.experts:
            for part, rows in (("own", None), ("shared", 1)):
                p = e.own.prior_mean.size if part == "own" else e.shared.prior_mean.size
                shapes[f"{e.design.name}_{part}_mean"] = rows, p
                shapes[f"{e.design.name}_{part}_cov"] = rows, p, p
        state = codec.load(self.kind, blob, arrays=shapes, numbers=())
        codec.check_rows(state, self.kind)
        for e in self.experts:
            for part, blocks in (("own", e.own), ("shared", e.shared)):
                name = f"{e.design.name}_{part}"
                blocks.restore(state.arrays[f"{name}_mean"], state.arrays[f"{name}_cov"])
        self.log_scores = state.arrays["log_scores"]
        self.index = {name: i + 1 for i, name in enumerate(state.ids)}
        self._layout = self._arrange(Actions((), np.zeros((0, self.da))))

    def explain(
        self, x: Floats, actions: Actions, names: tuple[Sequence[str], Sequence[str]]
    ) -> list[dict[str, float]]:
        """Per action, what each feature adds to the blended logit; `curves` is what is not linear in the context."""
        at, weights = self._at(actions), self.weights.tolist()
        linear, fourier, shared = self._bases(x, 0)
        left = ["", *names[0]] if self._narrow_context is None else ["", *["context mix"] * (len(shared) - 2)]
        right = ["", *names[1]] if self._narrow_features is None else ["", *["action mix"] * (at.Z.shape[1] - 1)]
        out: list[dict[str, float]] = [{} for _ in actions.ids]
        for weight, e in zip(weights, self.experts, strict=True):
            basis = fourier if e.design.fourier else linear
            own = weight * e.own.mean[at.rows] * basis
            mixed = weight * e.shared.mean.reshape(len(shared), -1) * shared[:, None]
            labels = ["intercept", *(["curves"] * 2 * FREQUENCIES if e.design.fourier else names[0])]
            for k, told in enumerate(out):
                for label, value in zip(labels, own[k, :-1].tolist(), strict=True):
                    told[label] = told.get(label, 0.0) + value
                for i, row in enumerate((mixed[:-1] * at.Z[k]).tolist()):
                    for j, value in enumerate(row):
                        label = "×".join(filter(None, (left[i], right[j]))) or "intercept"
                        told[label] = told.get(label, 0.0) + value
        return out


_ONE = np.ones(1)


def _spread(variance: Floats | float) -> Floats:
    return np.sqrt(np.maximum(variance, 0.0))


def _sketch_sizes(d: int, da: int) -> tuple[int, int]:
    """How many context and action features the shared weights see: all, if the product is within the limit."""
    if (d + 2) * (da + 1) <= PRODUCT_LIMIT:
        return d, da
    q = min(da, 15)
    return min(d, PRODUCT_LIMIT // (q + 1) - 2), q


def _sketch(random: np.random.Generator, size: int, target: int) -> Floats | None:
    return None if size == target else random.standard_normal((size, target)) / target**0.5
