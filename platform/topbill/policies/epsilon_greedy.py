"""ε-greedy: the best by estimate, and now and then any action; ε may decay with what was
learned.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from topbill.domain.chance import mostly_greedy
from topbill.domain.records import Actions, Floats, Indices
from topbill.policies.linear.chances import GREEDY, Chances
from topbill.policies.linear.models import ActionIndex, Prediction
from topbill.policies.linear.policy import LinearParams, LinearPolicy, LinearScored, Positive


class _Scored(LinearScored):
    __slots__ = ("epsilon",)

    def __init__(
        self, prediction: Prediction, noise: float, logistic: bool, *, epsilon: float
    ) -> None:
        super().__init__(prediction, noise, logistic)
        self.epsilon = epsilon

    def probabilities(self, remaining: Indices) -> Floats:
        return mostly_greedy(self.eta[remaining], self.epsilon)


class EpsilonGreedyParams(LinearParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """ε_n = epsilon/(1 + n/decay) after n learned examples; constant when decay is absent."""

    epsilon: Annotated[
        float, msgspec.Meta(ge=0.0, le=1.0, description="share of decisions that go to any action")
    ] = 0.1
    decay: Annotated[
        Positive | None, msgspec.Meta(description="learned examples after which epsilon has halved")
    ] = None


class EpsilonGreedy(LinearPolicy):
    """p(a) = (1 − ε)·1(a is best)/ties + ε/K (Sutton and Barto 2018, section 2.4)."""

    kind: ClassVar[str] = "epsilon_greedy"
    deterministic: ClassVar[bool] = False

    @staticmethod
    def own_spread(params: EpsilonGreedyParams) -> float:
        """ε; nothing where it decays."""
        return params.epsilon if params.decay is None else 0.0

    Params: ClassVar[type[msgspec.Struct]] = EpsilonGreedyParams

    params: EpsilonGreedyParams

    @property
    def epsilon(self) -> float:
        """The share of chance, after what was learned up to now."""
        epsilon = self.params.epsilon
        if self.params.decay is not None:
            epsilon /= 1.0 + self.learned / self.params.decay
        return epsilon

    def score(self, x: Floats, actions: Actions, seed: int) -> _Scored:  # noqa: ARG002
        prediction = self.predict(x, actions)
        return _Scored(prediction, self.noise, self.logistic, epsilon=self.epsilon)

    def chances(self, index: ActionIndex) -> Chances:  # noqa: ARG002
        return Chances(GREEDY, chance=self.epsilon)
