"""SquareCB: inverse gap weighting, which explores an action the less the further it lies behind the
best.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from topbill.domain.records import Actions, Floats, Indices
from topbill.policies.linear.chances import GAPS, Chances
from topbill.policies.linear.models import ActionIndex, Prediction
from topbill.policies.linear.policy import ExploringParams, LinearPolicy, LinearScored
from topbill.policies.linear.widening import of_gaps


class _Scored(LinearScored):
    __slots__ = ("gamma",)

    def __init__(
        self, prediction: Prediction, noise: float, logistic: bool, *, gamma: float
    ) -> None:
        super().__init__(prediction, noise, logistic)
        self.gamma = gamma

    def probabilities(self, remaining: Indices) -> Floats:
        from topbill.policies.linear import kernels, sampling

        rewards = kernels.expected_rewards(self.eta, self._logistic)
        return sampling.inverse_gap(rewards[remaining], self.gamma)


class SquareCBParams(ExploringParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`gamma_scale` scales greediness at first."""

    gamma_scale: Annotated[
        float, msgspec.Meta(gt=0.0, description="greediness at first; larger explores less")
    ] = 20.0


class SquareCB(LinearPolicy):
    """p(a) = 1/(K + γ·gap(a)), the best takes the rest (Foster and Rakhlin 2020, algorithm 1); ties
    share.

    γ = gamma_scale·√n/σ after n learned examples, with σ the standard deviation of the reward
    around its base rate, so that one scale serves clicks at 1% and at 50%; gamma_scale falls with
    the evidence (`widening.of_gaps`).
    """

    kind: ClassVar[str] = "squarecb"
    deterministic: ClassVar[bool] = False

    Params: ClassVar[type[msgspec.Struct]] = SquareCBParams

    params: SquareCBParams

    @property
    def gamma(self) -> float:
        """γ, after what was learned up to now."""
        root_of_evidence = (self.learned / self.base_rate_variance) ** 0.5
        scale = self.params.gamma_scale
        if self.params.adaptive:
            scale = of_gaps(scale, self.evidence)
        return float(scale * root_of_evidence)

    def score(self, x: Floats, actions: Actions, seed: int) -> _Scored:  # noqa: ARG002
        return _Scored(self.predict(x, actions), self.noise, self.logistic, gamma=self.gamma)

    def chances(self, index: ActionIndex) -> Chances:  # noqa: ARG002
        return Chances(GAPS, chance=self.gamma, logistic=self.logistic)
