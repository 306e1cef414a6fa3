"""Thompson sampling with exact propensities: the probability that an action's score is the highest."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
import numpy as np

from topbill.policies.bayes import LinearPolicy, LinearScored
from topbill.policies.linear import LinearParams, Prediction
from topbill.policies.quadrature import win_probabilities
from topbill.records import Actions, Floats, Indices


class _Scored(LinearScored):
    __slots__ = ("_draws", "params", "scale", "seed")
    params: ThompsonParams
    scale: float
    seed: int

    def probabilities(self, remaining: Indices) -> Floats:
        if self.prediction.common is None:
            own = self.prediction.own
            sd = self.sd if isinstance(own, float) else np.sqrt(np.maximum(own, 1e-300)) * self.scale
            return win_probabilities(self.eta[remaining], sd[remaining] * self.params.exploration)
        return self._shares(remaining)

    def _shares(self, remaining: Indices) -> Floats:
        """Shares of wins among joint posterior samples, lifted so that no action is at zero."""
        draws = self._sampled()
        wins = np.bincount(draws[:, remaining].argmax(axis=1), minlength=len(remaining))
        mix = 1.0 / (1.0 + len(draws))
        return np.asarray(wins * ((1.0 - mix) / len(draws)) + mix / len(remaining))

    def _sampled(self) -> Floats:
        """(samples × K) joint posterior samples of the scores, the same at every position of a slate."""
        if not hasattr(self, "_draws"):
            self._draws: Floats = _joint(
                self.prediction, self.params.samples, self.scale * self.params.exploration, self.seed
            )
        return self._draws


def _joint(prediction: Prediction, samples: int, scale: float, seed: int) -> Floats:
    """(samples × K) draws from N(mean, scale²·(diag(own) + Z·common·Zᵀ)), antithetic in pairs."""
    common = prediction.common
    if common is None:
        raise ValueError("independent scores need no sampling")
    q, K = len(common), len(prediction.mean)
    values, vectors = np.linalg.eigh(common)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    normals = np.random.Generator(np.random.SFC64(seed)).standard_normal((samples // 2, q + K))
    moved = normals[:, :q] @ (prediction.at.Z @ root).T
    if not isinstance(prediction.own, float):
        moved += normals[:, q + prediction.at.rank] * np.sqrt(np.maximum(prediction.own, 0.0))
    moved *= scale
    return np.concatenate([prediction.mean + moved, prediction.mean - moved])


class ThompsonParams(LinearParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`exploration` scales the posterior's standard deviation, `samples` is for correlated scores."""

    exploration: Annotated[float, msgspec.Meta(gt=0.0, description="factor on the posterior standard deviation")] = 0.5
    samples: Annotated[
        int, msgspec.Meta(ge=16, le=65536, description="joint posterior samples for correlated scores")
    ] = 256


class Thompson(LinearPolicy):
    """Thompson (1933) sampling over a Bayesian linear model (Agrawal and Goyal 2013).

    Scores that are independent across actions (model `disjoint`, or no action features) get their exact
    probabilities by quadrature. Correlated scores get the shares of wins among joint samples, mixed with a
    floor of 1/(samples + 1): that very vector is then the policy's probabilities.
    """

    kind: ClassVar[str] = "thompson"
    deterministic: ClassVar[bool] = False

    Params: ClassVar[type[msgspec.Struct]] = ThompsonParams

    params: ThompsonParams

    def score(self, x: Floats, actions: Actions, seed: int) -> _Scored:
        noise = self.model.noise
        scored = _Scored(self.model.predict(x, actions), noise, self._logistic)
        scored.params, scored.scale, scored.seed = self.params, noise**0.5, seed
        return scored
