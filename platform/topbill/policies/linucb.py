"""LinUCB: the action with the highest upper confidence bound."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from topbill.domain.chance import greedy
from topbill.domain.records import Actions, Floats, Indices
from topbill.policies.linear.policy import LinearParams, LinearPolicy, LinearScored


class _Scored(LinearScored):
    __slots__ = ("_bound", "alpha")
    alpha: float

    def probabilities(self, remaining: Indices) -> Floats:
        if not hasattr(self, "_bound"):
            self._bound: Floats = self.eta + self.alpha * self.sd
        return greedy(self._bound[remaining])


class LinUCBParams(LinearParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`alpha` scales exploration."""

    alpha: Annotated[
        float, msgspec.Meta(ge=0.0, description="posterior standard deviations above the mean")
    ] = 0.8


class LinUCB(LinearPolicy):
    """argmax of mean + alpha·width (Li, Chu, Langford and Schapire 2010, algorithm 1), ties shared.

    `alpha` counts posterior standard deviations on the link scale: logits (Filippi et al. 2010), or
    rewards with their noise estimated from the residuals, so one value serves clicks at 1% and at
    50%. The paper's algorithm is `model: disjoint, link: linear, prior_scale: 1`. Deterministic:
    only min_probability makes its log evaluable.
    """

    kind: ClassVar[str] = "linucb"
    deterministic: ClassVar[bool] = True

    Params: ClassVar[type[msgspec.Struct]] = LinUCBParams

    params: LinUCBParams

    def score(self, x: Floats, actions: Actions, seed: int) -> _Scored:  # noqa: ARG002
        scored = _Scored(self.model.predict(x, actions), self.model.noise, self._logistic)
        scored.alpha = self.params.alpha
        return scored
