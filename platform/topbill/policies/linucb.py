"""LinUCB: the action with the highest upper confidence bound."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from topbill.domain.chance import greedy
from topbill.domain.records import Actions, Floats, Indices
from topbill.policies.linear.chances import GREEDY, Chances
from topbill.policies.linear.models import ActionIndex, Prediction
from topbill.policies.linear.policy import ExploringParams, LinearPolicy, LinearScored
from topbill.policies.linear.widening import of_quantile


class _Scored(LinearScored):
    __slots__ = ("_bound", "alpha")

    def __init__(
        self, prediction: Prediction, noise: float, logistic: bool, *, alpha: float
    ) -> None:
        super().__init__(prediction, noise, logistic)
        self.alpha = alpha
        self._bound: Floats | None = None

    def forget_drawn(self, by: Floats) -> None:  # noqa: ARG002
        self._bound = None

    @property
    def bound(self) -> Floats:
        """(K,) mean + alpha·width: one for all positions of a slate, which differ in what remains
        alone.
        """
        if self._bound is None:
            self._bound = self.prediction.bounds(self._noise, self.alpha)
        return self._bound

    def probabilities(self, remaining: Indices) -> Floats:
        return greedy(self.bound[remaining])


class LinUCBParams(ExploringParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`alpha` scales exploration at first."""

    alpha: Annotated[
        float,
        msgspec.Meta(ge=0.0, description="posterior standard deviations above the mean, at first"),
    ] = 0.8


class LinUCB(LinearPolicy):
    """argmax of mean + alpha·width (Li, Chu, Langford and Schapire 2010, algorithm 1), ties shared.

    `alpha` counts posterior standard deviations on the link scale: logits (Filippi et al. 2010), or
    rewards with their noise estimated from the residuals, so one value serves clicks at 1% and at
    50%. It rises with the evidence, since a bound that doesn't rise stays below the mean
    of another action for good where early luck was bad (`widening.of_quantile`). The paper's
    algorithm is `model: disjoint, link: linear, prior_scale: 1, adaptive: false`. Deterministic:
    only min_probability makes its log evaluable.
    """

    kind: ClassVar[str] = "linucb"
    deterministic: ClassVar[bool] = True

    Params: ClassVar[type[msgspec.Struct]] = LinUCBParams

    params: LinUCBParams

    @property
    def alpha(self) -> float:
        """Standard deviations above the mean, after what was learned up to now."""
        least = self.params.alpha
        if not self.params.adaptive:
            return least
        return of_quantile(least, self.evidence)

    def score(self, x: Floats, actions: Actions, seed: int) -> _Scored:  # noqa: ARG002
        prediction = self.predict(x, actions)
        return _Scored(prediction, self.noise, self.logistic, alpha=self.alpha)

    def chances(self, index: ActionIndex) -> Chances:  # noqa: ARG002
        return Chances(GREEDY, self.alpha, self.noise)
