"""SquareCB: inverse gap weighting, which explores an action the less the further it lies behind the
best.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from topbill.domain.chance import inverse_gap
from topbill.domain.records import Actions, Floats, Indices
from topbill.policies.linear.models import Prediction
from topbill.policies.linear.policy import LinearParams, LinearPolicy, LinearScored


class _Scored(LinearScored):
    __slots__ = ("gamma",)

    def __init__(
        self, prediction: Prediction, noise: float, logistic: bool, *, gamma: float
    ) -> None:
        super().__init__(prediction, noise, logistic)
        self.gamma = gamma

    def probabilities(self, remaining: Indices) -> Floats:
        return inverse_gap(self.mean[remaining], self.gamma)


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
        root_of_evidence = (self.learned / self.base_rate_variance) ** 0.5
        gamma = self.params.gamma_scale * root_of_evidence
        return _Scored(self.predict(x, actions), self.noise, self.logistic, gamma=gamma)
