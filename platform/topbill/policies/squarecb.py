"""SquareCB: inverse gap weighting, which explores an action the less the further it lies behind the
best.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
import numpy as np

from topbill.domain.records import Actions, Floats, Indices
from topbill.policies.linear.policy import LinearParams, LinearPolicy, LinearScored


class _Scored(LinearScored):
    __slots__ = ("gamma",)
    gamma: float

    def probabilities(self, remaining: Indices) -> Floats:
        mean = self.mean[remaining]
        gap = mean.max() - mean
        best = gap == 0.0
        p = 1.0 / (len(mean) + self.gamma * gap)
        p[best] = 0.0
        p[best] = (1.0 - p.sum()) / np.count_nonzero(best)
        return np.asarray(p)


class SquareCBParams(LinearParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`gamma_scale` scales greediness."""

    gamma_scale: Annotated[
        float, msgspec.Meta(gt=0.0, description="greediness; larger explores less")
    ] = 20.0


class SquareCB(LinearPolicy):
    """p(a) = 1/(K + γ·gap(a)), the best takes the rest (Foster and Rakhlin 2020, algorithm 1); ties
    share.

    γ = gamma_scale·√n/σ after n learned examples, with σ the standard deviation of the reward
    around its base rate, so that one scale serves clicks at 1% and at 50%.
    """

    kind: ClassVar[str] = "squarecb"
    deterministic: ClassVar[bool] = False

    Params: ClassVar[type[msgspec.Struct]] = SquareCBParams

    params: SquareCBParams

    def score(self, x: Floats, actions: Actions, seed: int) -> _Scored:  # noqa: ARG002
        noise = self.model.noise
        scored = _Scored(self.model.predict(x, actions), noise, self._logistic)
        scored.gamma = self.params.gamma_scale * (self.model.learned / self.model.spread) ** 0.5
        return scored
