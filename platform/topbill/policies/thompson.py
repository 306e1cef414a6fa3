"""Thompson sampling with exact propensities: the probability that an action's score is the highest."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, ClassVar

import msgspec
import numpy as np
from scipy.linalg.lapack import dpotrf

from topbill.policies.bayes import LinearPolicy, LinearScored
from topbill.policies.linear import LinearParams, Prediction
from topbill.policies.quadrature import win_probabilities
from topbill.records import Actions, Floats, Indices

_TABLES, _LARGEST_TABLES = 64, 4_000_000
"""Tables of standard normals (fewer where they would hold more numbers than that): a decision's id picks one. So they
cost a decision nothing to draw, and neighbouring decisions don't share a table's errors."""


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
        columns = self.prediction.at.rank[remaining]
        if len(columns) < draws.shape[1]:
            winners = draws[:, columns].argmax(axis=1)
            wins = np.bincount(winners, minlength=len(columns))
        else:
            wins = np.bincount(draws.argmax(axis=1), minlength=len(columns))[columns]
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
    """(samples × K) draws from N(mean, scale²·(diag(own) + Z·common·Zᵀ)), antithetic in pairs.

    The columns are in the order of the actions' ids, so that an action's samples don't depend on its place.
    """
    common, rank = prediction.common, prediction.at.rank
    if common is None:
        raise ValueError("independent scores need no sampling")
    q, K, half = len(common), len(rank), samples // 2
    spread = np.zeros((q + K, K))
    spread[:q, rank] = (prediction.at.Z @ _root(common)).T
    if not isinstance(prediction.own, float):
        spread[rank + q, rank] = np.sqrt(np.maximum(prediction.own, 0.0))
    spread *= scale
    draws = np.empty((2 * half, K))
    tables = _normals(half, q + K)
    np.matmul(tables[seed % len(tables)], spread, out=draws[:half])
    np.negative(draws[:half], out=draws[half:])
    mean = np.empty(K)
    mean[rank] = prediction.mean
    draws += mean
    return draws


def _root(common: Floats) -> Floats:
    """A matrix L with L·Lᵀ = common (q × q): Cholesky's, or the eigenvectors' where common is singular."""
    root, singular = dpotrf(common, lower=1, clean=1)
    if singular:
        values, vectors = np.linalg.eigh(common)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
    return np.asarray(root)


@lru_cache(maxsize=64)
def _normals(rows: int, columns: int) -> Floats:
    """(tables × rows × columns) standard normals, the same in every process."""
    tables = max(1, min(_TABLES, _LARGEST_TABLES // (rows * columns)))
    return np.random.Generator(np.random.SFC64(columns)).standard_normal((tables, rows, columns))


class ThompsonParams(LinearParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`exploration` scales the posterior's standard deviation, `samples` is for correlated scores."""

    exploration: Annotated[float, msgspec.Meta(gt=0.0, description="factor on the posterior standard deviation")] = 0.15
    samples: Annotated[
        int, msgspec.Meta(ge=16, le=65536, description="joint posterior samples for correlated scores")
    ] = 128


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
